//! Several brokers in one process, by hand-fed assignments: what is acknowledged is on all that are in sync, and stays.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    pin::pin,
    time::{Duration, Instant},
};

use flatbuffers::FlatBufferBuilder;
use futures::poll;
use headwater_client::{
    Acks, Client, CommittedOffset, Offset, OffsetSpec, PartitionIndex, Producer, Record, Start, TopicName,
};

use headwater_protocol::{
    error::ErrorCode,
    frame::{FrameHeader, HEADER_LEN},
    head::{self, ALIGNMENT},
    id::CorrelationId,
    schema::{ReplicaHelloRequestT, ReplicaHelloResponse},
};

use super::cluster::{Cluster, LIMIT, run};

const P0: PartitionIndex = PartitionIndex::new(0);

async fn producer_of(client: &Client, acks: Acks) -> Producer {
    client.producer().acks(acks).build().await.unwrap()
}

async fn send(producer: &Producer, value: &str) -> Offset {
    let record = Record::to("t").partition(P0).value(value.as_bytes());
    let delivered = producer.send(record).await.unwrap().await.unwrap();
    delivered.offset.unwrap()
}

/// The values in a partition, as many as that, in order.
async fn values(client: &Client, count: usize) -> Vec<String> {
    let consumer = client.consumer().topics(["t"]).start(Start::Earliest);
    let mut consumer = consumer.build().await.unwrap();
    let mut values = Vec::new();
    while values.len() < count {
        let record = consumer.recv().await.unwrap();
        values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    }
    values
}

