//! A partition that has other replicas, on its core: what it is among them, and how that moves with its log.
//!
//! ```text
//! leader:    append ─► news to the followers' streams ─► (they fetch) ─► fetched ─► watermark ─► acknowledgements
//! follower:  answered ─► append_replica ─► flush ─► durable offset moves ─► news to the leader's stream
//! ```
//! Decisions are made in [`replication`](super::replication); here they meet the log. A broker alone has none of this.

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    rc::{Rc, Weak},
};

use headwater_engine::ReplicaError;
use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, CoreId, LeaderEpoch, Offset},
};

use super::{
    replication::{
        Answer, Fetch, FetchRefused, LAG_MAX, Lag, News, Peer, Place, Replica, Role, Taken, of_follower, of_leader,
        state_of, take_answer,
    },
    served::Partition,
};
use crate::{
    core::Core,
    image::{Assignment, IsrWish, Replicas},
    machine,
    metrics::ReplicaChange,
    model::{id::PartitionId, records::Acks, refusal::Refusal},
};

/// What a replica is, for whoever asks something of the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It leads, in this epoch.
    Leads(LeaderEpoch),
    /// It follows the leader of this epoch, which is on this core of this broker.
    Follows(LeaderEpoch, (BrokerId, CoreId)),
    /// Nobody leads, or the broker has no replica, or does not know.
    Waits,
}

impl Standing {
    /// Whom it follows.
    pub(crate) fn leader(self) -> Option<(BrokerId, CoreId)> {
        match self {
            Standing::Follows(_, leader) => Some(leader),
            Standing::Leads(_) | Standing::Waits => None,
        }
    }
}

/// How soon a follower is to have what it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// At once: it is in sync, and producers wait for it.
    InSync,
    /// At once: fewer are in sync than an acknowledgement takes.
    Needed,
    /// When there is time for it: it is not in sync, and nobody waits for it.
    InTurn,
}

/// What a partition of several replicas has besides its log.
#[derive(Debug)]
pub(crate) struct Replicated {
    id: PartitionId,
    replica: RefCell<Replica>,
    standing: Cell<Standing>,
    /// As many are in sync as the terms ask for.
    has_quorum: Cell<bool>,
    /// Where its followers' streams learn that there is more. One that has ended is dropped with its connection.
    followers: RefCell<Vec<(BrokerId, Weak<News>)>>,
    /// Where its leader's stream learns that there is something to report.
    leader: RefCell<Option<Rc<News>>>,
    /// How far it was durable when that was last reported, or is about to be.
    reported: Cell<Offset>,
    /// The leader has deleted records, and this log is about to.
    deletes: Cell<bool>,
}

impl Replicated {
    /// Of a partition of which this broker knows nothing yet. `has_failed`: its log has failed in this process, and the coordinator has
    /// not been seen to know.
    pub(crate) fn new(id: PartitionId, own: BrokerId, has_failed: bool) -> Replicated {
        let mut replica = Replica::new(own, LAG_MAX);
        if has_failed {
            replica.log_failed();
        }
        Replicated {
            id,
            replica: RefCell::new(replica),
            standing: Cell::new(Standing::Waits),
            has_quorum: Cell::new(false),
            followers: RefCell::default(),
            leader: RefCell::default(),
            reported: Cell::new(Offset::ZERO),
            deletes: Cell::new(false),
        }
    }

    fn tell_followers(&self) {
        self.followers.borrow_mut().retain(|(_, stream)| {
            let stream = stream.upgrade();
            if let Some(stream) = &stream {
                stream.of(self.id);
            }
            stream.is_some()
        });
    }

    fn tell_leader(&self) {
        if let Some(stream) = &*self.leader.borrow() {
            stream.of(self.id);
        }
    }
}

fn not_leader(standing: Standing) -> Refusal {
    let message = match standing {
        Standing::Follows(epoch, (broker, core)) => {
            format!("broker {broker} leads the partition, on its core {core}, in epoch {epoch}: ask there")
        }
        _ => "the partition has no leader at the moment: ask again".to_owned(),
    };
    Refusal::new(ErrorCode::NotLeaderOrFollower, message)
}

/// The epoch in which a partition is led here, and how many replicas are in sync.
fn led_with(role: &Role) -> Option<(LeaderEpoch, usize)> {
    match role {
        Role::Leads(leader) => Some((leader.epoch(), leader.replicas().isr.len())),
        Role::Follows(_) | Role::Waits => None,
    }
}

