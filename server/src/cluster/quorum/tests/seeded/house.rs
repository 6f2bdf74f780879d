//! The members of the simulated world, what befalls them, and who judges.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use openraft::{
    Raft, ServerState, async_runtime::watch::WatchReceiver as _, raft::TransferLeaderRequest,
    type_config::TypeConfigExt as _,
};

use super::{
    SimTypes,
    clients::Acknowledged,
    net::{Links, SimMember, World},
};
use crate::cluster::quorum::{
    applier::Applier,
    forming,
    id::{Cluster, Identity, NodeId, StoreId},
    member,
    order::Order,
    peer::Local,
    store::{Disk, LogStore, Store},
};

/// Members of the first quorum.
const FIRST: u64 = 3;

/// All that may ever be members.
const ALL: u64 = 5;

/// No fault lasts so long when there are no more of them.
pub(super) const LONG: Duration = Duration::from_mins(10);

pub(super) fn runtime(seed: u64) -> openraft_rt_sim::SimRuntime {
    openraft_rt_sim::SimRuntime::with_seed(seed)
}

pub(super) struct House {
    pub(super) world: World,
    disks: BTreeMap<NodeId, Disk>,
    /// A member that has lost its disk, until the others have taken it out and in again.
    pub(super) emptied: Option<NodeId>,
    /// Whoever has led in each term.
    leaders: BTreeMap<u64, NodeId>,
}

fn node(number: u64) -> NodeId {
    NodeId::from(number)
}

impl House {
    /// Some that make a quorum, and others that may be added.
    pub(super) async fn build(seed: u64) -> House {
        let mut house = House {
            world: World::new(seed),
            disks: BTreeMap::new(),
            emptied: None,
            leaders: BTreeMap::new(),
        };
        for number in 1..=ALL {
            house.put_new_disk(node(number));
            house.start(node(number)).await;
        }
        house
    }

    pub(super) fn world(&self) -> World {
        self.world.clone()
    }

    fn put_new_disk(&mut self, node: NodeId) {
        let identity = Identity {
            cluster: Cluster::try_from("a cluster".to_owned()).unwrap(),
            node,
            store: StoreId::new(),
        };
        let disk = Disk::default();
        Store::begin_on(&disk, &identity).unwrap();
        self.disks.insert(node, disk);
    }

    async fn start(&self, own: NodeId) {
        self.disks[&own].fail_after(None);
        let store = Store::on(&self.disks[&own]).unwrap();
        let local = Arc::new(Local::new(
            store.identity().clone(),
            store.incarnation(),
            Arc::default(),
        ));
        let (applier, _) = Applier::new(store.clone()).unwrap();
        let links = Links {
            world: self.world.clone(),
            local: Arc::clone(&local),
        };
        let config = Arc::new(member::config("a cluster".to_owned()).validate().unwrap());
        let raft = Raft::new(own, config, links, LogStore(store), applier).await.unwrap();
        local.watch::<SimTypes>(raft.metrics());
        self.world.say(format!("{own} starts"));
        let member = SimMember {
            world: self.world.clone(),
            raft,
            local,
        };
        self.world.join(member.clone());
        let first = (1..=FIRST).map(|number| (node(number), number.to_string())).collect();
        SimTypes::spawn(async move {
            // It may end before it is one.
            let _ = forming::become_member(&member, &first).await;
        });
    }

    /// Kills a member: of what its disk was not asked to keep, chance decides.
    async fn kill(&mut self, node: NodeId) {
        let Some(SimMember { raft, .. }) = self.world.leave(node) else {
            return;
        };
        self.disks[&node].fail_after(Some(0));
        // It may have failed before.
        let _ = raft.shutdown().await;
        drop(raft);
        let world = self.world.clone();
        let left = self.disks[&node].crash(|| world.chance().below(2) == 0);
        self.disks.insert(node, Disk::holding(left));
        self.world.say(format!("{node} dies"));
    }

    /// A host gets another disk, on which there is nothing, and its broker is started.
    pub(super) async fn empty(&mut self, node: NodeId) {
        self.kill(node).await;
        self.put_new_disk(node);
        self.world.say(format!("{node} has lost its disk"));
        self.start(node).await;
    }

