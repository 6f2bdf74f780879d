//! Consumers: records out, of one or many partitions.
//!
//! ```text
//! Connection -> Fetcher (one task) -> State (prefetched batches by partition) -> recv_batch -> Records
//!                                                                            '-> recv -> ConsumerRecord
//! ```
//!
//! Checksums and decompression are the business of whoever receives: their result is then warm in that core's cache.

mod advance;
mod builder;
mod fetcher;
mod group;
mod positions;
mod records;
mod state;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt};
use headwater_protocol::batch::RecordSet;
use headwater_protocol::id::{Offset, PartitionIndex};
use headwater_protocol::topic::TopicName;

use crate::admin::{self, OffsetSpec};
use crate::cluster::Cluster;
use crate::deadline::Deadline;
use crate::error::{Error, topic_name};
use crate::runtime::{self, Task, timeout};

use fetcher::Fetcher;
use state::{Shared, Taken};

pub(crate) use fetcher::FetchSettings;
pub(crate) use group::GroupDefaults;

pub use advance::{Advance, Skip, SkipCause, Skipped};
pub use builder::{ConsumerBuilder, Isolation, OffsetReset, Start};
pub use group::{Assignor, GroupConsumer, GroupConsumerBuilder, RebalanceListener};
pub use positions::{Hold, PartitionPosition};
pub use records::{ConsumerRecord, Header, Records, RecordsIter};

/// Receives records; from [`Client::consumer`](crate::Client::consumer).
///
/// ```no_run
/// # async fn example(client: headwater_client::Client) -> Result<(), headwater_client::Error> {
/// use headwater_client::Start;
///
/// let mut consumer = client.consumer().topics(["orders"]).start(Start::Earliest).build().await?;
/// loop {
///     let record = consumer.recv().await?;
///     println!("{} @ {}: {:?}", record.partition, record.offset, record.value);
/// }
/// # }
/// ```
///
/// Records of one partition come in their order; partitions take turns, a batch each. Receiving waits without limit
/// while the brokers answer and there is nothing new. While they do not answer it fails: each time that the client's
/// call timeout has passed with failures only, or its metadata timeout for a topic that does not exist. The consumer
/// keeps trying and may be used on.
pub struct Consumer {
    cluster: Arc<Cluster>,
    shared: Arc<Shared>,
    settings: Arc<FetchSettings>,
    /// The batch that `recv` takes records from, and its partition.
    current: Option<(usize, Records)>,
    fetcher: Task,
}

/// What was taken from the fetcher, opened; records with their partition's place.
enum Opened {
    Records(usize, Records),
    Skip(Skip),
    Nothing,
}

impl Consumer {
    fn start(cluster: Arc<Cluster>, shared: Arc<Shared>, settings: Arc<FetchSettings>) -> Self {
        let fetcher = Fetcher::new(Arc::clone(&cluster), Arc::clone(&shared), Arc::clone(&settings));
        Self {
            cluster,
            shared,
            settings,
            current: None,
            fetcher: runtime::spawn(fetcher.run()),
        }
    }

    /// The next record. May be cancelled without loss.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`], [`Error::CorruptBatch`]: that partition is read no further until a seek.
    /// [`Error::UnknownTopic`], [`Error::Timeout`]: see [`Consumer`].
    pub async fn recv(&mut self) -> Result<ConsumerRecord, Error> {
        loop {
            if let Some((index, records)) = &mut self.current {
                match records.next_owned() {
                    Some(Ok(record)) => return Ok(record),
                    Some(Err(error)) => {
                        let (index, position) = (*index, records.position());
                        self.current = None;
                        self.shared.state.lock().halt(index, position, error.clone());
                        return Err(error);
                    }
                    None => self.current = None,
                }
            }
            if let Opened::Records(index, records) = self.next().await? {
                self.current = Some((index, records));
            }
        }
    }

