//! Segments as they may lie on a disk: whole, with any bit flipped, cut short, with a tail that was never finished.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use headwater_protocol::batch::{BatchBuilder, Compression, stamp};
use headwater_protocol::id::{LeaderEpoch, Offset, Timestamp};
use tempfile::TempDir;

use super::*;

/// Of a batch: covered by no checksum, and of no meaning to a reader.
const LEADER_EPOCH: std::ops::Range<usize> = 12..16;

const BATCHES: usize = 4;
const RECORDS: u64 = 3;
/// Offset behind the last record.
const END: u64 = BATCHES as u64 * RECORDS;

struct Files {
    directory: TempDir,
    /// Of the whole segment.
    bytes: Vec<u8>,
    /// Where each batch begins.
    positions: Vec<u64>,
}

impl Files {
    fn new() -> Files {
        let (mut bytes, mut positions) = (Vec::new(), Vec::new());
        for number in 0..BATCHES as u64 {
            let codec = [Compression::None, Compression::Lz4][number as usize % 2];
            let mut builder = BatchBuilder::new(codec, 1024);
            for record in 0..RECORDS {
                let value = [record as u8; 40];
                builder
                    .append(Timestamp::new(1_700_000_000_000), Some(b"key"), Some(&value), &[])
                    .unwrap();
            }
            let mut batch = builder.build().bytes().to_vec();
            stamp(&mut batch, Offset::new(number * RECORDS), LeaderEpoch::new(0));
            positions.push(bytes.len() as u64);
            bytes.extend_from_slice(&batch);
        }
        let directory = tempfile::tempdir().unwrap();
        Files {
            directory,
            bytes,
            positions,
        }
    }

    fn segment(&self, bytes: &[u8], next: Option<u64>, settled: usize) -> Segment {
        let path = self.directory.path().join("00000000000000000000.log");
        fs::write(&path, bytes).unwrap();
        Segment {
            path,
            base_offset: 0,
            size: bytes.len() as u64,
            has_holes: false,
            next,
            is_written: false,
            settled: settled as u64,
        }
    }

    /// The batch that a byte of the segment belongs to.
    fn batch_at(&self, byte: usize) -> usize {
        self.positions.partition_point(|position| *position <= byte as u64) - 1
    }
}

/// How many batches, and what is wrong: where, and where it goes on.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    batches: usize,
    damage: Vec<(u64, Option<u64>)>,
    unfinished: Vec<(u64, u64)>,
}

fn seen(segment: &Segment) -> Seen {
    let mut seen = Seen::default();
    check(segment, |finding| {
        match finding {
            Finding::Batch(_) => seen.batches += 1,
            Finding::Damage(damage) => {
                assert_eq!(damage.file, segment.path);
                seen.damage
                    .push((damage.position, damage.next.map(|next| next.position)));
            }
            Finding::Unfinished(found) => seen.unfinished.push((found.position, found.bytes)),
        }
        Ok(true)
    })
    .unwrap();
    seen
}

#[test]
fn every_flipped_bit_is_found_in_its_batch_and_all_other_batches_are_read() {
    let files = Files::new();
    let (whole, size) = (files.bytes.clone(), files.bytes.len());
    for next in [None, Some(END)] {
        let segment = files.segment(&whole, next, size);
        assert_eq!(seen(&segment).batches, BATCHES);
        let file = fs::OpenOptions::new().write(true).open(&segment.path).unwrap();
        for bit in 0..size * 8 {
            let byte = bit / 8;
            let number = files.batch_at(byte);
            let position = files.positions[number];
            file.write_all_at(&[whole[byte] ^ (1 << (bit % 8))], byte as u64)
                .unwrap();
            let expected = if LEADER_EPOCH.contains(&(byte - position as usize)) {
                Seen {
                    batches: BATCHES,
                    ..Seen::default()
                }
            } else {
                Seen {
                    batches: BATCHES - 1,
                    damage: vec![(position, files.positions.get(number + 1).copied())],
                    ..Seen::default()
                }
            };
            assert_eq!(seen(&segment), expected, "bit {bit}");
            file.write_all_at(&whole[byte..=byte], byte as u64).unwrap();
        }
    }
}

