//! What becomes of the records that were sent, looked at in the order of the input; and what is said and done when nothing does.
//!
//! Records may wait for long behind others and be stored all the same. So the time-out is not for each of them: it is over when
//! the oldest has no outcome and none has come since.

use std::collections::VecDeque;
use std::time::Duration;

use headwater_client::{Delivery, Error, ErrorCode, Producer};
use tokio::time::{Instant, timeout_at};

use super::tally::Tally;
use crate::failure::{Failure, chain};
use crate::values;

/// After so long without an outcome it is said what is waited for.
const EXPLAINED_AFTER: Duration = Duration::from_secs(4);

/// Records without an outcome, and what became of the others.
pub struct Outcomes {
    producer: Producer,
    pending: VecDeque<(u64, Delivery)>,
    pub tally: Tally,
    /// Why it cannot go on.
    pub failure: Option<Failure>,
    timeout: Duration,
    /// When the last outcome came, or what is pending began to be.
    since: Instant,
    is_explained: bool,
}

impl Outcomes {
    pub fn new(producer: Producer, timeout: Duration) -> Self {
        Self {
            producer,
            pending: VecDeque::new(),
            tally: Tally::default(),
            failure: None,
            timeout,
            since: Instant::now(),
            is_explained: false,
        }
    }

    /// The record of this line is on its way.
    pub fn expect(&mut self, line: u64, delivery: Delivery) {
        if self.pending.is_empty() {
            self.since = Instant::now();
        }
        self.pending.push_back((line, delivery));
    }

    /// Waits until at most so many records are without an outcome. Each is looked at, whatever became of those before.
    pub async fn settle(&mut self, left: usize) {
        while self.pending.len() > left {
            self.next().await;
        }
    }

    /// Looks at outcomes as they come, and returns when it cannot go on. May be cancelled.
    pub async fn failed(&mut self) {
        while self.failure.is_none() {
            if self.pending.is_empty() {
                return std::future::pending().await;
            }
            self.next().await;
        }
    }

    /// Looks at the outcome of the oldest record, or does without it when its time is over. May be cancelled.
    async fn next(&mut self) {
        let Some((line, delivery)) = self.pending.front_mut() else {
            return;
        };
        let soon = self.since + EXPLAINED_AFTER.min(self.timeout / 2);
        let until = if self.is_explained {
            self.since + self.timeout
        } else {
            soon
        };
        let (line, outcome) = match timeout_at(until, delivery).await {
            Ok(outcome) => (*line, outcome),
            Err(_elapsed) if self.is_explained => return self.give_up(),
            Err(_elapsed) => return self.explain(),
        };
        self.pending.pop_front();
        self.since = Instant::now();
        if std::mem::take(&mut self.is_explained) && outcome.is_ok() {
            anstream::eprintln!("note: records are stored again");
        }
        match outcome {
            Ok(stored) => self.tally.add(&stored),
            Err(error) if is_of_the_record(&error) => self.tally.refuse(line, error),
            Err(error) => {
                self.tally.lose(1);
                let failure = || Failure::client("store a record", &error).at(&format!("line {line}"));
                self.failure.get_or_insert_with(failure);
            }
        }
    }

    /// Does without the outcomes that have not come.
    pub fn abandon(&mut self) {
        self.tally.lose(self.pending.len() as u64);
        self.pending.clear();
    }

    fn explain(&mut self) {
        self.is_explained = true;
        let count = self.pending.len() as u64;
        let (records, wait) = (
            values::count(count, "record"),
            if count == 1 { "waits" } else { "wait" },
        );
        let why = self.producer.retrying_after();
        let why = why.map_or_else(|| "the broker has not answered yet".to_owned(), |error| chain(&error));
        let timeout = humantime::format_duration(self.timeout);
        anstream::eprintln!("note: {records} {wait} to be stored, for {timeout} at most (--timeout): {why}");
    }

    fn give_up(&mut self) {
        let last = self.producer.retrying_after().map(Box::new);
        let error = Error::Timeout {
            operation: "deliver",
            limit: self.timeout,
            last,
        };
        let line = self.pending.front().map_or(0, |(line, _)| *line);
        self.abandon();
        let failure = || Failure::client("store a record", &error).at(&format!("line {line}"));
        self.failure.get_or_insert_with(failure);
    }
}

/// Whether it is refused for what it is, so that others may do.
pub fn is_of_the_record(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(
            ErrorCode::MessageTooLarge
                | ErrorCode::RecordListTooLarge
                | ErrorCode::InvalidRecord
                | ErrorCode::InvalidTimestamp
        )
    )
}
