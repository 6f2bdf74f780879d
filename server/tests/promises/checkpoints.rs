//! A restart costs what was written since the last checkpoint, and that is bounded however long the interval is.

use std::path::Path;

use serde_json::Value;

use crate::support::{Raw, Site, batch, produce, run};

const LIMIT_BYTES: u64 = 1 << 20;

/// Far more than is written while a core finds the time for a checkpoint.
const PATIENCE_BYTES: u64 = 200 * LIMIT_BYTES;

/// The byte from which recovery would scan the only segment.
fn recovery_position(partition: &Path) -> u64 {
    let Ok(file) = std::fs::read_to_string(partition.join("checkpoint")) else {
        return 0;
    };
    let (_, body) = file.split_once('\n').unwrap();
    let checkpoint: Value = serde_json::from_str(body).unwrap();
    assert_eq!(checkpoint["recovery"]["segment"], 0);
    checkpoint["recovery"]["position"].as_u64().unwrap()
}

#[test]
fn a_restart_scans_only_what_was_written_behind_a_checkpoint_that_did_not_wait_for_its_interval() {
    run(async {
        let site = Site::new()
            .cores(1)
            .set("log.checkpoint_interval_ms", "24h")
            .set("log.checkpoint_bytes_max", &LIMIT_BYTES.to_string())
            .set("log.segment_size_bytes", "1GiB");
        let mut broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let id = client.admin().describe_topic("t").await.unwrap().id;
        let partition = site.directory().join("t-0");
        let (big, small) = (batch(&[&vec![7; 60_000]]), batch(&[b"small"]));
        let mut written = 0;
        for _ in 0..3 {
            let mut raw = Raw::connect(site.address()).await;
            // The second one comes although there was one before.
            for _ in 0..2 {
                let before = recovery_position(&partition);
                let begun = written;
                while recovery_position(&partition) == before {
                    assert_eq!(raw.call(&produce(id, 0), &big).await.produce().error, 0);
                    written += big.len() as u64;
                    assert!(written - begun < PATIENCE_BYTES, "no checkpoint is written");
                }
                // What is appended while it is being written counts for the next.
                let covered = recovery_position(&partition) - before;
                assert!(
                    covered + 4 * big.len() as u64 >= LIMIT_BYTES,
                    "after {covered} bytes it came too soon"
                );
            }
            for _ in 0..10 {
                assert_eq!(raw.call(&produce(id, 0), &small).await.produce().error, 0);
                written += small.len() as u64;
            }
            broker.kill();
            let behind = written - recovery_position(&partition);
            assert!(behind > 0);
            broker = site.start();
            let line = broker.await_line("a partition was recovered");
            let line: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["scanned_bytes"], behind, "{line}");
        }
        broker.stop();
    });
}
