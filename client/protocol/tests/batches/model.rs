//! A record as plain data, and how to make any.

#![allow(dead_code)]

use headwater_protocol::batch::{BatchBuilder, Compression, EncodedBatch, HeaderRef, RecordView};
use headwater_protocol::id::Timestamp;
use proptest::prelude::*;

/// A record as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    pub fn of(view: &RecordView<'_>) -> Self {
        Self {
            timestamp: view.timestamp.get(),
            key: view.key.map(<[u8]>::to_vec),
            value: view.value.map(<[u8]>::to_vec),
            headers: view
                .headers
                .clone()
                .map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }
}

/// Builds a batch of the records.
pub fn build(compression: Compression, records: &[Record]) -> EncodedBatch {
    let mut builder = BatchBuilder::new(compression, 0);
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| HeaderRef {
                key,
                value: value.as_deref(),
            })
            .collect();
        let timestamp = Timestamp::new(record.timestamp);
        builder
            .append(timestamp, record.key.as_deref(), record.value.as_deref(), &headers)
            .unwrap();
    }
    builder.build()
}

/// Nothing, null, a few bytes, or enough to cross the codecs' blocks: of any bytes or of one.
fn field() -> impl Strategy<Value = Option<Vec<u8>>> {
    let any_bytes = prop::collection::vec(any::<u8>(), 0..200);
    let one_byte = (any::<u8>(), 0..100_000_usize).prop_map(|(byte, len)| vec![byte; len]);
    prop_oneof![1 => Just(None), 8 => any_bytes.prop_map(Some), 1 => one_byte.prop_map(Some)]
}

fn header_value() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..20))
}

/// Any record.
pub fn record() -> impl Strategy<Value = Record> {
    let timestamp = prop_oneof![4 => 1_700_000_000_000..1_700_000_100_000_i64, 1 => -1..=i64::MAX];
    let headers = prop::collection::vec((".{0,12}", header_value()), 0..4);
    (timestamp, field(), field(), headers).prop_map(|(timestamp, key, value, headers)| Record {
        timestamp,
        key,
        value,
        headers,
    })
}

/// One to forty records.
pub fn records() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(record(), 1..40)
}
