//! The state that all members have: what the agreed orders lead to. Pure, and the same on each of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use headwater_protocol::error::ErrorCode;
use serde::{Deserialize, Serialize};

use super::{
    codec::{CodecError, decode, encode},
    id::{Incarnation, NodeId, StoreId},
    order::{Order, Outcome, Proposal, ProposalId, Registration, TopicForm},
};
use crate::{
    cluster::state::ClusterState,
    image::{ClusterImage, Topic},
    model::refusal::Refusal,
};

/// Proposals that are known again. Who proposes one again does so within seconds.
const KNOWN_AGAIN_MAX: usize = 1024;

/// Producer ids that are reserved at once. No id is given twice: a crash loses those that were reserved.
pub(crate) const PRODUCER_ID_BLOCK: i64 = 1000;

/// No count of blocks ever comes near it.
pub(crate) const PRODUCER_ID_MAX: i64 = i64::MAX / 2;

/// Everything that the quorum knows. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    cluster: ClusterState,
    next_producer_id: i64,
    /// The last incarnation of each broker that has ever said that it is there.
    brokers: BTreeMap<NodeId, (StoreId, Incarnation)>,
    /// What has become of the last proposals, from the oldest on.
    known: VecDeque<(ProposalId, Outcome)>,
}

/// The state as it is in a snapshot.
#[derive(Serialize, Deserialize)]
struct Form {
    version: u64,
    topics: Vec<TopicForm>,
    next_producer_id: i64,
    brokers: BTreeMap<NodeId, (StoreId, Incarnation)>,
    known: Vec<(ProposalId, Outcome)>,
}

impl State {
    /// These topics, and producer ids that were given out below this one.
    pub(crate) fn new(topics: Vec<Arc<Topic>>, next_producer_id: i64) -> State {
        State {
            // Not what a member shows that knows nothing.
            cluster: ClusterState::new(1, topics),
            next_producer_id,
            ..State::default()
        }
    }

    /// The picture of it that is published.
    pub(crate) fn image(&self) -> &Arc<ClusterImage> {
        self.cluster.image()
    }

    /// Does what is proposed, once.
    pub(crate) fn apply(&mut self, proposal: Proposal) -> Outcome {
        if let Some((_, outcome)) = self.known.iter().rev().find(|(id, _)| *id == proposal.id) {
            return outcome.clone();
        }
        let outcome = self.carry_out(proposal.order);
        if self.known.len() == KNOWN_AGAIN_MAX {
            self.known.pop_front();
        }
        self.known.push_back((proposal.id, outcome.clone()));
        outcome
    }

    fn carry_out(&mut self, order: Order) -> Outcome {
        self.cluster = match order {
            Order::Topic(command) => match self.cluster.apply(command) {
                Ok((next, _)) => next,
                Err(error) => return Refusal::because(error.code(), &error).into(),
            },
            Order::Settled(topic) => self.cluster.settled(&topic).0,
            Order::Abandoned(topic) => self.cluster.abandoned(&topic).0,
            Order::ReserveProducerIds => return self.reserve_producer_ids(),
            Order::Register(registration) => return self.register(registration),
        };
        Outcome::Done
    }

    fn reserve_producer_ids(&mut self) -> Outcome {
        let first = self.next_producer_id;
        if first > PRODUCER_ID_MAX {
            let message = "all producer ids were given out";
            return Refusal::new(ErrorCode::PolicyViolation, message).into();
        }
        self.next_producer_id += PRODUCER_ID_BLOCK;
        Outcome::ProducerIds { first }
    }

    fn register(&mut self, registration: Registration) -> Outcome {
        let Registration {
            broker,
            store,
            incarnation,
        } = registration;
        let last = self.brokers.get(&broker);
        if last.is_some_and(|(same, last)| *same == store && *last > incarnation) {
            let message = format!("broker {broker} was started again since: stop the process that was started before");
            return Refusal::new(ErrorCode::StaleBrokerEpoch, message).into();
        }
        if let Some(other) = self.brokers.keys().find(|other| **other != broker) {
            let message = format!(
                "broker {other} has the topics of this cluster, and as yet no other can have some: start this one as a coordinator (cluster.role)"
            );
            return Refusal::new(ErrorCode::PolicyViolation, message).into();
        }
        self.brokers.insert(broker, (store, incarnation));
        Outcome::Done
    }

    /// As it is in a snapshot.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let image = self.cluster.image();
        encode(&Form {
            version: image.version(),
            topics: image.topics().map(|topic| TopicForm::from(topic.as_ref())).collect(),
            next_producer_id: self.next_producer_id,
            brokers: self.brokers.clone(),
            known: self.known.iter().cloned().collect(),
        })
    }

    /// The reverse of [`encode`](Self::encode).
    pub(crate) fn decode(bytes: &[u8]) -> Result<State, CodecError> {
        let form: Form = decode(bytes)?;
        let topics = form.topics.into_iter().map(|topic| topic.read().map(Arc::new));
        let topics = topics.collect::<Result<_, postcard::Error>>()?;
        let mut known = VecDeque::from(form.known);
        known.truncate(KNOWN_AGAIN_MAX);
        Ok(State {
            cluster: ClusterState::new(form.version, topics),
            next_producer_id: form.next_producer_id,
            brokers: form.brokers,
            known,
        })
    }
}
