//! What the members agree on: orders to the state that they all have, and what has become of each.

use std::{collections::BTreeMap, fmt, sync::Arc};

use headwater_protocol::{error::ErrorCode, id::TopicId, topic::TopicName};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::id::{Incarnation, NodeId, StoreId};
use crate::{
    cluster::{
        replicas::{Placement, ReplicaCommand},
        state::{Command, Shape},
    },
    image::{Topic, TopicState},
    machine,
    model::{access::AccessChange, id::PartitionId, refusal::Refusal},
};

/// The largest proposal in bytes, as it is written down.
pub(super) const PROPOSAL_LEN_MAX: usize = 128 * 1024;

/// Says which proposal it is. Who does not know what has become of one may propose it again: it is done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ProposalId(Uuid);

/// An order, with what makes it known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) id: ProposalId,
    pub(crate) order: Order,
}

impl Proposal {
    /// One that nobody has made before.
    pub(crate) fn new(order: Order) -> Proposal {
        Proposal {
            id: ProposalId(machine::uuid()),
            order,
        }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "proposal {}", self.id.0)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// What somebody asks for.
    Topic(#[serde(with = "command_form")] Command),
    /// What the topic asked for on disk is done.
    Settled(#[serde(with = "topic_form")] Arc<Topic>),
    /// What the topic asked for on disk is given up.
    Abandoned(#[serde(with = "topic_form")] Arc<Topic>),
    /// A block of producer ids that nobody else gets.
    ReserveProducerIds,
    /// A broker says that it is there. What it asked for before is decided when that is.
    Register(Registration),
    /// What somebody asks for in a cluster of several brokers. It is done at once, as each broker sees for itself to what it asks for
    /// on disk; and what is new is placed like this.
    Placed(#[serde(with = "command_form")] Command, Placement),
    /// About brokers and replicas.
    Replicas(ReplicaCommand),
    /// About who may do what, and users.
    Access(AccessChange),
}

/// Who a broker is, this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub(crate) broker: NodeId,
    pub(crate) store: StoreId,
    pub(crate) incarnation: Incarnation,
}

/// What has become of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// There was none: a new leader says with an empty entry that it is there.
    Nothing,
    /// It is done.
    Done,
    /// A block of producer ids begins here.
    ProducerIds { first: i64 },
    /// It cannot be, and has changed nothing.
    Refused { code: i16, message: String },
    /// It is done but for these partitions, each with a code and why.
    Partly(Vec<(PartitionId, i16, String)>),
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Outcome {
        Outcome::Refused {
            code: refusal.code as i16,
            message: refusal.message,
        }
    }
}

impl Outcome {
    /// The same as a refusal, if it is one.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Outcome::Refused { code, message } => Some(Refusal::new(ErrorCode::from_i16(*code), message)),
            Outcome::Nothing | Outcome::Done | Outcome::ProducerIds { .. } | Outcome::Partly(_) => None,
        }
    }

    /// The partitions for which an order was refused that was done for others.
    pub(crate) fn refused_partitions(self) -> Vec<(PartitionId, Refusal)> {
        let Outcome::Partly(refused) = self else {
            return Vec::new();
        };
        let refusal = |(id, code, message)| (id, Refusal::new(ErrorCode::from_i16(code), message));
        refused.into_iter().map(refusal).collect()
    }
}

/// How many partitions a topic may have by what is written down: indices are `i32`.
fn partition_count<E: serde::de::Error>(count: u32) -> Result<u32, E> {
    if (1..=i32::MAX.cast_unsigned()).contains(&count) {
        return Ok(count);
    }
    Err(E::custom(format_args!("a topic cannot have {count} partitions")))
}

fn name<E: serde::de::Error>(name: &str) -> Result<TopicName, E> {
    TopicName::new(name).map_err(E::custom)
}

mod command_form {
    use super::{
        BTreeMap, Command, Deserialize, Deserializer, Serialize, Serializer, Shape, TopicId, Uuid, name,
        partition_count,
    };

    #[derive(Serialize, Deserialize)]
    enum Form {
        Create { name: String, id: Uuid, shape: Shape },
        Alter { id: Uuid, shape: Shape },
        Delete { id: Uuid },
        AlterFrom { id: Uuid, before: Shape, shape: Shape },
    }

