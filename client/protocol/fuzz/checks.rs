// What must hold for any bytes at all: nothing panics, what is accepted is what it says it is, and it reads back.
//
// Shared by the fuzz targets beside this file and by `tests/corpus.rs`, which replays their corpora and mutates batches.
// Each check tells whether its input was accepted, so that a corpus can be seen to reach both sides.

use bytes::Bytes;
use headwater_protocol::batch::{
    BatchBuilder, BatchLimits, Batches, Compression, HEADER_LEN, HeaderRef, LENGTH_PREFIX, MAGIC, RecordBatch,
    RecordCursor, RecordSet, RecordView, TimestampType, rebuild, set_append_time, stamp,
};
use headwater_protocol::classic::Reader;
use headwater_protocol::frame::{self, Api, FrameHeader};
use headwater_protocol::group::{Assignment, Subscription};
use headwater_protocol::head::{self, Head};
use headwater_protocol::id::{LeaderEpoch, Offset, Timestamp};
use headwater_protocol::schema;

/// Bytes in the largest frame, batch, and decompressed set of records that the checks let in.
const SIZE_MAX: usize = 1 << 20;

/// Checks bytes as the beginning of a connection.
pub fn frame(bytes: &[u8]) -> bool {
    let header = match FrameHeader::parse(bytes, SIZE_MAX as u32) {
        Ok(Some(header)) => header,
        Ok(None) => {
            assert!(bytes.len() < frame::HEADER_LEN);
            return false;
        }
        Err(error) => {
            // A size that is not allowed is refused before the rest of the header is there.
            let id = bytes
                .first_chunk::<{ frame::HEADER_LEN }>()
                .map_or(&[0; 4][..], |header| &header[8..12]);
            assert_eq!(error.correlation_id().get().to_le_bytes(), id);
            return false;
        }
    };
    assert_eq!(header.encode(), bytes[..frame::HEADER_LEN]);
    assert_eq!(
        header.frame_len(),
        frame::HEADER_LEN + header.head_len() + header.payload_len()
    );
    assert!(header.frame_len() <= SIZE_MAX + 4);
    let Some(body) = bytes.get(frame::HEADER_LEN..header.frame_len()) else {
        return false;
    };
    let (head, payload) = body.split_at(header.head_len());
    let read = Api::from_u16(header.api).is_some_and(|api| request(api, head));
    for batch in Batches::new(
        payload,
        &BatchLimits {
            batch_size_max: SIZE_MAX,
        },
    ) {
        let Ok(batch) = batch else { break };
        assert!(batch.bytes().len() <= payload.len());
    }
    read
}

/// Checks the bytes after the first as a head; the first one chooses which.
pub fn head(bytes: &[u8]) -> bool {
    let Some((&choice, head)) = bytes.split_first() else {
        return false;
    };
    let Some(api) = Api::from_u16(u16::from(choice >> 1)) else {
        return false;
    };
    if choice & 1 == 0 {
        request(api, head)
    } else {
        response(api, head)
    }
}

/// Reads a head as one table in full; what it says must read back from what we write of it.
macro_rules! read_back {
    ($decode:path, $table:ident, $head:expr) => {{
        let Ok(table) = $decode($head) else { return false };
        let owned = table.unpack();
        let written = head::encode(&owned);
        assert_eq!(written.len() % head::ALIGNMENT, 0);
        let again: schema::$table<'_> = $decode(&written).expect("what we write can be read");
        assert_eq!(again.unpack(), owned);
        api_of(&owned)
    }};
}

fn api_of<H: Head>(_head: &H) -> Api {
    H::API
}

