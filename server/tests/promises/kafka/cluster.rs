//! Three brokers: whoever is asked knows all of them, and says who leads.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use futures::future::join_all;

use headwater_kafka::{
    ApiKey,
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
        IncrementalAlterConfigsResponse, ProduceResponse,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic},
        describe_configs_request::DescribeConfigsResource,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
};

use super::{
    records::{fetch, produce},
    wire::Wire,
};
use crate::support::{Cluster, Site, await_all_in_sync, await_all_there, batch, pause, run};

/// `NOT_LEADER_OR_FOLLOWER`.
const NOT_LEADER: i16 = 6;

#[test]
fn any_broker_names_the_nodes_of_all_and_a_client_that_asks_the_wrong_one_is_sent_to_the_leader() {
    run(async {
        let cluster = Cluster::start_with(&[("cores.count", "1")]);
        let client = cluster.client().await;
        await_all_there(&client).await;
        let mut wire = Wire::of(&cluster.sites[0]).await;
        wire.create_topic("of-three", 1, &[]).await;
        await_all_in_sync(&client).await;
        let mut known = BTreeSet::new();
        let mut nodes = Vec::new();
        for site in &cluster.sites {
            let mut wire = Wire::of(site).await;
            let told = wire.metadata(&["of-three"], false).await;
            nodes = told
                .brokers
                .iter()
                .map(|node| (node.node_id, node.host.to_string(), node.port))
                .collect();
            let partition = &told.topics[0].partitions[0];
            let replicas: BTreeSet<i32> = partition.replica_nodes.iter().copied().collect();
            assert_eq!(replicas, [0, 1024, 2048].into());
            known.insert((
                nodes.clone(),
                told.topics[0].topic_id,
                partition.leader_id,
                partition.leader_epoch,
            ));
        }
        assert_eq!(known.len(), 1, "all say the same: {known:?}");
        let (_, id, leader, epoch) = known.pop_first().unwrap();
        assert_eq!(nodes.iter().map(|(id, _, _)| *id).collect::<Vec<_>>(), [0, 1024, 2048]);
        let topic = ("of-three", id);
        let request = || produce(topic, 0, -1, batch(&[b"a"]));
        for (node, host, port) in &nodes {
            let address: SocketAddr = format!("{host}:{port}").parse().unwrap();
            let mut wire = Wire::connect(address).await;
            if *node == leader {
                // The others may know of the topic before the leader's core does.
                let error_code = loop {
                    match wire.produced(13, &request()).await.error_code {
                        NOT_LEADER => pause().await,
                        error_code => break error_code,
                    }
                };
                assert_eq!(error_code, 0);
                continue;
            }
            let told: ProduceResponse<'_> = wire.ask(ApiKey::Produce, 13, &request()).await;
            let partition = &told.responses[0].partition_responses[0];
            assert_eq!(partition.error_code, NOT_LEADER);
            assert_eq!(
                (
                    partition.current_leader.leader_id,
                    partition.current_leader.leader_epoch
                ),
                (leader, epoch)
            );
            let named: Vec<_> = told
                .node_endpoints
                .iter()
                .map(|node| (node.node_id, node.port))
                .collect();
            let at = nodes.iter().find(|node| node.0 == leader).unwrap();
            assert_eq!(named, [(leader, at.2)]);
            // One that came before followers could be read from is sent on as well.
            assert_eq!(
                wire.fetched(10, &fetch(topic, &[(0, 0)])).await[0].error_code,
                NOT_LEADER
            );
        }
        alter_at_once(&cluster.sites, "of-three").await;
        for broker in cluster.brokers.into_iter().flatten() {
            broker.stop();
        }
    });
}

/// The kind of a topic, where resources are named.
const TOPIC: i8 = 2;

