//! Fetch, versions 4 to 18: the request is read to one list of partitions; the response is written as bytes without the records,
//! and says where they go, so that they can be sent from wherever they are. The same bytes as
//! [`messages::FetchRequest`](crate::messages::FetchRequest) and [`messages::FetchResponse`](crate::messages::FetchResponse).

use crate::messages::fetch_request::{FetchPartition, ReplicaState};
use crate::messages::fetch_response::{AbortedTransaction, EpochEndOffset, LeaderIdAndEpoch, NodeEndpoint};
use crate::messages::{FetchRequest, FetchResponse};
use crate::reader::{Malformed, Reader};
use crate::value::{
    Tags, TopicRef, Unwritable, Value, Version, lacks, no_tags, put_count, readable, required_count, whole, writable,
};

/// From this version on there are sessions (KIP-227), whose epoch says more than the list of partitions.
const SESSIONS_FROM: i16 = 7;
/// From this version on a consumer may be sent to a replica nearby (KIP-392).
const RACKS_FROM: i16 = 11;
/// From this version on topics have ids in the place of names.
const IDS_FROM: i16 = 13;
/// From this version on a follower says who it is in a tagged field.
const REPLICA_STATE_FROM: i16 = 15;
/// From this version on a response says where leaders are.
const ENDPOINTS_FROM: i16 = 16;

/// What a consumer asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request<'a> {
    /// Who asks; -1 for a consumer.
    pub replica: ReplicaState,
    /// How long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// With how many bytes of records it is content.
    pub min_bytes: i32,
    /// How many it wants at most.
    pub max_bytes: i32,
    /// 0: all that is durable; 1: what belongs to no open transaction.
    pub isolation_level: i8,
    /// The session, 0 for none. From version 7 on.
    pub session_id: i32,
    /// Where in the session it is; -1 for no session. From version 7 on.
    pub session_epoch: i32,
    /// To which cluster it believes to talk. From version 12 on.
    pub cluster_id: Option<&'a str>,
    /// The rack of the consumer, or nothing. From version 11 on.
    pub rack: &'a str,
    /// The partitions, in the order of the request. Topics without any are left out.
    pub partitions: Vec<Part<'a>>,
    /// Partitions that leave the session. From version 7 on.
    pub forgotten: Vec<(TopicRef<'a>, i32)>,
}

/// From where on records of one partition are wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Part<'a> {
    /// The topic.
    pub topic: TopicRef<'a>,
    /// The partition, and what is wanted of it.
    pub partition: FetchPartition,
}

impl<'a> Request<'a> {
    /// Reads one.
    pub fn read(reader: &mut Reader<'a>, version: i16) -> Result<Self, Malformed> {
        let v = readable::<FetchRequest<'_>>(reader, version)?;
        let mut replica = ReplicaState::default();
        if version < REPLICA_STATE_FROM {
            replica.replica_id = Value::get(reader, v)?;
        }
        let mut request = Self {
            replica,
            max_wait_ms: Value::get(reader, v)?,
            min_bytes: Value::get(reader, v)?,
            max_bytes: Value::get(reader, v)?,
            isolation_level: Value::get(reader, v)?,
            session_id: 0,
            session_epoch: -1,
            cluster_id: None,
            rack: "",
            partitions: Vec::new(),
            forgotten: Vec::new(),
        };
        if version >= SESSIONS_FROM {
            request.session_id = Value::get(reader, v)?;
            request.session_epoch = Value::get(reader, v)?;
        }
        request.read_topics(reader, v)?;
        if version >= SESSIONS_FROM {
            request.read_forgotten(reader, v)?;
        }
        if version >= RACKS_FROM {
            request.rack = required_str(reader, v)?;
        }
        if v.flexible {
            reader.tags(|tag, reader| request.tag(tag, reader, v))?;
        }
        Ok(request)
    }

    fn read_topics(&mut self, reader: &mut Reader<'a>, v: Version) -> Result<(), Malformed> {
        // A topic has a name or an id, and an array.
        for _ in 0..required_count(reader, v, 2)? {
            let topic = TopicRef::get(reader, v, v.number >= IDS_FROM)?;
            let count = required_count(reader, v, FetchPartition::SIZE_MIN)?;
            self.partitions.reserve(reader.reserve::<Part<'_>>(count));
            for _ in 0..count {
                let partition = Value::get(reader, v)?;
                self.partitions.push(Part { topic, partition });
            }
            reader.no_tags(v)?;
        }
        Ok(())
    }

    fn read_forgotten(&mut self, reader: &mut Reader<'a>, v: Version) -> Result<(), Malformed> {
        for _ in 0..required_count(reader, v, 2)? {
            let topic = TopicRef::get(reader, v, v.number >= IDS_FROM)?;
            for _ in 0..required_count(reader, v, 4)? {
                self.forgotten.push((topic, Value::get(reader, v)?));
            }
            reader.no_tags(v)?;
        }
        Ok(())
    }

    fn tag(&mut self, tag: u32, reader: &mut Reader<'a>, v: Version) -> Result<bool, Malformed> {
        match tag {
            0 => self.cluster_id = reader.string(v)?,
            1 if v.number >= REPLICA_STATE_FROM => self.replica = Value::get(reader, v)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn required_str<'a>(reader: &mut Reader<'a>, v: Version) -> Result<&'a str, Malformed> {
    let null = reader.wrong(crate::Fault::Length { length: -1 });
    reader.string(v)?.ok_or(null)
}

/// What the consumer is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Response<'a> {
    /// How long the client is asked to hold back.
    pub throttle_time_ms: i32,
    /// What is wrong with the whole request, or 0. From version 7 on; left out of the others.
    pub error_code: i16,
    /// The session, or 0 for none: the broker declines it. From version 7 on.
    pub session_id: i32,
    /// An answer for each partition; those that follow one another with the same topic become one topic.
    pub answers: Vec<Answer<'a>>,
    /// Where the leaders are that answers name. From version 16 on; left out of the others.
    pub node_endpoints: Vec<NodeEndpoint<'a>>,
}

/// What there is of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<'a> {
    /// The topic, as the request names it.
    pub topic: TopicRef<'a>,
    /// The partition's number.
    pub partition: i32,
    /// 0 if it could be read.
    pub error_code: i16,
    /// The high watermark, or -1.
    pub high_watermark: i64,
    /// Where the first open transaction begins, or the high watermark; -1 if not known.
    pub last_stable_offset: i64,
    /// Where the log begins, or -1. From version 5 on; left out of the others.
    pub log_start_offset: i64,
    /// Where the log of the one that asks differs from this. From version 12 on.
    pub diverging_epoch: EpochEndOffset,
    /// Who leads the partition instead. From version 12 on; left out of the others.
    pub current_leader: LeaderIdAndEpoch,
    /// Transactions that were aborted, of those that have records here. Null when they were not asked for.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// A replica nearby to ask next, or -1. From version 11 on.
    pub preferred_read_replica: i32,
    /// Bytes of record batches; none is an empty list, never null.
    pub records_len: usize,
}

