//! Fetch: records are named, and sent from where they lie. In a session a request names only what it wants otherwise than before, and the
//! answer only what is new.

pub(in crate::session) mod sessions;

use std::{borrow::Cow, collections::HashMap, pin::pin, rc::Rc, sync::Arc, time::Duration};

use headwater_kafka::{
    Reader, TopicRef,
    fetch::{Answer, Gap, Part, Request, Response},
    messages::fetch_response::{AbortedTransaction, EpochEndOffset, LeaderIdAndEpoch, NodeEndpoint},
};
use headwater_protocol::{error::ErrorCode, id::LeaderEpoch};

use self::sessions::{Context, Held};
use super::{
    asking::{check_epoch, find_topic, find_topic_by_id, partition_of},
    reply::Reply,
};
use crate::{
    image::ClusterImage,
    machine,
    model::{
        access::{Asker, Operation, ResourceKind},
        bounds::ITEMS_MAX,
        nodes::Node,
        records::{FetchCall, FetchItem, FetchedItem, Isolation, Reads, Seen},
    },
    ops::{self, Ops, fetch::Records, nodes::Places},
    session::{outbox::Piece, protocol::Taken},
};

/// From this version on a consumer may read from a follower (KIP-392).
const FOLLOWERS_FROM: i16 = 11;

/// From this version on an answer may name the leader (KIP-951).
const LEADERS_FROM: i16 = 12;

/// From this version on topics have ids in the place of names.
const IDS_FROM: i16 = 13;

/// What a partition of a fetch takes while that waits, in bytes: what is wanted of it and was found, its answer, and a place among those
/// who wait for it.
const PARTITION_BYTES: u64 = (size_of::<Part<'_>>()
    + size_of::<FetchItem>()
    + size_of::<FetchedItem<Records>>()
    + size_of::<Answer<'_>>()
    + 2 * size_of::<Seen>()
    + 64) as u64;

/// Bytes in the name of a rack, as for brokers.
const RACK_LEN_MAX: usize = 255;

/// Who asks, if it is a consumer; also that of Kafka's tools that look at replicas.
const CONSUMERS: std::ops::RangeInclusive<i32> = -2..=-1;

/// `read_committed`: what belongs to no open transaction.
const READ_COMMITTED: i8 = 1;

/// Begins to look for records, and waits for them beside other requests.
pub(super) async fn take(mut reply: Reply, body: &[u8]) -> Taken {
    let names_ids = reply.version >= IDS_FROM;
    let (context, count) = {
        let mut reader = Reader::with_elements_max(body, ITEMS_MAX);
        let request = match Request::read(&mut reader, reply.version) {
            Ok(request) => request,
            Err(error) => return Taken::Close(error.to_string()),
        };
        if !(0..=READ_COMMITTED).contains(&request.isolation_level) {
            refuse(reply, ErrorCode::UnknownServerError);
            return Taken::Done;
        }
        let entered = reply.sessions.fetches.enter(&request, names_ids, machine::now());
        match entered {
            Ok(Context::Going(session, epoch)) => {
                let count = session.len();
                (Context::Going(session, epoch), count)
            }
            Ok(context) => (context, request.partitions.len()),
            Err(code) => {
                refuse(reply, code);
                return Taken::Done;
            }
        }
    };
    reply.holds(count as u64 * PARTITION_BYTES, body).await;
    let (body, working) = (body.to_vec(), reply.sessions.core.working());
    machine::spawn(async move {
        // Read again, as what is asked borrows from the bytes, which must last until it is answered.
        let mut reader = Reader::with_elements_max(&body, ITEMS_MAX);
        if let Ok(request) = Request::read(&mut reader, reply.version) {
            fetch(reply, &request, &context).await;
        }
        drop(working);
    });
    Taken::Done
}

/// Answers that nothing of it is done.
fn refuse(reply: Reply, code: ErrorCode) {
    let response = Response {
        error_code: code.as_i16(),
        ..Response::default()
    };
    let version = reply.version;
    reply.send(code, |frame| response.write(frame, version).map(drop));
}

