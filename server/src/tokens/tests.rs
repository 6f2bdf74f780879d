//! Tokens that are good, and all others; keys that change, and keys that do not come.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::{
    hmac, rand,
    rsa::{KeyPair as RsaPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

use super::*;
use crate::config::{TokenAlgorithms, Value as _};

/// No fetch takes so long, on a machine that does anything at all.
const LONG: Duration = Duration::from_mins(1);

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "headwater";

/// What is done to the claims of a token.
type Change = Box<dyn FnOnce(&mut Value)>;

struct Ec(EcdsaKeyPair);

impl Ec {
    fn new() -> Ec {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rand::SystemRandom::new()).unwrap();
        Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap())
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signed = self.0.sign(&rand::SystemRandom::new(), message);
        signed.unwrap().as_ref().to_vec()
    }

    fn jwk(&self, id: &str) -> Value {
        // The point as it is, behind a byte that says so.
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": BASE64.encode(x), "y": BASE64.encode(y)})
    }

    /// A good token of this key, but for what is changed.
    fn token(&self, id: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims();
        change(&mut claims);
        token(&json!({"alg": "ES256", "typ": "JWT", "kid": id}), &claims, |message| {
            self.sign(message)
        })
    }
}

fn rsa_signature(pair: &RsaPair, algorithm: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    let random = rand::SystemRandom::new();
    pair.sign(algorithm, &random, message, &mut signature).unwrap();
    signature
}

fn rsa_jwk(pair: &RsaPair, id: &str) -> Value {
    // RSAPublicKey of RFC 8017, of 2048 bits: heads of the sequence and the modulus, a zero, the modulus, and 65537.
    let n = &pair.public_key().as_ref()[9..9 + 256];
    json!({"kty": "RSA", "kid": id, "n": BASE64.encode(n), "e": "AQAB"})
}

fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = BASE64.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn now() -> i64 {
    machine::wall().get() / 1000
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now() + 600, "nbf": now()})
}

fn config(jwks: &str) -> Config {
    let mut config = Config::default();
    let security = &mut config.security;
    security.sasl.read("OAUTHBEARER").unwrap();
    security.token_jwks.read(jwks).unwrap();
    security.token_issuers.read(ISSUER).unwrap();
    security.token_audience.read(AUDIENCE).unwrap();
    config
}

fn rules(change: impl FnOnce(&mut Config)) -> Rules {
    let mut config = config("none");
    change(&mut config);
    Rules::of(&config)
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::read(json!({"keys": keys}).to_string().as_bytes()).unwrap()
}

#[test]
fn a_good_token_says_who_somebody_is_and_until_when() {
    let (ec, rsa) = (Ec::new(), RsaPair::generate(KeySize::Rsa2048).unwrap());
    let keys = set(&[ec.jwk("ec"), rsa_jwk(&rsa, "rsa")]);
    let rules = rules(|_| {});
    let by_rsa = |name: &str, algorithm: &'static dyn RsaEncoding| {
        token(&json!({"alg": name, "kid": "rsa"}), &claims(), |message| {
            rsa_signature(&rsa, algorithm, message)
        })
    };
    let by_ec = ec.token("ec", |_| {});
    for token in [
        by_ec.clone(),
        by_rsa("RS256", &RSA_PKCS1_SHA256),
        by_rsa("PS256", &RSA_PSS_SHA256),
    ] {
        let verified = rules.check(&keys, &token).unwrap();
        assert_eq!(verified.name, "alice");
        assert!((500_000..=600_000).contains(&verified.lifetime_ms), "{verified:?}");
    }
    // One key, and a token that does not say which.
    let unnamed = token(&json!({"alg": "ES256"}), &claims(), |message| ec.sign(message));
    assert!(rules.check(&set(&[ec.jwk("ec")]), &unnamed).is_ok());
    // A little late, and for several.
    let late = ec.token("ec", |claims| {
        claims["exp"] = (now() - 10).into();
        claims["aud"] = json!(["other", AUDIENCE]);
    });
    assert_eq!(rules.check(&keys, &late).unwrap().lifetime_ms, 1);
    let other = self::rules(|config| config.security.token_principal_claim.read("email").unwrap());
    let named = ec.token("ec", |claims| claims["email"] = "a@example".into());
    assert_eq!(other.check(&keys, &named).unwrap().name, "a@example");
    assert!(other.check(&keys, &by_ec).is_err());
}

