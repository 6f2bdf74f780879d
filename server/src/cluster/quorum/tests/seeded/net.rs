//! The network of the simulated world.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use openraft::{
    Raft,
    async_runtime::watch::WatchReceiver as _,
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
    id::{Member, NodeId, StoreId},
    members::change::Party,
    peer::{CallError, Local, Progress, Refused},
    store::Chance,
    types::{Snapshot, Vote},
};

pub(super) type SimRaft = Raft<SimTypes, Applier>;

/// An answer has come within this time, or none is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The longest that a message is on its way.
const DELAY_MS_MAX: u64 = 40;

/// What all share.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<Inner>>);

struct Inner {
    chance: Chance,
    members: BTreeMap<NodeId, SimMember>,
    /// Ways on which nothing arrives.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// A change of the members is under way.
    is_changing: bool,
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
            is_changing: false,
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

    pub(super) fn join(&self, member: SimMember) {
        let node = member.node();
        self.0.lock().unwrap().members.insert(node, member);
    }

    pub(super) fn leave(&self, node: NodeId) -> Option<SimMember> {
        self.0.lock().unwrap().members.remove(&node)
    }

    /// All whose processes run.
    pub(super) fn members(&self) -> BTreeMap<NodeId, SimMember> {
        self.0.lock().unwrap().members.clone()
    }

    /// Whoever leads in the latest term, as far as anybody says so.
    pub(super) fn leader(&self) -> Option<SimMember> {
        let leading = self.members().into_values().filter_map(|member| {
            let metrics = member.raft.metrics();
            let metrics = metrics.borrow_watched();
            let leads = metrics.state.is_leader() && metrics.running_state.is_ok();
            leads.then(|| (metrics.current_term, member.clone()))
        });
        leading.max_by_key(|(term, _)| *term).map(|(_, member)| member)
    }

    pub(super) fn is_changing(&self) -> bool {
        self.0.lock().unwrap().is_changing
    }

    pub(super) fn set_changing(&self, is_changing: bool) {
        self.0.lock().unwrap().is_changing = is_changing;
    }

    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.0.lock().unwrap().cut.insert((from, to));
    }

    pub(super) fn connect_all(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    /// Whom a message from the one to the other reaches.
    fn reach(&self, from: NodeId, to: NodeId) -> Option<SimMember> {
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

/// A member that runs.
#[derive(Clone)]
pub(super) struct SimMember {
    pub(super) world: World,
    pub(super) raft: SimRaft,
    pub(super) local: Arc<Local>,
}

impl SimMember {
    pub(super) fn node(&self) -> NodeId {
        self.local.identity().node
    }

    fn way_to(&self, node: NodeId, store: Option<StoreId>) -> Link {
        Link {
            world: self.world.clone(),
            local: Arc::clone(&self.local),
            to: node,
            store,
        }
    }
}

impl Party for SimMember {
    type Types = SimTypes;
    type Line = Link;

    fn raft(&self) -> &SimRaft {
        &self.raft
    }

    fn local(&self) -> &Local {
        &self.local
    }

    fn members_line(&self, node: NodeId, member: &Member) -> Link {
        self.way_to(node, Some(member.store))
    }

    fn newcomers_line(&self, node: NodeId, _address: &str) -> Link {
        self.way_to(node, None)
    }

    async fn progress(line: &mut Link, node: NodeId) -> Result<Progress, CallError> {
        let look = |member: SimMember| async move {
            let metrics = member.raft.metrics();
            let metrics = metrics.borrow_watched();
            Progress {
                committed: metrics.local_committed,
                last: metrics.last_log_index,
                deserted: None,
                store: member.local.identity().store,
            }
        };
        match line.ask(ANSWER_MAX, look).await {
            Ok(Some(progress)) => Ok(progress),
            Ok(None) => Err(CallError::Late {
                node,
                within: ANSWER_MAX,
            }),
            Err(source) => Err(CallError::Refused { node, source }),
        }
    }
}

/// Makes the links of one member.
pub(super) struct Links {
    pub(super) world: World,
    pub(super) local: Arc<Local>,
}

impl RaftNetworkFactory<SimTypes> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Link {
        Link {
            world: self.world.clone(),
            local: Arc::clone(&self.local),
            to: target,
            store: Some(node.store),
        }
    }
}

/// The way from one member to another that has to have that store, and back.
pub(super) struct Link {
    world: World,
    local: Arc<Local>,
    to: NodeId,
    store: Option<StoreId>,
}

impl Link {
    /// Asks, unless the other does not listen to this one. None: nobody knows what became of it.
    async fn ask<T, F>(&self, within: Duration, ask: impl FnOnce(SimMember) -> F) -> Result<Option<T>, Refused>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let Link {
            world,
            local,
            to,
            store,
        } = self;
        let from = local.identity().node;
        world.travel().await;
        let Some(member) = world.reach(from, *to) else {
            return Ok(None);
        };
        member.local.hears(local, *store)?;
        let answered = SimTypes::timeout(within, ask(member)).await;
        world.travel().await;
        Ok(answered.ok().filter(|_| world.reach(*to, from).is_some()))
    }

    async fn call<T, F>(&self, within: Duration, ask: impl FnOnce(SimRaft) -> F) -> Result<T, RPCError<SimTypes>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, openraft::errors::RaftError<SimTypes>>> + Send + 'static,
    {
        let unreachable = |why: String| RPCError::from(Unreachable::from_string(why));
        match self.ask(within, |member| ask(member.raft)).await {
            Ok(Some(answer)) => answer.map_err(|_ended| unreachable("it has ended".to_owned())),
            Ok(None) if self.world.reach(self.local.identity().node, self.to).is_none() => {
                Err(unreachable("nobody is there".to_owned()))
            }
            Ok(None) => Err(NetworkError::from_string("the answer is lost").into()),
            Err(refused) => Err(unreachable(refused.to_string())),
        }
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
