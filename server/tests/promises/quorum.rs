//! Three processes, one of which serves clients, are a coordinator quorum: what two of them have agreed on stays, whoever is killed.

use std::time::{Duration, Instant};

use headwater_client::{BrokerId, ErrorCode, NewTopic};
use headwater_protocol::schema::CreateTopicRequestT;
use tokio::time::timeout;

use crate::support::{Broker, Raw, Site, batch, fetch, produce, run, values};

/// Nothing takes so long, on a machine that does anything at all.
const LONG: Duration = Duration::from_mins(1);

/// So long the command line waits for an answer.
const COMMAND_WAIT: Duration = Duration::from_secs(10);

/// The sites of three members, of which the first serves clients.
fn sites() -> [Site; 3] {
    let sites = [Site::new(), Site::new(), Site::new()];
    let addresses = sites.each_ref().map(Site::peer_address);
    let members = addresses.iter().enumerate();
    let members: Vec<String> = members.map(|(number, address)| format!("{number}@{address}")).collect();
    let mut number = 0;
    sites.map(|site| {
        let (own, role) = (number, if number == 0 { "both" } else { "coordinator" });
        number += 1;
        site.with_metrics()
            .set("broker.id", &own.to_string())
            .set("broker.cluster_id", "three")
            .set("cluster.role", role)
            .set("cluster.listen", &addresses[own])
            .set("cluster.members", &members.join(","))
    })
}

fn create(topic: &str) -> CreateTopicRequestT {
    CreateTopicRequestT {
        name: Some(topic.to_owned()),
        partitions: 1,
        replication_factor: -1,
        ..CreateTopicRequestT::default()
    }
}

struct Trio {
    sites: [Site; 3],
    brokers: [Option<Broker>; 3],
}

impl Trio {
    fn start() -> Trio {
        let mut trio = Trio {
            sites: sites(),
            brokers: [None, None, None],
        };
        trio.start_all();
        trio
    }

    /// All of them at once: each waits for a majority.
    fn start_all(&mut self) {
        self.brokers = self.sites.each_ref().map(|site| Some(site.launch()));
        for broker in self.brokers.iter().flatten() {
            broker.await_ready();
        }
    }

    fn kill(&mut self, number: usize) {
        self.brokers[number].take().unwrap().kill();
    }

    fn start_one(&mut self, number: usize) {
        self.brokers[number] = Some(self.sites[number].start());
    }

