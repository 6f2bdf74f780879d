//! Bytes worked out by hand from Kafka's documentation of the format and from those of the codecs: the checks that
//! builder and reader are not wrong together. CRCs are from a bitwise implementation of the polynomial.

use bytes::Bytes;
use headwater_protocol::batch::{
    BatchBuilder, BatchError, BatchLimits, Compression, HEADER_LEN, HeaderRef, LENGTH_PREFIX, RecordBatch, RecordFault,
    RecordSet,
};
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

const LIMITS: BatchLimits = BatchLimits {
    batch_size_max: 1 << 20,
};
const DECOMPRESSED_SIZE_MAX: usize = 1 << 20;

#[rustfmt::skip]
const HEADER: [u8; HEADER_LEN] = [
    0, 0, 0, 0, 0, 0, 0, 0,                      // base offset
    0, 0, 0, 80,                                 // length: 92 - 12
    0xff, 0xff, 0xff, 0xff,                      // partition leader epoch: none
    2,                                           // magic
    0x0c, 0x50, 0x11, 0xc7,                      // CRC
    0, 0,                                        // attributes
    0, 0, 0, 1,                                  // last offset delta
    0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00,    // base timestamp 1_700_000_000_000
    0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x40,    // max timestamp, 64 ms later
    0, 0, 0, 0, 0, 0, 0x03, 0xe9,                // producer id 1001
    0, 3,                                        // producer epoch
    0x7f, 0xff, 0xff, 0xff,                      // base sequence i32::MAX
    0, 0, 0, 2,                                  // record count
];

/// One record with key, value and a header each with and without a value, then one that is null throughout.
#[rustfmt::skip]
const RECORDS: [u8; 31] = [
    44, 0, 0, 0,                                 // length 22, attributes, timestamp delta 0, offset delta 0
    6, b'k', b'e', b'y', 10, b'v', b'a', b'l', b'u', b'e',
    4, 2, b'a', 2, b'b', 4, b'c', b'd', 1,       // two headers: a = b, cd = null
    14, 0, 0x80, 0x01, 2, 1, 1, 0,               // length 7, timestamp delta 64, offset delta 1, nulls, no header
];

fn two_records(compression: Compression) -> BatchBuilder {
    let mut builder = BatchBuilder::new(compression, 0);
    builder.set_producer(ProducerId::new(1001), ProducerEpoch::new(3), Sequence::new(i32::MAX));
    let headers = [
        HeaderRef {
            key: "a",
            value: Some(b"b"),
        },
        HeaderRef { key: "cd", value: None },
    ];
    builder
        .append(
            Timestamp::new(1_700_000_000_000),
            Some(b"key"),
            Some(b"value"),
            &headers,
        )
        .unwrap();
    builder
        .append(Timestamp::new(1_700_000_000_064), None, None, &[])
        .unwrap();
    builder
}

/// A batch with these records, compressed already, under the header above with length and CRC put right.
fn batch_of(compression: Compression, records: &[u8], edit: impl Fn(&mut [u8])) -> Bytes {
    let mut bytes = [&HEADER[..], records].concat();
    let length = u32::try_from(bytes.len() - LENGTH_PREFIX).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] = compression.number();
    edit(&mut bytes);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

#[test]
fn a_batch_has_the_bytes_of_the_documentation() {
    let bytes = [&HEADER[..], &RECORDS[..]].concat();
    assert_eq!(two_records(Compression::None).build().bytes(), bytes);
    let set = RecordSet::decode(&bytes.into(), 0).unwrap();
    let offsets: Vec<_> = set.iter().map(|record| record.unwrap().offset).collect();
    assert_eq!(offsets, [Offset::new(0), Offset::new(1)]);
    assert_eq!(set.header().last_sequence(), Sequence::ZERO);
}

