//! What operators and Kafka's own tools ask: of logs, producers, leaders and moves, of one broker and of three.

use std::{net::SocketAddr, time::Duration};

use headwater_kafka::{
    ApiKey,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, DescribeClusterRequest,
        DescribeClusterResponse, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest,
        DescribeProducersResponse, DescribeQuorumRequest, DescribeQuorumResponse, DescribeTopicPartitionsRequest,
        DescribeTopicPartitionsResponse, ElectLeadersRequest, ElectLeadersResponse, FetchResponse,
        InitProducerIdRequest, InitProducerIdResponse, ListConfigResourcesRequest, ListConfigResourcesResponse,
        ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, UnregisterBrokerRequest,
        UnregisterBrokerResponse,
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic},
        describe_log_dirs_request::DescribableLogDirTopic,
        describe_producers_request,
        describe_quorum_request::{PartitionData, TopicData},
        describe_topic_partitions_request::TopicRequest,
        describe_topic_partitions_response::DescribeTopicPartitionsResponsePartition,
        elect_leaders_request::TopicPartitions,
        metadata_response::MetadataResponsePartition,
    },
};

use super::{
    records::{fetch, produce},
    wire::Wire,
};
use crate::support::{Cluster, Site, await_all_in_sync, await_all_there, await_list, batch, numbered_batch, run};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

impl Wire {
    async fn of_node(&mut self, node: i32) -> Wire {
        let told = self.metadata(&[], false).await;
        let node = told.brokers.iter().find(|broker| broker.node_id == node).unwrap();
        let address: SocketAddr = format!("{}:{}", node.host, node.port).parse().unwrap();
        Wire::connect(address).await
    }

    async fn log_dirs(&mut self, topics: Option<&[(&str, &[i32])]>) -> DescribeLogDirsResponse<'static> {
        let topics = topics.map(|topics| {
            let topics = topics.iter().map(|(name, partitions)| DescribableLogDirTopic {
                topic: (*name).to_owned().into(),
                partitions: partitions.to_vec(),
            });
            topics.collect()
        });
        self.ask(ApiKey::DescribeLogDirs, 5, &DescribeLogDirsRequest { topics })
            .await
    }

    /// The error of the whole; and of partitions, with their words.
    async fn elect(&mut self, kind: i8, partitions: Option<&[(&str, i32)]>) -> (i16, Vec<(String, i16, String)>) {
        let request = ElectLeadersRequest {
            election_type: kind,
            topic_partitions: partitions.map(|partitions| {
                let partitions = partitions.iter().map(|(topic, index)| TopicPartitions {
                    topic: (*topic).to_owned().into(),
                    partitions: vec![*index],
                });
                partitions.collect()
            }),
            timeout_ms: 10_000,
        };
        let told: ElectLeadersResponse<'_> = self.ask(ApiKey::ElectLeaders, 2, &request).await;
        let mut results = Vec::new();
        for topic in told.replica_election_results {
            for partition in topic.partition_result {
                let name = format!("{}-{}", topic.topic, partition.partition_id);
                let words = partition.error_message.unwrap_or_default().into_owned();
                results.push((name, partition.error_code, words));
            }
        }
        (told.error_code, results)
    }

    /// Has a partition move, or stay; the error, and its words.
    async fn reassign(&mut self, topic: &str, replicas: Option<&[i32]>, may_change: bool) -> (i16, String) {
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: 10_000,
            allow_replication_factor_change: may_change,
            topics: vec![ReassignableTopic {
                name: topic.to_owned().into(),
                partitions: vec![ReassignablePartition {
                    partition_index: 0,
                    replicas: replicas.map(<[i32]>::to_vec),
                }],
            }],
        };
        let told: AlterPartitionReassignmentsResponse<'_> =
            self.ask(ApiKey::AlterPartitionReassignments, 1, &request).await;
        assert_eq!(told.error_code, 0);
        let told = &told.responses[0].partitions[0];
        (
            told.error_code,
            told.error_message.as_deref().unwrap_or_default().to_owned(),
        )
    }

    /// Moves that are under way: replicas, those that come, and those that go.
    async fn moves(&mut self) -> Vec<(Vec<i32>, Vec<i32>, Vec<i32>)> {
        let request = ListPartitionReassignmentsRequest::default();
        let told: ListPartitionReassignmentsResponse<'_> =
            self.ask(ApiKey::ListPartitionReassignments, 0, &request).await;
        assert_eq!(told.error_code, 0);
        let partitions = told.topics.into_iter().flat_map(|topic| topic.partitions);
        partitions
            .map(|moving| (moving.replicas, moving.adding_replicas, moving.removing_replicas))
            .collect()
    }

    async fn unregister(&mut self, broker_id: i32) -> (i16, String) {
        let request = UnregisterBrokerRequest { broker_id };
        let told: UnregisterBrokerResponse<'_> = self.ask(ApiKey::UnregisterBroker, 0, &request).await;
        (told.error_code, told.error_message.unwrap_or_default().into_owned())
    }

    async fn quorum(&mut self, topic: &str) -> DescribeQuorumResponse<'static> {
        let request = DescribeQuorumRequest {
            topics: vec![TopicData {
                topic_name: topic.to_owned().into(),
                partitions: vec![PartitionData { partition_index: 0 }],
            }],
        };
        self.ask(ApiKey::DescribeQuorum, 2, &request).await
    }

    async fn partition(&mut self, topic: &str) -> MetadataResponsePartition {
        self.topic(topic).await.partitions.remove(0)
    }

    async fn described_partition(&mut self, topic: &str) -> DescribeTopicPartitionsResponsePartition {
        let request = DescribeTopicPartitionsRequest {
            topics: vec![TopicRequest {
                name: topic.to_owned().into(),
            }],
            ..DescribeTopicPartitionsRequest::default()
        };
        let mut told: DescribeTopicPartitionsResponse<'_> =
            self.ask(ApiKey::DescribeTopicPartitions, 0, &request).await;
        told.topics.remove(0).partitions.remove(0)
    }
}

