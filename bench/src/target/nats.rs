//! NATS `JetStream`, through async-nats. A partition is a stream on file storage with one subject.
//!
//! `JetStream` has no batches, and each acknowledgement is a message of its own; records in flight are bounded by bytes
//! here, as its client does not. A key and its stamp travel in headers, as hexadecimal digits, because headers are text.

use std::sync::{Arc, OnceLock};

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap};
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use headwater_client::PartitionIndex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{
    Outgoing, Position, ProducerSettings, STAMP_HEADER, Span, Target, TargetConsumer, TargetProducer, TopicShape,
};
use crate::error::BenchError;
use crate::load::intake::Intake;

/// Name of the header that holds a record's key.
const KEY_HEADER: &str = "k";

/// Most bytes in flight: what a semaphore can count.
const BUDGET_MAX: usize = 1 << 30;

/// Smallest share of the budget in flight that a record takes.
const RECORD_BYTES_MIN: usize = 64;

/// A server.
#[derive(Debug, Clone)]
pub struct Nats {
    bootstrap: String,
    context: Context,
}

async fn connect(bootstrap: &str) -> Result<Client, BenchError> {
    let connected = async_nats::connect(bootstrap).await;
    connected.map_err(BenchError::other("cannot connect to NATS"))
}

fn stream_name(topic: &str, partition: usize) -> String {
    format!("{}-{partition}", topic.replace('.', "_"))
}

impl Nats {
    /// How many streams of consecutive numbers there are.
    async fn partitions(&self, topic: &str) -> usize {
        let mut count = 0;
        while self.context.get_stream(stream_name(topic, count)).await.is_ok() {
            count += 1;
        }
        count
    }
}

impl Target for Nats {
    type Producer = NatsProducer;
    type Consumer = NatsConsumer;

    fn client(settings: &ProducerSettings) -> String {
        // Neither batches nor lingers.
        format!("async-nats, up to {} MiB in flight", settings.in_flight_bytes >> 20)
    }

    async fn connect(bootstrap: &str) -> Result<Self, BenchError> {
        Ok(Self {
            bootstrap: bootstrap.to_owned(),
            context: jetstream::new(connect(bootstrap).await?),
        })
    }

    async fn ensure_topic(&self, topic: &str, shape: TopicShape) -> Result<usize, BenchError> {
        let there = self.partitions(topic).await;
        if there > 0 {
            return Ok(there);
        }
        for partition in 0..shape.partitions as usize {
            let name = stream_name(topic, partition);
            let config = Config {
                subjects: vec![name.clone()],
                name,
                storage: StorageType::File,
                num_replicas: shape.replication_factor.map_or(1, usize::from),
                ..Config::default()
            };
            let made = self.context.create_stream(config).await;
            made.map_err(BenchError::other("cannot make a stream"))?;
        }
        Ok(shape.partitions as usize)
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), BenchError> {
        for partition in 0..self.partitions(topic).await {
            let deleted = self.context.delete_stream(stream_name(topic, partition)).await;
            deleted.map_err(BenchError::other("cannot delete a stream"))?;
        }
        Ok(())
    }

    async fn spans(&self, topic: &str) -> Result<Vec<Span>, BenchError> {
        let mut spans = Vec::new();
        while let Ok(mut stream) = self.context.get_stream(stream_name(topic, spans.len())).await {
            let info = stream
                .info()
                .await
                .map_err(BenchError::other("cannot look up a stream"))?;
            // Sequences begin at 1, positions at 0.
            let first = info.state.first_sequence.saturating_sub(1);
            spans.push(Span {
                start: Position(first.min(info.state.last_sequence)),
                end: Position(info.state.last_sequence),
            });
        }
        Ok(spans)
    }

    async fn producer(&self, topic: &str, settings: &ProducerSettings) -> Result<NatsProducer, BenchError> {
        let budget = settings.in_flight_bytes.clamp(RECORD_BYTES_MIN, BUDGET_MAX);
        Ok(NatsProducer {
            context: jetstream::new(connect(&self.bootstrap).await?),
            topic: topic.to_owned(),
            in_flight: Arc::new(Semaphore::new(budget)),
            budget,
            failure: Arc::default(),
        })
    }

