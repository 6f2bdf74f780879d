//! What several members agree on, without openraft: one log in a simulated world, which each of them applies in its own time, by the
//! same `State`. It stands in for the quorum where a cluster of whole brokers is simulated.
//!
//! ```text
//! QuorumHandle ─► Seat: proposed ─(delayed, lost, cut off)─► Agreement: the log ─► each Seat: State::apply ─► shown ─► answered
//! ```
//! Somebody is the active coordinator while a majority hears it, and watches the brokers as the real one does (`sessions`). What was
//! asked for may be agreed on twice, or late, or when whoever asked has given up or ended.

mod check;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    convert::Infallible,
    fmt::Display,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{join, select};
use headwater_engine::{Signal, disk::Directory};
use headwater_protocol::id::{BrokerId, LeaderEpoch};
use tokio::sync::mpsc;

use crate::{
    cluster::{
        QUORUM_FILE, StoreError, beginning,
        quorum::{
            QuorumHandle,
            applier::Show,
            codec::{decode, encode},
            handle::Wish,
            id::{Identity, Incarnation, NodeId},
            member::{PROPOSE_MAX, PROPOSE_PAUSE, ProposeError},
            order::{Order, Outcome, Proposal, ProposalId},
            peer::{self, Answered, Unheard, lets_in},
            sessions::{self, Watcher},
            state::State,
        },
        replicas::{ReplicaCommand, ReplicaMap},
    },
    config::Config,
    core::lease::Lease,
    image::ClusterImage,
    machine::{
        self,
        simulated::{
            ProcessId, World, here,
            net::{Listener, Net, Stream},
        },
    },
    metrics::QuorumFigures,
    model::{id::PartitionId, refusal::Refusal},
};

/// Where a member listens for the others.
pub(crate) const PEER_PORT: u16 = 9400;

/// How often it is looked whether the active coordinator still is one.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// So long it takes until there is another, in milliseconds.
const ELECTION_MS: std::ops::Range<u64> = 200..1_500;

/// Whoever has heard nothing of a proposal for so long proposes it again.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// A proposal that comes late does so within this time.
const LATE_MAX: Duration = Duration::from_secs(4);

/// The log, and who may agree on what comes next.
pub(crate) struct Agreement {
    world: Rc<World>,
    /// What is under way goes on here when whoever has sent it has ended.
    process: ProcessId,
    hosts: BTreeMap<NodeId, IpAddr>,
    log: RefCell<Vec<Proposal>>,
    grown: Signal,
    /// After all of the log.
    state: RefCell<State>,
    present: RefCell<BTreeMap<NodeId, ProcessId>>,
    /// How much of the log each member has applied in any of its lives.
    applied: RefCell<BTreeMap<NodeId, usize>>,
    active: Cell<Option<NodeId>>,
    /// Whoever has ever led a partition in an epoch.
    leaders: RefCell<BTreeMap<(PartitionId, LeaderEpoch), BrokerId>>,
    /// Nothing is lost or late any more.
    is_calm: Cell<bool>,
    /// What has become of each proposal. One that comes again so soon is answered as before.
    outcomes: RefCell<BTreeMap<ProposalId, Outcome>>,
    /// Each image that was agreed on, and since when.
    images: RefCell<Vec<(Duration, Arc<ClusterImage>)>>,
    /// Is told who comes into sync.
    when_in_sync: RefCell<Option<WhenInSync>>,
    /// What a leader wishes, held back until it is released.
    held: RefCell<Held>,
    holds: Signal,
    /// What this one proposes does not come.
    ignored: Cell<Option<NodeId>>,
    /// Since when the active coordinator does not hear a broker that is not fenced.
    unheard: RefCell<BTreeMap<NodeId, Duration>>,
}

type WhenInSync = Box<dyn Fn(PartitionId, BrokerId)>;

/// Whether a wish is held back.
#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    /// The next that has somebody come into sync is to be.
    Next,
    /// This one is, whenever it is proposed.
    This(Proposal),
}

