//! The leader's side: how far each follower is, how far clients may read, and who should be in sync.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use headwater_engine::EpochEnd;
use headwater_protocol::id::{BrokerId, LeaderEpoch, Offset};

use super::message::{Answer, Fetch, FetchRefused, Held, Place, Progress};
use crate::image::{Durability, Incarnation, IsrWish, Member, Replicas};

/// How long a follower that the coordinator has not let in is not proposed again.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// Who fetches. Of two connections of one process, the one that began later has the higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) member: Member,
    pub(crate) connection: u64,
}

/// The leader's log when a fetch comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaderLog {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) holes_below: Offset,
    /// Where the epoch ends here that the fetch names as its last.
    pub(crate) end_of_last: EpochEnd,
}

/// What is known of a follower.
#[derive(Debug)]
struct Known {
    peer: Option<Peer>,
    /// As it has said on this connection, in this epoch; `None` until its log is known to be the leader's.
    held: Option<Held>,
    /// It had everything at this time.
    caught_up: Instant,
    /// Where the log ended at a time since: when the follower has come so far, it was caught up then.
    mark: (Offset, Instant),
    /// It is not proposed before.
    not_before: Option<Instant>,
}

impl Known {
    /// Of somebody who has not been heard yet.
    fn new(end: Offset, now: Instant) -> Known {
        Known {
            peer: None,
            held: None,
            caught_up: now,
            mark: (end, now),
            not_before: None,
        }
    }

    /// What it said before, on another connection, may not be so any more.
    fn hears(&mut self, peer: Peer) -> Result<(), FetchRefused> {
        let age = |peer: Peer| (peer.member.incarnation, peer.connection);
        match self.peer {
            Some(known) if age(known) > age(peer) => return Err(FetchRefused::Stale),
            Some(known) if known == peer => {}
            _ => (self.peer, self.held) = (Some(peer), None),
        }
        Ok(())
    }

    /// On one connection a replica only gains, so that what comes late is of no effect.
    fn holds(&mut self, held: Held) {
        let before = self.held.unwrap_or(held);
        self.held = Some(Held {
            received: before.received.max(held.received),
            durable: before.durable.max(held.durable),
        });
    }

    /// The log ends at `end` and is about to end later.
    fn was_at(&mut self, end: Offset, durability: Durability, now: Instant) {
        if self.held.is_some_and(|held| held.counted(durability) >= end) {
            self.caught_up = now;
        }
    }

    fn notes(&mut self, counted: Offset, end: Offset, now: Instant) {
        if counted >= end {
            self.caught_up = now;
        } else if counted >= self.mark.0 {
            self.caught_up = self.caught_up.max(self.mark.1);
            self.mark = (end, now);
        }
    }
}

/// How far the followers of a partition are behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lag {
    /// What the one has that is furthest behind, if one lacks anything.
    pub(crate) least: Option<Offset>,
    /// The longest time since one that lacks something had everything.
    pub(crate) time: Duration,
    /// Those that are not in sync, and fetch.
    pub(crate) catching_up: usize,
}

/// A partition that this broker leads, in one epoch.
#[derive(Debug)]
pub(crate) struct Leader {
    own: BrokerId,
    replicas: Replicas,
    /// Where its log ended when it began to lead: no leader before can have acknowledged more.
    began_at: Offset,
    held: Held,
    end: Offset,
    watermark: Offset,
    followers: BTreeMap<BrokerId, Known>,
    wish: Option<IsrWish>,
    /// A follower that is not caught up for so long is not in sync.
    lag_max: Duration,
}

impl Leader {
    /// Begins to lead. The replicas say that it does; its log ends at `end`, and the watermark is what it knew of it as a follower.
    pub(crate) fn new(
        own: BrokerId,
        replicas: Replicas,
        log: (Held, Offset),
        watermark: Offset,
        lag_max: Duration,
        now: Instant,
    ) -> Leader {
        assert_eq!(replicas.leader, Some(own), "only the leader leads");
        let (held, end) = log;
        let mut leader = Leader {
            own,
            replicas,
            began_at: end,
            held,
            end,
            watermark: watermark.min(end),
            followers: BTreeMap::new(),
            wish: None,
            lag_max,
        };
        leader.know_followers(now);
        leader.advance();
        leader
    }

    /// How far clients may read, and what is acknowledged.
    pub(crate) fn watermark(&self) -> Offset {
        self.watermark
    }

