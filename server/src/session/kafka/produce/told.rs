//! What is told of each partition of a produce request, once all of it is known.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use headwater_kafka::{
    TopicRef,
    messages::produce_response::{BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint},
    produce::{Answer, Part, Response},
};
use headwater_protocol::{error::ErrorCode, id::Offset};

use crate::{
    image::ClusterImage,
    model::{
        id::PartitionId,
        nodes::Node,
        records::{Blame, Produced},
        refusal::Refusal,
    },
    ops::nodes::Places,
    session::kafka::reply::Reply,
};

/// From this version on an answer says what is wrong in words.
const MESSAGES_FROM: i16 = 8;

/// What is said in words about the partitions of one request, in bytes; of further ones there is but a code, as there is of all in Kafka.
const MESSAGES_BYTES_MAX: usize = 64 * 1024;

/// A request of which not all partitions are told yet.
pub(super) struct Waiting {
    pub(super) told: RefCell<Vec<Told>>,
    /// Partitions that are not told, and one more until all have been taken in.
    left: Cell<usize>,
    messages_bytes: Cell<usize>,
    reply: RefCell<Option<Reply>>,
}

/// What became of the records of one partition, once it is known.
pub(super) struct Told {
    topic: Topic,
    partition: i32,
    pub(super) id: Option<PartitionId>,
    produced: Option<Result<Produced, Refusal>>,
}

/// A topic as the request names it. Partitions of one topic share its name.
#[derive(Clone)]
enum Topic {
    Name(Rc<str>),
    Id(headwater_kafka::Uuid),
}

impl Topic {
    fn as_ref(&self) -> TopicRef<'_> {
        match self {
            Topic::Name(name) => TopicRef::Name(name),
            Topic::Id(id) => TopicRef::Id(*id),
        }
    }

    /// The same as that of the partition before, if it is.
    fn of(part: &Part<'_>, before: Option<&Told>) -> Topic {
        match (before, part.topic) {
            (Some(before), topic) if before.topic.as_ref() == topic => before.topic.clone(),
            (_, TopicRef::Name(name)) => Topic::Name(name.into()),
            (_, TopicRef::Id(id)) => Topic::Id(id),
        }
    }
}

impl Told {
    fn answer(&self, places: &Places<'_>, (image, version): (&ClusterImage, i16)) -> (Answer<'_>, ErrorCode) {
        let mut answer = Answer::new(self.topic.as_ref(), self.partition, 0);
        let refusal = match &self.produced {
            Some(Ok(produced)) => {
                answer.base_offset = produced.base_offset.as_i64();
                answer.log_append_time_ms = produced.append_time.get();
                answer.log_start_offset = produced.log_start_offset.as_i64();
                return (answer, ErrorCode::None);
            }
            Some(Err(refusal)) => refusal,
            None => unreachable!("it is told before it is answered"),
        };
        let code = match refusal.code {
            // Something of it was refused here: what came behind that is out of order.
            ErrorCode::UnknownProducerId => ErrorCode::OutOfOrderSequenceNumber,
            code => code,
        };
        answer.error_code = code.as_i16();
        let refused = refusal.refused.as_ref();
        let log_start = refused.and_then(|refused| refused.log_start);
        answer.log_start_offset = log_start.map_or(-1, Offset::as_i64);
        if version >= MESSAGES_FROM {
            let blame = refused.map_or(&Blame::Nobody, |refused| &refused.blame);
            let (errors, message) = self.blamed(blame, image);
            let message = message.unwrap_or_else(|| refusal.message.clone());
            answer.error_message = (!message.is_empty()).then(|| message.into());
            let error = |(index, message): (u32, String)| BatchIndexAndErrorMessage {
                batch_index: index.cast_signed(),
                batch_index_error_message: Some(message.into()),
            };
            answer.record_errors = errors.into_iter().map(error).collect();
        }
        if let (ErrorCode::NotLeaderOrFollower, Some(id)) = (code, self.id) {
            let leader = places.leader(id);
            answer.current_leader = LeaderIdAndEpoch {
                leader_id: leader.node.unwrap_or(-1),
                leader_epoch: leader.epoch.get(),
            };
        }
        (answer, code)
    }

