//! Brokers, their coordinator, and what is on its way between them. After each step everything is compared with what was acknowledged.

use std::time::Instant;

use headwater_engine::CommonPoint;
use headwater_protocol::id::{BrokerId, Offset, PartitionIndex, TopicId};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use uuid::Uuid;

use super::{
    log::{ModelLog, Record, at, offset},
    node::Node,
    *,
};
use crate::{
    cluster::replicas::{IsrChange, Registration, ReplicaCommand as Command, ReplicaMap},
    image::{Address, Replicas, Terms},
    model::id::PartitionId,
};

pub(super) const PARTITION: PartitionId = PartitionId {
    topic: TopicId::new(Uuid::from_u128(7)),
    index: PartitionIndex::new(0),
};

/// Messages that may be on their way.
const IN_FLIGHT_MAX: usize = 40;

#[derive(Debug, Clone)]
pub(super) enum Message {
    Fetch {
        from: Peer,
        to: BrokerId,
        fetch: Fetch,
    },
    Answer {
        to: BrokerId,
        process: u128,
        asked: Place,
        answer: Answer,
        /// Where the records begin.
        base: usize,
        records: Vec<Record>,
    },
    Ask(Command),
}

/// How often something happened that the promises are about.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) leaders: u64,
    pub(super) acknowledged: u64,
    pub(super) diverged: u64,
    pub(super) probed: u64,
    pub(super) began_again: u64,
    pub(super) joined: u64,
    pub(super) left: u64,
    pub(super) eligible: u64,
    pub(super) moved: u64,
    pub(super) stale: u64,
}

