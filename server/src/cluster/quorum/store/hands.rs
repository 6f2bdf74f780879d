//! Who writes: one after the other, and what came together in one transaction.

#[cfg(test)]
use std::sync::{Arc, Mutex};
use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
};

use super::file::{Change, File};
use crate::failure::{Part, StopError};

/// Changes that go into one transaction at most.
const TOGETHER_MAX: usize = 1024;

/// Told when a change is durable, or that nobody knows whether it is.
pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

pub(super) struct Job {
    change: Change,
    done: Done,
}

/// The way to the writer, which keeps the order. openraft bounds what is on the way.
#[derive(Clone)]
pub(super) enum Hands {
    /// A thread that may wait for the disk.
    Thread(Sender<Job>),
    /// Whoever asks, for whom the disk does not wait.
    #[cfg(test)]
    Own(Arc<Mutex<Writer>>),
}

impl Hands {
    /// Starts the thread. It closes the file and ends when nobody is left who could ask.
    pub(super) fn thread(file: File, tell: impl FnOnce(StopError) + Send + 'static) -> io::Result<(Hands, Part)> {
        let (hands, jobs) = channel();
        let part = Part::start("quorum-store", tell, move || Writer::new(file).work(&jobs))?;
        Ok((Hands::Thread(hands), part))
    }

    #[cfg(test)]
    pub(super) fn own(file: File) -> Hands {
        Hands::Own(Arc::new(Mutex::new(Writer::new(file))))
    }

    pub(super) fn give(&self, change: Change, done: Done) {
        let job = Job { change, done };
        match self {
            Hands::Thread(jobs) => {
                if let Err(refused) = jobs.send(job) {
                    (refused.0.done)(Err(gone()));
                }
            }
            #[cfg(test)]
            Hands::Own(writer) => writer.lock().unwrap().perform(vec![job]),
        }
    }
}

/// The writer has ended.
pub(super) fn gone() -> io::Error {
    io::Error::other("the thread that writes the quorum's store has ended; restart the broker")
}

pub(super) struct Writer {
    file: File,
    /// Becomes durable with the next change that must be.
    committed: Option<Change>,
    /// A write has failed, so that nobody knows what is on disk.
    failed: Option<String>,
}

impl Writer {
    fn new(file: File) -> Writer {
        Writer {
            file,
            committed: None,
            failed: None,
        }
    }

    fn work(mut self, jobs: &Receiver<Job>) -> Result<(), String> {
        while let Ok(first) = jobs.recv() {
            let together = [first].into_iter().chain(jobs.try_iter()).take(TOGETHER_MAX);
            self.perform(together.collect());
        }
        if let (None, Some(committed)) = (&self.failed, &self.committed) {
            // Only saves time at the next start.
            let _ = self.file.perform([committed].into_iter());
        }
        match (self.failed, self.file.close()) {
            (None, closed) => closed.map_err(|error| error.to_string()),
            (Some(error), _) => Err(error),
        }
    }

    fn perform(&mut self, jobs: Vec<Job>) {
        let is_urgent = jobs.iter().any(|job| job.change.must_be_durable());
        if self.failed.is_none() && is_urgent {
            let changes = self.committed.iter().chain(jobs.iter().map(|job| &job.change));
            match self.file.perform(changes) {
                Ok(()) => self.committed = None,
                Err(error) => {
                    tracing::error!(%error, "the quorum's store cannot be written, and this member ends, and the broker with it; if it does not start again, see to the disk");
                    self.failed = Some(error.to_string());
                }
            }
        }
        for Job { change, done } in jobs {
            if !is_urgent {
                self.committed = Some(change);
            }
            done(match &self.failed {
                None => Ok(()),
                Some(error) => Err(io::Error::other(error.clone())),
            });
        }
    }
}
