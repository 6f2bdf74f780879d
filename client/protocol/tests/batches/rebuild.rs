//! Batches with records taken out: what is left reads back as it was, by our reader and by the other implementation.

use bytes::Bytes;
use headwater_protocol::batch::{
    BatchLimits, Compression, HEADER_LEN, RecordBatch, RecordSet, TimestampType, emptied, rebuild, set_append_time,
    stamp,
};
use headwater_protocol::id::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use kafka_protocol::records as kafka;
use proptest::prelude::*;

use crate::model::{self, Record};

const LIMITS: BatchLimits = BatchLimits {
    batch_size_max: 1 << 30,
};
const DECOMPRESSED_SIZE_MAX: usize = 1 << 24;
const BASE_OFFSET: u64 = 1000;

fn stamped(compression: Compression, records: &[Record], append_time: Option<i64>) -> Bytes {
    let mut encoded = model::build(compression, records);
    encoded.set_producer(ProducerId::new(99), ProducerEpoch::new(3), Sequence::new(i32::MAX));
    let mut bytes = encoded.bytes().to_vec();
    stamp(&mut bytes, Offset::new(BASE_OFFSET), LeaderEpoch::new(4));
    if let Some(now) = append_time {
        set_append_time(&mut bytes, Timestamp::new(now));
    }
    bytes.into()
}

/// Records with bounded timestamps, because the other implementation adds without a check.
fn records() -> impl Strategy<Value = Vec<Record>> {
    model::records().prop_map(|mut records| {
        for record in &mut records {
            record.headers.sort();
            record.headers.dedup_by(|a, b| a.0 == b.0);
            record.timestamp = record.timestamp.min(i64::MAX / 2);
        }
        records
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_kept_stays_as_it_was_and_the_batch_takes_up_the_same_offsets(
        records in records(),
        kept in prop::collection::vec(any::<bool>(), 40),
        compression in prop::sample::select(&Compression::ALL[..]),
        append_time in prop::option::of(0..i64::MAX / 2),
        horizon in prop::option::of(0..i64::MAX / 2),
    ) {
        let bytes = stamped(compression, &records, append_time);
        let set = RecordSet::decode(&bytes, DECOMPRESSED_SIZE_MAX).unwrap();
        let index = |offset: Offset| (offset.get() - BASE_OFFSET) as usize;
        let horizon = horizon.map(Timestamp::new);
        let thinned = Bytes::from(rebuild(&set, horizon, |record| kept[index(record.offset)]).unwrap());

        let batch = RecordBatch::parse(&thinned, &LIMITS).unwrap();
        prop_assert_eq!(batch.bytes().len(), thinned.len());
        prop_assert_eq!(
            (batch.base_offset(), batch.next_offset(), batch.leader_epoch()),
            (Offset::new(BASE_OFFSET), Offset::new(BASE_OFFSET + records.len() as u64), LeaderEpoch::new(4))
        );
        prop_assert_eq!(
            (batch.producer_id(), batch.producer_epoch(), batch.base_sequence(), batch.last_sequence()),
            (set.header().producer_id(), set.header().producer_epoch(), set.header().base_sequence(), set.header().last_sequence())
        );
        prop_assert_eq!(batch.timestamp_type(), set.header().timestamp_type());
        let expected: Vec<_> = set.iter().map(Result::unwrap).filter(|record| kept[index(record.offset)]).collect();
        let again = RecordSet::open(&batch, &thinned, DECOMPRESSED_SIZE_MAX + (1 << 20)).unwrap();
        let again: Vec<_> = again.iter().map(Result::unwrap).map(|view| (view.offset, Record::of(&view))).collect();
        let wanted: Vec<_> = expected.iter().map(|view| (view.offset, Record::of(view))).collect();
        prop_assert_eq!(&again, &wanted);
        let is_empty = expected.is_empty();
        prop_assert_eq!(batch.delete_horizon(), horizon.filter(|_| !is_empty));
        prop_assert_eq!(batch.record_count() as usize, expected.len());
        if !is_empty && batch.timestamp_type() == TimestampType::CreateTime {
            prop_assert_eq!(Some(batch.max_timestamp()), expected.iter().map(|record| record.timestamp).max());
        } else {
            prop_assert_eq!(batch.max_timestamp(), set.header().max_timestamp());
        }

        let theirs = kafka::RecordBatchDecoder::decode(&mut thinned.clone()).unwrap().records;
        let theirs: Vec<_> = theirs.into_iter().map(|record| (record.offset, record.timestamp, record.key, record.value)).collect();
        let ours: Vec<_> = again
            .into_iter()
            .map(|(offset, record)| (offset.as_i64(), record.timestamp, record.key.map(Bytes::from), record.value.map(Bytes::from)))
            .collect();
        if append_time.is_none() {
            prop_assert_eq!(theirs, ours);
        }
    }
}

#[test]
fn an_emptied_batch_is_a_header_that_keeps_offsets_producer_and_time() {
    for compression in Compression::ALL {
        let record = Record {
            timestamp: 7,
            key: Some(b"k".to_vec()),
            value: None,
            headers: Vec::new(),
        };
        let bytes = stamped(compression, &[record.clone(), record], None);
        let set = RecordSet::decode(&bytes, DECOMPRESSED_SIZE_MAX).unwrap();
        let empty = Bytes::from(emptied(set.header()));
        assert_eq!(empty.len(), HEADER_LEN);
        let batch = RecordBatch::parse(&empty, &LIMITS).unwrap();
        assert_eq!((batch.record_count(), batch.offset_count()), (0, 2));
        assert_eq!(
            (batch.compression(), batch.base_timestamp(), batch.max_timestamp()),
            (Compression::None, Timestamp::NONE, Timestamp::new(7))
        );
        assert_eq!(batch.last_sequence(), Sequence::ZERO);
        assert_eq!(RecordSet::decode(&empty, 0).unwrap().iter().count(), 0);
        assert_eq!(rebuild(&set, Some(Timestamp::new(1)), |_| false).unwrap(), empty);
    }
}
