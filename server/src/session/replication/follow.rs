//! The follower's side: a stream to each core of each broker that leads a partition of this core, for as long as one does.
//!
//! ```text
//! news: appended, durable, another role ─► Partition::report ─► fetches ─► leader
//! leader ─► answers ─► Partition::answered: append, truncate, begin again ─► flush ─► news
//! ```
//! On one connection a replica only gains: when a log was opened again, which may have lost what was reported, the stream begins anew.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    pin::pin,
    rc::Rc,
    time::Duration,
};

use futures::future::{Either, select};
use headwater_engine::Signal;
use headwater_protocol::id::{BrokerId, CoreId};

use super::{
    codec::{Asked, PARTITIONS_MAX, Told, read_answers, write_fetches},
    error::{LinkError, PeerError},
    frame::{Kind, begin, kind_of},
    hello::{Hello, read_welcome},
    proof,
};
use crate::{
    core::warn_seldom,
    image::{Assignment, Incarnation},
    machine::{self, Stream},
    model::id::PartitionId,
    partition::{
        Partition, Partitions,
        replicated::Standing,
        replication::{Answer, News},
    },
    session::{
        channel::{self, Channel},
        frame::{FrameLimits, FrameReader},
        sessions::Sessions,
        transfer::Sender,
    },
};

/// The largest frame of answers, in bytes: the largest batch that any broker can be configured to store, and room for the rest.
const ANSWER_FRAME_BYTES_MAX: u32 = (256 + 16) << 20;

/// Records of one partition that may be on their way at once, in bytes.
const WINDOW_BYTES: u32 = 4 << 20;

/// So long a connection, and the first word on it, may take.
const GREETING_WAIT: Duration = Duration::from_secs(5);

/// Between the first two attempts to connect; it doubles with each.
const RECONNECT_FIRST: Duration = Duration::from_millis(20);
const RECONNECT_LAST: Duration = Duration::from_secs(1);

/// A leader that has said nothing for so long is called.
const CALL_AFTER: Duration = Duration::from_secs(1);

/// One that was called and from which nothing has come for so long is not there, or is not reached on this connection.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A partition that the leader has refused asks again after so long.
const REFUSED_WAIT: Duration = Duration::from_millis(50);

/// A broker's core that leads.
type Leader = (BrokerId, CoreId);

/// The streams of one core.
pub(crate) struct Follows {
    sessions: Rc<Sessions>,
    streams: RefCell<BTreeMap<Leader, Rc<Outward>>>,
    /// Connections so far: the later has the higher number.
    connections: Cell<u64>,
}

/// One stream, connected or not.
struct Outward {
    leader: Leader,
    line: RefCell<Option<Rc<Line>>>,
    is_over: Cell<bool>,
    ended: Signal,
}

/// A stream while it is connected.
#[derive(Default)]
struct Line {
    news: Rc<News>,
    /// Partitions that were reported on it.
    spoken: RefCell<BTreeSet<PartitionId>>,
    /// Those that the leader has refused, to ask again.
    refused: RefCell<BTreeSet<PartitionId>>,
    is_refused: Signal,
}

impl Line {
    /// Carries a partition from now on.
    fn carry(&self, id: PartitionId, partition: &Partition) {
        if partition.is_carried_by(&self.news) {
            return;
        }
        if self.spoken.borrow().contains(&id) {
            self.news.end();
        } else {
            partition.reports_to(&self.news);
        }
    }

    fn refuses(&self, id: PartitionId) {
        self.refused.borrow_mut().insert(id);
        self.is_refused.notify();
    }

    /// Ends when the other side is silent though it was called, as when the connection has died without a word.
    async fn watch(&self, arrivals: &Cell<u64>) -> Result<Infallible, LinkError> {
        loop {
            let before = arrivals.get();
            machine::sleep(CALL_AFTER).await;
            if arrivals.get() != before {
                continue;
            }
            self.news.call();
            machine::sleep(SILENCE_MAX).await;
            if arrivals.get() == before {
                return Err(LinkError::Silent(CALL_AFTER + SILENCE_MAX));
            }
        }
    }

    async fn ask_again(&self) -> Infallible {
        loop {
            self.is_refused.until(|| !self.refused.borrow().is_empty()).await;
            machine::sleep(REFUSED_WAIT).await;
            for id in self.refused.take() {
                self.news.of(id);
            }
        }
    }
}

impl Outward {
    fn end(&self) {
        self.is_over.set(true);
        self.ended.notify();
        if let Some(line) = &*self.line.borrow() {
            line.news.end();
        }
    }

    async fn over(&self) {
        self.ended.until(|| self.is_over.get()).await;
    }
}

impl Follows {
    /// None yet.
    pub(crate) fn new(sessions: &Rc<Sessions>) -> Rc<Follows> {
        Rc::new(Follows {
            sessions: Rc::clone(sessions),
            streams: RefCell::default(),
            connections: Cell::new(0),
        })
    }

    fn partitions(&self) -> &Rc<Partitions> {
        &self.sessions.ops.partitions
    }

