//! Who waits until appends to a partition are durable, here or on all replicas: told in the order of the log, by the task that flushes
//! it, or by whoever learns that the high watermark has moved.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use headwater_engine::{Appended, Log, LogError, Ticket};
use headwater_protocol::{error::ErrorCode, id::Timestamp};

use crate::{
    core::Core,
    machine::{self, Disk},
    metrics::{Refused, Stage},
    model::{
        records::{Acks, Produced},
        refusal::Refusal,
    },
};

/// An append that somebody waits for.
struct Waiting {
    appended: Appended,
    /// Settled when it is where its producer wants it.
    settled: Ticket,
    since: Instant,
    within: Duration,
    told: Box<dyn FnOnce(Result<Produced, Refusal>)>,
}

/// Those of one partition, in the order of the log. Who waits for all replicas does not keep those waiting who do not.
#[derive(Default)]
pub(super) struct Acknowledgements {
    of_leader: RefCell<VecDeque<Waiting>>,
    of_all: RefCell<VecDeque<Waiting>>,
}

impl fmt::Debug for Acknowledgements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = [&self.of_leader, &self.of_all].map(|queue| queue.borrow().len());
        f.debug_tuple("Acknowledgements").field(&waiting).finish()
    }
}

impl Acknowledgements {
    /// Has somebody told what becomes of an append that was made just now: when it is as safe as was asked for, or as soon as it is
    /// known that it never will be. That an append is sent again, which is safe already, is told at once; so is one that `is_enough`.
    pub(super) fn wait(
        &self,
        core: &Core,
        log: &Log<Disk>,
        (appended, acks, is_enough): (Appended, Acks, bool),
        told: impl FnOnce(Result<Produced, Refusal>) + 'static,
    ) {
        let (settled, queue) = match acks {
            Acks::All { .. } => (log.committed(&appended), &self.of_all),
            Acks::Leader | Acks::None => (appended.durable.clone(), &self.of_leader),
        };
        let waiting = Waiting {
            appended,
            settled,
            since: machine::now(),
            within: match acks {
                Acks::All { within } => within,
                Acks::Leader | Acks::None => Duration::MAX,
            },
            told: Box::new(told),
        };
        let outcome = if is_enough {
            Some(Ok(()))
        } else {
            waiting.settled.outcome()
        };
        match outcome {
            Some(outcome) => tell(core, log, waiting, outcome),
            None => queue.borrow_mut().push_back(waiting),
        }
    }

    /// Tells all whose appends are settled.
    pub(super) fn tell_settled(&self, core: &Core, log: &Log<Disk>) {
        for queue in [&self.of_leader, &self.of_all] {
            while let Some((waiting, outcome)) = next_settled(queue) {
                tell(core, log, waiting, outcome);
            }
        }
    }

    /// Tells those who have waited for replicas for as long as they would. Replicas that do not answer must not keep what requests hold
    /// for ever.
    pub(super) fn expire(&self) {
        if self.of_all.borrow().is_empty() {
            return;
        }
        let (late, wait): (VecDeque<Waiting>, VecDeque<Waiting>) =
            (self.of_all.take().into_iter()).partition(|waiting| machine::since(waiting.since) >= waiting.within);
        // Nobody is told while it is borrowed, and nobody else has come meanwhile.
        self.of_all.replace(wait);
        for late in late {
            let message = "replicas that are in sync have not said in time that they have the records, which may be stored: send them again";
            (late.told)(Err(Refusal::new(ErrorCode::RequestTimedOut, message)));
        }
    }

    /// Tells all who wait that this broker will not know what becomes of their appends.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        let waiting = self.of_leader.take().into_iter().chain(self.of_all.take());
        for waiting in waiting {
            (waiting.told)(Err(refusal.clone()));
        }
    }
}

fn next_settled(queue: &RefCell<VecDeque<Waiting>>) -> Option<(Waiting, Result<(), LogError>)> {
    let mut queue = queue.borrow_mut();
    let outcome = queue.front()?.settled.outcome()?;
    Some((queue.pop_front()?, outcome))
}

fn tell(core: &Core, log: &Log<Disk>, waiting: Waiting, outcome: Result<(), LogError>) {
    core.metrics.passed(Stage::Acknowledge, machine::since(waiting.since));
    let produced = outcome.map(|()| Produced {
        base_offset: waiting.appended.base_offset,
        append_time: waiting.appended.append_time.unwrap_or(Timestamp::NONE),
        log_start_offset: log.offsets().start,
    });
    (waiting.told)(produced.map_err(|error| {
        core.metrics.refused(Refused::by(&error));
        Refusal::because(error.code(), &error)
    }));
}
