//! What a consumer hands out: the records of a batch to walk over, or single records that own their bytes.
//!
//! Neither copies a key or a value: both are slices of the response that they came in, and keep it in memory.

use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::batch::{BatchError, HeaderIter, RecordCursor, RecordIter, RecordSet, RecordView};
use headwater_protocol::id::{Offset, PartitionIndex, Timestamp};
use headwater_protocol::topic::TopicName;

use crate::{error::Error, trace::TraceParent};

/// The records of one batch, from [`Consumer::recv_batch`](crate::Consumer::recv_batch). Cheap to clone.
///
/// ```no_run
/// # async fn example(consumer: &mut headwater_client::Consumer) -> Result<(), headwater_client::Error> {
/// let records = consumer.recv_batch().await?;
/// for record in &records {
///     let record = record?;
///     println!("{}: {} bytes", record.offset, record.value.map_or(0, <[u8]>::len));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Records {
    topic: TopicName,
    partition: PartitionIndex,
    /// Records before this one were not asked for.
    from: Offset,
    set: RecordSet,
    cursor: RecordCursor,
    /// Records that the cursor has passed.
    passed: u32,
}

impl Records {
    pub(super) fn new(topic: TopicName, partition: PartitionIndex, from: Offset, set: RecordSet) -> Self {
        Self {
            topic,
            partition,
            from,
            set,
            cursor: RecordCursor::default(),
            passed: 0,
        }
    }

    /// The topic.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The partition.
    pub fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// The offset of the first record, or a later one if the records before were not asked for.
    pub fn first_offset(&self) -> Offset {
        self.from.max(self.set.header().base_offset())
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.set.header().next_offset()
    }

    /// The records, in order and borrowed from the batch: nothing is allocated for each. Those that were taken with
    /// [`Consumer::recv`](crate::Consumer::recv) before are left out.
    ///
    /// # Errors
    /// An item is [`Error::CorruptBatch`] if a record is malformed, which ends the iteration.
    pub fn iter(&self) -> RecordsIter<'_> {
        RecordsIter {
            records: self,
            inner: self.set.iter(),
        }
    }

    /// Shares the bytes of a key or a value without a copy.
    ///
    /// # Panics
    /// When the slice is not part of these records.
    pub fn slice(&self, part: &[u8]) -> Bytes {
        self.set.slice(part)
    }

    /// The next record for `recv`.
    pub(super) fn next_owned(&mut self) -> Option<Result<ConsumerRecord, Error>> {
        loop {
            let view = self.set.next_record(&mut self.cursor)?;
            self.passed += 1;
            let view = match view {
                Ok(view) if view.offset < self.from => continue,
                Ok(view) => view,
                Err(source) => return Some(Err(corrupt(&self.topic, self.partition, self.from, source))),
            };
            // Behind the last record there may be offsets without one, which nobody has to wait for.
            self.from = if self.passed == self.set.header().record_count() {
                self.next_offset()
            } else {
                view.offset.next()
            };
            return Some(Ok(ConsumerRecord::new(self, &view)));
        }
    }

    /// The offset from which [`Records::next_owned`] goes on.
    pub(super) fn position(&self) -> Offset {
        self.first_offset()
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordView<'a>, Error>;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.iter()
    }
}

/// Iterates over [`Records`].
#[derive(Debug, Clone)]
pub struct RecordsIter<'a> {
    records: &'a Records,
    inner: RecordIter<'a>,
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = Result<RecordView<'a>, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            return Some(match self.inner.next()? {
                Ok(view) if view.offset < self.records.from => continue,
                Ok(view) => Ok(view),
                Err(source) => Err(corrupt(
                    &self.records.topic,
                    self.records.partition,
                    self.records.from,
                    source,
                )),
            });
        }
    }
}

/// How many offsets of a batch, from `position` on, hold no record.
pub(super) fn missing(set: &RecordSet, position: Offset) -> u64 {
    let header = set.header();
    if header.record_count() == header.offset_count() {
        return 0;
    }
    let is_wanted = |record: &Result<RecordView<'_>, BatchError>| {
        let offset = record.as_ref().map(|record| record.offset);
        offset.is_ok_and(|offset| offset >= position)
    };
    let offsets = header.next_offset().distance_from(position.max(header.base_offset()));
    let records = set.iter().filter(is_wanted).count() as u64;
    offsets.unwrap_or(0).saturating_sub(records)
}

pub(super) fn corrupt(topic: &TopicName, partition: PartitionIndex, offset: Offset, source: BatchError) -> Error {
    Error::CorruptBatch {
        topic: topic.clone(),
        partition,
        offset,
        source: Arc::new(source),
    }
}

