//! The task that keeps a consumer in its group: it sends what the membership wants, and moves partitions into and out of the
//! fetcher's state. It also commits now and then, looks for topics of the pattern, and leaves when the application is away too long.
//!
//! One for each group consumer; ends with it, or when the group will not have it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use headwater_protocol::error::ErrorCode;

use super::commits::Orders;
use super::ledger::{Ledger, Shared};
use super::listener::RebalanceListener;
use super::membership::{Action, Change, Membership, Place};
use super::route::Route;
use super::starts::{Begin, find_starts, matching_topics};
use super::{GroupSettings, PartitionCounts, Subscribed};
use crate::consumer::state;
use crate::error::Error;
use crate::requests::{self, Identity, JoinWish, Joined};
use crate::runtime::{self, Instant, sleep_until};

/// Something that was asked for has come.
enum Done {
    Joined(Result<Joined, Error>),
    Synced(Result<Vec<Place>, Error>),
    Heartbeat(i32, Result<(), Error>),
    /// What is to be given up has been committed, as far as that was possible.
    Committed(BTreeSet<Place>),
    AutoCommitted(Result<(), Error>),
    Started(BTreeMap<Place, u64>, Result<Vec<Begin>, Error>),
    Topics(Result<PartitionCounts, Error>),
    Left,
}

/// What the driver works with.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) fetch: Arc<state::Shared>,
    pub(super) route: Route,
    pub(super) orders: Orders,
    pub(super) settings: GroupSettings,
    pub(super) listener: Arc<dyn RebalanceListener>,
    pub(super) subscribed: Subscribed,
}

pub(super) struct Driver {
    parts: Parts,
    membership: Membership,
    work: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    /// Assigned partitions whose first offsets are being looked up, each with the number of the look-up.
    starting: BTreeMap<Place, u64>,
    starts: u64,
    /// The topics as they were when this consumer began: all that other partitions hold is newer. `None` for a pattern until its
    /// topics were first looked for.
    began_with: Option<Arc<PartitionCounts>>,
    /// Handed out no more, and to be committed as soon as the application is done with them.
    stopped: BTreeSet<Place>,
    commit_at: Option<Instant>,
    topics_at: Option<Instant>,
}

impl Driver {
    pub(super) fn new(parts: Parts, membership: Membership) -> Self {
        let now = runtime::now();
        let commit_at = parts.settings.auto_commit.map(|interval| now + interval);
        let (began_with, topics_at) = match &parts.subscribed {
            Subscribed::Topics(counts) => (Some(Arc::new(counts.clone())), None),
            Subscribed::Pattern(_) => (None, Some(now)),
        };
        Self {
            parts,
            membership,
            work: FuturesUnordered::new(),
            starting: BTreeMap::new(),
            starts: 0,
            began_with,
            stopped: BTreeSet::new(),
            commit_at,
            topics_at,
        }
    }

    /// Runs until it is aborted, or the group will not have this member.
    pub(super) async fn run(mut self) {
        if let Subscribed::Topics(topics) = &self.parts.subscribed {
            let change = self.membership.subscribe(topics.keys().cloned().collect());
            self.apply(change);
        }
        loop {
            let wake_at = self.act(runtime::now());
            let pause = async {
                match wake_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(done) = self.work.next() => {
                    if let Err(error) = self.on_done(done) {
                        return self.fail(error);
                    }
                }
                () = self.parts.shared.returned.notified() => {}
                () = pause => {}
            }
        }
    }

