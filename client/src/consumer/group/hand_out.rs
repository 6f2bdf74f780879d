//! Handing out records: what the application is given, and the note of it in the ledger, which are one step under the ledger's lock.
//!
//! Whatever is awaited here may be dropped. A batch that was taken from the fetcher and may not be handed out goes back to it, if the
//! partition has stayed.

use std::sync::Arc;

use tokio::time::Instant;

use super::GroupConsumer;
use super::ledger::{Claim, Ledger, Shared};
use super::membership::Place;
use crate::consumer::state::Taken;
use crate::consumer::{Consumer, ConsumerRecord, Opened, Records, Skip};
use crate::error::Error;

/// The batch that records are taken from.
pub(super) struct Current {
    pub(super) place: Place,
    pub(super) claim: Claim,
    pub(super) records: Records,
}

/// What comes next.
pub(super) enum Next {
    Batch(Current),
    Skip(Skip),
}

impl GroupConsumer {
    /// The application asks for records: it is done with what it has.
    pub(super) fn poll(&self) -> Result<Polling, Error> {
        let mut ledger = self.shared.ledger.lock();
        if ledger.take_back() {
            self.shared.returned.notify_one();
        }
        if std::mem::take(&mut ledger.is_away) {
            ledger.idle_since = Instant::now();
            self.shared.returned.notify_one();
            return Err(Error::PollIntervalExceeded {
                limit: self.settings.max_poll_interval,
            });
        }
        ledger.is_polled = true;
        Ok(Polling(Arc::clone(&self.shared)))
    }

    /// The next record of the current batch; `None` when another batch is needed.
    pub(super) fn next_of_current(&mut self) -> Option<Result<ConsumerRecord, Error>> {
        let Current { place, claim, records } = self.current.as_mut()?;
        let mut ledger = self.shared.ledger.lock();
        if let Some(error) = ledger.news.pop_front() {
            return Some(Err(error));
        }
        let Some(progress) = ledger.open(place, *claim) else {
            put_back(&self.consumer, &ledger, place, *claim, records);
            drop(ledger);
            self.current = None;
            return None;
        };
        let result = match records.next_owned() {
            Some(Ok(record)) => {
                progress.handed = record.offset.next();
                ledger.in_hand = Some(place.clone());
                return Some(Ok(record));
            }
            Some(Err(error)) => {
                let mut state = self.consumer.shared.state.lock();
                state.halt(progress.index, records.position(), error.clone());
                Some(Err(error))
            }
            None => {
                // Also past what compaction has taken out of the batch's end.
                progress.handed = progress.handed.max(records.next_offset());
                progress.processed = progress.handed;
                None
            }
        };
        drop(ledger);
        self.current = None;
        result
    }

    /// Waits for a batch, a skip, or news. The application is done with what it was handed before.
    pub(super) async fn next(&self) -> Result<Next, Error> {
        loop {
            let (taken, owner) = {
                let mut ledger = self.shared.ledger.lock();
                if let Some(error) = ledger.news.pop_front() {
                    return Err(error);
                }
                if let Some(error) = &ledger.failed {
                    return Err(error.clone());
                }
                let taken = self.consumer.shared.state.lock().take();
                let owner = match &taken {
                    Taken::Batch { index, .. } | Taken::Skip { index, .. } => {
                        ledger.at(*index).map(|(place, held)| (place.clone(), held.claim))
                    }
                    _ => None,
                };
                (taken, owner)
            };
            match (self.consumer.open(taken)?, owner) {
                (Opened::Records(_, records), Some((place, claim))) => {
                    return Ok(Next::Batch(Current { place, claim, records }));
                }
                (Opened::Skip(skip), Some((place, claim))) => {
                    self.pass(&place, claim, &skip);
                    return Ok(Next::Skip(skip));
                }
                (Opened::Records(..) | Opened::Skip(..), None) => {}
                (Opened::Nothing, _) if self.driver.is_finished() => return Err(Error::Closed),
                (Opened::Nothing, _) => self.consumer.shared.arrived.notified().await,
            }
        }
    }

    /// What holds no record is processed once it is passed: else the group would lag behind an end that it has reached.
    fn pass(&self, place: &Place, claim: Claim, skip: &Skip) {
        let mut ledger = self.shared.ledger.lock();
        let held = ledger.partitions.get_mut(place);
        if let Some(progress) = held.filter(|progress| progress.claim == claim) {
            progress.handed = skip.to;
            progress.processed = skip.to;
        }
    }
}

/// The partition may go on here or not: if it does, then with these records.
pub(super) fn put_back(consumer: &Consumer, ledger: &Ledger, place: &Place, claim: Claim, records: &Records) {
    let held = ledger.partitions.get(place).filter(|progress| progress.claim == claim);
    if let Some(progress) = held {
        let mut state = consumer.shared.state.lock();
        state.seek(progress.index, records.position());
    }
}

/// As long as it lives, the application waits for records.
pub(super) struct Polling(Arc<Shared>);

impl Drop for Polling {
    fn drop(&mut self) {
        let mut ledger = self.0.ledger.lock();
        ledger.is_polled = false;
        ledger.idle_since = Instant::now();
        drop(ledger);
    }
}
