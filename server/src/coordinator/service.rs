//! Runs the groups of one core: feeds requests, time and news to the shards, and does what they decide.
//!
//! Owned by its core. A shard is there from when its partition of the internal topic was opened and read. Appends are made in
//! the order of the effects and reported in that order. One timer waits for the next deadline of all shards.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

use futures::{
    channel::oneshot,
    future::{Either, select},
};
use headwater_engine::{Signal, Ticket};
use headwater_protocol::{
    error::ErrorCode,
    id::{LeaderEpoch, PartitionIndex},
};

use super::{
    append,
    groups::{
        shard::{Event, Population, Shard},
        step::{Effect, WriteId},
        topics::Topics,
    },
    internal, load,
};
use crate::{
    config::GroupsSection,
    core::{
        Core,
        mesh::{CoreMessage, Forward},
        warn_seldom,
    },
    image::{ClusterImage, TopicState},
    machine::{self, HashMap},
    metrics::GroupOffset,
    model::{
        bounds::AnswerSize,
        group::{Answer, Call, CallId, GroupId, Listed, Moment, Reply, Request, Wanted, refusal},
        id::PartitionId,
        internal::OFFSETS_TOPIC,
        refusal::Refusal,
        transaction::Marker,
    },
    partition::{Partition, Partitions},
};

/// What has been counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) groups: usize,
    pub(crate) members: usize,
    pub(crate) rebalances: u64,
    pub(crate) commits: u64,
    /// Partitions whose groups could not be read.
    pub(crate) unread: usize,
}

/// One time that this core runs the groups of a partition, until the partition is opened anew or led elsewhere. What was begun in one
/// says nothing to the next, though the partition may be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stay(u64);

/// One partition of the internal topic.
#[derive(Debug)]
pub(super) struct Slot {
    stay: Stay,
    pub(super) partition: Rc<Partition>,
    /// The epoch in which this broker leads it. In another one the groups are those of its log then.
    epoch: LeaderEpoch,
    /// The groups, or why there are none.
    pub(super) shard: Result<Shard, Refusal>,
    /// Appends that have not been reported, in order.
    appends: VecDeque<(WriteId, Result<Ticket, ErrorCode>)>,
    is_settling: bool,
}

/// The groups of a core.
pub(crate) struct Service {
    pub(crate) core: Rc<Core>,
    pub(crate) partitions: Rc<Partitions>,
    pub(crate) config: Rc<GroupsSection>,
    pub(super) topics: RefCell<Rc<Topics>>,
    pub(super) slots: RefCell<BTreeMap<PartitionIndex, Slot>>,
    pub(super) population: Population,
    /// Who waits for which partition's groups.
    calls: RefCell<HashMap<CallId, (PartitionIndex, oneshot::Sender<Reply>)>>,
    next_call: Cell<u64>,
    next_stay: Cell<u64>,
    /// When the timer will look, and the way to have it look earlier.
    armed: Cell<Option<Duration>>,
    alarm: Signal,
    began: Instant,
    rebalances: Cell<u64>,
    commits: Cell<u64>,
}

impl Service {
    pub(crate) fn new(partitions: &Rc<Partitions>) -> Rc<Service> {
        let core = &partitions.core;
        Rc::new(Service {
            core: Rc::clone(core),
            partitions: Rc::clone(partitions),
            config: Rc::new(core.config.groups.clone()),
            topics: RefCell::default(),
            slots: RefCell::default(),
            population: Population::default(),
            calls: RefCell::default(),
            next_call: Cell::new(0),
            next_stay: Cell::new(0),
            armed: Cell::new(None),
            alarm: Signal::default(),
            began: machine::now(),
            rebalances: Cell::new(0),
            commits: Cell::new(0),
        })
    }