    async fn consumer(&self, topic: &str, from: &[Position]) -> Result<NatsConsumer, BenchError> {
        let context = jetstream::new(connect(&self.bootstrap).await?);
        let failed = || "cannot start a NATS consumer";
        let mut all = SelectAll::new();
        for (partition, position) in from.iter().enumerate() {
            let stream = context.get_stream(stream_name(topic, partition)).await;
            let stream = stream.map_err(BenchError::other(failed()))?;
            let config = pull::OrderedConfig {
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: position.0 + 1,
                },
                ..pull::OrderedConfig::default()
            };
            let consumer = stream
                .create_consumer(config)
                .await
                .map_err(BenchError::other(failed()))?;
            let messages = consumer.messages().await.map_err(BenchError::other(failed()))?;
            let partition = PartitionIndex::new(partition as i32);
            all.push(messages.map(move |message| (partition, message)).boxed());
        }
        Ok(NatsConsumer { messages: all })
    }
}

/// A producer with a connection of its own.
#[derive(Debug)]
pub struct NatsProducer {
    context: Context,
    topic: String,
    in_flight: Arc<Semaphore>,
    budget: usize,
    /// Of any record, the first.
    failure: Arc<OnceLock<String>>,
}

/// Waits for the acknowledgement of one record.
#[derive(Debug)]
pub struct Completion(JoinHandle<Result<(), String>>);

impl Future for Completion {
    type Output = Result<(), BenchError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context).map(|done| {
            let done = done.map_err(|error| BenchError::Threads(error.into()))?;
            done.map_err(BenchError::other("a record was not acknowledged"))
        })
    }
}

impl TargetProducer for NatsProducer {
    type Completion = Completion;

    async fn send(&self, outgoing: &Outgoing<'_>) -> Result<Completion, BenchError> {
        let failed = || BenchError::other("cannot send");
        let size = outgoing.value.len().clamp(RECORD_BYTES_MIN, self.budget);
        let permit = Arc::clone(&self.in_flight).acquire_many_owned(size as u32).await;
        let permit = permit.map_err(|closed| failed()(closed.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(KEY_HEADER, hex(outgoing.key));
        if let Some(stamp) = outgoing.stamp {
            headers.insert(STAMP_HEADER, hex(stamp));
        }
        let subject = stream_name(&self.topic, outgoing.partition.as_usize());
        let value = bytes::Bytes::copy_from_slice(outgoing.value);
        let sent = self.context.publish_with_headers(subject, headers, value).await;
        let acknowledgement = sent.map_err(|error| failed()(error.to_string()))?;
        let failure = Arc::clone(&self.failure);
        Ok(Completion(tokio::spawn(async move {
            let done = acknowledgement.await.map(drop).map_err(|error| error.to_string());
            if let Err(reason) = &done {
                // The first one is told.
                let _ = failure.set(reason.clone());
            }
            drop(permit);
            done
        })))
    }

    async fn close(self) -> Result<(), BenchError> {
        let all = self.in_flight.acquire_many(self.budget as u32).await;
        let _all = all.map_err(|closed| BenchError::other("cannot wait")(closed.to_string()))?;
        match self.failure.get() {
            Some(reason) => Err(BenchError::other("records were not acknowledged")(reason)),
            None => Ok(()),
        }
    }
}

type Received = Result<jetstream::Message, pull::OrderedError>;

/// A consumer with a connection of its own.
pub struct NatsConsumer {
    messages: SelectAll<BoxStream<'static, (PartitionIndex, Received)>>,
}

impl TargetConsumer for NatsConsumer {
    async fn receive(&mut self, intake: &mut Intake) -> Result<(), BenchError> {
        let failed = || BenchError::other("cannot consume");
        let next = self.messages.next().await;
        let (partition, message) = next.ok_or_else(|| failed()("the stream ended".to_owned()))?;
        let message = message.map_err(|error| failed()(error.to_string()))?;
        let sequence = message
            .info()
            .map_err(|error| failed()(error.to_string()))?
            .stream_sequence;
        let header = |name: &str| {
            message
                .headers
                .as_ref()?
                .get(name)
                .and_then(|value| unhex(value.as_str()))
        };
        let (key, stamp) = (header(KEY_HEADER), header(STAMP_HEADER));
        intake.begin();
        intake.record(partition, key.as_deref(), stamp.as_deref(), Some(&message.payload));
        intake.end(partition, Position(sequence));
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

/// `None` if these are no hexadecimal digits.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_stamps_survive_the_way_through_headers() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        assert_eq!((unhex("0"), unhex("xy")), (None, None));
    }

    #[test]
    fn streams_are_named_as_nats_allows() {
        assert_eq!(stream_name("a.b", 3), "a_b-3");
    }
}
