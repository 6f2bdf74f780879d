//! Agreeing on TLS, without holding up the core: one step of one handshake in a turn, so many handshakes at once, each within a limit
//! of time.
//!
//! While a handshake waits for its peer it holds a socket and what rustls keeps of it. When more are under way than
//! `limits.handshakes_max` says, the one that has been at it the longest gives way: peers who mean it are done in a few round trips, and
//! those who open connections and say nothing only drive out each other.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures::future::{Either, select};
use headwater_engine::Signal;
use headwater_protocol::stranger::Stranger;
use rustls::{
    ClientConnection, Connection, ServerConfig,
    server::{Accepted, Acceptor},
};

use super::{
    ends::{Channel, Reading, Shown, Writing},
    secure::{Outward, Scratch, SecureReading, SecureWriting, broken, push},
};
use crate::{
    core::budget::Budget,
    machine::{self, Disk, Socket, Stream},
    metrics::{CoreMetrics, Handshake},
    tls::{PEER_ALPN, Peers, Served, in_words},
};

/// Bytes that are taken of a peer at once, and kept until their turn has come.
const HEARD_BYTES: usize = 16 * 1024;

/// Why TLS was not agreed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The peer has gone.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It speaks something else.
    #[error("it speaks {0} without TLS, and this port takes TLS only: set TLS in the client")]
    Plain(&'static str),
    /// It is not trusted, or has nothing in common with this side.
    #[error("{}", in_words(.0))]
    Tls(rustls::Error),
    /// It takes too long.
    #[error("TLS was not agreed on within {} ms (limits.handshake_wait_ms_max)", .0.as_millis())]
    Late(Duration),
    /// Others have come.
    #[error("limits.handshakes_max others were under way as well, and this was the longest")]
    Crowded,
    /// No rule fits it.
    #[error("no rule of {0}.tls_principal_rules fits the subject of its certificate")]
    Nameless(&'static str),
    /// The other side is no broker with TLS.
    #[error("the other side does not know brokers by their certificates: set cluster.tls_certificate there too")]
    NoPeer,
}

/// The handshakes of one core.
#[derive(Debug)]
pub(crate) struct Handshakes {
    under_way: RefCell<VecDeque<Rc<UnderWay>>>,
    max: usize,
    wait_max: Duration,
    /// One turn, for a step that computes.
    turn: Rc<Budget>,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct UnderWay {
    gives_way: Cell<bool>,
    changed: Signal,
}

impl Handshakes {
    pub(crate) fn new(max: usize, wait_max: Duration) -> Handshakes {
        Handshakes {
            under_way: RefCell::default(),
            max,
            wait_max,
            turn: Budget::new(1),
            scratch: Scratch::default(),
        }
    }

    fn begin(&self) -> Rc<UnderWay> {
        let this = Rc::<UnderWay>::default();
        let mut under_way = self.under_way.borrow_mut();
        if under_way.len() >= self.max
            && let Some(longest) = under_way.pop_front()
        {
            longest.gives_way.set(true);
            longest.changed.notify();
        }
        under_way.push_back(Rc::clone(&this));
        this
    }

    fn end(&self, this: &Rc<UnderWay>) {
        self.under_way.borrow_mut().retain(|other| !Rc::ptr_eq(other, this));
    }

    /// Does a handshake for as long as it may take.
    async fn within<T>(
        &self,
        metrics: &CoreMetrics,
        handshake: impl Future<Output = Result<T, HandshakeError>>,
    ) -> Result<T, HandshakeError> {
        let this = self.begin();
        let outcome = {
            let gives_way = pin!(this.changed.until(|| this.gives_way.get()));
            let handshake = pin!(machine::until(machine::now() + self.wait_max, handshake));
            match select(handshake, gives_way).await {
                Either::Left((outcome, _)) => outcome.unwrap_or(Err(HandshakeError::Late(self.wait_max))),
                Either::Right(_) => Err(HandshakeError::Crowded),
            }
        };
        self.end(&this);
        metrics.shook_hands(match &outcome {
            Ok(_) => Handshake::Done,
            Err(HandshakeError::Late(_)) => Handshake::Late,
            Err(HandshakeError::Crowded) => Handshake::Crowded,
            Err(_) => Handshake::Failed,
        });
        outcome
    }

    /// A step that computes: others have their turns between two of them.
    async fn step<T>(&self, step: impl FnOnce() -> T) -> T {
        let turn = self.turn.lease(1).await;
        let done = step();
        machine::yield_now().await;
        drop(turn);
        done
    }

    /// Waits for bytes of the peer, and hands them to `take` before others read. An error at the end of the stream.
    async fn hear<T>(&self, stream: &mut Stream, mut take: impl FnMut(&[u8]) -> T) -> io::Result<T> {
        poll_fn(|context| {
            self.scratch.with(|scratch| {
                let scratch = &mut scratch[..HEARD_BYTES];
                let read = stream.poll_read(context, scratch);
                read.map(|count| match count? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    count => Ok(take(&scratch[..count])),
                })
            })
        })
        .await
    }
}

/// The side that was called: plain where the port has no TLS.
pub(crate) async fn accept(
    mut stream: Stream,
    disk: &Disk,
    tls: (Option<&Served>, Option<&Peers>),
    (handshakes, metrics): (&Handshakes, &CoreMetrics),
) -> Result<Channel, HandshakeError> {
    let socket = stream.writing_side(disk).await?;
    let (Some(served), peers) = tls else {
        return Ok(plain(stream, socket));
    };
    // A future of its own: it is large, and plain connections would hold the space for it.
    let agreed = Box::pin(handshakes.within(metrics, agree(stream, socket, (served, peers), handshakes)));
    agreed.await
}

/// The side that calls another broker: plain where brokers have no TLS.
pub(crate) async fn connect(
    mut stream: Stream,
    host: &str,
    disk: &Disk,
    peers: Option<&Peers>,
    handshakes: &Handshakes,
) -> Result<Channel, HandshakeError> {
    let socket = stream.writing_side(disk).await?;
    let Some(peers) = peers else {
        return Ok(plain(stream, socket));
    };
    let (config, name) = peers.client(host)?;
    let tls = ClientConnection::new(config, name).map_err(HandshakeError::Tls)?;
    let tls = finish(handshakes, (&mut stream, &socket), tls.into(), Vec::new());
    let (tls, unread) = Box::pin(tls).await?;
    if tls.alpn_protocol() != Some(PEER_ALPN) {
        return Err(HandshakeError::NoPeer);
    }
    let shown = Shown {
        secure: true,
        principal: None,
        is_peer: true,
    };
    Ok(secure(handshakes, stream, socket, (tls, unread), shown))
}

fn plain(stream: Stream, socket: Socket) -> Channel {
    Channel {
        reading: Reading::Plain(stream),
        writing: Writing::Plain(socket),
        shown: Shown::default(),
    }
}

fn secure(
    handshakes: &Handshakes,
    stream: Stream,
    socket: Socket,
    (tls, unread): (Connection, Vec<u8>),
    shown: Shown,
) -> Channel {
    let writing = Rc::new(SecureWriting::new(tls, socket));
    let scratch = handshakes.scratch.clone();
    Channel {
        reading: Reading::Secure(SecureReading::new(stream, Rc::clone(&writing), scratch, unread)),
        writing: Writing::Secure(writing),
        shown,
    }
}

async fn agree(
    mut stream: Stream,
    socket: Socket,
    (served, peers): (&Served, Option<&Peers>),
    handshakes: &Handshakes,
) -> Result<Channel, HandshakeError> {
    let (accepted, unread) = hello(handshakes, &mut stream, &socket).await?;
    let is_broker = |alpn: &[u8]| alpn == PEER_ALPN;
    let says_broker = accepted
        .client_hello()
        .alpn()
        .is_some_and(|mut named| named.any(is_broker));
    let peers = peers.filter(|_| says_broker);
    let config = peers.map_or_else(|| served.config(), Peers::server);
    let tls = handshakes.step(|| begin(accepted, config, &socket)).await?;
    let agreed = finish(handshakes, (&mut stream, &socket), tls, unread).await?;
    let certificate = agreed.0.peer_certificates().and_then(|chain| chain.first());
    let principal = match certificate {
        Some(certificate) if peers.is_none() => {
            let principal = served.principal(certificate);
            Some(principal.ok_or(HandshakeError::Nameless(served.port().section()))?)
        }
        _ => None,
    };
    let shown = Shown {
        secure: true,
        principal,
        is_peer: peers.is_some(),
    };
    Ok(secure(handshakes, stream, socket, agreed, shown))
}

/// The client's first message, and what came behind it.
async fn hello(
    handshakes: &Handshakes,
    stream: &mut Stream,
    socket: &Socket,
) -> Result<(Accepted, Vec<u8>), HandshakeError> {
    let mut acceptor = Acceptor::default();
    let mut first = None;
    loop {
        let heard = handshakes.hear(
            stream,
            |mut bytes| -> Result<Option<(Accepted, Vec<u8>)>, HandshakeError> {
                let stranger = *first.get_or_insert_with(|| Stranger::of(bytes));
                while !bytes.is_empty() {
                    acceptor.read_tls(&mut bytes)?;
                    match acceptor.accept() {
                        Ok(None) => {}
                        Ok(Some(accepted)) => return Ok(Some((accepted, bytes.to_vec()))),
                        Err((error, mut alert)) => {
                            let mut outward = Outward { socket, more: false };
                            if let Err(error) = alert.write(&mut outward) {
                                tracing::trace!(%error, "a peer cannot be told why it is refused");
                            }
                            return Err(match stranger {
                                Some(Stranger::Http) => HandshakeError::Plain("HTTP"),
                                Some(Stranger::Kafka) => HandshakeError::Plain("Kafka's protocol"),
                                Some(Stranger::Tls) => HandshakeError::Tls(error),
                                _ => HandshakeError::Plain("something"),
                            });
                        }
                    }
                }
                Ok(None)
            },
        );
        if let Some(accepted) = heard.await?? {
            return Ok(accepted);
        }
    }
}

fn begin(accepted: Accepted, config: Arc<ServerConfig>, socket: &Socket) -> Result<Connection, HandshakeError> {
    match accepted.into_connection(config) {
        Ok(tls) => Ok(tls.into()),
        Err((error, mut alert)) => {
            let mut outward = Outward { socket, more: false };
            if let Err(error) = alert.write(&mut outward) {
                tracing::trace!(%error, "a peer cannot be told why it is refused");
            }
            Err(HandshakeError::Tls(error))
        }
    }
}

/// Says and hears until TLS is agreed on; and what came behind that.
async fn finish(
    handshakes: &Handshakes,
    (stream, socket): (&mut Stream, &Socket),
    mut tls: Connection,
    mut unread: Vec<u8>,
) -> Result<(Connection, Vec<u8>), HandshakeError> {
    loop {
        while !push(&mut tls, socket, false)? {
            socket.writable().await?;
        }
        if !tls.is_handshaking() {
            return Ok((tls, unread));
        }
        if unread.is_empty() {
            unread = handshakes.hear(stream, <[u8]>::to_vec).await?;
        }
        let taken = handshakes.step(|| take(&mut tls, &unread)).await;
        match taken {
            Ok(count) => drop(unread.drain(..count)),
            Err(error) => {
                // It says why.
                if let Err(error) = push(&mut tls, socket, false) {
                    tracing::trace!(%error, "a peer cannot be told why it is refused");
                }
                return Err(error);
            }
        }
    }
}

/// Takes bytes in until TLS is agreed on. How many that were.
fn take(tls: &mut Connection, bytes: &[u8]) -> Result<usize, HandshakeError> {
    let mut rest = bytes;
    while !rest.is_empty() && tls.is_handshaking() {
        tls.read_tls(&mut rest)?;
        let state = tls.process_new_packets().map_err(HandshakeError::Tls)?;
        if state.peer_has_closed() {
            return Err(broken(&rustls::Error::HandshakeNotComplete).into());
        }
    }
    Ok(bytes.len() - rest.len())
}
