//! Kafka's error code for each request that is wrong, and nothing is changed by it.

use std::{cell::Cell, ops::Range, rc::Rc, time::Duration};

use bytes::Bytes;
use headwater_protocol::{
    error::ErrorCode,
    group::{CONSUMER, Subscription},
    id::{LeaderEpoch, Timestamp},
};

use super::{
    world::{NOON, config},
    *,
};
use crate::{config::GroupsSection, model::bounds::ANSWER_BYTES_MAX};

/// A shard whose disk is done at once.
pub(super) struct Bench {
    pub(super) shard: Shard,
    pub(super) now: Duration,
    /// How far the clock is ahead, in milliseconds.
    pub(super) ahead: i64,
    calls: u64,
    answers: Vec<(CallId, Reply)>,
    pub(super) records: Vec<Record>,
}

impl Bench {
    pub(super) fn new(config: Rc<GroupsSection>) -> Bench {
        let topics = [("a".to_owned(), 4)].into_iter().collect();
        let now = Moment {
            monotonic: Duration::from_secs(1),
            clock: Timestamp::new(NOON),
        };
        Bench {
            shard: Shard::new(config, Rc::new(topics), Rc::new(Cell::new(0)), now),
            now: now.monotonic,
            ahead: 0,
            calls: 0,
            answers: Vec::new(),
            records: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        self.step_together(vec![event]);
    }

    /// Nothing is durable before the last of them has come.
    pub(super) fn step_together(&mut self, mut events: Vec<Event>) {
        events.reverse();
        let now = self.moment();
        while let Some(event) = events.pop() {
            for effect in self.shard.step(event, now) {
                match effect {
                    Effect::Answer { call, reply } => self.answers.push((call, reply)),
                    Effect::Append { write, records, .. } => {
                        self.records.extend(records);
                        events.insert(0, Event::Written { write, outcome: Ok(()) });
                    }
                    Effect::AppendMarker { .. } | Effect::Rebalanced { .. } | Effect::TooLarge { .. } => {}
                }
            }
        }
    }

    pub(super) fn moment(&self) -> Moment {
        Moment {
            monotonic: self.now,
            clock: Timestamp::new(NOON + self.now.as_millis() as i64 + self.ahead),
        }
    }

    /// Sends a request; its answer may come later.
    pub(super) fn send(&mut self, group: &str, request: Request) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        let group = GroupId::new(group);
        self.step(Event::Call { call, group, request });
        call
    }

    pub(super) fn take(&mut self, call: CallId) -> Option<Reply> {
        let at = self.answers.iter().position(|(answered, _)| *answered == call)?;
        Some(self.answers.remove(at).1)
    }

    pub(super) fn ask(&mut self, group: &str, request: Request) -> Reply {
        let call = self.send(group, request);
        self.take(call).expect("it is answered at once")
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.shard.next_deadline() <= end {
            self.now = self.now.max(self.shard.next_deadline());
            self.step(Event::Tick);
        }
        self.now = end;
    }

    /// A group of one member that is stable; returns the member as it names itself.
    pub(super) fn stable(&mut self, group: &str, protocol: &str) -> Identity {
        let Ok(Answer::MemberIdRequired(id)) = self.ask(group, Request::Join(join(None, protocol))) else {
            panic!("a new member is told its id first");
        };
        let call = self.send(group, Request::Join(join(Some(id), protocol)));
        self.pass(Duration::from_millis(200));
        let Some(Ok(Answer::Joined(joined))) = self.take(call) else {
            panic!("it joins")
        };
        let who = Identity {
            generation: joined.generation,
            member: joined.member.clone(),
            instance: None,
        };
        let assignments = vec![(joined.member, Bytes::new())];
        assert!(matches!(
            self.ask(group, sync(&who, assignments)),
            Ok(Answer::Synced(_))
        ));
        who
    }
}

