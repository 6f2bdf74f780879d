//! All brokers and all partitions, and what a command makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_protocol::id::{BrokerId, PartitionIndex, TopicId};

use super::{
    check::{are_distinct, check_kafka, check_registration, check_terms},
    command::{Election, IsrChange, Registration, ReplicaCommand},
    error::ReplicaError,
    features::Features,
    transition::{self, change},
};
use crate::{
    image::{Assignment, Broker, Durability, Incarnation, Member, Placed, Placements, Replicas, Terms},
    model::id::PartitionId,
};

/// Brokers of one cluster.
pub(super) const BROKERS_MAX: usize = 1024;
/// Topics that are gone and that some broker may still have on its disk. The disks of brokers that never come back are nobody's.
const GONE_MAX: usize = 10_000;

/// What a command has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// A broker is another than it was.
    pub(crate) broker: Option<BrokerId>,
    /// Partitions whose replicas are others than they were.
    pub(crate) changed: BTreeSet<PartitionId>,
    /// Partitions for which it is refused, and why.
    pub(crate) refused: Vec<(PartitionId, ReplicaError)>,
}

/// The brokers, and the replicas of every partition. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplicaMap {
    pub(super) brokers: BTreeMap<BrokerId, Arc<Broker>>,
    pub(super) placements: Placements,
    /// Processes that have ever registered.
    pub(super) registered: u64,
    /// Topics that are gone, and the brokers that had them and have not said yet that nothing is left.
    pub(super) gone: BTreeMap<TopicId, Vec<BrokerId>>,
    pub(super) features: Features,
}

