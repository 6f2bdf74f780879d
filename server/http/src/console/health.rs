//! Is all well, and if not, what to do: pure, of what was looked at. What is worst comes first.

/// Less of a disk free than this, in percent: soon no records are taken.
const DISK_LOW_PERCENT: u64 = 10;
/// So little that it is urgent.
const DISK_VERY_LOW_PERCENT: u64 = 5;
/// A certificate that ends within this is to be renewed.
const CERTIFICATE_SECONDS: i64 = 14 * 86_400;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Records are not taken, or may be lost if one more thing fails.
    Bad,
    /// Nothing is lost and nobody waits, but somebody should look.
    Warn,
    /// Good to know.
    Note,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) weight: Weight,
    pub(super) what: String,
    /// What to do now.
    pub(super) next: String,
}

/// What the judgement goes by; what could not be looked at is left as the default has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub(super) brokers: Vec<Broker>,
    pub(super) leaderless: usize,
    pub(super) under_min_isr: usize,
    pub(super) under_replicated: usize,
    pub(super) quorum: Option<Quorum>,
    /// Of the broker that serves this page.
    pub(super) here: Option<Here>,
    pub(super) figures: Option<Figures>,
}

/// A broker of the cluster.
#[derive(Debug, Clone, Default)]
pub(super) struct Broker {
    pub(super) id: i32,
    pub(super) is_fenced: bool,
    pub(super) is_cordoned: bool,
    pub(super) replicas: usize,
}

/// The coordinator quorum.
#[derive(Debug, Clone, Default)]
pub(super) struct Quorum {
    pub(super) has_active: bool,
    pub(super) voters: usize,
    /// Voters that do not answer.
    pub(super) silent: Vec<i32>,
}

/// What one broker says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Here {
    pub(super) cores: usize,
    pub(super) cores_up: usize,
    pub(super) offline: u64,
    /// Free bytes of the disk, and its size.
    pub(super) disk: Option<(u64, u64)>,
}

/// What only its metrics say.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    pub(super) journal_failed: bool,
    pub(super) compaction_halted: u64,
    pub(super) damage: u64,
    /// The port of each certificate, and in how many seconds it ends.
    pub(super) certificates: Vec<(String, i64)>,
}

/// What is not as it should be, worst first.
pub(super) fn findings(look: &Look) -> Vec<Finding> {
    let mut found = Vec::new();
    of_partitions(look, &mut found);
    of_brokers(look, &mut found);
    if let Some(quorum) = &look.quorum {
        of_quorum(quorum, &mut found);
    }
    if let Some(here) = &look.here {
        of_here(here, &mut found);
    }
    if let Some(figures) = &look.figures {
        of_figures(figures, &mut found);
    }
    found.sort_by_key(|finding| finding.weight);
    found
}

fn add(found: &mut Vec<Finding>, weight: Weight, what: impl Into<String>, next: impl Into<String>) {
    let (what, next) = (what.into(), next.into());
    found.push(Finding { weight, what, next });
}

fn of_partitions(look: &Look, found: &mut Vec<Finding>) {
    let Look {
        leaderless,
        under_min_isr,
        under_replicated,
        ..
    } = *look;
    if leaderless > 0 {
        add(
            found,
            Weight::Bad,
            format!(
                "{} no leader: nobody can write to or read from {}.",
                has(leaderless, "partition"),
                them(leaderless)
            ),
            "Start the brokers that are not there. Only if their disks are lost for good: headwater partition elect TOPIC PARTITION --unclean BROKER, which loses records.",
        );
    }
    if under_min_isr > leaderless {
        let count = under_min_isr - leaderless;
        add(
            found,
            Weight::Bad,
            format!(
                "{} too few replicas in sync: with acks=all no records are taken.",
                has(count, "partition")
            ),
            "Start the brokers that are not there, or see on the page of the topic which replicas are behind.",
        );
    }
    let rest = under_replicated.saturating_sub(under_min_isr.max(leaderless));
    if rest > 0 {
        let is_away = look
            .brokers
            .iter()
            .any(|broker| broker.is_fenced && broker.replicas > 0);
        let next = if is_away {
            "Start the broker that is not there: replicas catch up by themselves."
        } else {
            "Replicas catch up by themselves; if the number does not fall, see the log and the disk of the brokers that are behind."
        };
        add(
            found,
            Weight::Warn,
            format!(
                "{} not all replicas in sync. Nothing is lost, and records are taken.",
                has(rest, "partition")
            ),
            next,
        );
    }
}

