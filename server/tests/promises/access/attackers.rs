//! Whoever means harm: no words at all bring anybody in who does not know a password, and those who stay half way hold up nobody else.

use std::time::{Duration, Instant};

use headwater_client::Record;
use headwater_kafka::{
    ApiKey,
    messages::{SaslAuthenticateRequest, SaslAuthenticateResponse},
};
use headwater_protocol::{
    frame::{Api, FrameHeader},
    id::CorrelationId,
};
use rand::{RngExt as _, rngs::SmallRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::{
    EXACT, Guarded, THERE,
    sasl::{choose, is_in},
    site,
};
use crate::{
    kafka::wire::Wire,
    support::{Issuer, Seed, run},
};

/// What those say who want to come in: of each mechanism a message that is nearly right.
fn messages(random: &mut SmallRng) -> (&'static str, Vec<u8>) {
    let token = || Issuer::new().token("admin", "headwater", 600);
    match random.random_range(0..6) {
        0 => ("PLAIN", format!("\0{EXACT}\0a password").into_bytes()),
        1 => ("PLAIN", b"admin\0admin\0a password".to_vec()),
        2 => ("SCRAM-SHA-256", format!("n,,n={EXACT},r=abcdefgh").into_bytes()),
        3 => ("SCRAM-SHA-512", b"n,a=admin,n=admin,r=abcdefgh,x=y".to_vec()),
        4 => (
            "OAUTHBEARER",
            format!("n,,\x01auth=Bearer {}\x01\x01", token()).into_bytes(),
        ),
        _ => (
            "OAUTHBEARER",
            b"n,a=admin,\x01auth=Bearer a.b.c\x01host=x\x01\x01".to_vec(),
        ),
    }
}

fn spoil(message: &mut Vec<u8>, random: &mut SmallRng) {
    for _ in 0..random.random_range(0..4) {
        if message.is_empty() {
            return;
        }
        let at = random.random_range(0..message.len());
        let until = random.random_range(at..=message.len().min(at + 20));
        match random.random_range(0..6) {
            0 => message[at] = random.random(),
            1 => message[at] ^= 1 << random.random_range(0..8),
            2 => drop(message.drain(at..until)),
            3 => {
                let again = message[at..until].to_vec();
                message.splice(at..at, again);
            }
            4 => message.truncate(at),
            _ => message.insert(at, b"\0,=\x01"[random.random_range(0..4)]),
        }
    }
}

/// Of Headwater's own protocol: some bytes in the place of what proves who somebody is.
async fn say_natively(guarded: &Guarded, message: &[u8]) {
    let mut stream = TcpStream::connect(guarded.site.core_address(0)).await.unwrap();
    let api = Api::Authenticate.as_u16();
    let header = FrameHeader::new(api, 0, CorrelationId::new(1), message.len(), 0).unwrap();
    stream
        .write_all(&[&header.encode()[..], message].concat())
        .await
        .unwrap();
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
    // It may be reset, as not all that was said was read.
    let _ = read.expect("it is closed");
    assert!(answer.len() < 4096, "{} bytes", answer.len());
}

#[test]
fn no_words_at_all_bring_anybody_in_who_does_not_know_a_password() {
    let mut seed = Seed::of("no_words_at_all_bring_anybody_in_who_does_not_know_a_password");
    let attempts = seed.number("HEADWATER_FUZZ", 300);
    run(async {
        let issuer = Issuer::new();
        let site = site();
        let keys = site.directory().with_file_name("jwks.json");
        std::fs::write(&keys, issuer.keys()).unwrap();
        let site = site
            .set("security.sasl", "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,OAUTHBEARER")
            .set("security.token_jwks", &format!("file:{}", keys.display()))
            .set("security.token_issuers", Issuer::NAME)
            .set("security.token_audience", "headwater");
        let guarded = Guarded::start(site).await;
        let before = guarded.state().await;
        let mut random = seed.random();
        for attempt in 0..attempts {
            let (mechanism, mut said) = messages(&mut random);
            spoil(&mut said, &mut random);
            let mut wire = Wire::of(&guarded.site).await;
            assert_eq!(choose(&mut wire, mechanism).await.error_code, 0);
            // A challenge may come, and what is said to it is as spoilt.
            for _ in 0..2 {
                let request = SaslAuthenticateRequest {
                    auth_bytes: said.clone().into(),
                };
                let id = wire.send(ApiKey::SaslAuthenticate, 2, &request).await;
                let answer = wire.try_response::<SaslAuthenticateResponse<'_>>(ApiKey::SaslAuthenticate, 2, id);
                let Some(answer) = answer.await.filter(|answer| answer.error_code == 0) else {
                    break;
                };
                said = answer.auth_bytes.to_vec();
                spoil(&mut said, &mut random);
            }
            assert!(!is_in(&mut wire).await, "attempt {attempt} by {mechanism}");
            if attempt % 10 == 0 {
                let (_, mut said) = messages(&mut random);
                spoil(&mut said, &mut random);
                say_natively(&guarded, &said).await;
            }
        }
        assert_eq!(guarded.state().await, before);
        guarded.stop();
    });
}

/// `HEADWATER_HALF_OPEN=5000` has so many stay half way, and prints how long producers wait meanwhile.
#[test]
fn those_who_stay_half_way_hold_up_no_producer() {
    let half_open: u64 = std::env::var("HEADWATER_HALF_OPEN").map_or(150, |text| text.parse().unwrap());
    run(async {
        let connections = (half_open + 100).to_string();
        let guarded = Guarded::start(site().set("limits.connections_max", &connections)).await;
        let client = super::client(&guarded.site, super::ADMIN, &super::password_of(super::ADMIN))
            .await
            .unwrap();
        let producer = client.producer().build().await.unwrap();
        let times = async |count: usize| {
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let began = Instant::now();
                producer
                    .send(Record::to(THERE).value("x"))
                    .await
                    .unwrap()
                    .await
                    .unwrap();
                times.push(began.elapsed());
            }
            times.sort_unstable();
            [times[count / 2], times[count * 99 / 100]]
        };
        let count = if half_open > 1000 { 3000 } else { 100 };
        let before = times(count).await;
        let mut staying = JoinSet::new();
        for number in 0..half_open {
            let site = &guarded.site;
            let (native, kafka) = (
                site.core_address(0),
                (site.address().ip(), crate::kafka::wire::PORT).into(),
            );
            staying.spawn(async move {
                // Some say nothing, some the beginning of a frame, some choose how to come in and leave it at that.
                let address: std::net::SocketAddr = if number % 2 == 0 { native } else { kafka };
                let mut stream = TcpStream::connect(address).await?;
                let said: &[u8] = match number % 3 {
                    0 => &[],
                    1 => &[0, 0, 0, 20, 0, 17],
                    _ => b"\0\0\0\x11\0\x11\0\x01\0\0\0\x01\xff\xff\0\x05PLAIN",
                };
                stream.write_all(said).await?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await
            });
        }
        let with = times(count).await;
        println!("half open: {half_open}; p50 and p99 before {before:?}, with them {with:?}");
        // Whoever means it comes in past them.
        super::client(&guarded.site, EXACT, &super::password_of(EXACT))
            .await
            .unwrap();
        staying.shutdown().await;
        drop(client);
        guarded.stop();
    });
}
