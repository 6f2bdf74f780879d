//! What goes wrong, and when: failures planned by kind and number or by chance, and counters of what was done.

use std::io;

use rand::{RngExt, rngs::StdRng};

/// A kind of operation on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum OpKind {
    Write,
    WriteDurable,
    WriteZeros,
    Sync,
    Read,
    Allocate,
    Truncate,
    Size,
    Open,
    CreateDir,
    List,
    ReadFile,
    ReplaceFile,
    Rename,
    RemoveFile,
    RemoveDirAll,
}

impl OpKind {
    const COUNT: usize = OpKind::RemoveDirAll as usize + 1;

    /// Whether it may change what is on the disk: whether a crash during it differs from one before it.
    pub fn changes(self) -> bool {
        !matches!(self, OpKind::Read | OpKind::Size | OpKind::List | OpKind::ReadFile)
    }
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO: the device is in trouble. The operation may have taken effect in part.
    InputOutput,
    /// ENOSPC, whatever the capacity. (A disk with a capacity reports it by itself.)
    StorageFull,
    /// EMFILE: the process has no descriptor left. Nothing was done.
    OutOfFiles,
}

impl Fault {
    /// The error that the operating system would give.
    pub fn to_error(self) -> io::Error {
        let number = match self {
            Fault::InputOutput => rustix::io::Errno::IO,
            Fault::StorageFull => rustix::io::Errno::NOSPC,
            Fault::OutOfFiles => rustix::io::Errno::MFILE,
        };
        io::Error::from_raw_os_error(number.raw_os_error())
    }
}

/// When operations of one kind fail.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    /// The operation with this number among those of its kind.
    Number(u64),
    /// Each, with this probability.
    Chance(f64),
}

/// Planned failures and counters.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    planned: Vec<(OpKind, When, Fault)>,
    /// Number of the changing operation at whose start the machine crashes.
    crash_at: Option<u64>,
    counts: [u64; OpKind::COUNT],
    changes: u64,
}

impl Faults {
    pub fn count(&self, kind: OpKind) -> u64 {
        self.counts[kind as usize]
    }

    /// Changing operations so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    pub fn plan(&mut self, kind: OpKind, when: When, fault: Fault) {
        self.planned.push((kind, when, fault));
    }

    pub fn crash_at(&mut self, change: u64) {
        self.crash_at = Some(change);
    }

    pub fn no_crash(&mut self) {
        self.crash_at = None;
    }

    pub fn heal(&mut self) {
        self.planned.clear();
    }

    /// Counts an operation that starts, and says how it will fail, and whether the machine crashes in the middle of it.
    pub fn start(&mut self, kind: OpKind, rng: &mut StdRng) -> (Option<Fault>, bool) {
        let number = self.counts[kind as usize];
        self.counts[kind as usize] += 1;
        let crash = kind.changes() && self.crash_at == Some(self.changes);
        self.changes += u64::from(kind.changes());
        let fault = self
            .planned
            .iter()
            .filter(|(planned, ..)| *planned == kind)
            .find(|(_, when, _)| match when {
                When::Number(at) => *at == number,
                When::Chance(probability) => rng.random_bool(*probability),
            })
            .map(|(.., fault)| *fault);
        (fault, crash)
    }
}