/// G6, H6, H7, H8, and E11 of what has settings.
#[test]
fn operators_are_told_of_one_broker_what_kafka_tells_them() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        wire.create_topic("h", 4, &[]).await;
        let topic = ("h", wire.topic("h").await.topic_id);
        for partition in 0..4 {
            wire.produced(13, &produce(topic, partition, 1, batch(&[&[7; 500]])))
                .await;
        }
        logs_are_told(&mut wire).await;
        elections_are_told(&mut wire).await;
        moves_are_told(&mut wire).await;
        the_quorum_is_told(&mut wire).await;
        endpoints_are_told(&mut wire).await;
        resources_are_told(&mut wire).await;
        producers_are_told(&mut wire, topic).await;
        broker.stop();
    });
}

/// H7: each node has the partitions of its core, and all of them have the one directory.
async fn logs_are_told(wire: &mut Wire) {
    let mut found = Vec::new();
    for node in [0, 1] {
        let mut told = wire.of_node(node).await.log_dirs(None).await;
        let directory = told.results.remove(0);
        assert_eq!(
            (directory.error_code, directory.is_cordoned, told.results.len()),
            (0, false, 0)
        );
        assert!(directory.log_dir.starts_with('/'));
        assert!(directory.total_bytes >= directory.usable_bytes && directory.usable_bytes > 0);
        for log in directory.topics.iter().flat_map(|topic| &topic.partitions) {
            assert!(log.partition_size > 500 && log.offset_lag == 0 && !log.is_future_key);
            found.push(log.partition_index);
        }
    }
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2, 3]);
    for nothing in [&[][..], &[("nope", &[0][..]), ("h", &[9][..])][..]] {
        assert_eq!(wire.log_dirs(Some(nothing)).await.results[0].topics.len(), 0);
    }
}

