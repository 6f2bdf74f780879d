//! The client's shared core: which broker to ask, through which connection, with what is known of the topics.
//!
//! Shared by all clones of a client and by its producers and consumers. Decides where a request goes; what is asked, and
//! how often, is decided by the callers.

pub(crate) mod metadata;
pub(crate) mod pool;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::head::Head;
use headwater_protocol::id::{PartitionIndex, ProducerEpoch, ProducerId, TopicId};
use headwater_protocol::stranger::Stranger;
use headwater_protocol::topic::TopicName;

use crate::address::Address;
use crate::cluster::metadata::Metadata;
use crate::cluster::pool::Pool;
use crate::cluster::watch::{SILENT_AFTER, watch_over};
use crate::connection::{Connection, ConnectionSettings, probe};
use crate::deadline::{Backoff, BackoffLimits, Deadline};
use crate::error::{Error, Sign};
use crate::requests::{self, Leader, ResponseError, TopicImage};
use crate::runtime::transport::Connector;
use crate::runtime::{self, sleep, timeout};
use crate::settings::Defaults;
use crate::statistics::AddressStatistics;
use crate::tls::TlsSettings;

/// After so many that do not answer soon, one is waited for.
const OTHERS_ASKED_MAX: usize = 3;

/// Brokers that are asked for leaders in turn.
const BROKERS_ASKED_MAX: usize = 3;

/// Everything that a client was configured with.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) bootstrap: Vec<Address>,
    pub(crate) connection: ConnectionSettings,
    /// How long to try again when no address answers at first.
    pub(crate) bootstrap_timeout: Duration,
    /// For a whole call with all its attempts.
    pub(crate) call_timeout: Duration,
    /// How long an unknown topic may take to appear.
    pub(crate) metadata_timeout: Duration,
    /// How old metadata may become.
    pub(crate) metadata_age_max: Duration,
    pub(crate) backoff: BackoffLimits,
    pub(crate) connector: Arc<dyn Connector>,
    /// How the connector is made, if that is not said otherwise.
    pub(crate) tls: TlsSettings,
    /// What producers and consumers begin with.
    pub(crate) defaults: Defaults,
}

pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) metadata: Metadata,
    pub(crate) pool: Pool,
    /// Where the search for a reachable broker begins.
    next_broker: AtomicUsize,
    own: Weak<Self>,
}

/// Where to send what concerns one partition.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) topic_id: TopicId,
    pub(crate) connection: Connection,
}

