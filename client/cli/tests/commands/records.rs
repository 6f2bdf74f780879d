//! Records in and out.

mod ends;
mod sizes;

use std::io::{BufRead as _, BufReader, Write as _};

use crate::support::Site;

/// Lines with keys of every byte that a line can have, many more than one batch holds.
fn lines() -> Vec<u8> {
    let mut lines = Vec::new();
    for number in 0..20_000_u32 {
        lines.extend_from_slice(format!("key-{}\t", number % 7).as_bytes());
        let byte = |at: u32| (number.wrapping_mul(2_654_435_761).rotate_left(at % 32) >> 3) as u8;
        lines.extend((0..number % 97).map(byte).filter(|byte| *byte != b'\n'));
        lines.push(b'\n');
    }
    lines
}

#[test]
fn a_file_of_lines_with_keys_and_headers_comes_back_byte_for_byte_under_every_compression() {
    let site = Site::start();
    let lines = lines();
    let file = site.directory().join("lines");
    std::fs::write(&file, &lines).unwrap();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        site.ok(&["topic", "create", codec, "--partitions", "1"]);
        let produce = [
            "produce",
            codec,
            file.to_str().unwrap(),
            "-k",
            r"\t",
            "-z",
            codec,
            "-H",
            "from=a=file",
            "-H",
            "n=1",
        ];
        let told = site.ok(&produce);
        assert_eq!(
            told,
            format!("stored 20000 records in {codec}: partition 0 at offsets 0 to 19999\n")
        );
        let back = site.run(&["consume", codec, "-k", r"\t"]);
        assert_eq!((back.code, &*back.err), (Some(0), ""));
        assert!(back.out == lines, "{codec}: what came back is not what was sent");
        let headers = site.ok(&["consume", codec, "--format", r"%h\n"]);
        assert!(headers.lines().all(|line| line == "from=a=file,n=1"), "{codec}");
        assert_eq!(headers.lines().count(), 20_000);
    }
    let sizes: Vec<_> = ["none", "zstd"]
        .map(|codec| site.json(&["partition", "describe", codec, "0"])[0]["size_bytes"].as_u64())
        .into();
    assert!(sizes[1] < sizes[0], "it was compressed: {sizes:?}");
}

#[test]
fn a_binary_file_is_one_record_that_comes_back_byte_for_byte() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|number| (number.wrapping_mul(number) >> 7) as u8)
        .collect();
    let stored = site.feed(&["produce", "t", "-", "--input", "raw", "--key", "picture"], &bytes);
    assert_eq!(stored.ok(&[]), "stored 1 record in t: partition 0 at offset 0\n");
    assert!(site.run(&["consume", "t", "--raw"]).out == bytes);
    assert_eq!(site.ok(&["consume", "t", "--format", "%k %K %V"]), "picture 7 300000");
}

#[test]
fn what_is_consumed_as_json_can_be_produced_again() {
    let site = Site::start();
    for topic in ["t", "copy"] {
        site.ok(&["topic", "create", topic, "-p", "3"]);
    }
    let input = concat!(
        r#"{"key": "a", "value": "one", "partition": 2, "timestamp": 1700000000000, "headers": [{"name": "h", "value": null}]}"#,
        "\n",
        r#"{"value": null, "partition": 1}"#,
        "\n",
        r#"{"key_base64": "/wA=", "value": "", "partition": 0, "headers": [{"name": "h", "value_base64": "/w=="}]}"#,
        "\n"
    );
    site.feed(&["produce", "t", "--input", "json"], input.as_bytes())
        .ok(&[]);
    let printed = site.run(&["consume", "t", "-o", "json"]).out;
    site.feed(&["produce", "copy", "--input", "json"], &printed).ok(&[]);
    let [records, copies] = ["t", "copy"].map(|topic| {
        let mut records = site.json(&["consume", topic]);
        records.sort_by_key(|record| record["partition"].as_i64());
        for record in &mut records {
            assert_eq!(record["topic"], topic);
            record["topic"].take();
        }
        records
    });
    assert_eq!(records, copies);
    assert_eq!(records.len(), 3);
    assert_eq!(
        (&records[0]["key_base64"], &records[0]["value"]),
        (&"/wA=".into(), &"".into())
    );
    assert_eq!((&records[1]["key"], &records[1]["value"]), (&().into(), &().into()));
    assert_eq!(records[2]["timestamp"], 1_700_000_000_000_i64);
    assert_eq!(records[2]["headers"][0]["name"], "h");
}

