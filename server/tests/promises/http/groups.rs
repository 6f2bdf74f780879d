//! Members of groups that REST keeps, groups from outside, and topics and brokers.

use std::collections::BTreeSet;

use headwater_client::{PartitionIndex, Record};
use serde_json::{Value, json};

use super::{Caller, site, until};
use crate::support::run;

async fn join(caller: &Caller, group: &str) -> String {
    let joined = caller
        .send(
            "POST",
            &format!("/v1/groups/{group}/members"),
            &json!({"topics": ["t"]}),
        )
        .await
        .with(201);
    format!("/v1/groups/{group}/members/{}", joined["member"].as_str().unwrap())
}

#[test]
fn members_share_a_topic_go_on_where_they_committed_and_leave_when_they_are_forgotten() {
    run(async {
        let site = site().set("http.consumer_idle_ms", "2s").set("http.consumers_max", "2");
        let broker = site.start();
        let caller = Caller::nobody(&site);
        let client = site.client_with_topic("t", 2).await;
        let producer = client.producer().build().await.unwrap();
        for number in 0..20 {
            let (value, partition) = (number.to_string(), PartitionIndex::new(number % 2));
            producer
                .send(Record::to("t").value(&value).partition(partition))
                .await
                .unwrap()
                .await
                .unwrap();
        }
        let first = join(&caller, "g").await;
        let polled = caller
            .get(&format!("{first}/records?wait_ms=60000&max=4"))
            .await
            .with(200);
        let records = polled["records"].as_array().unwrap().clone();
        assert_eq!(records.len(), 4);
        assert_eq!(
            caller.send("POST", &format!("{first}/commit"), &json!({})).await.status,
            204
        );
        let offsets = caller.get("/v1/groups/g/offsets").await.with(200);
        let committed: u64 = offsets
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|at| at["committed"].as_u64())
            .sum();
        assert_eq!(committed, 4, "{offsets}");

        // A second one gets a share of it, a third has no place, and what is another's is not there.
        let second = join(&caller, "g").await;
        let third = caller
            .send("POST", "/v1/groups/g/members", &json!({"topics": ["t"]}))
            .await;
        assert_eq!(third.problem(503), "THROTTLING_QUOTA_EXCEEDED");
        let elsewhere = second.replace("/g/", "/other/");
        assert_eq!(caller.get(&elsewhere).await.problem(404), "UNKNOWN_MEMBER_ID");
        until(async || {
            // Both are asked, or they would be taken for gone.
            caller.get(&format!("{first}/records?max=1")).await;
            let assigned = caller.get(&second).await.with(200);
            (assigned["partitions"].as_array().unwrap().len() == 1).then_some(())
        })
        .await;
        until(async || {
            caller.get(&format!("{first}/records?max=1")).await;
            caller.get(&second).await;
            let described = caller.get("/v1/groups/g").await.with(200);
            (described["state"] == "Stable" && described["members"].as_array().unwrap().len() == 2).then_some(())
        })
        .await;

        // One leaves, the other is forgotten; then the group is empty and may be set from outside.
        assert_eq!(caller.delete(&second).await.status, 204);
        assert_eq!(caller.get(&second).await.problem(404), "UNKNOWN_MEMBER_ID");
        let reset = json!({"topic": "t", "to": "earliest"});
        assert!(matches!(
            caller.send("PUT", "/v1/groups/g/offsets", &reset).await.status,
            404 | 409
        ));
        until(async || {
            let groups = caller.get("/v1/groups").await.with(200);
            (groups["items"][0]["state"] == "Empty").then_some(())
        })
        .await;
        assert_eq!(caller.get(&first).await.problem(404), "UNKNOWN_MEMBER_ID");
        let preview = json!({"topic": "t", "to": "latest", "validate_only": true});
        let preview = caller.send("PUT", "/v1/groups/g/offsets", &preview).await.with(200);
        assert_eq!(preview[0], json!({"topic": "t", "partition": 0, "offset": 10}));
        caller.send("PUT", "/v1/groups/g/offsets", &reset).await.with(200);

        // A new member has it all again, and commits by itself what it says.
        let again = join(&caller, "g").await;
        let mut seen = BTreeSet::new();
        while seen.len() < 20 {
            let polled = caller.get(&format!("{again}/records?wait_ms=60000")).await.with(200);
            let values = polled["records"].as_array().unwrap().iter();
            seen.extend(values.map(|record| record["value"]["text"].as_str().unwrap().to_owned()));
        }
        let commit = json!({"offsets": [{"topic": "t", "partition": 0, "offset": 7, "metadata": "seven"}]});
        assert_eq!(
            caller.send("POST", &format!("{again}/commit"), &commit).await.status,
            204
        );
        let committed = client.admin().groups().committed_offsets("g").await.unwrap();
        assert!(
            committed
                .iter()
                .any(|at| at.metadata == "seven" && at.offset.get() == 7)
        );
        // The broker lets it leave: nobody waits for it afterwards.
        broker.stop();
        let broker = site.start();
        assert_eq!(caller.get("/v1/groups/g").await.with(200)["members"], json!([]));
        assert_eq!(caller.delete("/v1/groups/g").await.status, 204);
        assert_eq!(caller.get("/v1/groups/g").await.problem(404), "GROUP_ID_NOT_FOUND");
        broker.stop();
    });
}

