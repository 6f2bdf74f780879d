//! One connection: a loop that takes requests in and a loop that sends responses, on the core that accepted it.
//!
//! Requests are taken in one after the other, so produce requests are appended in the order of their arrival; everything that
//! waits is a task of its own, and responses leave in the order in which they are ready. Before a request is taken in there
//! must be room for it: in the connection's share, in the core's, in the tail buffers, and for its response among those that
//! the client has not read yet. Otherwise the socket is not read. Requests that only wait, for records or for other members of
//! a group, end as soon as the client sends nothing more: it has gone, or soon will. Of what has come of a client that cannot be
//! answered any more, records that need no answer are taken in all the same, and nothing else: who has sent it does not know what became
//! of it, and may have said something newer elsewhere meanwhile, such as where its group is.

use std::{
    convert::Infallible,
    error::Error,
    future::{self, Future},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{Either, select},
    poll,
};
use headwater_protocol::{frame::FrameHeader, stranger::Stranger};

use super::{
    channel::{self, Channel, Reading, Writing},
    entry::{ENTRY_MAX, OUTSIDE_LEN_MAX},
    frame::{FrameHead, FrameLimits, FrameReader, ReadError},
    kafka::Kafka,
    listener::Speaks,
    native::dispatch::Native,
    peer::Connection,
    protocol::{Protocol, Taken, Unread},
    replication,
    sessions::Sessions,
    transfer::{SendError, Sender},
};
use crate::{
    core::{Admitted, Core, warn_seldom},
    machine::{self, Stream},
    metrics::Stage,
    model::group::Client,
    tls::ClusterSecret,
};

/// So long a connection takes in what has come already, or sends what is there, before others have a turn. Each turn costs system
/// calls.
const TURN_MAX: Duration = Duration::from_micros(50);

/// So long a connection is held up at once before its quotas are looked at again.
const HELD_MAX: Duration = Duration::from_millis(250);

/// Serves a connection until either side ends it.
pub(crate) async fn serve(sessions: Rc<Sessions>, stream: Stream, speaks: Speaks, admitted: Admitted) {
    let host = stream.peer().map_or_else(String::new, |peer| peer.to_string());
    let Some(channel) = open(&sessions, stream, &host, speaks).await else {
        return;
    };
    let Channel {
        reading,
        writing,
        shown,
    } = channel;
    let connection = Connection::new(&sessions.core, host, shown);
    match speaks {
        Speaks::Native => {
            let reader = reader(&sessions, reading, &connection);
            end(
                &connection,
                run(&sessions, &connection, reader, &writing, admitted).await,
            );
        }
        Speaks::Kafka => {
            let mut reader = reader(&sessions, reading, &connection);
            let served = serve_client::<Kafka>(&sessions, &connection, &mut reader, &writing).await;
            end(&connection, served.map(|_ended| ()));
        }
    }
}

/// Agrees on TLS where the port has it. None: the connection has ended, and it was said why.
async fn open(sessions: &Sessions, stream: Stream, host: &str, speaks: Speaks) -> Option<Channel> {
    let (core, tls) = (&sessions.core, &sessions.tls);
    let served = match speaks {
        Speaks::Native => tls.native.as_ref(),
        Speaks::Kafka => tls.kafka.as_ref(),
    };
    let peers = tls.peers.as_ref().filter(|_| matches!(speaks, Speaks::Native));
    let watch = (&sessions.handshakes, &core.metrics);
    let accepted = pin!(channel::accept(stream, &core.disk, (served, peers), watch));
    let error = match select(accepted, pin!(core.stopping())).await {
        Either::Left((Ok(channel), _)) => return Some(channel),
        Either::Left((Err(error), _)) => error,
        Either::Right(_) => return None,
    };
    if served.is_some() {
        warn_seldom!(peer = %host, reason = %error, port = speaks.section(), "a connection is closed: TLS could not be agreed on");
    } else {
        tracing::debug!(%host, %error, "a connection has ended");
    }
    None
}

fn reader<H: FrameHead>(sessions: &Sessions, reading: Reading, connection: &Connection) -> FrameReader<H> {
    let limits = frame_limits(&sessions.core, connection);
    FrameReader::new(reading, Rc::clone(&sessions.read_buffers), limits)
}

/// Who has not come in yet has little to say.
fn frame_limits(core: &Core, connection: &Connection) -> FrameLimits {
    let limits = &core.config.limits;
    let (size_max, wait_max) = if connection.entry.is_outside() {
        (OUTSIDE_LEN_MAX, ENTRY_MAX)
    } else {
        (u32::MAX, Duration::MAX)
    };
    FrameLimits {
        size_max: size_max.min(limits.frame_size_bytes_max.bytes() as u32),
        wait_max: wait_max.min(Duration::from_millis(limits.frame_wait_ms_max.get())),
    }
}

