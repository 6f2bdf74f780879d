//! Several brokers as one cluster: processes of their own, that have every record and never outlive the bench.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Place, assert_undamaged, bench, command, json};

/// Nothing takes so long, on a machine that does anything at all.
const LONG: Duration = Duration::from_mins(1);

/// Of brokers that share a machine with other tests.
const SMALL: &str = "--tail-buffer 16MiB --limits off";

#[test]
fn three_brokers_are_a_cluster_that_has_every_record_and_leaves_nothing_behind() {
    let place = Place::new();
    let output = bench(&format!(
        "quick --brokers 3 --partitions 4 --bytes 8MB --output json {SMALL} {place}"
    ));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_undamaged(&report["consume"]);
    assert_eq!(report["produce"]["records"], report["consume"]["records"]);
    assert_eq!(report["config"]["brokers"], 3);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

/// The processes that this one has started.
fn children(process: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn await_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn brokers_end_with_the_bench_that_has_started_them_even_when_it_is_killed() {
    let place = Place::new();
    let mut bench = command(&format!("end-to-end --brokers 3 --seconds 600 {SMALL} {place}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    await_until(|| children(bench.id()).len() == 3);
    let brokers = children(bench.id());
    // Whatever they are at by now.
    bench.kill().unwrap();
    bench.wait().unwrap();
    await_until(|| {
        let is_there = |pid: &u32| Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok();
        !brokers.iter().any(is_there)
    });
}

#[test]
fn of_each_broker_that_is_killed_it_is_told_for_how_long_nothing_was_acknowledged_and_no_record_is_lost() {
    let place = Place::new();
    let page = place.path().join("failover.html");
    let load = "--partitions 3 --rate 500 --record-size 100";
    let output = bench(&format!(
        "failover --kills 2 --interval 1 --down 1 {load} --output json --report {} {SMALL} {place}",
        page.display()
    ));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    for part in ["produce", "end_to_end", "read_back"] {
        assert!(report[part]["records"].as_u64().unwrap() > 500, "{part} in {report}");
    }
    assert_undamaged(&report["end_to_end"]);
    assert_undamaged(&report["read_back"]);
    assert_eq!(report["read_back"]["records"], report["produce"]["records"]);
    let replication = &report["replication"];
    assert_eq!(
        (&replication["replication_factor"], &replication["min_insync_replicas"]),
        (&3.into(), &2.into())
    );
    let failover = &report["failover"];
    let kills = failover["kills"].as_array().unwrap();
    assert_eq!(kills.len(), 2);
    assert!(
        kills[0]["partitions_led"].as_u64().unwrap() > 0,
        "the first is a leader: {failover}"
    );
    assert_eq!(
        kills[1]["was_coordinator"], true,
        "the second is the active coordinator: {failover}"
    );
    for kill in kills {
        assert!(kill["silent_ms"].as_f64().unwrap() > 0.0, "{kill}");
        for toll in ["lost", "duplicated", "reordered", "corrupt"] {
            assert_eq!(kill[toll], 0, "{kill}");
        }
    }
    let page = fs::read_to_string(page).unwrap();
    assert!(
        page.contains("The gap") && page.contains("kill 1 (broker"),
        "the page shows no gap"
    );
    fs::remove_file(place.path().join("failover.html")).unwrap();
    assert!(place.names().is_empty(), "{:?}", place.names());
}
