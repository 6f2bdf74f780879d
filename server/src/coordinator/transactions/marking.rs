//! The markers at the end of a transaction: into partitions of this core, of other cores, and of other brokers.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use futures::future::join_all;
use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, CoreId, PartitionIndex},
};

use crate::{
    coordinator::service::{self, Service},
    core::{
        Core,
        errands::{Done, Errands},
        mesh::CoreMessage,
    },
    image::TopicState,
    model::{
        id::PartitionId,
        internal::OFFSETS_TOPIC,
        transaction::{Errand, Marker, Place},
    },
    partition::Partitions,
};

/// What writes markers.
pub(crate) struct Marks {
    pub(crate) core: Rc<Core>,
    pub(crate) partitions: Rc<Partitions>,
    pub(crate) groups: Rc<Service>,
    pub(crate) errands: Rc<Errands>,
}

/// Who leads some partitions. No broker: this one.
type Leader = (Option<BrokerId>, CoreId);

impl Marks {
    /// Tries to give each its marker, and says which have it, or are gone.
    pub(super) async fn attempt(&self, marker: Marker, places: &BTreeSet<Place>) -> Vec<Place> {
        let mut done = Vec::new();
        let mut led: BTreeMap<Leader, Vec<(PartitionId, &Place)>> = BTreeMap::new();
        for place in places {
            match self.find(place) {
                None => done.push(place.clone()),
                Some(id) => {
                    if let Some(leader) = self.leader_of(id) {
                        led.entry(leader).or_default().push((id, place));
                    }
                }
            }
        }
        let asked = led.into_iter().map(|(leader, named)| async move {
            let ids = named.iter().map(|(id, _)| *id).collect();
            let codes = self.ask(leader, marker, ids).await.unwrap_or_default();
            let settled = named.into_iter().zip(codes).filter(|(_, code)| is_settled(*code));
            settled.map(|((_, place), _)| place.clone()).collect::<Vec<_>>()
        });
        done.extend(join_all(asked).await.into_iter().flatten());
        done
    }

    /// The partition; `None` if its topic is gone.
    fn find(&self, (topic, index): &Place) -> Option<PartitionId> {
        let image = self.partitions.image();
        let topic = image.topic(topic).filter(|topic| topic.state == TopicState::Ready)?;
        let index = PartitionIndex::try_from(*index)
            .ok()
            .filter(|index| topic.has(*index))?;
        Some(PartitionId { topic: topic.id, index })
    }

    fn leader_of(&self, id: PartitionId) -> Option<Leader> {
        let Some(assignment) = self.partitions.assignment() else {
            return Some((None, id.owner(self.core.mesh.len())));
        };
        let (broker, core) = assignment.leader_of(id)?;
        let broker = (broker.id != assignment.own.broker).then_some(broker.id);
        Some((broker, core))
    }

    async fn ask(&self, (broker, core): Leader, marker: Marker, ids: Vec<PartitionId>) -> Done {
        match broker {
            Some(broker) => self.errands.run((broker, core), Errand::Mark(marker, ids)).await,
            None if core == self.core.id => Ok(self.mark_here(marker, &ids).await),
            None => {
                let asked = self
                    .core
                    .mesh
                    .ask(core, |reply| CoreMessage::Mark { marker, ids, reply });
                asked.await.ok_or(ErrorCode::CoordinatorNotAvailable)
            }
        }
    }

    /// Writes a marker into partitions that this core has, and says of each whether it is as safe as the partition's records are.
    pub(crate) async fn mark_here(&self, marker: Marker, ids: &[PartitionId]) -> Vec<ErrorCode> {
        join_all(ids.iter().map(|id| self.mark_one(marker, *id))).await
    }

    async fn mark_one(&self, marker: Marker, id: PartitionId) -> ErrorCode {
        let outcome = match self.partitions.led(id) {
            Ok(_) if self.is_of_groups(id) => service::mark(&self.groups, id, marker).await,
            Ok(partition) => match partition.append_marker(&self.core, marker) {
                Ok(ticket) => ticket.await.map_err(|error| error.code()),
                Err(code) => Err(code),
            },
            Err(refusal) => Err(refusal.code),
        };
        outcome.err().unwrap_or(ErrorCode::None)
    }

    /// Its offsets count with the marker.
    fn is_of_groups(&self, id: PartitionId) -> bool {
        let image = self.partitions.image();
        image.topic(OFFSETS_TOPIC).is_some_and(|topic| topic.id == id.topic)
    }
}

/// Nothing is left to do there: it has the marker, or a later one of the same producer.
fn is_settled(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::None | ErrorCode::InvalidProducerEpoch)
}
