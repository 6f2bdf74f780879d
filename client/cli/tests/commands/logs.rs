//! The files of a log, looked into without a broker.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use serde_json::Value;

use crate::support::{Ran, Site, end_of, program, ran};

const RECORDS: usize = 60;

fn run(arguments: &[&str]) -> Ran {
    ran(program(arguments).output().unwrap())
}

fn json(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let ran = run(&[arguments, &["--output", "json"]].concat());
    let text = String::from_utf8(ran.out).unwrap();
    (
        ran.code,
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
    )
}

/// A broker with a topic of two partitions with records in many segments, in batches of several codecs.
fn site() -> (Site, PathBuf) {
    let site = Site::with(&[
        ("log.segment_size_bytes", "64KiB"),
        ("log.batch_size_bytes_max", "64KiB"),
    ]);
    site.ok(&["topic", "create", "t", "--partitions", "2"]);
    for (number, codec) in ["none", "lz4", "zstd", "snappy", "gzip", "none"].iter().enumerate() {
        let lines = (0..RECORDS / 6).map(|line| format!("key-{number}:{number}-{line}-{}\n", "v".repeat(9000)));
        let options = ["produce", "t", "--key-separator", ":", "--compression", codec];
        let fed = site.feed(&options, lines.collect::<String>().as_bytes());
        assert_eq!(fed.code, Some(0), "{}", fed.err);
    }
    let data = site.directory().join("data");
    (site, data)
}

