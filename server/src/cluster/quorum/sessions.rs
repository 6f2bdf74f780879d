//! The sessions of brokers with the active coordinator: it asks each over the port of its peers whether it is there. One that has not
//! answered for too long is fenced, and so is at once one whose host says that nobody listens there any more: its process has ended.
//!
//! A broker that is fenced asks to be let in, through any member; the active coordinator does so if it reaches it (`peer/reach.rs`).
//! Any other member asks nobody. A new active coordinator begins anew with the time of each.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Display,
    future::pending,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    StreamExt as _,
    future::{join_all, select},
    stream::FuturesUnordered,
};

use super::{
    id::NodeId,
    member::{ProposeError, Quorum},
    order::{Order, Outcome},
    peer::{ANSWER_MAX, Line, Unheard},
};
use crate::{
    cluster::replicas::{ReplicaCommand, ReplicaMap},
    core::lease::{LEASE, Lease},
    image::Broker,
    machine,
};

/// A pause before a member looks whether it is the active coordinator now.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A pause before all are asked again; one whose connection closes is asked at once.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// A broker that has not answered for so long is taken to be gone. Longer than a host may stand still.
const SESSION: Duration = Duration::from_secs(3);

/// So long a member takes itself for the active coordinator after a majority has said so: it asks nobody any more when another may be.
const CONFIRMED_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(SESSION.as_millis() > CONFIRMED_MAX.as_millis() + LEASE.as_millis());
const _: () = assert!(SESSION.as_millis() > 2 * (ASK_EVERY.as_millis() + ANSWER_MAX.as_millis()));

/// A member, as far as it watches brokers.
pub(super) trait Watcher {
    /// The way to a broker.
    type Line;

    /// Why nobody knows what has become of an order.
    type Doubt: Display;

    fn node(&self) -> NodeId;

    /// When a majority last confirmed that it is the active coordinator. None: it is not, or may not be any more.
    fn confirmed(&self) -> Option<Instant>;

    /// Until when others count on its own broker.
    fn lease(&self) -> &Lease;

    /// Brokers and replicas, as far as it knows.
    fn replicas(&self) -> ReplicaMap;

    /// The way to a broker; none if it is no member any more.
    fn line(&self, broker: NodeId) -> Option<Self::Line>;

    /// Asks a broker whether it is there, for at most [`ANSWER_MAX`].
    async fn ask(line: &mut Self::Line) -> Result<(), Unheard>;

    /// Waits until a broker that was asked and has answered closes its connection; for ever if nobody can tell.
    async fn closed(_line: &Self::Line) {
        pending::<()>().await;
    }

    /// Has an order agreed on.
    async fn propose(&self, order: Order) -> Result<Outcome, Self::Doubt>;
}

impl Watcher for Quorum {
    type Line = Line;
    type Doubt = ProposeError;

    fn node(&self) -> NodeId {
        self.identity().node
    }

    fn confirmed(&self) -> Option<Instant> {
        Quorum::confirmed(self).filter(|at| machine::since(*at) < CONFIRMED_MAX)
    }

    fn lease(&self) -> &Lease {
        self.local.lease()
    }

    fn replicas(&self) -> ReplicaMap {
        self.shown().replicas.borrow().clone()
    }

    fn line(&self, broker: NodeId) -> Option<Line> {
        self.line_to(broker)
    }

    async fn ask(line: &mut Line) -> Result<(), Unheard> {
        line.reach().await
    }

    async fn closed(line: &Line) {
        line.closed().await;
    }

    async fn propose(&self, order: Order) -> Result<Outcome, ProposeError> {
        Quorum::propose(self, order).await
    }
}

/// A broker that is to be fenced, and why.
type Gone = (Arc<Broker>, String);

/// One broker's process, as it was heard.
struct Session<W: Watcher> {
    broker: Arc<Broker>,
    line: W::Line,
    heard: Instant,
}

impl<W: Watcher> Session<W> {
    fn is_of(&self, broker: &Broker) -> bool {
        self.broker.incarnation == broker.incarnation
    }

    /// Asks it, and says why it is to be fenced, if it is.
    async fn ask(&mut self) -> Option<Gone> {
        let why = match W::ask(&mut self.line).await {
            Ok(()) => {
                self.heard = machine::now();
                None
            }
            Err(Unheard::Ended) => Some("its process has ended".to_owned()),
            Err(Unheard::Silent(why)) => (machine::since(self.heard) >= SESSION).then_some(why),
        };
        why.map(|why| (Arc::clone(&self.broker), why))
    }
}

/// Watches the brokers whenever this member is the active coordinator.
pub(super) async fn watch<W: Watcher>(watcher: &W) -> Infallible {
    let mut sessions = BTreeMap::new();
    loop {
        let Some(confirmed) = watcher.confirmed() else {
            sessions.clear();
            machine::pause(LOOK_EVERY).await;
            continue;
        };
        watcher.lease().heard(confirmed);
        let mut gone = refresh(&mut sessions, watcher);
        let asked = join_all(sessions.values_mut().map(Session::<W>::ask)).await;
        gone.extend(asked.into_iter().flatten());
        join_all(gone.into_iter().map(|gone| fence(watcher, gone))).await;
        let mut closed: FuturesUnordered<_> = sessions.values().map(|session| W::closed(&session.line)).collect();
        let one_closes = async {
            // Without sessions nothing closes.
            if closed.next().await.is_none() {
                pending::<()>().await;
            }
        };
        select(pin!(machine::pause(ASK_EVERY)), pin!(one_closes)).await;
    }
}

/// A session for each broker that is not fenced, as the process that is registered. Those that cannot have one are returned.
fn refresh<W: Watcher>(sessions: &mut BTreeMap<NodeId, Session<W>>, watcher: &W) -> Vec<Gone> {
    let (mut kept, mut gone) = (BTreeMap::new(), Vec::new());
    for broker in watcher.replicas().brokers().filter(|broker| !broker.is_fenced) {
        let node = NodeId::from(broker.id);
        if node == watcher.node() {
            continue;
        }
        let Some(line) = watcher.line(node) else {
            gone.push((Arc::clone(broker), "it is no member of the quorum any more".to_owned()));
            continue;
        };
        let session = sessions.remove(&node).filter(|session| session.is_of(broker));
        let session = session.unwrap_or_else(|| Session {
            broker: Arc::clone(broker),
            line,
            heard: machine::now(),
        });
        kept.insert(node, session);
    }
    *sessions = kept;
    gone
}

async fn fence<W: Watcher>(watcher: &W, (broker, why): Gone) {
    let (id, incarnation) = (broker.id, broker.incarnation);
    let order = Order::Replicas(ReplicaCommand::Fence { id, incarnation });
    match watcher.propose(order).await {
        Ok(outcome) => match outcome.refusal() {
            None => tracing::warn!(broker = %id, %incarnation, why, "a broker is fenced"),
            Some(refusal) => {
                tracing::debug!(broker = %id, %incarnation, refusal = refusal.message, "a broker is not fenced");
            }
        },
        Err(error) => {
            tracing::warn!(broker = %id, %error, "a broker that is gone could not be fenced; it is tried again");
        }
    }
}
