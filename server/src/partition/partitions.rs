//! The partitions of a core: which there are, brought in line with the cluster image, and what state each is in.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use headwater_engine::{Journal, Log, LogConfig, LogError, Owner, Signal, disk::Directory as _};
use headwater_protocol::{error::ErrorCode, id::BrokerId};

use super::{beginnings::Beginnings, filing, replicated::Replicated, replication::Lag, served::Partition};
use crate::{
    core::Core,
    image::{Assignment, ClusterImage, Placements, Replicas, Topic, TopicState, Wishes, settings::TopicSettings},
    machine::{Disk, HashMap},
    model::{id::PartitionId, internal, refusal::Refusal},
};

/// Partitions that are opened, and recovered, at the same time: enough to keep the disk busy.
const OPENED_AT_ONCE: usize = 8;

/// It is looked at all partitions whether there is something to wish for once in so many times, which is once in a second.
const LOOKS_AT_ALL: u32 = 10;

/// A partition that this core owns.
#[derive(Debug, Clone)]
pub(crate) enum Owned {
    Online(Rc<Partition>),
    /// It could not be opened; why.
    Offline(Refusal),
}

/// Partitions of a core by their state.
#[derive(Debug, Default)]
pub(crate) struct PartitionCounts {
    /// They can be read.
    pub(crate) open: usize,
    /// Of those, they take no records since a write or flush failed.
    pub(crate) fenced: usize,
    /// Of those, they are not compacted since compaction found bytes that do not read back.
    pub(crate) damaged: usize,
    /// They could not be opened.
    pub(crate) unopened: usize,
    /// This broker leads them.
    pub(crate) led: usize,
    /// Of those, not all replicas are in sync.
    pub(crate) under_replicated: usize,
    /// Of those, fewer are than an acknowledgement takes.
    pub(crate) under_min_isr: usize,
    /// Nobody leads them.
    pub(crate) leaderless: usize,
    /// Of those that this broker leads, how far the follower is behind that is furthest.
    pub(crate) lag_records: u64,
    /// The same in bytes.
    pub(crate) lag_bytes: u64,
    /// The same in time.
    pub(crate) lag: Duration,
    /// Of those that this broker leads, followers that are not in sync, and fetch.
    pub(crate) catching_up: usize,
}

impl PartitionCounts {
    fn count_replicas(&mut self, own: BrokerId, replicas: &Replicas) {
        self.leaderless += usize::from(replicas.leader.is_none());
        if replicas.leader == Some(own) {
            self.led += 1;
            self.under_replicated += usize::from(replicas.isr.len() < replicas.replicas.len());
            self.under_min_isr += usize::from(!replicas.has_quorum());
        }
    }

    fn count_lag(&mut self, partition: &Partition) {
        let Lag {
            least,
            time,
            catching_up,
        } = partition.lag();
        if let Some(least) = least {
            let log = &partition.log;
            let records = log.offsets().end.distance_from(least).unwrap_or(0);
            self.lag_records = self.lag_records.max(records);
            self.lag_bytes = self.lag_bytes.max(log.bytes_from(least));
        }
        self.lag = self.lag.max(time);
        self.catching_up += catching_up;
    }
}

/// The partitions of one core, and the cluster as it is known there.
pub(crate) struct Partitions {
    pub(crate) core: Rc<Core>,
    image: RefCell<Arc<ClusterImage>>,
    /// None: the broker is alone.
    assignment: RefCell<Option<Arc<Assignment>>>,
    /// As it was when an image was applied last.
    applied: RefCell<Placements>,
    /// Partitions of which there may be something to wish for: not all replicas are in sync, or the log has failed.
    unsettled: RefCell<BTreeSet<PartitionId>>,
    /// Times that it was looked for that.
    looks: Cell<u32>,
    /// Logs that have failed in this process, of which the coordinator has perhaps not been told.
    failures: RefCell<BTreeSet<PartitionId>>,
    owned: RefCell<HashMap<PartitionId, Owned>>,
    /// The partition that is being opened again, whose directory must not go meanwhile.
    opening: Cell<Option<PartitionId>>,
    opened: Signal,
    /// What small appends go through, if the core has it.
    journal: OnceCell<Rc<Journal<Disk>>>,
    /// Where producers begin that a partition does not know.
    pub(crate) beginnings: Beginnings,
}

