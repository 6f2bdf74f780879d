//! Configuration of consumers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::id::{Offset, PartitionIndex, Timestamp};

use super::fetcher::FetchSettings;
use super::state::{Assignment, Shared};
use super::{Consumer, start_offset};
use crate::admin::OffsetSpec;
use crate::cluster::{Cluster, leader};
use crate::error::{Error, topic_name};

/// Bytes in the name of a rack.
const RACK_LEN_MAX: usize = 255;

/// Where to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// From the first record that is still there.
    Earliest,
    /// From the next record that will become visible.
    #[default]
    Latest,
    /// From the first record with a timestamp at or after this one; as `Latest` if there is none.
    Timestamp(Timestamp),
    /// From this record.
    Offset(Offset),
}

impl From<Offset> for Start {
    fn from(offset: Offset) -> Self {
        Self::Offset(offset)
    }
}

/// What to do when the position is no longer, or not yet, in the log; also when the topic was created anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetReset {
    /// Go on with the first record that is there.
    #[default]
    Earliest,
    /// Go on with the next record that will become visible.
    Latest,
    /// Fail with [`Error::OffsetOutOfRange`], and read the partition no further until a seek.
    Error,
}

/// Whether a consumer sees records of transactions that are not committed. The markers that end transactions it never sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// All records, of open and of aborted transactions too.
    #[default]
    ReadUncommitted,
    /// Of transactions only what was committed. It reads no further than to the first record of the oldest transaction that has not
    /// ended (the last stable offset).
    ReadCommitted,
}

impl Isolation {
    pub(crate) fn wire(self) -> u8 {
        u8::from(self == Self::ReadCommitted)
    }
}

impl OffsetReset {
    /// The offset to look up; not asked for under [`OffsetReset::Error`].
    pub(super) fn spec(self) -> OffsetSpec {
        match self {
            Self::Latest => OffsetSpec::Latest,
            Self::Earliest | Self::Error => OffsetSpec::Earliest,
        }
    }
}

/// Configures a [`Consumer`]; from [`Client::consumer`](crate::Client::consumer).
///
/// ```no_run
/// # async fn example(client: headwater_client::Client) -> Result<(), headwater_client::Error> {
/// use headwater_client::{PartitionIndex, Start};
///
/// let all_of_two = client.consumer().topics(["orders", "payments"]).start(Start::Earliest).build().await?;
/// let one_partition = client.consumer().assign("orders", [PartitionIndex::new(3)]).build().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct ConsumerBuilder {
    cluster: Arc<Cluster>,
    /// `None`: all partitions.
    topics: BTreeMap<String, Option<Vec<PartitionIndex>>>,
    start: Start,
    /// Of partitions that begin elsewhere.
    starts: BTreeMap<(String, PartitionIndex), Start>,
    /// Apart, as the futures that hold a builder are large already.
    settings: Box<FetchSettings>,
}

