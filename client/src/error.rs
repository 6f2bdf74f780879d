//! Everything that can go wrong in a client, as one closed, cheaply cloned type.
//!
//! Grouped by who is at fault: the caller, the broker's answer, a broker that breaks the protocol, or what lies between.
//! One failure can concern many records (a whole batch), hence `Clone`: sources are shared, never copied.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::batch::BatchError;
use headwater_protocol::error::ErrorCode;
use headwater_protocol::frame::FrameError;
use headwater_protocol::head::HeadError;
use headwater_protocol::id::{Offset, PartitionIndex};
use headwater_protocol::scram::ScramError;
use headwater_protocol::stranger::Stranger;
use headwater_protocol::topic::{TopicName, TopicNameError};

use crate::address::Address;

/// What went wrong. [`Error::is_retriable`] says whether trying again can help.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // --- The caller ---------------------------------------------------------------------------------------------
    /// A setting is out of its range or contradicts another.
    #[error("{setting}: {reason}")]
    Config {
        /// Name of the builder's method.
        setting: &'static str,
        /// What is wrong with the value, and what would be right.
        reason: String,
    },
    /// No setting has this name.
    #[error("there is no setting {name:?}{}", .nearest.map_or(String::new(), |nearest| format!("; did you mean {nearest}?")))]
    UnknownSetting {
        /// The name as given.
        name: String,
        /// The known one that is most like it.
        nearest: Option<&'static str>,
    },
    /// A setting of Kafka's clients that has no meaning here.
    #[error("{name} has no meaning here: {instead}")]
    ForeignSetting {
        /// The name as given.
        name: String,
        /// What takes its place.
        instead: &'static str,
    },
    /// The topic name breaks the rule for topic names.
    #[error("illegal topic name {name:?}")]
    IllegalTopicName {
        /// The name as given.
        name: String,
        /// The rule it breaks.
        source: TopicNameError,
    },
    /// One record alone makes a batch that is larger than its topic takes. No other record is concerned.
    #[error("the record for topic {topic} makes a batch of {size} bytes; at most {size_max} are allowed")]
    RecordTooLarge {
        /// The topic.
        topic: TopicName,
        /// Bytes of a batch that holds it alone, header included, and compressed where that was tried.
        size: usize,
        /// The limit in bytes: the topic's (`max.message.bytes`, and never above `segment.bytes`) or the broker's; the producer's
        /// memory, if that is lower.
        size_max: usize,
    },
    /// The record cannot be encoded, such as one with a timestamp before 1970.
    #[error("the record cannot be encoded")]
    IllegalRecord {
        /// What is wrong with it.
        source: Arc<BatchError>,
    },
    /// `try_send` found the producer's memory spent (`memory_max`), or the topic's partitions not known yet.
    #[error("the record cannot be taken at once: {0}")]
    WouldBlock(&'static str),
    /// The application did not call a group consumer for longer than `max_poll_interval`. The consumer has left its group, so
    /// that others could take over; it joins again with the next call. What was received since the last commit comes again, here or
    /// elsewhere.
    #[error("the group consumer was not called for longer than {limit:?} (max_poll_interval): it has left its group")]
    PollIntervalExceeded {
        /// The limit.
        limit: Duration,
    },
    /// The producer, consumer or client was closed, or the runtime that drives it was shut down.
    #[error("closed")]
    Closed,

    // --- The broker's answer ------------------------------------------------------------------------------------
    /// The topic does not exist, as far as the brokers that could be asked know.
    #[error("unknown topic {0}")]
    UnknownTopic(TopicName),
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}; it has {partitions}")]
    UnknownPartition {
        /// The topic.
        topic: TopicName,
        /// The partition asked for.
        partition: PartitionIndex,
        /// How many partitions the topic has.
        partitions: usize,
    },
    /// The partition has no leader at the moment.
    #[error("partition {partition} of topic {topic} has no leader")]
    NoLeader {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
    },
    /// The consumer's position is outside the log, and its reset policy is to fail.
    #[error("offset {offset} of partition {partition} of topic {topic} is out of range")]
    OffsetOutOfRange {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
        /// The offset asked for.
        offset: Offset,
        /// First offset that the broker still has, if it said so.
        log_start: Option<Offset>,
    },
    /// The group gave a consumer's partitions to others without it, such as after a session timeout. Told once; the consumer has
    /// joined again or does so. What was received since the last commit comes again, here or elsewhere.
    #[error("the group has taken away {} partitions: {code}", .partitions.len())]
    PartitionsLost {
        /// The partitions that were lost.
        partitions: Arc<[(TopicName, PartitionIndex)]>,
        /// What the broker answered.
        code: ErrorCode,
    },
    /// Nothing is committed for a partition, and the consumer's reset policy is to fail. Seek in it to go on.
    #[error("the group has committed no offset for partition {partition} of topic {topic}")]
    NoCommittedOffset {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
    },
    /// The broker refused the request.
    #[error("{code}{}{message}", if .message.is_empty() { "" } else { ": " })]
    Broker {
        /// Kafka's error code.
        code: ErrorCode,
        /// The broker's own words; may be empty.
        message: Arc<str>,
    },

    /// The broker did not prove that it knows the user's password, or the exchange went wrong: it may not be the broker that it says it
    /// is.
    #[error("{address} could not be asked to let the user in")]
    Authentication {
        /// The broker's address.
        address: Address,
        /// What went wrong.
        source: ScramError,
    },

    /// There is no token to show who the client is. The next attempt asks for one again.
    #[error("no token could be had")]
    Token {
        /// Why not.
        source: Arc<io::Error>,
    },

    // --- A broker that breaks the protocol ----------------------------------------------------------------------
    /// The broker sent something that the protocol does not allow. The connection is closed.
    #[error("{address} breaks the protocol")]
    Protocol {
        /// The broker's address.
        address: Address,
        /// What it sent.
        source: ProtocolViolation,
    },
    /// The broker does not speak a version of a request that this client can.
    #[error("{address} does not support {request} in a version known to this client")]
    Unsupported {
        /// The broker's address.
        address: Address,
        /// The request.
        request: &'static str,
    },
    /// A fetched batch is damaged. The consumer stays in front of it: seek past it to go on.
    #[error("the batch at offset {offset} of partition {partition} of topic {topic} is damaged")]
    CorruptBatch {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
        /// The offset that was to be read.
        offset: Offset,
        /// The damage.
        source: Arc<BatchError>,
    },

    /// Records are damaged where the broker looked for an offset by time, so it does not know which is the first. Its log names the
    /// place. Read from an offset instead.
    #[error("partition {partition} of topic {topic} is damaged where the offset was looked up")]
    CorruptLog {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
    },

    // --- What lies between --------------------------------------------------------------------------------------
    /// No connection could be made.
    #[error("cannot connect to {address}{}", if *.is_advertised { ", where the broker says that it is (broker.advertised_host)" } else { "" })]
    Connect {
        /// The address tried.
        address: Address,
        /// The host is not one that this client was given: the broker named it (`broker.advertised_host`).
        is_advertised: bool,
        /// The operating system's reason.
        source: Arc<io::Error>,
    },
    /// A connection was made, and what is at its other end does not answer the first request as a broker does. Tried again in
    /// general, as a broker may come back there, but not by [`ClientBuilder::build`](crate::ClientBuilder::build) where something
    /// else speaks.
    #[error("{address} does not answer as a Headwater broker does: {sign}")]
    NotHeadwater {
        /// The address.
        address: Address,
        /// What it does instead.
        sign: Sign,
    },
    /// The connection ended before the answer came: whether the request took effect is not known.
    #[error("the connection to {address} ended before the answer came")]
    Disconnected {
        /// The broker's address.
        address: Address,
        /// The operating system's reason; none when the broker closed the connection.
        source: Option<Arc<io::Error>>,
    },
    /// The time for the call is over: whether it took effect is not known.
    #[error("{operation} did not succeed within {limit:?}")]
    Timeout {
        /// What was waited for.
        operation: &'static str,
        /// The limit that ran out.
        limit: Duration,
        /// Why the last attempt failed, if one did.
        #[source]
        last: Option<Box<Error>>,
    },
}

