//! Consumer groups.

use std::io::Write as _;

use headwater_client::{Client, CommittedOffset, Offset, PartitionIndex, TopicName};
use serde_json::json;

use crate::support::{Site, interrupt};

#[test]
fn a_group_that_is_looked_after_from_outside_is_listed_measured_moved_and_deleted() {
    let site = Site::start();
    let listed = site.run(&["group", "list"]);
    if listed.code == Some(5) && listed.err.contains("UNSUPPORTED_VERSION") {
        let reason = "skipped: a_group_that_is_looked_after_from_outside_is_listed_measured_moved_and_deleted: this broker runs no groups";
        writeln!(std::io::stderr(), "{reason}").unwrap();
        return;
    }
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    for command in [&["describe"][..], &["lag"], &["delete", "--yes"]] {
        let ran = site.run(&[&["group"], command, &["billing"]].concat());
        assert!(
            ran.code == Some(3) && ran.err.contains("headwater group list"),
            "{command:?}: {ran:?}"
        );
    }
    site.ok(&["topic", "create", "orders", "-p", "2"]);
    site.feed(&["produce", "orders", "-p", "0"], b"a\nb\nc\n").ok(&[]);
    let nothing = site.run(&["group", "reset-offsets", "billing", "--to-end"]);
    assert!(
        nothing.code == Some(3) && nothing.err.contains("--topic"),
        "{nothing:?}"
    );
    let reset = |arguments: &[&str]| {
        let arguments = [&["group", "reset-offsets", "billing", "--topic", "orders"], arguments].concat();
        site.json(&arguments).remove(0)["partitions"].take()
    };
    let moved = |partition: i32, from: Option<u64>, to: u64| json!({"topic": "orders", "partition": partition, "from": from, "to": to});
    assert_eq!(
        reset(&["--to-end", "--dry-run"]),
        json!([moved(0, None, 3), moved(1, None, 0)])
    );
    assert_eq!(
        reset(&["--to-offset", "1"]),
        json!([moved(0, None, 1), moved(1, None, 0)]),
        "the dry run did nothing"
    );
    let lag = &site.json(&["group", "lag", "billing"])[0];
    assert_eq!(
        (&lag["lag"], &lag["partitions"][0]["committed"]),
        (&json!(2), &json!(1))
    );
    assert!(
        site.ok(&["group", "lag", "billing"])
            .ends_with("2 records behind in all\n")
    );
    assert_eq!(
        reset(&["--partition", "0", "--shift-by=1"]),
        json!([moved(0, Some(1), 2)])
    );
    assert_eq!(
        reset(&["--partition", "0", "--to-beginning"]),
        json!([moved(0, Some(2), 0)])
    );
    let nothing = site.run(&["group", "delete-offsets", "billing", "--topic", "other", "--yes"]);
    assert!(
        nothing.code == Some(3) && nothing.err.contains("group lag billing"),
        "{nothing:?}"
    );
    assert_eq!(
        site.json(&[
            "group",
            "delete-offsets",
            "billing",
            "--topic",
            "orders",
            "--partition",
            "0",
            "--yes"
        ])[0],
        json!({"group": "billing", "deleted": [{"topic": "orders", "partition": 0, "committed": 0}]})
    );
    assert_eq!(
        site.ok(&["group", "delete-offsets", "billing", "--topic", "orders", "--yes"]),
        "deleted orders partition 1: was at 0\n",
        "the other one is gone already"
    );
    reset(&["--to-end"]);
    let described = &site.json(&["group", "describe", "billing"])[0];
    assert_eq!(
        (&described["state"], &described["members"]),
        (&json!("Empty"), &json!([]))
    );
    assert_eq!(
        site.json(&["group", "list", "--state", "empty"])[0][0]["group"],
        "billing"
    );
    assert_eq!(
        site.ok(&["group", "delete", "billing", "--yes"]),
        "deleted group billing\n"
    );
    assert_eq!(site.json(&["group", "list"]), [json!([])]);
}

/// Two partitions of ten records, each in one batch.
fn site_with_records() -> Site {
    let site = Site::start();
    site.ok(&["topic", "create", "jobs", "-p", "2"]);
    for partition in ["0", "1"] {
        let lines: Vec<String> = (0..10).map(|number| format!("{partition}-{number}\n")).collect();
        let lines = lines.concat();
        site.feed(&["produce", "jobs", "-p", partition], lines.as_bytes())
            .ok(&[]);
    }
    site
}

fn state(site: &Site, group: &str) -> serde_json::Value {
    site.json(&["group", "describe", group])[0]["state"].take()
}

#[test]
fn a_member_commits_what_it_has_printed_and_no_more_and_leaves_when_it_ends() {
    let site = site_with_records();
    let printed = site.ok(&["consume", "jobs", "--group", "workers", "--count", "3"]);
    assert_eq!(printed.lines().count(), 3);
    assert_eq!(
        state(&site, "workers"),
        "Empty",
        "it has left at once, not after its session"
    );
    let lag = &site.json(&["group", "lag", "workers"])[0];
    let committed = lag["partitions"].as_array().unwrap();
    let committed: u64 = committed.iter().filter_map(|one| one["committed"].as_u64()).sum();
    assert_eq!(committed, 3, "of a batch of ten: {lag}");
    let rest = site.ok(&["consume", "jobs", "--group", "workers", "--count", "17"]);
    let mut all: Vec<&str> = printed.lines().chain(rest.lines()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 20, "nothing twice, nothing missing");
}

