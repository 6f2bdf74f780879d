//! The task that sends one partition's batches: it does what the window decides.
//!
//! One for each partition that was ever written to; it owns the partition's window and its route to the leader. Batches
//! of all partitions on one core share that core's connection, whose writer puts many of them into one system call.

use std::collections::VecDeque;
use std::sync::Arc;

use super::accumulator::PartitionQueue;
use super::delivery::Delivered;
use super::tally::Tally;
use super::window::{Action, Attempt, Identity, Window};
use super::{Acks, SenderSettings};
use crate::cluster::{Cluster, Route};
use crate::connection::{Answer, Connection, Outcome, Reply};
use crate::deadline::{Backoff, Deadline};
use crate::error::{Error, ProtocolViolation};
use crate::requests;
use crate::runtime::sync::Mutex;
use crate::runtime::{self, Instant, sleep, timeout_at};

/// With no linger, a batch that is not full leaves at once while its partition has fewer than this many in flight. It keeps
/// the latency of single records low; under load batches fill up all the same. It is one while the producer is short of
/// memory or has [`BUSY_BATCHES_MIN`] in flight: else many partitions would send nothing but small batches.
const EAGER_BATCHES_MAX: usize = 4;

/// With so many batches in flight, over all partitions, a producer gains nothing by another one that is not full.
const BUSY_BATCHES_MIN: usize = 64;

/// The end of an attempt, and the connection that it was made on.
type End = (Attempt, Connection, Result<Outcome, Error>);

pub(super) struct Sender {
    cluster: Arc<Cluster>,
    queue: Arc<PartitionQueue>,
    settings: SenderSettings,
    window: Window,
    tally: Arc<Tally>,
    /// How many batches of the window the tally knows of.
    counted: usize,
    route: Option<Route>,
    /// The metadata led to a failure: ask again before the next attempt.
    stale: bool,
    /// Since when the topic, or the partition, does not exist.
    unknown_since: Option<Instant>,
    backoff: Backoff,
    /// What connections have reported and the window has not seen yet.
    ends: Arc<Mutex<VecDeque<End>>>,
    /// When the batch that is still open came into being.
    open_since: Option<Instant>,
    /// The queue was told of a failure that is not over.
    is_in_trouble: bool,
}

