//! Groups of type consumer (KIP-848) on the wire.

use std::time::Duration;

use headwater_kafka::{
    ApiKey, Uuid,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DescribeGroupsRequest, DescribeGroupsResponse,
        FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
        JoinGroupResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse,
        OffsetFetchRequest, OffsetFetchResponse, consumer_group_heartbeat_request::TopicPartitions, join_group_request,
        offset_commit_request, offset_fetch_request,
    },
};

use crate::{
    kafka::wire::Wire,
    support::{Site, run},
};

type Beat<'a> = ConsumerGroupHeartbeatRequest<'a>;
type Told = ConsumerGroupHeartbeatResponse<'static>;

/// A group and one topic of four partitions.
struct Probe {
    wire: Wire,
    topic: Uuid,
    group: &'static str,
}

impl Probe {
    async fn at(site: &Site, group: &'static str) -> Probe {
        let mut wire = Wire::of(site).await;
        if wire.topic("work").await.error_code != 0 {
            wire.create_topic("work", 4, &[]).await;
        }
        let topic = wire.topic("work").await.topic_id;
        let find = FindCoordinatorRequest {
            coordinator_keys: vec![group.into()],
            ..FindCoordinatorRequest::default()
        };
        let found: FindCoordinatorResponse<'_> = wire.ask(ApiKey::FindCoordinator, 6, &find).await;
        let port = found.coordinators[0].port as u16;
        let wire = Wire::connect((site.address().ip(), port).into()).await;
        Probe { wire, topic, group }
    }

