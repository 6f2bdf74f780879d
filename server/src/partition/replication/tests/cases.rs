//! Each rule alone.

use std::time::{Duration, Instant};

use headwater_engine::{CommonPoint, EpochEnd};
use headwater_protocol::id::{BrokerId, LeaderEpoch, Offset};

use super::{
    log::{at, offset},
    node::LAG_MAX,
    *,
};
use crate::image::{Incarnation, PartitionEpoch, Replicas, Terms};

const EPOCH: LeaderEpoch = LeaderEpoch::new(5);

fn held(received: usize, durable: usize) -> Held {
    Held {
        received: offset(received),
        durable: offset(durable),
    }
}

fn replicas(isr: &[i32], epoch: u64, min_isr: u16, durability: Durability) -> Replicas {
    let brokers = |ids: &[i32]| ids.iter().copied().map(BrokerId::new).collect::<Vec<_>>();
    Replicas {
        leader_epoch: EPOCH,
        epoch: PartitionEpoch::new(epoch),
        ..Replicas::new(brokers(&[1, 2, 3]), brokers(isr), Terms { min_isr, durability })
    }
}

fn peer(broker: i32, incarnation: u64, connection: u64) -> Peer {
    Peer {
        member: Member {
            broker: BrokerId::new(broker),
            incarnation: Incarnation::new(incarnation),
        },
        connection,
    }
}

/// A leader whose log has 100 records, all durable; it knew a watermark of 40 as a follower.
struct Led {
    leader: Leader,
    now: Instant,
}

impl Led {
    fn new(replicas: Replicas) -> Led {
        let now = Instant::now();
        let own = BrokerId::new(1);
        let leader = Leader::new(own, replicas, (held(100, 100), offset(100)), offset(40), LAG_MAX, now);
        Led { leader, now }
    }

    fn fetches_as(&mut self, peer: Peer, fetch: Fetch) -> Result<Answer, FetchRefused> {
        let log = LeaderLog {
            start: offset(10),
            end: offset(100),
            holes_below: Offset::ZERO,
            end_of_last: EpochEnd {
                epoch: LeaderEpoch::new(3),
                end: offset(100),
            },
        };
        self.leader.fetched(peer, &fetch, log, self.now)
    }

    fn fetches(&mut self, broker: i32, held: Held) -> Result<Answer, FetchRefused> {
        self.fetches_as(peer(broker, 1, 1), fetch(held))
    }

    fn watermark(&self) -> usize {
        at(self.leader.watermark())
    }

    /// Who would stay and who would join.
    fn wishes(&mut self) -> Option<(Vec<i32>, Vec<i32>)> {
        let wish = self.leader.wish(self.now)?;
        let stay = wish.stay.iter().map(|broker| broker.get()).collect();
        let join = wish.join.iter().map(|(broker, _)| broker.get()).collect();
        Some((stay, join))
    }
}

fn fetch(held: Held) -> Fetch {
    let place = Place {
        leader_epoch: EPOCH,
        offset: held.received,
        last_epoch: LeaderEpoch::new(3),
    };
    Fetch { place, held }
}

#[test]
fn a_new_leader_knows_the_watermark_once_all_that_an_earlier_one_may_have_shown_is_on_enough_replicas() {
    let mut led = Led::new(replicas(&[1, 2, 3], 0, 2, Durability::Disk));
    led.fetches(2, held(100, 100)).unwrap();
    led.fetches(3, held(100, 99)).unwrap();
    assert_eq!((led.watermark(), led.leader.knows_watermark()), (99, false));
    led.fetches(3, held(100, 100)).unwrap();
    assert_eq!((led.watermark(), led.leader.knows_watermark()), (100, true));
    // What is appended from here on no other has shown.
    led.leader.appended(held(200, 200), offset(200), led.now);
    assert!(led.leader.knows_watermark());
    let alone = Led::new(replicas(&[1], 0, 1, Durability::Disk));
    assert!(alone.leader.knows_watermark());
}

