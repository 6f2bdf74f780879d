//! Any broker that speaks Kafka's protocol, through librdkafka.
//!
//! Settings that have a counterpart there are set; idempotence is on wherever acknowledgements are asked for, as with
//! Headwater. Note that Kafka acknowledges from the page cache unless told otherwise (`flush.messages=1`).

use std::time::{Duration, Instant};

use futures::TryFutureExt as _;
use futures::future::MapErr;
use headwater_client::{Acks, PartitionIndex};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::{
    Outgoing, Position, ProducerSettings, Replicas, STAMP_HEADER, Span, Target, TargetConsumer, TargetProducer,
    TopicShape,
};
use crate::error::BenchError;
use crate::load::intake::Intake;

/// How long a broker may take for what is no record.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks whether a new topic can be written to, which no broker tells by itself.
const LOOK: Duration = Duration::from_millis(50);

/// Between two tries while librdkafka's queue is full, which it does not tell the end of.
const QUEUE_FULL: Duration = Duration::from_micros(200);

/// A cluster.
#[derive(Debug, Clone)]
pub struct Kafka {
    bootstrap: String,
}

impl Kafka {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// librdkafka blocks for metadata and watermarks.
    async fn ask<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&BaseConsumer) -> Result<R, KafkaError> + Send + 'static,
    ) -> Result<R, BenchError> {
        let failed = || BenchError::other("cannot ask the Kafka broker");
        let consumer: BaseConsumer = self.config().create().map_err(failed())?;
        let asked = tokio::task::spawn_blocking(move || ask(&consumer)).await;
        asked
            .map_err(|error| BenchError::Threads(error.into()))?
            .map_err(failed())
    }

    /// The partitions of a topic, in order; none if it is missing.
    async fn partitions(&self, topic: &str) -> Result<Vec<Partition>, BenchError> {
        let topic = topic.to_owned();
        let metadata = self.ask(move |consumer| {
            let metadata = consumer.fetch_metadata(Some(&topic), PATIENCE)?;
            let partitions = metadata.topics().first().map(MetadataTopic::partitions);
            let partitions = partitions.into_iter().flatten();
            Ok(partitions.map(Partition::of).collect::<Vec<_>>())
        });
        let mut partitions = metadata.await?;
        partitions.sort_unstable_by_key(|partition| partition.id);
        Ok(partitions)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, BenchError> {
        self.config()
            .create()
            .map_err(BenchError::other("cannot connect to Kafka"))
    }
}

impl Target for Kafka {
    type Producer = KafkaProducer;
    type Consumer = KafkaConsumer;

    async fn connect(bootstrap: &str) -> Result<Self, BenchError> {
        let kafka = Self {
            bootstrap: bootstrap.to_owned(),
        };
        kafka.ask(|consumer| consumer.fetch_metadata(None, PATIENCE)).await?;
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
            wanted = wanted.set("min.insync.replicas", min);
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
        with_leaders(shape.partitions as usize, PATIENCE, || self.partitions(topic)).await
    }

    async fn replicas(&self, topic: &str) -> Result<Replicas, BenchError> {
        let partitions = self.partitions(topic).await?;
        Ok(Replicas {
            leaders: partitions.iter().map(|partition| partition.leader).collect(),
            // librdkafka does not tell the id of the active controller.
            coordinator: None,
            all_in_sync: partitions.iter().all(|partition| partition.is_whole),
        })
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), BenchError> {
        let deleted = self.admin()?.delete_topics(&[topic], &AdminOptions::new()).await;
        deleted.map(drop).map_err(BenchError::other("cannot delete the topic"))
    }

