//! A connection that speaks the protocol as the test wants it, right or wrong, where the client would not.

use std::net::SocketAddr;

use bytes::Bytes;
use headwater_protocol::{
    batch::{BatchBuilder, BatchLimits, Batches, Compression, RecordSet},
    error::ErrorCode,
    frame::{self, Api, FrameHeader},
    head::{self, Head},
    id::{CorrelationId, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId},
    schema,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

/// Larger than any response that a test asks for.
const FRAME_SIZE_MAX: u32 = 256 << 20;

pub struct Raw {
    pub stream: TcpStream,
    next_id: u32,
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub header: FrameHeader,
    head: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream, next_id: 1 }
    }

    /// A connection whose own end holds little of what is sent to it.
    pub async fn connect_with_small_window(address: SocketAddr) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream, next_id: 1 }
    }

    /// A new correlation id.
    pub fn next_id(&mut self) -> CorrelationId {
        self.next_id += 1;
        CorrelationId::new(self.next_id)
    }

    /// Sends a request without waiting for its response.
    pub async fn send<H: Head>(&mut self, head: &H, payload: &[u8]) -> CorrelationId {
        let id = self.next_id();
        let mut bytes = frame::encode_head(head, 0, id, payload.len());
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes).await.unwrap();
        id
    }

    /// The next response, whatever it answers; `None` when the broker has closed the connection.
    pub async fn receive(&mut self) -> Option<Reply> {
        let mut bytes = [0; frame::HEADER_LEN];
        self.stream.read_exact(&mut bytes).await.ok()?;
        let header = FrameHeader::parse(&bytes, FRAME_SIZE_MAX).unwrap().unwrap();
        let mut head = vec![0; header.head_len()];
        let mut payload = vec![0; header.payload_len()];
        self.stream.read_exact(&mut head).await.ok()?;
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Reply { header, head, payload })
    }

    /// As [`Raw::call`], on a connection that the broker may close instead.
    pub async fn try_call<H: Head>(&mut self, head: &H) -> Option<Reply> {
        let id = self.next_id();
        self.stream.write_all(&frame::encode_head(head, 0, id, 0)).await.ok()?;
        self.receive().await
    }

    /// Sends a request and waits for its response, the only one under way.
    pub async fn call<H: Head>(&mut self, head: &H, payload: &[u8]) -> Reply {
        let id = self.send(head, payload).await;
        let reply = self.receive().await.expect("the broker answers");
        assert_eq!(reply.header.correlation_id, id);
        reply
    }
}

impl Raw {
    /// Sends a request while others wait, and waits for its response. Returns the responses that came before it.
    pub async fn call_behind<H: Head>(&mut self, head: &H) -> Vec<Reply> {
        let id = self.send(head, &[]).await;
        let mut earlier = Vec::new();
        loop {
            let reply = self.receive().await.expect("the broker answers");
            if reply.header.correlation_id == id {
                return earlier;
            }
            earlier.push(reply);
        }
    }
}

macro_rules! responses {
    ($($name:ident: $table:ident => $owned:ident;)*) => {
        impl Reply {
            $(pub fn $name(&self) -> schema::$owned {
                assert_eq!(Api::from_u16(self.header.api), Some(<schema::$owned as Head>::API), "{self:?}");
                head::decode_response::<schema::$table<'_>>(&self.head).unwrap().unpack()
            })*
        }
    };
}

responses! {
    error_response: ErrorResponse => ErrorResponseT;
    api_versions: ApiVersionsResponse => ApiVersionsResponseT;
    metadata: MetadataResponse => MetadataResponseT;
    create_topic: CreateTopicResponse => CreateTopicResponseT;
    delete_topic: DeleteTopicResponse => DeleteTopicResponseT;
    describe_topic: DescribeTopicResponse => DescribeTopicResponseT;
    init_producer_id: InitProducerIdResponse => InitProducerIdResponseT;
    produce: ProduceResponse => ProduceResponseT;
    fetch: FetchResponse => FetchResponseT;
    list_offsets: ListOffsetsResponse => ListOffsetsResponseT;
    delete_records: DeleteRecordsResponse => DeleteRecordsResponseT;
    find_group: FindGroupResponse => FindGroupResponseT;
    join_group: JoinGroupResponse => JoinGroupResponseT;
    sync_group: SyncGroupResponse => SyncGroupResponseT;
    heartbeat: HeartbeatResponse => HeartbeatResponseT;
    leave_group: LeaveGroupResponse => LeaveGroupResponseT;
    offset_commit: OffsetCommitResponse => OffsetCommitResponseT;
    offset_fetch: OffsetFetchResponse => OffsetFetchResponseT;
    offset_delete: OffsetDeleteResponse => OffsetDeleteResponseT;
    list_groups: ListGroupsResponse => ListGroupsResponseT;
    describe_group: DescribeGroupResponse => DescribeGroupResponseT;
    delete_group: DeleteGroupResponse => DeleteGroupResponseT;
}

