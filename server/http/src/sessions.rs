//! One client of the cluster for each user, kept between requests: connections, metadata, a producer.
//!
//! A session is found by a keyed hash of name and password; whoever has the wrong password finds none, and is judged by a broker. The
//! password is in the session's client and nowhere else, as that logs in again on each connection.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use headwater_client::{Client, Error, Producer};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::Instant,
};

use crate::{problem::Problem, settings::Settings};

/// After so long a password is proved again: a former one is out by then.
const PROOF_MAX: Duration = Duration::from_mins(1);

/// A session that nobody has used for so long is closed.
const IDLE_MAX: Duration = Duration::from_mins(5);

/// Logins at one time; each costs the broker thousands of hashes.
const LOGINS_MAX: usize = 32;

/// Where metadata do not say so, a topic is not waited for: somebody would have to make it first.
const METADATA_MAX: Duration = Duration::from_millis(500);

/// Who asks.
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// What is kept for a user.
pub(crate) struct Session {
    client: Client,
    /// Whose; nobody's where nobody is asked.
    user: Option<Arc<str>>,
    producer: OnceCell<Producer>,
    memory_bytes: usize,
    request_time: Duration,
}

impl Session {
    /// The user's client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whose session it is.
    pub(crate) fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    /// Of the user's records, made with the first of them.
    pub(crate) async fn producer(&self) -> Result<&Producer, Error> {
        let make = || {
            let producer = self.client.producer();
            let producer = producer
                .memory_max(self.memory_bytes)
                .delivery_timeout(self.request_time);
            producer.build()
        };
        self.producer.get_or_try_init(make).await
    }
}

/// Two hashes with keys of their own, which nobody outside knows.
type Key = (u64, u64);

struct Kept {
    session: Arc<Session>,
    proved: Instant,
    used: Instant,
}

/// The sessions there are.
pub(crate) struct Sessions {
    settings: Settings,
    keys: (RandomState, RandomState),
    kept: Mutex<HashMap<Key, Kept>>,
    logins: Semaphore,
}

impl Sessions {
    pub(crate) fn new(settings: &Settings) -> Sessions {
        Sessions {
            settings: settings.clone(),
            keys: (RandomState::new(), RandomState::new()),
            kept: Mutex::default(),
            logins: Semaphore::new(LOGINS_MAX),
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of this caller, who proves now, or has proved lately, who it is.
    pub(crate) async fn of(&self, credentials: Option<Credentials>) -> Result<Arc<Session>, Problem> {
        let credentials = match (&self.settings.mechanism, credentials) {
            (None, _) => None,
            (Some(_), Some(credentials)) => Some(credentials),
            (Some(_), None) => return Err(Problem::nobody()),
        };
        let named = credentials.as_ref().map(|own| (&own.user, &own.password));
        let key = (self.keys.0.hash_one(named), self.keys.1.hash_one(named));
        if let Some(session) = self.proved(key, credentials.is_some()) {
            return Ok(session);
        }
        let _login = self.logins.acquire().await.map_err(|_never| Problem::nobody())?;
        // Another request of the same user may have been first.
        if let Some(session) = self.proved(key, credentials.is_some()) {
            return Ok(session);
        }
        let client = match self.log_in(credentials.as_ref()).await {
            Ok(client) => client,
            Err(error) => {
                let problem = Problem::from(error);
                if problem.http_status() == axum::http::StatusCode::UNAUTHORIZED {
                    self.kept().remove(&key);
                }
                return Err(problem);
            }
        };
        Ok(self.keep(key, client, credentials.map(|own| Arc::from(own.user))))
    }

    /// One that needs no proof now.
    fn proved(&self, key: Key, is_asked: bool) -> Option<Arc<Session>> {
        let mut kept = self.kept();
        let found = kept.get_mut(&key)?;
        if is_asked && found.proved.elapsed() > PROOF_MAX {
            return None;
        }
        found.used = Instant::now();
        Some(Arc::clone(&found.session))
    }

    async fn log_in(&self, credentials: Option<&Credentials>) -> Result<Client, Error> {
        let settings = &self.settings;
        let mut builder = Client::builder()
            .bootstrap(settings.bootstrap.iter().cloned())
            .client_id("headwater-http")
            .call_timeout(settings.limits.request_time)
            .bootstrap_timeout(Duration::ZERO)
            .metadata_timeout(METADATA_MAX);
        if let Some((own, mechanism)) = credentials.zip(settings.mechanism) {
            builder = builder
                .user(own.user.as_str(), own.password.as_str())
                .sasl_mechanism(mechanism);
        }
        if let Some(tls) = &settings.broker_tls {
            builder = builder.tls(true);
            if let Some(ca) = &tls.ca {
                builder = builder.tls_ca(ca);
            }
            if let Some((certificate, key)) = &tls.certificate {
                builder = builder.tls_certificate(certificate, key);
            }
        }
        builder.build().await
    }

    /// Keeps a session for this client, or goes on with the one that is there, which has connections already.
    fn keep(&self, key: Key, client: Client, user: Option<Arc<str>>) -> Arc<Session> {
        let mut kept = self.kept();
        let now = Instant::now();
        if let Some(found) = kept.get_mut(&key) {
            (found.proved, found.used) = (now, now);
            return Arc::clone(&found.session);
        }
        while kept.len() >= self.settings.limits.users {
            let idlest = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key);
            let Some(idlest) = idlest else { break };
            kept.remove(&idlest);
        }
        let session = Arc::new(Session {
            client,
            user,
            producer: OnceCell::new(),
            memory_bytes: self.settings.limits.memory_bytes,
            request_time: self.settings.limits.request_time,
        });
        let new = Kept {
            session: Arc::clone(&session),
            proved: now,
            used: now,
        };
        kept.insert(key, new);
        session
    }

    /// Closes those that nobody uses any more.
    pub(crate) fn tidy(&self) {
        self.kept().retain(|_, kept| kept.used.elapsed() < IDLE_MAX);
    }
}