impl ConsumerBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        let client = &cluster.settings;
        let settings = FetchSettings {
            unknown_patience: client.metadata_timeout,
            failing_patience: client.call_timeout,
            preferred_max: client.metadata_age_max,
            ..client.defaults.fetch.clone()
        };
        let start = client.defaults.start;
        Self {
            cluster,
            topics: BTreeMap::new(),
            start,
            starts: BTreeMap::new(),
            settings: Box::new(settings),
        }
    }

    /// Reads all partitions of these topics, those that are added later included: they are found when the client's metadata
    /// reach their age limit ([`ClientBuilder::metadata_age_max`](crate::ClientBuilder::metadata_age_max)), and read from their
    /// first record, whatever the start.
    pub fn topics<S: Into<String>>(mut self, topics: impl IntoIterator<Item = S>) -> Self {
        self.topics.extend(topics.into_iter().map(|topic| (topic.into(), None)));
        self
    }

    /// Reads these partitions of a topic.
    pub fn assign(mut self, topic: impl Into<String>, partitions: impl IntoIterator<Item = PartitionIndex>) -> Self {
        let list = self.topics.entry(topic.into()).or_insert_with(|| Some(Vec::new()));
        if let Some(list) = list {
            list.extend(partitions);
            list.sort_unstable();
            list.dedup();
        }
        self
    }

    /// Where to begin in every partition. Default [`Start::Latest`]: every record that becomes visible after `build`
    /// has returned is received.
    pub fn start(mut self, start: impl Into<Start>) -> Self {
        self.start = start.into();
        self
    }

    /// Where to begin in one partition, in place of what [`ConsumerBuilder::start`] says.
    pub fn start_of(mut self, topic: impl Into<String>, partition: PartitionIndex, start: impl Into<Start>) -> Self {
        self.starts.insert((topic.into(), partition), start.into());
        self
    }

    /// What to do when a position is out of range. Default [`OffsetReset::Earliest`], which skips nothing.
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.settings.reset = reset;
        self
    }

    /// Whether records of transactions are seen before these are committed. Default [`Isolation::ReadUncommitted`], as in Java; librdkafka
    /// and clients made of it have the other.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.settings.isolation = isolation;
        self
    }

    /// Bytes of records in one response, over all partitions. One batch is always returned, however large. Default
    /// 8 MiB.
    pub fn fetch_bytes_max(mut self, bytes: u32) -> Self {
        self.settings.fetch_bytes_max = bytes;
        self
    }

    /// Bytes of records of one partition in one response. While fewer than that wait to be received, more are fetched.
    /// Default 1 MiB.
    pub fn partition_bytes_max(mut self, bytes: u32) -> Self {
        self.settings.partition_bytes_max = bytes;
        self
    }

    /// Bytes for which the broker waits before it answers, up to [`ConsumerBuilder::wait_max`]. Default 1.
    pub fn fetch_bytes_min(mut self, bytes: u32) -> Self {
        self.settings.fetch_bytes_min = bytes;
        self
    }

    /// How long the broker may wait for records. Default 500 ms.
    pub fn wait_max(mut self, wait: Duration) -> Self {
        self.settings.wait_max = wait;
        self
    }

    /// Bytes that may be fetched ahead over all partitions. A response is held whole until its last record has been
    /// dropped. Default 32 MiB.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.settings.prefetch_bytes = bytes;
        self
    }

    /// Whether to verify the checksum of every batch. Default yes; it costs a few percent. Without it damage may go unnoticed, as
    /// other records or as records that are missing.
    pub fn check_crcs(mut self, check: bool) -> Self {
        self.settings.check_crcs = check;
        self
    }

    /// Bytes that the records of one compressed batch may take when decompressed. Default 64 MiB.
    pub fn decompressed_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.decompressed_bytes_max = bytes;
        self
    }

    /// Where the consumer is, as brokers say it of themselves (`broker.rack`): it reads from in-sync replicas there, where there are
    /// any, and from leaders otherwise (KIP-392). Which that is the leader is asked again whenever metadata reach their age limit. A
    /// follower has a record a moment later than the leader. Default none: from leaders.
    pub fn rack(mut self, rack: impl Into<Arc<str>>) -> Self {
        self.settings.rack = Some(rack.into()).filter(|rack| !rack.is_empty());
        self
    }

    /// Finds the partitions and their start offsets, and begins to fetch.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting out of range or if there is nothing to read, [`Error::UnknownTopic`] after the
    /// client's metadata timeout, [`Error::UnknownPartition`], [`Error::Timeout`].
    pub async fn build(self) -> Result<Consumer, Error> {
        self.check()?;
        let deadline = self.cluster.deadline("start a consumer");
        let mut assignments = Vec::new();
        let mut subscribed = Vec::new();
        for (topic, partitions) in &self.topics {
            let name = topic_name(topic)?;
            // What is known may be older than partitions that are to begin at this start.
            let image = deadline.run(self.cluster.fresh_topic(&name)).await?;
            let all = || (0..image.partitions.len() as i32).map(PartitionIndex::new).collect();
            if partitions.is_none() {
                subscribed.push(name.clone());
            }
            for partition in partitions.clone().unwrap_or_else(all) {
                if let Err(error @ Error::UnknownPartition { .. }) = leader(&image, &name, partition) {
                    return Err(error);
                }
                assignments.push((name.clone(), partition, image.id));
            }
        }
        let starts = assignments.into_iter().map(async |(topic, partition, topic_id)| {
            let own = self.starts.get(&(topic.to_string(), partition));
            let start = own.copied().unwrap_or(self.start);
            let isolation = self.settings.isolation;
            let offset = start_offset(&self.cluster, deadline, &topic, partition, start, isolation).await?;
            Ok(Assignment {
                topic,
                partition,
                topic_id,
                offset,
            })
        });
        let assignments = futures::future::try_join_all(starts).await?;
        let settings = Arc::from(self.settings);
        let shared = Arc::new(Shared::new(
            assignments,
            subscribed,
            Arc::clone(&settings),
            self.cluster.settings.backoff,
        ));
        Ok(Consumer::start(self.cluster, shared, settings))
    }

    fn check(&self) -> Result<(), Error> {
        if self
            .topics
            .values()
            .all(|partitions| partitions.as_ref().is_some_and(Vec::is_empty))
        {
            return Err(Error::config(
                "topics",
                "there is nothing to read: name a topic, or assign partitions",
            ));
        }
        self.check_fetching()
    }

    /// How this consumer would fetch.
    pub(super) fn fetch_settings(&self) -> Result<Arc<FetchSettings>, Error> {
        self.check_fetching()?;
        Ok(Arc::from(self.settings.clone()))
    }

    fn check_fetching(&self) -> Result<(), Error> {
        let settings = &self.settings;
        if settings.partition_bytes_max == 0 || settings.fetch_bytes_max == 0 {
            return Err(Error::config(
                "fetch_bytes_max",
                "and partition_bytes_max must be larger than zero",
            ));
        }
        // A response has to fit into a frame, with room for its head and for one batch that is larger than asked for.
        let frame_size_max = self.cluster.settings.connection.frame_size_max;
        if settings.fetch_bytes_max > frame_size_max / 2 {
            let reason = format!("must be at most half of the client's frame_size_max, {frame_size_max}");
            return Err(Error::config("fetch_bytes_max", reason));
        }
        if settings.prefetch_bytes < settings.partition_bytes_max as usize {
            return Err(Error::config("prefetch_bytes", "must be at least partition_bytes_max"));
        }
        if settings.fetch_bytes_min > settings.fetch_bytes_max.min(settings.partition_bytes_max) {
            return Err(Error::config(
                "fetch_bytes_min",
                "must not be above fetch_bytes_max or partition_bytes_max",
            ));
        }
        if settings.rack.as_ref().is_some_and(|rack| rack.len() > RACK_LEN_MAX) {
            return Err(Error::config("rack", format!("must be at most {RACK_LEN_MAX} bytes")));
        }
        if settings.wait_max > Duration::from_mins(5) {
            return Err(Error::config("wait_max", "must be at most 5 min"));
        }
        Ok(())
    }
}

impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}
