//! Many runs, each by its seed; a run that is the same each time; and one that is looked at.

use std::{
    env,
    io::{self, Write},
    panic,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::scenario::{self, Outcome};
use crate::machine::simulated::{World, here};

/// Seeds of a test's share of `cargo test`.
const SEEDS: u64 = 125;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Runs a seed. If it fails, its history comes before the message, and the command that runs it again after.
fn run(seed: u64, is_shown: bool) -> Outcome {
    // Brokers come and go, and put little into their memory: to fill a huge page with zeros takes longer.
    rustix::thread::disable_transparent_huge_pages(true).unwrap();
    let world = World::new(seed);
    let log = tracing_subscriber::fmt()
        .with_max_level(if is_shown {
            tracing::Level::INFO
        } else {
            tracing::Level::ERROR
        })
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .with_writer(|| Log)
        .finish();
    let ran = tracing::subscriber::with_default(log, || {
        panic::catch_unwind(panic::AssertUnwindSafe(|| scenario::run(&world)))
    });
    let failed = !matches!(ran, Ok(Ok(_)));
    if failed || is_shown {
        let mut stderr = std::io::stderr().lock();
        for line in world.history() {
            writeln!(stderr, "{line}").unwrap();
        }
        if failed {
            let again = format!("HEADWATER_SEED={seed} cargo test -p headwater-server --lib simulation");
            writeln!(stderr, "failed with seed {seed}; again: {again}").unwrap();
        }
    }
    match ran {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(stuck)) => panic!("seed {seed}: {stuck}"),
        Err(panic) => {
            // What its tasks hold may be in any state.
            std::mem::forget(Rc::clone(&world));
            panic::resume_unwind(panic)
        }
    }
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

fn run_share(share: u64, shares: u64) {
    if let Some(seed) = number("HEADWATER_SEED") {
        if share == 0 {
            run(seed, true);
        }
        return;
    }
    let count = number("HEADWATER_SEEDS").unwrap_or(SEEDS * shares);
    let (mut promised, mut compacted) = (0, 0);
    for seed in (0..count).filter(|seed| seed % shares == share) {
        let outcome = run(seed, false);
        promised += outcome.promised;
        compacted += outcome.compacted;
    }
    assert!(promised > 0, "nothing was acknowledged in any run");
    assert!(compacted > 0 || count < SEEDS, "nothing was compacted in any run");
}

#[test]
fn what_was_acknowledged_survives_whatever_happens_first_share() {
    run_share(0, 4);
}

#[test]
fn what_was_acknowledged_survives_whatever_happens_second_share() {
    run_share(1, 4);
}

#[test]
fn what_was_acknowledged_survives_whatever_happens_third_share() {
    run_share(2, 4);
}

#[test]
fn what_was_acknowledged_survives_whatever_happens_fourth_share() {
    run_share(3, 4);
}

/// As many as are asked for, on all CPUs: `HEADWATER_SEEDS=100000 cargo test --release -p headwater-server --lib
/// simulation::tests::any_number -- --ignored --nocapture`; `HEADWATER_SEED_FIRST` is where they begin.
#[test]
#[ignore = "takes as long as it is asked to"]
fn any_number_of_seeds_keeps_all_promises() {
    let first = number("HEADWATER_SEED_FIRST").unwrap_or_default();
    let count = number("HEADWATER_SEEDS").unwrap_or(10_000);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left").unwrap();
    let bar = ProgressBar::new(count).with_style(style);
    let next = AtomicU64::new(first);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    run(seed, false);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish();
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1_000..1_010 {
        let [one, other] = [(); 2].map(|()| run(seed, false).history);
        for (number, (one, other)) in one.iter().zip(&other).enumerate() {
            assert_eq!(one, other, "line {number} of the history of seed {seed}");
        }
        assert_eq!(one.len(), other.len(), "seed {seed}");
    }
}