#[test]
fn each_codec_reads_its_specified_framing() {
    let len = RECORDS.len() as u8;
    // RFC 1952 around one stored block of RFC 1951; no file name, no time.
    let gzip = [
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1, len, 0, !len, 0xff],
        &RECORDS[..],
        &GZIP_CRC.to_le_bytes(),
        &[len, 0, 0, 0],
    ];
    // Snappy's format description: the length, then one literal. xerial frames it with a header and a block length.
    let snappy = [&[len, (len - 1) << 2], &RECORDS[..]];
    let xerial = [
        b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01",
        &[0, 0, 0, len + 2][..],
        &snappy.concat(),
    ];
    // The LZ4 frame format: independent blocks of at most 64 KiB, no checksums, as Java writes; one stored block.
    let lz4 = [
        &[4, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82, len, 0, 0, 0x80],
        &RECORDS[..],
        &[0, 0, 0, 0],
    ];
    // RFC 8878: a single segment of known size with one raw block.
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, len, len << 3 | 1, 0, 0], &RECORDS[..]];
    let framings = [
        (Compression::Gzip, gzip.concat()),
        (Compression::Snappy, snappy.concat()),
        (Compression::Snappy, xerial.concat()),
        (Compression::Lz4, lz4.concat()),
        (Compression::Zstd, zstd.concat()),
    ];
    for (compression, framed) in framings {
        let bytes = batch_of(compression, &framed, |_| ());
        let set = RecordSet::decode(&bytes, DECOMPRESSED_SIZE_MAX).unwrap();
        assert_eq!(
            set.iter()
                .map(|record| record.unwrap().offset.get())
                .collect::<Vec<_>>(),
            [0, 1]
        );
        let exact = RecordSet::decode(&bytes, RECORDS.len());
        assert!(exact.is_ok(), "{compression}: the limit itself is allowed");
        let error = RecordSet::decode(&bytes, RECORDS.len() - 1).unwrap_err();
        assert_eq!(
            error,
            BatchError::DecompressedTooLarge { max: RECORDS.len() - 1 },
            "{compression}"
        );
        for cut in 1..framed.len() {
            let bytes = batch_of(compression, &framed[..cut], |_| ());
            let records = RecordSet::decode(&bytes, DECOMPRESSED_SIZE_MAX);
            let whole = records.is_ok_and(|set| set.iter().all(|record| record.is_ok()));
            // Once all records are out, what is missing of a trailer need not be noticed.
            assert!(
                !whole || cut >= framed.len() - 8,
                "{compression} cut to {cut} of {}",
                framed.len()
            );
        }
    }
}

/// CRC-32 (of gzip, not of Kafka) of [`RECORDS`].
const GZIP_CRC: u32 = 0xe35c_5070;

