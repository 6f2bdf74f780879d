//! Who comes, and how they leave.

use std::fmt;
use std::time::Duration;

use headwater_client::{Client, Consumer, Error, NewTopic, OffsetReset, PartitionIndex, Record, Start};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{BURSTS, QUIET};

/// Where they go.
#[derive(Debug, Clone)]
pub struct Place {
    pub address: String,
    pub partitions: u32,
}

/// Longer than anybody stays, so that a wait is always given up.
const LONG: Duration = Duration::from_mins(1);

/// The shortest session that a broker allows by default: how long the group of a member that has died waits for it.
const SESSION: Duration = Duration::from_secs(6);

/// A burst: so many records of so many bytes.
const BURST_RECORDS: usize = 200;
const BURST_RECORD_BYTES: usize = 4096;

/// Groups, which are not many, as a broker keeps their offsets.
const GROUPS: u32 = 4;

/// A kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guest {
    /// Connects, and says nothing or the beginning of a request.
    Silent,
    /// Waits for records that do not come, in all partitions, and is gone meanwhile.
    Waiting,
    /// Reads from the beginning and leaves in the middle.
    Reader,
    /// Sends a burst; waits for what became of it, or not.
    Burst,
    /// Joins a group, reads, and leaves, or dies.
    Member,
    /// Makes a topic, writes to it, and deletes it.
    Maker,
}

impl Guest {
    pub const ALL: [Self; 6] = [
        Self::Silent,
        Self::Waiting,
        Self::Reader,
        Self::Burst,
        Self::Member,
        Self::Maker,
    ];

    /// Comes and goes, as the number says.
    pub async fn visit(self, place: Place, number: u64) -> Result<(), Error> {
        let mut random = SmallRng::seed_from_u64(number);
        let stay = Duration::from_millis(random.random_range(0..500));
        if self == Self::Silent {
            // A broker with too many connections closes one at once, which is no error of a guest.
            let _ = silent(&place, &mut random, stay).await;
            return Ok(());
        }
        // Each has connections of its own, and drops them as they are.
        let client = Client::connect(&place.address).await?;
        match self {
            Self::Silent => Ok(()),
            Self::Waiting => {
                let waiting = client.consumer().topics([QUIET]).start(Start::Latest).wait_max(LONG);
                read_for(&mut waiting.build().await?, stay).await
            }
            Self::Reader => {
                let reader = client.consumer().topics([BURSTS, QUIET]).start(Start::Earliest);
                read_for(&mut reader.build().await?, stay).await
            }
            Self::Burst => burst(&client, &place, &mut random).await,
            Self::Member => member(&client, &mut random, stay).await,
            Self::Maker => maker(&client, number).await,
        }
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Silent => "silent",
            Self::Waiting => "waiting",
            Self::Reader => "readers",
            Self::Burst => "bursts",
            Self::Member => "members",
            Self::Maker => "makers of topics",
        })
    }
}

async fn silent(place: &Place, random: &mut SmallRng, stay: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(&place.address).await?;
    let length = random.random_range(0..8);
    // The first bytes of a frame's header, which say how long the frame is.
    stream.write_all(&[0; 8][..length]).await?;
    tokio::time::sleep(stay).await;
    Ok(())
}

async fn read_for(consumer: &mut Consumer, stay: Duration) -> Result<(), Error> {
    let read = async {
        loop {
            consumer.recv_batch().await?;
        }
    };
    tokio::time::timeout(stay, read).await.unwrap_or(Ok(()))
}

async fn burst(client: &Client, place: &Place, random: &mut SmallRng) -> Result<(), Error> {
    let producer = client.producer().linger(Duration::from_millis(1)).build().await?;
    let value: Vec<u8> = (0..BURST_RECORD_BYTES).map(|_| random.random()).collect();
    let partition = index(random.random_range(0..place.partitions));
    for _ in 0..BURST_RECORDS {
        let record = Record::to(BURSTS).partition(partition).value(&value);
        drop(producer.send(record).await?);
    }
    if random.random() {
        producer.close().await?;
    }
    Ok(())
}

async fn member(client: &Client, random: &mut SmallRng, stay: Duration) -> Result<(), Error> {
    let name = format!("churn-{}", random.random_range(0..GROUPS));
    let member = client
        .group_consumer(name)
        .topics([BURSTS])
        .session_timeout(SESSION)
        .offset_reset(OffsetReset::Earliest);
    let mut member = member.build().await?;
    let read = async {
        loop {
            member.recv_batch().await?;
        }
    };
    tokio::time::timeout(stay, read).await.unwrap_or(Ok(()))?;
    if random.random() {
        // A group that waits for a member that has died lets nobody leave in order before that has been noticed.
        let _ = tokio::time::timeout(SESSION, member.close()).await;
    }
    Ok(())
}

async fn maker(client: &Client, number: u64) -> Result<(), Error> {
    let name = format!("churn-{number:016x}");
    client.admin().create_topic(NewTopic::new(&name).partitions(4)).await?;
    let written = write_everywhere(client, &name, 4).await;
    client.admin().delete_topic(&name).await?;
    written
}

/// One record to each partition.
pub async fn write_everywhere(client: &Client, topic: &str, partitions: u32) -> Result<(), Error> {
    let producer = client.producer().build().await?;
    for partition in 0..partitions {
        drop(
            producer
                .send(Record::to(topic).partition(index(partition)).value("one"))
                .await?,
        );
    }
    producer.close().await
}

fn index(partition: u32) -> PartitionIndex {
    PartitionIndex::new(partition.cast_signed())
}
