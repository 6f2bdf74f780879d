//! Configuration of group consumers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::group::{SERVER_RANGE, SERVER_ROUND_ROBIN, SERVER_STICKY};
use headwater_protocol::topic::TopicName;
use regex::Regex;

use super::listener::{RebalanceListener, Silent};
use super::{GroupConsumer, GroupSettings, PartitionCounts, Subscribed};
use crate::cluster::Cluster;
use crate::consumer::builder::{ConsumerBuilder, OffsetReset};
use crate::error::{Error, topic_name};

/// How the broker spreads partitions over the members of a group. All members of a group must choose the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Assignor {
    /// As few partitions as possible change hands, and the others go on being read while the group rebalances (KIP-429).
    #[default]
    Sticky,
    /// Of each topic neighbouring partitions to each member. Everybody gives up everything first.
    Range,
    /// The partitions of all topics in turn. Everybody gives up everything first.
    RoundRobin,
}

impl Assignor {
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Self::Sticky => SERVER_STICKY,
            Self::Range => SERVER_RANGE,
            Self::RoundRobin => SERVER_ROUND_ROBIN,
        }
    }
}

/// Configures a [`GroupConsumer`]; from [`Client::group_consumer`](crate::Client::group_consumer).
///
/// ```no_run
/// # async fn example(client: headwater_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use headwater_client::OffsetReset;
///
/// let billing = client.group_consumer("billing").topics(["orders", "payments"]).build().await?;
/// let audit = client
///     .group_consumer("audit")
///     .pattern(regex::Regex::new("^orders-")?)
///     .session_timeout(Duration::from_secs(10))
///     .offset_reset(OffsetReset::Latest)
///     .build()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct GroupConsumerBuilder {
    cluster: Arc<Cluster>,
    group_id: String,
    topics: Vec<String>,
    pattern: Option<Regex>,
    instance_id: Option<String>,
    settings: GroupSettings,
    fetching: ConsumerBuilder,
    listener: Arc<dyn RebalanceListener>,
}

/// What group consumers begin their configuration with, apart from how they fetch.
#[derive(Debug, Clone)]
pub(crate) struct GroupDefaults {
    pub(crate) settings: GroupSettings,
    /// Whether there is an auto commit at all.
    pub(crate) commits: bool,
    pub(crate) instance_id: Option<String>,
}

impl Default for GroupDefaults {
    fn default() -> Self {
        Self {
            settings: GroupSettings::default(),
            commits: true,
            instance_id: None,
        }
    }
}