    pub(super) fn now(&self) -> Moment {
        Moment {
            monotonic: machine::since(self.began),
            clock: machine::wall(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let slots = self.slots.borrow();
        let shards = slots.values().filter_map(|slot| slot.shard.as_ref().ok());
        let is_unread = |slot: &&Slot| {
            let why = slot.shard.as_ref().err();
            why.is_some_and(|refusal| refusal.code != ErrorCode::CoordinatorLoadInProgress)
        };
        Counts {
            unread: slots.values().filter(is_unread).count(),
            groups: self.population.get(),
            members: shards.map(Shard::member_count).sum(),
            rebalances: self.rebalances.get(),
            commits: self.commits.get(),
        }
    }

    /// What groups have committed, at most so many offsets, and how many more there are.
    pub(crate) fn offsets(&self, most: usize) -> (Vec<GroupOffset>, u64) {
        let slots = self.slots.borrow();
        let shards = slots.values().filter_map(|slot| slot.shard.as_ref().ok());
        let mut committed = shards.flat_map(Shard::committed);
        let shown = committed
            .by_ref()
            .take(most)
            .map(|(group, (topic, partition), offset)| GroupOffset {
                group: group.as_str().to_owned(),
                topic: topic.clone(),
                partition: *partition,
                offset,
            });
        (shown.collect(), committed.count() as u64)
    }

    /// The groups of this core that are wanted; an error while one of its partitions is being read.
    pub(crate) fn list(&self, wanted: &Wanted) -> Result<Vec<Listed>, Refusal> {
        let (mut groups, mut size) = (Vec::new(), AnswerSize::default());
        for slot in self.slots.borrow().values() {
            let listed = slot.shard.as_ref().map_err(Clone::clone)?.list();
            for group in listed.filter(|group| wanted.has(group.state)) {
                group.count(&mut size)?;
                groups.push(group);
            }
        }
        Ok(groups)
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

    /// Has the timer look again.
    pub(super) fn shard_is_new(&self) {
        self.alarm.notify();
    }

    /// The partition of a shard that has effects.
    fn partition(&self, index: PartitionIndex) -> Rc<Partition> {
        let slots = self.slots.borrow();
        let slot = slots.get(&index).expect("only a shard in its slot has effects");
        Rc::clone(&slot.partition)
    }

    /// Queues an append to be reported. Returns whose appends a task must be started to report, if one must.
    fn queue(&self, index: PartitionIndex, write: WriteId, ticket: Result<Ticket, ErrorCode>) -> Option<Stay> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&index)?;
        slot.appends.push_back((write, ticket));
        (!std::mem::replace(&mut slot.is_settling, true)).then_some(slot.stay)
    }

    /// Begins a slot whose groups are to be read, unless it has begun. One whose partition was opened anew, or is led anew, begins
    /// again: its groups are what the log says, and whoever waits for them asks again.
    fn begin(&self, index: PartitionIndex, partition: &Rc<Partition>, epoch: LeaderEpoch) -> Option<Stay> {
        let is_it = |slot: &Slot| Rc::ptr_eq(&slot.partition, partition) && slot.epoch == epoch;
        if self.slots.borrow().get(&index).is_some_and(is_it) {
            return None;
        }
        let stay = Stay(self.next_stay.replace(self.next_stay.get() + 1));
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

    /// Another broker leads the partition, and runs its groups.
    fn let_go(&self, index: PartitionIndex) {
        if self.slots.borrow_mut().remove(&index).is_some() {
            self.abandon(index, ErrorCode::NotCoordinator);
        }
    }

    /// Whoever waits for groups of this partition asks again.
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

    /// Whether no other broker can have run the groups of a partition since this one did.
    fn is_sure(&self, index: PartitionIndex) -> bool {
        let slots = self.slots.borrow();
        let is_alone = slots
            .get(&index)
            .is_some_and(|slot| slot.partition.standing().is_none());
        is_alone || self.core.lease.holds()
    }

    fn reply(&self, call: CallId, reply: Reply) {
        if let Ok(Answer::Committed(codes)) = &reply {
            let committed = codes.iter().filter(|code| code.is_none()).count();
            self.commits.set(self.commits.get() + committed as u64);
        }
        // Whoever asked may have gone.
        if let Some((_, sender)) = self.calls.borrow_mut().remove(&call) {
            let _ = sender.send(reply);
        }
    }
}

/// Where a group belongs; an error if there is no internal topic yet.
pub(crate) fn place_of(image: &ClusterImage, group: &GroupId) -> Result<PartitionId, Refusal> {
    let topic = image
        .topic(OFFSETS_TOPIC)
        .filter(|topic| topic.state == TopicState::Ready);
    let topic = topic.ok_or_else(|| refusal(ErrorCode::NotCoordinator))?;
    Ok(PartitionId {
        topic: topic.id,
        index: internal::partition_of(group.as_str(), topic.partition_count),
    })
}

/// Asks a group, on whichever core it runs.
pub(crate) async fn call(service: &Rc<Service>, group: GroupId, request: Request) -> Reply {
    let place = place_of(&service.partitions.image(), &group)?;
    let call = Call { place, group, request };
    let owner = place.owner(service.core.mesh.len());
    if owner == service.core.id {
        return call_here(service, call).await;
    }
    let call = Box::new(call);
    let asked = service
        .core
        .mesh
        .ask(owner, |reply| CoreMessage::Forward(Forward::Group { call, reply }));
    asked.await.unwrap_or_else(|| Err(stopping()))
}

/// Asks a group of this core.
pub(crate) async fn call_here(service: &Rc<Service>, call: Call) -> Reply {
    let Call { place, group, request } = call;
    if matches!(request, Request::Offsets(..)) && !service.is_sure(place.index) {
        let message =
            "the broker has not been heard by the active coordinator of late, and others may run the group: ask again";
        return Err(Refusal::new(ErrorCode::NotCoordinator, message));
    }
    ask(service, place, |call| Event::Call { call, group, request }).await
}

/// Writes a marker into a partition of this core: what was committed in the transaction counts, or never does, once it is durable.
pub(crate) async fn mark(service: &Rc<Service>, place: PartitionId, marker: Marker) -> Result<(), ErrorCode> {
    let outcome = ask(service, place, |call| Event::Mark { call, marker }).await;
    outcome.map(|_| ()).map_err(|refusal| refusal.code)
}

async fn ask(service: &Rc<Service>, place: PartitionId, event: impl FnOnce(CallId) -> Event) -> Reply {
    if let Some(refusal) = unavailable(service, place) {
        return Err(refusal);
    }
    let call = CallId(service.next_call.replace(service.next_call.get() + 1));
    let (sender, reply) = oneshot::channel();
    service.calls.borrow_mut().insert(call, (place.index, sender));
    let _asked = Asked { service, call };
    let effects = service.step(place.index, event(call));
    perform(service, place.index, effects);
    match select(reply, std::pin::pin!(service.core.stopping())).await {
        Either::Left((reply, _)) => reply.unwrap_or_else(|_cancelled| Err(stopping())),
        Either::Right(_) => Err(stopping()),
    }
}

/// A call whose answer is waited for: not that of a member whose connection has gone while it waited for the others.
struct Asked<'a> {
    service: &'a Service,
    call: CallId,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.service.calls.borrow_mut().remove(&self.call);
    }
}

