//! Consumer groups.

use std::io::Write as _;

use serde_json::json;

use crate::support::Site;

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
    for command in ["describe", "lag", "delete"] {
        let ran = site.run(&["group", command, "billing"]);
        assert!(
            ran.code == Some(3) && ran.err.contains("headwater group list"),
            "{command}: {ran:?}"
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
    let described = &site.json(&["group", "describe", "billing"])[0];
    assert_eq!(
        (&described["state"], &described["members"]),
        (&json!("Empty"), &json!([]))
    );
    assert_eq!(
        site.json(&["group", "list", "--state", "empty"])[0][0]["group"],
        "billing"
    );
    assert_eq!(site.ok(&["group", "delete", "billing"]), "deleted group billing\n");
    assert_eq!(site.json(&["group", "list"]), [json!([])]);
}