    /// Does what is due. Returns when something will be.
    fn act(&mut self, now: Instant) -> Option<Instant> {
        let away_at = self.watch_application(now);
        self.give_up();
        self.commit_now_and_then(now);
        if self.topics_at.is_some_and(|at| at <= now)
            && let Subscribed::Pattern(pattern) = &self.parts.subscribed
        {
            self.topics_at = None;
            let topics = matching_topics(Arc::clone(&self.parts.route.cluster), pattern.clone());
            self.work.push(Box::pin(async move { Done::Topics(topics.await) }));
        }
        let (action, plan_at) = self.membership.plan(now);
        self.parts.shared.ledger.lock().identity = self.membership.identity().clone();
        if let Some(action) = action {
            self.start(action);
        }
        [away_at, plan_at, self.commit_at, self.topics_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn start(&mut self, action: Action) {
        let (route, who) = (self.parts.route.clone(), self.membership.identity().clone());
        let hold = self.parts.settings.rebalance_timeout;
        match action {
            Action::Join => {
                let wish = JoinWish {
                    session_ms: millis(self.parts.settings.session_timeout),
                    rebalance_ms: millis(hold),
                    protocol: self.parts.settings.assignor.protocol(),
                    metadata: self.membership.subscription().encode(),
                };
                self.work.push(Box::pin(async move {
                    let request = requests::join_group(&route.group_id, &who, &wish);
                    Done::Joined(route.ask(&request, hold, requests::read_join_group).await)
                }));
            }
            Action::Sync => self.work.push(Box::pin(async move {
                let request = requests::sync_group(&route.group_id, &who);
                Done::Synced(route.ask(&request, hold, requests::read_sync_group).await)
            })),
            Action::Heartbeat => self.work.push(Box::pin(async move {
                let request = requests::heartbeat(&route.group_id, &who);
                let answer = route.ask(&request, Duration::ZERO, requests::read_heartbeat);
                Done::Heartbeat(who.generation, answer.await)
            })),
        }
    }

    fn on_done(&mut self, done: Done) -> Result<(), Error> {
        let now = runtime::now();
        let change = match done {
            Done::Joined(result) => self.membership.on_joined(result, now)?,
            Done::Synced(result) => self.membership.on_synced(result, now)?,
            Done::Heartbeat(generation, result) => self.membership.on_heartbeat(generation, result, now)?,
            Done::Topics(result) => {
                self.topics_at = Some(now + self.parts.route.cluster.settings.metadata_age_max);
                match result {
                    Ok(topics) => {
                        let names = topics.keys().cloned().collect();
                        self.began_with.get_or_insert_with(|| Arc::new(topics));
                        self.membership.subscribe(names)
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot look for the topics of the pattern");
                        return Ok(());
                    }
                }
            }
            Done::Committed(places) => {
                self.let_go(&places);
                return Ok(());
            }
            Done::AutoCommitted(result) => {
                if let Err(error) = result {
                    tracing::warn!(%error, group = %self.parts.route.group_id, "auto commit failed");
                }
                self.commit_at = self.parts.settings.auto_commit.map(|interval| now + interval);
                return Ok(());
            }
            Done::Started(asked, result) => {
                self.on_started(asked, result);
                return Ok(());
            }
            Done::Left => return Ok(()),
        };
        self.apply(change);
        Ok(())
    }

    /// Moves partitions as the membership says.
    fn apply(&mut self, change: Change) {
        let Change {
            added,
            leaving,
            kept,
            lost,
            lost_by,
        } = change;
        self.set_stopping(&kept, false);
        self.stopped.retain(|place| !kept.contains(place));
        self.set_stopping(&leaving, true);
        self.stopped.extend(leaving);
        self.lose(&lost, lost_by);
        if !added.is_empty() {
            self.find_starts(added);
        }
    }

    fn set_stopping(&self, places: &BTreeSet<Place>, stopping: bool) {
        let mut ledger = self.parts.shared.ledger.lock();
        let mut fetch = self.parts.fetch.state.lock();
        for place in places {
            if let Some(progress) = ledger.partitions.get_mut(place) {
                progress.stopping = stopping;
                fetch.set_paused(progress.index, stopping || progress.paused);
            }
        }
        drop((fetch, ledger));
        self.wake();
    }

    fn wake(&self) {
        self.parts.fetch.arrived.notify_one();
        self.parts.fetch.wanted.notify_one();
    }

    /// Begins to give up what is stopped, once the application is done with it.
    fn give_up(&mut self) {
        if self.stopped.is_empty() {
            return;
        }
        let ledger = self.parts.shared.ledger.lock();
        if !ledger.is_done_with(&self.stopped) {
            return;
        }
        let places = std::mem::take(&mut self.stopped);
        let marks = if self.parts.settings.auto_commit.is_some() {
            ledger.marks(|place| places.contains(place))
        } else {
            Vec::new()
        };
        drop(ledger);
        let deadline = self.parts.route.cluster.deadline("commit what is given up");
        let committed = self.parts.orders.place(marks, deadline);
        self.work.push(Box::pin(async move {
            if let Err(error) = committed.await {
                tracing::warn!(%error, "partitions are given up without a commit: some records will be processed again");
            }
            Done::Committed(places)
        }));
    }

    fn let_go(&mut self, places: &BTreeSet<Place>) {
        let gone = self.membership.on_given_up(places);
        let shared = Arc::clone(&self.parts.shared);
        self.remove(&mut shared.ledger.lock(), &gone);
        if !gone.is_empty() {
            self.parts.listener.revoked(&Vec::from_iter(gone));
        }
    }

    fn remove(&mut self, ledger: &mut Ledger, places: &BTreeSet<Place>) {
        let mut fetch = self.parts.fetch.state.lock();
        for place in places {
            self.starting.remove(place);
            self.stopped.remove(place);
            if let Some(progress) = ledger.remove(place) {
                fetch.remove(progress.index);
            }
        }
    }

    /// The application is to be told of it in the moment in which the partitions are gone, or it commits without them and takes that
    /// for all.
    fn lose(&mut self, lost: &BTreeSet<Place>, by: Option<ErrorCode>) {
        if lost.is_empty() {
            return;
        }
        let partitions: Vec<Place> = lost.iter().cloned().collect();
        let shared = Arc::clone(&self.parts.shared);
        let mut ledger = shared.ledger.lock();
        self.remove(&mut ledger, lost);
        if let Some(code) = by {
            let partitions = Arc::from(&partitions[..]);
            ledger.news.push_back(Error::PartitionsLost { partitions, code });
        }
        drop(ledger);
        self.parts.listener.lost(&partitions);
        self.wake();
    }

    fn find_starts(&mut self, places: BTreeSet<Place>) {
        self.starts += 1;
        let asked: BTreeMap<Place, u64> = places.into_iter().map(|place| (place, self.starts)).collect();
        self.starting.extend(asked.clone());
        let (route, settings) = (self.parts.route.clone(), self.parts.settings);
        let began_with = self.began_with.clone().unwrap_or_default();
        self.work.push(Box::pin(async move {
            let places: Vec<Place> = asked.keys().cloned().collect();
            let found = find_starts(&route, &places, (settings.reset, settings.isolation), &began_with).await;
            Done::Started(asked, found)
        }));
    }

    fn on_started(&mut self, mut asked: BTreeMap<Place, u64>, result: Result<Vec<Begin>, Error>) {
        // What has gone meanwhile, or been asked for again, is not of interest.
        asked.retain(|place, number| self.starting.get(place) == Some(number));
        let begins = match result {
            Ok(begins) => begins,
            Err(error) => {
                let mut ledger = self.parts.shared.ledger.lock();
                ledger.start_failure = (!asked.is_empty()).then(|| error.clone());
                ledger.news.push_back(error);
                drop(ledger);
                self.wake();
                if !asked.is_empty() {
                    self.find_starts(asked.into_keys().collect());
                }
                return;
            }
        };
        let mut ledger = self.parts.shared.ledger.lock();
        ledger.start_failure = None;
        let mut fetch = self.parts.fetch.state.lock();
        let mut added = Vec::new();
        for begin in begins {
            let place = begin.place();
            if self.starting.get(&place) != asked.get(&place) || self.starting.remove(&place).is_none() {
                continue;
            }
            let index = begin.add(&place, &mut ledger, &mut fetch);
            if self.membership.is_leaving(&place)
                && let Some(progress) = ledger.partitions.get_mut(&place)
            {
                progress.stopping = true;
                fetch.set_paused(index, true);
            }
            added.push(place);
        }
        drop((fetch, ledger));
        if !added.is_empty() {
            self.parts.listener.assigned(&added);
        }
        self.wake();
    }

    fn commit_now_and_then(&mut self, now: Instant) {
        if self.commit_at.is_none_or(|at| at > now) {
            return;
        }
        self.commit_at = None;
        let marks = self.parts.shared.ledger.lock().marks(|_| true);
        let deadline = self.parts.route.cluster.deadline("commit");
        let committed = self.parts.orders.place(marks, deadline);
        self.work
            .push(Box::pin(async move { Done::AutoCommitted(committed.await) }));
    }

    /// Leaves the group when the application has not asked for records for too long, and comes back with it. Returns when
    /// it will have been too long.
    fn watch_application(&mut self, now: Instant) -> Option<Instant> {
        let limit = self.parts.settings.max_poll_interval;
        {
            let mut ledger = self.parts.shared.ledger.lock();
            if ledger.is_away {
                return None;
            }
            self.membership.come_back();
            if ledger.is_polled {
                return None;
            }
            let until = ledger.idle_since + limit;
            if until > now {
                return Some(until);
            }
            ledger.is_away = true;
        }
        tracing::warn!(group = %self.parts.route.group_id, ?limit, "the application has not asked for records: leaving the group");
        let (who, change) = self.membership.go_away();
        self.apply(change);
        let route = self.parts.route.clone();
        self.work.push(Box::pin(async move {
            leave(&route, &who).await;
            Done::Left
        }));
        None
    }

    /// The group will not have this member.
    fn fail(&mut self, error: Error) {
        self.parts.shared.ledger.lock().failed = Some(error);
        let (_, change) = self.membership.go_away();
        self.lose(&change.lost, None);
        self.wake();
    }
}

/// Tells the group that a member is gone. Static members stay, to be there again when they are started again.
pub(super) async fn leave(route: &Route, who: &Identity) {
    if who.member_id.is_empty() || who.instance_id.is_some() {
        return;
    }
    let request = requests::leave_group(&route.group_id, who);
    let left = route.ask(&request, Duration::ZERO, requests::read_leave_group);
    if let Err(error) = left.await {
        tracing::warn!(%error, "cannot leave the group: others take over after the session timeout");
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
