//! The numbers that name things in a log: offsets, epochs, ids, sequences, timestamps.
//!
//! Each is a type of its own, so that no function takes one for another. All are plain values without an owner.
//! Values off the wire enter through `TryFrom`, which checks their range; nothing below checks it again.

use std::fmt;
use std::ops::Add;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::schema;

/// A number from the wire that is outside the range of the type it was meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{value} is not a valid {what}: it must not be negative")]
pub struct IdError {
    /// What the number should have been.
    pub what: &'static str,
    /// The number that was read.
    pub value: i64,
}

/// Defines an id around an integer: the constructor and the getter.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($integer:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name($integer);

        impl $name {
            /// Wraps the number.
            #[inline]
            pub const fn new(value: $integer) -> Self {
                Self(value)
            }

            /// The number.
            #[inline]
            pub const fn get(self) -> $integer {
                self.0
            }
        }
    };
}

id! {
    /// The number of a leader's term of office on a partition; it grows with each new leader. -1 is none.
    LeaderEpoch(i32)
}
id! {
    /// Ties a response to its request on one connection; chosen by the client.
    CorrelationId(u32)
}
id! {
    /// The identity that an idempotent producer got from the broker. [`ProducerId::NONE`] without idempotence.
    ProducerId(i64)
}
id! {
    /// The generation of a producer id; a higher one fences off a lower. [`ProducerEpoch::NONE`] without idempotence.
    ProducerEpoch(i16)
}
id! {
    /// The number of a broker in the cluster.
    BrokerId(i32)
}
id! {
    /// The number of a core (a pinned executor) in its broker; the index into the broker's `core_ports`.
    CoreId(u16)
}

