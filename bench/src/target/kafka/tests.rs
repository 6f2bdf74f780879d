//! On librdkafka's own cluster, which lives in this process and keeps records in memory.

use std::sync::Arc;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::load::intake::Timing;
use crate::load::meter::Meter;
use crate::load::tests::{options, plan};
use crate::load::{clock::Moment, produce};
use crate::workload::{Expectation, Verifier};

fn partitions(leaders: &[bool]) -> Vec<Partition> {
    let partition = |(id, &has_leader): (i32, &bool)| Partition {
        id,
        leader: has_leader.then_some(1),
        replicas: vec![1],
        is_whole: true,
    };
    (0..).zip(leaders).map(partition).collect()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

#[test]
fn a_new_topic_is_waited_for_until_each_of_its_partitions_has_a_leader() {
    run(async {
        // As a broker tells it: not known yet, without leaders, some, all.
        let mut answers = [&[][..], &[false, false], &[true, false], &[true, true]].into_iter();
        let look = || std::future::ready(Ok(partitions(answers.next().unwrap())));
        assert_eq!(with_leaders(2, PATIENCE, look).await.unwrap(), 2);
        assert!(answers.next().is_none(), "it did not look until all had one");
        let never = with_leaders(2, Duration::ZERO, || std::future::ready(Ok(partitions(&[true, false])))).await;
        let text = never.unwrap_err().to_string();
        assert!(text.contains("1 of 2 partitions have a leader"), "{text}");
    });
}

#[test]
fn a_partition_without_a_leader_is_seen_as_one() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    run(async {
        let kafka = Kafka::connect(&cluster.bootstrap_servers()).await.unwrap();
        assert_eq!(kafka.partitions("t").await.unwrap(), partitions(&[true, true]));
        cluster.partition_leader("t", 1, None).unwrap();
        assert_eq!(kafka.partitions("t").await.unwrap(), partitions(&[true, false]));
    });
}

#[test]
fn what_passes_while_a_partition_gets_its_leader_is_asked_again() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    run(async {
        let kafka = Kafka::connect(&cluster.bootstrap_servers()).await.unwrap();
        // More of them than librdkafka hides by itself.
        let passing = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 20];
        cluster.request_errors(RDKafkaApiKey::ListOffsets, &passing);
        assert_eq!(kafka.spans("t").await.unwrap(), [Span::default()]);
        let stays = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 20];
        cluster.request_errors(RDKafkaApiKey::ListOffsets, &stays);
        let refused = kafka.spans("t").await.unwrap_err().to_string();
        assert!(refused.contains("uthoriz"), "{refused}");
    });
}

#[test]
fn a_broker_that_is_gone_is_not_in_sync_whatever_metadata_says() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
    run(async {
        assert!(is_there(&place).await);
        drop(listener);
        assert!(!is_there(&place).await);
    });
}

#[test]
fn records_come_back_from_a_kafka_broker_as_they_were_sent() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let keyed = options(&["--bytes", "5000", "--partitions", "2", "--keys", "uniform:10"]);
    runtime.block_on(async {
        let kafka = Kafka::connect(&cluster.bootstrap_servers()).await.unwrap();
        assert_eq!(kafka.ensure_topic("t", keyed.load.shape()).await.unwrap(), 2);
        let plan = plan(&keyed);
        let meter = Meter::new("produce", Arc::default());
        let produced = produce::run(&kafka, &plan, &[Arc::clone(&meter)]).await.unwrap();
        assert_eq!(produced.acknowledged.values().sum::<u64>(), 500);

        let spans = kafka.spans("t").await.unwrap();
        let ends: Vec<_> = spans.iter().map(|span| span.end).collect();
        assert_eq!(ends.iter().map(|end| end.0).sum::<u64>(), 500);
        let from = vec![Position(0); 2];
        meter.open(Moment::now());
        let mut intake = Intake::new(meter, &from, Timing::None).verify(Verifier::new(
            Arc::clone(&plan.payload),
            Expectation::exactly(produced.acknowledged),
        ));
        let mut consumer = kafka.consumer("t", &from).await.unwrap();
        while !intake.has_reached(&ends) {
            consumer.receive(&mut intake).await.unwrap();
        }
        assert!(intake.finish(None).unwrap().damage.is_none());
    });
}