    fn of(&self, leader: Leader) -> Vec<(PartitionId, Rc<Partition>)> {
        let mut open = self.partitions().open_partitions();
        open.retain(|(_, partition)| partition.standing().and_then(Standing::leader) == Some(leader));
        open
    }

    /// Has each partition that follows carried by the stream to its leader, and ends those streams that carry none. To be called
    /// whenever a partition may have another role, or was opened.
    pub(crate) fn reconcile(self: &Rc<Self>) {
        let mut wanted: BTreeMap<Leader, Vec<(PartitionId, Rc<Partition>)>> = BTreeMap::new();
        for (id, partition) in self.partitions().open_partitions() {
            if let Some(leader) = partition.standing().and_then(Standing::leader) {
                wanted.entry(leader).or_default().push((id, partition));
            }
        }
        self.streams.borrow_mut().retain(|leader, stream| {
            let is_wanted = wanted.contains_key(leader);
            if !is_wanted {
                stream.end();
            }
            is_wanted
        });
        for (leader, partitions) in wanted {
            let known = self.streams.borrow().get(&leader).cloned();
            match known {
                Some(stream) => {
                    if let Some(line) = &*stream.line.borrow() {
                        for (id, partition) in partitions {
                            line.carry(id, &partition);
                        }
                    }
                }
                None => self.begin(leader),
            }
        }
    }

    fn begin(self: &Rc<Self>, leader: Leader) {
        let stream = Rc::new(Outward {
            leader,
            line: RefCell::default(),
            is_over: Cell::new(false),
            ended: Signal::default(),
        });
        self.streams.borrow_mut().insert(leader, Rc::clone(&stream));
        let follows = Rc::clone(self);
        machine::spawn(async move {
            let core = Rc::clone(&follows.sessions.core);
            let (kept, over) = (pin!(follows.keep(&stream)), pin!(stream.over()));
            select(select(kept, over), pin!(core.stopping())).await;
        });
    }

    /// Connects again whenever the connection has ended.
    async fn keep(self: &Rc<Self>, stream: &Outward) -> Infallible {
        let mut wait = RECONNECT_FIRST;
        loop {
            let mut is_welcome = false;
            let ended = self.connect(stream, &mut is_welcome).await;
            // Consumers are told to ask the leader.
            if let Some(line) = stream.line.take() {
                line.news.end();
            }
            let (broker, core) = stream.leader;
            match ended {
                Ok(never) => match never {},
                Err(LinkError::Over) => {}
                Err(error) => {
                    warn_seldom!(%broker, %core, %error, "a stream from a leader has ended; it is begun again");
                }
            }
            if is_welcome {
                wait = RECONNECT_FIRST;
            }
            machine::sleep(wait.mul_f64(0.75 + machine::random::<f64>() / 2.0)).await;
            wait = (wait * 2).min(RECONNECT_LAST);
        }
    }

    async fn connect(self: &Rc<Self>, stream: &Outward, is_welcome: &mut bool) -> Result<Infallible, LinkError> {
        let core = &self.sessions.core;
        let (broker, leader_core) = stream.leader;
        let assignment = self.partitions().assignment();
        let unknown = || LinkError::Peer(PeerError::Stranger(broker));
        let assignment = assignment.ok_or_else(unknown)?;
        let known = assignment.brokers.get(&broker).ok_or_else(unknown)?;
        let port = known.address.core_ports.get(usize::from(leader_core.get()));
        let port = *port.ok_or_else(unknown)?;
        let deadline = machine::now() + GREETING_WAIT;
        let connected = machine::until(deadline, machine::connect(&known.address.host, port, &core.disk));
        let connected: Stream = connected.await.ok_or(LinkError::Late(GREETING_WAIT))??;
        let limits = FrameLimits {
            size_max: ANSWER_FRAME_BYTES_MAX,
            wait_max: Duration::from_millis(core.config.limits.frame_wait_ms_max.get()),
        };
        let (peers, handshakes) = (self.sessions.tls.peers.as_ref(), &self.sessions.handshakes);
        let opened = channel::connect(connected, &known.address.host, &core.disk, peers, handshakes);
        let opened = machine::until(deadline, opened).await;
        let Channel { reading, writing, .. } = opened.ok_or(LinkError::Late(GREETING_WAIT))??;
        let mut reader = FrameReader::new(reading, Rc::clone(&self.sessions.read_buffers), limits);
        let sender = Sender::new(&writing, core);
        if let Some(secret) = &self.sessions.tls.secret {
            let proved = machine::until(deadline, proof::calling(secret, &mut reader, &writing, &sender));
            proved.await.ok_or(LinkError::Late(GREETING_WAIT))??;
        }
        let hello = self.hello(&assignment, stream.leader);
        sender.send_bytes(&begin(Kind::Hello, &hello.head(), 0), false).await?;
        let welcomed = machine::until(deadline, welcomed(&mut reader)).await;
        let said = welcomed.ok_or(LinkError::Late(GREETING_WAIT))??;
        if said != known.incarnation {
            let known = known.incarnation;
            return Err(PeerError::Incarnation { broker, said, known }.into());
        }
        *is_welcome = true;
        tracing::info!(%broker, core = %leader_core, "connected to a leader");
        self.talk(stream, &mut reader, &sender).await
    }