/// What has become of the replicas of a partition that is led here now.
fn change(before: Option<(LeaderEpoch, usize)>, (epoch, in_sync): (LeaderEpoch, usize)) -> Option<ReplicaChange> {
    match before {
        Some((same, were)) if same == epoch => match in_sync.cmp(&were) {
            Ordering::Less => Some(ReplicaChange::Shrunk),
            Ordering::Greater => Some(ReplicaChange::Expanded),
            Ordering::Equal => None,
        },
        _ => Some(ReplicaChange::Elected),
    }
}

impl Partition {
    /// How far the followers of a partition that is led here are behind.
    pub(crate) fn lag(&self) -> Lag {
        let Some(replicated) = &self.replicated else {
            return Lag::default();
        };
        match replicated.replica.borrow_mut().role() {
            Role::Leads(leader) => leader.lag(machine::now()),
            Role::Follows(_) | Role::Waits => Lag::default(),
        }
    }

    /// What this broker is to it; `None` if it is alone.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.replicated.as_ref().map(|replicated| replicated.standing.get())
    }

    /// The epoch in which this broker leads it; an error if it does not.
    pub(crate) fn led(&self) -> Result<LeaderEpoch, Refusal> {
        match self.standing() {
            None => Ok(LeaderEpoch::new(0)),
            Some(Standing::Leads(epoch)) => Ok(epoch),
            Some(standing) => Err(not_leader(standing)),
        }
    }

    /// Whether no earlier leader can have shown a later high watermark than this one knows (KIP-207).
    pub(crate) fn knows_watermark(&self) -> bool {
        let Some(replicated) = &self.replicated else {
            return true;
        };
        match replicated.replica.borrow_mut().role() {
            Role::Leads(leader) => leader.knows_watermark(),
            Role::Follows(_) | Role::Waits => true,
        }
    }

    /// Refuses records that this broker cannot have acknowledged as they are to be.
    pub(crate) fn check_takes(&self, acks: Acks) -> Result<(), Refusal> {
        self.led()?;
        let has_quorum = self
            .replicated
            .as_ref()
            .is_none_or(|replicated| replicated.has_quorum.get());
        if matches!(acks, Acks::All { .. }) && !has_quorum {
            let message = "fewer replicas are in sync than min.insync.replicas asks for: try again, or see which brokers are down";
            return Err(Refusal::new(ErrorCode::NotEnoughReplicas, message));
        }
        Ok(())
    }

    /// Takes note of the partition's replicas as they are now. What is known already has no effect. While the log is being cut
    /// nothing is learned, so that it must be told again after that.
    pub(crate) fn learn(&self, core: &Core, assignment: &Assignment) {
        let Some(replicated) = &self.replicated else {
            return;
        };
        let Some(replicas) = assignment.replicas(replicated.id) else {
            replicated.replica.borrow_mut().is_unknown();
            return self.takes_role(replicated, Standing::Waits);
        };
        let mut replica = replicated.replica.borrow_mut();
        if !replica.knows(replicas) && self.is_ahead_of(replicas) {
            return;
        }
        let now = machine::now();
        let before = led_with(replica.role());
        replica.learn(replicas, state_of(&self.log), now);
        if let Some(change) = led_with(replica.role()).and_then(|after| change(before, after)) {
            core.metrics.changed(change);
        }
        let standing = match replica.role() {
            Role::Leads(leader) => {
                self.log.set_leader_epoch(leader.epoch());
                replicated.has_quorum.set(leader.replicas().has_quorum());
                self.counts(leader.replicas().terms.durability);
                Standing::Leads(leader.epoch())
            }
            Role::Follows(follower) => match assignment.leader_of(replicated.id) {
                Some((broker, core)) if broker.id != assignment.own.broker => {
                    Standing::Follows(follower.epoch(), (broker.id, core))
                }
                _ => Standing::Waits,
            },
            Role::Waits => Standing::Waits,
        };
        drop(replica);
        self.takes_role(replicated, standing);
        self.has_moved();
        self.acknowledge(core);
    }

    /// The log has records of a later epoch than that in which this broker is to lead: the state is not of the cluster that wrote them.
    fn is_ahead_of(&self, replicas: &Replicas) -> bool {
        let latest = self.log.latest_epoch();
        let is_ahead = latest.is_some_and(|latest| latest > replicas.leader_epoch);
        if is_ahead {
            tracing::error!(directory = %self.log.directory().display(), ?latest, epoch = %replicas.leader_epoch,
                "a replica is not used: its log has records of a later leader epoch than the cluster knows of; is its directory another cluster's?");
        }
        is_ahead
    }

    fn takes_role(&self, replicated: &Replicated, standing: Standing) {
        let before = replicated.standing.replace(standing);
        if before == standing {
            return;
        }
        if matches!(before, Standing::Leads(_)) && !matches!(standing, Standing::Leads(_)) {
            // Whoever leads now may have the records, or not: their producers ask there. In another epoch of its own they are there.
            self.acknowledgements.refuse(&not_leader(standing));
        }
        if before.leader() != standing.leader() {
            replicated.leader.take();
        }
        replicated.tell_leader();
        replicated.tell_followers();
        tracing::debug!(directory = %self.log.directory().display(), ?standing, "a partition has another role");
    }

    /// The log has failed. It must not go on as if it had what it may have lost.
    pub(crate) fn log_failed(&self) {
        if let Some(replicated) = &self.replicated {
            replicated.replica.borrow_mut().log_failed();
            self.takes_role(replicated, Standing::Waits);
        }
    }

    /// Whether the coordinator is still to be told that the log has failed.
    pub(crate) fn owes_failure(&self) -> bool {
        let replicated = self.replicated.as_ref();
        replicated.is_some_and(|replicated| replicated.replica.borrow().has_failed())
    }

    /// What lies before the start of the log is deleted, and is to be deleted by the followers too.
    pub(crate) fn has_less(&self) {
        if let Some(replicated) = &self.replicated {
            replicated.tell_followers();
        }
    }

    /// Something was appended by producers.
    pub(super) fn has_more(&self) {
        if let Some(replicated) = &self.replicated {
            self.count_own(replicated);
            replicated.tell_followers();
        }
    }

    /// The log has come further.
    pub(super) fn has_moved(&self) {
        let Some(replicated) = &self.replicated else {
            return;
        };
        match replicated.standing.get() {
            Standing::Leads(_) => self.count_own(replicated),
            Standing::Follows(..) => {
                let durable = self.log.offsets().durable;
                if replicated.reported.replace(durable) < durable {
                    replicated.tell_leader();
                }
            }
            Standing::Waits => {}
        }
    }

    /// What this log has counts as that of any other replica.
    fn count_own(&self, replicated: &Replicated) {
        let log = state_of(&self.log);
        if let Role::Leads(leader) = replicated.replica.borrow_mut().role() {
            leader.appended(log.held, log.end, machine::now());
            self.advance(replicated, leader.watermark());
        }
    }

    fn advance(&self, replicated: &Replicated, watermark: Offset) {
        if watermark > self.log.offsets().high_watermark {
            self.log.advance_high_watermark(watermark);
            replicated.tell_followers();
        }
    }

    /// A follower says what it has. From now on its stream learns when there is more.
    pub(crate) fn fetched(
        &self,
        core: &Core,
        peer: Peer,
        fetch: &Fetch,
        stream: &Rc<News>,
    ) -> Result<Answer, FetchRefused> {
        let replicated = self.replicated.as_ref().ok_or(FetchRefused::NotLeader)?;
        let answer = {
            let mut replica = replicated.replica.borrow_mut();
            let Role::Leads(leader) = replica.role() else {
                return Err(FetchRefused::NotLeader);
            };
            let answer = leader.fetched(peer, fetch, of_leader(&self.log, fetch.place), machine::now())?;
            let watermark = leader.watermark();
            drop(replica);
            self.advance(replicated, watermark);
            answer
        };
        let mut followers = replicated.followers.borrow_mut();
        if !followers.iter().any(|(_, known)| known.as_ptr() == Rc::as_ptr(stream)) {
            followers.retain(|(broker, _)| *broker != peer.member.broker);
            followers.push((peer.member.broker, Rc::downgrade(stream)));
        }
        drop(followers);
        self.acknowledge(core);
        Ok(answer)
    }

    /// How soon a follower is to have what it lacks.
    pub(crate) fn haste(&self, follower: BrokerId) -> Haste {
        let replicated = self.replicated.as_ref();
        let haste = replicated.and_then(|replicated| match replicated.replica.borrow_mut().role() {
            Role::Leads(leader) if leader.replicas().is_in_sync(follower) => Some(Haste::InSync),
            Role::Leads(leader) if leader.replicas().has_quorum() => Some(Haste::InTurn),
            _ => None,
        });
        haste.unwrap_or(Haste::Needed)
    }

    /// How a follower goes on that is, or is about to be, at this place; an error if that is for another leader to say.
    pub(crate) fn goes_on(&self, place: Place) -> Result<Answer, FetchRefused> {
        let replicated = self.replicated.as_ref().ok_or(FetchRefused::NotLeader)?;
        match replicated.replica.borrow_mut().role() {
            Role::Leads(leader) if leader.epoch() == place.leader_epoch => {
                Ok(leader.goes_on(place, of_leader(&self.log, place)))
            }
            _ => Err(FetchRefused::NotLeader),
        }
    }

    /// Has a stream carry what there is to report to the leader.
    pub(crate) fn reports_to(&self, stream: &Rc<News>) {
        if let Some(replicated) = &self.replicated {
            let mut leader = replicated.leader.borrow_mut();
            if !leader.as_ref().is_some_and(|known| Rc::ptr_eq(known, stream)) {
                *leader = Some(Rc::clone(stream));
                stream.of(replicated.id);
            }
        }
    }

    /// Whether it reports to this stream already.
    pub(crate) fn is_carried_by(&self, stream: &Rc<News>) -> bool {
        let replicated = self.replicated.as_ref();
        replicated.is_some_and(|replicated| {
            let leader = replicated.leader.borrow();
            leader.as_ref().is_some_and(|known| Rc::ptr_eq(known, stream))
        })
    }

    /// Whether it follows, and its stream from the leader is there: what it knows of the watermark is not old.
    pub(crate) fn hears_from_leader(&self) -> bool {
        let follows = |replicated: &Replicated| {
            let leader = replicated.leader.borrow();
            matches!(replicated.standing.get(), Standing::Follows(..))
                && leader.as_ref().is_some_and(|news| !news.is_over())
        };
        self.replicated.as_ref().is_some_and(|replicated| follows(replicated))
    }

    /// Whether a follower of this leader has the log up to there.
    pub(crate) fn has_sent(&self, broker: BrokerId, offset: Offset) -> bool {
        self.replicated
            .as_ref()
            .is_some_and(|replicated| match replicated.replica.borrow_mut().role() {
                Role::Leads(leader) => leader.is_received(broker, offset),
                Role::Follows(_) | Role::Waits => false,
            })
    }

    /// What to report, and what to ask for; `None` while it does not follow, or its log is being cut.
    pub(crate) fn report(&self) -> Option<Fetch> {
        let replicated = self.replicated.as_ref()?;
        if self.log.fence().is_some() {
            return None;
        }
        let fetch = match replicated.replica.borrow_mut().role() {
            Role::Follows(follower) => follower.fetch(of_follower(&self.log))?,
            _ => return None,
        };
        replicated.reported.set(self.log.offsets().durable);
        Some(fetch)
    }

    /// Does what the leader's answer asks for, and sees to it that what came is flushed. Returns whether the log was cut: what was said
    /// of its replicas meanwhile is to be learned then.
    pub(crate) async fn answered(
        self: &Rc<Self>,
        core: &Rc<Core>,
        asked: Place,
        answer: Answer,
        records: &[u8],
    ) -> Result<bool, ReplicaError> {
        let Some(replicated) = &self.replicated else {
            return Ok(false);
        };
        let taken = take_answer(&self.log, &replicated.replica, asked, answer, records).await?;
        match taken {
            Taken::Nothing => return Ok(false),
            Taken::Appended { log_start } => {
                self.has_grown(core, records.len() as u64);
                self.delete_before(core, log_start);
            }
            Taken::Cut => {}
        }
        if !records.is_empty() || taken == Taken::Cut {
            replicated.tell_leader();
        }
        Ok(taken == Taken::Cut)
    }

    /// Deletes what the leader has deleted, beside whatever else there is to do.
    fn delete_before(self: &Rc<Self>, core: &Rc<Core>, start: Offset) {
        let Some(replicated) = &self.replicated else {
            return;
        };
        let offsets = self.log.offsets();
        let before = start.min(offsets.durable).min(offsets.high_watermark);
        if before <= offsets.start || replicated.deletes.replace(true) {
            return;
        }
        let (partition, core) = (Rc::clone(self), Rc::clone(core));
        machine::spawn(async move {
            let _working = core.working();
            if let Err(error) = partition.log.delete_records(before).await {
                tracing::debug!(%error, "what the leader has deleted was not; it is tried again");
            }
            if let Some(replicated) = &partition.replicated {
                replicated.deletes.set(false);
            }
        });
    }

    /// What a leader would have the coordinator change of who is in sync.
    pub(crate) fn wish(&self) -> Option<IsrWish> {
        match self.replicated.as_ref()?.replica.borrow_mut().role() {
            Role::Leads(leader) => leader.wish(machine::now()).cloned(),
            _ => None,
        }
    }
}
