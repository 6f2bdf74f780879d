//! Who appends faster than segments can be sealed waits: files, memory and the time that a stop takes stay bounded.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::future::{join, select};
use headwater_protocol::id::TopicId;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::{Raw, Site, batch, pause, produce, read_topic, run};

/// Each fills a segment: two of these do not fit one.
const VALUE_LEN: usize = 40_000;

/// Segments that may wait, and those that were on their way when there were as many.
const WAITING_MAX: usize = 64;
const ON_THEIR_WAY: usize = 10;

/// Far more than that.
const SEGMENTS: usize = 100;

/// Makes a pipe in the place of what sealing writes first: it waits until somebody reads.
fn hold_sealing(partition: &Path) -> PathBuf {
    let pipe = partition.join(format!("{:020}.index.tmp", 0));
    let made = mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
    made.unwrap();
    pipe
}

/// Fills segments of a partition one after the other, and counts them.
async fn fill(site: &Site, core: u16, topic: TopicId, partition: i32, filled: &AtomicUsize) {
    let payload = batch(&[&vec![7; VALUE_LEN]]);
    let mut raw = Raw::connect(site.core_address(core)).await;
    for _ in 0..SEGMENTS {
        let reply = raw.call(&produce(topic, partition), &payload).await.produce();
        assert_eq!(reply.error, 0, "{reply:?}");
        filled.fetch_add(1, Ordering::Relaxed);
    }
}

/// Of the two cores one owns a partition, and the other passes requests on to it.
#[test]
fn whoever_fills_segments_faster_than_they_are_sealed_waits_on_whichever_core() {
    run(async {
        let site = Site::new()
            .cores(2)
            .with_metrics()
            .set("log.segment_size_bytes", "64KiB")
            .set("log.batch_size_bytes_max", "64KiB")
            .set("log.checkpoint_interval_ms", "1d")
            .set("log.retention_check_interval_ms", "1d")
            .set("log.recycle", "false");
        let broker = site.start();
        let client = site.client_with_topic("t", 2).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let pipe = hold_sealing(&site.directory().join("t-0"));
        let (filled, others) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let both = |partition, counter| {
            let on = |core| Box::pin(fill(&site, core, topic, partition, counter));
            (on(0), on(1))
        };

        let (first, second) = both(0, &filled);
        let mut held_up = join(first, second);
        let without_sealing = async {
            while filled.load(Ordering::Relaxed) < WAITING_MAX {
                pause().await;
            }
            // The other partition is the other core's, where nothing is held up: as long as it takes to fill many segments there.
            let (first, second) = both(1, &others);
            select(first, second).await;
        };
        tokio::select! {
            _ = &mut held_up => panic!("nobody has waited"),
            () = without_sealing => {}
        }
        let waiting = filled.load(Ordering::Relaxed);
        assert!(
            waiting <= WAITING_MAX + ON_THEIR_WAY,
            "{waiting} segments were filled, and none was sealed"
        );
        assert!(site.gauge("unsealed_segments").await >= WAITING_MAX as u64);

        let released = tokio::task::spawn_blocking(move || File::open(pipe)?.read_to_end(&mut Vec::new()));
        held_up.await;
        released.await.unwrap().unwrap();
        let records = read_topic(&client, "t").await;
        assert_eq!(records[0].len(), 2 * SEGMENTS);
        broker.stop();
    });
}
