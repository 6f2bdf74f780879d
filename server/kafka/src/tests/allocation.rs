//! Nothing is allocated by a count that a peer merely claims: the peak of what hostile bytes make the readers allocate, counted
//! by an allocator, for each thread by itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::CASES;
use crate::reader::Reader;
use crate::{fetch, produce};

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    LIVE.set(LIVE.get() + bytes);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

// SAFETY: every call goes to the system's allocator as it came; only sizes are counted beside it, without allocating.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the pointer came from `System.alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that were allocated at a time while `f` ran.
fn peak_of(f: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    f();
    (PEAK.get() - before).unsigned_abs()
}

/// Structures are larger in memory than on the wire, and a list that grows is there twice for a moment.
const PER_BYTE_MAX: usize = 64;
/// What is reserved for the first few elements of each nested array.
const ELSE_MAX: usize = 16 << 10;

#[test]
fn no_bytes_make_a_reader_allocate_much_more_than_they_are() {
    // Whatever the fields before are, some of these are counts in either form: huge, as large as fits, or many small ones.
    let patterns: [&[u8]; 6] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0x7f],
        &[0, 0, 0x10, 0],
        &[0x80, 0x20, 0],
        &[0, 0, 0, 1],
        &[1],
    ];
    let mut peak_max = 0;
    for pattern in patterns {
        for shift in 0..pattern.len() {
            let bytes: Vec<u8> = pattern.iter().copied().cycle().skip(shift).take(8 << 10).collect();
            let bound = PER_BYTE_MAX * bytes.len() + ELSE_MAX;
            for case in CASES {
                for version in case.versions.clone() {
                    let peak = peak_of(|| (case.read)(&bytes, version));
                    assert!(peak <= bound, "{} {version}: {peak} for {pattern:02x?}", case.name);
                    peak_max = peak_max.max(peak);
                }
            }
            for version in 3..=18 {
                let peak = peak_of(|| {
                    let _ = produce::Request::read(&mut Reader::new(&bytes), version);
                    let _ = fetch::Request::read(&mut Reader::new(&bytes), version);
                });
                assert!(peak <= bound, "{version}: {peak} for {pattern:02x?}");
            }
        }
    }
    assert!(peak_max > 8 << 10, "something is read, and counted");
}