/// H8.
async fn elections_are_told(wire: &mut Wire) {
    let not_needed = "Leader election not needed for topic partition.".to_owned();
    for kind in [PREFERRED, UNCLEAN] {
        let told = wire.elect(kind, Some(&[("h", 0)])).await;
        assert_eq!(told, (0, vec![("h-0".to_owned(), 84, not_needed.clone())]));
        assert_eq!(wire.elect(kind, None).await, (0, vec![]));
    }
    let told = wire.elect(PREFERRED, Some(&[("nope", 0), ("h", 9)])).await.1;
    let words: Vec<_> = told.iter().map(|(_, code, words)| (*code, words.as_str())).collect();
    assert_eq!(words, [(3, "No such partition as h-9"), (3, "No such topic as nope")]);
    let told = wire.elect(5, Some(&[("h", 0)])).await;
    assert_eq!(
        told,
        (42, vec![("h-0".to_owned(), 42, "Unknown election type 5".to_owned())])
    );
}

/// Moves, and brokers that are gone.
async fn moves_are_told(wire: &mut Wire) {
    let cancelled = wire.reassign("h", None, true).await;
    assert_eq!(cancelled, (85, "No partition reassignment is in progress.".to_owned()));
    assert_eq!(wire.reassign("h", Some(&[0]), true).await.0, 0, "it is there");
    assert_eq!(wire.reassign("h", Some(&[7]), true).await.0, 39);
    assert_eq!(wire.reassign("nope", None, true).await.0, 3);
    assert_eq!(wire.moves().await, []);
    let unknown = (102, "Broker ID 7 is not currently registered".to_owned());
    assert_eq!(wire.unregister(7).await, unknown);
}

/// The quorum.
async fn the_quorum_is_told(wire: &mut Wire) {
    let quorum = wire.quorum("__cluster_metadata").await;
    let partition = &quorum.topics[0].partitions[0];
    assert_eq!(
        (
            partition.error_code,
            partition.leader_id,
            partition.current_voters.len()
        ),
        (0, 0, 1)
    );
    assert_eq!(partition.current_voters[0].log_end_offset, partition.high_watermark);
    assert_eq!(wire.quorum("h").await.topics[0].partitions[0].error_code, 3);
}

/// H6.
async fn endpoints_are_told(wire: &mut Wire) {
    for (endpoint_type, code, words) in [(2, 114, "of type CONTROLLER"), (3, 115, "Unsupported endpoint type 3")] {
        let request = DescribeClusterRequest {
            endpoint_type,
            ..DescribeClusterRequest::default()
        };
        let told: DescribeClusterResponse<'_> = wire.ask(ApiKey::DescribeCluster, 2, &request).await;
        assert!(told.error_code == code && told.error_message.unwrap().contains(words));
        assert_eq!((&*told.cluster_id, told.controller_id, told.brokers.len()), ("", -1, 0));
    }
}

/// E11.
async fn resources_are_told(wire: &mut Wire) {
    let resources = async |wire: &mut Wire, version, resource_types: Vec<i8>| {
        let request = ListConfigResourcesRequest { resource_types };
        let told: ListConfigResourcesResponse<'_> = wire.ask(ApiKey::ListConfigResources, version, &request).await;
        let listed = told.config_resources.into_iter();
        let listed: Vec<_> = listed
            .map(|listed| (listed.resource_type, listed.resource_name.into_owned()))
            .collect();
        (told.error_code, listed)
    };
    let is = |kind: i8, name: &str| (kind, name.to_owned());
    let all = vec![is(8, "0"), is(8, "1"), is(4, "0"), is(4, "1"), is(2, "h")];
    assert_eq!(resources(wire, 1, vec![]).await, (0, all));
    assert_eq!(resources(wire, 1, vec![2]).await, (0, vec![is(2, "h")]));
    assert_eq!(resources(wire, 0, vec![]).await, (0, vec![]));
    assert_eq!(resources(wire, 1, vec![99]).await, (35, vec![]));
}

