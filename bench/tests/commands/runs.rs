//! The commands as a user runs them: real processes, a real disk, real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use headwater_server::{Broker, Config};
use serde_json::Value;
use tempfile::TempDir;

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-bench"));
    command.args(args).current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.output().unwrap()
}

/// The one JSON object on standard output.
fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 1, "{output:?}");
    serde_json::from_str(&text).unwrap()
}

fn exit_code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// On the disk that cargo builds on.
fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn broker(data: &Path) -> Broker {
    let mut config = Config::default();
    config.broker.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    data.clone_into(&mut config.log.directory);
    config.cores.pin = false;
    Broker::start(config).unwrap()
}

fn assert_undamaged(report: &Value) {
    for kind in ["lost", "duplicated", "reordered", "corrupt"] {
        assert_eq!(report[kind], 0, "{kind} in {report}");
    }
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(segments(&path));
        } else if path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
    found
}

#[test]
fn quick_reports_what_it_measured_and_leaves_nothing_behind() {
    let place = directory();
    let data_dir = place.path().to_str().unwrap();
    let output = bench(&["quick", "--seconds", "1", "--output", "json", "--data-dir", data_dir]);
    assert_eq!(exit_code(&output), 0, "{output:?}");
    let report = json(&output);
    assert_eq!(report["workload"], "quick");
    assert_undamaged(&report);
    assert_undamaged(&report["consume"]);
    let (produce, consume) = (&report["produce"], &report["consume"]);
    for phase in [produce, consume] {
        for figure in ["records", "bytes", "seconds", "bytes_per_s", "records_per_s"] {
            assert!(phase[figure].as_f64().unwrap() > 0.0, "{figure} in {phase}");
        }
    }
    assert_eq!(produce["records"], consume["records"]);
    assert_eq!(
        produce["bytes"].as_u64().unwrap(),
        1024 * produce["records"].as_u64().unwrap()
    );
    let percentiles = ["p50", "p90", "p99", "p999", "p9999", "max"].map(|name| produce["latency_us"][name].as_f64());
    assert!(
        percentiles[0].unwrap() > 0.0 && percentiles.is_sorted(),
        "{percentiles:?}"
    );
    assert_eq!(consume["latency_us"], Value::Null);
    assert!(!consume["latency_note"].as_str().unwrap().is_empty());
    assert_eq!(produce["lost"], Value::Null, "nothing was verified while producing");
    assert_eq!(report["config"]["record_size_bytes"], 1024);
    assert!(report["environment"]["filesystem"]["type"].is_string());
    assert!(report["peak_rss_bytes"].as_u64().unwrap() > 0);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn lines_of_a_file_by_several_producers_in_compressed_batches_come_back_unharmed() {
    let place = directory();
    let lines = place.path().join("lines");
    fs::write(&lines, "one\n\nthree, a longer line\n").unwrap();
    let data_dir = place.path().to_str().unwrap();
    let output = bench(&[
        "quick",
        "--payload",
        lines.to_str().unwrap(),
        "--bytes",
        "1MB",
        "--producers",
        "3",
        "--partitions",
        "5",
        "--compression",
        "zstd",
        "--batch-bytes",
        "4KiB",
        "--output",
        "json",
        "--data-dir",
        data_dir,
    ]);
    assert_eq!(exit_code(&output), 0, "{output:?}");
    let report = json(&output);
    assert_undamaged(&report);
    assert!(report["consume"]["bytes"].as_u64().unwrap() >= 1_000_000);
}

#[test]
fn the_table_shows_both_phases_and_the_verdict() {
    let place = directory();
    let output = bench(&["quick", "--bytes", "1MB", "--data-dir", place.path().to_str().unwrap()]);
    assert_eq!(exit_code(&output), 0, "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["produce", "consume", "MB/s", "p99.99", "verified", "0 lost", "peak RSS"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn an_altered_byte_on_disk_is_found_and_what_lies_behind_it_is_still_verified() {
    let place = directory();
    let data_dir = place.path().to_str().unwrap();
    let output = bench(&[
        "quick",
        "--bytes",
        "4MB",
        "--batch-bytes",
        "32KiB",
        "--keep",
        "--output",
        "json",
        "--data-dir",
        data_dir,
    ]);
    assert_eq!(exit_code(&output), 0, "{output:?}");
    let report = json(&output);
    let records = report["produce"]["records"].to_string();
    let data = PathBuf::from(report["config"]["data_dir"].as_str().unwrap());
    let consume = |broker: &Broker| {
        let address = broker.addr().to_string();
        let target = [
            "--bootstrap",
            &address,
            "--topic",
            "bench",
            "--limits",
            "off",
            "--verify",
        ];
        bench(
            &[
                &["consume", "--expect-records", &records, "--output", "json"],
                &target[..],
            ]
            .concat(),
        )
    };

    let running = broker(&data);
    let unharmed = consume(&running);
    assert_eq!(exit_code(&unharmed), 0, "{unharmed:?}");
    assert_undamaged(&json(&unharmed));
    running.shutdown().unwrap();

    let [segment] = &segments(&data)[..] else {
        panic!("one segment is enough for this")
    };
    let mut bytes = fs::read(segment).unwrap();
    bytes[2_000_000] ^= 1;
    fs::write(segment, bytes).unwrap();
    let running = broker(&data);
    let altered = consume(&running);
    assert_eq!(exit_code(&altered), 1, "{altered:?}");
    let report = json(&altered);
    let corrupt = report["corrupt"].as_u64().unwrap();
    assert!((1..=32).contains(&corrupt), "the records of one batch, not {corrupt}");
    assert_eq!(report["lost"], 0);
    assert_eq!(
        report["records"].as_u64().unwrap() + corrupt,
        records.parse::<u64>().unwrap()
    );
}

#[test]
fn records_that_are_missing_at_the_end_are_lost() {
    let place = directory();
    let running = broker(place.path());
    let address = running.addr().to_string();
    let target = [
        "--bootstrap",
        &address,
        "--topic",
        "load",
        "--limits",
        "off",
        "--output",
        "json",
    ];
    let produced = bench(&[&["produce", "--bytes", "1MB", "--partitions", "2"], &target[..]].concat());
    assert_eq!(exit_code(&produced), 0, "{produced:?}");
    let records = json(&produced)["records"].as_u64().unwrap();
    // A second run shares the topic.
    let again = bench(&[&["produce", "--bytes", "1MB"], &target[..]].concat());
    assert_eq!(exit_code(&again), 0, "{again:?}");
    let verify = |expected: u64| {
        let expected = expected.to_string();
        bench(&[&["consume", "--verify", "--expect-records", &expected], &target[..]].concat())
    };
    let complete = verify(2 * records);
    assert_eq!(exit_code(&complete), 0, "{complete:?}");
    assert_undamaged(&json(&complete));
    let missing = verify(2 * records + 7);
    assert_eq!(exit_code(&missing), 1, "{missing:?}");
    assert_eq!(json(&missing)["lost"], 7);
}

#[test]
fn another_payload_than_was_sent_is_corrupt() {
    let place = directory();
    let running = broker(place.path());
    let address = running.addr().to_string();
    let target = [
        "--bootstrap",
        &address,
        "--topic",
        "load",
        "--limits",
        "off",
        "--output",
        "json",
    ];
    let produced = bench(&[&["produce", "--bytes", "100KB", "--record-size", "100"], &target[..]].concat());
    assert_eq!(exit_code(&produced), 0, "{produced:?}");
    let consumed = bench(&[&["consume", "--verify", "--record-size", "99"], &target[..]].concat());
    assert_eq!(exit_code(&consumed), 1, "{consumed:?}");
    assert_eq!(json(&consumed)["corrupt"], 1000);
    // Without verification there is nothing to find.
    let consumed = bench(&[&["consume"], &target[..]].concat());
    assert_eq!(exit_code(&consumed), 0, "{consumed:?}");
    assert_eq!(json(&consumed)["corrupt"], Value::Null);
}

/// The CPUs that each thread of a process may run on, by the thread's name.
fn cpus_of_threads(process: u32) -> Vec<(String, String)> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let cpus = |thread: PathBuf| {
        let name = fs::read_to_string(thread.join("comm")).ok()?;
        let status = fs::read_to_string(thread.join("status")).ok()?;
        let list = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Some((name.trim().to_owned(), list.trim().to_owned()))
    };
    // A thread may end meanwhile.
    threads.filter_map(|thread| cpus(thread.unwrap().path())).collect()
}

#[test]
fn clients_run_where_they_are_told_to_and_the_broker_does_not() {
    let allowed = &cpus_of_threads(std::process::id())[0].1;
    let Some((_, last)) = allowed.rsplit_once(['-', ',']) else {
        println!("skipped: there is only CPU {allowed}");
        return;
    };
    let arguments = [
        "end-to-end",
        "--limits",
        "off",
        "--set",
        "cores.pin=false",
        "--client-cpus",
        last,
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-bench"));
    command
        .args(arguments)
        .args(["--rate", "1000", "--seconds", "2", "--output", "json"]);
    command
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdout(std::process::Stdio::piped());
    let running = command.spawn().unwrap();
    let mut seen = Vec::new();
    // Until producer and consumer have threads of their own, which may just have begun.
    for _ in 0..200 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        seen = cpus_of_threads(running.id());
        let clients = seen.iter().filter(|(name, _)| name == "client");
        if clients.clone().count() >= 3 && clients.clone().all(|(_, cpus)| cpus == last) {
            break;
        }
    }
    let output = running.wait_with_output().unwrap();
    assert_eq!(json(&output)["config"]["client_cpus"], last);
    let clients = seen.iter().filter(|(name, _)| name == "client");
    assert!(clients.clone().count() >= 3, "{seen:?}");
    assert!(clients.clone().all(|(_, cpus)| cpus == last), "{seen:?}");
    let others = seen.iter().filter(|(name, _)| name.starts_with("core-"));
    assert!(others.clone().count() > 0, "{seen:?}");
    assert!(others.clone().all(|(_, cpus)| cpus == allowed), "{seen:?}");
}

#[test]
fn what_cannot_run_says_what_to_do() {
    let refused = |args: &[&str], advice: &str| {
        let output = bench(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(exit_code(&output), 2, "{text}");
        assert!(text.contains(advice), "{advice} in {text}");
        assert!(output.stdout.is_empty());
    };
    let place = directory();
    let empty = place.path().join("empty");
    fs::write(&empty, "").unwrap();
    refused(&["quick", "--payload", empty.to_str().unwrap()], "at least one line");
    refused(&["quick", "--bytes", "1EB"], "--data-dir");
    refused(&["quick", "--data-dir", empty.to_str().unwrap()], "--data-dir");
    refused(&["quick", "--batch-bytes", "1"], "batch_bytes");
    // Linux is built for fewer.
    refused(&["quick", "--client-cpus", "8191"], "cannot run on CPUs 8191");
    refused(&["quick", "--client-cpus", "3-1"], "such as 0,2-3");
    refused(&["quick", "--client-cpus", ""], "at least one CPU");
    let running = broker(place.path());
    let address = running.addr().to_string();
    refused(
        &["consume", "--bootstrap", &address, "--topic", "missing"],
        "produce to it first",
    );
}

#[test]
fn what_guests_took_is_given_back_when_they_are_gone() {
    let place = directory();
    let output = bench(&[
        "churn",
        "--seconds",
        "10",
        "--guests",
        "12",
        "--partitions",
        "4",
        "--output",
        "json",
        "--data-dir",
        place.path().to_str().unwrap(),
    ]);
    // After so short a time memory and descriptors say little, so the exit status may be either.
    assert!([0, 3].contains(&exit_code(&output)), "{output:?}");
    let churn = json(&output);
    assert_eq!(churn["errors"], serde_json::json!({}), "{churn}");
    for metric in [
        "headwater_connections",
        "headwater_in_flight_bytes",
        "headwater_read_buffer_bytes",
    ] {
        let levels = churn["levels"].as_array().unwrap();
        let level = levels.iter().find(|level| level["metric"] == metric).unwrap();
        assert_eq!(level["late"], level["start"], "{metric}: {churn}");
    }
}
