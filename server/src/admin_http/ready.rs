//! Whether clients are served as they should be, and if not, why: what `/ready` answers. Pure.

use std::sync::Arc;

use serde::Serialize;

use crate::{image::Assignment, metrics::Gathered};

/// Looks how brokers and replicas are, as far as this broker knows.
pub(crate) type LookAtCluster = Arc<dyn Fn() -> Assignment + Send + Sync>;

/// How a broker stands in its cluster, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Standing {
    /// This process is the broker of its number.
    registered: bool,
    /// It leads nothing, and is in sync with nobody.
    fenced: bool,
    /// Replicas that it has, without those that come here or go.
    replicas: usize,
    /// Those of them that are not in sync.
    out_of_sync: usize,
}

impl Standing {
    pub(super) fn of(told: &Assignment) -> Standing {
        let own = told.own.broker;
        let stays = told.placements.iter().map(|(_, replicas)| replicas).filter(|replicas| {
            let comes = replicas.adding.contains(&own);
            !comes && replicas.target().any(|broker| broker == own)
        });
        let (mut replicas, mut in_sync) = (0, 0);
        for placed in stays {
            replicas += 1;
            in_sync += usize::from(placed.is_in_sync(own));
        }
        Standing {
            registered: told.is_of_this_process(),
            fenced: told.brokers.get(&own).is_none_or(|broker| broker.is_fenced),
            replicas,
            out_of_sync: replicas - in_sync,
        }
    }
}

/// An answer, which says why it is no if it is.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    /// Yes or no.
    pub(super) ok: bool,
    /// A sentence for each reason why not.
    reasons: Vec<String>,
    cores_silent: Vec<u16>,
    partitions_offline: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Standing>,
}

impl Verdict {
    fn new(gathered: &Gathered, cluster: Option<Standing>, reasons: Vec<String>) -> Verdict {
        Verdict {
            ok: reasons.is_empty(),
            reasons,
            cores_silent: gathered.silent(),
            partitions_offline: gathered.partitions_offline(),
            cluster,
        }
    }

    /// Whether the process works. Whoever watches over it starts it again otherwise.
    pub(super) fn of_health(gathered: &Gathered) -> Verdict {
        Verdict::new(gathered, None, silence(gathered))
    }

    /// Whether clients are served, and nothing is missed if another broker is stopped as far as this one has a part in it.
    pub(super) fn of_readiness(gathered: &Gathered, cluster: Option<Standing>) -> Verdict {
        let mut reasons = silence(gathered);
        let offline = gathered.partitions_offline();
        if offline > 0 {
            reasons.push(format!("partitions that are offline: {offline}; the log says why"));
        }
        if !gathered.quorum.hears_active {
            reasons.push("no active coordinator is heard of: what is known here of the cluster may be old".to_owned());
        }
        if let Some(standing) = cluster {
            let Standing {
                registered,
                fenced,
                replicas,
                out_of_sync,
            } = standing;
            if !registered {
                reasons.push("another process is the broker of this number, or none yet".to_owned());
            } else if fenced {
                reasons.push("the broker is fenced: it leads nothing, and is in sync with nobody".to_owned());
            }
            if out_of_sync > 0 {
                reasons.push(format!("replicas that are not in sync: {out_of_sync} of {replicas}"));
            }
        }
        Verdict::new(gathered, cluster, reasons)
    }
}

fn silence(gathered: &Gathered) -> Vec<String> {
    let silent = gathered.silent();
    if silent.is_empty() {
        return Vec::new();
    }
    let silent: Vec<String> = silent.iter().map(ToString::to_string).collect();
    vec![format!("cores that do not answer: {}", silent.join(", "))]
}

#[cfg(test)]
mod tests {
    use headwater_protocol::id::{BrokerId, CoreId};
    use uuid::Uuid;

    use super::*;
    use crate::{
        image::{Address, Broker, Durability, Incarnation, Member, PartitionId, Placed, Placements, Replicas, Terms},
        metrics::CoreSnapshot,
    };

    const TERMS: Terms = Terms {
        min_isr: 1,
        durability: Durability::Disk,
    };