    fn hello(&self, assignment: &Assignment, (to, to_core): Leader) -> Hello {
        let connection = self.connections.get() + 1;
        self.connections.set(connection);
        Hello {
            cluster_id: self.sessions.ops.addresses.cluster_id.clone(),
            from: assignment.own,
            core: self.sessions.core.id,
            connection,
            to,
            to_core,
        }
    }

    async fn talk(
        self: &Rc<Self>,
        stream: &Outward,
        reader: &mut FrameReader,
        sender: &Sender<'_>,
    ) -> Result<Infallible, LinkError> {
        let line = Rc::new(Line::default());
        *stream.line.borrow_mut() = Some(Rc::clone(&line));
        for (id, partition) in self.of(stream.leader) {
            line.carry(id, &partition);
        }
        let arrivals = reader.arrivals();
        let (asking, taking) = (pin!(self.ask(&line, sender)), pin!(self.take_in(&line, reader)));
        let (speaking, watching) = (pin!(first_of(asking, taking)), pin!(line.watch(&arrivals)));
        let (again, over) = (pin!(line.ask_again()), pin!(line.news.over()));
        match select(pin!(first_of(speaking, watching)), select(again, over)).await {
            Either::Left((ended, _)) => ended,
            Either::Right(_) => Err(LinkError::Over),
        }
    }

    /// Tells the leader what there is of each partition of which there is news.
    async fn ask(&self, line: &Line, sender: &Sender<'_>) -> Result<Infallible, LinkError> {
        loop {
            let ids = line.news.take(PARTITIONS_MAX).await;
            let asked = ids.into_iter().filter_map(|id| {
                let fetch = self.partitions().get(id).ok()?.report()?;
                line.spoken.borrow_mut().insert(id);
                Some(Asked {
                    id,
                    fetch,
                    max_bytes: WINDOW_BYTES,
                })
            });
            let asked: Vec<Asked> = asked.collect();
            if line.news.answers_call() || !asked.is_empty() {
                sender.send_bytes(&write_fetches(&asked), false).await?;
            }
            // What has come to be known meanwhile leaves together.
            machine::yield_now().await;
        }
    }

    async fn take_in(self: &Rc<Self>, line: &Rc<Line>, reader: &mut FrameReader) -> Result<Infallible, LinkError> {
        let core = &self.sessions.core;
        loop {
            core.memory.room().await;
            let Some((header, _)) = reader.next().await? else {
                return Err(LinkError::Closed);
            };
            kind_of(&header, true)?;
            let frame = reader.frame(header);
            for told in read_answers(frame.head, frame.payload)? {
                self.take(line, told).await?;
            }
            reader.consume(header);
            machine::reap(&core.disk);
            machine::yield_now().await;
        }
    }

    async fn take(self: &Rc<Self>, line: &Rc<Line>, told: Told<&[u8]>) -> Result<(), LinkError> {
        let Told {
            id,
            place,
            answer,
            records,
        } = told;
        let Ok(partition) = self.partitions().get(id) else {
            return Ok(());
        };
        let core = &self.sessions.core;
        match answer {
            Err(why) => {
                tracing::debug!(partition = %id.index, %why, "a leader refuses");
                line.refuses(id);
            }
            Ok(answer @ Answer::Records(_)) => {
                let taken = partition.answered(core, place, answer, records).await;
                if taken.map_err(|source| LinkError::Log { id, source })? {
                    self.learn(id, &partition);
                }
            }
            // It takes long, and the other partitions need not wait for it.
            Ok(answer) => {
                let (follows, line) = (Rc::clone(self), Rc::clone(line));
                machine::spawn(async move {
                    let _working = follows.sessions.core.working();
                    match partition.answered(&follows.sessions.core, place, answer, &[]).await {
                        Ok(_) => follows.learn(id, &partition),
                        Err(error) => {
                            warn_seldom!(directory = %partition.log.directory().display(), %error, "a replica could not be made the same as its leader's; it is tried again");
                            line.news.end();
                        }
                    }
                });
            }
        }
        Ok(())
    }

    /// What came while the log was cut.
    fn learn(self: &Rc<Self>, id: PartitionId, partition: &Partition) {
        self.partitions().learn(id, partition);
        self.reconcile();
    }
}

/// What comes of the one that is over first.
async fn first_of<T>(one: impl Future<Output = T> + Unpin, other: impl Future<Output = T> + Unpin) -> T {
    match select(one, other).await {
        Either::Left((first, _)) | Either::Right((first, _)) => first,
    }
}

/// The incarnation of whoever was reached.
async fn welcomed(reader: &mut FrameReader) -> Result<Incarnation, LinkError> {
    let Some((header, _)) = reader.next().await? else {
        return Err(LinkError::Closed);
    };
    kind_of(&header, false)?;
    let welcome = read_welcome(reader.frame(header).head)?;
    reader.consume(header);
    match welcome {
        Ok(welcome) => Ok(welcome.incarnation),
        Err((code, why)) => Err(LinkError::Refused { code, why }),
    }
}
