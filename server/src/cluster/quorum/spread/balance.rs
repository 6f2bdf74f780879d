//! The active coordinator moves replicas to brokers that have fewer, if it is set to: when a broker has joined, or partitions came to be
//! unevenly spread by other ways. A few at a time, and only while the same brokers are there as at the last look.

use std::{convert::Infallible, time::Duration};

use headwater_protocol::id::BrokerId;
use tokio::time::sleep;

use crate::{
    cluster::{
        quorum::{member::Quorum, order::Order},
        replicas::{ReplicaCommand, ReplicaMap, next_moves, under_way},
    },
    image::Incarnation,
};

/// Who is there at two looks in a row, this far apart, is there to stay.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Partitions whose records are copied at the same time, those that operators move among them.
const MOVING_MAX: usize = 4;

/// Has replicas move whenever this member is the active coordinator.
pub(super) async fn watch(quorum: &Quorum) -> Infallible {
    let mut before = None;
    loop {
        sleep(LOOK_EVERY).await;
        if quorum.leader() != Some(quorum.identity().node) {
            before = None;
            continue;
        }
        let map = quorum.shown().replicas.borrow().clone();
        let now = Some(there(&map));
        if before != now {
            before = now;
            continue;
        }
        let moves = next_moves(&map, MOVING_MAX.saturating_sub(under_way(&map)));
        if moves.is_empty() {
            continue;
        }
        for (id, to) in &moves {
            tracing::info!(topic = %id.topic, partition = %id.index, ?to, "a partition moves, so that brokers have as many each");
        }
        let partitions = moves.into_iter().map(|(id, to)| (id, Some(to))).collect();
        let order = Order::Replicas(ReplicaCommand::Reassign { partitions });
        if let Err(error) = quorum.propose(order).await {
            tracing::debug!(%error, "partitions do not move; it is tried again");
        }
    }
}

/// The brokers that may be given replicas, as the processes that they are.
fn there(map: &ReplicaMap) -> Vec<(BrokerId, Incarnation)> {
    let usable = map.brokers().filter(|broker| !broker.is_fenced && !broker.is_cordoned);
    usable.map(|broker| (broker.id, broker.incarnation)).collect()
}
