//! Consumers in groups, through the client: they share partitions and take over from each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use headwater_client::{
    Client, CommittedOffset, Error, ErrorCode, GroupConsumer, GroupConsumerBuilder, Hold, NewTopic, Offset,
    OffsetReset, PartitionIndex, RebalanceListener, Record, TopicName,
};
use headwater_protocol::schema::{FindGroupRequestT, LeaveGroupRequestT, LeavingMemberT};
use tokio::sync::watch;

use crate::support::{Raw, Site, batch, produce, run};

pub(super) const TOPIC: &str = "work";
pub(super) const GROUP: &str = "workers";

/// Longer than any test: what happens meanwhile is not because a session has ended.
const LONG: Duration = Duration::from_mins(10);

pub(super) fn site() -> Site {
    Site::new()
        .set("groups.offsets_partitions", "4")
        .set("groups.session_timeout_ms_min", "100ms")
        .set("groups.initial_rebalance_delay_ms", "50ms")
}

/// Appends records to one partition.
pub(super) async fn fill(site: &Site, client: &Client, partition: i32, records: usize) {
    let id = client.admin().describe_topic(TOPIC).await.unwrap().id;
    let mut raw = Raw::connect(site.address()).await;
    let values = vec![&b"value"[..]; records];
    let produced = raw.call(&produce(id, partition), &batch(&values)).await.produce();
    assert_eq!(produced.error, 0);
}

/// The partitions that a member has, as it is told.
struct Watch(watch::Sender<BTreeSet<i32>>);

impl Watch {
    fn change(&self, partitions: &[(TopicName, PartitionIndex)], change: impl Fn(&mut BTreeSet<i32>, i32)) {
        self.0.send_modify(|set| {
            for (_, partition) in partitions {
                change(set, partition.get());
            }
        });
    }
}

impl RebalanceListener for Watch {
    fn assigned(&self, partitions: &[(TopicName, PartitionIndex)]) {
        self.change(partitions, |set, partition| assert!(set.insert(partition)));
    }

    fn revoked(&self, partitions: &[(TopicName, PartitionIndex)]) {
        self.change(partitions, |set, partition| assert!(set.remove(&partition)));
    }
}

pub(super) struct Member {
    pub(super) consumer: GroupConsumer,
    partitions: watch::Receiver<BTreeSet<i32>>,
}

impl Member {
    pub(super) async fn start(
        client: &Client,
        configure: impl FnOnce(GroupConsumerBuilder) -> GroupConsumerBuilder,
    ) -> Member {
        let (sender, partitions) = watch::channel(BTreeSet::new());
        let builder = client.group_consumer(GROUP).topics([TOPIC]).listener(Watch(sender));
        let builder = builder
            .session_timeout(LONG)
            .heartbeat_interval(Duration::from_millis(50));
        let consumer = configure(builder).build().await.unwrap();
        Member { consumer, partitions }
    }

    pub(super) async fn has(&mut self, count: usize) -> BTreeSet<i32> {
        self.partitions
            .wait_for(|set| set.len() == count)
            .await
            .unwrap()
            .clone()
    }
}

#[test]
fn two_members_share_the_partitions_and_when_one_closes_the_other_takes_over_where_it_was() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 4).await;
        for partition in 0..4 {
            fill(&site, &client, partition, 3).await;
        }
        let mut first = Member::start(&client, |builder| builder).await;
        first.has(4).await;
        let mut second = Member::start(&client, |builder| builder).await;
        let theirs = second.has(2).await;
        let ours = first.has(2).await;
        assert!(ours.is_disjoint(&theirs), "{ours:?} {theirs:?}");
        let mut seen = BTreeMap::new();
        for _ in 0..5 {
            let record = first.consumer.recv().await.unwrap();
            assert!(ours.contains(&record.partition.get()), "{record:?}");
            assert!(seen.insert((record.partition, record.offset), "first").is_none());
        }
        first.consumer.close().await.unwrap();
        second.has(4).await;
        for _ in 0..7 {
            let record = second.consumer.recv().await.unwrap();
            let again = seen.insert((record.partition, record.offset), "second");
            assert_eq!(again, None, "received before by the {again:?}: {record:?}");
        }
        assert_eq!(seen.len(), 12);
        second.consumer.close().await.unwrap();
        assert!(
            client
                .admin()
                .groups()
                .lag(GROUP)
                .await
                .unwrap()
                .iter()
                .all(|lag| lag.lag() == Some(0))
        );
        broker.stop();
    });
}

