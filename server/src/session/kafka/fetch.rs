//! Fetch: records are named, and sent from where they lie. No sessions are made (KIP-227): each request names all that it wants.

use std::{collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use headwater_kafka::{
    Reader, TopicRef,
    fetch::{Answer, Gap, Part, Request, Response},
    messages::fetch_response::{LeaderIdAndEpoch, NodeEndpoint},
};
use headwater_protocol::error::ErrorCode;

use super::{
    asking::{check_epoch, find_topic, find_topic_by_id, partition_of},
    reply::Reply,
};
use crate::{
    image::ClusterImage,
    machine,
    model::{
        bounds::ITEMS_MAX,
        nodes::Node,
        records::{FetchCall, FetchItem, FetchedItem, Reads},
    },
    ops::{self, fetch::Records, nodes::Places},
    session::{outbox::Piece, protocol::Taken},
};

/// `FETCH_SESSION_ID_NOT_FOUND`.
const SESSION_NOT_FOUND: i16 = 70;

/// From this version on a consumer may read from a follower (KIP-392).
const FOLLOWERS_FROM: i16 = 11;

/// From this version on an answer may name the leader (KIP-951).
const LEADERS_FROM: i16 = 12;

/// Bytes in the name of a rack, as for brokers.
const RACK_LEN_MAX: usize = 255;

/// Who asks, if it is a consumer; also that of Kafka's tools that look at replicas.
const CONSUMERS: std::ops::RangeInclusive<i32> = -2..=-1;

/// `read_committed`: what belongs to no open transaction.
const READ_COMMITTED: i8 = 1;

/// Begins to look for records, and waits for them beside other requests.
pub(super) fn take(reply: Reply, body: &[u8]) -> Taken {
    let mut reader = Reader::with_elements_max(body, ITEMS_MAX);
    let request = match Request::read(&mut reader, reply.version) {
        Ok(request) => request,
        Err(error) => return Taken::Close(error.to_string()),
    };
    // It says that it is in a session, and there is none. An epoch of -1 asks for none, and of 0 for a new one, which is declined.
    if request.session_epoch > 0 {
        refuse(reply, SESSION_NOT_FOUND);
        return Taken::Done;
    }
    if !(0..=READ_COMMITTED).contains(&request.isolation_level) {
        refuse(reply, ErrorCode::UnknownServerError.as_i16());
        return Taken::Done;
    }
    let (body, working) = (body.to_vec(), reply.sessions.core.working());
    machine::spawn(async move {
        // Read again, as what is asked borrows from the bytes, which must last until it is answered.
        let mut reader = Reader::with_elements_max(&body, ITEMS_MAX);
        if let Ok(request) = Request::read(&mut reader, reply.version) {
            fetch(reply, &request).await;
        }
        drop(working);
    });
    Taken::Done
}

fn refuse(reply: Reply, error_code: i16) {
    let response = Response {
        error_code,
        ..Response::default()
    };
    let version = reply.version;
    reply.send(ErrorCode::from_i16(error_code), |frame| {
        response.write(frame, version).map(drop)
    });
}

async fn fetch(reply: Reply, request: &Request<'_>) {
    let ops = Rc::clone(&reply.sessions.ops);
    let asked = Asked {
        request,
        version: reply.version,
        places: Places::of(&ops),
        image: ops.partitions.image(),
    };
    let rack = Some(request.rack).filter(|rack| !rack.is_empty() && rack.len() <= RACK_LEN_MAX);
    let rack: Option<Arc<str>> = rack.map(Arc::from);
    let mut response = Response::default();
    let mut items = Vec::with_capacity(request.partitions.len());
    for (place, part) in (0..).zip(&request.partitions) {
        let mut answer = Answer::new(part.topic, part.partition.partition, 0);
        match asked.item(place, part, rack.as_ref()) {
            Ok(item) => items.push(item),
            Err(code) => {
                answer.error_code = code.as_i16();
                asked.name_leader(&mut answer, part, code);
            }
        }
        response.answers.push(answer);
    }
    let bytes = |count: i32| u64::from(count.max(0).cast_unsigned());
    let call = FetchCall {
        items,
        min_bytes: bytes(request.min_bytes),
        max_bytes: bytes(request.max_bytes),
        wait: Duration::from_millis(bytes(request.max_wait_ms)),
    };
    let found = ops::fetch::fetch(&ops.partitions, &*reply.connection, call).await;
    let mut records = HashMap::new();
    for item in found {
        let place = item.place as usize;
        let part = &request.partitions[place];
        if let Some((len, found)) = asked.tell(&mut response.answers[place], part, item) {
            records.insert(place, (len, found));
        }
    }
    asked.name_nodes(&mut response);
    send(reply, &response, records);
}

/// A request, and what it is looked at with.
struct Asked<'a> {
    request: &'a Request<'a>,
    version: i16,
    places: Places<'a>,
    image: Arc<ClusterImage>,
}

impl Asked<'_> {
    fn item(&self, place: u32, part: &Part<'_>, rack: Option<&Arc<str>>) -> Result<FetchItem, ErrorCode> {
        let topic = match part.topic {
            TopicRef::Name(name) => find_topic(&self.image, name)?,
            TopicRef::Id(id) => find_topic_by_id(&self.image, id)?,
        };
        let wanted = &part.partition;
        let id = partition_of(topic, wanted.partition)?;
        // Replicas have a protocol of their own.
        if !CONSUMERS.contains(&self.request.replica.replica_id) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let leader = self.places.leader(id);
        check_epoch(wanted.current_leader_epoch, leader)?;
        let reads = match rack {
            Some(rack) if leader.is_here => Reads::Near(Arc::clone(rack)),
            _ if !leader.is_here && self.version >= FOLLOWERS_FROM => Reads::Follower,
            _ => Reads::Leader,
        };
        Ok(FetchItem {
            place,
            id,
            offset: wanted.fetch_offset,
            max_bytes: u64::from(wanted.partition_max_bytes.max(0).cast_unsigned()),
            reads,
        })
    }

    /// Says what was found; the records, and their length, if there are any.
    fn tell(
        &self,
        answer: &mut Answer<'_>,
        part: &Part<'_>,
        mut item: FetchedItem<Records>,
    ) -> Option<(usize, Records)> {
        answer.error_code = item.error.as_i16();
        if !item.error.is_none() {
            self.name_leader(answer, part, item.error);
            return None;
        }
        answer.high_watermark = item.high_watermark;
        // There are no transactions.
        answer.last_stable_offset = item.high_watermark;
        answer.log_start_offset = item.log_start_offset;
        if self.request.isolation_level == READ_COMMITTED {
            answer.aborted_transactions = Some(Vec::new());
        }
        if let Some((broker, core)) = item.preferred {
            answer.preferred_read_replica = self.places.node(broker, core);
        }
        let records = item.records.take()?;
        let len = item.size as usize;
        answer.records_len = len;
        Some((len, records))
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
fn send(reply: Reply, response: &Response<'_>, mut records: HashMap<usize, (usize, Records)>) {
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
        if let Some((len, found)) = records.remove(&gap.answer) {
            rest_len += len as u64;
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