/// A place in the bytes of a response at which records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The answer whose records they are, by its place in [`Response::answers`].
    pub answer: usize,
    /// Before which byte of the buffer that was written to they go.
    pub at: usize,
}

impl<'a> Answer<'a> {
    /// An answer that says nothing but an error, or 0.
    pub fn new(topic: TopicRef<'a>, partition: i32, error_code: i16) -> Self {
        Self {
            topic,
            partition,
            error_code,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: EpochEndOffset::default(),
            current_leader: LeaderIdAndEpoch::default(),
            aborted_transactions: None,
            preferred_read_replica: -1,
            records_len: 0,
        }
    }

    /// All up to and including the length of the records.
    fn put_head(&self, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable> {
        self.partition.put(out, v)?;
        self.error_code.put(out, v)?;
        self.high_watermark.put(out, v)?;
        self.last_stable_offset.put(out, v)?;
        if v.number >= 5 {
            self.log_start_offset.put(out, v)?;
        }
        self.aborted_transactions.put(out, v)?;
        if v.number >= RACKS_FROM {
            self.preferred_read_replica.put(out, v)?;
        } else if self.preferred_read_replica != -1 {
            return Err(lacks("PreferredReadReplica", v));
        }
        put_count(out, Some(self.records_len), v)
    }

    /// All behind the records.
    fn put_tail(&self, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable> {
        let diverges = self.diverging_epoch != EpochEndOffset::default();
        if !v.flexible {
            return if diverges {
                Err(lacks("DivergingEpoch", v))
            } else {
                Ok(())
            };
        }
        let mut tags = Tags::new(out);
        if diverges {
            tags.put(0, &self.diverging_epoch, v)?;
        }
        if self.current_leader != LeaderIdAndEpoch::default() {
            tags.put(1, &self.current_leader, v)?;
        }
        Ok(())
    }
}

impl Response<'_> {
    /// Appends to `out` all but the records, or nothing. The gaps say where they go, for each answer that has some, in order.
    ///
    /// The length of the whole is what was appended and the `records_len` of all answers.
    pub fn write(&self, out: &mut Vec<u8>, version: i16) -> Result<Vec<Gap>, Unwritable> {
        let v = writable::<FetchResponse<'_>>(version)?;
        whole(out, |out| self.put(out, v))
    }

    fn put(&self, out: &mut Vec<u8>, v: Version) -> Result<Vec<Gap>, Unwritable> {
        self.throttle_time_ms.put(out, v)?;
        if v.number >= SESSIONS_FROM {
            self.error_code.put(out, v)?;
            self.session_id.put(out, v)?;
        } else if self.session_id != 0 {
            return Err(lacks("SessionId", v));
        }
        let gaps = self.put_topics(out, v)?;
        if v.flexible {
            let mut tags = Tags::new(out);
            if v.number >= ENDPOINTS_FROM && !self.node_endpoints.is_empty() {
                tags.put(0, &self.node_endpoints, v)?;
            }
        }
        Ok(gaps)
    }

    fn put_topics(&self, out: &mut Vec<u8>, v: Version) -> Result<Vec<Gap>, Unwritable> {
        let topics = || self.answers.chunk_by(|one, next| one.topic == next.topic);
        put_count(out, Some(topics().count()), v)?;
        let mut gaps = Vec::with_capacity(self.answers.len());
        let mut numbers = 0..;
        for answers in topics() {
            answers[0].topic.put(out, v, v.number >= IDS_FROM)?;
            put_count(out, Some(answers.len()), v)?;
            for (answer, number) in answers.iter().zip(numbers.by_ref()) {
                answer.put_head(out, v)?;
                if answer.records_len > 0 {
                    gaps.push(Gap {
                        answer: number,
                        at: out.len(),
                    });
                }
                answer.put_tail(out, v)?;
            }
            no_tags(out, v);
        }
        Ok(gaps)
    }
}