#[test]
fn snappy_is_written_in_xerial_framing_with_blocks_of_32_kib() {
    let mut builder = BatchBuilder::new(Compression::Snappy, 0);
    builder
        .append(Timestamp::new(0), None, Some(&vec![7; 100_000]), &[])
        .unwrap();
    let bytes = builder.build().freeze();
    let framed = &bytes[HEADER_LEN..];
    assert_eq!(framed[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let mut rest = &framed[16..];
    let mut blocks = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (block, after) = after.split_at(u32::from_be_bytes(*len) as usize);
        blocks.push(snap::raw::decompress_len(block).unwrap());
        rest = after;
    }
    assert_eq!(blocks[..3], [32 * 1024; 3]);
    assert_eq!(blocks.len(), 4);
}

#[test]
fn lz4_is_written_as_java_reads_it_with_independent_blocks_and_no_more_than_a_header() {
    let bytes = two_records(Compression::Lz4).build().freeze();
    // Version 1, independent blocks, no checksums, no sizes; blocks of at most 64 KiB; the header's own check byte.
    assert_eq!(
        bytes[HEADER_LEN..HEADER_LEN + 7],
        [4, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82]
    );
}

#[test]
fn each_field_of_the_header_is_checked_although_the_checksum_is_right() {
    let error = |at: usize, field: &[u8]| {
        let bytes = batch_of(Compression::None, &RECORDS, |bytes| {
            bytes[at..at + field.len()].copy_from_slice(field);
        });
        RecordBatch::parse(&bytes, &LIMITS).unwrap_err()
    };
    let negative = [0xff; 8];
    assert_eq!(error(0, &negative), BatchError::BadOffset { base_offset: -1 });
    let last = i64::MAX - 1;
    assert_eq!(
        error(0, &last.to_be_bytes()),
        BatchError::BadOffset { base_offset: last }
    );
    assert_eq!(error(8, &[0, 0, 0, 48]), BatchError::BadLength { length: 48 });
    assert_eq!(error(8, &negative[..4]), BatchError::BadLength { length: -1 });
    assert_eq!(error(8, &[0, 0, 0, 81]), BatchError::Truncated { need: 93, have: 92 });
    assert_eq!(
        error(8, &[0, 0x10, 0, 0]),
        BatchError::TooLarge {
            size: (1 << 20) + 12,
            max: 1 << 20
        }
    );
    for magic in [0, 1, 3, -1] {
        assert_eq!(error(16, &[magic as u8]), BatchError::BadMagic { magic });
    }
    for codec in 5..8 {
        assert_eq!(error(22, &[codec]), BatchError::UnknownCompression { codec });
    }
    for (count, delta) in [(3, 1), (2, 0), (0, -1), (-1, -2), (-1, 1), (i32::MIN, i32::MAX)] {
        let bytes = batch_of(Compression::None, &RECORDS, |bytes| {
            bytes[23..27].copy_from_slice(&i32::to_be_bytes(delta));
            bytes[57..61].copy_from_slice(&i32::to_be_bytes(count));
        });
        let error = RecordBatch::parse(&bytes, &LIMITS).unwrap_err();
        assert_eq!(
            error,
            BatchError::BadCount {
                count,
                last_offset_delta: delta
            }
        );
    }
    let before_base = BatchError::BadTimestamp {
        base: Timestamp::new(1_700_000_000_000),
        max: Timestamp::new(1_699_999_999_999),
    };
    assert_eq!(error(35, &1_699_999_999_999_u64.to_be_bytes()), before_base);
    assert!(matches!(
        error(27, &(-2_i64).to_be_bytes()),
        BatchError::BadTimestamp { .. }
    ));
}

#[test]
fn a_small_batch_cannot_use_up_billions_of_offsets() {
    let claim = |bytes: &mut [u8]| {
        bytes[23..27].copy_from_slice(&4_i32.to_be_bytes());
        bytes[57..61].copy_from_slice(&5_i32.to_be_bytes());
    };
    // Thirty-one bytes hold four records of seven, not five.
    let bytes = batch_of(Compression::None, &RECORDS, claim);
    let error = RecordBatch::parse(&bytes, &LIMITS).unwrap_err();
    assert_eq!(
        error,
        BatchError::BadCount {
            count: 5,
            last_offset_delta: 4
        }
    );
}

#[test]
fn what_only_a_broker_writes_is_refused_from_a_client() {
    let from_client = |edit: fn(&mut [u8])| {
        let bytes = batch_of(Compression::None, &RECORDS, edit);
        RecordBatch::parse(&bytes, &LIMITS).unwrap().check_from_client()
    };
    assert_eq!(from_client(|_| ()), Ok(()));
    assert_eq!(from_client(|bytes| bytes[22] = 0x20), Err(BatchError::ControlBatch));
    assert_eq!(
        from_client(|bytes| bytes[22] = 0x08),
        Err(BatchError::AppendTimeFromClient)
    );
    assert_eq!(
        from_client(|bytes| bytes[22] = 0x40),
        Err(BatchError::HorizonFromClient)
    );
    for (count, last_offset_delta) in [(1, 4), (0, 0), (2, i32::MAX)] {
        let bytes = batch_of(Compression::None, &RECORDS, |bytes| {
            bytes[23..27].copy_from_slice(&i32::to_be_bytes(last_offset_delta));
            bytes[57..61].copy_from_slice(&i32::to_be_bytes(count));
        });
        let error = RecordBatch::parse(&bytes, &LIMITS).unwrap().check_from_client();
        let holes = BatchError::BadCount {
            count,
            last_offset_delta,
        };
        assert_eq!(error, Err(holes), "only compaction leaves holes");
    }
    let no_sequence = BatchError::BadProducer {
        id: 1001,
        epoch: 3,
        sequence: -1,
    };
    assert_eq!(from_client(|bytes| bytes[53] = 0xff), Err(no_sequence));
    let no_epoch = BatchError::BadProducer {
        id: 1001,
        epoch: -1,
        sequence: i32::MAX,
    };
    assert_eq!(from_client(|bytes| bytes[51..53].fill(0xff)), Err(no_epoch));
    assert_eq!(
        from_client(|bytes| bytes[43..57].fill(0xff)),
        Ok(()),
        "no producer id, no sequence"
    );
}

#[test]
fn malformed_records_are_told_apart_and_named() {
    #[rustfmt::skip]
    let cases: [(&[u8], u32, RecordFault); 17] = [
        (&[], 0, RecordFault::Truncated),
        (&[14, 0, 0, 0, 1, 1], 0, RecordFault::Truncated),
        (&[0xff; 40], 0, RecordFault::VarintTooLong),
        (&[1], 0, RecordFault::NegativeLength),
        (&[0xfe, 0xff, 0xff, 0xff, 0x0f], 0, RecordFault::Truncated),
        (&[12, 0, 0, 0, 3, 1, 0], 0, RecordFault::NegativeLength),
        (&[12, 0, 0, 0, 1, 1, 1], 0, RecordFault::NegativeLength),
        (&[20, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 1, 0], 0, RecordFault::Truncated),
        (&[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f], 0, RecordFault::Truncated),
        (&[14, 0, 0, 0, 1, 1, 0, 0], 0, RecordFault::TrailingBytes),
        (&[12, 0, 0, 1, 1, 1, 0], 0, RecordFault::OffsetDelta),
        (&[12, 0, 0, 4, 1, 1, 0], 0, RecordFault::OffsetDelta),
        (&[12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 0, 1, 1, 0], 1, RecordFault::OffsetDelta),
        (&[12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 2, 1, 1, 0, 0], 2, RecordFault::MoreRecords),
        (&[18, 0, 0, 0, 1, 1, 2, 1, 0, 0], 0, RecordFault::NegativeLength),
        (&[18, 0, 0, 0, 1, 1, 2, 0, 3, 0], 0, RecordFault::NegativeLength),
        (&[30, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 1, 1, 0], 0, RecordFault::Timestamp),
    ];
    for (records, index, fault) in cases {
        // Compressed, as the parser would see of some that they are too short for two records.
        let framed = snap::raw::Encoder::new().compress_vec(records).unwrap();
        let bytes = batch_of(Compression::Snappy, &framed, |_| ());
        let set = RecordSet::decode(&bytes, DECOMPRESSED_SIZE_MAX).unwrap();
        let error = BatchError::BadRecord {
            base_offset: Offset::ZERO,
            index,
            fault,
        };
        let mut read = set.iter().skip(index as usize);
        assert_eq!(
            read.next().map(|record| record.map(|record| record.offset)),
            Some(Err(error.clone())),
            "{records:?}"
        );
        assert!(read.next().is_none(), "nothing is read beyond a malformed record");
        let batch = RecordBatch::parse(&bytes, &LIMITS).unwrap();
        assert_eq!(batch.validate_records(DECOMPRESSED_SIZE_MAX, false), Err(error));
    }
}

#[test]
fn a_header_key_that_is_not_utf8_is_refused() {
    let records = [18, 0, 0, 0, 1, 1, 2, 2, 0xff, 1, 14, 0, 0, 2, 1, 1, 0];
    let bytes = batch_of(Compression::None, &records, |_| ());
    let error = RecordSet::decode(&bytes, 0)
        .unwrap()
        .iter()
        .next()
        .unwrap()
        .unwrap_err();
    assert!(matches!(
        error,
        BatchError::BadRecord {
            index: 0,
            fault: RecordFault::HeaderKey(_),
            ..
        }
    ));
    assert_eq!(error.code(), ErrorCode::InvalidRecord);
}

#[test]
fn offsets_with_a_gap_are_read_but_not_taken_from_a_client() {
    let records = [12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 4, 1, 1, 0];
    let bytes = batch_of(
        Compression::None,
        &[&records[..], &[12, 0, 0, 6, 1, 1, 0]].concat(),
        |bytes| {
            bytes[26] = 3;
            bytes[60] = 4;
        },
    );
    // Four are counted, but only three are there: that ends the reading.
    assert!(RecordBatch::parse(&bytes, &LIMITS).is_err());
    let framed = snap::raw::Encoder::new().compress_vec(&records).unwrap();
    let bytes = batch_of(Compression::Snappy, &framed, |bytes| {
        bytes[26] = 2;
        bytes[60] = 3;
    });
    let set = RecordSet::decode(&bytes, DECOMPRESSED_SIZE_MAX).unwrap();
    let offsets: Vec<_> = set
        .iter()
        .map_while(Result::ok)
        .map(|record| record.offset.get())
        .collect();
    assert_eq!(offsets, [0, 2]);
    let batch = RecordBatch::parse(&bytes, &LIMITS).unwrap();
    let gap = BatchError::BadRecord {
        base_offset: Offset::ZERO,
        index: 1,
        fault: RecordFault::OffsetDelta,
    };
    assert_eq!(batch.validate_records(DECOMPRESSED_SIZE_MAX, false), Err(gap));
}

#[test]
fn a_record_without_a_key_is_refused_where_keys_are_required() {
    let bytes = two_records(Compression::Zstd).build().freeze();
    let batch = RecordBatch::parse(&bytes, &LIMITS).unwrap();
    assert_eq!(batch.validate_records(DECOMPRESSED_SIZE_MAX, false), Ok(()));
    let no_key = BatchError::BadRecord {
        base_offset: Offset::ZERO,
        index: 1,
        fault: RecordFault::NoKey,
    };
    assert_eq!(batch.validate_records(DECOMPRESSED_SIZE_MAX, true), Err(no_key));
}

#[test]
fn the_builder_refuses_what_no_batch_can_hold() {
    let mut builder = two_records(Compression::None);
    let len = builder.len();
    let error = builder.append(Timestamp::new(-2), None, None, &[]).unwrap_err();
    assert!(matches!(error, BatchError::BadTimestamp { .. }));
    assert_eq!(
        (builder.len(), builder.record_count()),
        (len, 2),
        "the batch is as it was"
    );
}

#[test]
fn only_the_first_frame_of_lz4_is_read() {
    // One record in a frame with blocks of at most 4 MiB, one in a frame with 64 KiB.
    let first = [
        &[4, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73, 23, 0, 0, 0x80],
        &RECORDS[..23],
        &[0; 4],
    ]
    .concat();
    let second = [
        &[4, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82, 8, 0, 0, 0x80],
        &RECORDS[23..],
        &[0; 4],
    ]
    .concat();
    let bytes = batch_of(Compression::Lz4, &[first, second].concat(), |_| ());
    let set = RecordSet::decode(&bytes, DECOMPRESSED_SIZE_MAX).unwrap();
    let read: Vec<_> = set.iter().map(|record| record.is_ok()).collect();
    assert_eq!(read, [true, false]);
}
