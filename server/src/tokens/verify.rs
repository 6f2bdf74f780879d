//! Whether a token is good: pure but for the time of day.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::Value;

use super::keys::{KeySet, NoKey};
use crate::{config::Config, machine};

/// A token that is longer is not looked at, in bytes.
const TOKEN_LEN_MAX: usize = 12 * 1024;

/// The name of somebody is not longer, in bytes.
const NAME_LEN_MAX: usize = 256;

/// No token is good for longer, in seconds: one that says so has its time in milliseconds.
const LIFETIME_MAX: u64 = 10 * 366 * 24 * 60 * 60;

/// Whose a token is, and for how long it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) name: String,
    /// Milliseconds; 1 at least.
    pub(crate) lifetime_ms: u64,
}

/// Why it is no good. It is never told to whoever has shown it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The keys may have been changed since they were fetched.
    #[error("its key is not known")]
    UnknownKey,
    /// Anything else.
    #[error("{0}")]
    Bad(String),
}

/// What a token must be like.
#[derive(Debug)]
pub(super) struct Rules {
    algorithms: Vec<Algorithm>,
    audience: Vec<String>,
    issuers: Vec<String>,
    claim: String,
    leeway: u64,
}

impl Rules {
    pub(super) fn of(config: &Config) -> Rules {
        let security = &config.security;
        let algorithms = security.token_algorithms.iter();
        Rules {
            // The configuration knows none that is not known here: a test compares.
            algorithms: algorithms.filter_map(|name| name.parse().ok()).collect(),
            audience: security.token_audience.iter().map(str::to_owned).collect(),
            issuers: security.token_issuers.iter().map(str::to_owned).collect(),
            claim: security.token_principal_claim.as_str().to_owned(),
            leeway: security.token_leeway_ms.get() / 1000,
        }
    }

    pub(super) fn check(&self, keys: &KeySet, token: &str) -> Result<Verified, Refused> {
        let bad = |why: &str| Refused::Bad(why.to_owned());
        if token.len() > TOKEN_LEN_MAX {
            return Err(bad("it is too long"));
        }
        let header = decode_header(token).map_err(|error| Refused::Bad(error.to_string()))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(Refused::Bad(format!(
                "it is signed by {:?}, which is not taken",
                header.alg
            )));
        }
        if header.crit.is_some() {
            return Err(bad("it wants something understood (crit) that is not"));
        }
        let key = keys
            .choose(header.kid.as_deref(), header.alg)
            .map_err(|none| match none {
                NoKey::Unknown => Refused::UnknownKey,
                NoKey::Unfit => bad("it does not say which key it is signed by, or that one is for something else"),
            })?;
        let claims = decode::<BTreeMap<String, Value>>(token, &key.decoding, &self.validation(header.alg));
        let claims = claims.map_err(|error| Refused::Bad(error.to_string()))?.claims;
        // The crate takes a list for it as well.
        if !claims.get("iss").is_some_and(Value::is_string) {
            return Err(bad("its issuer is no text"));
        }
        let name = claims.get(&self.claim).and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() || name.len() > NAME_LEN_MAX || name.contains(char::is_control) {
            return Err(Refused::Bad(format!("its claim {} is no name", self.claim)));
        }
        let until = claims.get("exp").and_then(Value::as_f64).unwrap_or_default();
        let now = machine::wall().get() as f64 / 1000.0;
        let left = until - now;
        if left > LIFETIME_MAX as f64 {
            return Err(bad("it never ends; is its time in milliseconds?"));
        }
        Ok(Verified {
            name: name.to_owned(),
            lifetime_ms: ((left.max(0.0) * 1000.0) as u64).max(1),
        })
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.leeway;
        validation.validate_nbf = true;
        validation.set_audience(&self.audience);
        validation.set_issuer(&self.issuers);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation
    }
}
