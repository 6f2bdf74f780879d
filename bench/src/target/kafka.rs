//! Any broker that speaks Kafka's protocol, Headwater among them, through librdkafka.
//!
//! Settings that have a counterpart there are set, the same whoever answers; idempotence is on wherever all acknowledgements are
//! asked for, as with Headwater's client. Note that Kafka acknowledges from the page cache unless told otherwise
//! (`flush.messages=1`). What passes while leaders change is asked again, and never taken for an answer.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryFutureExt as _;
use futures::future::MapErr;
use headwater_client::{Acks, PartitionIndex};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use rdkafka::util::get_rdkafka_version;
use rdkafka::{Offset, TopicPartitionList};
use tokio::net::TcpStream;

use super::{
    Outgoing, Position, ProducerSettings, Replicas, Replication, STAMP_HEADER, Span, Target, TargetConsumer,
    TargetProducer, TopicShape,
};
use crate::error::BenchError;
use crate::load::intake::Intake;

/// How long a broker may take for what is no record.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks whether a new topic can be written to, which no broker tells by itself.
const LOOK: Duration = Duration::from_millis(50);

/// Between two tries while librdkafka's queue is full, which it does not tell the end of.
const QUEUE_FULL: Duration = Duration::from_micros(200);

/// How long a broker that is there may take to take a connection.
const CONNECTED_WITHIN: Duration = Duration::from_secs(1);

/// The setting of a topic.
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// Most requests of an idempotent producer on their way to a broker.
const IN_FLIGHT_MAX: usize = 5;

/// A cluster.
#[derive(Clone)]
pub struct Kafka {
    bootstrap: String,
    /// For what is asked of it.
    asking: Arc<BaseConsumer>,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("bootstrap", &self.bootstrap)
            .finish_non_exhaustive()
    }
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

/// Whether an error passes by itself: a broker has died, or is about to lead.
fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let passing = [
        Code::AllBrokersDown,
        Code::BrokerTransportFailure,
        Code::LeaderNotAvailable,
        Code::NotLeaderForPartition,
        Code::OperationTimedOut,
        Code::ReplicaNotAvailable,
        Code::RequestTimedOut,
        Code::UnknownPartition,
        Code::UnknownTopicOrPartition,
        Code::FencedLeaderEpoch,
        Code::UnknownLeaderEpoch,
        Code::OffsetNotAvailable,
    ];
    error.rdkafka_error_code().is_some_and(|code| passing.contains(&code))
}

/// Asks until there is an answer, or an error that does not pass, for as long as patience lasts.
fn patiently<R>(patience: Duration, mut ask: impl FnMut() -> Result<R, KafkaError>) -> Result<R, KafkaError> {
    let until = Instant::now() + patience;
    loop {
        match ask() {
            Err(error) if passes(&error) && Instant::now() < until => std::thread::sleep(LOOK),
            done => return done,
        }
    }
}

impl Kafka {
    fn config(&self) -> ClientConfig {
        config(&self.bootstrap)
    }

    /// librdkafka blocks for metadata and watermarks.
    async fn ask<R: Send + 'static>(
        &self,
        mut ask: impl FnMut(&BaseConsumer) -> Result<R, KafkaError> + Send + 'static,
    ) -> Result<R, BenchError> {
        let consumer = Arc::clone(&self.asking);
        let asked = tokio::task::spawn_blocking(move || patiently(PATIENCE, || ask(&consumer))).await;
        asked
            .map_err(|error| BenchError::Threads(error.into()))?
            .map_err(BenchError::other("cannot ask the Kafka broker"))
    }

    /// The partitions of a topic, in order; none if it is missing. And where each broker is.
    async fn look(&self, topic: &str) -> Result<(Vec<Partition>, Brokers), BenchError> {
        let topic = topic.to_owned();
        let looked = self.ask(move |consumer| {
            let metadata = consumer.fetch_metadata(Some(&topic), PATIENCE)?;
            let partitions = metadata.topics().first().map(MetadataTopic::partitions);
            let partitions = partitions.into_iter().flatten();
            let brokers = metadata.brokers().iter();
            let place = |port| u16::try_from(port).unwrap_or_default();
            Ok((
                partitions.map(Partition::of).collect::<Vec<_>>(),
                brokers
                    .map(|of| (of.id(), (of.host().to_owned(), place(of.port()))))
                    .collect(),
            ))
        });
        let (mut partitions, brokers) = looked.await?;
        partitions.sort_unstable_by_key(|partition| partition.id);
        Ok((partitions, brokers))
    }

    async fn partitions(&self, topic: &str) -> Result<Vec<Partition>, BenchError> {
        Ok(self.look(topic).await?.0)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, BenchError> {
        self.config()
            .create()
            .map_err(BenchError::other("cannot connect to Kafka"))
    }

    /// The setting of a topic without which nothing is acknowledged, if the broker tells.
    async fn min_insync_replicas(&self, topic: &str) -> Option<u16> {
        let topic = [ResourceSpecifier::Topic(topic)];
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let described = self.admin().ok()?.describe_configs(&topic, &options).await.ok()?;
        let settings = described.into_iter().next()?.ok()?;
        settings.get(MIN_INSYNC_REPLICAS)?.value.as_ref()?.parse().ok()
    }
}

