//! All brokers and replicas as they are in a snapshot of the quorum's state.

use std::sync::Arc;

use headwater_protocol::id::{BrokerId, TopicId};
use serde::{Deserialize, Serialize};

use super::{features::Features, state::ReplicaMap};
use crate::{
    image::{Broker, KafkaAddress, Placed, Replicas, Terms},
    model::plain,
};

/// What is written down.
#[derive(Serialize, Deserialize)]
pub(crate) struct Form {
    brokers: Vec<Broker>,
    #[serde(with = "plain::keyed")]
    topics: Vec<(TopicId, Topic)>,
    registered: u64,
    gone: Vec<Gone>,
    features: Features,
}

/// The replicas of one topic, by the index of the partition.
#[derive(Serialize, Deserialize)]
struct Topic {
    terms: Terms,
    partitions: Vec<Replicas>,
}

impl From<&Placed> for Topic {
    fn from(placed: &Placed) -> Topic {
        let partitions = placed.partitions.iter();
        Topic {
            terms: placed.terms,
            partitions: partitions.map(|replicas| Replicas::clone(replicas)).collect(),
        }
    }
}

impl From<Topic> for Placed {
    fn from(topic: Topic) -> Placed {
        Placed {
            terms: topic.terms,
            partitions: topic.partitions.into_iter().map(Arc::new).collect(),
        }
    }
}

/// A topic that is gone, and who may still have something of it.
#[derive(Serialize, Deserialize)]
struct Gone {
    #[serde(with = "plain")]
    topic: TopicId,
    #[serde(with = "plain::list")]
    brokers: Vec<BrokerId>,
}

impl From<&ReplicaMap> for Form {
    fn from(map: &ReplicaMap) -> Form {
        let topics = map.placements.topics();
        let topics = topics.map(|(topic, placed)| (topic, Topic::from(placed.as_ref())));
        Form {
            brokers: map.brokers.values().map(|broker| Broker::clone(broker)).collect(),
            topics: topics.collect(),
            registered: map.registered,
            gone: map
                .gone
                .iter()
                .map(|(topic, brokers)| Gone {
                    topic: *topic,
                    brokers: brokers.clone(),
                })
                .collect(),
            features: map.features.clone(),
        }
    }
}

impl From<Form> for ReplicaMap {
    fn from(form: Form) -> ReplicaMap {
        let brokers = form.brokers.into_iter().map(|broker| (broker.id, Arc::new(broker)));
        let topics = form.topics.into_iter().map(|(id, topic)| (id, topic.into()));
        ReplicaMap {
            brokers: brokers.collect(),
            placements: topics.collect(),
            registered: form.registered,
            gone: form.gone.into_iter().map(|gone| (gone.topic, gone.brokers)).collect(),
            features: form.features,
        }
    }
}

/// Where brokers speak Kafka's protocol, written down apart from them: it came later.
#[derive(Serialize, Deserialize)]
pub(crate) struct KafkaForm(#[serde(with = "plain::keyed")] Vec<(BrokerId, KafkaAddress)>);

impl From<&ReplicaMap> for KafkaForm {
    fn from(map: &ReplicaMap) -> KafkaForm {
        let speak = map.brokers.values().filter_map(|broker| {
            let at = broker.kafka.as_deref()?;
            Some((broker.id, at.clone()))
        });
        KafkaForm(speak.collect())
    }
}

impl KafkaForm {
    /// Tells the brokers of it.
    pub(crate) fn put_into(self, map: &mut ReplicaMap) {
        for (id, at) in self.0 {
            if let Some(broker) = map.brokers.get_mut(&id) {
                Arc::make_mut(broker).kafka = Some(Arc::new(at));
            }
        }
    }
}