/// G6.
async fn producers_are_told(wire: &mut Wire, topic: (&'static str, headwater_kafka::Uuid)) {
    let request = InitProducerIdRequest {
        transactional_id: None,
        ..InitProducerIdRequest::default()
    };
    let id: InitProducerIdResponse = wire.ask(ApiKey::InitProducerId, 5, &request).await;
    for sequence in 0..3 {
        let records = numbered_batch(&[b"x"], id.producer_id, id.producer_epoch, sequence);
        assert_eq!(wire.produced(13, &produce(topic, 1, 1, records)).await.error_code, 0);
    }
    let request = DescribeProducersRequest {
        topics: vec![describe_producers_request::TopicRequest {
            name: "h".into(),
            partition_indexes: vec![0, 1, 9],
        }],
    };
    let told: DescribeProducersResponse<'_> = wire.ask(ApiKey::DescribeProducers, 0, &request).await;
    let partitions = &told.topics[0].partitions;
    let codes: Vec<i16> = partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [0, 0, 3]);
    assert_eq!(partitions[0].active_producers.len(), 0);
    let producer = &partitions[1].active_producers[0];
    let seen = (producer.producer_id, producer.producer_epoch, producer.last_sequence);
    assert_eq!(seen, (id.producer_id, id.producer_epoch.into(), 2));
    assert_eq!(
        (producer.coordinator_epoch, producer.current_txn_start_offset),
        (-1, -1)
    );
}

/// Where a topic of one partition is to be.
fn placed(name: &str, nodes: &[i32]) -> CreatableTopic<'static> {
    CreatableTopic {
        name: name.to_owned().into(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![CreatableReplicaAssignment {
            partition_index: 0,
            broker_ids: nodes.to_vec(),
        }],
        ..CreatableTopic::default()
    }
}

