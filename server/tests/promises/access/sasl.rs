//! How clients come in by Kafka's protocol, and who does not.

use std::time::{Duration, Instant};

use headwater_kafka::{
    ApiKey,
    messages::{
        MetadataRequest, MetadataResponse, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
        SaslHandshakeResponse,
    },
};
use headwater_protocol::scram::{ClientExchange, Mechanism};

use super::{ADMIN, EXACT, Guarded, NOBODY, client, password_of, site};
use crate::{
    kafka::wire::Wire,
    support::{pause, run},
};

pub(super) const FAILED: i16 = 58;

pub async fn message(wire: &mut Wire, bytes: Vec<u8>) -> SaslAuthenticateResponse<'static> {
    let request = SaslAuthenticateRequest {
        auth_bytes: bytes.into(),
    };
    wire.ask(ApiKey::SaslAuthenticate, 2, &request).await
}

pub async fn choose(wire: &mut Wire, mechanism: &str) -> SaslHandshakeResponse<'static> {
    let request = SaslHandshakeRequest {
        mechanism: mechanism.into(),
    };
    wire.ask(ApiKey::SaslHandshake, 1, &request).await
}

/// Proves that it is this user, and returns the last answer.
pub async fn enter(
    wire: &mut Wire,
    mechanism: &'static str,
    user: &str,
    password: &str,
) -> SaslAuthenticateResponse<'static> {
    let chosen = choose(wire, mechanism).await;
    assert_eq!(chosen.error_code, 0, "{mechanism}");
    let Some(scram) = Mechanism::named(mechanism) else {
        return message(wire, format!("\0{user}\0{password}").into_bytes()).await;
    };
    let (mut exchange, first) = ClientExchange::begin(scram, user, password, "a-nonce");
    let challenge = message(wire, first.into_bytes()).await;
    assert_eq!(challenge.error_code, 0, "whoever it is, it is asked to prove it");
    let last = exchange.answer(&challenge.auth_bytes).unwrap();
    let verdict = message(wire, last.into_bytes()).await;
    if verdict.error_code == 0 {
        exchange.check(&verdict.auth_bytes).unwrap();
    }
    verdict
}

/// Whether a connection is in.
pub async fn is_in(wire: &mut Wire) -> bool {
    wire.send(ApiKey::Metadata, 12, &MetadataRequest::default()).await;
    wire.receive().await.is_some()
}

#[test]
fn whoever_proves_who_it_is_comes_in_and_nobody_learns_why_another_does_not() {
    run(async {
        let guarded = Guarded::start(site().with_metrics().set("security.failure_wait_ms", "300ms")).await;
        let site = &guarded.site;
        let mut words = Vec::new();
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] {
            let mut wire = Wire::of(site).await;
            let entered = enter(&mut wire, mechanism, EXACT, &password_of(EXACT)).await;
            assert_eq!(entered.error_code, 0, "{mechanism}");
            assert!(is_in(&mut wire).await, "{mechanism}");
            // Again, as itself and as another.
            let again = enter(&mut wire, mechanism, EXACT, &password_of(EXACT)).await;
            assert_eq!(again.error_code, 0, "{mechanism}");
            let other = enter(&mut wire, mechanism, NOBODY, &password_of(NOBODY)).await;
            assert_eq!(other.error_code, FAILED, "{mechanism}");
            assert!(!is_in(&mut wire).await, "{mechanism}");
            for (user, password) in [(EXACT, "wrong"), ("unheard-of", "wrong"), (EXACT, "")] {
                let mut wire = Wire::of(site).await;
                let began = Instant::now();
                let refused = enter(&mut wire, mechanism, user, password).await;
                assert!(began.elapsed() >= Duration::from_millis(300), "it is told late");
                assert_eq!(refused.error_code, FAILED);
                assert!(refused.auth_bytes.is_empty());
                words.push(refused.error_message.unwrap());
                assert!(!is_in(&mut wire).await, "{mechanism} {user}");
            }
        }
        words.dedup();
        assert_eq!(words.len(), 1, "{words:?}");
        let failed = site.scrape().await["headwater_authentications_total{core=\"0\",outcome=\"failed\"}"];
        assert!(failed >= 12, "{failed}");
        guarded.stop();
    });
}

