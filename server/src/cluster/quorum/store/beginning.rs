//! How a quorum begins: with one member, as if it had led already and agreed with itself on a first entry, in whose place there is a
//! snapshot. All of it is in the transaction that makes the store, so that no member has begun by half, and whoever joins later gets
//! what was known from the beginning with that snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::file::Change;
use crate::cluster::quorum::{
    id::{Identity, Member},
    state::State,
    types::{LogId, Membership, SnapshotMeta, Vote},
};

const FIRST_TERM: u64 = 1;

/// What a quorum begins with.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    /// What is known.
    pub(crate) state: State,
    /// Where later members reach the first one; empty if nobody can.
    pub(crate) address: String,
}

impl Beginning {
    /// What the first member, and the only one, has on disk.
    pub(super) fn changes(&self, identity: &Identity) -> [Change; 3] {
        let Identity { node, store, .. } = *identity;
        let address = self.address.clone();
        let nodes = BTreeMap::from([(node, Member { store, address })]);
        let membership = openraft::Membership::new(vec![BTreeSet::from([node])], nodes);
        let membership = membership.expect("the only voter is among the nodes");
        let first = LogId::new(FIRST_TERM.into(), 0);
        let meta = SnapshotMeta {
            last_log_id: Some(first),
            last_membership: Membership::new(Some(first), membership),
        };
        [
            Change::Vote(Vote::new_committed(FIRST_TERM, node)),
            Change::Purge(first),
            Change::Snapshot {
                meta,
                data: self.state.encode().into(),
            },
        ]
    }
}