impl Reply {
    /// Its head as it came.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// The records of each partition of a fetch response that has no error.
    pub fn fetched(&self) -> Vec<(i32, &[u8])> {
        let mut rest = &self.payload[..];
        let mut fetched = Vec::new();
        for partition in self.fetch().partitions.unwrap() {
            assert_eq!(partition.error, 0);
            let (records, after) = rest.split_at(partition.records_size as usize);
            fetched.push((partition.partition, records));
            rest = after;
        }
        fetched
    }

    /// The code of the frame that answers what could not be understood.
    pub fn refusal(&self) -> ErrorCode {
        let response = self.error_response();
        assert!(
            response.message.is_some_and(|message| !message.is_empty()),
            "an error says what is wrong"
        );
        ErrorCode::from_i16(response.error)
    }
}

/// The requests that tests make most.
pub fn produce(topic: TopicId, partition: i32) -> schema::ProduceRequestT {
    schema::ProduceRequestT {
        topic_id: Some(topic.into()),
        partition,
        acks: -1,
        timeout_ms: 10_000,
    }
}

pub fn fetch(topic: TopicId, partitions: &[(i32, i64)], wait_ms: u32, min_bytes: u32) -> schema::FetchRequestT {
    let partition = |(partition, offset): &(i32, i64)| schema::FetchPartitionT {
        topic_id: topic.into(),
        partition: *partition,
        max_bytes: 1 << 20,
        offset: *offset,
    };
    schema::FetchRequestT {
        max_wait_ms: wait_ms,
        min_bytes,
        max_bytes: 8 << 20,
        partitions: Some(partitions.iter().map(partition).collect()),
        rack: None,
        reads: None,
        isolation: 0,
    }
}

pub fn list_offsets(topic: TopicId, questions: &[(i32, i64)]) -> schema::ListOffsetsRequestT {
    let question = |(partition, timestamp): &(i32, i64)| schema::ListOffsetsPartitionT {
        topic_id: topic.into(),
        partition: *partition,
        timestamp: *timestamp,
    };
    schema::ListOffsetsRequestT {
        partitions: Some(questions.iter().map(question).collect()),
        isolation: 0,
    }
}

/// A batch of these values, with the time of now.
pub fn batch(values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for value in values {
        builder.append(Timestamp::now(), None, Some(value), &[]).unwrap();
    }
    builder.build().bytes().to_vec()
}

/// The same from an idempotent producer.
pub fn numbered_batch(values: &[&[u8]], id: i64, epoch: i16, sequence: i32) -> Vec<u8> {
    let mut batch = batch(values);
    let (id, epoch, sequence) = (ProducerId::new(id), ProducerEpoch::new(epoch), Sequence::new(sequence));
    headwater_protocol::batch::set_producer(&mut batch, id, epoch, sequence);
    batch
}

/// The same within the producer's transaction.
pub fn transactional_batch(values: &[&[u8]], id: i64, epoch: i16, sequence: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for value in values {
        builder.append(Timestamp::now(), None, Some(value), &[]).unwrap();
    }
    builder.set_producer(ProducerId::new(id), ProducerEpoch::new(epoch), Sequence::new(sequence));
    builder.set_transactional();
    builder.build().bytes().to_vec()
}

/// The offsets and values of all records in whole batches.
pub fn stored_values(batches: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let limits = BatchLimits {
        batch_size_max: batches.len(),
    };
    let mut values = Vec::new();
    for batch in Batches::new(batches, &limits) {
        let batch = Bytes::copy_from_slice(batch.unwrap().bytes());
        let records = RecordSet::decode(&batch, batches.len()).unwrap();
        let records = records.iter().map(Result::unwrap);
        values.extend(records.map(|record| (record.offset.get(), record.value.unwrap().to_vec())));
    }
    values
}

/// The values alone.
pub fn values(batches: &[u8]) -> Vec<Vec<u8>> {
    stored_values(batches).into_iter().map(|(_, value)| value).collect()
}