/// What speaks against a broker at the other end of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Sign {
    /// It is something else that is known.
    #[error("it speaks {}{}", .0, hint(*.0))]
    Speaks(Stranger),
    /// It sends what cannot be read.
    #[error("what it sends is not Headwater's protocol")]
    Unreadable,
    /// It closes the connection. That may also be a broker that stops or has as many connections as it may, or a proxy without one.
    #[error("it closes the connection at the first request, as a broker does that stops or has too many connections")]
    Closes,
    /// It sends nothing within the connect timeout. That may also be a broker that hangs.
    #[error("it takes connections and says nothing")]
    Silent,
}

impl Sign {
    /// Whether something else is there for sure.
    pub(crate) fn is_certain(self) -> bool {
        matches!(self, Self::Speaks(_) | Self::Unreadable)
    }
}

fn hint(stranger: Stranger) -> &'static str {
    match stranger {
        Stranger::Http => "; is it the metrics port?",
        Stranger::Tls => ", and this client was not told to: set tls, or tls_ca",
        _ => ", and this client Headwater's own protocol",
    }
}

/// How a broker broke the protocol.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolViolation {
    /// A frame with impossible sizes, or larger than this client allows.
    #[error("bad frame")]
    Frame(#[source] Arc<FrameError>),
    /// A head that is not a valid `FlatBuffer` of the expected type.
    #[error("bad head")]
    Head(#[source] Arc<HeadError>),
    /// A response to no request.
    #[error("response to unknown correlation id {0}")]
    UnknownCorrelation(u32),
    /// A response of another kind than the request.
    #[error("response of api {got} to a request of api {want}")]
    WrongApi {
        /// The request's api number.
        want: u16,
        /// The response's api number.
        got: u16,
    },
    /// A field with a value that makes no sense.
    #[error("{0}")]
    Field(&'static str),
}

impl Error {
    /// Whether the same call can succeed later without any change by the caller.
    ///
    /// A call that failed with an unknown outcome ([`Error::Timeout`], [`Error::Disconnected`]) counts as retriable;
    /// it may have taken effect all the same, so that trying again may do it twice.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code.is_retriable(),
            Self::WouldBlock(_)
            | Self::NoLeader { .. }
            | Self::Connect { .. }
            | Self::Token { .. }
            | Self::NotHeadwater { .. }
            | Self::Disconnected { .. }
            | Self::Timeout { .. }
            // A damaged frame may have been damaged on the way.
            | Self::Protocol { .. } => true,
            Self::Config { .. }
            | Self::UnknownSetting { .. }
            | Self::ForeignSetting { .. }
            | Self::IllegalTopicName { .. }
            | Self::RecordTooLarge { .. }
            | Self::IllegalRecord { .. }
            | Self::Closed
            | Self::PollIntervalExceeded { .. }
            | Self::PartitionsLost { .. }
            | Self::NoCommittedOffset { .. }
            | Self::UnknownTopic(_)
            | Self::UnknownPartition { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::Authentication { .. }
            | Self::Unsupported { .. }
            | Self::CorruptBatch { .. }
            | Self::CorruptLog { .. } => false,
        }
    }

    /// The broker's error code, where a broker gave one, or would.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } | Self::PartitionsLost { code, .. } => Some(*code),
            Self::UnknownTopic(_) | Self::UnknownPartition { .. } => Some(ErrorCode::UnknownTopicOrPartition),
            Self::OffsetOutOfRange { .. } => Some(ErrorCode::OffsetOutOfRange),
            Self::RecordTooLarge { .. } => Some(ErrorCode::MessageTooLarge),
            Self::Timeout { last: Some(last), .. } => last.code(),
            _ => None,
        }
    }

    /// Whether the broker's leader, core or topic id may have changed: ask for metadata before the next attempt.
    pub(crate) fn calls_for_metadata(&self) -> bool {
        match self {
            Self::Broker { code, .. } => matches!(
                code,
                ErrorCode::NotLeaderOrFollower
                    | ErrorCode::LeaderNotAvailable
                    | ErrorCode::UnknownTopicId
                    | ErrorCode::UnknownTopicOrPartition
                    | ErrorCode::FencedLeaderEpoch
                    | ErrorCode::UnknownLeaderEpoch
            ),
            Self::Connect { .. }
            | Self::NotHeadwater { .. }
            | Self::Disconnected { .. }
            | Self::NoLeader { .. }
            | Self::Timeout { .. } => true,
            _ => false,
        }
    }

    /// Whether the broker refuses a batch for its size: smaller ones may do.
    pub(crate) fn is_too_large(&self) -> bool {
        let codes = [ErrorCode::MessageTooLarge, ErrorCode::RecordListTooLarge];
        matches!(self, Self::Broker { code, .. } if codes.contains(code))
    }

    /// Whether another attempt is worthwhile inside the client: as [`Error::is_retriable`], and also after errors
    /// that fresh metadata can cure.
    pub(crate) fn is_worth_another_attempt(&self) -> bool {
        self.is_retriable() || self.calls_for_metadata()
    }

    pub(crate) fn config(setting: &'static str, reason: impl Into<String>) -> Self {
        Self::Config {
            setting,
            reason: reason.into(),
        }
    }

    /// Turns the error fields of a response into a result.
    pub(crate) fn check(code: i16, message: Option<&str>) -> Result<(), Self> {
        match ErrorCode::from_i16(code) {
            ErrorCode::None => Ok(()),
            code => Err(Self::Broker {
                code,
                message: Arc::from(message.unwrap_or_default()),
            }),
        }
    }
}

