//! All brokers and replicas as they are in a snapshot of the quorum's state.

use std::sync::Arc;

use headwater_protocol::id::{BrokerId, TopicId};
use serde::{Deserialize, Serialize};

use super::{
    features::Features,
    state::{Placed, ReplicaMap},
};
use crate::{image::Broker, model::plain};

/// What is written down.
#[derive(Serialize, Deserialize)]
pub(crate) struct Form {
    brokers: Vec<Broker>,
    #[serde(with = "plain::keyed")]
    topics: Vec<(TopicId, Placed)>,
    registered: u64,
    gone: Vec<Gone>,
    features: Features,
}

/// The same before there were feature levels.
#[derive(Serialize, Deserialize)]
pub(crate) struct FormerForm {
    brokers: Vec<Broker>,
    #[serde(with = "plain::keyed")]
    topics: Vec<(TopicId, Placed)>,
    registered: u64,
    gone: Vec<Gone>,
}

impl From<FormerForm> for Form {
    fn from(former: FormerForm) -> Form {
        let FormerForm {
            brokers,
            topics,
            registered,
            gone,
        } = former;
        Form {
            brokers,
            topics,
            registered,
            gone,
            features: Features::default(),
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
        let topics = map.topics.iter().map(|(topic, placed)| (*topic, Placed::clone(placed)));
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
        let topics = form.topics.into_iter().map(|(topic, placed)| (topic, Arc::new(placed)));
        ReplicaMap {
            brokers: brokers.collect(),
            topics: topics.collect(),
            registered: form.registered,
            gone: form.gone.into_iter().map(|gone| (gone.topic, gone.brokers)).collect(),
            features: form.features,
        }
    }
}