#[test]
fn whatever_is_wrong_with_a_token_is_found() {
    let (ec, other) = (Ec::new(), Ec::new());
    let rsa = RsaPair::generate(KeySize::Rsa2048).unwrap();
    let mut for_secrets = other.jwk("secrets");
    for_secrets["use"] = "enc".into();
    let mut for_another = ec.jwk("another");
    for_another["alg"] = "ES384".into();
    let keys = set(&[ec.jwk("ec"), rsa_jwk(&rsa, "rsa"), for_secrets, for_another]);
    let rules = rules(|_| {});
    let set = |name: &'static str, value: Value| -> Change { Box::new(move |claims| claims[name] = value) };
    let without =
        |name: &'static str| -> Change { Box::new(move |claims| drop(claims.as_object_mut().unwrap().remove(name))) };
    let changes = [
        set("exp", (now() - 100).into()),
        set("exp", (now() + 600).to_string().into()),
        set("exp", ((now() + 600) * 1000).into()),
        set("exp", Value::Null),
        set("nbf", (now() + 100).into()),
        set("nbf", "now".into()),
        set("aud", "other".into()),
        set("aud", json!([])),
        set("aud", 7.into()),
        set("iss", "https://other.example".into()),
        set("iss", json!([ISSUER, "https://other.example"])),
        set("sub", "".into()),
        set("sub", "a\nb".into()),
        set("sub", 7.into()),
        set("sub", "a".repeat(257).into()),
        without("exp"),
        without("aud"),
        without("iss"),
        without("sub"),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let token = ec.token("ec", change);
        assert!(
            matches!(rules.check(&keys, &token), Err(Refused::Bad(_))),
            "change {number}"
        );
    }
    let public = ec.0.public_key().as_ref().to_vec();
    let by_public = |message: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &public);
        hmac::sign(&key, message).as_ref().to_vec()
    };
    let of_ec = |message: &[u8]| ec.sign(message);
    let good = ec.token("ec", |_| {});
    let mut bad = vec![
        // Signed by nobody, or by what everybody knows.
        token(&json!({"alg": "none", "kid": "ec"}), &claims(), |_| Vec::new()),
        token(&json!({"alg": "HS256", "kid": "ec"}), &claims(), by_public),
        token(&json!({"alg": "ES256", "kid": "ec"}), &claims(), by_public),
        // By another, by a key for something else, by one that may not sign so, or nobody says by which.
        other.token("ec", |_| {}),
        other.token("secrets", |_| {}),
        ec.token("another", |_| {}),
        ec.token("rsa", |_| {}),
        token(&json!({"alg": "ES384", "kid": "ec"}), &claims(), of_ec),
        token(&json!({"alg": "RS512", "kid": "rsa"}), &claims(), of_ec),
        token(&json!({"alg": "ES256", "kid": 7}), &claims(), of_ec),
        token(
            &json!({"alg": "ES256", "kid": "ec", "crit": ["x"], "x": 1}),
            &claims(),
            of_ec,
        ),
        token(&json!({"kid": "ec"}), &claims(), of_ec),
        // It would bring its key along.
        token(
            &json!({"alg": "ES256", "kid": "ec", "jwk": other.jwk("ec")}),
            &claims(),
            |message| other.sign(message),
        ),
        String::new(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        good.repeat(2),
        "a".repeat(1 << 20),
    ];
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    bad.push(unsigned.to_owned());
    bad.push(format!("{unsigned}."));
    for at in (0..good.len()).step_by(7) {
        let mut other = good.clone().into_bytes();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        bad.push(String::from_utf8(other).unwrap());
    }
    for token in bad {
        // One bit of the key's name may name another key.
        let refused = rules.check(&keys, &token).unwrap_err();
        assert!(!refused.to_string().contains("eyJ"), "it is not repeated: {refused}");
    }
    assert!(rules.check(&keys, &good).is_ok());
    assert_eq!(rules.check(&keys, &ec.token("new", |_| {})), Err(Refused::UnknownKey));
}

