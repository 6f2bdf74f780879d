//! Runs the transactional ids of one core: feeds requests and time to the shards, and does what they decide, as the
//! [service](crate::coordinator::service) of groups does for groups.
//!
//! Owned by its core. A shard is there from when its partition of the internal topic was led here and read. Appends are made in the order
//! of the effects and reported in that order. One timer waits for the next deadline of all shards.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use futures::{
    channel::oneshot,
    future::{Either, select},
};
use headwater_engine::{Moment, Signal, Ticket};
use headwater_protocol::{
    error::ErrorCode,
    id::{LeaderEpoch, PartitionIndex},
};

use super::{
    load,
    marking::Marks,
    shard::{Effect, Event, Population, Shard, WriteId},
};
use crate::{
    config::TransactionsSection,
    coordinator::{append, internal, service::Service},
    core::{
        Core,
        errands::Errands,
        mesh::{CoreMessage, Forward},
        warn_seldom,
    },
    image::{ClusterImage, TopicState},
    machine::{self, HashMap},
    model::{
        bounds::AnswerSize,
        group::{CallId, refusal},
        id::PartitionId,
        internal::TRANSACTIONS_TOPIC,
        refusal::Refusal,
        transaction::{
            Adding, Answer, Call, Described, Errand, Marker, Place, Producer, Reply, Request, TransactionalId,
        },
    },
    partition::{Partition, Partitions},
};

/// Between two attempts to write the markers that are missing; it doubles with each.
const MARK_AGAIN_FIRST: Duration = Duration::from_millis(10);
const MARK_AGAIN_LAST: Duration = Duration::from_secs(1);

/// One time that this core runs the transactional ids of a partition, until the partition is opened anew or led elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stay(u64);

/// One partition of the internal topic.
#[derive(Debug)]
pub(super) struct Slot {
    stay: Stay,
    partition: Rc<Partition>,
    /// The epoch in which this broker leads it.
    epoch: LeaderEpoch,
    /// The ids, or why there are none.
    pub(super) shard: Result<Shard, Refusal>,
    /// Appends that have not been reported, in order.
    appends: VecDeque<(WriteId, Result<Ticket, ErrorCode>)>,
    is_settling: bool,
}

/// The transactional ids of a core.
pub(crate) struct Transactions {
    pub(crate) core: Rc<Core>,
    pub(super) partitions: Rc<Partitions>,
    pub(crate) marks: Marks,
    pub(crate) config: Rc<TransactionsSection>,
    pub(super) slots: RefCell<BTreeMap<PartitionIndex, Slot>>,
    pub(super) population: Population,
    /// Who waits for which partition's ids.
    calls: RefCell<HashMap<CallId, (PartitionIndex, oneshot::Sender<Reply>)>>,
    next: Cell<u64>,
    /// When the timer will look, and the way to have it look earlier.
    armed: Cell<Option<Duration>>,
    alarm: Signal,
    began: Instant,
}

impl Transactions {
    pub(crate) fn new(groups: &Rc<Service>, errands: &Rc<Errands>) -> Rc<Transactions> {
        let core = &groups.core;
        Rc::new(Transactions {
            core: Rc::clone(core),
            partitions: Rc::clone(&groups.partitions),
            marks: Marks {
                core: Rc::clone(core),
                partitions: Rc::clone(&groups.partitions),
                groups: Rc::clone(groups),
                errands: Rc::clone(errands),
            },
            config: Rc::new(core.config.transactions.clone()),
            slots: RefCell::default(),
            population: Population::default(),
            calls: RefCell::default(),
            next: Cell::new(0),
            armed: Cell::new(None),
            alarm: Signal::default(),
            began: machine::now(),
        })
    }

    pub(super) fn now(&self) -> Moment {
        Moment {
            monotonic: machine::since(self.began),
            clock: machine::wall(),
        }
    }

    fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// The transactional ids of this core; an error while one of its partitions is being read.
    pub(crate) fn list(&self) -> Result<Vec<Described>, Refusal> {
        let (mut found, mut size) = (Vec::new(), AnswerSize::default());
        for slot in self.slots.borrow().values() {
            for known in slot.shard.as_ref().map_err(Clone::clone)?.list() {
                let topics = known.places.iter().map(|(topic, _)| topic.len() + 8);
                let len = known.id.as_str().len() + topics.sum::<usize>();
                size.add(len, "ask for those of one state")?;
                found.push(known);
            }
        }
        Ok(found)
    }

