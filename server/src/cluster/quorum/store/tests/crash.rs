//! A crash at every write, and damage afterwards.

use super::{super::file::Change, *};
use crate::cluster::quorum::codec::encode;

/// A sequence of numbers for each seed (`SplitMix64`).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// A number below this.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % limit
    }
}

/// What is on disk, as it can be compared.
fn told(kept: &Kept) -> String {
    let entries: Vec<_> = kept.range(&(..)).collect();
    format!("{:?} {:?} {entries:?} {:?}", kept.vote, kept.purged, kept.snapshot)
}

/// The next change of a life as a member leads it, and the same in memory.
fn step(kept: &mut Kept, term: u64, chance: &mut Chance) -> Change {
    let next = kept.last().map_or(0, |last| last.index + 1);
    let covered = kept.snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id);
    match chance.below(8) {
        0 => {
            let vote = Vote::new(term, NodeId::from(1 + chance.below(3)));
            kept.vote = Some(vote);
            Change::Vote(vote)
        }
        1 if kept.last() > covered => {
            let from = covered.map_or(0, |covered| covered.index + 1) + chance.below(2);
            kept.truncate(from);
            Change::Truncate(from)
        }
        2 if kept.last().is_some() => {
            let meta = SnapshotMeta {
                last_log_id: kept.last(),
                ..SnapshotMeta::default()
            };
            let data = Bytes::from(vec![term as u8; chance.below(40_000) as usize]);
            kept.snapshot = Some((meta.clone(), data.clone()));
            Change::Snapshot { meta, data }
        }
        3 if covered > kept.purged => {
            let upto = covered.unwrap();
            kept.purge(upto);
            Change::Purge(upto)
        }
        4 => Change::Committed(kept.last()),
        _ => {
            let entries: Vec<Entry> = (next..=next + chance.below(4))
                .map(|index| entry(term, index))
                .collect();
            let encoded = entries.iter().map(|entry| (entry.log_id.index, encode(entry)));
            let appended = Change::Append(encoded.collect());
            kept.append(entries.into_iter().map(|entry| {
                let len = encode(&entry).len() as u32;
                (entry, len)
            }))
            .unwrap();
            appended
        }
    }
}

/// Steps in one life.
const STEPS: u64 = 10;

/// Changes, and what is to be there after each; first of all what is there at the beginning.
fn life(seed: u64) -> (Vec<Change>, Vec<String>) {
    let mut chance = Chance(seed);
    let mut kept = Kept::default();
    let vote = Vote::new(1, NodeId::from(1));
    let mut expected = vec![told(&kept)];
    kept.vote = Some(vote);
    let mut changes = vec![Change::Vote(vote)];
    expected.push(told(&kept));
    for term in 2..STEPS {
        changes.push(step(&mut kept, term, &mut chance));
        expected.push(told(&kept));
    }
    (changes, expected)
}

/// Performs the changes until the disk fails, and says how many succeeded.
fn live(file: &File, changes: &[Change]) -> usize {
    let done = changes
        .iter()
        .position(|change| file.perform([change].into_iter()).is_err());
    done.unwrap_or(changes.len())
}

fn found(bytes: Vec<u8>) -> Result<String, StoreError> {
    let (_, _, kept) = File::on(Disk::holding(bytes), None)?.load()?;
    Ok(told(&kept))
}

/// A disk on which a store was begun.
fn begun() -> (Disk, File) {
    let disk = Disk::default();
    let file = File::on(disk.clone(), Some(&identity())).unwrap();
    (disk, file)
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_at_any_write() {
    for seed in 0..4 {
        let (changes, expected) = life(seed);
        let (disk, file) = begun();
        let before = disk.done();
        assert_eq!(live(&file, &changes), changes.len());
        let writes = disk.done() - before;
        for crash in 0..=writes {
            let (disk, file) = begun();
            disk.fail_after(Some(crash));
            let done = live(&file, &changes);
            let mut chance = Chance(seed ^ (crash << 32));
            let left = disk.crash(|| chance.below(2) == 0);
            let found = found(left).unwrap_or_else(|error| panic!("seed {seed}, crash at write {crash}: {error}"));
            let may_be = &expected[done..=(done + 1).min(changes.len())];
            assert!(
                may_be.contains(&found),
                "seed {seed}, crash at write {crash}, {done} changes acknowledged"
            );
        }
    }
}

/// Places of the file that are damaged, one at a time.
const PLACES: usize = 400;

#[test]
fn damage_is_refused_and_never_read_as_an_older_state() {
    let (changes, expected) = life(5);
    let (disk, file) = begun();
    assert_eq!(live(&file, &changes), changes.len());
    let killed = disk.crash(|| true);
    // Closed in order, so that the next start has nothing to repair.
    let closed = Disk::holding(killed.clone());
    File::on(closed.clone(), None).unwrap().close().unwrap();
    for bytes in [killed, closed.crash(|| true)] {
        let mut refused = 0;
        for at in (0..bytes.len()).step_by(bytes.len() / PLACES) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            match found(damaged) {
                Err(StoreError::Damaged { .. } | StoreError::Database { .. }) => refused += 1,
                Err(error) => panic!("byte {at}: {error}"),
                Ok(found) => assert!(Some(&found) == expected.last(), "byte {at} leads back to another state"),
            }
        }
        assert!(refused > 0, "no damage was noticed");
    }
}