fn end<E: Error>(connection: &Connection, served: Result<(), E>) {
    if let Err(error) = served {
        let Client { id, host } = &*connection.client();
        tracing::debug!(client = ?id, %host, %error, "a connection has ended");
    }
    connection.ending.set(true);
    connection.outbox.close();
}

/// How the requests of a connection have ended.
enum Ended<H> {
    /// The client has left, or the broker stops.
    Left,
    /// The first frame was another broker's, which is not taken in yet.
    Peer(H),
}

async fn run(
    sessions: &Rc<Sessions>,
    connection: &Rc<Connection>,
    mut reader: FrameReader<FrameHeader>,
    socket: &Writing,
    admitted: Admitted,
) -> Result<(), ReadError> {
    if let Ended::Peer(first) = serve_client::<Native>(sessions, connection, &mut reader, socket).await? {
        if sessions.tls.peers.is_some() && !connection.is_peer() {
            warn_seldom!(
                peer = connection.client().host,
                "a connection is closed: it says that it is a broker, and has not shown \
                a certificate of cluster.tls_ca; set cluster.tls_certificate there if it is one"
            );
            return Ok(());
        }
        let hello = match &sessions.tls.secret {
            None => first,
            Some(secret) => match Box::pin(prove(sessions, connection, secret, (&mut reader, socket), first)).await {
                Some(hello) => hello,
                None => return Ok(()),
            },
        };
        // It is no client, and is not waited for when there is none any more.
        drop(admitted);
        // A future of its own: it is large, and every connection would hold the space for it.
        if hello.api == replication::Kind::Errand as u16 {
            let Err(error) = Box::pin(replication::errands::serve(sessions, &mut reader, socket, hello)).await;
            tracing::debug!(peer = connection.client().host, %error, "a broker asks nothing more about transactions");
            return Ok(());
        }
        let ended = Box::pin(replication::lead::serve(sessions, &mut reader, socket, hello)).await;
        let Err(error) = ended;
        tracing::info!(peer = connection.client().host, %error, "a follower's stream has ended");
    }
    Ok(())
}

/// Has somebody who says that it is a broker prove that it knows the secret, and proves the same to it. The header of what it says then; none
/// if it is not listened to.
async fn prove(
    sessions: &Sessions,
    connection: &Connection,
    secret: &ClusterSecret,
    (reader, socket): (&mut FrameReader<FrameHeader>, &Writing),
    first: FrameHeader,
) -> Option<FrameHeader> {
    let sender = Sender::new(socket, &sessions.core);
    let proving = replication::proof::called(secret, (reader, socket, &sender), first);
    let why = match machine::until(machine::now() + ENTRY_MAX, proving).await {
        Some(Ok(hello)) => return Some(hello),
        Some(Err(error)) => error.to_string(),
        None => "it takes too long".to_owned(),
    };
    secret.has_refused();
    let peer = &connection.client().host;
    warn_seldom!(
        peer,
        why,
        "a connection is closed: it says that it is a broker, and has not proved it"
    );
    None
}

async fn serve_client<P: Protocol>(
    sessions: &Rc<Sessions>,
    connection: &Rc<Connection>,
    reader: &mut FrameReader<P::Head>,
    socket: &Writing,
) -> Result<Ended<P::Head>, Unread<P>> {
    let core = &sessions.core;
    let grace = Duration::from_millis(core.config.limits.shutdown_grace_ms.get());
    let sender = Sender::new(socket, core);
    let requests = pin!(take_in::<P>(sessions, connection, reader, socket));
    let responses = pin!(send_out(core, connection, &sender));
    match select(requests, responses).await {
        Either::Left((result, responses)) => {
            connection.ending.set(true);
            // What has been taken in is still answered, unless the client cannot be reached or the grace is over.
            let answered = pin!(connection.in_flight.below(1));
            let _ = machine::until(machine::now() + grace, select(answered, responses)).await;
            result
        }
        Either::Right((Silence::Meant(error), _)) => Err(error.into()),
        Either::Right((Silence::Unheard(error), requests)) => {
            connection.ending.set(true);
            // None of what is taken in now waits for room to be answered.
            connection.outbox.close();
            let _ = machine::until(machine::now() + grace, requests).await;
            Err(error.into())
        }
    }
}