    async fn spans(&self, topic: &str) -> Result<Vec<Span>, BenchError> {
        let partitions = self.partitions(topic).await?;
        let topic = topic.to_owned();
        self.ask(move |consumer| {
            let span = |partition: Partition| {
                let (low, high) = consumer.fetch_watermarks(&topic, partition.id, PATIENCE)?;
                Ok(Span {
                    start: Position(low.cast_unsigned()),
                    end: Position(high.cast_unsigned()),
                })
            };
            partitions.into_iter().map(span).collect()
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
        Ok(KafkaConsumer { consumer })
    }
}

/// What is of interest of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Partition {
    id: i32,
    leader: Option<i32>,
    /// Whether all replicas are in sync.
    is_whole: bool,
}

impl Partition {
    fn of(partition: &MetadataPartition) -> Self {
        Self {
            id: partition.id(),
            leader: Some(partition.leader()).filter(|leader| *leader >= 0 && partition.error().is_none()),
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
}

impl TargetConsumer for KafkaConsumer {
    async fn receive(&mut self, intake: &mut Intake) -> Result<(), BenchError> {
        let message = self.consumer.recv().await;
        let message: BorrowedMessage<'_> = message.map_err(BenchError::other("cannot consume"))?;
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
mod tests {
    use std::sync::Arc;

    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::load::intake::Timing;
    use crate::load::meter::Meter;
    use crate::load::tests::{options, plan};
    use crate::load::{clock::Moment, produce};
    use crate::workload::{Expectation, Verifier};

    fn partitions(leaders: &[bool]) -> Vec<Partition> {
        let partition = |(id, &has_leader): (i32, &bool)| Partition {
            id,
            leader: has_leader.then_some(1),
            is_whole: true,
        };
        (0..).zip(leaders).map(partition).collect()
    }

    #[test]
    fn a_new_topic_is_waited_for_until_each_of_its_partitions_has_a_leader() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            // As a broker tells it: not known yet, without leaders, some, all.
            let mut answers = [&[][..], &[false, false], &[true, false], &[true, true]].into_iter();
            let look = || std::future::ready(Ok(partitions(answers.next().unwrap())));
            assert_eq!(with_leaders(2, PATIENCE, look).await.unwrap(), 2);
            assert!(answers.next().is_none(), "it did not look until all had one");
            let never = with_leaders(2, Duration::ZERO, || std::future::ready(Ok(partitions(&[true, false])))).await;
            let text = never.unwrap_err().to_string();
            assert!(text.contains("1 of 2 partitions have a leader"), "{text}");
        });
    }

    #[test]
    fn a_partition_without_a_leader_is_seen_as_one() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 2, 1).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let kafka = Kafka::connect(&cluster.bootstrap_servers()).await.unwrap();
            assert_eq!(kafka.partitions("t").await.unwrap(), partitions(&[true, true]));
            cluster.partition_leader("t", 1, None).unwrap();
            assert_eq!(kafka.partitions("t").await.unwrap(), partitions(&[true, false]));
        });
    }

    /// On librdkafka's own cluster, which lives in this process and keeps records in memory.
    #[test]
    fn records_come_back_from_a_kafka_broker_as_they_were_sent() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 2, 1).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let keyed = options(&["--bytes", "5000", "--partitions", "2", "--keys", "uniform:10"]);
        runtime.block_on(async {
            let kafka = Kafka::connect(&cluster.bootstrap_servers()).await.unwrap();
            assert_eq!(kafka.ensure_topic("t", 2).await.unwrap(), 2);
            let plan = plan(&keyed);
            let meter = Meter::new("produce", Arc::default());
            let produced = produce::run(&kafka, &plan, &[Arc::clone(&meter)]).await.unwrap();
            assert_eq!(produced.acknowledged.values().sum::<u64>(), 500);

            let spans = kafka.spans("t").await.unwrap();
            let ends: Vec<_> = spans.iter().map(|span| span.end).collect();
            assert_eq!(ends.iter().map(|end| end.0).sum::<u64>(), 500);
            let from = vec![Position(0); 2];
            meter.open(Moment::now());
            let mut intake = Intake::new(meter, &from, Timing::None).verify(Verifier::new(
                Arc::clone(&plan.payload),
                Expectation::exactly(produced.acknowledged),
            ));
            let mut consumer = kafka.consumer("t", &from).await.unwrap();
            while !intake.has_reached(&ends) {
                consumer.receive(&mut intake).await.unwrap();
            }
            assert!(intake.finish(None).unwrap().damage.is_none());
        });
    }
}
