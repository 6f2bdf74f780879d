//! The one copy on the way in: from the socket's memory into a tail buffer.
//!
//! The disk and late consumers read a tail buffer long after it has left the processor's caches. Large pieces therefore go
//! past the caches: the processor neither reads the old content first nor drops other data for it, and the stall of
//! `rep movsb` on some processors, when source and target lie a few bytes apart in their pages, does not occur.

/// Copies of at least this many bytes go past the caches. Smaller ones are likely to be wanted at once, by the write of a
/// lone small batch and by a consumer that waits for it.
#[cfg(target_arch = "x86_64")]
const STREAM_BYTES_MIN: usize = 32 << 10;

/// Copies `count` bytes.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`]: both ranges are valid, and do not overlap.
pub(super) unsafe fn fill(to: *mut u8, from: *const u8, count: usize) {
    #[cfg(target_arch = "x86_64")]
    if count >= STREAM_BYTES_MIN {
        // SAFETY: the caller's promise.
        return unsafe { stream(to, from, count) };
    }
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from, to, count) };
}

/// With non-temporal stores, a cache line at a time. SSE2 belongs to every x86-64.
///
/// # Safety
/// As for [`fill`].
#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::cast_ptr_alignment,
    reason = "loads take any alignment, stores begin at a whole cache line"
)]
unsafe fn stream(to: *mut u8, from: *const u8, count: usize) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    const LINE: usize = 64;
    let front = to.align_offset(LINE).min(count);
    let lines = (count - front) / LINE;
    // SAFETY: all positions are below `count`, in ranges that the caller vouches for; stores go to whole, aligned lines.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, front);
        for line in 0..lines {
            let at = front + line * LINE;
            let (from, to) = (from.add(at).cast::<__m128i>(), to.add(at).cast::<__m128i>());
            let parts = [0, 1, 2, 3].map(|part| _mm_loadu_si128(from.add(part)));
            for (part, value) in parts.into_iter().enumerate() {
                _mm_stream_si128(to.add(part), value);
            }
        }
        // Such stores are not ordered with others: not with the system call that has them written to disk.
        _mm_sfence();
        let back = front + lines * LINE;
        std::ptr::copy_nonoverlapping(from.add(back), to.add(back), count - back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_copied_and_none_beside_it_wherever_both_begin() {
        const ROOM: usize = 64;
        let source: Vec<u8> = (0..(128 << 10)).map(|at| (at % 251) as u8 + 1).collect();
        for count in [0, 1, 63, 100, 32 << 10, (32 << 10) + 1, (64 << 10) - 1, 100_000] {
            for (from, to) in [(0, 0), (0, 1), (1, 0), (7, 16), (63, 15), (13, 64)] {
                let mut target = vec![0; count + 2 * ROOM];
                // SAFETY: both ranges are inside their vectors, which are two.
                unsafe { fill(target.as_mut_ptr().add(to), source.as_ptr().add(from), count) };
                assert_eq!(
                    &target[to..to + count],
                    &source[from..from + count],
                    "{count} bytes from {from} to {to}"
                );
                let beside = target[..to].iter().chain(&target[to + count..]);
                assert!(
                    beside.copied().all(|byte| byte == 0),
                    "{count} bytes from {from} to {to}"
                );
            }
        }
    }
}
