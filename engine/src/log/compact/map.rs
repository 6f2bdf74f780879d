//! The offset map: the last offset of each key, in memory of a fixed size, as in Kafka's log cleaner.
//!
//! Owned by one compaction. Keys are known by 128 bits of keyed hash, so that two different ones are never taken for each other:
//! by chance that is out of the question, and nobody can choose such keys, because every map has hash keys of its own.

use std::hash::{BuildHasher, RandomState};

/// Bytes of one entry.
const ENTRY_LEN: usize = size_of::<Entry>();

/// Of so many entries so many may be taken, which keeps the walk to a free one short.
const FILL: (usize, usize) = (4, 5);

/// The hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyHash([u64; 2]);

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    hash: [u64; 2],
    /// 0: free.
    offset_plus_one: u64,
}

/// Open addressing with linear probing; entries are never removed.
#[derive(Debug)]
pub(super) struct OffsetMap {
    hashers: [RandomState; 2],
    entries: Vec<Entry>,
    taken: usize,
    taken_max: usize,
}

impl OffsetMap {
    /// A map of at most `bytes_max` bytes, and no larger than `keys` need.
    pub(super) fn new(bytes_max: usize, keys: u64) -> OffsetMap {
        let (part, whole) = FILL;
        let wanted = usize::try_from(keys).unwrap_or(usize::MAX).saturating_mul(whole) / part + 1;
        let count = wanted.min(bytes_max / ENTRY_LEN).max(2);
        OffsetMap {
            hashers: [RandomState::new(), RandomState::new()],
            entries: vec![Entry::default(); count],
            taken: 0,
            taken_max: (count * part / whole).max(1),
        }
    }

    pub(super) fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash([self.hashers[0].hash_one(key), self.hashers[1].hash_one(key)])
    }

    /// Notes that the key's last record so far is at `offset`. Returns false if there is no room for another key.
    pub(super) fn put(&mut self, key: KeyHash, offset: u64) -> bool {
        let at = self.find(key);
        let entry = &mut self.entries[at];
        if entry.offset_plus_one == 0 {
            if self.taken == self.taken_max {
                return false;
            }
            self.taken += 1;
            entry.hash = key.0;
        }
        entry.offset_plus_one = offset + 1;
        true
    }

    /// Offset of the key's last record, if there is one in the part of the log that was noted.
    pub(super) fn get(&self, key: KeyHash) -> Option<u64> {
        self.entries[self.find(key)].offset_plus_one.checked_sub(1)
    }

    /// The key's entry, or the free one that would become it.
    fn find(&self, key: KeyHash) -> usize {
        let count = self.entries.len();
        let mut at = (u128::from(key.0[0]) * count as u128 >> 64) as usize;
        while self.entries[at].offset_plus_one != 0 && self.entries[at].hash != key.0 {
            at = if at + 1 == count { 0 } else { at + 1 };
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_map_knows_the_last_offset_of_each_key_and_says_when_it_is_full() {
        let mut map = OffsetMap::new(100 * ENTRY_LEN, 1000);
        let mut model = HashMap::new();
        for offset in 0..500_u64 {
            let key = (offset * 7919 % 80).to_be_bytes();
            assert!(map.put(map.hash(&key), offset), "80 of 100 entries may be taken");
            model.insert(key, offset);
        }
        for (key, offset) in &model {
            assert_eq!(map.get(map.hash(key)), Some(*offset));
        }
        assert_eq!(map.get(map.hash(b"another")), None);
        assert!(!map.put(map.hash(b"another"), 500));
        assert_eq!(map.get(map.hash(b"another")), None);
        assert!(
            map.put(map.hash(&0_u64.to_be_bytes()), 501),
            "a known key needs no room"
        );
    }

    #[test]
    fn a_map_is_as_large_as_its_keys_need_and_never_larger_than_allowed() {
        assert_eq!(OffsetMap::new(1 << 30, 8).entries.len(), 11);
        assert_eq!(OffsetMap::new(1000, u64::MAX).entries.len(), 1000 / ENTRY_LEN);
        let mut least = OffsetMap::new(0, 0);
        assert!(least.put(least.hash(b"a"), 0) && !least.put(least.hash(b"b"), 1));
    }
}
