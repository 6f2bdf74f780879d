//! The transactional ids of one partition of the internal topic: the state machine that everything else is only the driver of.
//!
//! [`Shard::step`] takes an event and the time and returns effects; it never fails and does no I/O. The driver appends records in the
//! order of the effects and reports each append once, in that order, when it is durable or has failed; it writes markers until every
//! partition has its own, and reports each.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use headwater_engine::{Moment, Since};
use headwater_protocol::error::ErrorCode;

use super::{
    record::{Record, State},
    transaction::{BUMPING, Decided, Pending, Then, Transaction},
};
use crate::{
    config::TransactionsSection,
    model::{
        group::{CallId, refusal},
        refusal::Refusal,
        transaction::{Answer, Described, Marker, Phase, Place, Reply, Request, TransactionalId},
    },
};

/// After so long a write that has failed is made again, of those that nobody else asks for.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Names an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteId(u64);

#[derive(Debug)]
pub(crate) enum Event {
    Call {
        call: CallId,
        id: TransactionalId,
        request: Request,
    },
    /// What became of an append.
    Written {
        write: WriteId,
        outcome: Result<(), ErrorCode>,
    },
    /// A partition has its marker, or is gone.
    Marked {
        id: TransactionalId,
        marker: Marker,
        place: Place,
    },
    /// A deadline has come.
    Tick,
}

#[derive(Debug)]
pub(crate) enum Effect {
    Answer {
        call: CallId,
        reply: Reply,
    },
    /// Append this record.
    Append {
        write: WriteId,
        record: Box<Record>,
    },
    /// See to it that these partitions get this marker, however long it takes.
    Mark {
        id: TransactionalId,
        marker: Marker,
        places: BTreeSet<Place>,
    },
}

/// How many transactional ids all shards of a core have.
pub(crate) type Population = Rc<Cell<usize>>;

#[derive(Debug)]
pub(crate) struct Shard {
    config: Rc<TransactionsSection>,
    record_bytes_max: usize,
    coordinator_epoch: i32,
    transactions: BTreeMap<TransactionalId, Transaction>,
    next_write: u64,
    writes: VecDeque<(WriteId, TransactionalId)>,
    due: BTreeSet<(Duration, TransactionalId)>,
    next_expiry: Duration,
    population: Population,
}

impl Shard {
    pub(crate) fn new(
        config: Rc<TransactionsSection>,
        (record_bytes_max, coordinator_epoch): (usize, i32),
        population: Population,
        now: Moment,
    ) -> Shard {
        let next_expiry = now.monotonic + config.id_check_interval_ms.duration();
        Shard {
            config,
            record_bytes_max,
            coordinator_epoch,
            transactions: BTreeMap::new(),
            next_write: 0,
            writes: VecDeque::new(),
            due: BTreeSet::new(),
            next_expiry,
            population,
        }
    }

    /// Takes over a record of the log. All of them come, in order, before the first step.
    pub(crate) fn replay(&mut self, record: Record) {
        match record.value {
            Some(state) => {
                let updated = Since::stored(state.updated);
                self.insert(record.id, Transaction::new(state, updated));
            }
            None => self.remove(&record.id),
        }
    }

    /// All records have been taken over: what was decided goes on.
    pub(crate) fn replayed(&mut self, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let ids: Vec<TransactionalId> = self.transactions.keys().cloned().collect();
        for id in ids {
            self.with(&id, |transaction| {
                if let Phase::Prepare(_) = transaction.state.phase {
                    transaction.unmarked = transaction.state.places.clone();
                }
                transaction.due = transaction.time_out(now);
            });
            self.go_on(&id, now, &mut effects);
        }
        effects
    }

