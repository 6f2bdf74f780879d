//! Records that cannot be read: whoever waits for them is cut off, which the log explains.

use std::fs::File;

use crate::support::{Raw, Site, batch, fetch, produce, run};

const BATCH_LEN: usize = 500_000;

#[test]
fn a_connection_that_is_closed_since_its_records_cannot_be_read_is_named_in_the_log() {
    for cold in ["0", "4MiB"] {
        run(async {
            let site = Site::new()
                .cores(1)
                .set("cores.tail_buffer_bytes_max", "4MiB")
                .set("cores.cold_read_bytes_max", cold);
            let broker = site.start();
            let client = site.client_with_topic("t", 1).await;
            let topic = client.admin().describe_topic("t").await.unwrap().id;
            let mut raw = Raw::connect(site.address()).await;
            for _ in 0..14 {
                let reply = raw.call(&produce(topic, 0), &batch(&[&vec![7; BATCH_LEN]])).await;
                reply.produce();
            }
            // Somebody cuts the file, so that its first batch can be found and not be read.
            let path = site.directory().join("t-0/00000000000000000000.log");
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(BATCH_LEN as u64 / 2)
                .unwrap();
            assert!(raw.try_call(&fetch(topic, &[(0, 0)], 0, 1)).await.is_none());
            let line = broker.await_line("records cannot be read");
            assert!(line.contains("t-0/00000000000000000000.log"), "{line}");
            broker.stop();
        });
    }
}
