//! Who used the CPUs while something was measured, and whether the figures can be trusted then.

use std::time::Instant;

use serde::Serialize;

use super::BrokerPlace;
use super::machine::Machine;
use super::threads::{Sample, Side, Used};

/// A thread that is on a CPU for this share of the time or more has no more to give.
pub const SATURATED: f64 = 0.9;

/// When other programs have this share of all CPUs, what is measured is partly them.
const OTHERS_MAX: f64 = 0.1;

/// Likewise when the host of a virtual machine takes this share.
const STOLEN_MAX: f64 = 0.05;

/// In a shorter time nothing can be said: the kernel counts in hundredths of a second.
const SECONDS_MIN: f64 = 0.2;

/// In CPUs, where not said otherwise: 1.0 is one CPU all the time.
#[derive(Debug, Clone, Serialize)]
pub struct Usage {
    /// How long it was watched.
    pub seconds: f64,
    /// That this machine has.
    pub cpus: f64,
    /// At work for anybody.
    pub busy: f64,
    /// By programs that are neither bench nor broker.
    pub others: f64,
    /// The busiest of them.
    pub busiest_others: Vec<Other>,
    /// Given to others by the host of a virtual machine.
    pub stolen: f64,
    /// Threads of bench and broker that were ready and had no CPU, on average.
    pub waiting: f64,
    /// The busiest thread of the bench.
    pub bench: Option<Busiest>,
    /// Of the broker.
    pub broker: Option<Busiest>,
}

/// A program.
#[derive(Debug, Clone, Serialize)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// What it had.
    pub cpus: f64,
}

/// A thread.
#[derive(Debug, Clone, Serialize)]
pub struct Busiest {
    /// Its name.
    pub thread: String,
    /// Share of the time that it was on a CPU.
    pub share: f64,
}

/// Watches from its start on.
#[derive(Debug)]
pub struct UsageWatch {
    place: BrokerPlace,
    started: Instant,
    machine: Machine,
    pub(super) threads: Sample,
}

impl UsageWatch {
    /// Begins.
    pub fn start(place: BrokerPlace) -> Self {
        let machine = Machine::look();
        Self {
            threads: Sample::take(&place),
            place,
            machine,
            started: Instant::now(),
        }
    }

    /// Ends; and what each thread used.
    pub(super) fn end(self) -> (Usage, Vec<Used>) {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let used = Sample::take(&self.place).since(&self.threads);
        let mut ours = vec![std::process::id()];
        if let BrokerPlace::Processes(processes) = &self.place {
            ours.extend(processes);
        }
        let had = Machine::look().since(&self.machine, &ours, seconds);
        let busiest = |side| {
            let of_side = used.iter().filter(|used| used.side == side);
            let busiest = of_side.max_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
            Some(Busiest {
                thread: busiest.name.clone(),
                share: busiest.seconds / seconds,
            })
        };
        let others = had.by_name.into_iter().take(3).filter(|(_, cpus)| *cpus >= 0.01);
        let usage = Usage {
            seconds,
            cpus: had.cpus,
            busy: had.busy,
            others: had.others,
            busiest_others: others.map(|(name, cpus)| Other { name, cpus }).collect(),
            stolen: had.stolen,
            waiting: used.iter().map(|used| used.waited).sum::<f64>() / seconds,
            bench: busiest(Side::Bench),
            broker: busiest(Side::Broker),
        };
        (usage, used)
    }

    /// Ends.
    pub fn finish(self) -> Usage {
        self.end().0
    }
}

impl Usage {
    /// Why the figures cannot be trusted, if others had the CPUs.
    pub fn caution(&self) -> Option<String> {
        let is_crowded = self.others >= OTHERS_MAX * self.cpus;
        let is_robbed = self.stolen >= STOLEN_MAX * self.cpus;
        if self.seconds < SECONDS_MIN || !(is_crowded || is_robbed) {
            return None;
        }
        let mut reasons = Vec::new();
        if is_crowded {
            let percent = |other: &Other| format!("{} {:.0}%", other.name, 100.0 * other.cpus);
            let names: Vec<_> = self.busiest_others.iter().map(percent).collect();
            let names = if names.is_empty() {
                String::new()
            } else {
                format!(" ({})", names.join(", "))
            };
            reasons.push(format!(
                "other programs had {:.1} of {:.0} CPUs{names}",
                self.others, self.cpus
            ));
        }
        if is_robbed {
            let share = 100.0 * self.stolen / self.cpus.max(1.0);
            reasons.push(format!(
                "the host of this virtual machine took {share:.0}% of their time"
            ));
        }
        if self.waiting >= 0.01 {
            reasons.push(format!(
                "threads of bench and broker waited for a CPU for {:.2} s in each second",
                self.waiting
            ));
        }
        Some(format!("{}: these figures are not to be trusted", reasons.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        Usage {
            seconds: 5.0,
            cpus: 2.0,
            busy: 1.9,
            others: 0.0,
            busiest_others: Vec::new(),
            stolen: 0.0,
            waiting: 0.0,
            bench: None,
            broker: None,
        }
    }

    #[test]
    fn figures_are_not_trusted_when_other_programs_or_the_host_had_the_cpus() {
        assert_eq!(usage().caution(), None, "bench and broker may be as busy as they like");
        let crowded = Usage {
            others: 0.84,
            busiest_others: vec![Other {
                name: "cc1".into(),
                cpus: 0.8,
            }],
            waiting: 0.31,
            ..usage()
        };
        assert_eq!(
            crowded.caution().unwrap(),
            "other programs had 0.8 of 2 CPUs (cc1 80%), threads of bench and broker waited for a CPU for 0.31 s in each \
             second: these figures are not to be trusted"
        );
        let robbed = Usage { stolen: 0.3, ..usage() };
        assert!(robbed.caution().unwrap().contains("took 15% of their time"));
        let few = Usage {
            others: 0.1,
            stolen: 0.05,
            ..usage()
        };
        assert_eq!(few.caution(), None);
        let short = Usage {
            seconds: 0.05,
            ..crowded
        };
        assert_eq!(short.caution(), None);
    }

    #[test]
    fn a_program_that_computes_next_to_the_bench_is_seen_by_name() {
        let busy = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn();
        let mut busy = busy.unwrap();
        let watch = UsageWatch::start(BrokerPlace::Here);
        let stat = format!("/proc/{}/stat", busy.id());
        let used = || {
            super::super::machine::Stat::parse(&std::fs::read_to_string(&stat).unwrap())
                .unwrap()
                .seconds
        };
        let before = used();
        // However long that takes on a machine with other work.
        while used() < before + 0.2 {
            std::thread::yield_now();
        }
        let usage = watch.finish();
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(usage.others * usage.seconds >= 0.19, "{usage:?}");
    }
}
