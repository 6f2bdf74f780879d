//! One transactional id: where it is in its life, and the way from there.
//!
//! ```text
//!            first partition                end, time-out, a new self
//! Empty ───────────────────────► Ongoing ────────────────────────────► Prepare(commit or abort)
//!   ▲ new self                      ▲                                       │ every partition has its marker
//!   └────────────────────────────── Complete(commit or abort) ◄─────────────┘
//! ```
//! What is decided is written first; memory changes, and whoever asked is answered, when it is durable. One write of an id is under way
//! at a time: meanwhile others are told to come again. The rules are those of Kafka's `TransactionCoordinator`.

use std::{collections::BTreeSet, time::Duration};

use headwater_engine::{Moment, Since};
use headwater_protocol::{
    error::ErrorCode,
    id::{ProducerEpoch, ProducerId, Timestamp},
};

use super::record::State;
use crate::model::{
    group::CallId,
    transaction::{Adding, Answer, End, Phase, Place, Producer},
};

/// Clients' transactions whose producers go on with another epoch each time (KIP-890).
pub(super) const BUMPING: i16 = 2;

/// The last epoch but one of a producer id; the last is kept for fencing.
const EPOCH_EXHAUSTED: i16 = i16::MAX - 1;

/// What is being written, and what follows once it is durable.
#[derive(Debug)]
pub(super) struct Pending {
    /// None: the id is forgotten.
    pub(super) next: Option<State>,
    pub(super) then: Then,
}

#[derive(Debug)]
pub(super) enum Then {
    Answer(CallId, Answer),
    /// A new self has begun; the epoch that it had before, if it said so.
    Begun(CallId, ProducerEpoch),
    /// Who asked comes again when the abort is through; none asked when the time was up.
    Aborting(Option<CallId>),
    Nobody,
}

#[derive(Debug)]
pub(super) struct Transaction {
    /// What is durable.
    pub(super) state: State,
    pub(super) pending: Option<Pending>,
    /// Those that have no marker yet, of a transaction that has been decided.
    pub(super) unmarked: BTreeSet<Place>,
    /// As which the producer asked for its epoch, so that it may ask again.
    last_epoch: ProducerEpoch,
    pub(super) updated: Since,
    /// When it is to be looked at.
    pub(super) due: Option<Duration>,
}

/// What comes of a request: what is to be written, or the answer.
pub(super) type Decided = Result<Pending, Result<Answer, ErrorCode>>;

fn refuse<T>(code: ErrorCode) -> Result<T, Result<Answer, ErrorCode>> {
    Err(Err(code))
}

impl Transaction {
    pub(super) fn new(state: State, updated: Since) -> Transaction {
        Transaction {
            state,
            pending: None,
            unmarked: BTreeSet::new(),
            last_epoch: ProducerEpoch::NONE,
            updated,
            due: None,
        }
    }

    /// Nothing of it is durable yet.
    pub(super) fn is_new(&self) -> bool {
        self.state.producer == Producer::NONE
    }

    fn is_exhausted(&self) -> bool {
        self.state.producer.epoch.get() >= EPOCH_EXHAUSTED
    }

    pub(super) fn init(
        &self,
        call: CallId,
        timeout_ms: i32,
        (known, fresh): (Option<Producer>, Option<ProducerId>),
        now: Timestamp,
    ) -> Decided {
        if self.pending.is_some() {
            return refuse(ErrorCode::ConcurrentTransactions);
        }
        let own = self.state.producer;
        let is_former = |known: Producer| known.id == self.state.previous && known.epoch.get() >= EPOCH_EXHAUSTED;
        if known.is_some_and(|known| !self.is_new() && known.id != own.id && !is_former(known)) {
            return refuse(ErrorCode::ProducerFenced);
        }
        match self.state.phase {
            Phase::Prepare(_) => refuse(ErrorCode::ConcurrentTransactions),
            Phase::Ongoing if known.is_some_and(|known| known.epoch != own.epoch) => refuse(ErrorCode::ProducerFenced),
            Phase::Ongoing => Ok(self.fence(Some(call), now)),
            Phase::Empty | Phase::Complete(_) => {
                let producer = match known {
                    // It asks again for what it was given.
                    Some(known) if !self.is_new() && known.epoch == self.last_epoch => own,
                    Some(known) if !self.is_new() && known != own => return refuse(ErrorCode::ProducerFenced),
                    _ if self.is_new() || self.is_exhausted() => {
                        let Some(id) = fresh else {
                            return Err(Ok(Answer::NeedsId));
                        };
                        let epoch = ProducerEpoch::new(0);
                        Producer { id, epoch }
                    }
                    _ => bumped(own),
                };
                let previous = if producer.id == own.id {
                    self.state.previous
                } else {
                    own.id
                };
                let next = State {
                    producer,
                    previous,
                    client_version: self.state.client_version,
                    ..State::new(timeout_ms, now)
                };
                let asked_as = known.map_or(ProducerEpoch::NONE, |known| known.epoch);
                Ok(Pending {
                    next: Some(next),
                    then: Then::Begun(call, asked_as),
                })
            }
        }
    }

