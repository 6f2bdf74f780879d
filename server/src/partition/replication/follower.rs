//! The follower's side: what to ask for, and what to do with the answer.

use headwater_engine::{CommonPoint, EpochEnd};
use headwater_protocol::id::{LeaderEpoch, Offset};

use super::message::{Answer, Fetch, Held, Place, Progress};

/// The follower's log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log {
    pub(crate) end: Offset,
    /// Of its last record, if it has any.
    pub(crate) latest_epoch: Option<LeaderEpoch>,
    pub(crate) held: Held,
    /// Holes are expected below this offset.
    pub(crate) holes_below: Offset,
}

/// What a follower is to do to its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Nothing: the answer is of no use any more.
    Nothing,
    /// Expect holes below this offset, and fetch again.
    ExpectHoles(Offset),
    /// Append what came, let clients read up to the watermark as far as the log reaches, and delete what the leader has deleted.
    Append(Progress),
    /// Truncate by what the leader says of an epoch, and report [`Follower::truncated`]. Nothing else is done to the log meanwhile.
    Truncate(EpochEnd),
    /// Drop everything and go on there, and report that the log was truncated to there. Nothing else is done to the log meanwhile.
    BeginAgain(Offset),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// As far as is known, the log is the leader's.
    Fetches,
    /// It is not: at most up to `below`, and whether that is so an older epoch tells.
    Probes { epoch: LeaderEpoch, below: Offset },
    /// The log is being cut.
    Cuts,
}

/// A partition of which this broker is a follower, in one epoch.
#[derive(Debug)]
pub(crate) struct Follower {
    epoch: LeaderEpoch,
    phase: Phase,
}

impl Follower {
    /// Begins to follow the leader of this epoch.
    pub(crate) fn new(epoch: LeaderEpoch) -> Follower {
        Follower {
            epoch,
            phase: Phase::Fetches,
        }
    }

    /// The epoch in which it follows.
    pub(crate) fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// What to tell the leader, and ask of it; `None` while the log is being cut. Nothing of the log counts that may not be the leader's.
    pub(crate) fn fetch(&self, log: Log) -> Option<Fetch> {
        let (offset, last_epoch) = match self.phase {
            Phase::Fetches => (log.end, log.latest_epoch.unwrap_or(LeaderEpoch::NONE)),
            Phase::Probes { epoch, below } => (below, epoch),
            Phase::Cuts => return None,
        };
        Some(Fetch {
            place: Place {
                leader_epoch: self.epoch,
                offset,
                last_epoch,
            },
            held: Held {
                received: log.held.received.min(offset),
                durable: log.held.durable.min(offset),
            },
        })
    }

    /// The leader's answer to a fetch from `asked`, which may be long ago.
    pub(crate) fn answered(&mut self, asked: Place, answer: Answer, log: Log) -> Act {
        if self.fetch(log).is_none_or(|now| now.place != asked) {
            return Act::Nothing;
        }
        let cut = match (answer, self.phase) {
            (Answer::Records(_), Phase::Probes { epoch, below }) => Act::Truncate(EpochEnd { epoch, end: below }),
            (Answer::Records(progress), _) if progress.holes_below > log.holes_below => {
                return Act::ExpectHoles(progress.holes_below);
            }
            (Answer::Records(progress), _) => return Act::Append(progress),
            (Answer::Diverging(end), _) => Act::Truncate(end),
            (Answer::BeginAgain { at }, _) => Act::BeginAgain(at),
        };
        self.phase = Phase::Cuts;
        cut
    }

    /// The log is empty, and the records that came begin elsewhere than it ends: with the first batch that the leader has, which may
    /// begin before its log does. The log is to begin there too.
    pub(crate) fn begins_at(&mut self, base: Offset) -> Act {
        self.phase = Phase::Cuts;
        Act::BeginAgain(base)
    }

    /// The log is being cut: it is not what it is going to be, and nobody may judge or use it before that is reported.
    pub(crate) fn is_cutting(&self) -> bool {
        self.phase == Phase::Cuts
    }

    /// The log was cut, or not yet: then the leader is to tell of another epoch.
    pub(crate) fn truncated(&mut self, common: CommonPoint) {
        self.phase = match common {
            CommonPoint::At(_) => Phase::Fetches,
            CommonPoint::Older { epoch, below } => Phase::Probes { epoch, below },
        };
    }

    /// The log is as it was, and the leader is to say again what is to be done to it.
    pub(crate) fn was_not_cut(&mut self) {
        self.phase = Phase::Fetches;
    }
}
