//! Connections cost little, and one too many costs the others nothing.

use headwater_protocol::schema::{ApiVersionsRequestT, MetadataRequestT};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt as _;

use crate::support::{Raw, Site, batch, fetch, produce, run};

const IDLE: u16 = 1_000;

/// Buffer, task and state of a connection that has been used once and waits. The rest is slack for the allocator.
const BYTES_PER_CONNECTION_MAX: u64 = 12 * 1024;

#[test]
fn a_thousand_idle_connections_cost_little_memory() {
    // Both ends of these are files of this machine.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    run(async {
        let site = Site::new().set("limits.connections_max", "1100");
        let broker = site.start();
        let mut connections = Vec::new();
        let mut before = 0;
        for number in 0..IDLE + 10 {
            let mut raw = Raw::connect(site.core_address(number % 2)).await;
            let hello = ApiVersionsRequestT::default();
            assert_eq!(raw.call(&hello, &[]).await.api_versions().error, 0);
            connections.push(raw);
            if number == 9 {
                before = broker.resident_bytes();
            }
        }
        let each = broker.resident_bytes().saturating_sub(before) / u64::from(IDLE);
        assert!(
            each <= BYTES_PER_CONNECTION_MAX,
            "{each} bytes for each idle connection"
        );
        // All of them still work.
        for raw in &mut connections {
            raw.call(&MetadataRequestT { topics: None }, &[]).await.metadata();
        }
        broker.stop();
    });
}

#[test]
fn a_connection_beyond_the_limit_is_refused_and_disturbs_nobody() {
    run(async {
        let site = Site::new().cores(1).set("limits.connections_max", "8");
        let broker = site.start();
        let request = MetadataRequestT { topics: None };
        let mut connections = Vec::new();
        for _ in 0..8 {
            let mut raw = Raw::connect(site.address()).await;
            raw.call(&request, &[]).await.metadata();
            connections.push(raw);
        }
        for _ in 0..20 {
            assert!(Raw::connect(site.address()).await.receive().await.is_none());
        }
        for raw in &mut connections {
            raw.call(&request, &[]).await.metadata();
        }
        connections.pop();
        // The broker learns that there is room again when it learns that the connection is closed.
        loop {
            let mut raw = Raw::connect(site.address()).await;
            if raw.try_call(&request).await.is_some() {
                break;
            }
        }
        broker.stop();
    });
}

#[test]
fn a_connection_that_asks_for_nothing_is_closed_in_the_end_but_not_one_that_waits_for_an_answer() {
    run(async {
        let site = Site::new().cores(1).set("limits.connection_idle_ms", "100ms");
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let mut waiting = Raw::connect(site.address()).await;
        waiting.send(&fetch(topic, &[(0, 0)], 3_600_000, 1), &[]).await;
        for _ in 0..3 {
            assert!(Raw::connect(site.address()).await.receive().await.is_none());
        }
        let mut raw = Raw::connect(site.address()).await;
        let reply = raw.call(&produce(topic, 0), &batch(&[b"x"])).await;
        assert_eq!(reply.produce().error, 0);
        assert_eq!(waiting.receive().await.unwrap().fetch().partitions.unwrap()[0].error, 0);
        broker.stop();
    });
}

#[test]
fn a_frame_that_does_not_come_to_its_end_is_given_up_and_others_are_served() {
    run(async {
        let site = Site::new().cores(1).set("limits.frame_wait_ms_max", "100ms");
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let mut half = Raw::connect(site.address()).await;
        half.stream.write_all(&[64, 0, 0, 0, 1, 0]).await.unwrap();
        assert!(half.receive().await.is_none());
        let mut raw = Raw::connect(site.address()).await;
        let reply = raw.call(&produce(topic, 0), &batch(&[b"x"])).await;
        assert_eq!(reply.produce().error, 0);
        broker.stop();
    });
}