#[test]
fn records_that_are_received_together_are_committed_once_more_are_asked_for_and_all_partitions_tell_their_lag() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 2).await;
        for partition in 0..2 {
            fill(&site, &client, partition, 5).await;
        }
        let mut member = Member::start(&client, |builder| builder.auto_commit(Duration::from_millis(20))).await;
        let mut got = 0;
        while got < 10 {
            got += member.consumer.recv_many(4).await.unwrap().len();
        }
        let positions = member.consumer.positions();
        assert!(
            positions.len() == 2 && positions.iter().all(|at| at.lag() == Some(0)),
            "{positions:?}"
        );
        member.consumer.pause(TOPIC, PartitionIndex::new(1)).unwrap();
        assert_eq!(member.consumer.positions()[1].hold, Some(Hold::Paused));
        let groups = client.admin().groups();
        let committed = async || {
            let lag = groups.lag(GROUP).await.unwrap();
            lag.iter().map(|lag| lag.committed.map_or(0, Offset::get)).sum::<u64>()
        };
        assert!(committed().await < 10, "the last ones are still being processed");
        let nothing = tokio::time::timeout(Duration::from_millis(1), member.consumer.recv_many(4)).await;
        assert!(nothing.is_err());
        while committed().await < 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        broker.stop();
    });
}

#[test]
fn a_partition_that_is_given_up_under_way_comes_to_its_next_member_where_it_was_left() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 2).await;
        for partition in 0..2 {
            fill(&site, &client, partition, 20_000).await;
        }
        let mut first = Member::start(&client, |builder| builder).await;
        first.has(2).await;
        let mut seen = BTreeSet::new();
        let mut receive = async |consumer: &mut GroupConsumer| {
            let record = consumer.recv().await.unwrap();
            let place = (record.partition.get(), record.offset.get());
            assert!(seen.insert(place), "{place:?} comes twice");
            seen.len()
        };
        receive(&mut first.consumer).await;
        let mut second = Member::start(&client, |builder| builder).await;
        // In the middle of a large batch, and never at rest.
        while first.partitions.borrow().len() == 2 {
            for _ in 0..20 {
                receive(&mut first.consumer).await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first.consumer.close().await.unwrap();
        second.has(2).await;
        while receive(&mut second.consumer).await < 40_000 {}
        broker.stop();
    });
}

#[test]
fn when_one_of_three_members_leaves_only_its_partitions_move() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 9).await;
        let mut members = Vec::new();
        for _ in 0..3 {
            members.push(Member::start(&client, |builder| builder).await);
        }
        let mut before = Vec::new();
        for member in &mut members {
            before.push(member.has(3).await);
        }
        let leaver = members.remove(1);
        let moved = before.remove(1);
        leaver.consumer.close().await.unwrap();
        // Each change is told, so that nothing can go and come back unseen.
        for (member, kept) in members.iter_mut().zip(&before) {
            loop {
                let now = member.partitions.borrow_and_update().clone();
                assert!(kept.is_subset(&now), "{kept:?} became {now:?}");
                assert!(
                    now.difference(kept).all(|partition| moved.contains(partition)),
                    "{now:?}"
                );
                if now.len() > 3 && client.admin().groups().describe(GROUP).await.unwrap().members.len() == 2 {
                    break;
                }
                member.partitions.changed().await.unwrap();
            }
        }
        broker.stop();
    });
}

#[test]
fn a_static_member_that_is_closed_and_started_again_gets_its_partitions_without_a_rebalance() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 4).await;
        let fixed = |builder: GroupConsumerBuilder| builder.instance_id("one");
        let mut first = Member::start(&client, fixed).await;
        first.has(4).await;
        let mut other = Member::start(&client, |builder| builder).await;
        let (kept, others) = (first.has(2).await, other.has(2).await);
        let generation = async || client.admin().groups().describe(GROUP).await.unwrap().generation;
        let before = generation().await;
        first.consumer.close().await.unwrap();
        let mut again = Member::start(&client, fixed).await;
        assert_eq!(again.has(2).await, kept);
        assert_eq!(other.has(2).await, others);
        assert_eq!(generation().await, before);
        broker.stop();
    });
}

#[test]
fn a_member_that_is_too_slow_is_told_once_and_another_takes_over() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 1).await;
        fill(&site, &client, 0, 2).await;
        let limit = Duration::from_millis(300);
        let mut slow = Member::start(&client, |builder| builder.max_poll_interval(limit)).await;
        let taken = slow.consumer.recv().await.unwrap();
        assert_eq!(taken.offset.get(), 0);
        let mut other = Member::start(&client, |builder| builder).await;
        other.has(1).await;
        let again = other.consumer.recv().await.unwrap();
        assert_eq!(again.offset.get(), 0, "what the slow one was at was not committed");
        other.consumer.close().await.unwrap();
        let is_told = |error: &Error| matches!(error, Error::PollIntervalExceeded { limit: told } if *told == limit);
        let refused = slow.consumer.commit().await.unwrap_err();
        assert!(is_told(&refused), "{refused:?}");
        let told = slow.consumer.recv().await.unwrap_err();
        assert!(is_told(&told), "{told:?}");
        assert!(slow.consumer.assignment().is_empty());
        let next = slow.consumer.recv().await.unwrap();
        assert_eq!(next.offset.get(), 1);
        broker.stop();
    });
}

