//! Three processes are a cluster: each is a member of the quorum and has replicas. Whoever is killed, nothing acknowledged is lost.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use headwater_client::{BrokerId, Client, ErrorCode, NewTopic, PartitionMove, TopicAlteration, TopicId};
use rustix::process::Signal;

use crate::support::{
    Broker, Cluster, Kind, LONG, Load, Raw, Site, await_all_in_sync, await_all_there, await_list, batch, check, fetch,
    produce, read_topic, replicas, run, values,
};

const KIND: Kind = Kind {
    topic: "replicated",
    partitions: 4,
    value_lens: &[20, 300, 2_000],
};

/// Records that are acknowledged between one death and the next.
const RECORDS: usize = 2_000;

/// A topic of as many replicas as there are by default: three.
async fn create(client: &Client) {
    await_all_there(client).await;
    let new = NewTopic::new(KIND.topic).partitions(KIND.partitions.into());
    client.admin().create_topic(new).await.unwrap();
}

/// Produces a record until it is answered like this: a broker may not have heard yet of what another was told.
async fn await_answer(address: SocketAddr, topic: TopicId, value: &[u8], expected: ErrorCode) {
    let deadline = Instant::now() + LONG;
    let mut raw = Raw::connect(address).await;
    let mut request = produce(topic, 0);
    request.timeout_ms = 5_000;
    loop {
        let produced = raw.call(&request, &batch(&[value])).await.produce();
        let code = ErrorCode::from_i16(produced.error);
        if code == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{code:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a broker has nothing left of the topic.
async fn await_no_files(site: &Site) {
    let is_left = || {
        let mut entries = std::fs::read_dir(site.directory()).unwrap();
        entries.any(|entry| {
            entry
                .unwrap()
                .file_name()
                .into_string()
                .unwrap()
                .starts_with(KIND.topic)
        })
    };
    let deadline = Instant::now() + LONG;
    while is_left() {
        assert!(Instant::now() < deadline, "its files are still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The broker that leads a partition.
async fn leader(client: &Client, partition: usize) -> usize {
    replicas(client, KIND.topic, partition).await.1.unwrap()
}

async fn more(load: &Load) {
    let goal = load.ledger.count() + RECORDS as u64;
    load.allow(2 * RECORDS);
    load.ledger.await_count(goal).await;
}

#[test]
fn what_is_acknowledged_stays_when_leaders_are_killed_and_producers_go_on() {
    run(async {
        let mut cluster = Cluster::start();
        let client = cluster.client().await;
        create(&client).await;
        let load = Load::start([cluster.client().await, cluster.client().await], KIND, 0).await;
        let ledger = Arc::clone(&load.ledger);
        for partition in 0..3 {
            more(&load).await;
            let leader = leader(&client, partition).await;
            cluster.kill(leader);
            // With two of three, one of which leads what the killed one has led.
            more(&load).await;
            check(&ledger.acknowledged(), &read_topic(&client, KIND.topic).await);
            cluster.start_one(leader);
        }
        let ledger = load.finish().await;
        ledger.check_complete(&read_topic(&client, KIND.topic).await);
    });
}

#[test]
fn topics_that_are_deleted_and_made_again_are_new_on_every_broker() {
    run(async {
        let cluster = Cluster::start();
        let client = cluster.client().await;
        for _ in 0..3 {
            create(&client).await;
            let load = Load::start([cluster.client().await], KIND, RECORDS).await;
            let ledger = load.finish().await;
            ledger.check_complete(&read_topic(&client, KIND.topic).await);
            client.admin().delete_topic(KIND.topic).await.unwrap();
        }
    });
}

#[test]
fn brokers_that_are_stopped_in_turn_hand_over_what_they_lead_first_and_lead_again_when_they_are_back() {
    run(async {
        let mut cluster = Cluster::start();
        let client = cluster.client().await;
        create(&client).await;
        let load = Load::start([cluster.client().await, cluster.client().await], KIND, 0).await;
        for number in 0..3 {
            more(&load).await;
            await_all_in_sync(&client).await;
            let mut stopped = cluster.brokers[number].take().unwrap();
            stopped.signal(Signal::TERM);
            assert!(stopped.wait().success());
            await_list(&client, "others lead", |list| {
                list.brokers[number].is_fenced && list.brokers[number].leads == 0 && list.leaderless == 0
            })
            .await;
            more(&load).await;
            let said = cluster.brokers.iter().flatten().flat_map(Broker::lines);
            let fenced: Vec<String> = said.filter(|line| line.contains("a broker is fenced")).collect();
            assert!(fenced.is_empty(), "nobody had to find out that it is gone: {fenced:?}");
            cluster.start_one(number);
        }
        let ledger = load.finish().await;
        ledger.check_complete(&read_topic(&client, KIND.topic).await);
        await_list(&client, "all lead what they are to lead", |list| {
            list.brokers.iter().all(|broker| broker.leads == broker.preferred)
        })
        .await;
    });
}

#[test]
fn a_topic_has_as_many_replicas_and_as_many_of_them_in_sync_as_it_asks_for() {
    run(async {
        let mut cluster = Cluster::start();
        let client = cluster.client().await;
        create(&client).await;
        let admin = client.admin();
        let described = admin.describe_topic(KIND.topic).await.unwrap();
        for partition in &described.partitions {
            let replicas = &partition.replicas;
            assert_eq!(
                (replicas.replicas.len(), replicas.isr.len(), replicas.min_isr),
                (3, 3, 2)
            );
            assert!(
                partition.error.is_none(),
                "its leader describes it: {:?}",
                partition.error
            );
        }
        let strict = NewTopic::new("strict").config("min.insync.replicas", 3);
        admin.create_topic(strict).await.unwrap();
        let two = || NewTopic::new("two").replication_factor(2);
        let refused = admin
            .create_topic(two().config("min.insync.replicas", 3))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::InvalidConfig), "{refused}");
        let refused = admin.create_topic(two().replication_factor(4)).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::InvalidReplicationFactor), "{refused}");
        admin.create_topic(two()).await.unwrap();
        assert_eq!(replicas(&client, "two", 0).await.0.len(), 2);

        let (_, leads) = replicas(&client, "strict", 0).await;
        cluster.kill(cluster.other(&[leads.unwrap()]));
        await_list(&client, "it is missed", |list| list.under_min_isr == 1).await;
        let leader = cluster.sites[leads.unwrap()].address();
        let id = admin.describe_topic("strict").await.unwrap().id;
        await_answer(leader, id, b"record", ErrorCode::NotEnoughReplicas).await;
        let lenient = TopicAlteration::of("strict").set("min.insync.replicas", 2);
        admin.alter_topic(lenient).await.unwrap();
        await_answer(leader, id, b"record", ErrorCode::None).await;
    });
}

#[test]
fn a_producer_waits_for_replicas_that_do_not_answer_for_as_long_as_it_says() {
    run(async {
        let cluster = Cluster::start();
        let client = cluster.client().await;
        create(&client).await;
        let leader = leader(&client, 0).await;
        let id = client.admin().describe_topic(KIND.topic).await.unwrap().id;
        let address = cluster.sites[leader].address();
        await_answer(address, id, b"on all", ErrorCode::None).await;
        // Nobody takes them out of those in sync: that takes a majority.
        let paused = (0..3).filter(|number| *number != leader);
        for number in paused.clone() {
            cluster.brokers[number].as_ref().unwrap().stand_still();
        }
        let mut raw = Raw::connect(address).await;
        let mut request = produce(id, 0);
        request.timeout_ms = 300;
        // Far less than the half a minute that a producer waits that does not say.
        let answer = tokio::time::timeout(Duration::from_secs(20), async {
            raw.call(&request, &batch(&[b"waits"])).await.produce()
        });
        let code = ErrorCode::from_i16(answer.await.unwrap().error);
        for number in paused {
            cluster.brokers[number].as_ref().unwrap().signal(Signal::CONT);
        }
        assert_eq!(code, ErrorCode::RequestTimedOut);
    });
}

#[test]
fn a_broker_that_is_drained_has_nothing_left_and_can_be_forgotten() {
    run(async {
        let mut cluster = Cluster::start();
        let client = cluster.client().await;
        await_all_there(&client).await;
        let admin = client.admin();
        let new = NewTopic::new(KIND.topic)
            .partitions(KIND.partitions.into())
            .replication_factor(2);
        admin.create_topic(new).await.unwrap();
        let load = Load::start([cluster.client().await], KIND, 0).await;
        more(&load).await;
        let leaves = BrokerId::new(2);
        let refused = admin.forget_broker(leaves).await.unwrap_err();
        assert_eq!(
            refused.code(),
            Some(ErrorCode::PolicyViolation),
            "it is there: {refused}"
        );
        assert!(admin.drain_broker(leaves).await.unwrap() > 0);
        let list = await_list(&client, "it has nothing left", |list| list.brokers[2].replicas == 0).await;
        assert!(list.brokers[2].is_cordoned);
        await_no_files(&cluster.sites[2]).await;
        more(&load).await;
        cluster.brokers[2].take().unwrap().stop();
        admin.forget_broker(leaves).await.unwrap();
        // By whichever answers: one may be a moment behind the other.
        await_list(&client, "it is forgotten", |list| list.brokers.len() == 2).await;
        let ledger = load.finish().await;
        ledger.check_complete(&read_topic(&client, KIND.topic).await);
    });
}

#[test]
fn what_a_broker_has_of_topics_that_were_deleted_while_it_was_down_is_removed_when_it_is_back() {
    run(async {
        let mut cluster = Cluster::start();
        let client = cluster.client().await;
        create(&client).await;
        let load = Load::start([cluster.client().await], KIND, RECORDS).await;
        load.finish().await;
        cluster.kill(2);
        // As if it had been killed before it could note whose one of them is.
        let first = cluster.sites[2].directory().join(format!("{}-0", KIND.topic));
        let _ = std::fs::remove_dir_all(&first);
        std::fs::create_dir(&first).unwrap();
        client.admin().delete_topic(KIND.topic).await.unwrap();
        cluster.start_one(2);
        for site in &cluster.sites {
            await_no_files(site).await;
        }
    });
}

#[test]
fn a_partition_is_made_though_its_broker_was_killed_before_it_knew_of_it() {
    run(async {
        let mut cluster = Cluster::start();
        let all = cluster.client().await;
        await_all_there(&all).await;
        let client = cluster.sites[0].client().await;
        cluster.brokers[2].as_ref().unwrap().stand_still();
        let new = NewTopic::new(KIND.topic).partitions(3).replication_factor(1);
        client.admin().create_topic(new).await.unwrap();
        cluster.kill(2);
        cluster.start_one(2);
        await_list(&client, "all are led", |list| {
            list.partitions == 3 && list.leaderless == 0
        })
        .await;
        assert_eq!(read_topic(&client, KIND.topic).await.len(), 3);
    });
}

#[test]
fn a_partition_moves_to_the_brokers_that_an_operator_names() {
    run(async {
        let cluster = Cluster::start();
        let client = cluster.client().await;
        create(&client).await;
        let load = Load::start([cluster.client().await], KIND, 0).await;
        more(&load).await;
        let admin = client.admin();
        let to: Vec<usize> = vec![2, 0];
        let wanted = |partition| PartitionMove {
            topic: KIND.topic.to_owned(),
            partition,
            replicas: Some(to.iter().map(|number| BrokerId::new(*number as i32)).collect()),
        };
        let refused = admin.reassign_partitions(&[wanted(0), wanted(99)]).await.unwrap();
        let refused: Vec<_> = refused
            .iter()
            .map(|refused| (refused.partition, refused.error.code()))
            .collect();
        assert_eq!(refused, [(99, Some(ErrorCode::UnknownTopicOrPartition))]);
        let deadline = Instant::now() + LONG;
        while replicas(&client, KIND.topic, 0).await.0 != to {
            assert!(Instant::now() < deadline, "it has not moved");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let one = [(KIND.topic.to_owned(), vec![0])];
        for refused in admin.elect_preferred(Some(&one)).await.unwrap() {
            assert_eq!(refused.error.code(), Some(ErrorCode::ElectionNotNeeded));
        }
        assert_eq!(leader(&client, 0).await, 2);
        more(&load).await;
        let ledger = load.finish().await;
        ledger.check_complete(&read_topic(&client, KIND.topic).await);
    });
}

/// Asks a broker whether it is ready until it answers like this.
async fn await_readiness(site: &Site, status: &str, part: &str) {
    let deadline = Instant::now() + LONG;
    loop {
        let (line, body) = site.get("/ready").await;
        if line.contains(status) && body.contains(part) {
            return;
        }
        assert!(Instant::now() < deadline, "not {status}, {part}: {line} {body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn one_that_lacks_records_is_not_ready_and_leads_only_if_an_operator_says_so() {
    run(async {
        let mut cluster = Cluster::of([(); 3].map(|()| Site::new().with_metrics()));
        let client = cluster.client().await;
        await_all_there(&client).await;
        let admin = client.admin();
        admin
            .create_topic(NewTopic::new("two").replication_factor(2))
            .await
            .unwrap();
        let (both, leader) = replicas(&client, "two", 0).await;
        let leader = leader.unwrap();
        let follower = *both.iter().find(|number| **number != leader).unwrap();
        let id = admin.describe_topic("two").await.unwrap().id;
        let address = cluster.sites[leader].address();
        await_answer(address, id, b"on both", ErrorCode::None).await;
        await_readiness(&cluster.sites[follower], " 200 ", r#""replicas":1,"out_of_sync":0"#).await;
        cluster.kill(follower);
        await_list(&client, "one is missed", |list| list.under_replicated == 1).await;
        await_answer(address, id, b"on one", ErrorCode::None).await;
        cluster.kill(leader);
        cluster.start_one(follower);
        let client = cluster.sites[follower].client().await;
        let admin = client.admin();
        await_list(&client, "nobody leads", |list| list.leaderless == 1).await;
        let lags = &cluster.sites[follower];
        await_readiness(lags, " 503 ", "replicas that are not in sync: 1 of 1").await;
        assert!(lags.get("/health").await.0.contains(" 200 "), "it works");
        let partitions = [("two".to_owned(), vec![0])];
        let refused = admin.elect_preferred(Some(&partitions)).await.unwrap();
        assert_eq!(refused.len(), 1);
        let lacks = BrokerId::new(follower as i32);
        let refused = admin.elect_unclean(&partitions, lacks).await.unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        let mut raw = Raw::connect(cluster.sites[follower].address()).await;
        let deadline = Instant::now() + LONG;
        let values = loop {
            let read = raw.call(&fetch(id, &[(0, 0)], 100, 1), &[]).await;
            if read.fetch().partitions.unwrap()[0].error == 0 && !read.payload.is_empty() {
                break values(&read.payload);
            }
            assert!(Instant::now() < deadline, "it does not lead");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(values, [b"on both".to_vec()]);
        await_readiness(&cluster.sites[follower], " 200 ", r#""ok":true"#).await;
        // Nobody says to one that is cut off that the others have fenced it.
        cluster.kill(cluster.other(&[follower]));
        await_readiness(&cluster.sites[follower], " 503 ", "no active coordinator is heard of").await;
    });
}
