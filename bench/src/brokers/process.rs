//! A broker as a process of its own: what this program is when the bench has started it as one of a cluster.
//!
//! It says on standard output where it is once it is ready, and nothing else. Its standard input is held by the bench and never
//! written to: when it ends the bench is gone, however it went, and the broker goes at once, like one whose machine has lost power.
//! Unlike a death signal of the kernel's, that does not depend on which thread of the bench has started it.

use std::io::{self, Read as _, Write as _};
use std::process::exit;

use clap::Args;
use headwater_server::broker::{Broker, StopSignals};
use headwater_server::failure;
use serde::{Deserialize, Serialize};

use super::config;
use crate::cli::key_and_value;
use crate::error::BenchError;

/// Exit status when the bench is gone.
const EXIT_ORPHANED: i32 = 4;

/// Options of `broker`.
#[derive(Debug, Clone, Args)]
pub struct ProcessArgs {
    /// Any key of the configuration; may be given many times
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

/// Where a broker is that is ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// Its metrics, if it has them.
    pub metrics: Option<String>,
}

/// Runs a broker until a signal has come, or the bench is gone.
pub fn run(args: &ProcessArgs) -> Result<(), BenchError> {
    failure::end_process_on_panic(false);
    std::thread::Builder::new()
        .name("parent".to_owned())
        .spawn(end_with_parent)
        .map_err(BenchError::Threads)?;
    let mut signals = StopSignals::catch().map_err(BenchError::Threads)?;
    let Some(broker) = Broker::start_unless(config(&args.set)?, &mut signals)? else {
        return Ok(());
    };
    let ready = Ready {
        metrics: broker.metrics_addr().map(|address| address.to_string()),
    };
    let line = serde_json::to_string(&ready).expect("an address is always JSON");
    // If nobody reads it, the bench is gone.
    let _ = writeln!(io::stdout(), "{line}");
    Ok(broker.run_until(signals)?)
}

fn end_with_parent() {
    let mut input = io::stdin();
    let mut ignored = [0; 64];
    loop {
        match input.read(&mut ignored) {
            Ok(0) => exit(EXIT_ORPHANED),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_lost) => exit(EXIT_ORPHANED),
        }
    }
}