impl Agreement {
    /// Of members on these hosts, none of which is there yet.
    pub(crate) fn new(
        world: &Rc<World>,
        process: ProcessId,
        hosts: impl IntoIterator<Item = (BrokerId, IpAddr)>,
    ) -> Rc<Agreement> {
        Rc::new(Agreement {
            world: Rc::clone(world),
            process,
            hosts: hosts.into_iter().map(|(id, host)| (NodeId::from(id), host)).collect(),
            log: RefCell::default(),
            grown: Signal::default(),
            state: RefCell::default(),
            present: RefCell::default(),
            applied: RefCell::default(),
            active: Cell::default(),
            leaders: RefCell::default(),
            is_calm: Cell::default(),
            outcomes: RefCell::default(),
            images: RefCell::default(),
            when_in_sync: RefCell::default(),
            held: RefCell::default(),
            holds: Signal::default(),
            ignored: Cell::default(),
            unheard: RefCell::default(),
        })
    }

    /// The brokers and replicas that are agreed on by now.
    pub(crate) fn replicas(&self) -> ReplicaMap {
        self.state.borrow().replicas().clone()
    }

    /// The topics that are agreed on by now.
    pub(crate) fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(self.state.borrow().image())
    }

    /// All images until now, the first of them empty, and since when each was agreed on.
    pub(crate) fn images(&self) -> Vec<(Duration, Arc<ClusterImage>)> {
        let first = (Duration::ZERO, Arc::default());
        [first]
            .into_iter()
            .chain(self.images.borrow().iter().cloned())
            .collect()
    }

    /// What this broker proposes does not come from now on, though it is heard.
    pub(crate) fn ignore(&self, broker: Option<BrokerId>) {
        self.ignored.set(broker.map(NodeId::from));
    }

    /// From now on every order that is sent comes, and soon.
    pub(crate) fn calms_down(&self) {
        self.is_calm.set(true);
    }

    /// From now on somebody is told who comes into sync.
    pub(crate) fn when_in_sync(&self, told: impl Fn(PartitionId, BrokerId) + 'static) {
        *self.when_in_sync.borrow_mut() = Some(Box::new(told));
    }

    /// Holds the next wish back that has somebody come into sync, and says whom.
    pub(crate) async fn hold_a_wish(&self) -> BrokerId {
        *self.held.borrow_mut() = Held::Next;
        loop {
            let holds = self.holds.wait();
            if let Held::This(proposal) = &*self.held.borrow()
                && let Some(joins) = joins(&proposal.order)
            {
                return joins;
            }
            holds.await;
        }
    }

    /// What is held back comes now, and nothing more is held.
    pub(crate) fn release(self: &Rc<Self>) {
        if let Held::This(proposal) = self.held.take() {
            self.append_in(proposal, Duration::ZERO);
        }
    }

    /// Whether this is held back.
    fn is_held(&self, proposal: &Proposal) -> bool {
        let mut held = self.held.borrow_mut();
        match &*held {
            Held::This(this) => this.id == proposal.id,
            Held::Next if joins(&proposal.order).is_some() => {
                *held = Held::This(proposal.clone());
                self.holds.notify();
                true
            }
            Held::Nothing | Held::Next => false,
        }
    }

    /// An operator asks for something, once, and does not wait.
    pub(crate) fn ask(self: &Rc<Self>, order: Order) {
        self.append_in(Proposal::new(order), Duration::ZERO);
    }

    /// Sees to it that one of the members is the active coordinator whenever one can be.
    pub(crate) async fn coordinate(self: Rc<Self>) -> Infallible {
        loop {
            machine::sleep(LOOK_EVERY).await;
            if let Some(active) = self.active.get().filter(|active| self.has_majority(*active)) {
                self.check_heard(active);
                continue;
            }
            self.unheard.take();
            if let Some(active) = self.active.take() {
                self.tell(format!("broker {active} is not the active coordinator any more"));
            }
            machine::sleep(Duration::from_millis(self.world.draw(ELECTION_MS))).await;
            let candidates: Vec<NodeId> = self
                .hosts
                .keys()
                .copied()
                .filter(|node| self.has_majority(*node))
                .collect();
            if !candidates.is_empty() {
                let active = candidates[self.world.draw(0..candidates.len())];
                self.tell(format!("broker {active} is the active coordinator"));
                self.active.set(Some(active));
            }
        }
    }

    fn tell(&self, line: impl Display) {
        self.world.tell(Some(self.process), line);
    }

    fn is_there(&self, node: NodeId) -> bool {
        let present = self.present.borrow();
        present
            .get(&node)
            .is_some_and(|process| !self.world.is_frozen(*process))
    }

    fn hears(&self, one: NodeId, other: NodeId) -> bool {
        let both = self.is_there(one) && self.is_there(other);
        both && (one == other || Net::is_open(&self.world, self.hosts[&one], self.hosts[&other]))
    }

    fn has_majority(&self, node: NodeId) -> bool {
        let heard = self.hosts.keys().filter(|other| self.hears(node, **other));
        heard.count() > self.hosts.len() / 2
    }

    /// Whether the active coordinator, if there is one, and a member hear each other.
    fn is_reached(&self, node: NodeId) -> bool {
        self.active.get().is_some_and(|active| self.hears(node, active))
    }

    /// A proposal comes to the active coordinator; if there is none by then it is lost.
    fn append_in(self: &Rc<Self>, proposal: Proposal, delay: Duration) {
        let agreement = Rc::clone(self);
        self.world.spawn(self.process, async move {
            machine::sleep(delay).await;
            let active = agreement.active.get();
            let active = active.filter(|active| agreement.has_majority(*active));
            if active.is_some_and(|active| agreement.takes(active, &proposal.order)) {
                agreement.append(proposal);
            }
        });
    }

    /// Who is not reached by the active coordinator is not let in, and asks again.
    fn takes(&self, active: NodeId, order: &Order) -> bool {
        lets_in(order).is_none_or(|broker| self.hears(active, broker))
    }

    fn append(&self, proposal: Proposal) {
        let mut state = self.state.borrow_mut();
        let was = state.replicas().clone();
        let outcome = state.apply(proposal.clone());
        self.tell(format_args!("{:?}: {outcome:?}", proposal.order));
        let is = state.replicas().clone();
        let mut images = self.images.borrow_mut();
        let is_other = |(_, last): &(Duration, Arc<ClusterImage>)| !Arc::ptr_eq(last, state.image());
        if images.last().is_none_or(is_other) {
            images.push((self.world.now(), Arc::clone(state.image())));
        }
        drop(images);
        let mut outcomes = self.outcomes.borrow_mut();
        let first = outcomes.entry(proposal.id).or_insert_with(|| outcome.clone());
        assert_eq!(*first, outcome, "{:?} is done twice", proposal.order);
        drop(outcomes);
        drop(state);
        if was != is {
            self.check(&was, &is);
        }
        self.log.borrow_mut().push(proposal);
        self.grown.notify();
    }

    /// A member comes: the way to it, and its work, which ends with its process.
    pub(crate) async fn join<D: Directory>(
        self: &Rc<Self>,
        disk: &D,
        config: &Config,
    ) -> Result<(QuorumHandle, impl Future<Output = ()> + use<D>), StoreError> {
        let path = config.log.directory.join(QUORUM_FILE);
        let begun = beginning(disk, config).await?;
        let is_new = begun.is_some();
        if let Some((identity, _)) = begun {
            let written = disk.replace_file_to_make_room(&path, encode(&identity)).await;
            written.map_err(StoreError::io("write", &path))?;
        }
        let content = disk.read_file(&path).await;
        let content = content.map_err(StoreError::io("read", &path))?;
        let identity: Identity = decode(&content).map_err(|error| StoreError::Corrupt {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let had = if is_new {
            0
        } else {
            self.applied.borrow().get(&identity.node).copied().unwrap_or_default()
        };
        // What it had applied when its last snapshot was made; it hears of the rest.
        let applied = self.world.draw(0..=had);
        let mut state = State::default();
        for proposal in &self.log.borrow()[..applied] {
            state.apply(proposal.clone());
        }
        let (show, shown) = Show::new(&state);
        let incarnation = Incarnation(self.world.now().as_micros() as u64);
        let look = Arc::new(QuorumFigures::default);
        let lease = Arc::<Lease>::default();
        let (handle, wishes) = QuorumHandle::new(identity.clone(), incarnation, shown, look, Arc::clone(&lease));
        let seat = Rc::new(Seat {
            agreement: Rc::clone(self),
            node: identity.node,
            state: RefCell::new(state),
            applied: Cell::new(applied),
            outcomes: RefCell::default(),
            has_applied: Signal::default(),
            show,
            lease,
        });
        Ok((handle, seat.work(wishes)))
    }
}

/// Who is to come into sync by an order.
fn joins(order: &Order) -> Option<BrokerId> {
    match order {
        Order::Replicas(ReplicaCommand::Alter { changes, .. }) => {
            let joins = changes.iter().flat_map(|change| &change.join);
            joins.map(|(broker, _)| *broker).next()
        }
        _ => None,
    }
}

/// A member for as long as its process runs.
struct Seat {
    agreement: Rc<Agreement>,
    node: NodeId,
    state: RefCell<State>,
    applied: Cell<usize>,
    /// What became of what it has applied in this life.
    outcomes: RefCell<Vec<(ProposalId, Outcome)>>,
    has_applied: Signal,
    show: Show,
    lease: Arc<Lease>,
}

/// Ends with the process.
struct Present(Rc<Agreement>, NodeId);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.present.borrow_mut().remove(&self.1);
    }
}