fn request(api: Api, head: &[u8]) -> bool {
    let read = match api {
        Api::Error => return false,
        Api::ApiVersions => read_back!(head::decode::<schema::ApiVersionsRequest>, ApiVersionsRequest, head),
        Api::Metadata => read_back!(head::decode::<schema::MetadataRequest>, MetadataRequest, head),
        Api::CreateTopic => read_back!(head::decode::<schema::CreateTopicRequest>, CreateTopicRequest, head),
        Api::DeleteTopic => read_back!(head::decode::<schema::DeleteTopicRequest>, DeleteTopicRequest, head),
        Api::DescribeTopic => read_back!(head::decode::<schema::DescribeTopicRequest>, DescribeTopicRequest, head),
        Api::InitProducerId => read_back!(
            head::decode::<schema::InitProducerIdRequest>,
            InitProducerIdRequest,
            head
        ),
        Api::Produce => read_back!(head::decode::<schema::ProduceRequest>, ProduceRequest, head),
        Api::Fetch => read_back!(head::decode::<schema::FetchRequest>, FetchRequest, head),
        Api::ListOffsets => read_back!(head::decode::<schema::ListOffsetsRequest>, ListOffsetsRequest, head),
        Api::DeleteRecords => read_back!(head::decode::<schema::DeleteRecordsRequest>, DeleteRecordsRequest, head),
        Api::AlterTopic => read_back!(head::decode::<schema::AlterTopicRequest>, AlterTopicRequest, head),
        Api::DescribeBroker => read_back!(
            head::decode::<schema::DescribeBrokerRequest>,
            DescribeBrokerRequest,
            head
        ),
        Api::FindGroup => read_back!(head::decode::<schema::FindGroupRequest>, FindGroupRequest, head),
        Api::JoinGroup => read_back!(head::decode::<schema::JoinGroupRequest>, JoinGroupRequest, head),
        Api::SyncGroup => read_back!(head::decode::<schema::SyncGroupRequest>, SyncGroupRequest, head),
        Api::Heartbeat => read_back!(head::decode::<schema::HeartbeatRequest>, HeartbeatRequest, head),
        Api::LeaveGroup => read_back!(head::decode::<schema::LeaveGroupRequest>, LeaveGroupRequest, head),
        Api::OffsetCommit => read_back!(head::decode::<schema::OffsetCommitRequest>, OffsetCommitRequest, head),
        Api::OffsetFetch => read_back!(head::decode::<schema::OffsetFetchRequest>, OffsetFetchRequest, head),
        Api::OffsetDelete => read_back!(head::decode::<schema::OffsetDeleteRequest>, OffsetDeleteRequest, head),
        Api::ListGroups => read_back!(head::decode::<schema::ListGroupsRequest>, ListGroupsRequest, head),
        Api::DescribeGroup => read_back!(head::decode::<schema::DescribeGroupRequest>, DescribeGroupRequest, head),
        Api::DeleteGroup => read_back!(head::decode::<schema::DeleteGroupRequest>, DeleteGroupRequest, head),
        Api::DescribeQuorum => read_back!(
            head::decode::<schema::DescribeQuorumRequest>,
            DescribeQuorumRequest,
            head
        ),
        Api::AddQuorumMembers => read_back!(
            head::decode::<schema::AddQuorumMembersRequest>,
            AddQuorumMembersRequest,
            head
        ),
        Api::RemoveQuorumMember => read_back!(
            head::decode::<schema::RemoveQuorumMemberRequest>,
            RemoveQuorumMemberRequest,
            head
        ),
        Api::ListBrokers => read_back!(head::decode::<schema::ListBrokersRequest>, ListBrokersRequest, head),
        Api::CordonBroker => read_back!(head::decode::<schema::CordonBrokerRequest>, CordonBrokerRequest, head),
        Api::ForgetBroker => read_back!(head::decode::<schema::ForgetBrokerRequest>, ForgetBrokerRequest, head),
        Api::FinaliseFeatures => read_back!(
            head::decode::<schema::FinaliseFeaturesRequest>,
            FinaliseFeaturesRequest,
            head
        ),
        Api::DrainBroker => read_back!(head::decode::<schema::DrainBrokerRequest>, DrainBrokerRequest, head),
        Api::ElectLeaders => read_back!(head::decode::<schema::ElectLeadersRequest>, ElectLeadersRequest, head),
        Api::ReassignPartitions => read_back!(
            head::decode::<schema::ReassignPartitionsRequest>,
            ReassignPartitionsRequest,
            head
        ),
        Api::Authenticate => read_back!(head::decode::<schema::AuthenticateRequest>, AuthenticateRequest, head),
        Api::DescribeAcls => read_back!(head::decode::<schema::DescribeAclsRequest>, DescribeAclsRequest, head),
        Api::CreateAcls => read_back!(head::decode::<schema::CreateAclsRequest>, CreateAclsRequest, head),
        Api::DeleteAcls => read_back!(head::decode::<schema::DeleteAclsRequest>, DeleteAclsRequest, head),
        Api::DescribeUsers => read_back!(head::decode::<schema::DescribeUsersRequest>, DescribeUsersRequest, head),
        Api::SetUser => read_back!(head::decode::<schema::SetUserRequest>, SetUserRequest, head),
        Api::RemoveUser => read_back!(head::decode::<schema::RemoveUserRequest>, RemoveUserRequest, head),
        Api::DescribeQuotas => read_back!(
            head::decode::<schema::DescribeQuotasRequest>,
            DescribeQuotasRequest,
            head
        ),
        Api::AlterQuotas => read_back!(head::decode::<schema::AlterQuotasRequest>, AlterQuotasRequest, head),
    };
    assert_eq!(read, api);
    true
}

