//! Record batches that no log may take.

use headwater_client::ErrorCode;
use headwater_protocol::{
    batch::{BatchBuilder, Compression, HEADER_LEN},
    id::Timestamp,
    schema::InitProducerIdRequestT,
};

use super::Setting;
use crate::support::{batch, numbered_batch, produce, run};

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
    let mut batch = damaged(change);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
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
