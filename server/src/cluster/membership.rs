//! This broker as one of several: it presents itself to the quorum, does what is agreed on there, and has agreed on what its cores wish.
//!
//! ```text
//! quorum: image, replicas ─► Membership::follow ─► Reconciler: directories ─► cores: assignment, image
//! cores: wishes ─► tend ─► quorum: who is in sync, whose log has failed; and that this broker is there, if it is thought not to be
//! ```
//! Both go on side by side: a quorum that does not answer delays nothing that was agreed on. Each step can be repeated: what could not
//! be done is tried again, and what was wished for is wished for again until a newer state shows that it was decided.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    mem,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::future::{Either, select};
use headwater_engine::{Seldom, disk::Directory};
use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, PartitionIndex, TopicId},
};
use tokio::sync::watch;

use super::{
    assign::{assign, publish, wishes},
    lost::{Lost, to_be_said},
    made::Made,
    own::Own,
    quorum::QuorumHandle,
    reconcile::Reconciler,
    replicas::{IsrChange, Levels, Registration, ReplicaCommand},
    store::{StoreError, TopicStore},
};
use crate::{
    admin_http::LookAtCluster,
    core::mesh::Mesh,
    image::{
        Address, Assignment, ClusterImage, Incarnation, KafkaAddress, Member, PartitionId, Placements, Topic,
        TopicState, Wishes,
    },
    machine,
    model::refusal::Refusal,
};

/// How often the cores are asked what they wish, and what has failed is tried again.
const TEND_EVERY: Duration = Duration::from_millis(100);

/// So long a broker that stops waits until others may lead what it has led.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// Partitions of one order, far from as many as would fit one.
const PARTITIONS_PER_ORDER: usize = 500;

/// What the cores were shown last.
struct Shown {
    image: Arc<ClusterImage>,
    placements: Placements,
}

/// One of several brokers.
pub(crate) struct Membership<D> {
    quorum: QuorumHandle,
    mesh: Mesh,
    reconciler: Reconciler<D>,
    own: Member,
    made: Made,
    /// The last image of which everything is on disk; none before the first.
    done: Option<Arc<ClusterImage>>,
    /// Not everything of what the cores were shown is on disk: it is tried again.
    owes: bool,
    lost: Lost,
    shown: Option<Shown>,
    partitions: Own,
    /// The version that was shown to the cores last.
    followed: watch::Sender<u64>,
    /// Topics that are gone, and of which nothing is left here.
    cleared: watch::Sender<BTreeSet<TopicId>>,
    failing: Seldom,
}

impl<D: Directory> Membership<D> {
    /// Presents this process to the quorum. It is fenced until it [`enters`](Self::enter).
    pub(crate) async fn register(
        store: &mut TopicStore<D>,
        mesh: &Mesh,
        (address, kafka): (Address, Option<KafkaAddress>),
        was_clean: bool,
    ) -> Result<Membership<D>, Refusal> {
        let quorum = store.quorum();
        let identity = quorum.identity();
        let (id, process) = (BrokerId::from(identity.node), machine::uuid());
        let registration = Registration {
            id,
            process,
            store: identity.store.get(),
            opened: quorum.opened(),
            was_clean,
            address,
            rack: store.rack(),
        };
        let levels = Levels::OWN;
        quorum.change_replicas(ReplicaCommand::Support { id, levels }).await?;
        quorum.change_replicas(ReplicaCommand::Register(registration)).await?;
        let replicas = quorum.replicas();
        let registered = replicas.broker(id).filter(|registered| registered.process == process);
        let Some(registered) = registered else {
            let message =
                format!("another process has just become broker {id}: stop one of the two, or give it another id");
            return Err(Refusal::new(ErrorCode::StaleBrokerEpoch, message));
        };
        let own = Member {
            broker: id,
            incarnation: registered.incarnation,
        };
        if let Some(at) = kafka {
            let incarnation = own.incarnation;
            let speaks = ReplicaCommand::SpeaksKafka { id, incarnation, at };
            quorum.change_replicas(speaks).await?;
        }
        let (followed, shows) = watch::channel(0);
        store.joins(shows);
        let reconciler = store.reconciler();
        Ok(Membership {
            mesh: mesh.clone(),
            made: Made::read(&reconciler.disk, &reconciler.directory).await,
            reconciler,
            own,
            done: None,
            owes: false,
            lost: Lost::default(),
            shown: None,
            partitions: Own::default(),
            followed,
            cleared: watch::Sender::default(),
            failing: Seldom::default(),
            quorum,
        })
    }