/// Where brokers are, by their ids.
type Brokers = HashMap<i32, (String, u16)>;

/// Whether a connection is taken there. Until a broker is missed, metadata names it as if it were alive.
async fn is_there((host, port): &(String, u16)) -> bool {
    let connect = TcpStream::connect((host.as_str(), *port));
    matches!(tokio::time::timeout(CONNECTED_WITHIN, connect).await, Ok(Ok(_)))
}

/// How many requests a producer may have on their way to a broker.
fn in_flight_max(settings: &ProducerSettings) -> usize {
    (settings.in_flight_bytes / settings.batch_bytes.max(1)).clamp(1, IN_FLIGHT_MAX)
}

impl Target for Kafka {
    type Producer = KafkaProducer;
    type Consumer = KafkaConsumer;

    fn client(settings: &ProducerSettings) -> String {
        let in_flight = in_flight_max(settings);
        let (_, version) = get_rdkafka_version();
        // It counts messages where it means requests: findings/librdkafka-counts-messages-for-requests.sh
        let of_each = match settings.acks {
            Acks::All => ", one of each partition",
            Acks::None | Acks::Leader => "",
        };
        format!("librdkafka {version}, {settings}, up to {in_flight} requests in flight to each broker{of_each}")
    }

    async fn connect(bootstrap: &str) -> Result<Self, BenchError> {
        let asking = config(bootstrap)
            .create()
            .map_err(BenchError::other("cannot ask the Kafka broker"))?;
        let kafka = Self {
            bootstrap: bootstrap.to_owned(),
            asking: Arc::new(asking),
        };
        kafka
            .ask(|consumer| consumer.fetch_metadata(None, PATIENCE).map(drop))
            .await?;
        Ok(kafka)
    }

