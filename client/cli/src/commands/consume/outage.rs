//! A reader that goes on until Ctrl-C waits while nobody answers: it says so once, and once when somebody does again.

use std::time::Duration;

use headwater_client::{Advance, Consumer, Error, GroupConsumer};

use crate::failure::chain;
use crate::screen::note;

/// How often to look whether the broker answers again: there may be no record to show it.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Either kind of consumer.
pub trait Source {
    async fn advance(&mut self) -> Result<Advance, Error>;
    fn retrying_after(&self) -> Option<Error>;
}

impl Source for Consumer {
    async fn advance(&mut self) -> Result<Advance, Error> {
        self.advance().await
    }

    fn retrying_after(&self) -> Option<Error> {
        self.retrying_after()
    }
}

impl Source for GroupConsumer {
    async fn advance(&mut self) -> Result<Advance, Error> {
        self.advance().await
    }

    fn retrying_after(&self) -> Option<Error> {
        self.retrying_after()
    }
}

/// Whether there is one.
#[derive(Debug, Default)]
pub struct Outage {
    is_on: bool,
}

impl Outage {
    /// What comes next, however long it takes, after an error if one has come already. Errors are those that waiting does not
    /// cure.
    pub async fn outlast(&mut self, source: &mut impl Source, mut error: Option<Error>) -> Result<Advance, Error> {
        loop {
            match error.take() {
                Some(error) if error.is_retriable() => self.begins(&error),
                Some(error) => return Err(error),
                None => {}
            }
            let next = if self.is_on {
                tokio::time::timeout(LOOK_EVERY, source.advance()).await.ok()
            } else {
                Some(source.advance().await)
            };
            match next {
                Some(Err(failed)) => error = Some(failed),
                Some(Ok(next)) => {
                    self.ends();
                    return Ok(next);
                }
                None if source.retrying_after().is_none() => self.ends(),
                None => {}
            }
        }
    }

    fn begins(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.is_on, true) {
            note(&format!(
                "{}; it goes on when there is an answer, Ctrl-C ends it",
                chain(error)
            ));
        }
    }

    fn ends(&mut self) {
        if std::mem::take(&mut self.is_on) {
            note("the broker answers again");
        }
    }
}