    pub(crate) fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Call { call, id, request } => self.call(call, &id, request, now, &mut effects),
            Event::Written { write, outcome } => self.written(write, outcome, now, &mut effects),
            Event::Marked { id, marker, place } => self.marked(&id, marker, &place, now, &mut effects),
            Event::Tick => self.tick(now, &mut effects),
        }
        effects
    }

    /// When the next tick is due.
    pub(crate) fn next_deadline(&self) -> Duration {
        let first = self.due.first().map(|(at, _)| *at);
        first.map_or(self.next_expiry, |at| at.min(self.next_expiry))
    }

    /// Every transactional id.
    pub(crate) fn list(&self) -> impl Iterator<Item = Described> {
        let known = self.transactions.iter().filter(|(_, known)| !known.is_new());
        known.map(|(id, known)| described(id, &known.state))
    }

    fn insert(&mut self, id: TransactionalId, transaction: Transaction) {
        if self.transactions.insert(id, transaction).is_none() {
            self.population.set(self.population.get() + 1);
        }
    }

    fn remove(&mut self, id: &TransactionalId) {
        if let Some(gone) = self.transactions.remove(id) {
            self.population.set(self.population.get() - 1);
            if let Some(at) = gone.due {
                self.due.remove(&(at, id.clone()));
            }
        }
    }

    /// Lets one change, and keeps its deadline in the queue.
    fn with<T>(&mut self, id: &TransactionalId, act: impl FnOnce(&mut Transaction) -> T) -> Option<T> {
        let transaction = self.transactions.get_mut(id)?;
        let before = transaction.due;
        let done = act(transaction);
        if before != transaction.due {
            let after = transaction.due;
            if let Some(at) = before {
                self.due.remove(&(at, id.clone()));
            }
            if let Some(at) = after {
                self.due.insert((at, id.clone()));
            }
        }
        Some(done)
    }

    fn call(&mut self, call: CallId, id: &TransactionalId, request: Request, now: Moment, effects: &mut Vec<Effect>) {
        let decided = self.decide(call, id, request, now);
        match decided {
            Ok(pending) => self.write(id, pending, effects),
            Err(Ok(answer)) => effects.push(Effect::Answer {
                call,
                reply: Ok(answer),
            }),
            Err(Err(refused)) => effects.push(Effect::Answer {
                call,
                reply: Err(refused),
            }),
        }
    }

    fn decide(
        &mut self,
        call: CallId,
        id: &TransactionalId,
        request: Request,
        now: Moment,
    ) -> Result<Pending, Result<Answer, Refusal>> {
        let clock = now.clock;
        let mapped = |decided: Decided| decided.map_err(|told| told.map_err(refusal));
        if let Request::Init { timeout_ms, .. } = &request {
            self.check_timeout(*timeout_ms).map_err(Err)?;
            if !self.transactions.contains_key(id) {
                self.check_room().map_err(Err)?;
                let new = Transaction::new(State::new(*timeout_ms, clock), Since::now(now));
                self.insert(id.clone(), new);
            }
        }
        let known = self.transactions.get(id);
        let known = known.filter(|known| !known.is_new() || matches!(request, Request::Init { .. }));
        let Some(known) = known else {
            let code = match request {
                Request::Describe => ErrorCode::TransactionalIdNotFound,
                _ => ErrorCode::InvalidProducerIdMapping,
            };
            return Err(Err(refusal(code)));
        };
        let decided = match request {
            Request::Init {
                timeout_ms,
                known: who,
                fresh,
            } => mapped(known.init(call, timeout_ms, (who, fresh), clock)),
            Request::Add {
                producer,
                places,
                adding,
            } => mapped(known.add(call, producer, (&places, adding), clock)),
            Request::End {
                producer,
                end,
                bumps,
                fresh,
            } => mapped(known.end(call, producer, (end, bumps, fresh), clock)),
            Request::Describe => Err(Ok(Answer::Described(described(id, &known.state)))),
        };
        if decided.is_err()
            && self
                .transactions
                .get(id)
                .is_some_and(|known| known.is_new() && known.pending.is_none())
        {
            self.remove(id);
        }
        if let Ok(Pending { next: Some(next), .. }) = &decided {
            self.check_size(id, next).map_err(Err)?;
        }
        decided
    }

    fn check_timeout(&self, timeout_ms: i32) -> Result<(), Refusal> {
        let max = self.config.timeout_ms_max;
        let is_allowed = timeout_ms > 0 && Duration::from_millis(timeout_ms.cast_unsigned().into()) <= max.duration();
        if is_allowed {
            return Ok(());
        }
        let message =
            format!("a transaction time-out of {timeout_ms} ms; allowed is 1ms to {max} (transactions.timeout_ms_max)");
        Err(Refusal::new(ErrorCode::InvalidTransactionTimeout, message))
    }

    fn check_room(&self) -> Result<(), Refusal> {
        if self.population.get() < self.config.ids_max as usize {
            return Ok(());
        }
        let message = format!(
            "the core knows {} transactional ids, as many as it may (transactions.ids_max)",
            self.population.get()
        );
        Err(Refusal::new(ErrorCode::PolicyViolation, message))
    }

    fn check_size(&self, id: &TransactionalId, next: &State) -> Result<(), Refusal> {
        let places = next.places.iter();
        let size = id.as_str().len() + places.map(|(topic, _)| topic.len() + 16).sum::<usize>() + 128;
        if size <= self.record_bytes_max {
            return Ok(());
        }
        let message = "the transaction has more partitions than a record can name: end it earlier";
        Err(Refusal::new(ErrorCode::InvalidRequest, message))
    }

    fn write(&mut self, id: &TransactionalId, pending: Pending, effects: &mut Vec<Effect>) {
        let write = WriteId(self.next_write);
        self.next_write += 1;
        self.writes.push_back((write, id.clone()));
        let record = Box::new(Record {
            id: id.clone(),
            value: pending.next.clone(),
        });
        self.with(id, |transaction| transaction.pending = Some(pending));
        effects.push(Effect::Append { write, record });
    }

    fn written(&mut self, write: WriteId, outcome: Result<(), ErrorCode>, now: Moment, effects: &mut Vec<Effect>) {
        let Some((expected, id)) = self.writes.pop_front() else {
            unreachable!("the outcome of an append that nobody asked for");
        };
        assert_eq!(write, expected, "appends become durable in order");
        let pending = self.with(&id, |transaction| transaction.pending.take()).flatten();
        let Some(Pending { next, then }) = pending else {
            unreachable!("an append of a transactional id that waits for none");
        };
        let answer = |call, reply| Effect::Answer { call, reply };
        if let Err(code) = outcome {
            let code = code_of(code);
            match then {
                Then::Answer(call, _) | Then::Begun(call, _) | Then::Aborting(Some(call)) => {
                    effects.push(answer(call, Err(refusal(code))));
                }
                Then::Aborting(None) | Then::Nobody => {}
            }
            let again = now.monotonic + AGAIN_AFTER;
            let is_new = self.with(&id, |transaction| {
                if matches!(transaction.state.phase, Phase::Ongoing | Phase::Prepare(_)) {
                    transaction.due = Some(transaction.due.map_or(again, |due| due.max(again)));
                }
                transaction.is_new()
            });
            if is_new == Some(true) {
                self.remove(&id);
            }
            return;
        }
        let Some(state) = next else {
            return self.remove(&id);
        };
        let asked_as = match &then {
            Then::Begun(_, epoch) => Some(*epoch),
            _ => None,
        };
        let producer = state.producer;
        self.with(&id, |transaction| transaction.becomes(state, asked_as, now));
        match then {
            Then::Answer(call, told) => effects.push(answer(call, Ok(told))),
            Then::Begun(call, _) => effects.push(answer(call, Ok(Answer::Producer(producer)))),
            Then::Aborting(Some(call)) => {
                effects.push(answer(call, Err(refusal(ErrorCode::ConcurrentTransactions))));
            }
            Then::Aborting(None) | Then::Nobody => {}
        }
        self.go_on(&id, now, effects);
    }

    /// What has been decided is told to the partitions, and is complete once all have their markers.
    fn go_on(&mut self, id: &TransactionalId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(transaction) = self.transactions.get(id) else {
            return;
        };
        let Phase::Prepare(end) = transaction.state.phase else {
            return;
        };
        if !transaction.unmarked.is_empty() {
            effects.push(Effect::Mark {
                id: id.clone(),
                marker: Marker {
                    producer: transaction.state.producer,
                    end,
                    coordinator_epoch: self.coordinator_epoch,
                    is_raised: transaction.state.client_version >= BUMPING,
                },
                places: transaction.unmarked.clone(),
            });
        } else if let Some(pending) = transaction.completed(now.clock) {
            self.write(id, pending, effects);
        }
    }

    fn marked(&mut self, id: &TransactionalId, marker: Marker, place: &Place, now: Moment, effects: &mut Vec<Effect>) {
        let is_last = self.with(id, |transaction| {
            let is_it =
                transaction.state.producer == marker.producer && transaction.state.phase == Phase::Prepare(marker.end);
            is_it && transaction.unmarked.remove(place) && transaction.unmarked.is_empty()
        });
        if is_last == Some(true) {
            self.go_on(id, now, effects);
        }
    }

    fn tick(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        while let Some((at, id)) = self.due.first().cloned() {
            if at > now.monotonic {
                break;
            }
            self.look(&id, now, effects);
        }
        if self.next_expiry <= now.monotonic {
            self.next_expiry = now.monotonic + self.config.id_check_interval_ms.duration();
            self.expire(now, effects);
        }
    }

    fn look(&mut self, id: &TransactionalId, now: Moment, effects: &mut Vec<Effect>) {
        let todo = self.with(id, |transaction| {
            transaction.due = None;
            match transaction.state.phase {
                // It is looked at again when what is under way is settled.
                _ if transaction.pending.is_some() => {
                    transaction.due = Some(now.monotonic + AGAIN_AFTER);
                    None
                }
                Phase::Ongoing => Some(transaction.fence(None, now.clock)),
                _ => transaction.completed(now.clock),
            }
        });
        if let Some(pending) = todo.flatten() {
            self.write(id, pending, effects);
        }
    }

    fn expire(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let expiry = self.config.id_expiry_ms.duration();
        let all = self.transactions.iter_mut();
        let old: Vec<TransactionalId> = all
            .filter_map(|(id, known)| known.is_old(expiry, now).then(|| id.clone()))
            .collect();
        for id in old {
            let pending = Pending {
                next: None,
                then: Then::Nobody,
            };
            self.write(&id, pending, effects);
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.population.set(self.population.get() - self.transactions.len());
    }
}

fn described(id: &TransactionalId, state: &State) -> Described {
    Described {
        id: id.clone(),
        producer: state.producer,
        phase: state.phase,
        timeout_ms: state.timeout_ms,
        began: state.began,
        places: state.places.clone(),
    }
}

/// What a producer is told when a record could not be written: that it may try again, or that it is no use.
fn code_of(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::NotCoordinator | ErrorCode::NotLeaderOrFollower => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => ErrorCode::UnknownServerError,
        _ => ErrorCode::CoordinatorNotAvailable,
    }
}
