//! Records in and out, in every form.

use headwater_client::{NewTopic, PartitionIndex, Record, Start};
use serde_json::{Value, json};

use super::{Caller, Events, site};
use crate::support::run;

const RAW: &str = "Content-Type: application/octet-stream\r\n";

#[test]
fn records_come_out_as_they_went_in_and_other_clients_see_the_same() {
    run(async {
        let site = site();
        let broker = site.start();
        let (client, caller) = (site.client().await, Caller::nobody(&site));
        let created = caller
            .send(
                "POST",
                "/v1/topics",
                &json!({"name": "t", "partitions": 2, "config": {"retention.ms": "-1"}}),
            )
            .await;
        assert_eq!(created.with(201)["partitions"], 2);
        assert_eq!(created.header("location"), Some("/v1/topics/t"));

        let batch = json!({"records": [
            {"key": "k", "value": {"json": {"a": 1}}, "partition": 1, "timestamp": 1_700_000_000_000_u64,
                "headers": [{"name": "h", "value": "x"}, {"name": "none", "value": null}, {"name": "h", "value": {"base64": "AP8="}}]},
            {"value": {"base64": "/wD/"}, "partition": 1},
            {"key": {"text": "ä"}, "value": null, "partition": 1},
        ]});
        let stored = caller.send("POST", "/v1/topics/t/records", &batch).await.with(200);
        let offsets: Vec<_> = stored["records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|record| &record["offset"])
            .collect();
        assert_eq!(offsets, [0, 1, 2]);
        let raw = format!("{RAW}Headwater-Header-Source: curl\r\n");
        let path = "/v1/topics/t/partitions/1/records?key_base64=AAE=&timestamp=5";
        assert_eq!(
            caller.ask("POST", path, &raw, &[1, 2, 255]).await.with(200)["records"][0]["offset"],
            3
        );

        // Another client sees what was meant.
        let consumer = client
            .consumer()
            .assign("t", [PartitionIndex::new(1)])
            .start(Start::Earliest);
        let mut consumer = consumer.build().await.unwrap();
        let records = [
            consumer.recv().await,
            consumer.recv().await,
            consumer.recv().await,
            consumer.recv().await,
        ];
        let records = records.map(Result::unwrap);
        assert_eq!(records[0].value.as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(records[0].timestamp.get(), 1_700_000_000_000);
        let headers: Vec<_> = records[0]
            .headers
            .iter()
            .map(|header| (header.name.as_str(), header.value.as_deref()))
            .collect();
        assert_eq!(
            headers,
            [("h", Some(&b"x"[..])), ("none", None), ("h", Some(&[0, 255][..]))]
        );
        assert_eq!(records[1].value.as_deref(), Some(&[255, 0, 255][..]));
        assert_eq!(
            (records[2].key.as_deref(), &records[2].value),
            (Some("ä".as_bytes()), &None)
        );
        assert_eq!(
            (records[3].key.as_deref(), records[3].value.as_deref()),
            (Some(&[0, 1][..]), Some(&[1, 2, 255][..]))
        );
        assert_eq!(
            (records[3].headers[0].name.as_str(), records[3].timestamp.get()),
            ("source", 5)
        );

        // And what it stores is seen here, in each form.
        let read = caller
            .get("/v1/topics/t/partitions/1/records?format=json")
            .await
            .with(200);
        assert_eq!((&read["next_offset"], &read["high_watermark"]), (&json!(4), &json!(4)));
        assert_eq!(read["records"][0]["value"], json!({"json": {"a": 1}}));
        assert_eq!(read["records"][0]["headers"][2]["value"], json!({"base64": "AP8="}));
        assert_eq!(read["records"][1]["value"], json!({"base64": "/wD/"}));
        assert_eq!(read["records"][2]["value"], Value::Null);
        let text = caller.get("/v1/topics/t/partitions/1/records?max=1").await.with(200);
        assert_eq!(text["records"][0]["value"], json!({"text": "{\"a\":1}"}));
        assert_eq!(text["next_offset"], 1);
        let small = caller
            .get("/v1/topics/t/partitions/1/records?max_bytes=1&offset=1")
            .await
            .with(200);
        assert_eq!(
            (small["records"].as_array().unwrap().len(), &small["next_offset"]),
            (1, &json!(2))
        );
        let by_time = caller
            .get("/v1/topics/t/partitions/1/records?time=1700000000001")
            .await
            .with(200);
        assert_eq!(by_time["records"][0]["offset"], 1);
        let one = caller
            .ask(
                "GET",
                "/v1/topics/t/partitions/1/records/3",
                "Accept: application/octet-stream\r\n",
                b"",
            )
            .await;
        assert_eq!(
            (one.body.as_slice(), one.header("headwater-key-base64")),
            (&[1, 2, 255][..], Some("AAE="))
        );
        assert_eq!(
            caller.get("/v1/topics/t/partitions/1/records/0").await.with(200)["key"],
            json!({"text": "k"})
        );

        // At the end nothing comes, and behind it an error; who waits is told at once.
        assert_eq!(
            caller.get("/v1/topics/t/partitions/1/records?offset=4").await.with(200)["records"],
            json!([])
        );
        assert_eq!(
            caller
                .get("/v1/topics/t/partitions/1/records?offset=5")
                .await
                .problem(416),
            "OFFSET_OUT_OF_RANGE"
        );
        assert_eq!(
            caller.get("/v1/topics/t/partitions/1/records/4").await.problem(404),
            "OFFSET_OUT_OF_RANGE"
        );
        assert_eq!(
            caller.get("/v1/topics/t/partitions/2/records").await.problem(404),
            "UNKNOWN_TOPIC_OR_PARTITION"
        );
        assert_eq!(
            caller.get("/v1/topics/no/partitions/0/records").await.problem(404),
            "UNKNOWN_TOPIC_OR_PARTITION"
        );
        let waiting = caller.clone();
        let waiting = tokio::spawn(async move { waiting.get("/v1/topics/t/partitions/0/records?wait_ms=60000").await });
        client
            .producer()
            .build()
            .await
            .unwrap()
            .send(Record::to("t").value("w").partition(PartitionIndex::new(0)))
            .await
            .unwrap()
            .await
            .unwrap();
        assert_eq!(
            waiting.await.unwrap().with(200)["records"][0]["value"],
            json!({"text": "w"})
        );
        assert_eq!(
            caller
                .get("/v1/topics/t/partitions/0/records?offset=latest&wait_ms=10")
                .await
                .with(200)["records"],
            json!([])
        );

        // What cannot be stored says why, record by record.
        let large = json!({"records": [{"value": "x".repeat(2 << 20)}, {"value": "small", "partition": 0}]});
        let mixed = caller.send("POST", "/v1/topics/t/records", &large).await.with(207);
        assert_eq!(mixed["records"][0]["error"]["code"], "MESSAGE_TOO_LARGE");
        assert_eq!(mixed["records"][1]["partition"], 0);
        broker.stop();
    });
}

#[test]
fn a_request_that_is_repeated_under_its_key_is_done_once() {
    run(async {
        let site = site();
        let broker = site.start();
        let caller = Caller::nobody(&site);
        site.client_with_topic("t", 1).await;
        let path = "/v1/topics/t/records";
        let keyed = |key: &str| format!("Idempotency-Key: {key}\r\nContent-Type: application/json\r\n");
        let body = |value: &str| json!({"records": [{"value": value}]}).to_string();
        let first = caller.ask("POST", path, &keyed("a"), body("1").as_bytes()).await;
        let second = caller.ask("POST", path, &keyed("a"), body("1").as_bytes()).await;
        assert_eq!(first.with(200), second.with(200));
        assert_eq!(
            (
                first.header("idempotent-replayed"),
                second.header("idempotent-replayed")
            ),
            (None, Some("true"))
        );
        assert_eq!(
            caller
                .ask("POST", path, &keyed("a"), body("2").as_bytes())
                .await
                .problem(422),
            "INVALID_REQUEST"
        );
        assert_eq!(
            caller
                .ask("POST", path, &keyed("b"), body("2").as_bytes())
                .await
                .with(200)["records"][0]["offset"],
            1
        );
        let many = (0..20).map(|_| {
            let (caller, keyed, body) = (caller.clone(), keyed("c"), body("3"));
            tokio::spawn(async move { caller.ask("POST", path, &keyed, body.as_bytes()).await.with(200) })
        });
        for answer in futures::future::join_all(many).await {
            assert_eq!(answer.unwrap()["records"][0]["offset"], 2);
        }
        assert_eq!(caller.get("/v1/topics/t/partitions/0").await.with(200)["end_offset"], 3);
        broker.stop();
    });
}

#[test]
fn a_stream_has_every_record_once_and_goes_on_where_it_was() {
    run(async {
        let site = site();
        let broker = site.start();
        let caller = Caller::nobody(&site);
        let client = site.client_with_topic("t", 1).await;
        let producer = client.producer().build().await.unwrap();
        let path = "/v1/topics/t/partitions/0/records";
        let mut events = Events::listen(&caller, &format!("{path}?format=json"), "").await;
        for number in 0..500 {
            let value = format!("{{\"number\":\r\n{number}}}");
            drop(producer.send(Record::to("t").value(&value)).await.unwrap());
        }
        let records = events.records(500).await;
        for (number, (id, record)) in records.iter().enumerate() {
            assert_eq!(
                (*id, &record["value"]["json"]["number"]),
                (number as u64, &json!(number))
            );
        }
        drop(events);
        let mut events = Events::listen(&caller, path, "Last-Event-ID: 497\r\n").await;
        let ids: Vec<u64> = events.records(2).await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [498, 499]);
        // A stream ends with the broker, which does not wait for it.
        broker.stop();
        assert_eq!(events.records(100).await.len(), 2);
    });
}

#[test]
fn what_scripts_use_of_confluents_rest_works() {
    run(async {
        let site = site();
        let broker = site.start();
        let (caller, client) = (Caller::nobody(&site), site.client().await);
        client
            .admin()
            .create_topic(NewTopic::new("t").partitions(1))
            .await
            .unwrap();
        let clusters = caller.get("/kafka/v3/clusters").await.with(200);
        let cluster = clusters["data"][0]["cluster_id"].as_str().unwrap().to_owned();
        let topics = caller
            .get(&format!("/kafka/v3/clusters/{cluster}/topics"))
            .await
            .with(200);
        assert_eq!(
            (&topics["data"][0]["topic_name"], &topics["data"][0]["partitions_count"]),
            (&json!("t"), &json!(1))
        );
        let path = format!("/kafka/v3/clusters/{cluster}/topics/t/records");
        let body = r#"{"key": {"type": "BINARY", "data": "AP8="}, "value": {"type": "JSON", "data": {"a": 1}}}
            {"partition_id": 0, "headers": [{"name": "h", "value": "eA=="}], "value": {"type": "STRING", "data": "s"}}"#;
        let answer = caller
            .ask("POST", &path, "Content-Type: application/json\r\n", body.as_bytes())
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let lines: Vec<Value> = answer
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!((&lines[0]["error_code"], &lines[1]["offset"]), (&json!(200), &json!(1)));
        assert_eq!(lines[0]["key"], json!({"type": "BINARY", "size": 2}));
        let read = caller.get("/v1/topics/t/partitions/0/records").await.with(200);
        assert_eq!(read["records"][0]["value"], json!({"text": "{\"a\": 1}"}));
        assert_eq!(
            read["records"][1]["headers"],
            json!([{"name": "h", "value": {"text": "x"}}])
        );
        assert_eq!(
            caller.get("/kafka/v3/clusters/other/topics").await.problem(404),
            "RESOURCE_NOT_FOUND"
        );
        broker.stop();
    });
}