fn stopping() -> Refusal {
    Refusal::new(ErrorCode::CoordinatorNotAvailable, "the broker is stopping")
}

fn unavailable(service: &Service, place: PartitionId) -> Option<Refusal> {
    match service.slots.borrow().get(&place.index) {
        Some(slot) => slot.shard.as_ref().err().cloned(),
        None => match service.partitions.get(place) {
            Ok(partition) if partition.led().is_err() => Some(refusal(ErrorCode::NotCoordinator)),
            // It is being opened.
            Ok(_) => Some(refusal(ErrorCode::CoordinatorLoadInProgress)),
            Err(why) if why.code == ErrorCode::NotLeaderOrFollower => {
                Some(refusal(ErrorCode::CoordinatorLoadInProgress))
            }
            Err(why) => Some(Refusal::new(ErrorCode::CoordinatorNotAvailable, why.message)),
        },
    }
}

/// Does what a shard has decided.
pub(super) fn perform(service: &Rc<Service>, index: PartitionIndex, effects: Vec<Effect>) {
    let core = &service.core;
    for effect in effects {
        match effect {
            Effect::Answer { call, reply } => service.reply(call, reply),
            Effect::Append { write, records, of } => {
                let ticket = append::append(core, &service.partition(index), &records, of);
                settle_later(service, index, write, ticket);
            }
            Effect::AppendMarker { write, marker } => {
                let ticket = service.partition(index).append_marker(core, marker);
                settle_later(service, index, write, ticket);
            }
            Effect::TooLarge { group, size, max } => {
                warn_seldom!(%group, size, max, "the record of a group would be too large, so its members get no partitions");
            }
            Effect::Rebalanced {
                group,
                generation,
                members,
            } => {
                service.rebalances.set(service.rebalances.get() + 1);
                tracing::info!(%group, generation = generation.get(), members, "a group has rebalanced");
            }
        }
    }
}

