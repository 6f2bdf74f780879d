//! What a run reports: every record that was lost, damaged or is another's, where its threads ran, and why it does not begin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use headwater_server::Broker;
use serde_json::Value;

use crate::support::{Place, assert_undamaged, bench, broker, command, json, text};

fn exit_code(output: &Output) -> i32 {
    output.status.code().unwrap()
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
    let place = Place::new();
    let data = place.path().display();
    // As most run it: with memory for all records from the start.
    let output = bench(&format!("quick --seconds 1 --output json --data-dir {data}"));
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
    let shares = report["shares"].as_array().unwrap();
    assert!(shares.iter().any(|share| share["limit"] == "loopback"), "{shares:?}");
    assert!(report["limits"]["loopback_bytes_per_s"].as_f64().unwrap() > 0.0);
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
    assert!(place.names().is_empty());
}

#[test]
fn lines_of_a_file_by_several_producers_in_compressed_batches_come_back_unharmed() {
    let place = Place::new();
    let lines = place.path().join("lines");
    fs::write(&lines, "one\n\nthree, a longer line\n").unwrap();
    let options = "--producers 3 --partitions 5 --compression zstd --batch-bytes 4KiB";
    let output = bench(&format!(
        "quick --payload {} --bytes 1MB {options} --output json {place}",
        lines.display()
    ));
    assert_eq!(exit_code(&output), 0, "{output:?}");
    let report = json(&output);
    assert_undamaged(&report);
    assert!(report["consume"]["bytes"].as_u64().unwrap() >= 1_000_000);
}

#[test]
fn the_table_shows_both_phases_and_the_verdict() {
    let place = Place::new();
    let output = bench(&format!("quick --bytes 1MB {place}"));
    assert_eq!(exit_code(&output), 0, "{output:?}");
    let text = text(&output);
    for part in ["produce", "consume", "MB/s", "p99.99", "verified", "0 lost", "peak RSS"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn an_altered_byte_on_disk_is_found_and_what_lies_behind_it_is_still_verified() {
    let place = Place::new();
    let output = bench(&format!(
        "quick --bytes 4MB --batch-bytes 32KiB --keep --output json {place}"
    ));
    assert_eq!(exit_code(&output), 0, "{output:?}");
    let report = json(&output);
    let records = &report["produce"]["records"];
    let data = PathBuf::from(report["config"]["data_dir"].as_str().unwrap());
    let consume = |broker: &Broker| {
        bench(&format!(
            "consume --expect-records {records} --output json --bootstrap {} --topic bench --limits off --verify",
            broker.addr()
        ))
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
    let altered = json(&altered);
    let corrupt = altered["corrupt"].as_u64().unwrap();
    assert!((1..=32).contains(&corrupt), "the records of one batch, not {corrupt}");
    assert_eq!(altered["lost"], 0);
    assert_eq!(
        altered["records"].as_u64().unwrap() + corrupt,
        records.as_u64().unwrap()
    );
}

#[test]
fn records_that_are_missing_at_the_end_are_lost() {
    let place = Place::new();
    let running = broker(place.path());
    let target = format!("--bootstrap {} --topic load --limits off --output json", running.addr());
    let produced = bench(&format!("produce --bytes 1MB --partitions 2 {target}"));
    assert_eq!(exit_code(&produced), 0, "{produced:?}");
    let records = json(&produced)["records"].as_u64().unwrap();
    // A second run shares the topic.
    let again = bench(&format!("produce --bytes 1MB {target}"));
    assert_eq!(exit_code(&again), 0, "{again:?}");
    let verify = |expected: u64| bench(&format!("consume --verify --expect-records {expected} {target}"));
    let complete = verify(2 * records);
    assert_eq!(exit_code(&complete), 0, "{complete:?}");
    assert_undamaged(&json(&complete));
    let missing = verify(2 * records + 7);
    assert_eq!(exit_code(&missing), 1, "{missing:?}");
    assert_eq!(json(&missing)["lost"], 7);
}

#[test]
fn another_payload_than_was_sent_is_corrupt() {
    let place = Place::new();
    let running = broker(place.path());
    let target = format!("--bootstrap {} --topic load --limits off --output json", running.addr());
    let produced = bench(&format!("produce --bytes 100KB --record-size 100 {target}"));
    assert_eq!(exit_code(&produced), 0, "{produced:?}");
    let consumed = bench(&format!("consume --verify --record-size 99 {target}"));
    assert_eq!(exit_code(&consumed), 1, "{consumed:?}");
    assert_eq!(json(&consumed)["corrupt"], 1000);
    // Without verification there is nothing to find.
    let consumed = bench(&format!("consume {target}"));
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
    let place = Place::new();
    let running = command(&format!(
        "end-to-end --limits off --set cores.pin=false --client-cpus {last} --rate 1000 --seconds 2 --output json {place}"
    ))
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
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
    let refused = |arguments: &str, advice: &str| {
        let output = bench(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(exit_code(&output), 2, "{text}");
        assert!(text.contains(advice), "{advice} in {text}");
        assert!(output.stdout.is_empty());
    };
    let place = Place::new();
    let empty = place.path().join("empty");
    fs::write(&empty, "").unwrap();
    let empty = empty.display();
    refused(&format!("quick --payload {empty}"), "at least one line");
    refused("quick --bytes 1EB", "--data-dir");
    refused(&format!("quick --data-dir {empty}"), "--data-dir");
    refused("quick --batch-bytes 1", "batch_bytes");
    // Linux is built for fewer.
    refused("quick --client-cpus 8191", "cannot run on CPUs 8191");
    refused("quick --client-cpus 3-1", "such as 0,2-3");
    refused("quick --client-cpus=", "at least one CPU");
    let running = broker(place.path());
    let missing = format!("consume --bootstrap {} --topic missing", running.addr());
    refused(&missing, "produce to it first");
}

#[test]
fn what_guests_took_is_given_back_when_they_are_gone() {
    let place = Place::new();
    let churn = "churn --seconds 4 --guests 12 --partitions 4 --output json";
    let output = bench(&format!("{churn} {place}"));
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
