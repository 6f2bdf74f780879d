//! The consuming side: consumers that read all partitions up to an end, and verify.
//!
//! The end is known beforehand (catch-up), or told while they read (tail), or never (until Ctrl-C).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::intake::{Intake, Timing};
use super::meter::Meter;
use super::produce::SAMPLE_EVERY;
use crate::error::BenchError;
use crate::payload::Payload;
use crate::target::{Position, Target, TargetConsumer};
use crate::workload::{Expectation, Findings, Incidents, StreamId, Verifier};

/// A broker that has told the high watermark must come up with the next records within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is consumed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The topic.
    pub topic: String,
    /// By partition.
    pub from: Vec<Position>,
    /// How the records are verified, if they are.
    pub verify: Option<Verify>,
    /// Which records are timed.
    pub timed: Timed,
}

/// Which records are timed from when they were due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timed {
    /// None: they were stored before.
    None,
    /// A sample of them, enough for a closed loop.
    Sample,
    /// All.
    All,
}

/// What the records should be.
#[derive(Debug, Clone)]
pub struct Verify {
    /// Their values.
    pub payload: Arc<Payload>,
    /// What is known of their streams beforehand.
    pub expectation: Expectation,
    /// Where what is wrong is noted with its time, if somebody asks.
    pub incidents: Option<Incidents>,
}

impl Verify {
    /// Notes what is wrong here as well.
    pub fn noting(self, incidents: &Incidents) -> Self {
        let incidents = Some(incidents.clone());
        Self { incidents, ..self }
    }
}

/// Where reading ends.
#[derive(Debug, Clone)]
pub enum End {
    /// Not known yet.
    Open,
    /// At these positions; and how many records of each stream there are, if that was not known beforehand.
    At(Vec<Position>, Option<HashMap<StreamId, u64>>),
    /// At once.
    Now,
}

/// What one consumer found.
#[derive(Debug, Clone, Copy)]
pub struct Consumed {
    /// If it was verified.
    pub findings: Option<Findings>,
    /// Records that are there and cannot be told.
    pub unreadable: u64,
}

/// Starts a consumer. It has its connections, and is about to read, when this returns.
///
/// Beside producers it has a thread of its own, so that verifying does not hold up their connections. What was stored before it
/// reads on the threads of the connections: handing each response to another thread costs more than that can do meanwhile.
pub async fn start<T: Target>(
    target: &T,
    plan: Plan,
    meter: Arc<Meter>,
    end: watch::Receiver<End>,
) -> Result<JoinHandle<Result<Consumed, BenchError>>, BenchError> {
    let consumer = target.consumer(&plan.topic, &plan.from).await?;
    let timing = match plan.timed {
        Timed::None => Timing::None,
        Timed::Sample => Timing::Every(SAMPLE_EVERY, meter.recorder()),
        Timed::All => Timing::Every(1, meter.recorder()),
    };
    let mut intake = Intake::new(meter, &plan.from, timing);
    if let Some(verify) = plan.verify {
        let mut verifier = Verifier::new(verify.payload, verify.expectation);
        if let Some(incidents) = verify.incidents {
            verifier = verifier.noting(incidents);
        }
        intake = intake.verify(verifier);
    }
    let reading = read(consumer, intake, end);
    if plan.timed == Timed::None {
        return Ok(tokio::spawn(reading));
    }
    let runtime = Handle::current();
    Ok(tokio::task::spawn_blocking(move || runtime.block_on(reading)))
}

/// The result of a consumer.
pub async fn join(thread: JoinHandle<Result<Consumed, BenchError>>) -> Result<Consumed, BenchError> {
    thread.await.map_err(|error| BenchError::Threads(error.into()))?
}

async fn read<C: TargetConsumer>(
    mut consumer: C,
    mut intake: Intake,
    mut end: watch::Receiver<End>,
) -> Result<Consumed, BenchError> {
    let acknowledged = loop {
        let (is_open, is_over) = match &*end.borrow_and_update() {
            End::Open => (true, false),
            End::At(ends, _) => (false, intake.has_reached(ends)),
            End::Now => (false, true),
        };
        if is_over {
            break match &*end.borrow() {
                End::At(_, acknowledged) => acknowledged.clone(),
                End::Open | End::Now => None,
            };
        }
        if is_open {
            tokio::select! {
                received = receive(&mut consumer, &mut intake) => received?,
                changed = end.changed() => if changed.is_err() {
                    // Whoever would tell the end is gone: the run is given up.
                    break None;
                },
            }
        } else {
            let received = tokio::time::timeout(PATIENCE, receive(&mut consumer, &mut intake)).await;
            received.map_err(|_elapsed| BenchError::Starved(PATIENCE))??;
        }
    };
    let unreadable = intake.unreadable_count();
    Ok(Consumed {
        findings: intake.finish(acknowledged),
        unreadable,
    })
}

/// Waits for records; where they are timed, by when the client told of them.
async fn receive<C: TargetConsumer>(consumer: &mut C, intake: &mut Intake) -> Result<(), BenchError> {
    match intake.told() {
        Some(told) => told.wait(consumer.receive(intake)).await,
        None => consumer.receive(intake).await,
    }
}
