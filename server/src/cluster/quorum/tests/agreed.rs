//! What is agreed on reads back as it was written, and leads to the same state wherever it is applied.

use std::{collections::BTreeMap, sync::Arc};

use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, PartitionIndex, TopicId},
    scram::{Keys, Mechanism},
};
use proptest::prelude::*;

use crate::{
    cluster::{
        quorum::{
            codec::{CodecError, FORMAT_VERSION, WITH_QUOTAS, decode, encode},
            id::{Incarnation, NodeId, StoreId},
            order::{Order, Outcome, Proposal, Registration},
            state::{PRODUCER_ID_BLOCK, State},
        },
        replicas::{self, Election, Levels, Placement, ReplicaCommand},
        state::{Command, Shape},
    },
    image::{Address, KafkaAddress, PartitionId, Replicas, Topic, TopicState},
    model::{
        access::{AccessChange, Acl, Hidden, Operation, Pattern, Permission, ResourceKind},
        quota::{Entity, Name, QuotaAlteration, QuotaKey, Rate},
    },
};

fn id(number: u128) -> TopicId {
    TopicId::new(uuid::Uuid::from_u128(number))
}

fn any_overrides() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[a-z.]{1,12}", ".{0,12}", 0..3)
}

fn any_topic() -> impl Strategy<Value = Topic> {
    let state = prop_oneof![
        Just(TopicState::Creating),
        Just(TopicState::Ready),
        Just(TopicState::Deleting)
    ];
    let larger = prop::option::of((1..9_u32, any_overrides()));
    (1..4_u128, 1..9_u32, any_overrides(), state, larger).prop_map(|(number, count, overrides, state, larger)| {
        let topic = Topic {
            name: format!("topic-{number}").parse().unwrap(),
            id: id(number),
            partition_count: count,
            overrides,
            state,
            becoming: None,
        };
        let becoming = larger.map(|(more, overrides)| {
            Arc::new(Topic {
                partition_count: count + more,
                overrides,
                state: TopicState::Ready,
                ..topic.clone()
            })
        });
        Topic { becoming, ..topic }
    })
}

const BROKER: BrokerId = BrokerId::new(1);

fn broker(id: BrokerId) -> Order {
    let number = id.get().unsigned_abs().into();
    Order::Replicas(ReplicaCommand::Register(replicas::Registration {
        id,
        process: uuid::Uuid::from_u128(number),
        store: uuid::Uuid::from_u128(number),
        opened: 1,
        was_clean: false,
        address: Address {
            host: "localhost".to_owned(),
            port: 1,
            core_ports: vec![2, 3],
        },
        rack: Some("a rack".to_owned()),
    }))
}

/// The process of a broker that registered as the first of all is let in, or out.
fn lets(is_in: bool) -> Order {
    let (id, incarnation) = (BROKER, crate::image::Incarnation::new(1));
    Order::Replicas(if is_in {
        ReplicaCommand::Unfence { id, incarnation }
    } else {
        ReplicaCommand::Fence { id, incarnation }
    })
}

/// The same process speaks Kafka's protocol, or says so though it is another.
fn speaks_kafka(incarnation: u64) -> Order {
    Order::Replicas(ReplicaCommand::SpeaksKafka {
        id: BROKER,
        incarnation: crate::image::Incarnation::new(incarnation),
        at: KafkaAddress {
            host: "localhost".to_owned(),
            port: 9092,
            core_ports: vec![4, 5],
        },
    })
}

fn creation(number: u128, partition_count: u32) -> Command {
    Command::Create {
        name: format!("topic-{number}").parse().unwrap(),
        id: id(number),
        partition_count,
        overrides: BTreeMap::new(),
    }
}

/// So many partitions, all of them at the one broker.
fn placement(count: usize) -> Placement {
    Placement {
        replicas: vec![vec![BROKER]; count],
    }
}