    /// The next record, or `None` if there is none within `limit`.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub async fn recv_timeout(&mut self, limit: Duration) -> Result<Option<ConsumerRecord>, Error> {
        timeout(limit, self.recv()).await.transpose()
    }

    /// What there is, up to `max` records: waits for the first one only. Empty if `max` is 0. May be cancelled without loss.
    ///
    /// # Errors
    /// As [`Consumer::recv`]. An error behind the first record is told by the next call.
    pub async fn recv_many(&mut self, max: usize) -> Result<Vec<ConsumerRecord>, Error> {
        let mut records = Vec::new();
        while records.len() < max {
            let next = if records.is_empty() {
                Some(self.recv().await)
            } else {
                self.recv().now_or_never()
            };
            match next {
                Some(Ok(record)) => records.push(record),
                Some(Err(error)) if records.is_empty() => return Err(error),
                Some(Err(error)) => {
                    self.shared.state.lock().defer(error);
                    break;
                }
                None => break,
            }
        }
        Ok(records)
    }

    /// The records of the next batch, to be walked over without a copy or an allocation for each: the fast way.
    /// May be cancelled without loss, and mixed with [`Consumer::recv`].
    ///
    /// # Errors
    /// As [`Consumer::recv`]; besides, each record of the batch may turn out malformed.
    pub async fn recv_batch(&mut self) -> Result<Records, Error> {
        loop {
            if let Advance::Records(records) = self.advance().await? {
                return Ok(records);
            }
        }
    }

    /// The records of the next batch, or a move of a partition's position for which there are none: how to read to an end.
    /// May be cancelled without loss.
    ///
    /// The last offsets of a partition may hold no record, as after compaction, or be deleted before they are read. Whoever
    /// waits for the last record would then wait for ever; the position gets there in any case.
    ///
    /// ```no_run
    /// # async fn example(client: headwater_client::Client) -> Result<(), headwater_client::Error> {
    /// use headwater_client::{Advance, OffsetSpec, PartitionIndex, Start};
    ///
    /// let partition = PartitionIndex::new(0);
    /// let end = client.admin().list_offset("orders", partition, OffsetSpec::Latest).await?;
    /// let mut consumer = client.consumer().assign("orders", [partition]).start(Start::Earliest).build().await?;
    /// while consumer.position("orders", partition) < end {
    ///     match consumer.advance().await? {
    ///         Advance::Records(records) => println!("{} to {}", records.first_offset(), records.next_offset()),
    ///         Advance::Skip(skip) => println!("no record from {} to {}: {:?}", skip.from, skip.to, skip.cause),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Consumer::recv_batch`].
    pub async fn advance(&mut self) -> Result<Advance, Error> {
        if let Some((_, records)) = self.current.take()
            && records.first_offset() < records.next_offset()
        {
            return Ok(Advance::Records(records));
        }
        Ok(match self.next().await? {
            Opened::Records(_, records) => Advance::Records(records),
            Opened::Skip(skip) => Advance::Skip(skip),
            Opened::Nothing => unreachable!("it was waited for something"),
        })
    }

    /// What was passed over since the consumer was made, of each partition of which something was: offsets without a record,
    /// and records that were deleted before they could be read.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.shared.state.lock().skipped()
    }

    /// The records as a stream that never ends. Dropping it loses nothing.
    ///
    /// ```no_run
    /// # async fn example(consumer: &mut headwater_client::Consumer) -> Result<(), headwater_client::Error> {
    /// use futures::StreamExt;
    ///
    /// let mut records = consumer.stream().take(10);
    /// while let Some(record) = records.next().await {
    ///     println!("{:?}", record?.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream(&mut self) -> BoxStream<'_, Result<ConsumerRecord, Error>> {
        stream::unfold(self, async |consumer| Some((consumer.recv().await, consumer))).boxed()
    }

    /// As [`Consumer::stream`], for a stream that owns the consumer.
    pub fn into_stream(self) -> BoxStream<'static, Result<ConsumerRecord, Error>> {
        stream::unfold(self, async |mut consumer: Self| Some((consumer.recv().await, consumer))).boxed()
    }

    /// Goes on elsewhere in one partition. What was fetched ahead of it is dropped.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`] for a partition that is not read; [`Error::Timeout`]. The position is then unchanged.
    pub async fn seek(&mut self, topic: &str, partition: PartitionIndex, to: impl Into<Start>) -> Result<(), Error> {
        let name = topic_name(topic)?;
        let index = self.find(&name, partition)?;
        let deadline = self.cluster.deadline("seek");
        let offset = start_offset(&self.cluster, deadline, &name, partition, to.into(), self.isolation()).await?;
        if self.current.as_ref().is_some_and(|(current, _)| *current == index) {
            self.current = None;
        }
        self.shared.state.lock().seek(index, offset);
        self.shared.wanted.notify_one();
        Ok(())
    }

    /// Hands out nothing more of a partition until [`Consumer::resume`], and fetches nothing more of it either.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`] for a partition that is not read.
    pub fn pause(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), Error> {
        let index = self.find(&topic_name(topic)?, partition)?;
        let mut state = self.shared.state.lock();
        if let Some((_, records)) = self.current.take_if(|(current, _)| *current == index) {
            state.seek(index, records.position());
        }
        state.set_paused(index, true);
        Ok(())
    }

    /// Goes on with a partition that was paused.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`] for a partition that is not read.
    pub fn resume(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), Error> {
        let index = self.find(&topic_name(topic)?, partition)?;
        self.shared.state.lock().set_paused(index, false);
        self.shared.arrived.notify_one();
        self.shared.wanted.notify_one();
        Ok(())
    }

    /// The offset of the next record of a partition; `None` for a partition that is not read.
    pub fn position(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        let state = self.shared.state.lock();
        let index = state.find(topic, partition)?;
        match &self.current {
            Some((current, records)) if *current == index => Some(records.position()),
            _ => Some(state.position(index)),
        }
    }

    /// How far every partition is that is read: position, high watermark, and what holds it up.
    ///
    /// ```no_run
    /// # fn example(consumer: &headwater_client::Consumer) {
    /// let behind: u64 = consumer.positions().iter().filter_map(|at| at.lag()).sum();
    /// println!("{behind} records to go");
    /// # }
    /// ```
    pub fn positions(&self) -> Vec<PartitionPosition> {
        let state = self.shared.state.lock();
        let at = |(index, mut at): (usize, PartitionPosition)| {
            if let Some((_, records)) = self.current.as_ref().filter(|(current, _)| *current == index) {
                at.position = records.position();
            }
            at
        };
        state.positions().map(at).collect()
    }

    fn isolation(&self) -> Isolation {
        self.settings.isolation
    }

    /// Bytes of batches that were fetched and not received yet.
    pub fn queued_bytes(&self) -> usize {
        self.shared.state.lock().queued_bytes()
    }

    /// Why some partition is asked for again and again: its last failure, if nothing else has come of it since. `None` while
    /// the brokers answer, whether there are records or not.
    pub fn retrying_after(&self) -> Option<Error> {
        self.shared.state.lock().retrying_after()
    }

    /// Every partition that is read.
    pub fn assignment(&self) -> Vec<(TopicName, PartitionIndex)> {
        self.shared.state.lock().assigned()
    }

    fn find(&self, topic: &TopicName, partition: PartitionIndex) -> Result<usize, Error> {
        let state = self.shared.state.lock();
        state.find(topic.as_str(), partition).ok_or_else(|| {
            let partitions = state.assigned().iter().filter(|(other, _)| other == topic).count();
            Error::UnknownPartition {
                topic: topic.clone(),
                partition,
                partitions,
            }
        })
    }

    /// Waits for something to come, and opens it; never [`Opened::Nothing`].
    async fn next(&self) -> Result<Opened, Error> {
        loop {
            let taken = self.shared.state.lock().take();
            match self.open(taken)? {
                Opened::Nothing => self.shared.arrived.notified().await,
                opened => return Ok(opened),
            }
        }
    }

    /// Opens a batch. Nothing of it is believed before its checksum was looked at, nor that it is none to be handed out.
    fn open(&self, taken: Taken) -> Result<Opened, Error> {
        let (index, topic, partition, position, (batch, aborted)) = match taken {
            Taken::Batch {
                index,
                topic,
                partition,
                position,
                batch,
                aborted,
            } => (index, topic, partition, position, (batch, aborted)),
            Taken::Skip { skip, .. } => {
                self.shared.wanted.notify_one();
                return Ok(Opened::Skip(skip));
            }
            Taken::Failure(error) => return Err(error),
            Taken::Nothing if self.fetcher.is_finished() => return Err(Error::Closed),
            Taken::Nothing => return Ok(Opened::Nothing),
        };
        // There may be room again.
        self.shared.wanted.notify_one();
        let decode = if self.settings.check_crcs {
            RecordSet::decode
        } else {
            RecordSet::decode_without_crc
        };
        let set = match decode(&batch, self.settings.decompressed_bytes_max) {
            Ok(set) => set,
            Err(source) => {
                let error = records::corrupt(&topic, partition, position, source);
                self.shared.state.lock().halt(index, position, error.clone());
                return Err(error);
            }
        };
        let (header, cause) = (set.header(), SkipCause::NoRecord);
        let is_aborted = aborted.iter().any(|aborted| aborted.holds(header));
        let is_empty = is_aborted || header.is_control() || header.record_count() == 0;
        let to = header.next_offset();
        let missing = if is_empty {
            to.distance_from(position).unwrap_or(0)
        } else {
            records::missing(&set, position)
        };
        if missing > 0 {
            let mut state = self.shared.state.lock();
            state.note_skipped(&topic, partition, cause, missing);
        }
        if is_empty {
            let from = position;
            let skip = Skip {
                topic,
                partition,
                from,
                to,
                cause,
            };
            return Ok(Opened::Skip(skip));
        }
        Ok(Opened::Records(index, Records::new(topic, partition, position, set)))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.fetcher.abort();
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("assignment", &self.assignment())
            .finish_non_exhaustive()
    }
}

/// The offset that a start means.
async fn start_offset(
    cluster: &Cluster,
    deadline: Deadline,
    topic: &TopicName,
    partition: PartitionIndex,
    start: Start,
    isolation: Isolation,
) -> Result<Offset, Error> {
    let spec = match start {
        Start::Offset(offset) => return Ok(offset),
        Start::Earliest => OffsetSpec::Earliest,
        Start::Latest => OffsetSpec::Latest,
        Start::Timestamp(timestamp) => OffsetSpec::Timestamp(timestamp),
    };
    if let Some(offset) = admin::list_offset(cluster, deadline, topic, partition, spec, isolation).await? {
        return Ok(offset);
    }
    // No record is as late.
    let latest = admin::list_offset(cluster, deadline, topic, partition, OffsetSpec::Latest, isolation).await?;
    Ok(latest.unwrap_or_default())
}