    /// What this process is told of brokers and replicas now.
    pub(crate) fn assignment(&self) -> Assignment {
        told(&self.quorum, self.own)
    }

    /// The same, for anybody to look.
    pub(crate) fn look(&self) -> LookAtCluster {
        let (quorum, own) = (self.quorum.clone(), self.own);
        Arc::new(move || told(&quorum, own))
    }

    /// Says that this broker is up, and knows the cluster as it is: it may lead, and be in sync.
    pub(crate) async fn enter(&self) -> Result<(), Refusal> {
        enter(&self.quorum, self.own).await
    }

    /// Does what was agreed on: the directories first, then the cores are told. What fails is said, and tried again the next time.
    pub(crate) async fn follow(&mut self) {
        // In this order: what is in the image is placed.
        let image = self.quorum.image();
        let assignment = Arc::new(self.assignment());
        let mut own = mem::take(&mut self.partitions);
        let before = self.shown.as_ref().map(|shown| shown.placements.clone());
        own.learn(self.own.broker, &assignment.placements, &before.unwrap_or_default());
        let is_shown = |shown: &Shown| shown.image.version() == image.version();
        let is_same = self.shown.as_ref().is_some_and(is_shown) && !own.has_got && !own.has_lost;
        let is_all = self.owes || self.shown.is_none();
        self.lost.learns(self.own.broker, &own, &assignment.placements);
        let is_to_be_done = !is_same || !own.changed.is_empty() || self.owes;
        self.owes = false;
        if is_to_be_done {
            let settled = self.settle(&image, &assignment, &own, is_all).await;
            if settled.is_ok() {
                self.done = Some(Arc::clone(&image));
            }
            self.owes_if_failed(settled);
        }
        assign(&self.mesh, &assignment).await;
        if !is_same {
            publish(&self.mesh, Arc::clone(&image)).await;
            self.followed.send_replace(image.version());
        }
        self.shown = Some(Shown {
            image: Arc::clone(&image),
            placements: assignment.placements.clone(),
        });
        if is_to_be_done {
            // They are closed now.
            let removed = self.remove_former(&image, &assignment, &own, is_all).await;
            self.owes_if_failed(removed);
        }
        self.partitions = own;
    }

    fn owes_if_failed(&mut self, done: Result<(), StoreError>) {
        let Err(error) = done else { return };
        self.owes = true;
        if let Some(unsaid) = self.failing.may_speak(machine::now()) {
            tracing::error!(%error, unsaid, "what the cluster has agreed on is not done here; it is tried again");
        }
    }

    /// Makes the disk what the image says, as far as it is this broker's, and has changed, or all of it.
    async fn settle(
        &mut self,
        image: &ClusterImage,
        assignment: &Assignment,
        own: &Own,
        is_all: bool,
    ) -> Result<(), StoreError> {
        self.remove_gone(image).await?;
        let mut has_more = own.has_got || own.has_lost || is_all;
        for topic in image.topics().filter(|topic| topic.state == TopicState::Ready) {
            let was = self.done.as_ref().and_then(|done| done.topic_by_id(topic.id));
            let is_another = is_all || was.is_none_or(|was| !Arc::ptr_eq(was, topic));
            has_more |= is_another;
            let looked_at = |index: &PartitionIndex| {
                let id = PartitionId {
                    topic: topic.id,
                    index: *index,
                };
                is_another || own.changed.contains(&id)
            };
            if !is_another && !own.has_changed(topic.id) {
                continue;
            }
            let new: Vec<PartitionIndex> = topic
                .partitions()
                .filter(looked_at)
                .filter(|index| self.is_to_be_made(topic, *index, assignment))
                .collect();
            if !new.is_empty() {
                self.reconciler.make(topic, &new).await?;
            }
        }
        self.lost.look(&self.reconciler, image).await?;
        if !has_more {
            return Ok(());
        }
        // Not those that only a later image has: they are made with it.
        let is_known = |id: &&PartitionId| image.topic_by_id(id.topic).is_some_and(|topic| topic.has(id.index));
        let made = own.partitions.iter().filter(is_known).copied().collect();
        self.made.note(&self.reconciler.disk, &made).await
    }

