//! An issuer of tokens.

use std::time::SystemTime;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::json;

/// Who makes tokens, with a key of its own.
pub struct Issuer(EcdsaKeyPair);

impl Issuer {
    /// As its tokens call it.
    pub const NAME: &str = "issuer";

    pub fn new() -> Issuer {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref());
        Issuer(pair.unwrap())
    }

    /// What others check its tokens by (JWKS).
    pub fn keys(&self) -> String {
        // The point as it is, behind a byte that says so.
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (BASE64.encode(x), BASE64.encode(y));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "x": x, "y": y}]}).to_string()
    }

    /// A token that says who somebody is, for so many seconds from now.
    pub fn token(&self, subject: &str, audience: &str, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let until = now.as_secs() as i64 + seconds;
        let claims = json!({"iss": Issuer::NAME, "aud": audience, "sub": subject, "exp": until});
        let part = |value: &serde_json::Value| BASE64.encode(value.to_string());
        let said = format!("{}.{}", part(&json!({"alg": "ES256", "kid": "1"})), part(&claims));
        let signature = self.0.sign(&SystemRandom::new(), said.as_bytes()).unwrap();
        format!("{said}.{}", BASE64.encode(signature.as_ref()))
    }
}