impl Seat {
    async fn work(self: Rc<Self>, wishes: mpsc::Receiver<Wish>) {
        let here = here().expect("a simulated member is in its world");
        let (agreement, node) = (Rc::clone(&self.agreement), self.node);
        agreement.present.borrow_mut().insert(node, here.process);
        let _present = Present(agreement, node);
        let listening = std::pin::pin!(listen(
            SocketAddr::new(self.agreement.hosts[&node], PEER_PORT),
            &self.lease
        ));
        let working = std::pin::pin!(join(self.serve(wishes), self.follow()));
        let watching = std::pin::pin!(sessions::watch(&*self));
        select(listening, select(working, watching)).await;
    }

    /// What a message takes: mostly little.
    fn delay(&self) -> Duration {
        let world = &self.agreement.world;
        let slow = if world.chance(0.03) { 100 } else { 1 };
        Duration::from_micros(slow * world.draw(100..5_000))
    }

    async fn serve(self: &Rc<Self>, mut wishes: mpsc::Receiver<Wish>) {
        while let Some(wish) = wishes.recv().await {
            // Its members are always the same.
            if let Wish::Order(order, reply) = wish {
                let seat = Rc::clone(self);
                machine::spawn(async move {
                    let outcome = Watcher::propose(&*seat, order).await;
                    let _ = reply.send(outcome.map_err(|error| Refusal::because(error.code(), &error)));
                });
            }
        }
    }