    /// What Kafka says of records that are to blame, and of all of them together.
    fn blamed(&self, blame: &Blame, image: &ClusterImage) -> (Vec<(u32, String)>, Option<String>) {
        match blame {
            Blame::Nobody => (Vec::new(), None),
            Blame::NoKey { count, first } => {
                let name = match (&self.topic, self.id) {
                    (Topic::Name(name), _) => name.to_string(),
                    (Topic::Id(_), Some(id)) => image
                        .topic_by_id(id.topic)
                        .map_or_else(String::new, |topic| topic.name.to_string()),
                    (Topic::Id(_), None) => String::new(),
                };
                let why = format!(
                    "Compacted topic cannot accept message without key in topic partition {name}-{}",
                    self.partition
                );
                let shown = first
                    .iter()
                    .map(|index| format!("RecordError(batchIndex={index}, message='{why}')"));
                let message = format!(
                    "One or more records have been rejected due to {count} record errors in total, and only showing the first \
                     three errors at most: [{}]",
                    shown.collect::<Vec<_>>().join(", ")
                );
                (first.iter().map(|index| (*index, why.clone())).collect(), Some(message))
            }
            Blame::Time {
                index,
                timestamp,
                earliest,
                latest,
            } => {
                let why = format!(
                    "Timestamp {timestamp} of message with offset {index} is out of range. The timestamp should be within \
                     [{earliest}, {latest}]"
                );
                let message = "One or more records have been rejected due to invalid timestamp".to_owned();
                (vec![(*index, why)], Some(message))
            }
        }
    }
}

impl Waiting {
    pub(super) fn new(reply: Reply, parts: &[Part<'_>]) -> Waiting {
        let mut told: Vec<Told> = Vec::with_capacity(parts.len());
        for part in parts {
            let topic = Topic::of(part, told.last());
            told.push(Told {
                topic,
                partition: part.partition,
                id: None,
                produced: None,
            });
        }
        Waiting {
            left: Cell::new(told.len() + 1),
            told: RefCell::new(told),
            messages_bytes: Cell::new(0),
            reply: RefCell::new(Some(reply)),
        }
    }

    pub(super) fn tell(&self, place: usize, mut produced: Result<Produced, Refusal>) {
        if let Err(refusal) = &mut produced {
            let bytes = self.messages_bytes.get() + refusal.message.len();
            self.messages_bytes.set(bytes);
            if bytes > MESSAGES_BYTES_MAX {
                refusal.message = String::new();
                refusal.refused = None;
            }
        }
        self.told.borrow_mut()[place].produced = Some(produced);
        self.done();
    }

    pub(super) fn done(&self) {
        self.left.set(self.left.get() - 1);
        if self.left.get() > 0 {
            return;
        }
        let Some(reply) = self.reply.take() else { return };
        let ops = Rc::clone(&reply.sessions.ops);
        let (places, image, version) = (Places::of(&ops), ops.partitions.image(), reply.version);
        let told = self.told.borrow();
        let answers = told.iter().map(|told| told.answer(&places, (&image, version)));
        let (answers, errors): (Vec<_>, Vec<_>) = answers.unzip();
        let error = errors.into_iter().find(|error| !error.is_none());
        let mut response = Response {
            answers,
            throttle_time_ms: reply.connection.meter.throttle_ms(),
            ..Response::default()
        };
        let leaders = response.answers.iter().map(|answer| answer.current_leader.leader_id);
        let named = places.numbered(leaders).into_iter();
        response.node_endpoints = named.map(endpoint).collect();
        reply.send(error.unwrap_or(ErrorCode::None), |frame| response.write(frame, version));
    }
}

fn endpoint(node: Node) -> NodeEndpoint<'static> {
    NodeEndpoint {
        node_id: node.id,
        host: node.host.into(),
        port: node.port.into(),
        rack: node.rack.map(Into::into),
    }
}
