//! Where keys come from: a file, or a URL that a thread asks, as whoever answers there may take long.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::{Tokens, keys::KeySet};
use crate::{
    config::{Config, TokenKeys},
    failure::{Part, StopError},
    machine,
};

/// A set of keys is not read beyond this, in bytes.
const KEYS_BYTES_MAX: u64 = 1 << 20;

/// So long an answer may take, with all that leads to it.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// So long after an attempt that has failed the next one comes, if the keys would not be fetched earlier.
const RETRY: Duration = Duration::from_secs(10);

/// How often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether a file is the one that it was.
pub(super) type Stamp = Option<(i64, i64, u64, u64)>;

/// Where keys come from.
pub(super) enum Source {
    File(PathBuf),
    Url {
        url: String,
        agent: ureq::Agent,
        every: Duration,
    },
}

impl std::fmt::Debug for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.shown())
    }
}

impl Source {
    pub(super) fn of(config: &Config) -> Result<Source, (&'static str, String)> {
        let security = &config.security;
        match &security.token_jwks {
            TokenKeys::None => Err(("security.token_jwks", "there are no keys to check tokens by".to_owned())),
            TokenKeys::File(path) => Ok(Source::File(path.into())),
            TokenKeys::Url(url) => Ok(Source::Url {
                url: url.clone(),
                agent: agent(config).map_err(|why| ("security.token_jwks_ca", why))?,
                every: Duration::from_millis(security.token_refresh_ms.get()),
            }),
        }
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Source::File(_))
    }

    fn shown(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Url { url, .. } => url.clone(),
        }
    }

    /// Reads them, or why that cannot be done. Of a URL it takes up to a few seconds.
    pub(super) fn fetch(&self) -> Result<KeySet, String> {
        let shown = self.shown();
        let read = match self {
            Source::File(path) => read_file(path),
            Source::Url { url, agent, .. } => ask(agent, url),
        };
        let bytes = read.map_err(|why| format!("{shown}: {why}"))?;
        KeySet::read(&bytes).map_err(|why| format!("{shown}: {why}"))
    }

    pub(super) fn stamp(&self) -> Stamp {
        let Source::File(path) = self else { return None };
        let look = fs::metadata(path).ok()?;
        Some((look.mtime(), look.mtime_nsec(), look.size(), look.ino()))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > KEYS_BYTES_MAX {
        return Err(format!("it has {size} bytes; at most {KEYS_BYTES_MAX} are read"));
    }
    fs::read(path).map_err(|error| error.to_string())
}

fn ask(agent: &ureq::Agent, url: &str) -> Result<Vec<u8>, String> {
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(KEYS_BYTES_MAX).read_to_vec();
    body.map_err(|error| error.to_string())
}

/// What asks URLs. It trusts the CAs that are named, or those of the system.
fn agent(config: &Config) -> Result<ureq::Agent, String> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let files = &config.security.token_jwks_ca;
    let mut roots = Vec::new();
    for path in files.iter() {
        let fail = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).map_err(fail)? {
            roots.push(Certificate::from_der(&certificate.map_err(fail)?).to_owned());
        }
    }
    if files.is_empty() {
        let of_system = rustls_native_certs::load_native_certs();
        roots.extend(
            of_system
                .certs
                .iter()
                .map(|root| Certificate::from_der(root).to_owned()),
        );
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .build();
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_MAX))
        .max_redirects(0)
        .tls_config(tls)
        .build();
    Ok(agent.into())
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Fetching {
    tokens: Arc<Tokens>,
    part: Part,
}

impl Fetching {
    /// Starts it; the first thing that it does with a URL is to ask it.
    pub(crate) fn start(
        tokens: &Arc<Tokens>,
        tell: impl FnOnce(StopError) + Send + 'static,
    ) -> std::io::Result<Fetching> {
        let fetched = Arc::clone(tokens);
        let part = Part::start("keys of tokens", tell, move || {
            run(&fetched);
            Ok(())
        })?;
        let tokens = Arc::clone(tokens);
        Ok(Fetching { tokens, part })
    }

    pub(crate) fn end(self, deadline: Instant) -> Result<(), StopError> {
        self.tokens.state().is_over = true;
        self.tokens.wanted.notify_all();
        self.part.join(deadline)
    }
}

fn run(tokens: &Tokens) {
    let source = &tokens.source;
    let mut stamp = tokens.state().stamp;
    let mut wait = match source {
        Source::File(_) => LOOK_EVERY,
        Source::Url { .. } => Duration::ZERO,
    };
    while let Some(is_wanted) = next(tokens, wait) {
        match source {
            Source::File(_) => {
                let before = std::mem::replace(&mut stamp, source.stamp());
                if is_wanted || before != stamp {
                    fetch(tokens);
                }
            }
            Source::Url { every, .. } => wait = if fetch(tokens) { *every } else { RETRY.min(*every) },
        }
    }
}

/// Waits for so long, or until somebody wants the keys fetched, which is what it returns; none if it is over.
fn next(tokens: &Tokens, wait: Duration) -> Option<bool> {
    let state = tokens.state();
    let idle = |state: &mut super::State| !state.is_over && !state.is_wanted;
    let waited = tokens.wanted.wait_timeout_while(state, wait, idle);
    let mut state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
    let is_wanted = std::mem::take(&mut state.is_wanted);
    state.is_fetching = is_wanted || !tokens.source.is_file();
    (!state.is_over).then_some(is_wanted)
}

/// Those from before stay in force if there are none to be had.
fn fetch(tokens: &Tokens) -> bool {
    let began = machine::now();
    let fetched = tokens.source.fetch();
    let mut state = tokens.state();
    state.is_fetching = false;
    match fetched {
        Ok(keys) => {
            let count = keys.len();
            state.keys = Arc::new(keys);
            tokens.fetched.fetch_add(1, Ordering::Release);
            let took_ms = machine::since(began).as_millis() as u64;
            tracing::info!(count, took_ms, "the keys of tokens were fetched");
            true
        }
        Err(why) => {
            tokens.failed.fetch_add(1, Ordering::Release);
            tracing::warn!(
                why,
                "the keys of tokens could not be fetched; those from before stay in force"
            );
            false
        }
    }
}
