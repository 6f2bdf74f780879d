//! Consumers that share topics with the other members of a group.
//!
//! ```text
//! Membership (decides) <-> Driver (one task) -- joins, heartbeats --> Route -------> the core that runs the group
//!                              |        '------ commits, in order --> Committer ---^
//!                              '-- adds, stops, removes partitions --> Fetcher's State, Ledger
//! recv -> takes a batch from the State, notes in the Ledger what was handed out
//! ```
//!
//! Whatever is awaited in `recv` may be dropped: handing out a record is one step under the ledger's lock.

mod builder;
mod commits;
mod driver;
mod hand_out;
mod ledger;
mod listener;
mod membership;
mod route;
mod starts;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{Offset, PartitionIndex};
use headwater_protocol::topic::TopicName;
use regex::Regex;

use super::builder::{Isolation, OffsetReset};
use super::fetcher::FetchSettings;
use super::state;
use super::{Advance, Consumer, ConsumerRecord, Hold, PartitionPosition, Records, Skipped, Start, start_offset};
use crate::admin::CommittedOffset;
use crate::cluster::Cluster;
use crate::error::{Error, topic_name};
use crate::runtime::{self, Task, timeout};

use commits::{Orders, start_committer};
use driver::{Driver, Parts};
use hand_out::{Current, Next, put_back};
use ledger::{Claim, Mark, Progress, Shared};
use membership::{Membership, Place, Rules};
use route::Route;

pub(crate) use builder::GroupDefaults;
pub use builder::{Assignor, GroupConsumerBuilder};
pub use listener::RebalanceListener;

/// How a group consumer behaves in its group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupSettings {
    pub(crate) assignor: Assignor,
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) max_poll_interval: Duration,
    pub(crate) auto_commit: Option<Duration>,
    pub(crate) reset: OffsetReset,
    /// That of the fetches.
    pub(crate) isolation: Isolation,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            assignor: Assignor::default(),
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_mins(5),
            max_poll_interval: Duration::from_mins(5),
            auto_commit: Some(Duration::from_secs(5)),
            reset: OffsetReset::default(),
            isolation: Isolation::default(),
        }
    }
}

#[derive(Debug)]
enum Subscribed {
    Topics(PartitionCounts),
    Pattern(Regex),
}

/// How many partitions each topic has.
type PartitionCounts = BTreeMap<TopicName, usize>;

/// All that a group consumer is started with.
struct Setup {
    group_id: String,
    instance_id: Option<String>,
    subscribed: Subscribed,
    settings: GroupSettings,
    listener: Arc<dyn RebalanceListener>,
}

/// Receives the records of the partitions that its group assigns to it; from
/// [`Client::group_consumer`](crate::Client::group_consumer).
///
/// The members of a group share the partitions of their topics, and take over from each other: at once when one is
/// [closed](GroupConsumer::close), after its session timeout when it dies. What the group has committed for a partition is where the
/// next member begins.
///
/// # At least once
/// With auto commit, the default, a record counts as processed when the next one is asked for (or the consumer is closed), and only
/// what was processed is committed. No record is skipped; after a crash those since the last commit come again.
///
/// ```no_run
/// # async fn process(record: headwater_client::ConsumerRecord) {}
/// # async fn example(client: headwater_client::Client) -> Result<(), headwater_client::Error> {
/// let mut consumer = client.group_consumer("billing").topics(["orders"]).build().await?;
/// for _ in 0..1000 {
///     let record = consumer.recv().await?;
///     process(record).await;
/// }
/// consumer.close().await
/// # }
/// ```
///
/// Who hands records on to other tasks turns auto commit off, and commits what those are done with:
///
/// ```no_run
/// # async fn process(record: &headwater_client::ConsumerRecord) {}
/// # async fn example(client: headwater_client::Client) -> Result<(), headwater_client::Error> {
/// use headwater_client::CommittedOffset;
///
/// let mut consumer = client.group_consumer("billing").topics(["orders"]).auto_commit(None).build().await?;
/// let record = consumer.recv().await?;
/// process(&record).await;
/// let next = record.offset.next();
/// consumer.commit_offsets(&[CommittedOffset::new(record.topic, record.partition, next)]).await?;
/// # Ok(())
/// # }
/// ```
///
/// # At most once
/// Commit before the record is processed: [`GroupConsumer::commit`] includes the record that was received last.
///
/// ```no_run
/// # async fn process(record: headwater_client::ConsumerRecord) {}
/// # async fn example(client: headwater_client::Client) -> Result<(), headwater_client::Error> {
/// let mut consumer = client.group_consumer("alarms").topics(["incidents"]).auto_commit(None).build().await?;
/// loop {
///     let record = consumer.recv().await?;
///     consumer.commit().await?;
///     process(record).await;
/// }
/// # }
/// ```
///
/// # When something goes wrong
/// [`Error::PartitionsLost`] and [`Error::PollIntervalExceeded`] are told once, before any further record: what was received since the
/// last commit comes again, here or elsewhere. The consumer joins again by itself and may be used on. Other errors are those of
/// [`Consumer::recv`]; one that says that the group will not have this consumer, such as `FENCED_INSTANCE_ID` when another was started
/// with the same instance id, is final.
pub struct GroupConsumer {
    consumer: Consumer,
    shared: Arc<Shared>,
    route: Route,
    orders: Orders,
    settings: GroupSettings,
    listener: Arc<dyn RebalanceListener>,
    current: Option<Current>,
    driver: Task,
    committer: Task,
}