    /// Something that happens to one of them.
    pub(super) async fn trouble(&mut self) {
        let (kind, victim) = {
            let mut chance = self.world.chance();
            (chance.below(10), node(1 + chance.below(ALL)))
        };
        match kind {
            0 => self.kill(victim).await,
            1 => {
                // It dies at a later write.
                let writes = self.world.chance().below(40);
                self.disks[&victim].fail_after(Some(writes));
                self.world.say(format!("{victim} will fail after {writes} writes"));
            }
            2 => {
                let all: Vec<NodeId> = self.disks.keys().copied().collect();
                for other in all {
                    let ways = self.world.chance().below(4);
                    if ways & 1 == 1 {
                        self.world.cut(victim, other);
                    }
                    if ways & 2 == 2 {
                        self.world.cut(other, victim);
                    }
                }
                self.world.say(format!("{victim} is cut off, in part"));
            }
            3 => {
                self.world.connect_all();
                self.world.say("all are connected".to_owned());
            }
            4 => {
                if let Some(member) = self.world.members().get(&victim) {
                    // It may have ended.
                    let _ = member.raft.trigger().snapshot().await;
                }
            }
            5 => {
                // It takes its leader to have ended, rightly or not, and stands for election before the lease is over. Only voters do.
                let members = self.world.members();
                let votes = |member: &&SimMember| member.local.membership().voter_ids().any(|voter| voter == victim);
                if let Some(SimMember { raft, .. }) = members.get(&victim).filter(votes) {
                    let vote = raft.metrics().borrow_watched().vote;
                    // It may have ended, or the vote is another one meanwhile.
                    let _ = raft
                        .handle_transfer_leader(TransferLeaderRequest::new(vote, victim, None))
                        .await;
                    self.world.say(format!("{victim} stands for election"));
                }
            }
            6..9 => self.see_to_members(Duration::from_secs(2)).await,
            _ => self.bring_back(victim).await,
        }
        self.look();
    }

    /// Starts a member that is down, or has failed.
    async fn bring_back(&mut self, node: NodeId) {
        let members = self.world.members();
        let has_failed = |member: &SimMember| member.raft.metrics().borrow_watched().running_state.is_err();
        if members.get(&node).is_some_and(has_failed) {
            drop(members);
            self.kill(node).await;
        }
        if !self.world.members().contains_key(&node) {
            self.start(node).await;
        }
    }

    /// There is one leader in a term, ever.
    fn look(&mut self) {
        for (node, member) in self.world.members() {
            let metrics = member.raft.metrics().borrow_watched().clone();
            if metrics.state == ServerState::Leader && metrics.running_state.is_ok() {
                let first = *self.leaders.entry(metrics.current_term).or_insert(node);
                assert_eq!(first, node, "two lead in term {}", metrics.current_term);
                self.world.say(format!("{node} leads in term {}", metrics.current_term));
            }
        }
    }

    /// No more faults, and a quorum whose members all have what they had.
    pub(super) async fn heal(&mut self) {
        self.world.connect_all();
        for disk in self.disks.values() {
            disk.fail_after(None);
        }
        // Until here a failure of before is known.
        SimTypes::sleep(Duration::from_secs(5)).await;
        let all: Vec<NodeId> = self.disks.keys().copied().collect();
        for node in all {
            self.bring_back(node).await;
        }
        self.world.say("there are no more faults".to_owned());
        let restored = SimTypes::timeout(LONG, async {
            while self.emptied.is_some() || self.world.is_changing() {
                self.see_to_members(LONG).await;
            }
        });
        restored
            .await
            .expect("without faults a member is taken out and in again");
    }

    /// All members have the same state, with all that was acknowledged in it.
    pub(super) async fn check(&self, acknowledged: &Acknowledged) {
        // What was given up may come yet.
        SimTypes::sleep(Duration::from_secs(5)).await;
        let last = Acknowledged::order(&self.world, Order::ReserveProducerIds, LONG).await;
        let last = last.expect("without faults an order is carried out").1;
        let leader = self.world.leader().expect("somebody carried it out");
        let membership = leader.local.membership();
        let running = self.world.members();
        let mut states = BTreeSet::new();
        for (node, _) in membership.nodes() {
            let raft = &running[node].raft;
            let applied = raft
                .wait(Some(LONG))
                .applied_index_at_least(Some(last.index), "it catches up")
                .await;
            applied.unwrap_or_else(|error| panic!("{node} does not catch up: {error}"));
            let state = raft.with_state_machine(|applier: &mut Applier| {
                let state = applier.state().clone();
                Box::pin(async move { state })
            });
            let state = state.await.unwrap();
            for topic in &acknowledged.topics {
                assert!(
                    state.image().topic_by_id(*topic).is_some(),
                    "{node} does not know an acknowledged topic"
                );
            }
            states.insert(state.encode());
        }
        assert_eq!(states.len(), 1, "the members differ");
    }

    pub(super) async fn end(mut self) -> Vec<String> {
        let all: Vec<NodeId> = self.disks.keys().copied().collect();
        for node in all {
            self.kill(node).await;
        }
        self.world.said()
    }
}
