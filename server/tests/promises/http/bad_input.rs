//! What is wrong is told, what is too much is refused, and who is slow holds up nobody.

use headwater_client::Record;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Caller, Events, site, until};
use crate::support::run;

const JSON: &str = "Content-Type: application/json\r\n";
const RAW: &str = "Content-Type: application/octet-stream\r\n";

#[test]
fn what_is_wrong_is_told_and_nothing_is_stored_of_it() {
    run(async {
        let site = site()
            .set("http.body_bytes_max", "64KiB")
            .set("http.request_ms_max", "2s");
        let broker = site.start();
        let caller = Caller::nobody(&site);
        site.client_with_topic("t", 1).await;
        let records = "/v1/topics/t/records";
        let deep = "[".repeat(100_000);
        let many = format!("{{\"records\":[{}{{}}]}}", "{},".repeat(10_000));
        for body in [
            "",
            "{",
            "[]",
            "1",
            "null",
            "{}",
            r#"{"records":[]}"#,
            r#"{"records":{}}"#,
            r#"{"records":[1]}"#,
            "\u{0}",
            r#"{"records":[{"value":1}]}"#,
            r#"{"records":[{"value":{"hex":"00"}}]}"#,
            r#"{"records":[{"value":{"base64":"%"}}]}"#,
            r#"{"records":[{"values":"a"}]}"#,
            r#"{"records":[{"partition":"0"}]}"#,
            r#"{"records":[{"partition":-1}]}"#,
            r#"{"records":[{"partition":99999999999}]}"#,
            r#"{"records":[{"timestamp":-5}]}"#,
            r#"{"records":[{}],"records":[{}]}"#,
            &deep[..60_000],
            &many,
        ] {
            let answer = caller.ask("POST", records, JSON, body.as_bytes()).await;
            let code = answer.problem(400);
            assert!(
                ["INVALID_REQUEST", "INVALID_RECORD", "INVALID_TIMESTAMP"].contains(&code.as_str()),
                "{body:.80}: {code}"
            );
        }
        assert_eq!(
            caller
                .ask("POST", records, JSON, &[b'"', 0xff, b'"'])
                .await
                .problem(400),
            "INVALID_REQUEST"
        );
        for kind in [
            "",
            "Content-Type: application/x-www-form-urlencoded\r\n",
            "Content-Type: multipart/form-data\r\n",
        ] {
            let answer = caller.ask("POST", records, kind, b"x").await;
            assert_eq!(answer.problem(415), "INVALID_REQUEST");
            assert!(answer.text().contains("--json"), "{}", answer.text());
        }
        // Too long, whether it says so or comes in chunks.
        assert_eq!(
            caller
                .ask("POST", records, RAW, &vec![0; (64 << 10) + 1])
                .await
                .problem(413),
            "MESSAGE_TOO_LARGE"
        );
        for path in [
            "/v1/topics/t/partitions/x/records",
            "/v1/topics/t/partitions/-1/records",
            "/v1/topics/t/partitions/99999999999/records",
            "/v1/topics/t/partitions/0/records?offset=-1",
            "/v1/topics/t/partitions/0/records?offset=9223372036854775808",
            "/v1/topics/t/partitions/0/records?max=0",
            "/v1/topics/t/partitions/0/records?max=10001",
            "/v1/topics/t/partitions/0/records?wait_ms=60001",
            "/v1/topics/t/partitions/0/records?offset=1&time=1",
            "/v1/topics/t/partitions/0/records?nonsense=1",
            "/v1/topics?limit=0",
            "/v1/topics?limit=x",
            "/v1/brokers/x",
            "/v1/acls?resource=car",
        ] {
            assert_eq!(caller.get(path).await.problem(400), "INVALID_REQUEST", "{path}");
        }

        // Names that would be something else somewhere else. They are shown as what they are, in JSON.
        for name in [
            "..%2F..%2Fetc",
            "%2e%2e",
            "a%00b",
            "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
            "a%0d%0aSet-Cookie:%20x",
            "%ff",
            "a%20b",
            &"n".repeat(250),
        ] {
            for path in [
                format!("/v1/topics/{name}"),
                format!("/v1/topics/{name}/partitions/0/records"),
            ] {
                let answer = caller.get(&path).await;
                assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.text());
                answer.problem(answer.status);
                assert!(!answer.head.contains("Set-Cookie"), "{}", answer.head);
            }
        }
        for name in ["", ".", "..", "a/b", "<script>", &"n".repeat(250)] {
            assert_eq!(
                caller
                    .send("POST", "/v1/topics", &json!({"name": name}))
                    .await
                    .problem(400),
                "INVALID_TOPIC_EXCEPTION",
                "{name:?}"
            );
        }
        // What records hold is never a page.
        let hostile = json!({"records": [{"key": "<img src=x>", "value": "</script><script>alert(1)</script>", "headers": [{"name": "<b>", "value": "\r\n\r\n"}]}]});
        caller.send("POST", records, &hostile).await.with(200);
        for accept in ["*/*", "text/html"] {
            let read = caller
                .ask(
                    "GET",
                    "/v1/topics/t/partitions/0/records",
                    &format!("Accept: {accept}\r\n"),
                    b"",
                )
                .await;
            assert_eq!(read.header("content-type"), Some("application/json"), "{accept}");
            assert_eq!(
                read.with(200)["records"][0]["headers"][0]["value"],
                json!({"text": "\r\n\r\n"})
            );
        }
        assert_eq!(caller.get("/v1/topics/t/partitions/0").await.with(200)["end_offset"], 1);

        // A body that does not come is not waited for.
        let head =
            format!("POST {records} HTTP/1.1\r\nHost: localhost\r\n{RAW}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        let mut slow = tokio::net::TcpStream::connect(caller.address).await.unwrap();
        slow.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 1 << 10];
        let length = slow.read(&mut answer).await.unwrap();
        assert!(
            answer[..length].starts_with(b"HTTP/1.1 408"),
            "{}",
            String::from_utf8_lossy(&answer[..length])
        );
        broker.stop();
    });
}

