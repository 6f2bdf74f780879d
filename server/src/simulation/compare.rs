//! The end of a run: what is there is compared with what was promised and seen.

use std::{fmt::Display, io, time::Duration};

use futures::future::join_all;
use headwater_client::{Client, ErrorCode, NewTopic, RecordView};

use super::{
    client::Brokers,
    guests::{Book, Topics},
    judge::{self, read_all},
    ledger::{Ledger, Sent},
    retention::Retention,
    scenario::TOPIC,
    wire::pause,
};
use crate::machine::{self, simulated::World};

/// Tries until it is done.
pub(super) async fn insist<T, E: Display>(
    world: &World,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    for _ in 0..200 {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => world.tell(None, format!("{what}: {error}")),
        }
        pause(Duration::from_secs(2)).await;
    }
    panic!("{what}, though nothing is wrong");
}

/// Makes a topic, unless it is there.
pub(super) async fn create_topic(client: &Client, world: &World, topic: NewTopic) {
    insist(world, "the topic is not created", async || {
        match client.admin().create_topic(topic.clone()).await {
            // Perhaps by this call, tried again.
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => Ok(()),
            created => created.map(drop),
        }
    })
    .await;
}

/// Retention ends, so that whatever is there now must be there in the end.
pub(super) async fn keep_all(brokers: &Brokers, ledger: &Ledger, client: &Client, partitions: i32) {
    let world = ledger.world();
    insist(world, "the topic is not altered", async || Retention::end(client).await).await;
    ledger.keep_all();
    for partition in 0..partitions {
        let look = async || judge::start_of(brokers, TOPIC, partition).await;
        let start = insist(world, "it is not known where a partition begins", look).await;
        ledger.begin_at(partition, start);
    }
}

/// Resolves when the group has come to the end.
pub(super) async fn processed(ledger: &Ledger) {
    while !ledger.is_processed() {
        machine::sleep(Duration::from_millis(100)).await;
    }
}

pub(super) async fn compare_topics(world: &World, topics: &Topics, client: &Client) {
    let begun = world.now();
    insist(world, "topics cannot be compared", async || {
        topics.compare(client, begun).await
    })
    .await;
    topics.check_asked();
}

pub(super) async fn compare_book(world: &World, brokers: &Brokers, book: &Book) {
    let look = async || book.compare(brokers).await;
    insist(world, "what is kept cannot be read", look).await;
}

/// A leader that has just heard who is in sync lets readers read all that was acknowledged within this time.
const READABLE_WITHIN: Duration = Duration::from_secs(2);

/// Reads everything and compares it with the ledger.
pub(super) async fn compare(brokers: &Brokers, ledger: &Ledger, partitions: i32) {
    let deadline = machine::now() + READABLE_WITHIN;
    let logs = (0..partitions).map(async |partition| {
        let what = format!("partition {partition} cannot be read");
        insist(ledger.world(), &what, async || {
            let mut log = Vec::new();
            loop {
                log.clear();
                let see = |record: &RecordView<'_>| {
                    let value = record.value.expect("no record was sent without a value");
                    log.push((record.offset.get(), Sent::of(value)));
                };
                let extent = read_all(brokers, TOPIC, partition, see).await?;
                let has_all = ledger.last_promised(partition).is_none_or(|last| last < extent.end);
                if has_all || machine::now() >= deadline {
                    return Ok::<_, io::Error>((extent, log));
                }
                machine::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
    });
    for (partition, (extent, log)) in (0..partitions).zip(join_all(logs).await) {
        ledger.close(partition, extent, &log);
    }
}
