//! The state that all members have: what the agreed orders lead to. Pure, and the same on each of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, TopicId},
};
use serde::{Deserialize, Serialize};

use super::{
    codec::{self, CodecError, decode, encode, encode_as},
    id::{Incarnation, NodeId, StoreId},
    order::{Order, Outcome, Proposal, ProposalId, Registration, TopicForm},
};
use crate::{
    cluster::{
        replicas::{self, KafkaForm, Placement, ReplicaCommand, ReplicaError, ReplicaMap},
        state::{ClusterState, Command},
    },
    image::{AccessRules, ClusterImage, QuotaRules, Topic, settings},
    model::{
        access::{Acl, Hidden, StoredKeys},
        quota::{Entity, QuotaKey, Rate},
        refusal::Refusal,
    },
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
    replicas: ReplicaMap,
    next_producer_id: i64,
    /// The last incarnation of each broker that has ever said that it is there.
    brokers: BTreeMap<NodeId, (StoreId, Incarnation)>,
    /// What has become of the last proposals, from the oldest on.
    known: VecDeque<(ProposalId, Outcome)>,
}

/// The state as it is in a snapshot, but for brokers and replicas, which follow it since version 2, and where they speak Kafka's
/// protocol, since version 4, who may do what, since version 5, and how much, since version 6: each is written only if there is any of that.
#[derive(Serialize, Deserialize)]
struct Form {
    version: u64,
    topics: Vec<TopicForm>,
    next_producer_id: i64,
    brokers: BTreeMap<NodeId, (StoreId, Incarnation)>,
    known: Vec<(ProposalId, Outcome)>,
}

/// Who may do what, and the keys of users.
#[derive(Serialize, Deserialize)]
struct AccessForm {
    acls: Vec<Acl>,
    users: BTreeMap<String, Vec<StoredKeys>>,
    secret: Hidden,
}

impl AccessForm {
    fn read(self) -> AccessRules {
        AccessRules::new(self.acls, self.users, self.secret)
    }
}

