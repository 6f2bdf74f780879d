//! System calls of each thread, by the kernel's tracepoint `raw_syscalls:sys_enter`. Needs root or `CAP_PERFMON`, and
//! tracefs.

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};

use super::threads::{Sample, Side};

/// Counts since it was opened, for threads that were there then and those that they started since.
#[derive(Debug)]
pub struct SyscallCounters(Vec<(Side, Counter)>);

/// How many there were.
#[derive(Debug)]
pub struct Counted {
    bench: u64,
    broker: u64,
}

impl Counted {
    /// Of one side.
    pub fn of(&self, side: Side) -> u64 {
        match side {
            Side::Bench => self.bench,
            Side::Broker => self.broker,
        }
    }
}

impl SyscallCounters {
    /// Begins to count; or says why it cannot.
    pub fn open(threads: &Sample) -> Result<Self, String> {
        let refused = |error: std::io::Error| {
            format!("system calls are not counted, which needs root or CAP_PERFMON, and tracefs mounted: {error}")
        };
        let event = Tracepoint::with_id(tracepoint().map_err(refused)?);
        let mut counters = Vec::new();
        for (tid, side) in threads.sides() {
            let mut builder = Builder::new(event);
            builder
                .observe_pid(tid.cast_signed())
                .any_cpu()
                .inherit(true)
                .include_kernel()
                .include_hv();
            match builder.build() {
                Ok(mut counter) => {
                    counter.enable().map_err(refused)?;
                    counters.push((side, counter));
                }
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(Self(counters))
    }

    /// So far.
    pub fn read(mut self) -> Counted {
        let mut counted = Counted { bench: 0, broker: 0 };
        for (side, counter) in &mut self.0 {
            let count = counter.read().unwrap_or_default();
            match side {
                Side::Bench => counted.bench += count,
                Side::Broker => counted.broker += count,
            }
        }
        counted
    }
}

/// The number of the tracepoint, from tracefs at its own place or below debugfs.
fn tracepoint() -> std::io::Result<u64> {
    let read = |root: &str| std::fs::read_to_string(format!("{root}/events/raw_syscalls/sys_enter/id"));
    let text = read("/sys/kernel/tracing").or_else(|_| read("/sys/kernel/debug/tracing"))?;
    text.trim().parse().map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::cost::BrokerPlace;

    #[test]
    fn system_calls_of_a_thread_that_was_started_later_are_counted() {
        let counters = match SyscallCounters::open(&Sample::take(&BrokerPlace::Here)) {
            Ok(counters) => counters,
            Err(reason) => {
                writeln!(
                    std::io::stderr(),
                    "SKIPPED system_calls_of_a_thread_that_was_started_later_are_counted: {reason}"
                )
                .unwrap();
                return;
            }
        };
        let calls = std::thread::spawn(|| (0..1000).filter(|_| rustix::process::getppid().is_some()).count());
        calls.join().unwrap();
        let counted = counters.read();
        assert!(counted.of(Side::Bench) >= 1000, "{counted:?}");
    }
}
