//! The client for programs without an asynchronous runtime: the same producers, consumers and administration, whose calls block.
//!
//! A [`Client`] brings a runtime of its own, with one thread that serves all its connections; whoever calls waits on its own thread.
//! What has no method here is to be had through [`Client::wait`].
//!
//! ```no_run
//! use headwater_client::blocking::Client;
//! use headwater_client::{NewTopic, Record, Start};
//!
//! # fn example() -> Result<(), headwater_client::Error> {
//! let client = Client::connect("localhost:9292")?;
//! client.admin().create_topic(NewTopic::new("greetings").partitions(1))?;
//!
//! let producer = client.producer(|builder| builder)?;
//! let stored = producer.send(Record::to("greetings").value("hello"))?.wait()?;
//! println!("stored at offset {:?}", stored.offset);
//! producer.close()?;
//!
//! let mut consumer = client.consumer(|builder| builder.topics(["greetings"]).start(Start::Earliest))?;
//! println!("{:?}", consumer.recv()?.value);
//! # Ok(())
//! # }
//! ```
//!
//! # Inside an asynchronous runtime
//! These calls work there too, and block the thread that they are made on: other tasks of that thread wait as long. Call them from
//! `tokio::task::spawn_blocking`, or use the asynchronous [`Client`](crate::Client). On a thread of an executor of the `futures` crate
//! they panic.
//!
//! # The end
//! The runtime ends with the last of its clients, producers and consumers. A producer that is dropped without [`Producer::close`] may
//! take along what it has not sent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::{
    CommittedOffset, CreatedTopic, NewTopic, OffsetSpec, TopicAlteration, TopicDescription, TopicListing,
};
use crate::client::ClientBuilder;
use crate::consumer::{
    Advance, ConsumerBuilder, ConsumerRecord, GroupConsumerBuilder, PartitionPosition, Records, Start,
};
use crate::error::Error;
use crate::producer::{ProducerBuilder, RecordMetadata};
use crate::record::Record;
use crate::statistics::{ClientStatistics, ProducerStatistics};
use crate::{Offset, PartitionIndex, TopicName};

/// The runtime that all handles of one client share.
struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    fn start() -> Result<Arc<Self>, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("headwater")
            .enable_all()
            .build();
        let refused = |error| {
            Error::config(
                "blocking",
                format!("the system starts no thread for the client: {error}"),
            )
        };
        Ok(Arc::new(Self(Some(runtime.map_err(refused)?))))
    }

    /// Waits on the calling thread, which drives nothing but this future.
    fn wait<F: Future>(&self, future: F) -> F::Output {
        let _inside = self.0.as_ref().map(tokio::runtime::Runtime::enter);
        // Within a task of another runtime tokio would have the future yield to that one, which cannot go on, forever.
        futures::executor::block_on(tokio::task::unconstrained(future))
    }
}

impl Drop for Runtime {
    /// Without waiting, which is not allowed where the last handle may be dropped.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A connection to a broker, as [`crate::Client`]. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: crate::Client,
    runtime: Arc<Runtime>,
}

impl Client {
    /// As [`crate::Client::connect`].
    pub fn connect(bootstrap: &str) -> Result<Self, Error> {
        Self::build(crate::Client::builder().bootstrap([bootstrap]))
    }

    /// As [`ClientBuilder::build`].
    pub fn build(builder: ClientBuilder) -> Result<Self, Error> {
        let runtime = Runtime::start()?;
        let inner = runtime.wait(builder.build())?;
        Ok(Self { inner, runtime })
    }

    /// A producer, configured by what is called on its builder.
    pub fn producer(&self, configure: impl FnOnce(ProducerBuilder) -> ProducerBuilder) -> Result<Producer, Error> {
        let inner = self.runtime.wait(configure(self.inner.producer()).build())?;
        let runtime = Arc::clone(&self.runtime);
        Ok(Producer { inner, runtime })
    }

    /// A consumer, configured by what is called on its builder.
    pub fn consumer(&self, configure: impl FnOnce(ConsumerBuilder) -> ConsumerBuilder) -> Result<Consumer, Error> {
        let inner = self.runtime.wait(configure(self.inner.consumer()).build())?;
        let runtime = Arc::clone(&self.runtime);
        Ok(Consumer { inner, runtime })
    }