fn settle_later(service: &Rc<Service>, index: PartitionIndex, write: WriteId, ticket: Result<Ticket, ErrorCode>) {
    if let Some(stay) = service.queue(index, write, ticket) {
        machine::spawn(settle(Rc::clone(service), index, stay));
    }
}

/// Reports appends in their order, until all are settled or the stay is over: the groups of the next know nothing of them.
async fn settle(service: Rc<Service>, index: PartitionIndex, stay: Stay) {
    let core = &service.core;
    let _working = core.working();
    // Whoever has started this is still at the effects that this append was one of.
    machine::yield_now().await;
    while service.is_current(index, stay) {
        let next = {
            let mut slots = service.slots.borrow_mut();
            let Some(slot) = slots.get_mut(&index) else { return };
            let next = slot.appends.pop_front();
            slot.is_settling = next.is_some();
            next
        };
        let Some((write, ticket)) = next else { return };
        let outcome = match ticket {
            Ok(ticket) => ticket.await.map_err(|error| {
                warn_seldom!(partition = %index, %error, "records of groups are not durable");
                error.code()
            }),
            Err(refused) => Err(refused),
        };
        if !service.is_current(index, stay) {
            return;
        }
        let effects = service.step(index, Event::Written { write, outcome });
        perform(&service, index, effects);
    }
}

/// Takes note of a new image: partitions of the internal topic to be read, and topics that others subscribe to.
pub(crate) fn follow(service: &Rc<Service>) {
    let image = service.partitions.image();
    let topics = Topics::of(&image);
    if **service.topics.borrow() != topics {
        let topics = Rc::new(topics);
        *service.topics.borrow_mut() = Rc::clone(&topics);
        let indexes: Vec<PartitionIndex> = service.slots.borrow().keys().copied().collect();
        for index in indexes {
            let effects = service.step(index, Event::Topics(Rc::clone(&topics)));
            perform(service, index, effects);
        }
    }
    let internal = image
        .topic(OFFSETS_TOPIC)
        .filter(|topic| topic.state == TopicState::Ready);
    for index in internal.iter().flat_map(|topic| topic.partitions()) {
        let place = internal.map(|topic| PartitionId { topic: topic.id, index });
        let Some(partition) = place.and_then(|place| service.partitions.get(place).ok()) else {
            continue;
        };
        // A task runs until it waits as soon as it is started, so nothing may be borrowed here.
        match partition.led() {
            Ok(epoch) => {
                if let Some(stay) = service.begin(index, &partition, epoch) {
                    machine::spawn(load::load(Rc::clone(service), (index, stay), partition));
                }
            }
            Err(_elsewhere) => service.let_go(index),
        }
    }
}

/// Wakes shards at their deadlines until the core stops.
pub(crate) async fn keep_time(service: Rc<Service>) {
    loop {
        let alarm = service.alarm.wait();
        let now = service.now().monotonic;
        let deadlines: Vec<(PartitionIndex, Duration)> = {
            let slots = service.slots.borrow();
            let deadline =
                |(index, slot): (&PartitionIndex, &Slot)| Some((*index, slot.shard.as_ref().ok()?.next_deadline()));
            slots.iter().filter_map(deadline).collect()
        };
        for (index, _) in deadlines.iter().filter(|(_, deadline)| *deadline <= now) {
            let effects = service.step(*index, Event::Tick);
            perform(&service, *index, effects);
        }
        if deadlines.iter().any(|(_, deadline)| *deadline <= now) {
            continue;
        }
        let next = deadlines.iter().map(|(_, deadline)| *deadline).min();
        service.armed.set(next);
        let stopping = std::pin::pin!(service.core.stopping());
        let woken = select(alarm, stopping);
        let woken = match next {
            Some(next) => machine::until(service.began + next, woken).await,
            None => Some(woken.await),
        };
        if let Some(Either::Right(_)) = woken {
            return;
        }
    }
}
