//! Produce, versions 3 to 13: the request is read to where the records lie in the frame, which nobody copies; the response is
//! written from one list of partitions. The same bytes as [`messages::ProduceRequest`](crate::messages::ProduceRequest) and
//! [`messages::ProduceResponse`](crate::messages::ProduceResponse).

use std::ops::Range;

use crate::messages::produce_response::{BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint};
use crate::messages::{ProduceRequest, ProduceResponse};
use crate::reader::{Malformed, Reader};
use crate::value::{
    Str, Tags, TopicRef, Unwritable, Value, Version, no_tags, put_count, readable, required_count, whole, writable,
};

/// From this version on topics have ids in the place of names.
const IDS_FROM: i16 = 13;
/// From this version on a response says who leads a partition instead.
const LEADERS_FROM: i16 = 10;

/// What a producer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Null without transactions.
    pub transactional_id: Option<&'a str>,
    /// 0: no response at all; 1: once the leader has it; -1: once all in-sync replicas have it. Others are refused.
    pub acks: i16,
    /// How long the producer waits.
    pub timeout_ms: i32,
    /// The partitions, in the order of the request. Topics without any are left out.
    pub partitions: Vec<Part<'a>>,
}

/// Records for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// The topic.
    pub topic: TopicRef<'a>,
    /// The partition's number; it may be any.
    pub partition: i32,
    /// Where the record batches lie, in the bytes that the reader was given. Empty for null.
    pub records: Range<usize>,
}

impl<'a> Request<'a> {
    /// Reads one.
    pub fn read(reader: &mut Reader<'a>, version: i16) -> Result<Self, Malformed> {
        let v = readable::<ProduceRequest<'_>>(reader, version)?;
        let mut request = Self {
            transactional_id: reader.string(v)?,
            acks: Value::get(reader, v)?,
            timeout_ms: Value::get(reader, v)?,
            partitions: Vec::new(),
        };
        // A topic has a name or an id, and an array; a partition a number and bytes.
        for _ in 0..required_count(reader, v, 2)? {
            let topic = TopicRef::get(reader, v, version >= IDS_FROM)?;
            let count = required_count(reader, v, 4 + 1)?;
            request.partitions.reserve(reader.reserve::<Part<'_>>(count));
            for _ in 0..count {
                request.partitions.push(Part::get(reader, v, topic)?);
            }
            reader.no_tags(v)?;
        }
        reader.no_tags(v)?;
        Ok(request)
    }
}

impl<'a> Part<'a> {
    fn get(reader: &mut Reader<'a>, v: Version, topic: TopicRef<'a>) -> Result<Self, Malformed> {
        let partition = Value::get(reader, v)?;
        let len = reader.bytes(v)?.map_or(0, <[u8]>::len);
        let end = reader.at();
        reader.no_tags(v)?;
        Ok(Self {
            topic,
            partition,
            records: end - len..end,
        })
    }
}

/// What the producer is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Response<'a> {
    /// An answer for each partition; those that follow one another with the same topic become one topic.
    pub answers: Vec<Answer<'a>>,
    /// How long the client is asked to hold back.
    pub throttle_time_ms: i32,
    /// Where the leaders are that answers name. From version 10 on; left out of the others.
    pub node_endpoints: Vec<NodeEndpoint<'a>>,
}

/// What became of the records for one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<'a> {
    /// The topic, as the request names it.
    pub topic: TopicRef<'a>,
    /// The partition's number.
    pub partition: i32,
    /// 0 if they were taken in.
    pub error_code: i16,
    /// The offset of the first record, or -1.
    pub base_offset: i64,
    /// When they were appended, if the topic's times are of that kind; otherwise -1.
    pub log_append_time_ms: i64,
    /// Where the log begins, or -1. From version 5 on.
    pub log_start_offset: i64,
    /// Which records are to blame. From version 8 on.
    pub record_errors: Vec<BatchIndexAndErrorMessage<'a>>,
    /// What is wrong with them. From version 8 on.
    pub error_message: Option<Str<'a>>,
    /// Who leads the partition instead. From version 10 on; left out of the others.
    pub current_leader: LeaderIdAndEpoch,
}

impl<'a> Answer<'a> {
    /// An answer that says nothing but an error, or 0.
    pub fn new(topic: TopicRef<'a>, partition: i32, error_code: i16) -> Self {
        Self {
            topic,
            partition,
            error_code,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: LeaderIdAndEpoch::default(),
        }
    }

    fn put(&self, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable> {
        self.partition.put(out, v)?;
        self.error_code.put(out, v)?;
        self.base_offset.put(out, v)?;
        self.log_append_time_ms.put(out, v)?;
        if v.number >= 5 {
            self.log_start_offset.put(out, v)?;
        }
        if v.number >= 8 {
            self.record_errors.put(out, v)?;
            self.error_message.put(out, v)?;
        }
        if v.flexible {
            let mut tags = Tags::new(out);
            if v.number >= LEADERS_FROM && self.current_leader != LeaderIdAndEpoch::default() {
                tags.put(0, &self.current_leader, v)?;
            }
        }
        Ok(())
    }
}

impl Response<'_> {
    /// Appends it to `out`, or appends nothing.
    pub fn write(&self, out: &mut Vec<u8>, version: i16) -> Result<(), Unwritable> {
        let v = writable::<ProduceResponse<'_>>(version)?;
        whole(out, |out| self.put(out, v))
    }

    fn put(&self, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable> {
        let topics = || self.answers.chunk_by(|one, next| one.topic == next.topic);
        put_count(out, Some(topics().count()), v)?;
        for answers in topics() {
            answers[0].topic.put(out, v, v.number >= IDS_FROM)?;
            put_count(out, Some(answers.len()), v)?;
            answers.iter().try_for_each(|answer| answer.put(out, v))?;
            no_tags(out, v);
        }
        self.throttle_time_ms.put(out, v)?;
        if v.flexible {
            let mut tags = Tags::new(out);
            if v.number >= LEADERS_FROM && !self.node_endpoints.is_empty() {
                tags.put(0, &self.node_endpoints, v)?;
            }
        }
        Ok(())
    }
}