fn response(api: Api, head: &[u8]) -> bool {
    use head::decode_response as decode;
    let read = match api {
        Api::Error => read_back!(decode::<schema::ErrorResponse>, ErrorResponse, head),
        Api::ApiVersions => read_back!(decode::<schema::ApiVersionsResponse>, ApiVersionsResponse, head),
        Api::Metadata => read_back!(decode::<schema::MetadataResponse>, MetadataResponse, head),
        Api::CreateTopic => read_back!(decode::<schema::CreateTopicResponse>, CreateTopicResponse, head),
        Api::DeleteTopic => read_back!(decode::<schema::DeleteTopicResponse>, DeleteTopicResponse, head),
        Api::DescribeTopic => read_back!(decode::<schema::DescribeTopicResponse>, DescribeTopicResponse, head),
        Api::InitProducerId => read_back!(decode::<schema::InitProducerIdResponse>, InitProducerIdResponse, head),
        Api::Produce => read_back!(decode::<schema::ProduceResponse>, ProduceResponse, head),
        Api::Fetch => read_back!(decode::<schema::FetchResponse>, FetchResponse, head),
        Api::ListOffsets => read_back!(decode::<schema::ListOffsetsResponse>, ListOffsetsResponse, head),
        Api::DeleteRecords => read_back!(decode::<schema::DeleteRecordsResponse>, DeleteRecordsResponse, head),
        Api::AlterTopic => read_back!(decode::<schema::AlterTopicResponse>, AlterTopicResponse, head),
        Api::DescribeBroker => read_back!(decode::<schema::DescribeBrokerResponse>, DescribeBrokerResponse, head),
        Api::FindGroup => read_back!(decode::<schema::FindGroupResponse>, FindGroupResponse, head),
        Api::JoinGroup => read_back!(decode::<schema::JoinGroupResponse>, JoinGroupResponse, head),
        Api::SyncGroup => read_back!(decode::<schema::SyncGroupResponse>, SyncGroupResponse, head),
        Api::Heartbeat => read_back!(decode::<schema::HeartbeatResponse>, HeartbeatResponse, head),
        Api::LeaveGroup => read_back!(decode::<schema::LeaveGroupResponse>, LeaveGroupResponse, head),
        Api::OffsetCommit => read_back!(decode::<schema::OffsetCommitResponse>, OffsetCommitResponse, head),
        Api::OffsetFetch => read_back!(decode::<schema::OffsetFetchResponse>, OffsetFetchResponse, head),
        Api::OffsetDelete => read_back!(decode::<schema::OffsetDeleteResponse>, OffsetDeleteResponse, head),
        Api::ListGroups => read_back!(decode::<schema::ListGroupsResponse>, ListGroupsResponse, head),
        Api::DescribeGroup => read_back!(decode::<schema::DescribeGroupResponse>, DescribeGroupResponse, head),
        Api::DeleteGroup => read_back!(decode::<schema::DeleteGroupResponse>, DeleteGroupResponse, head),
        Api::DescribeQuorum => read_back!(decode::<schema::DescribeQuorumResponse>, DescribeQuorumResponse, head),
        Api::AddQuorumMembers => read_back!(
            decode::<schema::AddQuorumMembersResponse>,
            AddQuorumMembersResponse,
            head
        ),
        Api::RemoveQuorumMember => read_back!(
            decode::<schema::RemoveQuorumMemberResponse>,
            RemoveQuorumMemberResponse,
            head
        ),
        Api::ListBrokers => read_back!(decode::<schema::ListBrokersResponse>, ListBrokersResponse, head),
        Api::CordonBroker => read_back!(decode::<schema::CordonBrokerResponse>, CordonBrokerResponse, head),
        Api::ForgetBroker => read_back!(decode::<schema::ForgetBrokerResponse>, ForgetBrokerResponse, head),
        Api::FinaliseFeatures => read_back!(
            decode::<schema::FinaliseFeaturesResponse>,
            FinaliseFeaturesResponse,
            head
        ),
        Api::DrainBroker => read_back!(decode::<schema::DrainBrokerResponse>, DrainBrokerResponse, head),
        Api::ElectLeaders => read_back!(decode::<schema::ElectLeadersResponse>, ElectLeadersResponse, head),
        Api::ReassignPartitions => read_back!(
            decode::<schema::ReassignPartitionsResponse>,
            ReassignPartitionsResponse,
            head
        ),
        Api::Authenticate => read_back!(decode::<schema::AuthenticateResponse>, AuthenticateResponse, head),
        Api::DescribeAcls => read_back!(decode::<schema::DescribeAclsResponse>, DescribeAclsResponse, head),
        Api::CreateAcls => read_back!(decode::<schema::CreateAclsResponse>, CreateAclsResponse, head),
        Api::DeleteAcls => read_back!(decode::<schema::DeleteAclsResponse>, DeleteAclsResponse, head),
        Api::DescribeUsers => read_back!(decode::<schema::DescribeUsersResponse>, DescribeUsersResponse, head),
        Api::SetUser => read_back!(decode::<schema::SetUserResponse>, SetUserResponse, head),
        Api::RemoveUser => read_back!(decode::<schema::RemoveUserResponse>, RemoveUserResponse, head),
        Api::DescribeQuotas => read_back!(decode::<schema::DescribeQuotasResponse>, DescribeQuotasResponse, head),
        Api::AlterQuotas => read_back!(decode::<schema::AlterQuotasResponse>, AlterQuotasResponse, head),
    };
    assert_eq!(read, api);
    true
}