    /// Gives an event to a shard. The effects are for [`perform`].
    pub(super) fn step(&self, index: PartitionIndex, event: Event) -> Vec<Effect> {
        let now = self.now();
        let mut slots = self.slots.borrow_mut();
        let Some(Ok(shard)) = slots.get_mut(&index).map(|slot| slot.shard.as_mut()) else {
            return Vec::new();
        };
        let effects = shard.step(event, now);
        let deadline = shard.next_deadline();
        if self.armed.get().is_none_or(|armed| deadline < armed) {
            self.alarm.notify();
        }
        effects
    }

    /// The shard of a stay is there, or it is known why not. Whether it is still wanted.
    pub(super) fn loaded(&self, index: PartitionIndex, stay: Stay, shard: Result<Shard, Refusal>) -> bool {
        let is_current = self.is_current(index, stay);
        if let Some(slot) = self.slots.borrow_mut().get_mut(&index).filter(|_| is_current) {
            slot.shard = shard;
            self.alarm.notify();
        }
        is_current
    }

    /// Queues an append to be reported. Returns whose appends a task must be started to report, if one must.
    fn queue(&self, index: PartitionIndex, write: WriteId, ticket: Result<Ticket, ErrorCode>) -> Option<Stay> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&index)?;
        slot.appends.push_back((write, ticket));
        (!std::mem::replace(&mut slot.is_settling, true)).then_some(slot.stay)
    }

    /// Begins a slot whose ids are to be read, unless it has begun.
    fn begin(&self, index: PartitionIndex, partition: &Rc<Partition>, epoch: LeaderEpoch) -> Option<Stay> {
        let is_it = |slot: &Slot| Rc::ptr_eq(&slot.partition, partition) && slot.epoch == epoch;
        if self.slots.borrow().get(&index).is_some_and(is_it) {
            return None;
        }
        let stay = Stay(self.number());
        let slot = Slot {
            stay,
            partition: Rc::clone(partition),
            epoch,
            shard: Err(refusal(ErrorCode::CoordinatorLoadInProgress)),
            appends: VecDeque::new(),
            is_settling: false,
        };
        self.slots.borrow_mut().insert(index, slot);
        self.abandon(index, ErrorCode::CoordinatorLoadInProgress);
        Some(stay)
    }

    /// Another broker leads the partition, and coordinates its transactions.
    fn let_go(&self, index: PartitionIndex) {
        if self.slots.borrow_mut().remove(&index).is_some() {
            self.abandon(index, ErrorCode::NotCoordinator);
        }
    }

    fn abandon(&self, index: PartitionIndex, code: ErrorCode) {
        let abandoned: Vec<_> = self.calls.borrow_mut().extract_if(|_, (of, _)| *of == index).collect();
        for (_, (_, sender)) in abandoned {
            // Whoever asked may have gone.
            let _ = sender.send(Err(refusal(code)));
        }
    }

    /// Whether the slot is still that of this stay, and this broker leads the partition as it did.
    pub(super) fn is_current(&self, index: PartitionIndex, stay: Stay) -> bool {
        let slots = self.slots.borrow();
        slots
            .get(&index)
            .is_some_and(|slot| slot.stay == stay && slot.partition.led() == Ok(slot.epoch))
    }

    /// Whether no other broker can have run the ids of a partition since this one did.
    fn is_sure(&self, index: PartitionIndex) -> bool {
        let slots = self.slots.borrow();
        let is_alone = slots
            .get(&index)
            .is_some_and(|slot| slot.partition.standing().is_none());
        is_alone || self.core.lease.holds()
    }

    fn reply(&self, call: CallId, reply: Reply) {
        // Whoever asked may have gone.
        if let Some((_, sender)) = self.calls.borrow_mut().remove(&call) {
            let _ = sender.send(reply);
        }
    }
}

/// Where a transactional id belongs; an error if there is no internal topic yet.
pub(crate) fn place_of(image: &ClusterImage, id: &TransactionalId) -> Result<PartitionId, Refusal> {
    let topic = image
        .topic(TRANSACTIONS_TOPIC)
        .filter(|topic| topic.state == TopicState::Ready);
    let topic = topic.ok_or_else(|| refusal(ErrorCode::NotCoordinator))?;
    Ok(PartitionId {
        topic: topic.id,
        index: internal::partition_of(id.as_str(), topic.partition_count),
    })
}

/// Asks the coordinator of a transactional id, if it is on this broker, on whichever core it runs.
pub(crate) async fn call(transactions: &Rc<Transactions>, id: TransactionalId, request: Request) -> Reply {
    let place = place_of(&transactions.partitions.image(), &id)?;
    let call = Call { place, id, request };
    let owner = place.owner(transactions.core.mesh.len());
    if owner == transactions.core.id {
        return call_here(transactions, call).await;
    }
    let call = Box::new(call);
    let asked = transactions.core.mesh.ask(owner, |reply| {
        CoreMessage::Forward(Forward::Transaction { call, reply })
    });
    asked.await.unwrap_or_else(|| Err(stopping()))
}

