//! Records that say who sent them and as which in line, so that each that is lost, doubled, moved or altered shows.

use bytes::Bytes;
use headwater_client::{Advance, Client, Consumer, OffsetReset, OffsetSpec, PartitionIndex, Start};

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    pub producer: u16,
    pub partition: u16,
}

const HEADER_LEN: usize = 16;

impl Source {
    /// The value of this source's record with this number.
    pub fn value(self, number: u64, len: usize) -> Vec<u8> {
        let mut value = vec![0; len.max(HEADER_LEN)];
        let (header, rest) = value.split_at_mut(HEADER_LEN);
        header[..2].copy_from_slice(&self.producer.to_le_bytes());
        header[2..4].copy_from_slice(&self.partition.to_le_bytes());
        header[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        header[8..].copy_from_slice(&number.to_le_bytes());
        let mut state = number ^ (u64::from(self.producer) << 48) ^ (u64::from(self.partition) << 32) ^ len as u64;
        let mut next = || {
            // Sebastiano Vigna's splitmix64.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed ^ (mixed >> 31)).to_le_bytes()
        };
        let (words, last) = rest.as_chunks_mut::<8>();
        for word in words {
            *word = next();
        }
        last.copy_from_slice(&next()[..last.len()]);
        value
    }

    /// Reads a value back. Panics if a single bit is not as it was sent.
    pub fn read(value: &[u8]) -> (Source, u64) {
        let (header, _) = value.split_first_chunk::<HEADER_LEN>().expect("a value has a header");
        let source = Source {
            producer: u16::from_le_bytes([header[0], header[1]]),
            partition: u16::from_le_bytes([header[2], header[3]]),
        };
        let number = u64::from_le_bytes(header[8..].try_into().unwrap());
        assert!(
            value == source.value(number, value.len()),
            "record {number} of {source:?} was altered"
        );
        (source, number)
    }
}

/// A record that was read.
#[derive(Debug, Clone)]
pub struct Stored {
    pub offset: u64,
    pub value: Bytes,
}

/// Reads every partition of a topic from its start to its high watermark, through the client.
pub async fn read_topic(client: &Client, topic: &str) -> Vec<Vec<Stored>> {
    let starts = client.admin().list_offsets(topic, OffsetSpec::Earliest).await.unwrap();
    let ends = client.admin().list_offsets(topic, OffsetSpec::Latest).await.unwrap();
    let mut stored = vec![Vec::new(); ends.len()];
    let ends: Vec<u64> = ends.into_iter().map(|end| end.unwrap().get()).collect();
    let filled = starts.iter().zip(&ends).enumerate();
    let filled = filled.filter(|(_, (start, end))| start.unwrap().get() < **end);
    let filled: Vec<PartitionIndex> = filled.map(|(index, _)| PartitionIndex::new(index as i32)).collect();
    if filled.is_empty() {
        return stored;
    }
    let consumer = client.consumer().assign(topic, filled.clone()).start(Start::Earliest);
    let mut consumer = consumer.offset_reset(OffsetReset::Error).build().await.unwrap();
    let is_behind = |consumer: &Consumer| {
        let is_behind = |partition: &PartitionIndex| {
            let position = consumer.position(topic, *partition).unwrap();
            position.get() < ends[partition.as_usize()]
        };
        filled.iter().any(is_behind)
    };
    while is_behind(&consumer) {
        let Advance::Records(records) = consumer.advance().await.unwrap() else {
            continue;
        };
        let partition = records.partition().as_usize();
        for record in &records {
            let record = record.unwrap();
            let value = records.slice(record.value.expect("the tests send no null values"));
            let offset = record.offset.get();
            stored[partition].push(Stored { offset, value });
        }
    }
    stored
}