    /// A consumer in a group, configured by what is called on its builder.
    pub fn group_consumer(
        &self,
        group_id: impl Into<String>,
        configure: impl FnOnce(GroupConsumerBuilder) -> GroupConsumerBuilder,
    ) -> Result<GroupConsumer, Error> {
        let builder = configure(self.inner.group_consumer(group_id));
        let inner = self.runtime.wait(builder.build())?;
        let runtime = Arc::clone(&self.runtime);
        Ok(GroupConsumer { inner, runtime })
    }

    /// Creation, deletion and description of topics.
    pub fn admin(&self) -> Admin {
        Admin { client: self.clone() }
    }

    /// As [`crate::Client::statistics`].
    pub fn statistics(&self) -> ClientStatistics {
        self.inner.statistics()
    }

    /// The asynchronous client, for what has no method here; see [`Client::wait`].
    pub fn asynchronous(&self) -> &crate::Client {
        &self.inner
    }

    /// Waits for anything asynchronous of this crate.
    ///
    /// ```no_run
    /// # fn example(client: headwater_client::blocking::Client) -> Result<(), headwater_client::Error> {
    /// let groups = client.asynchronous().admin().groups();
    /// for lag in client.wait(groups.lag("billing"))? {
    ///     println!("{} {}: {:?}", lag.topic, lag.partition, lag.lag());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.wait(future)
    }
}

/// Sends records, as [`crate::Producer`]. Cheap to clone.
#[derive(Clone)]
pub struct Producer {
    inner: crate::Producer,
    runtime: Arc<Runtime>,
}

impl Producer {
    /// As [`crate::Producer::send`]: blocks only while the producer's memory is spent, or to learn of a new topic.
    pub fn send(&self, record: Record<'_>) -> Result<Delivery, Error> {
        self.runtime.wait(self.inner.send(record)).map(Delivery)
    }

    /// As [`crate::Producer::send_all`].
    pub fn send_all<'a>(&self, records: impl IntoIterator<Item = Record<'a>>) -> Vec<Result<Delivery, Error>> {
        let sent = self.runtime.wait(self.inner.send_all(records));
        sent.into_iter().map(|sent| sent.map(Delivery)).collect()
    }

    /// As [`crate::Producer::send_and_forget`].
    pub fn send_and_forget(&self, record: Record<'_>) {
        self.runtime.wait(self.inner.send_and_forget(record));
    }

    /// As [`crate::Producer::flush`].
    pub fn flush(&self) -> Result<(), Error> {
        self.runtime.wait(self.inner.flush())
    }

    /// As [`crate::Producer::close`].
    pub fn close(&self) -> Result<(), Error> {
        self.runtime.wait(self.inner.close())
    }

    /// As [`crate::Producer::partition_count`].
    pub fn partition_count(&self, topic: &str) -> Result<usize, Error> {
        self.runtime.wait(self.inner.partition_count(topic))
    }

    /// As [`crate::Producer::statistics`].
    pub fn statistics(&self) -> ProducerStatistics {
        self.inner.statistics()
    }
}

/// The future end of one record, as [`crate::Delivery`]. Dropping it is allowed; the record is sent either way.
#[derive(Debug)]
#[must_use = "dropping a delivery means not to know whether the record was stored; say so with `drop`"]
pub struct Delivery(crate::Delivery);

impl Delivery {
    /// Waits until the record was stored, or has failed.
    pub fn wait(self) -> Result<RecordMetadata, Error> {
        futures::executor::block_on(self.0)
    }

    /// The result, if it is known already.
    pub fn result(&self) -> Option<Result<RecordMetadata, Error>> {
        self.0.result()
    }
}

/// Receives records, as [`crate::Consumer`].
pub struct Consumer {
    inner: crate::Consumer,
    runtime: Arc<Runtime>,
}

impl Consumer {
    /// As [`crate::Consumer::recv`]: blocks until there is a record.
    pub fn recv(&mut self) -> Result<ConsumerRecord, Error> {
        self.runtime.wait(self.inner.recv())
    }

    /// As [`crate::Consumer::recv_timeout`].
    pub fn recv_timeout(&mut self, limit: Duration) -> Result<Option<ConsumerRecord>, Error> {
        self.runtime.wait(async { self.inner.recv_timeout(limit).await })
    }

    /// As [`crate::Consumer::recv_many`].
    pub fn recv_many(&mut self, max: usize) -> Result<Vec<ConsumerRecord>, Error> {
        self.runtime.wait(self.inner.recv_many(max))
    }

    /// As [`crate::Consumer::recv_batch`].
    pub fn recv_batch(&mut self) -> Result<Records, Error> {
        self.runtime.wait(self.inner.recv_batch())
    }

    /// As [`crate::Consumer::advance`].
    pub fn advance(&mut self) -> Result<Advance, Error> {
        self.runtime.wait(self.inner.advance())
    }