/// Has the coordinator, wherever it is, make partitions part of a transaction, or say whether they are.
pub(crate) async fn add_anywhere(
    transactions: &Rc<Transactions>,
    id: TransactionalId,
    (producer, places, adding): (Producer, Vec<Place>, Adding),
) -> Result<Vec<ErrorCode>, ErrorCode> {
    let place = place_of(&transactions.partitions.image(), &id).map_err(|refusal| refusal.code)?;
    let assignment = transactions.partitions.assignment();
    let leader = assignment
        .as_ref()
        .map(|assignment| (assignment.leader_of(place), assignment.own.broker));
    let request = Request::Add {
        producer,
        places: places.clone(),
        adding,
    };
    match leader {
        Some((Some((broker, core)), own)) if broker.id != own => {
            let errand = Errand::Add {
                id,
                producer,
                places,
                adding,
            };
            transactions.marks.errands.run((broker.id, core), errand).await
        }
        Some((None, _)) => Err(ErrorCode::CoordinatorNotAvailable),
        _ => match call(transactions, id, request).await {
            Ok(Answer::Added(codes)) => Ok(codes),
            Ok(_) => Err(ErrorCode::UnknownServerError),
            Err(refusal) => Err(refusal.code),
        },
    }
}

/// Asks a transactional id of this core.
pub(crate) async fn call_here(transactions: &Rc<Transactions>, call: Call) -> Reply {
    let Call { place, id, request } = call;
    if let Some(refusal) = unavailable(transactions, place) {
        return Err(refusal);
    }
    // What is answered without a write, such as that a partition is in a transaction.
    let may_read = !matches!(request, Request::Init { .. });
    if may_read && !transactions.is_sure(place.index) {
        let message = "the broker has not been heard by the active coordinator of late, and others may run the transaction: ask again";
        return Err(Refusal::new(ErrorCode::NotCoordinator, message));
    }
    let call = CallId(transactions.number());
    let (sender, reply) = oneshot::channel();
    transactions.calls.borrow_mut().insert(call, (place.index, sender));
    let effects = transactions.step(place.index, Event::Call { call, id, request });
    perform(transactions, place.index, effects);
    match select(reply, pin!(transactions.core.stopping())).await {
        Either::Left((reply, _)) => reply.unwrap_or_else(|_cancelled| Err(stopping())),
        Either::Right(_) => Err(stopping()),
    }
}

fn stopping() -> Refusal {
    Refusal::new(ErrorCode::CoordinatorNotAvailable, "the broker is stopping")
}

fn unavailable(transactions: &Transactions, place: PartitionId) -> Option<Refusal> {
    match transactions.slots.borrow().get(&place.index) {
        Some(slot) => slot.shard.as_ref().err().cloned(),
        None => match transactions.partitions.get(place) {
            Ok(partition) if partition.led().is_err() => Some(refusal(ErrorCode::NotCoordinator)),
            // It is being opened.
            Ok(_) => Some(refusal(ErrorCode::CoordinatorLoadInProgress)),
            Err(why) if why.code == ErrorCode::NotLeaderOrFollower => Some(refusal(ErrorCode::NotCoordinator)),
            Err(why) => Some(Refusal::new(ErrorCode::CoordinatorNotAvailable, why.message)),
        },
    }
}

/// Does what a shard has decided.
pub(super) fn perform(transactions: &Rc<Transactions>, index: PartitionIndex, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::Answer { call, reply } => transactions.reply(call, reply),
            Effect::Append { write, record } => {
                let slots = transactions.slots.borrow();
                let partition = slots.get(&index).map(|slot| Rc::clone(&slot.partition));
                drop(slots);
                let partition = partition.expect("only a shard in its slot has effects");
                let ticket = append::append(&transactions.core, &partition, &[*record], None);
                if let Some(stay) = transactions.queue(index, write, ticket) {
                    machine::spawn(settle(Rc::clone(transactions), index, stay));
                }
            }
            Effect::Mark { id, marker, places } => {
                let stay = transactions.slots.borrow().get(&index).map(|slot| slot.stay);
                let stay = stay.expect("only a shard in its slot has effects");
                let marking = mark(Rc::clone(transactions), (index, stay), (id, marker), places);
                machine::spawn(marking);
            }
        }
    }
}