#[test]
fn a_follower_is_behind_by_what_it_lacks_on_its_disk_and_since_it_had_everything() {
    let mut led = Led::new(replicas(&[1, 2, 3], 0, 2, Durability::Disk));
    led.fetches(2, held(100, 100)).unwrap();
    led.fetches(3, held(100, 70)).unwrap();
    let later = led.now + Duration::from_secs(4);
    let behind = Lag {
        least: Some(offset(70)),
        time: Duration::from_secs(4),
        catching_up: 0,
    };
    assert_eq!(led.leader.lag(later), behind);
    led.fetches(3, held(100, 100)).unwrap();
    assert_eq!(led.leader.lag(later), Lag::default());

    let mut led = Led::new(replicas(&[1, 2], 0, 2, Durability::Disk));
    led.fetches(2, held(100, 100)).unwrap();
    assert_eq!(
        led.leader.lag(later).catching_up,
        0,
        "it is not in sync, and does not fetch"
    );
    led.fetches(3, held(100, 70)).unwrap();
    assert_eq!(
        (led.leader.lag(later).least, led.leader.lag(later).catching_up),
        (Some(offset(70)), 1)
    );
}

#[test]
fn the_watermark_is_what_all_in_sync_replicas_have_durably_or_have_received_if_memory_is_enough() {
    for (durability, expected) in [(Durability::Disk, 60), (Durability::Memory, 80)] {
        let mut led = Led::new(replicas(&[1, 2, 3], 0, 2, durability));
        led.fetches(2, held(90, 70)).unwrap();
        assert_eq!(led.watermark(), 40, "one of them has not been heard");
        led.fetches(3, held(80, 60)).unwrap();
        assert_eq!(led.watermark(), expected);
        led.fetches(3, held(70, 50)).unwrap();
        assert_eq!(led.watermark(), expected, "what comes late takes nothing back");
        led.leader.appended(held(120, 110), offset(120), led.now);
        assert_eq!(led.watermark(), expected);
    }
}

#[test]
fn nothing_is_acknowledged_while_too_few_are_in_sync_for_certain() {
    let mut led = Led::new(replicas(&[1], 0, 2, Durability::Disk));
    led.fetches(2, held(100, 100)).unwrap();
    assert_eq!(led.wishes(), Some((vec![1], vec![2])));
    led.fetches(2, held(100, 100)).unwrap();
    assert_eq!(led.watermark(), 40, "it may not be in sync yet");
    led.leader.learn(replicas(&[1, 2], 1, 2, Durability::Disk), led.now);
    assert_eq!(led.watermark(), 100);
}

#[test]
fn who_may_be_in_sync_by_now_is_waited_for() {
    let mut led = Led::new(replicas(&[1, 2], 0, 2, Durability::Disk));
    led.fetches(2, held(100, 100)).unwrap();
    led.fetches(3, held(100, 100)).unwrap();
    assert_eq!(led.wishes(), Some((vec![1, 2], vec![3])));
    led.leader.appended(held(120, 120), offset(120), led.now);
    led.leader
        .fetched(peer(2, 1, 1), &fetch(held(120, 120)), longer(120), led.now)
        .unwrap();
    assert_eq!(led.watermark(), 100);
    led.leader.learn(replicas(&[1, 2], 1, 2, Durability::Disk), led.now);
    assert_eq!(led.watermark(), 120, "it was not let in");
    led.leader
        .fetched(peer(3, 1, 1), &fetch(held(120, 120)), longer(120), led.now)
        .unwrap();
    assert_eq!(led.wishes(), None, "and is not proposed again at once");
    led.now += Duration::from_secs(1);
    assert_eq!(led.wishes(), Some((vec![1, 2], vec![3])));
}

fn longer(end: usize) -> LeaderLog {
    LeaderLog {
        start: offset(10),
        end: offset(end),
        holes_below: Offset::ZERO,
        end_of_last: EpochEnd {
            epoch: LeaderEpoch::new(3),
            end: offset(end),
        },
    }
}

#[test]
fn what_was_asked_is_asked_again_until_a_newer_state_is_known() {
    let mut led = Led::new(replicas(&[1, 2, 3], 7, 2, Durability::Disk));
    led.fetches(2, held(100, 100)).unwrap();
    led.now += LAG_MAX * 2;
    led.fetches(2, held(100, 100)).unwrap();
    assert_eq!(led.wishes(), Some((vec![1, 2], vec![])));
    led.fetches(3, held(100, 100)).unwrap();
    assert_eq!(led.wishes(), Some((vec![1, 2], vec![])), "it may have been done");
    led.leader.learn(replicas(&[1, 2, 3], 7, 2, Durability::Disk), led.now);
    assert_eq!(led.wishes(), Some((vec![1, 2], vec![])), "this was known before");
    led.leader.learn(replicas(&[1, 2], 8, 2, Durability::Disk), led.now);
    assert_eq!(led.wishes(), Some((vec![1, 2], vec![3])));
}

