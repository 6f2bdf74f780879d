//! Topics and settings.

mod deletions;

use serde_json::json;

use crate::support::Site;

#[test]
fn a_topic_is_created_altered_described_and_deleted() {
    let site = Site::start();
    let created = site.ok(&[
        "topic",
        "create",
        "orders",
        "--partitions",
        "2",
        "--config",
        "retention.ms=5000",
    ]);
    assert_eq!(created, "created topic orders with 2 partitions\n");
    let again = ["topic", "create", "orders", "--if-not-exists"];
    assert_eq!(site.ok(&again), "topic orders exists already, with 2 partitions\n");
    let dry = site.json(&["topic", "create", "other", "--dry-run"]);
    assert_eq!(dry, [json!({"name": "other", "partitions": 1, "created": false})]);
    assert_eq!(site.ok(&["topic", "list", "--quiet"]), "orders\n");
    let listed = site.ok(&["topic", "list"]);
    assert!(listed.starts_with("TOPIC") && listed.contains("orders"), "{listed}");

    let altered = site.json(&[
        "topic",
        "alter",
        "orders",
        "--partitions",
        "3",
        "--set",
        "segment.ms=60000",
        "--reset",
        "retention.ms",
    ]);
    let change = |name: &str, from: &str, to: &str| json!({"name": name, "from": from, "to": to});
    let changes = [
        change("retention.ms", "5000", "604800000"),
        change("segment.ms", "604800000", "60000"),
        change("partitions", "2", "3"),
    ];
    assert_eq!(
        altered,
        [json!({"name": "orders", "partitions": 3, "altered": true, "changes": changes})]
    );
    site.ok(&["topic", "alter", "orders", "--partitions", "9", "--dry-run"]);
    let described = &site.json(&["topic", "describe", "orders"])[0];
    assert_eq!(described["partitions"].as_array().unwrap().len(), 3);
    assert_eq!(
        (
            &described["configs"]["segment.ms"],
            &described["configs"]["retention.ms"]
        ),
        (&json!("60000"), &json!("604800000"))
    );
    assert_eq!(
        site.json(&["config", "topic", "orders"])[0]["settings"],
        described["configs"]
    );
    let text = site.ok(&["topic", "describe", "orders"]);
    assert!(text.contains("segment.ms") && text.contains("online"), "{text}");
    site.feed(&["produce", "orders", "-p", "2"], b"a\nb\n").ok(&[]);
    let partition = &site.json(&["partition", "describe", "orders", "2"])[0];
    assert_eq!(
        (&partition["high_watermark"], &partition["error"]),
        (&json!(2), &json!(null))
    );
    assert!(
        site.ok(&["partition", "describe", "orders", "2"])
            .contains("high watermark")
    );

    let delete = ["topic", "delete", "orders", "--yes"];
    assert_eq!(site.ok(&delete), "deleted topic orders\n");
    assert_eq!(site.ok(&[&delete[..], &["--if-exists"]].concat()), "");
    assert_eq!(site.json(&["topic", "list"]), [json!([])]);
    let empty = site.run(&["topic", "list"]);
    assert!(
        empty.code == Some(0) && empty.out.is_empty() && empty.err.contains("headwater topic create"),
        "an empty list says what to do: {empty:?}"
    );
}

#[test]
fn a_broker_tells_its_settings_all_or_those_that_are_looked_for() {
    let site = Site::start();
    let all = &site.json(&["config"])[0];
    assert_eq!(all["settings"]["log.segment_size_bytes"], "16MiB");
    assert!(all["settings"].as_object().unwrap().len() > 30);
    let some = &site.json(&["config", "retention"])[0];
    assert!(
        some["settings"]
            .as_object()
            .unwrap()
            .keys()
            .all(|key| key.contains("retention"))
    );
    assert_eq!(site.run(&["config", "no-such"]).code, Some(3));
}

#[test]
fn one_word_gives_a_setting_where_a_topic_is_created_and_where_it_is_altered() {
    let site = Site::start();
    let retention = |name: &str| site.json(&["topic", "describe", name])[0]["configs"]["retention.ms"].take();
    for (number, word) in ["--set", "--config", "-c"].into_iter().enumerate() {
        let name = number.to_string();
        site.ok(&["topic", "create", &name, word, "retention.ms=1h"]);
        assert_eq!(retention(&name), "3600000");
        site.ok(&["topic", "alter", &name, word, "retention.ms=2h"]);
        assert_eq!(retention(&name), "7200000");
    }
}

/// The line of a table that begins with this word, as words.
fn line<'a>(table: &'a str, first: &str) -> Vec<&'a str> {
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|line| line.first() == Some(&first));
    line.unwrap_or_else(|| panic!("no {first}: {table}"))
}

#[test]
fn a_setting_is_shown_as_people_write_it_with_whose_it_is_and_exactly_in_json() {
    let site = Site::start();
    site.ok(&[
        "topic",
        "create",
        "t",
        "--set",
        "retention.bytes=64MiB",
        "--set",
        "segment.ms=90s",
    ]);
    for command in [["topic", "describe", "t"], ["config", "topic", "t"]] {
        let table = site.ok(&command);
        for (setting, value, by) in [
            ("retention.bytes", "64MiB", "topic"),
            ("segment.ms", "90s", "topic"),
            ("retention.ms", "7d", "default"),
            ("max.compaction.lag.ms", "unlimited", "default"),
            ("cleanup.policy", "delete", "default"),
        ] {
            assert_eq!(line(&table, setting), [setting, value, by], "{command:?}");
        }
    }
    let described = &site.json(&["topic", "describe", "t"])[0];
    assert_eq!(described["own_configs"], json!(["retention.bytes", "segment.ms"]));
    let exact = &described["configs"];
    assert_eq!(
        (&exact["retention.bytes"], &exact["max.compaction.lag.ms"]),
        (&json!("67108864"), &json!("9223372036854775807"))
    );
    assert_eq!(
        site.json(&["config", "topic", "t"])[0]["own_settings"],
        described["own_configs"]
    );
    // What is shown may be written.
    site.ok(&["topic", "alter", "t", "--set", "retention.ms=unlimited"]);
    assert_eq!(
        line(&site.ok(&["topic", "describe", "t"]), "retention.ms")[1..],
        ["unlimited", "topic"]
    );
}

