//! Who waits until appends to a partition are durable: told in the order of the log, by the task that flushes it.

use std::{cell::RefCell, collections::VecDeque, fmt, time::Instant};

use headwater_engine::{Appended, LogError};
use headwater_protocol::id::Timestamp;

use super::served::Partition;
use crate::{
    core::Core,
    machine,
    metrics::{Refused, Stage},
    model::{records::Produced, refusal::Refusal},
};

/// An append that somebody waits for.
struct Waiting {
    appended: Appended,
    since: Instant,
    told: Box<dyn FnOnce(Result<Produced, Refusal>)>,
}

/// Those of one partition, in the order of the log.
#[derive(Default)]
pub(super) struct Acknowledgements(RefCell<VecDeque<Waiting>>);

impl fmt::Debug for Acknowledgements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acknowledgements").field(&self.0.borrow().len()).finish()
    }
}

impl Partition {
    /// Has somebody told what becomes of an append: when it is durable, or as soon as it is known that it never will be. That
    /// an append is sent again, which is durable already, is told at once.
    pub(crate) fn tell_when_durable(
        &self,
        core: &Core,
        appended: Appended,
        told: impl FnOnce(Result<Produced, Refusal>) + 'static,
    ) {
        let waiting = Waiting {
            appended,
            since: machine::now(),
            told: Box::new(told),
        };
        match waiting.appended.durable.outcome() {
            Some(outcome) => self.tell(core, waiting, outcome),
            None => self.acknowledgements.0.borrow_mut().push_back(waiting),
        }
    }

    /// Tells all whose appends are settled.
    pub(super) fn acknowledge(&self, core: &Core) {
        while let Some((waiting, outcome)) = self.next_settled() {
            self.tell(core, waiting, outcome);
        }
    }

    fn next_settled(&self) -> Option<(Waiting, Result<(), LogError>)> {
        let mut queue = self.acknowledgements.0.borrow_mut();
        let outcome = queue.front()?.appended.durable.outcome()?;
        Some((queue.pop_front()?, outcome))
    }

    fn tell(&self, core: &Core, waiting: Waiting, outcome: Result<(), LogError>) {
        core.metrics.passed(Stage::Acknowledge, machine::since(waiting.since));
        let produced = outcome.map(|()| Produced {
            base_offset: waiting.appended.base_offset,
            append_time: waiting.appended.append_time.unwrap_or(Timestamp::NONE),
            log_start_offset: self.log.offsets().start,
        });
        (waiting.told)(produced.map_err(|error| {
            core.metrics.refused(Refused::by(&error));
            Refusal::because(error.code(), &error)
        }));
    }
}
