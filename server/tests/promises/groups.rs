//! Consumer groups over the wire: members share partitions and take over from each other, and commits survive the broker.

use std::collections::BTreeSet;

use headwater_client::{Error, ErrorCode, NewTopic};
use headwater_protocol::{
    group::{Assignment, CONSUMER, SERVER_STICKY, Subscription, TopicPartitions},
    schema::{
        CommittedOffsetT, DeleteGroupRequestT, DeleteTopicRequestT, DescribeGroupRequestT, FindGroupRequestT,
        GroupProtocolT, HeartbeatRequestT, JoinGroupRequestT, JoinGroupResponseT, LeaveGroupRequestT, LeavingMemberT,
        ListGroupsRequestT, OffsetCommitRequestT, OffsetDeleteRequestT, OffsetFetchRequestT, SyncGroupRequestT,
        TopicPartitionsT,
    },
};

use crate::support::{Raw, Site, batch, pause, produce, run};

pub(super) const TOPIC: &str = "work";

/// A site whose members may be given up soon.
pub(super) fn site() -> Site {
    Site::new()
        .set("groups.offsets_partitions", "4")
        .set("groups.session_timeout_ms_min", "100ms")
        .set("groups.initial_rebalance_delay_ms", "50ms")
}

pub(super) fn code(error: i16) -> ErrorCode {
    ErrorCode::from_i16(error)
}

/// A connection to the core that runs the group, once the groups have been read. The first one makes the internal topic.
pub(super) async fn connect(site: &Site, group: &str) -> Raw {
    let mut raw = Raw::connect(site.address()).await;
    let request = FindGroupRequestT {
        group_id: Some(group.to_owned()),
    };
    let found = raw.call(&request, &[]).await.find_group();
    assert_eq!(code(found.error), ErrorCode::None, "{:?}", found.message);
    assert_eq!(found.host.as_deref(), Some(site.address().ip().to_string().as_str()));
    let list = ListGroupsRequestT { states: None };
    while code(raw.call(&list, &[]).await.list_groups().error) == ErrorCode::CoordinatorLoadInProgress {
        pause().await;
    }
    Raw::connect((site.address().ip(), found.core_port).into()).await
}

/// A member as a client would be.
pub(super) struct Member {
    pub(super) raw: Raw,
    group: &'static str,
    id: String,
    generation: i32,
    owned: BTreeSet<i32>,
    pub(super) session_ms: i32,
}

impl Member {
    pub(super) async fn new(site: &Site, group: &'static str) -> Member {
        Member {
            raw: connect(site, group).await,
            group,
            id: String::new(),
            generation: -1,
            owned: BTreeSet::new(),
            session_ms: 2_000,
        }
    }

    pub(super) fn join_request(&self) -> JoinGroupRequestT {
        let owned = TopicPartitions {
            topic: TOPIC.to_owned(),
            partitions: self.owned.iter().copied().collect(),
        };
        let subscription = Subscription {
            topics: vec![TOPIC.to_owned()],
            owned_partitions: vec![owned],
            generation: self.generation,
            ..Subscription::default()
        };
        JoinGroupRequestT {
            group_id: Some(self.group.to_owned()),
            member_id: Some(self.id.clone()),
            session_timeout_ms: self.session_ms,
            rebalance_timeout_ms: 10_000,
            protocol_type: Some(CONSUMER.to_owned()),
            protocols: Some(vec![GroupProtocolT {
                name: Some(SERVER_STICKY.to_owned()),
                metadata: Some(subscription.encode()),
            }]),
            ..JoinGroupRequestT::default()
        }
    }

    async fn try_join(&mut self) -> JoinGroupResponseT {
        loop {
            let request = self.join_request();
            let joined = self.raw.call(&request, &[]).await.join_group();
            match code(joined.error) {
                ErrorCode::MemberIdRequired => self.id = joined.member_id.unwrap(),
                _ => return joined,
            }
        }
    }