/// Whose the quotas are, and what they are.
type QuotaForm = Vec<(Entity, Vec<(QuotaKey, Rate)>)>;

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

    /// The brokers, and the replicas of every partition that is placed.
    pub(crate) fn replicas(&self) -> &ReplicaMap {
        &self.replicas
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
            Order::Placed(command, placement) => return self.place(command, placement),
            Order::Replicas(command) => return self.change_replicas(&command),
            Order::Access(change) => match self.cluster.change_access(&change) {
                Ok(next) => next,
                Err(refusal) => return refusal.into(),
            },
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
        if let Err(refusal) = self.check_latest(broker, store, incarnation) {
            return refusal.into();
        }
        let is_unplaced = |topic: &Arc<Topic>| self.replicas.replicas_of(topic.id).is_empty();
        if let Some(other) = self.brokers.keys().find(|other| **other != broker)
            && self.image().topics().any(is_unplaced)
        {
            let message = format!(
                "broker {other} has topics from when it was alone: start it with cluster.listen, so that others learn where they are, and then this one"
            );
            return Refusal::new(ErrorCode::CoordinatorLoadInProgress, message).into();
        }
        self.brokers.insert(broker, (store, incarnation));
        Outcome::Done
    }

    /// Refuses what a process says that was followed by another: it may come when that one is there already.
    fn check_latest(&self, broker: NodeId, store: StoreId, incarnation: Incarnation) -> Result<(), Refusal> {
        match self.brokers.get(&broker) {
            Some((same, last)) if *same == store && *last > incarnation => {
                let message =
                    format!("broker {broker} was started again since: stop the process that was started before");
                Err(Refusal::new(ErrorCode::StaleBrokerEpoch, message))
            }
            _ => Ok(()),
        }
    }

    /// Does at once what is asked for, and places what is new. As a whole, or not at all.
    fn place(&mut self, command: Command, placement: Placement) -> Outcome {
        match self.placed(command, placement) {
            Ok((cluster, replicas)) => {
                (self.cluster, self.replicas) = (cluster, replicas);
                Outcome::Done
            }
            Err(refusal) => refusal.into(),
        }
    }

    fn placed(&self, command: Command, placement: Placement) -> Result<(ClusterState, ReplicaMap), Refusal> {
        let topic = command.topic();
        let applied = self.cluster.apply(command);
        let (cluster, change) = applied.map_err(|error| Refusal::because(error.code(), &error))?;
        let cluster = change
            .after
            .as_ref()
            .map_or_else(|| cluster.clone(), |after| cluster.settled(after).0);
        let mut replicas = self.replicas.clone();
        for command in self.to_place(topic, cluster.image(), placement)? {
            (replicas, _) = replicas.apply(&command).map_err(|error| refusal(&error))?;
        }
        Ok((cluster, replicas))
    }

    /// What is to become of a topic's replicas when the image is this one.
    fn to_place(
        &self,
        id: TopicId,
        image: &ClusterImage,
        Placement { replicas }: Placement,
    ) -> Result<Vec<ReplicaCommand>, Refusal> {
        let has = self.replicas.replicas_of(id);
        let Some(topic) = image.topic_by_id(id) else {
            let remove = ReplicaCommand::Remove { topic: id };
            return Ok(if has.is_empty() { Vec::new() } else { vec![remove] });
        };
        if has.len() + replicas.len() != topic.partition_count as usize {
            let message = "the topic got other partitions meanwhile; try again";
            return Err(Refusal::new(ErrorCode::CoordinatorLoadInProgress, message));
        }
        let count = has.first().map(|first| first.target().count());
        let count = count.or(replicas.first().map(Vec::len));
        let terms = settings::terms(&topic.overrides, count.unwrap_or(1));
        let Some(first) = has.first() else {
            return Ok(vec![ReplicaCommand::Place {
                topic: id,
                terms,
                replicas,
            }]);
        };
        let mut commands = Vec::new();
        if first.terms != terms {
            commands.push(ReplicaCommand::SetTerms { topic: id, terms });
        }
        if !replicas.is_empty() {
            commands.push(ReplicaCommand::Extend { topic: id, replicas });
        }
        Ok(commands)
    }

    fn change_replicas(&mut self, command: &ReplicaCommand) -> Outcome {
        if let ReplicaCommand::Register(new) = command
            && let Err(refusal) = self.check_latest(new.id.into(), StoreId::from(new.store), Incarnation(new.opened))
        {
            return refusal.into();
        }
        let refused = match self.replicas.apply(command) {
            Ok((next, applied)) => {
                self.replicas = next;
                applied.refused
            }
            Err(error) => return refusal(&error).into(),
        };
        match command {
            ReplicaCommand::Unfence { id, .. } => self.adopt(*id),
            // An operator has named them; a broker wishes again.
            ReplicaCommand::Elect { .. } | ReplicaCommand::Reassign { .. } if !refused.is_empty() => {
                let told = refused
                    .iter()
                    .map(|(id, why)| (*id, why.code() as i16, why.to_string()));
                return Outcome::Partly(told.collect());
            }
            _ => {}
        }
        for (id, why) in refused {
            tracing::debug!(topic = %id.topic, partition = %id.index, %why, "a change of replicas is refused");
        }
        Outcome::Done
    }

    /// What a broker made when it was alone it has alone: no other has been let in before those topics are placed.
    fn adopt(&mut self, broker: BrokerId) {
        let unplaced = |topic: &&Arc<Topic>| self.replicas.replicas_of(topic.id).is_empty();
        let unplaced: Vec<Arc<Topic>> = self.image().topics().filter(unplaced).cloned().collect();
        for topic in unplaced {
            let placed = self.replicas.apply(&ReplicaCommand::Place {
                topic: topic.id,
                terms: settings::terms(&topic.overrides, 1),
                replicas: vec![vec![broker]; topic.partition_count as usize],
            });
            match placed {
                Ok((next, _)) => self.replicas = next,
                Err(error) => {
                    tracing::error!(topic = %topic.name, %error, "a topic of a broker that was alone cannot be placed");
                }
            }
        }
    }

    /// As it is in a snapshot.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let image = self.cluster.image();
        let form = Form {
            version: image.version(),
            topics: image.topics().map(|topic| TopicForm::from(topic.as_ref())).collect(),
            next_producer_id: self.next_producer_id,
            brokers: self.brokers.clone(),
            known: self.known.iter().cloned().collect(),
        };
        let replicas = replicas::Form::from(&self.replicas);
        let kafka = KafkaForm::from(&self.replicas);
        let (access, quotas) = (image.access(), image.quotas());
        if access.is_empty() && quotas.is_empty() {
            return encode(&(form, replicas, kafka));
        }
        let access = AccessForm {
            acls: access.acls().cloned().collect(),
            users: access.users().clone(),
            secret: access.secret().clone(),
        };
        if quotas.is_empty() {
            return encode_as(codec::WITH_ACCESS, &(form, replicas, kafka, access));
        }
        let quotas: QuotaForm = quotas.all().map(|quota| (quota.entity, quota.values)).collect();
        encode_as(codec::WITH_QUOTAS, &(form, replicas, kafka, access, quotas))
    }

    /// The reverse of [`encode`](Self::encode).
    pub(crate) fn decode(bytes: &[u8]) -> Result<State, CodecError> {
        let (mut access, mut quotas) = (AccessRules::default(), QuotaRules::default());
        let (form, replicas): (Form, ReplicaMap) = match codec::version(bytes)? {
            1 => (decode(bytes)?, ReplicaMap::default()),
            codec::WITH_ACCESS => {
                let (form, replicas, kafka, told): (Form, replicas::Form, KafkaForm, AccessForm) = decode(bytes)?;
                let mut replicas = replicas.into();
                kafka.put_into(&mut replicas);
                access = told.read();
                (form, replicas)
            }
            codec::WITH_QUOTAS => {
                type Whole = (Form, replicas::Form, KafkaForm, AccessForm, QuotaForm);
                let (form, replicas, kafka, told, limits): Whole = decode(bytes)?;
                let mut replicas = replicas.into();
                kafka.put_into(&mut replicas);
                (access, quotas) = (told.read(), QuotaRules::new(limits));
                (form, replicas)
            }
            3 => {
                let (form, replicas): (Form, replicas::Form) = decode(bytes)?;
                (form, replicas.into())
            }
            _ => {
                let (form, replicas, kafka): (Form, replicas::Form, KafkaForm) = decode(bytes)?;
                let mut replicas = replicas.into();
                kafka.put_into(&mut replicas);
                (form, replicas)
            }
        };
        let topics = form.topics.into_iter().map(|topic| topic.read().map(Arc::new));
        let topics = topics.collect::<Result<_, postcard::Error>>()?;
        let mut known = VecDeque::from(form.known);
        known.truncate(KNOWN_AGAIN_MAX);
        let cluster = ClusterState::new(form.version, topics);
        Ok(State {
            cluster: cluster.with_rules(form.version, Arc::new(access), Arc::new(quotas)),
            next_producer_id: form.next_producer_id,
            brokers: form.brokers,
            known,
            replicas,
        })
    }
}

fn refusal(error: &ReplicaError) -> Refusal {
    Refusal::because(error.code(), error)
}
