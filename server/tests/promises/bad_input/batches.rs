//! Record batches that no log may take.

use headwater_client::{ErrorCode, Start};
use headwater_protocol::{
    batch::{BatchBuilder, Compression, HEADER_LEN},
    id::Timestamp,
    schema::InitProducerIdRequestT,
};

use super::Setting;
use crate::support::{Raw, batch, numbered_batch, produce, run};

/// A batch that is not valid, and what it is.
type Bad = (&'static str, Vec<u8>);

fn good() -> Vec<u8> {
    batch(&[b"value"])
}

fn damaged(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut batch = good();
    change(&mut batch);
    batch
}

/// Damaged, but with a checksum that says it is not.
fn forged(change: impl Fn(&mut [u8])) -> Vec<u8> {
    with_its_checksum(damaged(change))
}

fn with_its_checksum(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// Under 100 bytes that say that they hold so many records, and hold one.
fn claiming(compression: Compression, count: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression, 0);
    builder.append(Timestamp::now(), None, Some(b"v"), &[]).unwrap();
    let mut batch = builder.build().bytes().to_vec();
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    with_its_checksum(batch)
}

/// A batch whose record says that its value is longer than the record.
fn malformed() -> Vec<u8> {
    let mut batch = claiming(Compression::None, 1);
    batch.truncate(HEADER_LEN);
    batch.extend([20, 0, 0, 0, 1, 200, 1, b'v', 0, 0, 0]);
    let length = (batch.len() - 12) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    with_its_checksum(batch)
}

fn of_length(length: i32) -> Vec<u8> {
    damaged(|batch| batch[8..12].copy_from_slice(&length.to_be_bytes()))
}

fn corrupt() -> Vec<Bad> {
    let good = good();
    vec![
        ("a byte", vec![1]),
        ("half a header", good[..HEADER_LEN / 2].to_vec()),
        ("a header", good[..HEADER_LEN].to_vec()),
        ("all but a byte", good[..good.len() - 1].to_vec()),
        ("a byte more", [&good[..], &[0]].concat()),
        ("a bad second", [&good[..], &good[..70]].concat()),
        ("length -1", of_length(-1)),
        ("length 0", of_length(0)),
        ("too short", of_length(48)),
        ("a flipped bit", damaged(|batch| batch[good.len() - 1] ^= 4)),
        ("another CRC", damaged(|batch| batch[17] ^= 1)),
    ]
}

fn invalid() -> Vec<Bad> {
    let numbered = numbered_batch(&[b"value"], 1_000_000, 0, 0);
    let billions = forged(|batch| {
        batch[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
        batch[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
    });
    vec![
        ("nothing", Vec::new()),
        ("control", forged(|batch| batch[22] |= 0x20)),
        ("a transaction", forged(|batch| batch[22] |= 0x10)),
        ("no records", forged(|batch| batch[57..61].fill(0))),
        ("2 of 1 records", forged(|batch| batch[60] = 2)),
        ("billions of records", billions),
        ("no epoch", numbered_batch(&[b"value"], 1, -1, 0)),
        ("no sequence", numbered_batch(&[b"value"], 1, 0, -1)),
        ("two at once", [&numbered[..], &numbered].concat()),
        ("a malformed record", malformed()),
        ("2 of 1 records in gzip", claiming(Compression::Gzip, 2)),
        ("billions of records in gzip", claiming(Compression::Gzip, i32::MAX)),
        ("billions of records in snappy", claiming(Compression::Snappy, i32::MAX)),
        ("billions of records in lz4", claiming(Compression::Lz4, i32::MAX)),
        ("billions of records in zstd", claiming(Compression::Zstd, i32::MAX)),
    ]
}

fn of_other_times() -> Vec<Bad> {
    let mut late = BatchBuilder::new(Compression::None, 0);
    let in_a_year = Timestamp::new(Timestamp::now().get() + 365 * 24 * 3_600_000);
    late.append(in_a_year, None, Some(b"value"), &[]).unwrap();
    vec![
        ("the broker's time", forged(|batch| batch[22] |= 0x08)),
        ("a time below zero", forged(|batch| batch[27] = 0x80)),
        ("a time in a year", late.build().bytes().to_vec()),
    ]
}

fn of_other_forms() -> Vec<Bad> {
    vec![
        ("magic 1", damaged(|batch| batch[16] = 1)),
        ("magic 3", damaged(|batch| batch[16] = 3)),
    ]
}

#[test]
fn batches_that_are_not_whole_and_valid_are_refused_by_name() {
    run(async {
        let setting = Setting::new().await;
        let mut raw = setting.connect().await;
        let too_large = vec![
            ("length max", of_length(i32::MAX)),
            ("more than allowed", batch(&[&vec![0; 1 << 20]])),
        ];
        let cases = [
            (ErrorCode::CorruptMessage, corrupt()),
            (ErrorCode::InvalidRecord, invalid()),
            (ErrorCode::InvalidTimestamp, of_other_times()),
            (ErrorCode::UnsupportedForMessageFormat, of_other_forms()),
            (
                ErrorCode::UnsupportedCompressionType,
                vec![("codec 7", forged(|batch| batch[22] |= 7))],
            ),
            (ErrorCode::MessageTooLarge, too_large),
            (
                ErrorCode::UnknownProducerId,
                vec![("an unknown producer", numbered_batch(&[b"value"], 2, 0, 9))],
            ),
        ];
        for (expected, (case, payload)) in cases
            .iter()
            .flat_map(|(code, cases)| cases.iter().map(move |case| (code, case)))
        {
            let response = raw.call(&produce(setting.topic, 0), payload).await.produce();
            let (code, message) = (ErrorCode::from_i16(response.error), response.message);
            assert_eq!(code, *expected, "{case}: {message:?}");
            assert!(message.is_some_and(|message| !message.is_empty()), "{case}");
            assert_eq!(response.base_offset, -1, "{case}");
        }
        // Nothing of all this was stored.
        let response = raw.call(&produce(setting.topic, 0), &good()).await.produce();
        assert_eq!((response.error, response.base_offset), (0, 0));
        setting.end().await;
    });
}

#[test]
fn a_batch_that_counts_what_it_does_not_hold_is_refused_by_every_core_and_makes_no_segment() {
    run(async {
        let setting = Setting::new().await;
        for core in [0, 1] {
            let mut raw = Raw::connect(setting.site.core_address(core)).await;
            for compression in Compression::ALL {
                let response = raw
                    .call(&produce(setting.topic, 0), &claiming(compression, i32::MAX))
                    .await
                    .produce();
                assert_eq!(
                    ErrorCode::from_i16(response.error),
                    ErrorCode::InvalidRecord,
                    "{compression}"
                );
                // What it says of itself is true now.
                let response = raw
                    .call(&produce(setting.topic, 0), &claiming(compression, 1))
                    .await
                    .produce();
                assert_eq!(response.error, 0, "{compression}: {:?}", response.message);
            }
        }
        let entries = std::fs::read_dir(setting.site.directory().join("victim-0")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let segments = names.filter(|name| name.strip_suffix(".log").is_some()).count();
        assert_eq!(segments, 1);
        let client = setting.site.client().await;
        let consumer = client.consumer().topics(["victim"]).start(Start::Earliest);
        let mut consumer = consumer.build().await.unwrap();
        for offset in 0..10 {
            let record = consumer.recv().await.unwrap();
            assert_eq!((record.offset.get(), &record.value.unwrap()[..]), (offset, &b"v"[..]));
        }
        setting.end().await;
    });
}

#[test]
fn records_that_take_long_to_look_at_hold_up_no_other_and_take_the_memory_of_one() {
    run(async {
        let setting = Setting::new().await;
        let zeros = vec![0; 60 << 20];
        let mut builder = BatchBuilder::new(Compression::Zstd, 0);
        builder.append(Timestamp::now(), None, Some(&zeros), &[]).unwrap();
        let bomb = builder.build().bytes().to_vec();
        assert!(bomb.len() < 64 << 10);
        let mut senders = Vec::new();
        for core in [0, 1] {
            for _ in 0..8 {
                let mut raw = Raw::connect(setting.site.core_address(core)).await;
                raw.send(&produce(setting.topic, 0), &bomb).await;
                senders.push(raw);
            }
        }
        setting.others_go_on().await;
        for mut raw in senders {
            let response = raw.receive().await.unwrap().produce();
            assert_eq!(response.error, 0, "{:?}", response.message);
        }
        setting.end().await;
    });
}

#[test]
fn sequences_of_an_idempotent_producer_that_do_not_follow_are_refused_by_name() {
    run(async {
        let setting = Setting::new().await;
        let mut raw = setting.connect().await;
        let granted = raw
            .call(&InitProducerIdRequestT::default(), &[])
            .await
            .init_producer_id();
        let id = granted.producer_id;
        let steps = [
            (1, 0, ErrorCode::None, 0),
            // A new epoch begins at 0, and fences off the old one.
            (1, 1, ErrorCode::None, 1),
            (1, 1, ErrorCode::None, 1),
            (1, 3, ErrorCode::OutOfOrderSequenceNumber, -1),
            (0, 2, ErrorCode::InvalidProducerEpoch, -1),
            (2, 1, ErrorCode::OutOfOrderSequenceNumber, -1),
            (2, 0, ErrorCode::None, 2),
            (1, 2, ErrorCode::InvalidProducerEpoch, -1),
        ];
        for (epoch, sequence, code, offset) in steps {
            let payload = numbered_batch(&[b"value"], id, epoch, sequence);
            let response = raw.call(&produce(setting.topic, 0), &payload).await.produce();
            let found = (ErrorCode::from_i16(response.error), response.base_offset);
            assert_eq!(found, (code, offset), "epoch {epoch}, sequence {sequence}");
        }
        setting.end().await;
    });
}
