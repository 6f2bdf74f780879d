//! What is checked: one list of items, each a name and a pure judgement of the facts and the configuration.
//!
//! The start of the broker and the `check` command use the same judgements, so that nothing is decided twice.
//! `tuning.md` explains each item by its name; a test compares the two lists.

use serde::Serialize;

use super::facts::Facts;
use super::{clock, cores, cpu, directory, disk, interrupts, kernel, memory, network};
use crate::config::Config;

/// How an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "&'static str")]
pub enum Verdict {
    /// Nothing to do.
    Ok,
    /// It cannot be seen from here, or there is nothing to recommend.
    NotJudged,
    /// It costs speed, or will under more load.
    CouldBeBetter,
    /// It costs safety, or most of the speed. The broker starts, and warns.
    MustChange,
    /// The broker does not start.
    ForbidsStart,
}

impl Verdict {
    /// In words. What forbids the start must change, like the rest that must.
    pub fn words(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotJudged => "not judged",
            Self::CouldBeBetter => "could be better",
            Self::MustChange | Self::ForbidsStart => "must change",
        }
    }

    /// Whether the command ends with exit code 1 for it.
    pub fn must_change(self) -> bool {
        matches!(self, Self::MustChange | Self::ForbidsStart)
    }
}

impl From<Verdict> for &'static str {
    fn from(verdict: Verdict) -> Self {
        verdict.words()
    }
}

/// What is thought of one item.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was found.
    pub value: String,
    /// What it should be.
    pub recommended: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What is wrong with it and what that costs, a clause without a full stop. Empty if nothing is.
    pub why: String,
    /// The exact command that changes it, to be run as root.
    pub command: Option<String>,
    /// What to do where no command can, or instead of it: a clause in the imperative.
    pub advice: Option<String>,
}

impl Finding {
    /// All is well so far.
    pub(super) fn new(value: impl Into<String>, recommended: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            recommended: recommended.into(),
            verdict: Verdict::Ok,
            why: String::new(),
            command: None,
            advice: None,
        }
    }

    /// The fact is not to be had; `reason` takes the place of the value.
    pub(super) fn unseen(reason: impl Into<String>, recommended: impl Into<String>) -> Self {
        Self::new(reason, recommended).not_judged()
    }

    pub(super) fn not_judged(mut self) -> Self {
        self.verdict = Verdict::NotJudged;
        self
    }

    pub(super) fn better(self, why: impl Into<String>) -> Self {
        self.wrong(Verdict::CouldBeBetter, why)
    }

    pub(super) fn must(self, why: impl Into<String>) -> Self {
        self.wrong(Verdict::MustChange, why)
    }

    pub(super) fn forbids(self, why: impl Into<String>) -> Self {
        self.wrong(Verdict::ForbidsStart, why)
    }

    fn wrong(mut self, verdict: Verdict, why: impl Into<String>) -> Self {
        self.verdict = verdict;
        self.why = why.into();
        self
    }

    pub(super) fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    pub(super) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// One sentence: what is wrong, and what to do.
    pub fn sentence(&self) -> String {
        let run = self.command.as_ref().map(|command| format!("run `{command}` as root"));
        let remedies: Vec<String> = run.into_iter().chain(self.advice.clone()).collect();
        format!("{}; {}.", self.why, remedies.join(", or "))
    }
}

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
    item(Section::Clock, "clock source", clock::source),
    item(Section::Clock, "clock reading", clock::reading),
];
