//! That the bench says what its figures are worth: whether records were verified, who had the CPUs, whether it was late itself.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use headwater_client::{Client, NewTopic, Record};
use serde_json::Value;

use crate::support::{Place, bench, broker, command, json, text};

/// A program that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn quick_ends_with_three_lines_on_the_machine_the_bottleneck_and_what_to_run_next() {
    let place = Place::new();
    let quick = bench(&format!("quick --bytes 4MB --record-size 200 {place}"));
    assert_eq!(quick.status.code(), Some(0), "{quick:?}");
    let text = text(&quick);
    let lines: Vec<_> = text.lines().collect();
    let [.., gap, share, bound, next] = lines[..] else {
        panic!("{text}")
    };
    assert_eq!(gap, "");
    for part in ["Produced ", "% of what this disk writes", "% of loopback", "consumed "] {
        assert!(share.contains(part), "{part} in {share}");
    }
    assert!(bound.contains("Producing") && bound.contains("Consuming"), "{bound}");
    // What is proposed can be run, and is about the same records.
    let (_, proposed) = next.split_once("run next: headwater-bench ").unwrap();
    assert!(
        proposed.contains("end-to-end --rate ") && proposed.contains("--record-size 200"),
        "{proposed}"
    );
    let proposed = proposed.replace("--seconds 20", "--seconds 0.2 --limits off");
    let latency = bench(&format!("{proposed} {place}"));
    assert_eq!(latency.status.code(), Some(0), "{latency:?}");
    // Where nothing was measured, nothing is claimed.
    let quick = bench(&format!("quick --bytes 1MB --limits off {place} --output json"));
    let summary = json(&quick)["summary"].clone();
    assert!(
        summary[0]
            .as_str()
            .unwrap()
            .contains("was not measured as --limits off says"),
        "{summary}"
    );
    assert_eq!(summary.as_array().unwrap().len(), 3);
}

#[test]
fn every_workload_prints_what_was_verified_and_how_much() {
    let place = Place::new();
    for workload in [
        "quick --bytes 1MB",
        "produce --bytes 1MB",
        "consume --bytes 1MB",
        "consume --cold --bytes 1MB",
        "end-to-end --bytes 1MB",
        "mixed --bytes 1MB --history 1MB --catch-up-consumers 1",
        "sweep --axis acks=all,leader --bytes 1MB",
    ] {
        let output = bench(&format!("{workload} --limits off {place}"));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = text(&output);
        let verified: Vec<_> = text.lines().filter(|line| line.starts_with("verified ")).collect();
        assert!(!verified.is_empty(), "{workload}: {text}");
        for line in verified {
            let words: Vec<_> = line.split(' ').collect();
            let place = words
                .iter()
                .position(|word| *word == "records:")
                .unwrap_or_else(|| panic!("{line}"));
            assert!(words[place - 1].parse::<u64>().unwrap() >= 977, "{workload}: {line}");
            assert!(
                line.ends_with("0 lost, 0 duplicated, 0 reordered, 0 corrupt"),
                "{workload}: {line}"
            );
        }
    }
}

#[test]
fn produce_reads_back_what_it_has_sent_of_each_run() {
    let place = Place::new();
    let produced = bench(&format!(
        "produce --bytes 1MB --partitions 3 --keys uniform:50 --repeat 2 --limits off {place}"
    ));
    let produced = text(&produced);
    assert!(
        produced.contains("verified  in 2 runs 1954 records: 0 lost"),
        "{produced}"
    );
    let skipped = bench(&format!("produce --bytes 1MB --no-verify --limits off {place}"));
    let skipped = text(&skipped);
    assert!(skipped.contains("verified  nothing: --no-verify"), "{skipped}");
    // What retention has deleted is neither lost nor verified.
    let retention =
        "--set log.segment_size_bytes=4MiB --set log.retention_bytes=4MiB --set log.retention_check_interval_ms=10ms";
    let kept = bench(&format!(
        "produce --bytes 60MB --limits off {retention} {place} --output json"
    ));
    assert_eq!(kept.status.code(), Some(0), "{kept:?}");
    let kept = json(&kept);
    let verified = kept["verified_records"].as_u64().unwrap();
    assert!(
        0 < verified && verified < kept["records"].as_u64().unwrap(),
        "{verified} in {kept}"
    );
    assert_eq!((&kept["lost"], &kept["corrupt"]), (&0.into(), &0.into()));
}

