//! Promises of transactions' coordinator: answers stand whatever it crashes behind, what is decided is carried out, and a producer whose
//! time is over does nothing more.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use headwater_engine::Moment;
use headwater_protocol::{
    error::ErrorCode,
    id::{ProducerEpoch, ProducerId, Timestamp},
};

use super::{
    record::{Record, State},
    shard::{Effect, Event, Shard, WriteId},
};
use crate::{
    config::TransactionsSection,
    model::{
        group::CallId,
        transaction::{
            Adding, Answer, Described, End, Marker, Phase, Place, Producer, Reply, Request, TransactionalId,
        },
    },
};

const NOON: i64 = 1_700_000_000_000;
const TIMEOUT_MS: i32 = 60_000;

/// A coordinator with its log, and partitions that take markers.
struct World {
    shard: Shard,
    log: Vec<Record>,
    appends: VecDeque<(WriteId, Record)>,
    marks: VecDeque<(TransactionalId, Marker, BTreeSet<Place>)>,
    markers: BTreeMap<Place, Vec<Marker>>,
    answers: BTreeMap<CallId, Reply>,
    now: Duration,
    calls: u64,
    fresh: i64,
    term: i32,
    /// Appends until it crashes, and whether the last of them is durable.
    crash: Option<(usize, bool)>,
    /// Appends fail.
    is_broken: bool,
}

fn shard(term: i32, now: Moment) -> Shard {
    let config = Rc::new(TransactionsSection::default());
    Shard::new(config, (1 << 20, term), Rc::new(Cell::new(0)), now)
}

fn place(index: i32) -> Place {
    ("t".to_owned(), index)
}

fn id() -> TransactionalId {
    TransactionalId::new("shop")
}

impl World {
    fn new() -> World {
        let now = Duration::from_secs(1);
        let mut world = World {
            shard: shard(0, moment(now)),
            log: Vec::new(),
            appends: VecDeque::new(),
            marks: VecDeque::new(),
            markers: BTreeMap::new(),
            answers: BTreeMap::new(),
            now,
            calls: 0,
            fresh: 100,
            term: 0,
            crash: None,
            is_broken: false,
        };
        world.restart();
        world
    }

    /// Another coordinator takes over, with what is durable.
    fn restart(&mut self) {
        self.term += 1;
        self.appends.clear();
        self.marks.clear();
        self.shard = shard(self.term, moment(self.now));
        for record in &self.log {
            let read = Record::decode(&record.key(), record.value().as_deref())
                .unwrap()
                .unwrap();
            self.shard.replay(read);
        }
        let effects = self.shard.replayed(moment(self.now));
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer { call, reply } => {
                    assert!(self.answers.insert(call, reply).is_none(), "one answer a call");
                }
                Effect::Append { write, record } => self.appends.push_back((write, *record)),
                Effect::Mark { id, marker, places } => self.marks.push_back((id, marker, places)),
            }
        }
    }

    fn step(&mut self, event: Event) {
        let effects = self.shard.step(event, moment(self.now));
        self.perform(effects);
    }

    /// Does all that is to be done. False if it crashed meanwhile.
    fn run(&mut self) -> bool {
        loop {
            if let Some((write, record)) = self.appends.pop_front() {
                if let Some((left, is_durable)) = &mut self.crash {
                    *left -= 1;
                    if *left == 0 {
                        if *is_durable {
                            self.log.push(record);
                        }
                        self.crash = None;
                        self.restart();
                        return false;
                    }
                }
                let outcome = if self.is_broken {
                    Err(ErrorCode::NotEnoughReplicas)
                } else {
                    self.log.push(record);
                    Ok(())
                };
                self.step(Event::Written { write, outcome });
            } else if let Some((id, marker, places)) = self.marks.pop_front() {
                for place in places {
                    self.markers.entry(place.clone()).or_default().push(marker);
                    let id = id.clone();
                    self.step(Event::Marked { id, marker, place });
                }
            } else {
                return true;
            }
        }
    }

    /// The answer; `None` if the coordinator has crashed before.
    fn try_ask(&mut self, mut request: Request) -> Option<Reply> {
        loop {
            self.calls += 1;
            let call = CallId(self.calls);
            let asked = request.clone();
            self.step(Event::Call {
                call,
                id: id(),
                request: asked,
            });
            self.run();
            let reply = self.answers.remove(&call)?;
            if reply != Ok(Answer::NeedsId) {
                return Some(reply);
            }
            let (Request::Init { fresh, .. } | Request::End { fresh, .. }) = &mut request else {
                unreachable!("only they need an id");
            };
            *fresh = Some(ProducerId::new(self.fresh));
            self.fresh += 1;
        }
    }

    fn ask(&mut self, request: Request) -> Reply {
        self.try_ask(request).expect("it is answered")
    }

    fn init(&mut self, known: Option<Producer>) -> Result<Producer, ErrorCode> {
        match self.ask(init(known)) {
            Ok(Answer::Producer(producer)) => Ok(producer),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code),
        }
    }

    fn add(&mut self, producer: Producer, adding: Adding, indexes: &[i32]) -> Result<Vec<ErrorCode>, ErrorCode> {
        match self.ask(add(producer, adding, indexes)) {
            Ok(Answer::Added(codes)) => Ok(codes),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code),
        }
    }

    fn end(&mut self, producer: Producer, end: End, bumps: bool) -> Result<Producer, ErrorCode> {
        match self.ask(ending(producer, end, bumps)) {
            Ok(Answer::Ended(producer)) => Ok(producer),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code),
        }
    }

    fn described(&mut self) -> Described {
        match self.ask(Request::Describe) {
            Ok(Answer::Described(described)) => described,
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        while self.shard.next_deadline() <= self.now {
            self.step(Event::Tick);
            self.run();
        }
    }
}

