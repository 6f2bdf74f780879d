//! What brokers ask of each other for transactions: markers into partitions that another leads, and whether a partition is part of a
//! transaction that another coordinates. A connection for each pair of cores, for as long as there is something to ask.
//!
//! ```text
//! asking core:  errands -> [line] all that wait, in one frame -> answers, one frame -> whoever asked
//! asked core:   frame -> each errand, all at the same time -> one frame
//! ```
//! A frame has the hello of whoever asks as its head, and a welcome or a refusal as that of the answer, so that each is admitted anew.

mod codec;

use std::{collections::BTreeMap, convert::Infallible, pin::pin, rc::Rc, time::Duration};

use futures::{
    FutureExt as _, StreamExt as _,
    channel::mpsc,
    future::{Either, join_all, select},
};
use headwater_protocol::{
    error::ErrorCode,
    frame::FrameHeader,
    id::{BrokerId, CoreId},
};

use self::codec::{read_answers, read_errands, write_answers, write_errands};
use super::{
    admission::{Admission, Here},
    error::{LinkError, PeerError},
    frame::{Kind, VERSION, begin},
    hello::{Hello, Welcome, read_welcome, write_welcome},
    proof,
};
use crate::{
    coordinator::transactions::service,
    core::{
        errands::{Done, Errands, Sent},
        warn_seldom,
    },
    machine::{self, Stream},
    model::transaction::{Answer, Errand, Request},
    session::{
        channel::{self, Channel, Writing},
        frame::{FrameLimits, FrameReader},
        sessions::Sessions,
        transfer::Sender,
    },
};

/// The largest frame, in bytes: all partitions that the record of a transaction can name, and room for the rest.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// Errands of one frame.
pub(super) const AT_ONCE: usize = 64;

/// So long a connection, and the first word on it, may take.
const GREETING_WAIT: Duration = Duration::from_secs(5);

/// So long an answer may take. What is asked can be asked again.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A connection on which nobody has asked anything for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Those who ask fail at once for so long after a broker could not be reached, so that it is not called without end.
const CALL_AGAIN: Duration = Duration::from_millis(20);

type Target = (BrokerId, CoreId);

/// Runs what is asked on this core until it stops.
pub(crate) async fn run(sessions: Rc<Sessions>, errands: Rc<Errands>) {
    let Some(mut inbox) = errands.inbox() else { return };
    let mut lines: BTreeMap<Target, mpsc::UnboundedSender<Sent>> = BTreeMap::new();
    loop {
        let sent = match select(inbox.next(), pin!(sessions.core.stopping())).await {
            Either::Left((Some(sent), _)) => sent,
            Either::Left((None, _)) | Either::Right(_) => return,
        };
        let line = lines.entry(sent.to).or_insert_with(|| {
            let (line, queue) = mpsc::unbounded();
            machine::spawn(keep(Rc::clone(&sessions), sent.to, queue));
            line
        });
        // The line ends with the core; whoever asked is told by the loss of the errand.
        let _ = line.unbounded_send(sent);
    }
}

/// One line: connects when there is something to ask.
async fn keep(sessions: Rc<Sessions>, to: Target, mut queue: mpsc::UnboundedReceiver<Sent>) {
    loop {
        let first = match select(queue.next(), pin!(sessions.core.stopping())).await {
            Either::Left((Some(first), _)) => first,
            Either::Left((None, _)) | Either::Right(_) => return,
        };
        let talked = Box::pin(talk(&sessions, to, first, &mut queue));
        let ended = match select(talked, pin!(sessions.core.stopping())).await {
            Either::Left((ended, _)) => ended,
            Either::Right(_) => return,
        };
        if let Err(error) = ended {
            let (broker, core) = to;
            warn_seldom!(%broker, %core, %error, "a broker could not be asked about transactions; it is tried again");
            machine::sleep(CALL_AGAIN).await;
            while let Some(Some(lost)) = queue.next().now_or_never() {
                fail(lost);
            }
        }
    }
}

fn fail(lost: Sent) {
    // Whoever asked may have gone.
    let _ = lost.reply.send(Err(ErrorCode::NetworkException));
}

/// Asks until there is nothing more to ask. What is lost with an error is told so by its loss.
async fn talk(
    sessions: &Rc<Sessions>,
    to: Target,
    first: Sent,
    queue: &mut mpsc::UnboundedReceiver<Sent>,
) -> Result<(), LinkError> {
    let core = &sessions.core;
    let (hello, mut reader, writing) = connect(sessions, to).await?;
    let sender = Sender::new(&writing, core);
    exchange(&hello, &[], (&mut reader, &sender), GREETING_WAIT).await?;
    let mut next = Some(first);
    loop {
        let first = match next.take() {
            Some(first) => first,
            None => match machine::until(machine::now() + IDLE_MAX, queue.next()).await {
                Some(Some(first)) => first,
                Some(None) | None => return Ok(()),
            },
        };
        let mut asked = vec![first];
        while asked.len() < AT_ONCE
            && let Some(Some(more)) = queue.next().now_or_never()
        {
            asked.push(more);
        }
        let errands: Vec<&Errand> = asked.iter().map(|sent| &sent.errand).collect();
        let answers = exchange(&hello, &errands, (&mut reader, &sender), ANSWER_WAIT).await?;
        for (sent, answer) in asked.into_iter().zip(answers) {
            // Whoever asked may have gone.
            let _ = sent.reply.send(answer);
        }
    }
}

