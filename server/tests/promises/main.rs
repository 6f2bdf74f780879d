//! The promises of the broker, each a test under the name of the promise: a real process, real sockets, a real disk.
//!
//! Every test that draws from a seed prints it when it fails, with the command that runs that seed alone. `HEADWATER_KILLS`
//! sets how often the broker is killed under load, `HEADWATER_CLUSTER_KILLS` how often one of three. Nothing here measures time; the limits only end what hangs.
//!
//! Tests begin in the order of their names. Those of accidents wait longest, so theirs is the first.

#![allow(
    clippy::unwrap_used,
    clippy::similar_names,
    clippy::needless_pass_by_value,
    reason = "tests may panic, and read best with the names of the matter"
)]

mod access;
mod accidents;
mod bad_input;
mod belonging;
mod checkpoints;
mod cli;
mod clients;
mod cluster;
mod compaction;
mod connections;
mod cores;
mod damage;
mod deploy;
mod disk_full;
mod embedding;
mod fetch_limits;
mod former;
mod forwarding;
mod gone;
mod group_compaction;
mod group_consumer;
mod group_kills;
mod groups;
mod halted_members;
mod http;
mod kafka;
mod kills;
mod long_poll;
mod lookup;
mod memory;
mod metrics;
mod misplaced;
mod open_files;
mod other_file_systems;
mod power_cuts;
mod quorum;
mod quotas;
mod read_only;
mod readers;
mod reopened;
mod retries;
mod sealing;
mod shutdown;
mod stalled;
mod support;
mod times;
mod tls;
mod topics;
mod unreadable;