impl Partitions {
    /// None yet. A broker that has no assignment is alone for as long as it runs.
    pub(crate) fn new(core: &Rc<Core>, assignment: Option<Arc<Assignment>>) -> Rc<Partitions> {
        Rc::new(Partitions {
            core: Rc::clone(core),
            image: RefCell::default(),
            assignment: RefCell::new(assignment),
            applied: RefCell::default(),
            unsettled: RefCell::default(),
            looks: Cell::new(0),
            failures: RefCell::default(),
            owned: RefCell::default(),
            opening: Cell::new(None),
            opened: Signal::default(),
            journal: OnceCell::new(),
            beginnings: Beginnings::default(),
        })
    }

    /// Begins the core's journal, before any partition is opened.
    pub(crate) async fn begin_journal(&self) {
        if let Some(journal) = filing::begin(&self.core).await {
            let is_first = self.journal.set(journal).is_ok();
            assert!(is_first, "a core has one journal");
        }
    }

    /// The core's journal, if it has one.
    pub(crate) fn journal(&self) -> Option<Rc<Journal<Disk>>> {
        self.journal.get().cloned()
    }

    /// The cluster as it is known now.
    pub(crate) fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.borrow())
    }

    /// Whether a partition belongs to this core.
    pub(crate) fn is_here(&self, id: PartitionId) -> bool {
        id.owner(self.core.mesh.len()) == self.core.id
    }

    /// Whether this broker has the partition: one that is alone has all.
    fn is_ours(&self, id: PartitionId) -> bool {
        self.assignment.borrow().as_ref().is_none_or(|assignment| {
            let replicas = assignment.placements.get(id);
            replicas.is_some_and(|replicas| replicas.has(assignment.own.broker))
        })
    }

    /// The partition, if this core has it open.
    pub(crate) fn get(&self, id: PartitionId) -> Result<Rc<Partition>, Refusal> {
        match self.owned.borrow().get(&id) {
            Some(Owned::Online(partition)) => Ok(Rc::clone(partition)),
            Some(Owned::Offline(why)) => Err(why.clone()),
            None => Err(self.why_not_here(id)),
        }
    }

    /// The partition, if this core has it open and the broker leads it.
    pub(crate) fn led(&self, id: PartitionId) -> Result<Rc<Partition>, Refusal> {
        let partition = self.get(id)?;
        partition.led()?;
        Ok(partition)
    }

    /// The partition, if this core has it open and consumers may read it here: the broker leads it, or `by_follower`, which says that
    /// the consumer knows whom it asks, it is in sync with the leader and hears from it.
    pub(crate) fn readable(&self, id: PartitionId, by_follower: bool) -> Result<Rc<Partition>, Refusal> {
        let partition = self.get(id)?;
        if let Err(why) = partition.led() {
            let assignment = self.assignment.borrow();
            let is_in_sync = assignment.as_ref().is_some_and(|assignment| assignment.is_in_sync(id));
            if !(by_follower && is_in_sync && partition.hears_from_leader()) {
                return Err(why);
            }
        }
        Ok(partition)
    }

    /// Brokers and replicas as they are known now; `None` if the broker is alone.
    pub(crate) fn assignment(&self) -> Option<Arc<Assignment>> {
        self.assignment.borrow().clone()
    }

    /// Brokers and replicas are as this says from now on. Returns whether that is news to any partition here.
    ///
    /// # Panics
    /// If the broker has begun alone: what it has acknowledged nobody else knows of.
    pub(crate) fn assign(&self, assignment: &Arc<Assignment>) -> bool {
        let before = self.assignment.replace(Some(Arc::clone(assignment)));
        let before = before.expect("a broker that has begun alone stays alone");
        let mut concerned = self.open_partitions();
        if before.own == assignment.own && before.brokers == assignment.brokers {
            let changed = assignment.placements.changed_since(&before.placements);
            concerned.retain(|(id, _)| changed.contains(id));
        }
        for (id, partition) in &concerned {
            self.learn(*id, partition);
        }
        !concerned.is_empty()
    }

    /// Has a partition take note of its replicas, as far as they are known now.
    pub(crate) fn learn(&self, id: PartitionId, partition: &Partition) {
        if let Some(assignment) = self.assignment() {
            partition.learn(&self.core, &assignment);
            self.unsettled.borrow_mut().insert(id);
            if !partition.owes_failure() {
                self.failures.borrow_mut().remove(&id);
            }
        }
    }

    /// A log has failed, and is perhaps not the same when it is opened again.
    pub(crate) fn log_failed(&self, id: PartitionId) {
        self.failures.borrow_mut().insert(id);
        self.unsettled.borrow_mut().insert(id);
    }

    /// What the coordinator should change of the replicas that are here. It looks at those alone that are not settled, and at all of
    /// them now and then: a follower that falls behind makes no noise, and nothing depends on hearing of it at once.
    pub(crate) fn wishes(&self) -> Wishes {
        let mut wishes = Wishes::default();
        let Some(assignment) = self.assignment() else {
            return wishes;
        };
        let owned = self.owned.borrow();
        let looks = self.looks.get();
        self.looks.set(looks.wrapping_add(1));
        let mut unsettled = self.unsettled.take();
        if looks.is_multiple_of(LOOKS_AT_ALL) {
            unsettled = owned.keys().copied().collect();
        }
        unsettled.retain(|id| {
            owned
                .get(id)
                .is_some_and(|owned| self.wish(&assignment, *id, owned, &mut wishes))
        });
        self.unsettled.replace(unsettled);
        wishes
    }

    /// What should be changed of one partition. Returns whether there may be more of that soon.
    fn wish(&self, assignment: &Assignment, id: PartitionId, owned: &Owned, wishes: &mut Wishes) -> bool {
        let own = assignment.own.broker;
        let replicas = assignment.placements.get(id).filter(|replicas| replicas.has(own));
        let Some(replicas) = replicas else {
            return false;
        };
        let is_offline = replicas.offline.contains(&own);
        let (is_well, owes_failure) = match owned {
            Owned::Online(partition) => (partition.log.fence().is_none(), partition.owes_failure()),
            Owned::Offline(_) => (false, self.failures.borrow().contains(&id)),
        };
        if !is_offline && (!is_well || owes_failure) {
            wishes.failed.push(id);
        } else if is_offline && is_well {
            wishes.opened.push(id);
        }
        let wish = match owned {
            Owned::Online(partition) => partition.wish(),
            Owned::Offline(_) => None,
        };
        let is_whole = replicas.leader != Some(own) || replicas.isr.len() == replicas.replicas.len();
        let is_settled = is_well && !owes_failure && !is_offline && is_whole && wish.is_none();
        wishes.in_sync.extend(wish.map(|wish| (id, wish)));
        !is_settled
    }

    fn why_not_here(&self, id: PartitionId) -> Refusal {
        match self.image.borrow().topic_by_id(id.topic) {
            Some(topic) if topic.state == TopicState::Deleting => {
                Refusal::new(ErrorCode::UnknownTopicId, "the topic is being deleted")
            }
            None => Refusal::new(ErrorCode::UnknownTopicId, "no topic has this id (any more)"),
            Some(topic) if !topic.has(id.index) => {
                let message = format!("topic {} has no partition {}", topic.name, id.index);
                Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
            }
            Some(_) => Refusal::new(
                ErrorCode::NotLeaderOrFollower,
                "the partition is not open here at the moment",
            ),
        }
    }

    /// Brings the open partitions in line with the image, and with who has which. One image at a time: a partition would be opened twice.
    pub(crate) async fn apply(&self, image: Arc<ClusterImage>) {
        if image.version() < self.image.borrow().version() {
            return;
        }
        self.core.quotas.apply(image.quotas());
        let before = self.image.replace(Arc::clone(&image));
        let placements = self
            .assignment()
            .map_or_else(Placements::default, |told| told.placements.clone());
        let applied = self.applied.replace(placements.clone());
        // Whatever was to be done for it was done.
        let is_same = |topic: &Arc<Topic>| {
            let was = before.topic_by_id(topic.id);
            was.is_some_and(|was| Arc::ptr_eq(was, topic)) && placements.topic(topic.id) == applied.topic(topic.id)
        };
        let is_gone = |id: &PartitionId| {
            let topic = image.topic_by_id(id.topic);
            topic.is_none_or(|topic| topic.state != TopicState::Ready) || !self.is_ours(*id)
        };
        let gone: Vec<_> = self.owned.borrow_mut().extract_if(|id, _| is_gone(id)).collect();
        for (id, owned) in gone {
            // Its files are removed when this has been applied, and their names may be used again.
            self.not_opening(id).await;
            if let Owned::Online(partition) = owned {
                partition.log.retire().await;
                // Who waits for other replicas is told that there is nothing to wait for.
                partition.acknowledge(&self.core);
            }
        }
        let mut new = Vec::new();
        let ready = image.topics().filter(|topic| topic.state == TopicState::Ready);
        for topic in ready.filter(|topic| !is_same(topic)) {
            let settings = self.settings(topic);
            let config = settings.log_config(&self.core.config);
            for index in topic.partitions() {
                let id = PartitionId { topic: topic.id, index };
                if !self.is_here(id) || !self.is_ours(id) {
                    continue;
                }
                let owned = self.owned.borrow().get(&id).cloned();
                match owned {
                    Some(Owned::Online(partition)) => {
                        if config.keeps_less_than(&partition.log.config()) {
                            partition.retains_early.set(true);
                            self.core.is_needed_early();
                        }
                        partition.log.reconfigure(config.clone());
                        partition.goes_by(&self.core, settings.durability);
                    }
                    Some(Owned::Offline(_)) => {}
                    None => new.push((topic, id)),
                }
            }
        }
        let opened = new
            .into_iter()
            .map(async |(topic, id)| (topic, id, self.open(topic, id).await));
        let mut opened = stream::iter(opened).buffer_unordered(OPENED_AT_ONCE);
        while let Some((topic, id, opened)) = opened.next().await {
            let owned = match opened {
                Ok(partition) => Owned::Online(partition),
                Err(why) => {
                    tracing::error!(topic = %topic.name, partition = %id.index, why = why.message,
                        "a partition is offline; opening it is tried again");
                    self.core.failed.notify();
                    self.unsettled.borrow_mut().insert(id);
                    Owned::Offline(why)
                }
            };
            self.owned.borrow_mut().insert(id, owned);
        }
    }

    fn settings(&self, topic: &Topic) -> TopicSettings {
        TopicSettings::in_force(&topic.overrides, &self.core.config)
    }

    fn log_config(&self, topic: &Topic) -> LogConfig {
        self.settings(topic).log_config(&self.core.config)
    }

    /// Opens a partition, with the settings that its topic has when it is open.
    pub(crate) async fn open(&self, topic: &Topic, id: PartitionId) -> Result<Rc<Partition>, Refusal> {
        let directory = self.core.config.log.directory.join(topic.partition_directory(id.index));
        // Opening would make it, empty, as if nothing had ever been acknowledged.
        let entries = self.core.disk.list(&directory).await.map_err(|error| {
            let message = format!("cannot read the partition's directory {}: {error}", directory.display());
            Refusal::new(ErrorCode::KafkaStorageError, message)
        })?;
        let owner = Owner {
            topic: id.topic,
            partition: id.index,
        };
        let refused = |error: LogError| Refusal::because(error.code(), &error);
        let journal = self.journal();
        if let Some(journal) = &journal {
            // From then on what the journal keeps of the owner belongs here.
            journal.check_undoubted(owner).await.map_err(refused)?;
        }
        let claimed = owner.claim(&self.core.disk, &directory, &entries).await;
        let is_marked = claimed.map_err(refused)?;
        let config = self.log_config(topic);
        // What is kept in a journal has to find its directory again.
        let journal = journal.filter(|_| is_marked).map(|journal| (journal, owner));
        let opened = Log::open_with(
            self.core.disk.clone(),
            directory,
            config,
            self.core.memory.clone(),
            journal,
        )
        .await;
        let (log, recovery) = opened.map_err(|error| {
            self.core.metrics.log_failed(&error);
            Refusal::because(error.code(), &error)
        })?;
        if recovery.scanned_bytes > 0 || recovery.cut.is_some() {
            tracing::info!(topic = %topic.name, partition = %id.index, scanned_bytes = recovery.scanned_bytes,
                cut = ?recovery.cut, end = %log.offsets().end, "a partition was recovered");
        }
        if let Some(now) = self.image.borrow().topic_by_id(id.topic) {
            log.reconfigure(self.log_config(now));
        }
        let replicated = self.assignment().map(|assignment| {
            // What is durable here says nothing of what others have.
            log.hold_high_watermark(recovery.high_watermark);
            Replicated::new(id, assignment.own.broker, self.failures.borrow().contains(&id))
        });
        let partition = Partition::new(log, internal::is_internal(topic.name.as_str()), replicated);
        let image = self.image();
        let now = image.topic_by_id(id.topic).map_or(topic, |now| now);
        partition.goes_by(&self.core, self.settings(now).durability);
        self.learn(id, &partition);
        Ok(partition)
    }

    /// The partition, if it is this core's, and still there.
    pub(crate) fn owned(&self, id: PartitionId) -> Option<Owned> {
        self.owned.borrow().get(&id).cloned()
    }

    /// What has become of a partition, unless it has gone meanwhile.
    pub(crate) fn replace(&self, id: PartitionId, owned: Owned) {
        if let Some(former) = self.owned.borrow_mut().get_mut(&id) {
            *former = owned;
        }
    }

    /// Partitions that are offline or fenced, and why.
    pub(crate) fn failed_partitions(&self) -> HashMap<PartitionId, ErrorCode> {
        let code = |owned: &Owned| match owned {
            Owned::Online(partition) => partition.log.fence().map(|error| error.code()),
            Owned::Offline(why) => Some(why.code),
        };
        let partitions = self.owned.borrow();
        let failed = partitions.iter().filter_map(|(id, owned)| Some((*id, code(owned)?)));
        let failed: HashMap<PartitionId, ErrorCode> = failed.collect();
        self.unsettled.borrow_mut().extend(failed.keys().copied());
        failed
    }

    /// The partition is being opened again until the guard is dropped.
    pub(crate) fn begin_opening(self: &Rc<Self>, id: PartitionId) -> Opening {
        self.opening.set(Some(id));
        Opening {
            partitions: Rc::clone(self),
        }
    }

    /// Resolves when this partition is not being opened again.
    async fn not_opening(&self, id: PartitionId) {
        self.opened.until(|| self.opening.get() != Some(id)).await;
    }

    /// The partitions that are open.
    pub(crate) fn online(&self) -> Vec<Rc<Partition>> {
        let online = |owned: &Owned| match owned {
            Owned::Online(partition) => Some(Rc::clone(partition)),
            Owned::Offline(_) => None,
        };
        self.owned.borrow().values().filter_map(online).collect()
    }

    /// The partitions that are open, with their ids.
    pub(crate) fn open_partitions(&self) -> Vec<(PartitionId, Rc<Partition>)> {
        let online = |(id, owned): (&PartitionId, &Owned)| match owned {
            Owned::Online(partition) => Some((*id, Rc::clone(partition))),
            Owned::Offline(_) => None,
        };
        self.owned.borrow().iter().filter_map(online).collect()
    }

    /// How many partitions are in which state.
    pub(crate) fn counts(&self) -> PartitionCounts {
        let mut counts = PartitionCounts::default();
        let assignment = self.assignment();
        for (id, owned) in self.owned.borrow().iter() {
            match &assignment {
                None => counts.led += 1,
                Some(assignment) => {
                    if let Some(replicas) = assignment.placements.get(*id) {
                        counts.count_replicas(assignment.own.broker, replicas);
                    }
                }
            }
            match owned {
                Owned::Online(partition) => {
                    counts.open += 1;
                    counts.fenced += usize::from(partition.log.is_fenced());
                    counts.damaged += usize::from(partition.is_damaged.get());
                    counts.count_lag(partition);
                }
                Owned::Offline(_) => counts.unopened += 1,
            }
        }
        counts
    }
}

/// A partition that is being opened again.
pub(crate) struct Opening {
    partitions: Rc<Partitions>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.partitions.opening.set(None);
        self.partitions.opened.notify();
    }
}
