//! Who had the CPUs of this machine, from `/proc` (proc(5)): bench and broker, other programs, or the host of a virtual machine.
//!
//! The kernel counts the time of each process exactly, and that of a CPU mostly by looking at it now and then. So what others had is
//! added up from the processes, and from what their parents know of those that have ended. Only in a container, where other
//! processes cannot be seen, it is what the CPUs were busy with and ours do not account for.

use std::collections::HashMap;
use std::fs;

/// `USER_HZ`, which is 100 on every architecture that io_uring runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Set for the kernel's own threads (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// The first of the kernel's threads, which is the parent of all others and cannot be seen from within a container.
const KTHREADD: u32 = 2;

/// What is of interest of a `stat` line.
#[derive(Debug, Clone, PartialEq)]
pub struct Stat {
    /// As the process calls itself.
    pub name: String,
    /// On a CPU, in user space and in the kernel.
    pub seconds: f64,
    /// Of its children that have ended, and theirs.
    pub of_children: f64,
    /// Whether it is the kernel's.
    pub is_kernel: bool,
}

impl Stat {
    /// The name in parentheses may hold anything.
    pub fn parse(line: &str) -> Option<Self> {
        let (head, rest) = line.rsplit_once(") ")?;
        let (_, name) = head.split_once('(')?;
        // From the state on, which is the third of proc(5).
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
        let seconds = |first| Some((number(first)? + number(first + 1)?) as f64 / TICKS_PER_SECOND);
        Some(Self {
            name: name.to_owned(),
            seconds: seconds(14)?,
            of_children: seconds(16)?,
            is_kernel: number(9)? & KERNEL_THREAD != 0,
        })
    }
}

/// The machine at one moment.
#[derive(Debug, Default)]
pub struct Machine {
    processes: HashMap<u32, Stat>,
    /// CPU seconds in all, of all CPUs.
    total: f64,
    /// Of these without work.
    idle: f64,
    /// Of these given to others by the host.
    stolen: f64,
}

/// What happened between two moments, in CPUs: 1.0 is one CPU all the time.
#[derive(Debug, Default, PartialEq)]
pub struct Had {
    /// At work for anybody.
    pub busy: f64,
    /// By programs that are not ours.
    pub others: f64,
    /// The same by name, the busiest first, as far as they still run.
    pub by_name: Vec<(String, f64)>,
    /// Given to others by the host.
    pub stolen: f64,
    /// That there are.
    pub cpus: f64,
}