#[test]
fn what_is_no_exchange_brings_nobody_in() {
    run(async {
        let guarded = Guarded::start(site()).await;
        let site = &guarded.site;
        // No mechanism, one that is not offered, one whose messages are not its own.
        let mut wire = Wire::of(site).await;
        assert_eq!(message(&mut wire, b"n,,n=admin,r=x".to_vec()).await.error_code, FAILED);
        assert!(!is_in(&mut wire).await);
        let mut wire = Wire::of(site).await;
        let chosen = choose(&mut wire, "GSSAPI").await;
        assert_eq!(chosen.error_code, 33);
        assert_eq!(chosen.mechanisms, ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"]);
        for mechanism in ["SCRAM-SHA-256", "PLAIN"] {
            for bytes in [
                &b""[..],
                b"\0",
                b"\0admin",
                b"\0\0",
                b"other\0admin\0x",
                b"a\0b\0c\0d",
                b"n,,",
                b"n,,n=,r=x",
                b"p=x,,n=admin,r=x",
                b"n,,n=admin,r=x,m=y",
                b"\xff\xfe\0a\0b",
                &[b'a'; 9000],
            ] {
                let mut wire = Wire::of(site).await;
                choose(&mut wire, mechanism).await;
                let answer = message(&mut wire, bytes.to_vec()).await;
                assert_eq!(answer.error_code, FAILED, "{mechanism} {bytes:?}");
                assert!(!is_in(&mut wire).await, "{mechanism} {bytes:?}");
            }
        }
        // Nobody who is outside says much.
        let mut wire = Wire::of(site).await;
        wire.send_bytes(&(1_i32 << 20).to_be_bytes()).await;
        assert!(wire.receive().await.is_none());
        guarded.stop();
    });
}

#[test]
fn a_user_that_is_removed_is_out_at_once_and_time_ends_for_everybody() {
    run(async {
        let guarded = Guarded::start(site().set("security.reauthenticate_ms", "1s")).await;
        let site = &guarded.site;
        let mut wire = Wire::of(site).await;
        let entered = enter(&mut wire, "SCRAM-SHA-256", EXACT, &password_of(EXACT)).await;
        assert_eq!(entered.session_lifetime_ms, 1000);
        let began = Instant::now();
        while is_in(&mut wire).await {
            assert!(began.elapsed() < Duration::from_secs(30), "it stays in");
            pause().await;
        }
        assert!(began.elapsed() >= Duration::from_millis(800));
        let mut wire = Wire::of(site).await;
        enter(&mut wire, "SCRAM-SHA-256", EXACT, &password_of(EXACT)).await;
        assert!(is_in(&mut wire).await);
        // The administrator's own connections are made again meanwhile.
        guarded.admin.remove_user(EXACT).await.unwrap();
        assert!(!is_in(&mut wire).await, "it is removed");
        assert!(client(site, EXACT, &password_of(EXACT)).await.is_err());
        guarded.stop();
    });
}

#[test]
fn rules_and_users_survive_a_crash() {
    run(async {
        let guarded = Guarded::start(site()).await;
        guarded
            .allow(
                &[(
                    headwater_client::AclResource::Topic,
                    headwater_client::AclOperation::Write,
                )],
                super::THERE,
            )
            .await;
        let before = guarded.state().await;
        let Guarded { site, broker, .. } = guarded;
        broker.kill();
        let broker = site.start();
        let admin = client(&site, ADMIN, &password_of(ADMIN)).await.unwrap().admin();
        let guarded = Guarded { site, broker, admin };
        assert_eq!(guarded.state().await, before);
        let user = client(&guarded.site, EXACT, &password_of(EXACT)).await.unwrap();
        let producer = user.producer().build().await.unwrap();
        let sent = producer
            .send(headwater_client::Record::to(super::THERE).value("x"))
            .await
            .unwrap();
        sent.await.unwrap();
        // One without the permission learns that at once, and does not try for ever.
        let user = client(&guarded.site, NOBODY, &password_of(NOBODY)).await.unwrap();
        let refused = user.admin().describe_topic(super::THERE).await.unwrap_err();
        assert_eq!(
            refused.code(),
            Some(headwater_client::ErrorCode::TopicAuthorizationFailed),
            "{refused}"
        );
        assert!(!refused.is_retriable());
        guarded.stop();
    });
}

#[test]
fn of_all_topics_those_are_told_of_that_somebody_may_describe() {
    run(async {
        let guarded = Guarded::start(site()).await;
        let listed = async |user: &'static str| {
            let mut wire = Wire::of(&guarded.site).await;
            enter(&mut wire, "SCRAM-SHA-512", user, &password_of(user)).await;
            let request = MetadataRequest {
                topics: None,
                include_topic_authorized_operations: true,
                ..MetadataRequest::default()
            };
            let told: MetadataResponse<'_> = wire.ask(ApiKey::Metadata, 12, &request).await;
            let topic = |topic: &headwater_kafka::messages::metadata_response::MetadataResponseTopic<'_>| {
                (
                    topic.name.clone().unwrap().into_owned(),
                    topic.topic_authorized_operations,
                )
            };
            told.topics.iter().map(topic).collect::<Vec<_>>()
        };
        assert_eq!(listed(EXACT).await, []);
        guarded
            .allow(
                &[(
                    headwater_client::AclResource::Topic,
                    headwater_client::AclOperation::Read,
                )],
                super::THERE,
            )
            .await;
        // Read, and with it describe.
        assert_eq!(listed(EXACT).await, [(super::THERE.to_owned(), (1 << 3) | (1 << 8))]);
        assert_eq!(listed(ADMIN).await, [(super::THERE.to_owned(), 3576)]);
        guarded.allow_nothing().await;
        assert_eq!(listed(EXACT).await, [], "at once");
        guarded.stop();
    });
}
