//! Why the bench cannot do what it was asked to. Each message says what to do next.
//!
//! Damage to records is not among these: it is a result, and reported as one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_client as client;
use headwater_client::PartitionIndex;
use headwater_server::config::ConfigError;
use headwater_server::{StartError, StopError};

use crate::limits::LimitsError;
use crate::payload::PayloadError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The payload is not usable.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A call of the client failed.
    #[error("{doing}: {}{}", chain(source), advice(source))]
    Client {
        /// What was being done.
        doing: &'static str,
        /// The client's error.
        source: client::Error,
    },
    /// The options cannot go together, or not with this machine.
    #[error("{0}")]
    Options(String),
    /// The embedded broker refuses its configuration.
    #[error("the embedded broker cannot run with these options: {0}")]
    Config(#[from] ConfigError),
    /// The embedded broker does not start.
    #[error("the embedded broker does not start: {0}")]
    Start(#[from] StartError),
    /// The embedded broker failed while it ran.
    #[error("the embedded broker did not stop in order: {0}; run with RUST_LOG=info to see why")]
    Stop(#[from] StopError),
    /// One of several brokers that the bench has started.
    #[error("broker {number} {what}; the last that it has logged:\n  {last}")]
    Broker {
        /// Which.
        number: u16,
        /// What it has done, or not.
        what: String,
        /// Lines of its log.
        last: String,
    },
    /// The directory for the data cannot be made or looked at.
    #[error("cannot use {} for data: {source}; name a directory on a real disk with --data-dir", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file that was named cannot be written or read.
    #[error("cannot use the file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A result to be compared is not one.
    #[error("{} is no result of this bench: {reason}; make one with --output json", path.display())]
    Result {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What should be there does not come.
    #[error("for {} s no record came, though there should be more; the broker's log may tell why", .0.as_secs())]
    Starved(Duration),
    /// Records were gone before they were read: what was measured is not what was asked for.
    #[error(
        "partition {partition} of the topic went on at offset {to} before what lies from {from} on was read: its records were \
         deleted; raise retention.ms and retention.bytes, and leave the topic alone meanwhile"
    )]
    Overtaken {
        /// The partition.
        partition: PartitionIndex,
        /// What was to be read next.
        from: client::Offset,
        /// What comes next now.
        to: client::Offset,
    },
    /// A client of another system.
    #[cfg(any(feature = "kafka", feature = "nats"))]
    #[error("{doing}: {reason}; check the address given by --server")]
    Other {
        /// What was being done.
        doing: &'static str,
        /// The client's words.
        reason: String,
    },
    /// Threads, or their signals, are not to be had.
    #[error("cannot start threads: {0}")]
    Threads(#[source] io::Error),
    /// The clients cannot run where they should.
    #[error("the clients cannot run on CPUs {cpus}: {source}; `nproc` and `taskset -p $$` tell which ones there are")]
    Cpus {
        /// As asked for.
        cpus: String,
        /// The system's answer.
        source: io::Error,
    },
    /// What the machine can do cannot be measured.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// Ctrl-C, before there was a result.
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    /// For `map_err`: a client's error with what was being done.
    pub fn client(doing: &'static str) -> impl FnOnce(client::Error) -> Self {
        move |source| Self::Client { doing, source }
    }

    /// A file with what went wrong with it.
    pub fn file(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::File { path, source }
    }

    /// For `map_err`: the error of another system's client with what was being done.
    #[cfg(any(feature = "kafka", feature = "nats"))]
    pub fn other<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Other {
            doing,
            reason: error.to_string(),
        }
    }
}

/// The error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn advice(error: &client::Error) -> &'static str {
    match error {
        client::Error::UnknownTopic(_) => "; produce to it first, or check the name",
        client::Error::Config { .. } => "; change that option",
        client::Error::Connect { .. }
        | client::Error::NotHeadwater { .. }
        | client::Error::Timeout { .. }
        | client::Error::Disconnected { .. } => "; check that a broker runs at the address given by --server",
        client::Error::Broker { .. } | client::Error::Protocol { .. } => "; the broker's log tells more",
        _ => "",
    }
}