    /// Applies what is agreed on, a while after that.
    async fn follow(&self) -> Infallible {
        let agreement = &self.agreement;
        loop {
            let grown = agreement.grown.wait();
            let length = agreement.log.borrow().len();
            if self.applied.get() == length {
                grown.await;
            } else if agreement.is_reached(self.node) {
                machine::sleep(self.delay()).await;
                self.apply(agreement.world.draw(self.applied.get() + 1..=length));
            } else {
                machine::sleep(LOOK_EVERY).await;
            }
        }
    }

    fn apply(&self, to: usize) {
        let mut state = self.state.borrow_mut();
        let mut outcomes = self.outcomes.borrow_mut();
        for proposal in &self.agreement.log.borrow()[self.applied.get()..to] {
            outcomes.push((proposal.id, state.apply(proposal.clone())));
        }
        self.applied.set(to);
        self.agreement.applied.borrow_mut().insert(self.node, to);
        // Whoever is answered finds it in the image.
        self.show.publish(&state);
        drop((state, outcomes));
        self.has_applied.notify();
    }

    /// Proposes it until it is known what has become of it.
    async fn proposed(&self, proposal: Proposal) -> Outcome {
        let agreement = &self.agreement;
        let world = &agreement.world;
        let is_wish = matches!(proposal.order, Order::Replicas(ReplicaCommand::Alter { .. }));
        loop {
            machine::sleep(self.delay()).await;
            let is_ignored = agreement.ignored.get() == Some(self.node);
            if agreement.is_reached(self.node) && !is_ignored && !agreement.is_held(&proposal) {
                let fate = world.draw(0..100);
                match fate {
                    0 | 1 if !agreement.is_calm.get() => {}
                    // What a leader wished for is late more often: only then it is of another state than it was thought of.
                    2..=15 if !agreement.is_calm.get() && (fate < 4 || is_wish) => {
                        let late = LATE_MAX.mul_f64(world.random());
                        agreement.append_in(proposal.clone(), late);
                    }
                    _ => {
                        agreement.append_in(proposal.clone(), self.delay());
                        if fate == 20 && !agreement.is_calm.get() {
                            // The answer does not come.
                            machine::sleep(PROPOSE_MAX).await;
                        }
                        let answered = machine::until(machine::now() + ANSWER_MAX, self.outcome_of(proposal.id));
                        if let Some(outcome) = answered.await {
                            return outcome;
                        }
                    }
                }
            }
            machine::sleep(PROPOSE_PAUSE).await;
        }
    }

