//! Members in a simulated world, as a function of a seed: links that delay and lose, members that die at any write and come back with
//! what their disk has kept, an operator who adds and removes them and puts others in their places, and somebody who has orders. A disk
//! is lost now and then, and its member comes back with nothing. Only the network and the runtime are others than in a broker.
//!
//! `HEADWATER_SEED=7` runs that one alone, and says what happened.

mod clients;
mod house;
mod net;
mod operator;

use std::{panic, time::Duration};

use openraft::{AsyncRuntime as _, type_config::TypeConfigExt as _};

use self::{house::House, net::World};

openraft::declare_raft_types!(
    /// In the simulation.
    SimTypes:
        D = crate::cluster::quorum::order::Proposal,
        R = crate::cluster::quorum::order::Outcome,
        NodeId = crate::cluster::quorum::id::NodeId,
        Node = crate::cluster::quorum::id::Member,
        LeaderId = crate::cluster::quorum::types::LeaderId,
        Vote = crate::cluster::quorum::types::Vote,
        Entry = crate::cluster::quorum::types::Entry,
        AsyncRuntime = openraft_rt_sim::SimRuntime,
);

/// Schedules in a run of the tests.
const SEEDS: u64 = 100;

/// Troubles in one schedule.
const TROUBLES: u64 = 16;

/// Says what happened, if the run fails.
struct Told(World);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.0.said() {
                println!("{line}");
            }
        }
    }
}

/// One schedule: troubles while orders are given, then none, and then everything that was acknowledged is known to all. Gives what
/// happened, line by line.
fn run(seed: u64) -> Vec<String> {
    house::runtime(seed).block_on(async move {
        let mut house = House::build(seed).await;
        let _told = Told(house.world());
        let orders = SimTypes::spawn(clients::give_orders(house.world()));
        for _ in 0..TROUBLES {
            house.trouble().await;
            let pause = house.world().chance().below(1500);
            SimTypes::sleep(Duration::from_millis(pause)).await;
        }
        house.heal().await;
        let acknowledged = orders.await.unwrap();
        house.check(&acknowledged).await;
        house.end().await
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn what_was_acknowledged_is_known_to_all_members_whatever_happens_and_whoever_they_are() {
    if let Some(seed) = number("HEADWATER_SEED") {
        for line in run(seed) {
            println!("{line}");
        }
        return;
    }
    for seed in 0..number("HEADWATER_SEEDS").unwrap_or(SEEDS) {
        println!("HEADWATER_SEED={seed}");
        run(seed);
    }
}

/// What `.ci/faults` runs when a fault is built in.
#[test]
#[ignore = "says how many schedules it takes until one fails"]
fn which_seed_fails() {
    let count = number("HEADWATER_SEEDS").unwrap_or(SEEDS);
    let failed = (0..count).find_map(|seed| Some((seed, panic::catch_unwind(|| run(seed)).err()?)));
    let Some((seed, panic)) = failed else {
        println!("not found in {count} schedules");
        return;
    };
    let why = panic.downcast_ref::<String>().map(String::as_str);
    let why = why.or_else(|| panic.downcast_ref::<&str>().copied());
    let why = why.and_then(|why| why.lines().next()).unwrap_or_default();
    println!("found by schedule {}: {why}", seed + 1);
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(run(3), run(3));
}
