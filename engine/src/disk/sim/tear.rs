//! How a write breaks: which of its sectors reach the medium when power or the device fails.

use std::ops::Range;

use rand::{RngExt, rngs::StdRng};

use crate::disk::BLOCK_SIZE;

/// Unit in bytes that a device writes whole or not at all.
pub(super) const SECTOR_SIZE: usize = 512;

/// Picks the parts of a write of `length` bytes (or of a read that races with it) that took effect: none, all, a prefix,
/// or any subset of its sectors or blocks.
#[allow(clippy::single_range_in_vec_init)] // A list of one range is meant.
pub(super) fn tear(rng: &mut StdRng, length: usize) -> Vec<Range<usize>> {
    match rng.random_range(0..5) {
        0 => Vec::new(),
        1 => vec![0..length],
        2 => {
            let sectors = length.div_ceil(SECTOR_SIZE);
            let kept = rng.random_range(0..=sectors);
            vec![0..(kept * SECTOR_SIZE).min(length)]
        }
        3 => subset(rng, length, SECTOR_SIZE),
        _ => subset(rng, length, BLOCK_SIZE),
    }
}

fn subset(rng: &mut StdRng, length: usize, unit: usize) -> Vec<Range<usize>> {
    (0..length)
        .step_by(unit)
        .filter(|_| rng.random_bool(0.5))
        .map(|start| start..(start + unit).min(length))
        .collect()
}

/// Bytes that the device may have taken from memory that changed from `before` to `after` while the write was in
/// flight: each sector old, new, or cut between the two at any byte.
pub(super) fn blend(rng: &mut StdRng, mut before: Vec<u8>, after: &[u8]) -> Vec<u8> {
    if before == after {
        return before;
    }
    for (old, new) in before.chunks_mut(SECTOR_SIZE).zip(after.chunks(SECTOR_SIZE)) {
        if old != new {
            let taken = match rng.random_range(0..3) {
                0 => 0,
                1 => new.len(),
                _ => rng.random_range(0..=new.len()),
            };
            old[..taken].copy_from_slice(&new[..taken]);
        }
    }
    before
}
