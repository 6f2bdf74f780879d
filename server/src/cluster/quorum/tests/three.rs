//! Three members in one process, over loopback.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use headwater_protocol::{error::ErrorCode, id::TopicId};
use tempfile::TempDir;

use crate::{
    cluster::{
        quorum::{
            id::{Cluster, Identity, Member, NodeId, StoreId},
            member::{ProposeError, Quorum},
            members::{ChangeError, change},
            order::{Order, Outcome},
            peer::{CallError, Refused},
            state::State,
            store::{Beginning, Store},
        },
        state::Command,
    },
    image::{Topic, TopicState},
    machine,
};

mod sessions;
mod succession;

/// Nothing takes so long, on a machine that does anything at all.
const LONG: Duration = Duration::from_mins(2);

/// Members, each with a directory and an address of its own that stay when it is stopped.
struct House {
    directory: TempDir,
    addresses: BTreeMap<u64, SocketAddr>,
    members: BTreeMap<u64, Quorum>,
    /// What a member that is gone listens with all the same.
    mute: Option<std::net::TcpListener>,
}

impl House {
    fn new() -> House {
        House {
            directory: tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap(),
            addresses: BTreeMap::new(),
            members: BTreeMap::new(),
            mute: None,
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.path().join(format!("{number}.redb"))
    }

    /// Gives a member an empty store, or that of the first of a quorum.
    fn make_store(&self, number: u64, beginning: Option<&Beginning>) {
        let identity = Identity {
            cluster: Cluster::try_from("a cluster".to_owned()).unwrap(),
            node: NodeId::from(number),
            store: StoreId::new(),
        };
        Store::create(&self.path(number), &identity, beginning).unwrap();
    }

    /// What a member listens with.
    fn bind(&mut self, number: u64) -> std::net::TcpListener {
        let address = self.addresses.get(&number).copied();
        let wanted = address.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        // What was connected to the member before may hold its port for a moment.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(wanted).unwrap();
        let listener = socket.listen(64).unwrap().into_std().unwrap();
        self.addresses.insert(number, listener.local_addr().unwrap());
        listener
    }

    async fn start(&mut self, number: u64) {
        let listener = self.bind(number);
        self.start_with(number, listener).await;
    }

    async fn start_with(&mut self, number: u64, listener: std::net::TcpListener) {
        let quorum = Quorum::start(&self.path(number), Some(listener), Arc::default(), |error| {
            panic!("{error}")
        })
        .await;
        self.members.insert(number, quorum.unwrap());
    }

    async fn stop(&mut self, number: u64) {
        let quorum = self.members.remove(&number).unwrap();
        quorum.stop(machine::now() + LONG).await.unwrap();
    }

    /// As if it had died: it hands nothing over.
    async fn kill(&mut self, number: u64) {
        let quorum = self.members.remove(&number).unwrap();
        quorum.end(machine::now() + LONG).await.unwrap();
    }

    /// Kills the leader, once the others follow it; if it is to be silent, whoever connects to it is not answered. When it was.
    async fn until_gone(&mut self, leader: u64, is_silent: bool) -> Instant {
        let node = NodeId::from(leader);
        self.until("a member follows nobody", || {
            let follow = |quorum: &Quorum| quorum.leader() == Some(node);
            self.members.values().all(follow).then_some(())
        })
        .await;
        self.kill(leader).await;
        let gone_at = machine::now();
        if is_silent {
            self.mute = Some(self.bind(leader));
        }
        gone_at
    }

    async fn stop_all(mut self) {
        let running: Vec<u64> = self.members.keys().copied().collect();
        for number in running {
            self.kill(number).await;
        }
    }

    fn member(&self, number: u64) -> Member {
        Member {
            store: self.members[&number].identity().store,
            address: self.addresses[&number].to_string(),
        }
    }

    /// Members `2..=count` join the one that has begun alone.
    async fn of(count: u64) -> House {
        House::that_knows(count, State::default()).await
    }

    /// The first of them knows this from the beginning.
    async fn that_knows(count: u64, state: State) -> House {
        let mut house = House::new();
        let listener = house.bind(1);
        let address = house.addresses[&1].to_string();
        house.make_store(1, Some(&Beginning { state, address }));
        house.start_with(1, listener).await;
        house.leader().await;
        for number in 2..=count {
            house.make_store(number, None);
            house.start(number).await;
        }
        let first = &house.members[&1];
        let mut newcomers = BTreeMap::new();
        for number in 2..=count {
            let node = NodeId::from(number);
            let address = house.addresses[&number].to_string();
            let store = first.ask_newcomer(node, &address).await.unwrap().store;
            newcomers.insert(node, Member { store, address });
        }
        if !newcomers.is_empty() {
            first.add(&newcomers).await.unwrap();
        }
        house
    }

    /// The member that leads, once one of those that run does.
    async fn leader(&self) -> u64 {
        self.until("nobody leads", || {
            let leads =
                |(number, quorum): (&u64, &Quorum)| (quorum.leader() == Some(NodeId::from(*number))).then_some(*number);
            self.members.iter().find_map(leads)
        })
        .await
    }

    async fn until<T>(&self, what: &str, mut there: impl FnMut() -> Option<T>) -> T {
        let deadline = machine::now() + LONG;
        loop {
            if let Some(value) = there() {
                return value;
            }
            assert!(machine::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// All members that run show the topic.
    async fn all_know(&self, name: &str) {
        self.until("a member does not know the topic", || {
            let know = |quorum: &Quorum| quorum.images().borrow().topic(name).is_some();
            self.members.values().all(know).then_some(())
        })
        .await;
    }

    /// Another than this one.
    fn other(&self, than: u64) -> u64 {
        *self.members.keys().find(|number| **number != than).unwrap()
    }
}

fn create(name: &str) -> Order {
    Order::Topic(Command::Create {
        name: name.parse().unwrap(),
        id: TopicId::random(),
        partition_count: 1,
        overrides: BTreeMap::new(),
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_member_alone_agrees_with_itself_and_knows_it_after_a_restart() {
    runtime().block_on(async {
        let mut house = House::of(1).await;
        let created = house.members[&1].propose(create("a")).await;
        assert_eq!(created.unwrap(), Outcome::Done);
        house.all_know("a").await;
        let again = house.members[&1].propose(create("a")).await.unwrap();
        assert_eq!(again.refusal().unwrap().code, ErrorCode::TopicAlreadyExists);
        house.stop(1).await;
        house.start(1).await;
        house.all_know("a").await;
        assert_eq!(house.members[&1].propose(create("b")).await.unwrap(), Outcome::Done);
        house.stop_all().await;
    });
}

#[test]
fn members_that_join_know_what_was_known_from_the_beginning() {
    runtime().block_on(async {
        let topic = Topic {
            name: "old".parse().unwrap(),
            id: TopicId::random(),
            partition_count: 3,
            overrides: BTreeMap::new(),
            state: TopicState::Ready,
            becoming: None,
        };
        let mut house = House::that_knows(3, State::new(vec![Arc::new(topic.clone())], 5000)).await;
        house.all_know("old").await;
        let leader = house.leader().await;
        house.kill(leader).await;
        let other = house.other(leader);
        let reserved = house.members[&other].propose(Order::ReserveProducerIds).await.unwrap();
        assert_eq!(reserved, Outcome::ProducerIds { first: 5000 });
        for quorum in house.members.values() {
            assert_eq!(**quorum.images().borrow().topic("old").unwrap(), topic);
        }
        house.stop_all().await;
    });
}

#[test]
fn three_members_go_on_when_one_is_gone_and_it_catches_up_when_it_is_back() {
    runtime().block_on(async {
        let mut house = House::of(3).await;
        let leader = house.leader().await;
        // Wherever it is asked for.
        for (number, quorum) in &house.members {
            let outcome = quorum.propose(create(&format!("topic-{number}"))).await;
            assert_eq!(outcome.unwrap(), Outcome::Done);
        }
        house.all_know("topic-3").await;
        house.stop(leader).await;
        let other = house.other(leader);
        assert_eq!(
            house.members[&other].propose(create("later")).await.unwrap(),
            Outcome::Done
        );
        house.start(leader).await;
        house.all_know("later").await;
        house.all_know("topic-1").await;
        house.stop_all().await;
    });
}

#[test]
fn a_minority_refuses_with_an_error_that_says_to_try_again_and_goes_on_with_a_majority() {
    runtime().block_on(async {
        let mut house = House::of(3).await;
        let leader = house.leader().await;
        for number in [1, 2, 3].into_iter().filter(|number| *number != leader) {
            house.kill(number).await;
        }
        let refused = house.members[&leader]
            .propose(create("nobody-agrees"))
            .await
            .unwrap_err();
        assert!(matches!(refused, ProposeError::NoMajority), "{refused}");
        assert!(refused.code().is_retriable());
        let other = if leader == 1 { 2 } else { 1 };
        house.start(other).await;
        assert_eq!(
            house.members[&leader].propose(create("agreed")).await.unwrap(),
            Outcome::Done
        );
        house.all_know("agreed").await;
        house.stop_all().await;
    });
}

#[test]
fn all_members_that_end_at_once_know_afterwards_what_was_agreed_on() {
    runtime().block_on(async {
        let mut house = House::of(3).await;
        for number in 0..20 {
            let outcome = house.members[&1].propose(create(&format!("topic-{number}"))).await;
            assert_eq!(outcome.unwrap(), Outcome::Done);
        }
        for number in 1..=3 {
            house.kill(number).await;
        }
        for number in 1..=3 {
            house.start(number).await;
        }
        for number in 0..20 {
            house.all_know(&format!("topic-{number}")).await;
        }
        house.stop_all().await;
    });
}

#[test]
fn a_member_that_is_not_there_is_not_made_a_voter_and_the_quorum_goes_on() {
    runtime().block_on(async {
        let house = House::of(1).await;
        let nowhere = Member {
            store: StoreId::new(),
            address: "127.0.0.1:1".to_owned(),
        };
        let asked = house.members[&1].ask_newcomer(NodeId::from(2), &nowhere.address).await;
        assert!(matches!(asked, Err(CallError::Unreachable { .. })));
        let members = BTreeMap::from([(NodeId::from(2), nowhere)]);
        let added = change::add(&house.members[&1], &members, Duration::from_secs(3)).await;
        assert!(matches!(added, Err(ChangeError::NotThere { .. })), "{added:?}");
        assert_eq!(house.members[&1].membership().voter_ids().count(), 1);
        assert_eq!(house.members[&1].propose(create("a")).await.unwrap(), Outcome::Done);
        house.members[&1].remove(NodeId::from(2)).await.unwrap();
        assert_eq!(house.members[&1].membership().nodes().count(), 1);
        house.stop_all().await;
    });
}

#[test]
fn a_member_whose_disk_was_emptied_is_refused_under_its_old_id_until_it_is_added_again() {
    runtime().block_on(async {
        let mut house = House::of(3).await;
        let leader = house.leader().await;
        assert_eq!(
            house.members[&leader].propose(create("before")).await.unwrap(),
            Outcome::Done
        );
        let emptied = house.other(leader);
        house.stop(emptied).await;
        std::fs::remove_file(house.path(emptied)).unwrap();
        house.make_store(emptied, None);
        house.start(emptied).await;
        // The two that have not lost anything go on, and do not talk to the one that has.
        assert_eq!(
            house.members[&leader].propose(create("without-it")).await.unwrap(),
            Outcome::Done
        );
        let node = NodeId::from(emptied);
        let old = house.members[&leader].membership().get_node(&node).unwrap().clone();
        let refused = house.members[&leader].ask(node, &old).await.unwrap_err();
        let CallError::Refused { source, .. } = refused else {
            panic!("{refused}")
        };
        assert!(matches!(source, Refused::OtherStore { .. }), "{source}");
        assert!(house.members[&emptied].images().borrow().topic("before").is_none());
        assert_eq!(house.members[&emptied].leader(), None);

        let again = BTreeMap::from([(node, house.member(emptied))]);
        let refused = house.members[&leader].add(&again).await.unwrap_err();
        assert!(matches!(refused, ChangeError::Known { .. }), "{refused}");
        house.members[&leader].remove(node).await.unwrap();
        house.members[&leader].add(&again).await.unwrap();
        house.all_know("before").await;
        house.all_know("without-it").await;
        house.stop_all().await;
    });
}

#[test]
fn a_removed_member_is_not_listened_to_any_more() {
    runtime().block_on(async {
        let house = House::of(3).await;
        let leader = house.leader().await;
        let removed = house.other(leader);
        house.members[&leader].remove(NodeId::from(removed)).await.unwrap();
        let third = 6 - leader - removed;
        // Those that stay have heard of it.
        assert_eq!(
            house.members[&leader].propose(create("a")).await.unwrap(),
            Outcome::Done
        );
        house
            .until("the removal is not known", || {
                let nodes = house.members[&third].membership().nodes().count();
                (nodes == 2).then_some(())
            })
            .await;
        let asked = house.members[&removed]
            .ask(NodeId::from(third), &house.member(third))
            .await
            .unwrap_err();
        assert!(
            matches!(
                &asked,
                CallError::Refused {
                    source: Refused::Stranger { .. },
                    ..
                }
            ),
            "{asked}"
        );
        house.stop_all().await;
    });
}

#[test]
fn leadership_is_handed_to_a_member_that_is_there_and_to_no_other() {
    runtime().block_on(async {
        let mut house = House::of(3).await;
        let leader = house.leader().await;
        let heir = house.other(leader);
        house.members[&leader]
            .transfer_leadership(NodeId::from(heir))
            .await
            .unwrap();
        house
            .until("leadership stays", || {
                (house.members[&heir].leader() == Some(NodeId::from(heir))).then_some(())
            })
            .await;
        let third = 6 - leader - heir;
        house.kill(third).await;
        let refused = house.members[&heir]
            .transfer_leadership(NodeId::from(third))
            .await
            .unwrap_err();
        assert!(matches!(refused, ChangeError::NotThere { .. }), "{refused}");
        let refused = house.members[&heir]
            .transfer_leadership(NodeId::from(9))
            .await
            .unwrap_err();
        assert!(matches!(refused, ChangeError::CannotLead { .. }), "{refused}");
        assert_eq!(
            house.members[&heir].propose(create("it-leads-on")).await.unwrap(),
            Outcome::Done
        );
        house.stop_all().await;
    });
}

#[test]
fn a_member_that_missed_more_than_the_log_holds_gets_a_snapshot() {
    runtime().block_on(async {
        let mut house = House::of(3).await;
        let leader = house.leader().await;
        let absent = house.other(leader);
        house.kill(absent).await;
        let quorum = &house.members[&leader];
        // More than two snapshots' worth, so that the log has forgotten where it was.
        let reserved = (0..2600).map(|_| quorum.propose(Order::ReserveProducerIds));
        let reserved = futures::future::join_all(reserved).await;
        assert!(
            reserved
                .iter()
                .all(|outcome| matches!(outcome, Ok(Outcome::ProducerIds { .. })))
        );
        assert_eq!(quorum.propose(create("after-all-that")).await.unwrap(), Outcome::Done);
        house
            .until("the log is never cut off", || {
                quorum.purged().filter(|purged| purged.index > 100)
            })
            .await;
        house.start(absent).await;
        house.all_know("after-all-that").await;
        assert!(house.members[&absent].purged().is_some());
        house.stop_all().await;
    });
}