#[test]
fn records_of_others_are_told_from_damaged_ones() {
    let place = Place::new();
    let running = broker(place.path());
    let address = running.addr().to_string();
    let write = async |topic: &str, count: usize| {
        let client = Client::connect(&address).await.unwrap();
        // It may be there already.
        let _ = client.admin().create_topic(NewTopic::new(topic).partitions(1)).await;
        let producer = client.producer().build().await.unwrap();
        for number in 0..count {
            // As long as the bench's own stamps.
            let key = format!("507f1f77bcf86cd79943{number:04}");
            let sent = producer.send(Record::to(topic).key(key.as_str()).value("an order"));
            // Closing the producer waits for all of them.
            drop(sent.await.unwrap());
        }
        producer.close().await.unwrap();
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(write("orders", 25));
    let verify = |topic: &str, more: &str| {
        bench(&format!(
            "consume --server {address} --topic {topic} --limits off {more}"
        ))
    };
    let foreign = verify("orders", "--verify");
    assert_eq!(foreign.status.code(), Some(2), "{foreign:?}");
    let foreign = text(&foreign);
    assert!(
        foreign.contains("nothing: none of 25 records was written by this bench"),
        "{foreign}"
    );
    assert!(
        foreign.contains("25 records were not written by this bench") && !foreign.contains("DAMAGED"),
        "{foreign}"
    );
    let counted = verify("orders", "");
    assert_eq!(counted.status.code(), Some(0), "{counted:?}");
    assert!(text(&counted).contains("nothing: records were counted"), "{counted:?}");

    // Between those of others, ours are verified all the same, whatever their keys.
    let target = format!("--server {address} --topic shared --bytes 100KB --limits off");
    for options in ["", "--keys uniform:10"] {
        let produced = bench(&format!("produce {options} {target}"));
        assert_eq!(produced.status.code(), Some(0), "{produced:?}");
    }
    let ours = verify("shared", "--verify --output json");
    assert_eq!(ours.status.code(), Some(0), "{ours:?}");
    runtime.block_on(write("shared", 7));
    let again = bench(&format!("produce {target}"));
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    let mixed = verify("shared", "--verify --output json");
    assert_eq!(mixed.status.code(), Some(2), "{mixed:?}");
    let mixed = json(&mixed);
    assert_eq!(
        (&mixed["foreign_records"], &mixed["verified_records"]),
        (&7.into(), &294.into()),
        "{mixed}"
    );
    assert_eq!((&mixed["lost"], &mixed["corrupt"]), (&0.into(), &0.into()));
    // Another size than was sent is damage, with a hint at what it may be instead.
    let other = verify("shared", "--verify --record-size 99");
    assert_eq!(other.status.code(), Some(1), "{other:?}");
}

#[test]
fn every_bench_says_when_other_programs_had_the_cpus() {
    let place = Place::new();
    let cpus = thread::available_parallelism().unwrap().get();
    let spin = |_| Running(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap());
    let _others: Vec<_> = (0..cpus).map(spin).collect();
    let limits = format!(
        "limits --only loopback,memory --seconds 0.1 --data-dir {}",
        place.path().display()
    );
    // In less than 0.2 s nothing can be said.
    let workloads = [
        "quick --seconds 0.3 --limits off",
        "produce --rate 500 --seconds 0.3 --limits off",
        "consume --tail-buffer 16MiB --seconds 0.3 --limits off",
        "end-to-end --rate 500 --seconds 0.3 --limits off",
        "mixed --rate 500 --seconds 0.3 --history 1MB --catch-up-consumers 1 --limits off",
        "sweep --axis acks=all,leader --seconds 0.3",
    ];
    let workloads = workloads.map(|workload| format!("{workload} {place}"));
    thread::scope(|scope| {
        for workload in workloads.iter().chain([&limits]) {
            scope.spawn(move || assert_cautious(workload));
        }
        scope.spawn(|| {
            let output = bench(&format!(
                "produce --rate 500 --seconds 0.3 --limits off --output json {place}"
            ));
            let report = json(&output);
            assert!(report["usage"]["others"].as_f64().unwrap() > 0.1, "{report}");
            assert!(report["cautions"].to_string().contains("not to be trusted"), "{report}");
        });
    });
}

/// It says which programs had the CPUs, and what that makes of its figures. Beside other tests the busiest need not be this one's `sh`.
fn assert_cautious(workload: &str) {
    let output = bench(workload);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = text(&output);
    let caution = text
        .lines()
        .find(|line| line.contains("CAUTION") && line.contains("other programs"))
        .unwrap_or_else(|| panic!("{workload}: {text}"));
    for part in ["other programs had", "%", "waited for a CPU", "not to be trusted"] {
        assert!(
            caution.contains(part) || (workload.starts_with("limits") && part.starts_with("waited")),
            "{caution}"
        );
    }
}

/// Whether producers and consumers have threads of their own by now.
fn is_at_work(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "client").count() >= 3
}

/// An open loop of which nothing runs for a second: half of its records are due meanwhile.
fn stopped_for_a_second() -> Value {
    let place = Place::new();
    let mut running = command(&format!(
        "end-to-end --rate 500 --seconds 2 --warm-up 0.5 --limits off --output json {place}"
    ));
    let mut running = Running(running.stdout(Stdio::piped()).spawn().unwrap());
    let process = rustix::process::Pid::from_child(&running.0);
    while !is_at_work(running.0.id()) {
        assert!(running.0.try_wait().unwrap().is_none(), "it ended by itself");
        thread::sleep(Duration::from_millis(5));
    }
    // Behind the warm-up, most likely.
    thread::sleep(Duration::from_millis(700));
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    thread::sleep(Duration::from_secs(1));
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    let mut stdout = running.0.stdout.take().unwrap();
    serde_json::from_reader(&mut stdout).unwrap()
}

#[test]
fn a_bench_that_was_late_itself_says_so_and_does_not_count_it_as_latency() {
    let is_told_apart = |report: &Value| {
        let longest = report["produce"]["bench_late_us"]["schedule"]["max"].as_f64().unwrap();
        let is_short = |part: &str| report[part]["latency_us"]["p90"].as_f64().unwrap() < longest / 2.0;
        let cautions = report["cautions"].to_string();
        longest >= 500_000.0
            && ["produce", "end_to_end"].into_iter().all(is_short)
            && cautions.contains("the bench itself was behind its schedule")
    };
    // A stop that comes while the client is being called is rightly the client's: another time it comes elsewhere.
    let reports: Vec<Value> = (0..4)
        .map(|_| stopped_for_a_second())
        .take_while(|report| !is_told_apart(report))
        .collect();
    assert!(reports.len() < 4, "{reports:#?}");
}
