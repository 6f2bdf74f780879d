//! Partitions that a topic gets while it is read or written to.

use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::frame::Api;
use tokio::time::{Instant, sleep};

use super::{P0, P1, SECOND, consumer, fill, offsets};
use crate::producer::RoundRobinPartitioner;
use crate::tests::broker::{Harm, Partition};
use crate::tests::{Broker, one_broker};
use crate::{Offset, OffsetSpec, PartitionIndex, Record, Start};

/// Within this, a client that is left alone knows.
const AGE_MAX: Duration = Duration::from_secs(30);

/// Gives "t" one more partition, which has a batch.
fn add_partition(broker: &Broker) {
    let mut state = broker.state.lock();
    let partitions = &mut state.topics.get_mut("t").unwrap().partitions;
    partitions.push(Partition::default());
    let index = partitions.len() - 1;
    drop(state);
    fill(broker, "t", index, 1);
}

#[tokio::test(start_paused = true)]
async fn partitions_that_a_topic_gets_later_are_read_from_their_first_record_wherever_the_consumer_began() {
    for start in [Start::Earliest, Start::Latest, Start::Offset(Offset::new(5))] {
        let (broker, _client, mut consumer) = consumer(1, 1, |builder| builder.start(start)).await;
        while consumer.recv_timeout(SECOND).await.unwrap().is_some() {}
        add_partition(&broker);
        let before = Instant::now();
        let record = consumer.recv().await.unwrap();
        assert_eq!((record.partition, record.offset), (P1, Offset::ZERO), "{start:?}");
        assert!(before.elapsed() <= AGE_MAX + SECOND, "{:?}", before.elapsed());
        assert_eq!(consumer.assignment().len(), 2);
        assert_eq!(offsets(&mut consumer, 9).await, (1..10).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_when_a_consumer_is_made_begins_at_its_start_however_old_the_metadata_are() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    client.admin().list_offsets("t", OffsetSpec::Latest).await.unwrap();
    add_partition(&broker);
    let mut consumer = client.consumer().topics(["t"]).build().await.unwrap();
    assert_eq!(consumer.assignment().len(), 2);
    assert!(consumer.recv_timeout(2 * AGE_MAX).await.unwrap().is_none());
    fill(&broker, "t", 1, 1);
    assert_eq!(offsets(&mut consumer, 1).await, [10]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_while_a_consumer_is_made_is_read() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    broker.harm(Harm {
        slow: Duration::from_millis(20),
        ..Harm::default()
    });
    let built = client.consumer().topics(["t"]).build();
    // Once it knows the partitions, and before it knows where they begin, the same client learns of another.
    let meanwhile = async {
        while broker.requests(Api::Metadata) == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        broker.harm.lock().silent = true;
        sleep(SECOND).await;
        broker.harm(Harm::default());
        add_partition(&broker);
        client.admin().list_offsets("t", OffsetSpec::Latest).await.unwrap();
    };
    let (consumer, ()) = futures::join!(built, meanwhile);
    let mut consumer = consumer.unwrap();
    assert!(consumer.recv_timeout(10 * SECOND).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn offsets_are_listed_of_every_partition_that_there_is_now() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    let list = async || client.admin().list_offsets("t", OffsetSpec::Latest).await.unwrap();
    assert_eq!(list().await, [Some(Offset::ZERO)]);
    add_partition(&broker);
    assert_eq!(list().await, [Some(Offset::ZERO), Some(Offset::new(10))]);
    add_partition(&broker);
    let third = PartitionIndex::new(2);
    let listed = client
        .admin()
        .list_offset("t", third, OffsetSpec::Latest)
        .await
        .unwrap();
    assert_eq!(listed, Some(Offset::new(10)));
}

#[tokio::test(start_paused = true)]
async fn one_partition_may_begin_elsewhere_than_the_others() {
    let (_broker, _client, mut consumer) = consumer(2, 3, |builder| {
        builder.start(Start::Latest).start_of("t", P1, Offset::new(25))
    })
    .await;
    assert_eq!(consumer.position("t", P0), Some(Offset::new(30)));
    assert_eq!(offsets(&mut consumer, 5).await, (25..30).collect::<Vec<_>>());
    assert!(consumer.recv_timeout(SECOND).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_producer_spreads_its_records_over_partitions_that_were_added() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    let producer = client
        .producer()
        .partitioner(RoundRobinPartitioner)
        .build()
        .await
        .unwrap();
    let producer = Arc::new(producer);
    let send = async || {
        let delivery = producer.send(Record::to("t").value("v")).await.unwrap();
        delivery.await.unwrap().partition
    };
    assert_eq!((send().await, send().await), (P0, P0));
    add_partition(&broker);
    sleep(AGE_MAX + SECOND).await;
    let mut used = [send().await, send().await];
    used.sort_unstable();
    assert_eq!(used, [P0, P1]);
}
