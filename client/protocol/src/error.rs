//! The error codes of every response: a closed list, with Kafka's numbers and names.
//!
//! Numbers, names and which of them a retry can help are those of Kafka's `org.apache.kafka.common.protocol.Errors`.
//! Codes of features that no release of Headwater speaks of (delegation tokens, share groups) are left out; a number
//! that is not on the list reads as [`ErrorCode::UnknownServerError`].

use std::fmt;

/// Defines the enum and its tables from one row for each code, so that they cannot disagree.
macro_rules! error_codes {
    ($($variant:ident = $number:literal, $name:literal, $retry:ident, $description:literal;)*) => {
        /// What went wrong, as one number that both sides know.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = $description] $variant = $number,)*
        }

        impl ErrorCode {
            /// Every code, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code with this number; [`ErrorCode::UnknownServerError`] when there is none.
            pub const fn from_i16(number: i16) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    _ => Self::UnknownServerError,
                }
            }

            /// Kafka's name for it, such as `OFFSET_OUT_OF_RANGE`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence on what went wrong.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $description,)* }
            }

            /// Whether the same request may succeed later, perhaps after a refresh of the metadata.
            pub const fn is_retriable(self) -> bool {
                match self { $(Self::$variant => retriable!($retry),)* }
            }
        }
    };
}

macro_rules! retriable {
    (retry) => {
        true
    };
    (fatal) => {
        false
    };
}

