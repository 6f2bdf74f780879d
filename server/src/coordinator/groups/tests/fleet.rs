//! Members of groups of type consumer, some of which speak the classic protocol, behind a network that loses what it likes; a broker that
//! crashes; a disk that fails. At every moment no two members have the same partition in their hands, and whoever is told something can
//! find it in the log; in the end all have what they subscribe to.

mod crew;

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use headwater_protocol::{error::ErrorCode, id::Timestamp};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use self::crew::Mate;
use super::{
    world::{NOON, config},
    *,
};
use crate::{
    coordinator::groups::{
        consumers::state::Current,
        group::{Group, Phase},
        record::consumer::Told,
    },
    model::{
        consumer::{Reconciled, Spot},
        group::refusal,
    },
};

const GROUP: &str = "group";

/// Far beyond all sessions and rebalances.
const CALM: Duration = Duration::from_mins(5);

#[derive(Debug)]
enum Happening {
    Request(CallId, Box<Request>),
    Reply(CallId, Box<Reply>),
    Wake(usize),
    Written(u64),
    Reload,
    Fault,
}

struct Fleet {
    now: Duration,
    random: SmallRng,
    shard: Option<Shard>,
    topics: BTreeMap<String, u32>,
    crew: Vec<Mate>,
    log: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// What the log says of each member.
    durable: BTreeMap<MemberId, Current>,
    appends: VecDeque<(WriteId, Vec<Record>)>,
    /// Counts starts of the broker.
    epoch: u64,
    agenda: BTreeMap<(Duration, u64), Happening>,
    calls: BTreeMap<CallId, usize>,
    sequence: u64,
    has_faults: bool,
    /// Whether members of the classic protocol come too.
    is_mixed: bool,
}

#[test]
fn no_partition_has_two_owners_in_a_group_of_consumers_and_it_comes_to_rest() {
    for_each_seed(
        "no_partition_has_two_owners_in_a_group_of_consumers_and_it_comes_to_rest",
        150,
        |seed| {
            let mut fleet = Fleet::new(seed);
            fleet.run(Duration::from_mins(3), |_| false);
            fleet.has_faults = false;
            let now = fleet.now;
            fleet
                .crew
                .iter_mut()
                .for_each(|mate| mate.paused_until = mate.paused_until.min(now));
            fleet.run(now + CALM, Fleet::is_at_rest);
            assert!(fleet.is_at_rest(), "no rest: {:#?} {:#?}", fleet.crew, fleet.group());
        },
    );
}

impl Fleet {
    fn new(seed: u64) -> Fleet {
        let mut random = SmallRng::seed_from_u64(seed);
        let is_mixed = random.random_ratio(1, 2);
        let mut fleet = Fleet {
            now: Duration::from_secs(1),
            shard: None,
            topics: [("a".to_owned(), 5), ("b".to_owned(), 3)].into(),
            crew: Vec::new(),
            log: Vec::new(),
            durable: BTreeMap::new(),
            appends: VecDeque::new(),
            epoch: 0,
            agenda: BTreeMap::new(),
            calls: BTreeMap::new(),
            sequence: 0,
            has_faults: true,
            is_mixed,
            random,
        };
        fleet.load();
        for _ in 0..fleet.random.random_range(1..5) {
            fleet.hire(None);
        }
        fleet.at(Duration::from_secs(1), Happening::Fault);
        fleet
    }

    fn moment(&self) -> Moment {
        Moment {
            monotonic: self.now,
            clock: Timestamp::new(NOON + self.now.as_millis() as i64),
        }
    }

    fn known_topics(&self) -> Rc<Topics> {
        Rc::new(self.topics.iter().map(|(name, count)| (name.clone(), *count)).collect())
    }

