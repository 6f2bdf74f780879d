//! The checkpoint of a log: what recovery need not find out again. One small file a partition, replaced atomically.
//!
//! First line: format name, version and the CRC-32C of what follows, in hexadecimal; then one JSON object. What version 1 can
//! tell, which knows of no leader epoch but 0, is written in it, so that brokers of before can read it; version 3 tells of
//! transactions. It is a promise
//! about the past only: everything before `recovery` was durable and whole when it was written. A missing or damaged
//! checkpoint costs a full scan and nothing else, except that deleted records may reappear up to the next segment's start.

use headwater_protocol::id::{Offset, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    disk::Disk,
    epochs::EpochTable,
    moment::Since,
    producers::Producer,
    segment::{Extent, Times},
    transactions::Saved,
};

const FORMAT: &str = "headwater-checkpoint";

/// Name of the file in the partition's directory.
pub(crate) const FILE_NAME: &str = "checkpoint";

/// Longer ones take longer to decode than to hand to another thread.
const DECODED_HERE_MAX: usize = 32 << 10;

/// A point in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Base offset of the segment.
    pub(crate) segment: u64,
    /// Byte in the segment's file.
    pub(crate) position: u64,
    /// Offset of the record that begins there.
    pub(crate) offset: u64,
}

/// What is known of a segment that lies before the recovery point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentFacts {
    pub(crate) base_offset: u64,
    pub(crate) size: u64,
    pub(crate) next_offset: u64,
    /// Milliseconds since the epoch, as is the next.
    pub(crate) max_timestamp: i64,
    /// When the last batch was appended.
    #[serde(default)]
    pub(crate) appended: Since,
    /// There are batches without a timestamp.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) untimed: bool,
    /// First offset of the oldest transaction that was open where it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) open_since: Option<u64>,
    /// How many transactions were aborted by markers in it; -1 if that is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) aborted: i64,
    /// There are batches of transactions in it, or markers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) transactional: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(count: &i64) -> bool {
    *count == 0
}

