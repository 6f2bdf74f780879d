//! Heads: the FlatBuffers tables between a frame's header and its payload.
//!
//! [`decode`] verifies an untrusted head completely before anything reads it, within limits on depth, number of tables
//! and on the size it would have if every table that is shared were written out: a small head cannot make its reader
//! work or allocate out of proportion. Verification and access are by byte offsets from the head's own start, so a head
//! may lie at any address. [`encode`] makes the bytes of a head, padded to [`ALIGNMENT`].

use flatbuffers::{FlatBufferBuilder, Follow, InvalidFlatbuffer, Verifiable, VerifierOptions};

use crate::error::ErrorCode;
use crate::frame::Api;
use crate::schema;

/// Heads are padded to a multiple of this many bytes, so that the payload after one is aligned as its frame is.
pub const ALIGNMENT: usize = 8;

/// Deepest nesting of tables in a head; the schema's deepest is 2.
const DEPTH_MAX: usize = 8;

/// Most tables in the head of a request.
pub const REQUEST_TABLES_MAX: usize = 1 << 16;

/// Most tables in the head of a response: the metadata of a cluster's every topic is one table for each.
const RESPONSE_TABLES_MAX: usize = 1 << 22;

/// How many times as large as its bytes a head may be once whatever it shares is written out for each that shares it.
/// Writers share nothing but vtables, which makes 2.3 at most: of a long list of empty tables.
const APPARENT_SIZE_FACTOR: usize = 8;

/// Why a head was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The bytes are not a `FlatBuffer` of the expected table, or exceed the limits.
    #[error("malformed head: {0}")]
    Malformed(#[from] InvalidFlatbuffer),
}

/// Verifies and reads the head of a request.
///
/// The table borrows `bytes`; nothing is copied.
pub fn decode<'a, T>(bytes: &'a [u8]) -> Result<T::Inner, HeadError>
where
    T: Follow<'a> + Verifiable + 'a,
{
    decode_within::<T>(bytes, REQUEST_TABLES_MAX)
}

/// Verifies and reads the head of a response, which may list far more than a request.
pub fn decode_response<'a, T>(bytes: &'a [u8]) -> Result<T::Inner, HeadError>
where
    T: Follow<'a> + Verifiable + 'a,
{
    decode_within::<T>(bytes, RESPONSE_TABLES_MAX)
}

fn decode_within<'a, T>(bytes: &'a [u8], tables_max: usize) -> Result<T::Inner, HeadError>
where
    T: Follow<'a> + Verifiable + 'a,
{
    let options = VerifierOptions {
        max_depth: DEPTH_MAX,
        max_tables: tables_max,
        max_apparent_size: bytes.len().saturating_mul(APPARENT_SIZE_FACTOR),
        ignore_missing_null_terminator: false,
    };
    Ok(flatbuffers::root_with_opts::<T>(&options, bytes)?)
}

/// A head in its owned form: one of the schema's `…RequestT` and `…ResponseT`.
pub trait Head {
    /// The api whose request or response this is.
    const API: Api;

    /// Writes the table into the builder and finishes it.
    fn finish(&self, builder: &mut FlatBufferBuilder<'_>);
}

/// The head of a response, which always tells whether the request has failed.
pub trait ResponseHead: Head {
    /// The number of an [`ErrorCode`]; 0 where nothing went wrong.
    fn error(&self) -> i16;