    fn at(&mut self, after: Duration, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((self.now + after, self.sequence), happening);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(0..40))
    }

    /// Whether the network loses something.
    fn loses(&mut self) -> bool {
        self.has_faults && self.random.random_ratio(1, 25)
    }

    fn send(&mut self, mate: usize, request: Request) -> CallId {
        self.sequence += 1;
        let call = CallId(self.sequence);
        self.calls.insert(call, mate);
        if !self.loses() {
            let delay = self.delay();
            self.at(delay, Happening::Request(call, Box::new(request)));
        }
        call
    }

    fn run(&mut self, until: Duration, mut done: impl FnMut(&Fleet) -> bool) {
        loop {
            let tick = self.shard.as_ref().map(Shard::next_deadline);
            let next = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let at = tick.into_iter().chain(next).min().unwrap_or(until);
            if at > until || done(self) {
                return;
            }
            self.now = self.now.max(at);
            if next.is_some_and(|next| next <= at) {
                let (_, happening) = self.agenda.pop_first().unwrap();
                self.happen(happening);
            } else {
                self.step(Event::Tick);
            }
            self.check();
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Request(call, request) if self.shard.is_some() => {
                let group = GroupId::new(GROUP);
                let request = *request;
                self.step(Event::Call { call, group, request });
            }
            Happening::Request(call, _) => {
                let reply = Box::new(Err(refusal(ErrorCode::CoordinatorLoadInProgress)));
                self.at(Duration::from_millis(1), Happening::Reply(call, reply));
            }
            Happening::Reply(call, reply) => {
                let Some(mate) = self.calls.get(&call).copied() else {
                    return;
                };
                let left = self.crew[mate].paused_until.saturating_sub(self.now);
                if left.is_zero() {
                    self.calls.remove(&call);
                    self.hears(mate, call, *reply);
                } else {
                    self.at(left, Happening::Reply(call, reply));
                }
            }
            Happening::Wake(mate) => self.wakes(mate),
            Happening::Written(epoch) if epoch == self.epoch => self.written(),
            Happening::Written(_) => {}
            Happening::Reload => self.load(),
            Happening::Fault => self.fault(),
        }
    }

    fn step(&mut self, event: Event) {
        let now = self.moment();
        let Some(shard) = &mut self.shard else { return };
        let effects = shard.step(event, now);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer { call, reply } => {
                    self.check_durable(&reply);
                    if !self.loses() {
                        let delay = self.delay();
                        self.at(delay, Happening::Reply(call, Box::new(reply)));
                    }
                }
                Effect::Append { write, records, .. } => {
                    self.appends.push_back((write, records));
                    let delay = Duration::from_micros(self.random.random_range(50..80_000));
                    let epoch = self.epoch;
                    self.at(delay, Happening::Written(epoch));
                }
                Effect::AppendMarker { .. } | Effect::Rebalanced { .. } | Effect::TooLarge { .. } => {}
            }
        }
    }

    /// What a member is told is in the log: else the next broker would not know.
    fn check_durable(&self, reply: &Reply) {
        let Ok(Answer::Reconciled(Reconciled {
            member,
            epoch,
            assignment,
            ..
        })) = reply
        else {
            return;
        };
        let durable = self.durable.get(member);
        if *epoch == crate::model::consumer::LEAVES {
            assert_eq!(durable, None, "{member} has left, and is in the log");
            return;
        }
        let durable = durable.unwrap_or_else(|| panic!("{member} is not in the log"));
        assert_eq!(durable.epoch, *epoch, "of {member}");
        if let Some(assignment) = assignment {
            assert_eq!(durable.assigned, *assignment, "of {member}");
        }
    }

    fn written(&mut self) {
        let (write, records) = self.appends.pop_front().unwrap();
        let outcome = if self.has_faults && self.random.random_ratio(1, 12) {
            Err(ErrorCode::KafkaStorageError)
        } else {
            self.append(&records);
            Ok(())
        };
        self.step(Event::Written { write, outcome });
    }

    fn append(&mut self, records: &[Record]) {
        for record in records {
            if let Record::Consumer {
                told: Told::Current(member, current),
                ..
            } = record
            {
                match current {
                    Some(current) => self.durable.insert(member.clone(), current.clone()),
                    None => self.durable.remove(member),
                };
            }
            self.log.push((record.key(), record.value()));
        }
    }

    fn crash(&mut self) {
        let is_settled = self.appends.is_empty();
        let Some(shard) = self.shard.take() else { return };
        for _ in 0..self.random.random_range(0..=self.appends.len()) {
            let (_, records) = self.appends.pop_front().unwrap();
            self.append(&records);
        }
        self.appends.clear();
        self.epoch += 1;
        if self.random.random_ratio(1, 2) {
            self.compact();
        }
        if is_settled {
            let again = self.replayed();
            let held = shard.group_named(GROUP).and_then(Group::settled_consumers);
            let stored = again.group_named(GROUP).and_then(Group::settled_consumers);
            if held.is_some() {
                assert_eq!(stored, held, "what was read again differs");
            }
        }
        self.calls.clear();
        self.agenda
            .retain(|_, happening| !matches!(happening, Happening::Request(..) | Happening::Reply(..)));
        let down = Duration::from_millis(self.random.random_range(1..5_000));
        self.at(down, Happening::Reload);
    }

    fn compact(&mut self) {
        let mut last: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (index, (key, _)) in self.log.iter().enumerate() {
            last.insert(key.clone(), index);
        }
        let drops_tombstones = self.random.random_ratio(1, 2);
        let log = std::mem::take(&mut self.log).into_iter().enumerate();
        let kept = log.filter(|(index, (key, value))| last[key] == *index && (value.is_some() || !drops_tombstones));
        self.log = kept.map(|(_, record)| record).collect();
    }

    /// As it is once all records have been read, before anything follows from it.
    fn replayed(&self) -> Shard {
        let now = self.moment();
        let mut shard = Shard::new(config(), self.known_topics(), Rc::new(Cell::new(0)), now);
        for (key, value) in &self.log {
            shard.replay(Record::decode(key, value.as_deref()).unwrap().unwrap(), None, now);
        }
        shard
    }

    fn load(&mut self) {
        let mut shard = self.replayed();
        let effects = shard.replayed(self.known_topics(), self.moment());
        self.shard = Some(shard);
        self.perform(effects);
    }

    fn fault(&mut self) {
        if !self.has_faults {
            return;
        }
        let mate = self.random.random_range(0..self.crew.len());
        match self.random.random_range(0..14) {
            0..=2 => self.hire(None),
            3 => self.crew[mate].is_alive = false,
            4 | 5 => self.quits(mate),
            6 => {
                let pause = Duration::from_millis(self.random.random_range(100..60_000));
                self.crew[mate].paused_until = self.now + pause;
            }
            7 => self.crash(),
            8 => {
                let topic = if self.random.random_ratio(1, 2) { "a" } else { "b2" };
                let count = self.topics.entry(topic.to_owned()).or_default();
                *count = (*count + 1).min(12);
                self.step(Event::Topics(self.known_topics()));
            }
            9 | 10 => {
                let number = self.random.random_range(0..2);
                self.hire(Some(number));
            }
            11 => self.resubscribes(mate),
            _ => {}
        }
        let after = Duration::from_millis(self.random.random_range(100..6_000));
        self.at(after, Happening::Fault);
    }

    fn group(&self) -> Option<&Group> {
        self.shard.as_ref()?.group_named(GROUP)
    }

    fn check(&self) {
        let Some(group) = self.group() else { return };
        let mut owners: BTreeMap<Spot, &Mate> = BTreeMap::new();
        for mate in self.crew.iter().filter(|mate| mate.is_member_of(group)) {
            for spot in &mate.owned {
                if let Some(other) = owners.insert(*spot, mate) {
                    panic!(
                        "{spot:?} is owned twice at {:?}: {mate:#?} and {other:#?} of {group:#?}",
                        self.now
                    );
                }
            }
        }
    }

    /// Everybody works, and together they have all that they subscribe to.
    fn is_at_rest(&self) -> bool {
        let alive: Vec<&Mate> = self.crew.iter().filter(|mate| mate.is_alive).collect();
        let Some(shard) = &self.shard else { return false };
        let Some(group) = shard.group_named(GROUP) else {
            return alive.is_empty();
        };
        if alive.is_empty() {
            return group.phase == Phase::Empty;
        }
        let topics = self.known_topics();
        let mut wanted: std::collections::BTreeSet<Spot> = std::collections::BTreeSet::new();
        for name in alive.iter().flat_map(|mate| mate.wants(&topics)) {
            if let Some((id, count)) = topics.find(&name) {
                wanted.extend((0..count.cast_signed()).map(|partition| (id, partition)));
            }
        }
        let owned: std::collections::BTreeSet<Spot> = alive.iter().flat_map(|mate| &mate.owned).copied().collect();
        group.state() == "Stable"
            && group.member_count() == alive.len()
            && alive.iter().all(|mate| mate.is_member_of(group) && mate.is_idle())
            && owned == wanted
            && self.appends.is_empty()
    }
}