/// Checks bytes as record batches: as they are, and with length, magic and CRC mended, to get behind these.
pub fn batch(bytes: &[u8]) -> bool {
    let accepted = one_batch(bytes);
    let mut mended = bytes.to_vec();
    if mended.len() >= HEADER_LEN {
        mended[8..12].copy_from_slice(&((bytes.len() - LENGTH_PREFIX) as u32).to_be_bytes());
        mended[16] = MAGIC as u8;
        let crc = crc32c::crc32c(&mended[21..]);
        mended[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    one_batch(&mended) || accepted
}

fn one_batch(bytes: &[u8]) -> bool {
    let source = Bytes::copy_from_slice(bytes);
    let Ok(batch) = RecordBatch::parse(
        &source,
        &BatchLimits {
            batch_size_max: SIZE_MAX,
        },
    ) else {
        return false;
    };
    assert!(batch.size() == batch.bytes().len() && batch.size() <= source.len());
    assert_eq!(batch.crc(), crc32c::crc32c(&batch.bytes()[21..]));
    assert_eq!(
        batch.next_offset().distance_from(batch.base_offset()),
        Some(u64::from(batch.offset_count()))
    );
    assert!(batch.record_count() <= batch.offset_count());
    assert_eq!(batch.last_offset().next(), batch.next_offset());
    check_stamps(&batch);
    let _depends_on_the_bytes = batch.check_from_client();
    let valid = batch.validate_records(SIZE_MAX, false).is_ok();
    let Ok(set) = RecordSet::open(&batch, &source, SIZE_MAX) else {
        assert!(!valid);
        return false;
    };
    check_records(&batch, &set, valid)
}

/// What a broker writes into a batch leaves the rest of it as it was.
fn check_stamps(batch: &RecordBatch<'_>) {
    let limits = BatchLimits {
        batch_size_max: SIZE_MAX,
    };
    let mut bytes = batch.bytes().to_vec();
    stamp(&mut bytes, Offset::new(7), LeaderEpoch::new(3));
    let stamped = RecordBatch::parse(&bytes, &limits).expect("offset and epoch are outside the CRC");
    assert_eq!(
        (stamped.base_offset(), stamped.leader_epoch()),
        (Offset::new(7), LeaderEpoch::new(3))
    );
    assert_eq!(stamped.record_count(), batch.record_count());
    set_append_time(&mut bytes, Timestamp::new(11));
    let stamped = RecordBatch::parse(&bytes, &limits).expect("the CRC is computed anew");
    assert_eq!(stamped.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(
        (stamped.max_timestamp(), stamped.base_timestamp()),
        (Timestamp::new(11), batch.base_timestamp())
    );
}

fn check_records(batch: &RecordBatch<'_>, set: &RecordSet, valid: bool) -> bool {
    let mut records = Vec::new();
    let mut expected = batch.base_offset();
    let mut cursor = RecordCursor::default();
    for record in set {
        let interrupted = set
            .next_record(&mut cursor)
            .expect("the cursor goes as far as the iterator");
        assert_eq!(interrupted.as_ref().map(parts), record.as_ref().map(parts));
        let Ok(record) = record else {
            assert!(!valid);
            return false;
        };
        assert!(record.offset >= expected && record.offset <= batch.last_offset());
        expected = record.offset.next();
        for part in [record.key, record.value].into_iter().flatten() {
            assert_eq!(set.slice(part), part);
        }
        records.push(record);
    }
    assert!(set.next_record(&mut cursor).is_none());
    assert_eq!(records.len(), batch.record_count() as usize);
    if !records.is_empty() {
        check_rebuilt(&records);
    }
    check_thinned(batch, set, &records);
    true
}

fn parts<'a>(record: &RecordView<'a>) -> (Offset, Timestamp, Option<&'a [u8]>, Option<&'a [u8]>) {
    (record.offset, record.timestamp, record.key, record.value)
}

/// Takes out every other record: the others must read back the same, in a batch that takes up the same offsets.
fn check_thinned(batch: &RecordBatch<'_>, set: &RecordSet, records: &[RecordView<'_>]) {
    let mut index = 0;
    let odd = |_: &RecordView<'_>| {
        index += 1;
        index % 2 == 0
    };
    let horizon = Timestamp::new(7);
    let thinned = rebuild(set, Some(horizon), odd).expect("every record was read before");
    let thinned = RecordSet::decode(&thinned.into(), 2 * SIZE_MAX).expect("what we write can be read");
    let header = thinned.header();
    assert_eq!(
        (header.base_offset(), header.next_offset(), header.last_sequence()),
        (batch.base_offset(), batch.next_offset(), batch.last_sequence())
    );
    assert_eq!(header.delete_horizon(), (records.len() > 1).then_some(horizon));
    let kept: Vec<_> = records.iter().skip(1).step_by(2).map(parts).collect();
    let again: Vec<_> = thinned
        .iter()
        .collect::<Result<_, _>>()
        .expect("what we write can be read");
    assert_eq!(kept, again.iter().map(parts).collect::<Vec<_>>());
}