#[test]
fn lost_partitions_are_told_once_and_before_any_other_record() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 1).await;
        fill(&site, &client, 0, 3).await;
        let mut member = Member::start(&client, |builder| builder.auto_commit(None)).await;
        assert_eq!(member.consumer.recv().await.unwrap().offset.get(), 0);
        member.consumer.commit().await.unwrap();
        assert_eq!(member.consumer.recv().await.unwrap().offset.get(), 1);
        member.partitions.mark_unchanged();
        expel_all(&site, &client).await;
        member.partitions.changed().await.unwrap();
        let told = member.consumer.recv().await.unwrap_err();
        let Error::PartitionsLost { partitions, code } = told else {
            panic!("{told:?}");
        };
        assert_eq!((partitions.len(), code), (1, ErrorCode::UnknownMemberId));
        // It has joined again, and what was not committed comes again.
        let record = member.consumer.recv().await.unwrap();
        assert_eq!(record.offset.get(), 1);
        broker.stop();
    });
}

#[test]
fn whoever_commits_what_it_has_lost_is_told_so_even_before_it_asks_for_more() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 1).await;
        fill(&site, &client, 0, 3).await;
        let mut member = Member::start(&client, |builder| builder).await;
        assert_eq!(member.consumer.recv().await.unwrap().offset.get(), 0);
        member.partitions.mark_unchanged();
        expel_all(&site, &client).await;
        member.partitions.changed().await.unwrap();
        let is_told = |error: &Error| matches!(error, Error::PartitionsLost { .. });
        let refused = member.consumer.commit().await.unwrap_err();
        assert!(is_told(&refused), "{refused:?}");
        let told = member.consumer.recv().await.unwrap_err();
        assert!(is_told(&told), "{told:?}");
        assert_eq!(member.consumer.recv().await.unwrap().offset.get(), 0);
        member.consumer.commit().await.unwrap();
        member.partitions.mark_unchanged();
        expel_all(&site, &client).await;
        member.partitions.changed().await.unwrap();
        let refused = member.consumer.close().await.unwrap_err();
        assert!(is_told(&refused), "{refused:?}");
        broker.stop();
    });
}

/// Takes every member out of the group, as the end of their sessions would.
async fn expel_all(site: &Site, client: &Client) {
    let members = client
        .admin()
        .groups()
        .describe(GROUP)
        .await
        .unwrap()
        .members
        .into_iter();
    let mut raw = Raw::connect(site.address()).await;
    let find = FindGroupRequestT {
        group_id: Some(GROUP.to_owned()),
    };
    let found = raw.call(&find, &[]).await.find_group();
    let mut raw = Raw::connect((site.address().ip(), found.core_port).into()).await;
    let leaving = |id| LeavingMemberT {
        member_id: Some(id),
        instance_id: None,
        reason: None,
    };
    let request = LeaveGroupRequestT {
        group_id: Some(GROUP.to_owned()),
        members: Some(members.map(|member| leaving(member.member_id)).collect()),
    };
    assert_eq!(raw.call(&request, &[]).await.leave_group().error, 0);
}

#[test]
fn commits_are_of_what_was_received_and_a_paused_partition_waits() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 2).await;
        fill(&site, &client, 0, 4).await;
        let index = PartitionIndex::new(0);
        let pattern = regex::Regex::new("^wo").unwrap();
        let consumer = client.group_consumer(GROUP).pattern(pattern).auto_commit(None);
        let mut consumer = consumer.build().await.unwrap();
        assert_eq!(consumer.committed(TOPIC, index).await.unwrap(), None);
        consumer.recv().await.unwrap();
        consumer.recv().await.unwrap();
        consumer.commit().await.unwrap();
        let committed = consumer.committed(TOPIC, index).await.unwrap().unwrap();
        assert_eq!(committed.offset.get(), 2);
        consumer.pause(TOPIC, index).unwrap();
        fill(&site, &client, 1, 1).await;
        assert_eq!(consumer.recv().await.unwrap().partition.get(), 1);
        assert_eq!(consumer.position(TOPIC, index).unwrap().get(), 2);
        consumer.resume(TOPIC, index).unwrap();
        assert_eq!(consumer.recv_batch().await.unwrap().first_offset().get(), 2);
        let later = consumer.commit_async();
        consumer
            .seek(TOPIC, index, headwater_client::Start::Earliest)
            .await
            .unwrap();
        later.await.unwrap();
        assert_eq!(consumer.recv().await.unwrap().offset.get(), 0);
        consumer.seek(TOPIC, index, Offset::new(3)).await.unwrap();
        let next = consumer.recv().await.unwrap();
        assert_eq!(next.offset.get(), 3, "not the rest of the batch in hand");
        let committed = consumer.committed(TOPIC, index).await.unwrap().unwrap();
        assert_eq!(committed.offset.get(), 4);
        consumer.close().await.unwrap();
        broker.stop();
    });
}

