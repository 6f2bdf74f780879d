//! Promises of groups, in simulated time. `HEADWATER_SEEDS` sets for how many seeds; `HEADWATER_SEED` runs one alone.

mod consumers;
mod errors;
mod fleet;
mod node;
mod places;
mod promises;
mod rebalance;
mod world;

use std::io::Write as _;

use super::{
    record::Record,
    shard::{Event, Population, Shard},
    step::{Effect, WriteId},
    topics::Topics,
};
use crate::model::group::{
    Answer, CallId, Client, CommitItem, Committed, Generation, GroupId, Identity, InstanceId, Join, MemberId, Moment,
    Protocol, Reply, Request, Since, Sync, Timeouts,
};

/// Runs `test` for as many seeds as the environment asks for, else `count`; tells how to run a seed that fails again.
fn for_each_seed(name: &str, count: u64, test: impl Fn(u64)) {
    let number = |variable| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("HEADWATER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HEADWATER_SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        let _told = TellIfFailed(name, seed);
        test(seed);
    }
}

struct TellIfFailed<'a>(&'a str, u64);

impl Drop for TellIfFailed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let TellIfFailed(name, seed) = self;
            let told = writeln!(
                std::io::stderr(),
                "failed with seed {seed}; again: HEADWATER_SEED={seed} cargo test -p headwater-server --lib {name}"
            );
            told.unwrap();
        }
    }
}