error_codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", fatal, "The broker met an error that it did not expect.";
    None = 0, "NONE", fatal, "No error.";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", fatal, "The offset is not within the partition's log.";
    CorruptMessage = 2, "CORRUPT_MESSAGE", retry, "The record batch fails its checksum, or is not a whole batch of a known form.";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", retry, "This broker has no such topic or partition.";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", fatal, "The fetch size is not valid.";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", retry, "The partition has no leader at the moment.";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", retry, "This broker does not hold the partition: refresh the metadata.";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", retry, "The request was not done in the time it allowed.";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", fatal, "The broker is not available.";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", retry, "The replica is not available on this broker.";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", fatal, "The record batch is larger than the broker or the topic allows.";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", fatal, "The controller has moved to another broker.";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", fatal, "The metadata of the committed offset is too large.";
    NetworkException = 13, "NETWORK_EXCEPTION", retry, "The connection was lost before the response came.";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", retry, "The group's coordinator is still loading its state.";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", retry, "The group has no coordinator at the moment.";
    NotCoordinator = 16, "NOT_COORDINATOR", retry, "This broker is not the group's coordinator.";
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", fatal, "The topic name is not legal.";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", fatal, "The record batches are larger than a segment.";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", retry, "Fewer replicas are in sync than the topic requires.";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", retry, "The records were appended, but to fewer in-sync replicas than the topic requires.";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", fatal, "acks must be 0, 1 or -1.";
    IllegalGeneration = 22, "ILLEGAL_GENERATION", fatal, "The group has moved on to another generation.";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", fatal, "The member supports no protocol that the group's other members do.";
    InvalidGroupId = 24, "INVALID_GROUP_ID", fatal, "The group id is not valid.";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", fatal, "The group has no such member.";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", fatal, "The session timeout is outside the range the broker allows.";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", fatal, "The group is rebalancing: join it again.";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", fatal, "The committed offsets are too large.";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", fatal, "Not authorised for the topic.";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", fatal, "Not authorised for the group.";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", fatal, "Not authorised for the cluster.";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", fatal, "A record's timestamp is outside the range the topic allows.";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", fatal, "The broker does not support this SASL mechanism.";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", fatal, "The request does not fit the state of the SASL exchange.";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", fatal, "The broker does not support this api or this version of it.";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", fatal, "A topic of this name exists.";
    InvalidPartitions = 37, "INVALID_PARTITIONS", fatal, "The number of partitions is not valid.";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", fatal, "The replication factor is below 1 or above the number of brokers.";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", fatal, "The replica assignment is not valid.";
    InvalidConfig = 40, "INVALID_CONFIG", fatal, "A configuration name or value is not valid.";
    NotController = 41, "NOT_CONTROLLER", retry, "This broker is not the controller.";
    InvalidRequest = 42, "INVALID_REQUEST", fatal, "The request is malformed or contradicts itself.";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", fatal, "The form of the record batch does not support the request.";
    PolicyViolation = 44, "POLICY_VIOLATION", fatal, "The request violates a policy of the cluster.";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", fatal, "The batch is not the one that follows the producer's last.";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", fatal, "The batch was appended so long ago that its offset is no longer known.";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", fatal, "A newer instance of the producer has fenced off this one.";
    InvalidTxnState = 48, "INVALID_TXN_STATE", fatal, "The request does not fit the state of the transaction.";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", fatal, "The producer id is not the one of this transactional id.";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", fatal, "The transaction timeout is longer than the broker allows.";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", fatal, "The producer's previous transaction is still being completed.";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", fatal, "The transaction coordinator has been replaced.";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", fatal, "Not authorised for the transactional id.";
    SecurityDisabled = 54, "SECURITY_DISABLED", fatal, "Security is disabled on the broker.";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", fatal, "Another part of the request failed, so this one was not tried.";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", retry, "The broker's disk is full or has failed.";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", fatal, "The broker has no such data directory.";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", fatal, "Authentication failed.";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", fatal, "The partition knows nothing of the producer id.";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", fatal, "The partition is being reassigned.";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", fatal, "The group still has members.";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", fatal, "There is no such group.";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", retry, "There is no such fetch session.";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", retry, "The fetch session has another epoch.";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", retry, "The leader has no listener that matches the one of this request.";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", fatal, "The broker does not allow the deletion of topics.";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", retry, "The request names an older leader epoch than the broker's.";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", retry, "The request names a newer leader epoch than the broker's.";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", fatal, "The client or the broker does not support the compression of the records.";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", fatal, "The broker has registered again since.";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", retry, "The new leader's high watermark has not caught up yet.";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", fatal, "Join again with the member id from this response.";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", retry, "The preferred leader is not available.";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", fatal, "The group has as many members as it may.";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", fatal, "Another member has joined with this instance id.";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", retry, "No replica that could lead is available.";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", retry, "The partition has the leader it should have.";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", fatal, "The partition is not being reassigned.";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", fatal, "The group is subscribed to the topic.";
    InvalidRecord = 87, "INVALID_RECORD", fatal, "A record is not valid for the topic.";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", retry, "The committed offset is still part of an open transaction.";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", retry, "The request exceeds a quota.";
    ProducerFenced = 90, "PRODUCER_FENCED", fatal, "A newer producer with the same transactional id has fenced off this one.";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", fatal, "The request names something that does not exist.";
    DuplicateResource = 92, "DUPLICATE_RESOURCE", fatal, "The request names the same thing twice.";
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", fatal, "The credential does not meet the requirements.";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", retry, "This broker has no topic with this id: it may have been deleted and made anew.";
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", fatal, "No broker is registered with this id.";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", retry, "The log of the partition belongs to another topic id.";
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", fatal, "The request is meant for another cluster.";
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", fatal, "There is no such transactional id.";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", retry, "The fetch session mixes requests with and without topic ids.";
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", fatal, "The replica may not join the in-sync replicas.";
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", fatal, "The change completed, and with it the partition has a new leader.";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", fatal, "The group's coordinator has fenced off this member epoch.";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", fatal, "Another member still uses this instance id.";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", fatal, "The group does not support this assignor.";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", fatal, "The member epoch is out of date.";
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", fatal, "The transaction cannot go on: abort it.";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", fatal, "The regular expression is not valid.";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn as_i16(self) -> i16 {
        self as i16
    }

    /// Whether this is [`ErrorCode::None`].
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> Self {
        code.as_i16()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_reads_back_as_its_code_and_any_other_as_an_unknown_error() {
        let mut known = 0;
        for number in i16::MIN..=i16::MAX {
            let code = ErrorCode::from_i16(number);
            if code.as_i16() == number {
                known += 1;
            } else {
                assert_eq!(code, ErrorCode::UnknownServerError);
            }
        }
        assert_eq!(known, ErrorCode::ALL.len());
    }

    #[test]
    fn names_are_the_screaming_form_of_the_variants() {
        for code in ErrorCode::ALL {
            let joined = code.name().replace('_', "").to_lowercase();
            assert_eq!(joined, format!("{code:?}").to_lowercase());
            assert_eq!(code.to_string(), code.name());
        }
    }
}
