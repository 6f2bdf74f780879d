//! Tokens (OAUTHBEARER, RFC 7628, KIP-255): whether one that a client shows was made by an issuer that is trusted, for this cluster, and for
//! now. Nothing here touches a socket of a client.
//!
//! ```text
//! file, URL ─► Fetching (a thread) ─► KeySet ─► Tokens::check: key by its id, algorithm, signature, times, audience, issuer ─► Verified
//!                    ▲ now and then, and when a token names a key that is not known
//! ```
//! While the keys cannot be had again, those from before are in force. How a token may be signed is said by the configuration, and by
//! the kind of the key; a key that both sides know (HS256), and no key at all, are never among it.

mod fetch;
mod keys;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) use self::{
    fetch::Fetching,
    verify::{Refused, Verified},
};
use self::{
    fetch::{Source, Stamp},
    keys::KeySet,
    verify::Rules,
};
use crate::{
    config::{Config, SaslMechanism},
    machine,
};

/// For tokens with unknown keys the keys are fetched again after so long at the earliest, whoever shows how many of them.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What is known of tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    rules: Rules,
    source: Source,
    state: Mutex<State>,
    /// Somebody wants the keys fetched again, or the thread has to end.
    wanted: Condvar,
    fetched: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    keys: Arc<KeySet>,
    /// Of the file that they were read from, when that was begun.
    stamp: Stamp,
    is_wanted: bool,
    /// The thread is at it.
    is_fetching: bool,
    is_over: bool,
    /// When somebody wanted it last.
    asked: Option<Instant>,
}

impl Tokens {
    /// As it is configured; or the setting that is wrong, and why. The keys of a file are read now, those of a URL later.
    pub(crate) fn read(config: &Config) -> Result<Option<Arc<Tokens>>, (&'static str, String)> {
        if !config.security.sasl.has(SaslMechanism::OauthBearer) {
            return Ok(None);
        }
        let source = Source::of(config)?;
        let tokens = Tokens {
            rules: Rules::of(config),
            state: Mutex::new(State {
                // It will be, as soon as there is a thread.
                is_fetching: !source.is_file(),
                ..State::default()
            }),
            source,
            wanted: Condvar::new(),
            fetched: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        if tokens.source.is_file() {
            let stamp = tokens.source.stamp();
            let keys = tokens.source.fetch().map_err(|why| ("security.token_jwks", why))?;
            let mut state = tokens.state();
            (state.keys, state.stamp) = (Arc::new(keys), stamp);
        }
        Ok(Some(Arc::new(tokens)))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Whoever panicked has left it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a token is good, and whose it is.
    pub(crate) fn check(&self, token: &str) -> Result<Verified, Refused> {
        let keys = Arc::clone(&self.state().keys);
        self.rules.check(&keys, token)
    }

    /// How many have brought keys, and how many have not.
    pub(crate) fn fetches(&self) -> (u64, u64) {
        (
            self.fetched.load(Ordering::Acquire),
            self.failed.load(Ordering::Acquire),
        )
    }

    /// Has the keys fetched again, as a token names one that is not known. False if that was done a moment ago, true if it is to be waited for.
    pub(crate) fn ask(&self) -> bool {
        let mut state = self.state();
        if state.is_wanted || state.is_fetching {
            return true;
        }
        if state.asked.is_some_and(|asked| machine::since(asked) < ASK_AGAIN) {
            return false;
        }
        state.asked = Some(machine::now());
        state.is_wanted = true;
        self.wanted.notify_all();
        true
    }

    /// Whether keys are being fetched.
    pub(crate) fn is_under_way(&self) -> bool {
        let state = self.state();
        state.is_wanted || state.is_fetching
    }
}
