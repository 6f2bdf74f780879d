//! Three brokers: whoever is asked knows all of them, and says who leads.

use std::{collections::BTreeSet, net::SocketAddr};

use headwater_kafka::{ApiKey, messages::ProduceResponse};

use super::{
    records::{fetch, produce},
    wire::Wire,
};
use crate::support::{Cluster, await_all_in_sync, await_all_there, batch, run};

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
                assert_eq!(wire.produced(13, &request()).await.error_code, 0);
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
        for broker in cluster.brokers.into_iter().flatten() {
            broker.stop();
        }
    });
}
