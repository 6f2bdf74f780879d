//! Promises of replication, in simulated time: brokers with model logs, the coordinator's real state, and a network that loses,
//! repeats and reorders. `HEADWATER_SEEDS` sets for how many seeds; `HEADWATER_SEED` runs one alone.

mod cases;
mod deeds;
mod log;
mod logs;
mod moves;
mod node;
mod promises;
mod world;

use super::{
    follower::{Act, Follower, Log},
    leader::{Lag, Leader, LeaderLog},
    message::Held,
    replica::LogState,
    *,
};
use crate::image::{Durability, Member};
