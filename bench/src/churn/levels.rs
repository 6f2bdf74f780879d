//! What a broker holds, round after round, and whether it grows.

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::report::table;
use crate::stages::Scrape;

/// Something that a broker holds.
#[derive(Debug, Clone, Copy)]
struct Quantity {
    /// For people.
    name: &'static str,
    metric: &'static str,
    /// By how much it may be higher later on: what caches, allocators and tasks that end on their own account for. A twentieth is
    /// allowed in any case.
    allowed: f64,
    /// The metric that says what a cache may take: up to that it may grow.
    budget: Option<&'static str>,
    is_bytes: bool,
}

const fn count(name: &'static str, metric: &'static str, allowed: f64) -> Quantity {
    Quantity {
        name,
        metric,
        allowed,
        budget: None,
        is_bytes: false,
    }
}

const fn bytes(name: &'static str, metric: &'static str, allowed_mib: u32) -> Quantity {
    Quantity {
        budget: None,
        name,
        metric,
        allowed: allowed_mib as f64 * (1 << 20) as f64,
        is_bytes: true,
    }
}

/// Its clients' connections; gone before a round is looked at.
const CONNECTIONS: &str = "headwater_connections";

const QUANTITIES: [Quantity; 13] = [
    bytes("resident memory", "process_resident_memory_bytes", 16),
    Quantity {
        budget: Some("headwater_tail_buffer_bytes_max"),
        ..bytes("tail buffers", "headwater_tail_buffer_bytes", 8)
    },
    bytes("cold reads", "headwater_cold_read_bytes", 4),
    bytes("unanswered requests", "headwater_in_flight_bytes", 0),
    bytes("read buffers", "headwater_read_buffer_bytes", 0),
    count("descriptors", "process_open_fds", 16.0),
    count("segment files", "headwater_open_files", 8.0),
    count("threads", "process_threads", 4.0),
    count("connections", CONNECTIONS, 0.0),
    count("tasks", "headwater_tasks", 8.0),
    count("partitions", "headwater_partitions", 0.0),
    count("unsealed segments", "headwater_unsealed_segments", 4.0),
    count("group members", "headwater_group_members", 8.0),
];

/// The share by which each may be higher later on.
const NOISE: f64 = 0.05;

/// What was seen so far.
#[derive(Debug)]
pub struct Levels {
    start: Scrape,
    seen: Vec<[Option<f64>; QUANTITIES.len()]>,
}

/// One quantity over all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Level {
    name: &'static str,
    metric: &'static str,
    /// Before the first guest.
    start: f64,
    /// The median of the second quarter of the rounds.
    early: f64,
    /// The median of the last quarter.
    late: f64,
    highest: f64,
    allowed: f64,
    /// Whether it does not grow; `None` if there were too few rounds.
    pub is_flat: Option<bool>,
    #[serde(skip)]
    is_bytes: bool,
    rounds: Vec<f64>,
}

impl Levels {
    /// Begins with what is there before the first guest.
    pub fn new(start: Scrape) -> Self {
        Self {
            start,
            seen: Vec::new(),
        }
    }

    /// Whether the guests' connections are gone.
    pub fn is_settled(&self, seen: &Scrape) -> bool {
        seen.level(CONNECTIONS) <= self.start.level(CONNECTIONS)
    }

    /// After one more round.
    pub fn add(&mut self, seen: &Scrape) {
        self.seen.push(QUANTITIES.map(|quantity| seen.level(quantity.metric)));
    }

    pub fn rounds(&self) -> usize {
        self.seen.len()
    }

    /// Of every quantity that the broker tells of.
    pub fn judge(&self, rounds_min: usize) -> Vec<Level> {
        let each = QUANTITIES.iter().enumerate().filter_map(|(index, quantity)| {
            let rounds: Option<Vec<f64>> = self.seen.iter().map(|seen| seen[index]).collect();
            let start = self.start.level(quantity.metric)?;
            let budget = quantity.budget.and_then(|metric| self.start.level(metric));
            Some(quantity.judge(start, rounds.filter(|rounds| !rounds.is_empty())?, budget, rounds_min))
        });
        each.collect()
    }
}

