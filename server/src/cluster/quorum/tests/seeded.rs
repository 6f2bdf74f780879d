//! Three members in a simulated world, as a function of a seed: links that delay and lose, members that die at any write and come
//! back with what their disk has kept, and somebody who has orders. Only the network is another than in a broker.
//!
//! `HEADWATER_SEED=7` runs that one alone, and says what happened.

mod house;
mod net;

use std::time::Duration;

use openraft::{AsyncRuntime as _, type_config::TypeConfigExt as _};

use self::house::House;

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
const SEEDS: u64 = 40;

/// Troubles in one schedule.
const TROUBLES: u64 = 12;

/// One schedule: troubles while orders are given, then none, and then everything that was acknowledged is known to all. Gives what
/// happened, line by line.
fn run(seed: u64) -> Vec<String> {
    house::runtime(seed).block_on(async move {
        let mut house = House::build(seed, 3).await;
        let orders = SimTypes::spawn(house::give_orders(house.world()));
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

#[test]
fn what_was_acknowledged_is_known_to_all_members_whatever_happens() {
    let seeds = match std::env::var("HEADWATER_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            for line in run(seed) {
                println!("{line}");
            }
            return;
        }
        Err(_) => 0..SEEDS,
    };
    for seed in seeds {
        println!("HEADWATER_SEED={seed}");
        run(seed);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(run(3), run(3));
}