fn moment(now: Duration) -> Moment {
    Moment {
        monotonic: now,
        clock: Timestamp::new(NOON + i64::try_from(now.as_millis()).unwrap()),
    }
}

fn init(known: Option<Producer>) -> Request {
    Request::Init {
        timeout_ms: TIMEOUT_MS,
        known,
        fresh: None,
    }
}

fn add(producer: Producer, adding: Adding, indexes: &[i32]) -> Request {
    Request::Add {
        producer,
        places: indexes.iter().copied().map(place).collect(),
        adding,
    }
}

fn ending(producer: Producer, end: End, bumps: bool) -> Request {
    Request::End {
        producer,
        end,
        bumps,
        fresh: None,
    }
}

const OK: ErrorCode = ErrorCode::None;

#[test]
fn each_start_has_another_epoch_and_fences_the_one_before() {
    let mut world = World::new();
    let nobody = Producer::new(12_345, 0);
    assert_eq!(
        world.add(nobody, Adding::Add, &[0]),
        Err(ErrorCode::InvalidProducerIdMapping)
    );
    let first = world.init(Some(nobody)).unwrap();
    assert_eq!(first, Producer::new(100, 0), "of an id that is new nobody is known");
    let second = world.init(None).unwrap();
    assert_eq!(second, Producer::new(100, 1));
    assert_eq!(world.add(first, Adding::Add, &[0]), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.end(first, End::Commit, false), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.init(Some(first)), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.init(Some(nobody)), Err(ErrorCode::ProducerFenced));
    let third = world.init(Some(second)).unwrap();
    assert_eq!(third, Producer::new(100, 2));
    assert_eq!(
        world.init(Some(second)),
        Ok(third),
        "the answer was lost, and it asks again"
    );
    for timeout_ms in [0, -1, 900_001] {
        let request = Request::Init {
            timeout_ms,
            known: None,
            fresh: None,
        };
        let refused = world.ask(request).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidTransactionTimeout, "{timeout_ms}");
    }
}

#[test]
fn a_partition_is_in_a_transaction_once_it_was_added_and_until_the_end() {
    let mut world = World::new();
    let producer = world.init(None).unwrap();
    let abortable = ErrorCode::TransactionAbortable;
    assert_eq!(world.add(producer, Adding::Verify, &[0]), Ok(vec![abortable]));
    assert_eq!(world.add(producer, Adding::Add, &[0, 1]), Ok(vec![OK, OK]));
    assert_eq!(world.add(producer, Adding::Verify, &[0, 2]), Ok(vec![OK, abortable]));
    let records = world.log.len();
    assert_eq!(world.add(producer, Adding::Add, &[1]), Ok(vec![OK]));
    assert_eq!(world.log.len(), records, "nothing is new");
    assert_eq!(world.end(producer, End::Commit, false), Ok(producer));
    assert_eq!(world.add(producer, Adding::Verify, &[0]), Ok(vec![abortable]));
    let ends: Vec<&[Marker]> = world.markers.values().map(Vec::as_slice).collect();
    assert!(
        ends.len() == 2
            && ends
                .iter()
                .all(|markers| markers.len() == 1 && markers[0].end == End::Commit)
    );
}