pub(super) fn join(member: Option<MemberId>, protocol: &str) -> Join {
    let subscription = Subscription {
        topics: vec!["a".to_owned()],
        ..Subscription::default()
    };
    Join {
        member,
        fresh: MemberId::new("fresh"),
        instance: None,
        client: Client {
            id: "c".to_owned(),
            host: "h".to_owned(),
        },
        timeouts: Timeouts {
            session: Duration::from_secs(10),
            rebalance: Duration::from_secs(30),
        },
        protocol_type: CONSUMER.to_owned(),
        protocols: vec![Protocol {
            name: protocol.to_owned(),
            metadata: subscription.encode().into(),
        }],
        in_two_steps: true,
    }
}

pub(super) fn sync(who: &Identity, assignments: Vec<(MemberId, Bytes)>) -> Request {
    Request::Sync(Sync {
        who: who.clone(),
        protocol_type: None,
        protocol: None,
        assignments,
    })
}

fn item(offset: i64) -> CommitItem {
    CommitItem {
        topic: "a".to_owned(),
        partition: 0,
        offset,
        leader_epoch: LeaderEpoch::NONE,
        metadata: String::new(),
    }
}

fn code(reply: Reply) -> ErrorCode {
    reply.expect_err("it is refused").code
}

#[test]
fn whoever_is_not_a_member_of_this_generation_is_refused_and_changes_nothing() {
    let mut bench = Bench::new(config());
    let who = bench.stable("g", "own");
    bench.ask("g", Request::Commit(who.clone(), vec![item(7)])).unwrap();
    let before = bench.shard.summary();
    let stranger = Identity {
        member: MemberId::new("stranger"),
        ..who.clone()
    };
    let stale = Identity {
        generation: Generation::new(who.generation.get() - 1),
        ..who.clone()
    };
    let nobody = Identity {
        generation: Generation::new(-1),
        member: MemberId::new(""),
        instance: None,
    };
    let commit = |who: &Identity| Request::Commit(who.clone(), vec![item(9)]);
    for (request, expected) in [
        (Request::Heartbeat(stranger.clone()), ErrorCode::UnknownMemberId),
        (sync(&stranger, Vec::new()), ErrorCode::UnknownMemberId),
        (commit(&stranger), ErrorCode::UnknownMemberId),
        (
            Request::Join(join(Some(stranger.member.clone()), "own")),
            ErrorCode::UnknownMemberId,
        ),
        (Request::Heartbeat(stale.clone()), ErrorCode::IllegalGeneration),
        (sync(&stale, Vec::new()), ErrorCode::IllegalGeneration),
        (commit(&stale), ErrorCode::IllegalGeneration),
        (commit(&nobody), ErrorCode::UnknownMemberId),
        (Request::Join(join(None, "other")), ErrorCode::InconsistentGroupProtocol),
        (Request::Delete, ErrorCode::NonEmptyGroup),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(code(bench.ask("g", request)), expected, "{shown}");
        assert_eq!(bench.shard.summary(), before, "{shown}");
    }
    let codes = bench.ask("g", Request::Leave(vec![(stranger.member, None)]));
    assert_eq!(codes, Ok(Answer::Left(vec![ErrorCode::UnknownMemberId])));
    let places = vec![("a".to_owned(), 0)];
    assert_eq!(
        bench.ask("g", Request::ForgetOffsets(places)),
        Ok(Answer::Forgotten(vec![ErrorCode::GroupSubscribedToTopic]))
    );
    assert_eq!(bench.shard.summary(), before);
    assert_eq!(bench.ask("g", Request::Heartbeat(who)), Ok(Answer::Alive));
}

#[test]
fn offsets_that_no_answer_can_hold_are_not_put_together_for_one() {
    let mut bench = Bench::new(config());
    let places = 0..(ANSWER_BYTES_MAX / 4_096) as i32;
    let topics = [("a".to_owned(), places.end.cast_unsigned())];
    bench.step(Event::Topics(Rc::new(topics.into_iter().collect())));
    let who = bench.stable("g", "own");
    let items = places.clone().map(|partition| CommitItem {
        partition,
        metadata: "m".repeat(4_096),
        ..item(1)
    });
    bench.ask("g", Request::Commit(who, items.collect())).unwrap();
    let named =
        |places: Range<i32>| Request::Offsets(None, Some(places.map(|place| ("a".to_owned(), place)).collect()));
    let all = named(places.clone());
    for request in [Request::Offsets(None, None), all] {
        let refused = bench.ask("g", request).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
        assert!(refused.message.contains("name the partitions"), "{}", refused.message);
    }
    let half = places.start..places.end / 2;
    let Ok(Answer::Offsets(offsets)) = bench.ask("g", named(half.clone())) else {
        panic!("half of it can be told");
    };
    assert_eq!(offsets.len(), half.len());
}

