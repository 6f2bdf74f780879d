//! The one seam between the broker and the world: time, randomness, tasks and threads, sockets, the disk. Nothing outside names
//! glommio, reads a clock, draws a random number or starts a thread, but for what looks at the machine itself (`check`).
//!
//! - `clock`, `random`, `thread`: functions that whoever needs them calls.
//! - `tasks`: what runs on a core. `driver` runs them, on glommio's executor (`executor`); other threads ring its `bell`.
//! - `socket`: connections; `sockets` lists those of a core for when it fails.

mod bell;
mod clock;
mod disk;
mod driver;
mod executor;
mod hashing;
mod random;
#[cfg(test)]
pub(crate) mod simulated;
mod socket;
mod sockets;
mod tasks;
mod thread;
mod timers;

pub(crate) use clock::since;
pub(crate) use disk::{Disk, File, close_disk, open_disk};
pub(crate) use executor::run_core;
pub(crate) use hashing::HashMap;
pub(crate) use random::uuid;
pub(crate) use socket::{Bound, Listener, SendFileError, Socket, Stream, bound, connect};
pub(crate) use tasks::{tasks, until};
pub(crate) use thread::{pause_thread, start_thread, thread_name};

// In tests the simulated side decides whom each of these asks.
#[cfg(test)]
pub(crate) use simulated::seam::*;
#[cfg(not(test))]
pub(crate) use {
    clock::{moment, now, wall},
    disk::{disk_stages, is_resident, prefetch, reap},
    random::random,
    tasks::{Daemons, blocking, blocking_threads_rest, busy, sleep, spawn, yield_now},
    thread::pause,
};

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// What only this module may use.
    const OF_THE_MACHINE: [&str; 9] = [
        "glommio::",
        "Instant::now",
        "SystemTime::now",
        "Timestamp::now",
        ".elapsed()",
        "rand::",
        "new_v4",
        "thread::Builder",
        "thread::s",
    ];

    /// What looks at the machine as it is, is a command and no part of the broker, or is nothing but a test's.
    fn is_exempt(path: &Path) -> bool {
        let own = ["src/machine", "src/check", "src/commands"];
        own.iter().any(|own| path.ends_with(own)) || path.ends_with("tests") || path.ends_with("tests.rs")
    }

    fn check_below(directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if is_exempt(&path) {
                continue;
            }
            if path.is_dir() {
                check_below(&path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let is_whole = |at: usize| !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
            for name in OF_THE_MACHINE {
                let is_used = code
                    .match_indices(name)
                    .any(|(at, _)| name.starts_with('.') || is_whole(at));
                assert!(!is_used, "{} uses {name}", path.display());
            }
        }
    }

    #[test]
    fn nothing_else_asks_the_world_for_time_chance_tasks_or_threads() {
        check_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    }
}
