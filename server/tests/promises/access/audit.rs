//! What is decided is written down.

use std::{collections::BTreeMap, time::Duration};

use headwater_client::{AclOperation, AclResource, PartitionIndex, Record, Start};

use super::{ADMIN, EXACT, Guarded, MARKER, NOBODY, THERE, client, password_of, site};
use crate::support::{pause, run};

const TOPIC: &str = "__audit";

#[test]
fn who_was_allowed_or_denied_what_is_in_the_log_and_in_a_topic_with_how_often_and_nobody_else_writes_it() {
    run(async {
        let site = site().with_metrics();
        let site = site.set("security.audit", "all").set("security.audit_topic", "true");
        let guarded = Guarded::start(site.set("security.audit_interval_ms", "100ms")).await;
        guarded
            .allow(&[(AclResource::Topic, AclOperation::Describe)], THERE)
            .await;
        for (user, is_allowed) in [(NOBODY, false), (EXACT, true)] {
            let admin = client(&guarded.site, user, &password_of(user)).await.unwrap().admin();
            for _ in 0..50 {
                assert_eq!(admin.describe_topic(THERE).await.is_ok(), is_allowed, "{user}");
            }
        }
        while !guarded
            .admin
            .topics()
            .await
            .unwrap()
            .iter()
            .any(|topic| topic.name.as_str() == TOPIC)
        {
            pause().await;
        }
        let reader = client(&guarded.site, ADMIN, &password_of(ADMIN)).await.unwrap();
        let consumer = reader.consumer().assign(TOPIC, [PartitionIndex::new(0)]);
        let mut consumer = consumer.start(Start::Earliest).build().await.unwrap();
        let mut counts: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        let wanted = [(NOBODY, "denied"), (EXACT, "allowed")];
        let key = |user: &str, decision: &str| (format!("User:{user}"), decision.to_owned());
        let has_all = |counts: &BTreeMap<(String, String), (u64, u64)>| {
            let mut wanted = wanted.iter();
            wanted.all(|(user, decision)| counts.get(&key(user, decision)).is_some_and(|(_, sum)| *sum >= 50))
        };
        while !has_all(&counts) {
            let Some(record) = consumer.recv_timeout(Duration::from_mins(1)).await.unwrap() else {
                panic!("only {counts:?}");
            };
            let text = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            assert!(!text.contains(MARKER), "{text}");
            let line: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(line["host"].as_str().unwrap().starts_with("127.") && line["time"].as_i64().unwrap() > 0);
            if (&line["operation"], &line["name"]) == (&"describe".into(), &THERE.into()) {
                let decided = (
                    line["principal"].as_str().unwrap().to_owned(),
                    line["decision"].as_str().unwrap().to_owned(),
                );
                let (lines, sum) = counts.entry(decided).or_default();
                *lines += 1;
                *sum += line["count"].as_u64().unwrap();
            }
        }
        for (user, decision) in wanted {
            let (lines, sum) = counts[&key(user, decision)];
            assert!(sum == 50 && lines < 50, "{user}: {sum} in {lines} lines");
        }
        let is_said = |user: &str, decision: &str| {
            let lines = guarded.broker.lines();
            lines.iter().any(|line| {
                line.contains("\"target\":\"audit\"")
                    && line.contains(user)
                    && line.contains(&format!("\"{decision}\""))
            })
        };
        assert!(
            is_said("User:nobody", "denied") && is_said("User:exact", "allowed") && is_said("User:admin", "allowed")
        );
        // Nobody can forge it, or take it away.
        let producer = reader.producer().build().await.unwrap();
        let forged = match producer.send(Record::to(TOPIC).value("{}")).await {
            Ok(sent) => sent.await.is_ok(),
            Err(_) => false,
        };
        assert!(!forged && guarded.admin.delete_topic(TOPIC).await.is_err());
        let metrics = guarded.site.scrape().await;
        assert_eq!(metrics["headwater_audit_dropped_total{core=\"0\"}"], 0);
        assert!(metrics["headwater_audit_records_total{core=\"0\"}"] >= 4);
        guarded.stop();
    });
}
