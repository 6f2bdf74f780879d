//! The sessions of brokers with the active coordinator: it asks each over the port of its peers whether it is there. One that has not
//! answered for too long is fenced, and so is at once one whose host says that nobody listens there any more: its process has ended.
//!
//! Any other member asks nobody. A new active coordinator begins anew with the time of each.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::ErrorKind,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::time::sleep;

use super::{
    id::NodeId,
    member::Quorum,
    order::Order,
    peer::{CallError, Line, Request},
};
use crate::{cluster::replicas::ReplicaCommand, image::Broker, machine};

/// A pause before all are asked again.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// An answer has come within this time, or none is waited for: it takes no disk.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// A broker that has not answered for so long is taken to be gone. Longer than a host may stand still.
const SESSION: Duration = Duration::from_secs(3);

const _: () = assert!(SESSION.as_millis() > 2 * (ASK_EVERY.as_millis() + ANSWER_MAX.as_millis()));

/// A broker that is to be fenced, and why.
type Gone = (Arc<Broker>, String);

/// One broker's process, as it was heard.
struct Session {
    broker: Arc<Broker>,
    line: Line,
    heard: Instant,
}

impl Session {
    fn is_of(&self, broker: &Broker) -> bool {
        self.broker.incarnation == broker.incarnation
    }

    /// Asks it, and says why it is to be fenced, if it is.
    async fn ask(&mut self) -> Option<Gone> {
        let why = match self.line.call(&Request::Progress, ANSWER_MAX).await {
            Ok(_) => {
                self.heard = machine::now();
                None
            }
            Err(CallError::Unreachable { source, .. }) if source.kind() == ErrorKind::ConnectionRefused => {
                Some("its process has ended".to_owned())
            }
            Err(error) => (machine::since(self.heard) >= SESSION).then(|| error.to_string()),
        };
        why.map(|why| (Arc::clone(&self.broker), why))
    }
}

/// Watches the brokers whenever this member is the active coordinator.
pub(super) async fn watch(quorum: &Quorum) -> Infallible {
    let mut sessions = BTreeMap::new();
    loop {
        sleep(ASK_EVERY).await;
        if quorum.leader() != Some(quorum.identity().node) {
            sessions.clear();
            continue;
        }
        let mut gone = refresh(&mut sessions, quorum);
        let asked = join_all(sessions.values_mut().map(Session::ask)).await;
        gone.extend(asked.into_iter().flatten());
        join_all(gone.into_iter().map(|gone| fence(quorum, gone))).await;
    }
}

/// A session for each broker that is not fenced, as the process that is registered. Those that cannot have one are returned.
fn refresh(sessions: &mut BTreeMap<NodeId, Session>, quorum: &Quorum) -> Vec<Gone> {
    let own = quorum.identity().node;
    let shown = quorum.shown();
    let replicas = shown.replicas.borrow();
    let membership = quorum.membership();
    let (mut kept, mut gone) = (BTreeMap::new(), Vec::new());
    for broker in replicas.brokers().filter(|broker| !broker.is_fenced) {
        let node = NodeId::from(broker.id);
        if node == own {
            continue;
        }
        let Some(member) = membership.get_node(&node) else {
            gone.push((Arc::clone(broker), "it is no member of the quorum any more".to_owned()));
            continue;
        };
        let session = sessions.remove(&node).filter(|session| session.is_of(broker));
        let session = session.unwrap_or_else(|| Session {
            broker: Arc::clone(broker),
            line: quorum.dialer.line(node, member),
            heard: machine::now(),
        });
        kept.insert(node, session);
    }
    *sessions = kept;
    gone
}

async fn fence(quorum: &Quorum, (broker, why): Gone) {
    let (id, incarnation) = (broker.id, broker.incarnation);
    let order = Order::Replicas(ReplicaCommand::Fence { id, incarnation });
    match quorum.propose(order).await {
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