#[test]
fn an_alteration_says_what_was_and_what_is() {
    let site = Site::start();
    site.ok(&["topic", "create", "a", "-p", "1"]);
    site.ok(&["topic", "create", "b", "-p", "1", "--set", "retention.ms=1d"]);
    let alter = ["topic", "alter", "a", "b", "--set", "retention.ms=1d", "-p", "2"];
    let dry = [&alter[..], &["--dry-run"]].concat();
    let could = "topic a could be altered:\n  retention.ms: 7d -> 1d\n  partitions: 1 -> 2\n\
                 topic b could be altered:\n  partitions: 1 -> 2\n";
    assert_eq!(site.ok(&dry), could);
    let done = could.replace("could be", "is");
    assert_eq!(site.ok(&alter), done, "the dry run did nothing");
    let nothing = "topic a is so already: nothing changes\ntopic b is so already: nothing changes\n";
    assert_eq!(site.ok(&alter), nothing);
    assert_eq!(
        site.ok(&["topic", "alter", "a", "--reset", "retention.ms"]),
        "topic a is altered:\n  retention.ms: 1d -> 7d\n"
    );
    // What was done before a failure is said.
    site.ok(&["topic", "alter", "b", "-p", "4"]);
    let ran = site.run(&["topic", "alter", "a", "b", "-p", "3"]);
    assert_eq!(ran.code, Some(5), "{}", ran.err);
    assert_eq!(
        String::from_utf8(ran.out).unwrap(),
        "topic a is altered:\n  partitions: 2 -> 3\n"
    );
}

#[test]
fn several_topics_are_looked_after_at_once_and_nothing_is_done_if_one_is_not_there() {
    let site = Site::start();
    for name in ["a", "b"] {
        site.ok(&["topic", "create", name, "-p", "1"]);
    }
    for command in [
        &["describe"][..],
        &["delete", "--yes"],
        &["alter", "--set", "retention.ms=1h"],
    ] {
        let (verb, options) = command.split_first().unwrap();
        let ran = site.run(&[&["topic", verb, "a", "zebra"], options].concat());
        assert!(
            ran.code == Some(3) && ran.out.is_empty() && ran.err.contains("zebra"),
            "{verb}: {ran:?}"
        );
    }
    assert_eq!(site.ok(&["topic", "list", "-q"]), "a\nb\n");
    let described = &site.json(&["topic", "describe", "a", "b"])[0];
    let names: Vec<_> = described
        .as_array()
        .unwrap()
        .iter()
        .map(|topic| &topic["name"])
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(described[0]["configs"]["retention.ms"], "604800000");
    let table = site.ok(&["topic", "describe", "a", "b"]);
    assert_eq!(table.matches("\nSETTING").count(), 2);
    site.ok(&["topic", "alter", "a", "b", "--set", "retention.ms=1h"]);
    let described = &site.json(&["topic", "describe", "a", "b"])[0];
    assert_eq!(described[1]["configs"]["retention.ms"], "3600000");
    let delete = ["topic", "delete", "a", "zebra", "b", "--yes", "--if-exists"];
    assert_eq!(site.ok(&delete), "deleted topic a\ndeleted topic b\n");
}

#[test]
fn the_list_of_topics_tells_records_and_bytes_on_disk() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "2"]);
    let before = site.json(&["topic", "list"])[0][0].take();
    assert_eq!((&before["records"], &before["size_bytes"]), (&json!(0), &json!(0)));
    for partition in ["0", "1"] {
        let value = vec![b'x'; 300_000];
        site.feed(&["produce", "t", "-p", partition, "--input", "raw"], &value)
            .ok(&[]);
    }
    let after = site.json(&["topic", "list"])[0][0].take();
    assert_eq!(
        (&after["records"], &after["partitions_offline"]),
        (&json!(2), &json!(0))
    );
    let bytes = after["size_bytes"].as_u64().unwrap();
    assert!((600_000..610_000).contains(&bytes), "{bytes}");
    let listed = site.ok(&["topic", "list"]);
    assert_eq!(line(&listed, "t"), ["t", "2", "2", "586.1", "KiB", "online"]);
}

#[test]
fn commands_go_by_the_names_that_people_try() {
    let site = Site::start();
    site.ok(&["topics", "create", "t", "-p", "1"]);
    let reset = ["groups", "reset-offsets", "g", "--topic", "t", "--to-end"];
    site.ok(&reset);
    for (alias, name) in [
        (&["topic", "ls"][..], &["topic", "list"][..]),
        (&["topics", "list", "-q"], &["topic", "list", "-q"]),
        (&["topic", "show", "t"], &["topic", "describe", "t"]),
        (&["group", "ls"], &["group", "list"]),
        (&["groups", "ls"], &["group", "list"]),
        (&["group", "show", "g"], &["group", "describe", "g"]),
        (&["partition", "show", "t", "0"], &["partition", "describe", "t", "0"]),
    ] {
        assert_eq!(site.ok(alias), site.ok(name), "{alias:?}");
    }
    assert_eq!(site.ok(&["group", "rm", "g", "--yes"]), "deleted group g\n");
    assert_eq!(site.ok(&["topic", "rm", "t", "--yes"]), "deleted topic t\n");
}
