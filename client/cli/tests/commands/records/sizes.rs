//! Lines at and beyond the limits of a topic.

use std::io::Write as _;

use serde_json::json;

use crate::support::{Site, ran};

/// Creates a topic whose batches are limited.
fn create(site: &Site, settings: &[&str]) {
    let settings: Vec<_> = settings.iter().flat_map(|setting| ["--config", setting]).collect();
    site.ok(&[&["topic", "create", "t", "-p", "1"], &settings[..]].concat());
}

/// More than a batch of the client holds.
fn many_lines() -> String {
    let lines: Vec<_> = (0..20_000).map(|number| format!("line {number} of many\n")).collect();
    lines.concat()
}

#[test]
fn ordinary_lines_are_stored_whatever_batches_the_topic_takes() {
    for settings in [&["max.message.bytes=65536"][..], &["segment.bytes=65536"]] {
        let site = Site::start();
        create(&site, settings);
        let lines = many_lines();
        for codec in ["none", "lz4"] {
            let told = site.feed(&["produce", "t", "-z", codec], lines.as_bytes());
            assert!(told.ok(settings).starts_with("stored 20000 records in t"));
        }
        assert!(site.ok(&["consume", "t"]) == lines.repeat(2), "{settings:?}");
    }
}

#[test]
fn a_line_that_is_too_large_is_named_and_no_other_is_refused_or_left_uncounted() {
    let site = Site::start();
    create(&site, &["max.message.bytes=65536"]);
    let line = |number: usize| match number {
        7 | 203 | 204 => "x".repeat(150_000),
        _ => format!("line {number}"),
    };
    let lines: Vec<_> = (1..=400).map(line).collect();
    let ran = site.feed(&["produce", "t"], (lines.join("\n") + "\n").as_bytes());
    assert_eq!(ran.code, Some(5), "{}", ran.err);
    let out = String::from_utf8(ran.out).unwrap();
    assert_eq!(out, "stored 397 records in t: partition 0 at offsets 0 to 396\n");
    assert!(
        ran.err.contains("cannot store 3 of 400 records, line 7, 203-204: "),
        "{}",
        ran.err
    );
    for said in [
        "line 7: the record for topic t makes a batch of 150",
        "at most 65536",
        "max.message.bytes",
    ] {
        assert!(ran.err.contains(said), "{said}: {}", ran.err);
    }
    let short: Vec<_> = lines.iter().filter(|line| line.len() < 100).cloned().collect();
    assert_eq!(site.ok(&["consume", "t"]), short.join("\n") + "\n");
    let ran = site.feed(&["produce", "t", "-o", "json"], lines[..8].join("\n").as_bytes());
    let told: serde_json::Value = serde_json::from_slice(&ran.out).unwrap();
    assert_eq!(
        (&told["records"], &told["refused"]),
        (&json!(7), &json!({"records": 1, "lines": [[7, 7]]}))
    );
}

#[test]
fn at_the_limit_of_the_topic_a_line_is_stored_or_refused_by_a_byte() {
    let site = Site::start();
    create(&site, &["max.message.bytes=65536"]);
    let store = |len: usize, codec: &str| {
        site.feed(&["produce", "t", "-z", codec], "y".repeat(len).as_bytes())
            .code
    };
    // A header of 61 bytes; of the record 3 for its length, 3 for the value's, and 5 more.
    let largest = 65_536 - 61 - 3 - 3 - 5;
    let codes = [largest - 1, largest, largest + 1].map(|len| store(len, "none"));
    assert_eq!(codes, [Some(0), Some(0), Some(5)]);
    // What counts is what compression leaves.
    assert_eq!(store(10 * largest, "zstd"), Some(0));
    let lengths = site.ok(&["consume", "t", "--format", "%V\\n"]);
    let expected = [largest - 1, largest, 10 * largest].map(|len| format!("{len}\n"));
    assert_eq!(lengths, expected.concat());
}

#[test]
fn a_limit_that_is_lowered_under_a_producer_has_no_ordinary_line_refused() {
    let site = Site::start();
    create(&site, &[]);
    let mut producer = site.spawn(&["produce", "t"]);
    let mut input = producer.stdin.take().unwrap();
    input.write_all(b"first\n").unwrap();
    // Stored: it knows the topic with its old limit.
    assert_eq!(site.ok(&["consume", "t", "--follow", "--count", "1"]), "first\n");
    site.ok(&["topic", "alter", "t", "--set", "max.message.bytes=65536"]);
    let lines = many_lines();
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    let told = ran(producer.wait_with_output().unwrap());
    assert!(told.ok(&[]).starts_with("stored 20001 records in t"));
    assert!(site.ok(&["consume", "t"]) == format!("first\n{lines}"));
}