    /// Aborts what is open, in the name of the next epoch: whoever has the one of now writes nothing more.
    pub(super) fn fence(&self, call: Option<CallId>, now: Timestamp) -> Pending {
        Pending {
            next: Some(State {
                producer: bumped(self.state.producer),
                ..self.ended(End::Abort, now)
            }),
            then: Then::Aborting(call),
        }
    }

    fn ended(&self, end: End, now: Timestamp) -> State {
        State {
            phase: Phase::Prepare(end),
            updated: now,
            client_version: 0,
            ..self.state.clone()
        }
    }

    pub(super) fn add(
        &self,
        call: CallId,
        producer: Producer,
        (places, adding): (&[Place], Adding),
        now: Timestamp,
    ) -> Decided {
        let state = &self.state;
        if producer.id != state.producer.id {
            return refuse(ErrorCode::InvalidProducerIdMapping);
        }
        if producer.epoch != state.producer.epoch {
            return refuse(ErrorCode::ProducerFenced);
        }
        let is_there = |place: &Place| state.phase == Phase::Ongoing && state.places.contains(place);
        let all_there = places.iter().all(is_there);
        if adding == Adding::Verify {
            let is_adding = |pending: &Pending| pending.next.as_ref().is_some_and(|next| next.phase == Phase::Ongoing);
            let is_changing = self.pending.as_ref().is_some_and(|pending| !is_adding(pending));
            if is_changing || matches!(state.phase, Phase::Prepare(_)) {
                return refuse(ErrorCode::ConcurrentTransactions);
            }
            let code = |place| {
                if is_there(place) {
                    ErrorCode::None
                } else {
                    ErrorCode::TransactionAbortable
                }
            };
            return Err(Ok(Answer::Added(places.iter().map(code).collect())));
        }
        if self.pending.is_some() || matches!(state.phase, Phase::Prepare(_)) {
            return refuse(ErrorCode::ConcurrentTransactions);
        }
        let added = Answer::Added(vec![ErrorCode::None; places.len()]);
        if all_there {
            return Err(Ok(added));
        }
        let is_first = state.phase != Phase::Ongoing;
        let mut next = State {
            phase: Phase::Ongoing,
            updated: now,
            began: if is_first { now } else { state.began },
            ..state.clone()
        };
        next.places.extend(places.iter().cloned());
        Ok(Pending {
            next: Some(next),
            then: Then::Answer(call, added),
        })
    }

