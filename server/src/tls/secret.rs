//! How two brokers prove to each other that both know the secret of their cluster, as bytes: whoever carries them is elsewhere.
//!
//! ```text
//! called: challenge (a number that was never used) ─►
//!                    ◄─ answer: a number of the caller's, a proof by each secret that it knows
//!         verdict: a proof by the one that fits ─►          nothing, if none does
//! ```
//! A proof is the HMAC-SHA-256 of both numbers, of what the connection is for, of who says it, and over TLS of the connection itself
//! (RFC 9266), so that none can be said again, said back, or passed on to another connection. Without TLS whoever sits between two brokers can
//! still change what they say to each other afterwards.
//!
//! Either side has up to two secrets, the current one and the one from before, and takes both: so a secret can be changed one broker
//! after the other.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::hmac;

use crate::config::{Config, SecretPlace};

/// What each message begins with.
const MAGIC: [u8; 4] = *b"HWS\x01";

/// A secret has so many bytes at least: proofs can be tried against guesses by whoever has heard some.
const SECRET_LEN_MIN: usize = 16;

/// Secrets that one side may know.
const SECRETS_MAX: usize = 2;

/// Bytes of a number that is used once.
const NONCE_LEN: usize = 32;

/// Bytes of a proof.
const PROOF_LEN: usize = 32;

/// No message is longer, in bytes.
pub(crate) const PROOF_MESSAGE_LEN_MAX: usize = MAGIC.len() + NONCE_LEN + SECRETS_MAX * PROOF_LEN;

type Nonce = [u8; NONCE_LEN];

/// What a connection between brokers is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Members of the quorum speak with each other.
    Quorum = 1,
    /// A follower gets records.
    Replication = 2,
}

/// The connection that a proof is for: what is said over it, and over TLS what tells it from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) purpose: Purpose,
    pub(crate) channel: Option<[u8; 32]>,
}

/// The label of RFC 9266 by which both ends of a connection with TLS get the same bytes, and nobody else does.
pub(crate) const CHANNEL_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Who has not proved anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unproved {
    /// It says something else.
    #[error(
        "it gives no proof of cluster.secret: set the same secret on every broker, or look what connects to this address"
    )]
    Absent,
    /// It knows another secret, or repeats what was said elsewhere.
    #[error(
        "its proof of cluster.secret is wrong: set the same secret on every broker, and cluster.secret_previous while it is changed"
    )]
    Wrong,
}

/// The secrets that this broker knows. None of them can be had from here.
pub(crate) struct ClusterSecret {
    /// The current one first; never empty.
    keys: Vec<hmac::Key>,
    refused: AtomicU64,
}

impl std::fmt::Debug for ClusterSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClusterSecret").finish_non_exhaustive()
    }
}

impl ClusterSecret {
    /// As it is configured; or the setting that is wrong, and why.
    pub(crate) fn read(config: &Config) -> Result<Option<ClusterSecret>, (&'static str, String)> {
        let cluster = &config.cluster;
        let fetch = |name, place: &SecretPlace| fetch(place).map_err(|why| (name, why));
        let current = fetch("cluster.secret", &cluster.secret)?;
        let previous = fetch("cluster.secret_previous", &cluster.secret_previous)?;
        Ok(current.map(|current| ClusterSecret::of(std::iter::once(current).chain(previous))))
    }

