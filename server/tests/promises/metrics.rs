//! The counters tell by which way records have come, and the endpoint disturbs nobody.

use std::{collections::HashMap, fs::File, os::fd::AsFd};

use headwater_client::{Client, CommittedOffset, Offset, PartitionIndex, Record};

use crate::support::{Broker, Raw, Site, fetch, pause, read_topic, run, values};

/// More than the tail buffer holds.
const RECORDS: usize = 1_500;
const VALUE_LEN: usize = 16_000;

/// Those of records that are this core's.
const PATHS: [&str; 4] = ["tail", "direct", "sendfile", "buffered"];

struct Setting {
    site: Site,
    broker: Broker,
    client: Client,
}

impl Setting {
    async fn new() -> Setting {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Setting {
        let site = Site::new()
            .cores(1)
            .set("log.segment_size_bytes", "64MiB")
            .with_metrics();
        let site = settings.iter().fold(site, |site, (key, value)| site.set(key, value));
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
        count(&self.client).await
    }

    /// Bytes that each way has served since the last call.
    async fn served(&self, before: &mut HashMap<&'static str, u64>) -> HashMap<&'static str, u64> {
        let samples = self.site.scrape().await;
        let mut served = HashMap::new();
        for path in PATHS {
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

async fn count(client: &Client) -> usize {
    read_topic(client, "t").await.iter().map(Vec::len).sum()
}

#[test]
fn what_was_just_written_comes_from_memory_and_what_is_cold_past_the_page_cache() {
    run(async {
        let setting = Setting::new().await;
        let mut before = HashMap::new();
        setting.produce(100).await;
        assert_eq!(setting.read().await, 100);
        let hot = setting.served(&mut before).await;
        assert!(hot["tail"] >= (100 * VALUE_LEN) as u64, "{hot:?}");
        assert_eq!((hot["direct"], hot["sendfile"], hot["buffered"]), (0, 0, 0));

        setting.produce(RECORDS).await;
        setting.make_cold();
        assert_eq!(setting.read().await, 100 + RECORDS);
        let cold = setting.served(&mut before).await;
        // Looking for the first batch may bring a little of the file into the page cache.
        assert!(cold["direct"] > 10 * (cold["sendfile"] + cold["buffered"]), "{cold:?}");
        setting.broker.stop();
    });
}

#[test]
fn without_memory_for_cold_reads_they_come_through_the_page_cache_and_what_is_cached_by_sendfile() {
    run(async {
        let setting = Setting::with(&[("cores.cold_read_bytes_max", "0")]).await;
        let mut before = HashMap::new();
        setting.produce(RECORDS).await;
        // What the kernel was told to read ahead may be there in time.
        let mut read = 0;
        while read == 0 {
            setting.make_cold();
            assert_eq!(setting.read().await, RECORDS);
            read = setting.served(&mut before).await["buffered"];
        }

        // What the kernel was told to read ahead may still be on its way.
        let cached = loop {
            assert_eq!(setting.read().await, RECORDS);
            let cached = setting.served(&mut before).await;
            if cached["buffered"] == 0 {
                break cached;
            }
        };
        assert_eq!(cached["direct"], 0, "{cached:?}");
        assert!(cached["sendfile"] >= (100 * VALUE_LEN) as u64, "{cached:?}");
        setting.broker.stop();
    });
}

#[test]
fn what_is_in_the_page_cache_is_not_read_from_the_disk_again() {
    let kernel = rustix::system::uname();
    let mut numbers = kernel
        .release()
        .to_str()
        .unwrap()
        .split(['.', '-'])
        .map(str::parse::<u32>);
    if matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (6, 5)) {
        eprintln!("skipped: a kernel before 6.5 does not say what is in the page cache (cachestat(2))");
        return;
    }
    run(async {
        let setting = Setting::new().await;
        setting.produce(RECORDS).await;
        for entry in std::fs::read_dir(setting.site.directory().join("t-0")).unwrap() {
            std::fs::read(entry.unwrap().path()).unwrap();
        }
        assert_eq!(setting.read().await, RECORDS);
        let served = setting.served(&mut HashMap::new()).await;
        // The kernel may have taken some of it back.
        assert!(
            served["sendfile"] > 2 * (served["direct"] + served["buffered"]),
            "{served:?}"
        );
        setting.broker.stop();
    });
}

#[test]
fn cold_records_come_however_far_is_read_ahead() {
    run(async {
        for (read_ahead, path) in [
            ("0", "buffered"),
            ("1", "direct"),
            ("300KiB", "direct"),
            ("1GiB", "direct"),
        ] {
            let setting = Setting::with(&[("cores.read_ahead_bytes", read_ahead)]).await;
            setting.produce(RECORDS).await;
            let (mut served, mut before) = (0, HashMap::new());
            while served == 0 {
                setting.make_cold();
                assert_eq!(setting.read().await, RECORDS, "{read_ahead}");
                served = setting.served(&mut before).await[path];
            }
            setting.broker.stop();
        }
    });
}

#[test]
fn many_cold_consumers_share_the_memory_and_the_rest_is_read_through_the_page_cache() {
    run(async {
        let setting = Setting::with(&[("cores.cold_read_bytes_max", "4MiB")]).await;
        setting.produce(RECORDS).await;
        setting.make_cold();
        let mut clients = Vec::new();
        for _ in 0..12 {
            clients.push(setting.site.client().await);
        }
        let counts = futures::future::join_all(clients.iter().map(count)).await;
        assert_eq!(counts, [RECORDS; 12]);
        let served = setting.served(&mut HashMap::new()).await;
        assert!(served["direct"] > 0, "{served:?}");
        let samples = setting.site.scrape().await;
        let held = samples["headwater_cold_read_bytes{core=\"0\"}"];
        assert!(held > 0 && held <= 4 << 20, "{held}");
        setting.broker.stop();
    });
}

#[test]
fn a_consumer_that_stops_reading_keeps_no_memory_from_those_who_read() {
    run(async {
        // Memory for one consumer.
        let setting = Setting::with(&[("cores.cold_read_bytes_max", "2MiB")]).await;
        setting.produce(RECORDS).await;
        setting.make_cold();
        let topic = setting.client.admin().describe_topic("t").await.unwrap().id;
        let mut stopped = Raw::connect_with_small_window(setting.site.core_address(0)).await;
        stopped.send(&fetch(topic, &[(0, 0)], 0, 1), &[]).await;
        let mut before = HashMap::new();
        while setting.served(&mut before).await["direct"] == 0 {
            pause().await;
        }
        // The memory comes free when nobody has asked for it for a while.
        let mut direct = 0;
        while direct < (RECORDS * VALUE_LEN / 2) as u64 {
            setting.make_cold();
            assert_eq!(setting.read().await, RECORDS);
            direct = setting.served(&mut before).await["direct"];
        }
        let reply = stopped.receive().await.unwrap();
        let values = values(reply.fetched()[0].1);
        assert!(!values.is_empty() && values.iter().all(|value| value.len() == VALUE_LEN));
        setting.broker.stop();
    });
}

#[test]
fn every_stage_of_a_request_is_timed_and_every_figure_is_there() {
    run(async {
        let setting = Setting::new().await;
        setting.produce(100).await;
        read_topic(&setting.client, "t").await;
        let samples = setting.site.scrape().await;
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
        assert!(samples["process_resident_memory_bytes"] > 1 << 20);
        assert!(samples["headwater_disk_free_bytes"] < samples["headwater_disk_size_bytes"]);
        setting.broker.stop();
    });
}

#[test]
fn a_partition_and_a_group_have_figures_of_their_own_and_errors_are_counted_by_their_name() {
    run(async {
        let setting = Setting::new().await;
        setting.produce(10).await;
        read_topic(&setting.client, "t").await;
        let admin = setting.client.admin();
        let at = CommittedOffset::new("t".parse().unwrap(), PartitionIndex::new(0), Offset::new(4));
        admin.groups().reset_offsets("readers", &[at]).await.unwrap();
        assert!(admin.delete_topic("missing").await.is_err());
        let samples = setting.site.scrape().await;
        let of_partition = |name: &str| samples[&format!("headwater_partition_{name}{{topic=\"t\",partition=\"0\"}}")];
        assert_eq!(
            (of_partition("high_watermark"), of_partition("log_end_offset")),
            (10, 10)
        );
        assert!(of_partition("appended_bytes_total") >= 10 * VALUE_LEN as u64);
        assert!(of_partition("fetched_bytes_total") >= 10 * VALUE_LEN as u64);
        let of_group = "{group=\"readers\",topic=\"t\",partition=\"0\"}";
        assert_eq!(samples[&format!("headwater_group_committed_offset{of_group}")], 4);
        assert_eq!(samples[&format!("headwater_group_lag{of_group}")], 6);
        let unknown = "headwater_errors_total{core=\"0\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"}";
        assert!(samples[unknown] >= 1, "{samples:?}");
        setting.broker.stop();
    });
}

#[test]
fn a_broker_that_serves_every_partition_is_healthy_and_ready_and_one_that_does_not_is_only_healthy() {
    run(async {
        let setting = Setting::new().await;
        for path in ["/health", "/ready"] {
            let (status, body) = setting.site.get(path).await;
            assert!(
                status.contains(" 200 ") && body.contains("\"ok\":true"),
                "{status} {body}"
            );
        }
        setting.broker.stop();
        std::fs::remove_dir_all(setting.site.directory().join("t-0")).unwrap();
        let broker = setting.site.start().expect_errors("directory");
        let setting = Setting { broker, ..setting };
        let (status, _) = setting.site.get("/health").await;
        assert!(status.contains(" 200 "), "{status}");
        let (status, body) = setting.site.get("/ready").await;
        assert!(
            status.contains(" 503 ") && body.contains("\"partitions_offline\":1"),
            "{status} {body}"
        );
        setting.broker.stop();
    });
}