    /// Whether a partition may be made if it is not there: it is new, or nobody counts on what it had here. What is missing of one that
    /// is counted on was lost: made anew it would be taken for all that was acknowledged.
    fn is_to_be_made(&self, topic: &Topic, index: PartitionIndex, assignment: &Assignment) -> bool {
        let own = self.own.broker;
        let id = PartitionId { topic: topic.id, index };
        let Some(replicas) = assignment.replicas(id).filter(|replicas| replicas.has(own)) else {
            return false;
        };
        // What a broker has from when it was alone was there before it was placed.
        let was_there = self.done.as_ref().and_then(|done| done.topic_by_id(topic.id));
        let was_there = was_there.is_some_and(|before| before.has(index));
        (self.made.is_new(id) && !was_there) || !replicas.counts_on(own)
    }

    /// Takes away topics that have gone while this process was there. Their partitions are closed first: another topic may have their
    /// names by now.
    async fn remove_gone(&self, image: &ClusterImage) -> Result<(), StoreError> {
        let (Some(done), Some(shown)) = (&self.done, &self.shown) else {
            return Ok(());
        };
        let stays = |topic: &&Arc<Topic>| image.topic_by_id(topic.id).is_some();
        let gone: Vec<&Arc<Topic>> = done.topics().filter(|topic| !stays(topic)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let left = shown.image.topics().filter(stays).cloned();
        let left = ClusterImage::new(shown.image.version(), left).with_rules_of(&shown.image);
        publish(&self.mesh, Arc::new(left)).await;
        for topic in gone {
            self.reconciler.remove(topic).await?;
        }
        Ok(())
    }

    /// Takes away what is here of partitions that others have by now, and of topics that were deleted while this broker was not there.
    async fn remove_former(
        &self,
        image: &ClusterImage,
        assignment: &Assignment,
        own: &Own,
        is_all: bool,
    ) -> Result<(), StoreError> {
        let mut gone = self.quorum.replicas().gone(self.own.broker);
        // What this image still has goes when the next one is followed.
        gone.retain(|topic| image.topic_by_id(*topic).is_none());
        if gone.is_empty() && !own.has_lost && !is_all {
            self.cleared.send_replace(gone);
            return Ok(());
        }
        let listing = self.reconciler.list().await?;
        if !gone.is_empty() {
            let has = |name: &str, index| image.topic(name).is_some_and(|topic| topic.has(index));
            let nobodys = listing.partitions().filter(|(_, name, index)| !has(name, *index));
            self.reconciler.remove_of(&gone, nobodys).await?;
        }
        self.cleared.send_replace(gone);
        let mut moved: BTreeMap<TopicId, Vec<PartitionIndex>> = BTreeMap::new();
        for (_, name, index) in listing.partitions() {
            let topic = image.topic(name);
            let id = topic.map(|topic| PartitionId { topic: topic.id, index });
            if let Some(id) = id.filter(|id| assignment.placements.get(*id).is_some() && !own.partitions.contains(id)) {
                moved.entry(id.topic).or_default().push(index);
            }
        }
        for (topic, partitions) in moved {
            let topic = image.topic_by_id(topic).expect("it was found by its name");
            self.reconciler.remove_partitions(topic, &partitions).await?;
            tracing::info!(topic = %topic.name, ?partitions, "partitions that others have by now are removed here");
        }
        Ok(())
    }

    /// Follows, and tends to what the cores wish, until the broker stops; then others may lead what this one has led.
    pub(crate) async fn run<T>(mut self, stopped: impl Future<Output = T>) {
        let tending = tend(
            self.quorum.clone(),
            self.mesh.clone(),
            self.own,
            (self.cleared.subscribe(), self.lost.shown()),
        );
        tokio::select! {
            biased;
            _ = stopped => {}
            () = self.keep_following() => tracing::error!("the quorum has ended: this broker learns nothing any more"),
            never = tending => match never {},
        }
        self.leave().await;
    }

    /// Returns when nothing can come any more.
    async fn keep_following(&mut self) {
        let mut news = self.quorum.shown();
        loop {
            tokio::select! {
                biased;
                changed = news.images.changed() => if changed.is_err() { return },
                changed = news.replicas.changed() => if changed.is_err() { return },
                () = machine::pause(TEND_EVERY), if self.owes => {}
            }
            self.follow().await;
        }
    }

    async fn leave(self) {
        let Member { broker, incarnation } = self.own;
        let fence = ReplicaCommand::Fence {
            id: broker,
            incarnation,
        };
        let (fenced, late) = (
            pin!(self.quorum.change_replicas(fence)),
            pin!(machine::pause(LEAVE_MAX)),
        );
        match select(fenced, late).await {
            // No image: the cores may be at one that was shown to them just before.
            Either::Left((Ok(()), _)) => assign(&self.mesh, &Arc::new(self.assignment())).await,
            Either::Left((Err(refusal), _)) => {
                tracing::debug!(why = refusal.message, "this broker leaves without a word");
            }
            Either::Right(_) => tracing::debug!("this broker leaves without a word: the quorum does not answer"),
        }
    }
}

fn told(quorum: &QuorumHandle, own: Member) -> Assignment {
    let nothing = || Assignment {
        own,
        brokers: BTreeMap::new(),
        placements: Placements::default(),
    };
    let told = quorum.replicas().assignment(own.broker);
    told.map_or_else(nothing, |told| Assignment { own, ..told })
}

async fn enter(quorum: &QuorumHandle, own: Member) -> Result<(), Refusal> {
    let Member { broker, incarnation } = own;
    let unfence = ReplicaCommand::Unfence {
        id: broker,
        incarnation,
    };
    quorum.change_replicas(unfence).await
}

/// Has agreed on what the cores wish, and that this broker is there.
async fn tend(
    quorum: QuorumHandle,
    mesh: Mesh,
    own: Member,
    (cleared, lost): (
        watch::Receiver<BTreeSet<TopicId>>,
        watch::Receiver<BTreeSet<PartitionId>>,
    ),
) -> Infallible {
    let (refused, replaced) = (Seldom::default(), Seldom::default());
    loop {
        machine::pause(TEND_EVERY).await;
        let registered = quorum
            .replicas()
            .broker(own.broker)
            .map(|broker| (broker.incarnation, broker.is_fenced));
        let done = match registered {
            Some((incarnation, true)) if incarnation == own.incarnation => enter(&quorum, own).await,
            Some((incarnation, false)) if incarnation == own.incarnation => {
                let mut commands = commands(own, wishes(&mesh).await);
                let owed = quorum.replicas().gone(own.broker);
                let topics: Vec<TopicId> = cleared.borrow().intersection(&owed).copied().collect();
                if !topics.is_empty() {
                    let from = own.broker;
                    commands.push(ReplicaCommand::Cleared { from, topics });
                }
                let partitions = to_be_said(own.broker, &lost.borrow(), &quorum.replicas());
                if !partitions.is_empty() {
                    let Member {
                        broker: from,
                        incarnation,
                    } = own;
                    commands.push(ReplicaCommand::Lost {
                        from,
                        incarnation,
                        partitions,
                    });
                }
                propose(&quorum, commands).await
            }
            other => {
                let now: Option<Incarnation> = other.map(|(incarnation, _)| incarnation);
                if let Some(unsaid) = replaced.may_speak(machine::now()) {
                    tracing::error!(own = %own.incarnation, ?now, unsaid,
                        "another process has become this broker: stop one of the two, or give it another id");
                }
                Ok(())
            }
        };
        if let Err(refusal) = done
            && let Some(unsaid) = refused.may_speak(machine::now())
        {
            tracing::warn!(
                why = refusal.message,
                unsaid,
                "the quorum has not taken what this broker wishes; it is tried again"
            );
        }
    }
}

/// What fails now is wished for again.
async fn propose(quorum: &QuorumHandle, commands: Vec<ReplicaCommand>) -> Result<(), Refusal> {
    for command in commands {
        quorum.change_replicas(command).await?;
    }
    Ok(())
}

/// The orders that say what the cores wish: failures first, as somebody else is to lead then.
fn commands(own: Member, wishes: Wishes) -> Vec<ReplicaCommand> {
    let Member {
        broker: from,
        incarnation,
    } = own;
    let Wishes {
        in_sync,
        failed,
        opened,
    } = wishes;
    let report = |failed: &[PartitionId], opened: &[PartitionId]| ReplicaCommand::Report {
        from,
        incarnation,
        failed: failed.to_vec(),
        opened: opened.to_vec(),
    };
    let failed = failed.chunks(PARTITIONS_PER_ORDER).map(|failed| report(failed, &[]));
    let opened = opened.chunks(PARTITIONS_PER_ORDER).map(|opened| report(&[], opened));
    let changes = in_sync.into_iter().map(|(id, wish)| IsrChange {
        id,
        leader_epoch: wish.leader_epoch,
        epoch: wish.epoch,
        stay: wish.stay,
        join: wish.join,
    });
    let changes: Vec<IsrChange> = changes.collect();
    let alter = |changes: &[IsrChange]| ReplicaCommand::Alter {
        from,
        incarnation,
        changes: changes.to_vec(),
    };
    let changes = changes.chunks(PARTITIONS_PER_ORDER).map(alter);
    failed.chain(opened).chain(changes).collect()
}

#[cfg(test)]
mod tests {
    use headwater_protocol::id::{LeaderEpoch, TopicId};