    /// As [`crate::Consumer::seek`].
    pub fn seek(&mut self, topic: &str, partition: PartitionIndex, to: impl Into<Start>) -> Result<(), Error> {
        self.runtime.wait(self.inner.seek(topic, partition, to))
    }

    /// As [`crate::Consumer::pause`].
    pub fn pause(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), Error> {
        self.inner.pause(topic, partition)
    }

    /// As [`crate::Consumer::resume`].
    pub fn resume(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), Error> {
        self.inner.resume(topic, partition)
    }

    /// As [`crate::Consumer::positions`].
    pub fn positions(&self) -> Vec<PartitionPosition> {
        self.inner.positions()
    }
}

/// Receives the records of the partitions that its group assigns to it, as [`crate::GroupConsumer`].
pub struct GroupConsumer {
    inner: crate::GroupConsumer,
    runtime: Arc<Runtime>,
}

impl GroupConsumer {
    /// As [`crate::GroupConsumer::recv`]: blocks until there is a record. The one before counts as processed.
    pub fn recv(&mut self) -> Result<ConsumerRecord, Error> {
        self.runtime.wait(self.inner.recv())
    }

    /// As [`crate::GroupConsumer::recv_timeout`].
    pub fn recv_timeout(&mut self, limit: Duration) -> Result<Option<ConsumerRecord>, Error> {
        self.runtime.wait(async { self.inner.recv_timeout(limit).await })
    }

    /// As [`crate::GroupConsumer::recv_many`].
    pub fn recv_many(&mut self, max: usize) -> Result<Vec<ConsumerRecord>, Error> {
        self.runtime.wait(self.inner.recv_many(max))
    }

    /// As [`crate::GroupConsumer::recv_batch`].
    pub fn recv_batch(&mut self) -> Result<Records, Error> {
        self.runtime.wait(self.inner.recv_batch())
    }

    /// As [`crate::GroupConsumer::commit`].
    pub fn commit(&self) -> Result<(), Error> {
        self.runtime.wait(self.inner.commit())
    }

    /// As [`crate::GroupConsumer::commit_offsets`].
    pub fn commit_offsets(&self, offsets: &[CommittedOffset]) -> Result<(), Error> {
        self.runtime.wait(self.inner.commit_offsets(offsets))
    }

    /// As [`crate::GroupConsumer::assignment`].
    pub fn assignment(&self) -> Vec<(TopicName, PartitionIndex)> {
        self.inner.assignment()
    }

    /// As [`crate::GroupConsumer::positions`].
    pub fn positions(&self) -> Vec<PartitionPosition> {
        self.inner.positions()
    }

    /// As [`crate::GroupConsumer::close`].
    pub fn close(self) -> Result<(), Error> {
        self.runtime.wait(self.inner.close())
    }
}

/// Administration, as [`crate::Admin`].
#[derive(Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    /// As [`crate::Admin::create_topic`].
    pub fn create_topic(&self, topic: NewTopic) -> Result<CreatedTopic, Error> {
        self.client.wait(self.client.inner.admin().create_topic(topic))
    }

    /// As [`crate::Admin::alter_topic`].
    pub fn alter_topic(&self, alteration: TopicAlteration) -> Result<usize, Error> {
        self.client.wait(self.client.inner.admin().alter_topic(alteration))
    }

    /// As [`crate::Admin::delete_topic`].
    pub fn delete_topic(&self, name: &str) -> Result<(), Error> {
        self.client.wait(self.client.inner.admin().delete_topic(name))
    }

    /// As [`crate::Admin::describe_topic`].
    pub fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        self.client.wait(self.client.inner.admin().describe_topic(name))
    }

    /// As [`crate::Admin::topics`].
    pub fn topics(&self) -> Result<Vec<TopicListing>, Error> {
        self.client.wait(self.client.inner.admin().topics())
    }

    /// As [`crate::Admin::list_offsets`].
    pub fn list_offsets(&self, topic: &str, spec: OffsetSpec) -> Result<Vec<Option<Offset>>, Error> {
        self.client.wait(self.client.inner.admin().list_offsets(topic, spec))
    }
}

macro_rules! debug_as_inner {
    ($($handle:ident . $inner:ident),*) => {
        $(impl fmt::Debug for $handle {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.$inner.fmt(f)
            }
        })*
    };
}

debug_as_inner!(
    Client.inner,
    Producer.inner,
    Consumer.inner,
    GroupConsumer.inner,
    Admin.client
);
