//! What is lost for good: what has to be said first, and what stays.

use serde_json::json;

use crate::support::Site;

/// A topic of one partition with ten records.
fn site_with_records() -> Site {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    site.feed(&["produce", "t"], b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n").ok(&[]);
    site
}

#[test]
fn nothing_is_deleted_without_a_terminal_unless_it_was_said() {
    let site = site_with_records();
    site.ok(&["group", "reset-offsets", "g", "--topic", "t", "--to-offset", "5"]);
    let state = || {
        let topic = site.json(&["topic", "list"])[0]
            .as_array()
            .unwrap()
            .iter()
            .find(|topic| topic["name"] == "t")
            .cloned();
        (topic, site.json(&["group", "lag", "g"]))
    };
    let before = state();
    let commands = [
        &["group", "delete-offsets", "g", "--topic", "t"][..],
        &["group", "delete", "g"],
        &["topic", "delete-records", "t", "-p", "0", "--before", "5"],
        &["topic", "delete", "t"],
    ];
    for command in commands {
        // What would answer a question on a terminal is not asked for in a pipe.
        for input in [&b""[..], b"y\n"] {
            let ran = site.feed(command, input);
            assert_eq!(ran.code, Some(2), "{command:?}: {}", ran.err);
            assert!(
                ran.err.contains("--yes") && ran.err.contains("nothing was done"),
                "{command:?}: {}",
                ran.err
            );
            assert!(ran.out.is_empty());
        }
        assert_eq!(state(), before, "{command:?}");
    }
    // The group goes first, and the topic last.
    for command in &commands[1..] {
        site.ok(&[command, &["--yes"][..]].concat());
    }
    assert_eq!(site.json(&["group", "list"]), [json!([])]);
}

#[test]
fn a_partition_begins_where_its_records_were_deleted_up_to_and_never_earlier_again() {
    let site = site_with_records();
    let delete = |before: &str| {
        let delete = ["topic", "delete-records", "t", "-p", "0", "--yes", "--before", before];
        site.json(&delete).remove(0)["partitions"].take()
    };
    assert_eq!(delete("4"), json!([{"partition": 0, "from": 0, "to": 4}]));
    assert_eq!(
        delete("2"),
        json!([{"partition": 0, "from": 4, "to": 4}]),
        "it goes nowhere"
    );
    assert_eq!(site.ok(&["consume", "t"]), "4\n5\n6\n7\n8\n9\n");
    let early = site.run(&["consume", "t", "-p", "0", "--from-offset", "3"]);
    assert!(
        early.code == Some(3) && early.err.contains("offsets 4 to 10"),
        "{early:?}"
    );
    let beyond = site.run(&["topic", "delete-records", "t", "-p", "0", "--yes", "--before", "11"]);
    assert!(
        beyond.code == Some(3) && beyond.err.contains("--before end"),
        "{beyond:?}"
    );
    let told = site.ok(&["topic", "delete-records", "t", "-p", "0", "--yes", "--before", "end"]);
    assert_eq!(told, "deleted 6 records of t, partition 0: it begins at offset 10\n");
    site.feed(&["produce", "t"], b"new\n").ok(&[]);
    assert_eq!(site.ok(&["consume", "t", "--format", "%o %v\\n"]), "10 new\n");
}

#[test]
fn groups_keep_what_they_have_committed_and_go_on_at_the_first_record_that_is_left() {
    let site = site_with_records();
    for (group, to) in [("behind", "2"), ("ahead", "8")] {
        site.ok(&["group", "reset-offsets", group, "--topic", "t", "--to-offset", to]);
    }
    site.ok(&["topic", "delete-records", "t", "-p", "0", "--before", "6", "--yes"]);
    for (group, committed, next) in [("behind", 2, "6\n"), ("ahead", 8, "8\n")] {
        let lag = &site.json(&["group", "lag", group])[0]["partitions"][0];
        assert_eq!(
            (&lag["committed"], &lag["start"]),
            (&json!(committed), &json!(6)),
            "{group}"
        );
        let read = site.run(&["consume", "t", "--group", group, "--count", "1"]);
        assert_eq!((read.code, &*read.out), (Some(0), next.as_bytes()), "{}", read.err);
    }
}

#[test]
fn several_partitions_are_shortened_at_once_or_none() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "3"]);
    for (partition, lines) in [("0", "a\nb\nc\n"), ("1", "d\n"), ("2", "e\nf\n")] {
        site.feed(&["produce", "t", "-p", partition], lines.as_bytes()).ok(&[]);
    }
    let delete = |more: &[&str]| site.run(&[&["topic", "delete-records", "t", "--yes"], more].concat());
    let beyond = delete(&["-p", "0", "-p", "1", "--before", "2"]);
    assert!(
        beyond.code == Some(3) && beyond.err.contains("partition 1"),
        "{beyond:?}"
    );
    assert_eq!(
        site.ok(&["consume", "t"]).lines().count(),
        6,
        "nothing was deleted of partition 0"
    );
    assert_eq!(delete(&["-p", "0", "-p", "2", "--before", "2"]).code, Some(0));
    let mut left: Vec<_> = site.ok(&["consume", "t"]).lines().map(str::to_owned).collect();
    left.sort_unstable();
    assert_eq!(left, ["c", "d"]);
    // What the broker keeps for itself is not for anybody to shorten.
    site.ok(&["group", "reset-offsets", "g", "--topic", "t", "--to-end"]);
    let internal = [
        "topic",
        "delete-records",
        "__consumer_offsets",
        "-p",
        "0",
        "--yes",
        "--before",
        "end",
    ];
    let refused = site.run(&internal);
    assert!(refused.code == Some(5) && refused.err.contains("itself"), "{refused:?}");
}
