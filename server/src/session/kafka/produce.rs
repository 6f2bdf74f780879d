//! Produce: records are taken in while they lie in the read buffer, partition by partition, and answered once all of them are as safe
//! as was asked for.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use headwater_kafka::{
    Reader, TopicRef,
    messages::produce_response::{LeaderIdAndEpoch, NodeEndpoint},
    produce::{Answer, Part, Request, Response},
};
use headwater_protocol::error::ErrorCode;

use super::{
    asking::{find_topic, find_topic_by_id, partition_of},
    reply::Reply,
};
use crate::{
    model::{
        bounds::ITEMS_MAX,
        id::PartitionId,
        internal,
        nodes::Node,
        records::{Acks, Produce, Produced},
        refusal::Refusal,
    },
    ops::{self, nodes::Places},
    session::protocol::Taken,
};

/// No producer waits longer for replicas, which bounds for how long they keep what its request holds.
const REPLICAS_WAIT_MAX: Duration = Duration::from_mins(5);

/// From this version on a broker may be given records that are compressed with zstd (KIP-110).
const ZSTD_FROM: i16 = 7;

/// From this version on an answer says what is wrong in words.
const MESSAGES_FROM: i16 = 8;

/// Takes the records in. When this returns they are in the logs of this core, or on their way to other cores.
pub(super) async fn take(reply: Reply, body: &[u8]) -> Taken {
    let mut reader = Reader::with_elements_max(body, ITEMS_MAX);
    let request = match Request::read(&mut reader, reply.version) {
        Ok(request) => request,
        Err(error) => return Taken::Close(error.to_string()),
    };
    if request.acks == 0 {
        return take_unanswered(reply, &request, body).await;
    }
    let (ops, core) = (Rc::clone(&reply.sessions.ops), Rc::clone(&reply.sessions.core));
    let version = reply.version;
    let waiting = Rc::new(Waiting {
        told: RefCell::new(request.partitions.iter().map(Told::of).collect()),
        left: Cell::new(request.partitions.len() + 1),
        reply: RefCell::new(Some(reply)),
    });
    for (place, part) in request.partitions.iter().enumerate() {
        let records = &body[part.records.clone()];
        let judged = judge(&ops, &request, part, (version, records));
        waiting.told.borrow_mut()[place].id = judged.as_ref().ok().map(|produce| produce.id);
        let taken = match judged {
            Ok(produce) => ops::produce::take(&ops.partitions, produce).await,
            Err(refusal) => Err(refusal),
        };
        let waiting = Rc::clone(&waiting);
        match taken {
            Ok(pending) => pending.tell(&core, move |produced| waiting.tell(place, produced)),
            Err(refusal) => waiting.tell(place, Err(refusal)),
        }
    }
    waiting.done();
    Taken::Done
}

/// Of a client that wants no answer: the end of the connection is all that it can be told.
async fn take_unanswered(reply: Reply, request: &Request<'_>, body: &[u8]) -> Taken {
    let (ops, connection) = (Rc::clone(&reply.sessions.ops), Rc::clone(&reply.connection));
    let version = reply.version;
    let unanswered = Rc::new(Unanswered(Some(reply)));
    for part in &request.partitions {
        let records = &body[part.records.clone()];
        let taken = match judge(&ops, request, part, (version, records)) {
            Ok(produce) => ops::produce::take(&ops.partitions, produce).await,
            Err(refusal) => Err(refusal),
        };
        let (connection, unanswered) = (Rc::clone(&connection), Rc::clone(&unanswered));
        match taken {
            Ok(pending) => pending.tell_if_refused(move |refusal| {
                tracing::info!(
                    refusal.message,
                    "a connection is closed: its request cannot be answered"
                );
                connection.outbox.hang_up();
                drop(unanswered);
            }),
            Err(refusal) => {
                connection.outbox.hang_up();
                return Taken::Close(refusal.message);
            }
        }
    }
    Taken::Done
}

/// Of a request without an answer: holds what it was lent until its records are where they belong, on this core or another.
struct Unanswered(Option<Reply>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply.send_nothing();
        }
    }
}

fn judge<'a>(
    ops: &ops::Ops,
    request: &Request<'_>,
    part: &Part<'_>,
    (version, records): (i16, &'a [u8]),
) -> Result<Produce<'a>, Refusal> {
    let acks = match request.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        -1 => Acks::All {
            within: Duration::from_millis(request.timeout_ms.max(0).cast_unsigned().into()).min(REPLICAS_WAIT_MAX),
        },
        other => {
            let message = format!("acks is {other}; it may be 0 (none), 1 (leader) or -1 (all)");
            return Err(Refusal::new(ErrorCode::InvalidRequiredAcks, message));
        }
    };
    if request.transactional_id.is_some() {
        let code = ErrorCode::TransactionalIdAuthorizationFailed;
        return Err(Refusal::new(code, "this broker has no transactions yet"));
    }
    let id = find(ops, part).map_err(|code| Refusal::new(code, code.description()))?;
    check_form(version, records)?;
    Ok(Produce { id, acks, records })
}

