//! A shard with its log on a simulated disk, members behind a simulated network, and a clock.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use headwater_protocol::{
    error::ErrorCode,
    id::{LeaderEpoch, Timestamp},
};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::{
    node::Node,
    places::{Place, Places, TOPICS},
    *,
};
use crate::{
    config::{GroupsSection, Millis},
    coordinator::groups::group::{Group, Phase},
    model::group::{Listed, refusal},
};

pub(super) const GROUP: &str = "group";
pub(super) const SESSION: Duration = Duration::from_secs(10);
pub(super) const REBALANCE: Duration = Duration::from_secs(30);
pub(super) const NOON: i64 = 1_700_000_000_000;

/// A group without members, whose offsets anybody commits, and which anybody deletes.
pub(super) const SIMPLE: &str = "simple";

/// Something that happens at a time.
#[derive(Debug)]
enum Happening {
    Request {
        call: CallId,
        group: &'static str,
        request: Box<Request>,
    },
    Reply {
        call: CallId,
        reply: Box<Reply>,
    },
    /// A node looks what there is to do, unless it has been told another time since.
    Wake {
        node: usize,
        number: u64,
    },
    /// The oldest append is done.
    Written {
        epoch: u64,
    },
    Reload,
    Fault,
}

pub(super) struct World {
    pub(super) now: Duration,
    pub(super) random: SmallRng,
    pub(super) shard: Option<Shard>,
    pub(super) topics: Rc<Topics>,
    pub(super) nodes: Vec<Node>,
    pub(super) protocol: &'static str,
    /// The log: keys and values of what is durable.
    pub(super) log: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) durable_commits: BTreeSet<(Place, i64)>,
    appends: VecDeque<(WriteId, Vec<Record>)>,
    /// Counts restarts of the broker, so that nothing of before reaches it.
    epoch: u64,
    agenda: BTreeMap<(Duration, u64), Happening>,
    calls: BTreeMap<CallId, usize>,
    pub(super) sequence: u64,
    pub(super) has_faults: bool,
    /// The assignments that were checked last: of which start of the broker, and which generation.
    checked: Option<(u64, Generation, Vec<Bytes>)>,
}

