//! A record on its way out: borrowed from the caller, and encoded into a batch before `send` returns.

use std::borrow::Cow;

use headwater_protocol::batch::HeaderRef;
use headwater_protocol::id::{PartitionIndex, Timestamp};

use crate::trace::TraceParent;

/// A record to send. Borrows everything; nothing is kept after the call that takes it.
///
/// ```
/// use headwater_client::Record;
///
/// let order = String::from("{\"item\": 7}");
/// let record = Record::to("orders").key("customer-3").value(&order).header("source", b"web");
/// # let _ = record;
/// ```
#[derive(Debug, Clone)]
#[must_use = "a record goes nowhere until it is sent"]
pub struct Record<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<PartitionIndex>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) headers: Cow<'a, [HeaderRef<'a>]>,
}

impl<'a> Record<'a> {
    /// A record for this topic, so far without key and value (both null).
    pub fn to(topic: &'a str) -> Self {
        Self {
            topic,
            partition: None,
            key: None,
            value: None,
            timestamp: None,
            headers: Cow::Borrowed(&[]),
        }
    }

    /// The key. Unless there is an explicit partition, the default partitioner puts equal keys into one partition.
    pub fn key<T: AsRef<[u8]> + ?Sized>(mut self, key: &'a T) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// The value.
    pub fn value<T: AsRef<[u8]> + ?Sized>(mut self, value: &'a T) -> Self {
        self.value = Some(value.as_ref());
        self
    }

    /// Adds a header. Several may have the same name.
    pub fn header<T: AsRef<[u8]> + ?Sized>(mut self, name: &'a str, value: &'a T) -> Self {
        self.headers.to_mut().push(HeaderRef {
            key: name,
            value: Some(value.as_ref()),
        });
        self
    }

    /// Adds the trace that it belongs to, as the header `traceparent`. Give it the span that sends the record.
    pub fn trace(self, parent: &'a TraceParent) -> Self {
        self.header(TraceParent::HEADER, parent)
    }

    /// Sets all headers at once, without an allocation. Replaces those added before.
    pub fn headers(mut self, headers: &'a [HeaderRef<'a>]) -> Self {
        self.headers = Cow::Borrowed(headers);
        self
    }

    /// The time of the event; without it, the time of the call that sends the record.
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// The partition, whatever the partitioner would choose.
    pub fn partition(mut self, partition: PartitionIndex) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The key, for a [`Partitioner`](crate::Partitioner) to look at; `None` is null.
    pub fn key_bytes(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The value, for a [`Partitioner`](crate::Partitioner) to look at; `None` is null.
    pub fn value_bytes(&self) -> Option<&'a [u8]> {
        self.value
    }
}