async fn eventually<T: PartialEq + std::fmt::Debug>(wanted: T, mut is: impl AsyncFnMut() -> T) {
    for _ in 0..1000 {
        if is().await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(is().await, wanted, "after 20 s");
}

/// I3, I4, and what Kafka says of moves and elections.
#[test]
fn partitions_of_three_brokers_are_placed_moved_and_led_as_operators_say() {
    run(async {
        let mut cluster = Cluster::start_with(&[("cores.count", "1")]);
        let client = cluster.client().await;
        await_all_there(&client).await;
        let mut wire = Wire::of(&cluster.sites[0]).await;
        let placed = vec![
            placed("moved", &[0, 1024]),
            placed("left", &[2048, 0]),
            placed("lost", &[2048]),
        ];
        for told in wire.create(placed).await {
            assert_eq!(told, (0, String::new()));
        }
        eventually(vec![0, 1024], async || wire.partition("moved").await.replica_nodes).await;
        assert_eq!(wire.partition("left").await.leader_id, 2048);
        // A move, and what is no move.
        let refused = wire.reassign("moved", Some(&[2048]), false).await;
        assert_eq!(
            refused,
            (38, "The replication factor is changed from 2 to 1".to_owned())
        );
        assert_eq!(wire.reassign("moved", Some(&[5000]), true).await.0, 39);
        assert_eq!(
            wire.reassign("moved", Some(&[1024, 2048]), true).await,
            (0, String::new())
        );
        eventually(vec![1024, 2048], async || wire.partition("moved").await.replica_nodes).await;
        eventually(vec![], async || wire.moves().await).await;
        assert_eq!(wire.reassign("moved", None, true).await.0, 85);
        await_all_in_sync(&client).await;
        cluster.kill(2);
        the_others_are_told(&mut wire).await;
        // It comes back, and leads again when it is told to.
        cluster.start_one(2);
        await_list(&client, "all are in sync again", |list| {
            list.under_replicated == 0 && list.brokers.iter().all(|broker| !broker.is_fenced)
        })
        .await;
        let elected = wire.elect(PREFERRED, None).await;
        assert_eq!(elected.0, 0);
        eventually(2048, async || wire.partition("left").await.leader_id).await;
        eventually(2048, async || wire.partition("lost").await.leader_id).await;
        a_leader_of_before_is_told_at_once(&mut wire).await;
        let quorum = wire.quorum("__cluster_metadata").await;
        let mut voters: Vec<i32> = quorum.topics[0].partitions[0]
            .current_voters
            .iter()
            .map(|voter| voter.replica_id)
            .collect();
        voters.sort_unstable();
        assert_eq!((voters, quorum.nodes.len()), (vec![0, 1024, 2048], 3));
        for broker in cluster.brokers.into_iter().flatten() {
            broker.stop();
        }
    });
}

/// One has gone: of what it led another leads, or nobody does.
async fn the_others_are_told(wire: &mut Wire) {
    eventually((0, vec![2048]), async || {
        let left = wire.partition("left").await;
        (left.leader_id, left.offline_replicas)
    })
    .await;
    eventually(-1, async || wire.partition("lost").await.leader_id).await;
    let lost = wire.described_partition("lost").await;
    let seen = (
        lost.error_code,
        lost.leader_id,
        lost.isr_nodes,
        lost.eligible_leader_replicas,
    );
    assert_eq!(seen, (0, -1, vec![], Some(vec![2048])));
    let told = wire.elect(UNCLEAN, Some(&[("lost", 0), ("left", 0)])).await.1;
    let codes: Vec<_> = told.iter().map(|(_, code, _)| *code).collect();
    assert_eq!(codes, [84, 83], "somebody leads the one, and nobody can lead the other");
    let told = wire.elect(PREFERRED, Some(&[("left", 0)])).await.1;
    assert_eq!(told[0].1, 80);
    // A move to who is not there goes on until it is given up, or another takes its place.
    assert_eq!(wire.reassign("left", Some(&[0, 1024, 2048]), true).await.0, 0);
    eventually(vec![(vec![0, 1024, 2048], vec![1024], vec![])], async || {
        wire.moves().await
    })
    .await;
    assert_eq!(wire.reassign("left", Some(&[1024, 2048]), true).await.0, 0);
    eventually(vec![(vec![1024, 2048, 0], vec![1024], vec![0])], async || {
        wire.moves().await
    })
    .await;
    assert_eq!(wire.reassign("left", None, true).await.0, 0);
    eventually(vec![], async || wire.moves().await).await;
    let refused = wire.unregister(2048).await;
    assert!(
        refused.0 != 0 && refused.1.contains("still has a replica"),
        "{refused:?}"
    );
    let fenced = async |wire: &mut Wire, include_fenced_brokers| {
        let request = DescribeClusterRequest {
            include_fenced_brokers,
            ..DescribeClusterRequest::default()
        };
        let told: DescribeClusterResponse<'_> = wire.ask(ApiKey::DescribeCluster, 2, &request).await;
        let nodes = told.brokers.iter();
        nodes.map(|node| (node.broker_id, node.is_fenced)).collect::<Vec<_>>()
    };
    assert_eq!(fenced(wire, false).await, [(0, false), (1024, false)]);
    assert_eq!(fenced(wire, true).await, [(0, false), (1024, false), (2048, true)]);
}

/// I1: who knows a leader of before is told at once who leads now, and where.
async fn a_leader_of_before_is_told_at_once(wire: &mut Wire) {
    let topic = ("left", wire.topic("left").await.topic_id);
    let mut fenced = fetch(topic, &[(0, 0)]);
    (fenced.max_wait_ms, fenced.min_bytes) = (600_000, 1);
    fenced.topics[0].partitions[0].current_leader_epoch = 0;
    let told: FetchResponse<'_> = wire.ask(ApiKey::Fetch, 18, &fenced).await;
    let partition = &told.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.current_leader.leader_id), (74, 2048));
    let named: Vec<i32> = told.node_endpoints.iter().map(|node| node.node_id).collect();
    assert_eq!(named, [2048]);
}
