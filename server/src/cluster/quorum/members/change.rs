//! The steps of a change of the members, and of the first forming of a quorum. They are the same with any runtime, and any way to the
//! others, so that a simulation runs what a broker does.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{
    ChangeMembers, Raft,
    errors::{ClientWriteError, RaftError},
    type_config::{TypeConfigExt as _, alias::InstantOf},
};

use super::ChangeError;
use crate::cluster::quorum::{
    applier::Applier,
    id::{Member, NodeId},
    peer::{CallError, Local, Progress},
    types::{LogId, QuorumTypes},
};

/// A pause before a member is asked again how far it is.
const PROGRESS_PAUSE: Duration = Duration::from_millis(50);

/// A member, as far as it has a say in who the members are.
pub(in crate::cluster::quorum) trait Party {
    /// Ours, with its runtime.
    type Types: QuorumTypes;

    /// The way to another.
    type Line;

    fn raft(&self) -> &Raft<Self::Types, Applier>;

    fn local(&self) -> &Local;

    /// The way to a member.
    fn members_line(&self, node: NodeId, member: &Member) -> Self::Line;

    /// The way to one that is not a member yet, over which it can only be asked how far it is.
    fn newcomers_line(&self, node: NodeId, address: &str) -> Self::Line;

    /// Asks how far it is.
    async fn progress(line: &mut Self::Line, node: NodeId) -> Result<Progress, CallError>;
}

/// When a change is given up.
type Deadline<P> = InstantOf<<P as Party>::Types>;

/// Makes them voters, all at once, as soon as each has the log.
pub(in crate::cluster::quorum) async fn add<P: Party>(
    party: &P,
    members: &BTreeMap<NodeId, Member>,
    within: Duration,
) -> Result<(), ChangeError> {
    let deadline = P::Types::now() + within;
    let membership = party.local().membership();
    let known = members.iter().find(|(node, member)| {
        let known = membership.get_node(node);
        known.is_some_and(|known| known != *member)
    });
    if let Some((node, _)) = known {
        return Err(ChangeError::Known { node: *node });
    }
    for (node, member) in members {
        let nodes = ChangeMembers::AddNodes(BTreeMap::from([(*node, member.clone())]));
        let known = change(party, nodes, deadline).await?;
        wait_for(party, (*node, member), known, deadline).await?;
    }
    let voters: BTreeSet<NodeId> = members.keys().copied().collect();
    change(party, ChangeMembers::AddVoterIds(voters), deadline).await?;
    Ok(())
}

/// Takes a member out, alive or not.
pub(in crate::cluster::quorum) async fn remove<P: Party>(
    party: &P,
    node: NodeId,
    within: Duration,
) -> Result<(), ChangeError> {
    let deadline = P::Types::now() + within;
    let is_voter = party.local().membership().voter_ids().any(|voter| voter == node);
    let nodes = BTreeSet::from([node]);
    let without = if is_voter {
        ChangeMembers::RemoveVoters(nodes)
    } else {
        ChangeMembers::RemoveNodes(nodes)
    };
    change(party, without, deadline).await?;
    Ok(())
}

async fn change<P: Party>(
    party: &P,
    change: ChangeMembers<NodeId, Member>,
    deadline: Deadline<P>,
) -> Result<LogId, ChangeError> {
    let changed = P::Types::timeout_at(deadline, party.raft().change_membership(change, false)).await;
    let changed = changed.map_err(|_elapsed| ChangeError::Late)?;
    changed.map(|written| written.log_id).map_err(|error| match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => ChangeError::NotLeader {
            leader: forward.leader_id,
        },
        error => ChangeError::Refused {
            reason: error.to_string(),
        },
    })
}

/// Waits until the member says itself that it has the entry: openraft believes of one that is not there that it has everything.
pub(in crate::cluster::quorum) async fn wait_for<P: Party>(
    party: &P,
    (node, member): (NodeId, &Member),
    entry: LogId,
    deadline: Deadline<P>,
) -> Result<(), ChangeError> {
    let mut line = party.members_line(node, member);
    loop {
        let answer = P::progress(&mut line, node).await;
        if answer.as_ref().is_ok_and(|progress| progress.committed >= Some(entry)) {
            return Ok(());
        }
        let is_late = P::Types::now() >= deadline;
        match answer {
            Ok(_) if is_late => return Err(ChangeError::Behind { node }),
            Err(source) if is_late || matches!(source, CallError::Refused { .. }) => {
                return Err(ChangeError::NotThere { source });
            }
            _ => {}
        }
        P::Types::sleep(PROGRESS_PAUSE).await;
    }
}
