//! The leader's side of a stream: takes in what a follower's core has and wants, and sends what comes next as soon as it is there.
//!
//! ```text
//! take_in:   fetches ─► Partition::fetched (watermark, acknowledgements) ─► cursor: where the follower is
//! send_out:  news: appended, watermark moved, reported ─► Partition::goes_on ─► Log::fetch up to its end ─► head and records
//! ```
//! Records are sent at append, before they are flushed here, so that all replicas flush at the same time. What is cold is read as for
//! consumers, with the core's memory for cold reads as the limit, so that a follower that catches up takes no more than those do; and one
//! that is not in sync has to wait for its turn (`pacing`).

use std::{cell::RefCell, convert::Infallible, io, pin::pin, rc::Rc, time::Duration};

use futures::future::{Either, select};
use headwater_engine::ReadLimit;
use headwater_protocol::{error::ErrorCode, frame::FrameHeader, id::LeaderEpoch};

use super::{
    admission::Here,
    codec::{Asked, PARTITIONS_MAX, Told, read_fetches, write_answers},
    cursor::Cursor,
    error::{LinkError, PeerError},
    frame::{Kind, begin, kind_of},
    hello::{Hello, Welcome, write_welcome},
    pacing::Pacing,
};
use crate::{
    machine::{self, HashMap},
    model::id::PartitionId,
    ops::fetch::Records,
    partition::{
        Partition,
        replicated::Haste,
        replication::{Answer, FetchRefused, News, Peer, Place, read_from},
    },
    session::{
        channel::Writing,
        frame::{FrameLimits, FrameReader},
        outbox::Piece,
        sessions::Sessions,
        transfer::Sender,
    },
};

/// The largest frame of fetches, in bytes: as many partitions as one may speak of, and room for the rest.
const FETCH_FRAME_BYTES_MAX: u32 = 2 << 20;

/// Records of one frame, in bytes, unless a batch alone is larger.
const FRAME_RECORD_BYTES: u64 = 1 << 20;

/// Partitions that one frame speaks of. What others have to say is not kept waiting for long.
const PARTITIONS_AT_ONCE: usize = 1024;

/// Partitions that one stream may speak of at all.
const STREAM_PARTITIONS_MAX: usize = 16 * PARTITIONS_MAX;

/// What is to be said of a partition.
#[derive(Debug)]
enum Saying {
    /// Records, as they come.
    Goes(Cursor),
    /// This, once: then the follower speaks.
    Says(Place, Result<Answer, ErrorCode>),
}

/// One follower's core.
struct Link<'a> {
    sessions: &'a Sessions,
    peer: Peer,
    news: Rc<News>,
    sayings: RefCell<HashMap<PartitionId, Saying>>,
    pacing: Pacing,
}

/// Serves a follower for as long as it is connected. The header is that of its first frame, which the reader still has.
pub(crate) async fn serve(
    sessions: &Sessions,
    reader: &mut FrameReader,
    socket: &Writing,
    header: FrameHeader,
) -> Result<Infallible, LinkError> {
    let core = &sessions.core;
    let greeted = greet(sessions, header, reader.frame(header).head);
    reader.consume(header);
    let sender = Sender::new(socket, core);
    let welcome = write_welcome(greeted.as_ref().map(|(welcome, ..)| welcome));
    sender.send_bytes(&begin(Kind::Hello, &welcome, 0), false).await?;
    let (_, hello, peer, news) = greeted?;
    reader.expect(FrameLimits {
        size_max: FETCH_FRAME_BYTES_MAX,
        wait_max: Duration::from_millis(core.config.limits.frame_wait_ms_max.get()),
    });
    let from = (hello.from.broker, hello.core);
    tracing::info!(broker = %from.0, core = %from.1, "a follower is connected");
    let link = Link {
        sessions,
        peer,
        news,
        sayings: RefCell::default(),
        pacing: Pacing::new(&core.catch_up),
    };
    let ended = link.run(reader, &sender).await;
    sessions.links.ended(from, &link.news);
    ended
}

