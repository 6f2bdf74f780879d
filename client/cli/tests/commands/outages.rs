//! Brokers that are away, hang, cannot be reached where they say they are, or are none.

use std::io::Write as _;
use std::time::Duration;

use crate::support::{Lines, Site, end_of, program, ran};

/// A loopback address at which no broker listens.
const NOWHERE: &str = "127.0.0.9";

#[test]
fn a_reader_that_follows_outlasts_a_broker_that_is_away_and_says_so_once() {
    outlasts(&["--follow"]);
}

#[test]
fn a_member_of_a_group_outlasts_a_broker_that_is_away_and_says_so_once() {
    outlasts(&["--group", "g"]);
}

fn outlasts(how: &[&str]) {
    let mut site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    site.feed(&["produce", "t"], b"before\n").ok(&[]);
    let mut reader = site.spawn(&[&["consume", "t", "--timeout", "1s"], how].concat());
    let (lines, said) = (Lines::of(reader.stdout.take()), Lines::of(reader.stderr.take()));
    assert_eq!(lines.next(), "before");
    site.stop();
    let note = said.next();
    assert!(note.starts_with("note: ") && note.contains("cannot connect"), "{note}");
    // It has failed several times more.
    assert!(!said.any_within(Duration::from_secs(3)), "said more than once");
    site.go_on();
    assert_eq!(said.next(), "note: the broker answers again");
    site.feed(&["produce", "t"], b"after\n").ok(&[]);
    assert_eq!(lines.next(), "after");
    reader.kill().unwrap();
    reader.wait().unwrap();
}

#[test]
fn a_record_that_cannot_be_stored_ends_the_command_in_time_though_its_input_goes_on() {
    let site = Site::with(&[("broker.advertised_host", NOWHERE)]);
    site.ok(&["topic", "create", "t", "-p", "1"]);
    let mut producer = site.spawn(&["produce", "t", "--timeout", "3s"]);
    let mut input = producer.stdin.take().unwrap();
    input.write_all(b"typed\n").unwrap();
    let ran = end_of(producer);
    drop(input);
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    let lines: Vec<_> = ran.err.lines().collect();
    let [waits, counted, error, hint] = lines[..] else {
        panic!("{lines:#?}")
    };
    assert!(
        waits
            .starts_with("note: 1 record waits to be stored, for 3s at most (--timeout): cannot connect to 127.0.0.9:")
    );
    assert_eq!(counted, "1 record may be stored or not");
    assert!(
        error.starts_with("error: line 1: cannot store a record: deliver did not succeed within 3s: "),
        "{error}"
    );
    assert!(
        hint.contains("sends its clients to 127.0.0.9: set broker.advertised_host"),
        "{hint}"
    );
}

#[test]
fn records_that_waited_for_a_broker_are_stored_when_it_is_back_in_time() {
    let mut site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    let mut producer = site.spawn(&["produce", "t", "--timeout", "1m"]);
    let said = Lines::of(producer.stderr.take());
    let mut input = producer.stdin.take().unwrap();
    input.write_all(b"first\n").unwrap();
    assert_eq!(site.ok(&["consume", "t", "--follow", "--count", "1"]), "first\n");
    site.stop();
    input.write_all(b"second\n").unwrap();
    let note = said.next();
    assert!(
        note.starts_with("note: 1 record waits to be stored, for 1m at most"),
        "{note}"
    );
    site.go_on();
    assert_eq!(said.next(), "note: records are stored again");
    drop(input);
    assert_eq!(end_of(producer).code, Some(0));
    assert_eq!(site.ok(&["consume", "t"]), "first\nsecond\n");
}

#[test]
fn a_port_that_is_not_the_brokers_is_named_at_once() {
    let site = Site::with(&[("metrics.listen", "127.0.0.1:0")]);
    let ran = ran(program(&["topic", "list", "--server", &site.metrics_address()])
        .output()
        .unwrap());
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    assert!(
        ran.err.contains("it speaks HTTP; is it the metrics port?"),
        "{}",
        ran.err
    );
}