    /// The one of those that run that is the active coordinator.
    async fn active(&self) -> usize {
        let deadline = Instant::now() + LONG;
        loop {
            for number in (0..3).filter(|number| self.brokers[*number].is_some()) {
                if self.sites[number].scrape().await["headwater_quorum_active"] == 1 {
                    return number;
                }
            }
            assert!(Instant::now() < deadline, "nobody is the active coordinator");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn create(&self, topic: &str) {
        let client = self.sites[0].client().await;
        client.admin().create_topic(NewTopic::new(topic)).await.unwrap();
    }

    async fn assert_has(&self, topics: &[&str]) {
        let client = self.sites[0].client().await;
        for topic in topics {
            let described = client.admin().describe_topic(topic).await.unwrap();
            assert_eq!(described.partitions.len(), 1, "{topic}");
        }
    }
}

#[test]
fn when_the_active_coordinator_is_killed_another_takes_its_place_and_nothing_is_forgotten() {
    run(async {
        let mut trio = Trio::start();
        trio.create("first").await;
        // In order, so that it hands its place to a coordinator if it has it.
        trio.brokers[0].take().unwrap().stop();
        trio.start_one(0);
        for topic in ["second", "third"] {
            let active = trio.active().await;
            assert_ne!(active, 0);
            trio.kill(active);
            let killed = Instant::now();
            assert_ne!(trio.active().await, active);
            println!("another coordinator is active after {:?}", killed.elapsed());
            trio.create(topic).await;
            trio.start_one(active);
            if trio.active().await == 0 {
                trio.brokers[0].take().unwrap().stop();
                trio.start_one(0);
            }
        }
        trio.assert_has(&["first", "second", "third"]).await;
    });
}

#[test]
fn a_minority_refuses_changes_with_an_error_that_says_to_try_again_and_serves_records() {
    run(async {
        let mut trio = Trio::start();
        trio.create("there").await;
        let client = trio.sites[0].client().await;
        let topic = client.admin().describe_topic("there").await.unwrap().id;
        trio.kill(1);
        trio.kill(2);
        let mut raw = Raw::connect(trio.sites[0].address()).await;
        let refused = timeout(COMMAND_WAIT, raw.call(&create("another"), &[])).await;
        let refused = refused.expect("the command line is still there").create_topic();
        let code = ErrorCode::from_i16(refused.error);
        assert!(code.is_retriable(), "{code:?}");
        let message = refused.message.unwrap();
        assert!(
            message.contains("a majority of the quorum's members does not answer"),
            "{message}"
        );
        let stored = raw.call(&produce(topic, 0), &batch(&[b"a record"])).await.produce();
        assert_eq!(ErrorCode::from_i16(stored.error), ErrorCode::None);
        let reply = raw.call(&fetch(topic, &[(0, 0)], 0, 1), &[]).await;
        assert_eq!(values(&reply.payload), [b"a record"]);
        // What waits for a majority keeps nobody from stopping in order.
        raw.send(&create("waiting"), &[]).await;
        raw.call(&fetch(topic, &[(0, 0)], 0, 1), &[]).await;
        trio.brokers[0].take().unwrap().stop();
        trio.brokers[0] = Some(trio.sites[0].launch());
        trio.start_one(2);
        trio.brokers[0].as_ref().unwrap().await_ready();
        trio.create("agreed").await;
        trio.assert_has(&["there", "agreed"]).await;
    });
}

#[test]
fn members_that_are_all_killed_know_afterwards_what_was_agreed_on() {
    run(async {
        let mut trio = Trio::start();
        let topics: Vec<String> = (0..10).map(|number| format!("topic-{number}")).collect();
        for topic in &topics {
            trio.create(topic).await;
        }
        for number in 0..3 {
            trio.kill(number);
        }
        trio.start_all();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        trio.assert_has(&topics).await;
        trio.create("later").await;
    });
}

#[test]
fn a_member_whose_disk_was_emptied_takes_no_part_until_it_was_removed_and_added_again() {
    run(async {
        for emptied in [0, 1] {
            let mut trio = Trio::start();
            trio.create("before").await;
            trio.kill(emptied);
            std::fs::remove_dir_all(trio.sites[emptied].directory()).unwrap();
            let waiting = trio.sites[emptied].launch();
            waiting.await_line("this member waits until it belongs to a quorum");
            assert_ne!(trio.active().await, emptied);
            if emptied == 0 {
                // Whom clients could ask is the one that waits.
                waiting.stop();
                continue;
            }
            trio.create("without-it").await;
            let client = trio.sites[0].client().await;
            client.admin().remove_quorum_member(BrokerId::new(1)).await.unwrap();
            let address = trio.sites[1].peer_address();
            client
                .admin()
                .add_quorum_members(&[(BrokerId::new(1), address)])
                .await
                .unwrap();
            waiting.await_ready();
            trio.brokers[1] = Some(waiting);
            trio.kill(2);
            trio.create("with-it").await;
            trio.assert_has(&["before", "without-it", "with-it"]).await;
        }
    });
}

#[test]
fn a_broker_that_is_alone_is_joined_by_two_who_know_what_it_knew() {
    run(async {
        let [first, second, third] = sites();
        let own = format!("0@{}", first.peer_address());
        let mut trio = Trio {
            sites: [first.set("cluster.members", &own), second, third],
            brokers: [None, None, None],
        };
        trio.start_one(0);
        trio.create("alone").await;
        for number in [1, 2] {
            let joining = trio.sites[number].launch();
            joining.await_line("this member waits until it belongs to a quorum");
            trio.brokers[number] = Some(joining);
        }
        let client = trio.sites[0].client().await;
        let members = [1, 2].map(|number| {
            let address = trio.sites[number].peer_address();
            (BrokerId::new(number as i32), address)
        });
        client.admin().add_quorum_members(&members).await.unwrap();
        for number in [1, 2] {
            trio.brokers[number].as_ref().unwrap().await_ready();
        }
        let quorum = client.admin().describe_quorum().await.unwrap();
        assert_eq!(quorum.members.len(), 3);
        assert!(
            quorum
                .members
                .iter()
                .all(|member| member.is_voter && member.committed.is_ok()),
            "{quorum:?}"
        );
        trio.kill(2);
        trio.create("together").await;
        trio.assert_has(&["alone", "together"]).await;
    });
}

#[test]
fn a_broker_whose_quorum_log_cannot_be_written_ends_and_is_whole_when_it_is_started_again() {
    run(async {
        let site = Site::new();
        let mut broker = site.start().expect_errors("File too large");
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let mut raw = Raw::connect(site.address()).await;
        let stored = raw.call(&produce(topic, 0), &batch(&[b"a record"])).await.produce();
        assert_eq!(ErrorCode::from_i16(stored.error), ErrorCode::None);
        broker.limit_file_size(Some(0));
        raw.send(&create("another"), &[]).await;
        assert_eq!(broker.wait().code(), Some(1), "so that a supervisor starts it again");
        let said = broker.await_line("the quorum's member has failed");
        assert!(said.contains("ERROR"), "{said}");
        let broker = site.start();
        let client = site.client().await;
        client.admin().create_topic(NewTopic::new("later")).await.unwrap();
        let mut raw = Raw::connect(site.address()).await;
        let kept = raw.call(&fetch(topic, &[(0, 0)], 0, 0), &[]).await;
        assert_eq!(values(kept.fetched()[0].1), [b"a record".to_vec()]);
        broker.stop();
    });
}