pub(super) struct World {
    pub(super) random: SmallRng,
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    /// The coordinator's states, each after the other.
    pub(super) states: Vec<ReplicaMap>,
    pub(super) mail: Vec<Message>,
    /// What was acknowledged, by offset.
    pub(super) acknowledged: Vec<Record>,
    pub(super) terms: Terms,
    pub(super) processes: u128,
    pub(super) numbers: u64,
    pub(super) seen: Seen,
    pub(super) has_faults: bool,
    /// A disk was replaced: then what was acknowledged may be on none that the coordinator would elect.
    pub(super) has_wiped: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut random = SmallRng::seed_from_u64(seed);
        let count = random.random_range(2..=5);
        let replicas = random.random_range(2..=count.min(4));
        let durability = if random.random_bool(0.7) {
            Durability::Disk
        } else {
            Durability::Memory
        };
        let terms = Terms {
            min_isr: random.random_range(1..=2),
            durability,
        };
        let nodes = (1..=count).map(|id| Node::new(id, id as u128)).collect();
        let mut world = World {
            random,
            now: Instant::now(),
            nodes,
            states: vec![ReplicaMap::default()],
            mail: Vec::new(),
            acknowledged: Vec::new(),
            terms,
            processes: count as u128,
            numbers: 0,
            seen: Seen::default(),
            has_faults: true,
            has_wiped: false,
        };
        for place in 0..world.nodes.len() {
            let registration = world.registration(place);
            world.decide(&Command::Register(registration));
            let member = world.nodes[place].member(world.state()).unwrap();
            world.decide(&Command::Unfence {
                id: member.broker,
                incarnation: member.incarnation,
            });
        }
        world.decide(&Command::Place {
            topic: PARTITION.topic,
            terms,
            replicas: vec![(1..=replicas).map(BrokerId::new).collect()],
        });
        world
    }

    pub(super) fn state(&self) -> &ReplicaMap {
        &self.states[self.states.len() - 1]
    }

    pub(super) fn replicas(&self) -> &Replicas {
        self.state().replicas(PARTITION).unwrap()
    }

    fn registration(&self, place: usize) -> Registration {
        let node = &self.nodes[place];
        Registration {
            id: node.id,
            process: Uuid::from_u128(node.process),
            store: Uuid::from_u128(node.store),
            opened: 1,
            was_clean: false,
            address: Address {
                host: "localhost".to_owned(),
                port: 1,
                core_ports: vec![2],
            },
            rack: None,
        }
    }

    /// The coordinator takes a command; a refused one changes nothing.
    pub(super) fn decide(&mut self, command: &Command) {
        let Ok((next, _)) = self.state().apply(command) else {
            return;
        };
        let before = self.state().replicas(PARTITION).cloned();
        if let (Some(before), Some(after)) = (before, next.replicas(PARTITION)) {
            self.seen.joined += u64::from(after.isr.len() > before.isr.len());
            self.seen.left += u64::from(after.isr.len() < before.isr.len() && matches!(command, Command::Alter { .. }));
            let is_eligible = |leader| before.elr.contains(&leader) && before.leader.is_none();
            self.seen.eligible += u64::from(after.leader.is_some_and(is_eligible));
            self.seen.moved += u64::from(!before.removing.is_empty() && after.replicas.len() < before.replicas.len());
        }
        if next != *self.state() {
            self.states.push(next);
        }
    }

    pub(super) fn send(&mut self, message: Message) {
        if self.mail.len() < IN_FLIGHT_MAX {
            self.mail.push(message);
        }
    }

    /// Something that is on its way arrives: perhaps not the oldest, perhaps to come again, perhaps not at all.
    pub(super) fn deliver(&mut self) {
        if self.mail.is_empty() {
            return;
        }
        let which = if self.has_faults {
            self.random.random_range(0..self.mail.len())
        } else {
            0
        };
        let message = if self.has_faults && self.random.random_bool(0.1) {
            self.mail[which].clone()
        } else {
            self.mail.remove(which)
        };
        if self.has_faults && self.random.random_bool(0.1) {
            return;
        }
        match message {
            Message::Fetch { from, to, fetch } => self.fetched(from, to, &fetch),
            Message::Answer {
                to,
                process,
                asked,
                answer,
                base,
                records,
            } => self.answered((to, process), asked, answer, (base, &records)),
            Message::Ask(command) => self.decide(&command),
        }
    }

    fn fetched(&mut self, from: Peer, to: BrokerId, fetch: &Fetch) {
        let place = place_of(to);
        let now = self.now;
        let node = &mut self.nodes[place];
        let log = LeaderLog {
            start: offset(node.log.start),
            end: offset(node.log.end()),
            holes_below: Offset::ZERO,
            end_of_last: node.log.end_of_epoch(fetch.place.last_epoch),
        };
        let Some(leader) = node.leads() else { return };
        let answer = match leader.fetched(from, fetch, log, now) {
            Ok(answer) => answer,
            Err(why) => {
                assert_ne!(why, FetchRefused::Contradiction);
                self.seen.stale += 1;
                return;
            }
        };
        let base = at(fetch.place.offset).max(node.log.start);
        let records = match answer {
            Answer::Records(_) => {
                let rest = &node.log.records[base..];
                rest[..self.random.random_range(0..=rest.len())].to_vec()
            }
            _ => Vec::new(),
        };
        let process = self.nodes[place_of(from.member.broker)].process;
        self.send(Message::Answer {
            to: from.member.broker,
            process,
            asked: fetch.place,
            answer,
            base,
            records,
        });
    }

    fn answered(&mut self, to: (BrokerId, u128), asked: Place, answer: Answer, (base, records): (usize, &[Record])) {
        let place = place_of(to.0);
        let node = &mut self.nodes[place];
        if node.process != to.1 || !node.is_open {
            return;
        }
        let log = node.log.of_follower();
        let Some(Role::Follows(follower)) = node.replica.as_mut().map(Replica::role) else {
            return;
        };
        match follower.answered(asked, answer, log) {
            Act::Nothing => {}
            Act::Append(_) if base != node.log.end() && !records.is_empty() => {
                assert_eq!(node.log.start, node.log.end(), "only who has nothing begins elsewhere");
                node.cut = Some(follower.begins_at(offset(base)));
            }
            Act::Append(progress) => {
                node.log.records.extend(records);
                let reached = at(progress.high_watermark).min(node.log.end());
                node.log.watermark = node.log.watermark.max(reached);
            }
            cut => node.cut = Some(cut),
        }
    }

    /// A truncation that was begun comes to its end.
    pub(super) fn end_cut(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let Some(cut) = node.cut.take() else { return };
        let common = match cut {
            Act::Truncate(end) => {
                self.seen.diverged += 1;
                node.log.truncate_to(end)
            }
            Act::BeginAgain(start) => {
                self.seen.began_again += 1;
                node.log.begin_again_at(at(start));
                CommonPoint::At(start)
            }
            _ => return,
        };
        let Some(Role::Follows(follower)) = node.role() else {
            return;
        };
        follower.truncated(common);
        self.seen.probed += u64::from(matches!(common, CommonPoint::Older { .. }));
    }

    pub(super) fn fetch(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let (log, connection) = (node.log.of_follower(), node.connection);
        let Some(Role::Follows(follower)) = node.role() else {
            return;
        };
        let Some(fetch) = follower.fetch(log) else { return };
        let (id, seen) = (node.id, node.seen);
        let map = &self.states[seen];
        let (Some(member), Some(to)) = (
            self.nodes[place].member(map),
            map.replicas(PARTITION).and_then(|known| known.leader),
        ) else {
            return;
        };
        if to == id {
            // It has still to become the leader that it is by then.
            return;
        }
        let from = Peer { member, connection };
        self.send(Message::Fetch { from, to, fetch });
    }

    /// The broker looks at a later state of the coordinator, and tells it what that does not have of it.
    pub(super) fn learn(&mut self, place: usize) {
        let latest = self.states.len() - 1;
        let now = self.now;
        let node = &mut self.nodes[place];
        if !node.is_alive {
            return;
        }
        let all = !self.has_faults;
        node.seen = if all {
            latest
        } else {
            self.random.random_range(node.seen..=latest)
        };
        let seen = node.seen;
        let Some(replicas) = self.states[seen].replicas(PARTITION).cloned() else {
            return;
        };
        if node.learn(&self.states[seen], &replicas, now) {
            self.seen.leaders += 1;
            // One that only learns now that it once was to lead need not have what others were asked for since.
            if self.replicas().leader_epoch == replicas.leader_epoch {
                let log = self.nodes[place].log.clone();
                self.check_has_all(&log, "a new leader");
            }
        }
        self.speak_up(place, &replicas);
    }

    fn speak_up(&mut self, place: usize, replicas: &Replicas) {
        let seen = self.nodes[place].seen;
        let now = self.now;
        let node = &mut self.nodes[place];
        let id = node.id;
        let Some(member) = node.member(&self.states[seen]) else {
            let registration = self.registration(place);
            return self.send(Message::Ask(Command::Register(registration)));
        };
        let is_fenced = self.states[seen].broker(id).unwrap().is_fenced;
        if is_fenced {
            let incarnation = member.incarnation;
            return self.send(Message::Ask(Command::Unfence { id, incarnation }));
        }
        let is_known_offline = replicas.offline.contains(&id);
        if node.is_open && is_known_offline {
            node.owes_failure = false;
        }
        let failed = (node.owes_failure || !node.is_open) && replicas.has(id) && !is_known_offline;
        let opened = node.is_open && is_known_offline;
        let wish = node.leads().and_then(|leader| leader.wish(now).cloned());
        if failed || opened {
            self.send(Message::Ask(Command::Report {
                from: id,
                incarnation: member.incarnation,
                failed: failed.then_some(PARTITION).into_iter().collect(),
                opened: opened.then_some(PARTITION).into_iter().collect(),
            }));
        }
        if let Some(wish) = wish {
            self.send(Message::Ask(Command::Alter {
                from: id,
                incarnation: member.incarnation,
                changes: vec![IsrChange {
                    id: PARTITION,
                    leader_epoch: wish.leader_epoch,
                    epoch: wish.epoch,
                    stay: wish.stay,
                    join: wish.join,
                }],
            }));
        }
    }

    /// Notes what leaders acknowledge, and compares.
    pub(super) fn check(&mut self) {
        for place in 0..self.nodes.len() {
            let node = &mut self.nodes[place];
            if let Some(watermark) = node.leads().map(|leader| at(leader.watermark())) {
                assert!(watermark <= node.log.end(), "beyond the end of the log");
                node.log.watermark = node.log.watermark.max(watermark);
            }
            let log = &node.log;
            for offset in log.start..log.watermark {
                if let Some(known) = self.acknowledged.get(offset) {
                    assert_eq!(log.records[offset], *known, "offset {offset} of broker {}", node.id);
                } else {
                    assert_eq!(
                        self.acknowledged.len(),
                        offset,
                        "nobody has acknowledged what lies before"
                    );
                    self.acknowledged.push(log.records[offset]);
                    self.seen.acknowledged += 1;
                }
            }
        }
    }

    pub(super) fn check_has_all(&self, log: &ModelLog, who: &str) {
        for (offset, record) in self.acknowledged.iter().enumerate().skip(log.start) {
            assert_eq!(
                log.records.get(offset),
                Some(record),
                "{who} lacks what was acknowledged at {offset}"
            );
        }
    }
}

/// Where the broker is among the nodes.
pub(super) fn place_of(id: BrokerId) -> usize {
    id.get() as usize - 1
}
