//! Every workload as a user runs it, on a broker in its own process: short, with its result and its page checked.

use std::fs;

use serde_json::Value;

use crate::support::{Place, assert_undamaged, bench, json, text};

/// Runs it in a directory of its own, and checks what every workload promises.
fn run(place: &Place, arguments: &str) -> Value {
    let output = bench(&format!("{arguments} --output json {place}"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert!(
        report["records"].as_u64().unwrap() > 0 && report["bytes_per_s"].as_f64().unwrap() > 0.0,
        "{report}"
    );
    for kind in ["lost", "duplicated", "reordered", "corrupt"] {
        assert!(report[kind] == 0 || report[kind].is_null(), "{kind} in {report}");
    }
    assert!(
        report["cost"]["broker"]["cpu_seconds"].as_f64().unwrap() > 0.0,
        "{report}"
    );
    assert!(report["environment"]["kernel"].is_string() && report["environment"]["filesystem"]["options"].is_string());
    report
}

fn percentiles(phase: &Value) -> [f64; 4] {
    ["p50", "p99", "p999", "max"].map(|name| phase["latency_us"][name].as_f64().unwrap())
}

#[test]
fn produce_on_a_schedule_times_every_record_after_the_warm_up() {
    let place = Place::new();
    let report = run(
        &place,
        "produce --rate 2000 --seconds 0.5 --warm-up 0.2 --producers 2 --limits off",
    );
    assert_eq!(
        (report["workload"].as_str(), &report["records"]),
        (Some("produce"), &1000.into())
    );
    assert_eq!(report["latency_us"]["samples"], 1000);
    assert!(percentiles(&report).is_sorted() && report["behind_schedule_us"]["p50"].is_number());
    assert_eq!(report["config"]["rate_records_per_s"], 2000.0);
    assert_undamaged(&report);
    assert_eq!(report["verified_records"], 1400, "the warm-up is read back as well");
    let stages = report["stages"].as_array().unwrap();
    for name in ["append", "write", "acknowledge"] {
        let stage = stages.iter().find(|stage| stage["name"] == name);
        let stage = stage.unwrap_or_else(|| panic!("{name} in {stages:?}"));
        assert!(
            stage["count"].as_u64().unwrap() > 0 && stage["mean_us"].as_f64().unwrap() > 0.0,
            "{stage}"
        );
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn end_to_end_verifies_and_times_what_each_consumer_receives() {
    let place = Place::new();
    let log = place.path().join("latency.hlog");
    let options = "--keys zipf:100 --partitions 3 --record-size 10..500 --compressibility 0.5 --compression lz4";
    let report = run(
        &place,
        &format!(
            "end-to-end --rate 2000 --seconds 1.2 --consumers 2 --limits off {options} --histogram-log {}",
            log.display()
        ),
    );
    assert_undamaged(&report);
    assert_eq!(report["end_to_end"]["records"], 2 * 2400);
    assert_eq!(report["produce"]["records"], 2400);
    assert_eq!(report["end_to_end"]["latency_us"]["samples"], 2 * 2400);
    assert!(percentiles(&report["end_to_end"]).is_sorted());
    let text = fs::read_to_string(log).unwrap();
    for tag in ["Tag=produce,", "Tag=end_to_end,"] {
        assert!(
            text.lines().filter(|line| line.starts_with(tag)).count() >= 2,
            "{tag} in {text}"
        );
    }
}

#[test]
fn consume_reads_what_was_just_written_and_what_is_only_on_disk() {
    let place = Place::new();
    let hot = run(&place, "consume --bytes 8MB --limits off");
    assert_undamaged(&hot);
    assert!(hot["bytes"].as_u64().unwrap() >= 8_000_000);
    let cold = run(&place, "consume --cold --bytes 8MB --consumers 2 --limits off");
    assert_undamaged(&cold);
    assert_eq!(cold["records"].as_u64().unwrap(), 2 * 8_000_000_u64.div_ceil(1024));
    assert_eq!(cold["latency_us"], Value::Null);
}

#[test]
fn mixed_shows_producers_with_and_without_readers_of_old_data() {
    let place = Place::new();
    let report = run(
        &place,
        "mixed --rate 1000 --seconds 0.5 --history 4MB --catch-up-consumers 1 --limits off",
    );
    assert_undamaged(&report);
    for part in ["produce", "tail", "alone", "alone_tail"] {
        assert_eq!(report[part]["records"], 500, "{part}");
        assert!(percentiles(&report[part]).is_sorted());
    }
    assert!(report["catch_up"]["records"].as_u64().unwrap() > 0);
    let notes = report["notes"].to_string();
    assert!(notes.contains("with readers of old data"), "{notes}");
}

#[test]
fn mixed_shows_producers_and_a_group_that_keeps_up_with_and_without_a_group_that_does_not() {
    let place = Place::new();
    let options = "--partitions 4 --group-members 2 --slow-members 3 --catch-up-consumers 0";
    let report = run(
        &place,
        &format!("mixed --rate 1000 --seconds 1.5 {options} --set groups.initial_rebalance_delay_ms=0 --limits off"),
    );
    assert_undamaged(&report);
    for part in ["alone", "beside_slow"] {
        for readers in ["", "_tail", "_group"] {
            let part = format!("{part}{readers}");
            assert_eq!(report[&part]["records"], 1500, "{part}");
            assert!(percentiles(&report[&part]).is_sorted());
        }
        assert_undamaged(&report[format!("{part}_group")]);
    }
    let slow = &report["slow_group"];
    assert!((1..1500).contains(&slow["records"].as_u64().unwrap()), "{slow}");
    assert_eq!(slow["lost"], Value::Null, "it is not verified");
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("with a slow group: throughput of the producers"),
        "{notes}"
    );
    assert!(notes.contains("throughput of the group that keeps up"), "{notes}");
}

#[test]
fn a_sweep_runs_every_point_of_its_grid() {
    let place = Place::new();
    let axes = "--axis record-size=100,1KiB --axis acks=all,none";
    let output = bench(&format!("sweep {axes} --bytes 200KB --output json {place}"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let sweep = json(&output);
    let cells = sweep["cells"].as_array().unwrap();
    let points: Vec<_> = cells.iter().map(|cell| cell["point"].to_string()).collect();
    assert_eq!(points.len(), 4);
    assert_eq!(points[1], r#"{"acks":"none","record-size":"100"}"#);
    let records: Vec<_> = cells.iter().map(|cell| cell["records"].as_u64().unwrap()).collect();
    assert_eq!(records, [2000, 2000, 196, 196]);
}

#[test]
fn a_repeated_sweep_writes_by_turns() {
    for workload in ["produce", "end-to-end"] {
        sweep_by_turns(workload);
    }
}

#[test]
fn a_repeated_sweep_reads_by_turns() {
    for workload in ["consume", "consume-cold"] {
        sweep_by_turns(workload);
    }
}

fn sweep_by_turns(workload: &str) {
    let place = Place::new();
    let axes = "--axis flush.delay_us=0us,100us --repeat 3 --bytes 100KB --limits off";
    let output = bench(&format!("sweep {axes} --workload {workload} --output json {place}"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let sweep = json(&output);
    let cells = sweep["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 2);
    for cell in cells {
        assert_eq!(cell["runs"].as_array().unwrap().len(), 3);
        if workload != "produce" {
            assert_undamaged(cell);
        }
    }
    let ratio = &cells[1]["by_first"]["MB/s"];
    assert_eq!(ratio["runs"], 3);
    assert!(ratio["min"].as_f64() <= ratio["median"].as_f64() && ratio["median"].as_f64() <= ratio["max"].as_f64());
    assert_eq!(cells[0]["by_first"]["MB/s"]["median"], 1.0);
    // By turns, not one after the other.
    let progress = String::from_utf8(output.stderr).unwrap();
    let points = progress.split("flush.delay_us=").skip(1);
    let points: Vec<_> = points.map(|rest| rest.split(':').next().unwrap()).collect();
    assert_eq!(points, ["0us", "100us", "0us", "100us", "0us", "100us"]);
}

#[test]
fn a_sweep_shows_latency_of_what_was_on_a_schedule_and_throughput_of_the_rest() {
    let place = Place::new();
    let paced = text(&bench(&format!(
        "sweep --axis flush.delay_us=0us,1ms --workload end-to-end --rate 500 --seconds 0.5 {place}"
    )));
    assert!(
        paced.contains("p50 by first") && !paced.contains("MB/s by first"),
        "{paced}"
    );
    let table = text(&bench(&format!("sweep --axis linger=0ms,1ms --bytes 100KB {place}")));
    assert!(
        table.contains("linger") && table.contains("1ms") && table.contains("MB/s"),
        "{table}"
    );
}

#[test]
fn repeated_runs_are_all_in_the_result_and_can_be_compared() {
    let place = Place::new();
    let file = |name: &str| place.path().join(name);
    for name in ["a.json", "b.json"] {
        let report = run(&place, "end-to-end --rate 1000 --seconds 0.2 --repeat 3 --limits off");
        assert_undamaged(&report);
        // The one that stands for all is the median by latency, as they were on a schedule.
        let p50 = |run: &Value| run["latency_us"]["p50"].as_f64().unwrap();
        let mut all: Vec<f64> = report["runs"].as_array().unwrap().iter().map(p50).collect();
        all.sort_by(f64::total_cmp);
        assert_eq!((all.len(), p50(&report)), (3, all[1]));
        fs::write(file(name), report.to_string()).unwrap();
    }
    let files = format!("{} {}", file("a.json").display(), file("b.json").display());
    let text = text(&bench(&format!("compare {files}")));
    assert!(text.contains("p99") && text.contains("B/A"), "{text}");
    let same = format!("compare {0} {0} --output json", file("a.json").display());
    let same = json(&bench(&same));
    let figures = same["figures"].as_array().unwrap();
    assert!(
        figures.len() > 10 && figures.iter().all(|row| row["judgement"] == "noise"),
        "{same}"
    );
    fs::write(file("c.json"), "{}").unwrap();
    let refused = bench(&format!("compare {0} {0}", file("c.json").display()));
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--output json"));
}

#[test]
fn limits_are_measured_next_to_the_workload() {
    let place = Place::new();
    // Those of a rate leave the CPUs to others.
    let report = run(&place, "end-to-end --rate 500 --seconds 0.3 --limits on");
    let shares = report["shares"].as_array().unwrap();
    for limit in ["the floor", "the floor at this rate"] {
        assert!(shares.iter().any(|share| share["limit"] == limit), "{shares:?}");
    }
    for share in shares {
        let [value, limit, ratio] = ["value", "limit_value", "ratio"].map(|name| share[name].as_f64().unwrap());
        assert!(limit > 0.0 && (value / limit - ratio).abs() < 1e-9, "{share}");
    }
    for floor in ["floor_end_to_end_us", "floor_paced_end_to_end_us"] {
        assert!(report["limits"][floor]["p50"].as_f64().unwrap() > 0.0, "{report}");
    }
}

#[test]
fn the_page_of_a_report_needs_nothing_else() {
    let place = Place::new();
    let page = place.path().join("report.html");
    run(
        &place,
        &format!(
            "end-to-end --rate 2000 --seconds 1 --limits off --report {}",
            page.display()
        ),
    );
    let html = fs::read_to_string(&page).unwrap();
    for part in [
        "<svg",
        "Latency by percentile",
        "Throughput over time",
        "Latency over time",
        "every record verified",
        "filesystem options",
        "prefers-color-scheme",
    ] {
        assert!(html.contains(part), "{part} is missing");
    }
    for outside in [
        "http:",
        "https:",
        "<link",
        "<script src",
        "@import",
        "url(",
        "<img",
        "<iframe",
    ] {
        assert!(!html.contains(outside), "{outside} in the page");
    }
    assert!(html.contains("<h1>end-to-end</h1>") && html.ends_with("</html>"));
}

#[test]
fn what_cannot_be_done_is_refused_with_what_to_do_instead() {
    for (arguments, advice) in [
        ("consume --cold --server 127.0.0.1:1", "--server"),
        ("produce --topic here", "--server"),
        ("sweep --axis colour=red", "record-size"),
        ("sweep", "--axis"),
        ("sweep --axis linger=soon", "linger"),
        ("sweep --axis flush.speed=1", "flush.speed"),
        ("sweep --axis flush.delay_us=0us --server localhost:1", "--server"),
        ("produce --keys zipf", "uniform:COUNT"),
        (
            "mixed --catch-up-consumers 0 --limits off --set cores.prefault=false",
            "--slow-members",
        ),
        ("compare missing.json missing.json", "missing.json"),
        (
            "produce --seconds 0.1 --limits off --set cores.prefault=false --report /nowhere/at/all.html",
            "/nowhere",
        ),
    ] {
        let output = bench(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {text}");
        assert!(text.contains(advice), "{arguments}: {text}");
    }
}