impl GroupConsumer {
    fn start(cluster: Arc<Cluster>, setup: Setup, fetch: Arc<FetchSettings>) -> Self {
        let Setup {
            group_id,
            instance_id,
            subscribed,
            settings,
            listener,
        } = setup;
        let backoff = cluster.settings.backoff;
        let fetching = Arc::new(state::Shared::new(Vec::new(), Vec::new(), Arc::clone(&fetch), backoff));
        let route = Route::new(Arc::clone(&cluster), &group_id);
        let shared = Arc::new(Shared::new(instance_id.clone()));
        let (orders, committer) = start_committer(route.clone(), Arc::clone(&shared));
        let rules = Rules {
            cooperative: settings.assignor == Assignor::Sticky,
            heartbeat_interval: settings.heartbeat_interval,
        };
        let membership = Membership::new(rules, instance_id, cluster.backoff(), runtime::now());
        let parts = Parts {
            shared: Arc::clone(&shared),
            fetch: Arc::clone(&fetching),
            route: route.clone(),
            orders: orders.clone(),
            settings,
            listener: Arc::clone(&listener),
            subscribed,
        };
        Self {
            consumer: Consumer::start(cluster, fetching, fetch),
            shared,
            route,
            orders,
            settings,
            listener,
            current: None,
            driver: runtime::spawn(Driver::new(parts, membership).run()),
            committer: runtime::spawn(committer),
        }
    }

    /// The next record. The one before counts as processed from now on. May be cancelled without loss.
    ///
    /// # Errors
    /// [`Error::PartitionsLost`], [`Error::PollIntervalExceeded`], [`Error::NoCommittedOffset`]: told once. Others as
    /// [`Consumer::recv`].
    pub async fn recv(&mut self) -> Result<ConsumerRecord, Error> {
        let _polling = self.poll()?;
        loop {
            if let Some(result) = self.next_of_current() {
                return result;
            }
            if let Next::Batch(current) = self.next().await? {
                self.current = Some(current);
            }
        }
    }

    /// The next record, or `None` if there is none within `limit`.
    ///
    /// # Errors
    /// As [`GroupConsumer::recv`].
    pub async fn recv_timeout(&mut self, limit: Duration) -> Result<Option<ConsumerRecord>, Error> {
        timeout(limit, self.recv()).await.transpose()
    }

    /// What there is, up to `max` records: waits for the first one only. Empty if `max` is 0. All of them count as processed when
    /// more is asked for. May be cancelled without loss.
    ///
    /// # Errors
    /// As [`GroupConsumer::recv`]. An error behind the first record is told by the next call.
    pub async fn recv_many(&mut self, max: usize) -> Result<Vec<ConsumerRecord>, Error> {
        let _polling = self.poll()?;
        self.hand_out_many(max).await
    }

    /// The records of the next batch, to be walked over without a copy or an allocation for each: the fast way. What was received
    /// before counts as processed from now on. May be cancelled without loss, and mixed with [`GroupConsumer::recv`].
    ///
    /// # Errors
    /// As [`GroupConsumer::recv`]; besides, each record of the batch may turn out malformed.
    pub async fn recv_batch(&mut self) -> Result<Records, Error> {
        loop {
            if let Advance::Records(records) = self.advance().await? {
                return Ok(records);
            }
        }
    }

    /// As [`GroupConsumer::recv_batch`], and also tells when a partition's position moves without a record, as over what was deleted
    /// before it could be read.
    ///
    /// # Errors
    /// As [`GroupConsumer::recv_batch`].
    pub async fn advance(&mut self) -> Result<Advance, Error> {
        let _polling = self.poll()?;
        loop {
            if let Some(Current { place, claim, records }) = self.current.take() {
                let mut ledger = self.shared.ledger.lock();
                match ledger.open(&place, claim).map(|progress| progress.handed) {
                    Some(_) if records.first_offset() < records.next_offset() => {
                        ledger.hand(&place, records.next_offset());
                        return Ok(Advance::Records(records));
                    }
                    Some(handed) => ledger.pass(&place, handed.max(records.next_offset())),
                    None => put_back(&self.consumer, &ledger, &place, claim, &records),
                }
            }
            match self.next().await? {
                Next::Batch(current) => self.current = Some(current),
                Next::Skip(skip) => return Ok(Advance::Skip(skip)),
            }
        }
    }

