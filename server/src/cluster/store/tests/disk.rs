//! A directory tree in memory whose operations fail as planned: for every place and way in which one can fail.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use headwater_engine::disk::{DirEntry, Directory, EntryKind};

/// How far a failing operation gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Undone,
    /// The temporary file is there; one of the directory's entries is gone; the first missing parent is made.
    Partial,
    Done,
}

impl Outcome {
    pub const ALL: [Self; 3] = [Self::Undone, Self::Partial, Self::Done];
}

/// Operations `at..at + count` fail, the first with `outcome` and the others with `then`.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub at: usize,
    pub count: usize,
    pub outcome: Outcome,
    pub then: Outcome,
}

impl Fault {
    /// The machine stops in the middle of operation `at`: no later one has any effect.
    pub fn crash(at: usize, outcome: Outcome) -> Self {
        Self {
            at,
            count: usize::MAX,
            outcome,
            then: Outcome::Undone,
        }
    }

    fn outcome(self, operation: usize) -> Option<Outcome> {
        let fails = (self.at..self.at.saturating_add(self.count)).contains(&operation);
        fails.then_some(if operation == self.at { self.outcome } else { self.then })
    }
}

#[derive(Debug, Default)]
struct Tree {
    /// Files with their content, and directories.
    entries: BTreeMap<PathBuf, Option<Vec<u8>>>,
    operations: usize,
    fault: Option<Fault>,
    /// There is space for what makes room only.
    is_full: bool,
}

/// Clones are the same tree.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Rc<RefCell<Tree>>);

impl MemoryDisk {
    /// Plans a failure; operations are counted from 0 again.
    pub fn plan(&self, fault: Fault) {
        let mut tree = self.0.borrow_mut();
        tree.operations = 0;
        tree.fault = Some(fault);
    }

    /// From now on nothing finds space but what makes room.
    pub fn fill(&self) {
        self.0.borrow_mut().is_full = true;
    }

    /// Ends the failures, and says if there was any.
    pub fn heal(&self) -> bool {
        let mut tree = self.0.borrow_mut();
        let fault = tree.fault.take();
        fault.is_some_and(|fault| tree.operations > fault.at)
    }

    /// A copy that shares nothing.
    pub fn copy(&self) -> Self {
        let entries = self.0.borrow().entries.clone();
        Self(Rc::new(RefCell::new(Tree {
            entries,
            ..Tree::default()
        })))
    }

    /// All paths below `/data`.
    pub fn paths(&self) -> Vec<String> {
        let tree = self.0.borrow();
        let below = tree.entries.keys().filter_map(|path| path.strip_prefix("/data").ok());
        below
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| path.display().to_string())
            .collect()
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        self.0.borrow().entries[Path::new(path)].clone().expect("a file")
    }

    pub fn write(&self, path: &str, content: &[u8]) {
        self.0.borrow_mut().entries.insert(path.into(), Some(content.to_vec()));
    }

    pub fn remove(&self, path: &str) {
        self.0.borrow_mut().entries.retain(|entry, _| !entry.starts_with(path));
    }

    pub fn make_dir(&self, path: &str) {
        self.0.borrow_mut().entries.insert(path.into(), None);
    }

    /// Runs `effect` as far as the plan has it.
    fn operate<T>(&self, effect: impl FnOnce(&mut Tree, Outcome) -> io::Result<T>) -> io::Result<T> {
        let tree = &mut *self.0.borrow_mut();
        let number = tree.operations;
        tree.operations += 1;
        match tree.fault.and_then(|fault| fault.outcome(number)) {
            None => effect(tree, Outcome::Done),
            Some(outcome) => {
                if outcome != Outcome::Undone {
                    let _ = effect(tree, outcome);
                }
                Err(io::Error::other(format!("planned: operation {number} is {outcome:?}")))
            }
        }
    }
}

impl Directory for MemoryDisk {
    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        if self.0.borrow().is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.operate(|tree, outcome| {
            let mut missing: Vec<_> = path
                .ancestors()
                .filter(|path| !tree.entries.contains_key(*path))
                .collect();
            while let Some(path) = missing.pop() {
                tree.entries.insert(path.to_owned(), None);
                if outcome == Outcome::Partial {
                    break;
                }
            }
            Ok(())
        })
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.operate(|tree, _| {
            let children = tree.entries.iter().filter(|(entry, _)| entry.parent() == Some(path));
            let entries = children.map(|(path, content)| DirEntry {
                name: path.file_name().unwrap().to_str().unwrap().to_owned(),
                kind: content.as_ref().map_or(EntryKind::Directory, |_| EntryKind::File),
                size: content.as_ref().map_or(0, |content| content.len() as u64),
            });
            let mut entries: Vec<_> = entries.collect();
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        })
    }

    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.operate(|tree, _| {
            tree.entries
                .get(path)
                .cloned()
                .flatten()
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    async fn replace_file(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        if self.0.borrow().is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.replace_file_to_make_room(path, content).await
    }

    async fn replace_file_to_make_room(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        self.operate(|tree, outcome| {
            let temporary = PathBuf::from(format!("{}.tmp", path.display()));
            if outcome == Outcome::Partial {
                tree.entries
                    .insert(temporary, Some(content[..content.len() / 2].to_vec()));
            } else {
                tree.entries.remove(&temporary);
                tree.entries.insert(path.to_owned(), Some(content));
            }
            Ok(())
        })
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|tree, outcome| {
            let moved: Vec<_> = tree
                .entries
                .keys()
                .filter(|path| path.starts_with(from))
                .cloned()
                .collect();
            assert!(!moved.is_empty(), "{} is not there", from.display());
            // It is atomic: there is no part of it.
            for path in moved.into_iter().filter(|_| outcome == Outcome::Done) {
                let content = tree.entries.remove(&path).unwrap();
                let rest = path.strip_prefix(from).unwrap();
                let to = if rest.as_os_str().is_empty() {
                    to.to_owned()
                } else {
                    to.join(rest)
                };
                tree.entries.insert(to, content);
            }
            Ok(())
        })
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.operate(|tree, outcome| {
            if outcome == Outcome::Done {
                tree.entries.remove(path);
            }
            Ok(())
        })
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.operate(|tree, outcome| {
            let mut below: Vec<_> = tree
                .entries
                .keys()
                .filter(|entry| entry.starts_with(path))
                .cloned()
                .collect();
            while let Some(entry) = below.pop() {
                tree.entries.remove(&entry);
                if outcome == Outcome::Partial {
                    break;
                }
            }
            Ok(())
        })
    }
}