#[test]
fn a_follower_joins_when_it_has_the_watermark_and_all_that_was_there_when_the_leader_began() {
    let mut led = Led::new(replicas(&[1, 2], 0, 1, Durability::Disk));
    led.fetches(3, held(100, 99)).unwrap();
    assert_eq!(
        led.wishes(),
        None,
        "a leader of before may have acknowledged 99, though the watermark is 40"
    );
    led.fetches(3, held(100, 100)).unwrap();
    assert_eq!(led.wishes(), Some((vec![1, 2], vec![3])));
}

#[test]
fn who_would_be_late_at_once_is_not_let_in() {
    let mut led = Led::new(replicas(&[1], 0, 1, Durability::Disk));
    led.leader.appended(held(100, 100), offset(120), led.now);
    led.now += LAG_MAX * 2;
    let fetches = |led: &mut Led, has, end| {
        let fetch = fetch(held(has, has));
        let fetched = led.leader.fetched(peer(2, 1, 1), &fetch, longer(end), led.now);
        fetched.unwrap();
        led.wishes()
    };
    let wishes = fetches(&mut led, 100, 120);
    assert_eq!(wishes, None, "it has what is acknowledged, and was away for long");
    led.leader.appended(held(100, 100), offset(130), led.now);
    let wishes = fetches(&mut led, 120, 130);
    assert_eq!(
        wishes,
        Some((vec![1], vec![2])),
        "it has come to where the log ended just now"
    );
    led.leader.learn(replicas(&[1, 2], 1, 1, Durability::Disk), led.now);
    assert_eq!(led.wishes(), None);
}

#[test]
fn a_late_flush_costs_nobody_its_place_and_falling_behind_for_long_or_losing_records_does() {
    let mut led = Led::new(replicas(&[1, 2, 3], 0, 1, Durability::Disk));
    led.fetches(2, held(100, 100)).unwrap();
    led.fetches(3, held(100, 50)).unwrap();
    led.now += LAG_MAX / 2;
    assert_eq!(led.wishes(), None);
    // It has come to where the log ended half the time ago.
    led.fetches(3, held(100, 100)).unwrap();
    led.leader.appended(held(120, 120), offset(120), led.now);
    led.now += LAG_MAX;
    led.leader
        .fetched(peer(2, 1, 1), &fetch(held(120, 120)), longer(120), led.now)
        .unwrap();
    assert_eq!(led.wishes(), None, "it was caught up no longer ago than it may");
    led.now += Duration::from_millis(1);
    assert_eq!(led.wishes(), Some((vec![1, 2], vec![])));

    let mut led = Led::new(replicas(&[1, 2, 3], 0, 1, Durability::Disk));
    led.fetches(2, held(100, 100)).unwrap();
    led.fetches(3, held(100, 100)).unwrap();
    assert_eq!(led.watermark(), 100);
    led.fetches_as(peer(3, 1, 2), fetch(held(90, 90))).unwrap();
    assert_eq!(
        led.wishes(),
        Some((vec![1, 2], vec![])),
        "it lacks what was acknowledged"
    );
}

#[test]
fn a_follower_that_ends_where_the_leader_begins_begins_again_unless_its_last_epoch_goes_on_there() {
    let mut led = Led::new(replicas(&[1, 2], 0, 1, Durability::Disk));
    let ends_at = |end| LeaderLog {
        start: offset(10),
        end: offset(100),
        holes_below: Offset::ZERO,
        end_of_last: EpochEnd {
            epoch: LeaderEpoch::new(3),
            end: offset(end),
        },
    };
    let place = fetch(held(10, 10));
    let again = Ok(Answer::BeginAgain { at: offset(10) });
    assert_eq!(led.leader.fetched(peer(2, 1, 1), &place, ends_at(10), led.now), again);
    assert_eq!(led.watermark(), 40, "what it has counts for nothing");
    let goes_on = led.leader.fetched(peer(2, 1, 1), &place, ends_at(11), led.now);
    assert!(matches!(goes_on, Ok(Answer::Records(_))), "{goes_on:?}");
}

