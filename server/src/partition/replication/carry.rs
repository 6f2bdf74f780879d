//! The log behind the decisions: what it says of itself, and what is done to it.

use std::cell::RefCell;

use headwater_engine::{CommonPoint, Log, LogOffsets, ReplicaError};
use headwater_protocol::id::Offset;

use super::{
    follower::{self, Act, Follower},
    leader::LeaderLog,
    message::{Answer, Held, Place, Progress},
    replica::{LogState, Replica, Role},
};
use crate::machine::{self, Disk};

fn held(offsets: LogOffsets) -> Held {
    Held {
        received: offsets.end,
        durable: offsets.durable,
    }
}

/// The log when the role changes.
pub(crate) fn state_of(log: &Log<Disk>) -> LogState {
    let offsets = log.offsets();
    LogState {
        held: held(offsets),
        end: offsets.end,
        watermark: offsets.high_watermark,
    }
}

/// The log of a follower.
pub(crate) fn of_follower(log: &Log<Disk>) -> follower::Log {
    let offsets = log.offsets();
    follower::Log {
        end: offsets.end,
        latest_epoch: log.latest_epoch(),
        held: held(offsets),
        holes_below: log.holes_below(),
    }
}

/// The log of a leader, for whoever goes on there.
pub(crate) fn of_leader(log: &Log<Disk>, place: Place) -> LeaderLog {
    let offsets = log.offsets();
    LeaderLog {
        start: offsets.start,
        end: offsets.end,
        holes_below: log.holes_below(),
        end_of_last: log.end_of_epoch(place.last_epoch),
    }
}

/// What a leader's answer has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing: it was of no use any more.
    Nothing,
    /// What came with it was appended, and is to be flushed. The leader's log starts here: what lies before is to go here too.
    Appended { log_start: Offset },
    /// The log was cut.
    Cut,
}

/// Does what a leader's answer asks for.
pub(crate) async fn take_answer(
    log: &Log<Disk>,
    replica: &RefCell<Replica>,
    asked: Place,
    answer: Answer,
    records: &[u8],
) -> Result<Taken, ReplicaError> {
    let decide = || as_follower(replica, |follower| follower.answered(asked, answer, of_follower(log)));
    let mut act = decide();
    while let Some(Act::ExpectHoles(below)) = act {
        log.expect_holes_below(below).await?;
        act = decide();
    }
    match act.unwrap_or(Act::Nothing) {
        // Nothing is awaited between the decision and the append: nobody else can have become the leader.
        Act::Append(progress) => match append(log, progress, records) {
            Err(ReplicaError::Overlap { base, .. } | ReplicaError::Gap { base, .. }) if is_empty(log) => {
                let act = as_follower(replica, |follower| follower.begins_at(base));
                cut(log, replica, act.unwrap_or(Act::Nothing)).await?;
            }
            appended => {
                let log_start = progress.log_start;
                return appended.map(|()| Taken::Appended { log_start });
            }
        },
        Act::Nothing => return Ok(Taken::Nothing),
        act => cut(log, replica, act).await?,
    }
    Ok(Taken::Cut)
}

fn append(log: &Log<Disk>, progress: Progress, records: &[u8]) -> Result<(), ReplicaError> {
    if !records.is_empty() {
        // Nobody here waits for it: the leader is told when it is durable.
        let _appended = log.append_replica(records, machine::moment())?;
    }
    log.advance_high_watermark(progress.high_watermark);
    Ok(())
}

async fn cut(log: &Log<Disk>, replica: &RefCell<Replica>, act: Act) -> Result<(), ReplicaError> {
    let done = match act {
        Act::Truncate(end) => log.truncate_to(end).await,
        Act::BeginAgain(at) => log.begin_again_at(at).await.map(|()| CommonPoint::At(at)),
        Act::Nothing | Act::ExpectHoles(_) | Act::Append(_) => return Ok(()),
    };
    as_follower(replica, |follower| match done {
        Ok(common) => follower.truncated(common),
        Err(_) => follower.was_not_cut(),
    });
    done.map(|_common| ()).map_err(ReplicaError::from)
}

fn is_empty(log: &Log<Disk>) -> bool {
    let LogOffsets { start, end, .. } = log.offsets();
    start == end
}

fn as_follower<T>(replica: &RefCell<Replica>, what: impl FnOnce(&mut Follower) -> T) -> Option<T> {
    match replica.borrow_mut().role() {
        Role::Follows(follower) => Some(what(follower)),
        Role::Leads(_) | Role::Waits => None,
    }
}

/// Where records for a follower are read from that goes on at `offset`.
pub(crate) fn read_from(log: &Log<Disk>, offset: Offset) -> Offset {
    offset.max(log.offsets().start)
}
