//! A broker keeps no more files open than it may, whatever is written and read. When it has no file descriptor left all the same,
//! it lets records wait, and goes on by itself when there is one.

use std::fs;

use headwater_client::{Client, OffsetSpec};

use crate::support::{Broker, Raw, Site, batch, produce, read_topic, run};

const PARTITIONS: i32 = 4;

/// Segments that are filled: two of these do not fit one.
const SEGMENTS: usize = 300;
const VALUE_LEN: usize = 40_000;

const OPEN_FILES_MAX: usize = 32;

/// What may be open beyond the limit: files that are being read, written or sealed, and those that the kernel is about to close.
const IN_USE_MAX: usize = 32;

/// Nothing is done at intervals, and no file is used again.
fn site() -> Site {
    Site::new()
        .cores(1)
        .with_metrics()
        .set("cores.open_files_max", &OPEN_FILES_MAX.to_string())
        .set("cores.tail_buffer_bytes_max", "4MiB")
        .set("log.segment_size_bytes", "64KiB")
        .set("log.batch_size_bytes_max", "64KiB")
        .set("log.checkpoint_interval_ms", "1d")
        .set("log.retention_check_interval_ms", "1d")
        .set("log.recycle", "false")
}

/// Most that was seen while a task went on.
#[derive(Debug, Default)]
struct Most {
    descriptors: usize,
    unsealed: u64,
}

async fn watch<T>(site: &Site, broker: &Broker, task: impl Future<Output = T>) -> (T, Most) {
    let mut most = Most::default();
    let watching = async {
        loop {
            most.descriptors = most.descriptors.max(broker.descriptors("log"));
            most.unsealed = most.unsealed.max(site.gauge("unsealed_segments").await);
        }
    };
    let done = tokio::select! {
        done = task => done,
        () = watching => unreachable!("it never ends"),
    };
    (done, most)
}

/// Fills segments as fast as the broker takes them.
async fn fill(site: &Site, client: &Client) {
    let id = client.admin().describe_topic("t").await.unwrap().id;
    let mut raw = Raw::connect(site.core_address(0)).await;
    let value = vec![7; VALUE_LEN];
    for round in 0..SEGMENTS / 20 {
        for number in 0..20 {
            let partition = (round * 20 + number) as i32 % PARTITIONS;
            raw.send(&produce(id, partition), &batch(&[&value])).await;
        }
        for _ in 0..20 {
            assert_eq!(raw.receive().await.unwrap().produce().error, 0);
        }
    }
}

fn index_files(site: &Site) -> usize {
    let partitions = (0..PARTITIONS).map(|partition| site.directory().join(format!("t-{partition}")));
    let files = partitions.flat_map(|directory| fs::read_dir(directory).unwrap());
    let is_index = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "index");
    files.map(Result::unwrap).filter(is_index).count()
}

#[test]
fn segments_are_sealed_as_fast_as_they_come_and_the_files_of_what_is_read_and_written_are_bounded() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic("t", PARTITIONS).await;
        let ((), most) = watch(&site, &broker, fill(&site, &client)).await;
        // The limit, and what was in the tail buffers when it was reached.
        assert!(most.unsealed <= 64 + 100, "{most:?}");
        assert!(most.descriptors <= OPEN_FILES_MAX + IN_USE_MAX, "{most:?}");
        while site.gauge("unsealed_segments").await > 0 {}
        assert_eq!(index_files(&site), SEGMENTS - PARTITIONS as usize);

        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(site.client().await);
        }
        let read = futures::future::join_all(clients.iter().map(|client| read_topic(client, "t")));
        let (read, most) = watch(&site, &broker, read).await;
        for partitions in read {
            assert_eq!(partitions.iter().map(Vec::len).sum::<usize>(), SEGMENTS);
        }
        assert!(most.descriptors <= OPEN_FILES_MAX + IN_USE_MAX, "{most:?}");
        let samples = site.scrape().await;
        assert!(samples["headwater_files_evicted_total{core=\"0\"}"] > 0);
        assert!(samples["headwater_open_files{core=\"0\"}"] <= OPEN_FILES_MAX as u64);
        assert_eq!(samples["headwater_open_files_max{core=\"0\"}"], OPEN_FILES_MAX as u64);
        broker.stop();
    });
}

#[test]
fn with_hardly_any_descriptor_left_all_is_written_and_read() {
    run(async {
        let site = site().set("cores.open_files_max", "1000");
        let broker = site.start();
        let client = site.client_with_topic("t", PARTITIONS).await;
        fill(&site, &client).await;
        let open = read_topic(&client, "t").await;
        assert_eq!(open.iter().map(Vec::len).sum::<usize>(), SEGMENTS);
        let segments = broker.descriptors("log");
        assert!(segments > OPEN_FILES_MAX, "{segments} are open");
        // Whatever is opened from now on takes the place of another.
        broker.let_files_give_way();
        fill(&site, &client).await;
        let records = read_topic(&client, "t").await;
        assert_eq!(records.iter().map(Vec::len).sum::<usize>(), 2 * SEGMENTS);
        broker.stop();
    });
}

async fn end(client: &Client) -> Option<u64> {
    let ends = client.admin().list_offsets("t", OffsetSpec::Latest).await.unwrap();
    ends[0].map(headwater_client::Offset::get)
}

#[test]
fn records_wait_for_a_descriptor_and_none_is_refused_or_lost() {
    run(async {
        let site = Site::new().cores(1);
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let id = client.admin().describe_topic("t").await.unwrap().id;
        let mut raw = Raw::connect(site.address()).await;
        assert_eq!(end(&client).await, Some(0));
        // What is open stays open.
        let usual = broker.limit_files(0);
        raw.send(&produce(id, 0), &batch(&[b"first"])).await;
        broker.await_line("records wait");
        raw.send(&produce(id, 0), &batch(&[b"second"])).await;
        assert_eq!(end(&client).await, Some(0), "nothing is durable yet");
        broker.limit_files(usual);
        for offset in 0..2 {
            let reply = raw.receive().await.unwrap().produce();
            assert_eq!((reply.error, reply.base_offset), (0, offset));
        }
        broker.kill();
        let broker = site.start();
        assert_eq!(end(&client).await, Some(2));
        broker.stop();
    });
}