/// Has partitions get their marker, however often it must be tried, and reports each, until all have it or the stay is over: the next
/// coordinator finds in its log what is to be done.
async fn mark(
    transactions: Rc<Transactions>,
    (index, stay): (PartitionIndex, Stay),
    (id, marker): (TransactionalId, Marker),
    mut places: BTreeSet<Place>,
) {
    let mut wait = MARK_AGAIN_FIRST;
    // Whoever has started this is still at the effects that this was one of.
    machine::yield_now().await;
    while transactions.is_current(index, stay) && !transactions.core.is_stopping() {
        for place in transactions.marks.attempt(marker, &places).await {
            places.remove(&place);
            if !transactions.is_current(index, stay) {
                return;
            }
            let event = Event::Marked {
                id: id.clone(),
                marker,
                place,
            };
            let effects = transactions.step(index, event);
            perform(&transactions, index, effects);
        }
        if places.is_empty() {
            return;
        }
        if wait >= MARK_AGAIN_LAST {
            warn_seldom!(%id, partitions = places.len(), "a transaction has ended, and not all of its partitions can be told; it is tried again");
        }
        machine::until(machine::now() + wait, transactions.core.stopping()).await;
        wait = (wait * 2).min(MARK_AGAIN_LAST);
    }
}

/// Reports appends in their order, until all are settled or the stay is over: the ids of the next know nothing of them.
async fn settle(transactions: Rc<Transactions>, index: PartitionIndex, stay: Stay) {
    let _working = transactions.core.working();
    // Whoever has started this is still at the effects that this append was one of.
    machine::yield_now().await;
    while transactions.is_current(index, stay) {
        let next = {
            let mut slots = transactions.slots.borrow_mut();
            let Some(slot) = slots.get_mut(&index) else { return };
            let next = slot.appends.pop_front();
            slot.is_settling = next.is_some();
            next
        };
        let Some((write, ticket)) = next else { return };
        let outcome = match ticket {
            Ok(ticket) => ticket.await.map_err(|error| {
                warn_seldom!(partition = %index, %error, "records of transactions are not durable");
                error.code()
            }),
            Err(refused) => Err(refused),
        };
        if !transactions.is_current(index, stay) {
            return;
        }
        let effects = transactions.step(index, Event::Written { write, outcome });
        perform(&transactions, index, effects);
    }
}

/// Takes note of a new image: partitions of the internal topic to be read.
pub(crate) fn follow(transactions: &Rc<Transactions>) {
    let image = transactions.partitions.image();
    let internal = image
        .topic(TRANSACTIONS_TOPIC)
        .filter(|topic| topic.state == TopicState::Ready);
    for index in internal.iter().flat_map(|topic| topic.partitions()) {
        let place = internal.map(|topic| PartitionId { topic: topic.id, index });
        let Some(partition) = place.and_then(|place| transactions.partitions.get(place).ok()) else {
            continue;
        };
        // A task runs until it waits as soon as it is started, so nothing may be borrowed here.
        match partition.led() {
            Ok(epoch) => {
                if let Some(stay) = transactions.begin(index, &partition, epoch) {
                    machine::spawn(load::load(Rc::clone(transactions), (index, stay), partition));
                }
            }
            Err(_elsewhere) => transactions.let_go(index),
        }
    }
}

/// Wakes shards at their deadlines until the core stops.
pub(crate) async fn keep_time(transactions: Rc<Transactions>) {
    loop {
        let alarm = transactions.alarm.wait();
        let now = transactions.now().monotonic;
        let deadlines: Vec<(PartitionIndex, Duration)> = {
            let slots = transactions.slots.borrow();
            let deadline =
                |(index, slot): (&PartitionIndex, &Slot)| Some((*index, slot.shard.as_ref().ok()?.next_deadline()));
            slots.iter().filter_map(deadline).collect()
        };
        let due: Vec<PartitionIndex> = deadlines
            .iter()
            .filter_map(|(index, deadline)| (*deadline <= now).then_some(*index))
            .collect();
        for index in &due {
            let effects = transactions.step(*index, Event::Tick);
            perform(&transactions, *index, effects);
        }
        if !due.is_empty() {
            continue;
        }
        let next = deadlines.iter().map(|(_, deadline)| *deadline).min();
        transactions.armed.set(next);
        let stopping = pin!(transactions.core.stopping());
        let woken = select(alarm, stopping);
        let woken = match next {
            Some(next) => machine::until(transactions.began + next, woken).await,
            None => Some(woken.await),
        };
        if let Some(Either::Right(_)) = woken {
            return;
        }
    }
}