/// Builds the records anew: they must read back the same.
fn check_rebuilt(records: &[RecordView<'_>]) {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for record in records {
        let headers: Vec<HeaderRef<'_>> = record.headers.clone().collect();
        assert_eq!(headers.len(), record.headers.len());
        let before = builder.len();
        builder
            .append(record.timestamp, record.key, record.value, &headers)
            .expect("it came out of a batch");
        assert!(builder.len() - before <= BatchBuilder::record_size_max(record.key, record.value, &headers));
    }
    let rebuilt = RecordSet::decode(&builder.build().freeze(), 0).expect("what we write can be read");
    for (record, again) in records.iter().zip(&rebuilt) {
        let again = again.expect("what we write can be read");
        assert_eq!(
            (record.timestamp, record.key, record.value),
            (again.timestamp, again.key, again.value)
        );
        assert!(record.headers.clone().eq(again.headers));
    }
}

/// Checks bytes as what a member tells its group, and as what it is told.
pub fn group(bytes: &[u8]) -> bool {
    let subscription = Subscription::decode(bytes);
    if let Ok(subscription) = &subscription {
        let names = subscription.topics.iter().map(|topic| 2 + topic.len());
        let owned = subscription
            .owned_partitions
            .iter()
            .map(|of| 6 + of.topic.len() + 4 * of.partitions.len());
        assert!(names.chain(owned).sum::<usize>() <= bytes.len(), "more than there was");
        assert_eq!(Subscription::decode(&subscription.encode()).as_ref(), Ok(subscription));
    }
    let assignment = Assignment::decode(bytes);
    if let Ok(assignment) = &assignment {
        let parts = assignment
            .partitions
            .iter()
            .map(|of| 6 + of.topic.len() + 4 * of.partitions.len());
        assert!(parts.sum::<usize>() <= bytes.len(), "more than there was");
        assert_eq!(Assignment::decode(&assignment.encode()).as_ref(), Ok(assignment));
    }
    check_reader(bytes);
    subscription.is_ok() || assignment.is_ok()
}

/// Whatever is asked of a reader, it takes no more than there is, and nothing when it fails.
fn check_reader(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    for step in 0_u8.. {
        let before = reader.left();
        let taken = match step % 5 {
            0 => reader.string().map(|text| 2 + text.len()),
            1 => reader.nullable_bytes().map(|bytes| 4 + bytes.map_or(0, <[u8]>::len)),
            2 => reader.i16().map(|_| 2),
            3 => reader.count(3).inspect(|count| assert!(count * 3 <= before)).map(|_| 4),
            _ => reader.nullable_string().map(|text| 2 + text.map_or(0, str::len)),
        };
        match taken {
            Ok(taken) => assert_eq!(reader.left(), before - taken),
            Err(_) => assert!(reader.left() <= before),
        }
        if step == 40 || reader.left() == 0 {
            return;
        }
    }
}
