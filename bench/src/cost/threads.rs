//! CPU time of each thread, from `/proc` (proc(5)), and whose it is: the broker's threads in this process are known by
//! their names.

use std::collections::HashMap;
use std::fs;
use std::net::ToSocketAddrs as _;

use super::BrokerPlace;
use super::machine::Stat;

/// Whose a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The load generator and its clients.
    Bench,
    /// The broker.
    Broker,
}

impl Side {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bench => "bench",
            Self::Broker => "broker",
        }
    }
}

/// The CPU time of all threads that matter, at one moment.
#[derive(Debug, Default)]
pub struct Sample {
    threads: HashMap<u32, Thread>,
}

#[derive(Debug)]
struct Thread {
    name: String,
    side: Side,
    seconds: f64,
    waited: f64,
}

/// What one thread used between two samples.
#[derive(Debug, PartialEq)]
pub struct Used {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub side: Side,
    /// On a CPU.
    pub seconds: f64,
    /// Ready, and without a CPU: others had them.
    pub waited: f64,
}

impl Sample {
    /// Now.
    pub fn take(place: &BrokerPlace) -> Self {
        let mut sample = Self::default();
        let is_here = *place == BrokerPlace::Here;
        sample.add(std::process::id(), |name, tasks| {
            if is_here && is_broker(name, tasks) {
                Side::Broker
            } else {
                Side::Bench
            }
        });
        if let BrokerPlace::Processes(processes) = place {
            for &pid in processes {
                sample.add(pid, |_, _| Side::Broker);
            }
        }
        sample
    }

    fn add(&mut self, pid: u32, side: impl Fn(&str, &HashMap<u32, String>) -> Side) {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return;
        };
        let tids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let name = |tid: u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
            Some((tid, name.trim_end().to_owned()))
        };
        let names: HashMap<u32, String> = tids.filter_map(name).collect();
        for (&tid, name) in &names {
            // A thread may end at any moment.
            if let Some((seconds, waited)) = cpu_seconds(pid, tid) {
                let thread = Thread {
                    name: name.clone(),
                    side: side(name, &names),
                    seconds,
                    waited,
                };
                self.threads.insert(tid, thread);
            }
        }
    }

    /// What each thread used since an earlier sample.
    pub fn since(&self, earlier: &Self) -> Vec<Used> {
        let used = self.threads.iter().map(|(tid, thread)| {
            let before = earlier.threads.get(tid);
            let (seconds, waited) = before.map_or((0.0, 0.0), |before| (before.seconds, before.waited));
            Used {
                name: thread.name.clone(),
                side: thread.side,
                seconds: (thread.seconds - seconds).max(0.0),
                waited: (thread.waited - waited).max(0.0),
            }
        });
        used.collect()
    }

    /// The threads and whose they are.
    pub fn sides(&self) -> impl Iterator<Item = (u32, Side)> {
        self.threads.iter().map(|(&tid, thread)| (tid, thread.side))
    }
}

/// Whether the broker has named a thread so. The kernel's workers of a ring belong to the thread that they are named
/// after.
fn is_broker(name: &str, names: &HashMap<u32, String>) -> bool {
    if let Some(owner) = name.strip_prefix("iou-wrk-").or_else(|| name.strip_prefix("iou-sqp-")) {
        let owner = owner.parse().ok().and_then(|tid: u32| names.get(&tid));
        return owner.is_some_and(|owner| is_broker(owner, names));
    }
    name.starts_with("core-") || ["control", "watchdog"].contains(&name)
}

/// How long a thread was on a CPU, and how long it waited for one: to the nanosecond from `schedstat` where the kernel has it, else
/// in ticks from `stat`, which knows nothing of waiting.
fn cpu_seconds(pid: u32, tid: u32) -> Option<(f64, f64)> {
    let exact = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok();
    let seconds = |nanos: &str| Some(nanos.parse::<u64>().ok()? as f64 / 1e9);
    let exact = exact.and_then(|text| {
        let mut fields = text.split(' ');
        Some((seconds(fields.next()?)?, seconds(fields.next()?)?))
    });
    let in_ticks = || {
        let stat = Stat::parse(&fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?)?;
        Some((stat.seconds, 0.0))
    };
    exact.or_else(in_ticks)
}

/// The process of this machine that listens at an address, if it may be looked at.
pub fn listener(address: &str) -> Option<u32> {
    let address = address.to_socket_addrs().ok()?.next()?;
    if !address.ip().is_loopback() {
        return None;
    }
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| inodes(&table, address.port()))
        .collect();
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?;
    let mut pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        let mut targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        targets.any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
    })
}

/// Of the sockets that listen at a port, in `/proc/net/tcp`.
fn inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let found = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit_once(':')?.1;
        let is_it = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTEN;
        is_it.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_threads_are_told_from_those_of_the_bench() {
        let names: HashMap<u32, String> = [(7, "core-0"), (8, "client")]
            .map(|(tid, name)| (tid, name.into()))
            .into();
        let broker = |name| is_broker(name, &names);
        assert!(broker("core-1") && broker("watchdog") && broker("control") && broker("iou-wrk-7"));
        assert!(!broker("client") && !broker("iou-wrk-8") && !broker("headwater-bench") && !broker("iou-wrk-99"));
    }

    #[test]
    fn the_process_that_listens_at_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(super::listener(&address.to_string()), Some(std::process::id()));
        drop(listener);
        assert_eq!(super::listener(&address.to_string()), None);
    }
}
