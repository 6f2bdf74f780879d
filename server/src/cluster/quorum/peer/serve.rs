//! The side that is called.

use std::{sync::Arc, time::Duration};

use openraft::{Raft, async_runtime::watch::WatchReceiver as _, errors::RaftError};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{error::Elapsed, sleep, timeout},
};

use super::{
    Agreed, FRAME_LEN_MAX, Failure, Progress, Request, Response, SNAPSHOT_LEN_MAX,
    frame::{self, FrameError},
    handshake::{self, Caller, Greeting, Hello, Refused, Welcome},
    line::Dialer,
    proof,
    reach::{Answered, Unheard, kept_out, lets_in},
    standing::Local,
    wire::Wire,
};
use crate::{
    cluster::quorum::{
        applier::Applier,
        codec::{decode, encode},
        id::NodeId,
        order::{PROPOSAL_LEN_MAX, Proposal},
        types::{Snapshot, SnapshotMeta, Types, Vote},
    },
    core::warn_seldom,
    machine,
    tls::{ClusterSecret, Unproved},
};

/// Connections at one time. Each member has a few to each other; strangers soon leave.
const CONNECTIONS_MAX: usize = 256;

/// Within this time a caller has said who it is.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Within this time the next request has come as a whole, or an answer has gone. Who wants something later calls again.
const IDLE_MAX: Duration = Duration::from_mins(1);

/// The longest that a proposal of another member may take.
const PROPOSAL_MAX: Duration = Duration::from_secs(10);

/// A pause when no connection can be accepted, because there are too many files, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers.
pub(crate) struct Server {
    local: Arc<Local>,
    raft: Raft<Types, Applier>,
    dialer: Dialer,
    /// One snapshot is received at a time, as it is in memory until it is whole.
    snapshots: Arc<Semaphore>,
}

