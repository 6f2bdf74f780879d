//! Who a record is, and whether every record came back: the stamp on each record, and the verifier.
//!
//! A *stream* is what one producer of one run sends to one partition; its records are numbered from 0 without a gap. The
//! 24-byte stamp holds stream, sequence, the time the record was due and a mark by which the bench knows its own records; it travels
//! beside the value, so that the value is the payload and nothing else. A [`Verifier`] belongs to one consumer; it sees each record once, in the order of
//! its partition, and does no I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use headwater_client::PartitionIndex;
use serde::Serialize;

use crate::load::clock::Moment;
use crate::payload::Payload;

const PRODUCER_BITS: u32 = 12;
const PARTITION_BITS: u32 = 20;

/// How many producers a run can have.
pub const PRODUCERS_MAX: u16 = 1 << PRODUCER_BITS;

/// How many partitions a topic can have for the bench.
pub const PARTITIONS_MAX: u32 = 1 << PARTITION_BITS;

/// Gaps of one stream that are remembered; beyond it the oldest counts as lost for good.
const GAPS_MAX: usize = 1 << 16;

/// Names one run of producers, so that several runs can share a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunId(u32);

impl RunId {
    /// The run with this number.
    #[cfg(test)]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// A run that no other is likely to share its number with.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// As a number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Number of a producer in its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIndex(u16);

impl ProducerIndex {
    /// `None` from [`PRODUCERS_MAX`] on.
    pub fn new(index: u16) -> Option<Self> {
        (index < PRODUCERS_MAX).then_some(Self(index))
    }
}

/// Names a stream: run, producer, partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId(u64);

impl StreamId {
    /// `None` for a partition from [`PARTITIONS_MAX`] on.
    pub fn new(run: RunId, producer: ProducerIndex, partition: PartitionIndex) -> Option<Self> {
        let partition = u32::try_from(partition.get())
            .ok()
            .filter(|&index| index < PARTITIONS_MAX)?;
        let place = u32::from(producer.0) << PARTITION_BITS | partition;
        Some(Self(u64::from(run.0) << 32 | u64::from(place)))
    }

    /// As a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Producer and partition, without the run.
    pub const fn place(self) -> u32 {
        self.0 as u32
    }

    /// The partition that the stream was sent to.
    pub const fn partition(self) -> PartitionIndex {
        PartitionIndex::new((self.0 as u32 & (PARTITIONS_MAX - 1)).cast_signed())
    }
}

/// Number of a record in its stream, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(u64);

impl Sequence {
    /// The record with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// As a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// In the first bytes of each sequence, where no run ever counts to: no text has them there, as UTF-8 knows no 0xfe.
const MARK: u64 = 0xfeb5 << SEQUENCE_BITS;

const SEQUENCE_BITS: u32 = 48;

/// What travels with a record: stream, sequence with the mark, and when it was due, each 8 bytes, big endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The stream.
    pub stream: StreamId,
    /// Its number there.
    pub sequence: Sequence,
    /// When it was due to be sent (open loop), or was sent (closed loop).
    pub due: Moment,
}

impl Stamp {
    /// Bytes in a stamp.
    pub const LEN: usize = 24;

    /// The stamp as it is sent.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.stream.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&(MARK | self.sequence.0).to_be_bytes());
        bytes[16..].copy_from_slice(&self.due.as_nanos().to_be_bytes());
        bytes
    }

    /// `None` if the bench has not made it.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (stream, rest) = bytes.split_first_chunk()?;
        let (sequence, due) = rest.split_first_chunk()?;
        let sequence = u64::from_be_bytes(*sequence) ^ MARK;
        (sequence >> SEQUENCE_BITS == 0).then_some(())?;
        Some(Self {
            stream: StreamId(u64::from_be_bytes(*stream)),
            sequence: Sequence(sequence),
            due: Moment::from_nanos(u64::from_be_bytes(due.try_into().ok()?)),
        })
    }
}

/// What came back otherwise than it was sent, in records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Acknowledged, and not there.
    pub lost: u64,
    /// There more than once; the first one is not counted.
    pub duplicated: u64,
    /// There, but behind a record that was sent later.
    pub reordered: u64,
    /// There, but with other content than was sent, in the wrong partition, or in a batch whose checksum is wrong.
    pub corrupt: u64,
}

impl Damage {
    /// Whether everything came back as it was sent.
    #[cfg(test)]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What became of records, in more or fewer of each kind: one that was missed and came later is lost no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Toll {
    /// Acknowledged, and not there.
    pub lost: i64,
    /// There more than once.
    pub duplicated: i64,
    /// There, but behind a record that was sent later.
    pub reordered: i64,
    /// There, with other content.
    pub corrupt: i64,
}

impl std::iter::Sum for Toll {
    fn sum<I: Iterator<Item = Self>>(tolls: I) -> Self {
        tolls.fold(Self::default(), |a, b| Self {
            lost: a.lost + b.lost,
            duplicated: a.duplicated + b.duplicated,
            reordered: a.reordered + b.reordered,
            corrupt: a.corrupt + b.corrupt,
        })
    }
}

