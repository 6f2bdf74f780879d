//! Handing out records: what the application is given, and the note of it in the ledger, which are one step under the ledger's lock.
//!
//! Whatever is awaited here may be dropped. A batch that was taken from the fetcher and may not be handed out goes back to it, if the
//! partition has stayed.

use std::sync::Arc;

use futures::FutureExt;

use super::GroupConsumer;
use super::ledger::{Claim, Ledger, Progress, Shared};
use super::membership::Place;
use crate::consumer::state::Taken;
use crate::consumer::{Consumer, ConsumerRecord, Opened, Records, Skip};
use crate::error::Error;
use crate::runtime;

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
            ledger.idle_since = runtime::now();
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
        let Some(&mut Progress { index, handed, .. }) = ledger.open(place, *claim) else {
            put_back(&self.consumer, &ledger, place, *claim, records);
            drop(ledger);
            self.current = None;
            return None;
        };
        let result = match records.next_owned() {
            Some(Ok(record)) => {
                ledger.hand(place, record.offset.next());
                return Some(Ok(record));
            }
            Some(Err(error)) => {
                let mut state = self.consumer.shared.state.lock();
                state.halt(index, records.position(), error.clone());
                Some(Err(error))
            }
            None => {
                // Also past what compaction has taken out of the batch's end.
                ledger.pass(place, handed.max(records.next_offset()));
                None
            }
        };
        drop(ledger);
        self.current = None;
        result
    }

    /// What there is, up to `max` records: waits for the first one only.
    pub(super) async fn hand_out_many(&mut self, max: usize) -> Result<Vec<ConsumerRecord>, Error> {
        let mut records = Vec::new();
        while records.len() < max {
            match self.next_of_current() {
                Some(Ok(record)) => {
                    records.push(record);
                    continue;
                }
                Some(Err(error)) => return self.end_many(records, error),
                None => {}
            }
            let next = if records.is_empty() {
                self.next().await
            } else {
                match self.next().now_or_never() {
                    Some(next) => next,
                    None => break,
                }
            };
            match next {
                Ok(Next::Batch(current)) => self.current = Some(current),
                Ok(Next::Skip(_)) => {}
                Err(error) => return self.end_many(records, error),
            }
        }
        Ok(records)
    }

    /// Records that were handed out are not withheld for an error behind them: that is told by the next call.
    fn end_many(&self, records: Vec<ConsumerRecord>, error: Error) -> Result<Vec<ConsumerRecord>, Error> {
        if records.is_empty() {
            return Err(error);
        }
        self.shared.ledger.lock().news.push_front(error);
        Ok(records)
    }

    /// Waits for a batch, a skip, or news.
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
        let held = ledger.partitions.get(place);
        if held.is_some_and(|progress| progress.claim == claim) {
            ledger.pass(place, skip.to);
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
        ledger.idle_since = runtime::now();
        drop(ledger);
    }
}
