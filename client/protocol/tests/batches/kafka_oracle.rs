//! The crate `kafka-protocol`, generated from Kafka's own definitions and with other codecs underneath (liblz4), as a
//! second opinion: it reads what we write, and we read what it writes.

use bytes::{Bytes, BytesMut};
use headwater_protocol::batch::{
    BatchLimits, Compression, RecordBatch, RecordSet, TimestampType, set_append_time, stamp,
};
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as kafka;
use proptest::prelude::*;

use crate::model::{self, Record};

const DECOMPRESSED_SIZE_MAX: usize = 1 << 24;
const BASE_OFFSET: i64 = 1000;
const BASE_SEQUENCE: i32 = 17;

fn theirs(compression: Compression) -> kafka::Compression {
    match compression {
        Compression::None => kafka::Compression::None,
        Compression::Gzip => kafka::Compression::Gzip,
        Compression::Snappy => kafka::Compression::Snappy,
        Compression::Lz4 => kafka::Compression::Lz4,
        Compression::Zstd => kafka::Compression::Zstd,
    }
}

/// The record at `index` of a batch as Kafka's model has it, with the properties of its batch.
fn to_theirs(index: usize, record: &Record) -> kafka::Record {
    let bytes = |bytes: &Vec<u8>| Bytes::copy_from_slice(bytes);
    let header =
        |(key, value): &(String, Option<Vec<u8>>)| (StrBytes::from_string(key.clone()), value.as_ref().map(bytes));
    kafka::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 4,
        producer_id: 99,
        producer_epoch: 3,
        timestamp_type: kafka::TimestampType::Creation,
        offset: BASE_OFFSET + index as i64,
        sequence: BASE_SEQUENCE + index as i32,
        timestamp: record.timestamp,
        key: record.key.as_ref().map(bytes),
        value: record.value.as_ref().map(bytes),
        headers: record.headers.iter().map(header).collect(),
    }
}

/// Records whose header keys are distinct, as their model of a record is a map.
fn records() -> impl Strategy<Value = Vec<Record>> {
    model::records().prop_map(|mut records| {
        for record in &mut records {
            record.headers.sort();
            record.headers.dedup_by(|a, b| a.0 == b.0);
            // Their encoder subtracts without a check.
            record.timestamp = record.timestamp.min(i64::MAX / 2);
        }
        records
    })
}

fn ours(compression: Compression, records: &[Record]) -> Vec<u8> {
    let mut encoded = model::build(compression, records);
    encoded.set_producer(ProducerId::new(99), ProducerEpoch::new(3), Sequence::new(BASE_SEQUENCE));
    let mut bytes = encoded.bytes().to_vec();
    stamp(&mut bytes, Offset::new(BASE_OFFSET as u64), LeaderEpoch::new(4));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_other_implementation_reads_what_we_write(
        records in records(),
        compression in prop::sample::select(&Compression::ALL[..]),
    ) {
        let expected: Vec<_> = records.iter().enumerate().map(|(index, record)| to_theirs(index, record)).collect();
        let read = kafka::RecordBatchDecoder::decode(&mut Bytes::from(ours(compression, &records))).unwrap();
        prop_assert_eq!(read.compression, theirs(compression));
        prop_assert_eq!(read.records, expected);
    }

    #[test]
    fn we_read_what_the_other_implementation_writes(
        records in records(),
        compression in prop::sample::select(&Compression::ALL[..]),
    ) {
        let theirs_in: Vec<_> = records.iter().enumerate().map(|(index, record)| to_theirs(index, record)).collect();
        let mut bytes = BytesMut::new();
        let options = kafka::RecordEncodeOptions { version: 2, compression: theirs(compression) };
        kafka::RecordBatchEncoder::encode(&mut bytes, &theirs_in, &options).unwrap();
        let bytes = bytes.freeze();
        let batch = RecordBatch::parse(&bytes, &BatchLimits { batch_size_max: bytes.len() }).unwrap();
        prop_assert_eq!(batch.bytes().len(), bytes.len());
        prop_assert_eq!((batch.base_offset().as_i64(), batch.leader_epoch().get()), (BASE_OFFSET, 4));
        prop_assert_eq!((batch.producer_id().get(), batch.producer_epoch().get()), (99, 3));
        prop_assert_eq!((batch.base_sequence().get(), batch.compression()), (BASE_SEQUENCE, compression));
        prop_assert_eq!(batch.validate_records(DECOMPRESSED_SIZE_MAX, false), Ok(()));
        let set = RecordSet::open(&batch, &bytes, DECOMPRESSED_SIZE_MAX).unwrap();
        let read: Vec<_> = set.iter().map(|record| Record::of(&record.unwrap())).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn the_other_implementation_reads_our_append_time(records in records(), now in 0..i64::MAX / 2) {
        let mut bytes = ours(Compression::Lz4, &records);
        set_append_time(&mut bytes, Timestamp::new(now));
        let read = kafka::RecordBatchDecoder::decode(&mut Bytes::from(bytes.clone())).unwrap();
        let set = RecordSet::decode(&bytes.into(), DECOMPRESSED_SIZE_MAX).unwrap();
        prop_assert_eq!(set.header().timestamp_type(), TimestampType::LogAppendTime);
        prop_assert!(read.records.iter().all(|record| record.timestamp_type == kafka::TimestampType::LogAppend));
        prop_assert!(set.iter().all(|record| record.unwrap().timestamp == Timestamp::new(now)));
    }
}

#[test]
fn error_codes_have_kafkas_numbers_names_and_retriability() {
    for &code in ErrorCode::ALL {
        if code == ErrorCode::None {
            assert_eq!(code.as_i16(), 0);
            continue;
        }
        let kafka = ResponseError::try_from_code(code.as_i16()).unwrap();
        assert_eq!(format!("{kafka:?}"), format!("{code:?}"));
        assert_eq!(kafka.is_retriable(), code.is_retriable(), "{code}");
    }
}