/// A rule is made, or removed.
fn rule(name: usize, is_added: bool) -> AccessChange {
    let acls = vec![Acl {
        kind: ResourceKind::Topic,
        pattern: Pattern::Prefixed,
        name: format!("topic-{name}"),
        principal: "User:alice".to_owned(),
        host: "*".to_owned(),
        operation: Operation::Read,
        permission: Permission::Allow,
    }];
    if is_added {
        AccessChange::AddAcls(acls)
    } else {
        AccessChange::RemoveAcls(acls)
    }
}

/// A user gets keys, or loses all.
fn password(name: usize, iterations: u32, is_set: bool) -> AccessChange {
    let user = format!("user-{name}");
    if is_set {
        let keys = Keys::of_salted(Mechanism::Sha256, &[1; 32], vec![2; 16], iterations).into();
        AccessChange::SetUser {
            user,
            keys,
            secret: Hidden(vec![name as u8]),
        }
    } else {
        AccessChange::RemoveUser { user, mechanism: None }
    }
}

/// A user gets a quota, or loses it.
fn quota(name: usize, value: Option<u32>) -> AccessChange {
    let key = QuotaKey::RequestPercentage;
    let rate = value.map(|value| Rate::new(key, f64::from(value)).unwrap());
    AccessChange::AlterQuotas(vec![QuotaAlteration {
        entity: Entity {
            user: Some(if name == 0 {
                Name::Default
            } else {
                Name::Is(format!("user-{name}"))
            }),
            ..Entity::default()
        },
        values: vec![(key, rate)],
    }])
}

fn any_order() -> impl Strategy<Value = Order> {
    let create =
        (1..4_u128, 1..4_u32, any_overrides()).prop_map(|(number, partition_count, overrides)| Command::Create {
            name: format!("topic-{number}").parse().unwrap(),
            id: id(number),
            partition_count,
            overrides,
        });
    let before = (1..4_u32, any_overrides()).prop_map(|(partition_count, overrides)| Shape {
        partition_count,
        overrides,
    });
    let altered = (
        1..4_u128,
        proptest::option::weighted(0.2, before),
        1..6_u32,
        any_overrides(),
    );
    let alter = altered.prop_map(|(number, before, partition_count, overrides)| Command::Alter {
        id: id(number),
        before,
        partition_count,
        overrides,
    });
    let delete = (1..4_u128).prop_map(|number| Command::Delete { id: id(number) });
    prop_oneof![
        create.prop_map(Order::Topic),
        alter.prop_map(Order::Topic),
        delete.prop_map(Order::Topic),
        any_topic().prop_map(|topic| Order::Settled(Arc::new(topic))),
        any_topic().prop_map(|topic| Order::Abandoned(Arc::new(topic))),
        Just(Order::ReserveProducerIds),
        (1..3_i32).prop_map(|id| broker(BrokerId::new(id))),
        any::<bool>().prop_map(lets),
        (1..3_u64).prop_map(speaks_kafka),
        (1..4_u128, 1..4_u32, 0..4_usize)
            .prop_map(|(number, count, placed)| Order::Placed(creation(number, count), placement(placed))),
        (1..3_i32, 1..4_u16).prop_map(|(id, newest)| Order::Replicas(ReplicaCommand::Support {
            id: BrokerId::new(id),
            levels: Levels { oldest: 1, newest },
        })),
        (0..4_u16).prop_map(|level| Order::Replicas(ReplicaCommand::Finalise { level })),
        (0..3_usize, any::<bool>()).prop_map(|(name, is_added)| Order::Access(rule(name, is_added))),
        (0..3_usize, 1..4096_u32, any::<bool>())
            .prop_map(|(name, iterations, is_set)| { Order::Access(password(name, iterations, is_set)) }),
        (0..3_usize, prop::option::of(1..3_u32)).prop_map(|(name, value)| Order::Access(quota(name, value))),
        (1..4_u128).prop_map(|number| Order::Placed(Command::Delete { id: id(number) }, placement(0))),
        (0..3_u64, 1..4_u64).prop_map(|(broker, incarnation)| {
            Order::Register(Registration {
                broker: NodeId::from(broker),
                store: StoreId::default(),
                incarnation: Incarnation(incarnation),
            })
        }),
    ]
}