    pub(super) fn serialize<S: Serializer>(command: &Command, serializer: S) -> Result<S::Ok, S::Error> {
        let shape = |partition_count: &u32, overrides: &BTreeMap<String, String>| Shape {
            partition_count: *partition_count,
            overrides: overrides.clone(),
        };
        let id = *command.topic().as_uuid();
        let form = match command {
            Command::Create {
                name,
                partition_count,
                overrides,
                ..
            } => Form::Create {
                name: name.as_str().to_owned(),
                id,
                shape: shape(partition_count, overrides),
            },
            Command::Alter {
                before,
                partition_count,
                overrides,
                ..
            } => {
                let shape = shape(partition_count, overrides);
                match before.clone() {
                    Some(before) => Form::AlterFrom { id, before, shape },
                    None => Form::Alter { id, shape },
                }
            }
            Command::Delete { .. } => Form::Delete { id },
        };
        form.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Command, D::Error> {
        Ok(match Form::deserialize(deserializer)? {
            Form::Create { name: text, id, shape } => Command::Create {
                name: name(&text)?,
                id: TopicId::new(id),
                partition_count: partition_count(shape.partition_count)?,
                overrides: shape.overrides,
            },
            Form::Alter { id, shape } => Command::Alter {
                id: TopicId::new(id),
                before: None,
                partition_count: partition_count(shape.partition_count)?,
                overrides: shape.overrides,
            },
            Form::AlterFrom { id, before, shape } => Command::Alter {
                id: TopicId::new(id),
                before: Some(before),
                partition_count: partition_count(shape.partition_count)?,
                overrides: shape.overrides,
            },
            Form::Delete { id } => Command::Delete { id: TopicId::new(id) },
        })
    }
}

/// A topic as it is written down, in proposals and in snapshots.
#[derive(Serialize, Deserialize)]
pub(super) struct TopicForm {
    name: String,
    id: Uuid,
    state: StateForm,
    shape: Shape,
    /// While it is getting more partitions, what it will have.
    becoming: Option<Shape>,
}

#[derive(Serialize, Deserialize)]
enum StateForm {
    Creating,
    Ready,
    Deleting,
}

impl From<&Topic> for TopicForm {
    fn from(topic: &Topic) -> TopicForm {
        TopicForm {
            name: topic.name.as_str().to_owned(),
            id: *topic.id.as_uuid(),
            state: match topic.state {
                TopicState::Creating => StateForm::Creating,
                TopicState::Ready => StateForm::Ready,
                TopicState::Deleting => StateForm::Deleting,
            },
            shape: topic.into(),
            becoming: topic.becoming.as_deref().map(Shape::from),
        }
    }
}

impl TopicForm {
    pub(super) fn read<E: serde::de::Error>(self) -> Result<Topic, E> {
        let smaller = Topic {
            name: name(&self.name)?,
            id: TopicId::new(self.id),
            partition_count: partition_count(self.shape.partition_count)?,
            overrides: self.shape.overrides,
            state: match self.state {
                StateForm::Creating => TopicState::Creating,
                StateForm::Ready => TopicState::Ready,
                StateForm::Deleting => TopicState::Deleting,
            },
            becoming: None,
        };
        let Some(larger) = self.becoming else {
            return Ok(smaller);
        };
        let becoming = Topic {
            partition_count: partition_count(larger.partition_count)?,
            overrides: larger.overrides,
            // It was ready when it began to grow, and is to be that again, also while it is being deleted.
            state: TopicState::Ready,
            ..smaller.clone()
        };
        Ok(Topic {
            becoming: Some(Arc::new(becoming)),
            ..smaller
        })
    }
}

mod topic_form {
    use super::{Arc, Deserialize, Deserializer, Serialize, Serializer, Topic, TopicForm};

    pub(super) fn serialize<S: Serializer>(topic: &Arc<Topic>, serializer: S) -> Result<S::Ok, S::Error> {
        TopicForm::from(topic.as_ref()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Topic>, D::Error> {
        TopicForm::deserialize(deserializer)?.read().map(Arc::new)
    }
}