    /// Joins and takes what it is given, until the group lets it keep that. Returns whether it had to give something up.
    pub(super) async fn join(&mut self) -> bool {
        let mut gave_up = false;
        loop {
            let joined = self.try_join().await;
            assert_eq!(code(joined.error), ErrorCode::None, "{:?}", joined.message);
            assert!(joined.skip_assignment && joined.members.unwrap_or_default().is_empty());
            self.id = joined.member_id.unwrap();
            self.generation = joined.generation;
            let request = SyncGroupRequestT {
                group_id: Some(self.group.to_owned()),
                generation: self.generation,
                member_id: Some(self.id.clone()),
                ..SyncGroupRequestT::default()
            };
            let synced = self.raw.call(&request, &[]).await.sync_group();
            if code(synced.error) == ErrorCode::RebalanceInProgress {
                continue;
            }
            assert_eq!(code(synced.error), ErrorCode::None, "{:?}", synced.message);
            let assignment = Assignment::decode(&synced.assignment.unwrap()).unwrap();
            let assigned: BTreeSet<i32> = assignment
                .partitions
                .iter()
                .flat_map(|topic| topic.partitions.clone())
                .collect();
            let gives_up = !self.owned.is_subset(&assigned);
            self.owned = assigned;
            gave_up |= gives_up;
            if !gives_up {
                return gave_up;
            }
        }
    }

    async fn heartbeat(&mut self) -> ErrorCode {
        let request = HeartbeatRequestT {
            group_id: Some(self.group.to_owned()),
            generation: self.generation,
            member_id: Some(self.id.clone()),
            instance_id: None,
        };
        code(self.raw.call(&request, &[]).await.heartbeat().error)
    }

    /// Works until the group rebalances, and then joins again.
    async fn work_until_rebalanced(&mut self) {
        while self.heartbeat().await == ErrorCode::None {
            pause().await;
        }
        self.join().await;
    }

    pub(super) async fn commit(&mut self, offsets: &[(i32, i64)]) -> Vec<ErrorCode> {
        let request = OffsetCommitRequestT {
            generation: self.generation,
            member_id: Some(self.id.clone()),
            ..commit_request(self.group, offsets)
        };
        let committed = self.raw.call(&request, &[]).await.offset_commit();
        match code(committed.error) {
            ErrorCode::None => committed.errors.unwrap().into_iter().map(code).collect(),
            error => vec![error],
        }
    }
}

pub(super) fn commit_request(group: &str, offsets: &[(i32, i64)]) -> OffsetCommitRequestT {
    let offset = |(partition, offset): &(i32, i64)| CommittedOffsetT {
        topic: Some(TOPIC.to_owned()),
        partition: *partition,
        offset: *offset,
        leader_epoch: 0,
        metadata: Some(format!("at {offset}")),
        error: 0,
    };
    OffsetCommitRequestT {
        group_id: Some(group.to_owned()),
        offsets: Some(offsets.iter().map(offset).collect()),
        ..OffsetCommitRequestT::default()
    }
}

/// Partition, offset and metadata of every committed offset.
pub(super) async fn committed(raw: &mut Raw, group: &str) -> Vec<(i32, i64, String)> {
    let request = OffsetFetchRequestT {
        group_id: Some(group.to_owned()),
        topics: None,
    };
    let fetched = raw.call(&request, &[]).await.offset_fetch();
    assert_eq!(code(fetched.error), ErrorCode::None, "{:?}", fetched.message);
    let offsets = fetched.offsets.unwrap_or_default().into_iter();
    offsets
        .map(|one| (one.partition, one.offset, one.metadata.unwrap_or_default()))
        .collect()
}

/// A topic with records in each of its partitions.
pub(super) async fn filled(site: &Site, partitions: i32, records: usize) {
    let client = site.client_with_topic(TOPIC, partitions).await;
    let id = client.admin().describe_topic(TOPIC).await.unwrap().id;
    let mut raw = Raw::connect(site.address()).await;
    for partition in 0..partitions {
        let values = vec![&b"value"[..]; records];
        let produced = raw.call(&produce(id, partition), &batch(&values)).await.produce();
        assert_eq!(produced.error, 0);
    }
}

#[test]
fn two_members_share_the_partitions_and_one_takes_over_when_the_other_dies() {
    run(async {
        let site = site();
        let broker = site.start();
        filled(&site, 4, 1).await;
        let mut first = Member::new(&site, "pair").await;
        first.join().await;
        assert_eq!(first.owned, BTreeSet::from([0, 1, 2, 3]));
        let mut second = Member::new(&site, "pair").await;
        let others = async {
            second.join().await;
            // What the first gives up comes in a generation of its own.
            while second.owned.len() != 2 {
                second.work_until_rebalanced().await;
            }
        };
        let firsts = async {
            while first.owned.len() != 2 {
                first.work_until_rebalanced().await;
            }
        };
        tokio::join!(firsts, others);
        assert_eq!((first.owned.len(), second.owned.len()), (2, 2));
        assert!(first.owned.is_disjoint(&second.owned));
        assert_eq!(
            first.commit(&[(*first.owned.first().unwrap(), 1)]).await,
            [ErrorCode::None]
        );
        let kept = second.owned.clone();
        drop(first);
        while second.owned.len() < 4 {
            second.work_until_rebalanced().await;
        }
        assert!(kept.is_subset(&second.owned));
        assert_eq!(committed(&mut second.raw, "pair").await.len(), 1);
        broker.stop();
    });
}