    use super::*;
    use crate::image::{IsrWish, PartitionEpoch};

    #[test]
    fn everything_that_is_wished_for_is_in_one_order_and_failures_come_first() {
        let own = Member {
            broker: BrokerId::new(1),
            incarnation: Incarnation::new(7),
        };
        let id = |index| PartitionId {
            topic: TopicId::new(uuid::Uuid::from_u128(1)),
            index: PartitionIndex::new(index),
        };
        let wish = IsrWish {
            leader_epoch: LeaderEpoch::new(3),
            epoch: PartitionEpoch::new(4),
            stay: vec![own.broker],
            join: vec![(BrokerId::new(2), Incarnation::new(8))],
        };
        let count = PARTITIONS_PER_ORDER as i32 + 1;
        let wishes = Wishes {
            in_sync: (0..count).map(|index| (id(index), wish.clone())).collect(),
            failed: vec![id(0)],
            opened: vec![id(1)],
        };
        let (mut failed, mut opened, mut altered) = (Vec::new(), Vec::new(), Vec::new());
        for command in commands(own, wishes) {
            match command {
                ReplicaCommand::Report { failed: now, .. } if !now.is_empty() => {
                    assert!(altered.is_empty(), "somebody else is to lead before anything else");
                    failed.extend(now);
                }
                ReplicaCommand::Report { opened: now, .. } => opened.extend(now),
                ReplicaCommand::Alter {
                    from,
                    incarnation,
                    changes,
                } => {
                    assert_eq!((from, incarnation), (own.broker, own.incarnation));
                    assert!(changes.len() <= PARTITIONS_PER_ORDER);
                    altered.extend(changes.into_iter().map(|change| change.id));
                }
                other => panic!("nobody wished for {other:?}"),
            }
        }
        assert_eq!((failed, opened), (vec![id(0)], vec![id(1)]));
        assert_eq!(altered, (0..count).map(id).collect::<Vec<_>>());
    }
}