#[test]
fn a_segment_that_ends_anywhere_else_than_it_did_is_damaged_unless_its_end_was_never_settled() {
    let files = Files::new();
    let size = files.bytes.len();
    for cut in 0..size {
        let number = if cut == 0 { 0 } else { files.batch_at(cut - 1) };
        let is_boundary = files.positions.contains(&(cut as u64));
        let batches = if is_boundary { files.batch_at(cut) } else { number };
        let position = files.positions[batches];
        let damaged = Seen {
            batches,
            damage: vec![(position, None)],
            ..Seen::default()
        };
        let bytes = &files.bytes[..cut];
        assert_eq!(seen(&files.segment(bytes, None, size)), damaged, "{cut}");
        assert_eq!(seen(&files.segment(bytes, Some(END), 0)), damaged, "{cut}");
        let settled = position as usize;
        let mut unfinished = Seen {
            batches,
            ..Seen::default()
        };
        // Zeros are space that was reserved.
        if bytes[settled..].iter().any(|byte| *byte != 0) {
            unfinished.unfinished.push((position, cut as u64 - position));
        }
        assert_eq!(seen(&files.segment(bytes, None, settled)), unfinished, "{cut}");
    }
}

#[test]
fn what_a_file_was_reserved_for_or_held_before_is_no_damage() {
    let files = Files::new();
    let size = files.bytes.len();
    let all = Seen {
        batches: BATCHES,
        ..Seen::default()
    };
    let reserved = [&files.bytes[..], &[0; 5000]].concat();
    for next in [None, Some(END)] {
        assert_eq!(seen(&files.segment(&reserved, next, size)), all);
    }
    // The file of an earlier segment, whose batches are still behind those of this one.
    let used = [&files.bytes[..], &files.bytes[files.positions[1] as usize..]].concat();
    assert_eq!(seen(&files.segment(&used, Some(END), size)), all);
    let behind = (used.len() - size) as u64;
    assert_eq!(
        seen(&files.segment(&used, None, size)).unfinished,
        [(size as u64, behind)]
    );
    // Zeros where there were records.
    let mut lost = files.bytes.clone();
    let from = files.positions[2] as usize;
    lost[from..].fill(0);
    assert_eq!(seen(&files.segment(&lost, None, size)).damage, [(from as u64, None)]);
    assert_eq!(seen(&files.segment(&lost, Some(END), 0)).damage, [(from as u64, None)]);
}

#[test]
fn offsets_that_compaction_took_out_are_missed_only_where_it_was_not() {
    let files = Files::new();
    let (from, to) = (files.positions[1] as usize, files.positions[2] as usize);
    let holed = [&files.bytes[..from], &files.bytes[to..]].concat();
    let mut segment = files.segment(&holed, Some(END), holed.len());
    assert_eq!(seen(&segment).damage, [(from as u64, Some(from as u64))]);
    segment.has_holes = true;
    assert_eq!(seen(&segment).damage, []);
}

#[test]
fn a_batch_that_claims_a_large_size_costs_no_memory_of_that_size() {
    let files = Files::new();
    let mut liar = files.bytes.clone();
    liar[8..12].copy_from_slice(&(1_i32 << 26).to_be_bytes());
    let segment = files.segment(&liar, Some(END), liar.len());
    let size = (1 << 26) + (1 << 20);
    let file = fs::OpenOptions::new().write(true).open(&segment.path).unwrap();
    file.set_len(size).unwrap();
    let segment = Segment { size, ..segment };
    let found = seen(&segment);
    assert_eq!(found.batches, BATCHES - 1);
    assert_eq!(found.damage, [(0, Some(files.positions[1]))]);
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let files = Files::new();
    let mut segment = files.segment(&[], None, 0);
    segment.path.push("of no directory");
    assert_eq!(seen(&segment).damage, [(0, None)]);
}