#[test]
fn commits_survive_sigkill_and_so_do_members() {
    run(async {
        let site = site();
        let mut broker = site.start();
        filled(&site, 3, 5).await;
        let mut member = Member::new(&site, "lasting").await;
        member.join().await;
        let mut expected = Vec::new();
        for round in 1..=5_i64 {
            let offsets: Vec<(i32, i64)> = (0..3).map(|partition| (partition, round)).collect();
            assert_eq!(member.commit(&offsets).await, [ErrorCode::None; 3]);
            let mut simple = connect(&site, "simple").await;
            let answer = simple
                .call(&commit_request("simple", &[(0, round)]), &[])
                .await
                .offset_commit();
            assert_eq!((code(answer.error), answer.errors), (ErrorCode::None, Some(vec![0])));
            broker.kill();
            broker = site.start();
            expected = (0..3)
                .map(|partition| (partition, round, format!("at {round}")))
                .collect();
            let mut raw = connect(&site, "lasting").await;
            assert_eq!(committed(&mut raw, "lasting").await, expected);
            let mut raw = connect(&site, "simple").await;
            assert_eq!(committed(&mut raw, "simple").await, expected[..1]);
            member.raw = connect(&site, "lasting").await;
            match member.heartbeat().await {
                // On a slow machine its session may be over.
                ErrorCode::None => {}
                error => {
                    assert_eq!(error, ErrorCode::UnknownMemberId);
                    member.id.clear();
                    member.join().await;
                }
            }
        }
        broker.stop();
        let broker = site.start();
        let mut raw = connect(&site, "lasting").await;
        assert_eq!(committed(&mut raw, "lasting").await, expected);
        broker.stop();
    });
}

#[test]
fn what_is_wrong_gets_kafkas_error_code_and_changes_nothing() {
    run(async {
        let site = site();
        let broker = site.start();
        filled(&site, 1, 3).await;
        let mut raw = connect(&site, "g").await;
        let commit = |group: &str, offset| commit_request(group, &[(0, offset)]);
        let answer = raw.call(&commit("g", 3), &[]).await.offset_commit();
        assert_eq!(answer.errors, Some(vec![0]));
        let before = committed(&mut raw, "g").await;
        let answer = raw.call(&commit("g", -1), &[]).await.offset_commit();
        assert_eq!(answer.errors.unwrap(), [ErrorCode::OffsetOutOfRange as i16]);
        let mut oversized = commit("g", 1);
        oversized.offsets.as_mut().unwrap()[0].metadata = Some("m".repeat(5_000));
        let answer = raw.call(&oversized, &[]).await.offset_commit();
        assert_eq!(answer.errors.unwrap(), [ErrorCode::OffsetMetadataTooLarge as i16]);
        let mut nowhere = commit("g", 0);
        nowhere.offsets.as_mut().unwrap()[0].partition = 7;
        let answer = raw.call(&nowhere, &[]).await.offset_commit();
        assert_eq!(answer.errors.unwrap(), [ErrorCode::UnknownTopicOrPartition as i16]);
        for illegal in [String::new(), "g".repeat(300)] {
            let answer = raw.call(&commit(&illegal, 1), &[]).await.offset_commit();
            assert_eq!(code(answer.error), ErrorCode::InvalidGroupId);
        }
        let mut member = Member::new(&site, "g").await;
        member.id = "stranger".to_owned();
        assert_eq!(member.heartbeat().await, ErrorCode::UnknownMemberId);
        assert_eq!(code(member.try_join().await.error), ErrorCode::UnknownMemberId);
        member.generation = 7;
        assert_eq!(member.commit(&[(0, 1)]).await, [ErrorCode::UnknownMemberId]);
        assert_eq!(committed(&mut raw, "g").await, before);
        broker.stop();
    });
}

