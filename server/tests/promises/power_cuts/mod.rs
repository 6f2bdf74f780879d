//! The power fails, and with it everything goes that the device was not told to flush: a real broker, a real kernel and a real file
//! system, on a device that loses it. A process that is killed loses nothing that direct I/O has written, so nothing else notices
//! a flush that is missing, comes too early, or covers too little.
//!
//! One broker works, and what it acknowledges is noted with the moment of the device's history. Then the power fails at many of these
//! moments, one after the other: what the device had by then is mounted, and a broker that starts on it must keep every promise.
//!
//! It takes root; without it the test says so and passes, unless `HEADWATER_REQUIRE_ROOT_TESTS` is set to 1.

mod device;
mod medium;

use std::{path::Path, thread};

use headwater_client::{Client, NewTopic, Offset, OffsetSpec, PartitionIndex, TopicAlteration, TopicId};
use headwater_protocol::schema::InitProducerIdRequestT;
use rand::{RngExt as _, rngs::SmallRng};

use self::{
    device::Device,
    medium::{Loss, Moment},
};
use crate::support::{Raw, Seed, Site, Source, batch, produce, read_topic, run};

const TOPIC: &str = "t";
const PARTITIONS: i32 = 2;

const SMALL: usize = 300;
/// Written in chunks, and flushed.
const BIG: usize = 900_000;

/// What somebody was told.
#[derive(Debug, Clone)]
enum Promise {
    /// The record with this number is in the partition, at this offset.
    Record { partition: i32, offset: u64, number: u64 },
    /// The partition begins here or later.
    Start { partition: i32, offset: u64 },
    /// Retention of the topic is at least so long: it was only ever made longer.
    Retention(u64),
    /// There is such a topic.
    Topic(String),
    /// There is no such topic.
    NoTopic(String),
    /// Nobody else gets this id.
    ProducerId(i64),
}

/// The promises of one kind of work, each with the moment at which it was made.
struct Phase {
    name: &'static str,
    began: Moment,
    promises: Vec<(Moment, Promise)>,
}

/// A broker at work on the device, and what it has promised.
struct Work<'a> {
    device: &'a Device,
    client: Client,
    raw: Raw,
    topic: TopicId,
    numbers: u64,
    phases: Vec<Phase>,
}

fn site(file_system: &Path) -> Site {
    let ends_with_the_test = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned).into();
    Site::at(&file_system.join("data"))
        .launched_by(ends_with_the_test)
        // Nothing but what is acknowledged has a reason to flush.
        .set("log.checkpoint_interval_ms", "24h")
        .set("log.retention_check_interval_ms", "24h")
}

impl Work<'_> {
    fn begin(&mut self, name: &'static str) {
        self.phases.push(Phase {
            name,
            began: self.device.moment(),
            promises: Vec::new(),
        });
    }

    fn note(&mut self, promise: Promise) {
        let moment = self.device.moment();
        let phase = self.phases.last_mut().unwrap();
        phase.promises.push((moment, promise));
    }

    async fn append(&mut self, partition: i32, len: usize) {
        let number = self.numbers;
        self.numbers += 1;
        let promise = append(&mut self.raw, self.topic, partition, number, len).await;
        self.note(promise);
    }

    /// Four at a time, so that writes and flushes of one meet those of others.
    async fn append_together(&mut self, site: &Site) {
        let (device, topic) = (self.device, self.topic);
        let first = self.numbers;
        let appending = (0..4).map(async |lane: u64| {
            let mut raw = Raw::connect(site.address()).await;
            let mut promises = Vec::new();
            for round in 0..6 {
                let number = first + 6 * lane + round;
                let len = if (lane + round).is_multiple_of(3) {
                    BIG / 2
                } else {
                    SMALL
                };
                let partition = (lane % 2) as i32;
                let promise = append(&mut raw, topic, partition, number, len).await;
                promises.push((device.moment(), promise));
            }
            promises
        });
        let promises = futures::future::join_all(appending).await.concat();
        self.numbers += 24;
        self.phases.last_mut().unwrap().promises.extend(promises);
    }

    async fn create(&mut self, name: &str) {
        let new = NewTopic::new(name).partitions(PARTITIONS);
        self.client.admin().create_topic(new).await.unwrap();
        self.note(Promise::Topic(name.to_owned()));
    }
}

async fn append(raw: &mut Raw, topic: TopicId, partition: i32, number: u64, len: usize) -> Promise {
    let value = source(partition).value(number, len);
    let reply = raw.call(&produce(topic, partition), &batch(&[&value])).await.produce();
    assert_eq!(reply.error, 0);
    Promise::Record {
        partition,
        offset: reply.base_offset as u64,
        number,
    }
}

fn source(partition: i32) -> Source {
    Source {
        producer: 0,
        partition: partition as u16,
    }
}

