//! Groups of type consumer, one request after the other: what Kafka 4.4.0 answered to the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use headwater_protocol::{
    error::ErrorCode,
    group::{Assignment, SERVER_STICKY, Subscription},
    id::LeaderEpoch,
};

use super::{errors::Bench, world::config, *};
use crate::{
    config::{GroupsSection, Migration},
    model::{
        consumer::{ConsumerGroup, ConsumerHeartbeat, LEAVES, PAUSES, Reconciled, Share},
        refusal::Refusal,
    },
};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn share(topic: &str, partitions: impl IntoIterator<Item = i32>) -> Share {
    let topics: Topics = [(topic.to_owned(), 1)].into_iter().collect();
    let (id, _) = topics.find(topic).unwrap();
    partitions.into_iter().map(|partition| (id, partition)).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "an answer may tell of no share")]
fn a(partitions: impl IntoIterator<Item = i32>) -> Option<Share> {
    Some(share("a", partitions))
}

pub(super) fn beat(member: &str, epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        member: MemberId::new(member),
        epoch,
        instance: None,
        rack: None,
        client: Client {
            id: "probe".to_owned(),
            host: "127.0.0.1".to_owned(),
        },
        rebalance_timeout: None,
        topics: None,
        pattern: None,
        assignor: None,
        owned: None,
    }
}

pub(super) fn joins(member: &str, topics: &[&str]) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        rebalance_timeout: Some(Duration::from_secs(10)),
        topics: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()),
        owned: Some(Share::new()),
        ..beat(member, 0)
    }
}

fn owns(member: &str, epoch: i32, owned: Option<Share>) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        owned,
        ..beat(member, epoch)
    }
}

fn with_instance(instance: &str, beat: ConsumerHeartbeat) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        instance: Some(InstanceId::new(instance)),
        ..beat
    }
}

impl Bench {
    fn beats(&mut self, beat: ConsumerHeartbeat) -> (i32, Option<Share>) {
        match self.ask("g", Request::ConsumerHeartbeat(beat)) {
            Ok(Answer::Reconciled(Reconciled { epoch, assignment, .. })) => (epoch, assignment),
            other => panic!("{other:?}"),
        }
    }

    fn refuses(&mut self, beat: ConsumerHeartbeat) -> (ErrorCode, String) {
        match self.ask("g", Request::ConsumerHeartbeat(beat)) {
            Err(Refusal { code, message, .. }) => (code, message),
            Ok(other) => panic!("{other:?}"),
        }
    }

    fn consumers(&mut self) -> ConsumerGroup {
        match self.ask("g", Request::DescribeConsumers) {
            Ok(Answer::DescribedConsumers(group)) => group,
            other => panic!("{other:?}"),
        }
    }

    /// Two members that share the topic evenly.
    fn two(&mut self) {
        assert_eq!(self.beats(joins("m1", &["a"])), (2, a(0..4)));
        self.pass(2 * SECOND);
        assert_eq!(self.beats(joins("m2", &["a"])), (3, a([])));
        assert_eq!(self.beats(beat("m1", 2)), (2, a(0..2)));
        assert_eq!(self.beats(owns("m1", 2, a(0..2))), (3, None));
        assert_eq!(self.beats(beat("m2", 3)), (3, a(2..4)));
    }

    fn knows(&mut self, topics: &[(&str, u32)]) {
        let topics = topics.iter().map(|(name, count)| ((*name).to_owned(), *count));
        self.step(Event::Topics(Rc::new(topics.collect())));
    }
}