/// Everything that the state knows.
fn told(state: &State) -> String {
    let image = state.image();
    let topics: Vec<_> = image.topics().collect();
    format!("{} {topics:?} {:?}", image.version(), state.encode())
}

proptest! {
    #[test]
    fn an_order_reads_back_as_it_was_written(order in any_order()) {
        let proposal = Proposal::new(order);
        prop_assert_eq!(decode::<Proposal>(&encode(&proposal)), Ok(proposal));
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(first) = bytes.first_mut() {
            *first = FORMAT_VERSION;
        }
        // Neither panics, nor takes memory that the bytes do not have.
        let _ = decode::<Proposal>(&bytes);
        let _ = State::decode(&bytes);
    }

    #[test]
    fn the_same_orders_lead_to_the_same_state_also_by_way_of_a_snapshot(
        orders in prop::collection::vec(any_order(), 0..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let proposals: Vec<Proposal> = orders.into_iter().map(Proposal::new).collect();
        let cut = cut.index(proposals.len() + 1);
        let (mut whole, mut other) = (State::default(), State::default());
        for (number, proposal) in proposals.iter().enumerate() {
            if number == cut {
                other = State::decode(&other.encode()).unwrap();
            }
            let outcome = whole.apply(proposal.clone());
            prop_assert_eq!(&outcome, &other.apply(proposal.clone()));
            prop_assert_eq!(told(&whole), told(&other));
            // Proposed again, as by somebody who did not hear of it.
            prop_assert_eq!(&outcome, &whole.apply(proposal.clone()));
            prop_assert_eq!(told(&whole), told(&other), "it is done once");
        }
    }
}

#[test]
fn no_producer_id_is_in_two_blocks() {
    let mut state = State::default();
    for number in 0..3 {
        let outcome = state.apply(Proposal::new(Order::ReserveProducerIds));
        let first = number * PRODUCER_ID_BLOCK;
        assert_eq!(outcome, Outcome::ProducerIds { first });
        state = State::decode(&state.encode()).unwrap();
    }
}

#[test]
fn of_two_processes_that_are_the_same_broker_the_one_that_was_started_last_is_believed() {
    let mut state = State::default();
    let mut register = |store, incarnation| {
        let registration = Registration {
            broker: NodeId::from(1),
            store,
            incarnation: Incarnation(incarnation),
        };
        let outcome = state.apply(Proposal::new(Order::Register(registration)));
        outcome.refusal().map(|refusal| refusal.code)
    };
    let store = StoreId::default();
    assert_eq!(register(store, 7), None);
    assert_eq!(register(store, 6), Some(ErrorCode::StaleBrokerEpoch));
    assert_eq!(register(store, 7), None);
    // With another disk it begins anew.
    assert_eq!(register(StoreId::new(), 1), None);
}

#[test]
fn what_a_process_has_sent_before_it_ended_takes_nothing_from_the_one_that_followed_it() {
    let mut state = State::default();
    let of = |opened: u64| {
        let Order::Replicas(ReplicaCommand::Register(new)) = broker(BROKER) else {
            unreachable!("it is a registration")
        };
        let process = uuid::Uuid::from_u128(opened.into());
        let joins = Order::Register(Registration {
            broker: BROKER.into(),
            store: new.store.into(),
            incarnation: Incarnation(opened),
        });
        let registers = Order::Replicas(ReplicaCommand::Register(replicas::Registration {
            process,
            opened,
            ..new
        }));
        (joins, registers, process)
    };
    let ((joins, late, _), (joins_again, registers, process)) = (of(7), of(8));
    done(&mut state, joins);
    done(&mut state, joins_again);
    done(&mut state, registers);
    let refused = state.apply(Proposal::new(late)).refusal().unwrap();
    assert_eq!(refused.code, ErrorCode::StaleBrokerEpoch);
    assert_eq!(state.replicas().broker(BROKER).unwrap().process, process);
}

#[test]
fn where_a_process_speaks_kafkas_protocol_is_known_until_another_takes_its_place() {
    let mut state = State::default();
    let ports = |state: &State| {
        let at = state.replicas().broker(BROKER).unwrap().kafka.clone();
        at.map(|at| at.core_ports.clone())
    };
    done(&mut state, broker(BROKER));
    assert_eq!(ports(&state), None);
    let refused = state.apply(Proposal::new(speaks_kafka(2))).refusal();
    assert!(refused.is_some(), "there is no such process");
    done(&mut state, speaks_kafka(1));
    // The same process registers again, and a member has it from a snapshot.
    done(&mut state, broker(BROKER));
    state = State::decode(&state.encode()).unwrap();
    assert_eq!(ports(&state), Some(vec![4, 5]));
    let Order::Replicas(ReplicaCommand::Register(before)) = broker(BROKER) else {
        unreachable!("it is a registration")
    };
    let another = replicas::Registration {
        process: uuid::Uuid::from_u128(99),
        opened: 2,
        ..before
    };
    done(&mut state, Order::Replicas(ReplicaCommand::Register(another)));
    assert_eq!(ports(&state), None);
}

#[test]
fn a_refusal_has_its_code_and_words_on_every_member() {
    let mut state = State::default();
    let delete = || Proposal::new(Order::Topic(Command::Delete { id: id(1) }));
    let outcome: Outcome = decode(&encode(&state.apply(delete()))).unwrap();
    let refusal = outcome.refusal().unwrap();
    assert_eq!(refusal.code, ErrorCode::UnknownTopicOrPartition);
    assert!(refusal.message.contains("there is no topic"), "{}", refusal.message);
}

#[test]
fn what_another_version_wrote_and_what_is_too_long_is_refused_by_name() {
    let mut bytes = encode(&Proposal::new(Order::ReserveProducerIds));
    bytes.push(0);
    assert_eq!(decode::<Proposal>(&bytes), Err(CodecError::Trailing { len: 1 }));
    bytes[0] = WITH_QUOTAS + 1;
    let found = WITH_QUOTAS + 1;
    assert_eq!(decode::<Proposal>(&bytes), Err(CodecError::Version { found }));
    assert_eq!(decode::<Proposal>(&[]), Err(CodecError::Empty));
}

#[test]
fn a_snapshot_of_the_version_that_knew_no_replicas_is_read() {
    // Its version, the image's version, no topics, the next producer id, no brokers, no proposals.
    let former = State::decode(&[1, 1, 0, 10, 0, 0]).unwrap();
    assert_eq!(told(&former), told(&State::new(Vec::new(), 5)));

    let mut state = State::default();
    done(&mut state, Order::Topic(creation(1, 2)));
    // Without what a state that has neither brokers nor replicas ends with: how many there are of both, processes that have registered,
    // topics that are gone, the first feature level, and no broker that can do others; and, since version 4, none that speaks Kafka's
    // protocol.
    let mut bytes = state.encode();
    assert_eq!(bytes.pop(), Some(0));
    bytes[0] = 3;
    assert_eq!(told(&State::decode(&bytes).unwrap()), told(&state));
    assert_eq!(bytes.split_off(bytes.len() - 6), [0, 0, 0, 0, 1, 0]);
    bytes[0] = 1;
    assert_eq!(told(&State::decode(&bytes).unwrap()), told(&state));
}

fn done(state: &mut State, order: Order) {
    assert_eq!(state.apply(Proposal::new(order)), Outcome::Done);
}

#[test]
fn a_topic_of_a_cluster_comes_and_goes_with_its_replicas_in_one_step_or_not_at_all() {
    let mut state = State::default();
    done(&mut state, broker(BROKER));
    done(&mut state, lets(true));
    let refused = state.apply(Proposal::new(Order::Placed(creation(1, 2), placement(1))));
    assert_eq!(
        refused.refusal().unwrap().code,
        ErrorCode::CoordinatorLoadInProgress,
        "one is not placed"
    );
    assert!(state.image().topic_by_id(id(1)).is_none());
    done(&mut state, Order::Placed(creation(1, 2), placement(2)));
    assert_eq!(state.image().topic_by_id(id(1)).unwrap().state, TopicState::Ready);
    let replicas = state.replicas().replicas_of(id(1));
    assert_eq!(replicas.len(), 2);
    assert!(replicas.iter().all(|replicas| replicas.leader == Some(BROKER)));
    let larger = Command::Alter {
        id: id(1),
        before: None,
        partition_count: 3,
        overrides: BTreeMap::new(),
    };
    done(&mut state, Order::Placed(larger, placement(1)));
    assert_eq!(state.replicas().replicas_of(id(1)).len(), 3);
    let stricter = Command::Alter {
        id: id(1),
        before: None,
        partition_count: 3,
        overrides: BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]),
    };
    done(&mut state, Order::Placed(stricter, placement(0)));
    let min_isr = |replicas: &Arc<Replicas>| replicas.terms.min_isr;
    assert!(
        state
            .replicas()
            .replicas_of(id(1))
            .iter()
            .map(min_isr)
            .all(|count| count == 2)
    );
    state = State::decode(&state.encode()).unwrap();
    assert_eq!(state.replicas().replicas_of(id(1)).len(), 3, "by way of a snapshot");
    done(&mut state, Order::Placed(Command::Delete { id: id(1) }, placement(0)));
    assert!(state.image().topic_by_id(id(1)).is_none());
    assert!(state.replicas().replicas_of(id(1)).is_empty());
}

