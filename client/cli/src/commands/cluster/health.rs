//! Whether a cluster is well, and if not, what to do: from what a broker knows of the quorum, the brokers and their partitions.

use headwater_client::{
    BrokerId, BrokerListing, ClusterListing, PartitionDescription, QuorumDescription, TopicDescription,
};

use crate::values::count;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: String,
    /// What to do about it.
    pub todo: String,
    /// It is how the cluster was made, and stays so until somebody adds members.
    pub is_lasting: bool,
}

/// A partition that lacks something.
#[derive(Debug, Clone)]
pub struct Unwell<'a> {
    pub topic: &'a str,
    pub partition: &'a PartitionDescription,
}

/// What a partition lacks, the worst of it; nothing if it is well.
pub fn lacks(partition: &PartitionDescription) -> Option<&'static str> {
    let replicas = &partition.replicas;
    if partition.leader.get() < 0 {
        Some("offline")
    } else if replicas.isr.len() < usize::from(replicas.min_isr) {
        Some("under min ISR")
    } else if replicas.isr.len() < replicas.replicas.len() {
        Some("under-replicated")
    } else {
        None
    }
}

/// Those of these topics' partitions that lack something.
pub fn unwell(topics: &[TopicDescription]) -> Vec<Unwell<'_>> {
    let all = topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| Unwell {
            topic: topic.name.as_str(),
            partition,
        })
    });
    all.filter(|unwell| lacks(unwell.partition).is_some()).collect()
}

/// Numbers as a list for people.
pub fn numbers(ids: &[BrokerId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.join(",")
}

/// What is not as it should be, the worst first.
pub fn findings(quorum: &QuorumDescription, cluster: &ClusterListing, unwell: &[Unwell<'_>]) -> Vec<Finding> {
    let offline = of_partitions(unwell, "offline");
    let stopped = of_partitions(unwell, "under min ISR");
    let mut findings = Vec::new();
    let mut find = |what: String, todo: String| {
        findings.push(Finding {
            what,
            todo,
            is_lasting: false,
        });
    };
    if quorum.active.is_none() {
        find(
            "no coordinator is active: nothing can be changed, and no other replica can become leader".to_owned(),
            "start members of the quorum until a majority of them answers".to_owned(),
        );
    }
    if cluster.leaderless > 0 {
        find(
            format!("{} nobody leads: they are not served", those(cluster.leaderless)),
            format!(
                "start {}, which may lead them; if their disks are lost for good, `headwater topic describe` shows what is left",
                whom(&offline, |partition| [
                    &partition.replicas.isr[..],
                    &partition.replicas.elr[..]
                ]
                .concat())
            ),
        );
    }
    let acknowledge_nothing = cluster.under_min_isr.saturating_sub(cluster.leaderless);
    if acknowledge_nothing > 0 {
        find(
            format!(
                "{} in sync on too few brokers: they take no records with acks=all",
                those(acknowledge_nothing)
            ),
            format!("start {}, which lack from them", whom(&stopped, missing)),
        );
    }
    for broker in cluster.brokers.iter().filter(|broker| broker.is_fenced) {
        find(
            fenced(broker),
            format!("start broker {}, or see what it logs if it runs", broker.id),
        );
    }
    for member in &quorum.members {
        if let Err(why) = &member.committed {
            find(
                format!("member {} of the quorum does not answer: {why}", member.id),
                format!("start it, or see whether {} can be reached", member.address),
            );
        }
    }
    let failed = failed_logs(unwell);
    let mut behind = of_partitions(unwell, "under-replicated");
    behind.retain(|partition| !has_failed(partition));
    // Those that have failed are told of once.
    let are_behind = cluster.under_replicated > cluster.under_min_isr && (failed.is_none() || !behind.is_empty());
    if let Some((what, todo)) = failed {
        find(what, todo);
    }
    if are_behind && !cluster.brokers.iter().any(|broker| broker.is_fenced) {
        find(
            format!(
                "{} not in sync on all their brokers",
                those(cluster.under_replicated - cluster.under_min_isr)
            ),
            format!(
                "wait: {} catches up, as `headwater cluster status` shows; if it does not, see what it logs",
                whom(&behind, missing)
            ),
        );
    }
    let voters = quorum.members.iter().filter(|member| member.is_voter).count();
    if voters == 2 || (voters == 1 && cluster.brokers.len() > 1) {
        findings.push(Finding {
            what: format!(
                "the quorum has {}: if one is gone, nothing can be changed",
                count(voters as u64, "voter")
            ),
            todo: "add members until there are three: `headwater cluster add --help`".to_owned(),
            is_lasting: true,
        });
    }
    findings
}

/// Whether a broker has the partition and cannot open or write its log.
fn has_failed(partition: &PartitionDescription) -> bool {
    !partition.replicas.offline.is_empty()
}

/// What has become of logs that cannot be opened or written, and what to do.
fn failed_logs(unwell: &[Unwell<'_>]) -> Option<(String, String)> {
    let partitions = unwell.iter().map(|unwell| unwell.partition);
    let failed: Vec<&PartitionDescription> = partitions.filter(|partition| has_failed(partition)).collect();
    if failed.is_empty() {
        return None;
    }
    let on = whom(&failed, |partition| partition.replicas.offline.clone());
    let what = format!(
        "{} of {} cannot be written: a disk is full, or broken",
        count(failed.len() as u64, "log"),
        on
    );
    let todo = format!("see what {on} logs, and make room; logs are opened again by themselves, within a minute or so");
    Some((what, todo))
}

fn those(partitions: usize) -> String {
    let is = if partitions == 1 { "is" } else { "are" };
    format!("{} {is}", count(partitions as u64, "partition"))
}

fn fenced(broker: &BrokerListing) -> String {
    let replicas = count(broker.replicas as u64, "replica");
    format!("broker {} is not there: its {replicas} are not in sync", broker.id)
}

fn of_partitions<'a>(unwell: &'a [Unwell<'a>], lack: &str) -> Vec<&'a PartitionDescription> {
    let those = unwell.iter().map(|unwell| unwell.partition);
    those.filter(|partition| lacks(partition) == Some(lack)).collect()
}

fn missing(partition: &PartitionDescription) -> Vec<BrokerId> {
    let replicas = &partition.replicas;
    let out = replicas.replicas.iter().filter(|id| !replicas.isr.contains(id));
    out.copied().collect()
}

/// The brokers that these partitions wait for.
fn whom(partitions: &[&PartitionDescription], of: impl Fn(&PartitionDescription) -> Vec<BrokerId>) -> String {
    let mut ids: Vec<BrokerId> = partitions.iter().flat_map(|partition| of(partition)).collect();
    ids.sort_unstable_by_key(|id| id.get());
    ids.dedup();
    match ids.len() {
        0 => "the brokers that have them".to_owned(),
        1 => format!("broker {}", numbers(&ids)),
        _ => format!("brokers {}", numbers(&ids)),
    }
}