impl Server {
    pub(crate) fn new(local: Arc<Local>, raft: Raft<Types, Applier>, dialer: Dialer) -> Server {
        Server {
            local,
            raft,
            dialer,
            snapshots: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Serves all who call. Ends with what it serves when it is dropped.
pub(crate) async fn serve(server: Arc<Server>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let permit = Arc::clone(&permits).acquire_owned().await;
        let (connection, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn_seldom!(%error, "a member's connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let server = Arc::clone(&server);
        connections.spawn(async move {
            if let Err(error) = converse(&server, connection).await {
                tracing::debug!(%peer, %error, "a member's connection has ended");
            }
            drop(permit);
        });
    }
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Unproved(#[from] Unproved),
    #[error("nothing was said for too long")]
    Silent(#[from] Elapsed),
}

/// One connection, from the greeting to its end.
async fn converse(server: &Server, connection: TcpStream) -> Result<(), Ended> {
    connection.set_nodelay(true).map_err(FrameError::from)?;
    let secured = timeout(HANDSHAKE_MAX, Wire::answer(connection, server.local.tls())).await?;
    let mut connection = secured.map_err(|error| {
        warn_seldom!(%error, "a caller is refused on the port of members: TLS could not be agreed on");
        FrameError::from(error)
    })?;
    if let Some(secret) = &server.local.tls().secret {
        let proved = timeout(HANDSHAKE_MAX, prove(secret, &mut connection)).await;
        if !matches!(proved, Ok(Ok(()))) {
            secret.has_refused();
        }
        proved??;
    }
    let hello = timeout(HANDSHAKE_MAX, welcome(&server.local, &mut connection)).await??;
    let conversation = Conversation {
        server,
        caller: hello.caller,
        is_checked: hello.store.is_some(),
        answered: Answered::default(),
        incoming: None,
    };
    conversation.go_on(&mut connection).await
}

/// Has the caller prove that it knows the secret, and proves the same to it.
async fn prove(secret: &ClusterSecret, connection: &mut Wire) -> Result<(), Ended> {
    let channel = connection.binding().map_err(FrameError::from)?;
    let proved = proof::called(secret, channel, connection).await;
    let why = match &proved {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(unproved)) => unproved.to_string(),
        Err(error) => error.to_string(),
    };
    warn_seldom!(peer = ?connection.socket().peer_addr().ok(), why, "a caller is refused on the port of members");
    Ok(proved??)
}

/// Hears who it is. Whoever is not welcome is told why, if it can be.
async fn welcome(local: &Local, connection: &mut Wire) -> Result<Hello, Ended> {
    let nonce = machine::random();
    handshake::say(connection, &Greeting { nonce }).await?;
    let heard: Result<Hello, Refused> = handshake::hear(connection).await?;
    let judged = heard.and_then(|hello| local.judge(&hello, nonce).map(|()| hello));
    let words: Welcome = judged.as_ref().map(drop).map_err(Clone::clone);
    if let Err(refused) = &words {
        // Whoever calls may call again and again.
        warn_seldom!(peer = ?connection.socket().peer_addr().ok(), %refused, "a member is refused");
    }
    handshake::say(connection, &words).await?;
    Ok(judged?)
}

/// A snapshot of which not all is here.
struct Incoming {
    vote: Vote,
    meta: SnapshotMeta,
    len: u64,
    data: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

struct Conversation<'a> {
    server: &'a Server,
    caller: Caller,
    /// The caller knows which store this member has.
    is_checked: bool,
    answered: Answered,
    incoming: Option<Incoming>,
}

impl Conversation<'_> {
    async fn go_on(mut self, connection: &mut Wire) -> Result<(), Ended> {
        loop {
            let request = timeout(IDLE_MAX, frame::receive(connection, FRAME_LEN_MAX)).await??;
            let request = decode(&request).map_err(FrameError::from)?;
            let response = self.answer(request).await.unwrap_or_else(Response::Failed);
            timeout(IDLE_MAX, frame::send(connection, &encode(&response))).await??;
        }
    }

    async fn answer(&mut self, request: Request) -> Result<Response, Failure> {
        let raft = &self.server.raft;
        self.server.local.judge_caller(&self.caller, self.is_checked)?;
        if !self.is_checked && !matches!(request, Request::Progress) {
            return Err(Refused::Unchecked.into());
        }
        Ok(match request {
            Request::Append(request) => Response::Append(raft.append_entries(request).await.map_err(ended)?),
            Request::Vote(request) => Response::Vote(raft.vote(request).await.map_err(ended)?),
            Request::PreVote(request) => Response::Vote(raft.pre_vote(request).await.map_err(ended)?),
            Request::TransferLeader(request) => {
                Response::TransferLeader(raft.handle_transfer_leader(request).await.map_err(ended)?)
            }
            Request::SnapshotBegin { vote, meta, len } => self.begin_snapshot(vote, meta, len).await?,
            Request::SnapshotPiece(piece) => self.add_piece(&piece).await?,
            Request::Propose(proposal) => {
                let own = self.server.local.identity().node;
                Response::Proposed(propose(raft, (own, &self.server.dialer), proposal).await?)
            }
            Request::HandOver => {
                raft.trigger().transfer_leader(self.caller.node).await.map_err(ended)?;
                Response::HandedOver
            }
            Request::Progress => Response::Progress(self.progress()),
        })
    }

    fn progress(&mut self) -> Progress {
        let Server { local, raft, .. } = self.server;
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        // That is how the active coordinator asks whether a broker is there.
        if metrics.current_leader == Some(self.caller.node) && self.is_checked {
            self.answered.again(local.lease());
        }
        Progress {
            committed: metrics.local_committed,
            last: metrics.last_log_index,
            deserted: local.deserted(),
            store: local.identity().store,
        }
    }

    async fn begin_snapshot(&mut self, vote: Vote, meta: SnapshotMeta, len: u64) -> Result<Response, Failure> {
        // One that was begun on this connection is given up.
        self.incoming = None;
        if len > SNAPSHOT_LEN_MAX {
            let reason = format!("it has {len} bytes, and {SNAPSHOT_LEN_MAX} are allowed");
            return Err(Failure::Snapshot { reason });
        }
        let permit = Arc::clone(&self.server.snapshots).try_acquire_owned();
        let permit = permit.map_err(|_taken| Failure::Busy)?;
        self.incoming = Some(Incoming {
            vote,
            meta,
            len,
            data: Vec::new(),
            _permit: permit,
        });
        self.finish_snapshot().await
    }

    async fn add_piece(&mut self, piece: &[u8]) -> Result<Response, Failure> {
        let reason = match &mut self.incoming {
            None => "a piece comes before its beginning",
            Some(_) if piece.is_empty() => "a piece is empty",
            Some(incoming) if (incoming.data.len() + piece.len()) as u64 > incoming.len => "it is longer than it said",
            Some(incoming) => {
                incoming.data.extend_from_slice(piece);
                return self.finish_snapshot().await;
            }
        };
        self.incoming = None;
        let reason = reason.to_owned();
        Err(Failure::Snapshot { reason })
    }

    /// Installs it if it is whole.
    async fn finish_snapshot(&mut self) -> Result<Response, Failure> {
        let is_whole = |incoming: &mut Incoming| incoming.data.len() as u64 == incoming.len;
        let Some(incoming) = self.incoming.take_if(is_whole) else {
            return Ok(Response::SnapshotMore);
        };
        let snapshot = Snapshot {
            meta: incoming.meta,
            snapshot: incoming.data.into(),
        };
        let installed = self.server.raft.install_full_snapshot(incoming.vote, snapshot).await;
        Ok(Response::Snapshot(installed.map_err(ended)?))
    }
}

fn ended(error: impl std::error::Error) -> Failure {
    Failure::Ended {
        reason: error.to_string(),
    }
}

/// Has openraft agree on it. None: this member does not lead; a proposal that was dropped without being agreed on is the same. The
/// member needs its way to others to see whether it reaches a broker that wants to be let in.
pub(crate) async fn propose(
    raft: &Raft<Types, Applier>,
    (own, dialer): (NodeId, &Dialer),
    proposal: Proposal,
) -> Result<Option<Agreed>, Failure> {
    // A larger one would never fit a frame to the others.
    let len = encode(&proposal).len();
    if len > PROPOSAL_LEN_MAX {
        return Err(Failure::TooLarge { len });
    }
    if let Some(broker) = lets_in(&proposal.order).filter(|broker| *broker != own)
        && let Some(refused) = check_reached(raft, (own, dialer), broker).await
    {
        return Ok(Some(refused));
    }
    match timeout(PROPOSAL_MAX, raft.client_write(proposal)).await {
        Ok(Ok(written)) => Ok(Some(Agreed {
            outcome: written.data,
            at: written.log_id,
        })),
        Ok(Err(RaftError::Fatal(error))) => Err(ended(error)),
        Ok(Err(RaftError::APIError(_))) | Err(_) => Ok(None),
    }
}

/// What becomes of the wish of a broker to be let in that this member, if it leads, does not reach. Nothing was agreed on then.
async fn check_reached(
    raft: &Raft<Types, Applier>,
    (own, dialer): (NodeId, &Dialer),
    broker: NodeId,
) -> Option<Agreed> {
    let (at, line) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let at = metrics.last_applied.filter(|_| metrics.current_leader == Some(own))?;
        let member = metrics.membership_config.get_node(&broker);
        (at, member.map(|member| dialer.line(broker, member)))
    };
    let why = match line {
        Some(mut line) => line.reach().await.err()?,
        None => Unheard::Silent("it is no member of the quorum".to_owned()),
    };
    let outcome = kept_out(own, broker, why).into();
    Some(Agreed { outcome, at })
}
