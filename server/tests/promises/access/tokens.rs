//! Tokens of an issuer that is trusted, by both protocols.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use headwater_client::{Acl, AclOperation, AclPattern, AclPermission, AclResource, Client, ErrorCode, Record};
use headwater_kafka::messages::SaslAuthenticateResponse;

use super::{
    Guarded, THERE,
    sasl::{FAILED, choose, is_in, message},
    site,
};
use crate::{
    kafka::wire::Wire,
    support::{Issuer, pause, run},
};

const ROBOT: &str = "robot";

async fn show(wire: &mut Wire, token: &str) -> SaslAuthenticateResponse<'static> {
    assert_eq!(choose(wire, "OAUTHBEARER").await.error_code, 0);
    message(wire, format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()).await
}

#[test]
fn whoever_shows_a_good_token_comes_in_until_it_ends_and_nobody_else_does() {
    run(async {
        let issuer = Arc::new(Issuer::new());
        let site = site();
        let keys = site.directory().with_file_name("jwks.json");
        fs::write(&keys, issuer.keys()).unwrap();
        let site = site
            .set("security.sasl", "SCRAM-SHA-256,OAUTHBEARER")
            .set("security.token_jwks", &format!("file:{}", keys.display()))
            .set("security.token_issuers", Issuer::NAME)
            .set("security.token_audience", "headwater");
        let guarded = Guarded::start(site).await;
        let site = &guarded.site;
        let allowed = Acl {
            resource: AclResource::Topic,
            pattern: AclPattern::Literal,
            name: THERE.to_owned(),
            principal: format!("User:{ROBOT}"),
            host: "*".to_owned(),
            operation: AclOperation::Write,
            permission: AclPermission::Allow,
        };
        guarded.admin.create_acls(&[allowed]).await.unwrap();

        let mut wire = Wire::of(site).await;
        let entered = show(&mut wire, &issuer.token(ROBOT, "headwater", 600)).await;
        assert_eq!(entered.error_code, 0, "{entered:?}");
        assert!((500_000..=600_000).contains(&entered.session_lifetime_ms));
        assert!(is_in(&mut wire).await);
        for wrong in [
            issuer.token(ROBOT, "another", 600),
            issuer.token(ROBOT, "headwater", -600),
            Issuer::new().token(ROBOT, "headwater", 600),
            "a.b.c".to_owned(),
        ] {
            let mut wire = Wire::of(site).await;
            let refused = show(&mut wire, &wrong).await;
            assert_eq!(refused.error_code, FAILED);
            let message = refused.error_message.unwrap();
            assert_eq!(message, r#"{"status":"invalid_token"}"#);
            assert!(!is_in(&mut wire).await);
        }

        // Its session ends with it, unless it shows the next.
        let (mut kept, mut left) = (Wire::of(site).await, Wire::of(site).await);
        for wire in [&mut kept, &mut left] {
            let entered = show(wire, &issuer.token(ROBOT, "headwater", 3)).await;
            assert!(
                entered.error_code == 0 && entered.session_lifetime_ms <= 3000,
                "{entered:?}"
            );
        }
        assert_eq!(
            show(&mut kept, &issuer.token(ROBOT, "headwater", 600)).await.error_code,
            0
        );
        let began = Instant::now();
        while is_in(&mut left).await {
            assert!(began.elapsed() < Duration::from_secs(30), "it stays in");
            pause().await;
        }
        assert!(is_in(&mut kept).await);

        // A client shows the next one by itself, also on connections that are in use.
        let given = Arc::new(AtomicU64::new(0));
        let (counted, gives) = (Arc::clone(&given), Arc::clone(&issuer));
        let give = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(gives.token(ROBOT, "headwater", 2))
        };
        let client = Client::builder().bootstrap([site.address().to_string()]).token(give);
        let client = client.build().await.unwrap();
        let producer = client.producer().build().await.unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            producer
                .send(Record::to(THERE).value("x"))
                .await
                .unwrap()
                .await
                .unwrap();
            pause().await;
        }
        assert!(given.load(Ordering::Relaxed) >= 3);
        let refused = Client::builder()
            .bootstrap([site.address().to_string()])
            .token(|| Ok("a.b.c".to_owned()))
            .build()
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::SaslAuthenticationFailed), "{refused}");
        drop(client);
        let lines = guarded.broker.lines();
        assert!(!lines.iter().any(|line| line.contains("eyJ")), "a token was logged");
        guarded.stop();
    });
}
