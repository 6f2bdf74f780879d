mod observability;

use std::{collections::BTreeSet, time::Duration};

use headwater_protocol::id::CoreId;

use super::*;

fn gathered() -> Gathered {
    let timed = Timed::default();
    for micros in [0, 1, 10, 100, 100_000_000] {
        timed.record(Duration::from_micros(micros), 0);
    }
    let snapshot = CoreSnapshot {
        stages: vec![("append", timed.snapshot())],
        samples: vec![
            (Family::FetchBytes, "tail", 7.0),
            (Family::FetchBytes, "buffered", 9.0),
            (Family::Connections, "", 3.0),
        ],
        ..CoreSnapshot::default()
    };
    Gathered {
        cores: vec![(CoreId::new(0), Some(snapshot)), (CoreId::new(1), None)],
        quorum: QuorumFigures {
            is_up: true,
            term: 7,
            ..QuorumFigures::default()
        },
        series_max: 2,
        process: Process::now(),
        disk: DiskSpace::of(std::path::Path::new(".")),
        certificates: vec![("kafka", 1_700_000_000)],
        proofs_refused: Some(3),
        key_fetches: Some((2, 1)),
    }
}

#[test]
fn figures_are_told_apart_by_core_and_label_and_a_silent_core_is_down() {
    let text = text::encode(gathered()).unwrap();
    for line in [
        "headwater_core_up{core=\"0\"} 1",
        "headwater_tls_certificate_expiry_timestamp_seconds{port=\"kafka\"} 1700000000",
        "headwater_peer_proofs_refused_total 3",
        "headwater_token_key_fetches_total{outcome=\"failed\"} 1",
        "headwater_core_up{core=\"1\"} 0",
        "headwater_fetch_bytes_total{core=\"0\",path=\"tail\"} 7.0",
        "headwater_fetch_bytes_total{core=\"0\",path=\"buffered\"} 9.0",
        "headwater_connections{core=\"0\"} 3.0",
        "headwater_quorum_up 1",
        "headwater_quorum_active 0",
        "headwater_quorum_term 7",
        "# TYPE headwater_stage_seconds histogram",
        "headwater_stage_seconds_count{core=\"0\",stage=\"append\"} 5",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }
    for name in ["process_open_fds", "headwater_build_info", "headwater_disk_free_bytes"] {
        assert!(
            text.lines().any(|found| found.starts_with(name)),
            "no {name} in\n{text}"
        );
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn every_time_is_in_one_bucket_and_at_most_its_bound() {
    let text = text::encode(gathered()).unwrap();
    let buckets: Vec<(f64, u64)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("headwater_stage_seconds_bucket{le=\""))
        .map(|line| {
            let (bound, rest) = line.split_once('"').unwrap();
            let bound = if bound == "+Inf" {
                f64::INFINITY
            } else {
                bound.parse().unwrap()
            };
            (bound, rest.rsplit_once(' ').unwrap().1.parse().unwrap())
        })
        .collect();
    assert!(buckets.is_sorted(), "{buckets:?}");
    let up_to = |bound: f64| buckets.iter().rev().find(|(le, _)| *le <= bound).unwrap().1;
    // The histogram keeps two digits, so a time may count as slightly longer than it was.
    assert_eq!([up_to(1.5e-6), up_to(1.5e-5), up_to(1.5e-4)], [2, 3, 4]);
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, 5)));
}

#[test]
fn every_family_has_a_name_of_its_own_and_every_stage_too() {
    let text = text::encode(gathered()).unwrap();
    let mut names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_page_on_metrics_lists_every_family_and_no_other() {
    let page = include_str!("../../../docs/metrics.md");
    let mut listed = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| `headwater_")) {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let (names, kind) = (cells.next().unwrap(), cells.next().unwrap());
        listed.extend(
            names
                .split(", ")
                .map(|name| format!("{} {kind}", name.trim_matches('`'))),
        );
    }
    let text = text::encode(gathered()).unwrap();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    // Those of the process are Prometheus's own.
    let families = families.filter(|family| !family.starts_with("process_"));
    // A counter's samples carry the name that people look for.
    let shown = families.map(|family| family.replace(" counter", "_total counter"));
    assert_eq!(
        listed,
        shown.collect(),
        "docs/metrics.md on the left, the code on the right"
    );
}
