//! What one core can copy and checksum. Hot: what is copied stays in the cache. Cold: it comes from memory, and goes there.
//! Fresh: the target is touched for the first time, which costs a page fault for each page, and far more in a virtual machine.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::ring::PAGE;

/// Fits any cache of a core.
const HOT_BYTES: usize = 256 << 10;

/// Fits few caches, and is always mapped anew (mallopt(3): above the largest `M_MMAP_THRESHOLD`).
const COLD_BYTES: usize = 128 << 20;

/// Between two looks at the clock.
const STRIDE_BYTES: usize = 4 << 20;

/// So little is the target of an aliased copy ahead of its source, within a page.
const ALIAS_BYTES: usize = 16;

/// A copy between buffers that stay in the cache, both at the beginning of a page, in bytes a second.
pub fn copy_hot(time: Duration) -> f64 {
    copy_between(time, 0)
}

/// The same with a target that lies a few bytes further into its page than the source: `rep movsb`, with which the C library
/// copies at these sizes, is many times slower then on some processors.
pub fn copy_aliased(time: Duration) -> f64 {
    copy_between(time, ALIAS_BYTES)
}

fn copy_between(time: Duration, ahead: usize) -> f64 {
    let (source, mut target) = (vec![0x5a_u8; HOT_BYTES + PAGE], vec![0xa5_u8; HOT_BYTES + 2 * PAGE]);
    let page = |bytes: &[u8]| bytes.as_ptr().addr().next_multiple_of(PAGE) - bytes.as_ptr().addr();
    let source = &source[page(&source)..][..HOT_BYTES];
    let begin = page(&target) + ahead;
    let target = &mut target[begin..][..HOT_BYTES];
    rate(time, || {
        for _ in 0..STRIDE_BYTES / HOT_BYTES {
            black_box(&mut *target).copy_from_slice(black_box(source));
        }
        STRIDE_BYTES
    })
}

/// A copy between buffers that are larger than the cache, in bytes a second.
pub fn copy_cold(time: Duration) -> f64 {
    let (source, mut target) = (vec![0x5a_u8; COLD_BYTES], vec![0xa5_u8; COLD_BYTES]);
    let mut at = 0;
    rate(time, || {
        let next = at..at + STRIDE_BYTES;
        black_box(&mut target[next.clone()]).copy_from_slice(black_box(&source[next]));
        at = (at + STRIDE_BYTES) % COLD_BYTES;
        STRIDE_BYTES
    })
}

/// A copy into memory that was just mapped, in bytes a second, the mapping included.
pub fn copy_fresh(time: Duration) -> f64 {
    let source = vec![0x5a_u8; HOT_BYTES];
    let mut target = Vec::with_capacity(COLD_BYTES);
    rate(time, || {
        if target.len() == COLD_BYTES {
            target = Vec::with_capacity(COLD_BYTES);
        }
        for _ in 0..STRIDE_BYTES / HOT_BYTES {
            target.extend_from_slice(black_box(&source));
        }
        black_box(&mut target);
        STRIDE_BYTES
    })
}

/// CRC-32C of a buffer that stays in the cache, in bytes a second.
pub fn crc(time: Duration) -> f64 {
    let source = vec![0x5a_u8; HOT_BYTES];
    rate(time, || {
        for _ in 0..STRIDE_BYTES / HOT_BYTES {
            black_box(crc32c::crc32c(black_box(&source)));
        }
        STRIDE_BYTES
    })
}

/// Works (each call says on how many bytes) for so long.
fn rate(time: Duration, mut work: impl FnMut() -> usize) -> f64 {
    let started = Instant::now();
    let mut bytes = 0;
    loop {
        bytes += work();
        let elapsed = started.elapsed();
        if elapsed >= time {
            return bytes as f64 / elapsed.as_secs_f64();
        }
    }
}
