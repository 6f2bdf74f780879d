//! What a batch promises across its parts: builder, view, record set.

use bytes::Bytes;

use super::*;
use crate::id::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

const LIMITS: BatchLimits = BatchLimits {
    batch_size_max: 1 << 20,
};

fn three_records(compression: Compression) -> EncodedBatch {
    let mut builder = BatchBuilder::new(compression, 0);
    let headers = [
        HeaderRef {
            key: "h",
            value: Some(b"v"),
        },
        HeaderRef { key: "", value: None },
    ];
    builder
        .append(Timestamp::new(1000), Some(b"key"), Some(b"value"), &headers)
        .unwrap();
    builder.append(Timestamp::new(900), None, Some(b""), &[]).unwrap();
    builder.append(Timestamp::new(1100), Some(b""), None, &[]).unwrap();
    builder.build()
}

#[test]
fn records_read_back_under_every_codec() {
    for compression in Compression::ALL {
        let mut encoded = three_records(compression);
        encoded.set_producer(ProducerId::new(5), ProducerEpoch::new(2), Sequence::new(i32::MAX));
        assert_eq!(encoded.record_count(), 3);
        let mut bytes = encoded.bytes().to_vec();
        stamp(&mut bytes, Offset::new(70), LeaderEpoch::new(4));
        bytes.extend_from_slice(b"what follows");

        let batch = RecordBatch::parse(&bytes, &LIMITS).unwrap();
        assert_eq!(batch.bytes().len(), bytes.len() - 12);
        assert_eq!(
            (batch.base_offset(), batch.last_offset()),
            (Offset::new(70), Offset::new(72))
        );
        assert_eq!(
            (batch.next_offset(), batch.leader_epoch()),
            (Offset::new(73), LeaderEpoch::new(4))
        );
        assert_eq!((batch.compression(), batch.record_count()), (compression, 3));
        assert_eq!(
            (batch.base_timestamp(), batch.max_timestamp()),
            (Timestamp::new(1000), Timestamp::new(1100))
        );
        assert_eq!(
            (batch.producer_id(), batch.producer_epoch()),
            (ProducerId::new(5), ProducerEpoch::new(2))
        );
        assert_eq!(
            (batch.base_sequence(), batch.last_sequence()),
            (Sequence::new(i32::MAX), Sequence::new(1))
        );
        assert_eq!(batch.check_from_client(), Ok(()));
        assert_eq!(batch.validate_records(1 << 20, false), Ok(()));

        let set = RecordSet::decode(&Bytes::copy_from_slice(batch.bytes()), 1 << 20).unwrap();
        let records: Vec<_> = set.iter().map(Result::unwrap).collect();
        let offsets: Vec<_> = records.iter().map(|record| record.offset.get()).collect();
        let timestamps: Vec<_> = records.iter().map(|record| record.timestamp.get()).collect();
        assert_eq!((offsets, timestamps), (vec![70, 71, 72], vec![1000, 900, 1100]));
        assert_eq!(
            (records[0].key, records[0].value),
            (Some(&b"key"[..]), Some(&b"value"[..]))
        );
        assert_eq!((records[1].key, records[1].value), (None, Some(&b""[..])));
        assert_eq!((records[2].key, records[2].value), (Some(&b""[..]), None));
        let headers: Vec<_> = records[0].headers.clone().collect();
        let expected = [
            HeaderRef {
                key: "h",
                value: Some(b"v"),
            },
            HeaderRef { key: "", value: None },
        ];
        assert_eq!(headers, expected);
        assert_eq!(set.slice(records[0].value.unwrap()), "value");
    }
}

#[test]
fn a_batch_that_is_cut_off_says_how_many_bytes_it_needs() {
    let bytes = three_records(Compression::None).freeze();
    for len in 0..bytes.len() {
        let need = if len < HEADER_LEN { HEADER_LEN } else { bytes.len() };
        let error = RecordBatch::parse(&bytes[..len], &LIMITS).unwrap_err();
        assert_eq!(error, BatchError::Truncated { need, have: len });
        assert_eq!(RecordSet::decode(&bytes.slice(..len), 0).unwrap_err(), error);
    }
}

#[test]
fn batches_that_follow_one_another_are_walked_until_the_first_wrong_one() {
    let one = three_records(Compression::None).freeze();
    let mut bytes = [&one[..], &one[..], &one[..]].concat();
    assert_eq!(Batches::new(&bytes, &LIMITS).flatten().count(), 3);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let walked: Vec<_> = Batches::new(&bytes, &LIMITS).map(|batch| batch.is_ok()).collect();
    assert_eq!(walked, [true, true, false]);
    bytes.truncate(one.len() + 5);
    let walked: Vec<_> = Batches::new(&bytes, &LIMITS).map(|batch| batch.is_ok()).collect();
    assert_eq!(walked, [true, false]);
}