#[test]
fn what_every_in_sync_replica_is_asked_for_is_acknowledged_only_once_all_have_it_and_is_not_read_before() {
    run(async {
        let mut cluster = Cluster::new(&[1, 2], 1, 2);
        cluster.stop(2);
        let client = cluster.client(1).await;
        let (all, one) = (
            producer_of(&client, Acks::All).await,
            producer_of(&client, Acks::Leader).await,
        );
        let mut first = pin!(all.send(Record::to("t").partition(P0).value(b"first")).await.unwrap());
        while client.admin().describe_topic("t").await.unwrap().partitions[0].log_end_offset == Offset::ZERO {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(send(&one, "second").await, Offset::new(1), "the leader alone has both");
        assert!(poll!(first.as_mut()).is_pending());
        let latest = client.admin().list_offset("t", P0, OffsetSpec::Latest).await;
        assert_eq!(
            latest.unwrap(),
            Some(Offset::ZERO),
            "what is not on both may not be read"
        );
        cluster.start(2);
        assert_eq!(
            cluster.replicas(cluster.partition(0, 0)).isr.len(),
            1,
            "another process"
        );
        cluster.all_in_sync().await;
        assert_eq!(first.await.unwrap().offset, Some(Offset::ZERO));
        assert_eq!(values(&client, 2).await, ["first", "second"]);
        let logs = cluster.logs("t", 0);
        assert_eq!(logs[0].len(), 2);
        assert!(logs[0] == logs[1], "byte for byte");
    });
}

#[test]
fn a_producer_and_a_reader_go_on_at_the_next_leader_and_nothing_is_lost_or_twice_there() {
    run(async {
        let mut cluster = Cluster::new(&[1, 2, 3], 1, 2);
        let client = cluster.client(3).await;
        let producer = producer_of(&client, Acks::All).await;
        let mut sent = Vec::new();
        let mut deliveries = Vec::new();
        for round in 0..3 {
            for number in 0..200 {
                let value = format!("{round}-{number}");
                let record = Record::to("t").partition(P0).value(value.as_bytes());
                deliveries.push(producer.send(record).await.unwrap());
                sent.push(value);
            }
            match round {
                0 => {
                    cluster.stop(1);
                    cluster.fence(1);
                }
                1 => {
                    cluster.start(1);
                    cluster.all_in_sync().await;
                    cluster.stop(2);
                    cluster.fence(2);
                }
                _ => {}
            }
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        assert_eq!(values(&client, sent.len()).await, sent, "in order, each once");
        cluster.start(2);
        cluster.all_in_sync().await;
        let logs = cluster.logs("t", 0);
        assert!(logs[0] == logs[1] && logs[1] == logs[2], "byte for byte");
    });
}

#[test]
fn a_leader_of_before_drops_what_nobody_else_had_and_takes_over_what_came_instead() {
    run(async {
        let mut cluster = Cluster::new(&[1, 2, 3], 1, 1);
        let client = cluster.client(1).await;
        send(&producer_of(&client, Acks::All).await, "kept").await;
        cluster.stop(2);
        cluster.stop(3);
        let alone = client
            .producer()
            .acks(Acks::Leader)
            .idempotent(false)
            .build()
            .await
            .unwrap();
        for number in 0..20 {
            send(&alone, &format!("lost {number}")).await;
        }
        cluster.stop(1);
        cluster.fence(1);
        // They come back as other processes, and are eligible all the same: the disk has what was acknowledged.
        cluster.start(2);
        cluster.start(3);
        let leader = cluster.replicas(cluster.partition(0, 0)).leader.unwrap();
        assert_ne!(leader.get(), 1);
        let client = cluster.client(leader.get()).await;
        let others = client
            .producer()
            .acks(Acks::All)
            .idempotent(false)
            .build()
            .await
            .unwrap();
        assert_eq!(send(&others, "instead").await, Offset::new(1));
        cluster.start(1);
        cluster.all_in_sync().await;
        assert_eq!(values(&client, 2).await, ["kept", "instead"]);
        let logs = cluster.logs("t", 0);
        assert_eq!(logs[0].len(), 2);
        assert!(logs[0] == logs[1] && logs[1] == logs[2], "byte for byte");
    });
}

#[test]
fn a_replica_that_was_away_reads_what_is_long_on_the_leaders_disk_and_is_in_sync_again() {
    run(async {
        let mut cluster = Cluster::new(&[1, 2], 4, 1);
        cluster.stop(2);
        let client = cluster.client(1).await;
        let producer = producer_of(&client, Acks::Leader).await;
        let value = vec![7; 20_000];
        let mut deliveries = Vec::new();
        // Several segments of each partition, more than the memory for what was appended last.
        for number in 0..1_200 {
            let record = Record::to("t").partition(PartitionIndex::new(number % 4)).value(&value);
            deliveries.push(producer.send(record).await.unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        cluster.start(2);
        cluster.all_in_sync().await;
        for index in 0..4 {
            let logs = cluster.logs("t", index);
            assert!(
                !logs[0].is_empty() && logs[0] == logs[1],
                "partition {index}, byte for byte"
            );
        }
    });
}

#[test]
fn a_replica_that_catches_up_keeps_to_the_budget_and_comes_to_the_end_while_producers_are_faster_than_that() {
    const BUDGET: u64 = 2 << 20;
    const SIZE: u32 = 200_000;
    run(async {
        let mut cluster = Cluster::paced(&[1, 2, 3], 1, 2, BUDGET);
        cluster.stop(2);
        cluster.fence(2);
        let client = cluster.client(1).await;
        let producer = producer_of(&client, Acks::All).await;
        let send = async || {
            let value = vec![7; SIZE as usize];
            let record = Record::to("t").partition(P0).value(&value);
            producer.send(record).await.unwrap().await.unwrap();
        };
        for _ in 0..16 {
            send().await;
        }
        let began = Instant::now();
        cluster.start(2);
        let mut acknowledged = 0_u32;
        while !cluster.is_whole() {
            send().await;
            acknowledged += 1;
            cluster.grant_wishes();
        }
        let took = began.elapsed().as_secs_f64();
        // The last mebibyte is not waited for.
        assert!(took > 0.7, "3.2 MB at 2 MiB a second took {took} s");
        let rate = f64::from(acknowledged * SIZE) / took;
        assert!(
            rate > BUDGET as f64,
            "what is in sync does not wait: {rate} bytes a second"
        );
        let logs = cluster.logs("t", 0);
        assert!(logs[0] == logs[1], "byte for byte");
    });
}

#[test]
fn records_are_refused_while_fewer_are_in_sync_than_the_topic_asks_for() {
    run(async {
        let mut cluster = Cluster::new(&[1, 2], 1, 2);
        cluster.stop(2);
        cluster.fence(2);
        let client = cluster.client(1).await;
        let producer = producer_of(&client, Acks::All).await;
        let record = Record::to("t").partition(P0).value(b"later");
        let delivery = producer.send(record).await.unwrap();
        let refused = loop {
            match producer.retrying_after() {
                Some(why) => break why,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert_eq!(refused.code(), Some(ErrorCode::NotEnoughReplicas), "{refused}");
        cluster.start(2);
        cluster.all_in_sync().await;
        assert_eq!(delivery.await.unwrap().offset, Some(Offset::ZERO));
    });
}

#[test]
fn a_leader_that_is_deposed_takes_no_records_and_tells_its_producers_to_ask_elsewhere() {
    run(async {
        let mut cluster = Cluster::new(&[1, 2, 3], 1, 2);
        // It would wait for longer than the test may take.
        let client = Client::builder()
            .bootstrap([1, 2].map(|id| cluster.broker(id).addr().to_string()))
            .request_timeout(LIMIT * 2)
            .call_timeout(LIMIT * 3)
            .build()
            .await
            .unwrap();
        let producer = client.producer().delivery_timeout(LIMIT * 3).build().await.unwrap();
        send(&producer, "before").await;
        cluster.stop(3);
        let waits = producer
            .send(Record::to("t").partition(P0).value(b"waits"))
            .await
            .unwrap();
        while client.admin().describe_topic("t").await.unwrap().partitions[0].log_end_offset < Offset::new(2) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // It runs on, and learns that another leads.
        cluster.fence(1);
        cluster.fence(3);
        assert_eq!(cluster.replicas(cluster.partition(0, 0)).leader.unwrap().get(), 2);
        cluster.let_in(1);
        cluster.start(3);
        cluster.all_in_sync().await;
        assert_eq!(waits.await.unwrap().offset, Some(Offset::new(1)));
        assert_eq!(send(&producer, "after").await, Offset::new(2));
        assert_eq!(values(&client, 3).await, ["before", "waits", "after"]);
        let logs = cluster.logs("t", 0);
        assert!(logs[0] == logs[1] && logs[1] == logs[2], "byte for byte");
    });
}

#[test]
fn groups_and_what_they_have_committed_move_with_the_leader_of_their_partition() {
    run(async {
        let mut cluster = Cluster::new(&[1, 2], 1, 1);
        cluster.create("__consumer_offsets", 4, 1);
        let client = cluster.client(2).await;
        let producer = producer_of(&client, Acks::All).await;
        for number in 0..10 {
            send(&producer, &number.to_string()).await;
        }
        let mut seen = BTreeMap::new();
        let group = || client.group_consumer("group").topics(["t"]);
        let mut consumer = group().build().await.unwrap();
        while seen.len() < 4 {
            let record = consumer.recv().await.unwrap();
            seen.insert(record.offset, record.value.unwrap().to_vec());
        }
        let committed = CommittedOffset::new(TopicName::new("t").unwrap(), P0, Offset::new(4));
        consumer.commit_offsets(&[committed]).await.unwrap();
        cluster.stop(1);
        cluster.fence(1);
        let offsets = client.admin().groups().committed_offsets("group").await.unwrap();
        assert_eq!(offsets.len(), 1);
        assert_eq!(offsets[0].offset, Offset::new(4));
    });
}

/// Connects to a broker's first core as another broker would, and returns what that says, and whether it goes on listening.
fn knock(cluster: &Cluster, hello: &ReplicaHelloRequestT) -> (ErrorCode, bool) {
    let mut builder = FlatBufferBuilder::new();
    let root = hello.pack(&mut builder);
    builder.finish_minimal(root);
    let mut head = builder.finished_data().to_vec();
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    let header = FrameHeader::new(1000, 0, CorrelationId::new(0), head.len(), 0).unwrap();
    let port = cluster.broker(1).own_address().core_ports[0];
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&[&header.encode()[..], &head].concat()).unwrap();
    let mut answer = vec![0; HEADER_LEN];
    stream.read_exact(&mut answer).unwrap();
    let header = FrameHeader::parse(&answer, 1 << 20).unwrap().unwrap();
    let mut head = vec![0; header.frame_len() - HEADER_LEN];
    stream.read_exact(&mut head).unwrap();
    let welcome = head::decode_response::<ReplicaHelloResponse<'_>>(&head).unwrap();
    let code = ErrorCode::from_i16(welcome.error());
    // What is no fetch ends a stream that is there.
    let garbage = stream.write_all(&[0; 64]);
    let goes_on = !code.is_none() && garbage.is_ok() && stream.read(&mut [0]).is_ok_and(|count| count > 0);
    (code, goes_on)
}

#[test]
fn only_the_process_that_is_registered_is_let_in_and_everybody_else_is_told_why_not_and_hung_up_on() {
    run(async {
        let cluster = Cluster::new(&[1, 2], 1, 1);
        let incarnation = cluster.incarnation(2);
        let hello = || ReplicaHelloRequestT {
            cluster_id: Some("cluster".to_owned()),
            broker_id: 2,
            incarnation,
            // Beyond those that the broker itself has made.
            connection: 1 << 40,
            to_broker_id: 1,
            ..ReplicaHelloRequestT::default()
        };
        let refused = [
            (
                ReplicaHelloRequestT {
                    cluster_id: Some("another".to_owned()),
                    ..hello()
                },
                ErrorCode::InconsistentClusterId,
            ),
            (
                ReplicaHelloRequestT {
                    broker_id: 3,
                    ..hello()
                },
                ErrorCode::BrokerIdNotRegistered,
            ),
            (
                ReplicaHelloRequestT {
                    incarnation: incarnation - 1,
                    ..hello()
                },
                ErrorCode::StaleBrokerEpoch,
            ),
            (
                ReplicaHelloRequestT {
                    version_min: 1,
                    version_max: 9,
                    ..hello()
                },
                ErrorCode::UnsupportedVersion,
            ),
            (
                ReplicaHelloRequestT {
                    to_broker_id: 2,
                    ..hello()
                },
                ErrorCode::ReplicaNotAvailable,
            ),
        ];
        for (hello, why) in refused {
            assert_eq!(knock(&cluster, &hello), (why, false));
        }
        assert_eq!(knock(&cluster, &hello()), (ErrorCode::None, false));
        assert_eq!(
            knock(&cluster, &hello()).0,
            ErrorCode::StaleBrokerEpoch,
            "the same again"
        );
    });
}