    /// Whether the watermark has come to where the log ended when it began to lead: until then an earlier leader may have shown more.
    pub(crate) fn knows_watermark(&self) -> bool {
        self.watermark >= self.began_at
    }

    /// The epoch in which it leads.
    pub(crate) fn epoch(&self) -> LeaderEpoch {
        self.replicas.leader_epoch
    }

    /// The replicas as they are now, in the same leader epoch. What is known already has no effect.
    pub(crate) fn learn(&mut self, replicas: Replicas, now: Instant) {
        assert_eq!(
            replicas.leader_epoch,
            self.epoch(),
            "in another epoch it leads anew, or not at all"
        );
        if replicas.epoch <= self.replicas.epoch {
            return;
        }
        if let Some(wish) = self.wish.take() {
            for (broker, _) in wish.join.iter().filter(|(broker, _)| !replicas.is_in_sync(*broker)) {
                if let Some(known) = self.followers.get_mut(broker) {
                    known.not_before = Some(now + REFUSED_WAIT);
                }
            }
        }
        self.replicas = replicas;
        self.know_followers(now);
        self.advance();
    }

    /// Its own log has come so far. Who had everything until now was caught up until now, however long nothing was appended.
    pub(crate) fn appended(&mut self, held: Held, end: Offset, now: Instant) {
        if end > self.end {
            let durability = self.replicas.terms.durability;
            for known in self.followers.values_mut() {
                known.was_at(self.end, durability, now);
            }
        }
        (self.held, self.end) = (held, end);
        self.advance();
    }

    /// The replicas, as far as they are known here.
    pub(crate) fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// How a follower at this place goes on, which it has said or is about to: nothing of it counts before it has said so.
    pub(crate) fn goes_on(&self, place: Place, log: LeaderLog) -> Answer {
        parting(place, log).unwrap_or_else(|| self.records(log))
    }

    /// A follower says what it has, and wants to go on.
    pub(crate) fn fetched(
        &mut self,
        peer: Peer,
        fetch: &Fetch,
        log: LeaderLog,
        now: Instant,
    ) -> Result<Answer, FetchRefused> {
        self.check_epoch(fetch)?;
        let known = self.followers.get_mut(&peer.member.broker);
        let known = known.ok_or(FetchRefused::NotReplica(peer.member.broker))?;
        known.hears(peer)?;
        if fetch.held.durable > fetch.held.received || fetch.held.received > fetch.place.offset {
            return Err(FetchRefused::Contradiction);
        }
        if let Some(parting) = parting(fetch.place, log) {
            return Ok(parting);
        }
        let durability = self.replicas.terms.durability;
        known.holds(fetch.held);
        known.notes(fetch.held.counted(durability), log.end, now);
        self.advance();
        Ok(self.records(log))
    }

    fn records(&self, log: LeaderLog) -> Answer {
        Answer::Records(Progress {
            high_watermark: self.watermark,
            log_start: log.start,
            holes_below: log.holes_below,
        })
    }

    /// What to ask of the coordinator now. While nothing newer than what it was asked last is known, that is asked again: it may have
    /// been done or not, and both are reckoned with.
    pub(crate) fn wish(&mut self, now: Instant) -> Option<&IsrWish> {
        if self.wish.is_none() {
            let (late, join) = (self.late(now), self.ready(now));
            if late.is_empty() && join.is_empty() {
                return None;
            }
            let stays = |broker: &BrokerId| !late.contains(broker);
            self.wish = Some(IsrWish {
                leader_epoch: self.replicas.leader_epoch,
                epoch: self.replicas.epoch,
                stay: self.replicas.isr.iter().copied().filter(stays).collect(),
                join,
            });
        }
        self.wish.as_ref()
    }

