//! A disk that does not give back what was written: readers get every record, or an error that says where there are some missing.

use std::{fs::File, os::unix::fs::FileExt as _, path::PathBuf, time::Duration};

use headwater_client::{Client, Error, OffsetSpec, PartitionIndex, Start, Timestamp};
use headwater_protocol::batch::{BatchLimits, Batches};

use crate::support::{Broker, Raw, Site, batch, produce, run};

const ONLY: PartitionIndex = PartitionIndex::new(0);
const BATCHES: u64 = 30;
const RECORDS_PER_BATCH: u64 = 3;
const HEADER_LEN: usize = 61;

/// Nothing more comes after this. Only a reader that has missed something waits for so long.
const SILENCE: Duration = Duration::from_secs(10);

/// What a broker says that finds damage.
const FOUND: &str = "durable bytes do not read back";

/// A broker that has a partition of thirty batches on disk, and none of them in memory.
struct Setting {
    site: Site,
    broker: Broker,
    client: Client,
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where each batch begins.
    batches: Vec<usize>,
}

impl Setting {
    async fn new() -> Setting {
        // What was read once is not kept, so that the next reader sees what the disk has by then.
        let site = Site::new()
            .cores(1)
            .set("cores.cold_read_bytes_max", "0")
            .with_metrics();
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let mut raw = Raw::connect(site.address()).await;
        for _ in 0..BATCHES {
            let values = [&[1_u8; 700][..], &[2; 900], &[3; 400]];
            let response = raw.call(&produce(topic, 0), &batch(&values)).await.produce();
            assert_eq!(response.error, 0);
        }
        broker.stop();
        let broker = site.start().expect_errors(FOUND);
        let path = site.directory().join("t-0").join(format!("{:020}.log", 0));
        let bytes = std::fs::read(&path).unwrap();
        let limits = BatchLimits {
            batch_size_max: bytes.len(),
        };
        let mut end = 0;
        let batches = Batches::new(&bytes, &limits).map(|batch| {
            let begin = end;
            end += batch.unwrap().size();
            begin
        });
        let batches: Vec<usize> = batches.collect();
        assert_eq!(batches.len() as u64, BATCHES);
        Setting {
            site,
            broker,
            client,
            path,
            bytes,
            batches,
        }
    }

    /// Flips one bit of a batch for as long as something is done.
    async fn with_flipped<T>(&self, batch: usize, bit: usize, act: impl Future<Output = T>) -> T {
        let at = self.batches[batch] + bit / 8;
        let file = File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(&[self.bytes[at] ^ (1 << (bit % 8))], at as u64)
            .unwrap();
        let done = act.await;
        file.write_all_at(&[self.bytes[at]], at as u64).unwrap();
        done
    }

    /// Reads from the start to the end, or to an error.
    async fn read(&self) -> (Vec<u64>, Option<Error>) {
        let consumer = self.client.consumer().topics(["t"]).start(Start::Earliest);
        let mut consumer = consumer.build().await.unwrap();
        let mut offsets = Vec::new();
        while (offsets.len() as u64) < BATCHES * RECORDS_PER_BATCH {
            match consumer.recv_timeout(SILENCE).await {
                Ok(Some(record)) => offsets.push(record.offset.get()),
                Ok(None) => break,
                Err(error) => return (offsets, Some(error)),
            }
        }
        (offsets, None)
    }

    async fn damage_counted(&self) -> u64 {
        let samples = self.site.scrape().await;
        samples["headwater_damage_total{core=\"0\"}"]
    }
}

#[test]
fn no_flipped_bit_of_a_stored_batch_costs_a_record_without_an_error_that_names_the_place() {
    run(async {
        let setting = Setting::new().await;
        let (victim, first) = (17, 17 * RECORDS_PER_BATCH);
        let body = (0..20).map(|n| (HEADER_LEN + n * 97) * 8 + n % 8);
        for bit in (0..HEADER_LEN * 8).chain(body) {
            let (offsets, error) = Box::pin(setting.with_flipped(victim, bit, setting.read())).await;
            let place = format!("bit {bit}: {offsets:?} {error:?}");
            if (12..16).contains(&(bit / 8)) {
                // The leader epoch, which means nothing to a reader.
                assert!(
                    error.is_none() && offsets.into_iter().eq(0..BATCHES * RECORDS_PER_BATCH),
                    "{place}"
                );
                continue;
            }
            assert!(offsets.into_iter().eq(0..first), "{place}");
            let Some(Error::CorruptBatch {
                topic,
                partition,
                offset,
                ..
            }) = error
            else {
                panic!("{place}")
            };
            assert_eq!((topic.as_str(), partition, offset.get()), ("t", ONLY, first), "{place}");
        }
        let (offsets, error) = setting.read().await;
        assert!(error.is_none() && offsets.into_iter().eq(0..BATCHES * RECORDS_PER_BATCH));
        setting.broker.stop();
    });
}

#[test]
fn damage_that_the_broker_finds_is_counted_and_a_look_up_by_time_is_not_misled_by_it() {
    run(async {
        let setting = Setting::new().await;
        assert_eq!(setting.damage_counted().await, 0);
        let time = OffsetSpec::Timestamp(Timestamp::new(0));
        let admin = setting.client.admin();
        assert_eq!(admin.list_offset("t", ONLY, time).await.unwrap().unwrap().get(), 0);
        // Its largest timestamp becomes less than what is looked for: 2^40 ms are 35 years.
        let bit = (35 + 2) * 8;
        let found = setting.with_flipped(0, bit, admin.list_offset("t", ONLY, time)).await;
        let Err(Error::CorruptLog { topic, partition }) = found else {
            panic!("{found:?}")
        };
        assert_eq!((topic.as_str(), partition), ("t", ONLY));
        assert_eq!(setting.damage_counted().await, 1);
        setting.broker.await_line(FOUND);
        setting.broker.stop();
    });
}

#[test]
fn a_group_commits_nothing_behind_a_damaged_batch() {
    run(async {
        let setting = Setting::new().await;
        let (victim, first) = (17, 17 * RECORDS_PER_BATCH);
        // The bit that makes it a batch of the broker's own, which is not for consumers.
        let read = async {
            let group = setting.client.group_consumer("g").topics(["t"]);
            let mut consumer = group.build().await.unwrap();
            for offset in 0..first {
                assert_eq!(consumer.recv().await.unwrap().offset.get(), offset);
            }
            let error = consumer.recv().await.unwrap_err();
            assert!(
                matches!(&error, Error::CorruptBatch { offset, .. } if offset.get() == first),
                "{error:?}"
            );
            consumer.commit().await.unwrap();
            let committed = consumer.committed("t", ONLY).await.unwrap().unwrap();
            assert_eq!(committed.offset.get(), first);
            consumer.close().await.unwrap();
        };
        setting.with_flipped(victim, 22 * 8 + 5, read).await;
        setting.broker.stop();
    });
}
