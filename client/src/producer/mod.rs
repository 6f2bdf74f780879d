//! Producers: records in, acknowledgements out.
//!
//! ```text
//! send -> Partitioner -> PartitionQueue (open batch) -> Sender (one task for each partition) -> Window -> Connection
//!   Delivery <- Completion <--------------------------------------------------------------------'
//! ```
//!
//! The handle is shared by all clones; dropping the last one lets the senders finish what they have.

mod accumulator;
mod builder;
mod bulk;
mod delivery;
mod memory;
mod partitioner;
mod sender;
mod tally;
mod topic;
mod window;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater_protocol::id::PartitionIndex;
use headwater_protocol::topic::TopicName;

use crate::cluster::Cluster;
use crate::deadline::Deadline;
use crate::error::{Error, topic_name};
use crate::record::Record;
use crate::requests::TopicImage;
use crate::runtime::Runtime;
use crate::runtime::sync::RwLock;
use crate::statistics::ProducerStatistics;

use accumulator::{Append, BatchSettings, PartitionQueue};
use memory::{Memory, Reservation};
use sender::Sender;
use tally::Tally;
use topic::TopicSpread;
use window::{Identity, WindowLimits};

pub(crate) use builder::ProducerSettings;
pub use builder::{Acks, ProducerBuilder};
pub use delivery::{Delivery, RecordMetadata};
pub use partitioner::{
    DefaultPartitioner, Partitioner, RoundRobinPartitioner, StickyPartitioner, TopicPartitions, murmur2,
};
pub use tally::DeliveryReport;

/// What every sender of a producer goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SenderSettings {
    acks: Acks,
    linger: Duration,
    window: WindowLimits,
}

/// Sends records. Cheap to clone; from [`Client::producer`](crate::Client::producer).
///
/// ```no_run
/// # async fn example(client: headwater_client::Client) -> Result<(), headwater_client::Error> {
/// use headwater_client::Record;
///
/// let producer = client.producer().build().await?;
/// let delivery = producer.send(Record::to("orders").key("customer-3").value("a book")).await?;
/// let metadata = delivery.await?;
/// println!("{}-{} @ {:?}", metadata.topic, metadata.partition, metadata.offset);
/// producer.close().await?;
/// # Ok(())
/// # }
/// ```
///
/// Records of one partition are stored in the order in which `send` took them, over all failures and retries. With
/// idempotence (the default) none is stored twice, unless its delivery had already failed with an unknown outcome and
/// the caller sends it again.
///
/// Dropping the last clone sends what is left in the background; [`Producer::close`] waits for it.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

struct Shared {
    cluster: Arc<Cluster>,
    runtime: Runtime,
    batches: BatchSettings,
    sender: SenderSettings,
    identity: Option<Identity>,
    partitioner: Box<dyn Partitioner>,
    memory: Arc<Memory>,
    topics: RwLock<HashMap<TopicName, Arc<TopicQueues>>>,
    shut: AtomicBool,
    tally: Arc<Tally>,
}

/// The queues of one topic.
struct TopicQueues {
    name: TopicName,
    /// By partition, made when first written to.
    queues: RwLock<Vec<Option<Arc<PartitionQueue>>>>,
    spread: Arc<TopicSpread>,
}

impl Producer {
    /// Takes a record for sending; waits only while the producer's memory is spent, or to learn of a new topic.
    ///
    /// The result is a [`Delivery`] to await or to drop. May be cancelled: then the record was not taken.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] after the client's metadata timeout, [`Error::UnknownPartition`],
    /// [`Error::RecordTooLarge`], [`Error::IllegalRecord`], [`Error::Closed`]; [`Error::Timeout`] if no memory came free
    /// within the delivery timeout.
    pub async fn send(&self, record: Record<'_>) -> Result<Delivery, Error> {
        self.inner.shared.send(&record, &mut None).await
    }