#[test]
fn who_has_everything_while_nothing_is_appended_is_not_late_when_something_is() {
    let mut led = Led::new(replicas(&[1, 2], 0, 1, Durability::Disk));
    led.fetches(2, held(100, 100)).unwrap();
    led.now += LAG_MAX * 10;
    led.leader.appended(held(120, 120), offset(120), led.now);
    assert_eq!(led.wishes(), None);
    led.now += LAG_MAX + Duration::from_millis(1);
    assert_eq!(led.wishes(), Some((vec![1], vec![])));
}

#[test]
fn fetches_of_other_epochs_older_connections_and_strangers_have_no_effect() {
    let mut led = Led::new(replicas(&[1, 2], 0, 1, Durability::Disk));
    let full = fetch(held(100, 100));
    let of = |epoch| Fetch {
        place: Place {
            leader_epoch: LeaderEpoch::new(epoch),
            ..full.place
        },
        ..full
    };
    let (said, is) = (LeaderEpoch::new(4), EPOCH);
    assert_eq!(
        led.fetches_as(peer(2, 1, 1), of(4)),
        Err(FetchRefused::FencedEpoch { said, is })
    );
    let said = LeaderEpoch::new(6);
    assert_eq!(
        led.fetches_as(peer(2, 1, 1), of(6)),
        Err(FetchRefused::UnknownEpoch { said, is })
    );
    let stranger = Err(FetchRefused::NotReplica(BrokerId::new(9)));
    assert_eq!(led.fetches(9, held(100, 100)), stranger);
    led.fetches_as(peer(2, 7, 3), fetch(held(50, 50))).unwrap();
    for older in [peer(2, 6, 9), peer(2, 7, 2)] {
        assert_eq!(led.fetches_as(older, full), Err(FetchRefused::Stale));
    }
    let more = Fetch {
        held: held(70, 70),
        ..fetch(held(60, 60))
    };
    assert_eq!(led.fetches_as(peer(2, 7, 3), more), Err(FetchRefused::Contradiction));
    let more = fetch(held(60, 70));
    assert_eq!(led.fetches_as(peer(2, 7, 3), more), Err(FetchRefused::Contradiction));
    assert_eq!(led.watermark(), 50);
}

#[test]
fn a_log_that_is_not_the_leaders_counts_for_nothing_and_is_told_where_it_parts() {
    let mut led = Led::new(replicas(&[1, 2], 0, 1, Durability::Disk));
    let there = EpochEnd {
        epoch: LeaderEpoch::new(3),
        end: offset(100),
    };
    let other = |last_epoch, from| {
        let full = fetch(held(90, 90));
        let place = Place {
            last_epoch: LeaderEpoch::new(last_epoch),
            offset: offset(from),
            ..full.place
        };
        Fetch { place, ..full }
    };
    assert_eq!(
        led.fetches_as(peer(2, 1, 1), other(4, 90)),
        Ok(Answer::Diverging(there))
    );
    assert_eq!(
        led.fetches_as(peer(2, 1, 1), other(3, 101)),
        Ok(Answer::Diverging(there))
    );
    let again = Ok(Answer::BeginAgain { at: offset(10) });
    assert_eq!(led.fetches_as(peer(2, 1, 1), fetch(held(9, 9))), again);
    assert_eq!(led.fetches_as(peer(2, 1, 1), other(-1, 101)), again);
    let empty = Fetch {
        held: held(0, 0),
        ..other(-1, 5)
    };
    assert!(
        matches!(led.fetches_as(peer(2, 1, 1), empty), Ok(Answer::Records(_))),
        "it begins where the records do"
    );
    assert_eq!(led.watermark(), 40);
    assert!(matches!(
        led.fetches_as(peer(2, 1, 1), other(3, 90)),
        Ok(Answer::Records(_))
    ));
    assert_eq!(led.watermark(), 90);
}

