//! What a large cluster costs whoever knows it as a whole: a hundred brokers, a hundred thousand partitions with three replicas each.
//! Every member applies all of this, so it says how large a cluster can become before its coordinators bind.

use std::{collections::BTreeMap, time::Instant};

use headwater_protocol::id::{BrokerId, TopicId};
use uuid::Uuid;

use crate::{
    cluster::{
        quorum::{
            codec::encode,
            order::{Order, PROPOSAL_LEN_MAX, Proposal},
            state::State,
        },
        replicas::{Placement, Registration, ReplicaCommand, place},
        state::Command,
    },
    image::{Address, Incarnation, Placements},
    metrics::Process,
};

const BROKERS: i32 = 100;
const TOPICS: u128 = 1000;
const PARTITIONS: u32 = 100;
const REPLICAS: usize = 3;

/// The state, and how long orders take and are.
#[derive(Default)]
struct Load {
    state: State,
    /// Of the last orders.
    took: Vec<f64>,
    bytes: usize,
}

impl Load {
    fn order(&mut self, order: Order) {
        let proposal = Proposal::new(order);
        let bytes = encode(&proposal).len();
        assert!(bytes <= PROPOSAL_LEN_MAX, "it fits an entry of the log");
        self.bytes += bytes;
        let began = Instant::now();
        let outcome = self.state.apply(proposal);
        self.took.push(began.elapsed().as_secs_f64() * 1e3);
        assert_eq!(outcome.refusal(), None);
    }

    fn registers(&mut self, number: i32) {
        let identity = Uuid::from_u128(number as u128 + 1);
        self.order(Order::Replicas(ReplicaCommand::Register(Registration {
            id: BrokerId::new(number),
            process: identity,
            store: identity,
            opened: 1,
            was_clean: false,
            address: Address {
                host: format!("broker-{number}.example"),
                port: 9000,
                core_ports: vec![9001, 9002, 9003, 9004],
            },
            rack: Some(format!("rack-{}", number % 3)),
        })));
        self.is_let_in(number, true);
    }

    fn is_let_in(&mut self, number: i32, is_in: bool) {
        let id = BrokerId::new(number);
        let incarnation = self.incarnation(id);
        self.order(Order::Replicas(if is_in {
            ReplicaCommand::Unfence { id, incarnation }
        } else {
            ReplicaCommand::Fence { id, incarnation }
        }));
    }

    fn incarnation(&self, id: BrokerId) -> Incarnation {
        self.state.replicas().broker(id).expect("it is registered").incarnation
    }

    fn creates(&mut self, number: u128) {
        let id = TopicId::new(Uuid::from_u128(number));
        let brokers = self.state.replicas().brokers();
        let replicas = place(id, &[], PARTITIONS as usize, REPLICAS, brokers).expect("there are enough brokers");
        let command = Command::Create {
            name: format!("topic-{number}").parse().expect("it is a name"),
            id,
            partition_count: PARTITIONS,
            overrides: BTreeMap::new(),
        };
        self.order(Order::Placed(command, Placement { replicas }));
    }

    /// Of those that it leads.
    fn led_by(&self, number: i32) -> usize {
        let leads = |leader| leader == Some(BrokerId::new(number));
        self.state
            .replicas()
            .partitions()
            .filter(|(_, of)| leads(of.leader))
            .count()
    }

    fn placements(&self) -> Placements {
        let own = self.state.replicas().assignment(BrokerId::new(1));
        own.expect("it is registered").placements
    }

    fn tell(&mut self, what: &str) {
        self.took.sort_by(f64::total_cmp);
        let (count, total) = (self.took.len(), self.took.iter().sum::<f64>());
        println!(
            "{what:<52} {count:>5} orders, {:>7.3} ms in the median, {:>8.3} at most, {total:>8.0} in all, {:>8} bytes",
            self.took[count / 2],
            self.took[count - 1],
            self.bytes
        );
        (self.took, self.bytes) = (Vec::new(), 0);
    }
}

/// `cargo test --release -p headwater-server --lib quorum::tests::load -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn a_hundred_brokers_with_a_hundred_thousand_partitions() {
    let resident = || Process::now().resident_bytes.expect("the kernel says so") >> 10;
    let before = resident();
    let mut load = Load::default();
    (0..BROKERS).for_each(|number| load.registers(number));
    load.tell("brokers register and are let in");
    (0..TOPICS).for_each(|number| load.creates(number));
    load.tell("topics of 100 partitions are made");
    println!("{:<52} {} KiB", "memory", resident() - before);
    let (known, led) = (load.placements(), load.led_by(7));
    load.is_let_in(7, false);
    assert_eq!(load.led_by(7), 0, "others lead");
    load.tell(&format!("a broker dies that leads {led} partitions"));
    let began = Instant::now();
    let changed = load.placements().changed_since(&known).len();
    println!(
        "{:<52} {:.3} ms for {changed} partitions",
        "each broker finds what has changed",
        began.elapsed().as_secs_f64() * 1e3
    );
    load.is_let_in(7, true);
    load.tell("it is let in again");
    let began = Instant::now();
    let snapshot = load.state.encode();
    println!(
        "{:<52} {:.0} ms, {} KiB",
        "a snapshot is written",
        began.elapsed().as_secs_f64() * 1e3,
        snapshot.len() >> 10
    );
    let began = Instant::now();
    let read = State::decode(&snapshot).expect("it can be read");
    println!(
        "{:<52} {:.0} ms",
        "a snapshot is read",
        began.elapsed().as_secs_f64() * 1e3
    );
    assert_eq!(read.replicas(), load.state.replicas());
}