async fn fetch(reply: Reply, request: &Request<'_>, context: &Context) {
    let ops = Rc::clone(&reply.sessions.ops);
    let wanted = match context {
        Context::Going(session, _) => session.wanted(),
        Context::Alone | Context::New => Vec::new(),
    };
    let parts = match context {
        Context::Going(..) => wanted.iter().map(Held::part).collect(),
        Context::Alone | Context::New => once_each(&request.partitions),
    };
    let asked = Asked {
        request,
        version: reply.version,
        places: Places::of(&ops),
        image: ops.partitions.image(),
        ops: &ops,
        asker: reply.connection.entry.asker(),
    };
    let (mut answers, mut call) = asked.call(&parts);
    call.at_most(reply.connection.meter.fetch_max());
    let mut records: Vec<Option<Records>> = Vec::new();
    records.resize_with(parts.len(), || None);
    let found = {
        let found = pin!(ops::fetch::fetch(&ops.partitions, &*reply.connection, call));
        reply.connection.meter.time(found).await
    };
    for item in found {
        let place = item.place as usize;
        records[place] = asked.tell(&mut answers[place], &parts[place], item);
    }
    let mut session_id = 0;
    match context {
        Context::Alone => {}
        Context::New => {
            let names_ids = reply.version >= IDS_FROM;
            session_id = reply
                .sessions
                .fetches
                .begin(&parts, &answers, names_ids, machine::now());
        }
        Context::Going(session, epoch) => {
            let are_news = match session.tell(*epoch, &wanted, &answers) {
                Ok(are_news) => are_news,
                Err(code) => return refuse(reply, code),
            };
            session_id = session.id();
            retain(&mut answers, &are_news);
            retain(&mut records, &are_news);
        }
    }
    let size: usize = answers.iter().map(|answer| answer.records_len).sum();
    reply.connection.meter.fetches(size as u64);
    let mut response = Response {
        session_id,
        answers,
        throttle_time_ms: reply.connection.meter.throttle_ms(),
        ..Response::default()
    };
    asked.name_nodes(&mut response);
    send(reply, &response, records);
}

/// Each partition once, as it is named last.
fn once_each<'a, 'b>(parts: &'b [Part<'a>]) -> Cow<'b, [Part<'a>]> {
    if parts.len() < 2 {
        return parts.into();
    }
    let mut places = HashMap::with_capacity(parts.len());
    let mut once: Vec<Part<'a>> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let place = *places
            .entry((part.topic, part.partition.partition))
            .or_insert_with(|| at);
        if place == at {
            if !once.is_empty() {
                places.insert((part.topic, part.partition.partition), once.len());
                once.push(part.clone());
            }
            continue;
        }
        if once.is_empty() {
            once = parts[..at].to_vec();
        }
        once[place] = part.clone();
    }
    if once.is_empty() { parts.into() } else { once.into() }
}

fn retain<T>(list: &mut Vec<T>, are_kept: &[bool]) {
    let mut are_kept = are_kept.iter();
    list.retain(|_| are_kept.next().is_none_or(|is_kept| *is_kept));
}

/// A request, and what it is looked at with.
struct Asked<'a> {
    request: &'a Request<'a>,
    version: i16,
    places: Places<'a>,
    image: Arc<ClusterImage>,
    ops: &'a Ops,
    asker: Rc<Asker>,
}

