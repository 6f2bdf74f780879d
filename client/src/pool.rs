//! One connection to each listener, made when first needed and again after it was lost.
//!
//! Callers that need the same connection at once share one attempt. After a failed attempt the next callers get its
//! error at once, for a time that grows with each failure: a thousand partitions must not mean a thousand attempts.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::address::Address;
use crate::connection::{Connection, ConnectionLimits};
use crate::deadline::{Backoff, BackoffLimits};
use crate::error::Error;
use crate::sync::Mutex;
use crate::transport::Connector;

pub(crate) struct Pool {
    connector: Arc<dyn Connector>,
    limits: ConnectionLimits,
    backoff: BackoffLimits,
    slots: Mutex<HashMap<Address, Arc<Slot>>>,
}

struct Slot {
    current: Mutex<Option<Connection>>,
    /// Held while connecting.
    attempts: tokio::sync::Mutex<Attempts>,
}

struct Attempts {
    backoff: Backoff,
    /// The last failure, and until when it stands.
    failed: Option<(Error, Instant)>,
    /// Since when there is no connection though one is wanted, which was said.
    away_since: Option<Instant>,
}

impl Pool {
    pub(crate) fn new(connector: Arc<dyn Connector>, limits: ConnectionLimits, backoff: BackoffLimits) -> Self {
        Self {
            connector,
            limits,
            backoff,
            slots: Mutex::default(),
        }
    }

    /// An open connection to the listener. May be cancelled.
    pub(crate) async fn get(&self, address: &Address) -> Result<Connection, Error> {
        let slot = self.slot(address);
        if let Some(connection) = slot.open() {
            return Ok(connection);
        }
        let mut attempts = slot.attempts.lock().await;
        // Another caller may have connected, or failed, while this one waited its turn.
        if let Some(connection) = slot.open() {
            return Ok(connection);
        }
        if let Some((error, until)) = &attempts.failed
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        let lost_at = slot.current.lock().as_ref().and_then(Connection::lost_at);
        attempts.away_since = attempts.away_since.or(lost_at);
        match Connection::open(&*self.connector, address, self.limits).await {
            Ok(connection) => {
                attempts.failed = None;
                attempts.backoff.reset();
                if let Some(since) = attempts.away_since.take() {
                    tracing::info!(%address, after = ?since.elapsed(), "connected again: what was in flight is sent again");
                }
                *slot.current.lock() = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                attempts.tell(address, &error);
                let until = Instant::now() + attempts.backoff.next_pause();
                attempts.failed = Some((error.clone(), until));
                Err(error)
            }
        }
    }

    /// The connection to the listener, if there is one already.
    pub(crate) fn open(&self, address: &Address) -> Option<Connection> {
        self.slots.lock().get(address).and_then(|slot| slot.open())
    }

    fn slot(&self, address: &Address) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(address) {
            return Arc::clone(slot);
        }
        let attempts = Attempts {
            backoff: Backoff::new(self.backoff),
            failed: None,
            away_since: None,
        };
        let slot = Arc::new(Slot {
            current: Mutex::default(),
            attempts: tokio::sync::Mutex::new(attempts),
        });
        slots.insert(address.clone(), Arc::clone(&slot));
        slot
    }
}

impl Attempts {
    /// Says once that there is no connection; the attempts that follow are of no interest.
    fn tell(&mut self, address: &Address, error: &Error) {
        if self.away_since.is_some() {
            tracing::debug!(%address, %error, "cannot connect");
            return;
        }
        self.away_since = Some(Instant::now());
        let cause = std::error::Error::source(error).map(tracing::field::display);
        tracing::warn!(%address, %error, cause, "cannot connect; it is tried again while somebody waits for it");
    }
}

impl Slot {
    fn open(&self) -> Option<Connection> {
        self.current
            .lock()
            .as_ref()
            .filter(|connection| !connection.is_closed())
            .cloned()
    }
}