impl GroupConsumerBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>, group_id: String) -> Self {
        let defaults = &cluster.settings.defaults;
        let settings = GroupSettings {
            auto_commit: defaults.group.settings.auto_commit.filter(|_| defaults.group.commits),
            reset: defaults.fetch.reset,
            ..defaults.group.settings
        };
        let instance_id = defaults.group.instance_id.clone();
        Self {
            fetching: ConsumerBuilder::new(Arc::clone(&cluster)),
            cluster,
            group_id,
            topics: Vec::new(),
            pattern: None,
            instance_id,
            settings,
            listener: Arc::new(Silent),
        }
    }

    /// Shares these topics, partitions that are added later included. One that does not exist is waited for: the group consumes it
    /// from its first record on once it is made.
    pub fn topics<S: Into<String>>(mut self, topics: impl IntoIterator<Item = S>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Shares all topics whose names match, instead of named ones; topics that are made later are found when the client's metadata
    /// reach their age limit ([`ClientBuilder::metadata_age_max`](crate::ClientBuilder::metadata_age_max)). The pattern may match
    /// anywhere in a name: anchor it with `^` and `$`. It never means internal topics, whose names begin with `__`.
    pub fn pattern(mut self, pattern: Regex) -> Self {
        self.pattern = Some(pattern);
        self
    }

    /// How the broker spreads the partitions. Default [`Assignor::Sticky`].
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.settings.assignor = assignor;
        self
    }

    /// How long the group may hear nothing from this consumer before it gives its partitions to others. The broker has limits
    /// (`groups.session_timeout_ms_min` and `_max`). Default 45 s.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.settings.session_timeout = timeout;
        self
    }

    /// How often the consumer says that it is there, and learns of a rebalance. Default 3 s; at most a third of the session timeout
    /// lets it miss two.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.settings.heartbeat_interval = interval;
        self
    }

    /// How long the group waits in a rebalance for this consumer to join again. Default 5 min.
    pub fn rebalance_timeout(mut self, timeout: Duration) -> Self {
        self.settings.rebalance_timeout = timeout;
        self
    }

    /// How long the application may take between two calls for records. Longer, and the consumer leaves the group, so that others
    /// take over, and says so with [`Error::PollIntervalExceeded`]. Default 5 min.
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.settings.max_poll_interval = interval;
        self
    }

    /// Makes this a static member: when a consumer with the same instance id is started again within the session timeout, it gets
    /// the same partitions without a rebalance (KIP-345). A static member does not leave the group when it is closed.
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.instance_id = Some(id.into());
        self
    }

    /// How often to commit what the application is done with; `None` leaves commits to the application. Default 5 s.
    pub fn auto_commit(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.auto_commit = interval.into();
        self
    }

    /// Where to begin in a partition for which the group has committed nothing, and where to go on when the position is out of
    /// range. Default [`OffsetReset::Earliest`], which skips nothing. With [`OffsetReset::Latest`] a partition that the topic has
    /// got since this consumer was made begins with its first record all the same. With [`OffsetReset::Error`] it fails with
    /// [`Error::NoCommittedOffset`], and the partition waits for a seek.
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.settings.reset = reset;
        self.fetching = self.fetching.offset_reset(reset);
        self
    }

    /// How to fetch, as for any consumer: sizes, waiting, checks. What else is set there has no effect.
    pub fn fetching(mut self, configure: impl FnOnce(ConsumerBuilder) -> ConsumerBuilder) -> Self {
        self.fetching = configure(self.fetching).offset_reset(self.settings.reset);
        self
    }

    /// Who is told when partitions come and go.
    pub fn listener(mut self, listener: impl RebalanceListener + 'static) -> Self {
        self.listener = Arc::new(listener);
        self
    }

    /// Begins to join the group. Partitions come later, with the calls for records.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting out of range or if there is nothing to share, [`Error::Timeout`].
    pub async fn build(self) -> Result<GroupConsumer, Error> {
        self.check()?;
        let fetch = self.fetching.fetch_settings()?;
        let subscribed = if let Some(pattern) = self.pattern {
            Subscribed::Pattern(pattern)
        } else {
            let mut topics = PartitionCounts::new();
            for topic in &self.topics {
                let name = topic_name(topic)?;
                let partitions = count_partitions(&self.cluster, &name).await?;
                topics.insert(name, partitions);
            }
            Subscribed::Topics(topics)
        };
        let setup = super::Setup {
            group_id: self.group_id,
            instance_id: self.instance_id,
            subscribed,
            settings: GroupSettings {
                isolation: fetch.isolation,
                ..self.settings
            },
            listener: self.listener,
        };
        Ok(GroupConsumer::start(self.cluster, setup, fetch))
    }

    fn check(&self) -> Result<(), Error> {
        let settings = &self.settings;
        if self.group_id.is_empty() {
            return Err(Error::config("group_consumer", "the group id must not be empty"));
        }
        if self.instance_id.as_ref().is_some_and(String::is_empty) {
            return Err(Error::config("instance_id", "must not be empty"));
        }
        if self.topics.is_empty() == self.pattern.is_none() {
            return Err(Error::config("topics", "name topics, or give a pattern"));
        }
        for (setting, value) in [
            ("session_timeout", settings.session_timeout),
            ("heartbeat_interval", settings.heartbeat_interval),
            ("rebalance_timeout", settings.rebalance_timeout),
            ("max_poll_interval", settings.max_poll_interval),
            ("auto_commit", settings.auto_commit.unwrap_or(Duration::from_secs(1))),
        ] {
            if value < Duration::from_millis(1) || value.as_millis() > i32::MAX as u128 {
                return Err(Error::config(setting, "must be at least 1 ms and below 25 days"));
            }
        }
        if settings.heartbeat_interval >= settings.session_timeout {
            return Err(Error::config(
                "heartbeat_interval",
                "must be shorter than the session timeout",
            ));
        }
        Ok(())
    }
}

/// How many partitions the topic has now. None if it is not there yet: the group rebalances when it is.
async fn count_partitions(cluster: &Cluster, topic: &TopicName) -> Result<usize, Error> {
    let attempt = || async move {
        cluster.refresh(std::slice::from_ref(topic)).await?;
        match cluster.known_topic(topic) {
            Ok(image) => Ok(image.partitions.len()),
            Err(Error::UnknownTopic(_)) => {
                tracing::warn!(%topic, "the topic does not exist; it is consumed as soon as it does");
                Ok(0)
            }
            Err(error) => Err(error),
        }
    };
    let deadline = cluster.deadline("start a group consumer");
    deadline.retry(cluster.backoff(), attempt).await
}

impl fmt::Debug for GroupConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupConsumerBuilder")
            .field("group_id", &self.group_id)
            .finish_non_exhaustive()
    }
}
