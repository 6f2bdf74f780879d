//! `durability=memory`: what every in-sync replica has taken in is acknowledged without waiting for a disk, and stays as long as one of
//! them does.

use futures::FutureExt as _;
use headwater_client::{Acks, Client, NewTopic, PartitionIndex, Record, TopicAlteration};

use crate::support::{Cluster, Kind, Load, Site, await_all_in_sync, await_all_there, read_topic, run};

const KIND: Kind = Kind {
    topic: "memory",
    partitions: 2,
    value_lens: &[20, 300],
};

/// No flush begins sooner after an append than this, in microseconds.
const FLUSH_DELAY_US: (&str, &str) = ("flush.delay_us", "1s");

async fn create(client: &Client, replicas: i16) {
    for (topic, durability) in [(KIND.topic, "memory"), ("disk", "disk")] {
        let new = NewTopic::new(topic).partitions(KIND.partitions.into());
        let new = new.replication_factor(replicas).config("durability", durability);
        client.admin().create_topic(new).await.unwrap();
    }
}

fn record(topic: &str) -> Record<'_> {
    Record::to(topic).partition(PartitionIndex::new(0)).value(b"value")
}

/// Sends a record of another topic, and then some of this one, each when the one before it is acknowledged, until they all are before that
/// first one is: if each waited for a flush as that does, they never would be. Returns how often it took.
async fn overtakes(client: &Client, topic: &str, other: &str, acks: Acks) -> Option<usize> {
    let producer = client.producer().acks(acks).idempotent(false).build().await.unwrap();
    for attempt in 1..=5 {
        let mut before = producer.send(record(other)).await.unwrap();
        for _ in 0..3 {
            let after = producer.send(record(topic)).await.unwrap();
            after.await.unwrap();
        }
        if (&mut before).now_or_never().is_none() {
            before.await.unwrap();
            return Some(attempt);
        }
    }
    None
}

#[test]
fn what_replicas_have_in_memory_is_acknowledged_before_any_disk_has_it_and_stays_when_a_leader_is_killed() {
    run(async {
        let mut cluster = Cluster::start_with(&[FLUSH_DELAY_US]);
        let client = cluster.client().await;
        await_all_there(&client).await;
        create(&client, 3).await;
        overtakes(&client, KIND.topic, "disk", Acks::All).await.unwrap();
        for topic in [KIND.topic, "disk"] {
            client.admin().delete_topic(topic).await.unwrap();
        }
        create(&client, 3).await;
        let load = Load::start([client.clone()], KIND, 0).await;
        for number in [0, 1] {
            load.allow(2_000);
            load.ledger.await_count(1_000 * (number + 1)).await;
            cluster.kill(number as usize);
            load.allow(2_000);
            load.ledger.await_count(2_000 * (number + 1)).await;
            cluster.start_one(number as usize);
            await_all_in_sync(&client).await;
        }
        let ledger = load.finish().await;
        ledger.check_complete(&read_topic(&client, KIND.topic).await);
    });
}

#[test]
fn a_broker_alone_goes_by_the_durability_of_the_topic_also_when_that_is_changed() {
    run(async {
        let (key, value) = FLUSH_DELAY_US;
        let site = Site::new().set(key, value);
        let broker = site.start();
        let client = site.client().await;
        create(&client, 1).await;
        let mut count = 0;
        for acks in [Acks::All, Acks::Leader] {
            count += overtakes(&client, KIND.topic, "disk", acks).await.unwrap();
        }
        for (topic, durability) in [(KIND.topic, "disk"), ("disk", "memory")] {
            let alteration = TopicAlteration::of(topic).set("durability", durability);
            client.admin().alter_topic(alteration).await.unwrap();
        }
        count += 3 * overtakes(&client, "disk", KIND.topic, Acks::All).await.unwrap();
        let log = read_topic(&client, "disk").await;
        assert_eq!(log[0].len(), count, "all are shown");
        broker.kill();
        let _broker = site.start();
        let after = read_topic(&client, "disk").await;
        assert!(after[0].len() <= log[0].len(), "the last may be lost, and it goes on");
    });
}
