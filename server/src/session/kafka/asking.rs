//! What answering a request takes.

use std::{cell::Cell, rc::Rc, sync::Arc};

use headwater_kafka::{Message, TOPIC_NAME_LEN_MAX, Unwritable};
use headwater_protocol::{
    error::ErrorCode,
    id::{PartitionIndex, TopicId},
    topic::{TopicName, TopicNameError},
};
use uuid::Uuid;

use crate::{
    image::{ClusterImage, Topic, TopicState},
    machine,
    model::{
        access::{Operation, ResourceKind},
        id::PartitionId,
        nodes::LeaderNode,
        op::{Op, Outcome},
        refusal::Refusal,
    },
    ops::{
        self, Ops,
        access::{Resource, THE_CLUSTER},
    },
    session::{peer::Connection, sessions::Sessions},
};

/// A response that has more tells nothing of what else was asked for, in bytes.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A request that is being answered.
pub(super) struct Asking {
    pub(super) sessions: Rc<Sessions>,
    pub(super) connection: Rc<Connection>,
    pub(super) version: i16,
    /// The last error that its response tells of, for the metrics.
    told: Cell<ErrorCode>,
    /// Of what the response has so far, about, in bytes.
    size: Cell<usize>,
}

impl Asking {
    pub(super) fn new(sessions: &Rc<Sessions>, connection: &Rc<Connection>, version: i16) -> Asking {
        Asking {
            sessions: Rc::clone(sessions),
            connection: Rc::clone(connection),
            version,
            told: Cell::new(ErrorCode::None),
            size: Cell::new(0),
        }
    }

    pub(super) fn ops(&self) -> &Ops {
        &self.sessions.ops
    }

    /// Does what is asked.
    pub(super) async fn perform(&self, op: Op) -> Result<Outcome, Refusal> {
        let (client, asker) = (self.connection.client(), self.connection.entry.asker());
        self.connection.meter.mutates(|| ops::mutations(self.ops(), &op));
        ops::perform(&self.sessions.ops, &client, &asker, op).await
    }

    /// Whether whoever asks may do this; silent, for what is left out of an answer.
    pub(super) fn may(&self, operation: Operation, resource: Resource<'_>) -> bool {
        self.ops()
            .judge(&self.connection.entry.asker())
            .may(operation, resource)
    }

    /// Refuses what whoever asks may not do: before anything is looked up, so that nobody learns what there is.
    pub(super) fn need(&self, operation: Operation, resource: Resource<'_>) -> Result<(), Refusal> {
        self.ops()
            .judge(&self.connection.entry.asker())
            .need(operation, resource)
    }

    /// The same of the cluster.
    pub(super) fn need_cluster(&self, operation: Operation) -> Result<(), Refusal> {
        self.need(operation, THE_CLUSTER)
    }

    /// Which operations whoever asks may do, a bit for each; what stands for none if it is not asked for.
    pub(super) fn operations(&self, is_asked: bool, resource: Resource<'_>) -> i32 {
        if is_asked {
            self.ops().judge(&self.connection.entry.asker()).operations(resource)
        } else {
            i32::MIN
        }
    }

