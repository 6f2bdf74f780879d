//! Properties of any batch.

use bytes::Bytes;
use headwater_protocol::batch::{
    BatchBuilder, BatchError, BatchLimits, Batches, Compression, HEADER_LEN, HeaderRef, RecordBatch, RecordSet,
    TimestampType, set_append_time, stamp,
};
use headwater_protocol::id::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use proptest::prelude::*;

use crate::model::{self, Record};

const LIMITS: BatchLimits = BatchLimits {
    batch_size_max: 1 << 30,
};
const DECOMPRESSED_SIZE_MAX: usize = 1 << 24;

fn compression() -> impl Strategy<Value = Compression> {
    prop::sample::select(&Compression::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_was_appended_is_what_is_read(
        records in model::records(),
        compression in compression(),
        base_offset in 0..i64::MAX as u64 - 100,
    ) {
        let encoded = model::build(compression, &records);
        prop_assert_eq!(encoded.record_count() as usize, records.len());
        prop_assert_eq!(encoded.first_timestamp().get(), records[0].timestamp);
        prop_assert_eq!(Some(encoded.max_timestamp().get()), records.iter().map(|record| record.timestamp).max());
        let mut bytes = encoded.bytes().to_vec();
        stamp(&mut bytes, Offset::new(base_offset), LeaderEpoch::new(9));
        let bytes = Bytes::from(bytes);
        let batch = RecordBatch::parse(&bytes, &LIMITS).unwrap();
        prop_assert_eq!(batch.validate_records(DECOMPRESSED_SIZE_MAX, false), Ok(()));
        let set = RecordSet::open(&batch, &bytes, DECOMPRESSED_SIZE_MAX).unwrap();
        let views: Vec<_> = set.iter().map(Result::unwrap).collect();
        let read: Vec<_> = views.iter().map(Record::of).collect();
        prop_assert_eq!(&read, &records);
        for (index, view) in (0..).zip(&views) {
            prop_assert_eq!(view.offset, Offset::new(base_offset) + index);
        }
        let all_have_keys = records.iter().all(|record| record.key.is_some());
        prop_assert_eq!(batch.validate_records(DECOMPRESSED_SIZE_MAX, true).is_ok(), all_have_keys);
    }

    #[test]
    fn the_length_of_a_batch_in_the_making_is_its_length(records in model::records()) {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        prop_assert_eq!((builder.len(), builder.is_empty()), (HEADER_LEN, true));
        for (index, record) in (0..).zip(&records) {
            let headers: Vec<_> =
                record.headers.iter().map(|(key, value)| HeaderRef { key, value: value.as_deref() }).collect();
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let before = builder.len();
            prop_assert_eq!(builder.append(Timestamp::new(record.timestamp), key, value, &headers), Ok(index));
            prop_assert!(builder.len() - before <= BatchBuilder::record_size_max(key, value, &headers));
        }
        let len = builder.len();
        prop_assert_eq!(builder.record_count() as usize, records.len());
        prop_assert_eq!(builder.build().bytes().len(), len);
    }

    #[test]
    fn a_flipped_bit_is_refused_wherever_the_checksum_reaches(
        records in prop::collection::vec(model::record(), 1..4),
        compression in compression(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let mut bytes = model::build(compression, &records).bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let parsed = RecordBatch::parse(&bytes, &LIMITS);
        match at {
            // The base offset and the leader epoch, which the log writes.
            0..8 => prop_assert_eq!(parsed.is_err(), bytes[0] >= 0x80),
            12..16 => prop_assert!(parsed.is_ok()),
            _ => prop_assert!(parsed.is_err()),
        }
    }

    #[test]
    fn naming_the_producer_before_or_after_the_batch_is_built_is_the_same(
        records in prop::collection::vec(model::record(), 1..4),
        (id, epoch, sequence) in (0..i64::MAX, 0..i16::MAX, 0..i32::MAX),
    ) {
        let (id, epoch, sequence) = (ProducerId::new(id), ProducerEpoch::new(epoch), Sequence::new(sequence));
        let mut after = model::build(Compression::None, &records);
        after.set_producer(id, epoch, sequence);
        let batch = RecordBatch::parse(after.bytes(), &LIMITS).unwrap();
        prop_assert_eq!((batch.producer_id(), batch.producer_epoch()), (id, epoch));
        prop_assert_eq!((batch.base_sequence(), batch.check_from_client()), (sequence, Ok(())));
        prop_assert_eq!(batch.last_sequence(), sequence.plus(records.len() as u32 - 1));

        let mut builder = BatchBuilder::new(Compression::None, 0);
        builder.set_producer(id, epoch, sequence);
        builder.append(Timestamp::new(1), None, None, &[]).unwrap();
        let mut unnamed = BatchBuilder::new(Compression::None, 0);
        unnamed.append(Timestamp::new(1), None, None, &[]).unwrap();
        let mut unnamed = unnamed.build();
        unnamed.set_producer(id, epoch, sequence);
        prop_assert_eq!(builder.build(), unnamed);
    }

    #[test]
    fn append_time_replaces_the_timestamp_of_every_record(
        records in model::records(),
        compression in compression(),
        now in 0..i64::MAX,
    ) {
        let mut bytes = model::build(compression, &records).bytes().to_vec();
        set_append_time(&mut bytes, Timestamp::new(now));
        let bytes = Bytes::from(bytes);
        let batch = RecordBatch::parse(&bytes, &LIMITS).unwrap();
        prop_assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
        prop_assert_eq!((batch.max_timestamp().get(), batch.compression()), (now, compression));
        prop_assert_eq!(batch.check_from_client(), Err(BatchError::AppendTimeFromClient));
        let set = RecordSet::open(&batch, &bytes, DECOMPRESSED_SIZE_MAX).unwrap();
        for (record, written) in set.iter().zip(&records) {
            let record = Record::of(&record.unwrap());
            prop_assert_eq!(record, Record { timestamp: now, ..written.clone() });
        }
    }

    #[test]
    fn concatenated_batches_are_walked_one_by_one(
        batches in prop::collection::vec((prop::collection::vec(model::record(), 1..4), compression()), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let encoded: Vec<_> =
            batches.iter().map(|(records, compression)| model::build(*compression, records).freeze()).collect();
        let bytes = encoded.concat();
        let walked: Vec<_> = Batches::new(&bytes, &LIMITS).map(|batch| batch.unwrap().bytes().to_vec()).collect();
        prop_assert_eq!(&walked, &encoded);
        if !bytes.is_empty() {
            let cut = cut.index(bytes.len());
            let ends: Vec<_> = encoded.iter().scan(0, |end, batch| { *end += batch.len(); Some(*end) }).collect();
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            let walked: Vec<_> = Batches::new(&bytes[..cut], &LIMITS).collect();
            let ends_within = cut != 0 && !ends.contains(&cut);
            prop_assert_eq!(walked.iter().filter(|batch| batch.is_ok()).count(), whole);
            prop_assert_eq!(walked.len(), whole + usize::from(ends_within));
        }
    }
}