    fn gathered() -> Gathered {
        let mut gathered = Gathered::of(vec![(CoreId::new(0), Some(CoreSnapshot::default()))], 0);
        gathered.quorum.hears_active = true;
        gathered
    }

    /// Broker 1 is told of these partitions.
    fn told(partitions: Vec<Replicas>) -> Assignment {
        let (broker, incarnation) = (BrokerId::new(1), Incarnation::new(5));
        let registered = Broker {
            id: broker,
            process: Uuid::nil(),
            incarnation,
            store: Uuid::nil(),
            address: Address {
                host: "localhost".to_owned(),
                port: 1,
                core_ports: vec![2],
            },
            rack: None,
            is_fenced: false,
            is_cordoned: false,
            kafka: None,
        };
        let placed = Placed {
            terms: TERMS,
            partitions: partitions.into_iter().map(Arc::new).collect(),
        };
        Assignment {
            own: Member { broker, incarnation },
            brokers: [(broker, Arc::new(registered))].into(),
            placements: [(PartitionId::of_test(0).topic, placed)].into_iter().collect(),
        }
    }

    fn replicas(of: &[i32], in_sync: &[i32]) -> Replicas {
        let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId::new).collect();
        Replicas::new(ids(of), ids(in_sync), TERMS)
    }

    fn reasons(gathered: &Gathered, told: &Assignment) -> Vec<String> {
        let verdict = Verdict::of_readiness(gathered, Some(Standing::of(told)));
        assert_eq!(verdict.ok, verdict.reasons.is_empty());
        verdict.reasons
    }

    #[test]
    fn a_broker_is_ready_when_all_that_it_keeps_is_in_sync_and_says_how_much_is_not() {
        // What another broker lacks is not this one's, and it may have no part in a partition at all.
        let well = told(vec![replicas(&[1, 2], &[1]), replicas(&[2, 3], &[2])]);
        assert_eq!(reasons(&gathered(), &well), [""; 0]);
        let mut behind = told(vec![replicas(&[1, 2], &[2]), replicas(&[2, 1], &[2, 1])]);
        assert_eq!(reasons(&gathered(), &behind), ["replicas that are not in sync: 1 of 2"]);
        // A move takes hours: the cluster is as safe as before meanwhile.
        let id = PartitionId::of_test(0);
        for is_coming in [true, false] {
            let mut placed = replicas(&[1, 2], &[2]);
            let list = if is_coming {
                &mut placed.adding
            } else {
                &mut placed.removing
            };
            list.push(BrokerId::new(1));
            behind.placements.replace(id, placed);
            assert_eq!(reasons(&gathered(), &behind), [""; 0]);
        }
    }

    #[test]
    fn one_that_is_fenced_replaced_or_hears_of_no_coordinator_is_not_ready() {
        let mut fenced = told(Vec::new());
        Arc::make_mut(fenced.brokers.get_mut(&BrokerId::new(1)).unwrap()).is_fenced = true;
        assert!(reasons(&gathered(), &fenced)[0].starts_with("the broker is fenced"));
        let mut replaced = told(Vec::new());
        replaced.own.incarnation = Incarnation::new(4);
        assert!(reasons(&gathered(), &replaced)[0].starts_with("another process"));
        let unknown = Assignment {
            placements: Placements::default(),
            brokers: [].into(),
            ..told(Vec::new())
        };
        assert!(reasons(&gathered(), &unknown)[0].starts_with("another process"));
        let mut cut_off = gathered();
        cut_off.quorum.hears_active = false;
        let said = reasons(&cut_off, &told(Vec::new()));
        assert!(
            said.len() == 1 && said[0].starts_with("no active coordinator"),
            "{said:?}"
        );
        assert!(!Verdict::of_readiness(&cut_off, None).ok, "nor one that is alone");
        assert!(Verdict::of_health(&cut_off).ok, "to start it again would not help");
    }

    #[test]
    fn a_core_that_does_not_answer_is_named() {
        let mut gathered = gathered();
        gathered.cores.push((CoreId::new(1), None));
        let said = serde_json::to_string(&Verdict::of_health(&gathered)).unwrap();
        let expected =
            r#"{"ok":false,"reasons":["cores that do not answer: 1"],"cores_silent":[1],"partitions_offline":0}"#;
        assert_eq!(said, expected);
    }
}
