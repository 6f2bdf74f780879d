//! The time slice of a core's thread: how soon the scheduler gives it the CPU when others use it as well.

use std::{io, time::Duration};

/// Sets the slice of the calling thread (`sched_setattr(2)`; `sched_runtime` of a `SCHED_OTHER` thread, Linux 6.12). Zero
/// leaves it as it is, and so does a kernel that knows no slices.
pub(crate) fn set(slice: Duration) {
    let Ok(nanos @ 1..) = u64::try_from(slice.as_nanos()) else {
        return;
    };
    if let Err(error) = try_set(nanos) {
        tracing::debug!(%error, "the kernel's time slice stays");
    }
}

fn try_set(nanos: u64) -> io::Result<()> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let this_thread: libc::pid_t = 0;
    let flags: libc::c_uint = 0;
    // SAFETY: the kernel writes at most `size` bytes to a struct of that size.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, this_thread, &raw mut attributes, size, flags) };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    // Other policies mean something else by it.
    if attributes.sched_policy != libc::SCHED_OTHER.cast_unsigned() {
        return Ok(());
    }
    attributes.size = size;
    attributes.sched_runtime = nanos;
    // SAFETY: the kernel reads a struct of the size that it names.
    let written = unsafe { libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const attributes, flags) };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_always_shorten_its_slice() {
        std::thread::spawn(|| try_set(100_000)).join().unwrap().unwrap();
    }
}
