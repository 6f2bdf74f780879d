//! A member as clients are: of the consumer protocol, or of the classic one, whose partitions the broker assigns.

use std::{collections::BTreeSet, time::Duration};

use headwater_protocol::{
    error::ErrorCode,
    group::{Assignment, CONSUMER, SERVER_STICKY, Subscription, TopicPartitions},
};
use rand::RngExt as _;

use super::super::{consumers::beat, *};
use super::{Fleet, Happening};
use crate::{
    coordinator::groups::group::Group,
    model::consumer::{ConsumerHeartbeat, LEAVES, PAUSES, Share},
};

const HEARTBEAT: Duration = Duration::from_secs(3);
const WAIT: Duration = Duration::from_secs(5);
const REBALANCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Joins,
    Syncs,
    Works,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of one another")]
pub(super) struct Mate {
    pub(super) is_alive: bool,
    pub(super) paused_until: Duration,
    pub(super) owned: Share,
    id: Option<MemberId>,
    instance: Option<InstanceId>,
    is_classic: bool,
    topics: BTreeSet<String>,
    pattern: Option<String>,
    epoch: i32,
    doing: Doing,
    waits: Option<(CallId, Duration)>,
    next_beat: Duration,
    /// It must say all that it knows: an answer may have been lost.
    says_all: bool,
    /// It has given something up, or taken it, and has not said so.
    says_owned: bool,
    /// What it will own when it has given up the rest, and when that is.
    turns: Option<(Share, Duration)>,
}

impl Mate {
    /// Whether it runs, and the broker counts it as a member.
    pub(super) fn is_member_of(&self, group: &Group) -> bool {
        let Some(id) = self.id.as_ref().filter(|_| self.is_alive) else {
            return false;
        };
        let consumers = group.consumers.as_ref();
        group.roster.members.contains_key(id) || consumers.is_some_and(|consumers| consumers.members.contains_key(id))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.doing == Doing::Works && self.turns.is_none()
    }

    pub(super) fn wants(&self, topics: &Topics) -> BTreeSet<String> {
        let is_wanted = |name: &&str| self.pattern.is_some() && name.starts_with('b');
        let matched = topics.names().filter(is_wanted).map(str::to_owned);
        self.topics.iter().cloned().chain(matched).collect()
    }

    fn loses_all(&mut self) {
        self.owned.clear();
        self.turns = None;
        self.epoch = 0;
        self.doing = Doing::Joins;
    }
}

impl Fleet {
    pub(super) fn hire(&mut self, static_number: Option<u32>) {
        let number = self.crew.len();
        if self.crew.iter().filter(|mate| mate.is_alive).count() > 7 {
            return;
        }
        let instance = static_number.map(|number| InstanceId::new(format!("i{number}")));
        if let Some(former) = self
            .crew
            .iter()
            .position(|mate| mate.is_alive && mate.instance == instance)
            && instance.is_some()
        {
            // It is stopped before it is started again.
            self.pauses(former);
        }
        let is_classic = self.is_mixed && instance.is_none() && self.random.random_ratio(1, 2);
        let mut topics: BTreeSet<String> = ["a".to_owned(), "b".to_owned()].into();
        let mut pattern = None;
        match self.random.random_range(0..5) {
            0 => drop(topics.remove("b")),
            1 if !is_classic => {
                topics.clear();
                pattern = Some("b.*".to_owned());
            }
            _ => {}
        }
        self.crew.push(Mate {
            is_alive: true,
            paused_until: Duration::ZERO,
            owned: Share::new(),
            id: (!is_classic).then(|| MemberId::new(format!("m{number}"))),
            instance,
            is_classic,
            topics,
            pattern,
            epoch: 0,
            doing: Doing::Joins,
            waits: None,
            next_beat: Duration::ZERO,
            says_all: true,
            says_owned: false,
            turns: None,
        });
        self.at(Duration::from_millis(1), Happening::Wake(number));
    }