/// Something was wrong with a record that was due then, or with those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incident {
    /// When the record was due at which it was seen; the end of time if none came any more.
    pub due: Moment,
    /// What it adds to.
    pub toll: Toll,
}

/// What verifiers have met, one after another. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Incidents(Arc<Mutex<Vec<Incident>>>);

impl Incidents {
    /// Beyond so many, those to come would tell nothing new.
    const MAX: usize = 1 << 20;

    fn note(&self, due: Moment, toll: Toll) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < Self::MAX {
            all.push(Incident { due, toll });
        }
    }

    /// All of them.
    pub fn take(&self) -> Vec<Incident> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a verifier has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Findings {
    /// Records of the bench whose place and content were looked at.
    pub verified: u64,
    /// Of those, how many have another value than was sent.
    pub altered: u64,
    /// Records that others have written, of which nothing can be said.
    pub foreign: u64,
    /// What is wrong.
    pub damage: Damage,
}

impl Findings {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        let (a, b) = (self.damage, other.damage);
        Self {
            verified: self.verified + other.verified,
            altered: self.altered + other.altered,
            foreign: self.foreign + other.foreign,
            damage: Damage {
                lost: a.lost + b.lost,
                duplicated: a.duplicated + b.duplicated,
                reordered: a.reordered + b.reordered,
                corrupt: a.corrupt + b.corrupt,
            },
        }
    }
}

/// What is known beforehand of the records.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// How many of each stream were acknowledged. Otherwise any streams may come, and a loss at the very end cannot be seen.
    pub acknowledged: Option<HashMap<StreamId, u64>>,
    /// Whether each stream is there from its first record on; else the beginning may be deleted already.
    pub is_whole: bool,
    /// Whether nobody else writes there, so that a record that nobody of the bench can have written is damage.
    pub is_alone: bool,
}

impl Expectation {
    /// These, and nothing else.
    pub fn exactly(acknowledged: HashMap<StreamId, u64>) -> Self {
        Self {
            acknowledged: Some(acknowledged),
            ..Self::yet_to_come()
        }
    }

    /// What a run is about to send, whose counts are told later.
    pub fn yet_to_come() -> Self {
        Self {
            acknowledged: None,
            is_whole: true,
            is_alone: true,
        }
    }

    /// What earlier runs have sent to a topic that others may write to as well; the beginning of it may be deleted.
    pub fn stored(is_whole: bool) -> Self {
        Self {
            acknowledged: None,
            is_whole,
            is_alone: false,
        }
    }
}

/// Checks what a consumer receives.
#[derive(Debug)]
pub struct Verifier {
    payload: Arc<Payload>,
    expectation: Expectation,
    streams: Vec<Stream>,
    places: HashMap<StreamId, usize>,
    /// The stream of the last record, which mostly is the next one's.
    last: usize,
    findings: Findings,
    /// Records by partition that are there and cannot be told: each accounts for one gap there.
    unknown: HashMap<PartitionIndex, u64>,
    /// Where each thing that is wrong is noted with its time, if somebody asks.
    incidents: Option<Incidents>,
}

/// How far one stream has come.
#[derive(Debug)]
struct Stream {
    id: StreamId,
    next: u64,
    /// Numbers before `next` that were not seen: start and end of each range.
    gaps: BTreeMap<u64, u64>,
    /// Gaps that are remembered no longer.
    given_up: u64,
}

impl Verifier {
    /// Nothing seen yet.
    pub fn new(payload: Arc<Payload>, expectation: Expectation) -> Self {
        Self {
            payload,
            expectation,
            streams: Vec::new(),
            places: HashMap::new(),
            last: 0,
            findings: Findings::default(),
            unknown: HashMap::new(),
            incidents: None,
        }
    }

    /// Notes each thing that is wrong here as well.
    pub fn noting(mut self, incidents: Incidents) -> Self {
        self.incidents = Some(incidents);
        self
    }

    /// Takes the next record of a partition. `stamp` is `None` if it has none that the bench has made.
    #[inline]
    pub fn check(&mut self, partition: PartitionIndex, stamp: Option<Stamp>, value: Option<&[u8]>) {
        let Some(Stamp { stream, sequence, due }) = stamp else {
            return self.stranger(partition);
        };
        if stream.partition() != partition {
            return self.unreadable(partition);
        }
        if self.streams.get(self.last).is_none_or(|last| last.id != stream) {
            match self.find(stream, sequence) {
                Some(place) => self.last = place,
                None => return self.stranger(partition),
            }
        }
        self.findings.verified += 1;
        if let Some(toll) = self.streams[self.last].take(sequence, &mut self.findings.damage) {
            self.note(due, toll);
        }
        if value != Some(self.payload.value(stream, sequence)) {
            self.findings.altered += 1;
            self.findings.damage.corrupt += 1;
            let corrupt = 1;
            self.note(
                due,
                Toll {
                    corrupt,
                    ..Toll::default()
                },
            );
        }
    }

