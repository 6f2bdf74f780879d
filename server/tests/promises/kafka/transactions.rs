//! Transactions, as producers of Kafka's protocol ask for them: what is answered is what Kafka 4.4.0 answered to the same.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use headwater_kafka::{
    ApiKey,
    messages::{
        AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
        ApiVersionsRequest, ApiVersionsResponse, DescribeProducersRequest, DescribeProducersResponse,
        DescribeTransactionsRequest, DescribeTransactionsResponse, EndTxnRequest, EndTxnResponse,
        FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse,
        ListTransactionsRequest, ListTransactionsResponse, OffsetFetchRequest, OffsetFetchResponse, ProduceRequest,
        TxnOffsetCommitRequest, TxnOffsetCommitResponse, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
        add_partitions_to_txn_request, describe_producers_request, offset_fetch_request, txn_offset_commit_request,
        write_txn_markers_request,
    },
};

use super::{records::produce, wire::Wire};
use crate::support::{Cluster, Site, await_all_in_sync, await_all_there, pause, run, transactional_batch};

/// `CONCURRENT_TRANSACTIONS`.
const CONCURRENT: i16 = 51;
/// What passes while coordinators and leaders move.
const PASSING: [i16; 7] = [3, 6, 14, 15, 16, 19, CONCURRENT];

const TOPIC: &str = "ledger";
const ID: &str = "shop";
const GROUP: &str = "tills";

type Who = (i64, i16);

/// Code, producer id and epoch.
async fn init(wire: &mut Wire, version: i16, id: &str, known: Who) -> (i16, Who) {
    let request = InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: 60_000,
        producer_id: known.0,
        producer_epoch: known.1,
        ..InitProducerIdRequest::default()
    };
    let told: InitProducerIdResponse = wire.ask(ApiKey::InitProducerId, version, &request).await;
    (told.error_code, (told.producer_id, told.producer_epoch))
}

/// The same, once nothing is in its way any more.
async fn begin(wire: &mut Wire, id: &str) -> Who {
    loop {
        match init(wire, 5, id, (-1, -1)).await {
            (0, who) => return who,
            (code, _) => assert!(PASSING.contains(&code), "{code}"),
        }
        pause().await;
    }
}

async fn add(wire: &mut Wire, version: i16, (id, who): (&str, Who), partitions: &[(&str, i32)]) -> Vec<i16> {
    let topic = |(name, partition): &(&str, i32)| add_partitions_to_txn_request::AddPartitionsToTxnTopic {
        name: (*name).to_owned().into(),
        partitions: vec![*partition],
    };
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: id.into(),
        v3_and_below_producer_id: who.0,
        v3_and_below_producer_epoch: who.1,
        v3_and_below_topics: partitions.iter().map(topic).collect(),
        ..AddPartitionsToTxnRequest::default()
    };
    let told: AddPartitionsToTxnResponse<'_> = wire.ask(ApiKey::AddPartitionsToTxn, version, &request).await;
    let topics = told.results_by_topic_v3_and_below.into_iter();
    topics
        .map(|topic| topic.results_by_partition[0].partition_error_code)
        .collect()
}

async fn end(wire: &mut Wire, version: i16, (id, who): (&str, Who), committed: bool) -> (i16, Who) {
    let request = EndTxnRequest {
        transactional_id: id.into(),
        producer_id: who.0,
        producer_epoch: who.1,
        committed,
    };
    let told: EndTxnResponse = wire.ask(ApiKey::EndTxn, version, &request).await;
    (told.error_code, (told.producer_id, told.producer_epoch))
}

/// The same, once the last end is through.
async fn ends(wire: &mut Wire, version: i16, whose: (&str, Who), committed: bool) -> (i16, Who) {
    loop {
        match end(wire, version, whose, committed).await {
            (CONCURRENT, _) => pause().await,
            told => return told,
        }
    }
}

