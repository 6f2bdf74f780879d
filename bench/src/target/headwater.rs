//! Headwater, through its own client.

mod group;
pub mod slow;

use std::time::{Duration, Instant};

use headwater_client::{
    Advance, BrokerId, Client, Consumer, Delivery, Error, ErrorCode, HeaderRef, NewTopic, Offset, OffsetSpec,
    PartitionDescription, PartitionIndex, Producer, Record, Records, Skip, SkipCause, Start,
};

use super::{
    Outgoing, Position, ProducerSettings, Replicas, Replication, STAMP_HEADER, Span, Target, TargetConsumer,
    TargetProducer, TopicShape,
};
use crate::error::BenchError;
use crate::load::intake::Intake;
use group::Members;

/// The setting of a topic.
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// So long a broker may take to hear of all others that are there.
const ALL_THERE_WITHIN: Duration = Duration::from_secs(10);

/// Between two tries.
const LOOK: Duration = Duration::from_millis(20);

/// A Headwater broker.
#[derive(Debug, Clone)]
pub struct Headwater {
    bootstrap: String,
    /// For administration.
    client: Client,
    /// Each consumer is a group of so many members, if there are any.
    group_members: u16,
}

async fn connect(bootstrap: &str) -> Result<Client, BenchError> {
    // TLS and the like are said by the environment: HEADWATER_CLIENT_TLS_CA.
    let told = Client::builder()
        .bootstrap([bootstrap])
        .set_from_env("HEADWATER_CLIENT_");
    let connected = match told {
        Ok(builder) => builder.build().await,
        Err(error) => Err(error),
    };
    connected.map_err(BenchError::client("cannot connect"))
}

impl Target for Headwater {
    type Producer = HeadwaterProducer;
    type Consumer = HeadwaterConsumer;

    fn client(settings: &ProducerSettings) -> String {
        let in_flight = settings.in_flight_bytes >> 20;
        format!("Headwater's, {settings}, up to {in_flight} MiB of a partition in flight")
    }

    async fn connect(bootstrap: &str) -> Result<Self, BenchError> {
        Ok(Self {
            bootstrap: bootstrap.to_owned(),
            client: connect(bootstrap).await?,
            group_members: 0,
        })
    }

    async fn ensure_topic(&self, topic: &str, shape: TopicShape) -> Result<usize, BenchError> {
        let admin = self.client.admin();
        let mut wanted = NewTopic::new(topic).partitions(shape.partitions.cast_signed());
        if let Some(factor) = shape.replication_factor {
            wanted = wanted.replication_factor(factor.cast_signed());
        }
        if let Some(count) = shape.min_insync_replicas {
            wanted = wanted.config(MIN_INSYNC_REPLICAS, count);
        }
        let until = Instant::now() + ALL_THERE_WITHIN;
        loop {
            match admin.create_topic(wanted.clone()).await {
                Ok(created) => return Ok(created.partitions),
                Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => break,
                // Who is asked may not have heard yet of brokers that are ready.
                Err(error) if error.code() == Some(ErrorCode::InvalidReplicationFactor) && Instant::now() < until => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => return Err(BenchError::client("cannot make the topic")(error)),
            }
        }
        let described = admin.describe_topic(topic).await;
        let described = described.map_err(BenchError::client("cannot look up the topic"))?;
        Ok(described.partitions.len())
    }

    async fn replication(&self, topic: &str) -> Result<Option<Replication>, BenchError> {
        let described = self.client.admin().describe_topic(topic).await;
        let described = described.map_err(BenchError::client("cannot look up the topic"))?;
        let replicas = described.partitions.first().map(|partition| &partition.replicas);
        Ok(replicas.map(|replicas| Replication {
            replication_factor: replicas.replicas.len() as u16,
            min_insync_replicas: Some(replicas.min_isr),
        }))
    }

    async fn replicas(&self, topic: &str) -> Result<Replicas, BenchError> {
        let admin = self.client.admin();
        let described = admin.describe_topic(topic).await;
        let described = described.map_err(BenchError::client("cannot look up the topic"))?;
        let leader = |partition: &PartitionDescription| Some(partition.leader.get()).filter(|leader| *leader >= 0);
        let cluster = admin.list_brokers().await;
        let cluster = cluster.map_err(BenchError::client("cannot ask for the brokers"))?;
        let quorum = admin.describe_quorum().await;
        let quorum = quorum.map_err(BenchError::client("cannot ask for the active coordinator"))?;
        Ok(Replicas {
            leaders: described.partitions.iter().map(leader).collect(),
            coordinator: quorum.active.map(BrokerId::get),
            all_in_sync: cluster.under_replicated == 0 && cluster.brokers.iter().all(|broker| !broker.is_fenced),
        })
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), BenchError> {
        let deleted = self.client.admin().delete_topic(topic).await;
        deleted.map_err(BenchError::client("cannot delete the topic"))
    }

    async fn spans(&self, topic: &str) -> Result<Vec<Span>, BenchError> {
        let admin = self.client.admin();
        let list = async |spec| {
            let listed = admin.list_offsets(topic, spec).await;
            listed.map_err(BenchError::client("cannot look up the topic's offsets"))
        };
        let starts = list(OffsetSpec::Earliest).await?;
        let ends = list(OffsetSpec::Latest).await?;
        let position = |offset: Option<Offset>| Position(offset.unwrap_or_default().get());
        let spans = starts.into_iter().zip(ends).map(|(start, end)| Span {
            start: position(start),
            end: position(end),
        });
        Ok(spans.collect())
    }