fn of_brokers(look: &Look, found: &mut Vec<Finding>) {
    for broker in &look.brokers {
        let id = broker.id;
        if broker.is_fenced {
            add(
                found,
                Weight::Warn,
                format!("Broker {id} is not there, or not let in."),
                format!(
                    "Start it, and read its log if it does not stay. If it is gone for good: headwater partition move --from {id}, then headwater broker forget {id}."
                ),
            );
        } else if broker.is_cordoned {
            add(
                found,
                Weight::Note,
                format!("Broker {id} is cordoned: it gets no further replicas."),
                format!("headwater broker uncordon {id} has it get them again."),
            );
        }
    }
}

fn of_quorum(quorum: &Quorum, found: &mut Vec<Finding>) {
    if !quorum.has_active {
        add(
            found,
            Weight::Bad,
            "No coordinator is active: topics cannot be changed, and no other leaders chosen.",
            "One is elected as soon as more than half of the coordinators can reach each other: start them, and look at the network between them.",
        );
    }
    if quorum.silent.is_empty() {
        return;
    }
    let names: Vec<String> = quorum.silent.iter().map(i32::to_string).collect();
    let majority = quorum.voters / 2 + 1;
    let spare = (quorum.voters - quorum.silent.len().min(quorum.voters)).checked_sub(majority);
    let what = match spare {
        None => "There is no majority: the cluster cannot be changed.".to_owned(),
        Some(0) => "If one more goes, the cluster cannot be changed.".to_owned(),
        Some(more) => format!("{more} more may go."),
    };
    let weight = if spare.is_none() { Weight::Bad } else { Weight::Warn };
    let names = names.join(", ");
    add(
        found,
        weight,
        format!("Of {} coordinators these do not answer: {names}. {what}", quorum.voters),
        "Start them. One that is gone for good is replaced: see \"Several coordinators\" in docs/operate.md.",
    );
}

fn of_here(here: &Here, found: &mut Vec<Finding>) {
    if here.cores_up < here.cores {
        let silent = here.cores - here.cores_up;
        add(
            found,
            Weight::Bad,
            format!("Of the {} cores of this broker {silent} did not answer.", here.cores),
            "If that stays, its log says what holds it up; a restart has the others take over meanwhile.",
        );
    }
    if here.offline > 0 {
        add(
            found,
            Weight::Bad,
            format!(
                "{} offline on this broker: its disk or its files have failed.",
                are(here.offline)
            ),
            "Its log says why. It opens them again by itself once they can be read and written.",
        );
    }
    if let Some((free, size)) = here.disk.filter(|(_, size)| *size > 0) {
        let percent = u64::try_from(u128::from(free) * 100 / u128::from(size)).unwrap_or(100);
        let weight = match percent {
            ..DISK_VERY_LOW_PERCENT => Weight::Bad,
            DISK_VERY_LOW_PERCENT..DISK_LOW_PERCENT => Weight::Warn,
            _ => return,
        };
        add(
            found,
            weight,
            format!("{percent} % of this broker's disk are free. When it is full no records are taken."),
            "Keep less (retention.ms, retention.bytes of the largest topics), add room, or move partitions to other brokers.",
        );
    }
}

fn of_figures(figures: &Figures, found: &mut Vec<Finding>) {
    if figures.journal_failed {
        add(
            found,
            Weight::Warn,
            "A write of this broker's journal has failed: small appends are slower.",
            "Look at its log and its disk, then restart it.",
        );
    }
    if figures.compaction_halted > 0 {
        add(
            found,
            Weight::Warn,
            format!(
                "{} compacted any more on this broker, as bytes did not read back.",
                are_not(figures.compaction_halted)
            ),
            "Its log names the places. A replica of its own disk is made anew by moving the partition away and back.",
        );
    }
    if figures.damage > 0 {
        add(
            found,
            Weight::Warn,
            format!(
                "Stored records were found damaged on this broker, {} times since it was started.",
                figures.damage
            ),
            "Its log names the places; check the disk.",
        );
    }
    for (port, seconds) in &figures.certificates {
        if *seconds < CERTIFICATE_SECONDS {
            let (weight, when) = match seconds {
                ..=0 => (Weight::Bad, "has ended".to_owned()),
                _ => (Weight::Warn, format!("ends in {} days", seconds / 86_400)),
            };
            add(
                found,
                weight,
                format!("The certificate of this broker's port for {port} {when}."),
                "Put another one in its place: the file is read again without a restart.",
            );
        }
    }
}

