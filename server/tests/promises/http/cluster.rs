//! Any broker takes any request, and the death of another costs none that was acknowledged.

use serde_json::json;

use super::{Caller, Events, site, until};
use crate::support::{Cluster, await_all_in_sync, await_all_there, run};

#[test]
fn any_broker_takes_any_request_also_when_one_has_died() {
    run(async {
        let mut cluster = Cluster::of([site().cores(1), site().cores(1), site().cores(1)]);
        let callers = cluster.sites.each_ref().map(Caller::nobody);
        let client = cluster.client().await;
        await_all_there(&client).await;
        callers[0]
            .send("POST", "/v1/topics", &json!({"name": "t", "partitions": 3}))
            .await
            .with(201);
        await_all_in_sync(&client).await;
        // Each has its records by way of each broker.
        for (number, caller) in callers.iter().enumerate() {
            for partition in 0..3 {
                let batch = json!({"records": [{"value": format!("{number}"), "partition": partition}]});
                let stored = until(async || {
                    let answer = caller.send("POST", "/v1/topics/t/records", &batch).await;
                    (answer.status == 200).then(|| answer.json())
                });
                assert_eq!(stored.await["records"][0]["offset"], number);
            }
        }
        let mut events = Vec::new();
        for partition in 0..3 {
            let path = format!("/v1/topics/t/partitions/{partition}/records");
            events.push(Events::listen(&callers[2], &path, "").await);
        }
        cluster.kill(0);
        for partition in 0..3 {
            let path = format!("/v1/topics/t/partitions/{partition}/records");
            // An answer may be that it is not known, so the request has a key, under which it is stored once.
            let key = format!("Content-Type: application/json\r\nIdempotency-Key: {partition}\r\n");
            let body = json!({"records": [{"value": "after"}]}).to_string();
            until(async || {
                let answer = callers[1].ask("POST", &path, &key, body.as_bytes()).await;
                (answer.status == 200).then_some(())
            })
            .await;
        }
        for events in &mut events {
            let records = events.records(4).await;
            let values = records
                .iter()
                .map(|(_, record)| record["value"]["text"].as_str().unwrap());
            assert_eq!(values.collect::<Vec<_>>()[..4], ["0", "1", "2", "after"]);
        }
        let shown = until(async || {
            let shown = callers[1].get("/v1/cluster").await.with(200);
            (shown["brokers_fenced"] == 1).then_some(shown)
        })
        .await;
        assert_eq!((&shown["brokers"], &shown["leaderless"]), (&json!(3), &json!(0)));
        assert!(shown["under_replicated"].as_u64() > Some(0), "{shown}");
    });
}
