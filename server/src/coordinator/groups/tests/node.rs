//! A member as clients are: it joins, syncs, sends heartbeats, owns partitions, and joins again when it is told to.

use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::{
    error::ErrorCode,
    group::{CONSUMER, Subscription},
    id::LeaderEpoch,
};
use rand::RngExt as _;

use super::{
    places::{Place, Places},
    world::{GROUP, REBALANCE, SESSION, World},
    *,
};
use crate::coordinator::groups::{assign::Assignor, group::Group};

const HEARTBEAT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// It is not (or no longer) part of a generation.
    Joins,
    Syncs,
    Works,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) next_wake: u64,
    pub(super) is_alive: bool,
    pub(super) paused_until: Duration,
    pub(super) instance: Option<InstanceId>,
    pub(super) member: Option<MemberId>,
    pub(super) generation: Generation,
    pub(super) topics: Vec<String>,
    pub(super) owned: Places,
    pub(super) owned_in: Generation,
    pub(super) doing: Doing,
    /// What it waits for, and until when.
    waits: Option<(CallId, Duration)>,
    commit: Option<(CallId, Place, i64)>,
}

impl Node {
    /// Whether it runs, and the broker counts it as a member.
    pub(super) fn is_member_of(&self, group: &Group) -> bool {
        let id = self.member.as_ref();
        self.is_alive && id.is_some_and(|id| group.roster.members.contains_key(id))
    }
}

impl World {
    fn is_cooperative(&self) -> bool {
        self.protocol == "server-sticky"
    }

    pub(super) fn start_node(&mut self, instance: Option<u32>) {
        let number = self.nodes.len();
        let mut topics = vec!["a".to_owned(), "b".to_owned()];
        if self.random.random_ratio(1, 5) {
            topics.truncate(1);
        }
        self.nodes.push(Node {
            next_wake: 0,
            is_alive: true,
            paused_until: Duration::ZERO,
            instance: instance.map(|number| InstanceId::new(format!("i{number}"))),
            member: None,
            generation: Generation::new(-1),
            topics,
            owned: Places::default(),
            owned_in: Generation::new(-1),
            doing: Doing::Joins,
            waits: None,
            commit: None,
        });
        self.wake(number, Duration::ZERO);
    }

    pub(super) fn kill_node(&mut self, node: usize) {
        self.nodes[node].is_alive = false;
    }

    pub(super) fn node_leaves(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if !node.is_alive {
            return;
        }
        node.is_alive = false;
        node.owned = Places::default();
        if let Some(member) = node.member.clone() {
            let instance = node.instance.clone();
            self.send(number, GROUP, Request::Leave(vec![(member, instance)]));
        }
    }

    pub(super) fn node_wakes(&mut self, number: usize) {
        let now = self.now;
        let node = &mut self.nodes[number];
        if !node.is_alive {
            return;
        }
        if node.paused_until > now {
            let left = node.paused_until.saturating_sub(now);
            return self.wake(number, left);
        }
        node.waits.take_if(|(_, until)| *until <= now);
        if node.waits.is_none() {
            match node.doing {
                Doing::Joins => self.node_joins(number),
                Doing::Syncs => self.node_syncs(number, Vec::new()),
                Doing::Works => {
                    let request = Request::Heartbeat(self.identity(number));
                    self.node_calls(number, request, Duration::from_secs(5));
                }
            }
        }
        self.wake(number, HEARTBEAT);
    }

    fn identity(&self, number: usize) -> Identity {
        let node = &self.nodes[number];
        Identity {
            generation: node.generation,
            member: node.member.clone().unwrap_or_else(|| MemberId::new("")),
            instance: node.instance.clone(),
        }
    }

    fn node_calls(&mut self, number: usize, request: Request, wait: Duration) {
        let call = self.send(number, GROUP, request);
        self.nodes[number].waits = Some((call, self.now + wait));
    }

    fn node_joins(&mut self, number: usize) {
        let is_cooperative = self.is_cooperative();
        let protocol = self.protocol;
        self.sequence += 1;
        let fresh = MemberId::new(format!("m{}-{}", number, self.sequence));
        let node = &mut self.nodes[number];
        if !is_cooperative {
            node.owned = Places::default();
        }
        let subscription = Subscription {
            topics: node.topics.clone(),
            owned_partitions: node.owned.by_topic(),
            generation: node.owned_in.get(),
            ..Subscription::default()
        };
        let join = Join {
            member: node.member.clone(),
            fresh,
            instance: node.instance.clone(),
            client: Client {
                id: format!("c{number}"),
                host: "/127.0.0.1".to_owned(),
            },
            timeouts: Timeouts {
                session: SESSION,
                rebalance: REBALANCE,
            },
            protocol_type: CONSUMER.to_owned(),
            protocols: vec![Protocol {
                name: protocol.to_owned(),
                metadata: subscription.encode().into(),
            }],
            in_two_steps: true,
        };
        self.node_calls(number, Request::Join(join), REBALANCE + SESSION);
    }