    /// A static member stops for a while.
    fn pauses(&mut self, number: usize) {
        let mate = &mut self.crew[number];
        mate.is_alive = false;
        mate.owned.clear();
        let (id, instance) = (mate.id.clone(), mate.instance.clone());
        if let Some(id) = id {
            let leave = ConsumerHeartbeat {
                instance,
                ..beat(id.as_str(), PAUSES)
            };
            self.send(number, Request::ConsumerHeartbeat(leave));
        }
    }

    pub(super) fn quits(&mut self, number: usize) {
        let mate = &mut self.crew[number];
        if !mate.is_alive {
            return;
        }
        mate.is_alive = false;
        mate.owned.clear();
        let Some(id) = mate.id.clone() else { return };
        let request = if mate.is_classic {
            Request::Leave(vec![(id, None)])
        } else {
            Request::ConsumerHeartbeat(ConsumerHeartbeat {
                instance: mate.instance.clone(),
                ..beat(id.as_str(), LEAVES)
            })
        };
        self.send(number, request);
    }

    pub(super) fn resubscribes(&mut self, number: usize) {
        let mate = &mut self.crew[number];
        if !mate.topics.remove("b") {
            mate.topics.insert("b".to_owned());
        }
        mate.says_all = true;
        if mate.is_classic && mate.doing == Doing::Works {
            mate.doing = Doing::Joins;
        }
    }

    pub(super) fn wakes(&mut self, number: usize) {
        let now = self.now;
        let mate = &mut self.crew[number];
        if !mate.is_alive {
            return;
        }
        let left = mate.paused_until.saturating_sub(now);
        if !left.is_zero() {
            return self.at(left, Happening::Wake(number));
        }
        if let Some((owned, _)) = mate.turns.take_if(|(_, at)| *at <= now) {
            mate.owned = owned;
            mate.says_owned = true;
            if mate.is_classic {
                mate.doing = Doing::Joins;
            }
            mate.next_beat = now;
        }
        if mate.waits.take_if(|(_, until)| *until <= now).is_some() {
            mate.says_all = true;
        }
        let is_due = mate.next_beat <= now || mate.doing != Doing::Works;
        if mate.waits.is_none() && is_due {
            mate.next_beat = now + HEARTBEAT;
            if mate.is_classic {
                self.speaks_classic(number);
            } else {
                self.beats(number);
            }
        }
        self.at(Duration::from_millis(500), Happening::Wake(number));
    }

    fn asks(&mut self, number: usize, request: Request, wait: Duration) {
        let call = self.send(number, request);
        self.crew[number].waits = Some((call, self.now + wait));
    }

    fn beats(&mut self, number: usize) {
        let mate = &mut self.crew[number];
        let Some(id) = mate.id.clone() else { return };
        let says_all = std::mem::take(&mut mate.says_all) || mate.epoch == 0;
        let says_owned = std::mem::take(&mut mate.says_owned) || says_all;
        if mate.epoch == 0 {
            mate.owned.clear();
            mate.turns = None;
        }
        let request = ConsumerHeartbeat {
            instance: mate.instance.clone(),
            rebalance_timeout: says_all.then_some(REBALANCE),
            topics: says_all.then(|| mate.topics.clone()),
            pattern: says_all.then(|| mate.pattern.clone().unwrap_or_default()),
            owned: says_owned.then(|| mate.owned.clone()),
            ..beat(id.as_str(), mate.epoch)
        };
        self.asks(number, Request::ConsumerHeartbeat(request), WAIT);
    }

    fn speaks_classic(&mut self, number: usize) {
        let mate = &self.crew[number];
        let who = Identity {
            generation: Generation::new(mate.epoch),
            member: mate.id.clone().unwrap_or_else(|| MemberId::new("")),
            instance: None,
        };
        match mate.doing {
            Doing::Works => self.asks(number, Request::Heartbeat(who), WAIT),
            Doing::Syncs => {
                let sync = Sync {
                    who,
                    protocol_type: Some(CONSUMER.to_owned()),
                    protocol: None,
                    assignments: Vec::new(),
                };
                self.asks(number, Request::Sync(sync), WAIT);
            }
            Doing::Joins => self.joins_classic(number),
        }
    }

