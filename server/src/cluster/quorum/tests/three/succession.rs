//! A leader whose process has ended.

use futures::future::join_all;

use super::*;
use crate::cluster::quorum::{member::ELECTION_MS, members::succession};

/// What a leader that is only silent is waited for at least.
const LEASE: Duration = Duration::from_millis(ELECTION_MS.1);

/// How long it takes until another leads once the leader is gone.
async fn another_leads_after(is_silent: bool) -> Duration {
    let mut house = House::of(3).await;
    let leader = house.leader().await;
    let gone_at = house.until_gone(leader, is_silent).await;
    let quorums: Vec<&Quorum> = house.members.values().collect();
    let watched = join_all(quorums.iter().map(|quorum| succession::watch(quorum)));
    tokio::select! {
        _ = watched => unreachable!("it watches for ever"),
        _ = house.leader() => {}
    }
    let passed = machine::since(gone_at);
    house.stop_all().await;
    passed
}

#[test]
fn a_leader_whose_process_has_ended_is_not_waited_for() {
    // A busy machine may take longer than the lease; it does not every time.
    let is_soon = |_| runtime().block_on(another_leads_after(false)) < LEASE;
    assert!((0..5).any(is_soon), "another leads only after the lease");
}

#[test]
fn a_leader_that_is_silent_keeps_its_lease() {
    assert!(runtime().block_on(another_leads_after(true)) >= LEASE);
}