pub(super) fn config() -> Rc<GroupsSection> {
    Rc::new(GroupsSection {
        initial_rebalance_delay_ms: Millis::new(100),
        ..GroupsSection::default()
    })
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut random = SmallRng::seed_from_u64(seed);
        let protocols = [
            "server-sticky",
            "server-sticky",
            "server-range",
            "server-roundrobin",
            "own",
        ];
        let protocol = protocols[random.random_range(0..protocols.len())];
        let topics = [(TOPICS[0], 7), (TOPICS[1], 4)].map(|(name, count)| (name.to_owned(), count));
        let mut world = World {
            now: Duration::from_secs(1),
            shard: None,
            topics: Rc::new(topics.into_iter().collect()),
            nodes: Vec::new(),
            protocol,
            log: Vec::new(),
            durable_commits: BTreeSet::new(),
            appends: VecDeque::new(),
            epoch: 0,
            agenda: BTreeMap::new(),
            calls: BTreeMap::new(),
            sequence: 0,
            has_faults: true,
            checked: None,
            random,
        };
        world.load();
        for _ in 0..world.random.random_range(1..6) {
            world.start_node(None);
        }
        world.at(Duration::from_secs(1), Happening::Fault);
        world
    }

    pub(super) fn moment(&self) -> Moment {
        Moment {
            monotonic: self.now,
            clock: Timestamp::new(NOON + self.now.as_millis() as i64),
        }
    }

    fn at(&mut self, after: Duration, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((self.now + after, self.sequence), happening);
    }

    pub(super) fn wake(&mut self, node: usize, after: Duration) {
        let number = self.sequence + 1;
        self.nodes[node].next_wake = number;
        self.at(after, Happening::Wake { node, number });
    }

    fn delay(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(0..40))
    }

    /// Sends a request of a node on its way.
    pub(super) fn send(&mut self, node: usize, group: &'static str, request: Request) -> CallId {
        self.sequence += 1;
        let call = CallId(self.sequence);
        self.calls.insert(call, node);
        let delay = self.delay();
        self.at(
            delay,
            Happening::Request {
                call,
                group,
                request: Box::new(request),
            },
        );
        call
    }

    /// Runs until the time is over, or `done`.
    pub(super) fn run(&mut self, until: Duration, mut done: impl FnMut(&World) -> bool) {
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
            Happening::Request { call, group, request } if self.shard.is_some() => {
                let group = GroupId::new(group);
                self.step(Event::Call {
                    call,
                    group,
                    request: *request,
                });
            }
            Happening::Request { call, .. } => {
                let reply = Box::new(Err(refusal(ErrorCode::CoordinatorLoadInProgress)));
                self.at(Duration::from_millis(1), Happening::Reply { call, reply });
            }
            Happening::Reply { call, reply } => {
                if let Some(node) = self.calls.remove(&call) {
                    self.deliver(node, call, *reply);
                }
            }
            Happening::Wake { node, number } if self.nodes[node].next_wake == number => self.node_wakes(node),
            Happening::Written { epoch } if epoch == self.epoch => self.written(),
            // Of before the crash, or told another time since.
            Happening::Wake { .. } | Happening::Written { .. } => {}
            Happening::Reload => self.load(),
            Happening::Fault => self.fault(),
        }
    }

    /// What comes for a node that is paused comes later.
    fn deliver(&mut self, node: usize, call: CallId, reply: Reply) {
        if let Some(left) = self.nodes[node].paused_until.checked_sub(self.now)
            && !left.is_zero()
        {
            self.calls.insert(call, node);
            let reply = Box::new(reply);
            return self.at(left, Happening::Reply { call, reply });
        }
        self.node_hears(node, call, reply);
    }

    pub(super) fn step(&mut self, event: Event) {
        let now = self.moment();
        let Some(shard) = &mut self.shard else { return };
        let effects = shard.step(event, now);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer { call, reply } => {
                    assert!(self.calls.contains_key(&call), "{call:?} is answered twice");
                    let (delay, reply) = (self.delay(), Box::new(reply));
                    self.at(delay, Happening::Reply { call, reply });
                }
                Effect::Append { write, records, .. } => {
                    self.appends.push_back((write, records));
                    let delay = Duration::from_micros(self.random.random_range(50..20_000));
                    let epoch = self.epoch;
                    self.at(delay, Happening::Written { epoch });
                }
                Effect::AppendMarker { .. } | Effect::Rebalanced { .. } | Effect::TooLarge { .. } => {}
            }
        }
    }

    fn written(&mut self) {
        let (write, records) = self.appends.pop_front().unwrap();
        let outcome = if self.has_faults && self.random.random_ratio(1, 30) {
            Err(ErrorCode::KafkaStorageError)
        } else {
            self.append(&records);
            Ok(())
        };
        self.step(Event::Written { write, outcome });
    }

    fn append(&mut self, records: &[Record]) {
        for record in records {
            if let Record::Offset {
                topic,
                partition,
                value: Some(committed),
                ..
            } = record
            {
                self.durable_commits
                    .insert((Place::new(topic, *partition), committed.offset));
            }
            self.log.push((record.key(), record.value()));
        }
    }

    /// The broker dies; some of what was not durable is.
    pub(super) fn crash(&mut self) {
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
            let mut again = self.replayed();
            // The time of a restart is not part of what must survive.
            let (stored, held) = (again.summary(), shard.summary());
            assert!(
                held.iter().all(|group| stored.contains(group)),
                "what was read again differs: {stored:?}, not {held:?}"
            );
            let is_known = |group: &Listed| shard.group_named(group.group.as_str()).is_some();
            assert!(
                again.list().all(|group| is_known(&group)),
                "a deleted group is back: {stored:?}"
            );
            drop(again.replayed(Rc::clone(&self.topics), self.moment()));
        }
        let lost: Vec<CallId> = self.calls.keys().copied().collect();
        self.agenda
            .retain(|_, happening| !matches!(happening, Happening::Request { .. } | Happening::Reply { .. }));
        for call in lost {
            let reply = Box::new(Err(refusal(ErrorCode::CoordinatorNotAvailable)));
            let delay = self.delay();
            self.at(delay, Happening::Reply { call, reply });
        }
        let down = Duration::from_millis(self.random.random_range(1..5_000));
        self.at(down, Happening::Reload);
    }

    /// Keeps the last record of each key.
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

    fn replayed(&self) -> Shard {
        let now = self.moment();
        let population: Population = Rc::new(Cell::new(0));
        let mut shard = Shard::new(config(), Rc::clone(&self.topics), population, now);
        for (key, value) in &self.log {
            shard.replay(Record::decode(key, value.as_deref()).unwrap().unwrap(), None, now);
        }
        shard
    }

    fn load(&mut self) {
        let mut shard = self.replayed();
        let effects = shard.replayed(Rc::clone(&self.topics), self.moment());
        self.shard = Some(shard);
        self.perform(effects);
    }

    /// From now on nothing goes wrong any more.
    pub(super) fn end_faults(&mut self) {
        self.has_faults = false;
        let now = self.now;
        for node in &mut self.nodes {
            node.paused_until = node.paused_until.min(now);
        }
    }

    fn fault(&mut self) {
        if !self.has_faults {
            return;
        }
        let node = self.random.random_range(0..self.nodes.len());
        match self.random.random_range(0..14) {
            0 | 1 => self.start_node(None),
            2 => self.kill_node(node),
            3 => self.node_leaves(node),
            4 => {
                let pause = Duration::from_millis(self.random.random_range(100..40_000));
                self.nodes[node].paused_until = self.now + pause;
            }
            5 => self.crash(),
            6 => self.add_partitions(),
            7 => {
                // A static member is started again, perhaps while its former self still runs.
                let number = self.random.random_range(0..3);
                if self.random.random_ratio(2, 3) {
                    let is_former = |other: &Node| {
                        other
                            .instance
                            .as_ref()
                            .is_some_and(|id| id.as_str() == format!("i{number}"))
                    };
                    for former in 0..self.nodes.len() {
                        if is_former(&self.nodes[former]) {
                            self.kill_node(former);
                        }
                    }
                }
                self.start_node(Some(number));
            }
            8 => self.commit_or_delete(node),
            _ => self.node_commits(node),
        }
        let pause = Duration::from_millis(self.random.random_range(1..6_000));
        self.at(pause, Happening::Fault);
    }

    /// Some commits and deletions, so close to each other that they are under way together.
    fn commit_or_delete(&mut self, node: usize) {
        for _ in 0..self.random.random_range(1..4) {
            let group = if self.random.random_ratio(1, 4) { GROUP } else { SIMPLE };
            let request = if self.random.random_ratio(1, 3) {
                Request::Delete
            } else {
                self.sequence += 1;
                Request::Commit(
                    Identity {
                        generation: Generation::new(-1),
                        member: MemberId::new(""),
                        instance: None,
                    },
                    vec![CommitItem {
                        topic: TOPICS[0].to_owned(),
                        partition: self.random.random_range(0..2),
                        offset: self.sequence.cast_signed(),
                        leader_epoch: LeaderEpoch::NONE,
                        metadata: String::new(),
                    }],
                )
            };
            self.send(node, group, request);
        }
    }

    fn add_partitions(&mut self) {
        if self.topics.count("a") < 12 {
            let grown = [("a", self.topics.count("a") + 1), ("b", self.topics.count("b"))];
            self.topics = Rc::new(
                grown
                    .map(|(name, count)| (name.to_owned(), count))
                    .into_iter()
                    .collect(),
            );
            self.step(Event::Topics(Rc::clone(&self.topics)));
        }
    }

    /// What must be true at every moment.
    fn check(&mut self) {
        let Some(group) = self.shard.as_ref().and_then(|shard| shard.group_named(GROUP)) else {
            return;
        };
        let members: Vec<&Node> = self.nodes.iter().filter(|node| node.is_member_of(group)).collect();
        let stays = self.protocol == "server-sticky";
        for (at, node) in members.iter().enumerate() {
            // Members that own on while they rebalance never own the same; others not within a generation.
            let is_rival = |other: &&&Node| stays || other.owned_in == node.owned_in;
            for other in members[..at].iter().filter(is_rival) {
                let both = node.owned.common(other.owned);
                assert!(
                    both.is_empty(),
                    "{both:?} is owned twice at {:?}: {node:?} and {other:?}",
                    self.now
                );
            }
        }
        if group.phase == Phase::Stable {
            let assignments = || group.roster.members.values().map(|member| &member.assignment);
            // An assignment is looked at once.
            let is_checked = self.checked.as_ref().is_some_and(|(epoch, generation, checked)| {
                (*epoch, *generation) == (self.epoch, group.generation) && checked.iter().eq(assignments())
            });
            if !is_checked {
                self.check_assigned(group);
                self.checked = Some((self.epoch, group.generation, assignments().cloned().collect()));
            }
        }
    }

    fn check_assigned(&self, group: &Group) {
        let mut assigned = Places::default();
        for places in group
            .roster
            .members
            .values()
            .map(|member| Places::of(&member.assignment))
        {
            assert!(assigned.common(places).is_empty(), "{places:?} is assigned twice");
            assigned = assigned.with(places);
        }
        let is_eager = self.protocol.starts_with("server-") && self.protocol != "server-sticky";
        if is_eager {
            let all = TOPICS
                .into_iter()
                .filter(|topic| group.assigned_of.contains_key(*topic));
            let all: usize = all.map(|topic| self.topics.count(topic) as usize).sum();
            assert_eq!(assigned.len(), all, "every partition has an owner in a stable group");
        }
    }
}
