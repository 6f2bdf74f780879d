//! `cluster restart-order`: in which order brokers and coordinators are best restarted, one after the other.

use headwater_client::{BrokerId, ClusterListing, QuorumDescription};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::session::Session;

/// Somebody who is to be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    id: BrokerId,
    /// It is the active coordinator.
    is_active: bool,
    /// Partitions that it leads now.
    leads: usize,
}

/// Whoever is a broker or a member of the quorum: those that lead least first, and the active coordinator last. Its place would
/// otherwise go to one that is yet to be restarted, and be handed over again and again.
fn order(quorum: &QuorumDescription, cluster: &ClusterListing) -> Vec<Process> {
    let members = quorum.members.iter().map(|member| member.id);
    let mut ids: Vec<BrokerId> = members.chain(cluster.brokers.iter().map(|broker| broker.id)).collect();
    ids.sort_unstable_by_key(|id| id.get());
    ids.dedup();
    let leads = |id| {
        let broker = cluster.brokers.iter().find(|broker| broker.id == id);
        broker.map_or(0, |broker| broker.leads)
    };
    let processes = ids.into_iter().map(|id| Process {
        id,
        is_active: quorum.active == Some(id),
        leads: leads(id),
    });
    let mut processes: Vec<Process> = processes.collect();
    processes.sort_by_key(|process| (process.is_active, process.leads));
    processes
}

/// Prints it: a number on each line, for the loop of a shell.
pub async fn show(session: &Session) -> Result<(), Failure> {
    let quorum = super::quorum(session).await?;
    let cluster = crate::commands::broker::look(session).await?;
    let processes = order(&quorum, &cluster);
    let json = |process: &Process| {
        json!({
            "id": process.id.get(),
            "active": process.is_active,
            "leads": process.leads,
        })
    };
    session.screen.show(
        || processes.iter().map(json).collect::<Value>(),
        || {
            processes
                .iter()
                .flat_map(|process| [process.id.to_string(), "\n".to_owned()])
                .collect()
        },
    )
}
