//! The side that calls.

use std::{
    future::{Future, pending},
    io::ErrorKind,
    sync::Arc,
    time::Duration,
};

use futures::future::{Either, select};
use openraft::{
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    FRAME_LEN_MAX, Failure, PIECE_LEN, Request, Response,
    frame::{self, FrameError},
    handshake::{self, Greeting, Hello, Refused, Welcome},
    proof,
    standing::Local,
    wire::Wire,
};
use crate::cluster::quorum::{
    codec::{decode, encode},
    id::{Member, NodeId, StoreId},
    types::{Snapshot, Types, Vote},
};

/// Why a call has no answer. What was asked for may have been done all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It took too long.
    #[error("member {node} has not answered within {} ms", within.as_millis())]
    Late {
        /// The member.
        node: NodeId,
        /// The limit.
        within: Duration,
    },
    /// There is no connection.
    #[error("member {node} cannot be reached at {address}: {source}")]
    Unreachable {
        /// The member.
        node: NodeId,
        /// Where it should be.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The connection failed.
    #[error("member {node}: {source}")]
    Broken {
        /// The member.
        node: NodeId,
        /// How.
        source: FrameError,
    },
    /// It does not listen to this one, or is not who it should be.
    #[error("member {node} does not talk to this one: {source}")]
    Refused {
        /// The member.
        node: NodeId,
        /// Why not.
        source: Refused,
    },
    /// It cannot do it.
    #[error("member {node}: {source}")]
    Failed {
        /// The member.
        node: NodeId,
        /// Why not.
        source: Failure,
    },
    /// It answers something else.
    #[error("member {node} does not answer what it was asked: it runs another version")]
    Nonsense {
        /// The member.
        node: NodeId,
    },
}

impl CallError {
    /// Whether the member's host says that nobody listens there any more.
    pub(crate) fn says_it_ended(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if source.kind() == ErrorKind::ConnectionRefused)
    }
}

/// Makes lines.
#[derive(Clone)]
pub(crate) struct Dialer {
    local: Arc<Local>,
}

impl Dialer {
    pub(crate) fn new(local: Arc<Local>) -> Dialer {
        Dialer { local }
    }

    /// A line to a member.
    pub(crate) fn line(&self, node: NodeId, member: &Member) -> Line {
        self.dial(node, &member.address, Some(member.store))
    }

    /// A line to one that is not a member yet, over which it can only be asked how far it is.
    pub(crate) fn line_to_newcomer(&self, node: NodeId, address: &str) -> Line {
        self.dial(node, address, None)
    }

    fn dial(&self, node: NodeId, address: &str, store: Option<StoreId>) -> Line {
        Line {
            local: Arc::clone(&self.local),
            node,
            address: address.to_owned(),
            store,
            connection: None,
        }
    }
}

/// A connection to one member, made when it is needed.
pub(crate) struct Line {
    local: Arc<Local>,
    node: NodeId,
    address: String,
    store: Option<StoreId>,
    /// One on which nobody waits for an answer.
    connection: Option<Wire>,
}

impl Line {
    /// Asks, and waits for the answer for so long. Cancel safe: a connection on which an answer may still come is not used again.
    pub(crate) async fn call(&mut self, request: &Request, within: Duration) -> Result<Response, CallError> {
        let node = self.node;
        let answered = timeout(within, self.exchange(request)).await;
        let response = answered.unwrap_or(Err(CallError::Late { node, within }))?;
        match response {
            Response::Failed(source) => Err(CallError::Failed { node, source }),
            response => Ok(response),
        }
    }

    /// Waits until the other side closes the connection on which it was asked the last time; for ever if there is none.
    pub(crate) async fn closed(&self) {
        let Some(connection) = &self.connection else {
            return pending().await;
        };
        while is_open(connection) && connection.socket().readable().await.is_ok() {}
    }

    async fn exchange(&mut self, request: &Request) -> Result<Response, CallError> {
        let node = self.node;
        let broken = |source| CallError::Broken { node, source };
        let kept = self.connection.take().filter(is_open);
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        frame::send(&mut connection, &encode(request)).await.map_err(broken)?;
        let answer = frame::receive(&mut connection, FRAME_LEN_MAX).await.map_err(broken)?;
        let response = decode(&answer).map_err(|source| broken(source.into()))?;
        self.connection = Some(connection);
        Ok(response)
    }