/// Takes requests in until the client leaves, the broker stops, or what comes is not the protocol.
async fn take_in<P: Protocol>(
    sessions: &Rc<Sessions>,
    connection: &Rc<Connection>,
    reader: &mut FrameReader<P::Head>,
    socket: &Writing,
) -> Result<Ended<P::Head>, Unread<P>> {
    let core = &sessions.core;
    let mut is_first = true;
    let requests_max = core.config.limits.requests_in_flight_max as usize;
    let mut hangup = pin!(notice_hangup(connection, socket));
    let mut over = pin!(over(core, connection));
    let mut turn = machine::now();
    loop {
        if connection.meter.is_held() && !Box::pin(hold(core, connection, hangup.as_mut(), None::<P::Head>)).await {
            return Ok(Ended::Left);
        }
        let room = async {
            connection.held.is_down().await;
            connection.in_flight.below(requests_max).await;
            connection.in_order.room().await;
            connection.outbox.room().await;
            core.memory.room().await;
        };
        let (room, stopping) = (pin!(room), pin!(core.stopping()));
        if let Either::Right(_) = beside(connection, hangup.as_mut(), select(room, stopping)).await {
            return Ok(Ended::Left);
        }
        let next = {
            let next = pin!(next_header(connection, reader, over.as_mut()));
            waiting_begins_a_turn(next, &mut turn).await
        };
        let header = match next {
            Ok(Some((header, time))) => {
                core.metrics.passed(Stage::Receive, time);
                header
            }
            Ok(None) => return Ok(Ended::Left),
            Err(ReadError::Frame(error)) => {
                if let Some(stranger) = reader.stranger() {
                    meet::<P>(core, connection, stranger);
                }
                let lease = connection.lease(None::<P::Head>).await;
                P::refuse(sessions, connection, &error, lease);
                return Err(ReadError::Frame(error));
            }
            Err(error) => return Err(error),
        };
        if std::mem::take(&mut is_first) && P::is_peer(&header) {
            return Ok(Ended::Peer(header));
        }
        if core.quotas.are_set() && !Box::pin(hold(core, connection, hangup.as_mut(), Some(header))).await {
            return Ok(Ended::Left);
        }
        let lease = beside(connection, hangup.as_mut(), connection.lease(Some(header))).await;
        // Others may have filled them while the frame came.
        beside(connection, hangup.as_mut(), core.memory.room()).await;
        let was_outside = connection.entry.is_outside();
        let taken = {
            let taken = pin!(P::take(sessions, connection, (header, reader.bytes(header)), lease));
            connection.meter.time(taken).await
        };
        reader.consume(header);
        if was_outside && !connection.entry.is_outside() {
            reader.expect(frame_limits(core, connection));
        }
        if let Taken::Close(reason) = &taken {
            let client = connection.client();
            tracing::info!(reason, client = ?client.id, host = %client.host, "a connection is closed: its request cannot be answered");
            return Ok(Ended::Left);
        }
        if let Taken::Forget = taken {
            return Ok(Ended::Left);
        }
        // What the disk has done meanwhile, and the flush that this request may have started, must go on while the socket still
        // has more.
        machine::reap(&core.disk);
        end_turn(&mut turn).await;
    }
}

/// Waits while the client has used more than it may, and charges it for what comes now. `false`: the broker stops.
async fn hold(
    core: &Core,
    connection: &Connection,
    mut hangup: Pin<&mut impl Future<Output = Infallible>>,
    head: Option<impl FrameHead>,
) -> bool {
    if connection.entry.is_outside() {
        return true;
    }
    let is_produce = head.is_some_and(|head| head.is_produce());
    let is_fetch = head.is_some_and(|head| head.is_fetch());
    loop {
        connection.meter.look(connection.entry.asker(), connection.client());
        let Some(until) = connection.meter.held_until(is_produce, is_fetch) else {
            break;
        };
        // Other quotas may count meanwhile.
        let until = until.min(machine::now() + HELD_MAX);
        let waited = pin!(machine::until(until, core.stopping()));
        match select(waited, hangup.as_mut()).await {
            Either::Left((None, _)) => {}
            Either::Left((Some(()), _)) => return false,
            Either::Right((never, _)) => match never {},
        }
    }
    if let Some(head) = head.filter(|_| is_produce) {
        connection.meter.produces(head.frame_len());
    }
    true
}

/// While the socket is not read: notices if the client closes it. Otherwise what waits for records or for others of
/// a group would keep what this connection waits for.
async fn notice_hangup(connection: &Connection, socket: &Writing) -> Infallible {
    match socket.hung_up().await {
        Ok(()) => connection.ending.set(true),
        Err(error) => tracing::debug!(%error, "cannot notice that a client closes its connection"),
    }
    future::pending().await
}

