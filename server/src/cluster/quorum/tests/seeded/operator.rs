//! Who sees to the members: adds some, takes some out, puts others in their places, and now and then gives a host another disk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openraft::type_config::TypeConfigExt as _;

use super::{
    SimTypes,
    house::House,
    net::{SimMember, World},
};
use crate::cluster::quorum::{
    id::{Member, NodeId},
    members::{
        ChangeError,
        change::{self, Party as _},
    },
    order::{Order, Proposal},
    peer::CallError,
    types::Membership,
};

/// Nobody waits longer for a change; what became of it is not known then.
const CHANGE_MAX: Duration = Duration::from_secs(5);

/// Within this time a leader that can lead has an order agreed on.
const ORDER_MAX: Duration = Duration::from_secs(2);

/// A majority of these go on when one of them has lost its disk.
const VOTERS: usize = 3;

/// What is done next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Add(NodeId),
    Remove(NodeId),
    /// Another disk for a voter, which it does not tell anybody.
    Empty(NodeId),
}

/// Why the members are as they were, or nobody knows.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    NotThere(#[from] CallError),
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl House {
    /// One step, if somebody leads within this time and no change is under way.
    pub(super) async fn see_to_members(&mut self, within: Duration) {
        if self.world.is_changing() {
            return SimTypes::sleep(Duration::from_millis(100)).await;
        }
        let settled = SimTypes::timeout(within, settled(&self.world)).await;
        let Ok((leader, membership)) = settled else { return };
        let Some(step) = self.next_step(&membership) else {
            return;
        };
        self.world.say(format!("an operator: {step:?}"));
        match step {
            Step::Empty(node) => {
                self.emptied = Some(node);
                self.empty(node).await;
            }
            Step::Add(node) => {
                let is_strange = membership.get_node(&node).is_none();
                if is_strange && self.world.chance().below(2) == 0 {
                    self.empty(node).await;
                }
                change_members(leader, step);
            }
            Step::Remove(_) => change_members(leader, step),
        }
    }

    /// Of a member that has lost its disk the others are told first; then it is like any other that may be added.
    fn next_step(&mut self, membership: &Membership) -> Option<Step> {
        if let Some(emptied) = self.emptied {
            let is_known = membership.get_node(&emptied).is_some();
            if !is_known {
                self.emptied = None;
            }
            return is_known.then_some(Step::Remove(emptied));
        }
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let running = self.world.members().into_keys();
        let others: Vec<NodeId> = running.filter(|node| !voters.contains(node)).collect();
        let mut chance = self.world.chance();
        let is_joint = membership.membership().get_joint_config().len() > 1;
        let may_empty = voters.len() >= VOTERS && !is_joint;
        let mut any = |nodes: &[NodeId]| {
            let place = chance.below(nodes.len().max(1) as u64) as usize;
            nodes.get(place).copied()
        };
        let (voter, other) = (any(&voters)?, any(&others));
        match chance.below(3) {
            0 if may_empty => Some(Step::Empty(voter)),
            _ if voters.len() > VOTERS => Some(Step::Remove(voter)),
            _ => other.map(Step::Add),
        }
    }
}

/// Whoever leads, and the members as they are agreed on: it has had an order agreed on since.
async fn settled(world: &World) -> (SimMember, Arc<Membership>) {
    loop {
        if let Some(leader) = world.leader() {
            let order = leader.raft.client_write(Proposal::new(Order::ReserveProducerIds));
            if let Ok(Ok(written)) = SimTypes::timeout(ORDER_MAX, order).await {
                let membership = leader.local.membership();
                if *membership.log_id() < Some(written.log_id) {
                    return (leader, membership);
                }
            }
        }
        SimTypes::sleep(Duration::from_millis(100)).await;
    }
}

/// Begins a change of the members, as an operator who asks this leader for it.
fn change_members(leader: SimMember, step: Step) {
    let world = leader.world.clone();
    world.set_changing(true);
    SimTypes::spawn(async move {
        let changed = match step {
            Step::Add(node) => add(&leader, node).await,
            Step::Remove(node) | Step::Empty(node) => {
                let removed = change::remove(&leader, node, CHANGE_MAX).await;
                removed.map_err(StepError::from)
            }
        };
        let became = changed.map_or_else(|error| error.to_string(), |()| "done".to_owned());
        world.say(format!("{step:?}: {became}"));
        world.set_changing(false);
    });
}

async fn add(leader: &SimMember, node: NodeId) -> Result<(), StepError> {
    let address = node.to_string();
    let mut line = leader.newcomers_line(node, &address);
    let store = SimMember::progress(&mut line, node).await?.store;
    let members = BTreeMap::from([(node, Member { store, address })]);
    Ok(change::add(leader, &members, CHANGE_MAX).await?)
}
