//! The command `quick`: a broker, a produce, a consume, all in one process and in that order.
//!
//! The broker outlives both phases and is stopped in order, so that a record that is lost at the stop would be noticed by
//! whoever reads the data that `--keep` leaves.

use std::sync::Arc;
use std::time::Duration;

use headwater_server::Broker;
use tokio::runtime::Runtime;

use crate::cli::{LoadArgs, QuickArgs};
use crate::consume::{self, Verify};
use crate::embedded::{self, DataDirectory};
use crate::environment::{Environment, peak_resident_bytes};
use crate::error::BenchError;
use crate::payload::Payload;
use crate::produce;
use crate::progress::{Goal, Progress};
use crate::report::{Memory, Outcome, Report};
use crate::workload::Expectation;

const TOPIC: &str = "bench";

/// Runs it.
pub fn run(args: &mut QuickArgs, runtime: &Runtime) -> Result<Report, BenchError> {
    let payload = Arc::new(crate::payload_of(&args.values)?);
    let directory = DataDirectory::make(args.data_dir.as_deref(), args.keep)?;
    let bytes_max = directory.room()?;
    if let Some(bytes) = args.load.bytes.filter(|&bytes| bytes > bytes_max) {
        return Err(BenchError::Options(format!(
            "--bytes {bytes} does not fit on the disk, which can take {bytes_max}: produce less, or name another disk \
             with --data-dir"
        )));
    }
    let config = embedded::config(args, directory.path())?;
    args.cores = Some(config.cores.count);
    args.data_dir = Some(directory.path().to_owned());
    // Producers are gone when the consumer starts, but memory that was freed stays resident for a while.
    let clients = crate::producers_budget(&args.load) + crate::CONSUMER_BYTES + payload.memory() as u64;
    let memory_budget_bytes = embedded::memory_budget(&config) + clients;
    let environment = Environment::look(Some(directory.path()));
    let broker = Broker::start(config)?;
    let bootstrap = broker.addr().to_string();
    let produce = produce::Plan {
        bootstrap: bootstrap.clone(),
        topic: TOPIC.to_owned(),
        load: args.load.clone(),
        payload: Arc::clone(&payload),
        bytes_max,
    };
    let outcome = crate::until_interrupted(runtime, phases(produce, payload))?;
    broker.shutdown()?;
    let mut notes = directory.notes.clone();
    notes.extend(crate::notes(&environment));
    Ok(Report {
        outcome,
        memory: Memory {
            peak_rss_bytes: peak_resident_bytes(),
            memory_budget_bytes,
        },
        config: crate::config_of(args),
        environment,
        notes,
    })
}

async fn phases(plan: produce::Plan, payload: Arc<Payload>) -> Result<Outcome, BenchError> {
    let bootstrap = plan.bootstrap.clone();
    let progress = Progress::start("produce", goal(&plan.load));
    let produced = produce::run(plan, progress.counter()).await?;
    drop(progress);
    let progress = Progress::start("consume", Goal::Bytes(produced.phase.bytes));
    let plan = consume::Plan {
        client: produce::client(&bootstrap).await?,
        topic: TOPIC.to_owned(),
        verify: Some(Verify {
            payload,
            expectation: Some(Expectation::Exactly(produced.acknowledged)),
            records: None,
        }),
        follow: false,
    };
    let consumed = consume::run(plan, progress.counter()).await?;
    Ok(Outcome::quick(produced.phase, consumed))
}

/// How far there is to go with a load.
pub fn goal(load: &LoadArgs) -> Goal {
    load.bytes
        .map_or(Goal::Time(Duration::from_secs_f64(load.seconds)), Goal::Bytes)
}
