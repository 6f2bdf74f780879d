//! Clients that stop reading: they cost the broker no more than their sockets, and nobody else waits for them.

use headwater_client::{Client, OffsetReset, Start, TopicId};
use headwater_protocol::schema::{FetchPartitionT, FetchRequestT, MetadataRequestT};
use tokio::sync::watch;

use crate::support::{Broker, Kind, Load, Raw, Site, Source, batch, produce, read_topic, run, stored_values};

const KIND: Kind = Kind {
    topic: "t",
    partitions: 2,
    value_lens: &[16_000],
};

/// In records: several times what the tail buffers of both cores hold.
const PHASE: usize = 4_000;

/// What memory may vary by for reasons of its own: the allocator's, and buffers that have not been used to the full yet.
const SLACK_BYTES: u64 = 24 << 20;

/// A broker at work, with a topic of which each core owns a partition.
struct Setting {
    site: Site,
    broker: Broker,
    client: Client,
    topic: TopicId,
    load: Load,
    consumed: watch::Receiver<u64>,
    resident_bytes: u64,
}

impl Setting {
    /// Begins when the broker has filled whatever buffers it fills under this load.
    async fn new(site: Site) -> Setting {
        let broker = site.start();
        let client = site.client_with_topic(KIND.topic, KIND.partitions.into()).await;
        let topic = client.admin().describe_topic(KIND.topic).await.unwrap().id;
        let (progress, consumed) = watch::channel(0);
        tokio::spawn(follow(site.client().await, progress));
        let load = Load::start([site.client().await], KIND, 0).await;
        let mut setting = Setting {
            site,
            broker,
            client,
            topic,
            load,
            consumed,
            resident_bytes: 0,
        };
        setting.go_on().await;
        setting.resident_bytes = setting.broker.resident_bytes();
        setting
    }

    /// Others produce and consume as much again, and the memory of the broker stays what it was.
    async fn go_on(&mut self) {
        let goal = self.load.ledger.count() + PHASE as u64;
        self.load.allow(PHASE);
        self.load.ledger.await_count(goal).await;
        self.consumed
            .wait_for(|count| *count >= goal)
            .await
            .expect("the consumer goes on");
        let (resident, before) = (self.broker.resident_bytes(), self.resident_bytes);
        let grown = resident.saturating_sub(before);
        assert!(
            before == 0 || grown <= SLACK_BYTES,
            "{before} bytes of memory have become {resident}"
        );
    }

    async fn end(self) {
        let log = read_topic(&self.client, KIND.topic).await;
        self.load.finish().await.check_complete(&log);
        self.broker.stop();
    }
}

/// A consumer that keeps up.
async fn follow(client: Client, progress: watch::Sender<u64>) {
    let consumer = client.consumer().topics([KIND.topic]).start(Start::Earliest);
    let mut consumer = consumer.offset_reset(OffsetReset::Error).build().await.unwrap();
    loop {
        Source::read(consumer.recv().await.unwrap().value.as_deref().unwrap());
        progress.send_modify(|count| *count += 1);
    }
}

/// Asks for as much as there may be in one response, of both partitions.
fn fetch_all(topic: TopicId, offsets: [i64; 2]) -> FetchRequestT {
    let partition = |partition: usize| FetchPartitionT {
        topic_id: topic.into(),
        partition: partition as i32,
        max_bytes: u32::MAX,
        offset: offsets[partition],
    };
    FetchRequestT {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: u32::MAX,
        partitions: Some(vec![partition(0), partition(1)]),
        rack: None,
        reads: None,
        isolation: 0,
    }
}

#[test]
fn a_consumer_that_stops_reading_costs_its_socket_only_and_reads_everything_from_disk_later() {
    run(async {
        let mut setting = Setting::new(Site::new()).await;
        let mut stopped = Raw::connect_with_small_window(setting.site.core_address(0)).await;
        stopped.send(&fetch_all(setting.topic, [0, 0]), &[]).await;
        let mut others = Vec::new();
        for number in 0..16 {
            let mut raw = Raw::connect_with_small_window(setting.site.core_address(number % 2)).await;
            for _ in 0..64 {
                raw.send(&fetch_all(setting.topic, [0, 0]), &[]).await;
            }
            others.push(raw);
        }
        setting.go_on().await;
        setting.go_on().await;
        drop(others);
        let mut next = [0_i64; 2];
        let ends = [setting.load.ledger.count() as i64 / 2; 2];
        while next != ends {
            let reply = stopped.receive().await.unwrap();
            for (partition, records) in reply.fetched() {
                let next = &mut next[partition as usize];
                for (offset, value) in stored_values(records) {
                    // A batch may begin before the offset that was asked for.
                    if offset as i64 == *next {
                        assert_eq!(Source::read(&value).1 as i64, *next);
                        *next += 1;
                    }
                }
            }
            if next != ends {
                stopped.send(&fetch_all(setting.topic, next), &[]).await;
            }
        }
        setting.end().await;
    });
}

#[test]
fn responses_that_nobody_reads_are_bounded_whatever_was_asked() {
    run(async {
        let mut setting = Setting::new(Site::new()).await;
        for number in 0..40 {
            let topic = headwater_client::NewTopic::new(format!("{}-{number}", "long".repeat(50))).partitions(10);
            setting.client.admin().create_topic(topic).await.unwrap();
        }
        setting.resident_bytes = setting.broker.resident_bytes();
        let mut stalled = Vec::new();
        for number in 0..32 {
            let mut raw = Raw::connect_with_small_window(setting.site.core_address(number % 2)).await;
            for _ in 0..1_000 {
                raw.send(&MetadataRequestT { topics: None }, &[]).await;
            }
            stalled.push(raw);
        }
        setting.go_on().await;
        drop(stalled);
        setting.end().await;
    });
}

#[test]
fn what_a_client_sends_behind_responses_that_it_does_not_read_holds_up_nobody() {
    run(async {
        let mut setting = Setting::new(Site::new()).await;
        let other = setting.site.client_with_topic("other", 2).await;
        let id = other.admin().describe_topic("other").await.unwrap().id;
        let mut stalled = Vec::new();
        for number in 0..16 {
            let mut raw = Raw::connect_with_small_window(setting.site.core_address(number % 2)).await;
            raw.send(&fetch_all(setting.topic, [0, 0]), &[]).await;
            // As much as the broker takes from one connection before it has answered.
            for _ in 0..1_000 {
                let request = produce(id, i32::from(number % 2));
                raw.send(&request, &batch(&[&[0; 4_000]])).await;
            }
            stalled.push(raw);
        }
        setting.go_on().await;
        drop(stalled);
        setting.end().await;
    });
}

#[test]
fn a_client_that_does_not_read_does_not_keep_the_broker_from_stopping() {
    run(async {
        let setting = Setting::new(Site::new().set("limits.shutdown_grace_ms", "200ms")).await;
        let mut stopped = Raw::connect_with_small_window(setting.site.core_address(0)).await;
        stopped.send(&fetch_all(setting.topic, [0, 0]), &[]).await;
        setting.end().await;
        drop(stopped);
    });
}