fn within(id: &'static str, partition: i32, who: Who, sequence: i32) -> ProduceRequest<'static> {
    let records = transactional_batch(&[b"x"], who.0, who.1, sequence);
    ProduceRequest {
        transactional_id: Some(id.into()),
        ..produce((TOPIC, [0; 16]), partition, -1, records)
    }
}

/// The code of a produce request, once nothing is in its way any more.
async fn produced(wire: &mut Wire, version: i16, request: &ProduceRequest<'_>) -> i16 {
    loop {
        match wire.produced(version, request).await.error_code {
            code if PASSING.contains(&code) => pause().await,
            code => return code,
        }
    }
}

/// First offsets of the transactions that are open in a partition.
async fn open(wire: &mut Wire, partition: i32) -> Result<Vec<i64>, i16> {
    let request = DescribeProducersRequest {
        topics: vec![describe_producers_request::TopicRequest {
            name: TOPIC.into(),
            partition_indexes: vec![partition],
        }],
    };
    let told: DescribeProducersResponse<'_> = wire.ask(ApiKey::DescribeProducers, 0, &request).await;
    let partition = &told.topics[0].partitions[0];
    if partition.error_code != 0 {
        return Err(partition.error_code);
    }
    let producers = partition.active_producers.iter();
    let starts = producers.map(|producer| producer.current_txn_start_offset);
    Ok(starts.filter(|start| *start >= 0).collect())
}

async fn state(wire: &mut Wire, id: &str) -> (i16, String, usize) {
    let request = DescribeTransactionsRequest {
        transactional_ids: vec![id.to_owned().into()],
    };
    let told: DescribeTransactionsResponse<'_> = wire.ask(ApiKey::DescribeTransactions, 0, &request).await;
    let told = &told.transaction_states[0];
    let partitions = told.topics.iter().map(|topic| topic.partitions.len()).sum();
    (told.error_code, told.transaction_state.to_string(), partitions)
}

async fn await_state(wire: &mut Wire, id: &str, wanted: &str) {
    while state(wire, id).await.1 != wanted {
        pause().await;
    }
}

async fn find(wire: &mut Wire, kind: i8, key: &str) -> (i16, SocketAddr) {
    let request = FindCoordinatorRequest {
        key_type: kind,
        coordinator_keys: vec![key.to_owned().into()],
        ..FindCoordinatorRequest::default()
    };
    let told: FindCoordinatorResponse<'_> = wire.ask(ApiKey::FindCoordinator, 4, &request).await;
    let found = &told.coordinators[0];
    let address = format!("{}:{}", found.host, found.port);
    (
        found.error_code,
        address.parse().unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into()),
    )
}