    /// What was passed over since the consumer was made; see [`Consumer::skipped`].
    pub fn skipped(&self) -> Vec<Skipped> {
        self.consumer.skipped()
    }

    /// The records as a stream that never ends; each counts as processed when the next is asked for, so do not buffer it. Dropping
    /// it loses nothing.
    pub fn stream(&mut self) -> BoxStream<'_, Result<ConsumerRecord, Error>> {
        stream::unfold(self, async |consumer| Some((consumer.recv().await, consumer))).boxed()
    }

    /// As [`GroupConsumer::stream`], for a stream that owns the consumer.
    pub fn into_stream(self) -> BoxStream<'static, Result<ConsumerRecord, Error>> {
        stream::unfold(self, async |mut consumer: Self| Some((consumer.recv().await, consumer))).boxed()
    }

    /// Commits all that was received of the partitions that this consumer has, the last record included, and waits until that is
    /// durable. Where nothing was received since the last commit, the group is not asked.
    ///
    /// What was received of partitions that were given up in order, and was not committed before more was asked for, is left to
    /// their next owner, as in Kafka: see [`RebalanceListener::revoked`].
    ///
    /// # Errors
    /// [`Error::PartitionsLost`] for partitions that others have now, also if the loss was not told before, [`Error::UnknownTopic`] and
    /// [`Error::UnknownPartition`] for those that have been deleted, [`Error::Broker`] for those that were refused: the first of these,
    /// and all other partitions are committed. [`Error::PollIntervalExceeded`] when the consumer has left its group, [`Error::Timeout`].
    /// What [`GroupConsumer::recv`] tells once it still tells.
    pub async fn commit(&self) -> Result<(), Error> {
        self.commit_async().await
    }

    /// As [`GroupConsumer::commit`], without waiting: what was received until now is committed even if the result is dropped.
    /// Commits keep their order.
    pub fn commit_async(&self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (marks, loss) = {
            let mut ledger = self.shared.ledger.lock();
            ledger.process_all();
            (
                ledger.marks(|_| true),
                ledger.untold_loss(self.settings.max_poll_interval),
            )
        };
        let committed = self.orders.place(marks, self.route.cluster.deadline("commit"));
        async move {
            let committed = committed.await;
            loss.map_or(committed, Err)
        }
    }

    /// Commits these offsets: of each partition that of the record that would be processed next.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`] for a partition that this consumer does not have, before anything is committed; others as
    /// [`GroupConsumer::commit`].
    pub async fn commit_offsets(&self, offsets: &[CommittedOffset]) -> Result<(), Error> {
        let mut marks = Vec::new();
        for offset in offsets {
            let (_, claim) = self.find(&offset.topic, offset.partition)?;
            let offset = offset.clone();
            marks.push(Mark { claim, offset });
        }
        {
            let mut ledger = self.shared.ledger.lock();
            for mark in &marks {
                ledger.process(&mark.offset);
            }
        }
        let deadline = self.route.cluster.deadline("commit");
        self.orders.place(marks, deadline).await
    }

    /// What the group has committed for a partition, whoever has it; `None` if nothing.
    pub async fn committed(&self, topic: &str, partition: PartitionIndex) -> Result<Option<CommittedOffset>, Error> {
        let places = [(topic_name(topic)?, partition)];
        let deadline = self.route.cluster.deadline("fetch committed offsets");
        Ok(starts::committed(&self.route, deadline, &places).await?.pop())
    }

    /// The offset of the next record of a partition; `None` for a partition that this consumer does not have.
    pub fn position(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        let place = (topic_name(topic).ok()?, partition);
        let ledger = self.shared.ledger.lock();
        let progress = ledger.partitions.get(&place)?;
        match &self.current {
            Some(current) if current.place == place && current.claim == progress.claim => {
                Some(current.records.position())
            }
            _ => Some(self.consumer.shared.state.lock().position(progress.index)),
        }
    }

    /// How far every partition is that this consumer has now, in order; see [`Consumer::positions`].
    pub fn positions(&self) -> Vec<PartitionPosition> {
        let ledger = self.shared.ledger.lock();
        let state = self.consumer.shared.state.lock();
        let at = |(place, progress): (&Place, &Progress)| {
            let mut at = state.position_of(progress.index);
            let current = self.current.as_ref().filter(|current| current.place == *place);
            if let Some(current) = current.filter(|current| current.claim == progress.claim) {
                at.position = current.records.position();
            }
            if progress.stopping {
                at.hold = Some(Hold::Revoked);
            }
            at
        };
        ledger.partitions.iter().map(at).collect()
    }

    /// Why something is asked for again and again; see [`Consumer::retrying_after`].
    pub fn retrying_after(&self) -> Option<Error> {
        let starting = self.shared.ledger.lock().start_failure.clone();
        starting.or_else(|| self.consumer.retrying_after())
    }

    /// The partitions that this consumer has now, in order.
    pub fn assignment(&self) -> Vec<(TopicName, PartitionIndex)> {
        self.shared.ledger.lock().partitions.keys().cloned().collect()
    }

    /// Hands out nothing more of a partition until [`GroupConsumer::resume`], or until it comes back from another member.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`] for a partition that this consumer does not have.
    pub fn pause(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), Error> {
        self.set_paused(topic, partition, true)
    }

    /// Goes on with a partition that was paused.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`] for a partition that this consumer does not have.
    pub fn resume(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), Error> {
        self.set_paused(topic, partition, false)
    }

    fn set_paused(&mut self, topic: &str, partition: PartitionIndex, paused: bool) -> Result<(), Error> {
        let name = topic_name(topic)?;
        self.find(&name, partition)?;
        if let Some(progress) = self.shared.ledger.lock().partitions.get_mut(&(name, partition)) {
            progress.paused = paused;
            let mut state = self.consumer.shared.state.lock();
            state.set_paused(progress.index, paused || progress.stopping);
        }
        self.consumer.shared.arrived.notify_one();
        self.consumer.shared.wanted.notify_one();
        Ok(())
    }

    /// Goes on elsewhere in one partition; that is also what is committed next.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`] for a partition that this consumer does not have; [`Error::Timeout`]. The position is then
    /// unchanged.
    pub async fn seek(&mut self, topic: &str, partition: PartitionIndex, to: impl Into<Start>) -> Result<(), Error> {
        let name = topic_name(topic)?;
        let (_, claim) = self.find(&name, partition)?;
        let cluster = &self.route.cluster;
        let (deadline, isolation) = (cluster.deadline("seek"), self.consumer.isolation());
        let offset = start_offset(cluster, deadline, &name, partition, to.into(), isolation).await?;
        let place = (name, partition);
        let mut ledger = self.shared.ledger.lock();
        let held = ledger.partitions.get_mut(&place);
        let Some(progress) = held.filter(|progress| progress.claim == claim) else {
            return Err(Error::PartitionsLost {
                partitions: Arc::from([place]),
                code: ErrorCode::IllegalGeneration,
            });
        };
        progress.handed = offset;
        progress.processed = offset;
        self.current.take_if(|current| current.place == place);
        self.consumer.shared.state.lock().seek(progress.index, offset);
        ledger.let_go(&place);
        drop(ledger);
        self.shared.returned.notify_one();
        self.consumer.shared.wanted.notify_one();
        Ok(())
    }

    /// Commits what was received, if auto commit is on, and leaves the group: others take over at once.
    ///
    /// # Errors
    /// Of the commit, as [`GroupConsumer::commit`]; the group has been left all the same.
    pub async fn close(self) -> Result<(), Error> {
        let (marks, loss) = {
            let mut ledger = self.shared.ledger.lock();
            ledger.take_back();
            if self.settings.auto_commit.is_some() {
                let loss = ledger.untold_loss(self.settings.max_poll_interval);
                (ledger.marks(|_| true), loss)
            } else {
                (Vec::new(), None)
            }
        };
        let deadline = self.route.cluster.deadline("commit before leaving");
        let committed = self.orders.place(marks, deadline).await;
        self.driver.abort();
        let (who, places) = {
            let mut ledger = self.shared.ledger.lock();
            let places = std::mem::take(&mut ledger.partitions);
            (ledger.identity.clone(), places)
        };
        if !places.is_empty() {
            self.listener.revoked(&places.into_keys().collect::<Vec<_>>());
        }
        driver::leave(&self.route, &who).await;
        loss.map_or(committed, Err)
    }

    fn find(&self, topic: &TopicName, partition: PartitionIndex) -> Result<(usize, Claim), Error> {
        let ledger = self.shared.ledger.lock();
        match ledger.partitions.get(&(topic.clone(), partition)) {
            Some(progress) => Ok((progress.index, progress.claim)),
            None => Err(Error::UnknownPartition {
                topic: topic.clone(),
                partition,
                partitions: ledger.partitions.keys().filter(|(other, _)| other == topic).count(),
            }),
        }
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.driver.abort();
        self.committer.abort();
    }
}

impl fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupConsumer")
            .field("group_id", &self.route.group_id)
            .field("assignment", &self.assignment())
            .finish_non_exhaustive()
    }
}
