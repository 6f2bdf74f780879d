//! Records: sent with every codec, read back, and found by their times.

use std::{
    collections::{HashMap, HashSet},
    fs,
    time::Duration,
};

use rdkafka::{
    Message, Offset,
    consumer::{Consumer as _, StreamConsumer},
    error::KafkaError,
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{Outcome, PARTITIONS, Scenario, WAIT, ensure, eventually};

const RECORDS_A_CODEC: usize = 60;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// So long nothing more has to come before it is believed that nothing will.
const QUIET: Duration = Duration::from_millis(500);

/// A record as it came.
pub struct Read {
    pub id: String,
    pub offset: i64,
    pub timestamp: i64,
}

impl Scenario {
    /// Sends the records of all codecs, idempotently. All must be acknowledged.
    pub async fn produce(&mut self) -> Outcome {
        for codec in CODECS {
            let mut settings = self.settings();
            settings
                .set("enable.idempotence", "true")
                .set("compression.type", codec);
            settings.set("linger.ms", "5").set("delivery.timeout.ms", "30000");
            let producer: FutureProducer = settings.create()?;
            let mut deliveries = Vec::new();
            for number in 0..RECORDS_A_CODEC {
                let id = format!("{codec}-{number:03}");
                let (key, value) = (key_of(number), value_of(&id));
                let id_header = Header {
                    key: "id",
                    value: Some(&id),
                };
                let empty = Header {
                    key: "empty",
                    value: None::<&str>,
                };
                let mut record = FutureRecord::to(&self.topic)
                    .headers(OwnedHeaders::new().insert(id_header).insert(empty))
                    .timestamp(self.start + 1000 * self.sent.len() as i64);
                (record.key, record.payload) = (key.as_ref(), value.as_ref());
                deliveries.push(producer.send_result(record).map_err(|(error, _)| error)?);
                self.sent.push(id);
                if let Some(file) = &self.failover {
                    if codec == "gzip" && number == 0 {
                        fs::write(file, "")?;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            }
            for delivery in deliveries {
                delivery.await?.map_err(|(error, _)| error)?;
            }
        }
        Ok(())
    }

    /// Every record is there once, those of a key in order, each as it was sent.
    pub async fn read_all(&mut self) -> Outcome {
        let reader = self.reader()?;
        reader.assign(&self.partitions(|_| Offset::Beginning)?)?;
        let numbers: HashMap<&str, usize> = self
            .sent
            .iter()
            .enumerate()
            .map(|(number, id)| (id.as_str(), number))
            .collect();
        let (mut seen, mut last_of_key) = (HashSet::new(), HashMap::new());
        loop {
            let wait = if seen.len() < self.sent.len() { WAIT } else { QUIET };
            let Some(message) = next(&reader, wait).await? else {
                break;
            };
            let record = read(&message);
            let number = *numbers
                .get(record.id.as_str())
                .ok_or_else(|| format!("nobody has sent {}", record.id))?;
            ensure!(seen.insert(number), "{} was read twice", record.id);
            let sent_at = self.start + 1000 * number as i64;
            ensure!(
                record.timestamp == sent_at,
                "{} has the timestamp {}",
                record.id,
                record.timestamp
            );
            let key = key_of(number % RECORDS_A_CODEC);
            ensure!(
                message.key() == key.as_deref().map(str::as_bytes),
                "{} has the key {:?}",
                record.id,
                message.key()
            );
            let value = value_of(&record.id);
            ensure!(
                message.payload() == value.as_deref().map(str::as_bytes),
                "{} has the value {:?}",
                record.id,
                message.payload()
            );
            if let Some(key) = key {
                let (partition, last) = last_of_key
                    .insert(key, (message.partition(), number))
                    .unwrap_or((message.partition(), 0));
                ensure!(
                    partition == message.partition() && last <= number,
                    "{} is out of order",
                    record.id
                );
            }
            self.read[message.partition() as usize].push(record);
        }
        ensure!(
            seen.len() == self.sent.len(),
            "{} records instead of {}",
            seen.len(),
            self.sent.len()
        );
        Ok(())
    }

    pub async fn produce_unsafe(&mut self) -> Outcome {
        for acks in ["1", "0"] {
            let producer: FutureProducer = self.settings().set("acks", acks).create()?;
            for number in 0..10 {
                let value = number.to_string();
                let record = FutureRecord::<str, _>::to(&self.unsafe_topic).payload(&value);
                producer.send(record, WAIT).await.map_err(|(error, _)| error)?;
            }
        }
        let reader = self.reader()?;
        eventually(async || {
            let mut there = 0;
            for partition in 0..PARTITIONS {
                there += reader.fetch_watermarks(&self.unsafe_topic, partition, WAIT)?.1;
            }
            // Nobody knows whether a record with acks 0 arrives at a broker that is not the leader any more.
            ensure!(
                there == 20 || self.failover.is_some() && there >= 10,
                "{there} records instead of 20"
            );
            Ok(())
        })
        .await
    }

    pub async fn seek(&mut self) -> Outcome {
        let middle = self.start + 1000 * (self.sent.len() / 2) as i64;
        let reader = self.reader()?;
        let found = reader.offsets_for_times(self.partitions(|_| Offset::Offset(middle))?, WAIT)?;
        let mut wanted = Vec::new();
        for partition in found.elements() {
            partition.error()?;
            let records = &self.read[partition.partition() as usize];
            let first = records.iter().find(|record| record.timestamp >= middle);
            let offset = first.map_or(Offset::End, |record| Offset::Offset(record.offset));
            ensure!(partition.offset() == offset, "{partition:?}, and not {offset:?}");
            wanted.extend(first.map(|record| (partition.partition(), record.id.as_str())));
        }
        reader.assign(&found)?;
        let mut first_read = HashMap::new();
        while first_read.len() < wanted.len() {
            let message = receive(&reader).await?;
            first_read
                .entry(message.partition())
                .or_insert_with(|| read(&message).id);
        }
        for (partition, id) in wanted {
            ensure!(
                first_read[&partition] == id,
                "partition {partition} begins with {first_read:?}, and not {id}"
            );
        }
        Ok(())
    }
}

/// Some have no key.
fn key_of(number: usize) -> Option<String> {
    (!number.is_multiple_of(3)).then(|| format!("key-{}", number % 5))
}

/// Some are tombstones.
fn value_of(id: &str) -> Option<String> {
    (!id.ends_with('9')).then(|| format!("value of {id}"))
}

pub fn read(message: &BorrowedMessage<'_>) -> Read {
    let id = message
        .headers()
        .and_then(|headers| headers.iter().find(|header| header.key == "id")?.value);
    Read {
        id: String::from_utf8_lossy(id.unwrap_or(b"no id")).into_owned(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
    }
}

/// The next record that comes within this time.
pub async fn next(consumer: &StreamConsumer, wait: Duration) -> Outcome<Option<BorrowedMessage<'_>>> {
    let deadline = Instant::now() + wait;
    loop {
        match timeout_at(deadline, consumer.recv()).await {
            Err(_elapsed) => return Ok(None),
            Ok(Ok(message)) => return Ok(Some(message)),
            Ok(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
            // It goes on by itself.
            Ok(Err(error)) => eprintln!("{error}"),
        }
    }
}

/// The next record, which should come.
pub async fn receive(consumer: &StreamConsumer) -> Outcome<BorrowedMessage<'_>> {
    next(consumer, WAIT).await?.ok_or_else(|| "no record comes".into())
}