#[test]
fn an_offset_that_cannot_be_is_refused_and_the_others_are_committed() {
    let mut bench = Bench::new(config());
    let who = bench.stable("g", "own");
    let oversized = CommitItem {
        partition: 1,
        metadata: "m".repeat(5_000),
        ..item(1)
    };
    let missing = [4, -1].map(|partition| CommitItem { partition, ..item(1) });
    let unknown = CommitItem {
        topic: "b".to_owned(),
        ..item(1)
    };
    let good = CommitItem {
        partition: 3,
        ..item(100)
    };
    let [above, below] = missing;
    let items = vec![item(-1), oversized, above, below, unknown, good];
    let codes = [
        ErrorCode::OffsetOutOfRange,
        ErrorCode::OffsetMetadataTooLarge,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::None,
    ];
    assert_eq!(
        bench.ask("g", Request::Commit(who, items)),
        Ok(Answer::Committed(codes.to_vec()))
    );
    let Ok(Answer::Offsets(offsets)) = bench.ask("g", Request::Offsets(None, None)) else {
        panic!("offsets are shown");
    };
    let shown: Vec<(i32, i64)> = offsets
        .iter()
        .map(|(_, place, committed)| (*place, committed.as_ref().unwrap().offset))
        .collect();
    assert_eq!(shown, [(3, 100)]);
}

#[test]
fn an_assignment_that_cannot_be_read_is_refused_and_the_leader_may_try_again() {
    let mut bench = Bench::new(config());
    let Ok(Answer::MemberIdRequired(id)) = bench.ask("g", Request::Join(join(None, "own"))) else {
        panic!("a new member is told its id first");
    };
    let call = bench.send("g", Request::Join(join(Some(id.clone()), "own")));
    bench.pass(Duration::from_millis(200));
    let Some(Ok(Answer::Joined(joined))) = bench.take(call) else {
        panic!("it joins")
    };
    let who = Identity {
        generation: joined.generation,
        member: id.clone(),
        instance: None,
    };
    let written = bench.records.len();
    let malformed = vec![(id.clone(), Bytes::from_static(b"\0\x01\x7f\xff\xff\xff"))];
    assert_eq!(code(bench.ask("g", sync(&who, malformed))), ErrorCode::InvalidRequest);
    assert_eq!(bench.records.len(), written, "nothing is stored");
    assert!(matches!(
        bench.ask("g", sync(&who, vec![(id, Bytes::new())])),
        Ok(Answer::Synced(_))
    ));
}

#[test]
fn limits_are_kept() {
    let limits = GroupsSection {
        members_max: 1,
        count_max: 2,
        ..GroupsSection::clone(&config())
    };
    let mut bench = Bench::new(Rc::new(limits));
    bench.stable("g", "server-sticky");
    assert_eq!(
        code(bench.ask("g", Request::Join(join(None, "server-sticky")))),
        ErrorCode::GroupMaxSizeReached
    );
    for session in [Duration::ZERO, Duration::from_secs(5), Duration::from_hours(1)] {
        let mut join = join(None, "server-sticky");
        join.timeouts.session = session;
        assert_eq!(
            code(bench.ask("other", Request::Join(join))),
            ErrorCode::InvalidSessionTimeout
        );
    }
    let mut unreadable = join(None, "server-sticky");
    unreadable.protocols[0].metadata = Bytes::from_static(b"\0");
    assert_eq!(
        code(bench.ask("other", Request::Join(unreadable))),
        ErrorCode::InvalidRequest
    );
    assert_eq!(bench.shard.list().count(), 1, "what is refused makes no group");
    bench.stable("second", "own");
    assert_eq!(
        code(bench.ask("third", Request::Join(join(None, "own")))),
        ErrorCode::PolicyViolation
    );
}

