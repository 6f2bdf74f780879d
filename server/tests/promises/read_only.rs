//! A file system that turns read-only under load: what is there is served, and whoever watches the metrics sees that records are
//! refused.

use headwater_client::Client;

use crate::support::{Raw, Site, SmallDisk, batch, produce, read_topic, run};

const PARTITIONS: i32 = 2;
const KAFKA_STORAGE_ERROR: i16 = 56;

async fn produce_to(site: &Site, client: &Client, partition: i32) -> i16 {
    let id = client.admin().describe_topic("t").await.unwrap().id;
    let mut raw = Raw::connect(site.core_address(0)).await;
    raw.call(&produce(id, partition), &batch(&[b"record"]))
        .await
        .produce()
        .error
}

#[test]
fn partitions_that_take_no_records_since_the_file_system_turned_read_only_are_in_the_metrics() {
    let Some(disk) = SmallDisk::new("read_only", "loop,errors=remount-ro") else {
        return;
    };
    run(async {
        let site = Site::at(&disk.directory()).cores(1).with_metrics();
        let broker = site.start().expect_errors("the log is fenced");
        let client = site.client_with_topic("t", PARTITIONS).await;
        for partition in 0..PARTITIONS {
            assert_eq!(produce_to(&site, &client, partition).await, 0);
        }
        let offline = "headwater_partitions_offline{core=\"0\",reason=\"fenced\"}";
        assert_eq!(site.scrape().await[offline], 0);

        // As it does when it finds itself damaged.
        let device = disk.device();
        let name = device.file_name().unwrap().to_str().unwrap();
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test").unwrap();
        for partition in 0..PARTITIONS {
            assert_eq!(produce_to(&site, &client, partition).await, KAFKA_STORAGE_ERROR);
        }
        let samples = site.scrape().await;
        assert_eq!(samples[offline], PARTITIONS as u64);
        assert_eq!(
            samples["headwater_partitions{core=\"0\"}"], PARTITIONS as u64,
            "they can be read"
        );
        assert_eq!(
            samples["headwater_produce_refused_total{core=\"0\",reason=\"storage\"}"],
            PARTITIONS as u64
        );
        let records = read_topic(&client, "t").await;
        assert_eq!(records.iter().map(Vec::len).sum::<usize>(), PARTITIONS as usize);
        broker.kill();
    });
}