    async fn connect(&self) -> Result<Wire, CallError> {
        let node = self.node;
        let unreachable = |source| CallError::Unreachable {
            node,
            address: self.address.clone(),
            source,
        };
        let broken = |source| CallError::Broken { node, source };
        let refused = |source| CallError::Refused { node, source };
        let connection = TcpStream::connect(&self.address).await.map_err(unreachable)?;
        connection.set_nodelay(true).map_err(unreachable)?;
        let secured = Wire::call(connection, &self.address, self.local.tls()).await;
        let mut connection = secured.map_err(|source| broken(source.into()))?;
        if let Some(secret) = &self.local.tls().secret {
            let channel = connection.binding().map_err(|source| broken(source.into()))?;
            let proved = proof::calling(secret, channel, &mut connection).await.map_err(broken)?;
            proved.map_err(refused)?;
        }
        let greeting = handshake::hear::<Greeting>(&mut connection).await.map_err(broken)?;
        let hello = Hello {
            nonce: greeting.map_err(refused)?.nonce,
            caller: self.local.caller(),
            node,
            store: self.store,
        };
        handshake::say(&mut connection, &hello).await.map_err(broken)?;
        let welcome = handshake::hear::<Welcome>(&mut connection).await.map_err(broken)?;
        welcome.and_then(|welcome| welcome).map_err(refused)?;
        Ok(connection)
    }

    async fn rpc<T>(
        &mut self,
        action: RPCTypes,
        request: Request,
        option: &RPCOption,
        read: impl FnOnce(Response) -> Option<T>,
    ) -> Result<T, RPCError<Types>> {
        let response = self.call(&request, option.soft_ttl()).await;
        let response = response.and_then(|response| read(response).ok_or(CallError::Nonsense { node: self.node }));
        response.map_err(|error| match error {
            CallError::Late { within, .. } => Timeout {
                action,
                id: self.local.identity().node,
                target: self.node,
                timeout: within,
            }
            .into(),
            // It was there just now, and is tried again at once.
            CallError::Broken { .. } => NetworkError::new(&error).into(),
            _ => Unreachable::new(&error).into(),
        })
    }

    /// Sends a snapshot piece by piece, each within the limit.
    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        option: &RPCOption,
    ) -> Result<SnapshotResponse<Types>, RPCError<Types>> {
        let data = snapshot.snapshot;
        let begin = Request::SnapshotBegin {
            vote,
            meta: snapshot.meta,
            len: data.len() as u64,
        };
        let pieces = data
            .chunks(PIECE_LEN)
            .map(|piece| Request::SnapshotPiece(piece.to_vec()));
        for request in std::iter::once(begin).chain(pieces) {
            let read = |response| match response {
                Response::SnapshotMore => Some(None),
                Response::Snapshot(response) => Some(Some(response)),
                _ => None,
            };
            let answer = self.rpc(RPCTypes::InstallSnapshot, request, option, read).await?;
            if let Some(response) = answer {
                return Ok(response);
            }
        }
        Err(Unreachable::new(&CallError::Nonsense { node: self.node }).into())
    }
}

/// Whether the other side has not closed a connection on which it has nothing to say.
fn is_open(connection: &Wire) -> bool {
    let read = connection.socket().try_read(&mut [0]);
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

impl RaftNetworkFactory<Types> for Dialer {
    type Network = Line;

    // openraft asks for one for each purpose, so that nothing waits for what another does.
    async fn new_client(&mut self, target: NodeId, node: &Member) -> Line {
        self.line(target, node)
    }
}

impl RaftNetworkV2<Types> for Line {
    type SnapshotData = bytes::Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let read = |response| match response {
            Response::Append(response) => Some(response),
            _ => None,
        };
        self.rpc(RPCTypes::AppendEntries, Request::Append(request), &option, read)
            .await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let read = |response| match response {
            Response::Vote(response) => Some(response),
            _ => None,
        };
        self.rpc(RPCTypes::Vote, Request::Vote(request), &option, read).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let read = |response| match response {
            Response::Vote(response) => Some(response),
            _ => None,
        };
        self.rpc(RPCTypes::Vote, Request::PreVote(request), &option, read).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sent = Box::pin(self.send_snapshot(vote, snapshot, &option));
        match select(sent, Box::pin(cancel)).await {
            Either::Left((sent, _)) => Ok(sent?),
            Either::Right((closed, _)) => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let read = |response| match response {
            Response::TransferLeader(response) => Some(response),
            _ => None,
        };
        let request = Request::TransferLeader(request);
        self.rpc(RPCTypes::TransferLeader, request, &option, read).await
    }
}
