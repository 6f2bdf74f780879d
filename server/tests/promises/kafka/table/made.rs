//! Batches made byte by byte, as no client of ours would make them.

use std::time::{SystemTime, UNIX_EPOCH};

use headwater_protocol::{
    batch::{BatchBuilder, Compression, set_max_timestamp},
    id::Timestamp,
};

pub const HOUR_MS: i64 = 3_600_000;

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// One record.
#[derive(Clone)]
pub struct Record {
    pub attributes: u8,
    pub time: i64,
    pub delta: i64,
    pub key: Option<&'static [u8]>,
    /// Count and headers, as they stand there.
    pub headers: Vec<u8>,
}

impl Record {
    pub fn numbered(delta: i64) -> Record {
        Record {
            attributes: 0,
            time: 0,
            delta,
            key: None,
            headers: vec![0],
        }
    }

    pub fn at(delta: i64, time: i64) -> Record {
        Record {
            time,
            ..Record::numbered(delta)
        }
    }

    pub fn with_headers(headers: &[u8]) -> Record {
        Record {
            headers: headers.to_vec(),
            ..Record::numbered(0)
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let mut body = vec![self.attributes];
        varint(&mut body, self.time);
        varint(&mut body, self.delta);
        match self.key {
            None => varint(&mut body, -1),
            Some(key) => {
                varint(&mut body, key.len() as i64);
                body.extend_from_slice(key);
            }
        }
        varint(&mut body, 1);
        body.push(b'v');
        body.extend_from_slice(&self.headers);
        varint(out, body.len() as i64);
        out.extend_from_slice(&body);
    }
}

fn varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A batch, as it says of itself.
pub struct Batch {
    pub base_offset: i64,
    pub magic: u8,
    pub attributes: i16,
    pub last_delta: i32,
    pub base_time: i64,
    pub max_time: i64,
    pub producer: (i64, i16, i32),
    pub count: i32,
    pub records: Vec<u8>,
}

impl Batch {
    /// Of these records, from the time on; right in all.
    pub fn of(base_time: i64, records: &[Record]) -> Batch {
        let mut bytes = Vec::new();
        for record in records {
            record.put(&mut bytes);
        }
        let latest = records.iter().map(|record| record.time).max().unwrap_or(0);
        Batch {
            base_offset: 0,
            magic: 2,
            attributes: 0,
            last_delta: records.len() as i32 - 1,
            base_time,
            max_time: base_time + latest,
            producer: (-1, -1, -1),
            count: records.len() as i32,
            records: bytes,
        }
    }

    /// So many plain records of now.
    pub fn plain(count: i64) -> Batch {
        let records: Vec<Record> = (0..count).map(Record::numbered).collect();
        Batch::of(now_ms(), &records)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.base_offset.to_be_bytes());
        bytes.extend((49 + self.records.len() as i32).to_be_bytes());
        bytes.extend(9_i32.to_be_bytes());
        bytes.push(self.magic);
        bytes.extend([0; 4]);
        bytes.extend(self.attributes.to_be_bytes());
        bytes.extend(self.last_delta.to_be_bytes());
        bytes.extend(self.base_time.to_be_bytes());
        bytes.extend(self.max_time.to_be_bytes());
        bytes.extend(self.producer.0.to_be_bytes());
        bytes.extend(self.producer.1.to_be_bytes());
        bytes.extend(self.producer.2.to_be_bytes());
        bytes.extend(self.count.to_be_bytes());
        bytes.extend(&self.records);
        // With the checksum that it has.
        set_max_timestamp(&mut bytes, Timestamp::new(self.max_time));
        bytes
    }
}

/// From an idempotent producer: so many records from a sequence number on.
pub fn numbered(producer: (i64, i16), sequence: i32, count: i64) -> Vec<u8> {
    Batch {
        producer: (producer.0, producer.1, sequence),
        ..Batch::plain(count)
    }
    .bytes()
}

/// As a client compresses it.
pub fn compressed(compression: Compression, keys: &[Option<&[u8]>]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression, 0);
    for key in keys {
        builder.append(Timestamp::now(), *key, Some(&[7; 300]), &[]).unwrap();
    }
    builder.build().bytes().to_vec()
}

/// With a checksum that is right again after a change.
pub fn changed(mut batch: Vec<u8>, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut batch);
    let max = i64::from_be_bytes(batch[35..43].try_into().unwrap());
    set_max_timestamp(&mut batch, Timestamp::new(max));
    batch
}