impl Cluster {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        let pool = Pool::new(
            Arc::clone(&settings.connector),
            settings.connection.clone(),
            settings.backoff,
        );
        let cluster = Arc::new_cyclic(|own| Self {
            own: own.clone(),
            settings,
            metadata: Metadata::default(),
            pool,
            next_broker: AtomicUsize::new(0),
        });
        runtime::spawn(watch_over(Arc::downgrade(&cluster)));
        runtime::spawn(keep_fresh(Arc::downgrade(&cluster), cluster.settings.metadata_age_max));
        cluster
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.settings.backoff)
    }

    /// A deadline for one call of the user.
    pub(crate) fn deadline(&self, operation: &'static str) -> Deadline {
        Deadline::after(self.settings.call_timeout, operation)
    }

    /// Finds out that some broker answers. Every address is tried, and again for a while unless it is certain that something else
    /// is there.
    pub(crate) async fn greet(&self) -> Result<(), Error> {
        let deadline = Deadline::after(self.settings.bootstrap_timeout, "connect");
        let mut backoff = self.backoff();
        loop {
            let Err(error) = self.any().await else { return Ok(()) };
            let is_final = match &error {
                Error::NotHeadwater { sign, .. } => sign.is_certain(),
                error => !error.is_worth_another_attempt(),
            };
            let pause = backoff.next_pause();
            if is_final || deadline.is_over_after(pause) {
                return Err(self.look_closer(error).await);
            }
            sleep(pause).await;
        }
    }

    /// Kafka's brokers just hang up.
    async fn look_closer(&self, error: Error) -> Error {
        let (sign, limit) = (Sign::Speaks(Stranger::Kafka), self.settings.connection.connect_timeout);
        match error {
            Error::NotHeadwater {
                address,
                sign: Sign::Closes,
            } if probe::speaks_kafka(&*self.settings.connector, &address, limit).await => {
                Error::NotHeadwater { address, sign }
            }
            error => error,
        }
    }

    /// Where a broker may be.
    fn candidates(&self) -> Vec<Address> {
        let mut candidates = self.metadata.brokers();
        for address in &self.settings.bootstrap {
            if !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        candidates
    }

    /// A connection to any broker: of those that are open another one each time, as one that is cut off from the others does not know
    /// what they know; if there is none, the first that can be made.
    pub(crate) async fn any(&self) -> Result<Connection, Error> {
        let mut candidates = self.candidates();
        let open = || candidates.iter().filter_map(|address| self.pool.open(address));
        let mut answering: Vec<Connection> = open().filter(|connection| !is_silent(connection)).collect();
        if !answering.is_empty() {
            let turn = self.next_broker.fetch_add(1, Ordering::Relaxed) % answering.len();
            return Ok(answering.swap_remove(turn));
        }
        let silent = open().next();
        let start = self.next_broker.fetch_add(1, Ordering::Relaxed) % candidates.len().max(1);
        // A broker that does not answer is not asked again while there may be another.
        candidates.retain(|address| self.pool.open(address).is_none());
        let start = start % candidates.len().max(1);
        candidates.rotate_left(start);
        let mut last = Error::config("bootstrap", "there is no address");
        for address in &candidates {
            match self.connect(address).await {
                Ok(connection) => return Ok(connection),
                // Of several addresses one where a broker may come is told.
                Err(Error::NotHeadwater { sign, .. }) if sign.is_certain() && last.is_retriable() => {}
                Err(error) => last = error,
            }
        }
        silent.ok_or(last)
    }

    /// Asks any broker, again and again until the deadline.
    pub(crate) async fn ask_any<H: Head, T>(
        &self,
        deadline: Deadline,
        request: &H,
        read: impl Fn(&[u8]) -> Result<T, ResponseError>,
    ) -> Result<T, Error> {
        let read = &read;
        let attempt = || async move {
            let connection = self.any().await?;
            let frame = connection.call(request).await?;
            connection.read(&frame, read)
        };
        deadline.retry(self.backoff(), attempt).await
    }

    /// Asks the partition's leader, again and again until the deadline, with fresh metadata after each failure.
    pub(crate) async fn ask_leader<H: Head, T>(
        &self,
        deadline: Deadline,
        (topic, partition): (&TopicName, PartitionIndex),
        request: impl Fn(TopicId) -> H,
        read: impl Fn(&[u8]) -> Result<T, ResponseError>,
    ) -> Result<T, Error> {
        let stale = &AtomicBool::new(false);
        let (request, read) = (&request, &read);
        let attempt = || async move {
            if stale.swap(false, Ordering::Relaxed) {
                self.refresh(std::slice::from_ref(topic)).await?;
            }
            let result = async {
                let Route { topic_id, connection } = self.route(topic, partition).await?;
                let frame = connection.call(&request(topic_id)).await?;
                connection.read(&frame, read)
            };
            let result = result.await;
            if let Err(error) = &result {
                stale.store(error.calls_for_metadata(), Ordering::Relaxed);
            }
            result
        };
        deadline.retry(self.backoff(), attempt).await
    }

    /// The connection to the core that owns the partition.
    pub(crate) async fn route(&self, topic: &TopicName, partition: PartitionIndex) -> Result<Route, Error> {
        let mut image = self.topic(topic).await?;
        if image.partitions.len() <= partition.as_usize() {
            // The topic may have got it since.
            self.refresh(std::slice::from_ref(topic)).await?;
            image = self.known_topic(topic)?;
        }
        let leader = leader(&image, topic, partition)?;
        let connection = self.connect(&leader.address).await?;
        Ok(Route {
            topic_id: image.id,
            connection,
        })
    }

    /// What has passed between this client and each address.
    pub(crate) fn statistics(&self) -> Vec<AddressStatistics> {
        self.pool.statistics()
    }

    /// The connection to a listener.
    pub(crate) async fn connect(&self, address: &Address) -> Result<Connection, Error> {
        self.pool.get(address).await.map_err(|mut error| {
            if let Error::Connect {
                address, is_advertised, ..
            } = &mut error
            {
                let mut given = self.settings.bootstrap.iter();
                *is_advertised = given.all(|given| given.host() != address.host());
            }
            error
        })
    }

    /// What is known of the topic; asks once if that is nothing.
    pub(crate) async fn topic(&self, name: &TopicName) -> Result<Arc<TopicImage>, Error> {
        if let Some(Ok(image)) = self.metadata.topic(name) {
            return Ok(image);
        }
        self.refresh(std::slice::from_ref(name)).await?;
        self.known_topic(name)
    }

    /// What is known of the topic, without asking.
    pub(crate) fn known_topic(&self, name: &TopicName) -> Result<Arc<TopicImage>, Error> {
        match self.metadata.topic(name) {
            Some(Ok(image)) => Ok(image),
            Some(Err(ErrorCode::UnknownTopicOrPartition)) | None => Err(Error::UnknownTopic(name.clone())),
            Some(Err(code)) => Err(Error::Broker {
                code,
                message: Arc::from(""),
            }),
        }
    }

    /// The topic, waiting up to the metadata timeout for it to appear.
    pub(crate) async fn await_topic(&self, name: &TopicName) -> Result<Arc<TopicImage>, Error> {
        match self.metadata.topic(name) {
            Some(Ok(image)) => Ok(image),
            _ => self.fresh_topic(name).await,
        }
    }

    /// The topic as it is now, waiting up to the metadata timeout for it to appear.
    pub(crate) async fn fresh_topic(&self, name: &TopicName) -> Result<Arc<TopicImage>, Error> {
        let deadline = Deadline::after(self.settings.metadata_timeout, "find topic");
        let unknown = &AtomicBool::new(false);
        let attempt = || async move {
            let asked = self.refresh(std::slice::from_ref(name)).await;
            let result = asked.and_then(|()| self.known_topic(name));
            unknown.store(matches!(result, Err(Error::UnknownTopic(_))), Ordering::Relaxed);
            match result {
                // Final anywhere else; here it may appear yet.
                Err(Error::UnknownTopic(_)) => Err(Error::Broker {
                    code: ErrorCode::UnknownTopicOrPartition,
                    message: Arc::from(""),
                }),
                result => result,
            }
        };
        match deadline.retry(self.backoff(), attempt).await {
            Err(Error::Timeout { .. }) if unknown.load(Ordering::Relaxed) => Err(Error::UnknownTopic(name.clone())),
            result => result,
        }
    }

    /// Whether there may be more than one broker.
    fn are_several(&self) -> bool {
        let known = self.metadata.brokers();
        let mut all = known.iter().chain(&self.settings.bootstrap);
        let first = all.next();
        all.any(|address| Some(address) != first)
    }

    /// Sees to it that there is another broker to be asked the next time. Nobody waits for that.
    fn have_another(&self) {
        let (mut open, mut others) = (0, Vec::new());
        for address in self.candidates() {
            match self.pool.open(&address) {
                Some(_) => open += 1,
                None => others.push(address),
            }
        }
        if open >= BROKERS_ASKED_MAX || others.is_empty() {
            return;
        }
        let other = others.swap_remove(self.next_broker.fetch_add(1, Ordering::Relaxed) % others.len());
        let own = self.own.clone();
        runtime::spawn(async move {
            let Some(cluster) = own.upgrade() else { return };
            if let Err(error) = cluster.connect(&other).await {
                tracing::debug!(%error, "another broker cannot be asked for leaders");
            }
        });
    }

    /// Asks again about these topics.
    pub(crate) async fn refresh(&self, topics: &[TopicName]) -> Result<(), Error> {
        if !self.metadata.topics().is_empty() {
            self.have_another();
        }
        let ask = |topics: Vec<TopicName>| async move {
            let request = requests::metadata(Some(topics.iter()));
            let tries = if self.are_several() { OTHERS_ASKED_MAX } else { 0 };
            for _ in 0..tries {
                let connection = self.any().await?;
                // One that does not answer is silent from now on, and another one is asked.
                if let Some(frame) = timeout(SILENT_AFTER, connection.call(&request)).await {
                    return connection.read(&frame?, requests::read_metadata);
                }
            }
            let connection = self.any().await?;
            let frame = connection.call(&request).await?;
            connection.read(&frame, requests::read_metadata)
        };
        let asked = self.metadata.refresh(topics, ask).await;
        if topics.iter().any(|topic| self.known_topic(topic).is_err()) {
            // Whoever does not know it may have been cut off from the others since before it was there.
            self.have_another();
        }
        asked
    }

    /// The identity of a new idempotent producer.
    pub(crate) async fn new_producer_id(&self, deadline: Deadline) -> Result<(ProducerId, ProducerEpoch), Error> {
        self.ask_any(deadline, &requests::init_producer_id(), requests::read_init_producer_id)
            .await
    }
}

/// Whether a request has waited for long on it.
fn is_silent(connection: &Connection) -> bool {
    connection.waits_for().is_some_and(|waited| waited >= SILENT_AFTER)
}

/// The leader of a partition in this image.
pub(crate) fn leader<'a>(
    image: &'a TopicImage,
    topic: &TopicName,
    partition: PartitionIndex,
) -> Result<&'a Leader, Error> {
    match image.partitions.get(partition.as_usize()) {
        Some(Ok(leader)) => Ok(leader),
        Some(Err(_code)) => Err(Error::NoLeader {
            topic: topic.clone(),
            partition,
        }),
        None => {
            let partitions = image.partitions.len();
            Err(Error::UnknownPartition {
                topic: topic.clone(),
                partition,
                partitions,
            })
        }
    }
}

/// Asks about all topics in use whenever what is known has reached its age limit.
async fn keep_fresh(cluster: Weak<Cluster>, age_max: Duration) {
    loop {
        sleep(age_max).await;
        let Some(cluster) = cluster.upgrade() else { return };
        let topics = cluster.metadata.topics();
        if !topics.is_empty()
            && let Err(error) = cluster.refresh(&topics).await
        {
            tracing::debug!(%error, "cannot refresh the metadata");
        }
    }
}
