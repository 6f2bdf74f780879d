//! Runs by their seeds: one, a share of those of `cargo test`, or as many as are asked for.

use std::{
    env,
    io::{self, Write},
    panic,
    rc::Rc,
    thread,
};

use tracing::{Level, subscriber::NoSubscriber};

use super::scenario::Outcome;
use crate::machine::simulated::{Stuck, World, here};

/// What is run.
#[derive(Clone, Copy)]
pub(super) struct Play {
    /// The tests that run it.
    pub(super) tests: &'static str,
    pub(super) run: fn(&Rc<World>) -> Result<Outcome, Stuck>,
    /// Seeds of one test's share.
    pub(super) seeds: u64,
}

/// What became of a run.
type Ran = thread::Result<Result<Outcome, Stuck>>;

pub(super) fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().and_then(|text| text.parse().ok())
}

impl Play {
    /// Runs a seed. If it fails it is run again, so that its history comes before the message, and the command that runs it again after.
    pub(super) fn run(self, seed: u64, is_shown: bool) -> Outcome {
        let (mut world, mut ran) = self.attempt(seed, is_shown.then_some(Level::INFO));
        let failed = |ran: &Ran| !matches!(ran, Ok(Ok(_)));
        if failed(&ran) && !is_shown {
            (world, ran) = self.attempt(seed, Some(Level::INFO));
            assert!(failed(&ran), "seed {seed} fails, but not when it is told what happens");
        }
        if failed(&ran) || is_shown {
            let mut stderr = std::io::stderr().lock();
            for line in world.history() {
                writeln!(stderr, "{line}").unwrap();
            }
            if failed(&ran) {
                let tests = self.tests;
                let again = format!("HEADWATER_SEED={seed} cargo test -p headwater-server --lib {tests}");
                writeln!(stderr, "failed with seed {seed}; again: {again}").unwrap();
            }
        }
        match ran {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(stuck)) => panic!("seed {seed}: {stuck}"),
            Err(panic) => panic::resume_unwind(panic),
        }
    }

    /// Runs a seed, with its history or without. What brokers and clients say is in it from this level on.
    fn attempt(self, seed: u64, told: Option<Level>) -> (Rc<World>, Ran) {
        // Brokers come and go, and put little into their memory: to fill a huge page with zeros takes longer.
        rustix::thread::disable_transparent_huge_pages(true).unwrap();
        let world = World::new(seed);
        let play = || panic::catch_unwind(panic::AssertUnwindSafe(|| (self.run)(&world)));
        let ran = if let Some(level) = told {
            world.is_to_be_told();
            let log = tracing_subscriber::fmt()
                .with_max_level(level)
                .with_ansi(false)
                .with_target(false)
                .without_time()
                .with_writer(|| Log)
                .finish();
            tracing::subscriber::with_default(log, play)
        } else {
            tracing::subscriber::with_default(NoSubscriber::new(), play)
        };
        if ran.is_err() {
            // What its tasks hold may be in any state.
            std::mem::forget(Rc::clone(&world));
        }
        (world, ran)
    }

    /// What the seeds of this share come to, together; `None` if one alone was asked for.
    pub(super) fn share(self, share: u64, shares: u64) -> Option<Sum> {
        if let Some(seed) = number("HEADWATER_SEED") {
            if share == 0 {
                self.run(seed, true);
            }
            return None;
        }
        let count = number("HEADWATER_SEEDS").unwrap_or(self.seeds * shares);
        let mut sum = Sum::default();
        for seed in (0..count).filter(|seed| seed % shares == share) {
            let outcome = self.run(seed, false);
            sum.runs += 1;
            sum.promised += outcome.promised;
            sum.compacted += outcome.compacted;
        }
        Some(sum)
    }

    /// Runs one after the other until one fails, and says which does.
    pub(super) fn which_fails(self) {
        let count = number("HEADWATER_SEEDS").unwrap_or(self.seeds);
        for seed in 0..count {
            let ran = panic::catch_unwind(|| self.run(seed, false));
            if let Err(panic) = ran {
                let why = panic.downcast_ref::<String>().map(String::as_str);
                let why = why
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or_default();
                println!(
                    "found by schedule {}: {}",
                    seed + 1,
                    why.lines().next().unwrap_or_default()
                );
                return;
            }
        }
        println!("not found in {count} schedules");
    }

    /// Runs each of these seeds twice.
    pub(super) fn check_same(self, seeds: std::ops::Range<u64>) {
        for seed in seeds {
            let [one, other] = [(); 2].map(|()| {
                // Of what was said often a part is said no more, in another run neither.
                let (world, ran) = self.attempt(seed, Some(Level::ERROR));
                assert!(matches!(ran, Ok(Ok(_))), "seed {seed} fails");
                world.history()
            });
            assert!(!one.is_empty(), "seed {seed} has no history");
            for (number, (one, other)) in one.iter().zip(&other).enumerate() {
                assert_eq!(one, other, "line {number} of the history of seed {seed}");
            }
            assert_eq!(one.len(), other.len(), "seed {seed}");
        }
    }
}

/// What came of several runs.
#[derive(Default)]
pub(super) struct Sum {
    pub(super) runs: u64,
    pub(super) promised: usize,
    pub(super) compacted: usize,
}

/// Writes what a broker says into the history.
struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(here) = here() {
            let text = String::from_utf8_lossy(line);
            here.world.tell(Some(here.process), text.trim());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