    /// A topic that is served, of which whoever asks may do this.
    pub(super) fn find_topic<'a>(
        &self,
        image: &'a ClusterImage,
        name: &str,
        operation: Operation,
    ) -> Result<&'a Arc<Topic>, ErrorCode> {
        check_name(name)?;
        let may = self.need(operation, (ResourceKind::Topic, name));
        may.map_err(|refusal| refusal.code)?;
        find_topic(image, name)
    }

    /// The next of many that one request names: others have a turn before it, and it is refused once the response is too large,
    /// as the same may be named as often as there is room for in a request.
    pub(super) async fn part(&self) -> Result<(), ErrorCode> {
        machine::yield_now().await;
        if self.size.get() > ANSWER_BYTES_MAX {
            return Err(ErrorCode::InvalidRequest);
        }
        Ok(())
    }

    /// The same, in words.
    pub(super) async fn may_go_on(&self) -> Result<(), Refusal> {
        let refuse = |code| Refusal::new(code, "too much is asked for at once");
        self.part().await.map_err(refuse)
    }

    /// The response has about so many bytes more.
    pub(super) fn adds(&self, bytes: usize) {
        self.size.set(self.size.get().saturating_add(bytes));
    }

    /// A code as the response has it.
    pub(super) fn tells(&self, code: ErrorCode) -> i16 {
        if code != ErrorCode::None {
            self.told.set(code);
        }
        code.as_i16()
    }

    /// The last error that was told.
    pub(super) fn told(&self) -> ErrorCode {
        self.told.get()
    }

    pub(super) fn image(&self) -> Arc<ClusterImage> {
        self.ops().partitions.image()
    }

    /// Writes a response.
    pub(super) fn write<'a>(&self, response: &impl Message<'a>) -> Result<Vec<u8>, Unwritable> {
        let mut body = Vec::new();
        response.write(&mut body, self.version)?;
        Ok(body)
    }
}

/// A topic's id as messages have it.
pub(super) fn uuid_of(id: TopicId) -> headwater_kafka::Uuid {
    *id.as_uuid().as_bytes()
}

/// The reverse of [`uuid_of`].
pub(super) fn topic_id(id: headwater_kafka::Uuid) -> TopicId {
    TopicId::new(Uuid::from_bytes(id))
}

/// Refuses a name that no topic can have, in Kafka's words.
pub(super) fn check_legal(name: &str) -> Result<(), Refusal> {
    let Err(error) = TopicName::new(name) else {
        return Ok(());
    };
    let why = match error {
        TopicNameError::Empty => "the empty string is not allowed".to_owned(),
        TopicNameError::TooLong { .. } => {
            format!("the length of '{name}' is longer than the max allowed length {TOPIC_NAME_LEN_MAX}")
        }
        TopicNameError::DirectoryAlias => format!("'{name}' is not allowed"),
        TopicNameError::IllegalCharacter { .. } => {
            format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
        }
    };
    let message = format_args!("Topic name is invalid: {why}");
    Err(Refusal::new(ErrorCode::InvalidTopicException, message))
}

/// Refuses a name that no topic can have, before it is hashed or copied for each of its partitions.
pub(super) fn check_name(name: &str) -> Result<(), ErrorCode> {
    if name.len() > TOPIC_NAME_LEN_MAX {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    Ok(())
}

/// A topic that is served.
pub(super) fn find_topic<'a>(image: &'a ClusterImage, name: &str) -> Result<&'a Arc<Topic>, ErrorCode> {
    check_name(name)?;
    let topic = image.topic(name).filter(|topic| topic.state == TopicState::Ready);
    topic.ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// A topic that is served.
pub(super) fn find_topic_by_id(image: &ClusterImage, id: headwater_kafka::Uuid) -> Result<&Arc<Topic>, ErrorCode> {
    let topic = image.topic_by_id(topic_id(id));
    let topic = topic.filter(|topic| topic.state == TopicState::Ready);
    topic.ok_or(ErrorCode::UnknownTopicId)
}

/// A partition of a topic.
pub(super) fn partition_of(topic: &Topic, index: i32) -> Result<PartitionId, ErrorCode> {
    let index = PartitionIndex::try_from(index).ok().filter(|index| topic.has(*index));
    let index = index.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(PartitionId { topic: topic.id, index })
}

/// Whether a client knows the leader that there is, by its epoch; a negative one says nothing.
pub(super) fn check_epoch(known: i32, leader: LeaderNode) -> Result<(), ErrorCode> {
    let epoch = leader.epoch.get();
    match known {
        known if known < 0 || known == epoch => Ok(()),
        known if known < epoch => Err(ErrorCode::FencedLeaderEpoch),
        _ => Err(ErrorCode::UnknownLeaderEpoch),
    }
}