#[test]
fn the_first_member_gets_everything_with_its_first_answer() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.beats(joins("m1", &["a"])), (2, a(0..4)));
    // The answer may have been lost.
    assert_eq!(bench.beats(joins("m1", &["a"])), (2, a(0..4)));
    assert_eq!(bench.beats(beat("m1", 2)), (2, None));
    // It does not know what it has, or does.
    assert_eq!(bench.beats(owns("m1", 2, a([]))), (2, a(0..4)));
    assert_eq!(bench.beats(owns("m1", 2, a(0..4))), (2, None));
    let why = "The member must abandon all its partitions and rejoin.";
    assert_eq!(
        bench.refuses(beat("m1", 1)),
        (
            ErrorCode::FencedMemberEpoch,
            format!(
                "The consumer group member has a smaller member epoch (1) than the one known by the group coordinator (2). {why}"
            )
        )
    );
    assert_eq!(bench.refuses(beat("m1", 5)).0, ErrorCode::FencedMemberEpoch);
    let nobody = (
        ErrorCode::UnknownMemberId,
        "Member m9 is not a member of group g.".to_owned(),
    );
    assert_eq!(bench.refuses(beat("m9", 3)), nobody);
    assert_eq!(bench.refuses(beat("m9", LEAVES)), nobody);
    assert_eq!(bench.beats(beat("m1", LEAVES)), (LEAVES, None));
    assert_eq!(bench.refuses(beat("m1", LEAVES)).0, ErrorCode::UnknownMemberId);
    assert_eq!(bench.consumers().state, "Empty");
    // Who subscribes to nothing, or to what is not there, gets nothing.
    let mut bench = Bench::new(config());
    assert_eq!(bench.beats(joins("m1", &[])), (1, a([])));
    assert_eq!(bench.beats(joins("m2", &["z"])).1, a([]));
}

#[test]
fn a_group_that_is_not_there_is_made_by_who_joins_alone() {
    let mut bench = Bench::new(config());
    for (epoch, message) in [(3, "Consumer group g not found."), (LEAVES, "Group g not found.")] {
        let refused = (ErrorCode::GroupIdNotFound, message.to_owned());
        assert_eq!(bench.refuses(beat("m1", epoch)), refused);
    }
    assert_eq!(
        bench
            .refuses(ConsumerHeartbeat {
                pattern: Some("[a".to_owned()),
                ..joins("m1", &[])
            })
            .0,
        ErrorCode::InvalidRegularExpression
    );
    assert!(
        bench.shard.group_named("g").is_none(),
        "nothing is left of who was refused"
    );
    let refused = bench.ask("g", Request::DescribeConsumers).unwrap_err();
    assert_eq!(
        (refused.code, &*refused.message),
        (ErrorCode::GroupIdNotFound, "Group g not found.")
    );
}

#[test]
fn a_partition_goes_to_another_once_its_owner_has_given_it_up() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.beats(joins("m1", &["a"])), (2, a(0..4)));
    // Too soon for a new assignment.
    assert_eq!(bench.beats(joins("m2", &["a"])), (2, a([])));
    assert_eq!(bench.consumers().state, "Assigning");
    assert_eq!(bench.beats(beat("m1", 2)), (2, None));
    bench.pass(SECOND);
    assert_eq!(bench.consumers().state, "Reconciling");
    assert_eq!(bench.beats(beat("m1", 2)), (2, a(0..2)));
    assert_eq!(bench.beats(beat("m2", 2)), (3, None));
    for _ in 0..3 {
        assert_eq!(bench.beats(beat("m1", 2)), (2, None));
        assert_eq!(bench.beats(beat("m2", 3)), (3, None));
    }
    assert_eq!(bench.beats(owns("m1", 2, a(0..2))), (3, None));
    assert_eq!(bench.beats(beat("m2", 3)), (3, a(2..4)));
    assert_eq!(bench.refuses(beat("m1", 2)).0, ErrorCode::FencedMemberEpoch);
    let group = bench.consumers();
    assert_eq!((group.state, group.epoch, group.target_epoch), ("Stable", 3, 3));
    assert_eq!(group.assignor.name(), "uniform");
}

#[test]
fn a_lost_answer_is_asked_for_again_with_the_epoch_before() {
    let mut bench = Bench::new(config());
    bench.beats(joins("m1", &["a"]));
    bench.pass(2 * SECOND);
    bench.beats(joins("m2", &["a"]));
    bench.beats(beat("m1", 2));
    // It has come with 2, so it knows of it.
    assert_eq!(bench.refuses(joins("m1", &["a"])).0, ErrorCode::FencedMemberEpoch);
    assert_eq!(bench.beats(owns("m1", 2, a(0..2))), (3, None));
    // It has not heard of 3, and says what it has.
    assert_eq!(bench.beats(owns("m1", 2, a(0..2))), (3, None));
    // More than it may have, or it does not say.
    assert_eq!(bench.refuses(owns("m1", 2, a(0..3))).0, ErrorCode::FencedMemberEpoch);
    assert_eq!(bench.refuses(beat("m1", 2)).0, ErrorCode::FencedMemberEpoch);
}