/// Has a broker promise all kinds of things.
async fn work(device: &Device) -> Vec<Phase> {
    let site = site(&device.mounted());
    let broker = site.start();
    let client = site.client().await;
    let mut work = Work {
        device,
        raw: Raw::connect(site.address()).await,
        topic: TopicId::NIL,
        client,
        numbers: 0,
        phases: Vec::new(),
    };
    work.begin("a topic is created");
    work.create(TOPIC).await;
    work.topic = work.client.admin().describe_topic(TOPIC).await.unwrap().id;
    work.begin("single small records");
    for _ in 0..6 {
        work.append(0, SMALL).await;
    }
    work.begin("single large records");
    for _ in 0..4 {
        work.append(1, BIG).await;
    }
    work.begin("records of all sizes together");
    work.append_together(&site).await;
    work.begin("single small records behind others");
    for _ in 0..4 {
        work.append(1, SMALL).await;
    }
    work.begin("producer ids");
    for _ in 0..3 {
        let given = work.raw.call(&InitProducerIdRequestT::default(), &[]).await;
        work.note(Promise::ProducerId(given.init_producer_id().producer_id));
    }
    work.begin("a topic is altered");
    for retention in 3_600_001..3_600_004 {
        let longer = TopicAlteration::of(TOPIC).set("retention.ms", retention);
        work.client.admin().alter_topic(longer).await.unwrap();
        work.note(Promise::Retention(retention));
    }
    work.begin("records are deleted");
    for offset in 1..4 {
        let (partition, before) = (PartitionIndex::new(0), Some(Offset::new(offset)));
        let deleted = work.client.admin().delete_records(TOPIC, partition, before).await;
        deleted.unwrap();
        work.note(Promise::Start { partition: 0, offset });
    }
    work.begin("a topic is deleted");
    work.create("short").await;
    work.client.admin().delete_topic("short").await.unwrap();
    work.phases.last_mut().unwrap().promises.clear();
    work.note(Promise::NoTopic("short".to_owned()));
    broker.kill();
    work.phases
}

/// A broker that starts on what is left keeps what was promised.
async fn check(file_system: &Path, promises: &[Promise]) {
    let site = site(file_system);
    let broker = site.start();
    let client = site.client().await;
    let mut raw = Raw::connect(site.address()).await;
    let topics = client.admin().topics().await.unwrap();
    let is_there = |name: &str| topics.iter().any(|topic| topic.name.as_str() == name);
    let (starts, stored, retention) = if is_there(TOPIC) {
        let starts = client.admin().list_offsets(TOPIC, OffsetSpec::Earliest).await.unwrap();
        let described = client.admin().describe_topic(TOPIC).await.unwrap();
        let retention = described
            .configs
            .into_iter()
            .find(|config| config.name == "retention.ms");
        let retention: u64 = retention.unwrap().value.parse().unwrap();
        (starts, read_topic(&client, TOPIC).await, retention)
    } else {
        (vec![None; 2], vec![Vec::new(); 2], 0)
    };
    let given = raw.call(&InitProducerIdRequestT::default(), &[]).await;
    let given = given.init_producer_id().producer_id;
    for promise in promises {
        let start_of = |partition: i32| starts[partition as usize].map_or(0, Offset::get);
        let is_kept = match promise {
            Promise::Record {
                partition,
                offset,
                number,
            } => {
                let mut records = stored[*partition as usize].iter();
                let found = records.find(|record| record.offset == *offset);
                let is_same = found.map(|record| Source::read(&record.value) == (source(*partition), *number));
                is_same.unwrap_or(*offset < start_of(*partition))
            }
            Promise::Start { partition, offset } => start_of(*partition) >= *offset,
            // The default is a week.
            Promise::Retention(least) => (*least..3_700_000).contains(&retention),
            Promise::Topic(name) => is_there(name),
            Promise::NoTopic(name) => !is_there(name),
            Promise::ProducerId(id) => given != *id,
        };
        assert!(is_kept, "not kept: {promise:?}");
    }
    broker.kill();
}

/// Lets the power fail at this moment, and sees what was promised until then.
fn cut(device: &Device, phases: &[Phase], moment: Moment, loss: Loss, random: &mut SmallRng) {
    let promises = phases.iter().flat_map(|phase| &phase.promises);
    let made = promises.filter(|(made, _)| *made <= moment);
    let promises: Vec<Promise> = made.map(|(_, promise)| promise.clone()).collect();
    device.after_cut(moment, loss, random, |file_system| run(check(file_system, &promises)));
}

fn cut_often(name: &'static str, device: &Device) {
    let seed = Seed::of(name);
    let mut random = seed.random();
    let phases = run(work(device));
    let ends = phases.iter().skip(1).map(|phase| phase.began);
    let ends: Vec<Moment> = ends.chain([device.moment()]).collect();
    for (phase, end) in phases.iter().zip(ends) {
        let (last, _) = phase.promises.last().unwrap();
        let any = random.random_range(phase.began..=end);
        let loss = [Loss::Everything, Loss::Some][random.random_range(0..2)];
        for (moment, loss) in [(*last, Loss::Everything), (any, loss)] {
            let told = Told(format!("{}, moment {moment} of {end}, {loss:?} is lost", phase.name));
            cut(device, &phases, moment, loss, &mut random);
            drop(told);
        }
    }
}

/// Says what was being tried, if it fails.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the power has failed: {}", self.0);
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_when_the_power_has_failed_and_taken_what_was_not_flushed() {
    let name = "what_was_acknowledged_is_there_when_the_power_has_failed_and_taken_what_was_not_flushed";
    // A mount namespace is a thread's own.
    let outcome = thread::scope(|scope| {
        let running = scope.spawn(|| Device::new().map(|device| cut_often(name, &device)));
        running.join()
    });
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => {
            let is_required = std::env::var("HEADWATER_REQUIRE_ROOT_TESTS").is_ok_and(|value| value == "1");
            assert!(!is_required, "{name} has to run here, and cannot: {reason}");
            eprintln!("skipped: {name}: {reason}");
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