fn has(count: usize, what: &str) -> String {
    if count == 1 {
        format!("1 {what} has")
    } else {
        format!("{count} {what}s have")
    }
}

fn them(count: usize) -> &'static str {
    if count == 1 { "it" } else { "them" }
}

fn are(count: u64) -> String {
    if count == 1 {
        "1 partition is".to_owned()
    } else {
        format!("{count} partitions are")
    }
}

fn are_not(count: u64) -> String {
    format!("{} not", are(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(fenced: &[i32]) -> Vec<Broker> {
        let broker = |id| Broker {
            id,
            is_fenced: fenced.contains(&id),
            replicas: 4,
            ..Broker::default()
        };
        (0..3).map(broker).collect()
    }

    #[test]
    fn where_all_is_well_nothing_is_found() {
        let quorum = Quorum {
            has_active: true,
            voters: 3,
            silent: Vec::new(),
        };
        let here = Here {
            cores: 2,
            cores_up: 2,
            offline: 0,
            disk: Some((50, 100)),
        };
        let certificates = vec![("clients".to_owned(), 90 * 86_400)];
        let figures = Figures {
            certificates,
            ..Figures::default()
        };
        let look = Look {
            brokers: brokers(&[]),
            quorum: Some(quorum),
            here: Some(here),
            figures: Some(figures),
            ..Look::default()
        };
        assert_eq!(findings(&look), []);
    }

    #[test]
    fn one_of_three_brokers_down_is_a_warning_that_names_it_and_says_what_to_do() {
        let quorum = Quorum {
            has_active: true,
            voters: 3,
            silent: vec![2],
        };
        let look = Look {
            brokers: brokers(&[2]),
            under_replicated: 4,
            quorum: Some(quorum),
            ..Look::default()
        };
        let found = findings(&look);
        assert!(found.iter().all(|finding| finding.weight == Weight::Warn), "{found:?}");
        let text: Vec<&str> = found.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(text.len(), 3);
        assert!(
            text[0].starts_with("4 partitions have not all replicas in sync"),
            "{text:?}"
        );
        assert!(text[1].starts_with("Broker 2 is not there"), "{text:?}");
        assert!(text[2].contains("If one more goes"), "{text:?}");
    }

    #[test]
    fn what_takes_no_records_comes_first_and_is_counted_once() {
        let look = Look {
            brokers: brokers(&[1, 2]),
            leaderless: 1,
            under_min_isr: 5,
            under_replicated: 9,
            ..Look::default()
        };
        let found = findings(&look);
        assert!(found[0].what.starts_with("1 partition has no leader"));
        assert!(found[1].what.starts_with("4 partitions have too few replicas"));
        assert!(found[2].what.starts_with("4 partitions have not all"));
        assert_eq!(found[1].weight, Weight::Bad);
    }

    #[test]
    fn a_disk_that_fills_a_core_that_hangs_and_a_quorum_without_majority_are_bad() {
        let quorum = Quorum {
            has_active: false,
            voters: 3,
            silent: vec![1, 2],
        };
        let here = Here {
            cores: 2,
            cores_up: 1,
            offline: 1,
            disk: Some((4, 100)),
        };
        let figures = Figures {
            certificates: vec![("clients".to_owned(), -1)],
            ..Figures::default()
        };
        let look = Look {
            quorum: Some(quorum),
            here: Some(here),
            figures: Some(figures),
            ..Look::default()
        };
        let found = findings(&look);
        assert_eq!(found.len(), 6);
        assert!(found.iter().all(|finding| finding.weight == Weight::Bad), "{found:?}");
    }
}
