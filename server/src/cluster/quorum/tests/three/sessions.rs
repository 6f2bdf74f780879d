//! Brokers that the active coordinator takes to be gone, and those that it does not.

use headwater_protocol::id::{BrokerId, PartitionIndex};
use uuid::Uuid;

use super::*;
use crate::{
    cluster::{
        quorum::sessions,
        replicas::{Placement, Registration, ReplicaCommand},
    },
    image::{Address, Broker, PartitionId, Replicas},
};

const TOPIC: u128 = 7;

fn broker(number: u64) -> BrokerId {
    NodeId::from(number).into()
}

fn known(quorum: &Quorum, number: u64) -> Arc<Broker> {
    let shown = quorum.shown();
    let replicas = shown.replicas.borrow();
    Arc::clone(replicas.broker(broker(number)).unwrap())
}

fn replicas(quorum: &Quorum) -> Replicas {
    let id = PartitionId {
        topic: TopicId::new(Uuid::from_u128(TOPIC)),
        index: PartitionIndex::new(0),
    };
    quorum.shown().replicas.borrow().replicas(id).unwrap().clone()
}

async fn done(quorum: &Quorum, order: Order) {
    assert_eq!(quorum.propose(order).await.unwrap(), Outcome::Done);
}

/// All of them are brokers that are there, and have a partition that the first of these leads.
async fn all_are_brokers(quorum: &Quorum, order: [u64; 3]) {
    for number in order {
        let registration = Registration {
            id: broker(number),
            process: Uuid::from_u128(number.into()),
            store: Uuid::from_u128(number.into()),
            opened: 1,
            was_clean: true,
            address: Address {
                host: "127.0.0.1".to_owned(),
                port: 1,
                core_ports: vec![1],
            },
            rack: None,
        };
        done(quorum, Order::Replicas(ReplicaCommand::Register(registration))).await;
        let incarnation = known(quorum, number).incarnation;
        let id = broker(number);
        done(quorum, Order::Replicas(ReplicaCommand::Unfence { id, incarnation })).await;
    }
    let placement = Placement {
        replicas: vec![order.map(broker).to_vec()],
    };
    let create = Command::Create {
        name: "t".parse().unwrap(),
        id: TopicId::new(Uuid::from_u128(TOPIC)),
        partition_count: 1,
        overrides: BTreeMap::new(),
    };
    done(quorum, Order::Placed(create, placement)).await;
    assert_eq!(replicas(quorum).leader, Some(broker(order[0])));
}

/// Kills a broker that leads a partition, has the active coordinator watch, and returns when another one leads it.
async fn another_leads(mut house: House, is_silent: bool) {
    let leader = house.leader().await;
    let gone = house.other(leader);
    let stays = 6 - leader - gone;
    all_are_brokers(&house.members[&leader], [gone, leader, stays]).await;
    house.kill(gone).await;
    // Whoever connects is not answered.
    let mute = is_silent.then(|| house.bind(gone));
    let quorum = &house.members[&leader];
    let fenced = house.until("it is not fenced", || known(quorum, gone).is_fenced.then_some(()));
    tokio::select! {
        never = sessions::watch(quorum) => match never {},
        () = fenced => {}
    }
    let now = replicas(quorum);
    assert_eq!(now.leader, Some(broker(leader)));
    assert_eq!(now.isr, [leader, stays].map(broker));
    assert!(!known(quorum, leader).is_fenced && !known(quorum, stays).is_fenced);
    if is_silent {
        comes_back(&mut house, gone, mute).await;
    } else {
        leases_end(&mut house, leader, stays).await;
    }
    house.stop_all().await;
}

/// Whoever is heard may take itself for a leader, and the active coordinator for as long as a majority hears it.
async fn leases_end(house: &mut House, leader: u64, stays: u64) {
    let holds = |house: &House, number| house.members[&number].local.lease().holds();
    let all_hold = house.until("who is heard has no lease", || {
        (holds(house, leader) && holds(house, stays)).then_some(())
    });
    tokio::select! {
        never = sessions::watch(&house.members[&leader]) => match never {},
        () = all_hold => {}
    }
    house.kill(stays).await;
    let ends = house.until("the lease of one that has no majority holds", || {
        (!holds(house, leader)).then_some(())
    });
    tokio::select! {
        never = sessions::watch(&house.members[&leader]) => match never {},
        () = ends => {}
    }
}

/// It is fenced for as long as the active coordinator does not reach it, whoever asks on its behalf, and let in then.
async fn comes_back(house: &mut House, gone: u64, mute: Option<std::net::TcpListener>) {
    let members: Vec<u64> = house.members.keys().copied().collect();
    let id = broker(gone);
    let incarnation = known(&house.members[&members[0]], gone).incarnation;
    let enter = || Order::Replicas(ReplicaCommand::Unfence { id, incarnation });
    for number in &members {
        let quorum = &house.members[number];
        let refusal = quorum.propose(enter()).await.unwrap().refusal().unwrap();
        assert_eq!(refusal.code, ErrorCode::BrokerNotAvailable);
        let who = format!("does not reach broker {gone}");
        assert!(refusal.message.contains(&who), "{}", refusal.message);
        assert!(known(quorum, gone).is_fenced);
    }
    drop(mute);
    house.start(gone).await;
    done(&house.members[&gone], enter()).await;
    assert!(!known(&house.members[&gone], gone).is_fenced);
}

#[test]
fn when_the_process_of_a_broker_has_ended_another_leads_what_it_has_led() {
    runtime().block_on(async { another_leads(House::of(3).await, false).await });
}

#[test]
fn when_a_broker_does_not_answer_for_its_session_another_leads_what_it_has_led() {
    runtime().block_on(async { another_leads(House::of(3).await, true).await });
}