    fn check_epoch(&self, fetch: &Fetch) -> Result<(), FetchRefused> {
        let (said, is) = (fetch.place.leader_epoch, self.epoch());
        match said.cmp(&is) {
            std::cmp::Ordering::Less => Err(FetchRefused::FencedEpoch { said, is }),
            std::cmp::Ordering::Greater => Err(FetchRefused::UnknownEpoch { said, is }),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    fn know_followers(&mut self, now: Instant) {
        let own = self.own;
        let end = self.end;
        self.followers.retain(|broker, _| self.replicas.has(*broker));
        for broker in self.replicas.replicas.iter().filter(|broker| **broker != own) {
            self.followers.entry(*broker).or_insert_with(|| Known::new(end, now));
        }
    }

    /// How far followers are behind.
    pub(crate) fn lag(&self, now: Instant) -> Lag {
        let mut lag = Lag::default();
        for (broker, known) in &self.followers {
            let counted = self.counted(*broker).unwrap_or(Offset::ZERO);
            if counted < self.end {
                let time = now.saturating_duration_since(known.caught_up);
                lag.least = Some(lag.least.map_or(counted, |least| least.min(counted)));
                lag.time = lag.time.max(time);
            }
            let catches_up = !self.replicas.is_in_sync(*broker) && known.held.is_some();
            lag.catching_up += usize::from(catches_up);
        }
        lag
    }

    fn counted(&self, broker: BrokerId) -> Option<Offset> {
        let held = if broker == self.own {
            Some(self.held)
        } else {
            self.followers.get(&broker)?.held
        };
        Some(held?.counted(self.replicas.terms.durability))
    }

    /// Whether a follower has said that it has the log up to there.
    pub(crate) fn is_received(&self, broker: BrokerId, offset: Offset) -> bool {
        let held = self.followers.get(&broker).and_then(|known| known.held);
        held.is_some_and(|held| held.received >= offset)
    }

    /// Moves the watermark to what every replica has that is in sync, or may be by now.
    fn advance(&mut self) {
        if !self.replicas.has_quorum() {
            return;
        }
        let joining = self.wish.iter().flat_map(|wish| &wish.join).map(|(broker, _)| *broker);
        let mut all = self.replicas.isr.iter().copied().chain(joining);
        let least = all.try_fold(self.end, |least, broker| Some(least.min(self.counted(broker)?)));
        if let Some(least) = least {
            self.watermark = self.watermark.max(least);
        }
    }

    /// Who is in sync and should not be: it has had no chance to catch up for too long, or lacks what is acknowledged.
    fn late(&self, now: Instant) -> Vec<BrokerId> {
        let is_late = |broker: &BrokerId| {
            let Some(known) = self.followers.get(broker) else {
                return false;
            };
            let counted = self.counted(*broker);
            let has_lost = counted.is_some_and(|counted| counted < self.watermark);
            has_lost || self.is_behind(counted, known, now)
        };
        self.replicas.isr.iter().copied().filter(is_late).collect()
    }

    /// Whether a follower that has this much is not at the end, and was not for too long.
    fn is_behind(&self, counted: Option<Offset>, known: &Known, now: Instant) -> bool {
        let is_at_end = counted.is_some_and(|counted| counted >= self.end);
        !is_at_end && now.saturating_duration_since(known.caught_up) > self.lag_max
    }

    /// Who is not in sync and has caught up, and would not be late at once.
    fn ready(&self, now: Instant) -> Vec<(BrokerId, Incarnation)> {
        let from = self.watermark.max(self.began_at);
        let ready = self.followers.iter().filter_map(|(broker, known)| {
            let may_be = !self.replicas.is_in_sync(*broker)
                && !self.replicas.offline.contains(broker)
                && known.not_before.is_none_or(|not_before| now >= not_before);
            let counted = self.counted(*broker);
            let has_all = counted.is_some_and(|counted| counted >= from) && !self.is_behind(counted, known, now);
            let peer = known.peer.filter(|_| may_be && has_all)?;
            Some((*broker, peer.member.incarnation))
        });
        ready.collect()
    }
}

/// What to tell a follower whose log is not the leader's up to where it wants to go on.
fn parting(place: Place, log: LeaderLog) -> Option<Answer> {
    let is_empty = place.last_epoch == LeaderEpoch::NONE;
    // Who has nothing goes on wherever the first batch begins that is sent.
    let is_outside = if is_empty {
        place.offset > log.end
    } else {
        place.offset < log.start
    };
    if is_outside {
        return Some(Answer::BeginAgain { at: log.start });
    }
    if is_empty {
        return None;
    }
    let answer = log.end_of_last;
    let is_same = answer.epoch == place.last_epoch && place.offset <= answer.end;
    if !is_same {
        return Some(Answer::Diverging(answer));
    }
    // All that was of that epoch here is deleted: nothing tells whether it was the same.
    (answer.end <= log.start).then_some(Answer::BeginAgain { at: log.start })
}