/// Code and offset of the group's only partition.
async fn committed(wire: &mut Wire, require_stable: bool) -> (i16, i64) {
    let request = OffsetFetchRequest {
        groups: vec![offset_fetch_request::OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            topics: Some(vec![offset_fetch_request::OffsetFetchRequestTopics {
                name: TOPIC.into(),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            member_epoch: -1,
            ..Default::default()
        }],
        require_stable,
        ..OffsetFetchRequest::default()
    };
    loop {
        let told: OffsetFetchResponse<'_> = wire.ask(ApiKey::OffsetFetch, 8, &request).await;
        let group = &told.groups[0];
        if group.error_code == 0 {
            let partition = &group.topics[0].partitions[0];
            return (partition.error_code, partition.committed_offset);
        }
        assert!(PASSING.contains(&group.error_code), "{}", group.error_code);
        pause().await;
    }
}

fn offsets(who: Who, offset: i64, generation: i32) -> TxnOffsetCommitRequest<'static> {
    TxnOffsetCommitRequest {
        transactional_id: ID.into(),
        group_id: GROUP.into(),
        producer_id: who.0,
        producer_epoch: who.1,
        generation_id_or_member_epoch: generation,
        topics: vec![txn_offset_commit_request::TxnOffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![txn_offset_commit_request::TxnOffsetCommitRequestPartition {
                committed_offset: offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..TxnOffsetCommitRequest::default()
    }
}

async fn commit_offset(wire: &mut Wire, version: i16, request: &TxnOffsetCommitRequest<'_>) -> i16 {
    let told: TxnOffsetCommitResponse<'_> = wire.ask(ApiKey::TxnOffsetCommit, version, request).await;
    told.topics[0].partitions[0].error_code
}

#[test]
fn transactions_are_answered_as_kafka_answers_them() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        wire.create_topic(TOPIC, 3, &[]).await;
        let wire = &mut wire;
        let hello = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1".into(),
            ..ApiVersionsRequest::default()
        };
        let told: ApiVersionsResponse<'_> = wire.ask(ApiKey::ApiVersions, 4, &hello).await;
        let finalized = told.finalized_features.iter();
        let levels: Vec<_> = finalized.map(|told| (&*told.name, told.max_version_level)).collect();
        assert_eq!(levels, [("group.version", 1), ("transaction.version", 2)]);
        assert_eq!(find(wire, 1, ID).await.0, 0);
        assert_eq!(find(wire, 0, GROUP).await.0, 0);
        begins(wire).await;
        partitions_are_added_before_they_are_written_to(wire).await;
        ends_are_told_again(wire).await;
        the_broker_adds_partitions_for_newer_clients(wire).await;
        offsets_count_with_the_commit(wire).await;
        operators_see_them(wire).await;
        // What was promised before a restart stands after it.
        let who = begin(wire, ID).await;
        assert_eq!(add(wire, 3, (ID, who), &[(TOPIC, 2)]).await, [0]);
        assert_eq!(wire.produced(11, &within(ID, 2, who, 0)).await.error_code, 0);
        broker.kill();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        let wire = &mut wire;
        await_state(wire, ID, "Ongoing").await;
        assert_eq!(committed(wire, true).await, (0, 7), "with the offsets of before");
        assert_eq!(produced(wire, 11, &within(ID, 2, who, 1)).await, 0);
        assert_eq!(ends(wire, 4, (ID, who), true).await.0, 0);
        await_state(wire, ID, "CompleteCommit").await;
        assert_eq!(open(wire, 2).await, Ok(vec![]));
        broker.stop();
    });
}

