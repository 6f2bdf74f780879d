//! The load generator against a system that stalls: what users would have seen is what is measured.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args as _, FromArgMatches as _};

use super::clock::Moment;
use super::intake::Intake;
use super::meter::{Measured, Meter, Sampler};
use super::produce::{self, Plan};
use crate::cli::RunArgs;
use crate::error::BenchError;
use crate::payload::Payload;
use crate::target::{Outgoing, Position, ProducerSettings, Span, Target, TargetConsumer, TargetProducer, TopicShape};

/// Takes and acknowledges every record at once, but takes nothing while it stalls.
#[derive(Debug, Clone)]
struct Stalling {
    after: Duration,
    length: Duration,
}

struct StallingProducer {
    from: Moment,
    until: Moment,
}

struct NoConsumer;

impl Target for Stalling {
    type Producer = StallingProducer;
    type Consumer = NoConsumer;

    fn client(_: &ProducerSettings) -> String {
        unreachable!("nothing is reported")
    }

    async fn connect(_: &str) -> Result<Self, BenchError> {
        unreachable!("made by the test")
    }

    async fn ensure_topic(&self, _: &str, shape: TopicShape) -> Result<usize, BenchError> {
        Ok(shape.partitions as usize)
    }

    async fn delete_topic(&self, _: &str) -> Result<(), BenchError> {
        Ok(())
    }

    async fn spans(&self, _: &str) -> Result<Vec<Span>, BenchError> {
        Ok(vec![Span::default()])
    }

    async fn producer(&self, _: &str, _: &ProducerSettings) -> Result<StallingProducer, BenchError> {
        let from = Moment::now().plus(self.after);
        Ok(StallingProducer {
            from,
            until: from.plus(self.length),
        })
    }

    async fn consumer(&self, _: &str, _: &[Position]) -> Result<NoConsumer, BenchError> {
        Ok(NoConsumer)
    }
}

impl TargetProducer for StallingProducer {
    type Completion = Ready<Result<(), BenchError>>;

    async fn send(&self, _: &Outgoing<'_>) -> Result<Self::Completion, BenchError> {
        let now = Moment::now();
        if (self.from..self.until).contains(&now) {
            super::clock::sleep(self.until.since(now));
        }
        Ok(ready(Ok(())))
    }

    async fn close(self) -> Result<(), BenchError> {
        Ok(())
    }
}

impl TargetConsumer for NoConsumer {
    async fn receive(&mut self, _: &mut Intake) -> Result<(), BenchError> {
        std::future::pending().await
    }
}

/// The options of a command.
pub fn options(arguments: &[&str]) -> RunArgs {
    let command = RunArgs::augment_args(clap::Command::new("test").no_binary_name(true));
    RunArgs::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
}

/// Records of 10 bytes to the topic `t`.
pub fn plan(run: &RunArgs) -> Plan {
    Plan {
        topic: "t".into(),
        load: run.load.clone(),
        payload: Arc::new(Payload::generated(10)),
        keys: run.values.keys,
        bytes_max: u64::MAX,
        stamp_each: false,
        hooks: super::produce::Hooks::default(),
    }
}

fn run(target: &Stalling, arguments: &[&str]) -> (Measured, u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let plan = plan(&options(arguments));
    runtime.block_on(async {
        let meter = Meter::new("produce", Arc::default());
        let sampler = Sampler::start(vec![Arc::clone(&meter)], Duration::from_secs(1), None);
        let produced = produce::run(target, &plan, &[Arc::clone(&meter)]).await.unwrap();
        drop(sampler);
        (meter.finish(), produced.acknowledged.values().sum())
    })
}

#[test]
fn a_stall_shows_on_every_record_that_was_due_meanwhile() {
    const RATE: u64 = 2_000;
    let stalling = Stalling {
        after: Duration::from_millis(100),
        length: Duration::from_millis(200),
    };
    let (measured, acknowledged) = run(&stalling, &["--rate", "2000", "--seconds", "0.5"]);
    assert_eq!(
        acknowledged,
        RATE / 2,
        "every record of the schedule is sent, however late"
    );
    assert_eq!(measured.latencies.len(), RATE / 2, "every record is measured");
    // A record that was due x before the end of the stall has waited for x, or longer on a busy machine.
    for left_ms in [20, 60, 100, 140, 180] {
        let waited = measured.latencies.count_between(left_ms * 1_000_000, u64::MAX);
        let due_meanwhile = RATE * (200 - left_ms) / 1000;
        assert!(
            waited + 4 >= due_meanwhile,
            "{waited} of {due_meanwhile} waited for {left_ms} ms"
        );
    }
}

#[test]
fn a_closed_loop_hides_the_stall_which_is_why_latency_needs_a_schedule() {
    let stalling = Stalling {
        after: Duration::from_millis(50),
        length: Duration::from_millis(100),
    };
    let (measured, _) = run(&stalling, &["--seconds", "0.3"]);
    let waited = measured.latencies.count_between(90_000_000, u64::MAX);
    assert!(
        waited <= 2 && measured.latencies.len() > 100,
        "{waited} of {}",
        measured.latencies.len()
    );
}

#[test]
fn nothing_of_the_warm_up_is_measured() {
    let calm = Stalling {
        after: Duration::ZERO,
        length: Duration::ZERO,
    };
    let arguments = [
        "--rate",
        "1000",
        "--seconds",
        "0.2",
        "--warm-up",
        "0.3",
        "--producers",
        "3",
        "--partitions",
        "2",
    ];
    let (measured, acknowledged) = run(&calm, &arguments);
    assert_eq!((measured.records, acknowledged), (200, 500));
    assert_eq!(measured.latencies.len(), 200);
}
