//! Whoever may not do something elsewhere may not do it here, and is told nothing that is not told elsewhere.

use std::fs;

use serde_json::json;

use super::{Caller, Events, site};
use crate::support::run;

const SECRET: &str = "hush-4711-admin";
const PASSWORD: &str = "hush-4711-alice";

#[test]
fn each_caller_may_do_what_its_user_may_and_no_password_is_told() {
    run(async {
        let site = site();
        let secret = site.directory().with_file_name("admin-secret");
        fs::write(&secret, SECRET).unwrap();
        let site = site
            .set("security.sasl", "SCRAM-SHA-256")
            .set("security.authorizer", "true")
            .set("security.failure_wait_ms", "0")
            .set("http.request_ms_max", "5s")
            .set("security.admin_password", &format!("file:{}", secret.display()));
        let broker = site.start();
        let (nobody, admin) = (Caller::nobody(&site), Caller::user(&site, "admin", SECRET));
        let mut told = Vec::new();

        // Nobody is let in, however it asks, and what can be read without is no secret.
        for path in [
            "/v1/topics",
            "/v1/topics/orders",
            "/v1/broker",
            "/v1/users",
            "/kafka/v3/clusters",
            "/v1/groups/g/members/x",
        ] {
            for caller in [
                &nobody,
                &Caller::user(&site, "admin", "wrong"),
                &Caller::user(&site, "who", SECRET),
            ] {
                let answer = caller.get(path).await;
                assert_eq!(answer.problem(401), "SASL_AUTHENTICATION_FAILED", "{path}");
                assert!(answer.header("www-authenticate").unwrap().starts_with("Basic"));
                told.push(answer);
            }
        }
        let bearer = nobody
            .ask("GET", "/v1/topics", "Authorization: Bearer hush-4711\r\n", b"")
            .await;
        assert_eq!(bearer.problem(401), "UNSUPPORTED_SASL_MECHANISM");
        told.push(bearer);
        // Who is not let in has its body left unread, and is not told whether it made sense.
        let body = nobody
            .send("POST", "/v1/topics/orders/records", &json!({"nonsense": 1}))
            .await;
        assert_eq!(body.problem(401), "SASL_AUTHENTICATION_FAILED");

        admin
            .send("POST", "/v1/topics", &json!({"name": "orders"}))
            .await
            .with(201);
        assert_eq!(
            admin
                .send("PUT", "/v1/users/alice", &json!({"password": PASSWORD}))
                .await
                .status,
            204
        );
        let alice = Caller::user(&site, "alice", PASSWORD);
        assert_eq!(alice.get("/v1/topics").await.with(200)["items"], json!([]));
        let record = json!({"records": [{"value": "secret of orders"}]});
        let denied = [
            alice.send("POST", "/v1/topics/orders/records", &record).await,
            alice.send("POST", "/v1/topics/nowhere/records", &record).await,
            alice.get("/v1/topics/orders/partitions/0/records").await,
            alice.get("/v1/topics/nowhere/partitions/0/records").await,
            alice.get("/v1/topics/orders").await,
            alice.send("POST", "/v1/topics", &json!({"name": "new"})).await,
            alice.delete("/v1/topics/orders").await,
        ];
        for answer in &denied {
            assert!(
                ["TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"].contains(&answer.problem(403).as_str())
            );
        }
        for answer in [
            alice.get("/v1/users").await,
            alice.get("/v1/acls").await,
            alice.send("POST", "/v1/acls", &json!({"acls": [{"resource": "topic", "name": "*", "principal": "User:alice", "operation": "all"}]})).await,
            alice.send("PUT", "/v1/users/admin", &json!({"password": "mine now"})).await,
            alice.get("/v1/broker").await,
        ] {
            assert_eq!(answer.problem(403), "CLUSTER_AUTHORIZATION_FAILED");
            told.push(answer);
        }
        assert_eq!(
            alice.delete("/v1/groups/g").await.problem(403),
            "GROUP_AUTHORIZATION_FAILED"
        );
        // A stream is no way around it.
        let stream = alice
            .ask(
                "GET",
                "/v1/topics/orders/partitions/0/records?offset=0",
                "Accept: text/event-stream\r\n",
                b"",
            )
            .await;
        assert!(
            stream.text().contains("TOPIC_AUTHORIZATION_FAILED") && !stream.text().contains("id: "),
            "{}",
            stream.text()
        );

        // With a rule it may, and with that only.
        let rule =
            json!({"acls": [{"resource": "topic", "name": "orders", "principal": "User:alice", "operation": "write"}]});
        assert_eq!(admin.send("POST", "/v1/acls", &rule).await.status, 204);
        alice.send("POST", "/v1/topics/orders/records", &record).await.with(200);
        assert_eq!(
            alice
                .get("/v1/topics/orders/partitions/0/records?offset=0")
                .await
                .problem(403),
            "TOPIC_AUTHORIZATION_FAILED"
        );
        let listed = admin.get("/v1/acls?principal=User:alice").await.with(200);
        assert_eq!(listed["acls"][0]["operation"], "write");

        // What one user has begun, another does not find.
        let read = json!({"acls": [
            {"resource": "topic", "name": "orders", "principal": "User:alice", "operation": "read"},
            {"resource": "group", "name": "g", "principal": "User:alice", "operation": "read"}]});
        assert_eq!(admin.send("POST", "/v1/acls", &read).await.status, 204);
        let joined = alice
            .send("POST", "/v1/groups/g/members", &json!({"topics": ["orders"]}))
            .await
            .with(201);
        let member = format!("/v1/groups/g/members/{}", joined["member"].as_str().unwrap());
        assert_eq!(admin.get(&member).await.problem(404), "UNKNOWN_MEMBER_ID");
        let polled = alice.get(&format!("{member}/records?wait_ms=60000")).await.with(200);
        assert_eq!(polled["records"][0]["value"], json!({"text": "secret of orders"}));
        assert_eq!(alice.delete(&member).await.status, 204);
        let key = "Idempotency-Key: k\r\nContent-Type: application/json\r\n";
        let of = async |caller: &Caller| {
            let answer = caller
                .ask("POST", "/v1/topics/orders/records", key, record.to_string().as_bytes())
                .await;
            (answer.with(200), answer.header("idempotent-replayed").is_some())
        };
        assert!(!of(&alice).await.1 && of(&alice).await.1 && !of(&admin).await.1);

        // Who is taken out is out: in the middle of a stream, and with the next request.
        let mut events = Events::listen(&alice, "/v1/topics/orders/partitions/0/records", "").await;
        assert!(!events.records(1).await.is_empty());
        assert_eq!(admin.delete("/v1/users/alice").await.status, 204);
        let out = alice.send("POST", "/v1/topics/orders/records", &record).await;
        assert!(matches!(out.status, 401 | 403), "{}", out.text());
        let seen = events.records(1000).await.len();
        assert!(seen < 1000, "the stream has ended");
        told.extend(denied);
        for answer in told {
            assert!(
                !format!("{answer:?}").contains("hush-4711") && !answer.text().contains("secret of orders"),
                "{answer:?}"
            );
        }
        assert!(!format!("{:?}", broker.lines()).contains("hush-4711"));
        broker.stop();
    });
}