    async fn ensure_topic(&self, topic: &str, shape: TopicShape) -> Result<usize, BenchError> {
        let there = self.partitions(topic).await?;
        if !there.is_empty() {
            return with_leaders(there.len(), PATIENCE, || self.partitions(topic)).await;
        }
        let factor = shape.replication_factor.map_or(-1, i32::from);
        let min = shape.min_insync_replicas.map(|count| count.to_string());
        let mut wanted = NewTopic::new(topic, shape.partitions.cast_signed(), TopicReplication::Fixed(factor));
        if let Some(min) = &min {
            wanted = wanted.set(MIN_INSYNC_REPLICAS, min);
        }
        let made = self
            .admin()?
            .create_topics([&wanted], &AdminOptions::new())
            .await
            .map_err(BenchError::other("cannot make the topic"))?;
        for result in made {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(BenchError::other("cannot make the topic")(code)),
            }
        }
        let count = with_leaders(shape.partitions as usize, PATIENCE, || self.partitions(topic)).await?;
        // Each leader is asked once, so that it knows that it is one before records come.
        self.spans(topic).await?;
        Ok(count)
    }

    async fn replication(&self, topic: &str) -> Result<Option<Replication>, BenchError> {
        let partitions = self.partitions(topic).await?;
        let min_insync_replicas = self.min_insync_replicas(topic).await;
        Ok(partitions.first().map(|partition| Replication {
            replication_factor: partition.replicas.len() as u16,
            min_insync_replicas,
        }))
    }

    async fn replicas(&self, topic: &str) -> Result<Replicas, BenchError> {
        let (partitions, brokers) = self.look(topic).await?;
        let mut holders: Vec<i32> = partitions.iter().flat_map(|of| of.replicas.iter().copied()).collect();
        holders.sort_unstable();
        holders.dedup();
        let mut all_in_sync = partitions.iter().all(|partition| partition.is_whole);
        for holder in holders {
            let there = async { is_there(brokers.get(&holder)?).await.then_some(()) };
            all_in_sync = all_in_sync && there.await.is_some();
        }
        Ok(Replicas {
            leaders: partitions.iter().map(|partition| partition.leader).collect(),
            // librdkafka does not tell the id of the active controller.
            coordinator: None,
            all_in_sync,
        })
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), BenchError> {
        let deleted = self.admin()?.delete_topics(&[topic], &AdminOptions::new()).await;
        deleted.map(drop).map_err(BenchError::other("cannot delete the topic"))
    }

    async fn spans(&self, topic: &str) -> Result<Vec<Span>, BenchError> {
        let partitions = self.partitions(topic).await?;
        if partitions.is_empty() {
            return Err(BenchError::other("cannot look up the topic")(format!(
                "there is no topic {topic}"
            )));
        }
        let topic = topic.to_owned();
        self.ask(move |consumer| {
            let span = |partition: &Partition| {
                // One that has a leader by the metadata may still be about to have it.
                let ask = || consumer.fetch_watermarks(&topic, partition.id, PATIENCE);
                let (low, high) = patiently(PATIENCE, ask)?;
                Ok(Span {
                    start: Position(low.cast_unsigned()),
                    end: Position(high.cast_unsigned()),
                })
            };
            partitions.iter().map(span).collect()
        })
        .await
    }

    async fn producer(&self, topic: &str, settings: &ProducerSettings) -> Result<KafkaProducer, BenchError> {
        let acks = match settings.acks {
            Acks::None => "0",
            Acks::Leader => "1",
            Acks::All => "all",
        };
        let producer = self
            .config()
            .set("acks", acks)
            .set("enable.idempotence", (settings.acks == Acks::All).to_string())
            .set("batch.size", settings.batch_bytes.to_string())
            .set("batch.num.messages", "1000000")
            .set("message.max.bytes", settings.batch_bytes.max(2 << 20).to_string())
            .set("linger.ms", (settings.linger.as_secs_f64() * 1e3).to_string())
            .set(
                "max.in.flight.requests.per.connection",
                in_flight_max(settings).to_string(),
            )
            .set("compression.codec", settings.compression.to_string())
            .set(
                "queue.buffering.max.kbytes",
                (settings.memory_bytes >> 10).max(1).to_string(),
            )
            .set("queue.buffering.max.messages", "0")
            .create();
        Ok(KafkaProducer {
            producer: producer.map_err(BenchError::other("cannot start a Kafka producer"))?,
            topic: topic.to_owned(),
        })
    }

    async fn consumer(&self, topic: &str, from: &[Position]) -> Result<KafkaConsumer, BenchError> {
        let failed = || BenchError::other("cannot start a Kafka consumer");
        let consumer: StreamConsumer = self
            .config()
            .set("group.id", "headwater-bench")
            .set("enable.auto.commit", "false")
            .set("fetch.message.max.bytes", (8 << 20).to_string())
            .set("check.crcs", "true")
            // Whenever there is room again, rather than a second later.
            .set("queued.min.messages", "1000000")
            .set("fetch.queue.backoff.ms", "5")
            .create()
            .map_err(failed())?;
        let mut assignment = TopicPartitionList::new();
        for (partition, position) in (0..).zip(from) {
            let offset = Offset::Offset(position.0.cast_signed());
            assignment
                .add_partition_offset(topic, partition, offset)
                .map_err(failed())?;
        }
        consumer.assign(&assignment).map_err(failed())?;
        Ok(KafkaConsumer {
            consumer,
            failing_since: None,
        })
    }
}

/// What is of interest of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Partition {
    id: i32,
    leader: Option<i32>,
    replicas: Vec<i32>,
    /// Whether all replicas are in sync.
    is_whole: bool,
}

