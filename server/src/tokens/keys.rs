//! A set of public keys (JWKS, RFC 7517), of which only those are taken that can be for signatures.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};

/// Keys of a set.
const KEYS_MAX: usize = 100;

/// The modulus of an RSA key has so many bytes at least, and at most so many.
const RSA_BYTES_MIN: usize = 2048 / 8;
const RSA_BYTES_MAX: usize = 8192 / 8;

/// What an RSA key can be for.
const OF_RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// One of them.
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

/// Those that were had last; none at first.
#[derive(Default)]
pub(super) struct KeySet(Vec<Key>);

impl std::fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} keys", self.0.len())
    }
}

/// Why no key is chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// None has the id.
    Unknown,
    /// Several would do, or the one with the id is for something else.
    Unfit,
}

impl KeySet {
    /// Reads one; what is wrong with it if there is nothing to be had of it.
    pub(super) fn read(json: &[u8]) -> Result<KeySet, String> {
        let set: JwkSet =
            serde_json::from_slice(json).map_err(|error| format!("it is no set of keys (JWKS): {error}"))?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("it has {} keys; at most {KEYS_MAX} are taken", set.keys.len()));
        }
        let keys: Vec<Key> = set.keys.iter().filter_map(Key::of).collect();
        if keys.is_empty() {
            return Err(
                "it has no key for signatures (RSA of 2048 bits at least, EC of P-256 or P-384, Ed25519)".to_owned(),
            );
        }
        Ok(KeySet(keys))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one for a token that says how it is signed, and by which key. One that does not say which has a chance if there is just one.
    pub(super) fn choose(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, NoKey> {
        let mut fit = self.0.iter().filter(|key| key.algorithms.contains(&algorithm));
        match id {
            Some(id) => {
                let is_known = |key: &&Key| key.id.as_deref() == Some(id);
                let known = self.0.iter().any(|key| is_known(&key));
                fit.find(is_known)
                    .ok_or(if known { NoKey::Unfit } else { NoKey::Unknown })
            }
            None => match (fit.next(), fit.next()) {
                (Some(key), None) => Ok(key),
                _ => Err(NoKey::Unfit),
            },
        }
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Key> {
        let common = &jwk.common;
        if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let family: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) if (RSA_BYTES_MIN..=RSA_BYTES_MAX).contains(&modulus_len(&key)) => OF_RSA,
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
            _ => return None,
        };
        // Of one that says which it is for, no other.
        let algorithms: Vec<Algorithm> = match common.key_algorithm {
            None => family.to_vec(),
            Some(named) => {
                let named = Algorithm::try_from(named).ok()?;
                family.iter().copied().filter(|known| *known == named).collect()
            }
        };
        (!algorithms.is_empty()).then(|| Key {
            id: common.key_id.clone(),
            algorithms,
            decoding: key,
        })
    }
}

/// Bytes of the modulus of an RSA key, without zeros before it.
fn modulus_len(key: &DecodingKey) -> usize {
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.len() - n.iter().take_while(|byte| **byte == 0).count(),
        DecodingKeyKind::SecretOrDer(_) => 0,
    }
}