#[test]
fn what_is_no_set_of_keys_is_refused_and_weak_keys_are_left_out() {
    let ec = Ec::new();
    let short = json!({"kty": "RSA", "kid": "short", "n": BASE64.encode([255; 128]), "e": "AQAB"});
    let known = json!({"kty": "oct", "kid": "known", "k": "c2VjcmV0"});
    let strange = json!({"kty": "strange", "kid": "strange"});
    let keys = set(&[short.clone(), ec.jwk("ec"), known, strange]);
    assert_eq!(keys.len(), 1);
    for wrong in ["", "[]", "{}", "{\"keys\": []}", &json!({"keys": [short]}).to_string()] {
        assert!(KeySet::read(wrong.as_bytes()).is_err(), "{wrong}");
    }
    let many = vec![ec.jwk("ec"); 101];
    assert!(KeySet::read(json!({"keys": many}).to_string().as_bytes()).is_err());
}

#[test]
fn every_algorithm_of_the_configuration_is_known_and_takes_a_private_key() {
    for name in TokenAlgorithms::ALL {
        let algorithm: jsonwebtoken::Algorithm = name.parse().unwrap();
        assert_ne!(algorithm.family(), jsonwebtoken::AlgorithmFamily::Hmac, "{name}");
    }
}

/// An issuer that answers what it is told to, or nothing.
struct Issuer {
    url: String,
    answer: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicU64>,
}

impl Issuer {
    fn start() -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::<Mutex<Option<String>>>::default(), Arc::<AtomicU64>::default());
        let (answers, asks) = (Arc::clone(&answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let Ok(1..) = stream.read(&mut request) else { continue };
                asks.fetch_add(1, Ordering::SeqCst);
                let answer = answers.lock().unwrap().clone();
                let Some(body) = answer else { continue };
                let len = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        Issuer { url, answer, asked }
    }

    fn serves(&self, keys: &[Value]) {
        *self.answer.lock().unwrap() = Some(json!({"keys": keys}).to_string());
    }
}

#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never is");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn keys_change_at_the_issuer_and_stay_while_it_is_gone() {
    let (old, new) = (Ec::new(), Ec::new());
    let issuer = Issuer::start();
    issuer.serves(&[old.jwk("old")]);
    let mut config = config(&issuer.url);
    config.security.token_refresh_ms.read("1h").unwrap();
    let tokens = Tokens::read(&config).unwrap().unwrap();
    assert!(tokens.is_under_way(), "whoever comes first waits for the keys");
    let fetching = Fetching::start(&tokens, |error| panic!("{error}")).unwrap();
    until(|| !tokens.is_under_way());
    assert!(tokens.check(&old.token("old", |_| {})).is_ok());
    assert_eq!(tokens.check(&new.token("new", |_| {})), Err(Refused::UnknownKey));
    // A token with a new key has the keys fetched once, and only once in a while.
    issuer.serves(&[new.jwk("new")]);
    assert!(tokens.ask());
    until(|| !tokens.is_under_way());
    assert!(tokens.check(&new.token("new", |_| {})).is_ok());
    assert!(
        tokens.check(&old.token("old", |_| {})).is_err(),
        "its key was taken back"
    );
    for _ in 0..100 {
        assert_eq!(tokens.check(&new.token("made-up", |_| {})), Err(Refused::UnknownKey));
        assert!(!tokens.ask());
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2);
    // The issuer is gone, and then says nonsense.
    for answer in [None, Some("<html>".to_owned())] {
        *issuer.answer.lock().unwrap() = answer;
        let failed = tokens.fetches().1;
        tokens.state().asked = None;
        assert!(tokens.ask());
        until(|| tokens.fetches().1 > failed);
        assert!(
            tokens.check(&new.token("new", |_| {})).is_ok(),
            "the keys from before stay"
        );
    }
    fetching.end(Instant::now() + LONG).unwrap();
}

#[test]
fn keys_in_a_file_are_read_again_when_it_changes() {
    let (old, new) = (Ec::new(), Ec::new());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    let write = |key: Value| {
        let other = path.with_extension("new");
        fs::write(&other, json!({"keys": [key]}).to_string()).unwrap();
        fs::rename(&other, &path).unwrap();
    };
    let config = config(&format!("file:{}", path.display()));
    assert_eq!(Tokens::read(&config).unwrap_err().0, "security.token_jwks");
    write(old.jwk("old"));
    let tokens = Tokens::read(&config).unwrap().unwrap();
    let fetching = Fetching::start(&tokens, |error| panic!("{error}")).unwrap();
    assert!(tokens.check(&old.token("old", |_| {})).is_ok());
    write(new.jwk("new"));
    until(|| tokens.check(&new.token("new", |_| {})).is_ok());
    fetching.end(Instant::now() + LONG).unwrap();
}
