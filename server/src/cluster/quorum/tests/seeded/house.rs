//! The members of the simulated world, what befalls them, and who judges.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use headwater_protocol::id::TopicId;
use openraft::{
    Raft, ServerState, async_runtime::watch::WatchReceiver as _, raft::TransferLeaderRequest,
    type_config::TypeConfigExt as _,
};

use super::{
    SimTypes,
    net::{Links, SimRaft, World},
};
use crate::cluster::{
    quorum::{
        applier::Applier,
        id::{Cluster, Identity, Member, NodeId, StoreId},
        member,
        order::{Order, Outcome, Proposal},
        store::{Disk, LogStore, Store},
        types::LogId,
    },
    state::Command,
};

/// Orders that are given in one schedule.
const ORDERS: u64 = 60;

/// So long an attempt to give an order may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// No fault lasts so long when there are no more of them.
const LONG: Duration = Duration::from_mins(10);

pub(super) fn runtime(seed: u64) -> openraft_rt_sim::SimRuntime {
    openraft_rt_sim::SimRuntime::with_seed(seed)
}

pub(super) struct House {
    world: World,
    disks: BTreeMap<NodeId, Disk>,
}

fn node(number: u64) -> NodeId {
    NodeId::from(number)
}

impl House {
    /// So many members, that have become a quorum.
    pub(super) async fn build(seed: u64, count: u64) -> House {
        let world = World::new(seed);
        let mut house = House {
            world,
            disks: BTreeMap::new(),
        };
        let mut members = BTreeMap::new();
        for number in 1..=count {
            let identity = Identity {
                cluster: Cluster::try_from("a cluster".to_owned()).unwrap(),
                node: node(number),
                store: StoreId::new(),
            };
            let disk = Disk::default();
            Store::begin_on(&disk, &identity).unwrap();
            house.disks.insert(node(number), disk);
            let store = identity.store;
            let address = number.to_string();
            members.insert(node(number), Member { store, address });
        }
        for node in members.keys() {
            house.start(*node).await;
        }
        house.world.members()[&node(1)].initialize(members).await.unwrap();
        house
    }

    pub(super) fn world(&self) -> World {
        self.world.clone()
    }

    async fn start(&self, node: NodeId) {
        self.disks[&node].fail_after(None);
        let store = Store::on(&self.disks[&node]).unwrap();
        let (applier, _) = Applier::new(store.clone()).unwrap();
        let links = Links {
            world: self.world.clone(),
            from: node,
        };
        let config = Arc::new(member::config("a cluster".to_owned()).validate().unwrap());
        let raft = Raft::new(node, config, links, LogStore(store), applier).await.unwrap();
        self.world.say(format!("{node} starts"));
        self.world.join(node, raft);
    }

    /// Kills a member: of what its disk was not asked to keep, chance decides.
    async fn kill(&mut self, node: NodeId) {
        let Some(raft) = self.world.leave(node) else { return };
        self.disks[&node].fail_after(Some(0));
        // It may have failed before.
        let _ = raft.shutdown().await;
        drop(raft);
        let world = self.world.clone();
        let left = self.disks[&node].crash(|| world.chance().below(2) == 0);
        self.disks.insert(node, Disk::holding(left));
        self.world.say(format!("{node} dies"));
    }