    fn of(secrets: impl Iterator<Item = String>) -> ClusterSecret {
        let key = |secret: String| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        ClusterSecret {
            keys: secrets.map(key).collect(),
            refused: AtomicU64::new(0),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_texts(secrets: &[&str]) -> ClusterSecret {
        ClusterSecret::of(secrets.iter().map(|&secret| secret.to_owned()))
    }

    /// Whoever was called has found that somebody proves nothing.
    pub(crate) fn has_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many proved nothing so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The side that is called, with the challenge.
    pub(crate) fn challenge(&self, bound: Bound, nonce: Nonce) -> (Called<'_>, Vec<u8>) {
        let challenge = [&MAGIC[..], &nonce].concat();
        let secret = self;
        (Called { secret, bound, nonce }, challenge)
    }

    /// The side that calls, with the answer to a challenge.
    pub(crate) fn answer(
        &self,
        bound: Bound,
        nonce: Nonce,
        challenge: &[u8],
    ) -> Result<(Calling<'_>, Vec<u8>), Unproved> {
        let of_called = strip(challenge).and_then(|nonce| nonce.try_into().ok());
        let said = Said {
            bound,
            of_called: of_called.ok_or(Unproved::Absent)?,
            of_calling: nonce,
        };
        let mut answer = [&MAGIC[..], &nonce].concat();
        for key in &self.keys {
            answer.extend_from_slice(hmac::sign(key, &said.by(Role::Calling)).as_ref());
        }
        Ok((Calling { secret: self, said }, answer))
    }
}

fn fetch(place: &SecretPlace) -> Result<Option<String>, String> {
    let secret = place.fetch()?;
    if secret.as_ref().is_some_and(|secret| secret.len() < SECRET_LEN_MIN) {
        return Err(format!(
            "the secret is shorter than {SECRET_LEN_MIN} characters: `openssl rand -base64 32` makes a good one"
        ));
    }
    Ok(secret)
}

/// What a proof is of.
struct Said {
    bound: Bound,
    of_called: Nonce,
    of_calling: Nonce,
}

#[derive(Clone, Copy)]
enum Role {
    Called = 1,
    Calling = 2,
}

impl Said {
    /// All of it, if one of the two says it. Every part has one length, so no two ways to say something are the same bytes.
    fn by(&self, role: Role) -> Vec<u8> {
        let mut all = b"headwater cluster secret 1".to_vec();
        all.extend_from_slice(&[
            self.bound.purpose as u8,
            role as u8,
            u8::from(self.bound.channel.is_some()),
        ]);
        all.extend_from_slice(&self.of_called);
        all.extend_from_slice(&self.of_calling);
        all.extend_from_slice(&self.bound.channel.unwrap_or_default());
        all
    }
}

/// The side that is called, until it knows.
pub(crate) struct Called<'a> {
    secret: &'a ClusterSecret,
    bound: Bound,
    nonce: Nonce,
}

impl Called<'_> {
    /// The verdict on what the caller answers.
    pub(crate) fn judge(self, answer: &[u8]) -> Result<Vec<u8>, Unproved> {
        let (nonce, proofs) = strip(answer)
            .and_then(|rest| rest.split_first_chunk())
            .ok_or(Unproved::Absent)?;
        if proofs.is_empty() || !proofs.len().is_multiple_of(PROOF_LEN) || proofs.len() > SECRETS_MAX * PROOF_LEN {
            return Err(Unproved::Absent);
        }
        let said = Said {
            bound: self.bound,
            of_called: self.nonce,
            of_calling: *nonce,
        };
        let expected = said.by(Role::Calling);
        let fits = |key: &&hmac::Key| {
            let mut proofs = proofs.chunks(PROOF_LEN);
            proofs.any(|proof| hmac::verify(key, &expected, proof).is_ok())
        };
        let key = self.secret.keys.iter().find(fits).ok_or(Unproved::Wrong)?;
        let proof = hmac::sign(key, &said.by(Role::Called));
        Ok([&MAGIC[..], proof.as_ref()].concat())
    }
}

/// What one hears that has proved nothing: that it is so, and no more.
pub(crate) fn no_proof() -> Vec<u8> {
    MAGIC.to_vec()
}

/// Whether this is one of the messages here.
pub(crate) fn is_of_proof(message: &[u8]) -> bool {
    message.starts_with(&MAGIC)
}

/// The side that calls, until it knows.
pub(crate) struct Calling<'a> {
    secret: &'a ClusterSecret,
    said: Said,
}

impl Calling<'_> {
    /// Whether whoever was called knows a secret as well.
    pub(crate) fn judge(self, verdict: &[u8]) -> Result<(), Unproved> {
        let proof = strip(verdict).ok_or(Unproved::Absent)?;
        let expected = self.said.by(Role::Called);
        let mut keys = self.secret.keys.iter();
        if keys.any(|key| hmac::verify(key, &expected, proof).is_ok()) {
            Ok(())
        } else {
            Err(Unproved::Wrong)
        }
    }
}

