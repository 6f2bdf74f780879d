//! Compacted topics: of each key the last value stays, at its offset, whatever happens to the broker meanwhile.

use std::{collections::BTreeMap, io::Read as _, net::TcpStream};

use headwater_client::{
    Advance, Client, Error, ErrorCode, NewTopic, OffsetReset, OffsetSpec, PartitionIndex, Record, Start,
};
use rand::RngExt as _;

use crate::support::{Seed, Site, run};

const KEYS: u64 = 50;
const VALUE_LEN: usize = 500;
const ONLY: PartitionIndex = PartitionIndex::new(0);

/// By key: offset and value of its last record; `None` is a tombstone.
type Last = BTreeMap<u64, (u64, Option<u64>)>;

fn site() -> Site {
    Site::new()
        .cores(1)
        .set("compaction.check_interval_ms", "10ms")
        .set("compaction.bytes_per_second_max", "1GiB")
        .set("log.checkpoint_interval_ms", "20ms")
        .with_metrics()
}

fn compacted(name: &str) -> NewTopic {
    NewTopic::new(name)
        .partitions(1)
        .config("cleanup.policy", "compact")
        .config("segment.bytes", 65_536)
        .config("min.cleanable.dirty.ratio", 0)
}

/// Sends so many records, the last of which has a key of its own, and notes what must stay of them.
async fn produce(client: &Client, topic: &str, from: u64, count: u64, last: &mut Last) {
    let producer = client.producer().batch_bytes(8 << 10).build().await.unwrap();
    let mut sent = Vec::new();
    for number in from..from + count {
        let key = if number + 1 == from + count {
            KEYS
        } else {
            number * 7 % KEYS
        };
        let value = (number % 5 > 0).then(|| format!("{number:0VALUE_LEN$}"));
        let (key_bytes, record) = (key.to_be_bytes(), Record::to(topic));
        let record = record.key(&key_bytes);
        let record = match &value {
            Some(value) => record.value(value),
            None => record,
        };
        let delivery = producer.send(record).await.unwrap();
        sent.push((key, value.map(|_| number), delivery));
    }
    for (key, value, delivery) in sent {
        let offset = delivery.await.unwrap().offset.unwrap().get();
        last.insert(key, (offset, value));
    }
}

/// All that a consumer finds from the beginning to the end: key, offset and value.
async fn read(client: &Client, topic: &str) -> Vec<(u64, (u64, Option<u64>))> {
    let end = client.admin().list_offsets(topic, OffsetSpec::Latest).await.unwrap()[0].unwrap();
    let consumer = client.consumer().assign(topic, [ONLY]).start(Start::Earliest);
    let mut consumer = consumer.offset_reset(OffsetReset::Error).build().await.unwrap();
    let mut found: Vec<(u64, (u64, Option<u64>))> = Vec::new();
    while consumer.position(topic, ONLY).unwrap() < end {
        let Advance::Records(records) = consumer.advance().await.unwrap() else {
            continue;
        };
        for record in &records {
            let record = record.unwrap();
            let key = u64::from_be_bytes(record.key.unwrap().try_into().unwrap());
            let value = record
                .value
                .map(|value| std::str::from_utf8(value).unwrap().parse().unwrap());
            assert!(
                found
                    .last()
                    .is_none_or(|(_, (offset, _))| *offset < record.offset.get())
            );
            found.push((key, (record.offset.get(), value)));
        }
    }
    found
}

/// Reads until not much more than the last records is left.
async fn await_compaction(client: &Client, topic: &str, expected: &Last) {
    loop {
        let found = read(client, topic).await;
        let last: Last = found.iter().copied().collect();
        assert_eq!(
            &last, expected,
            "the last record of each key is there, and nothing else"
        );
        // The active segment is as it came, and of the others there may be one that was sealed just now.
        if found.len() as u64 <= KEYS + 3 * 65_536 / VALUE_LEN as u64 {
            return;
        }
    }
}

#[test]
fn a_compacted_topic_keeps_the_last_value_of_each_key_through_kills_of_the_broker() {
    let mut seed = Seed::of("a_compacted_topic_keeps_the_last_value_of_each_key_through_kills_of_the_broker");
    let kills = seed.number("HEADWATER_KILLS", 8);
    let site = site();
    run(async {
        let mut random = seed.random();
        let mut broker = site.start();
        let client = site.client().await;
        client.admin().create_topic(compacted("t")).await.unwrap();
        let (mut last, mut next) = (Last::new(), 0);
        for _ in 0..kills {
            let count = random.random_range(500..3_000);
            produce(&client, "t", next, count, &mut last).await;
            next += count;
            broker.kill();
            broker = site.start();
            assert_eq!(read(&client, "t").await.into_iter().collect::<Last>(), last);
        }
        await_compaction(&client, "t", &last).await;
        broker.stop();
        let broker = site.start();
        await_compaction(&client, "t", &last).await;
        broker.stop();
    });
}

#[test]
fn a_compacted_topic_says_what_it_is_refuses_records_without_a_key_and_is_counted() {
    let site = site();
    run(async {
        let broker = site.start();
        let client = site.client().await;
        client.admin().create_topic(compacted("t")).await.unwrap();
        let described = client.admin().describe_topic("t").await.unwrap();
        let configs = described.configs.iter().map(|config| (&*config.name, &*config.value));
        let configs: BTreeMap<_, _> = configs.collect();
        assert_eq!(
            (configs["cleanup.policy"], configs["min.cleanable.dirty.ratio"]),
            ("compact", "0")
        );
        let producer = client.producer().build().await.unwrap();
        let refused = producer.send(Record::to("t").value("no key")).await.unwrap().await;
        let error = refused.unwrap_err();
        assert!(
            matches!(&error, Error::Broker { code: ErrorCode::InvalidRecord, message } if message.contains("no key")),
            "{error}"
        );
        let mut last = Last::new();
        produce(&client, "t", 0, 3_000, &mut last).await;
        await_compaction(&client, "t", &last).await;
        // A compaction is counted when it is over.
        let metrics = loop {
            let metrics = scrape(&site);
            if value(&metrics, "compaction_removed_records_total{core=\"0\"}") > 1_000.0 {
                break metrics;
            }
        };
        for name in [
            "compaction_bytes_total{core=\"0\",operation=\"read\"}",
            "compaction_bytes_total{core=\"0\",operation=\"write\"}",
            "compaction_passes_total{core=\"0\"}",
            "compaction_seconds_total{core=\"0\"}",
        ] {
            assert!(value(&metrics, name) > 0.0, "{name} in {metrics}");
        }
        assert!((0.0..=1.0).contains(&value(&metrics, "compaction_dirty_ratio_max{core=\"0\"}")));
        broker.stop();
    });
}

pub(super) fn scrape(site: &Site) -> String {
    use std::io::Write as _;
    let mut stream = TcpStream::connect(site.metrics_address()).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

pub(super) fn value(metrics: &str, name: &str) -> f64 {
    let prefix = format!("headwater_{name} ");
    let sample = metrics.lines().find_map(|line| line.strip_prefix(&prefix));
    sample
        .unwrap_or_else(|| panic!("no {name} in {metrics}"))
        .parse()
        .unwrap()
}
