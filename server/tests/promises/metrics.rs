//! The counters tell by which way records have come, and the endpoint disturbs nobody.

use std::{collections::HashMap, fs::File, os::fd::AsFd};

use headwater_client::{Client, Record};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Broker, Site, read_topic, run};

/// More than the tail buffer holds.
const RECORDS: usize = 1_500;
const VALUE_LEN: usize = 16_000;

struct Setting {
    site: Site,
    broker: Broker,
    client: Client,
}

impl Setting {
    async fn new() -> Setting {
        Self::with_read_ahead("8MiB").await
    }

    async fn with_read_ahead(read_ahead: &str) -> Setting {
        let site = Site::new()
            .cores(1)
            .set("log.segment_size_bytes", "64MiB")
            .set("cores.read_ahead_bytes", read_ahead)
            .with_metrics();
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        Setting { site, broker, client }
    }

    async fn produce(&self, records: usize) {
        let producer = self.client.producer().build().await.unwrap();
        for number in 0..records {
            let value = format!("{number:0VALUE_LEN$}");
            drop(producer.send(Record::to("t").value(&value)).await.unwrap());
        }
        producer.flush().await.unwrap();
    }

    /// Reads everything, and counts it.
    async fn read(&self) -> usize {
        read_topic(&self.client, "t").await.iter().map(Vec::len).sum()
    }

    /// The value of every sample, rounded down.
    async fn scrape(&self) -> HashMap<String, u64> {
        let mut stream = TcpStream::connect(self.site.metrics_address()).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        let samples = response.lines().filter(|line| line.starts_with("headwater_"));
        let split = samples.map(|line| line.rsplit_once(' ').unwrap());
        split
            .map(|(name, value)| (name.to_owned(), value.parse::<f64>().unwrap() as u64))
            .collect()
    }

    /// Bytes that each way has served since the last call.
    async fn served(&self, before: &mut HashMap<&'static str, u64>) -> HashMap<&'static str, u64> {
        let samples = self.scrape().await;
        let mut served = HashMap::new();
        for path in ["tail", "sendfile", "splice"] {
            let total = samples[&format!("headwater_fetch_bytes_total{{core=\"0\",path=\"{path}\"}}")];
            served.insert(path, total - before.insert(path, total).unwrap_or_default());
        }
        served
    }

    /// Drops what the page cache has of the topic.
    fn make_cold(&self) {
        for entry in std::fs::read_dir(self.site.directory().join("t-0")).unwrap() {
            let file = File::open(entry.unwrap().path()).unwrap();
            rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }
}

#[test]
fn what_was_just_written_comes_from_memory_what_is_cold_by_splice_and_what_is_cached_by_sendfile() {
    run(async {
        let setting = Setting::new().await;
        let mut before = HashMap::new();
        setting.produce(100).await;
        assert_eq!(setting.read().await, 100);
        let hot = setting.served(&mut before).await;
        assert!(hot["tail"] >= (100 * VALUE_LEN) as u64, "{hot:?}");
        assert_eq!((hot["sendfile"], hot["splice"]), (0, 0));

        setting.produce(RECORDS).await;
        setting.make_cold();
        assert_eq!(setting.read().await, 100 + RECORDS);
        let cold = setting.served(&mut before).await;
        assert!(cold["splice"] > 0, "{cold:?}");

        assert_eq!(setting.read().await, 100 + RECORDS);
        let cached = setting.served(&mut before).await;
        assert_eq!(cached["splice"], 0, "{cached:?}");
        assert!(cached["sendfile"] >= (100 * VALUE_LEN) as u64, "{cached:?}");
        setting.broker.stop();
    });
}

#[test]
fn cold_records_come_however_far_the_kernel_is_told_to_read_ahead() {
    run(async {
        for read_ahead in ["0", "1", "300KiB", "1GiB"] {
            let setting = Setting::with_read_ahead(read_ahead).await;
            setting.produce(RECORDS).await;
            setting.make_cold();
            assert_eq!(setting.read().await, RECORDS, "{read_ahead}");
            let served = setting.served(&mut HashMap::new()).await;
            assert!(served["splice"] > 0, "{served:?}");
            setting.broker.stop();
        }
    });
}

#[test]
fn every_stage_of_a_request_is_timed_and_every_figure_is_there() {
    run(async {
        let setting = Setting::new().await;
        setting.produce(100).await;
        read_topic(&setting.client, "t").await;
        let samples = setting.scrape().await;
        for stage in ["receive", "append", "acknowledge", "fetch_wait", "send"] {
            let name = format!("headwater_stage_seconds_count{{core=\"0\",stage=\"{stage}\"}}");
            assert!(samples[&name] > 0, "{name}");
        }
        // A lone small batch needs no write besides the one that is durable by itself.
        assert!(samples["headwater_stage_seconds_count{core=\"0\",stage=\"flush\"}"] > 0);
        let durable = samples["headwater_disk_bytes_total{core=\"0\",operation=\"flush\"}"];
        assert!(durable >= (100 * VALUE_LEN) as u64, "{durable}");
        assert_eq!(samples["headwater_partitions{core=\"0\"}"], 1);
        assert!(samples["headwater_connections{core=\"0\"}"] >= 1);
        assert!(samples["headwater_requests_total{core=\"0\",api=\"produce\"}"] >= 1);
        assert!(samples["headwater_resident_bytes"] > 1 << 20);
        setting.broker.stop();
    });
}
