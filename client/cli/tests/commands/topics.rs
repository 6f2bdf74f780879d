//! Topics and settings.

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
    assert_eq!(altered, [json!({"name": "orders", "partitions": 3, "altered": true})]);
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

    assert_eq!(site.ok(&["topic", "delete", "orders"]), "deleted topic orders\n");
    assert_eq!(site.ok(&["topic", "delete", "orders", "--if-exists"]), "");
    assert_eq!(site.json(&["topic", "list"]), [json!([])]);
    assert!(
        site.ok(&["topic", "list"]).contains("headwater topic create"),
        "an empty list says what to do"
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
