//! Times that come from clients do not decide over what was just acknowledged.

use headwater_client::{NewTopic, OffsetSpec, PartitionIndex};
use headwater_protocol::{
    batch::{BatchBuilder, Compression},
    id::Timestamp,
};

use crate::support::{Raw, Site, pause, produce, run};

#[test]
fn retention_keeps_records_without_a_timestamp_also_over_a_restart() {
    run(async {
        let site = Site::new().cores(1).set("log.retention_check_interval_ms", "20ms");
        let mut broker = site.start();
        let client = site.client().await;
        let admin = client.admin();
        let new = |name| {
            NewTopic::new(name)
                .config("segment.bytes", 65_536)
                .config("retention.ms", 3_600_000)
        };
        for topic in ["untimed", "old"] {
            admin.create_topic(new(topic)).await.unwrap();
        }
        for restarted in [false, true] {
            if restarted {
                broker.stop();
                broker = site.start();
            }
            let mut raw = Raw::connect(site.address()).await;
            let append = async |raw: &mut Raw, topic: &str, timestamp| {
                let id = admin.describe_topic(topic).await.unwrap().id;
                let mut batch = BatchBuilder::new(Compression::None, 0);
                batch
                    .append(Timestamp::new(timestamp), None, Some(&vec![7; 20_000]), &[])
                    .unwrap();
                let response = raw.call(&produce(id, 0), batch.build().bytes()).await.produce();
                assert_eq!(response.error, 0);
                response.base_offset.cast_unsigned() + 1
            };
            let start = async |topic| {
                let start = admin
                    .list_offset(topic, PartitionIndex::new(0), OffsetSpec::Earliest)
                    .await;
                start.unwrap().unwrap().get()
            };
            for _ in 0..10 {
                append(&mut raw, "untimed", -1).await;
            }
            // Whenever retention has taken what is old, it has looked at all else since the time before.
            for _ in 0..3 {
                let end = append(&mut raw, "old", 1).await;
                while start("old").await < end {
                    pause().await;
                }
            }
            assert_eq!(start("untimed").await, 0);
        }
        broker.stop();
    });
}
