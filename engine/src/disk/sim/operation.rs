//! Operations of a simulated disk: what each was asked to do, and the rules that hold between two under way at once.

use std::{ops::Range, path::PathBuf, rc::Rc};

use rand::{RngExt, rngs::StdRng};

use super::{
    faults::OpKind,
    file::{Change, FileRef},
    tear::blend,
};
use crate::disk::{BLOCK_SIZE, BlockSlice, DirEntry};

/// What an operation was asked to do.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Write {
        file: FileRef,
        position: u64,
        data: BlockSlice,
        /// The memory as it was when the write began; the device may take any mixture of this and what is there later.
        early: Vec<u8>,
        /// Which kind of write.
        kind: OpKind,
    },
    Sync {
        file: FileRef,
        /// Changes numbered below this had completed when the flush was asked for.
        covered: u64,
    },
    Read {
        file: FileRef,
        position: u64,
        length: usize,
        /// What was there when the read began, if the device looks at once.
        early: Option<Vec<u8>>,
    },
    Allocate {
        file: FileRef,
        end: u64,
    },
    Truncate {
        file: FileRef,
        size: u64,
    },
    Size {
        file: FileRef,
    },
    Open {
        path: PathBuf,
        create: bool,
    },
    CreateDir {
        path: PathBuf,
    },
    List {
        path: PathBuf,
    },
    ReadFile {
        path: PathBuf,
    },
    ReplaceFile {
        path: PathBuf,
        content: Vec<u8>,
        /// It may use the reserve.
        makes_room: bool,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    RemoveFile {
        path: PathBuf,
    },
    RemoveDirAll {
        path: PathBuf,
    },
}

/// What an operation gives back.
#[derive(Debug)]
pub(super) enum Output {
    Done,
    Bytes(Vec<u8>),
    Size(u64),
    Entries(Vec<DirEntry>),
    File(FileRef),
}

impl Operation {
    pub fn kind(&self) -> OpKind {
        match self {
            Operation::Write { kind, .. } => *kind,
            Operation::Sync { .. } => OpKind::Sync,
            Operation::Read { .. } => OpKind::Read,
            Operation::Allocate { .. } => OpKind::Allocate,
            Operation::Truncate { .. } => OpKind::Truncate,
            Operation::Size { .. } => OpKind::Size,
            Operation::Open { .. } => OpKind::Open,
            Operation::CreateDir { .. } => OpKind::CreateDir,
            Operation::List { .. } => OpKind::List,
            Operation::ReadFile { .. } => OpKind::ReadFile,
            Operation::ReplaceFile { .. } => OpKind::ReplaceFile,
            Operation::Rename { .. } => OpKind::Rename,
            Operation::RemoveFile { .. } => OpKind::RemoveFile,
            Operation::RemoveDirAll { .. } => OpKind::RemoveDirAll,
        }
    }

    fn file(&self) -> Option<&FileRef> {
        match self {
            Operation::Write { file, .. }
            | Operation::Sync { file, .. }
            | Operation::Read { file, .. }
            | Operation::Allocate { file, .. }
            | Operation::Truncate { file, .. }
            | Operation::Size { file } => Some(file),
            _ => None,
        }
    }

    /// Bytes of the file that a write or a reservation covers.
    fn range(&self) -> Option<Range<u64>> {
        match self {
            Operation::Write { position, data, .. } => Some(*position..position + data.len() as u64),
            Operation::Allocate { end, .. } => Some(0..*end),
            _ => None,
        }
    }

    /// The operation begins: looks at memory or at the file as they are now.
    ///
    /// # Panics
    /// When a write is not aligned.
    pub fn begin(&mut self, rng: &mut StdRng) {
        match self {
            Operation::Write {
                file,
                position,
                data,
                early,
                ..
            } => {
                let name = &file.borrow().name;
                let block = BLOCK_SIZE as u64;
                assert!(
                    position.is_multiple_of(block) && !data.is_empty() && data.len().is_multiple_of(BLOCK_SIZE),
                    "{name}: a write of {} bytes at {position} is not whole blocks",
                    data.len()
                );
                assert!(
                    data.as_ptr().addr().is_multiple_of(BLOCK_SIZE),
                    "{name}: a write from memory that is not aligned"
                );
                *early = data.to_vec();
            }
            Operation::Read {
                file,
                position,
                length,
                early,
            } if rng.random_bool(0.5) => *early = Some(file.borrow().read(*position, *length)),
            _ => {}
        }
    }

    /// Checks that this may run while `other`, which began before, is under way.
    ///
    /// # Panics
    /// When it may not.
    pub fn check_beside(&self, other: &Operation) {
        if let (Operation::ReplaceFile { path, .. }, Operation::ReplaceFile { path: other, .. }) = (self, other) {
            assert!(
                path != other,
                "{} is replaced twice at once: both write the same temporary file",
                path.display()
            );
        }
        let (Some(file), Some(other_file)) = (self.file(), other.file()) else {
            return;
        };
        if !Rc::ptr_eq(file, other_file) {
            return;
        }
        let name = &file.borrow().name;
        match (self, other) {
            (Operation::Write { .. }, Operation::Write { .. }) => {
                if let (Some(range), Some(other)) = (self.range(), other.range()) {
                    assert!(
                        range.start >= other.end || other.start >= range.end,
                        "{name}: blocks of {range:?} are written while a write of {other:?} is under way"
                    );
                }
            }
            (Operation::Truncate { .. }, Operation::Truncate { .. }) => panic!("{name}: is cut twice at once"),
            (Operation::Truncate { size, .. }, growing) | (growing, Operation::Truncate { size, .. }) => {
                if let Some(range) = growing.range() {
                    assert!(
                        range.end <= *size,
                        "{name}: is cut to {size} while {range:?} of it is written or reserved"
                    );
                }
            }
            _ => {}
        }
    }

    /// The change that this makes to the content of `file`.
    pub fn change_of(&self, file: &FileRef, rng: &mut StdRng) -> Option<Change> {
        match self {
            Operation::Write {
                file: written,
                position,
                early,
                data,
                ..
            } if Rc::ptr_eq(file, written) => Some(Change::Write {
                position: *position,
                bytes: blend(rng, early.clone(), &data.to_vec()),
            }),
            Operation::Allocate { file: reserved, end } if Rc::ptr_eq(file, reserved) => {
                Some(Change::Extend { size: *end })
            }
            _ => None,
        }
    }

    /// The size that this cuts `file` to.
    pub fn cut_of(&self, file: &FileRef) -> Option<u64> {
        match self {
            Operation::Truncate { file: cut, size } if Rc::ptr_eq(file, cut) => Some(*size),
            _ => None,
        }
    }
}
