//! Connections that are closed while their requests wait: what nobody waits for ends at once, and gives everything back.

use headwater_client::TopicId;
use headwater_protocol::schema::{FetchPartitionT, FetchRequestT, JoinGroupRequestT};

use crate::{
    groups::{self, Member},
    support::{Broker, Raw, Site, batch, produce, run},
};

/// Longer than any test may take: whoever waits for it hangs.
const FOR_EVER_MS: u32 = 3_600_000;

const CORES: u16 = 4;

/// Partitions of a fetch that nearly fills a frame.
const WIDE: i32 = 60_000;

/// Partitions of the topic.
const PARTITIONS: i32 = 8;

struct Setting {
    site: Site,
    broker: Broker,
    topic: TopicId,
    tasks: u64,
}

impl Setting {
    async fn new() -> Setting {
        let site = groups::site().cores(CORES).with_metrics();
        let broker = site.start();
        let client = site.client_with_topic("t", PARTITIONS).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        drop(client);
        let mut setting = Setting {
            site,
            broker,
            topic,
            tasks: 0,
        };
        setting.await_gauge("connections", 0).await;
        setting.tasks = setting.site.gauge("tasks").await;
        setting
    }

    /// Waits until a gauge of all cores together has come down to this.
    async fn await_gauge(&self, name: &str, goal: u64) {
        while self.site.gauge(name).await > goal {}
    }

    /// Nothing is left of any request or connection.
    async fn end(self) {
        self.await_gauge("connections", 0).await;
        self.await_gauge("in_flight_bytes", 0).await;
        self.await_gauge("tasks", self.tasks).await;
        self.broker.stop();
    }

    /// Waits for ever at the ends of partitions of all cores.
    fn long_poll(&self, partitions: i32) -> FetchRequestT {
        let partition = |number| FetchPartitionT {
            topic_id: self.topic.into(),
            partition: number % PARTITIONS,
            max_bytes: 1,
            offset: 0,
        };
        FetchRequestT {
            max_wait_ms: FOR_EVER_MS,
            min_bytes: 1,
            max_bytes: 1 << 20,
            partitions: Some((0..partitions).map(partition).collect()),
            rack: None,
            reads: None,
            isolation: 0,
        }
    }

    async fn append(&self, partition: i32) {
        for core in 0..CORES {
            let mut raw = Raw::connect(self.site.core_address(core)).await;
            let reply = raw.call(&produce(self.topic, partition), &batch(&[b"x"])).await;
            assert_eq!(reply.produce().error, 0);
        }
    }
}

#[test]
fn long_polls_of_connections_that_are_closed_keep_nothing_from_others() {
    run(async {
        let setting = Setting::new().await;
        let poll = setting.long_poll(WIDE);
        let mut connections = Vec::new();
        for number in 0..12 {
            let mut raw = Raw::connect(setting.site.core_address(number % CORES)).await;
            // What the broker does not take in stays in the socket.
            let sending = async {
                for _ in 0..4 {
                    raw.send(&poll, &[]).await;
                }
            };
            let _ = tokio::time::timeout(std::time::Duration::from_millis(50), sending).await;
            connections.push(raw);
        }
        drop(connections);
        setting.append(0).await;
        setting.end().await;
    });
}

#[test]
fn many_small_long_polls_of_one_connection_end_with_it_although_it_is_not_read_any_more() {
    run(async {
        let setting = Setting::new().await;
        for close in [true, false] {
            let mut raw = Raw::connect(setting.site.core_address(0)).await;
            // As many as a connection may have in flight, and more: the socket is not read behind them.
            let poll = setting.long_poll(PARTITIONS);
            for _ in 0..1_100 {
                raw.send(&poll, &[]).await;
            }
            while setting.site.gauge("tasks").await < setting.tasks + 1_024 {}
            if close {
                drop(raw);
            } else {
                // Who only says that nothing more will come is still answered, with what there is.
                tokio::io::AsyncWriteExt::shutdown(&mut raw.stream).await.unwrap();
                for _ in 0..1_100 {
                    assert!(raw.receive().await.unwrap().payload.is_empty());
                }
                assert!(raw.receive().await.is_none());
            }
            setting.await_gauge("tasks", setting.tasks).await;
        }
        setting.end().await;
    });
}

#[test]
fn long_polls_give_way_to_requests_that_wait_for_their_memory() {
    run(async {
        let setting = Setting::new().await;
        let poll = setting.long_poll(WIDE);
        let mut connections = Vec::new();
        for core in 0..CORES {
            // Of two connections: the budget is more than what one may have of it.
            for _ in 0..2 {
                let mut raw = Raw::connect(setting.site.core_address(core)).await;
                raw.send(&poll, &[]).await;
                connections.push(raw);
            }
        }
        setting.append(0).await;
        drop(connections);
        setting.end().await;
    });
}

#[test]
fn members_that_wait_for_their_group_leave_nothing_behind_when_their_connections_are_closed() {
    run(async {
        let setting = Setting::new().await;
        let mut member = Member::new(&setting.site, "group").await;
        member.session_ms = 300_000;
        member.join().await;
        let idle = setting.site.gauge("tasks").await;
        // The first member does not join again, so these wait for it; each through the core of the group and through others.
        for core in 0..CORES {
            let mut raw = groups::connect(&setting.site, "group").await;
            let mut other = Raw::connect(setting.site.core_address(core)).await;
            let join = JoinGroupRequestT {
                instance_id: Some(format!("instance-{core}")),
                rebalance_timeout_ms: FOR_EVER_MS as i32,
                ..member.join_request()
            };
            let join = JoinGroupRequestT {
                member_id: None,
                ..join
            };
            let tasks = setting.site.gauge("tasks").await;
            raw.send(&join, &[]).await;
            while setting.site.gauge("tasks").await <= tasks {}
            other
                .send(
                    &JoinGroupRequestT {
                        instance_id: Some(format!("other-{core}")),
                        ..join
                    },
                    &[],
                )
                .await;
            while setting.site.gauge("tasks").await <= tasks + 1 {}
        }
        setting.await_gauge("tasks", idle).await;
        drop(member);
        setting.end().await;
    });
}
