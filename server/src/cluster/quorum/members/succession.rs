//! A leader whose process has ended is not waited for. Its host says so at once: connections to it end, and new ones are refused. Once
//! a majority of the voters have been told that, the one of them with the longest log stands for election, as an heir does to whom the
//! leader hands over, without the second in which a leader that is only silent might be heard again.
//!
//! A refused connection alone deposes nobody, as a firewall refuses too: members between which one stands would depose each other for
//! ever. Whether the heir is elected is for openraft to say; if it is not, the others wait for the leader's lease as always.

use std::{cmp::Reverse, convert::Infallible, time::Duration};

use futures::future::join_all;
use openraft::raft::TransferLeaderRequest;
use tokio::time::sleep;

use crate::{
    cluster::quorum::{
        id::NodeId,
        member::Quorum,
        peer::{ANSWER_MAX, Line, Progress, Request, Response},
        types::Vote,
    },
    machine,
};

/// A leader that is there, and whose connection stays, is asked again after this. A member that leads itself looks as often.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Nobody leads, or the others do not know yet that the leader has ended: a look again after this.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Those who do not know it after so long never will, as it has not: this member alone is refused.
const AGREED_WITHIN: Duration = Duration::from_secs(1);

/// Watches the leader whenever that is another member.
pub(in crate::cluster::quorum) async fn watch(quorum: &Quorum) -> Infallible {
    let mut line: Option<(NodeId, Line)> = None;
    let mut refused_since = None;
    loop {
        let Some((leader, vote)) = quorum.led_by() else {
            (line, refused_since) = (None, None);
            sleep(LOOK_EVERY).await;
            continue;
        };
        if leader == quorum.identity().node {
            (line, refused_since) = (None, None);
            sleep(ASK_EVERY).await;
            continue;
        }
        if line.as_ref().is_none_or(|(to, _)| *to != leader) {
            line = quorum.line_to(leader).map(|line| (leader, line));
        }
        let Some((_, to_leader)) = &mut line else {
            sleep(LOOK_EVERY).await;
            continue;
        };
        match to_leader.call(&Request::Progress, ANSWER_MAX).await {
            Ok(_) => {
                refused_since = None;
                quorum.local.set_deserted(None);
                quorum.local.was_answered_by(leader);
                tokio::select! {
                    () = to_leader.closed() => {}
                    () = sleep(ASK_EVERY) => {}
                }
            }
            Err(error) if error.says_it_ended() => {
                quorum.local.set_deserted(Some(vote));
                stand(quorum, leader, vote).await;
                let since = *refused_since.get_or_insert_with(machine::now);
                let is_late = machine::since(since) > AGREED_WITHIN;
                sleep(if is_late { ASK_EVERY } else { LOOK_EVERY }).await;
            }
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// Stands for election in the place of a leader that has ended, if that is for this member to do.
async fn stand(quorum: &Quorum, leader: NodeId, vote: Vote) {
    let own = quorum.identity().node;
    let membership = quorum.membership();
    let voters: Vec<NodeId> = membership.voter_ids().collect();
    if !voters.contains(&own) {
        return;
    }
    let others = voters.iter().filter(|voter| **voter != own && **voter != leader);
    let agreed = join_all(others.map(|voter| agrees(quorum, *voter, vote))).await;
    let agreed: Vec<(NodeId, Option<u64>)> = agreed.into_iter().flatten().collect();
    if !is_heir((own, quorum.last_index()), &agreed, voters.len()) {
        return;
    }
    tracing::info!(%leader, "the active coordinator's process has ended; this member stands for election");
    let request = TransferLeaderRequest::new(vote, own, None);
    match quorum.raft.handle_transfer_leader(request).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "this member does not stand for election"),
        Err(error) => tracing::debug!(%error, "this member cannot stand for election"),
    }
}

/// How long the log of another voter is, if it too has found that the leader with this vote has ended.
async fn agrees(quorum: &Quorum, voter: NodeId, vote: Vote) -> Option<(NodeId, Option<u64>)> {
    let mut line = quorum.line_to(voter)?;
    match line.call(&Request::Progress, ANSWER_MAX).await {
        Ok(Response::Progress(Progress { last, deserted, .. })) if deserted == Some(vote) => Some((voter, last)),
        _ => None,
    }
}

/// Whether this voter has the longest log among a majority of all voters. Of several such logs that of the lowest number counts.
fn is_heir(own: (NodeId, Option<u64>), others: &[(NodeId, Option<u64>)], voters: usize) -> bool {
    let rank = |(node, last): (NodeId, Option<u64>)| (last, Reverse(node));
    let is_majority = (others.len() + 1) * 2 > voters;
    is_majority && others.iter().all(|other| rank(*other) < rank(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(number: u64, last: u64) -> (NodeId, Option<u64>) {
        (NodeId::from(number), Some(last))
    }

    #[test]
    fn the_longest_log_of_a_majority_inherits_and_of_equals_the_lowest_number() {
        assert!(is_heir(voter(2, 7), &[voter(3, 7)], 3));
        assert!(!is_heir(voter(3, 7), &[voter(2, 7)], 3));
        assert!(is_heir(voter(3, 8), &[voter(2, 7)], 3));
        assert!(!is_heir(voter(2, 7), &[voter(3, 8)], 3));
        assert!(!is_heir(voter(2, 7), &[], 3), "one of three may be wrong");
        assert!(!is_heir(voter(2, 7), &[voter(3, 7)], 5), "so may two of five");
        assert!(is_heir(voter(2, 7), &[voter(3, 7), voter(4, 6)], 5));
        assert!(!is_heir(voter(2, 7), &[], 2), "nobody could elect it");
    }
}
