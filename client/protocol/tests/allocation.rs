//! Nothing is allocated by a length that a peer merely claims: the peak of what hostile input makes the parsers allocate,
//! counted by an allocator. One test, so that no other thread allocates meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic, helpers of tests too")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use headwater_protocol::batch::{
    BatchBuilder, BatchError, BatchLimits, Batches, Compression, HEADER_LEN, RecordBatch, RecordSet,
};
use headwater_protocol::frame::FrameHeader;
use headwater_protocol::head;
use headwater_protocol::id::Timestamp;
use headwater_protocol::schema::{MetadataRequest, MetadataRequestT};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; only sizes are counted beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `System.alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that were allocated at a time while `f` ran, and what it returned.
fn peak_of<T>(f: impl FnOnce() -> T) -> (usize, T) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = f();
    (PEAK.load(Ordering::Relaxed) - before, result)
}

/// What codecs need for themselves, whatever the input: lz4's largest blocks are 8 MiB, one in and one out.
const CODEC_SIZE_MAX: usize = 17 << 20;
const DECOMPRESSED_SIZE_MAX: usize = 1 << 20;
const LIMITS: BatchLimits = BatchLimits {
    batch_size_max: 1 << 20,
};

/// A batch with these records and this header field put in place, and the right CRC.
fn batch_of(compression: Compression, records: &[u8], count: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(Timestamp::new(0), None, None, &[]).unwrap();
    let mut bytes = builder.build().bytes()[..HEADER_LEN].to_vec();
    bytes.extend_from_slice(records);
    let length = u32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] = compression.number();
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// 64 MiB of zeros as a batch of this codec: a few hundred KiB at most.
fn bomb(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression, 0);
    builder
        .append(Timestamp::new(0), None, Some(&vec![0; 64 << 20]), &[])
        .unwrap();
    builder.build().freeze()
}

/// A list of one long name, a thousand times over by reference.
fn shared_names() -> Vec<u8> {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let name = builder.create_string(&"x".repeat(100_000));
    let names = builder.create_vector(&[name; 1000]);
    let args = headwater_protocol::schema::MetadataRequestArgs { topics: Some(names) };
    let root = MetadataRequest::create(&mut builder, &args);
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

#[test]
fn no_claimed_length_is_allocated() {
    frames_and_heads();
    batches();
    claims_of_records();
    claims_of_codecs();
    for compression in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let bytes = bomb(compression);
        let (peak, result) = peak_of(|| RecordSet::decode(&bytes, DECOMPRESSED_SIZE_MAX).map(drop));
        assert_eq!(
            result,
            Err(BatchError::DecompressedTooLarge {
                max: DECOMPRESSED_SIZE_MAX
            }),
            "{compression}"
        );
        // A buffer that grows by doubling: the old and the new one.
        assert!(peak <= 4 * DECOMPRESSED_SIZE_MAX, "{compression}: {peak} bytes");
    }
}

fn frames_and_heads() {
    let (peak, _) = peak_of(|| FrameHeader::parse(&[0xff; 16], u32::MAX - 1).is_err());
    assert_eq!(peak, 0);
    let head = shared_names();
    let (peak, result) = peak_of(|| head::decode::<MetadataRequest>(&head).map(|request| request.unpack()));
    assert!(
        result.is_err(),
        "a head that appears a thousand times as large as it is"
    );
    assert!(peak < 4096, "{peak} bytes");
    // A vector that claims 2^30 elements.
    let mut head = head::encode(&MetadataRequestT {
        topics: Some(vec!["a".to_owned()]),
    });
    for at in (0..head.len()).step_by(4) {
        let was: [u8; 4] = head[at..at + 4].try_into().unwrap();
        head[at..at + 4].copy_from_slice(&0x4000_0000_u32.to_le_bytes());
        let (peak, _) = peak_of(|| {
            head::decode::<MetadataRequest>(&head)
                .map(|request| request.unpack())
                .is_ok()
        });
        assert!(peak < 4096, "{peak} bytes with word {at} replaced");
        head[at..at + 4].copy_from_slice(&was);
    }
}

fn batches() {
    let mut bytes = batch_of(Compression::None, &[12, 0, 0, 0, 1, 1, 0], 1).to_vec();
    bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    let unlimited = BatchLimits {
        batch_size_max: usize::MAX,
    };
    let (peak, result) = peak_of(|| RecordBatch::parse(&bytes, &unlimited).map(drop));
    assert!(matches!(result, Err(BatchError::Truncated { .. })));
    assert_eq!(peak, 0);
    let (peak, count) = peak_of(|| Batches::new(&bytes, &LIMITS).count());
    assert_eq!((peak, count), (0, 1));
    let claims_many = batch_of(Compression::None, &[12, 0, 0, 0, 1, 1, 0], i32::MAX);
    let (peak, result) = peak_of(|| RecordBatch::parse(&claims_many, &LIMITS).map(drop));
    assert!(matches!(result, Err(BatchError::BadCount { .. })));
    assert_eq!(peak, 0);
}

/// Lengths of a key, a value, the headers, a header's key and value, each of two billion.
fn claims_of_records() {
    const HUGE: [u8; 5] = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    for prefix in [&[][..], &[1], &[1, 1], &[1, 1, 2], &[1, 1, 2, 0]] {
        let body = [&[0, 0, 0], prefix, &HUGE].concat();
        let records = [&[(body.len() * 2) as u8], &body[..]].concat();
        let bytes = batch_of(Compression::None, &records, 1);
        let (peak, failed) = peak_of(|| {
            RecordSet::decode(&bytes, 0)
                .unwrap()
                .iter()
                .all(|record| record.is_err())
        });
        assert!(failed);
        assert!(peak < 4096, "{peak} bytes after {prefix:?}");
    }
}

/// A few bytes that claim gigabytes.
fn claims_of_codecs() {
    let snappy_4_gib = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let xerial = [b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", &[0, 0, 0, 7][..], &snappy_4_gib].concat();
    let xerial_block = [b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", &[0xff; 4][..]].concat();
    // Linked blocks of 4 MiB, then the old format's 8 MiB, of which none follows.
    let lz4 = [4, 0x22, 0x4d, 0x18, 0x40, 0x70, 0xdf];
    let lz4_legacy = [2, 0x21, 0x4c, 0x18];
    // A content size of eight bytes, all ones.
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &[0xff; 8], &[1, 0, 0]].concat();
    let claims: [(Compression, &[u8]); 6] = [
        (Compression::Snappy, &snappy_4_gib),
        (Compression::Snappy, &xerial),
        (Compression::Snappy, &xerial_block),
        (Compression::Lz4, &lz4),
        (Compression::Lz4, &lz4_legacy),
        (Compression::Zstd, &zstd),
    ];
    for (compression, claim) in claims {
        let bytes = batch_of(compression, claim, 1);
        let (peak, failed) = peak_of(|| {
            RecordSet::decode(&bytes, usize::MAX / 2).map_or(true, |set| set.iter().all(|record| record.is_err()))
        });
        assert!(failed, "{compression}");
        assert!(peak <= CODEC_SIZE_MAX, "{compression}: {peak} bytes for {claim:?}");
    }
}
