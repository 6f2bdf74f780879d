//! On which CPUs a thread runs.

use std::io;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps this thread, and those that it starts from now on, to these CPUs.
pub fn keep_to(cpus: impl IntoIterator<Item = usize>) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}