    /// The response to a request that has failed.
    fn failed(error: ErrorCode, message: String) -> Self;
}

/// The bytes of a head, to go into [`frame::encode`](crate::frame::encode).
pub fn encode<H: Head>(head: &H) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    head.finish(&mut builder);
    let mut bytes = builder.finished_data().to_vec();
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

macro_rules! heads {
    ($($api:ident: $($request:ident)? => $response:ident;)*) => {
        $(
            $(heads!(@head $api $request);)?
            heads!(@head $api $response);

            impl ResponseHead for schema::$response {
                fn error(&self) -> i16 {
                    self.error
                }

                #[allow(clippy::needless_update, reason = "some responses tell nothing else")]
                fn failed(error: ErrorCode, message: String) -> Self {
                    Self {
                        error: error.as_i16(),
                        message: Some(message),
                        ..Self::default()
                    }
                }
            }
        )*
    };
    (@head $api:ident $table:ident) => {
        impl Head for schema::$table {
            const API: Api = Api::$api;

            fn finish(&self, builder: &mut FlatBufferBuilder<'_>) {
                let root = self.pack(builder);
                builder.finish_minimal(root);
            }
        }
    };
}

heads! {
    Error: => ErrorResponseT;
    ApiVersions: ApiVersionsRequestT => ApiVersionsResponseT;
    Metadata: MetadataRequestT => MetadataResponseT;
    CreateTopic: CreateTopicRequestT => CreateTopicResponseT;
    DeleteTopic: DeleteTopicRequestT => DeleteTopicResponseT;
    DescribeTopic: DescribeTopicRequestT => DescribeTopicResponseT;
    InitProducerId: InitProducerIdRequestT => InitProducerIdResponseT;
    Produce: ProduceRequestT => ProduceResponseT;
    Fetch: FetchRequestT => FetchResponseT;
    ListOffsets: ListOffsetsRequestT => ListOffsetsResponseT;
    DeleteRecords: DeleteRecordsRequestT => DeleteRecordsResponseT;
    AlterTopic: AlterTopicRequestT => AlterTopicResponseT;
    DescribeBroker: DescribeBrokerRequestT => DescribeBrokerResponseT;
    FindGroup: FindGroupRequestT => FindGroupResponseT;
    JoinGroup: JoinGroupRequestT => JoinGroupResponseT;
    SyncGroup: SyncGroupRequestT => SyncGroupResponseT;
    Heartbeat: HeartbeatRequestT => HeartbeatResponseT;
    LeaveGroup: LeaveGroupRequestT => LeaveGroupResponseT;
    OffsetCommit: OffsetCommitRequestT => OffsetCommitResponseT;
    OffsetFetch: OffsetFetchRequestT => OffsetFetchResponseT;
    OffsetDelete: OffsetDeleteRequestT => OffsetDeleteResponseT;
    ListGroups: ListGroupsRequestT => ListGroupsResponseT;
    DescribeGroup: DescribeGroupRequestT => DescribeGroupResponseT;
    DeleteGroup: DeleteGroupRequestT => DeleteGroupResponseT;
    DescribeQuorum: DescribeQuorumRequestT => DescribeQuorumResponseT;
    AddQuorumMembers: AddQuorumMembersRequestT => AddQuorumMembersResponseT;
    RemoveQuorumMember: RemoveQuorumMemberRequestT => RemoveQuorumMemberResponseT;
    ListBrokers: ListBrokersRequestT => ListBrokersResponseT;
    CordonBroker: CordonBrokerRequestT => CordonBrokerResponseT;
    ForgetBroker: ForgetBrokerRequestT => ForgetBrokerResponseT;
    FinaliseFeatures: FinaliseFeaturesRequestT => FinaliseFeaturesResponseT;
    DrainBroker: DrainBrokerRequestT => DrainBrokerResponseT;
    ElectLeaders: ElectLeadersRequestT => ElectLeadersResponseT;
    ReassignPartitions: ReassignPartitionsRequestT => ReassignPartitionsResponseT;
    Authenticate: AuthenticateRequestT => AuthenticateResponseT;
    DescribeAcls: DescribeAclsRequestT => DescribeAclsResponseT;
    CreateAcls: CreateAclsRequestT => CreateAclsResponseT;
    DeleteAcls: DeleteAclsRequestT => DeleteAclsResponseT;
    DescribeUsers: DescribeUsersRequestT => DescribeUsersResponseT;
    SetUser: SetUserRequestT => SetUserResponseT;
    RemoveUser: RemoveUserRequestT => RemoveUserResponseT;
    DescribeQuotas: DescribeQuotasRequestT => DescribeQuotasResponseT;
    AlterQuotas: AlterQuotasRequestT => AlterQuotasResponseT;
}

#[cfg(test)]
mod tests;
