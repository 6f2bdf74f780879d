//! A fetch that finds too little waits: for the append that brings enough, or until its time is over.

use std::time::{Duration, Instant};

use headwater_protocol::schema::MetadataRequestT;

use crate::support::{Raw, Site, batch, fetch, produce, run, values};

/// Longer than any test may take: whoever waits for it hangs.
const FOR_EVER_MS: u32 = 3_600_000;

#[test]
fn a_fetch_at_the_end_is_woken_by_the_append_that_brings_enough_bytes() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap();
        let address = site.core_address(topic.partitions[0].core.get());
        let (mut producer, mut consumer) = (Raw::connect(address).await, Raw::connect(address).await);
        let size = batch(&[b"0"]).len() as u32;
        for needed in [1, 3] {
            let offset = i64::from(needed != 1);
            let request = fetch(topic.id, &[(0, offset)], FOR_EVER_MS, needed * size);
            let id = consumer.send(&request, &[]).await;
            for number in 0..needed {
                // What the connection answers later shows that the fetch has not been answered.
                let question = MetadataRequestT { topics: None };
                let early = consumer.call_behind(&question).await;
                assert!(early.is_empty(), "answered with {number} of {needed} batches");
                let reply = producer.call(&produce(topic.id, 0), &batch(&[b"x"])).await;
                assert_eq!(reply.produce().error, 0);
            }
            let reply = consumer.receive().await.unwrap();
            assert_eq!(reply.header.correlation_id, id);
            assert_eq!(values(&reply.payload).len() as u32, needed);
        }
        broker.stop();
    });
}

#[test]
fn a_fetch_that_finds_too_little_returns_what_there_is_when_its_time_is_over() {
    run(async {
        let site = Site::new().cores(1);
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap();
        let mut raw = Raw::connect(site.address()).await;
        let wait = Duration::from_millis(100);
        for stored in [0, 1] {
            let began = Instant::now();
            let request = fetch(topic.id, &[(0, 0)], wait.as_millis() as u32, 10_000);
            let reply = raw.call(&request, &[]).await;
            // The one duration that is a promise: it has waited, and not given up early.
            assert!(began.elapsed() >= wait);
            assert_eq!(reply.fetch().partitions.unwrap()[0].error, 0);
            assert_eq!(values(&reply.payload).len(), stored);
            raw.call(&produce(topic.id, 0), &batch(&[b"x"])).await;
        }
        broker.stop();
    });
}

#[test]
fn a_fetch_at_the_end_of_one_partition_does_not_wait_for_it_if_another_has_records() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let client = site.client_with_topic("t", 4).await;
        let topic = client.admin().describe_topic("t").await.unwrap();
        let mut raw = Raw::connect(site.address()).await;
        raw.call(&produce(topic.id, 2), &batch(&[b"x"])).await;
        let request = fetch(topic.id, &[(0, 0), (1, 0), (2, 0), (3, 0)], FOR_EVER_MS, 1);
        assert_eq!(values(&raw.call(&request, &[]).await.payload), [b"x"]);
        // An error is worth an answer as well.
        let request = fetch(topic.id, &[(0, 0), (1, 7)], FOR_EVER_MS, 1);
        let errors: Vec<_> = raw
            .call(&request, &[])
            .await
            .fetch()
            .partitions
            .unwrap()
            .iter()
            .map(|p| p.error)
            .collect();
        assert_eq!(errors, [0, 1]);
        broker.stop();
    });
}
