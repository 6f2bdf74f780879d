//! Of all that there is, only what was asked for.

use std::io::{BufRead as _, BufReader};

use crate::support::Site;

/// Topics `orders-1`, `orders-2` and `other` of two partitions each: ten records in each partition, whose time is their number
/// above 1000, and whose key is even or odd.
fn site_with_records() -> Site {
    let site = Site::start();
    for topic in ["orders-1", "orders-2", "other"] {
        site.ok(&["topic", "create", topic, "-p", "2"]);
        for partition in [0, 1] {
            let line = |number: u32| {
                let key = if number.is_multiple_of(2) { "even" } else { "odd" };
                let (value, timestamp) = (format!("{topic}/{partition}/{number}"), 1000 + number);
                format!(
                    "{{\"key\": \"{key}\", \"value\": \"{value}\", \"partition\": {partition}, \"timestamp\": {timestamp}}}\n"
                )
            };
            let lines: String = (0..10).map(line).collect();
            site.feed(&["produce", topic, "-i", "json"], lines.as_bytes()).ok(&[]);
        }
    }
    site
}

/// What is read, in order.
fn read(site: &Site, arguments: &[&str]) -> Vec<String> {
    let out = site.ok(&[&["consume"], arguments].concat());
    let mut values: Vec<_> = out.lines().map(str::to_owned).collect();
    values.sort_unstable();
    values
}

#[test]
fn several_topics_are_read_together_by_name_or_by_pattern() {
    let site = site_with_records();
    let named = read(&site, &["orders-1", "other"]);
    assert_eq!(named.len(), 40);
    assert!(!named.iter().any(|value| value.starts_with("orders-2")));
    assert_eq!(read(&site, &["other", "other"]).len(), 20, "each once");
    let of_pattern = read(&site, &["--pattern", "orders-.*"]);
    assert_eq!(of_pattern.len(), 40);
    assert!(!of_pattern.iter().any(|value| value.starts_with("other")));
    // A group has made the broker's own topic, and no pattern means it.
    site.ok(&["group", "reset-offsets", "g", "--topic", "other", "--to-end"]);
    assert_eq!(read(&site, &["--pattern", ".*", "--last", "1"]).len(), 6);
    let none = site.run(&["consume", "--pattern", "orders"]);
    assert!(none.code == Some(3) && none.err.contains("whole name"), "{none:?}");
    let missing = site.run(&["consume", "other", "zebra"]);
    assert!(
        missing.code == Some(3) && missing.out.is_empty() && missing.err.contains("zebra"),
        "{missing:?}"
    );
    for (wrong, says) in [
        (&["consume"][..], "TOPIC"),
        (&["consume", "other", "--pattern", "o.*"], "--pattern"),
        (&["consume", "--pattern", "("], "unclosed group"),
        (
            &["consume", "orders-1", "other", "-p", "0"],
            "--partition is of one topic",
        ),
    ] {
        let ran = site.run(wrong);
        assert!(ran.code == Some(2) && ran.err.contains(says), "{wrong:?}: {ran:?}");
    }
}

#[test]
fn a_group_of_a_pattern_reads_all_topics_that_match_also_those_that_come_later() {
    let site = site_with_records();
    let follow = ["consume", "--pattern", "orders-.*", "--group", "g", "--timeout", "60s"];
    let mut member = site.spawn(&follow);
    let mut lines = BufReader::new(member.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    for _ in 0..40 {
        assert!(next().starts_with("orders-"));
    }
    site.ok(&["topic", "create", "orders-3", "-p", "1"]);
    site.feed(&["produce", "orders-3"], b"later\n").ok(&[]);
    assert_eq!(next(), "later");
    member.kill().unwrap();
    member.wait().unwrap();
}

#[test]
fn reading_stops_at_the_offset_or_the_moment_that_it_was_told() {
    let site = site_with_records();
    assert_eq!(
        read(&site, &["other", "--until-offset", "1"]),
        ["other/0/0", "other/1/0"]
    );
    assert_eq!(
        read(
            &site,
            &["other", "-p", "0", "--from-offset", "3", "--until-offset", "5"]
        ),
        ["other/0/3", "other/0/4"]
    );
    assert_eq!(
        read(&site, &["other", "--from-time", "1008", "--until-time", "1009"]),
        ["other/0/8", "other/1/8"]
    );
    // The last ones before the end that was told.
    assert_eq!(
        read(&site, &["other", "-p", "1", "--until-time", "1005", "--last", "2"]),
        ["other/1/3", "other/1/4"]
    );
    for beyond in [["--until-offset", "99"], ["--until-time", "now"]] {
        assert_eq!(read(&site, &[&["other"], &beyond[..]].concat()).len(), 20);
    }
    let wrong = site.run(&["consume", "other", "--until-offset", "5", "--follow"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("--follow"), "{wrong:?}");
}

#[test]
fn only_records_with_the_key_are_printed_and_counted() {
    let site = site_with_records();
    let odd = read(&site, &["other", "-p", "0", "--key", "odd"]);
    assert_eq!(odd, ["1", "3", "5", "7", "9"].map(|number| format!("other/0/{number}")));
    assert_eq!(read(&site, &["other", "--key", "even", "--count", "7"]).len(), 7);
    // A key as bytes, and a key that is empty, which is not the absence of one.
    site.ok(&["topic", "create", "t", "-p", "1"]);
    site.feed(&["produce", "t", "-k", "="], b"a\tb=tab\n=empty\n").ok(&[]);
    site.feed(&["produce", "t"], b"null\n").ok(&[]);
    assert_eq!(site.ok(&["consume", "t", "--key", "a\\tb"]), "tab\n");
    assert_eq!(site.ok(&["consume", "t", "--key", ""]), "empty\n");
}

#[test]
fn a_reader_that_finds_nothing_says_so_beside_its_empty_output() {
    let site = site_with_records();
    site.ok(&["topic", "create", "empty", "-p", "1"]);
    for (arguments, says) in [
        (&["empty"][..], "topic empty holds no records; --follow"),
        (&["other", "--key", "zebra"], "has the key \"zebra\""),
        (&["other", "--from-offset", "99"], "headwater offsets other"),
        (
            &["other", "--until-time", "1d ago", "--from-time", "now"],
            "nothing of topic other is there",
        ),
        (&["--pattern", "empt.*"], "the pattern empt.* holds no records"),
    ] {
        for form in [&[][..], &["-o", "json"]] {
            let ran = site.run(&[&["consume"], arguments, form].concat());
            assert_eq!((ran.code, &*ran.out), (Some(0), &b""[..]), "{arguments:?}: {}", ran.err);
            assert!(ran.err.starts_with("note: ") && ran.err.contains(says), "{}", ran.err);
        }
    }
    let states = site.run(&["group", "list", "--state", "stable"]);
    assert!(states.err.contains("no group is in the state stable"), "{states:?}");
}