/// Checks a topic name given by the caller.
pub(crate) fn topic_name(name: &str) -> Result<TopicName, Error> {
    TopicName::new(name).map_err(|source| Error::IllegalTopicName {
        name: name.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(code: ErrorCode) -> Error {
        Error::Broker {
            code,
            message: Arc::from(""),
        }
    }

    #[test]
    fn what_the_caller_did_wrong_is_not_retriable_and_what_the_network_did_is() {
        let address: Address = "localhost:1".parse().unwrap();
        assert!(!Error::Closed.is_retriable());
        let topic = TopicName::new("t").unwrap();
        let (size, size_max) = (2, 1);
        assert!(!Error::RecordTooLarge { topic, size, size_max }.is_retriable());
        assert!(!Error::UnknownTopic(TopicName::new("t").unwrap()).is_retriable());
        assert!(Error::Disconnected { address, source: None }.is_retriable());
        assert!(Error::WouldBlock("memory").is_retriable());
        assert!(broker(ErrorCode::KafkaStorageError).is_retriable());
        assert!(!broker(ErrorCode::MessageTooLarge).is_retriable());
    }

    #[test]
    fn stale_metadata_is_worth_another_attempt_even_where_the_code_is_final() {
        for code in [
            ErrorCode::UnknownTopicId,
            ErrorCode::NotLeaderOrFollower,
            ErrorCode::UnknownTopicOrPartition,
        ] {
            assert!(broker(code).calls_for_metadata(), "{code}");
            assert!(broker(code).is_worth_another_attempt(), "{code}");
        }
        assert!(!broker(ErrorCode::InvalidRecord).is_worth_another_attempt());
    }

    #[test]
    fn the_message_shows_the_code_and_the_brokers_own_words() {
        let error = Error::check(ErrorCode::KafkaStorageError as i16, Some("disk full")).unwrap_err();
        assert_eq!(error.to_string(), "KAFKA_STORAGE_ERROR: disk full");
        assert_eq!(broker(ErrorCode::KafkaStorageError).to_string(), "KAFKA_STORAGE_ERROR");
        assert!(Error::check(0, None).is_ok());
    }

    #[test]
    fn an_error_stays_small_enough_to_return_for_each_record() {
        assert!(size_of::<Error>() <= 80, "{}", size_of::<Error>());
    }
}
