//! What answering a request takes.

use std::{cell::Cell, rc::Rc, sync::Arc};

use headwater_kafka::{Message, Unwritable};
use headwater_protocol::{
    error::ErrorCode,
    id::{PartitionIndex, TopicId},
};
use uuid::Uuid;

use crate::{
    image::{ClusterImage, Topic, TopicState},
    model::{
        id::PartitionId,
        nodes::LeaderNode,
        op::{Op, Outcome},
        refusal::Refusal,
    },
    ops::{self, Ops},
    session::{peer::Connection, sessions::Sessions},
};

/// A request that is being answered.
pub(super) struct Asking {
    pub(super) sessions: Rc<Sessions>,
    pub(super) connection: Rc<Connection>,
    pub(super) version: i16,
    /// The last error that its response tells of, for the metrics.
    told: Cell<ErrorCode>,
}

impl Asking {
    pub(super) fn new(sessions: &Rc<Sessions>, connection: &Rc<Connection>, version: i16) -> Asking {
        Asking {
            sessions: Rc::clone(sessions),
            connection: Rc::clone(connection),
            version,
            told: Cell::new(ErrorCode::None),
        }
    }

    pub(super) fn ops(&self) -> &Ops {
        &self.sessions.ops
    }

    /// Does what is asked.
    pub(super) async fn perform(&self, op: Op) -> Result<Outcome, Refusal> {
        let client = self.connection.client();
        ops::perform(&self.sessions.ops, &client, op).await
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

/// A topic that is served.
pub(super) fn find_topic<'a>(image: &'a ClusterImage, name: &str) -> Result<&'a Arc<Topic>, ErrorCode> {
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