    pub(super) fn end(
        &self,
        call: CallId,
        producer: Producer,
        (end, bumps, fresh): (End, bool, Option<ProducerId>),
        now: Timestamp,
    ) -> Decided {
        let own = self.state.producer;
        // It ends again what it has ended, and was not told as whom it goes on: nobody has begun, or ended another, since.
        let has_bumped = bumps
            && self.state.client_version == BUMPING
            && matches!(self.state.phase, Phase::Prepare(_) | Phase::Complete(_));
        let is_former = has_bumped && producer.id == self.state.previous && own.epoch.get() == 0;
        if producer.id != own.id && !is_former {
            return refuse(ErrorCode::InvalidProducerIdMapping);
        }
        let is_next = producer.epoch.get().checked_add(1) == Some(own.epoch.get());
        let is_again = is_former || (has_bumped && is_next);
        if (producer.id, producer.epoch) != (own.id, own.epoch) && !is_again {
            return refuse(ErrorCode::ProducerFenced);
        }
        if self.pending.is_some() {
            return refuse(ErrorCode::ConcurrentTransactions);
        }
        match self.state.phase {
            Phase::Ongoing => self.ends(call, (end, bumps, fresh), now),
            Phase::Prepare(decided) if decided == end => refuse(ErrorCode::ConcurrentTransactions),
            Phase::Complete(done) if done == end && (is_again || !bumps) => Err(Ok(Answer::Ended(own))),
            // Nothing was done, and the epoch rises all the same.
            Phase::Empty | Phase::Complete(_) if bumps && !is_again && end == End::Abort => {
                self.ends(call, (end, bumps, fresh), now)
            }
            _ => refuse(ErrorCode::InvalidTxnState),
        }
    }

    fn ends(&self, call: CallId, (end, bumps, fresh): (End, bool, Option<ProducerId>), now: Timestamp) -> Decided {
        let mut next = self.ended(end, now);
        let mut goes_on = next.producer;
        if bumps {
            next.client_version = BUMPING;
            if self.is_exhausted() {
                let Some(id) = fresh else {
                    return Err(Ok(Answer::NeedsId));
                };
                next.next = id;
                goes_on = Producer {
                    id,
                    epoch: ProducerEpoch::new(0),
                };
            }
            next.producer = bumped(next.producer);
            if !next.next.is_some() {
                goes_on = next.producer;
            }
        }
        Ok(Pending {
            next: Some(next),
            then: Then::Answer(call, Answer::Ended(goes_on)),
        })
    }

    /// Every partition has its marker.
    pub(super) fn completed(&self, now: Timestamp) -> Option<Pending> {
        let Phase::Prepare(end) = self.state.phase else {
            return None;
        };
        if self.pending.is_some() || !self.unmarked.is_empty() {
            return None;
        }
        let mut next = State {
            phase: Phase::Complete(end),
            places: BTreeSet::new(),
            updated: now,
            ..self.state.clone()
        };
        if next.next.is_some() {
            next.previous = next.producer.id;
            next.producer = Producer {
                id: std::mem::replace(&mut next.next, ProducerId::NONE),
                epoch: ProducerEpoch::new(0),
            };
        }
        Some(Pending {
            next: Some(next),
            then: Then::Nobody,
        })
    }

    /// What was written is durable, and counts. `asked_as` is the epoch of whoever has begun anew.
    pub(super) fn becomes(&mut self, state: State, asked_as: Option<ProducerEpoch>, now: Moment) {
        if let Some(epoch) = asked_as {
            self.last_epoch = epoch;
        } else if state.producer != self.state.producer {
            self.last_epoch = ProducerEpoch::NONE;
        }
        self.unmarked = match state.phase {
            Phase::Prepare(_) => state.places.clone(),
            _ => BTreeSet::new(),
        };
        self.state = state;
        self.updated = Since::now(now);
        self.due = self.time_out(now);
    }

    /// When a transaction that is open has been so for too long.
    pub(super) fn time_out(&self, now: Moment) -> Option<Duration> {
        if self.state.phase != Phase::Ongoing {
            return None;
        }
        let age = Since::stored(self.state.began).age(now);
        let timeout = Duration::from_millis(self.state.timeout_ms.max(0).cast_unsigned().into());
        Some(now.monotonic + timeout.saturating_sub(age))
    }

    /// May be forgotten, as nobody has used it for so long.
    pub(super) fn is_old(&mut self, expiry: Duration, now: Moment) -> bool {
        let is_idle = matches!(self.state.phase, Phase::Empty | Phase::Complete(_));
        is_idle && self.pending.is_none() && self.updated.age(now) >= expiry
    }
}

fn bumped(producer: Producer) -> Producer {
    Producer {
        epoch: ProducerEpoch::new(producer.epoch.get().saturating_add(1)),
        ..producer
    }
}