/// Waits for room. Only while it does, the other runs.
async fn beside<F: Future>(
    connection: &Connection,
    hangup: Pin<&mut impl Future<Output = Infallible>>,
    room: F,
) -> F::Output {
    let mut room = pin!(room);
    if let Some(output) = room.as_mut().now_or_never() {
        return output;
    }
    connection.held_up.set(true);
    let output = match select(room, hangup).await {
        Either::Left((output, _)) => output,
        Either::Right((never, _)) => match never {},
    };
    connection.held_up.set(false);
    output
}

/// The next frame, or `None` when the client has left, or `over` is.
async fn next_header<H: FrameHead>(
    connection: &Connection,
    reader: &mut FrameReader<H>,
    over: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<(H, Duration)>, ReadError<H::Error>> {
    let mut next = pin!(reader.next());
    if let Poll::Ready(header) = poll!(next.as_mut()) {
        return header;
    }
    connection.quiet_since.set(machine::now());
    match select(next, over).await {
        Either::Left((header, _)) => header,
        Either::Right(_) => Ok(None),
    }
}

/// Resolves when the broker stops, or the client has been idle for too long. One timer for the whole connection: one for each request
/// would be set for nothing.
async fn over(core: &Core, connection: &Connection) {
    let idle_max = Duration::from_millis(core.config.limits.connection_idle_ms.get());
    let mut stopping = pin!(core.stopping());
    loop {
        let mut idle_end = connection.quiet_since.get() + idle_max;
        if connection.entry.is_outside() {
            let deadline = connection.entry.deadline;
            if machine::now() >= deadline {
                return;
            }
            idle_end = idle_end.min(deadline);
        }
        if machine::until(idle_end, stopping.as_mut()).await.is_some() {
            return;
        }
        // A client that waits for an answer is not idle.
        if connection.in_flight.count() > 0 {
            connection.quiet_since.set(machine::now());
        } else if connection.quiet_since.get() + idle_max <= machine::now() {
            return;
        }
    }
}

/// Somebody has the wrong port, or the wrong client: who runs the broker should hear of it.
fn meet<P: Protocol>(core: &Core, connection: &Connection, stranger: Stranger) {
    core.metrics.met(stranger);
    let peer = &connection.client().host;
    let advice = match stranger {
        Stranger::Http => "metrics are at metrics.listen",
        Stranger::Tls => "set tls_certificate of this port, or turn TLS off in the client",
        Stranger::Kafka => "Kafka's clients are served at kafka.listen",
        _ => "clients are those of Headwater",
    };
    warn_seldom!(%peer, advice, "a connection is closed: it speaks {stranger}, and this port {}", P::NAME);
}

/// Why no further responses are sent.
enum Silence {
    /// The client cannot be reached.
    Unheard(io::Error),
    /// It is there, and the end of the connection is to tell it that something is wrong.
    Meant(io::Error),
}

/// Sends responses while that is possible, and what the client should have.
async fn send_out(core: &Core, connection: &Connection, sender: &Sender<'_>) -> Silence {
    let Connection { outbox, meter, .. } = connection;
    let mut turn = machine::now();
    loop {
        let next = waiting_begins_a_turn(pin!(outbox.next()), &mut turn).await;
        let Some(mut outgoing) = next else {
            return Silence::Meant(io::Error::other("a request without acknowledgement has failed"));
        };
        let began = machine::now();
        let records = std::mem::take(&mut outgoing.records);
        let sent = {
            let sending = pin!(sender.send(&outgoing.frames, records));
            meter.time(sending).await
        };
        core.metrics.passed(Stage::Send, machine::since(began));
        outbox.done(outgoing);
        match sent {
            Ok(()) => {}
            Err(SendError::Socket(error)) => return Silence::Unheard(error),
            Err(SendError::Records(error)) => return Silence::Meant(error),
        }
        machine::reap(&core.disk);
        end_turn(&mut turn).await;
    }
}

/// Gives way to others if the turn is over.
async fn end_turn(turn: &mut Instant) {
    if machine::since(*turn) >= TURN_MAX {
        machine::yield_now().await;
        *turn = machine::now();
    }
}

/// Others have had theirs meanwhile, if this has to be waited for.
async fn waiting_begins_a_turn<F: Future>(mut next: Pin<&mut F>, turn: &mut Instant) -> F::Output {
    if let Poll::Ready(output) = poll!(next.as_mut()) {
        return output;
    }
    let output = next.await;
    *turn = machine::now();
    output
}