    async fn producer(&self, topic: &str, settings: &ProducerSettings) -> Result<HeadwaterProducer, BenchError> {
        let producer = connect(&self.bootstrap)
            .await?
            .producer()
            .batch_bytes(settings.batch_bytes)
            .in_flight_bytes_max(settings.in_flight_bytes)
            .memory_max(settings.memory_bytes)
            .linger(settings.linger)
            .compression(settings.compression)
            .acks(settings.acks)
            .build()
            .await;
        let producer = producer.map_err(BenchError::client("cannot start a producer"))?;
        // The first record would else wait for the topic's metadata.
        let known = producer.partition_count(topic).await;
        known.map_err(BenchError::client("cannot look up the topic"))?;
        Ok(HeadwaterProducer {
            producer,
            topic: topic.to_owned(),
        })
    }

    async fn consumer(&self, topic: &str, from: &[Position]) -> Result<HeadwaterConsumer, BenchError> {
        if self.group_members > 0 {
            let members = Members::join(&self.bootstrap, topic, self.group_members, from).await?;
            return Ok(HeadwaterConsumer::Group(members));
        }
        let client = connect(&self.bootstrap).await?;
        let mut builder = client.consumer().topics([topic]).start(Start::Earliest);
        for (partition, position) in from.iter().enumerate() {
            let partition = PartitionIndex::new(partition as i32);
            builder = builder.start_of(topic, partition, Offset::new(position.0));
        }
        let consumer = builder
            .build()
            .await
            .map_err(BenchError::client("cannot start a consumer"))?;
        Ok(HeadwaterConsumer::Alone(Box::new(consumer)))
    }

    fn grouped(self, members: u16) -> Result<Self, BenchError> {
        Ok(Self {
            group_members: members,
            ..self
        })
    }
}

/// A producer with a client of its own.
#[derive(Debug)]
pub struct HeadwaterProducer {
    producer: Producer,
    topic: String,
}

impl TargetProducer for HeadwaterProducer {
    type Completion = Completion;

    #[inline]
    async fn send(&self, outgoing: &Outgoing<'_>) -> Result<Completion, BenchError> {
        let header = HeaderRef {
            key: STAMP_HEADER,
            value: outgoing.stamp,
        };
        let headers = std::slice::from_ref(&header);
        let record = Record::to(&self.topic)
            .partition(outgoing.partition)
            .key(outgoing.key)
            .value(outgoing.value)
            .headers(if outgoing.stamp.is_some() { headers } else { &[] });
        let delivery = self.producer.send(record).await;
        delivery.map(Completion).map_err(BenchError::client("cannot send"))
    }

    async fn close(self) -> Result<(), BenchError> {
        let closed = self.producer.close().await;
        closed.map_err(BenchError::client("records were not acknowledged"))
    }
}

/// Of one record.
#[derive(Debug)]
pub struct Completion(Delivery);

impl Future for Completion {
    type Output = Result<(), BenchError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        let delivery = std::pin::Pin::new(&mut self.0).poll(context);
        delivery.map(|delivered| {
            let delivered = delivered.map(drop);
            delivered.map_err(BenchError::client("a record was not acknowledged"))
        })
    }
}

/// Consumers with clients of their own.
#[derive(Debug)]
pub enum HeadwaterConsumer {
    /// One that reads everything.
    Alone(Box<Consumer>),
    /// Those of a group, which share it.
    Group(Members),
}

impl TargetConsumer for HeadwaterConsumer {
    async fn receive(&mut self, intake: &mut Intake) -> Result<(), BenchError> {
        let received = match self {
            Self::Alone(consumer) => match consumer.advance().await {
                Err(error) => return pass(consumer, error, intake).await,
                received => received,
            },
            Self::Group(members) => members.advance().await,
        };
        match received.map_err(BenchError::client("cannot consume"))? {
            Advance::Records(records) => take(&records, intake),
            Advance::Skip(skip) => skipped(&skip, intake)?,
        }
        Ok(())
    }
}

/// Goes on behind offsets that hold no record. Where records were that are gone, there is no going on.
fn skipped(skip: &Skip, intake: &mut Intake) -> Result<(), BenchError> {
    let &Skip {
        partition, from, to, ..
    } = skip;
    if skip.cause != SkipCause::NoRecord {
        return Err(BenchError::Overtaken { partition, from, to });
    }
    intake.reached(partition, Position(to.get()));
    Ok(())
}

/// Passes a record that lies in a damaged batch; any other error ends the run. How many records such a batch has is not
/// known, as its header may be what is damaged, hence one by one.
async fn pass(consumer: &mut Consumer, error: Error, intake: &mut Intake) -> Result<(), BenchError> {
    match &error {
        Error::CorruptBatch {
            topic,
            partition,
            offset,
            ..
        } if intake.passes_damage() => {
            intake.unreadable(*partition, 1);
            intake.reached(*partition, Position(offset.next().get()));
            let sought = consumer.seek(topic.as_str(), *partition, offset.next()).await;
            sought.map_err(BenchError::client("cannot go on behind a damaged batch"))
        }
        _ => Err(BenchError::client("cannot consume")(error)),
    }
}

fn take(records: &Records, intake: &mut Intake) {
    let partition = records.partition();
    let mut next = records.first_offset();
    intake.begin();
    for record in records {
        let Ok(record) = record else {
            // The batch is whole, but this record and those behind it cannot be told apart.
            let rest = records.next_offset().distance_from(next).unwrap_or_default();
            intake.unreadable(partition, rest);
            break;
        };
        next = record.offset.next();
        let mut headers = record.headers;
        let stamp = headers.next().and_then(|header| header.value);
        intake.record(partition, record.key, stamp, record.value);
    }
    intake.end(partition, Position(records.next_offset().get()));
}