impl Sender {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        queue: Arc<PartitionQueue>,
        settings: SenderSettings,
        identity: Option<Identity>,
        tally: Arc<Tally>,
    ) -> Self {
        let backoff = cluster.backoff();
        Self {
            cluster,
            queue,
            window: Window::new(settings.window, identity, Arc::clone(&tally)),
            tally,
            counted: 0,
            settings,
            route: None,
            stale: false,
            unknown_since: None,
            backoff,
            ends: Arc::default(),
            open_since: None,
            is_in_trouble: false,
        }
    }

    /// Runs until the queue is shut and everything in it has ended.
    pub(super) async fn run(mut self) {
        loop {
            let finished = self.collect();
            self.window.expire(runtime::now());
            if finished && self.window.is_empty() {
                self.count(0);
                return;
            }
            match self.window.action() {
                Action::Send => self.send().await,
                // On the heap, as it is rare: each partition has a task, and a task takes what its largest state does.
                Action::Recover => Box::pin(self.recover()).await,
                Action::Wait => self.wait().await,
            }
        }
    }

    /// Moves batches from the queue into the window. Returns whether no more will come.
    fn collect(&mut self) -> bool {
        let open = self.count(self.window.len());
        let eager_max = if self.queue.is_memory_short() || open >= BUSY_BATCHES_MIN {
            1
        } else {
            EAGER_BATCHES_MAX
        };
        let (room, eager) = (self.window.has_room(), self.window.len() < eager_max);
        let linger = self.settings.linger;
        let due = |opened_at, hurried: bool| {
            let at_once = linger.is_zero() || hurried;
            (at_once && eager) || (!linger.is_zero() && opened_at + linger <= runtime::now())
        };
        // Whatever makes room in the window comes by here again.
        let awaits_open = room && (eager || !linger.is_zero());
        let collected = self
            .queue
            .collect(awaits_open, |opened_at, hurried| room && due(opened_at, hurried));
        for batch in collected.batches {
            self.window.push(batch);
        }
        self.open_since = collected.open_since;
        collected.finished
    }

    /// Tells the producer how many batches this partition has open. Returns how many all of them have.
    fn count(&mut self, now: usize) -> usize {
        let before = std::mem::replace(&mut self.counted, now);
        self.tally.count_open(before, now)
    }

    async fn send(&mut self) {
        let Some(Route { topic_id, connection }) = self.route.as_ref().filter(|route| !route.connection.is_closed())
        else {
            // The batches on the old connection have failed, and are told so, before any other goes.
            return match self.window.oldest_attempt() {
                Some(_) => self.wait().await,
                None => Box::pin(self.connect()).await,
            };
        };
        self.queue.follow(&self.cluster);
        let Some((attempt, bytes)) = self.window.take_next(runtime::now(), self.queue.size_max()) else {
            return;
        };
        let timeout_ms = self.cluster.settings.connection.request_timeout.as_millis() as u32;
        let head = requests::produce(*topic_id, self.queue.partition, self.settings.acks, timeout_ms);
        let answer = if self.settings.acks == Acks::None {
            Answer::None
        } else {
            Answer::Expected
        };
        let (ends, queue, on) = (Arc::clone(&self.ends), Arc::clone(&self.queue), connection.clone());
        let reply = Reply::new(connection.address(), move |end| {
            ends.lock().push_back((attempt, on, end));
            queue.wake();
        });
        connection.submit(&head, bytes, answer, reply);
        self.take_ends();
    }

    /// Takes what has ended, without waiting.
    fn take_ends(&mut self) {
        loop {
            let end = self.ends.lock().pop_front();
            let Some(end) = end else { return };
            self.on_end(end);
        }
    }

    /// Waits until there is something new to decide.
    async fn wait(&mut self) {
        let request_timeout = self.cluster.settings.connection.request_timeout;
        let overdue = self.window.oldest_attempt().map(|sent_at| sent_at + request_timeout);
        let linger = self
            .open_since
            .filter(|_| self.window.has_room())
            .map(|since| since + self.settings.linger);
        let linger = linger.filter(|_| !self.settings.linger.is_zero());
        let next = [self.window.next_deadline(), overdue, linger]
            .into_iter()
            .flatten()
            .min();
        let changed = self.queue.changed();
        match next {
            // The time is looked at below.
            Some(next) => drop(timeout_at(next, changed).await),
            None => changed.await,
        }
        self.take_ends();
        if overdue.is_some_and(|overdue| overdue <= runtime::now())
            && self
                .window
                .oldest_attempt()
                .is_some_and(|sent_at| sent_at + request_timeout <= runtime::now())
            && let Some(route) = &self.route
        {
            route.connection.close(&Error::Timeout {
                operation: "produce",
                limit: request_timeout,
                last: None,
            });
        }
    }

    fn on_end(&mut self, (attempt, connection, end): End) {
        let result = end.and_then(|outcome| Self::read(&connection, &outcome));
        if let Err(error) = &result {
            // The topic may take less than is known.
            self.stale |= error.calls_for_metadata() || error.is_too_large();
        }
        let has_failed = self.window.on_result(attempt, result, runtime::now());
        self.tell_trouble();
        if has_failed {
            return;
        }
        self.backoff.reset();
        self.unknown_since = None;
    }

    fn read(connection: &Connection, outcome: &Outcome) -> Result<Delivered, Error> {
        let frame = match outcome {
            Outcome::Written => {
                return Ok(Delivered {
                    base_offset: None,
                    append_time: None,
                });
            }
            Outcome::Response(frame) => frame,
        };
        let produced = connection.read(frame, requests::read_produce)?;
        // Every record's offset is computed from the first one's.
        if produced.base_offset.checked_add(u64::from(u32::MAX)).is_none() {
            let source = ProtocolViolation::Field("a base offset beyond what can be counted");
            let error = Error::Protocol {
                address: connection.address().clone(),
                source,
            };
            connection.close(&error);
            return Err(error);
        }
        Ok(Delivered {
            base_offset: Some(produced.base_offset),
            append_time: produced.append_time,
        })
    }

    /// The deadline of the oldest batch, for whatever is done on the way to sending it.
    fn deadline(&self) -> Instant {
        self.window.next_deadline().unwrap_or_else(runtime::now)
    }

    /// Finds the leader and connects to it.
    async fn connect(&mut self) {
        self.route = None;
        let route = self.cluster.route(&self.queue.topic, self.queue.partition);
        match timeout_at(self.deadline(), route).await {
            Some(Ok(route)) => self.route = Some(route),
            Some(Err(error)) => self.on_failure(error),
            // The batch ends by its deadline.
            None => {}
        }
    }

    /// Nothing could be sent.
    fn on_failure(&mut self, error: Error) {
        self.stale |= error.calls_for_metadata();
        let unknown = matches!(error, Error::UnknownTopic(_) | Error::UnknownPartition { .. });
        if unknown {
            self.stale = true;
            let since = *self.unknown_since.get_or_insert_with(runtime::now);
            if runtime::since(since) >= self.cluster.settings.metadata_timeout {
                return self.window.fail_waiting(&error);
            }
        } else if !error.is_worth_another_attempt() {
            return self.window.fail_waiting(&error);
        }
        self.window.on_failure(error);
        self.tell_trouble();
    }

    /// Lets the producer say why records wait.
    fn tell_trouble(&mut self) {
        let trouble = self.window.last_error();
        if trouble.is_some() || self.is_in_trouble {
            self.is_in_trouble = trouble.is_some();
            self.queue.set_trouble(trouble.cloned());
        }
    }

    /// After a failure, with nothing in flight: pauses, and brings up to date what the next attempt relies on.
    async fn recover(&mut self) {
        // Records that come from now on are not to end at the deadline of those that have waited.
        self.queue.close_batch();
        let deadline = self.deadline();
        let pause = self.backoff.next_pause();
        sleep(pause.min(deadline.saturating_duration_since(runtime::now()))).await;
        // The failed connection, or the leader that was wrong.
        self.route = None;
        match timeout_at(deadline, self.renew()).await {
            Some(Ok(identity)) => self.window.resume(identity),
            Some(Err(error)) => self.on_failure(error),
            None => {}
        }
    }

    async fn renew(&mut self) -> Result<Option<Identity>, Error> {
        if self.stale {
            self.cluster.refresh(std::slice::from_ref(&self.queue.topic)).await?;
            self.stale = false;
        }
        if !self.window.needs_identity() {
            return Ok(None);
        }
        let deadline = Deadline::after(self.cluster.settings.call_timeout, "get a producer id");
        self.cluster
            .new_producer_id(deadline)
            .await
            .map(Identity::new)
            .map(Some)
    }
}