#[test]
fn a_bad_line_is_named_and_what_came_before_it_is_stored() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    let ran = site.feed(&["produce", "t", "-k", ":"], b"a:1\nb:2\nno key\nc:3\n");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("line 3: it has no key") && ran.err.contains("2 records had been stored in t before that"),
        "{}",
        ran.err
    );
    assert_eq!(site.ok(&["consume", "t", "-k", "="]), "a=1\nb=2\n");
    let ran = site.feed(
        &["produce", "t", "--input", "json"],
        b"{\"value\": \"x\", \"vlaue\": 1}\n",
    );
    assert!(
        ran.code == Some(1) && ran.err.contains("line 1") && ran.err.contains("vlaue"),
        "{}",
        ran.err
    );
    // A line without an end is a record too; an empty one is an empty value, or null.
    site.feed(&["produce", "t", "--empty-as-null"], b"\nlast").ok(&[]);
    assert_eq!(
        site.ok(&["consume", "t", "--last", "2", "--format", r"%V %v\n"]),
        "-1 \n4 last\n"
    );
}

#[test]
fn reading_begins_and_ends_where_it_is_told_to() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "2"]);
    for partition in [0, 1] {
        let line = |number| {
            let timestamp = 1000 + number;
            format!("{{\"value\": \"{partition}-{number}\", \"partition\": {partition}, \"timestamp\": {timestamp}}}")
        };
        let lines = (0..10).map(line).collect::<Vec<_>>().join("\n");
        site.feed(&["produce", "t", "-i", "json"], lines.as_bytes()).ok(&[]);
    }
    site.feed(&["produce", "t", "-p", "0"], b"0-10\n").ok(&[]);
    let read = |arguments: &[&str]| -> Vec<String> {
        let out = site.ok(&[&["consume", "t"], arguments].concat());
        let mut values: Vec<_> = out.lines().map(str::to_owned).collect();
        values.sort_by_key(|value| {
            value
                .split('-')
                .map(|part| part.parse::<u32>().unwrap())
                .collect::<Vec<_>>()
        });
        values
    };
    assert_eq!(read(&[]).len(), 21);
    assert_eq!(read(&["--from-beginning", "-p", "1"]).len(), 10);
    assert_eq!(read(&["--last", "1"]), ["0-10", "1-9"]);
    assert_eq!(read(&["--from-offset", "9"]), ["0-9", "0-10", "1-9"]);
    let nothing = site.run(&["consume", "t", "--from-offset", "11"]);
    assert_eq!((nothing.code, &*nothing.out), (Some(0), &b""[..]), "{}", nothing.err);
    assert_eq!(read(&["--from-time", "1008", "-p", "1"]), ["1-8", "1-9"]);
    assert_eq!(read(&["--from-time", "1h ago"]), ["0-10"]);
    assert_eq!(read(&["-p", "0", "--from-offset", "3", "--count", "2"]), ["0-3", "0-4"]);
    assert_eq!(read(&["--count", "0"]), [""; 0]);
    // Beyond the end there is nothing to stop at.
    let ran = site.run(&["consume", "t", "-p", "1", "--from-offset", "11"]);
    assert!(
        ran.code == Some(3) && ran.err.contains("offsets 0 to 10"),
        "{}",
        ran.err
    );
    let at = site.json(&["offsets", "t", "--at", "1005"]);
    let partitions = at[0]["partitions"].as_array().unwrap();
    assert_eq!(partitions[1]["at"], 5);
    assert_eq!(
        (&partitions[0]["start"], &partitions[0]["end"]),
        (&0.into(), &11.into())
    );
    let none = site.json(&["offsets", "t", "-p", "1", "--at", "now"]);
    assert_eq!(none[0]["partitions"][0]["at"], serde_json::Value::Null);
}

#[test]
fn following_shows_records_as_they_come_until_it_has_enough() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "2"]);
    site.feed(&["produce", "t"], b"before\n").ok(&[]);
    let mut consumer = site.spawn(&["consume", "t", "--follow", "--count", "3"]);
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "before");
    // A producer that is being typed into: each line is stored when it is ended.
    let mut producer = site.spawn(&["produce", "t"]);
    let mut typed = producer.stdin.take().unwrap();
    for line in ["one", "two"] {
        writeln!(typed, "{line}").unwrap();
        assert_eq!(next(), line);
    }
    drop(typed);
    assert!(producer.wait().unwrap().success());
    assert!(consumer.wait().unwrap().success());
}

#[test]
fn a_rate_is_kept_to() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    // The third record is due in a long time: the first two are stored all the same.
    let mut producer = site.spawn(&["produce", "t", "--rate", "0.001"]);
    let mut typed = producer.stdin.take().unwrap();
    typed.write_all(b"1\n2\n").unwrap();
    let mut consumer = site.spawn(&["consume", "t", "--follow"]);
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "1");
    assert_eq!(
        site.ok(&["consume", "t"]),
        "1\n",
        "the second is due in a quarter of an hour"
    );
    for mut child in [producer, consumer] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