/// A group that is held to records of so many bytes.
fn narrow(record_bytes_max: usize) -> Bench {
    let mut bench = Bench::new(config());
    bench.shard.hold_records_to(record_bytes_max);
    bench
}

/// Joins with so many bytes of user data, as a static member, which needs one step only.
fn large(name: &str, protocol: &str, bytes: usize) -> Request {
    let subscription = Subscription {
        topics: vec!["a".to_owned()],
        user_data: Some(vec![7; bytes]),
        ..Subscription::default()
    };
    let mut join = Join {
        fresh: MemberId::new(name),
        instance: Some(InstanceId::new(name)),
        ..join(None, protocol)
    };
    join.protocols[0].metadata = subscription.encode().into();
    Request::Join(join)
}

#[test]
fn a_member_whose_group_would_not_fit_a_record_is_refused_and_the_others_go_on() {
    for protocol in ["server-sticky", "server-range", "own"] {
        let mut bench = narrow(10_000);
        let calls = ["one", "two", "three"].map(|name| bench.send("g", large(name, protocol, 2_500)));
        let fourth = bench.ask("g", large("four", protocol, 2_500)).unwrap_err();
        assert_eq!(fourth.code, ErrorCode::GroupMaxSizeReached);
        assert!(fourth.message.contains("may have 10000"), "{}", fourth.message);
        bench.pass(Duration::from_secs(1));
        let joined = calls.map(|call| match bench.take(call) {
            Some(Ok(Answer::Joined(joined))) => joined,
            other => panic!("{other:?}"),
        });
        let who = |index: usize, name: &str| Identity {
            generation: joined[index].generation,
            member: joined[index].member.clone(),
            instance: Some(InstanceId::new(name)),
        };
        let Ok(Answer::Synced(_)) = bench.ask("g", sync(&who(0, "one"), Vec::new())) else {
            panic!("{protocol}: it gets its assignment")
        };
        let sizes: Vec<usize> = bench.records.iter().map(Record::size).collect();
        assert!(sizes.iter().all(|size| (7_500..=10_000).contains(size)), "{sizes:?}");
    }
}

#[test]
fn an_assignment_that_does_not_fit_a_record_is_answered_as_in_kafka_and_another_is_taken() {
    let mut bench = narrow(10_000);
    let who = bench.stable("g", "own");
    let written = bench.records.len();
    // With its next generation it hands in more than there is room for.
    let again = |who: &Identity| Request::Join(join(Some(who.member.clone()), "own"));
    let Ok(Answer::Joined(joined)) = bench.ask("g", again(&who)) else {
        panic!("it joins")
    };
    let who = Identity {
        generation: joined.generation,
        ..who
    };
    let assignment = |bytes| {
        let assignment = headwater_protocol::group::Assignment {
            partitions: Vec::new(),
            user_data: Some(vec![7; bytes]),
        };
        vec![(who.member.clone(), Bytes::from(assignment.encode()))]
    };
    assert_eq!(
        code(bench.ask("g", sync(&who, assignment(10_000)))),
        ErrorCode::UnknownServerError
    );
    assert_eq!(bench.records.len(), written, "nothing is stored");
    let Ok(Answer::Joined(joined)) = bench.ask("g", again(&who)) else {
        panic!("it joins")
    };
    let later = Identity {
        generation: joined.generation,
        ..who.clone()
    };
    let Ok(Answer::Synced(synced)) = bench.ask("g", sync(&later, assignment(5_000))) else {
        panic!("it fits")
    };
    assert!(synced.assignment.len() > 5_000);
}

#[test]
fn when_topics_have_grown_beyond_what_a_record_holds_the_members_are_told() {
    let mut bench = narrow(4_000);
    let who = bench.stable("g", "server-range");
    let grown = [("a".to_owned(), 2_000)].into_iter().collect::<Topics>();
    bench.step(Event::Topics(Rc::new(grown)));
    let call = bench.send("g", Request::Join(join(Some(who.member.clone()), "server-range")));
    assert_eq!(code(bench.take(call).unwrap()), ErrorCode::GroupMaxSizeReached);
}