    /// Something that happens to one of them.
    pub(super) async fn trouble(&mut self) {
        let (kind, victim) = {
            let mut chance = self.world.chance();
            (chance.below(7), node(1 + chance.below(3)))
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
                if let Some(raft) = self.world.members().get(&victim) {
                    // It may have ended.
                    let _ = raft.trigger().snapshot().await;
                }
            }
            5 => {
                // It takes its leader to have ended, rightly or not, and stands for election before the lease is over.
                if let Some(raft) = self.world.members().get(&victim) {
                    let vote = raft.metrics().borrow_watched().vote;
                    // It may have ended, or the vote is another one meanwhile.
                    let _ = raft
                        .handle_transfer_leader(TransferLeaderRequest::new(vote, victim, None))
                        .await;
                    self.world.say(format!("{victim} stands for election"));
                }
            }
            _ => self.bring_back(victim).await,
        }
        self.look();
    }

    /// Starts a member that is down, or has failed.
    async fn bring_back(&mut self, node: NodeId) {
        let members = self.world.members();
        let has_failed = |raft: &SimRaft| raft.metrics().borrow_watched().running_state.is_err();
        if members.get(&node).is_some_and(has_failed) {
            drop(members);
            self.kill(node).await;
        }
        if !self.world.members().contains_key(&node) {
            self.start(node).await;
        }
    }

    /// There is one leader in a term.
    fn look(&self) {
        let mut leaders = BTreeMap::new();
        for (node, raft) in self.world.members() {
            let metrics = raft.metrics().borrow_watched().clone();
            if metrics.state == ServerState::Leader && metrics.running_state.is_ok() {
                let before = leaders.insert(metrics.current_term, node);
                assert_eq!(before, None, "two lead in term {}", metrics.current_term);
                self.world.say(format!("{node} leads in term {}", metrics.current_term));
            }
        }
    }

    /// No more faults.
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
    }

    /// All members have the same state, with all that was acknowledged in it.
    pub(super) async fn check(&self, acknowledged: &Acknowledged) {
        let last = Acknowledged::order(&self.world, Order::ReserveProducerIds, LONG).await;
        let last = last.expect("without faults an order is carried out").1;
        let mut states = BTreeSet::new();
        for (node, raft) in self.world.members() {
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

/// What somebody was told is done.
#[derive(Default)]
pub(super) struct Acknowledged {
    topics: Vec<TopicId>,
}

impl Acknowledged {
    /// Gives an order until it is carried out or time is up, to one member after the other.
    async fn order(world: &World, order: Order, within: Duration) -> Option<(Outcome, LogId)> {
        let proposal = Proposal::new(order);
        let attempts = async {
            loop {
                let members: Vec<SimRaft> = world.members().into_values().collect();
                let place = world.chance().below(members.len().max(1) as u64) as usize;
                if let Some(raft) = members.get(place) {
                    let written = SimTypes::timeout(ATTEMPT, raft.client_write(proposal.clone())).await;
                    if let Ok(Ok(written)) = written {
                        return (written.data, written.log_id);
                    }
                }
                drop(members);
                SimTypes::sleep(Duration::from_millis(50)).await;
            }
        };
        SimTypes::timeout(within, attempts).await.ok()
    }
}

/// Gives orders, one after the other, and notes what was carried out.
pub(super) async fn give_orders(world: World) -> Acknowledged {
    let mut acknowledged = Acknowledged::default();
    let mut blocks = BTreeSet::new();
    for number in 0..ORDERS {
        let topic = TopicId::new(uuid::Uuid::from_u128(1 + u128::from(number)));
        let order = if world.chance().below(2) == 0 {
            Order::ReserveProducerIds
        } else {
            Order::Topic(Command::Create {
                name: format!("topic-{number}").parse().unwrap(),
                id: topic,
                partition_count: 1,
                overrides: BTreeMap::new(),
            })
        };
        let Some((outcome, log_id)) = Acknowledged::order(&world, order, Duration::from_secs(5)).await else {
            world.say(format!("nobody knows what became of order {number}"));
            continue;
        };
        world.say(format!("order {number} is done by {log_id}"));
        match outcome {
            Outcome::Done => acknowledged.topics.push(topic),
            Outcome::ProducerIds { first } => assert!(blocks.insert(first), "a block was given twice"),
            // Proposed again under the same id it is known again, so that nothing is in its way.
            Outcome::Nothing | Outcome::Refused { .. } | Outcome::Partly(_) => panic!("order {number}: {outcome:?}"),
        }
    }
    acknowledged
}
