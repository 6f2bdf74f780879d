//! What holds of what the members agree on, whatever is asked for.

use std::time::Duration;

use headwater_protocol::id::BrokerId;

use super::Agreement;
use crate::cluster::{quorum::id::NodeId, replicas::ReplicaMap};

/// A broker that the active coordinator does not hear for so long is fenced: its session is over, and that was agreed on.
const UNHEARD_MAX: Duration = Duration::from_secs(9);

impl Agreement {
    /// Who is not heard is fenced soon.
    pub(super) fn check_heard(&self, active: NodeId) {
        let now = self.world.now();
        let state = self.state.borrow();
        let mut unheard = self.unheard.borrow_mut();
        for broker in state.replicas().brokers() {
            let node = NodeId::from(broker.id);
            if broker.is_fenced || self.hears(active, node) {
                unheard.remove(&node);
                continue;
            }
            let since = *unheard.entry(node).or_insert(now);
            assert!(
                now.saturating_sub(since) < UNHEARD_MAX,
                "broker {node} is not heard, and not fenced: {broker:?}"
            );
        }
    }

    /// What holds of brokers and replicas whatever is asked for.
    pub(super) fn check(&self, before: &ReplicaMap, now: &ReplicaMap) {
        let mut leaders = self.leaders.borrow_mut();
        let mut joined = Vec::new();
        for (id, replicas) in now.partitions() {
            if let Some(leader) = replicas.leader {
                assert!(replicas.is_in_sync(leader), "{id:?} is led out of sync: {replicas:?}");
                let first = *leaders.entry((id, replicas.leader_epoch)).or_insert(leader);
                assert_eq!(first, leader, "{id:?} has two leaders in an epoch: {replicas:?}");
            }
            for member in &replicas.isr {
                assert!(replicas.has(*member), "{id:?} is in sync elsewhere: {replicas:?}");
                let is_up = now.broker(*member).is_some_and(|broker| !broker.is_fenced);
                assert!(is_up, "{id:?} has one in sync that is fenced: {replicas:?}");
                let is_new = before.broker(*member).map(|broker| broker.incarnation)
                    != now.broker(*member).map(|broker| broker.incarnation);
                assert!(!is_new, "{id:?} has one in sync that has just begun: {replicas:?}");
                let is_eligible = replicas.elr.contains(member);
                assert!(!is_eligible, "{id:?} has one in sync and merely eligible: {replicas:?}");
            }
            if let Some(before) = before.replicas(id) {
                let is_later = before.epoch < replicas.epoch && before.leader_epoch <= replicas.leader_epoch;
                assert!(
                    before == replicas || is_later,
                    "{id:?} went back from {before:?} to {replicas:?}"
                );
                let joins = |member: &&BrokerId| !before.is_in_sync(**member);
                joined.extend(replicas.isr.iter().filter(joins).map(|member| (id, *member)));
            }
        }
        drop(leaders);
        if let Some(told) = &*self.when_in_sync.borrow() {
            for (id, member) in joined {
                told(id, member);
            }
        }
    }
}
