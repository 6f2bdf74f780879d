//! A fetch's limits hold for the whole response, however many cores own its partitions.

use std::collections::BTreeSet;

use headwater_client::{Client, TopicId};
use headwater_protocol::schema::{FetchPartitionT, FetchRequestT, MetadataRequestT};

use crate::support::{Broker, Raw, Reply, Site, batch, fetch, produce, run};

/// One partition on each.
const CORES: i32 = 4;

/// Longer than any test may take: whoever waits for it hangs.
const FOR_EVER_MS: u32 = 3_600_000;

struct Setting {
    broker: Broker,
    _site: Site,
    _client: Client,
    topic: TopicId,
    raw: Raw,
    /// Another connection, for what happens while the first waits.
    other: Raw,
}

impl Setting {
    async fn new() -> Setting {
        let site = Site::new().cores(CORES as u16);
        let broker = site.start();
        let client = site.client_with_topic("t", CORES).await;
        let topic = client.admin().describe_topic("t").await.unwrap();
        let owners: BTreeSet<u16> = topic.partitions.iter().map(|partition| partition.core.get()).collect();
        assert_eq!(owners.len(), CORES as usize);
        Setting {
            broker,
            topic: topic.id,
            raw: Raw::connect(site.core_address(0)).await,
            other: Raw::connect(site.core_address(0)).await,
            _site: site,
            _client: client,
        }
    }

    /// Appends a batch to a partition, and returns its size.
    async fn append(&mut self, partition: i32, value_len: usize) -> u32 {
        let batch = batch(&[&vec![7; value_len]]);
        let reply = self.other.call(&produce(self.topic, partition), &batch).await;
        assert_eq!(reply.produce().error, 0);
        batch.len() as u32
    }

    /// All partitions from their starts, with the first one first.
    fn request(&self, first: i32, max_bytes: u32, min_bytes: u32) -> FetchRequestT {
        let partition = |turn: i32| FetchPartitionT {
            topic_id: self.topic.into(),
            partition: (first + turn) % CORES,
            max_bytes: u32::MAX,
            offset: 0,
        };
        FetchRequestT {
            max_wait_ms: FOR_EVER_MS,
            min_bytes,
            max_bytes,
            partitions: Some((0..CORES).map(partition).collect()),
            rack: None,
            reads: None,
            isolation: 0,
        }
    }
}

/// The bytes of each partition's records, in the order of the answer.
fn sizes(reply: &Reply) -> Vec<(i32, usize)> {
    let fetched = reply.fetched().into_iter();
    fetched.map(|(partition, records)| (partition, records.len())).collect()
}

#[test]
fn a_response_has_no_more_records_than_was_asked_for_and_every_partition_comes_first_in_its_turn() {
    run(async {
        let mut setting = Setting::new().await;
        let mut size = 0;
        for partition in 0..CORES {
            for _ in 0..8 {
                size = setting.append(partition, 50_000).await;
            }
        }
        let max_bytes = 6 * size + size / 2;
        for first in 0..CORES {
            let request = setting.request(first, max_bytes, 1);
            let sizes = sizes(&setting.raw.call(&request, &[]).await);
            // Whole batches, all of them of the partition that comes first.
            let expected = (0..CORES).map(|turn| ((first + turn) % CORES, if turn == 0 { 6 * size } else { 0 }));
            let expected: Vec<_> = expected.map(|(partition, bytes)| (partition, bytes as usize)).collect();
            assert_eq!(sizes, expected);
        }
        // What the first ones leave is for the others.
        let request = setting.request(1, 20 * size, 1);
        let bytes = [8, 8, 4, 0].map(|batches| batches * size as usize);
        let expected: Vec<_> = [1, 2, 3, 0].into_iter().zip(bytes).collect();
        assert_eq!(sizes(&setting.raw.call(&request, &[]).await), expected);
        setting.broker.stop();
    });
}

#[test]
fn only_the_first_batch_of_a_response_may_be_larger_than_it() {
    run(async {
        let mut setting = Setting::new().await;
        let size = setting.append(1, 50_000).await as usize;
        setting.append(2, 50_000).await;
        let request = setting.request(0, 1_000, 1);
        let expected = [(0, 0), (1, size), (2, 0), (3, 0)];
        assert_eq!(sizes(&setting.raw.call(&request, &[]).await), expected);
        let small = setting.append(3, 100).await as usize;
        // The third does not fit, but the fourth does.
        let request = setting.request(1, (size + small) as u32, 1);
        let expected = [(1, size), (2, 0), (3, small), (0, 0)];
        assert_eq!(sizes(&setting.raw.call(&request, &[]).await), expected);
        setting.broker.stop();
    });
}

#[test]
fn what_is_there_on_several_cores_counts_together_and_the_append_that_brings_enough_wakes_the_fetch() {
    run(async {
        let mut setting = Setting::new().await;
        let size = setting.append(0, 1_000).await;
        setting.append(1, 1_000).await;
        let both = setting.request(0, 1 << 20, 2 * size);
        assert_eq!(setting.raw.call(&both, &[]).await.payload.len() as u32, 2 * size);
        let all = setting.request(0, 1 << 20, 4 * size);
        let id = setting.raw.send(&all, &[]).await;
        for partition in [2, 3] {
            // What the connection answers later shows that the fetch has not been answered.
            let question = MetadataRequestT { topics: None };
            assert!(
                setting.raw.call_behind(&question).await.is_empty(),
                "there is not enough yet"
            );
            setting.append(partition, 1_000).await;
        }
        let reply = setting.raw.receive().await.unwrap();
        assert_eq!(
            (reply.header.correlation_id, reply.payload.len() as u32),
            (id, 4 * size)
        );
        setting.broker.stop();
    });
}

#[test]
fn a_fetch_does_not_wait_for_what_its_limits_would_not_let_through() {
    run(async {
        let mut setting = Setting::new().await;
        let mut size = 0;
        for _ in 0..4 {
            size = setting.append(0, 60_000).await;
        }
        setting.append(1, 60_000).await;
        // Nothing between one batch and two can be had, of one partition or of several.
        let between = size + size / 2;
        let mut one = fetch(setting.topic, &[(0, 0)], FOR_EVER_MS, between);
        one.max_bytes = between;
        assert_eq!(setting.raw.call(&one, &[]).await.payload.len() as u32, size);
        let last = fetch(setting.topic, &[(0, 3), (1, 0)], FOR_EVER_MS, between);
        let last = FetchRequestT {
            max_bytes: between,
            ..last
        };
        assert_eq!(setting.raw.call(&last, &[]).await.payload.len() as u32, size);
        setting.broker.stop();
    });
}

#[test]
fn a_fetch_goes_on_where_a_segment_ends() {
    run(async {
        let mut setting = Setting::new().await;
        // Two of these do not fit a segment.
        let mut size = 0;
        for _ in 0..20 {
            size = setting.append(0, 1_000_000).await;
        }
        let fits = (16 << 20) / size;
        let last_of_first = i64::from(fits) - 1;
        let request = fetch(setting.topic, &[(0, last_of_first)], FOR_EVER_MS, 2 * size);
        let mut request = FetchRequestT {
            max_bytes: 8 << 20,
            ..request
        };
        request.partitions.as_mut().unwrap()[0].max_bytes = 8 << 20;
        // A range ends with its segment, but the records behind it are there.
        assert_eq!(setting.raw.call(&request, &[]).await.payload.len() as u32, size);
        setting.broker.stop();
    });
}