async fn connect(sessions: &Rc<Sessions>, to: Target) -> Result<(Hello, FrameReader, Writing), LinkError> {
    let (core, (broker, to_core)) = (&sessions.core, to);
    let unknown = || LinkError::Peer(PeerError::Stranger(broker));
    let assignment = sessions.ops.partitions.assignment().ok_or_else(unknown)?;
    let known = assignment.brokers.get(&broker).ok_or_else(unknown)?;
    let port = known.address.core_ports.get(usize::from(to_core.get()));
    let port = *port.ok_or_else(unknown)?;
    let deadline = machine::now() + GREETING_WAIT;
    let late = || LinkError::Late(GREETING_WAIT);
    let connected = machine::until(deadline, machine::connect(&known.address.host, port, &core.disk));
    let connected: Stream = connected.await.ok_or_else(late)??;
    let (peers, handshakes) = (sessions.tls.peers.as_ref(), &sessions.handshakes);
    let opened = channel::connect(connected, &known.address.host, &core.disk, peers, handshakes);
    let Channel { reading, writing, .. } = machine::until(deadline, opened).await.ok_or_else(late)??;
    let limits = FrameLimits {
        size_max: FRAME_BYTES_MAX,
        wait_max: Duration::from_millis(core.config.limits.frame_wait_ms_max.get()),
    };
    let mut reader = FrameReader::new(reading, Rc::clone(&sessions.read_buffers), limits);
    if let Some(secret) = &sessions.tls.secret {
        let sender = Sender::new(&writing, core);
        let proved = machine::until(deadline, proof::calling(secret, &mut reader, &writing, &sender));
        proved.await.ok_or_else(late)??;
    }
    let hello = Hello {
        cluster_id: sessions.ops.addresses.cluster_id.clone(),
        from: assignment.own,
        core: core.id,
        connection: 0,
        to: broker,
        to_core,
    };
    Ok((hello, reader, writing))
}

/// One frame there and one back.
async fn exchange(
    hello: &Hello,
    errands: &[&Errand],
    (reader, sender): (&mut FrameReader, &Sender<'_>),
    wait: Duration,
) -> Result<Vec<Done>, LinkError> {
    let body = write_errands(errands);
    let mut frame = begin(Kind::Errand, &hello.head(), body.len());
    frame.extend_from_slice(&body);
    sender.send_bytes(&frame, false).await?;
    let answered = machine::until(machine::now() + wait, reader.next()).await;
    let Some((header, _)) = answered.ok_or(LinkError::Late(wait))?? else {
        return Err(LinkError::Closed);
    };
    check_kind(&header)?;
    let frame = reader.frame(header);
    let answers = match read_welcome(frame.head)? {
        Ok(_) => read_answers(frame.payload, errands.len()),
        Err((code, why)) => return Err(LinkError::Refused { code, why }),
    };
    let answers = answers.map_err(|_malformed| PeerError::Contradiction("answers that cannot be read"))?;
    reader.consume(header);
    Ok(answers)
}

fn check_kind(header: &FrameHeader) -> Result<(), PeerError> {
    if header.api != Kind::Errand as u16 {
        return Err(PeerError::Kind(header.api));
    }
    if header.version != VERSION {
        let version = header.version;
        return Err(PeerError::Version {
            min: version,
            max: version,
            ours: VERSION,
        });
    }
    Ok(())
}

/// Serves another broker's core for as long as it is connected. The header is that of its first frame, which the reader still has.
pub(crate) async fn serve(
    sessions: &Sessions,
    reader: &mut FrameReader,
    socket: &Writing,
    mut header: FrameHeader,
) -> Result<Infallible, LinkError> {
    let core = &sessions.core;
    let sender = Sender::new(socket, core);
    loop {
        check_kind(&header)?;
        let frame = reader.frame(header);
        let greeted = greet(sessions, frame.head);
        let welcome = write_welcome(greeted.as_ref());
        let body = match &greeted {
            Ok(_) => {
                let errands = read_errands(frame.payload);
                let errands = errands.map_err(|_malformed| PeerError::Contradiction("errands that cannot be read"))?;
                reader.consume(header);
                let _working = core.working();
                write_answers(&join_all(errands.into_iter().map(|errand| do_it(sessions, errand))).await)
            }
            Err(_) => Vec::new(),
        };
        let mut frame = begin(Kind::Errand, &welcome, body.len());
        frame.extend_from_slice(&body);
        sender.send_bytes(&frame, false).await?;
        greeted?;
        reader.expect(FrameLimits {
            size_max: FRAME_BYTES_MAX,
            wait_max: Duration::from_millis(core.config.limits.frame_wait_ms_max.get()),
        });
        let next = match select(pin!(reader.next()), pin!(core.unneeded())).await {
            Either::Left((next, _)) => next?,
            Either::Right(_) => return Err(LinkError::Over),
        };
        header = next.ok_or(LinkError::Closed)?.0;
    }
}

fn greet(sessions: &Sessions, head: &[u8]) -> Result<Welcome, PeerError> {
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
    Admission::check(&hello, &here, known)?;
    let incarnation = assignment.own.incarnation;
    Ok(Welcome { incarnation })
}

async fn do_it(sessions: &Sessions, errand: Errand) -> Done {
    let transactions = &sessions.ops.transactions;
    match errand {
        Errand::Mark(marker, ids) => Ok(transactions.marks.mark_here(marker, &ids).await),
        Errand::Add {
            id,
            producer,
            places,
            adding,
        } => {
            let request = Request::Add {
                producer,
                places,
                adding,
            };
            match service::call(transactions, id, request).await {
                Ok(Answer::Added(codes)) => Ok(codes),
                Ok(_) => Err(ErrorCode::UnknownServerError),
                Err(refusal) => Err(refusal.code),
            }
        }
    }
}