    fn joins_classic(&mut self, number: usize) {
        let topics = self.known_topics();
        self.sequence += 1;
        let fresh = MemberId::new(format!("c{number}-{}", self.sequence));
        let mate = &self.crew[number];
        let owned_partitions = mate.owned.iter().filter_map(|(topic, partition)| {
            Some(TopicPartitions {
                topic: topics.name(*topic)?.to_owned(),
                partitions: vec![*partition],
            })
        });
        let subscription = Subscription {
            topics: mate.topics.iter().cloned().collect(),
            owned_partitions: owned_partitions.collect(),
            generation: mate.epoch,
            ..Subscription::default()
        };
        let join = Join {
            member: mate.id.clone(),
            fresh,
            instance: None,
            client: beat("", 0).client,
            timeouts: Timeouts {
                session: Duration::from_secs(10),
                rebalance: REBALANCE,
            },
            protocol_type: CONSUMER.to_owned(),
            protocols: vec![Protocol {
                name: SERVER_STICKY.to_owned(),
                metadata: subscription.encode().into(),
            }],
            in_two_steps: true,
        };
        self.asks(number, Request::Join(join), REBALANCE + WAIT);
    }

    pub(super) fn hears(&mut self, number: usize, call: CallId, reply: Reply) {
        let topics = self.known_topics();
        let mate = &mut self.crew[number];
        if !mate.is_alive || mate.waits.take_if(|(waited, _)| *waited == call).is_none() {
            return;
        }
        match reply {
            Ok(Answer::Reconciled(told)) => {
                mate.epoch = told.epoch;
                mate.doing = Doing::Works;
                if let Some(assignment) = told.assignment {
                    self.gets(number, assignment);
                }
            }
            Ok(Answer::MemberIdRequired(id)) => {
                mate.id = Some(id);
                self.joins_classic(number);
            }
            Ok(Answer::Joined(joined)) => {
                mate.id = Some(joined.member);
                mate.epoch = joined.generation.get();
                mate.doing = Doing::Syncs;
                self.speaks_classic(number);
            }
            Ok(Answer::Synced(synced)) => {
                mate.doing = Doing::Works;
                let assignment = Assignment::decode(&synced.assignment).unwrap_or_default();
                let of_topic = |of: TopicPartitions| {
                    let id = topics.find(&of.topic).map(|(id, _)| id);
                    id.into_iter()
                        .flat_map(move |id| of.partitions.clone().into_iter().map(move |one| (id, one)))
                };
                let share = assignment.partitions.into_iter().flat_map(of_topic).collect();
                self.gets(number, share);
            }
            Ok(_) => {}
            Err(refusal) => self.is_refused(number, refusal.code),
        }
    }

    /// It gives up what it is not to have, which takes a while, and then has the rest.
    fn gets(&mut self, number: usize, assignment: Share) {
        let after = Duration::from_millis(self.random.random_range(0..2_500));
        let at = self.now + after;
        let mate = &mut self.crew[number];
        if mate.owned.is_subset(&assignment) {
            mate.says_owned |= mate.owned != assignment;
            mate.owned = assignment;
            mate.turns = None;
        } else {
            mate.turns = Some((assignment, at));
        }
    }

    fn is_refused(&mut self, number: usize, code: ErrorCode) {
        let mate = &mut self.crew[number];
        mate.says_all = true;
        match code {
            ErrorCode::RebalanceInProgress => mate.doing = Doing::Joins,
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration if mate.is_classic => {
                if code == ErrorCode::UnknownMemberId {
                    mate.id = None;
                }
                mate.loses_all();
            }
            ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound => mate.loses_all(),
            ErrorCode::FencedInstanceId => {
                mate.owned.clear();
                mate.is_alive = false;
            }
            ErrorCode::UnreleasedInstanceId
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::KafkaStorageError => {}
            code => panic!("{code} is no answer to {mate:?}"),
        }
    }
}