#[test]
fn who_orders_something_for_several_partitions_is_told_for_which_it_is_refused() {
    let mut state = State::default();
    done(&mut state, broker(BROKER));
    done(&mut state, lets(true));
    done(&mut state, Order::Placed(creation(1, 1), placement(1)));
    let partition = |index| PartitionId {
        topic: id(1),
        index: PartitionIndex::new(index),
    };
    let elect = Order::Replicas(ReplicaCommand::Elect {
        partitions: vec![partition(0), partition(1)],
        how: Election::Preferred,
    });
    let outcome: Outcome = decode(&encode(&state.apply(Proposal::new(elect)))).unwrap();
    let refused = outcome.refused_partitions();
    let codes: Vec<_> = refused.iter().map(|(id, why)| (*id, why.code)).collect();
    let expected = [
        (partition(0), ErrorCode::ElectionNotNeeded),
        (partition(1), ErrorCode::UnknownTopicOrPartition),
    ];
    assert_eq!(codes, expected);
}

#[test]
fn what_a_broker_made_alone_is_its_own_when_others_come() {
    let topic = Topic {
        name: "alone".parse().unwrap(),
        id: id(1),
        partition_count: 2,
        overrides: BTreeMap::new(),
        state: TopicState::Ready,
        becoming: None,
    };
    let mut state = State::new(vec![Arc::new(topic)], 0);
    let register = |number: u64| {
        Order::Register(Registration {
            broker: NodeId::from(number),
            store: StoreId::default(),
            incarnation: Incarnation(1),
        })
    };
    done(&mut state, register(1));
    let too_early = state.apply(Proposal::new(register(2))).refusal().unwrap();
    assert!(too_early.message.contains("cluster.listen"), "{}", too_early.message);
    done(&mut state, broker(BROKER));
    assert!(state.replicas().replicas_of(id(1)).is_empty());
    done(&mut state, lets(true));
    let replicas = state.replicas().replicas_of(id(1));
    assert_eq!(replicas.len(), 2);
    assert!(
        replicas
            .iter()
            .all(|replicas| (replicas.leader, &replicas.replicas[..]) == (Some(BROKER), &[BROKER][..]))
    );
    done(&mut state, register(2));
}