/// Every file below a directory, with what shows that it was touched.
fn files(directory: &Path) -> BTreeMap<PathBuf, (Option<SystemTime>, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            found.extend(files(&path));
            found.insert(path, (Some(modified), Vec::new()));
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, (Some(modified), content));
        }
    }
    found
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The largest segment of a partition.
fn segment(partition: &Path) -> PathBuf {
    let logs = fs::read_dir(partition).unwrap().map(|entry| entry.unwrap().path());
    let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

#[test]
fn a_log_is_dumped_and_found_whole_without_a_broker_and_nothing_of_it_is_touched() {
    let (mut site, data) = site();
    let used = run(&["log", "verify", text(&data)]);
    assert_eq!(used.code, Some(0), "{used:?}");
    let holder = format!("a broker (process {}) uses this directory", std::process::id());
    assert!(used.err.contains(&holder), "{}", used.err);
    site.stop();
    let before = files(&data);

    let (code, lines) = json(&["log", "verify", text(&data)]);
    assert_eq!(code, Some(0));
    let partitions: Vec<&Value> = lines.iter().filter_map(|line| line.get("partition")).collect();
    assert_eq!((partitions.len(), lines.len()), (2, 2), "{lines:?}");
    let records: u64 = partitions
        .iter()
        .map(|partition| partition["records"].as_u64().unwrap())
        .sum();
    assert_eq!(records, RECORDS as u64);

    let (code, lines) = json(&["log", "dump", text(&data), "--records"]);
    assert_eq!(code, Some(0));
    let mut next: BTreeMap<i64, u64> = BTreeMap::new();
    let (mut values, mut codecs) = (Vec::new(), Vec::new());
    for line in &lines {
        if let Some(batch) = line.get("batch") {
            let expected = next.entry(batch["partition"].as_i64().unwrap()).or_default();
            assert_eq!(batch["base_offset"], *expected);
            *expected = batch["last_offset"].as_u64().unwrap() + 1;
            assert!(batch["producer_id"].as_i64().is_some() && batch["base_sequence"].as_i64().is_some());
            codecs.push(batch["codec"].as_str().unwrap().to_owned());
        } else {
            values.push(line["record"]["value"].as_str().unwrap().len());
        }
    }
    assert_eq!((values.len(), next.values().sum::<u64>()), (RECORDS, RECORDS as u64));
    codecs.sort();
    codecs.dedup();
    assert_eq!(codecs, ["gzip", "lz4", "none", "snappy", "zstd"]);

    let table = run(&["log", "dump", text(&data)]).ok(&["log", "dump"]);
    let fits = |line: &&str| line.chars().count() <= 80 || line.starts_with('/');
    assert!(table.lines().all(|line| fits(&line)), "{table}");
    let table = run(&["log", "verify", text(&data)]).ok(&["log", "verify"]);
    assert!(
        table.lines().all(|line| fits(&line)) && table.contains("whole"),
        "{table}"
    );
    assert!(files(&data) == before, "a file was touched");
}

#[test]
fn a_log_that_a_broker_writes_and_deletes_from_is_never_called_damaged() {
    let site = Site::with(&[
        ("log.segment_size_bytes", "64KiB"),
        ("log.batch_size_bytes_max", "64KiB"),
        ("log.retention_bytes", "256KiB"),
        ("log.retention_check_interval_ms", "10"),
        ("log.checkpoint_interval_ms", "100"),
    ]);
    site.ok(&["topic", "create", "t", "--partitions", "2"]);
    let data = site.directory().join("data");
    // There are no files yet.
    let empty = run(&["log", "verify", text(&data)]);
    let table = String::from_utf8(empty.out).unwrap();
    assert_eq!(empty.code, Some(0), "{}", empty.err);
    assert!(table.contains("t-0") && table.contains("none"), "{table}");
    let mut producer = site.spawn(&["produce", "t"]);
    let mut input = producer.stdin.take().unwrap();
    let feeding = thread::spawn(move || {
        for number in 0..20_000 {
            input.write_all(format!("{number:0400}\n").as_bytes()).unwrap();
        }
    });
    loop {
        let found = run(&["log", "verify", text(&data)]);
        assert_eq!(
            found.code,
            Some(0),
            "{}{}",
            String::from_utf8_lossy(&found.out),
            found.err
        );
        if feeding.is_finished() {
            break;
        }
    }
    feeding.join().unwrap();
    assert_eq!(end_of(producer).code, Some(0));
}

#[test]
fn a_part_of_a_log_is_dumped_from_an_offset_on() {
    let (mut site, data) = site();
    site.stop();
    let partition = data.join("t-0");
    let (_, all) = json(&["log", "dump", text(&partition)]);
    let bases: Vec<u64> = all
        .iter()
        .map(|line| line["batch"]["base_offset"].as_u64().unwrap())
        .collect();
    assert!(bases.len() > 4);
    let inside = bases[3] - 1;
    let (_, one) = json(&[
        "log",
        "dump",
        text(&partition),
        "--from",
        &inside.to_string(),
        "--max",
        "1",
        "--records",
    ]);
    assert_eq!(one[0]["batch"]["base_offset"], bases[2]);
    assert_eq!((one.len(), &one[1]["record"]["offset"]), (2, &Value::from(inside)));
    let path = segment(&partition);
    let (_, segment) = json(&["log", "dump", text(&path)]);
    assert!(!segment.is_empty() && segment.len() < all.len());
    assert!(segment.iter().all(|line| line["batch"]["file"] == text(&path)));
}

#[test]
fn damage_is_named_with_file_and_byte_and_has_an_exit_status_of_its_own() {
    let (mut site, data) = site();
    site.stop();
    let (_, lines) = json(&["log", "dump", text(&data)]);
    let mut batches = lines.iter().map(|line| &line["batch"]);
    let batch = batches.find(|batch| batch["position"] != 0).unwrap();
    let (path, position) = (
        PathBuf::from(batch["file"].as_str().unwrap()),
        batch["position"].as_u64().unwrap(),
    );
    let other = data.join(format!("t-{}", 1 - batch["partition"].as_u64().unwrap()));
    let mut bytes = fs::read(&path).unwrap();
    bytes[position as usize + 70] ^= 4;
    fs::write(&path, &bytes).unwrap();
    for what in [&["log", "verify", text(&data)][..], &["log", "dump", text(&path)]] {
        let found = run(what);
        assert_eq!(found.code, Some(6), "{found:?}");
        let named = format!("{} is damaged at byte {position}: ", path.display());
        let out = String::from_utf8(found.out).unwrap();
        assert!(
            out.contains(&named) && found.err.contains("1 place is damaged"),
            "{out}{}",
            found.err
        );
        let (code, lines) = json(what);
        let damage: Vec<&Value> = lines.iter().filter_map(|line| line.get("damage")).collect();
        assert_eq!((code, damage.len()), (Some(6), 1));
        assert_eq!(
            (&damage[0]["file"], &damage[0]["position"]),
            (&Value::from(text(&path)), &Value::from(position))
        );
    }
    fs::remove_file(&path).unwrap();
    let checkpoint = other.join("checkpoint");
    fs::write(&checkpoint, "headwater-checkpoint 1 00000000\n{}").unwrap();
    let (code, lines) = json(&["log", "verify", text(&data)]);
    let damage = lines.iter().filter_map(|line| line["damage"]["file"].as_str());
    let damage: Vec<&str> = damage.collect();
    assert_eq!(code, Some(6));
    assert!(
        damage.contains(&text(&path)) && damage.contains(&text(&checkpoint)),
        "{damage:?}"
    );
}

#[test]
fn what_is_no_log_is_said_to_be_none() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = temporary.path().join("notes.txt");
    fs::write(&file, "not a log").unwrap();
    let missing = temporary.path().join("missing");
    for (path, code) in [(temporary.path(), 3), (&missing, 3), (&file, 2)] {
        for what in ["verify", "dump"] {
            let ran = run(&["log", what, text(path)]);
            assert_eq!((ran.code, ran.out.len()), (Some(code), 0), "{ran:?}");
            assert!(ran.err.contains(text(path)), "{}", ran.err);
        }
    }
}