    fn joins(&self, member: &'static str) -> Beat<'static> {
        Beat {
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: Some(vec!["work".into()]),
            topic_partitions: Some(vec![]),
            ..self.beat(member, 0)
        }
    }

    fn beat(&self, member: &'static str, epoch: i32) -> Beat<'static> {
        Beat {
            group_id: self.group.into(),
            member_id: member.into(),
            member_epoch: epoch,
            ..Beat::default()
        }
    }

    fn owns(&self, member: &'static str, epoch: i32, partitions: &[i32]) -> Beat<'static> {
        Beat {
            topic_partitions: Some(vec![TopicPartitions {
                topic_id: self.topic,
                partitions: partitions.to_vec(),
            }]),
            ..self.beat(member, epoch)
        }
    }

    /// While the coordinator reads its log, it is asked again.
    async fn told(&mut self, beat: &Beat<'_>) -> Told {
        loop {
            let told: Told = self.wire.ask(ApiKey::ConsumerGroupHeartbeat, 1, beat).await;
            if ![14, 15, 16].contains(&told.error_code) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn beats(&mut self, beat: Beat<'_>) -> (i32, Option<Vec<i32>>) {
        let told = self.told(&beat).await;
        assert_eq!((told.error_code, told.error_message), (0, None));
        assert_eq!(told.member_id.as_deref(), Some(&*beat.member_id));
        let partitions = told.assignment.map(|assignment| {
            let topics = assignment.topic_partitions.into_iter();
            topics.flat_map(|topic| topic.partitions).collect()
        });
        (told.member_epoch, partitions)
    }

    async fn refuses(&mut self, beat: Beat<'_>) -> (i16, String) {
        let told = self.told(&beat).await;
        assert_eq!(
            (
                told.member_id,
                told.member_epoch,
                told.heartbeat_interval_ms,
                told.assignment.is_none()
            ),
            (None, 0, 0, true)
        );
        (told.error_code, told.error_message.unwrap_or_default().into_owned())
    }

    async fn commits(&mut self, version: i16, member: &'static str, epoch: i32) -> i16 {
        let commit = OffsetCommitRequest {
            group_id: self.group.into(),
            generation_id_or_member_epoch: epoch,
            member_id: member.into(),
            topics: vec![offset_commit_request::OffsetCommitRequestTopic {
                name: "work".into(),
                topic_id: self.topic,
                partitions: vec![offset_commit_request::OffsetCommitRequestPartition::default()],
            }],
            ..OffsetCommitRequest::default()
        };
        let told: OffsetCommitResponse<'_> = self.wire.ask(ApiKey::OffsetCommit, version, &commit).await;
        told.topics[0].partitions[0].error_code
    }

    async fn describe(&mut self) -> ConsumerGroupDescribeResponse<'static> {
        let request = ConsumerGroupDescribeRequest {
            group_ids: vec![self.group.into(), "nobody".into(), "".into()],
            include_authorized_operations: true,
        };
        self.wire.ask(ApiKey::ConsumerGroupDescribe, 1, &request).await
    }
}

fn site() -> Site {
    Site::new()
        .cores(1)
        .set("groups.initial_rebalance_delay_ms", "0")
        .set("groups.consumer_assignment_interval_ms", "50ms")
}

#[test]
fn a_group_of_consumers_shares_a_topic_and_goes_on_after_the_broker_was_killed() {
    run(async {
        let site = site();
        let broker = site.start();
        let mut probe = Probe::at(&site, "crew").await;
        let hello: ApiVersionsResponse<'_> = probe.wire.ask(ApiKey::ApiVersions, 4, &asks_for_versions()).await;
        let offers = |key| {
            hello
                .api_keys
                .iter()
                .any(|api| (api.api_key, api.max_version) == (key, 1))
        };
        assert!(offers(68) && offers(69));
        let feature = &hello.finalized_features[0];
        assert_eq!((&*feature.name, feature.max_version_level), ("group.version", 1));

        let join = probe.joins("m1");
        let told = probe.told(&join).await;
        assert_eq!((told.member_epoch, told.heartbeat_interval_ms), (2, 5000));
        assert_eq!(probe.beats(join).await, (2, Some(vec![0, 1, 2, 3])));
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(probe.beats(probe.joins("m2")).await, (3, Some(vec![])));
        assert_eq!(probe.beats(probe.beat("m1", 2)).await, (2, Some(vec![0, 1])));
        assert_eq!(probe.beats(probe.beat("m2", 3)).await, (3, None));

        // In the middle of it: whoever is told something finds it again.
        broker.kill();
        let broker = site.start();
        let group = probe.group;
        probe = Probe::at(&site, group).await;
        assert_eq!(probe.beats(probe.beat("m2", 3)).await, (3, None));
        assert_eq!(probe.beats(probe.owns("m1", 2, &[0, 1])).await, (3, None));
        assert_eq!(probe.beats(probe.beat("m2", 3)).await, (3, Some(vec![2, 3])));
        assert_eq!(probe.refuses(probe.beat("m1", 2)).await.0, 110);

        let described = probe.describe().await.groups;
        let codes: Vec<_> = described
            .iter()
            .map(|group| (group.error_code, group.error_message.as_deref()))
            .collect();
        assert_eq!(codes, [(0, None), (69, Some("Group nobody not found.")), (24, None)]);
        let crew = &described[0];
        assert_eq!(
            (&*crew.group_state, crew.group_epoch, crew.assignment_epoch),
            ("Stable", 3, 3)
        );
        assert_eq!((&*crew.assignor_name, crew.authorized_operations), ("uniform", 3400));
        let member = &crew.members[0];
        assert_eq!(
            (&*member.member_id, member.member_epoch, member.member_type),
            ("m1", 3, 1)
        );
        assert_eq!((&*member.client_id, &*member.client_host), ("probe", "/127.0.0.1"));
        let assigned = &member.assignment.topic_partitions[0];
        assert_eq!((&*assigned.topic_name, &assigned.partitions), ("work", &vec![0, 1]));
        assert_eq!(member.target_assignment.topic_partitions[0].partitions, [0, 1]);

        // As the command line shows it.
        let groups = site.client().await.admin().groups();
        let shown = groups.describe("crew").await.unwrap();
        assert_eq!((shown.state.name(), &*shown.protocol_name), ("Stable", "uniform"));
        let first = shown.members[0].assignment.as_ref().unwrap();
        assert_eq!((&*first[0].topic, first[0].partitions.len()), ("work", 2));
        assert_eq!(groups.list().await.unwrap()[0].members, 2);
        seen_by_the_classic_apis(&mut probe).await;
        commits_in_its_epoch(&mut probe).await;
        broker.stop();
    });
}

fn asks_for_versions() -> ApiVersionsRequest<'static> {
    ApiVersionsRequest {
        client_software_name: "probe".into(),
        client_software_version: "1".into(),
        ..ApiVersionsRequest::default()
    }
}

async fn seen_by_the_classic_apis(probe: &mut Probe) {
    let request = DescribeGroupsRequest {
        groups: vec!["crew".into()],
        ..DescribeGroupsRequest::default()
    };
    let told: DescribeGroupsResponse<'_> = probe.wire.ask(ApiKey::DescribeGroups, 6, &request).await;
    let group = &told.groups[0];
    assert_eq!(
        (group.error_code, group.error_message.as_deref(), &*group.group_state),
        (69, Some("Group crew is not a classic group."), "Dead")
    );
    for (kind, count) in [("consumer", 1), ("CONSUMER", 1), ("classic", 0), ("share", 0)] {
        let request = ListGroupsRequest {
            types_filter: vec![kind.into()],
            ..ListGroupsRequest::default()
        };
        let listed: ListGroupsResponse<'_> = probe.wire.ask(ApiKey::ListGroups, 5, &request).await;
        assert_eq!(listed.groups.len(), count, "{kind}");
        if let Some(group) = listed.groups.first() {
            assert_eq!(
                (
                    &*group.group_id,
                    &*group.group_type,
                    &*group.group_state,
                    &*group.protocol_type
                ),
                ("crew", "consumer", "Stable", "consumer")
            );
        }
    }
}

async fn commits_in_its_epoch(probe: &mut Probe) {
    for (version, member, epoch, code) in [
        (9, "m1", 3, 0),
        (10, "m1", 3, 0),
        (9, "m1", 2, 113),
        (10, "m1", 4, 113),
        (8, "m1", 2, 35),
        (9, "m9", 3, 25),
        (9, "", -1, 25),
    ] {
        assert_eq!(
            probe.commits(version, member, epoch).await,
            code,
            "{version} {member} {epoch}"
        );
    }
    for (member, epoch, code) in [("m1", 3, 0), ("m1", 2, 113), ("m9", 3, 25), ("", -1, 0)] {
        let fetch = OffsetFetchRequest {
            groups: vec![offset_fetch_request::OffsetFetchRequestGroup {
                group_id: "crew".into(),
                member_id: Some(member.into()),
                member_epoch: epoch,
                topics: None,
            }],
            ..OffsetFetchRequest::default()
        };
        let told: OffsetFetchResponse<'_> = probe.wire.ask(ApiKey::OffsetFetch, 10, &fetch).await;
        assert_eq!(told.groups[0].error_code, code, "{member} {epoch}");
        assert_eq!(told.groups[0].topics.len(), usize::from(code == 0));
    }
}

#[test]
fn heartbeats_that_are_wrong_are_refused_in_kafkas_words() {
    run(async {
        let site = site();
        let broker = site.start();
        let mut probe = Probe::at(&site, "picky").await;
        let join = || probe.joins("m1");
        let beat = |epoch| probe.beat("m1", epoch);
        let wrong: Vec<(Beat<'_>, i16, &str)> = vec![
            (probe.joins(""), 42, "MemberId can't be empty."),
            (
                Beat {
                    group_id: "".into(),
                    ..join()
                },
                42,
                "GroupId can't be empty.",
            ),
            (
                Beat {
                    instance_id: Some("".into()),
                    ..join()
                },
                42,
                "InstanceId can't be empty.",
            ),
            (
                Beat {
                    rack_id: Some("".into()),
                    ..join()
                },
                42,
                "RackId can't be empty.",
            ),
            (
                Beat {
                    rebalance_timeout_ms: -1,
                    ..join()
                },
                42,
                "RebalanceTimeoutMs must be provided in first request.",
            ),
            (
                Beat {
                    subscribed_topic_names: None,
                    ..join()
                },
                42,
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            ),
            (
                Beat {
                    topic_partitions: None,
                    ..join()
                },
                42,
                "TopicPartitions must be empty when (re-)joining.",
            ),
            (
                Beat {
                    member_epoch: 0,
                    ..probe.owns("m1", 0, &[1])
                },
                42,
                "RebalanceTimeoutMs must be provided in first request.",
            ),
            (beat(-3), 42, "MemberEpoch is invalid."),
            (beat(-2), 42, "InstanceId can't be null."),
            (
                Beat {
                    server_assignor: Some("foo".into()),
                    ..join()
                },
                112,
                "ServerAssignor foo is not supported. Supported assignors: uniform, range.",
            ),
            (beat(3), 69, "Consumer group picky not found."),
            (beat(-1), 69, "Group picky not found."),
        ];
        for (beat, code, message) in wrong {
            assert_eq!(probe.refuses(beat).await, (code, message.to_owned()));
        }
        let (code, message) = probe
            .refuses(Beat {
                subscribed_topic_regex: Some("[a".into()),
                ..probe.joins("m1")
            })
            .await;
        assert_eq!(code, 128);
        assert!(
            message.starts_with("SubscribedTopicRegex `[a` is not a valid regular expression: "),
            "{message}"
        );
        // A member of version 0 gets an id.
        let nameless = probe.joins("");
        let told: Told = probe.wire.ask(ApiKey::ConsumerGroupHeartbeat, 0, &nameless).await;
        assert_eq!((told.error_code, told.member_epoch), (0, 2));
        assert!(told.member_id.is_some_and(|id| !id.is_empty()));
        broker.stop();
    });
}

/// `work` in the subscription of a member of the classic protocol.
const SUBSCRIPTION: &[u8] = &[
    0, 1, 0, 0, 0, 1, 0, 4, b'w', b'o', b'r', b'k', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
];

#[test]
fn a_classic_group_becomes_one_of_consumers_with_the_first_of_them_and_static_members_come_back() {
    run(async {
        let site = site();
        let broker = site.start();
        let mut probe = Probe::at(&site, "moving").await;
        let join = |member: String, kind: &'static str| JoinGroupRequest {
            group_id: "moving".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            member_id: member.into(),
            protocol_type: kind.into(),
            protocols: vec![join_group_request::JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: SUBSCRIPTION.into(),
            }],
            ..JoinGroupRequest::default()
        };
        let wire = &mut probe.wire;
        let told: JoinGroupResponse<'_> = wire.ask(ApiKey::JoinGroup, 9, &join(String::new(), "consumer")).await;
        let member = told.member_id.into_owned();
        let told: JoinGroupResponse<'_> = wire.ask(ApiKey::JoinGroup, 9, &join(member.clone(), "consumer")).await;
        assert_eq!((told.error_code, told.generation_id), (0, 1));
        let described = probe.describe().await.groups;
        assert_eq!(
            (described[0].error_code, described[0].error_message.as_deref()),
            (69, Some("Group moving is not a consumer group."))
        );
        // It has not been assigned anything yet, so its part is free.
        assert_eq!(probe.beats(probe.joins("m1")).await, (2, Some(vec![0, 1])));
        let beat = HeartbeatRequest {
            group_id: "moving".into(),
            generation_id: 1,
            member_id: member.clone().into(),
            ..HeartbeatRequest::default()
        };
        let wire = &mut probe.wire;
        let told: HeartbeatResponse = wire.ask(ApiKey::Heartbeat, 4, &beat).await;
        assert_eq!(told.error_code, 27);
        let told: JoinGroupResponse<'_> = wire.ask(ApiKey::JoinGroup, 9, &join(member.clone(), "consumer")).await;
        assert_eq!((told.error_code, told.generation_id, &*told.leader), (0, 2, ""));
        assert_eq!((told.members.len(), told.protocol_name.as_deref()), (0, Some("range")));
        let told: JoinGroupResponse<'_> = wire.ask(ApiKey::JoinGroup, 9, &join(String::new(), "connect")).await;
        assert_eq!(told.error_code, 23);

        // A static member keeps what it has while it is away.
        let fixed = |member, epoch| Beat {
            instance_id: Some("i1".into()),
            ..if epoch == 0 {
                probe.joins(member)
            } else {
                probe.beat(member, epoch)
            }
        };
        let (first, second) = (fixed("s1", 0), fixed("s2", 0));
        let (away, zombie) = (fixed("s1", -2), fixed("s1", 3));
        probe.beats(first).await;
        assert_eq!(
            probe.refuses(second.clone()).await,
            (
                111,
                "Static member s2 with instance id i1 cannot join the group because the instance id is owned by s1 member."
                    .to_owned()
            )
        );
        assert_eq!(probe.beats(away).await, (-2, None));
        probe.beats(second).await;
        assert_eq!(
            probe.refuses(zombie).await,
            (
                82,
                "Static member s1 with instance id i1 was fenced by member s2.".to_owned()
            )
        );
        broker.stop();
    });
}