#[test]
fn who_is_silent_or_does_not_give_up_is_out() {
    let mut bench = Bench::new(config());
    bench.two();
    // m1 is heard of, m2 is not.
    for _ in 0..3 {
        bench.pass(20 * SECOND);
        bench.beats(beat("m1", bench.epoch_of("m1")));
    }
    bench.pass(SECOND);
    assert_eq!(bench.refuses(beat("m2", 3)).0, ErrorCode::UnknownMemberId);
    assert_eq!(bench.beats(owns("m1", bench.epoch_of("m1"), a([]))), (4, a(0..4)));
    // m1 is to give up half, and goes on instead.
    bench.beats(joins("m2", &["a"]));
    bench.pass(SECOND);
    bench.beats(beat("m1", 4));
    bench.pass(5 * SECOND);
    bench.beats(beat("m1", 4));
    assert_eq!(bench.beats(beat("m2", 5)), (5, None));
    bench.pass(6 * SECOND);
    assert_eq!(bench.refuses(beat("m1", 4)).0, ErrorCode::UnknownMemberId);
    bench.beats(beat("m2", 5));
    bench.pass(SECOND);
    assert_eq!(bench.beats(owns("m2", bench.epoch_of("m2"), a([]))), (6, a(0..4)));
}

impl Bench {
    fn epoch_of(&self, member: &str) -> i32 {
        let group = self.shard.group_named("g").unwrap();
        group.consumers.as_ref().unwrap().members[member].current.epoch
    }
}

#[test]
fn a_static_member_keeps_its_partitions_until_it_is_back() {
    let mut bench = Bench::new(config());
    bench.beats(with_instance("i1", joins("s1", &["a"])));
    let refused = bench.refuses(with_instance("i1", joins("s2", &["a"])));
    assert_eq!(
        refused,
        (
            ErrorCode::UnreleasedInstanceId,
            "Static member s2 with instance id i1 cannot join the group because the instance id is owned by s1 member."
                .to_owned()
        )
    );
    assert_eq!(bench.beats(with_instance("i1", beat("s1", PAUSES))), (PAUSES, None));
    bench.pass(2 * SECOND);
    // Another gets nothing of it.
    assert_eq!(bench.beats(with_instance("i1", joins("s2", &["a"]))), (2, a(0..4)));
    let fenced = bench.refuses(with_instance("i1", beat("s1", 2)));
    assert_eq!(
        fenced,
        (
            ErrorCode::FencedInstanceId,
            "Static member s1 with instance id i1 was fenced by member s2.".to_owned()
        )
    );
    let unknown = bench.refuses(with_instance("zz", beat("s2", 2)));
    assert_eq!(
        unknown,
        (ErrorCode::UnknownMemberId, "Instance id zz is unknown.".to_owned())
    );
    // It comes back under its own name, and once it does not come back.
    bench.beats(with_instance("i1", beat("s2", PAUSES)));
    assert_eq!(bench.beats(with_instance("i1", joins("s2", &["a"]))), (2, a(0..4)));
    bench.beats(with_instance("i1", beat("s2", PAUSES)));
    bench.pass(46 * SECOND);
    assert_eq!(bench.consumers().state, "Empty");
}

#[test]
fn patterns_and_topics_that_come_change_the_assignment() {
    let mut bench = Bench::new(config());
    let subscribes = |pattern: &str| ConsumerHeartbeat {
        pattern: Some(pattern.to_owned()),
        topics: None,
        ..joins("m1", &[])
    };
    let (code, message) = bench.refuses(subscribes("[a"));
    assert_eq!(code, ErrorCode::InvalidRegularExpression);
    assert!(
        message.starts_with("SubscribedTopicRegex `[a` is not a valid regular expression: "),
        "{message}"
    );
    for bad in ["(", "a)(b", "x{9999}{9999}", &"a".repeat(9 << 10)] {
        assert_eq!(
            bench.refuses(subscribes(bad)).0,
            ErrorCode::InvalidRegularExpression,
            "{bad}"
        );
    }
    assert_eq!(bench.beats(subscribes("")), (1, a([])));
    let mut bench = Bench::new(config());
    // The whole name must match.
    assert_eq!(bench.beats(subscribes("a|b.*")), (2, a(0..4)));
    bench.pass(2 * SECOND);
    bench.knows(&[("a", 4), ("ab", 1), ("bc", 2), ("__consumer_offsets", 50)]);
    let both: Share = share("a", 0..4).union(&share("bc", 0..2)).copied().collect();
    assert_eq!(bench.beats(beat("m1", 2)), (3, Some(both)));
    bench.pass(2 * SECOND);
    bench.knows(&[("a", 5), ("ab", 1)]);
    // What is gone is given up first.
    assert_eq!(bench.beats(beat("m1", 3)), (3, a(0..4)));
    assert_eq!(bench.beats(owns("m1", 3, a(0..4))), (4, a(0..5)));
    bench.knows(&[("a", 5), ("ab", 2)]);
    bench.pass(2 * SECOND);
    assert_eq!(bench.beats(beat("m1", 4)), (4, None), "it does not want that one");
}