impl Asked<'_> {
    /// What is looked for, and an answer for each partition. Whoever knows another leader than there is learns that at once; of what is not
    /// there yet it is told with the rest.
    fn call<'a>(&self, parts: &[Part<'a>]) -> (Vec<Answer<'a>>, FetchCall) {
        let rack = Some(self.request.rack).filter(|rack| !rack.is_empty() && rack.len() <= RACK_LEN_MAX);
        let rack: Option<Arc<str>> = rack.map(Arc::from);
        let mut items = Vec::with_capacity(parts.len());
        let mut is_at_once = false;
        let answer = |(place, part): (u32, &Part<'a>)| {
            let mut answer = Answer::new(part.topic, part.partition.partition, 0);
            match self.item(place, part, rack.as_ref()) {
                Ok(item) => items.push(item),
                Err(code) => {
                    answer.error_code = code.as_i16();
                    self.name_leader(&mut answer, part, code);
                    is_at_once |= !matches!(code, ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId);
                }
            }
            answer
        };
        let answers = (0..).zip(parts).map(answer).collect();
        let bytes = |count: i32| u64::from(count.max(0).cast_unsigned());
        let wait = if is_at_once { 0 } else { bytes(self.request.max_wait_ms) };
        let call = FetchCall {
            items,
            min_bytes: bytes(self.request.min_bytes),
            max_bytes: bytes(self.request.max_bytes),
            wait: Duration::from_millis(wait),
        };
        (answers, call)
    }

    fn isolation(&self) -> Isolation {
        Isolation::of(u8::from(self.request.isolation_level == READ_COMMITTED))
    }

    fn item(&self, place: u32, part: &Part<'_>, rack: Option<&Arc<str>>) -> Result<FetchItem, ErrorCode> {
        let may = |name: &str| {
            let may = self
                .ops
                .judge(&self.asker)
                .need(Operation::Read, (ResourceKind::Topic, name));
            may.map_err(|refusal| refusal.code)
        };
        let topic = match part.topic {
            TopicRef::Name(name) => {
                may(name)?;
                find_topic(&self.image, name)?
            }
            TopicRef::Id(id) => {
                let topic = find_topic_by_id(&self.image, id)?;
                may(topic.name.as_str())?;
                topic
            }
        };
        let wanted = &part.partition;
        let id = partition_of(topic, wanted.partition)?;
        // Replicas have a protocol of their own.
        if !CONSUMERS.contains(&self.request.replica.replica_id) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let leader = self.places.leader(id);
        check_epoch(wanted.current_leader_epoch, leader)?;
        if wanted.last_fetched_epoch > leader.epoch.get() {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let reads = match rack {
            Some(rack) if leader.is_here => Reads::Near {
                rack: Arc::clone(rack),
                speaks_kafka: true,
            },
            _ if !leader.is_here && self.version >= FOLLOWERS_FROM => Reads::Follower,
            _ => Reads::Leader,
        };
        Ok(FetchItem {
            place,
            id,
            offset: wanted.fetch_offset,
            max_bytes: u64::from(wanted.partition_max_bytes.max(0).cast_unsigned()),
            reads,
            isolation: self.isolation(),
            last_epoch: Some(LeaderEpoch::new(wanted.last_fetched_epoch)).filter(|epoch| epoch.get() >= 0),
        })
    }

    /// Says what was found; the records, if there are any.
    fn tell(&self, answer: &mut Answer<'_>, part: &Part<'_>, mut item: FetchedItem<Records>) -> Option<Records> {
        // It may have waited for long.
        if let Err(code) = self.ops.judge(&self.asker).may_partition(Operation::Read, item.id) {
            item.error = code;
        }
        answer.error_code = item.error.as_i16();
        if !item.error.is_none() {
            self.name_leader(answer, part, item.error);
            return None;
        }
        answer.high_watermark = item.high_watermark;
        answer.last_stable_offset = item.last_stable;
        answer.log_start_offset = item.log_start_offset;
        if self.request.isolation_level == READ_COMMITTED {
            let aborted = item.aborted.iter().map(|aborted| AbortedTransaction {
                producer_id: aborted.producer_id.get(),
                first_offset: aborted.first_offset.as_i64(),
            });
            answer.aborted_transactions = Some(aborted.collect());
        }
        if let Some((broker, core)) = item.preferred {
            answer.preferred_read_replica = self.places.node(broker, core);
        }
        if let Some((epoch, end)) = item.diverging {
            answer.diverging_epoch = EpochEndOffset {
                epoch: epoch.get(),
                end_offset: end.as_i64(),
            };
        }
        let records = item.records.take()?;
        answer.records_len = item.size as usize;
        Some(records)
    }

    fn name_leader(&self, answer: &mut Answer<'_>, part: &Part<'_>, code: ErrorCode) {
        if self.version < LEADERS_FROM || !matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch)
        {
            return;
        }
        let topic = match part.topic {
            TopicRef::Name(name) => find_topic(&self.image, name),
            TopicRef::Id(id) => find_topic_by_id(&self.image, id),
        };
        if let Ok(id) = topic.and_then(|topic| partition_of(topic, part.partition.partition)) {
            let leader = self.places.leader(id);
            answer.current_leader = LeaderIdAndEpoch {
                leader_id: leader.node.unwrap_or(-1),
                leader_epoch: leader.epoch.get(),
            };
        }
    }

    fn name_nodes(&self, response: &mut Response<'_>) {
        let leaders = response.answers.iter().map(|answer| answer.current_leader.leader_id);
        let named = self.places.numbered(leaders).into_iter();
        response.node_endpoints = named.map(endpoint).collect();
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

/// Bytes, records, bytes, records: each partition's records go into the response where it has a gap for them.
fn send(reply: Reply, response: &Response<'_>, mut records: Vec<Option<Records>>) {
    let failed = response.answers.iter().find(|answer| answer.error_code != 0);
    let error = failed.map_or(ErrorCode::None, |answer| ErrorCode::from_i16(answer.error_code));
    let mut frame = reply.begun();
    let gaps = match response.write(&mut frame, reply.version) {
        Ok(gaps) => gaps,
        Err(why) => return reply.cannot(&why),
    };
    let Some(&Gap { at: head_len, .. }) = gaps.first() else {
        return reply.send_pieces(error, frame, (0, Vec::new()));
    };
    let mut rest = Vec::with_capacity(gaps.len() * 2);
    let mut rest_len = 0;
    for (number, gap) in gaps.iter().enumerate() {
        if let Some(found) = records[gap.answer].take() {
            rest_len += response.answers[gap.answer].records_len as u64;
            rest.push(Piece::Records(found));
        }
        let end = gaps.get(number + 1).map_or(frame.len(), |next| next.at);
        let between = &frame[gap.at..end];
        if !between.is_empty() {
            rest_len += between.len() as u64;
            rest.push(Piece::Bytes(between.to_vec()));
        }
    }
    frame.truncate(head_len);
    reply.send_pieces(error, frame, (rest_len, rest));
}