#[test]
fn what_a_broker_is_writing_or_has_let_go_of_is_not_called_damaged() {
    let files = Files::new();
    let (first, second) = (files.positions[1] as usize, files.positions[2] as usize);
    let mut bytes = files.bytes.clone();
    bytes[first..second].fill(0);
    let mut segment = files.segment(&bytes, None, first);
    let damage = [(first as u64, Some(second as u64))];
    assert_eq!(seen(&segment).damage, damage);
    segment.is_written = true;
    let begun = Seen {
        batches: 1,
        ..Seen::default()
    };
    assert_eq!(seen(&segment), begun);
    segment.settled = second as u64;
    assert_eq!(seen(&segment).damage, damage);

    // Its file is another segment's now.
    let mut is_whole = true;
    check(&segment, |finding| {
        is_whole &= matches!(finding, Finding::Batch(_));
        if segment.path.exists() {
            fs::rename(&segment.path, segment.path.with_extension("recycled")).unwrap();
        }
        Ok(true)
    })
    .unwrap();
    assert!(is_whole);
    assert_eq!(seen(&segment), Seen::default());
}

/// A small file as the broker seals it.
fn seal(directory: &Path, name: &str, body: &str) {
    let crc = crc32c::crc32c(body.as_bytes());
    fs::write(directory.join(name), format!("headwater-{name} 1 {crc:08x}\n{body}")).unwrap();
}

/// The partition's segments by their names, and what is wrong with it.
fn partition(directory: &Path) -> (Vec<String>, Vec<String>) {
    let place = place::Place::read(directory).unwrap();
    let [partition] = &place.partitions[..] else {
        panic!("{place:?}")
    };
    let mut damage: Vec<_> = partition.damage.iter().map(Damage::text).collect();
    for segment in &partition.segments {
        check(segment, |finding| {
            if let Finding::Damage(found) = finding {
                damage.push(found.text());
            }
            Ok(true)
        })
        .unwrap();
    }
    let name = |segment: &Segment| segment.path.file_name().unwrap().to_str().unwrap().to_owned();
    (partition.segments.iter().map(name).collect(), damage)
}

#[test]
fn what_a_crash_has_left_of_retention_or_compaction_is_read_as_the_next_start_will_have_it() {
    let files = Files::new();
    let directory = files.directory.path();
    let (second, third) = (files.positions[1] as usize, files.positions[2] as usize);
    let last = format!("{:020}.log", 2 * RECORDS);
    fs::write(directory.join(&last), &files.bytes[third..]).unwrap();
    let (size, end) = (files.bytes.len() - third, END);
    let recovery = json!({"segment": 6, "position": size, "offset": end});
    let known = json!({"base_offset": 6, "size": size, "next_offset": end, "max_timestamp": 0});

    // Retention has let go of the first segment and not removed it yet.
    let gone = directory.join(format!("{:020}.log", 0));
    fs::write(&gone, "of no use to anybody").unwrap();
    let checkpoint = json!({"log_start_offset": 6, "recovery": recovery, "segments": [known], "producers": []});
    seal(directory, "checkpoint", &checkpoint.to_string());
    assert_eq!(partition(directory), (vec![last.clone()], vec![]));

    // Of the first segment compaction has left the second batch.
    let replaced = json!({"base_offset": 0, "size": third, "next_offset": 6, "max_timestamp": 0});
    let checkpoint =
        json!({"log_start_offset": 0, "recovery": recovery, "segments": [replaced, known], "producers": []});
    seal(directory, "checkpoint", &checkpoint.to_string());
    seal(directory, "compaction", r#"{"holes_below": 6, "clean_below": 6}"#);
    let swap = format!("{:020}-{:020}.swap", 0, 6);
    fs::write(directory.join(&swap), &files.bytes[second..third]).unwrap();
    assert_eq!(partition(directory), (vec![swap.clone(), last.clone()], vec![]));

    // Without it there is damage.
    fs::remove_file(directory.join(swap)).unwrap();
    let (_, damage) = partition(directory);
    assert!(
        matches!(&damage[..], [first] if first.contains("is damaged at byte 0")),
        "{damage:?}"
    );
    fs::remove_file(&gone).unwrap();
    let (_, damage) = partition(directory);
    assert!(
        matches!(&damage[..], [first] if first.contains("the file is missing")),
        "{damage:?}"
    );
}