fn strip(message: &[u8]) -> Option<&[u8]> {
    message.strip_prefix(&MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Bound = Bound {
        purpose: Purpose::Quorum,
        channel: None,
    };

    /// Whether each side is content with the other.
    fn meet((from, its_end): (&[&str], Bound), (to, other_end): (&[&str], Bound)) -> Result<(), Unproved> {
        let (from, to) = (ClusterSecret::of_texts(from), ClusterSecret::of_texts(to));
        let (asking, challenge) = to.challenge(other_end, [1; 32]);
        let (calling, answer) = from.answer(its_end, [2; 32], &challenge)?;
        assert!(answer.len() <= PROOF_MESSAGE_LEN_MAX);
        calling.judge(&asking.judge(&answer)?)
    }

    #[test]
    fn both_know_that_the_other_knows_the_secret_while_it_is_changed_too() {
        let (old, new) = ("the-secret-of-old-days", "the-secret-of-new-days");
        let before: &[&str] = &[old];
        let between: &[&str] = &[new, old];
        let after: &[&str] = &[new];
        for (one, other) in [
            (before, before),
            (before, between),
            (between, between),
            (between, after),
            (after, after),
        ] {
            assert_eq!(meet((one, PLAIN), (other, PLAIN)), Ok(()), "{one:?} {other:?}");
            assert_eq!(meet((other, PLAIN), (one, PLAIN)), Ok(()), "{one:?} {other:?}");
        }
        for (one, other) in [(before, after), (after, before)] {
            assert_eq!(meet((one, PLAIN), (other, PLAIN)), Err(Unproved::Wrong));
        }
    }

    #[test]
    fn a_proof_is_for_one_connection_and_one_purpose() {
        let secret: &[&str] = &["a-secret-that-both-know"];
        let over = |channel| Bound {
            channel: Some(channel),
            ..PLAIN
        };
        let replication = Bound {
            purpose: Purpose::Replication,
            ..PLAIN
        };
        assert_eq!(meet((secret, over([7; 32])), (secret, over([7; 32]))), Ok(()));
        for (one, other) in [
            (over([7; 32]), over([8; 32])),
            (over([0; 32]), PLAIN),
            (replication, PLAIN),
        ] {
            assert_eq!(meet((secret, one), (secret, other)), Err(Unproved::Wrong));
        }
    }

    /// Of somebody who has heard all that was said, and knows no secret.
    #[test]
    fn nothing_that_was_said_is_a_proof_again() {
        let secret = ClusterSecret::of_texts(&["a-secret-that-both-know"]);
        let (called, challenge) = secret.challenge(PLAIN, [1; 32]);
        let (_, answer) = secret.answer(PLAIN, [2; 32], &challenge).unwrap();
        let verdict = called.judge(&answer).unwrap();
        // The answer to another challenge, replayed.
        let (again, _) = secret.challenge(PLAIN, [3; 32]);
        assert_eq!(again.judge(&answer), Err(Unproved::Wrong));
        // What the called one said, reflected: as an answer to its own challenge.
        let (called, _) = secret.challenge(PLAIN, [1; 32]);
        let reflected = [&MAGIC[..], &[2; 32], &verdict[MAGIC.len()..]].concat();
        assert_eq!(called.judge(&reflected), Err(Unproved::Wrong));
        // A called one that repeats the caller's own proof, or an older verdict.
        let (calling, own) = secret.answer(PLAIN, [2; 32], &challenge).unwrap();
        let reflected = [&MAGIC[..], &own[MAGIC.len() + NONCE_LEN..]].concat();
        assert_eq!(calling.judge(&reflected), Err(Unproved::Wrong));
        let (calling, _) = secret.answer(PLAIN, [9; 32], &challenge).unwrap();
        assert_eq!(calling.judge(&verdict), Err(Unproved::Wrong));
        // Everything with one bit changed, or cut off, or too long.
        for cut in 0..answer.len() {
            let (called, _) = secret.challenge(PLAIN, [1; 32]);
            assert!(called.judge(&answer[..cut]).is_err());
            let (called, _) = secret.challenge(PLAIN, [1; 32]);
            let mut changed = answer.clone();
            changed[cut] ^= 1;
            assert!(called.judge(&changed).is_err());
        }
        let (called, _) = secret.challenge(PLAIN, [1; 32]);
        let long = [&answer[..], &[0; 2 * PROOF_LEN]].concat();
        assert_eq!(called.judge(&long), Err(Unproved::Absent));
        assert!(!format!("{secret:?}").contains("both-know"));
    }
}