    fn node_syncs(&mut self, number: usize, assignments: Vec<(MemberId, Bytes)>) {
        let sync = Sync {
            who: self.identity(number),
            protocol_type: Some(CONSUMER.to_owned()),
            protocol: None,
            assignments,
        };
        self.nodes[number].doing = Doing::Syncs;
        self.node_calls(number, Request::Sync(sync), Duration::from_secs(5));
    }

    pub(super) fn node_commits(&mut self, number: usize) {
        let who = self.identity(number);
        self.sequence += 1;
        let offset = self.sequence.cast_signed();
        let node = &self.nodes[number];
        let Some(place) = node.owned.first().filter(|_| node.doing == Doing::Works) else {
            return;
        };
        if !node.is_alive {
            return;
        }
        let item = CommitItem {
            topic: place.topic().to_owned(),
            partition: place.partition(),
            offset,
            leader_epoch: LeaderEpoch::new(0),
            metadata: "m".to_owned(),
        };
        let call = self.send(number, GROUP, Request::Commit(who, vec![item]));
        self.nodes[number].commit = Some((call, place, offset));
    }

    pub(super) fn node_hears(&mut self, number: usize, call: CallId, reply: Reply) {
        let node = &mut self.nodes[number];
        if !node.is_alive {
            return;
        }
        if let Some((_, place, offset)) = node.commit.take_if(|(commit, ..)| *commit == call) {
            if let Ok(Answer::Committed(codes)) = reply
                && codes[0].is_none()
            {
                assert!(
                    self.durable_commits.contains(&(place, offset)),
                    "acknowledged, but not durable"
                );
            }
            return;
        }
        if node.waits.take_if(|(waited, _)| *waited == call).is_none() {
            return;
        }
        match reply {
            Ok(Answer::MemberIdRequired(id)) => {
                node.member = Some(id);
                self.node_joins(number);
            }
            Ok(Answer::Joined(joined)) => {
                node.member = Some(joined.member.clone());
                node.generation = joined.generation;
                let assignments = self.assign_as_leader(&joined.members);
                self.node_syncs(number, assignments);
            }
            Ok(Answer::Synced(synced)) => self.node_gets(number, Places::of(&synced.assignment)),
            Ok(_) => {}
            Err(refusal) => self.node_is_refused(number, refusal.code),
        }
    }

    fn assign_as_leader(&self, members: &[(MemberId, Option<InstanceId>, Bytes)]) -> Vec<(MemberId, Bytes)> {
        let read = |(id, _, metadata): &(MemberId, Option<InstanceId>, Bytes)| {
            (id.clone(), Subscription::decode(metadata).unwrap())
        };
        let members: Vec<_> = members.iter().map(read).collect();
        let assigned = Assignor::RoundRobin.assign(&members, &self.topics).into_iter();
        let encode = |(id, partitions)| {
            let user_data = None;
            let assignment = headwater_protocol::group::Assignment { partitions, user_data };
            (id, assignment.encode().into())
        };
        assigned.map(encode).collect()
    }

    fn node_gets(&mut self, number: usize, assigned: Places) {
        let is_cooperative = self.is_cooperative();
        let node = &mut self.nodes[number];
        let gives_up = !assigned.contains_all(node.owned);
        node.owned = assigned;
        node.owned_in = node.generation;
        node.doing = Doing::Works;
        if is_cooperative && gives_up {
            // What it has given up is for others, who get it in the next generation.
            node.doing = Doing::Joins;
            let after = Duration::from_millis(self.random.random_range(0..500));
            self.wake(number, after);
        }
    }

    fn node_is_refused(&mut self, number: usize, code: ErrorCode) {
        let node = &mut self.nodes[number];
        match code {
            ErrorCode::RebalanceInProgress => node.doing = Doing::Joins,
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => {
                if code == ErrorCode::UnknownMemberId {
                    node.member = None;
                }
                node.owned = Places::default();
                node.doing = Doing::Joins;
            }
            // Another has taken its place, and all it had.
            ErrorCode::FencedInstanceId => {
                node.owned = Places::default();
                node.is_alive = false;
            }
            ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::KafkaStorageError => {}
            code => panic!("{code} is no answer to {node:?}"),
        }
        self.wake(number, Duration::from_millis(100));
    }
}