#[test]
fn groups_are_listed_described_and_deleted_on_whichever_core_one_asks() {
    run(async {
        let site = site();
        let broker = site.start();
        filled(&site, 2, 1).await;
        let mut member = Member::new(&site, "busy").await;
        member.join().await;
        for core in 0..2 {
            // Whichever core the group belongs to.
            let mut raw = Raw::connect(site.core_address(core)).await;
            let group = format!("idle-{core}");
            let answer = raw.call(&commit_request(&group, &[(0, 1)]), &[]).await.offset_commit();
            assert_eq!((code(answer.error), answer.errors), (ErrorCode::None, Some(vec![0])));
        }
        let mut raw = Raw::connect(site.address()).await;
        let list = ListGroupsRequestT { states: None };
        let listed = raw.call(&list, &[]).await.list_groups().groups.unwrap();
        let names: Vec<_> = listed.iter().map(|group| group.group_id.clone().unwrap()).collect();
        assert_eq!(names, ["busy", "idle-0", "idle-1"]);
        let describe = DescribeGroupRequestT {
            group_id: Some("busy".to_owned()),
        };
        let described = raw.call(&describe, &[]).await.describe_group();
        assert_eq!(described.protocol_name.as_deref(), Some(SERVER_STICKY));
        assert_eq!(described.members.unwrap()[0].member_id.as_ref(), Some(&member.id));
        let delete = |group: &str| DeleteGroupRequestT {
            group_id: Some(group.to_owned()),
        };
        let busy = raw.call(&delete("busy"), &[]).await.delete_group();
        assert_eq!(code(busy.error), ErrorCode::NonEmptyGroup);
        let forget = OffsetDeleteRequestT {
            group_id: Some("idle-1".to_owned()),
            topics: Some(vec![TopicPartitionsT {
                topic: Some(TOPIC.to_owned()),
                partitions: Some(vec![0]),
            }]),
        };
        assert_eq!(raw.call(&forget, &[]).await.offset_delete().errors, Some(vec![0]));
        assert!(committed(&mut raw, "idle-1").await.is_empty());
        let leave = LeaveGroupRequestT {
            group_id: Some("busy".to_owned()),
            members: Some(vec![LeavingMemberT {
                member_id: Some(member.id.clone()),
                ..LeavingMemberT::default()
            }]),
        };
        assert_eq!(raw.call(&leave, &[]).await.leave_group().members, Some(vec![0]));
        for group in ["busy", "idle-0"] {
            assert_eq!(raw.call(&delete(group), &[]).await.delete_group().error, 0);
        }
        let again = raw.call(&delete("busy"), &[]).await.delete_group();
        assert_eq!(code(again.error), ErrorCode::GroupIdNotFound);
        broker.stop();
    });
}

#[test]
fn the_internal_topic_belongs_to_the_broker() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client().await;
        let name = "__consumer_offsets";
        let refused = client.admin().create_topic(NewTopic::new(name)).await.unwrap_err();
        assert!(
            matches!(
                refused,
                Error::Broker {
                    code: ErrorCode::InvalidTopicException,
                    ..
                }
            ),
            "{refused}"
        );
        let mut raw = connect(&site, "g").await;
        let topic = client.admin().describe_topic(name).await.unwrap();
        assert_eq!(topic.partitions.len(), 4);
        for partition in 0..4 {
            let produced = raw.call(&produce(topic.id, partition), &batch(&[b"x"])).await.produce();
            assert_eq!(code(produced.error), ErrorCode::InvalidTopicException);
        }
        let delete = DeleteTopicRequestT {
            name: Some(name.to_owned()),
        };
        let deleted = raw.call(&delete, &[]).await.delete_topic();
        assert_eq!(code(deleted.error), ErrorCode::InvalidTopicException);
        broker.stop();
    });
}

#[test]
fn a_broker_that_stops_does_not_wait_for_members_that_wait_for_each_other() {
    run(async {
        let site = site();
        let broker = site.start();
        filled(&site, 2, 1).await;
        let mut first = Member::new(&site, "g").await;
        first.join().await;
        let mut second = Member::new(&site, "g").await;
        // The first does not join again, so the second would wait for its whole rebalance timeout.
        let (joined, ()) = tokio::join!(second.try_join(), async {
            while first.heartbeat().await == ErrorCode::None {
                pause().await;
            }
            broker.stop();
        });
        assert_eq!(code(joined.error), ErrorCode::CoordinatorNotAvailable);
    });
}
