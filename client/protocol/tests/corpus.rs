//! Replays the corpora of the fuzz targets through the same checks, and batches that were mutated at random.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic, helpers of tests too")]

#[path = "../fuzz/checks.rs"]
mod checks;
#[path = "batches/model.rs"]
mod model;

use std::path::Path;

use headwater_protocol::batch::Compression;
use proptest::prelude::*;

/// The entries of a target's corpus, with their names.
fn entries(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut entries: Vec<_> = paths
        .map(|path| (path.display().to_string(), std::fs::read(path).unwrap()))
        .collect();
    entries.sort();
    entries
}

/// Runs a check over a corpus; both accepted and refused entries must be among them.
fn replay(target: &str, check: fn(&[u8]) -> bool) {
    let entries = entries(target);
    let (accepted, refused): (Vec<_>, Vec<_>) = entries.iter().partition(|(name, bytes)| {
        // Shown when a check fails: it is the last one.
        println!("{name}");
        check(bytes)
    });
    assert!(!accepted.is_empty(), "{target}: nothing in the corpus is accepted");
    assert!(!refused.is_empty(), "{target}: nothing in the corpus is refused");
}

#[test]
fn frames_of_the_corpus_are_read_or_refused() {
    replay("frame", checks::frame);
}

#[test]
fn heads_of_the_corpus_are_read_or_refused() {
    replay("head", checks::head);
}

#[test]
fn what_members_of_groups_say_in_the_corpus_is_read_or_refused() {
    replay("group", checks::group);
}

#[test]
fn batches_of_the_corpus_are_read_or_refused() {
    replay("batch", checks::batch);
}

/// What is done to bytes: some set, then the end cut off.
#[derive(Debug, Clone)]
struct Mutation {
    writes: Vec<(prop::sample::Index, u8)>,
    len: prop::sample::Index,
    cut: bool,
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        for (at, byte) in &self.writes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if self.cut {
            bytes.truncate(self.len.index(bytes.len()));
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let writes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    (writes, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(writes, len, cut)| Mutation { writes, len, cut })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_mutation_of_a_batch_panics_or_reads_as_what_it_is_not(
        records in model::records(),
        compression in prop::sample::select(&Compression::ALL[..]),
        mutation in mutation(),
    ) {
        let mut bytes = model::build(compression, &records).bytes().to_vec();
        mutation.apply(&mut bytes);
        checks::batch(&bytes);
        checks::frame(&bytes);
        checks::head(&bytes);
    }

    #[test]
    fn no_mutation_of_a_head_panics_or_reads_as_what_it_is_not(
        which in any::<prop::sample::Index>(),
        mutation in mutation(),
    ) {
        let heads = entries("head");
        let mut bytes = heads[which.index(heads.len())].1.clone();
        mutation.apply(&mut bytes);
        checks::head(&bytes);
    }

    #[test]
    fn no_mutation_of_what_a_member_says_panics_or_reads_as_what_it_is_not(
        which in any::<prop::sample::Index>(),
        mutation in mutation(),
    ) {
        let said = entries("group");
        let mut bytes = said[which.index(said.len())].1.clone();
        if !bytes.is_empty() {
            mutation.apply(&mut bytes);
        }
        checks::group(&bytes);
    }

    #[test]
    fn no_bytes_at_all_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        checks::batch(&bytes);
        checks::frame(&bytes);
        checks::head(&bytes);
        checks::group(&bytes);
    }
}
