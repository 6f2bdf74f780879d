//! Every probe of a real Kafka 4.4.0 once: whether we answer the same, deliberately something else, or not at all, and tests of it.
//!
//! Rows are data where they can be: what is asked, what Kafka answered, and, if it is another, what we answer. A probe that is not in the
//! list, or stands there with rows that say otherwise, fails.

mod configs;
mod framing;
mod groups;
mod list;
mod made;
mod produce;
mod reads;
mod security;
mod topics;

use std::{collections::BTreeMap, fmt::Debug};

use self::list::{PROBES, SECTIONS, Shown, Stands};
use super::wire::Wire;
use crate::support::{Site, run};

/// What was looked at.
#[derive(Default)]
pub struct Look {
    /// Rows of each probe: the same, and others.
    rows: BTreeMap<&'static str, [usize; 2]>,
    wrong: Vec<String>,
}

impl Look {
    /// Kafka's answer is ours.
    pub fn same<T: PartialEq + Debug>(&mut self, probe: &'static str, what: &str, seen: T, kafkas: T) {
        self.rows.entry(probe).or_default()[0] += 1;
        if seen != kafkas {
            self.wrong
                .push(format!("{probe}, {what}: {seen:?}, where Kafka says {kafkas:?}"));
        }
    }

    /// Ours is another.
    pub fn other<T: PartialEq + Debug>(&mut self, probe: &'static str, what: &str, seen: T, (kafkas, ours): (T, T)) {
        self.rows.entry(probe).or_default()[1] += 1;
        assert_ne!(kafkas, ours, "{probe}, {what}: no other");
        if seen != ours {
            self.wrong.push(format!(
                "{probe}, {what}: {seen:?}, not {ours:?}; Kafka says {kafkas:?}"
            ));
        }
    }
}

/// The tests beside the table, to find those that a probe is shown by.
const TESTS: &[(&str, &str)] = &[
    ("cluster", include_str!("../cluster.rs")),
    ("consumers", include_str!("../groups/consumers.rs")),
    ("framing", include_str!("../framing.rs")),
    ("groups", include_str!("../groups/mod.rs")),
    ("operators", include_str!("../operators.rs")),
    ("records", include_str!("../records/mod.rs")),
    ("sessions", include_str!("../records/sessions.rs")),
    ("topics", include_str!("../topics.rs")),
    ("transactions", include_str!("../transactions.rs")),
    ("versions", include_str!("../versions.rs")),
];

const DIFFERENCES: &str = include_str!("../../../../../docs/kafka.md");

#[test]
fn every_probe_of_kafka_is_answered_the_same_or_listed_with_what_is_other() {
    let look = run(async {
        let site = Site::new().cores(1).set("groups.initial_rebalance_delay_ms", "0");
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        let mut look = Look::default();
        framing::look(&mut wire, &mut look).await;
        produce::look(&mut wire, &mut look).await;
        configs::look(&mut wire, &mut look).await;
        reads::look(&mut wire, &mut look).await;
        topics::look(&mut wire, &mut look).await;
        groups::look(&mut wire, &mut look).await;
        security::look(&mut wire, &mut look).await;
        broker.stop();
        look
    });
    let Look { rows, mut wrong } = look;
    let mut counts = [0; 4];
    for probe in PROBES {
        let [same, others] = rows.get(probe.number).copied().unwrap_or_default();
        let number = probe.number;
        match probe.stands {
            Stands::Same => counts[0] += 1,
            Stands::Other { why, told } => {
                counts[1] += 1;
                if why.is_empty() || !DIFFERENCES.contains(told) {
                    wrong.push(format!("{number}: docs/kafka.md says nothing of {told:?}"));
                }
            }
            Stands::NotBuilt => counts[2] += 1,
            Stands::Apart => counts[3] += 1,
        }
        let stands = match (probe.stands, same, others) {
            (Stands::NotBuilt | Stands::Apart, 0, 0) => true,
            (Stands::NotBuilt | Stands::Apart, ..) => false,
            (Stands::Same, _, others) => others == 0,
            (Stands::Other { .. }, _, others) => others > 0 || !matches!(probe.shown, Shown::Rows),
        };
        if !stands {
            wrong.push(format!(
                "{number} does not stand as its rows do: {same} the same, {others} other"
            ));
        }
        match probe.shown {
            Shown::Rows if same + others == 0 => wrong.push(format!("{number} has no rows")),
            Shown::Test(file, name) => {
                let text = TESTS.iter().find(|(known, _)| *known == file).map(|(_, text)| *text);
                if !text.is_some_and(|text| text.contains(&format!("fn {name}("))) {
                    wrong.push(format!("{number}: there is no test {file}::{name}"));
                }
            }
            _ => {}
        }
    }
    let rows_of = |place: usize| rows.values().map(|rows| rows[place]).sum::<usize>();
    println!(
        "{} probes of Kafka 4.4.0: {} the same, {} deliberately other, {} not built, {} of clusters; rows here: {} the same, {} other",
        PROBES.len(),
        counts[0],
        counts[1],
        counts[2],
        counts[3],
        rows_of(0),
        rows_of(1)
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_probe_is_in_the_list_once() {
    let numbers: Vec<String> = SECTIONS
        .iter()
        .flat_map(|(section, count)| (1..=*count).map(move |number| format!("{section}{number}")))
        .collect();
    let listed: Vec<&str> = PROBES.iter().map(|probe| probe.number).collect();
    assert_eq!(listed, numbers);
}
