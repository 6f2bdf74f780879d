//! A broker within another process: it comes and goes, and takes nothing of that process with it.
//!
//! One test alone in its process, as it reads what the process as a whole holds.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, net::SocketAddr, path::Path};

use headwater_client::{Client, NewTopic, PartitionIndex, Record, Start};
use headwater_server::{Broker, config::ByteSize, config::Config};

/// So much a core maps as soon as it starts.
const TAIL: u64 = 64 << 20;

/// How often the broker comes and goes.
const LIVES: usize = 6;

/// Larger ones, which the next life reads.
const COLD_RECORDS: usize = 150;

/// Starts a broker, writes to many partitions of it, begins to read, and stops it.
fn one_life(directory: &Path) {
    let mut config = Config::default();
    config.broker.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.cores.count = 1;
    config.cores.pin = false;
    config.cores.tail_buffer_bytes_max = ByteSize::new(TAIL);
    config.cores.prefault = true;
    directory.clone_into(&mut config.log.directory);
    let broker = Broker::start(config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::connect(&broker.addr().to_string()).await.unwrap();
        // From the second time on it is there.
        let _ = client.admin().create_topic(NewTopic::new("t").partitions(20)).await;
        let producer = client.producer().build().await.unwrap();
        for partition in 0..20 {
            let record = Record::to("t")
                .partition(PartitionIndex::new(partition))
                .value(&[1; 10_000]);
            producer.send(record).await.unwrap().await.unwrap();
        }
        let large = vec![2; 60_000];
        for _ in 0..COLD_RECORDS {
            let record = Record::to("t").partition(PartitionIndex::new(0)).value(&large);
            drop(producer.send(record).await.unwrap());
        }
        producer.flush().await.unwrap();
        // What earlier lives have written is read from the disk, far ahead of this.
        let mut consumer = client
            .consumer()
            .topics(["t"])
            .start(Start::Earliest)
            .build()
            .await
            .unwrap();
        consumer.recv().await.unwrap();
    });
    broker.shutdown().unwrap();
}

fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Open descriptors, threads, and resident bytes.
fn held() -> (usize, usize, u64) {
    let count = |directory: &str| fs::read_dir(directory).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"), resident_bytes())
}

#[test]
fn a_broker_that_has_stopped_gives_back_its_memory_its_files_and_its_threads() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    one_life(directory.path());
    let after_one = held();
    for _ in 1..LIVES {
        one_life(directory.path());
    }
    let after_all = held();
    eprintln!("descriptors, threads, bytes: after one life {after_one:?}, after {LIVES} {after_all:?}");
    // glommio 0.9 leaves the eventfd of each executor open.
    assert!(after_all.0 < after_one.0 + LIVES, "descriptors stay open");
    // Its pool's thread may still be on its way out.
    assert!(after_all.1 <= after_one.1 + 1, "threads stay");
    assert!(after_all.2 < after_one.2 + TAIL / 2, "memory stays");
}