    async fn outcome_of(&self, id: ProposalId) -> Outcome {
        loop {
            let applied = self.has_applied.wait();
            let known = self
                .outcomes
                .borrow()
                .iter()
                .rev()
                .find(|(known, _)| *known == id)
                .cloned();
            if let Some((_, outcome)) = known {
                return outcome;
            }
            applied.await;
        }
    }
}

impl Watcher for Seat {
    type Line = Probe;
    type Doubt = ProposeError;

    fn node(&self) -> NodeId {
        self.node
    }

    fn confirmed(&self) -> Option<Instant> {
        (self.agreement.active.get() == Some(self.node)).then(machine::now)
    }

    fn lease(&self) -> &Lease {
        &self.lease
    }

    fn replicas(&self) -> ReplicaMap {
        self.state.borrow().replicas().clone()
    }

    fn line(&self, broker: NodeId) -> Option<Probe> {
        let host = *self.agreement.hosts.get(&broker)?;
        Some(Probe {
            address: SocketAddr::new(host, PEER_PORT),
            stream: None,
        })
    }

    async fn ask(line: &mut Probe) -> Result<(), Unheard> {
        let asked = machine::until(machine::now() + peer::ANSWER_MAX, line.ask()).await;
        match asked.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Unheard::Ended),
            Err(error) => Err(Unheard::Silent(error.to_string())),
        }
    }

    async fn propose(&self, order: Order) -> Result<Outcome, ProposeError> {
        let proposed = self.proposed(Proposal::new(order));
        let agreed = machine::until(machine::now() + PROPOSE_MAX, proposed).await;
        agreed.ok_or(ProposeError::NoMajority)
    }
}

/// The way to a member's port.
struct Probe {
    address: SocketAddr,
    stream: Option<Stream>,
}

impl Probe {
    async fn ask(&mut self) -> io::Result<()> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => Stream::connect(self.address).await?,
        };
        stream.try_send(&[1])?;
        if stream.read(&mut [0]).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.stream = Some(stream);
        Ok(())
    }
}

/// Answers whoever asks whether this process is there.
async fn listen(address: SocketAddr, lease: &Arc<Lease>) -> io::Result<()> {
    let listener = Listener::new(address)?;
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let lease = Arc::clone(lease);
                machine::spawn(async move {
                    let mut answered = Answered::default();
                    // Who asks no more has gone.
                    while let Ok(1) = stream.read(&mut [0]).await {
                        answered.again(&lease);
                        if stream.try_send(&[1]).is_err() {
                            break;
                        }
                    }
                });
            }
            Err(_exhausted) => machine::sleep(LOOK_EVERY).await,
        }
    }
}