#[test]
fn a_deleted_topic_is_told_at_once_and_keeps_nothing_else_from_being_committed() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 1).await;
        fill(&site, &client, 0, 2).await;
        client.admin().create_topic(NewTopic::new("gone")).await.unwrap();
        let producer = client.producer().build().await.unwrap();
        producer
            .send(Record::to("gone").value("v"))
            .await
            .unwrap()
            .await
            .unwrap();
        // It does not notice that the group rebalances.
        let builder = client.group_consumer(GROUP).topics([TOPIC, "gone"]).auto_commit(None);
        let mut consumer = builder
            .session_timeout(LONG)
            .heartbeat_interval(LONG / 2)
            .build()
            .await
            .unwrap();
        for _ in 0..3 {
            consumer.recv().await.unwrap();
        }
        client.admin().delete_topic("gone").await.unwrap();
        let error = consumer.commit().await.unwrap_err();
        assert!(
            matches!(&error, Error::UnknownTopic(topic) if topic.as_str() == "gone"),
            "{error:?}"
        );
        let index = PartitionIndex::new(0);
        let committed = consumer.committed(TOPIC, index).await.unwrap().unwrap();
        assert_eq!(committed.offset.get(), 2);
        // Nor is what comes later held up.
        let name = TopicName::new(TOPIC).unwrap();
        let earlier = CommittedOffset::new(name, index, Offset::new(1));
        consumer.commit_offsets(&[earlier]).await.unwrap();
        let committed = consumer.committed(TOPIC, index).await.unwrap().unwrap();
        assert_eq!(committed.offset.get(), 1);
        broker.stop();
    });
}

#[test]
fn what_the_application_is_done_with_is_committed_by_itself_and_a_batch_when_the_consumer_is_closed() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 1).await;
        fill(&site, &client, 0, 2).await;
        let index = PartitionIndex::new(0);
        let often = |builder: GroupConsumerBuilder| builder.auto_commit(Duration::from_millis(10));
        let mut member = Member::start(&client, often).await;
        for _ in 0..2 {
            member.consumer.recv().await.unwrap();
        }
        let committed = loop {
            // Where it begins may be committed before.
            let committed = member.consumer.committed(TOPIC, index).await.unwrap();
            if let Some(committed) = committed.filter(|committed| committed.offset > Offset::ZERO) {
                break committed;
            }
        };
        assert_eq!(committed.offset.get(), 1, "the application is still at the second");
        member.consumer.close().await.unwrap();
        fill(&site, &client, 0, 3).await;
        let mut member = Member::start(&client, |builder| builder).await;
        let batch = member.consumer.recv_batch().await.unwrap();
        // How many of the three are in it is the producer's business.
        assert_eq!(batch.first_offset().get(), 2);
        member.consumer.close().await.unwrap();
        let committed = client.admin().groups().committed_offsets(GROUP).await.unwrap();
        assert_eq!(committed[0].offset, batch.next_offset());
        broker.stop();
    });
}

#[test]
fn where_nothing_is_committed_the_application_is_asked_if_it_wants_to_be() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 1).await;
        fill(&site, &client, 0, 3).await;
        let strict = |builder: GroupConsumerBuilder| builder.offset_reset(OffsetReset::Error);
        let mut member = Member::start(&client, strict).await;
        let told = member.consumer.recv().await.unwrap_err();
        assert!(matches!(told, Error::NoCommittedOffset { .. }), "{told:?}");
        member
            .consumer
            .seek(TOPIC, PartitionIndex::new(0), Offset::new(1))
            .await
            .unwrap();
        assert_eq!(member.consumer.recv().await.unwrap().offset.get(), 1);
        broker.stop();
    });
}

#[test]
fn a_topic_that_is_not_there_yet_is_waited_for_and_read_from_its_first_record() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client().await;
        let mut early = Member::start(&client, |builder| builder.offset_reset(OffsetReset::Latest)).await;
        assert!(
            early
                .consumer
                .recv_timeout(Duration::from_millis(300))
                .await
                .unwrap()
                .is_none()
        );
        let new = NewTopic::new(TOPIC).partitions(2);
        client.admin().create_topic(new).await.unwrap();
        fill(&site, &client, 1, 1).await;
        let record = early.consumer.recv().await.unwrap();
        assert_eq!((record.partition.get(), record.offset), (1, Offset::ZERO));
        early.has(2).await;
        broker.stop();
    });
}
