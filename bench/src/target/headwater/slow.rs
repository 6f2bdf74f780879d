//! A group of consumers that are slow, stop and die on purpose, to see what others notice of it.
//!
//! Nothing that it receives is verified: what its members die over comes again, and what they stop at does not come at all.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use headwater_client::{Error, GroupConsumer, GroupConsumerBuilder};

use super::group::{Shares, begin_at, new_name};
use super::{Position, connect};
use crate::error::BenchError;
use crate::load::clock::Moment;
use crate::load::meter::Meter;

/// What is wrong with the members.
pub const VICES: &str = "its members sleep 10 ms over each record; one in three stops asking for records and is put out of the \
                         group, and one in three dies every second without a word and comes back";

/// What a member that is slow does with a record.
const SLEEP: Duration = Duration::from_millis(10);

/// How long a member that dies lives each time. Its group waits for it until its session has ended.
const LIFE: Duration = Duration::from_secs(1);

/// When a member that has stopped is put out of the group.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// The shortest that a broker allows by default.
const SESSION: Duration = Duration::from_secs(6);

/// Where members come from.
#[derive(Debug, Clone)]
pub struct SlowGroup {
    bootstrap: String,
    topic: String,
    name: String,
    members: u16,
    shares: Shares,
    /// Counts what they receive.
    meter: Arc<Meter>,
}

impl SlowGroup {
    /// A new group of so many members, which begins at these positions.
    pub async fn new(
        bootstrap: &str,
        topic: &str,
        members: u16,
        from: &[Position],
        meter: Arc<Meter>,
    ) -> Result<Self, BenchError> {
        let name = new_name();
        begin_at(&connect(bootstrap).await?, &name, topic, from).await?;
        Ok(Self {
            bootstrap: bootstrap.to_owned(),
            topic: topic.to_owned(),
            name,
            members,
            shares: Shares::new(members),
            meter,
        })
    }

    /// Joins, and goes on until it is dropped.
    ///
    /// # Errors
    /// What a member would not get over by itself.
    ///
    /// # Panics
    /// Without members.
    pub async fn run(&self) -> Result<Infallible, BenchError> {
        let live = async |member: usize| match member % 3 {
            0 => self.dawdle(member).await,
            1 => self.stop(member).await,
            _ => self.die_often(member).await,
        };
        let members = (0..usize::from(self.members)).map(|member| Box::pin(live(member)));
        let (failed, ..) = futures::future::select_all(members).await;
        failed
    }

    /// Waits until all partitions are theirs.
    pub async fn settled(&self, partitions: usize) {
        self.shares.settled(partitions).await;
    }

    async fn dawdle(&self, member: usize) -> Result<Infallible, BenchError> {
        let mut consumer = self
            .join(|builder| builder.listener(self.shares.listener(member)))
            .await?;
        self.receive_slowly(&mut consumer).await
    }

    async fn stop(&self, member: usize) -> Result<Infallible, BenchError> {
        let configure = |builder: GroupConsumerBuilder| {
            let builder = builder.listener(self.shares.listener(member));
            builder.max_poll_interval(POLL_INTERVAL_MAX)
        };
        let mut consumer = self.join(configure).await?;
        self.receive_one(&mut consumer).await?;
        // Kept, and not asked again.
        std::future::pending().await
    }

    async fn die_often(&self, member: usize) -> Result<Infallible, BenchError> {
        let mut consumer = self
            .join(|builder| builder.listener(self.shares.listener(member)))
            .await?;
        // Its first life is as long as it takes until there is something to do.
        self.receive_one(&mut consumer).await?;
        loop {
            if let Ok(failed) = tokio::time::timeout(LIFE, self.receive_slowly(&mut consumer)).await {
                return failed;
            }
            // Without leaving: its group learns of it when the session has ended.
            drop(consumer);
            consumer = self.join(|builder| builder).await?;
        }
    }

    async fn join(
        &self,
        configure: impl FnOnce(GroupConsumerBuilder) -> GroupConsumerBuilder,
    ) -> Result<GroupConsumer, BenchError> {
        let builder = connect(&self.bootstrap).await?.group_consumer(&self.name);
        let builder = builder.topics([&self.topic]).session_timeout(SESSION);
        let builder = builder.heartbeat_interval(SESSION / 6);
        let consumer = configure(builder).build().await;
        consumer.map_err(BenchError::client("cannot join a slow group"))
    }

    async fn receive_slowly(&self, consumer: &mut GroupConsumer) -> Result<Infallible, BenchError> {
        loop {
            self.receive_one(consumer).await?;
            tokio::time::sleep(SLEEP).await;
        }
    }

    async fn receive_one(&self, consumer: &mut GroupConsumer) -> Result<(), BenchError> {
        loop {
            match consumer.recv().await {
                Ok(record) => {
                    let (now, bytes) = (Moment::now(), record.value.map_or(0, |value| value.len() as u64));
                    self.meter.progress.add(1, bytes);
                    if now >= self.meter.begin() {
                        self.meter.count(1, bytes);
                        self.meter.reached(now);
                    }
                    return Ok(());
                }
                // Such is the life of a member.
                Err(Error::PartitionsLost { .. } | Error::PollIntervalExceeded { .. }) => {}
                Err(error) if error.is_retriable() => {}
                Err(error) => return Err(BenchError::client("a slow group cannot consume")(error)),
            }
        }
    }
}