/// As Kafka 4.4 answers.
#[test]
fn an_end_that_is_asked_for_again_is_answered_by_how_it_ended() {
    let state = ErrorCode::InvalidTxnState;
    let mut world = World::new();
    let producer = world.init(None).unwrap();
    for end in [End::Commit, End::Abort] {
        assert_eq!(world.end(producer, end, false), Err(state), "there is none");
    }
    assert_eq!(world.end(producer, End::Commit, true), Err(state));
    let producer = world.end(producer, End::Abort, true).unwrap();
    assert_eq!(producer.epoch.get(), 1, "of nothing, and the epoch rises");
    world.add(producer, Adding::Add, &[0]).unwrap();
    let next = world.end(producer, End::Commit, true).unwrap();
    assert_eq!(next, Producer::new(100, 2));
    assert_eq!(
        world.markers[&place(0)][0].producer,
        next,
        "the marker has the raised epoch"
    );
    assert_eq!(world.end(producer, End::Commit, true), Ok(next), "again");
    assert_eq!(world.end(producer, End::Abort, true), Err(state));
    assert_eq!(world.add(producer, Adding::Add, &[0]), Err(ErrorCode::ProducerFenced));
    world.add(next, Adding::Add, &[0]).unwrap();
    assert_eq!(world.end(next, End::Abort, false), Ok(next));
    assert_eq!(world.end(next, End::Abort, false), Ok(next));
    assert_eq!(world.end(next, End::Commit, false), Err(state));
    let zombie = Producer::new(100, 1);
    assert_eq!(
        world.end(zombie, End::Abort, true),
        Err(ErrorCode::ProducerFenced),
        "another has ended since"
    );
    let other = Producer::new(7, 2);
    assert_eq!(
        world.end(other, End::Commit, true),
        Err(ErrorCode::InvalidProducerIdMapping)
    );
}

#[test]
fn a_new_self_aborts_what_the_former_has_left_open() {
    let mut world = World::new();
    let former = world.init(None).unwrap();
    world.add(former, Adding::Add, &[0]).unwrap();
    assert_eq!(world.init(None), Err(ErrorCode::ConcurrentTransactions));
    assert_eq!(world.init(None), Ok(Producer::new(100, 2)));
    let marker = world.markers[&place(0)][0];
    assert_eq!((marker.end, marker.producer), (End::Abort, Producer::new(100, 1)));
    for adding in [Adding::Add, Adding::Verify] {
        assert_eq!(world.add(former, adding, &[0]), Err(ErrorCode::ProducerFenced));
    }
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_also_by_the_next_coordinator() {
    for restarts in [false, true] {
        let mut world = World::new();
        let producer = world.init(None).unwrap();
        world.add(producer, Adding::Add, &[0]).unwrap();
        world.pass(Duration::from_secs(59));
        if restarts {
            world.restart();
        }
        world.pass(Duration::from_millis(500));
        assert_eq!(world.described().phase, Phase::Ongoing);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.described().phase, Phase::Complete(End::Abort));
        assert_eq!(world.markers[&place(0)][0].end, End::Abort);
        assert_eq!(world.end(producer, End::Commit, false), Err(ErrorCode::ProducerFenced));
    }
}

#[test]
fn epochs_that_are_used_up_make_a_new_producer() {
    let last = Producer {
        id: ProducerId::new(5),
        epoch: ProducerEpoch::new(i16::MAX - 1),
    };
    let begin = || {
        let mut world = World::new();
        let state = State {
            producer: last,
            ..State::new(TIMEOUT_MS, moment(world.now).clock)
        };
        let value = Some(state);
        world.log.push(Record { id: id(), value });
        world.restart();
        world
    };
    let mut world = begin();
    let next = world.init(Some(last)).unwrap();
    assert_eq!(next, Producer::new(100, 0));
    assert_eq!(world.init(Some(last)), Ok(next), "again");
    let mut world = begin();
    world.add(last, Adding::Add, &[0]).unwrap();
    let next = world.end(last, End::Commit, true).unwrap();
    assert_eq!(next, Producer::new(100, 0));
    let marker = world.markers[&place(0)][0].producer;
    assert_eq!((marker.id, marker.epoch.get()), (last.id, i16::MAX));
    assert_eq!(world.end(last, End::Commit, true), Ok(next), "again");
    world.add(next, Adding::Add, &[0]).unwrap();
}