impl Machine {
    /// Now.
    pub fn look() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let stat = |pid: u32| {
            // A process may end at any moment.
            let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, Stat::parse(&line)?))
        };
        let processes = pids.filter_map(stat).collect();
        let cpus = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            processes,
            ..Self::of_cpus(&cpus).unwrap_or_default()
        }
    }

    /// The first line of `/proc/stat`.
    fn of_cpus(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let [_user, _nice, _system, idle, waiting, _irq, _softirq, stolen, ..] = ticks[..] else {
            return None;
        };
        let seconds = |ticks: u64| ticks as f64 / TICKS_PER_SECOND;
        Some(Self {
            processes: HashMap::new(),
            // What guests had is in the first two already.
            total: seconds(ticks[..8].iter().sum()),
            idle: seconds(idle + waiting),
            stolen: seconds(stolen),
        })
    }

    /// What happened since an earlier look; `ours` are bench and broker.
    pub fn since(&self, earlier: &Self, ours: &[u32], seconds: f64) -> Had {
        let seconds = seconds.max(1e-9);
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let total = (self.total - earlier.total).max(0.0);
        // In ticks of its own the machine tells shares better than times.
        let of_all = |part: f64, before: f64| {
            let share = if total > 0.0 { (part - before) / total } else { 0.0 };
            share.clamp(0.0, 1.0) * total / seconds
        };
        let idle = of_all(self.idle, earlier.idle);
        let stolen = of_all(self.stolen, earlier.stolen);
        let all = total / seconds;
        let busy = (all - idle - stolen).max(0.0);
        let (others, by_name) = if self.processes.contains_key(&KTHREADD) {
            self.others(earlier, ours, seconds)
        } else {
            let ours: f64 = ours.iter().map(|pid| self.of_process(earlier, *pid)).sum();
            ((busy - ours / seconds).max(0.0), Vec::new())
        };
        Had {
            busy,
            others,
            by_name,
            stolen,
            cpus: if all > 0.0 { all.round().max(1.0) } else { cpus },
        }
    }

    fn of_process(&self, earlier: &Self, pid: u32) -> f64 {
        let seconds = |machine: &Self| machine.processes.get(&pid).map_or(0.0, |stat| stat.seconds);
        (seconds(self) - seconds(earlier)).max(0.0)
    }

    fn others(&self, earlier: &Self, ours: &[u32], seconds: f64) -> (f64, Vec<(String, f64)>) {
        let is_other = |(pid, stat): &(&u32, &Stat)| !stat.is_kernel && !ours.contains(pid);
        // A process that has ended is in what its parent knows.
        let sum = |machine: &Self| -> f64 {
            let others = machine.processes.iter().filter(is_other);
            others.map(|(_, stat)| stat.seconds + stat.of_children).sum()
        };
        let mut by_name: HashMap<&str, f64> = HashMap::new();
        for (&pid, stat) in self.processes.iter().filter(is_other) {
            *by_name.entry(&stat.name).or_default() += self.of_process(earlier, pid) / seconds;
        }
        let mut by_name: Vec<_> = by_name
            .into_iter()
            .map(|(name, cpus)| (name.to_owned(), cpus))
            .collect();
        by_name.sort_by(|a, b| b.1.total_cmp(&a.1));
        ((sum(self) - sum(earlier)).max(0.0) / seconds, by_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, seconds: f64, of_children: f64) -> Stat {
        Stat {
            name: name.into(),
            seconds,
            of_children,
            is_kernel: false,
        }
    }

    fn machine(processes: &[(u32, Stat)], cpus: &str) -> Machine {
        Machine {
            processes: processes.iter().cloned().collect(),
            ..Machine::of_cpus(cpus).unwrap()
        }
    }

    fn kernel(seconds: f64) -> (u32, Stat) {
        let is_kernel = true;
        (
            2,
            Stat {
                is_kernel,
                ..stat("kthreadd", seconds, 0.0)
            },
        )
    }

    #[test]
    fn the_time_of_a_process_is_read_whatever_its_name() {
        let line = "42 (a) b) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 700 300 20 0 1 0 100 0 0";
        assert_eq!(Stat::parse(line), Some(stat("a) b", 3.0, 10.0)));
        let kernel = line.replace("4194304", "2129984");
        assert!(Stat::parse(&kernel).unwrap().is_kernel);
    }

    #[test]
    fn what_others_had_is_neither_ours_nor_the_kernels_and_counts_those_that_have_ended() {
        let before = machine(
            &[
                kernel(5.0),
                (10, stat("bench", 1.0, 0.0)),
                (20, stat("make", 1.0, 3.0)),
                (21, stat("cc1", 2.0, 0.0)),
            ],
            "cpu 1000 0 0 1000 0 0 0 0 0 0",
        );
        // A compiler has ended after 2 more seconds, which its parent knows of; another one runs.
        let after = machine(
            &[
                kernel(9.0),
                (10, stat("bench", 9.0, 0.0)),
                (20, stat("make", 1.0, 7.0)),
                (22, stat("ld", 1.0, 0.0)),
            ],
            "cpu 2500 0 0 1300 0 0 0 200 0 0",
        );
        let had = after.since(&before, &[10], 10.0);
        assert!((had.others - 0.3).abs() < 1e-9, "{had:?}");
        assert_eq!(had.by_name[0].0, "ld");
        assert!(
            (had.stolen - 0.2).abs() < 1e-9 && (had.busy - 1.5).abs() < 1e-9,
            "{had:?}"
        );
        assert!((had.cpus - 2.0).abs() < 1e-9, "{had:?}");
    }

    #[test]
    fn where_others_cannot_be_seen_they_had_what_ours_do_not_account_for() {
        let before = machine(&[(10, stat("bench", 1.0, 0.0))], "cpu 1000 0 0 1000 0 0 0 0 0 0");
        let after = machine(&[(10, stat("bench", 6.0, 0.0))], "cpu 2500 0 0 1500 0 0 0 0 0 0");
        let had = after.since(&before, &[10], 10.0);
        assert!((had.others - 1.0).abs() < 1e-9 && had.by_name.is_empty(), "{had:?}");
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let machine = Machine::look();
        assert!(machine.total > 0.0 && machine.processes.contains_key(&std::process::id()));
    }
}