#[test]
fn a_commit_counts_in_the_epoch_of_its_member() {
    let mut bench = Bench::new(config());
    let commit = |member: &str, epoch| {
        let who = Identity {
            generation: Generation::new(epoch),
            member: MemberId::new(member),
            instance: None,
        };
        let item = CommitItem {
            topic: "a".to_owned(),
            partition: 0,
            offset: 7,
            leader_epoch: LeaderEpoch::NONE,
            metadata: String::new(),
        };
        (who.clone(), Request::Commit(who, vec![item]))
    };
    // Before it has members anybody does.
    assert!(bench.ask("g", commit("", -1).1).is_ok());
    bench.beats(joins("m1", &["a"]));
    for (member, epoch, code) in [
        ("m1", 2, None),
        ("m1", 1, Some(ErrorCode::StaleMemberEpoch)),
        ("m1", 3, Some(ErrorCode::StaleMemberEpoch)),
        ("m2", 2, Some(ErrorCode::UnknownMemberId)),
        ("", -1, Some(ErrorCode::UnknownMemberId)),
    ] {
        let (who, request) = commit(member, epoch);
        assert_eq!(
            bench.ask("g", request).err().map(|refusal| refusal.code),
            code,
            "{member} {epoch}"
        );
        if !member.is_empty() {
            let fetched = bench.ask("g", Request::Offsets(Some(who), None));
            assert_eq!(fetched.err().map(|refusal| refusal.code), code, "{member} {epoch}");
        }
    }
    let forgotten = bench.ask("g", Request::ForgetOffsets(vec![("a".to_owned(), 0)]));
    assert_eq!(
        forgotten.unwrap(),
        Answer::Forgotten(vec![ErrorCode::GroupSubscribedToTopic])
    );
    assert_eq!(
        bench.ask("g", Request::Delete).unwrap_err().code,
        ErrorCode::NonEmptyGroup
    );
    bench.beats(beat("m1", LEAVES));
    assert_eq!(bench.ask("g", Request::Delete).unwrap(), Answer::Deleted);
    assert!(bench.shard.group_named("g").is_none());
}

#[test]
fn range_gives_the_same_numbers_of_each_topic_and_the_most_wanted_assignor_counts() {
    let mut bench = Bench::new(config());
    bench.knows(&[("a", 5), ("b", 5)]);
    let wants = |member| ConsumerHeartbeat {
        assignor: Some(crate::model::consumer::ServerAssignor::Range),
        ..joins(member, &["a", "b"])
    };
    bench.beats(wants("m1"));
    bench.pass(2 * SECOND);
    bench.beats(wants("m2"));
    let both = |partitions: std::ops::Range<i32>| -> Share {
        let (a, b) = (share("a", partitions.clone()), share("b", partitions));
        a.union(&b).copied().collect()
    };
    let group = bench.consumers();
    assert_eq!(group.assignor.name(), "range");
    assert_eq!(
        (&group.members[0].target, &group.members[1].target),
        (&both(0..3), &both(3..5))
    );
}

fn classic(member: Option<MemberId>, owned: &[i32], generation: i32) -> Request {
    let subscription = Subscription {
        topics: vec!["a".to_owned()],
        owned_partitions: vec![headwater_protocol::group::TopicPartitions {
            topic: "a".to_owned(),
            partitions: owned.to_vec(),
        }],
        generation,
        ..Subscription::default()
    };
    let join = super::errors::join(member, SERVER_STICKY);
    let protocols = vec![Protocol {
        name: SERVER_STICKY.to_owned(),
        metadata: subscription.encode().into(),
    }];
    Request::Join(Join { protocols, ..join })
}