/// Each is shown as its number.
macro_rules! shown {
    ($($name:ident)+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

shown! { LeaderEpoch CorrelationId ProducerId ProducerEpoch BrokerId CoreId Offset PartitionIndex Sequence Timestamp TopicId }

impl LeaderEpoch {
    /// No epoch is known.
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// The batch is not from an idempotent producer.
    pub const NONE: Self = Self(-1);

    /// Whether this names a producer at all.
    pub const fn is_some(self) -> bool {
        self.0 >= 0
    }
}

impl ProducerEpoch {
    /// The batch is not from an idempotent producer.
    pub const NONE: Self = Self(-1);
}

/// The number of a record in its partition. At most `i64::MAX`, which is what the wire can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Offset(u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);
    /// The largest offset there can be.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// Wraps a number that this program counted itself; a number off the wire goes through `TryFrom<i64>`.
    ///
    /// # Panics
    /// When the number is larger than `i64::MAX`: a miscount.
    #[inline]
    pub const fn new(value: u64) -> Self {
        assert!(value <= Self::MAX.0, "an offset never passes i64::MAX");
        Self(value)
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as the wire carries it.
    #[inline]
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// The offset of the record after this one.
    #[inline]
    #[must_use]
    pub fn next(self) -> Self {
        self + 1
    }

    /// `self + count`, or `None` beyond [`Offset::MAX`]: for counts off the wire.
    #[inline]
    pub fn checked_add(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).filter(|&sum| sum <= Self::MAX.0).map(Self)
    }

    /// How many records lie between `earlier` and this offset; `None` when `earlier` is in fact later.
    #[inline]
    pub const fn distance_from(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl TryFrom<i64> for Offset {
    type Error = IdError;

    #[inline]
    fn try_from(value: i64) -> Result<Self, IdError> {
        if value < 0 {
            Err(IdError { what: "offset", value })
        } else {
            Ok(Self(value.cast_unsigned()))
        }
    }
}

impl Add<u64> for Offset {
    type Output = Self;

    /// # Panics
    /// Beyond [`Offset::MAX`]; see [`Offset::checked_add`] for counts that are not ours.
    #[inline]
    fn add(self, count: u64) -> Self {
        self.checked_add(count)
            .expect("an offset never passes i64::MAX: counts off the wire are checked before")
    }
}

/// The number of a partition in its topic, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct PartitionIndex(i32);

impl PartitionIndex {
    /// Wraps a number that this program counted itself; a number off the wire goes through `TryFrom<i32>`.
    ///
    /// # Panics
    /// When the number is negative.
    #[inline]
    pub const fn new(value: i32) -> Self {
        assert!(value >= 0, "a partition index is never negative");
        Self(value)
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The number as an index into a list of the topic's partitions.
    #[inline]
    pub const fn as_usize(self) -> usize {
        self.0.cast_unsigned() as usize
    }
}

impl TryFrom<i32> for PartitionIndex {
    type Error = IdError;

    #[inline]
    fn try_from(value: i32) -> Result<Self, IdError> {
        if value < 0 {
            Err(IdError {
                what: "partition",
                value: i64::from(value),
            })
        } else {
            Ok(Self(value))
        }
    }
}

/// The number of a record in what one idempotent producer sends to one partition.
///
/// Counts 0, 1, … `i32::MAX`, 0, … as Kafka's does (`DefaultRecordBatch.incrementSequence`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Sequence(i32);

impl Sequence {
    /// The batch is not from an idempotent producer.
    pub const NONE: Self = Self(-1);
    /// The first sequence of a producer epoch.
    pub const ZERO: Self = Self(0);

    /// Wraps the number; any negative one counts as [`Sequence::NONE`].
    #[inline]
    pub const fn new(value: i32) -> Self {
        if value < 0 { Self::NONE } else { Self(value) }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The sequence `count` records later; [`Sequence::NONE`] stays what it is.
    #[inline]
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        if self.0 < 0 {
            return self;
        }
        // Modulo 2^31: the sum of two numbers below 2^32 with the sign bit dropped.
        Self((self.0.cast_unsigned().wrapping_add(count) & i32::MAX.cast_unsigned()).cast_signed())
    }

    /// How many records later than `earlier` this sequence is, the long way round if it is in fact before.
    #[inline]
    pub const fn distance(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0).cast_unsigned() & i32::MAX.cast_unsigned()
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, or [`Timestamp::NONE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The record carries no timestamp.
    pub const NONE: Self = Self(-1);

    /// Wraps a number of milliseconds.
    #[inline]
    pub const fn new(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// The system's clock; a clock set before 1970 counts as 1970.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Milliseconds since the epoch.
    #[inline]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Whether this is a point in time, and not [`Timestamp::NONE`] or less.
    #[inline]
    pub const fn is_some(self) -> bool {
        self.0 >= 0
    }
}

/// The identity of a topic, which no later topic of the same name shares (KIP-516).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct TopicId(uuid::Uuid);

impl TopicId {
    /// The id of no topic.
    pub const NIL: Self = Self(uuid::Uuid::nil());

    /// Wraps a UUID.
    pub const fn new(uuid: uuid::Uuid) -> Self {
        Self(uuid)
    }

    /// A new random id (UUID version 4).
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// The UUID.
    pub const fn as_uuid(&self) -> &uuid::Uuid {
        &self.0
    }

    /// Whether this is [`TopicId::NIL`].
    pub fn is_nil(self) -> bool {
        self.0.is_nil()
    }
}

impl std::str::FromStr for TopicId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl From<&schema::Uuid> for TopicId {
    fn from(wire: &schema::Uuid) -> Self {
        Self(uuid::Uuid::from_u64_pair(wire.high(), wire.low()))
    }
}

impl From<&schema::UuidT> for TopicId {
    fn from(wire: &schema::UuidT) -> Self {
        Self(uuid::Uuid::from_u64_pair(wire.high, wire.low))
    }
}

impl From<TopicId> for schema::Uuid {
    fn from(id: TopicId) -> Self {
        let (high, low) = id.0.as_u64_pair();
        Self::new(high, low)
    }
}

impl From<TopicId> for schema::UuidT {
    fn from(id: TopicId) -> Self {
        let (high, low) = id.0.as_u64_pair();
        Self { high, low }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_off_the_wire_are_never_negative_and_never_overflow() {
        assert_eq!(Offset::try_from(7), Ok(Offset::new(7)));
        assert_eq!(
            Offset::try_from(-1),
            Err(IdError {
                what: "offset",
                value: -1
            })
        );
        assert_eq!(Offset::MAX.as_i64(), i64::MAX);
        assert_eq!(Offset::MAX.checked_add(1), None);
        assert_eq!(Offset::ZERO.checked_add(u64::MAX), None);
        assert_eq!(Offset::new(7).next() + 2, Offset::new(10));
        assert_eq!(Offset::new(7).distance_from(Offset::new(5)), Some(2));
        assert_eq!(Offset::new(5).distance_from(Offset::new(7)), None);
    }

    #[test]
    fn sequences_wrap_to_zero_after_the_largest_i32_as_in_kafka() {
        let last = Sequence::new(i32::MAX);
        assert_eq!(last.plus(1), Sequence::ZERO);
        assert_eq!(last.plus(3), Sequence::new(2));
        assert_eq!(Sequence::new(5).plus(10), Sequence::new(15));
        assert_eq!(Sequence::ZERO.distance(last), 1);
        assert_eq!(Sequence::new(15).distance(Sequence::new(5)), 10);
        assert_eq!(Sequence::NONE.plus(4), Sequence::NONE);
        assert_eq!(Sequence::new(i32::MIN), Sequence::NONE);
    }

    #[test]
    fn topic_ids_survive_the_schema_both_ways() {
        let id = TopicId::random();
        assert_eq!(TopicId::from(&schema::Uuid::from(id)), id);
        assert_eq!(TopicId::from(&schema::UuidT::from(id)), id);
        assert_eq!(id.to_string().parse(), Ok(id));
        let wire = schema::Uuid::from(TopicId::new(uuid::Uuid::from_u128(1 << 64 | 2)));
        assert_eq!((wire.high(), wire.low()), (1, 2), "most significant half first");
    }

    #[test]
    fn partition_indexes_off_the_wire_are_never_negative() {
        assert_eq!(PartitionIndex::try_from(3).map(PartitionIndex::as_usize), Ok(3));
        assert!(PartitionIndex::try_from(-1).is_err());
    }
}
