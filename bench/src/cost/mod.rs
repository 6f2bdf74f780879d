//! What a run costs: CPU seconds and system calls per GB, of the bench and of the broker apart.
//!
//! A benchmark that needs more than the broker measures itself. So its own threads are watched too, and whoever reads
//! the report is told when one of them was the limit. What cannot be found out (another machine, no permission) is
//! absent, with the reason.

mod machine;
mod syscalls;
mod threads;
mod usage;

use serde::Serialize;

use syscalls::SyscallCounters;
use threads::Side;
pub use usage::{Busiest, SATURATED, Usage, UsageWatch};

/// What it cost.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Of values, the warm-up included.
    pub bytes: u64,
    /// From the first to the last record.
    pub seconds: f64,
    /// Of the load generator with its clients.
    pub bench: SideCost,
    /// Of the broker; `None` if it runs elsewhere.
    pub broker: Option<SideCost>,
    /// What was at its limit, in words.
    pub saturated: Vec<String>,
    /// Whether one of them was the bench.
    pub bench_is_bottleneck: bool,
    /// What is missing, and why.
    pub notes: Vec<String>,
}

/// Of one side.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SideCost {
    /// On a CPU, in user space and in the kernel.
    pub cpu_seconds: f64,
    /// For 10^9 bytes of values.
    pub cpu_seconds_per_gb: f64,
    /// `None` if they cannot be counted.
    pub system_calls: Option<u64>,
    /// Likewise.
    pub system_calls_per_gb: Option<f64>,
    /// The share of the time that its busiest thread was on a CPU.
    pub busiest_thread: f64,
}

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerPlace {
    /// In this process.
    Here,
    /// In other processes of this machine.
    Processes(Vec<u32>),
    /// Not to be looked at.
    Elsewhere,
}

impl BrokerPlace {
    /// Of running brokers, by the processes that listen at the addresses, if all of them are on this machine.
    pub fn of(addresses: &str) -> Self {
        let processes: Option<Vec<u32>> = addresses.split(',').map(threads::listener).collect();
        processes.map_or(Self::Elsewhere, |mut processes| {
            processes.sort_unstable();
            processes.dedup();
            Self::Processes(processes)
        })
    }
}

/// Watches from its start on.
#[derive(Debug)]
pub struct Watch {
    place: BrokerPlace,
    usage: UsageWatch,
    syscalls: Result<SyscallCounters, String>,
}

impl Watch {
    /// Begins.
    pub fn start(place: BrokerPlace) -> Self {
        let usage = UsageWatch::start(place.clone());
        let syscalls = SyscallCounters::open(&usage.threads);
        Self { place, usage, syscalls }
    }

    /// Ends, when so many bytes have gone through.
    pub fn finish(self, bytes: u64) -> (Cost, Usage) {
        let (usage, used) = self.usage.end();
        let seconds = usage.seconds;
        let mut notes = Vec::new();
        let counted = match self.syscalls.map(SyscallCounters::read) {
            Ok(counted) => Some(counted),
            Err(reason) => {
                notes.push(reason);
                None
            }
        };
        let side = |side: Side| {
            let gigabytes = bytes as f64 / 1e9;
            let per_gb = |figure: f64| if bytes == 0 { 0.0 } else { figure / gigabytes };
            let cpu_seconds = used
                .iter()
                .filter(|used| used.side == side)
                .map(|used| used.seconds)
                .sum();
            let busiest = used.iter().filter(|used| used.side == side).map(|used| used.seconds);
            let system_calls = counted.as_ref().map(|counted| counted.of(side));
            SideCost {
                cpu_seconds,
                cpu_seconds_per_gb: per_gb(cpu_seconds),
                system_calls,
                system_calls_per_gb: system_calls.map(|count| per_gb(count as f64)),
                busiest_thread: busiest.fold(0.0, f64::max) / seconds.max(1e-9),
            }
        };
        let busy = |used: &&threads::Used| used.seconds / seconds.max(1e-9) >= SATURATED;
        let words = |used: &threads::Used| {
            let share = (100.0 * used.seconds / seconds.max(1e-9)).round();
            format!("{} thread {} ({share:.0}% of a CPU)", used.side.name(), used.name)
        };
        let saturated: Vec<_> = used.iter().filter(busy).map(words).collect();
        let bench_is_bottleneck = used.iter().filter(busy).any(|used| used.side == Side::Bench);
        if self.place == BrokerPlace::Elsewhere {
            notes.push(
                "the broker's CPU time is not known: it is not a process of this machine that may be read".into(),
            );
        }
        let cost = Cost {
            bytes,
            seconds,
            bench: side(Side::Bench),
            broker: (self.place != BrokerPlace::Elsewhere).then(|| side(Side::Broker)),
            saturated,
            bench_is_bottleneck,
            notes,
        };
        (cost, usage)
    }
}

impl Cost {
    /// For the table: title and content of each line.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let side = |cost: &SideCost| {
            let calls = cost.system_calls_per_gb;
            let calls = calls.map_or_else(String::new, |calls| format!(", {calls:.0} system calls/GB"));
            let (cpu, busiest) = (cost.cpu_seconds_per_gb, 100.0 * cost.busiest_thread);
            format!("{cpu:.2} CPU s/GB{calls}, busiest thread {busiest:.0}%")
        };
        let mut lines = vec![("bench", side(&self.bench))];
        if let Some(broker) = &self.broker {
            lines.push(("broker", side(broker)));
        }
        if self.bench_is_bottleneck {
            let what = self.saturated.join(", ");
            let text = format!("THE BENCH ITSELF IS THE LIMIT HERE: {what}; the broker may be faster than this");
            lines.push(("limited", text));
        } else if !self.saturated.is_empty() {
            lines.push(("limited", format!("by {}", self.saturated.join(", "))));
        }
        lines.extend(self.notes.iter().map(|note| ("note", note.clone())));
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_computes_all_the_time_is_told_as_the_limit() {
        let watch = Watch::start(BrokerPlace::Here);
        let spin = std::thread::Builder::new().name("spinner".into()).spawn(|| {
            let started = Instant::now();
            let mut thread = 0.0;
            // Until it has had most of the time since the start, however much others take.
            while thread < 0.05 || thread < 0.95 * started.elapsed().as_secs_f64() {
                if started.elapsed().as_secs() >= 2 {
                    break;
                }
                let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                thread = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
            }
            watch.finish(1_000_000_000)
        });
        let (cost, usage) = spin.unwrap().join().unwrap();
        assert_eq!(usage.bench.unwrap().share >= SATURATED, cost.bench_is_bottleneck);
        assert!(cost.bench.cpu_seconds > 0.0, "{cost:?}");
        assert!(cost.bench.cpu_seconds_per_gb >= cost.bench.cpu_seconds * 0.99);
        if cost.bench.busiest_thread >= SATURATED {
            assert!(
                cost.bench_is_bottleneck && cost.saturated.iter().any(|text| text.contains("spinner")),
                "{cost:?}"
            );
            assert!(cost.lines().iter().any(|(_, text)| text.contains("THE BENCH ITSELF")));
        }
    }
}