impl SegmentFacts {
    pub(crate) fn extent(&self) -> Extent {
        Extent {
            end: self.size,
            next_offset: Offset::new(self.next_offset),
            times: Times {
                max_timestamp: Timestamp::new(self.max_timestamp),
                untimed: self.untimed,
                appended: self.appended,
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) log_start_offset: u64,
    pub(crate) recovery: Point,
    /// Every segment up to the recovery point; the last one's facts are as of that point.
    pub(crate) segments: Vec<SegmentFacts>,
    pub(crate) producers: Vec<Producer>,
    /// What was open as of the recovery point.
    #[serde(default, skip_serializing_if = "Saved::is_empty")]
    pub(crate) transactions: Saved,
    /// All segments are to be dropped: the log begins again, empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) begins_again: bool,
    /// Absent in version 1; always there once it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) epochs: Option<EpochTable>,
    /// The least that it was, if it is not the durable offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) high_watermark: Option<u64>,
}

impl Checkpoint {
    pub(crate) fn encode(mut self) -> serde_json::Result<Vec<u8>> {
        let version = if self.has_transactions() {
            3
        } else if !self.begins_again && self.high_watermark.is_none() && self.epochs == Some(self.epochs_of_before()) {
            self.epochs = None;
            1
        } else {
            2
        };
        let body = serde_json::to_vec(&self)?;
        let mut out = format!("{FORMAT} {version} {:08x}\n", crc32c::crc32c(&body)).into_bytes();
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// Reads a checkpoint; the error says what is wrong with it.
    pub(crate) fn decode(file: &[u8]) -> Result<Checkpoint, String> {
        let end_of_line = file
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("it has no first line")?;
        let (head, body) = (&file[..end_of_line], &file[end_of_line + 1..]);
        let head = std::str::from_utf8(head).map_err(|error| error.to_string())?;
        let (version, stored) = head
            .strip_prefix(FORMAT)
            .and_then(|rest| rest.strip_prefix(' ')?.split_once(' '))
            .filter(|(version, _)| matches!(*version, "1" | "2" | "3"))
            .ok_or_else(|| format!("it does not begin with '{FORMAT} 1', '{FORMAT} 2' or '{FORMAT} 3'"))?;
        if stored != format!("{:08x}", crc32c::crc32c(body)) {
            return Err("its checksum is wrong".to_owned());
        }
        let mut checkpoint: Checkpoint = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if (version == "3") != checkpoint.has_transactions() {
            return Err("its version is not that of what it tells".to_owned());
        }
        let of_before = checkpoint.epochs_of_before();
        checkpoint.epochs.get_or_insert(of_before);
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// The same, where the core does not wait for it.
    pub(crate) async fn decode_aside(file: Vec<u8>, disk: &impl Disk) -> Result<Checkpoint, String> {
        if file.len() <= DECODED_HERE_MAX {
            return Checkpoint::decode(&file);
        }
        disk.aside(move || Checkpoint::decode(&file)).await
    }

    /// Whether it tells of transactions, which brokers of before would lose.
    fn has_transactions(&self) -> bool {
        !self.transactions.is_empty()
            || self
                .segments
                .iter()
                .any(|facts| facts.transactional || facts.aborted != 0)
    }

    /// All that it tells of has epoch 0.
    fn epochs_of_before(&self) -> EpochTable {
        let [start, end] =
            [self.log_start_offset, self.recovery.offset].map(|offset| Offset::new(offset.min(Offset::MAX.get())));
        EpochTable::of_before(start, end)
    }

    /// Takes note that one segment has taken the place of all in its range of offsets, if they lie before the recovery point. It is
    /// no newer than they were.
    pub(crate) fn replace(&mut self, mut facts: SegmentFacts) {
        let range = facts.base_offset..facts.next_offset;
        let first = self.segments.partition_point(|known| known.base_offset < range.start);
        let after = self.segments.partition_point(|known| known.base_offset < range.end);
        let replaced = &self.segments[first..after];
        let Some(max_timestamp) = replaced.iter().map(|known| known.max_timestamp).max() else {
            return;
        };
        facts.max_timestamp = max_timestamp;
        facts.untimed = replaced.iter().any(|known| known.untimed);
        facts.transactional = replaced.iter().any(|known| known.transactional);
        facts.open_since = replaced.first().and_then(|first| first.open_since);
        // Some may have gone.
        facts.aborted = if replaced.iter().all(|known| known.aborted == 0) {
            0
        } else {
            -1
        };
        let appended = replaced.iter().map(|known| known.appended.clock());
        // As soon as one is not known, the newest is not.
        facts.appended = match appended.clone().min() {
            Some(oldest) if oldest.is_some() => appended.max().map(Since::stored).unwrap_or_default(),
            _ => Since::UNKNOWN,
        };
        self.segments.splice(first..after, [facts]);
    }

    fn check(&self) -> Result<(), String> {
        let in_order = self
            .segments
            .windows(2)
            .all(|pair| pair[0].next_offset <= pair[1].base_offset);
        let last_is_recovery = self.segments.last().is_some_and(|last| {
            (last.base_offset, last.size, last.next_offset)
                == (self.recovery.segment, self.recovery.position, self.recovery.offset)
        });
        let in_range = self
            .segments
            .iter()
            .all(|s| s.base_offset <= s.next_offset && s.next_offset <= Offset::MAX.get());
        let is_in_log = |offset: u64| (self.log_start_offset..=self.recovery.offset).contains(&offset);
        let in_log = is_in_log(self.log_start_offset) && self.high_watermark.is_none_or(is_in_log);
        let are_epochs_valid = |epochs: &EpochTable| epochs.is_valid(self.log_start_offset, self.recovery.offset);
        let in_log = in_log && self.epochs.as_ref().is_none_or(are_epochs_valid);
        let in_log = in_log && self.transactions.is_valid(self.recovery.offset);
        if in_order && last_is_recovery && in_range && in_log {
            Ok(())
        } else {
            Err("its parts contradict each other".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::id::LeaderEpoch;

    use super::*;

    fn epochs(starts: &[(i32, u64)]) -> EpochTable {
        let mut table = EpochTable::default();
        for (epoch, offset) in starts {
            table.note(LeaderEpoch::new(*epoch), Offset::new(*offset));
        }
        table
    }

    fn example() -> Checkpoint {
        let facts = |base_offset, next_offset| SegmentFacts {
            base_offset,
            size: 500,
            next_offset,
            max_timestamp: 9,
            appended: Since::stored(Timestamp::new(8)),
            untimed: base_offset == 0,
            open_since: (base_offset == 10).then_some(4),
            aborted: 2,
            transactional: true,
        };
        Checkpoint {
            log_start_offset: 3,
            recovery: Point {
                segment: 10,
                position: 500,
                offset: 15,
            },
            segments: vec![facts(0, 10), facts(10, 15)],
            producers: Vec::new(),
            transactions: Saved::default(),
            begins_again: false,
            epochs: Some(epochs(&[(0, 3), (4, 12)])),
            high_watermark: Some(12),
        }
    }

    #[test]
    fn a_checkpoint_reads_back_and_every_flipped_bit_is_noticed() {
        let file = example().encode().unwrap();
        assert_eq!(Checkpoint::decode(&file), Ok(example()));
        for at in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            // A changed case of a hexadecimal digit is the same number, written otherwise, and is refused as well.
            assert!(Checkpoint::decode(&damaged).is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_segment_takes_the_place_of_those_in_its_range_of_offsets() {
        let known = |base_offset, next_offset, max_timestamp| SegmentFacts {
            base_offset,
            size: 500,
            next_offset,
            max_timestamp,
            appended: Since::stored(Timestamp::new(max_timestamp * 2)),
            untimed: base_offset == 4,
            open_since: (base_offset == 4).then_some(2),
            aborted: i64::from(base_offset == 7),
            transactional: base_offset == 7,
        };
        let mut checkpoint = example();
        checkpoint.segments = vec![known(0, 4, 1), known(4, 7, 9), known(7, 10, 3), known(10, 15, 9)];
        let facts = SegmentFacts {
            size: 40,
            appended: Since::UNKNOWN,
            untimed: false,
            open_since: None,
            aborted: 0,
            transactional: false,
            ..known(4, 10, -1)
        };
        checkpoint.replace(facts);
        let replaced = SegmentFacts {
            size: 40,
            aborted: -1,
            transactional: true,
            ..known(4, 10, 9)
        };
        assert_eq!(checkpoint.segments, [known(0, 4, 1), replaced, known(10, 15, 9)]);
        let again = checkpoint.clone();
        checkpoint.replace(facts);
        assert_eq!(checkpoint, again);
        assert_eq!(checkpoint.check(), Ok(()));
        checkpoint.segments.remove(1);
        let without = checkpoint.clone();
        checkpoint.replace(facts);
        assert_eq!(checkpoint, without, "retention has taken them");
    }

    #[test]
    fn a_checkpoint_of_before_times_of_appends_were_kept_is_read() {
        let body = r#"{"log_start_offset":3,"recovery":{"segment":10,"position":500,"offset":15},"segments":[
            {"base_offset":0,"size":500,"next_offset":10,"max_timestamp":9},
            {"base_offset":10,"size":500,"next_offset":15,"max_timestamp":9}],"producers":[
            {"id":7,"epoch":1,"next":3,"last_seen_ms":5,"window":[
                {"first":0,"last":2,"base_offset":12,"next_offset":15}]}]}"#;
        let file = format!("headwater-checkpoint 1 {:08x}\n{body}", crc32c::crc32c(body.as_bytes()));
        let checkpoint = Checkpoint::decode(file.as_bytes()).unwrap();
        assert!(
            checkpoint
                .segments
                .iter()
                .all(|facts| facts.appended == Since::UNKNOWN && !facts.untimed)
        );
        assert_eq!((checkpoint.producers.len(), checkpoint.high_watermark), (1, None));
        assert_eq!(checkpoint.epochs, Some(epochs(&[(0, 3)])));
        let again = checkpoint.clone().encode().unwrap();
        assert!(
            again.starts_with(b"headwater-checkpoint 1 "),
            "brokers of before can read it"
        );
        assert_eq!(Checkpoint::decode(&again), Ok(checkpoint));
    }

    #[test]
    fn a_checkpoint_that_contradicts_itself_is_refused() {
        let contradictions: [fn(&mut Checkpoint); 5] = [
            |checkpoint| checkpoint.epochs = Some(epochs(&[(0, 2)])),
            |checkpoint| checkpoint.epochs = Some(epochs(&[(0, 3), (1, 16)])),
            |checkpoint| checkpoint.log_start_offset = 16,
            |checkpoint| checkpoint.high_watermark = Some(2),
            |checkpoint| checkpoint.high_watermark = Some(16),
        ];
        for contradict in contradictions {
            let mut checkpoint = example();
            contradict(&mut checkpoint);
            assert!(Checkpoint::decode(&checkpoint.encode().unwrap()).is_err());
        }
    }
}