fn partitions(answer: Reply) -> BTreeSet<i32> {
    let Ok(Answer::Synced(synced)) = answer else {
        panic!("{answer:?}")
    };
    let assignment = Assignment::decode(&synced.assignment).unwrap();
    assignment
        .partitions
        .into_iter()
        .flat_map(|topic| topic.partitions)
        .collect()
}

#[test]
fn members_of_both_protocols_share_a_group_that_changes_its_type_both_ways() {
    let mut bench = Bench::new(config());
    let who = bench.stable("g", SERVER_STICKY);
    // The classic member has everything, and goes on.
    assert_eq!(bench.beats(joins("m2", &["a"])), (2, a([])));
    let fails = |reply: Reply| reply.unwrap_err().code;
    assert_eq!(
        fails(bench.ask("g", Request::Heartbeat(who.clone()))),
        ErrorCode::RebalanceInProgress
    );
    let own_generation = |generation| Identity {
        generation: Generation::new(generation),
        ..who.clone()
    };
    let joined = |reply: Reply| match reply {
        Ok(Answer::Joined(joined)) => joined,
        other => panic!("{other:?}"),
    };
    // It is told what to give up, in its epoch, and joins again when it has.
    let told = joined(bench.ask("g", classic(Some(who.member.clone()), &[0, 1, 2, 3], 1)));
    assert_eq!(
        (told.generation.get(), told.leader.as_str(), told.members.len()),
        (1, "", 0)
    );
    assert_eq!(
        partitions(bench.ask("g", super::errors::sync(&who, vec![]))),
        [0, 1].into()
    );
    assert_eq!(bench.beats(beat("m2", 2)), (2, None));
    let told = joined(bench.ask("g", classic(Some(who.member.clone()), &[0, 1], 1)));
    assert_eq!(told.generation.get(), 2);
    assert_eq!(
        partitions(bench.ask("g", super::errors::sync(&own_generation(2), vec![]))),
        [0, 1].into()
    );
    assert!(matches!(
        bench.ask("g", Request::Heartbeat(own_generation(2))),
        Ok(Answer::Alive)
    ));
    assert_eq!(bench.beats(beat("m2", 2)), (2, a(2..4)));
    assert_eq!(
        fails(bench.ask("g", Request::Heartbeat(who.clone()))),
        ErrorCode::IllegalGeneration
    );
    let stranger = Identity {
        member: MemberId::new("m2"),
        ..own_generation(2)
    };
    assert_eq!(
        fails(bench.ask("g", Request::Heartbeat(stranger))),
        ErrorCode::UnknownMemberId
    );
    let group = bench.consumers();
    assert_eq!(
        (
            group.state,
            group.members.iter().filter(|member| member.is_classic).count()
        ),
        ("Stable", 1)
    );
    // With the last member of the new protocol the group is a classic one again.
    bench.beats(beat("m2", LEAVES));
    assert_eq!(
        fails(bench.ask("g", Request::DescribeConsumers)),
        ErrorCode::GroupIdNotFound
    );
    let generation = bench.shard.group_named("g").unwrap().generation;
    // It goes on in the generation that it was told.
    assert_eq!(generation.get(), 2);
    assert_eq!(
        fails(bench.ask("g", Request::Heartbeat(own_generation(2)))),
        ErrorCode::RebalanceInProgress
    );
    let call = bench.send("g", classic(Some(who.member.clone()), &[0, 1], 2));
    let told = joined(bench.take(call).expect("it is alone"));
    assert!(told.generation > generation);
    let who = own_generation(told.generation.get());
    assert_eq!(
        partitions(bench.ask("g", super::errors::sync(&who, vec![]))),
        [0, 1, 2, 3].into()
    );
}

#[test]
fn what_could_not_be_written_of_an_emptied_group_is_written_for_who_joins_it() {
    let mut bench = Bench::new(config());
    bench.beats(joins("m1", &["a"]));
    let now = bench.moment();
    let leaves = Event::Call {
        call: CallId(1_000),
        group: GroupId::new("g"),
        request: Request::ConsumerHeartbeat(beat("m1", LEAVES)),
    };
    for effect in bench.shard.step(leaves, now) {
        if let Effect::Append { write, .. } = effect {
            let outcome = Err(ErrorCode::KafkaStorageError);
            bench.shard.step(Event::Written { write, outcome }, now);
        }
    }
    let refused = bench.ask("g", classic(None, &[], -1)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::CoordinatorLoadInProgress);
    bench.stable("g", SERVER_STICKY);
}

