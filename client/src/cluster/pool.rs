//! One connection to each listener, made when first needed and again after it was lost.
//!
//! Callers that need the same connection at once share one attempt. After a failed attempt the next callers get its
//! error at once, for a time that grows with each failure: a thousand partitions must not mean a thousand attempts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::cluster::watch::SILENT_AFTER;
use crate::connection::{Connection, ConnectionSettings};
use crate::deadline::{Backoff, BackoffLimits};
use crate::error::Error;
use crate::runtime::sync::Mutex;
use crate::runtime::transport::Connector;
use crate::runtime::{self, Instant};
use crate::statistics::{AddressStatistics, Traffic};

pub(crate) struct Pool {
    connector: Arc<dyn Connector>,
    settings: ConnectionSettings,
    backoff: BackoffLimits,
    slots: Mutex<BTreeMap<Address, Arc<Slot>>>,
}

struct Slot {
    current: Mutex<Option<Connection>>,
    past: Mutex<Past>,
    /// Held while connecting.
    attempts: tokio::sync::Mutex<Attempts>,
}

/// What was counted of the connections before the current one, and of attempts.
#[derive(Default)]
struct Past {
    traffic: Traffic,
    connects: u64,
    connect_failures: u64,
    losses: u64,
}

struct Attempts {
    backoff: Backoff,
    /// The last failure, and until when it stands.
    failed: Option<(Error, Instant)>,
    /// Since when there is no connection though one is wanted, which was said.
    away_since: Option<Instant>,
}

impl Pool {
    pub(crate) fn new(connector: Arc<dyn Connector>, settings: ConnectionSettings, backoff: BackoffLimits) -> Self {
        Self {
            connector,
            settings,
            backoff,
            slots: Mutex::default(),
        }
    }

    /// Connections on which a request has waited for long, and how long.
    pub(crate) fn silent(&self) -> Vec<(Address, Duration)> {
        let slots = self.slots.lock();
        let waited = |(address, slot): (&Address, &Arc<Slot>)| {
            let waited = slot.open()?.waits_for().filter(|waited| *waited >= SILENT_AFTER)?;
            Some((address.clone(), waited))
        };
        slots.iter().filter_map(waited).collect()
    }

    /// Ends the connection, if there is one, and every open request on it with this error.
    pub(crate) fn close(&self, address: &Address, error: &Error) {
        if let Some(connection) = self.open(address) {
            connection.close(error);
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
            && runtime::now() < *until
        {
            return Err(error.clone());
        }
        let lost_at = slot.current.lock().as_ref().and_then(Connection::lost_at);
        attempts.away_since = attempts.away_since.or(lost_at);
        match Connection::open(&*self.connector, address, &self.settings).await {
            Ok(connection) => {
                attempts.failed = None;
                attempts.backoff.reset();
                if let Some(since) = attempts.away_since.take() {
                    tracing::info!(%address, after = ?runtime::since(since), "connected again: what was in flight is sent again");
                }
                slot.replace(&connection);
                Ok(connection)
            }
            Err(error) => {
                attempts.tell(address, &error);
                let until = runtime::now() + attempts.backoff.next_pause();
                attempts.failed = Some((error.clone(), until));
                slot.past.lock().connect_failures += 1;
                Err(error)
            }
        }
    }

    /// The connection to the listener, if there is one already.
    pub(crate) fn open(&self, address: &Address) -> Option<Connection> {
        self.slots.lock().get(address).and_then(|slot| slot.open())
    }

    /// What has passed between this client and each address.
    pub(crate) fn statistics(&self) -> Vec<AddressStatistics> {
        let slots: Vec<_> = self
            .slots
            .lock()
            .iter()
            .map(|(address, slot)| (address.clone(), Arc::clone(slot)))
            .collect();
        let mut all: Vec<_> = slots
            .into_iter()
            .map(|(address, slot)| slot.statistics(address))
            .collect();
        all.sort_by(|one, other| one.address.cmp(&other.address));
        all
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
            past: Mutex::default(),
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
        self.away_since = Some(runtime::now());
        let cause = std::error::Error::source(error).map(tracing::field::display);
        tracing::warn!(%address, %error, cause, "cannot connect; it is tried again while somebody waits for it");
    }
}

impl Slot {
    /// Makes this the current connection. The one before was lost, as nobody else closes those of the pool.
    fn replace(&self, connection: &Connection) {
        let mut past = self.past.lock();
        past.connects += 1;
        if let Some(lost) = self.current.lock().replace(connection.clone()) {
            past.losses += 1;
            lost.add_traffic(&mut past.traffic);
        }
    }

    fn statistics(&self, address: Address) -> AddressStatistics {
        // Both at once, so that no connection is counted twice.
        let past = self.past.lock();
        let current = self.current.lock().clone();
        let mut traffic = Traffic::default();
        traffic.add(&past.traffic);
        let in_flight = current.as_ref().map_or(0, |current| current.add_traffic(&mut traffic));
        let is_lost = current.as_ref().is_some_and(Connection::is_closed);
        AddressStatistics {
            address,
            is_connected: current.is_some() && !is_lost,
            connects: past.connects,
            connect_failures: past.connect_failures,
            losses: past.losses + u64::from(is_lost),
            requests: traffic.requests,
            in_flight,
            round_trip: traffic.round_trips.snapshot(),
        }
    }

    fn open(&self) -> Option<Connection> {
        self.current
            .lock()
            .as_ref()
            .filter(|connection| !connection.is_closed())
            .cloned()
    }
}