    #[cold]
    fn note(&self, due: Moment, toll: Toll) {
        if let Some(incidents) = &self.incidents {
            incidents.note(due, toll);
        }
    }

    /// A record that does not belong to what is verified.
    #[cold]
    fn stranger(&mut self, partition: PartitionIndex) {
        if self.expectation.is_alone {
            self.unreadable(partition);
        } else {
            self.findings.foreign += 1;
        }
    }

    /// Takes note of a record that came as it was sent but for its key.
    pub fn wrong_key(&mut self) {
        self.findings.damage.corrupt += 1;
    }

    /// Takes note of how many records of each stream were acknowledged, once that is known. What has come of other
    /// streams is damage.
    pub fn expect(&mut self, acknowledged: HashMap<StreamId, u64>) {
        let strange = self
            .streams
            .iter()
            .filter(|stream| !acknowledged.contains_key(&stream.id));
        self.findings.damage.corrupt += strange.map(|stream| stream.next).sum::<u64>();
        self.expectation.acknowledged = Some(acknowledged);
    }

    /// Takes note of a record of a partition that is there but cannot be read, or whose identity is damaged.
    pub fn unreadable(&mut self, partition: PartitionIndex) {
        self.findings.damage.corrupt += 1;
        *self.unknown.entry(partition).or_default() += 1;
    }

    /// The place of a stream. `None`: such a stream cannot be.
    fn find(&mut self, id: StreamId, sequence: Sequence) -> Option<usize> {
        if let Some(&place) = self.places.get(&id) {
            return Some(place);
        }
        let acknowledged = self.expectation.acknowledged.as_ref();
        if acknowledged.is_some_and(|counts| !counts.contains_key(&id)) {
            return None;
        }
        let next = if self.expectation.is_whole { 0 } else { sequence.0 };
        self.streams.push(Stream {
            id,
            next,
            gaps: BTreeMap::new(),
            given_up: 0,
        });
        let place = self.streams.len() - 1;
        self.places.insert(id, place);
        Some(place)
    }

    /// The result, when everything has been taken.
    pub fn finish(self) -> Findings {
        let mut missing: HashMap<PartitionIndex, u64> = HashMap::new();
        for stream in &self.streams {
            *missing.entry(stream.id.partition()).or_default() += stream.missing();
        }
        for (&id, &count) in self.expectation.acknowledged.iter().flatten() {
            let seen = self.places.get(&id).map(|&place| self.streams[place].next);
            // Of a stream whose beginning may be deleted all of it may.
            if let Some(seen) = seen.or(self.expectation.is_whole.then_some(0)) {
                let never_came = count.saturating_sub(seen);
                *missing.entry(id.partition()).or_default() += never_came;
                if never_came > 0 {
                    let lost = never_came.cast_signed();
                    self.note(
                        Moment::from_nanos(u64::MAX),
                        Toll {
                            lost,
                            ..Toll::default()
                        },
                    );
                }
            }
        }
        let unknown = |partition| self.unknown.get(partition).copied().unwrap_or_default();
        let lost = missing
            .iter()
            .map(|(partition, count)| count.saturating_sub(unknown(partition)))
            .sum();
        let damage = Damage {
            lost,
            ..self.findings.damage
        };
        Findings {
            damage,
            ..self.findings
        }
    }
}

impl Stream {
    /// What this adds to what is wrong, if it does.
    #[inline]
    fn take(&mut self, sequence: Sequence, damage: &mut Damage) -> Option<Toll> {
        let number = sequence.0;
        if number == self.next {
            self.next += 1;
            return None;
        }
        let mut toll = Toll::default();
        if number > self.next {
            toll.lost = (number - self.next).cast_signed();
            self.skip_to(number);
            self.next = number.saturating_add(1);
        } else if self.fill(number) {
            (toll.lost, toll.reordered) = (-1, 1);
            damage.reordered += 1;
        } else {
            toll.duplicated = 1;
            damage.duplicated += 1;
        }
        Some(toll)
    }

    /// Remembers the gap before `number`.
    #[cold]
    fn skip_to(&mut self, number: u64) {
        if self.gaps.len() == GAPS_MAX
            && let Some((start, end)) = self.gaps.pop_first()
        {
            self.given_up += end - start;
        }
        self.gaps.insert(self.next, number);
    }

    /// Takes a number out of the gap that it lies in, if it lies in one.
    #[cold]
    fn fill(&mut self, number: u64) -> bool {
        let Some((&start, &end)) = self.gaps.range(..=number).next_back() else {
            return false;
        };
        if number >= end {
            return false;
        }
        self.gaps.remove(&start);
        if start < number {
            self.gaps.insert(start, number);
        }
        if number + 1 < end {
            self.gaps.insert(number + 1, end);
        }
        true
    }

    fn missing(&self) -> u64 {
        self.given_up + self.gaps.iter().map(|(start, end)| end - start).sum::<u64>()
    }
}

#[cfg(test)]
mod tests;