/// Has each broker alter another setting of a topic at the same time, again and again: none undoes what another has done.
async fn alter_at_once(sites: &[Site], topic: &str) {
    const SETTINGS: [&str; 3] = ["retention.ms", "segment.ms", "retention.bytes"];
    const ROUNDS: u32 = 15;
    let alter = async |site: &Site, setting: &str| {
        let mut wire = Wire::of(site).await;
        for round in 1..=ROUNDS {
            let config = AlterableConfig {
                name: setting.into(),
                value: Some((60_000 + round).to_string().into()),
                ..AlterableConfig::default()
            };
            let request = IncrementalAlterConfigsRequest {
                resources: vec![AlterConfigsResource {
                    resource_type: TOPIC,
                    resource_name: topic.into(),
                    configs: vec![config],
                }],
                ..IncrementalAlterConfigsRequest::default()
            };
            let told: IncrementalAlterConfigsResponse<'_> =
                wire.ask(ApiKey::IncrementalAlterConfigs, 1, &request).await;
            let told = &told.responses[0];
            assert_eq!(told.error_code, 0, "{setting}: {:?}", told.error_message);
        }
    };
    join_all(sites.iter().zip(SETTINGS).map(|(site, setting)| alter(site, setting))).await;
    let mut wire = Wire::of(&sites[0]).await;
    let asked = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: TOPIC,
            resource_name: topic.into(),
            configuration_keys: Some(SETTINGS.map(Into::into).into()),
        }],
        ..DescribeConfigsRequest::default()
    };
    let last = (60_000 + ROUNDS).to_string();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let told: DescribeConfigsResponse<'_> = wire.ask(ApiKey::DescribeConfigs, 4, &asked).await;
        let values = told.results[0].configs.iter().map(|config| config.value.as_deref());
        let values: Vec<_> = values.collect();
        if values == [Some(last.as_str()); 3] {
            return;
        }
        // This broker may learn the last of it a little later.
        assert!(Instant::now() < deadline, "{values:?} is left of what was set");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_consumer_is_sent_to_a_replica_nearby_only_if_that_speaks_kafkas_protocol() {
    run(async {
        let site = |rack| Site::new().cores(1).set("broker.rack", rack);
        let cluster = Cluster::of([site("a"), site("b").set("kafka.listen", "off"), site("c")]);
        let client = cluster.client().await;
        await_all_there(&client).await;
        let mut wire = Wire::of(&cluster.sites[0]).await;
        let assignments = [[0, 1024], [0, 2048]].into_iter().zip(0..);
        let assignments = assignments.map(|(nodes, partition_index)| CreatableReplicaAssignment {
            partition_index,
            broker_ids: nodes.to_vec(),
        });
        let topic = CreatableTopic {
            name: "near".into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: assignments.collect(),
            ..CreatableTopic::default()
        };
        assert_eq!(wire.create(vec![topic]).await, [(0, String::new())]);
        await_all_in_sync(&client).await;
        let topic = ("near", wire.topic("near").await.topic_id);
        for partition in [0, 1] {
            wire.produced(13, &produce(topic, partition, -1, batch(&[b"a"]))).await;
        }
        for (partition, rack, preferred) in [(0, "b", -1), (1, "c", 2048), (1, "a", -1)] {
            let mut asked = fetch(topic, &[(partition, 0)]);
            asked.rack_id = rack.into();
            let found = wire.fetched(18, &asked).await.remove(0);
            assert_eq!(found.preferred_read_replica, preferred, "{rack}");
            assert_eq!(found.records.unwrap().is_empty(), preferred != -1, "{rack}");
        }
        for broker in cluster.brokers.into_iter().flatten() {
            broker.stop();
        }
    });
}

#[test]
fn nodes_are_where_they_were_when_a_broker_is_started_again() {
    run(async {
        let site = Site::new().cores(3);
        let ports = async || {
            let told = Wire::of(&site).await.metadata(&[], false).await;
            told.brokers.iter().map(|node| node.port).collect::<Vec<_>>()
        };
        let broker = site.start();
        let first = ports().await;
        assert_eq!(first.len(), 3);
        broker.kill();
        let broker = site.start();
        assert_eq!(ports().await, first);
        broker.stop();
        // Somebody else has taken one meanwhile.
        let address = SocketAddr::new(site.address().ip(), first[1] as u16);
        let taken = TcpListener::bind(address).unwrap();
        let broker = site.start();
        let others = ports().await;
        assert!(
            others[1] != first[1] && (others[0], others[2]) == (first[0], first[2]),
            "{first:?} {others:?}"
        );
        drop(taken);
        broker.stop();
    });
}