#[test]
fn a_follower_cuts_what_is_not_the_leaders_before_it_appends_and_heeds_no_answer_to_what_it_asked_before() {
    let log = |end, epoch| Log {
        end: offset(end),
        latest_epoch: Some(LeaderEpoch::new(epoch)),
        held: held(end, end),
        holes_below: offset(7),
    };
    let progress = Progress {
        high_watermark: offset(40),
        log_start: offset(0),
        holes_below: offset(7),
    };
    let (records, append) = (Answer::Records(progress), Act::Append(progress));
    let mut follower = Follower::new(EPOCH);
    let first = follower.fetch(log(90, 4)).unwrap().place;
    assert_eq!((first.offset, first.last_epoch.get()), (offset(90), 4));
    let end = EpochEnd {
        epoch: LeaderEpoch::new(3),
        end: offset(60),
    };
    assert_eq!(
        follower.answered(first, Answer::Diverging(end), log(90, 4)),
        Act::Truncate(end)
    );
    assert_eq!(follower.fetch(log(90, 4)), None, "its log is being cut");
    assert_eq!(follower.answered(first, records, log(90, 4)), Act::Nothing);
    let (epoch, below) = (LeaderEpoch::new(2), offset(50));
    follower.truncated(CommonPoint::Older { epoch, below });
    let Fetch {
        place: second,
        held: told,
    } = follower.fetch(log(90, 4)).unwrap();
    assert_eq!((second.offset, second.last_epoch), (below, epoch));
    assert_eq!(told, held(50, 50), "no more than may be the leader's");
    assert_eq!(follower.answered(first, records, log(90, 4)), Act::Nothing);
    let end = EpochEnd { epoch, end: below };
    assert_eq!(
        follower.answered(second, records, log(90, 4)),
        Act::Truncate(end),
        "before anything is appended"
    );
    follower.truncated(CommonPoint::At(below));
    let third = follower.fetch(log(50, 2)).unwrap().place;
    assert_eq!(follower.answered(third, records, log(50, 2)), append);
    let holes = Answer::Records(Progress {
        holes_below: offset(8),
        ..progress
    });
    assert_eq!(
        follower.answered(third, holes, log(50, 2)),
        Act::ExpectHoles(offset(8)),
        "before what lies behind one"
    );
    assert_eq!(
        follower.answered(third, records, log(51, 5)),
        Act::Nothing,
        "it has come already"
    );
    let begin_again = Answer::BeginAgain { at: offset(10) };
    assert_eq!(
        follower.answered(third, begin_again, log(50, 2)),
        Act::BeginAgain(offset(10))
    );
    assert_eq!(follower.fetch(log(50, 2)), None);
    follower.truncated(CommonPoint::At(offset(10)));
    let empty = Log {
        end: offset(10),
        latest_epoch: None,
        held: held(10, 10),
        holes_below: Offset::ZERO,
    };
    assert_eq!(follower.fetch(empty).unwrap().place.last_epoch, LeaderEpoch::NONE);
    assert_eq!(follower.begins_at(offset(8)), Act::BeginAgain(offset(8)));
    assert!(follower.is_cutting());
}

#[test]
fn a_replica_whose_log_has_failed_does_not_lead_before_the_coordinator_knows() {
    let now = Instant::now();
    let state = LogState {
        held: held(9, 9),
        end: offset(9),
        watermark: offset(0),
    };
    let mut replica = Replica::new(BrokerId::new(1), LAG_MAX);
    let leads = replicas(&[1, 2], 0, 1, Durability::Disk);
    replica.learn(&leads, state, now);
    assert!(matches!(replica.role(), Role::Leads(_)));
    replica.log_failed();
    let mut later = replicas(&[1, 2], 1, 1, Durability::Disk);
    later.leader_epoch = LeaderEpoch::new(6);
    for before in [&leads, &later] {
        replica.learn(before, state, now);
        assert!(
            matches!(replica.role(), Role::Waits),
            "not in this epoch, nor in one of which it has not heard"
        );
    }
    let mut known = replicas(&[2], 2, 1, Durability::Disk);
    known.offline = vec![BrokerId::new(1)];
    replica.learn(&known, state, now);
    assert!(matches!(replica.role(), Role::Follows(_)));
    let mut again = replicas(&[1, 2], 3, 1, Durability::Disk);
    again.leader_epoch = LeaderEpoch::new(7);
    replica.learn(&again, state, now);
    assert!(matches!(replica.role(), Role::Leads(leader) if leader.epoch() == LeaderEpoch::new(7)));
    replica.learn(&leads, state, now);
    assert!(
        matches!(replica.role(), Role::Leads(leader) if leader.epoch() == LeaderEpoch::new(7)),
        "an older state"
    );
}
