//! Many runs of a broker alone, each by its seed; a run that is the same each time; and one that is looked at.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    runs::{Play, number},
    scenario,
};

const ALONE: Play = Play {
    tests: "simulation::tests",
    run: scenario::run,
    seeds: 125,
};

/// As many as are asked for, on all CPUs.
pub(super) fn any_number(play: Play) {
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
                    play.run(seed, false);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish();
}

fn run_share(share: u64) {
    let Some(sum) = ALONE.share(share, 4) else { return };
    assert!(sum.promised > 0, "nothing was acknowledged in any run");
    assert!(
        sum.compacted > 0 || sum.runs < ALONE.seeds,
        "nothing was compacted in any run"
    );
}

#[test]
fn what_was_acknowledged_survives_whatever_happens_first_share() {
    run_share(0);
}

#[test]
fn what_was_acknowledged_survives_whatever_happens_second_share() {
    run_share(1);
}

#[test]
fn what_was_acknowledged_survives_whatever_happens_third_share() {
    run_share(2);
}

#[test]
fn what_was_acknowledged_survives_whatever_happens_fourth_share() {
    run_share(3);
}

/// As many as are asked for, on all CPUs: `HEADWATER_SEEDS=100000 cargo test --release -p headwater-server --lib
/// simulation::tests::any_number -- --ignored --nocapture`; `HEADWATER_SEED_FIRST` is where they begin.
#[test]
#[ignore = "takes as long as it is asked to"]
fn any_number_of_seeds_keeps_all_promises() {
    any_number(ALONE);
}

#[test]
fn the_same_seed_is_the_same_run() {
    ALONE.check_same(1_000..1_010);
}
