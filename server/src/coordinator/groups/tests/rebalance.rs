//! What happens to groups in time and through their members, one promise at a time.

use std::{rc::Rc, time::Duration};

use headwater_protocol::{error::ErrorCode, id::LeaderEpoch};

use super::{
    errors::{Bench, join, sync},
    world::{NOON, config},
    *,
};

fn nobody() -> Identity {
    Identity {
        generation: Generation::new(-1),
        member: MemberId::new(""),
        instance: None,
    }
}

fn commit(offset: i64) -> Request {
    let item = CommitItem {
        topic: "a".to_owned(),
        partition: 0,
        offset,
        leader_epoch: LeaderEpoch::NONE,
        metadata: String::new(),
    };
    Request::Commit(nobody(), vec![item])
}

fn committed(bench: &mut Bench, group: &str) -> usize {
    match bench.ask(group, Request::Offsets(None, None)) {
        Ok(Answer::Offsets(offsets)) => offsets.len(),
        other => panic!("{other:?}"),
    }
}

fn state(bench: &mut Bench, group: &str) -> &'static str {
    match bench.ask(group, Request::Describe) {
        Ok(Answer::Described(described)) => described.state,
        Err(refusal) => refusal.code.name(),
        Ok(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_member_that_is_silent_for_its_session_is_taken_out() {
    let mut bench = Bench::new(config());
    let who = bench.stable("g", "server-range");
    bench.pass(Duration::from_secs(9));
    assert_eq!(bench.ask("g", Request::Heartbeat(who.clone())), Ok(Answer::Alive));
    bench.pass(Duration::from_secs(9));
    assert_eq!(state(&mut bench, "g"), "Stable");
    bench.pass(Duration::from_secs(2));
    assert_eq!(state(&mut bench, "g"), "Empty");
    let refused = bench.ask("g", Request::Heartbeat(who)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownMemberId);
}

#[test]
fn an_id_that_nobody_joins_with_is_forgotten_with_its_group() {
    let mut bench = Bench::new(config());
    bench.ask("g", Request::Join(join(None, "own"))).unwrap();
    assert_eq!(bench.shard.list().count(), 1);
    bench.pass(Duration::from_secs(11));
    assert_eq!(bench.shard.list().count(), 0);
    assert!(bench.records.is_empty());
}

#[test]
fn offsets_of_a_group_that_was_empty_for_long_are_deleted_by_tombstones() {
    let mut bench = Bench::new(config());
    bench.ask("simple", commit(3)).unwrap();
    let who = bench.stable("g", "server-range");
    let member = Identity { ..who.clone() };
    let Request::Commit(_, items) = commit(5) else { panic!() };
    bench.ask("g", Request::Commit(member, items)).unwrap();
    bench.ask("g", Request::Leave(vec![(who.member, None)])).unwrap();
    bench.pass(Duration::from_hours(7 * 24 - 1));
    assert_eq!((committed(&mut bench, "g"), committed(&mut bench, "simple")), (1, 1));
    bench.pass(Duration::from_hours(2));
    assert_eq!(bench.shard.list().count(), 0);
    let is_tombstone = |record: &&Record| record.value().is_none();
    let deleted = bench.records.iter().filter(is_tombstone).count();
    assert_eq!(deleted, 4, "an offset and a group each");
}

#[test]
fn a_group_can_be_deleted_when_it_is_empty_and_its_name_used_again() {
    let mut bench = Bench::new(config());
    bench.ask("g", commit(3)).unwrap();
    assert_eq!(bench.ask("g", Request::Delete), Ok(Answer::Deleted));
    assert_eq!(state(&mut bench, "g"), "GROUP_ID_NOT_FOUND");
    assert_eq!(committed(&mut bench, "g"), 0);
    bench.ask("g", commit(4)).unwrap();
    assert_eq!(committed(&mut bench, "g"), 1);
}

#[test]
fn committed_offsets_go_with_their_topic() {
    let mut bench = Bench::new(config());
    bench.ask("g", commit(3)).unwrap();
    bench.step(Event::Topics(Rc::default()));
    assert_eq!(committed(&mut bench, "g"), 0);
}

/// What a log says once it has been compacted, and all tombstones are gone.
fn compacted(records: &[Record]) -> Vec<Record> {
    let is_last =
        |(index, record): &(usize, &Record)| records[index + 1..].iter().all(|later| later.key() != record.key());
    let kept = records.iter().enumerate().filter(is_last);
    kept.map(|(_, record)| record.clone())
        .filter(|record| record.value().is_some())
        .collect()
}

#[test]
fn what_is_deleted_while_a_commit_is_under_way_does_not_come_back_from_a_compacted_log() {
    for delete in [
        Event::Call {
            call: CallId(100),
            group: GroupId::new("g"),
            request: Request::Delete,
        },
        Event::Topics(Rc::default()),
    ] {
        let mut bench = Bench::new(config());
        bench.ask("g", commit(3)).unwrap();
        let Request::Commit(_, mut items) = commit(4) else {
            panic!()
        };
        items[0].partition = 1;
        let later = Event::Call {
            call: CallId(99),
            group: GroupId::new("g"),
            request: Request::Commit(nobody(), items),
        };
        bench.step_together(vec![later, delete]);
        assert_eq!(
            bench.take(CallId(99)).unwrap(),
            Ok(Answer::Committed(vec![ErrorCode::None]))
        );
        assert_eq!(committed(&mut bench, "g"), 0);
        let left: Vec<Record> = compacted(&bench.records);
        assert!(
            !left.iter().any(|record| matches!(record, Record::Offset { .. })),
            "{left:?}"
        );
    }
}

#[test]
fn new_partitions_make_the_groups_rebalance_that_subscribe_to_the_topic() {
    let mut bench = Bench::new(config());
    bench.stable("g", "server-sticky");
    bench.stable("own", "own");
    let grown = |a, b| {
        Rc::new(
            [("a".to_owned(), a), ("b".to_owned(), b)]
                .into_iter()
                .collect::<Topics>(),
        )
    };
    bench.step(Event::Topics(grown(4, 9)));
    assert_eq!(state(&mut bench, "g"), "Stable");
    bench.step(Event::Topics(grown(5, 9)));
    assert_eq!(state(&mut bench, "g"), "PreparingRebalance");
    assert_eq!(state(&mut bench, "own"), "Stable", "its members look for themselves");
}

#[test]
fn a_static_member_that_is_started_again_gets_what_it_had_and_its_former_self_is_fenced() {
    let mut bench = Bench::new(config());
    let fixed = |fresh: &str| Join {
        instance: Some(InstanceId::new("i")),
        fresh: MemberId::new(fresh),
        ..join(None, "server-sticky")
    };
    let call = bench.send("g", Request::Join(fixed("one")));
    bench.pass(Duration::from_millis(200));
    let Some(Ok(Answer::Joined(first))) = bench.take(call) else {
        panic!("it joins")
    };
    let as_member = |member: &str| Identity {
        generation: first.generation,
        member: MemberId::new(member),
        instance: Some(InstanceId::new("i")),
    };
    let Ok(Answer::Synced(had)) = bench.ask("g", sync(&as_member("one"), Vec::new())) else {
        panic!("it is assigned");
    };
    let Ok(Answer::Joined(again)) = bench.ask("g", Request::Join(fixed("two"))) else {
        panic!("it joins at once, without a rebalance");
    };
    assert_eq!(
        (again.generation, again.member),
        (first.generation, MemberId::new("two"))
    );
    assert_eq!(
        bench.ask("g", sync(&as_member("two"), Vec::new())),
        Ok(Answer::Synced(had))
    );
    for request in [
        Request::Heartbeat(as_member("one")),
        sync(&as_member("one"), Vec::new()),
    ] {
        assert_eq!(bench.ask("g", request).unwrap_err().code, ErrorCode::FencedInstanceId);
    }
    let left = bench.ask(
        "g",
        Request::Leave(vec![(MemberId::new("one"), Some(InstanceId::new("i")))]),
    );
    assert_eq!(left, Ok(Answer::Left(vec![ErrorCode::FencedInstanceId])));
    let left = bench.ask(
        "g",
        Request::Leave(vec![(MemberId::new(""), Some(InstanceId::new("i")))]),
    );
    assert_eq!(left, Ok(Answer::Left(vec![ErrorCode::None])));
}

const DAY: Duration = Duration::from_hours(24);
const YEAR_MS: i64 = 365 * 24 * 3_600_000;

#[test]
fn a_jump_of_the_clock_neither_expires_committed_offsets_nor_keeps_them_for_ever() {
    let retention = config().offsets_retention_ms.duration();
    assert!(retention > DAY);
    for ahead in [YEAR_MS, -YEAR_MS] {
        let mut bench = Bench::new(config());
        bench.ahead = ahead;
        bench.ask("g", commit(3)).unwrap();
        bench.ahead = 0;
        bench.pass(retention.saturating_sub(DAY));
        assert_eq!(committed(&mut bench, "g"), 1, "{ahead}");
        bench.pass(2 * DAY);
        assert_eq!(committed(&mut bench, "g"), 0, "{ahead}");
    }
}

#[test]
fn committed_offsets_whose_time_is_absent_or_ahead_count_from_when_they_were_read() {
    let retention = config().offsets_retention_ms.duration();
    let behind = NOON - retention.as_millis() as i64;
    for (at, kept) in [(-1, true), (NOON + YEAR_MS, true), (behind, false)] {
        let mut bench = Bench::new(config());
        let value = Committed {
            offset: 3,
            leader_epoch: LeaderEpoch::NONE,
            metadata: String::new(),
            at: Since::from(at),
        };
        let record = Record::Offset {
            group: GroupId::new("g"),
            topic: "a".to_owned(),
            partition: 0,
            value: Some(value),
        };
        let now = bench.moment();
        bench.shard.replay(record, None, now);
        bench.pass(DAY);
        assert_eq!(committed(&mut bench, "g"), usize::from(kept), "{at}");
        bench.pass(retention);
        assert_eq!(committed(&mut bench, "g"), 0, "{at}");
    }
}