#[test]
fn topics_partitions_and_brokers_are_shown_and_changed() {
    run(async {
        let site = site();
        let broker = site.start();
        let caller = Caller::nobody(&site);
        for number in 0..5 {
            let new =
                json!({"name": format!("t{number}"), "config": {"retention.ms": "-1", "segment.bytes": "1048576"}});
            caller.send("POST", "/v1/topics", &new).await.with(201);
        }
        let dry = caller
            .send("POST", "/v1/topics", &json!({"name": "dry", "validate_only": true}))
            .await;
        assert_eq!((dry.status, dry.header("location")), (200, None));
        assert_eq!(
            caller
                .send("POST", "/v1/topics", &json!({"name": "t0"}))
                .await
                .problem(409),
            "TOPIC_ALREADY_EXISTS"
        );
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let page = caller
                .get(&format!("/v1/topics?limit=2&prefix=t{after}"))
                .await
                .with(200);
            names.extend(
                page["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|topic| topic["name"].as_str().unwrap().to_owned()),
            );
            match &page["next"] {
                Value::Null => break,
                next => after = format!("&after={}", next.as_str().unwrap()),
            }
        }
        assert_eq!(names, ["t0", "t1", "t2", "t3", "t4"]);

        let change = json!({"partitions": 3, "set": {"max.message.bytes": "2000"}, "reset": ["segment.bytes"]});
        assert_eq!(caller.send("PATCH", "/v1/topics/t0", &change).await.status, 204);
        let wrong = caller
            .send("PATCH", "/v1/topics/t0", &json!({"set": {"no.such": "1"}}))
            .await;
        assert_eq!(wrong.problem(400), "INVALID_CONFIG");
        assert_eq!(
            caller
                .send("PATCH", "/v1/topics/t0", &json!({"partitions": 1}))
                .await
                .problem(400),
            "INVALID_PARTITIONS"
        );
        let config = caller.get("/v1/topics/t0/config").await.with(200);
        let of = |name: &str| {
            config
                .as_array()
                .unwrap()
                .iter()
                .find(|own| own["name"] == name)
                .unwrap()
                .clone()
        };
        assert_eq!(
            (&of("max.message.bytes")["value"], &of("segment.bytes")["own"]),
            (&json!("2000"), &json!(false))
        );
        assert_eq!(
            caller
                .get("/v1/topics/t0/partitions")
                .await
                .with(200)
                .as_array()
                .unwrap()
                .len(),
            3
        );

        let batch = json!({"records": [{"value": "a", "timestamp": 10}, {"value": "b", "timestamp": 20}, {"value": "c", "timestamp": 30}]});
        caller
            .send("POST", "/v1/topics/t0/partitions/2/records", &batch)
            .await
            .with(200);
        let offsets = caller.get("/v1/topics/t0/partitions/2/offsets?time=15").await.with(200);
        assert_eq!(offsets, json!({"earliest": 0, "latest": 3, "at": 1}));
        let start = caller
            .delete("/v1/topics/t0/partitions/2/records?before=2")
            .await
            .with(200);
        assert_eq!(start["start_offset"], 2);
        assert_eq!(
            caller
                .get("/v1/topics/t0/partitions/2/records?offset=1")
                .await
                .problem(416),
            "OFFSET_OUT_OF_RANGE"
        );
        assert_eq!(
            caller.get("/v1/topics/t0/partitions/2/records/1").await.problem(404),
            "OFFSET_OUT_OF_RANGE"
        );

        let cluster = caller.get("/v1/cluster").await.with(200);
        assert_eq!((&cluster["brokers"], &cluster["leaderless"]), (&json!(1), &json!(0)));
        assert_eq!(caller.get("/v1/brokers").await.with(200)[0]["id"], 0);
        assert_eq!(
            caller.get("/v1/brokers/7").await.problem(404),
            "BROKER_ID_NOT_REGISTERED"
        );
        let own = caller.get("/v1/broker").await.with(200);
        assert_eq!(own["status"]["cores"], 2);
        assert!(
            own["config"]
                .as_array()
                .unwrap()
                .iter()
                .any(|setting| setting["name"] == "http.listen")
        );
        assert_eq!(caller.delete("/v1/topics/t1").await.status, 204);
        assert_eq!(
            caller.get("/v1/topics/t1").await.problem(404),
            "UNKNOWN_TOPIC_OR_PARTITION"
        );
        broker.stop();
    });
}