/// G1.
async fn begins(wire: &mut Wire) {
    assert_eq!(init(wire, 5, "", (-1, -1)).await.0, 42);
    let first = begin(wire, ID).await;
    assert_eq!(first.1, 0);
    let next = (first.0, 1);
    assert_eq!(init(wire, 5, ID, (-1, -1)).await, (0, next));
    assert_eq!(init(wire, 5, ID, first).await.0, 90);
    assert_eq!(
        init(wire, 3, ID, first).await.0,
        47,
        "an older client knows of no fencing"
    );
    assert_eq!(init(wire, 5, ID, (12_345, 1)).await.0, 90);
    assert_eq!(init(wire, 5, ID, (first.0, -1)).await.0, 42);
    assert_eq!(init(wire, 5, ID, next).await, (0, (first.0, 2)));
    for timeout in [0, -1, 900_001] {
        let request = InitProducerIdRequest {
            transactional_id: Some(ID.into()),
            transaction_timeout_ms: timeout,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let told: InitProducerIdResponse = wire.ask(ApiKey::InitProducerId, 5, &request).await;
        assert_eq!(told.error_code, 50, "{timeout}");
    }
}

/// G3, and G5 of older clients.
async fn partitions_are_added_before_they_are_written_to(wire: &mut Wire) {
    let who = begin(wire, ID).await;
    assert_eq!(add(wire, 3, ("nobody", who), &[(TOPIC, 0)]).await, [49]);
    assert_eq!(add(wire, 3, ("", who), &[(TOPIC, 0)]).await, [42]);
    assert_eq!(add(wire, 3, (ID, (who.0 + 1, who.1)), &[(TOPIC, 0)]).await, [49]);
    let former = (who.0, who.1 - 1);
    assert_eq!(add(wire, 3, (ID, former), &[(TOPIC, 0)]).await, [90]);
    assert_eq!(add(wire, 0, (ID, former), &[(TOPIC, 0)]).await, [47]);
    let some = [(TOPIC, 0), ("nope", 0), (TOPIC, 9)];
    assert_eq!(add(wire, 3, (ID, who), &some).await, [55, 3, 3]);
    for (version, expected) in [(9, 48), (11, 120)] {
        let told = wire.produced(version, &within(ID, 0, who, 0)).await;
        assert_eq!((told.error_code, told.base_offset), (expected, -1), "it was not added");
    }
    assert_eq!(wire.produced(11, &within("nobody", 0, who, 0)).await.error_code, 49);
    assert_eq!(wire.produced(11, &within(ID, 0, former, 0)).await.error_code, 47);
    let unsaid = ProduceRequest {
        transactional_id: None,
        ..within(ID, 0, who, 0)
    };
    assert_eq!(wire.produced(11, &unsaid).await.error_code, 53);
    assert_eq!(add(wire, 3, (ID, who), &[(TOPIC, 0), (TOPIC, 1)]).await, [0, 0]);
    assert_eq!(wire.produced(11, &within(ID, 0, who, 0)).await.error_code, 0);
    assert_eq!(wire.produced(11, &within(ID, 1, who, 0)).await.error_code, 0);
    assert_eq!(open(wire, 0).await, Ok(vec![0]));
    assert_eq!(end(wire, 4, (ID, former), true).await.0, 90);
    assert_eq!(end(wire, 4, (ID, who), true).await.0, 0);
    await_state(wire, ID, "CompleteCommit").await;
    assert_eq!(open(wire, 0).await, Ok(vec![]));
    assert_eq!(open(wire, 1).await, Ok(vec![]));
    // A new self aborts what the former has left open, and writes only then.
    assert_eq!(add(wire, 3, (ID, who), &[(TOPIC, 0)]).await, [0]);
    assert_eq!(wire.produced(11, &within(ID, 0, who, 1)).await.error_code, 0);
    assert_eq!(init(wire, 5, ID, (-1, -1)).await.0, CONCURRENT);
    let next = begin(wire, ID).await;
    assert_eq!(next, (who.0, who.1 + 2));
    assert_eq!(open(wire, 0).await, Ok(vec![]));
    assert_eq!(wire.produced(11, &within(ID, 0, who, 2)).await.error_code, 47);
}

/// G3.
async fn ends_are_told_again(wire: &mut Wire) {
    let who = begin(wire, ID).await;
    for version in [4, 5] {
        assert_eq!(
            end(wire, version, (ID, who), true).await.0,
            48,
            "there is nothing in it"
        );
    }
    assert_eq!(end(wire, 4, (ID, who), false).await.0, 48);
    assert_eq!(end(wire, 5, ("nobody", who), true).await, (49, (-1, -1)));
    assert_eq!(end(wire, 5, (ID, (who.0 + 1, who.1)), true).await.0, 49);
    let next = (who.0, who.1 + 1);
    assert_eq!(end(wire, 5, (ID, who), false).await, (0, next));
    await_state(wire, ID, "CompleteAbort").await;
    assert_eq!(add(wire, 3, (ID, next), &[(TOPIC, 1)]).await, [0]);
    assert_eq!(end(wire, 4, (ID, next), false).await.0, 0);
    assert_eq!(ends(wire, 4, (ID, next), false).await.0, 0, "again");
    assert_eq!(end(wire, 4, (ID, next), true).await.0, 48);
}

/// G5: transactions of version 2.
async fn the_broker_adds_partitions_for_newer_clients(wire: &mut Wire) {
    let who = begin(wire, ID).await;
    for sequence in 0..2 {
        let told = wire.produced(12, &within(ID, 0, who, sequence)).await;
        assert_eq!(told.error_code, 0);
    }
    assert_eq!(state(wire, ID).await, (0, "Ongoing".to_owned(), 1));
    let next = (who.0, who.1 + 1);
    assert_eq!(end(wire, 5, (ID, who), true).await, (0, next));
    assert_eq!(ends(wire, 5, (ID, who), true).await, (0, next), "again");
    assert_eq!(end(wire, 5, (ID, who), false).await.0, 48);
    assert_eq!(
        wire.produced(12, &within(ID, 0, who, 2)).await.error_code,
        47,
        "it has ended"
    );
    assert_eq!(wire.produced(12, &within(ID, 0, next, 0)).await.error_code, 0);
    let after = (who.0, who.1 + 2);
    assert_eq!(end(wire, 5, (ID, next), false).await, (0, after));
    await_state(wire, ID, "CompleteAbort").await;
    assert_eq!(open(wire, 0).await, Ok(vec![]));
    for (version, id, who, expected) in [(12, "nobody", after, 49), (12, ID, (after.0, after.1 + 1), 47)] {
        assert_eq!(
            wire.produced(version, &within(id, 0, who, 0)).await.error_code,
            expected
        );
    }
}

/// Offsets of a group wait for the end, and those who want none that may change are told so.
async fn offsets_count_with_the_commit(wire: &mut Wire) {
    for commits in [false, true] {
        let who = begin(wire, ID).await;
        assert_eq!(
            commit_offset(wire, 3, &offsets(who, 7, -1)).await,
            120,
            "the group was not added"
        );
        let add = AddOffsetsToTxnRequest {
            transactional_id: ID.into(),
            producer_id: who.0,
            producer_epoch: who.1,
            group_id: GROUP.into(),
        };
        let added: AddOffsetsToTxnResponse = wire.ask(ApiKey::AddOffsetsToTxn, 3, &add).await;
        assert_eq!(added.error_code, 0);
        assert_eq!(
            commit_offset(wire, 3, &offsets(who, 7, 3)).await,
            22,
            "nobody is a member"
        );
        assert_eq!(commit_offset(wire, 3, &offsets(who, 7, -1)).await, 0);
        assert_eq!(committed(wire, false).await, (0, -1), "not yet");
        assert_eq!(committed(wire, true).await, (88, -1));
        assert_eq!(end(wire, 3, (ID, who), commits).await.0, 0);
        await_state(wire, ID, if commits { "CompleteCommit" } else { "CompleteAbort" }).await;
        let expected = if commits { 7 } else { -1 };
        for require_stable in [false, true] {
            assert_eq!(committed(wire, require_stable).await, (0, expected));
        }
    }
    let who = begin(wire, ID).await;
    assert_eq!(
        commit_offset(wire, 5, &offsets(who, 9, -1)).await,
        0,
        "the broker adds the group"
    );
    assert_eq!(committed(wire, false).await, (0, 7), "the one before");
    assert_eq!(end(wire, 5, (ID, who), false).await.0, 0);
    await_state(wire, ID, "CompleteAbort").await;
    assert_eq!(committed(wire, true).await, (0, 7));
}

/// G6.
async fn operators_see_them(wire: &mut Wire) {
    assert_eq!(state(wire, "nobody").await.0, 105);
    assert_eq!(state(wire, "").await.0, 42);
    let list = |states: &'static [&'static str], pattern: Option<&'static str>| ListTransactionsRequest {
        state_filters: states.iter().map(|state| (*state).into()).collect(),
        duration_filter: -1,
        transactional_id_pattern: pattern.map(Into::into),
        ..ListTransactionsRequest::default()
    };
    for (request, expected) in [
        (list(&[], None), (0, 0, 1)),
        (list(&["CompleteAbort"], None), (0, 0, 1)),
        (list(&["Ongoing"], Some("s.*")), (0, 0, 0)),
        (list(&[], Some("s.*p")), (0, 0, 1)),
        (list(&[], Some("ho")), (0, 0, 0)),
        (list(&["Nonsense"], None), (0, 1, 0)),
        (list(&[], Some("(")), (128, 0, 0)),
    ] {
        // Each core tells of its own.
        let told: ListTransactionsResponse<'_> = of_coordinator(wire)
            .await
            .ask(ApiKey::ListTransactions, 2, &request)
            .await;
        let seen = (
            told.error_code,
            told.unknown_state_filters.len(),
            told.transaction_states.len(),
        );
        assert_eq!(seen, expected, "{request:?}");
    }
    // One that nobody ends is ended in its partition.
    let who = begin(wire, ID).await;
    assert_eq!(wire.produced(12, &within(ID, 1, who, 0)).await.error_code, 0);
    let marker = WriteTxnMarkersRequest {
        markers: vec![write_txn_markers_request::WritableTxnMarker {
            producer_id: who.0,
            producer_epoch: who.1,
            transaction_result: false,
            topics: vec![write_txn_markers_request::WritableTxnMarkerTopic {
                name: TOPIC.into(),
                partition_indexes: vec![1, 9],
            }],
            coordinator_epoch: 0,
            ..Default::default()
        }],
    };
    let told: WriteTxnMarkersResponse<'_> = wire.ask(ApiKey::WriteTxnMarkers, 1, &marker).await;
    let codes = told.markers[0].topics[0].partitions.iter();
    assert_eq!(codes.map(|partition| partition.error_code).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(open(wire, 1).await, Ok(vec![]));
    assert_eq!(ends(wire, 5, (ID, who), false).await.0, 0);
    await_state(wire, ID, "CompleteAbort").await;
}