#[test]
fn an_id_that_nobody_uses_is_forgotten_and_one_that_is_open_is_not() {
    let mut world = World::new();
    let producer = world.init(None).unwrap();
    world.pass(Duration::from_hours(6 * 24));
    world.add(producer, Adding::Add, &[0]).unwrap();
    world.end(producer, End::Commit, false).unwrap();
    world.pass(Duration::from_hours(6 * 24));
    assert_eq!(world.described().phase, Phase::Complete(End::Commit));
    world.pass(Duration::from_hours(26));
    assert_eq!(
        world.ask(Request::Describe).unwrap_err().code,
        ErrorCode::TransactionalIdNotFound
    );
    assert_eq!(world.log.last().unwrap().value, None);
    world.restart();
    assert_eq!(
        world.ask(Request::Describe).unwrap_err().code,
        ErrorCode::TransactionalIdNotFound
    );
}

#[test]
fn what_could_not_be_written_did_not_happen_and_is_tried_again_if_nobody_else_does() {
    let mut world = World::new();
    world.is_broken = true;
    assert_eq!(world.init(None), Err(ErrorCode::CoordinatorNotAvailable));
    world.is_broken = false;
    let producer = world.init(None).unwrap();
    assert_eq!(producer.epoch.get(), 0);
    world.add(producer, Adding::Add, &[0]).unwrap();
    world.is_broken = true;
    assert_eq!(
        world.add(producer, Adding::Add, &[1]),
        Err(ErrorCode::CoordinatorNotAvailable)
    );
    assert_eq!(
        world.end(producer, End::Commit, false),
        Err(ErrorCode::CoordinatorNotAvailable)
    );
    assert_eq!(world.described().phase, Phase::Ongoing);
    assert_eq!(world.described().places, [place(0)].into());
    world.pass(Duration::from_secs(61));
    assert!(world.markers.is_empty());
    world.is_broken = false;
    world.pass(Duration::from_secs(1));
    assert_eq!(world.described().phase, Phase::Complete(End::Abort));
}

/// A program of two transactions, with a crash behind each record in turn, durable or not: it asks again what was not answered.
#[test]
fn whatever_it_crashes_behind_answers_stand_and_what_is_decided_is_carried_out() {
    for bumps in [false, true] {
        for crash_at in 1..12 {
            for is_durable in [false, true] {
                let case = format!("crash at {crash_at}, durable {is_durable}, bumps {bumps}");
                crash_once(&case, (crash_at, is_durable), bumps);
            }
        }
    }
}

fn crash_once(case: &str, crash: (usize, bool), bumps: bool) {
    let mut world = World::new();
    world.crash = Some(crash);
    // Until it is answered with something else than that it must ask again.
    let insist = |world: &mut World, request: Request| loop {
        match world.try_ask(request.clone()) {
            None => {}
            Some(Err(refusal)) if refusal.code == ErrorCode::ConcurrentTransactions => {
                world.run();
            }
            Some(reply) => return reply,
        }
    };
    let Ok(Answer::Producer(mut producer)) = insist(&mut world, init(None)) else {
        panic!("{case}: it begins");
    };
    for (end, indexes) in [(End::Commit, [0, 1]), (End::Abort, [1, 2])] {
        let before = world.markers.clone();
        for index in indexes {
            let added = insist(&mut world, add(producer, Adding::Add, &[index]));
            assert_eq!(added, Ok(Answer::Added(vec![OK])), "{case}");
        }
        let verified = insist(&mut world, add(producer, Adding::Verify, &indexes));
        assert_eq!(
            verified,
            Ok(Answer::Added(vec![OK, OK])),
            "{case}: what was answered stands"
        );
        let Ok(Answer::Ended(next)) = insist(&mut world, ending(producer, end, bumps)) else {
            panic!("{case}: it ends");
        };
        world.run();
        assert_eq!(world.described().phase, Phase::Complete(end), "{case}");
        for index in indexes {
            let earlier = before.get(&place(index)).map_or(0, Vec::len);
            let since = &world.markers[&place(index)][earlier..];
            let is_it = |marker: &Marker| marker.end == end && marker.producer == next;
            // A coordinator that does not know whether it was written writes it again.
            assert!(!since.is_empty() && since.iter().all(is_it), "{case}: {since:?}");
        }
        producer = next;
    }
    world.restart();
    world.run();
    assert_eq!(world.described().phase, Phase::Complete(End::Abort), "{case}");
    assert_eq!(world.described().producer, producer, "{case}");
}