#[test]
fn what_is_too_much_is_refused_and_others_are_served() {
    run(async {
        let site = site()
            .set("http.streams_max", "8")
            .set("http.requests_in_flight_max", "16")
            .set("http.connections_max", "300")
            .set("http.body_bytes_max", "256KiB")
            .set("http.memory_bytes_max", "1MiB");
        let broker = site.start();
        let caller = Caller::nobody(&site);
        let client = site.client_with_topic("t", 1).await;
        // Nobody listens to what is stored there until memory is spent.
        caller.send("POST", "/v1/topics", &json!({"name": "other"})).await;
        let path = "/v1/topics/t/partitions/0/records";
        let mut listening = Vec::new();
        for _ in 0..8 {
            let mut events = Events::listen(&caller, path, "").await;
            events.begun().await;
            listening.push(events);
        }
        let refused = until(async || {
            let answer = caller.ask("GET", &format!("{path}?wait_ms=1"), "", b"").await;
            (answer.status == 503).then_some(answer)
        })
        .await;
        assert_eq!(
            (refused.problem(503).as_str(), refused.header("retry-after")),
            ("THROTTLING_QUOTA_EXCEEDED", Some("1"))
        );
        let stream = caller.ask("GET", path, "Accept: text/event-stream\r\n", b"").await;
        assert_eq!(stream.problem(503), "THROTTLING_QUOTA_EXCEEDED");
        // Bodies that stop half way have their memory and their places, and no more.
        let mut half = Vec::new();
        for _ in 0..10 {
            let head =
                format!("POST /v1/topics/t/records HTTP/1.1\r\nHost: localhost\r\n{RAW}Content-Length: 200000\r\n\r\n");
            let mut stream = tokio::net::TcpStream::connect(caller.address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![b'x'; 199_000]).await.unwrap();
            half.push(stream);
        }
        // Somewhere between them the memory is spent.
        until(async || {
            let answer = caller
                .ask("POST", "/v1/topics/other/records", RAW, &vec![b'y'; 200_000])
                .await;
            (answer.status == 503 && answer.text().contains("memory")).then_some(())
        })
        .await;
        // Connections that say nothing.
        let mut idle = Vec::new();
        for _ in 0..200 {
            idle.push(tokio::net::TcpStream::connect(caller.address).await.unwrap());
        }
        caller.get("/v1/topics").await.with(200);
        // Who listens gets what is stored meanwhile, by REST or not.
        let producer = client.producer().build().await.unwrap();
        let offset = producer
            .send(Record::to("t").value("for all"))
            .await
            .unwrap()
            .await
            .unwrap()
            .offset
            .unwrap();
        drop((half, idle));
        for events in &mut listening {
            let records = events.records(offset.get() as usize + 1).await;
            assert_eq!(records.last().unwrap().1["value"], json!({"text": "for all"}));
        }
        drop(listening);
        // Places come free again.
        until(async || (caller.get(&format!("{path}?wait_ms=1")).await.status == 200).then_some(())).await;
        until(async || {
            (caller
                .ask("POST", "/v1/topics/t/records", RAW, &vec![b'z'; 200_000])
                .await
                .status
                == 200)
                .then_some(())
        })
        .await;
        broker.stop();
    });
}
