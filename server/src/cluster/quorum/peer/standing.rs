//! Who is welcome. Pure but for what is remembered of those who called.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use openraft::{RaftMetrics, async_runtime::watch::WatchReceiver as _, type_config::alias::WatchReceiverOf};

use super::handshake::{Caller, Hello, Refused};
use crate::{
    cluster::quorum::{
        id::{Identity, Incarnation, Member, NodeId, StoreId},
        types::{Membership, QuorumTypes, Vote},
    },
    core::lease::Lease,
    machine,
    tls::Tls,
};

/// Says whom openraft knows.
type LookAtMembers = Box<dyn Fn() -> Arc<Membership> + Send + Sync>;

/// Who this member is, and whom it knows.
pub(crate) struct Local {
    identity: Identity,
    incarnation: Incarnation,
    known: OnceLock<LookAtMembers>,
    /// The highest incarnation of each member that has called.
    incarnations: Mutex<BTreeMap<NodeId, (StoreId, Incarnation)>>,
    /// The vote of a leader whose process was found ended.
    deserted: Mutex<Option<Vote>>,
    /// The leader that has answered last, and when.
    heard: Mutex<Option<(NodeId, Instant)>>,
    /// What it shows to others, and wants of them.
    tls: Arc<Tls>,
    lease: Arc<Lease>,
}

impl Local {
    /// It knows nobody until it is told how ([`watch`](Self::watch)).
    pub(crate) fn new(identity: Identity, incarnation: Incarnation, tls: Arc<Tls>) -> Local {
        Local {
            identity,
            incarnation,
            known: OnceLock::new(),
            incarnations: Mutex::default(),
            deserted: Mutex::default(),
            heard: Mutex::default(),
            tls,
            lease: Arc::default(),
        }
    }

    pub(super) fn tls(&self) -> &Arc<Tls> {
        &self.tls
    }

    /// Until when the active coordinator counts on this broker.
    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// Notes that the process of the leader with this vote has ended, or that the leader was heard.
    pub(crate) fn set_deserted(&self, by: Option<Vote>) {
        *self.deserted.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    pub(super) fn deserted(&self) -> Option<Vote> {
        *self.deserted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the leader has answered just now.
    pub(crate) fn was_answered_by(&self, leader: NodeId) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((leader, machine::now()));
    }

    /// Whether this leader has answered within that time.
    pub(crate) fn has_heard(&self, leader: NodeId, within: Duration) -> bool {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|(who, at)| who == leader && machine::since(at) <= within)
    }

    /// From here on it knows what openraft knows.
    pub(crate) fn watch<C: QuorumTypes>(&self, metrics: WatchReceiverOf<C, RaftMetrics<C>>) {
        let look = move || Arc::clone(&metrics.borrow_watched().membership_config);
        // There is one openraft to a member.
        let _ = self.known.set(Box::new(look));
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The members, as far as this one knows.
    pub(crate) fn membership(&self) -> Arc<Membership> {
        self.known.get().map_or_else(Arc::default, |look| look())
    }

    /// How it introduces itself.
    pub(super) fn caller(&self) -> Caller {
        let membership = self.membership();
        let is_member = is_member(&membership, self.identity.node, self.identity.store);
        Caller {
            cluster: self.identity.cluster.clone(),
            node: self.identity.node,
            store: self.identity.store,
            incarnation: self.incarnation,
            member_since: membership.log_id().filter(|_| is_member),
        }
    }

    /// Whether this member listens to that one, which wants the one with that store, or just any that may become a member.
    #[cfg(test)]
    pub(crate) fn hears(&self, other: &Local, wanted: Option<StoreId>) -> Result<(), Refused> {
        let hello = Hello {
            nonce: 0,
            caller: other.caller(),
            node: self.identity.node,
            store: wanted,
        };
        self.judge(&hello, 0)
    }

    /// Whether who says this is to be listened to.
    pub(super) fn judge(&self, hello: &Hello, nonce: u64) -> Result<(), Refused> {
        let ours = &self.identity;
        let caller = &hello.caller;
        if hello.nonce != nonce {
            return Err(Refused::Replayed);
        }
        if caller.cluster != ours.cluster {
            return Err(Refused::Cluster {
                theirs: caller.cluster.clone(),
                ours: ours.cluster.clone(),
            });
        }
        if hello.node != ours.node {
            return Err(Refused::OtherNode {
                wanted: hello.node,
                ours: ours.node,
            });
        }
        if let Some(wanted) = hello.store.filter(|wanted| *wanted != ours.store) {
            return Err(Refused::OtherStore {
                node: ours.node,
                wanted,
                ours: ours.store,
            });
        }
        self.judge_caller(caller, hello.store.is_some())
    }

    /// The same for one that was welcome, and may not be any more. One that has not said which store it wants is only answered how far
    /// this member is; and anybody of the cluster may ask that of a member that does not belong to a quorum yet.
    pub(super) fn judge_caller(&self, caller: &Caller, is_checked: bool) -> Result<(), Refused> {
        let membership = self.membership();
        if !is_checked && membership.log_id().is_none() {
            return Ok(());
        }
        is_one_of_us(caller, &membership)?;
        let mut incarnations = self.incarnations.lock().unwrap_or_else(PoisonError::into_inner);
        let (store, newest) = incarnations
            .entry(caller.node)
            .or_insert((caller.store, caller.incarnation));
        if *store == caller.store && *newest > caller.incarnation {
            return Err(Refused::Outdated { node: caller.node });
        }
        (*store, *newest) = (caller.store, caller.incarnation);
        // Nobody else is asked after again.
        incarnations.retain(|node, _| *node == caller.node || membership.get_node(node).is_some());
        Ok(())
    }
}

fn is_member(membership: &Membership, node: NodeId, store: StoreId) -> bool {
    membership
        .get_node(&node)
        .is_some_and(|member: &Member| member.store == store)
}

/// Of two who disagree on who is a member, the one that has heard of the later change is right: this one may lag behind, and whoever
/// was removed, or has lost its disk, cannot have heard of a later one.
fn is_one_of_us(caller: &Caller, membership: &Membership) -> Result<(), Refused> {
    let node = caller.node;
    if is_member(membership, node, caller.store) || caller.member_since > *membership.log_id() {
        return Ok(());
    }
    Err(match membership.get_node(&node) {
        None => Refused::Stranger { node },
        Some(known) => Refused::Emptied {
            node,
            found: caller.store,
            known: known.store,
        },
    })
}