#[test]
fn a_member_that_is_interrupted_says_so_to_its_group_and_to_scripts() {
    use std::io::{BufRead as _, BufReader};

    let site = site_with_records();
    let mut member = site.spawn(&["consume", "jobs", "--group", "workers"]);
    let mut lines = BufReader::new(member.stdout.take().unwrap()).lines();
    for _ in 0..20 {
        lines.next().unwrap().unwrap();
    }
    assert_eq!(state(&site, "workers"), "Stable");
    let listed = |wanted: &str| site.json(&["group", "list", "--state", wanted]).remove(0);
    assert_eq!(
        (listed("empty"), listed("stable")[0]["group"].take()),
        (json!([]), json!("workers"))
    );
    interrupt(member.id());
    assert_eq!(member.wait().unwrap().code(), Some(130));
    assert_eq!(state(&site, "workers"), "Empty");
    assert_eq!(site.json(&["group", "lag", "workers"])[0]["lag"], 0);
}

#[test]
fn the_lag_of_a_group_is_that_of_all_its_partitions() {
    let site = site_with_records();
    site.ok(&[
        "group",
        "reset-offsets",
        "workers",
        "--topic",
        "jobs",
        "--to-offset",
        "4",
    ]);
    assert_eq!(site.json(&["group", "lag", "workers"])[0]["lag"], 12);
    assert!(
        site.ok(&["group", "lag", "workers"])
            .ends_with("12 records behind in all\n")
    );
}

#[test]
fn a_lag_that_nobody_knows_is_unknown_and_not_nothing() {
    let site = site_with_records();
    site.ok(&["topic", "create", "idle", "-p", "1"]);
    // Its member's heart beats on the worker while commands run here.
    let mut tokio = tokio::runtime::Builder::new_multi_thread();
    let tokio = tokio.worker_threads(1).enable_all().build().unwrap();
    let member = tokio.block_on(async {
        let client = Client::connect(site.address()).await.unwrap();
        let member = client.group_consumer("workers").topics(["jobs", "idle"]);
        let mut member = member.auto_commit(None).build().await.unwrap();
        // From here on it has its partitions.
        member.recv().await.unwrap();
        member
    });
    let lag = || site.json(&["group", "lag", "workers"]).remove(0);
    let words = || site.ok(&["group", "lag", "workers"]).lines().last().unwrap().to_owned();
    let of_all = || site.ok(&["group", "lag"]).lines().map(words_of).collect::<Vec<_>>();
    let found = lag();
    assert_eq!((&found["lag"], &found["partitions_unknown"]), (&json!(null), &json!(2)));
    let lags: Vec<_> = found["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["lag"])
        .collect();
    assert_eq!(
        lags,
        [&json!(0), &json!(null), &json!(null)],
        "nothing can be behind in an empty one"
    );
    assert_eq!(
        words(),
        "0 records behind in 1 partition, unknown for 2 partitions: nothing is committed there"
    );
    assert_eq!(
        of_all()[1..],
        [["workers", "idle", "1", "0", "0"], ["workers", "jobs", "2", "-", "2"]]
    );
    let four = CommittedOffset::new(TopicName::new("jobs").unwrap(), PartitionIndex::new(1), Offset::new(4));
    tokio.block_on(member.commit_offsets(&[four])).unwrap();
    let found = lag();
    assert_eq!((&found["lag"], &found["partitions_unknown"]), (&json!(null), &json!(1)));
    assert_eq!(
        words(),
        "6 records behind in 2 partitions, unknown for 1 partition: nothing is committed there"
    );
    assert_eq!(of_all()[2], ["workers", "jobs", "2", "6", "1"]);
    let listed = &site.json(&["group", "list"])[0][0];
    assert_eq!((&listed["group"], &listed["members"]), (&json!("workers"), &json!(1)));
    assert_eq!(
        site.ok(&["group", "list"]).lines().nth(1).map(words_of).unwrap(),
        ["workers", "Stable", "1", "consumer"]
    );
    tokio.block_on(member.close()).unwrap();
    site.ok(&["group", "reset-offsets", "workers", "--topic", "jobs", "--to-end"]);
    assert_eq!(words(), "0 records behind in all");
}

fn words_of(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_lag_of_all_groups_is_shown_by_topic_and_that_of_several_as_a_list() {
    let site = site_with_records();
    let nothing = site.run(&["group", "lag"]);
    assert!(
        nothing.out.is_empty() && nothing.err.contains("there are no groups"),
        "{nothing:?}"
    );
    for (group, to) in [("first", "4"), ("second", "9")] {
        let reset = ["group", "reset-offsets", group, "--topic", "jobs", "--to-offset", to];
        site.ok(&reset);
    }
    let all = site.ok(&["group", "lag"]);
    let lines: Vec<_> = all.lines().map(words_of).collect();
    assert_eq!(lines[0], ["GROUP", "TOPIC", "PARTITIONS", "LAG", "UNKNOWN"]);
    assert_eq!(
        lines[1..],
        [["first", "jobs", "2", "12", "0"], ["second", "jobs", "2", "2", "0"]]
    );
    assert_eq!(site.ok(&["group", "lag", "--all"]), all);
    assert_eq!(site.ok(&["group", "lag", "first", "second"]), all);
    let json = site.json(&["group", "lag"]).remove(0);
    assert_eq!((&json[0]["lag"], &json[1]["lag"]), (&json!(12), &json!(2)));
    assert_eq!(site.json(&["group", "lag", "second", "first"])[0][0]["group"], "second");
}
