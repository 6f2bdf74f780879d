//! Whatever is accepted can be read: a batch is what it says of itself, and so are its records, under every codec.

use headwater_engine::{AppendError, LogConfig, ReadLimit, disk::SimDisk};
use headwater_protocol::{
    batch::{BatchError, Compression, RecordFault},
    error::ErrorCode,
    id::{Offset, Timestamp},
};

use crate::support::{NOON, Record, append_durably, builder, decode, open, read_all, run, small_config};

const NOW: Timestamp = Timestamp::new(NOON);

/// A batch of three records, and the same with a change that its checksum does not give away.
fn forged(compression: Compression, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let records = [0, 1, 2].map(|id| Record::new(id, 20));
    let mut bytes = builder(&records, compression).build().bytes().to_vec();
    change(&mut bytes);
    let length = (bytes.len() - 12) as u32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Says of a batch that it holds so many records.
fn claim(bytes: &mut [u8], count: i32) {
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
}

#[test]
fn a_batch_that_counts_other_records_than_it_holds_is_refused_under_every_codec() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        for compression in Compression::ALL {
            for count in [1, 2, 4, 1000, i32::MAX] {
                let payload = forged(compression, |bytes| claim(bytes, count));
                let refused = log.append(&payload, NOW).unwrap_err();
                assert_eq!(
                    refused.code(),
                    ErrorCode::InvalidRecord,
                    "{count} under {compression}: {refused}"
                );
            }
            append_durably(&log, &forged(compression, |_| {})).await;
        }
        assert_eq!(log.offsets().end, Offset::new(15));
        assert_eq!(read_all(&log).await.len(), 15);
    });
}

#[test]
fn small_requests_make_no_segments() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        segment_size_bytes: 1 << 20,
        ..small_config()
    };
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config).await.unwrap();
        for _ in 0..200 {
            let payload = forged(Compression::Gzip, |bytes| claim(bytes, i32::MAX));
            let _refused = log.append(&payload, NOW);
            log.flush().await.unwrap();
        }
        assert_eq!(log.size().0, 1);
    });
}

#[test]
fn a_malformed_record_is_refused_by_its_number_under_every_codec() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        for compression in Compression::ALL {
            let records = [0, 1, 2].map(|id| Record::new(id, 20));
            let plain = builder(&records, Compression::None).build().bytes()[61..].to_vec();
            let record = plain.len() / 3;
            // The second record's offset, the length of its value, and one byte less of the last.
            let mut gap = plain.clone();
            gap[record + 3] += 2;
            let mut behind = plain.clone();
            behind[record + 5] += 2;
            let cut = plain[..plain.len() - 1].to_vec();
            let more = [&plain[..], &[0]].concat();
            let cases = [
                (gap, 1, RecordFault::OffsetDelta),
                (behind, 1, RecordFault::Truncated),
                (cut, 2, RecordFault::Truncated),
                (more, 3, RecordFault::MoreRecords),
            ];
            for (records, number, fault) in cases {
                let payload = compressed(compression, &records);
                let refused = log.append(&payload, NOW).unwrap_err();
                let AppendError::Batch(BatchError::BadRecord {
                    index, fault: found, ..
                }) = refused
                else {
                    panic!("{refused}")
                };
                assert_eq!((index, found), (number, fault), "{compression}");
            }
            append_durably(&log, &compressed(compression, &plain)).await;
        }
        assert_eq!(read_all(&log).await.len(), 15);
    });
}

/// A batch that counts three records, of these bytes.
fn compressed(compression: Compression, records: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let packed = match compression {
        Compression::None => records.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(records).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Snappy => snap::raw::Encoder::new().compress_vec(records).unwrap(),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(records).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::bulk::compress(records, 1).unwrap(),
    };
    forged(compression, |bytes| {
        bytes.truncate(61);
        bytes.extend_from_slice(&packed);
    })
}

#[test]
fn records_that_would_become_more_than_a_reader_takes_are_refused() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        let zeros = vec![0; (64 << 20) + 1];
        for compression in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
            let refused = log.append(&compressed(compression, &zeros), NOW).unwrap_err();
            assert!(
                matches!(refused, AppendError::Batch(BatchError::DecompressedTooLarge { .. })),
                "{compression}: {refused}"
            );
        }
        append_durably(&log, &forged(Compression::Zstd, |_| {})).await;
        let range = log
            .fetch(Offset::ZERO, 1, ReadLimit::HighWatermark)
            .await
            .unwrap()
            .range
            .unwrap();
        assert_eq!(decode(&log.read(&range).await.unwrap()).len(), 3);
    });
}