fn find(ops: &ops::Ops, part: &Part<'_>) -> Result<PartitionId, ErrorCode> {
    let image = ops.partitions.image();
    let topic = match part.topic {
        TopicRef::Name(name) => find_topic(&image, name)?,
        TopicRef::Id(id) => find_topic_by_id(&image, id)?,
    };
    if internal::is_internal(topic.name.as_str()) {
        return Err(ErrorCode::InvalidTopicException);
    }
    partition_of(topic, part.partition)
}

/// What this protocol says of a form of records that no other has: those of another magic than 2, and zstd where it may not be.
fn check_form(version: i16, records: &[u8]) -> Result<(), Refusal> {
    const MAGIC_AT: usize = 16;
    const ATTRIBUTES_AT: usize = 22;
    const CODEC: u8 = 7;
    const ZSTD: u8 = 4;
    match records.get(MAGIC_AT) {
        None => {
            let message = "there is no whole record batch";
            return Err(Refusal::new(ErrorCode::InvalidRecord, message));
        }
        Some(magic @ 0..=1) => {
            let message = format!("the records have the form of magic {magic}, which is older than record batches");
            return Err(Refusal::new(ErrorCode::InvalidRecord, message));
        }
        Some(2) => {}
        Some(magic) => {
            let message = format!("Invalid magic found in record: {magic}");
            return Err(Refusal::new(ErrorCode::CorruptMessage, message));
        }
    }
    let codec = records.get(ATTRIBUTES_AT).map(|attributes| attributes & CODEC);
    if version < ZSTD_FROM && codec == Some(ZSTD) {
        let message = "zstd may be used from version 7 of produce requests on";
        return Err(Refusal::new(ErrorCode::UnsupportedCompressionType, message));
    }
    Ok(())
}

/// A request of which not all partitions are told yet.
struct Waiting {
    told: RefCell<Vec<Told>>,
    /// Partitions that are not told, and one more until all have been taken in.
    left: Cell<usize>,
    reply: RefCell<Option<Reply>>,
}

/// What became of the records of one partition, once it is known.
struct Told {
    topic: Topic,
    partition: i32,
    id: Option<PartitionId>,
    produced: Option<Result<Produced, Refusal>>,
}

/// A topic as the request names it.
enum Topic {
    Name(String),
    Id(headwater_kafka::Uuid),
}

impl Told {
    fn of(part: &Part<'_>) -> Told {
        Told {
            topic: match part.topic {
                TopicRef::Name(name) => Topic::Name(name.to_owned()),
                TopicRef::Id(id) => Topic::Id(id),
            },
            partition: part.partition,
            id: None,
            produced: None,
        }
    }

    fn answer(&self, places: &Places<'_>, version: i16) -> (Answer<'_>, ErrorCode) {
        let topic = match &self.topic {
            Topic::Name(name) => TopicRef::Name(name),
            Topic::Id(id) => TopicRef::Id(*id),
        };
        let mut answer = Answer::new(topic, self.partition, 0);
        match &self.produced {
            Some(Ok(produced)) => {
                answer.base_offset = produced.base_offset.as_i64();
                answer.log_append_time_ms = produced.append_time.get();
                answer.log_start_offset = produced.log_start_offset.as_i64();
                (answer, ErrorCode::None)
            }
            Some(Err(refusal)) => {
                answer.error_code = refusal.code.as_i16();
                if version >= MESSAGES_FROM {
                    answer.error_message = Some(refusal.message.as_str().into());
                }
                if let (ErrorCode::NotLeaderOrFollower, Some(id)) = (refusal.code, self.id) {
                    let leader = places.leader(id);
                    answer.current_leader = LeaderIdAndEpoch {
                        leader_id: leader.node.unwrap_or(-1),
                        leader_epoch: leader.epoch.get(),
                    };
                }
                (answer, refusal.code)
            }
            None => unreachable!("it is told before it is answered"),
        }
    }
}

impl Waiting {
    fn tell(&self, place: usize, produced: Result<Produced, Refusal>) {
        self.told.borrow_mut()[place].produced = Some(produced);
        self.done();
    }

    fn done(&self) {
        self.left.set(self.left.get() - 1);
        if self.left.get() > 0 {
            return;
        }
        let Some(reply) = self.reply.take() else { return };
        let ops = Rc::clone(&reply.sessions.ops);
        let (places, version) = (Places::of(&ops), reply.version);
        let told = self.told.borrow();
        let (answers, errors): (Vec<_>, Vec<_>) = told.iter().map(|told| told.answer(&places, version)).unzip();
        let error = errors.into_iter().find(|error| !error.is_none());
        let mut response = Response {
            answers,
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
