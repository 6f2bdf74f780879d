//! What is checked: one list of items, each a name and a pure judgement of the facts and the configuration.
//!
//! The start of the broker and the `check` command use the same judgements, so that nothing is decided twice.
//! `tuning.md` explains each item by its name; a test compares the two lists.

use serde::Serialize;

use super::facts::Facts;
use super::finding::Finding;
use super::{clock, cores, cpu, directory, disk, interrupts, kernel, memory, network};
use crate::config::Config;

/// Where an item belongs in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// The kernel and what it lets this process do.
    Kernel,
    /// The CPUs that the cores run on.
    Cpu,
    /// Memory.
    Memory,
    /// The data directory, and what is below it.
    Disk,
    /// TCP.
    Network,
    /// The clock.
    Clock,
    /// Who can get at what.
    Safety,
}

/// One thing that is checked.
#[derive(Debug)]
pub struct Item {
    /// Where it belongs.
    pub section: Section,
    /// Its name here, in JSON and in `tuning.md`.
    pub name: &'static str,
    judge: fn(&Facts, &Config) -> Finding,
}

impl Item {
    pub(super) fn judge(&self, facts: &Facts, config: &Config) -> Finding {
        (self.judge)(facts, config)
    }
}

const fn item(section: Section, name: &'static str, judge: fn(&Facts, &Config) -> Finding) -> Item {
    Item { section, name, judge }
}

/// The item about what is open: at the start each of it is said by itself.
pub(super) const OPEN: &str = "what is open";

/// Everything that is checked, in the order of the report.
pub const ITEMS: &[Item] = &[
    item(Section::Kernel, "kernel", kernel::version),
    item(Section::Kernel, "io_uring", kernel::io_uring),
    item(Section::Kernel, "locked memory", kernel::locked_memory),
    item(Section::Kernel, "open files", kernel::open_files),
    item(Section::Kernel, "mitigations", kernel::mitigations),
    item(Section::Cpu, "cores", cores::cores),
    item(Section::Cpu, "core ports", cores::core_ports),
    item(Section::Cpu, "CPU quota", cores::quota),
    item(Section::Cpu, "NUMA", cores::numa),
    item(Section::Cpu, "SMT", cores::smt),
    item(Section::Cpu, "frequency governor", cpu::governor),
    item(Section::Cpu, "idle states", cpu::idle_states),
    item(Section::Cpu, "interrupts", interrupts::spread),
    item(Section::Cpu, "irqbalance", interrupts::irqbalance),
    item(Section::Memory, "memory budgets", memory::budgets),
    item(Section::Memory, "huge pages", memory::huge_pages),
    item(Section::Memory, "huge page defrag", memory::defrag),
    item(Section::Memory, "swap", memory::swap),
    item(Section::Memory, "free page reporting", memory::free_page_reporting),
    item(Section::Disk, "data directory", directory::usable),
    item(Section::Disk, "direct I/O", directory::direct_io),
    item(Section::Disk, "free space", directory::free_space),
    item(Section::Disk, "partitions", directory::partitions),
    item(Section::Disk, "file system", disk::file_system),
    item(Section::Disk, "file system calls", directory::calls),
    item(Section::Disk, "mount options", disk::mount_options),
    item(Section::Disk, "access times", disk::access_times),
    item(Section::Disk, "block device", disk::device),
    item(Section::Disk, "I/O scheduler", disk::scheduler),
    item(Section::Disk, "write cache", disk::write_cache),
    item(Section::Disk, "queue depth", disk::queue_depth),
    item(Section::Disk, "read-ahead", disk::read_ahead),
    item(Section::Network, "accept queue", network::accept_queue),
    item(Section::Network, "SYN queue", network::syn_queue),
    item(Section::Network, "receive buffers", network::receive_buffers),
    item(Section::Network, "send buffers", network::send_buffers),
    item(Section::Network, "local ports", network::local_ports),
    item(Section::Network, "TLS", network::tls),
    item(Section::Clock, "clock source", clock::source),
    item(Section::Clock, "clock reading", clock::reading),
    item(Section::Safety, OPEN, network::open::item),
];