impl Quantity {
    fn judge(&self, start: f64, rounds: Vec<f64>, budget: Option<f64>, rounds_min: usize) -> Level {
        let count = rounds.len();
        let early = median(&rounds[count / 4..(count / 2).max(count / 4 + 1).min(count)]);
        let late = median(&rounds[(count * 3 / 4).min(count - 1)..]);
        let room = budget.map_or(0.0, |budget| budget - early);
        let allowed = self.allowed.max(early * NOISE).max(room);
        Level {
            name: self.name,
            metric: self.metric,
            start,
            early,
            late,
            highest: rounds.iter().copied().fold(start, f64::max),
            allowed,
            is_flat: (count >= rounds_min).then_some(late <= early + allowed),
            is_bytes: self.is_bytes,
            rounds,
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A line for each.
pub fn table(levels: &[Level]) -> Table {
    let mut table = table::new(["", "start", "early", "late", "highest", "allowed", ""]);
    for level in levels {
        let show = |value: f64| {
            if level.is_bytes {
                format!("{:.1} MiB", value / f64::from(1 << 20))
            } else {
                format!("{value:.0}")
            }
        };
        table.add_row([
            level.name.to_owned(),
            show(level.start),
            show(level.early),
            show(level.late),
            show(level.highest),
            format!("+{}", show(level.allowed)),
            match level.is_flat {
                Some(true) => "flat",
                Some(false) => "GROWS",
                None => "?",
            }
            .to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on resident memory, in MiB.
    fn verdict(rounds: impl IntoIterator<Item = f64>) -> Option<bool> {
        let mut levels = Levels::new(scrape(100.0));
        for mib in rounds {
            levels.add(&scrape(mib));
        }
        levels.judge(8)[0].is_flat
    }

    fn scrape(mib: f64) -> Scrape {
        let bytes = mib * f64::from(1 << 20);
        Scrape::parse(&format!(
            "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {bytes}\n"
        ))
        .unwrap()
    }

    #[test]
    fn what_grows_with_each_round_is_told_from_what_fills_once_and_from_noise() {
        let noise = |round: u32| f64::from(round * 7919 % 13) - 6.0;
        assert_eq!(verdict((0..100).map(|round| 100.0 + f64::from(round))), Some(false));
        assert_eq!(
            verdict((0..100).map(|round| 100.0 + f64::from(round.min(20)) * 10.0)),
            Some(true)
        );
        assert_eq!(verdict((0..100).map(|round| 300.0 + noise(round))), Some(true));
        assert_eq!(
            verdict((0..100).map(|round| 300.0 + noise(round) + 0.4 * f64::from(round))),
            Some(false)
        );
        assert_eq!(verdict((0..7).map(f64::from)), None);
    }

    #[test]
    fn a_cache_may_grow_up_to_its_budget() {
        let tail = |mib: u32| {
            let bytes = u64::from(mib) << 20;
            Scrape::parse(&format!(
                "headwater_tail_buffer_bytes{{core=\"0\"}} {bytes}\nheadwater_tail_buffer_bytes_max{{core=\"0\"}} 104857600\n"
            ))
            .unwrap()
        };
        let verdict = |rounds: std::ops::Range<u32>| {
            let mut levels = Levels::new(tail(0));
            rounds.for_each(|mib| levels.add(&tail(mib)));
            levels.judge(8)[0].is_flat
        };
        assert_eq!(verdict(0..100), Some(true));
        assert_eq!(verdict(0..140), Some(false));
    }

    #[test]
    fn a_round_is_over_when_no_more_connections_are_open_than_at_the_start() {
        let connections = |count: u32| {
            Scrape::parse(&format!(
                "# TYPE {CONNECTIONS} gauge\n{CONNECTIONS}{{core=\"0\"}} {count}\n{CONNECTIONS}{{core=\"1\"}} 1\n"
            ))
            .unwrap()
        };
        let levels = Levels::new(connections(1));
        assert!(levels.is_settled(&connections(1)));
        assert!(!levels.is_settled(&connections(2)));
    }
}