impl ReplicaMap {
    /// A broker.
    pub(crate) fn broker(&self, id: BrokerId) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }

    /// All brokers.
    pub(crate) fn brokers(&self) -> impl ExactSizeIterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    /// The replicas of a topic's partitions, in order; none if it is not placed.
    pub(crate) fn replicas_of(&self, topic: TopicId) -> &[Arc<Replicas>] {
        self.placements.topic(topic).map_or(&[], |placed| &placed.partitions)
    }

    /// The replicas of a partition.
    pub(crate) fn replicas(&self, id: PartitionId) -> Option<&Replicas> {
        self.placements.get(id)
    }

    /// The replicas of every partition.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Replicas)> {
        self.placements.iter()
    }

    /// The cluster's feature level, and what its brokers can do.
    pub(crate) fn features(&self) -> &Features {
        &self.features
    }

    /// Topics that are gone, of which the broker may still have something.
    pub(crate) fn gone(&self, broker: BrokerId) -> BTreeSet<TopicId> {
        let gone = self.gone.iter().filter(|(_, brokers)| brokers.contains(&broker));
        gone.map(|(topic, _)| *topic).collect()
    }

    /// What a broker is told of all this, as the process that is registered; `None` if it is not.
    pub(crate) fn assignment(&self, id: BrokerId) -> Option<Assignment> {
        let incarnation = self.broker(id)?.incarnation;
        Some(Assignment {
            own: Member {
                broker: id,
                incarnation,
            },
            brokers: self.brokers.clone(),
            placements: self.placements.clone(),
        })
    }

    /// Whether a broker can be in sync.
    fn is_up(&self, id: BrokerId) -> bool {
        self.broker(id).is_some_and(|broker| !broker.is_fenced)
    }

    /// The state after a command, and what that has changed; or why it cannot be.
    pub(crate) fn apply(&self, command: &ReplicaCommand) -> Result<(ReplicaMap, Applied), ReplicaError> {
        let mut next = self.clone();
        let mut applied = Applied::default();
        next.take(command, &mut applied)?;
        Ok((next, applied))
    }

    fn take(&mut self, command: &ReplicaCommand, applied: &mut Applied) -> Result<(), ReplicaError> {
        use ReplicaCommand as Command;
        match command {
            Command::Register(registration) => self.register(registration, applied),
            Command::Fence { id, incarnation } => self.set_fenced(*id, *incarnation, true, applied),
            Command::Unfence { id, incarnation } => self.set_fenced(*id, *incarnation, false, applied),
            Command::Cordon { id, is_cordoned } => self.cordon(*id, *is_cordoned, applied),
            Command::Forget { id } => self.forget(*id, applied),
            Command::Place { topic, terms, replicas } => {
                if self.placements.topic(*topic).is_some() {
                    return Err(ReplicaError::Placed(*topic));
                }
                check_terms(*terms)?;
                let placed = Placed {
                    terms: *terms,
                    partitions: Vec::new(),
                };
                self.extend(*topic, placed, replicas, applied)
            }
            Command::Extend { topic, replicas } => {
                let placed = self
                    .placements
                    .topic(*topic)
                    .ok_or(ReplicaError::UnknownTopic(*topic))?;
                self.extend(*topic, Placed::clone(placed), replicas, applied)
            }
            Command::SetTerms { topic, terms } => self.set_terms(*topic, *terms, applied),
            Command::Remove { topic } => self.remove(*topic, applied),
            Command::Cleared { from, topics } => {
                for topic in topics {
                    self.has_cleared(*topic, *from);
                }
                Ok(())
            }
            Command::Alter {
                from,
                incarnation,
                changes,
            } => {
                self.check_process(*from, *incarnation)?;
                let asked = changes.iter().map(|change| (change.id, change));
                let mut ineligible = Vec::new();
                self.each(asked, applied, |map, replicas, change| {
                    map.altered(*from, replicas, change, &mut ineligible)
                });
                applied.refused.extend(ineligible);
                Ok(())
            }
            Command::Report {
                from,
                incarnation,
                failed,
                opened,
            } => {
                self.check_process(*from, *incarnation)?;
                let failed = failed
                    .iter()
                    .map(|id| (*id, transition::fails as fn(&mut Replicas, BrokerId)));
                let opened = opened
                    .iter()
                    .map(|id| (*id, transition::opens as fn(&mut Replicas, BrokerId)));
                self.each(failed.chain(opened), applied, |map, replicas, report| {
                    Ok(map.changed(replicas, |next| report(next, *from)))
                });
                Ok(())
            }
            Command::Lost {
                from,
                incarnation,
                partitions,
            } => {
                self.check_process(*from, *incarnation)?;
                let asked = partitions.iter().map(|id| (*id, *from));
                self.each(asked, applied, ReplicaMap::lost);
                Ok(())
            }
            Command::Elect { partitions, how } => {
                let asked = partitions.iter().map(|id| (*id, *how));
                self.each(asked, applied, ReplicaMap::elected);
                Ok(())
            }
            Command::Reassign { partitions } => {
                let asked = partitions.iter().map(|(id, target)| (*id, target.as_deref()));
                self.each(asked, applied, ReplicaMap::reassigned);
                Ok(())
            }
            Command::SpeaksKafka { id, incarnation, at } => {
                let broker = self.check_process(*id, *incarnation)?;
                check_kafka(&broker, at)?;
                let broker = Broker {
                    kafka: Some(Arc::new(at.clone())),
                    ..Broker::clone(&broker)
                };
                self.put(broker, applied);
                Ok(())
            }
            Command::Support { id, levels } => self.features.support(*id, *levels),
            Command::Finalise { level } => self.features.finalise(*level, self.brokers.keys().copied()),
        }
    }

    fn cordon(&mut self, id: BrokerId, is_cordoned: bool, applied: &mut Applied) -> Result<(), ReplicaError> {
        let broker = self.brokers.get(&id).ok_or(ReplicaError::UnknownBroker(id))?;
        let broker = Broker {
            is_cordoned,
            ..Broker::clone(broker)
        };
        self.put(broker, applied);
        Ok(())
    }

    fn remove(&mut self, topic: TopicId, applied: &mut Applied) -> Result<(), ReplicaError> {
        let placed = self.placements.remove(topic);
        let placed = placed.ok_or(ReplicaError::UnknownTopic(topic))?;
        applied.changed.extend(ids(topic, 0..placed.partitions.len()));
        let had = placed.partitions.iter().flat_map(|replicas| &replicas.replicas);
        let had: BTreeSet<BrokerId> = had.copied().collect();
        if self.gone.len() == GONE_MAX {
            self.gone.pop_first();
        }
        self.gone.insert(topic, had.into_iter().collect());
        Ok(())
    }

    fn register(&mut self, new: &Registration, applied: &mut Applied) -> Result<(), ReplicaError> {
        check_registration(new)?;
        self.features.check(new.id)?;
        let before = self.brokers.get(&new.id).cloned();
        if before.is_none() && self.brokers.len() >= BROKERS_MAX {
            return Err(ReplicaError::TooManyBrokers(BROKERS_MAX));
        }
        let same = before.as_ref().filter(|before| before.process == new.process);
        self.registered += u64::from(same.is_none());
        let broker = Broker {
            id: new.id,
            process: new.process,
            incarnation: same.map_or(Incarnation::new(self.registered), |same| same.incarnation),
            store: new.store,
            address: new.address.clone(),
            rack: new.rack.clone(),
            is_fenced: same.is_none_or(|same| same.is_fenced),
            is_cordoned: before.as_ref().is_some_and(|before| before.is_cordoned),
            kafka: same.and_then(|same| same.kafka.clone()),
        };
        // Before its replicas are looked at: it is fenced, so that nothing elects it again in the epoch of the process before.
        self.put(broker, applied);
        if same.is_none() {
            let has_store = before.is_some_and(|before| before.store == new.store);
            self.sweep(applied, |next| {
                let keeps = has_store && (new.was_clean || next.terms.durability == Durability::Disk);
                let leave = if keeps {
                    transition::steps_back
                } else {
                    transition::has_lost
                };
                transition::opens(next, new.id);
                leave(next, new.id);
            });
        }
        Ok(())
    }

    fn set_fenced(
        &mut self,
        id: BrokerId,
        incarnation: Incarnation,
        is_fenced: bool,
        applied: &mut Applied,
    ) -> Result<(), ReplicaError> {
        let broker = self.check_process(id, incarnation)?;
        self.put(
            Broker {
                is_fenced,
                ..Broker::clone(&broker)
            },
            applied,
        );
        self.sweep(applied, |next| {
            if is_fenced {
                transition::steps_back(next, id);
            }
        });
        Ok(())
    }

    fn forget(&mut self, id: BrokerId, applied: &mut Applied) -> Result<(), ReplicaError> {
        let broker = self.brokers.get(&id).ok_or(ReplicaError::UnknownBroker(id))?;
        if !broker.is_fenced {
            return Err(ReplicaError::StillUp(id));
        }
        if let Some((partition, _)) = self.partitions().find(|(_, replicas)| replicas.has(id)) {
            return Err(ReplicaError::StillHas { broker: id, partition });
        }
        self.brokers.remove(&id);
        self.features.forget(id);
        for topic in self.gone(id) {
            self.has_cleared(topic, id);
        }
        applied.broker = Some(id);
        Ok(())
    }

    fn has_cleared(&mut self, topic: TopicId, broker: BrokerId) {
        if let Some(brokers) = self.gone.get_mut(&topic) {
            brokers.retain(|other| *other != broker);
            if brokers.is_empty() {
                self.gone.remove(&topic);
            }
        }
    }

    fn extend(
        &mut self,
        topic: TopicId,
        mut placed: Placed,
        replicas: &[Vec<BrokerId>],
        applied: &mut Applied,
    ) -> Result<(), ReplicaError> {
        let from = placed.partitions.len();
        for replicas in replicas {
            self.check_replicas(replicas)?;
            let isr: Vec<BrokerId> = replicas.iter().copied().filter(|broker| self.is_up(*broker)).collect();
            if isr.is_empty() {
                return Err(ReplicaError::Replicas(replicas.clone()));
            }
            let replicas = Replicas::new(replicas.clone(), isr, placed.terms);
            placed.partitions.push(Arc::new(replicas));
        }
        applied.changed.extend(ids(topic, from..placed.partitions.len()));
        self.placements.put(topic, placed);
        Ok(())
    }

    fn set_terms(&mut self, topic: TopicId, terms: Terms, applied: &mut Applied) -> Result<(), ReplicaError> {
        check_terms(terms)?;
        let placed = self.placements.topic(topic).ok_or(ReplicaError::UnknownTopic(topic))?;
        let partitions = placed.partitions.len();
        let placed = Placed {
            terms,
            ..Placed::clone(placed)
        };
        self.placements.put(topic, placed);
        self.each(
            ids(topic, 0..partitions).map(|id| (id, terms)),
            applied,
            |map, replicas, terms| Ok(map.changed(replicas, |next| next.terms = terms)),
        );
        Ok(())
    }

    fn altered(
        &self,
        from: BrokerId,
        before: &Replicas,
        change: &IsrChange,
        refused: &mut Vec<(PartitionId, ReplicaError)>,
    ) -> Result<Option<Replicas>, ReplicaError> {
        if before.leader != Some(from) {
            return Err(ReplicaError::NotLeader(from));
        }
        if before.leader_epoch != change.leader_epoch {
            return Err(ReplicaError::LeaderEpoch {
                said: change.leader_epoch,
                is: before.leader_epoch,
            });
        }
        if before.epoch != change.epoch {
            return Err(ReplicaError::Epoch {
                said: change.epoch,
                is: before.epoch,
            });
        }
        let (stay, join) = (&change.stay, &change.join);
        let mut isr: Vec<BrokerId> = stay
            .iter()
            .chain(join.iter().map(|(broker, _)| broker))
            .copied()
            .collect();
        let may_stay = stay.contains(&from) && stay.iter().all(|member| before.is_in_sync(*member));
        let may_join = join
            .iter()
            .all(|(broker, _)| before.has(*broker) && !before.is_in_sync(*broker));
        if !may_stay || !may_join || !are_distinct(&isr) {
            return Err(ReplicaError::Isr(isr));
        }
        for (id, incarnation) in join {
            let is_same = self
                .broker(*id)
                .is_some_and(|broker| broker.incarnation == *incarnation);
            if !is_same || !self.is_up(*id) || before.offline.contains(id) {
                refused.push((change.id, ReplicaError::Ineligible(*id)));
                isr.retain(|member| member != id);
            }
        }
        Ok(self.changed(before, |next| {
            transition::in_sync(next, &isr);
            transition::uses_up_epoch(next);
        }))
    }

    fn lost(&self, before: &Replicas, broker: BrokerId) -> Result<Option<Replicas>, ReplicaError> {
        let is_elsewhere = before.isr.iter().any(|member| *member != broker);
        if !before.offline.contains(&broker) || !is_elsewhere {
            return Err(ReplicaError::NotLetOff(broker));
        }
        Ok(self.changed(before, |next| transition::has_lost(next, broker)))
    }

    fn elected(&self, before: &Replicas, how: Election) -> Result<Option<Replicas>, ReplicaError> {
        match how {
            Election::Preferred => {
                let preferred = before.replicas[0];
                if before.leader == Some(preferred) {
                    return Err(ReplicaError::NotNeeded(preferred));
                }
                if !before.is_in_sync(preferred) {
                    return Err(ReplicaError::PreferredNotInSync(preferred));
                }
                Ok(self.changed(before, |next| next.leader = Some(preferred)))
            }
            Election::Unclean(broker) => {
                if let Some(leader) = before.leader {
                    return Err(ReplicaError::HasLeader(leader));
                }
                if !before.has(broker) || !self.is_up(broker) || before.offline.contains(&broker) {
                    return Err(ReplicaError::CannotLead(broker));
                }
                Ok(self.changed(before, |next| transition::leads_unclean(next, broker)))
            }
        }
    }

    fn reassigned(&self, before: &Replicas, target: Option<&[BrokerId]>) -> Result<Option<Replicas>, ReplicaError> {
        let is_moving = !before.adding.is_empty() || !before.removing.is_empty();
        match target {
            Some(_) if is_moving => Err(ReplicaError::Reassigning),
            Some(target) => {
                self.check_replicas(target)?;
                Ok(self.changed(before, |next| transition::moves(next, target)))
            }
            None if !is_moving => Err(ReplicaError::NotReassigning),
            None => {
                let mut having_all = before.isr.iter().chain(&before.elr);
                if having_all.all(|broker| before.adding.contains(broker)) {
                    return Err(ReplicaError::OnlyNewInSync);
                }
                Ok(self.changed(before, transition::stays))
            }
        }
    }

    fn check_process(&self, id: BrokerId, said: Incarnation) -> Result<Arc<Broker>, ReplicaError> {
        let broker = self.brokers.get(&id).ok_or(ReplicaError::UnknownBroker(id))?;
        if broker.incarnation != said {
            return Err(ReplicaError::StaleIncarnation {
                broker: id,
                said,
                known: broker.incarnation,
            });
        }
        Ok(Arc::clone(broker))
    }

    fn check_replicas(&self, replicas: &[BrokerId]) -> Result<(), ReplicaError> {
        let are_known = replicas.iter().all(|broker| self.brokers.contains_key(broker));
        if replicas.is_empty() || !are_distinct(replicas) || !are_known {
            return Err(ReplicaError::Replicas(replicas.to_vec()));
        }
        Ok(())
    }

    fn put(&mut self, broker: Broker, applied: &mut Applied) {
        let id = broker.id;
        if self.brokers.get(&id).is_none_or(|before| **before != broker) {
            applied.broker = Some(id);
            self.brokers.insert(id, Arc::new(broker));
        }
    }

    fn changed(&self, before: &Replicas, edit: impl FnOnce(&mut Replicas)) -> Option<Replicas> {
        change(before, &|broker| self.is_up(broker), edit)
    }

    /// Does to each partition what is asked for it.
    fn each<T>(
        &mut self,
        asked: impl Iterator<Item = (PartitionId, T)>,
        applied: &mut Applied,
        mut what: impl FnMut(&ReplicaMap, &Replicas, T) -> Result<Option<Replicas>, ReplicaError>,
    ) {
        for (id, asked) in asked {
            let next = match self.replicas(id) {
                Some(before) => what(self, before, asked),
                None => Err(ReplicaError::UnknownPartition(id)),
            };
            match next {
                Ok(None) => {}
                Ok(Some(next)) => {
                    self.placements.replace(id, next);
                    applied.changed.insert(id);
                }
                Err(why) => applied.refused.push((id, why)),
            }
        }
    }

    /// Does the same to every partition.
    fn sweep(&mut self, applied: &mut Applied, edit: impl Fn(&mut Replicas)) {
        let next: Vec<(PartitionId, Replicas)> = self
            .partitions()
            .filter_map(|(id, before)| Some((id, self.changed(before, &edit)?)))
            .collect();
        self.each(next.into_iter(), applied, |_, _, next| Ok(Some(next)));
    }
}

fn ids(topic: TopicId, indexes: std::ops::Range<usize>) -> impl Iterator<Item = PartitionId> {
    indexes.map(move |index| PartitionId {
        topic,
        // The number of partitions is limited far below i32::MAX.
        index: PartitionIndex::new(index as i32),
    })
}