/// Who has connected, if it may.
fn greet(sessions: &Sessions, header: FrameHeader, head: &[u8]) -> Result<(Welcome, Hello, Peer, Rc<News>), PeerError> {
    kind_of(&header, false)?;
    let hello = Hello::read(head)?;
    let ops = &sessions.ops;
    let assignment = ops.partitions.assignment();
    let assignment = assignment.ok_or(PeerError::Stranger(hello.from.broker))?;
    let here = Here {
        cluster_id: ops.addresses.cluster_id.clone(),
        broker: assignment.own,
        core: sessions.core.id,
    };
    let known = assignment.brokers.get(&hello.from.broker).map(AsRef::as_ref);
    let (peer, news) = sessions.links.admit(&hello, &here, known)?;
    let incarnation = assignment.own.incarnation;
    Ok((Welcome { incarnation }, hello, peer, news))
}

impl Link<'_> {
    async fn run(&self, reader: &mut FrameReader, sender: &Sender<'_>) -> Result<Infallible, LinkError> {
        let (taking, sending) = (pin!(self.take_in(reader)), pin!(self.send_out(sender)));
        let (over, unneeded) = (pin!(self.news.over()), pin!(self.sessions.core.unneeded()));
        let speaking = select(taking, sending);
        let pacing = pin!(self.pacing.run(&self.news));
        match select(select(speaking, pacing), select(over, unneeded)).await {
            Either::Left((Either::Right((never, _)), _)) => match never {},
            Either::Left((Either::Left((Either::Left((ended, _)) | Either::Right((ended, _)), _)), _)) => ended,
            Either::Right(_) => Err(LinkError::Over),
        }
    }

    async fn take_in(&self, reader: &mut FrameReader) -> Result<Infallible, LinkError> {
        loop {
            let Some((header, _)) = reader.next().await? else {
                return Err(LinkError::Closed);
            };
            kind_of(&header, true)?;
            let frame = reader.frame(header);
            let fetches = read_fetches(frame.head, frame.payload.len())?;
            if fetches.is_empty() {
                self.news.call();
            }
            for asked in fetches {
                self.fetched(asked)?;
            }
            reader.consume(header);
            let count = self.sayings.borrow().len();
            if count > STREAM_PARTITIONS_MAX {
                let max = STREAM_PARTITIONS_MAX;
                return Err(PeerError::TooMany { count, max }.into());
            }
            machine::reap(&self.sessions.core.disk);
            machine::yield_now().await;
        }
    }

    /// A follower says what it has of a partition.
    fn fetched(&self, asked: Asked) -> Result<(), PeerError> {
        let Asked { id, fetch, max_bytes } = asked;
        let core = &self.sessions.core;
        let answer = match self.partition(id) {
            Ok(partition) => match partition.fetched(core, self.peer, &fetch, &self.news) {
                Err(FetchRefused::Stale) => return Err(PeerError::Replayed),
                Err(FetchRefused::Contradiction) => {
                    return Err(PeerError::Contradiction("a replica has more than it goes on from"));
                }
                answer => answer.map_err(|why| why.code()),
            },
            Err(refused) => Err(refused),
        };
        let mut sayings = self.sayings.borrow_mut();
        let window = u64::from(max_bytes);
        if let (Ok(Answer::Records(_)), Some(Saying::Goes(cursor))) = (&answer, sayings.get_mut(&id))
            && cursor.reports(fetch.place, window)
        {
            self.news.of(id);
            return Ok(());
        }
        let saying = match answer {
            Ok(Answer::Records(_)) => Saying::Goes(Cursor::new(fetch.place, window)),
            answer => Saying::Says(fetch.place, answer),
        };
        sayings.insert(id, saying);
        self.news.of(id);
        Ok(())
    }

    fn partition(&self, id: PartitionId) -> Result<Rc<Partition>, ErrorCode> {
        let partition = self.sessions.ops.partitions.get(id);
        partition.map_err(|refusal| refusal.code)
    }

    async fn send_out(&self, sender: &Sender<'_>) -> Result<Infallible, LinkError> {
        loop {
            let ids = self.news.take(PARTITIONS_AT_ONCE).await;
            let (mut told, mut records) = (Vec::new(), Vec::new());
            let mut room = FRAME_RECORD_BYTES;
            for id in ids {
                if room == 0 {
                    self.news.of(id);
                    continue;
                }
                let Some((answer, range)) = self.say(id, room).await else {
                    continue;
                };
                room = room.saturating_sub(answer.records as u64);
                told.push(answer);
                records.extend(range);
            }
            if self.news.answers_call() || !told.is_empty() {
                let records = records.into_iter().map(Piece::Records).collect();
                let sent = sender.send(&write_answers(&told), records).await;
                sent.map_err(io::Error::from)?;
                machine::reap(&self.sessions.core.disk);
            }
            machine::yield_now().await;
        }
    }

    /// What there is to say of a partition now, if there is anything, with no more bytes of records than that, or one batch.
    async fn say(&self, id: PartitionId, room: u64) -> Option<(Told<usize>, Option<Records>)> {
        let told = |place, answer, records| Told {
            id,
            place,
            answer,
            records,
        };
        let turn = self.pacing.turn_of(id);
        let (place, window) = {
            let mut sayings = self.sayings.borrow_mut();
            match sayings.get(&id) {
                None => return None,
                Some(Saying::Goes(cursor)) => (cursor.next(), cursor.room()),
                Some(Saying::Says(place, answer)) => {
                    let said = told(*place, *answer, 0);
                    sayings.remove(&id);
                    return Some((said, None));
                }
            }
        };
        let partition = match self.partition(id) {
            Ok(partition) => partition,
            Err(code) => return Some(self.says_last(told(place, Err(code), 0))),
        };
        let progress = match partition.goes_on(place).map_err(|why| why.code()) {
            Ok(Answer::Records(progress)) => progress,
            answer => return Some(self.says_last(told(place, answer, 0))),
        };
        let log = &partition.log;
        let haste = partition.haste(self.peer.member.broker);
        let mut most = window.min(room);
        if haste != Haste::InTurn {
            self.pacing.is_done(id);
        } else if most > 0 && place.offset < log.offsets().end {
            let (lacks, appended) = (log.bytes_from(place.offset), partition.appended_bytes.get());
            let allowed = self.pacing.room(id, lacks, appended, turn.as_ref());
            most = most.min(allowed.unwrap_or(0));
        }
        let mut range = None;
        if most > 0 && place.offset < log.offsets().end {
            let from = read_from(log, place.offset);
            match log.fetch(from, most, ReadLimit::LogEnd).await {
                Ok(fetched) => range = fetched.range,
                Err(error) => return Some(self.says_last(told(place, Err(error.code()), 0))),
            }
            if partition.led() != Ok(place.leader_epoch) {
                // The records may be another leader's.
                range = None;
                self.news.of(id);
            }
        }
        let mut sayings = self.sayings.borrow_mut();
        // It may have said meanwhile that it is elsewhere: then there is news of it again.
        let cursor = match sayings.get_mut(&id) {
            Some(Saying::Goes(cursor)) if cursor.next() == place => cursor,
            _ => return None,
        };
        let Some(range) = range else {
            let answer = told(place, Ok(Answer::Records(progress)), 0);
            return cursor.tells(progress).then_some((answer, None));
        };
        let after = Place {
            offset: range.next_offset(),
            last_epoch: log.epoch_before(range.next_offset()).unwrap_or(LeaderEpoch::NONE),
            ..place
        };
        cursor.sends(range.len(), after);
        if haste != Haste::InSync {
            self.sessions.core.metrics.catches_up(range.len());
        }
        if haste == Haste::InTurn {
            let appended = partition.appended_bytes.get();
            self.pacing.sent(id, range.len(), appended, turn.as_ref());
        }
        cursor.tells(progress);
        if after.offset < log.offsets().end && cursor.room() > 0 {
            self.news.of(id);
        }
        let answer = told(place, Ok(Answer::Records(progress)), range.len() as usize);
        Some((answer, Some(Records::Here(range))))
    }

    /// Nothing more is said before the follower has spoken.
    fn says_last(&self, told: Told<usize>) -> (Told<usize>, Option<Records>) {
        self.sayings.borrow_mut().remove(&told.id);
        (told, None)
    }
}