/// One record. Its bytes are slices of the response that it came in, which stays in memory as long as the record does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerRecord {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// The record's number in the partition.
    pub offset: Offset,
    /// The producer's time, or the broker's if the topic stamps records.
    pub timestamp: Timestamp,
    /// The key; `None` is null.
    pub key: Option<Bytes>,
    /// The value; `None` is null.
    pub value: Option<Bytes>,
    /// The headers in order.
    pub headers: Vec<Header>,
}

/// A header of a [`ConsumerRecord`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// The name; several headers may have the same.
    pub name: String,
    /// The value; `None` is null.
    pub value: Option<Bytes>,
}

impl ConsumerRecord {
    /// The span that has sent it, if its producer said so in the header `traceparent`; of several the last.
    pub fn trace(&self) -> Option<TraceParent> {
        let mut headers = self.headers.iter().rev();
        let header = headers.find(|header| header.name == TraceParent::HEADER)?;
        TraceParent::parse(header.value.as_deref()?)
    }

    fn new(records: &Records, view: &RecordView<'_>) -> Self {
        let own = |bytes: Option<&[u8]>| bytes.map(|bytes| records.set.slice(bytes));
        let headers = |headers: HeaderIter<'_>| {
            headers
                .map(|header| Header {
                    name: header.key.to_owned(),
                    value: own(header.value),
                })
                .collect()
        };
        Self {
            topic: records.topic.clone(),
            partition: records.partition,
            offset: view.offset,
            timestamp: view.timestamp,
            key: own(view.key),
            value: own(view.value),
            headers: headers(view.headers.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::batch::{BatchBuilder, Compression, HeaderRef, stamp};
    use headwater_protocol::id::LeaderEpoch;

    use super::*;

    fn records(from: u64, compression: Compression) -> Records {
        let mut builder = BatchBuilder::new(compression, 0);
        let headers = [
            HeaderRef {
                key: "h",
                value: Some(b"x"),
            },
            HeaderRef {
                key: "null",
                value: None,
            },
        ];
        for i in 0..4_i64 {
            builder
                .append(
                    Timestamp::new(i),
                    Some(b"k"),
                    Some(format!("v{i}").as_bytes()),
                    &headers,
                )
                .unwrap();
        }
        let mut bytes = builder.build().bytes().to_vec();
        stamp(&mut bytes, Offset::new(10), LeaderEpoch::new(0));
        let set = RecordSet::decode(&Bytes::from(bytes), 1 << 20).unwrap();
        Records::new(
            TopicName::new("t").unwrap(),
            PartitionIndex::new(1),
            Offset::new(from),
            set,
        )
    }

    #[test]
    fn records_before_the_offset_asked_for_are_left_out() {
        for compression in [Compression::None, Compression::Zstd] {
            let records = records(12, compression);
            let offsets: Vec<u64> = records.iter().map(|record| record.unwrap().offset.get()).collect();
            assert_eq!(offsets, [12, 13]);
            assert_eq!(
                (records.first_offset(), records.next_offset()),
                (Offset::new(12), Offset::new(14))
            );
        }
    }

    #[test]
    fn owned_records_equal_their_views_and_share_the_bytes_of_the_batch() {
        let mut records = records(10, Compression::None);
        let first = records.next_owned().unwrap().unwrap();
        assert_eq!((first.offset, first.timestamp), (Offset::new(10), Timestamp::new(0)));
        assert_eq!(
            (first.key.as_deref(), first.value.as_deref()),
            (Some(&b"k"[..]), Some(&b"v0"[..]))
        );
        assert_eq!(first.headers.len(), 2);
        assert_eq!(
            (first.headers[0].name.as_str(), first.headers[0].value.as_deref()),
            ("h", Some(&b"x"[..]))
        );
        assert_eq!(first.headers[1].value, None);
        let view = records.set.iter().next().unwrap().unwrap();
        assert_eq!(first.value.unwrap().as_ptr(), view.value.unwrap().as_ptr());
        // What was taken one by one is not handed out again with the rest of the batch.
        assert_eq!(records.iter().count(), 3);
        assert_eq!(records.position(), Offset::new(11));
        assert_eq!(std::iter::from_fn(|| records.next_owned()).count(), 3);
    }

    #[test]
    fn a_record_tells_the_trace_that_its_producer_gave_it() {
        let parent = TraceParent::new(1, 2, true).unwrap();
        let sent = crate::Record::to("t")
            .header(TraceParent::HEADER, "of somebody who cannot count")
            .trace(&parent);
        let mut record = records(10, Compression::None).next_owned().unwrap().unwrap();
        assert_eq!(record.trace(), None);
        let headers = sent.headers.iter().map(|header| Header {
            name: header.key.to_owned(),
            value: header.value.map(Bytes::copy_from_slice),
        });
        record.headers = headers.collect();
        assert_eq!(record.trace(), Some(parent));
    }
}