#[test]
fn an_empty_group_is_whatever_joins_it_next_and_others_are_told_why_it_cannot_be() {
    let mut bench = Bench::new(config());
    bench.beats(joins("m1", &["a"]));
    bench.beats(beat("m1", LEAVES));
    bench.stable("g", SERVER_STICKY);
    let group = bench.shard.group_named("g").unwrap();
    assert!(group.consumers.is_none());
    let disabled = GroupsSection {
        consumer_migration: Migration::Disabled,
        ..(*config()).clone()
    };
    let mut bench = Bench::new(Rc::new(disabled));
    bench.stable("g", "own");
    let (code, message) = bench.refuses(joins("m1", &["a"]));
    assert_eq!(code, ErrorCode::GroupIdNotFound);
    assert!(
        message.ends_with("because the online upgrade is disabled."),
        "{message}"
    );
}

#[test]
fn a_group_that_is_deleted_while_its_last_changes_fail_leaves_nothing_of_its_members() {
    let mut bench = Bench::new(config());
    bench.beats(joins("m1", &["a"]));
    let now = bench.moment();
    let mut appends = Vec::new();
    let leaves = Request::ConsumerHeartbeat(beat("m1", LEAVES));
    for (number, request) in [(100, leaves), (101, Request::Delete)] {
        let (call, group) = (CallId(number), GroupId::new("g"));
        for effect in bench.shard.step(Event::Call { call, group, request }, now) {
            if let Effect::Append { write, records, .. } = effect {
                appends.push((write, records));
            }
        }
    }
    let (deleting, records) = appends.pop().unwrap();
    let (leaving, _) = appends.pop().unwrap();
    assert!(appends.is_empty());
    let failed = Err(ErrorCode::KafkaStorageError);
    for (write, outcome) in [(leaving, failed), (deleting, Ok(()))] {
        bench.shard.step(Event::Written { write, outcome }, now);
    }
    bench.records.extend(records);
    // What is left once the log was compacted, and its tombstones are gone too.
    let said = bench.records.iter().map(|record| (record.key(), record.value()));
    let last: BTreeMap<Vec<u8>, Option<Vec<u8>>> = said.collect();
    let left: Vec<_> = last.into_values().flatten().collect();
    assert!(left.is_empty(), "{} records are left", left.len());
}

#[test]
fn a_member_whose_records_would_not_fit_is_refused_and_topics_that_grow_take_nothing_from_the_others() {
    let mut bench = Bench::new(config());
    bench.shard.hold_records_to(1_000);
    assert_eq!(bench.beats(joins("m1", &["a"])), (2, a(0..4)));
    let named = "t".repeat(1_000);
    let (code, message) = bench.refuses(joins("m2", &[&named]));
    assert_eq!(code, ErrorCode::GroupMaxSizeReached);
    assert!(
        message.contains("one may have 1000 (log.batch_size_bytes_max"),
        "{message}"
    );
    bench.knows(&[("a", 4), ("b", 1_000)]);
    assert_eq!(bench.refuses(joins("m2", &["b"])).0, ErrorCode::GroupMaxSizeReached);
    // The group takes no notice of either.
    assert_eq!(bench.beats(beat("m1", 2)), (2, None));
    bench.knows(&[("a", 1_000), ("b", 1_000)]);
    bench.pass(2 * SECOND);
    assert_eq!(bench.beats(owns("m1", 2, a(0..4))), (2, None), "it keeps what it has");
    // Now it fits again.
    bench.knows(&[("a", 200)]);
    bench.pass(4 * SECOND);
    assert_eq!(bench.beats(beat("m1", 2)), (2, None), "there is a pause");
    for _ in 0..6 {
        bench.pass(4 * SECOND);
        bench.beats(beat("m1", 2));
    }
    bench.pass(4 * SECOND);
    let (epoch, assigned) = bench.beats(beat("m1", 2));
    assert!(epoch > 2 && assigned == a(0..200), "{epoch} {assigned:?}");
}