impl Partition {
    fn of(partition: &MetadataPartition) -> Self {
        Self {
            id: partition.id(),
            leader: Some(partition.leader()).filter(|leader| *leader >= 0 && partition.error().is_none()),
            replicas: partition.replicas().to_vec(),
            is_whole: partition.isr().len() == partition.replicas().len(),
        }
    }
}

/// Waits until a topic has so many partitions, or more, and each has a leader: Kafka answers that a topic is made before it can be
/// written to, and producers would count the wait for that as latency. Returns how many there are.
async fn with_leaders<L>(wanted: usize, patience: Duration, mut look: impl FnMut() -> L) -> Result<usize, BenchError>
where
    L: Future<Output = Result<Vec<Partition>, BenchError>>,
{
    let started = Instant::now();
    loop {
        let partitions = look().await?;
        let led = partitions.iter().filter(|partition| partition.leader.is_some()).count();
        if led >= wanted && led == partitions.len() {
            return Ok(led);
        }
        if started.elapsed() >= patience {
            let reason = format!(
                "after {} s {led} of {} partitions have a leader",
                patience.as_secs(),
                wanted.max(partitions.len())
            );
            return Err(BenchError::other("the topic cannot be written to yet")(reason));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A producer with connections of its own.
pub struct KafkaProducer {
    producer: FutureProducer,
    topic: String,
}

/// What librdkafka says of a record.
pub struct Completion(MapErr<DeliveryFuture, fn(futures::channel::oneshot::Canceled) -> BenchError>);

impl Future for Completion {
    type Output = Result<(), BenchError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        let delivered = std::pin::Pin::new(&mut self.0).poll(context);
        delivered.map(|delivered| match delivered? {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(BenchError::other("a record was not acknowledged")(error)),
        })
    }
}

impl TargetProducer for KafkaProducer {
    type Completion = Completion;

    async fn send(&self, outgoing: &Outgoing<'_>) -> Result<Completion, BenchError> {
        let mut record = FutureRecord::to(&self.topic)
            .partition(outgoing.partition.get())
            .key(outgoing.key)
            .payload(outgoing.value);
        if outgoing.stamp.is_some() {
            let header = Header {
                key: STAMP_HEADER,
                value: outgoing.stamp,
            };
            record = record.headers(OwnedHeaders::new_with_capacity(1).insert(header));
        }
        loop {
            match self.producer.send_result(record) {
                Ok(delivery) => {
                    return Ok(Completion(
                        delivery.map_err(|gone| BenchError::other("the producer ended")(gone)),
                    ));
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    tokio::time::sleep(QUEUE_FULL).await;
                }
                Err((error, _)) => return Err(BenchError::other("cannot send")(error)),
            }
        }
    }

    async fn close(self) -> Result<(), BenchError> {
        let flushed = tokio::task::spawn_blocking(move || self.producer.flush(4 * PATIENCE)).await;
        let flushed = flushed.map_err(|error| BenchError::Threads(error.into()))?;
        flushed.map_err(BenchError::other("records were not acknowledged"))
    }
}

/// A consumer with connections of its own.
pub struct KafkaConsumer {
    consumer: StreamConsumer,
    /// Since when there have been errors and no records.
    failing_since: Option<Instant>,
}

impl TargetConsumer for KafkaConsumer {
    async fn receive(&mut self, intake: &mut Intake) -> Result<(), BenchError> {
        let message: BorrowedMessage<'_> = loop {
            match self.consumer.recv().await {
                Ok(message) => break message,
                // librdkafka tries on, and says so each time that a broker is not there.
                Err(error) if passes(&error) => {
                    let since = *self.failing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= PATIENCE {
                        return Err(BenchError::other("cannot consume")(error));
                    }
                }
                Err(error) => return Err(BenchError::other("cannot consume")(error)),
            }
        };
        self.failing_since = None;
        let partition = PartitionIndex::new(message.partition());
        let stamp = message
            .headers()
            .and_then(|headers| headers.iter().next())
            .and_then(|header| header.value);
        intake.begin();
        intake.record(partition, message.key(), stamp, message.payload());
        intake.end(partition, Position(message.offset().cast_unsigned() + 1));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
