//! A simulated file: what its readers see, what a crash leaves, and what lies between the two.
//!
//! Invariant: what readers see is the stable content with all changes of `unstable` applied in order, except after a
//! failed flush, whose changes stay visible and are never stable (a second flush must not be trusted to save them).

use std::{cell::Cell, cell::RefCell, rc::Rc};

use rand::{RngExt, rngs::StdRng};

use super::{content::Content, tear::tear};
use crate::disk::BLOCK_SIZE;

pub(super) type FileRef = Rc<RefCell<File>>;

/// Bytes in use on a disk, shared by all its files.
pub(super) type Usage = Rc<Cell<u64>>;

/// Something done to a file that a crash may undo.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { position: u64, bytes: Vec<u8> },
    Extend { size: u64 },
}

#[derive(Debug, Clone)]
struct Unstable {
    change: Change,
    /// Already on stable storage (a durable write), but kept in the list because earlier changes are not.
    durable: bool,
    number: u64,
}

#[derive(Debug)]
pub(super) struct File {
    /// Path it was made under, for messages.
    pub name: String,
    visible: Content,
    stable: Content,
    unstable: Vec<Unstable>,
    changes: u64,
    /// Bytes charged to `usage`: whole blocks up to the highest one that was written or reserved.
    charged: u64,
    usage: Usage,
}

impl Drop for File {
    fn drop(&mut self) {
        self.usage.set(self.usage.get() - self.charged);
    }
}

impl File {
    /// A file whose content is stable.
    pub fn new(name: String, content: Content, usage: &Usage) -> File {
        let mut file = File {
            name,
            visible: content.clone(),
            stable: content,
            unstable: Vec::new(),
            changes: 0,
            charged: 0,
            usage: Rc::clone(usage),
        };
        file.charge(file.visible.size());
        file
    }

    pub fn size(&self) -> u64 {
        self.visible.size()
    }

    pub fn read(&self, position: u64, length: usize) -> Vec<u8> {
        self.visible.read(position, length)
    }

    /// Bytes that a change up to `end` would add to the disk's use.
    pub fn growth(&self, end: u64) -> u64 {
        whole_blocks(end).saturating_sub(self.charged)
    }

    fn charge(&mut self, end: u64) {
        let growth = self.growth(end);
        self.charged += growth;
        self.usage.set(self.usage.get() + growth);
    }

    /// Number of changes so far: a flush asked for now covers those numbered below it.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A completed change. A durable one survives every crash from now on.
    pub fn change(&mut self, change: Change, durable: bool) {
        self.charge(change.end());
        change.apply(&mut self.visible);
        self.unstable.push(Unstable {
            change,
            durable,
            number: self.changes,
        });
        self.changes += 1;
        self.settle();
    }

    /// Moves leading durable changes into the stable content.
    fn settle(&mut self) {
        let settled = self.unstable.iter().take_while(|unstable| unstable.durable).count();
        for unstable in self.unstable.drain(..settled) {
            unstable.change.apply(&mut self.stable);
        }
    }

    /// A flush succeeded: changes below `covered` are stable.
    pub fn synced(&mut self, covered: u64) {
        for unstable in &mut self.unstable {
            unstable.durable |= unstable.number < covered;
        }
        self.settle();
    }

    /// A flush failed: of the changes below `covered`, parts are stable, and what is not never will be.
    pub fn sync_failed(&mut self, covered: u64, rng: &mut StdRng) {
        let mut kept = Vec::new();
        for unstable in self.unstable.drain(..) {
            if unstable.durable || unstable.number >= covered {
                kept.push(unstable);
            } else {
                kept.extend(unstable.change.torn(rng).into_iter().map(|change| Unstable {
                    change,
                    durable: true,
                    number: unstable.number,
                }));
            }
        }
        self.unstable = kept;
        self.settle();
    }

    /// Cuts or extends the file for its readers, and, if `durable`, for good.
    pub fn truncate(&mut self, size: u64, durable: bool) {
        self.visible.truncate(size);
        if durable {
            self.stable.truncate(size);
            for unstable in &mut self.unstable {
                unstable.change.truncate(size);
            }
        }
        let kept = whole_blocks(size);
        if kept < self.charged {
            self.usage.set(self.usage.get() - (self.charged - kept));
            self.charged = kept;
        }
    }

    /// What a crash leaves: the stable content, and parts of all else. `in_flight` are writes that were under way.
    pub fn after_crash(&self, in_flight: Vec<Change>, rng: &mut StdRng) -> Content {
        let mut content = self.stable.clone();
        let mut size_certain = content.size();
        for unstable in &self.unstable {
            if unstable.durable {
                unstable.change.apply(&mut content);
                size_certain = size_certain.max(unstable.change.end());
            } else {
                for change in unstable.change.clone().torn(rng) {
                    change.apply(&mut content);
                }
            }
        }
        for change in in_flight.into_iter().flat_map(|change| change.torn(rng)) {
            change.apply(&mut content);
        }
        // A file's size is written apart from its data: data may be there and the size not tell of it.
        if content.size() > size_certain && rng.random_bool(0.5) {
            content.truncate(size_certain);
        }
        content
    }

    /// The least that a crash may leave: what is certain to be there.
    pub fn certain(&self) -> Content {
        let mut content = self.stable.clone();
        for unstable in self.unstable.iter().filter(|unstable| unstable.durable) {
            unstable.change.apply(&mut content);
        }
        content
    }
}

impl Change {
    /// Size that the file has at least once this is applied.
    pub fn end(&self) -> u64 {
        match self {
            Change::Write { position, bytes } => position + bytes.len() as u64,
            Change::Extend { size } => *size,
        }
    }

    fn apply(&self, content: &mut Content) {
        match self {
            Change::Write { position, bytes } => content.write(*position, bytes),
            Change::Extend { size } => content.extend(*size),
        }
    }

    fn truncate(&mut self, to: u64) {
        match self {
            Change::Write { position, bytes } => {
                bytes.truncate(to.saturating_sub(*position) as usize);
                // An empty write still sets a size: it must not set one past the cut.
                *position = (*position).min(to);
            }
            Change::Extend { size } => *size = (*size).min(to),
        }
    }

    /// The parts of it that took effect when it was interrupted.
    pub fn torn(self, rng: &mut StdRng) -> Vec<Change> {
        match self {
            Change::Extend { .. } if rng.random_bool(0.5) => Vec::new(),
            Change::Extend { .. } => vec![self],
            Change::Write { position, bytes } => tear(rng, bytes.len())
                .into_iter()
                .filter(|range| !range.is_empty())
                .map(|range| Change::Write {
                    position: position + range.start as u64,
                    bytes: bytes[range].to_vec(),
                })
                .collect(),
        }
    }
}

fn whole_blocks(end: u64) -> u64 {
    end.next_multiple_of(BLOCK_SIZE as u64)
}