    /// Takes records for sending, in order. The results are theirs, in the same order: one that is refused keeps no other from being
    /// taken.
    ///
    /// Waits as [`Producer::send`] does, once for every part of up to an eighth of the producer's memory, before any record of the
    /// part is taken. Whoever cancels it does not learn which records were taken: those of the parts before the one that it
    /// waited for, at least.
    ///
    /// ```no_run
    /// # async fn example(producer: headwater_client::Producer) -> Result<(), headwater_client::Error> {
    /// use headwater_client::Record;
    ///
    /// let lines = vec![String::from("one"), String::from("two")];
    /// for sent in producer.send_all(lines.iter().map(|line| Record::to("lines").value(line))).await {
    ///     println!("{:?}", sent?.await?.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Of each record, as [`Producer::send`].
    pub async fn send_all<'a>(&self, records: impl IntoIterator<Item = Record<'a>>) -> Vec<Result<Delivery, Error>> {
        bulk::send_all(&self.inner.shared, records.into_iter()).await
    }

    /// Takes a record for sending whose end nobody waits for. Whatever becomes of it is counted in [`Producer::statistics`]; a failure,
    /// also one to take the record, is told to [`ProducerBuilder::on_delivery`] and by the next [`Producer::flush`].
    ///
    /// Waits as [`Producer::send`] does. May be cancelled: then the record was not taken.
    pub async fn send_and_forget(&self, record: Record<'_>) {
        let (topic, partition) = (record.topic, record.partition);
        match self.send(record).await {
            Ok(delivery) => drop(delivery),
            Err(error) => self.inner.shared.tally.refuse(topic, partition, &error),
        }
    }

    /// As [`Producer::send`], but never waits.
    ///
    /// # Errors
    /// As [`Producer::send`], but a limit of the topic that was raised lately may not be known yet; and [`Error::WouldBlock`] if it
    /// would have to wait. For a topic that is new to this producer that is so until [`Producer::partition_count`] has been called
    /// for it.
    pub fn try_send(&self, record: &Record<'_>) -> Result<Delivery, Error> {
        let Some(queue) = self.inner.shared.queue_for(record)? else {
            return Err(Error::WouldBlock("the topic's partitions are not known yet"));
        };
        match queue.append(record, &mut None)? {
            Append::Done(delivery) => Ok(delivery),
            Append::NeedsMemory(_) => Err(Error::WouldBlock("the producer's memory is spent")),
        }
    }

    /// How many partitions the topic has. Learns of the topic if it is new to this producer.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] after the client's metadata timeout.
    pub async fn partition_count(&self, topic: &str) -> Result<usize, Error> {
        let topic = self.inner.shared.find_topic(topic).await?;
        Ok(topic.spread.count.load(Ordering::Relaxed) as usize)
    }

    /// Bytes of the producer's memory that hold records now.
    pub fn memory_used(&self) -> usize {
        self.inner.shared.memory.used()
    }

    /// Why records that were taken wait to be sent again: the last failure in some partition that has stored nothing since. `None`
    /// while all goes well, and while the brokers have not answered yet.
    pub fn retrying_after(&self) -> Option<Error> {
        let mut troubles = self.inner.shared.queues().into_iter();
        troubles.find_map(|queue| queue.trouble())
    }

    /// What this producer, with all its clones, has done until now.
    pub fn statistics(&self) -> ProducerStatistics {
        self.inner.shared.tally.statistics(self.memory_used())
    }

    /// Sends everything at once, and waits until every record that was sent before this call has ended.
    ///
    /// # Errors
    /// The first failure of any record since the last flush, whether its [`Delivery`] was awaited or not.
    pub async fn flush(&self) -> Result<(), Error> {
        self.inner.shared.flush().await
    }

    /// Takes no more records from any clone, and waits until all that were taken have ended.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.shared.shut();
        self.inner.shared.flush().await
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("memory_used", &self.memory_used())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Takes a record. `grant` is memory that was waited for; what of it is not needed stays there.
    ///
    /// What is waited for is rare, and on the heap: every record's future is moved, with room for all that it may wait for.
    async fn send(&self, record: &Record<'_>, grant: &mut Option<Reservation>) -> Result<Delivery, Error> {
        let queue = match self.queue_for(record)? {
            Some(queue) => queue,
            None => Box::pin(self.find_queue(record)).await?,
        };
        let mut has_asked = false;
        loop {
            match queue.append(record, grant) {
                Ok(Append::Done(delivery)) => return Ok(delivery),
                Ok(Append::NeedsMemory(bytes)) => *grant = Some(Box::pin(self.await_memory(bytes)).await?),
                // The topic may take more by now than when it was last asked about.
                Err(error @ Error::RecordTooLarge { .. }) if !has_asked => {
                    has_asked = true;
                    Box::pin(self.ask_again(record.topic, error)).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The queue for a record; `None` if the topic is not known yet, or a partition is named that was not there when
    /// the metadata was last asked for.
    fn queue_for(&self, record: &Record<'_>) -> Result<Option<Arc<PartitionQueue>>, Error> {
        let topics = self.topics.read();
        let Some(topic) = topics.get(record.topic) else {
            return Ok(None);
        };
        topic.spread.follow(&self.cluster, &topic.name);
        let count = topic.spread.count.load(Ordering::Relaxed);
        let partition = match record.partition {
            Some(partition) if partition.as_usize() >= count as usize => return Ok(None),
            Some(partition) => partition,
            None => self
                .partitioner
                .partition(record, &TopicPartitions::new(count, &topic.spread.spread)),
        };
        if partition.as_usize() >= count as usize {
            let (topic, partitions) = (topic.name.clone(), count as usize);
            return Err(Error::UnknownPartition {
                topic,
                partition,
                partitions,
            });
        }
        if let Some(Some(queue)) = topic.queues.read().get(partition.as_usize()) {
            return Ok(Some(Arc::clone(queue)));
        }
        self.open_queue(topic, partition).map(Some)
    }

    /// Makes a partition's queue and starts its sender.
    fn open_queue(&self, topic: &TopicQueues, partition: PartitionIndex) -> Result<Arc<PartitionQueue>, Error> {
        let mut queues = topic.queues.write();
        if queues.len() <= partition.as_usize() {
            queues.resize(partition.as_usize() + 1, None);
        }
        if let Some(queue) = &queues[partition.as_usize()] {
            return Ok(Arc::clone(queue));
        }
        // Checked under the lock under which `shut` finds the queues.
        if self.shut.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let spread = Arc::clone(&topic.spread);
        let memory = Arc::clone(&self.memory);
        let queue = Arc::new(PartitionQueue::new(
            &topic.name,
            partition,
            self.batches,
            memory,
            spread,
        ));
        queues[partition.as_usize()] = Some(Arc::clone(&queue));
        let (cluster, tally) = (Arc::clone(&self.cluster), Arc::clone(&self.tally));
        let sender = Sender::new(cluster, Arc::clone(&queue), self.sender, self.identity, tally);
        self.runtime.spawn(sender.run());
        Ok(queue)
    }

    /// As [`Shared::queue_for`], asking for metadata where that may help.
    async fn find_queue(&self, record: &Record<'_>) -> Result<Arc<PartitionQueue>, Error> {
        let topic = self.find_topic(record.topic).await?;
        if let Some(queue) = self.queue_for(record)? {
            return Ok(queue);
        }
        // A partition beyond those known may be new.
        let deadline = Deadline::after(self.cluster.settings.metadata_timeout, "find partition");
        deadline
            .run(self.cluster.refresh(std::slice::from_ref(&topic.name)))
            .await?;
        match (self.queue_for(record)?, record.partition) {
            (Some(queue), _) => Ok(queue),
            (None, Some(partition)) => {
                let partitions = topic.spread.count.load(Ordering::Relaxed) as usize;
                Err(Error::UnknownPartition {
                    topic: topic.name.clone(),
                    partition,
                    partitions,
                })
            }
            (None, None) => Err(Error::UnknownTopic(topic.name.clone())),
        }
    }

    /// Learns what a topic takes by now; the error if that cannot be learned.
    async fn ask_again(&self, name: &str, error: Error) -> Result<(), Error> {
        let topic = self.find_topic(name).await?;
        let deadline = Deadline::after(self.cluster.settings.metadata_timeout, "learn what a topic takes");
        let asked = self.cluster.refresh(std::slice::from_ref(&topic.name));
        if deadline.run(asked).await.is_err() {
            return Err(error);
        }
        topic.spread.follow(&self.cluster, &topic.name);
        Ok(())
    }

    async fn find_topic(&self, name: &str) -> Result<Arc<TopicQueues>, Error> {
        if let Some(topic) = self.topics.read().get(name) {
            return Ok(Arc::clone(topic));
        }
        let name = topic_name(name)?;
        let generation = self.cluster.metadata.generation();
        let image = self.cluster.await_topic(&name).await?;
        let mut topics = self.topics.write();
        let topic = topics
            .entry(name)
            .or_insert_with_key(|name| Arc::new(TopicQueues::new(name, &image, generation)));
        Ok(Arc::clone(topic))
    }

    /// Waits for memory, after asking every sender for what lingers, which must not starve others. Nothing is closed for it:
    /// batches that cannot leave yet are left to fill, or many partitions would send nothing but small ones.
    async fn await_memory(&self, bytes: usize) -> Result<Reservation, Error> {
        let deadline = Deadline::after(self.sender.window.delivery_timeout, "get memory in the producer");
        let reservation = async {
            let mut reservation = std::pin::pin!(self.memory.reserve(bytes));
            if let std::task::Poll::Ready(reservation) = futures::poll!(reservation.as_mut()) {
                return Ok(reservation);
            }
            // From now on this caller is first in line for what the senders set free.
            self.queues().iter().for_each(|queue| queue.hurry());
            Ok(reservation.await)
        };
        deadline.run(reservation).await
    }

    fn queues(&self) -> Vec<Arc<PartitionQueue>> {
        let topics: Vec<_> = self.topics.read().values().cloned().collect();
        topics
            .iter()
            .flat_map(|topic| topic.queues.read().iter().flatten().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Every batch ends at the latest at its delivery timeout, hence this does.
    async fn flush(&self) -> Result<(), Error> {
        let mut unfinished = Vec::new();
        for queue in self.queues() {
            queue.close_batch();
            unfinished.extend(queue.unfinished());
        }
        for batch in unfinished {
            // A failure is reported below, once.
            batch.ended().await;
        }
        self.tally.take_failure().map_or(Ok(()), Err)
    }

    fn shut(&self) {
        self.shut.store(true, Ordering::Release);
        self.queues().iter().for_each(|queue| queue.shut());
    }
}

impl TopicQueues {
    fn new(name: &TopicName, image: &TopicImage, generation: u64) -> Self {
        Self {
            name: name.clone(),
            queues: RwLock::new(Vec::new()),
            spread: Arc::new(TopicSpread::new(image, generation)),
        }
    }
}
