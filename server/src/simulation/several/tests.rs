//! Many runs of a cluster, each by its seed; a run that is the same each time; and one that is looked at.

use super::super::{runs::Play, tests::any_number};

const SEVERAL: Play = Play {
    tests: "simulation::several",
    run: super::run,
    seeds: 1_000,
};

fn run_share(share: u64) {
    let Some(sum) = SEVERAL.share(share, 2) else { return };
    assert!(sum.promised > 0, "nothing was acknowledged in any run");
}

#[test]
fn what_a_cluster_acknowledges_survives_whatever_happens_first_share() {
    run_share(0);
}

#[test]
fn what_a_cluster_acknowledges_survives_whatever_happens_second_share() {
    run_share(1);
}

/// As many as are asked for, on all CPUs: `HEADWATER_SEEDS=1000000 cargo test --release -p headwater-server --lib
/// simulation::several::tests::any_number -- --ignored --nocapture`; `HEADWATER_SEED_FIRST` is where they begin.
#[test]
#[ignore = "takes as long as it is asked to"]
fn any_number_of_seeds_keeps_all_promises_of_a_cluster() {
    any_number(SEVERAL);
}

/// What `.ci/faults` runs when a fault is built in.
#[test]
#[ignore = "says how many schedules it takes until one fails"]
fn which_seed_fails() {
    SEVERAL.which_fails();
}

#[test]
fn the_same_seed_is_the_same_run_of_a_cluster() {
    SEVERAL.check_same(1_000..1_004);
}
