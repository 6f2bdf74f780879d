//! The network of the simulated world.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use openraft::{
    Raft,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkFactory, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
    type_config::TypeConfigExt as _,
};

use super::SimTypes;
use crate::cluster::quorum::{
    applier::Applier,
    id::{Member, NodeId},
    store::Chance,
    types::{Snapshot, Vote},
};

pub(super) type SimRaft = Raft<SimTypes, Applier>;

/// The longest that a message is on its way.
const DELAY_MS_MAX: u64 = 40;

/// What all share.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<Inner>>);

struct Inner {
    chance: Chance,
    members: BTreeMap<NodeId, SimRaft>,
    /// Ways on which nothing arrives.
    cut: BTreeSet<(NodeId, NodeId)>,
    said: Vec<String>,
}

pub(super) struct ChanceGuard<'a>(MutexGuard<'a, Inner>);

impl ChanceGuard<'_> {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0.chance.below(limit)
    }
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        World(Arc::new(Mutex::new(Inner {
            chance: Chance(seed),
            members: BTreeMap::new(),
            cut: BTreeSet::new(),
            said: Vec::new(),
        })))
    }

    /// Not to be held over an await.
    pub(super) fn chance(&self) -> ChanceGuard<'_> {
        ChanceGuard(self.0.lock().unwrap())
    }

    pub(super) fn say(&self, line: String) {
        self.0.lock().unwrap().said.push(line);
    }

    pub(super) fn said(&self) -> Vec<String> {
        self.0.lock().unwrap().said.clone()
    }

    pub(super) fn join(&self, node: NodeId, raft: SimRaft) {
        self.0.lock().unwrap().members.insert(node, raft);
    }

    pub(super) fn leave(&self, node: NodeId) -> Option<SimRaft> {
        self.0.lock().unwrap().members.remove(&node)
    }

    pub(super) fn members(&self) -> BTreeMap<NodeId, SimRaft> {
        self.0.lock().unwrap().members.clone()
    }

    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.0.lock().unwrap().cut.insert((from, to));
    }

    pub(super) fn connect_all(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    /// Whom a message from the one to the other reaches.
    fn reach(&self, from: NodeId, to: NodeId) -> Option<SimRaft> {
        let inner = self.0.lock().unwrap();
        inner
            .members
            .get(&to)
            .filter(|_| !inner.cut.contains(&(from, to)))
            .cloned()
    }

    async fn travel(&self) {
        let delay = self.chance().below(DELAY_MS_MAX);
        SimTypes::sleep(Duration::from_millis(delay)).await;
    }
}

/// Makes the links of one member.
pub(super) struct Links {
    pub(super) world: World,
    pub(super) from: NodeId,
}

impl RaftNetworkFactory<SimTypes> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, _node: &Member) -> Link {
        Link {
            world: self.world.clone(),
            from: self.from,
            to: target,
        }
    }
}

/// The way from one member to another, and back.
pub(super) struct Link {
    world: World,
    from: NodeId,
    to: NodeId,
}

impl Link {
    async fn call<T, F>(&self, within: Duration, ask: impl FnOnce(SimRaft) -> F) -> Result<T, RPCError<SimTypes>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, openraft::errors::RaftError<SimTypes>>> + Send + 'static,
    {
        let Link { world, from, to } = self;
        world.travel().await;
        let Some(raft) = world.reach(*from, *to) else {
            return Err(Unreachable::from_string("nobody is there").into());
        };
        let answered = SimTypes::timeout(within, ask(raft)).await;
        world.travel().await;
        let lost = || RPCError::from(NetworkError::from_string("the answer is lost"));
        let answer = answered.map_err(|_late| lost())?;
        if world.reach(*to, *from).is_none() {
            return Err(lost());
        }
        answer.map_err(|_ended| Unreachable::from_string("it has ended").into())
    }
}

impl RaftNetworkV2<SimTypes> for Link {
    type SnapshotData = bytes::Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<SimTypes>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<SimTypes>, RPCError<SimTypes>> {
        self.call(
            option.soft_ttl(),
            |raft| async move { raft.append_entries(request).await },
        )
        .await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<SimTypes>,
        option: RPCOption,
    ) -> Result<VoteResponse<SimTypes>, RPCError<SimTypes>> {
        self.call(option.soft_ttl(), |raft| async move { raft.vote(request).await })
            .await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<SimTypes>,
        option: RPCOption,
    ) -> Result<VoteResponse<SimTypes>, RPCError<SimTypes>> {
        self.call(option.soft_ttl(), |raft| async move { raft.pre_vote(request).await })
            .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<SimTypes>, StreamingError<SimTypes>> {
        let install = |raft: SimRaft| async move { Ok(raft.install_full_snapshot(vote, snapshot).await?) };
        Ok(self.call(option.soft_ttl(), install).await?)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<SimTypes>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<SimTypes>, RPCError<SimTypes>> {
        let hand = |raft: SimRaft| async move { Ok(raft.handle_transfer_leader(request).await?) };
        self.call(option.soft_ttl(), hand).await
    }
}
