//! How the replicas of one partition change: what is asked for, and then what follows of it by the rules.
//!
//! ```text
//! edit ─► [enough in sync: nobody is eligible beside them] ─► elect, if nobody in sync leads ─► end a reassignment ─► epochs
//! ```
//! Who leaves the in-sync replicas becomes eligible (KIP-966): as long as too few are in sync, nothing is acknowledged that it lacks.
//! As soon as enough are, that is not so any more, and nobody is eligible but they. Unlike in Kafka, one that has crashed stays eligible
//! where an acknowledgement means stable storage, as it still has all that was acknowledged: a cluster whose brokers all crash at
//! once goes on by itself.

use headwater_protocol::id::{BrokerId, LeaderEpoch};

use crate::image::{Durability, PartitionEpoch, Replicas};

/// The replicas after `edit` and what follows of it, if they are others then. Everybody in sync must be up.
pub(super) fn change(
    before: &Replicas,
    is_up: &dyn Fn(BrokerId) -> bool,
    edit: impl FnOnce(&mut Replicas),
) -> Option<Replicas> {
    let mut next = before.clone();
    edit(&mut next);
    if next.has_quorum() {
        next.elr.clear();
    }
    elect(&mut next, is_up);
    end_reassignment(&mut next, is_up);
    if next.has_quorum() {
        next.elr.clear();
    }
    if next == *before {
        return None;
    }
    if next.leader != before.leader || has_lost_a_replica(before, &next) {
        next.leader_epoch = LeaderEpoch::new(before.leader_epoch.get() + 1);
    }
    next.epoch = PartitionEpoch::new(before.epoch.get() + 1);
    Some(next)
}

fn has_lost_a_replica(before: &Replicas, next: &Replicas) -> bool {
    before.replicas.iter().any(|broker| !next.has(*broker))
}

/// The broker is not in sync any more, and has all that was acknowledged until now.
pub(super) fn steps_back(next: &mut Replicas, broker: BrokerId) {
    if next.is_in_sync(broker) {
        next.isr.retain(|member| *member != broker);
        next.elr.push(broker);
        in_order(next);
    }
}

/// The broker may not have any more what was acknowledged.
pub(super) fn has_lost(next: &mut Replicas, broker: BrokerId) {
    next.isr.retain(|member| *member != broker);
    next.elr.retain(|member| *member != broker);
}

/// The log of the broker is not open: it cannot lead. What was in memory is gone.
pub(super) fn fails(next: &mut Replicas, broker: BrokerId) {
    if next.has(broker) && !next.offline.contains(&broker) {
        next.offline.push(broker);
        match next.terms.durability {
            Durability::Disk => steps_back(next, broker),
            Durability::Memory => has_lost(next, broker),
        }
    }
}

/// The log of the broker is open again.
pub(super) fn opens(next: &mut Replicas, broker: BrokerId) {
    next.offline.retain(|offline| *offline != broker);
}

/// These are in sync from now on, the leader among them.
pub(super) fn in_sync(next: &mut Replicas, isr: &[BrokerId]) {
    let leave: Vec<BrokerId> = next
        .isr
        .iter()
        .filter(|member| !isr.contains(member))
        .copied()
        .collect();
    for broker in leave {
        steps_back(next, broker);
    }
    next.isr = isr.to_vec();
    next.elr.retain(|member| !isr.contains(member));
    in_order(next);
}

/// The epoch in which this was asked for is over, whatever comes of it.
pub(super) fn uses_up_epoch(next: &mut Replicas) {
    next.epoch = PartitionEpoch::new(next.epoch.get() + 1);
}

/// The broker leads, whatever it lacks.
pub(super) fn leads_unclean(next: &mut Replicas, broker: BrokerId) {
    in_sync(next, &[broker]);
    next.leader = Some(broker);
}

/// The partition is to be at `target`.
pub(super) fn moves(next: &mut Replicas, target: &[BrokerId]) {
    let is_old = |broker: &BrokerId| next.replicas.contains(broker);
    next.adding = target.iter().filter(|broker| !is_old(broker)).copied().collect();
    next.removing = next
        .replicas
        .iter()
        .filter(|old| !target.contains(old))
        .copied()
        .collect();
    next.replicas = [target, &next.removing].concat();
    in_order(next);
}

/// The partition stays where it was.
pub(super) fn stays(next: &mut Replicas) {
    let adding = std::mem::take(&mut next.adding);
    next.removing.clear();
    next.replicas.retain(|broker| !adding.contains(broker));
    forget_strangers(next);
}

fn elect(next: &mut Replicas, is_up: &dyn Fn(BrokerId) -> bool) {
    if next.leader.is_some_and(|leader| next.is_in_sync(leader)) {
        return;
    }
    let first = |among: &dyn Fn(BrokerId) -> bool| {
        let can_lead = |broker: &BrokerId| among(*broker) && is_up(*broker) && !next.offline.contains(broker);
        // One that is about to go would soon hand over again.
        next.target()
            .find(can_lead)
            .or_else(|| next.replicas.iter().copied().find(can_lead))
    };
    let leader = first(&|broker| next.isr.contains(&broker)).or_else(|| first(&|broker| next.elr.contains(&broker)));
    next.leader = leader;
    if let Some(leader) = leader.filter(|leader| !next.isr.contains(leader)) {
        next.isr = vec![leader];
        next.elr.retain(|member| *member != leader);
    }
}

/// When all that are to stay are in sync, the others go.
fn end_reassignment(next: &mut Replicas, is_up: &dyn Fn(BrokerId) -> bool) {
    let is_moving = !next.adding.is_empty() || !next.removing.is_empty();
    if !is_moving || !next.target().all(|broker| next.is_in_sync(broker)) {
        return;
    }
    next.replicas = next.target().collect();
    next.adding.clear();
    next.removing.clear();
    forget_strangers(next);
    elect(next, is_up);
}

fn forget_strangers(next: &mut Replicas) {
    let replicas = &next.replicas;
    for list in [&mut next.isr, &mut next.elr, &mut next.offline] {
        list.retain(|broker| replicas.contains(broker));
    }
}

/// Sorts who is in sync and who is eligible as the replicas are.
fn in_order(next: &mut Replicas) {
    let place = |broker: &BrokerId| next.replicas.iter().position(|replica| replica == broker);
    next.isr.sort_by_key(place);
    next.elr.sort_by_key(place);
}