async fn of_coordinator(wire: &mut Wire) -> Wire {
    Wire::connect(find(wire, 1, ID).await.1).await
}

/// A connection to the leader of a partition.
async fn of_leader(site: &Site, partition: i32, dead: Option<IpAddr>) -> Wire {
    loop {
        let told = Wire::of(site).await.metadata(&[TOPIC], false).await;
        let mut partitions = told.topics[0].partitions.iter();
        let leader = partitions.find(|told| told.partition_index == partition);
        let leader = leader.map(|told| told.leader_id);
        if let Some(node) = told.brokers.iter().find(|node| Some(node.node_id) == leader) {
            let address: SocketAddr = format!("{}:{}", node.host, node.port).parse().unwrap();
            if Some(address.ip()) != dead {
                return Wire::connect(address).await;
            }
        }
        pause().await;
    }
}

#[test]
fn a_transaction_ends_in_the_partitions_of_all_brokers_also_when_its_coordinator_is_killed() {
    run(async {
        let mut cluster = Cluster::start_with(&[("cores.count", "1"), ("transactions.state_partitions", "3")]);
        let client = cluster.client().await;
        await_all_there(&client).await;
        let mut wire = Wire::of(&cluster.sites[0]).await;
        wire.create_topic(TOPIC, 3, &[]).await;
        while find(&mut wire, 1, ID).await.0 != 0 {
            pause().await;
        }
        await_all_in_sync(&client).await;
        for kills in [false, true] {
            let (_, address) = find(&mut wire, 1, ID).await;
            let mut coordinator = Wire::connect(address).await;
            let who = begin(&mut coordinator, ID).await;
            for partition in 0..3 {
                // Each broker asks the coordinator, which is another one for two of them.
                let mut leader = of_leader(&cluster.sites[0], partition, None).await;
                let code = produced(&mut leader, 12, &within(ID, partition, who, 0)).await;
                assert_eq!(code, 0, "partition {partition}");
                assert_eq!(open(&mut leader, partition).await.unwrap().len(), 1);
            }
            let next = (who.0, who.1 + 1);
            assert_eq!(end(&mut coordinator, 5, (ID, who), true).await, (0, next));
            let (mut alive, mut dead) = (0, None);
            if kills {
                let killed = cluster
                    .sites
                    .iter()
                    .position(|site| site.address().ip() == address.ip());
                let killed = killed.expect("a broker of the cluster");
                cluster.kill(killed);
                (alive, dead) = ((killed + 1) % 3, Some(address.ip()));
            }
            wire = Wire::of(&cluster.sites[alive]).await;
            for partition in 0..3 {
                loop {
                    let mut leader = of_leader(&cluster.sites[alive], partition, dead).await;
                    match open(&mut leader, partition).await {
                        Ok(open) if open.is_empty() => break,
                        _ => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            }
        }
    });
}
