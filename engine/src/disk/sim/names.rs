//! The simulated directory tree. Names are durable as soon as they change: what a crash does to an operation on names
//! that was under way is decided by `world`.

use std::{
    collections::BTreeMap,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::file::FileRef;
use crate::disk::{DirEntry, EntryKind};

#[derive(Debug, Clone)]
pub(super) enum Node {
    Directory,
    File(FileRef),
}

/// Every name there is. The root, and the place that relative paths start from, exist always.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    nodes: BTreeMap<Key, (PathBuf, Node)>,
}

/// A path whose separators sort before all else: in the order of paths, and compared much faster than these.
type Key = Vec<u8>;

fn key(path: &Path) -> Key {
    let separator = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    let mut key: Key = path.as_os_str().as_bytes().iter().map(separator).collect();
    // Of the root.
    if key.last() == Some(&0) {
        key.pop();
    }
    key
}

impl Names {
    fn get(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(&key(path)).map(|(_, node)| node)
    }

    fn insert(&mut self, path: PathBuf, node: Node) {
        self.nodes.insert(key(&path), (path, node));
    }

    fn is_directory(&self, path: &Path) -> bool {
        match self.get(path) {
            Some(node) => matches!(node, Node::Directory),
            None => path.parent().is_none(),
        }
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if self.is_directory(parent) => Ok(()),
            _ => Err(not_found(path)),
        }
    }

    /// The directories that `create_dir` has to make, outermost first.
    pub fn missing(&self, path: &Path) -> Vec<PathBuf> {
        let mut missing: Vec<PathBuf> = path
            .ancestors()
            .filter(|ancestor| !self.is_directory(ancestor))
            .map(Path::to_path_buf)
            .collect();
        missing.reverse();
        missing
    }

    pub fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.check_parent(path)?;
        if let Some(Node::File(_)) = self.get(path) {
            return Err(already_there(path));
        }
        self.insert(path.to_path_buf(), Node::Directory);
        Ok(())
    }

    pub fn file(&self, path: &Path) -> io::Result<FileRef> {
        match self.get(path) {
            Some(Node::File(file)) => Ok(Rc::clone(file)),
            Some(Node::Directory) => Err(is_a_directory(path)),
            None => Err(not_found(path)),
        }
    }

    /// Gives the name to `file`, taking it from the file that had it.
    pub fn put(&mut self, path: &Path, file: FileRef) -> io::Result<()> {
        self.check_parent(path)?;
        if self.is_directory(path) {
            return Err(is_a_directory(path));
        }
        self.insert(path.to_path_buf(), Node::File(file));
        Ok(())
    }

    pub fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        match self.get(path) {
            Some(Node::Directory) => return Err(is_a_directory(path)),
            Some(Node::File(_)) => self.remove(path),
            None => {}
        }
        Ok(())
    }

    /// The directory and all below it, innermost first, so that removing any prefix of the list leaves a tree.
    pub fn below(&self, path: &Path) -> Vec<PathBuf> {
        let mut below: Vec<PathBuf> = self.under(path).map(|(name, _)| name.clone()).collect();
        below.reverse();
        below
    }

    pub fn remove(&mut self, path: &Path) {
        self.nodes.remove(&key(path));
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.nodes.contains_key(&key(from)) {
            return Err(not_found(from));
        }
        self.check_parent(to)?;
        if self.is_directory(to) && self.under(to).count() > 1 {
            return Err(io::Error::new(
                io::ErrorKind::DirectoryNotEmpty,
                format!("{} is not empty", to.display()),
            ));
        }
        for name in self.below(from).into_iter().rev() {
            let (Ok(rest), Some((_, node))) = (name.strip_prefix(from), self.nodes.remove(&key(&name))) else {
                continue;
            };
            // Joining an empty rest would add a trailing slash.
            let name = if rest.as_os_str().is_empty() {
                to.to_path_buf()
            } else {
                to.join(rest)
            };
            self.insert(name, node);
        }
        Ok(())
    }

    pub fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        if !self.is_directory(path) {
            return Err(not_found(path));
        }
        let children = self.under(path).filter(|(name, _)| name.parent() == Some(path));
        Ok(children.filter_map(|(name, node)| entry(name, node)).collect())
    }

    /// All files and their paths.
    pub fn files_mut(&mut self) -> impl Iterator<Item = (&mut PathBuf, &mut FileRef)> {
        self.nodes.values_mut().filter_map(|(path, node)| match node {
            Node::File(file) => Some((path, file)),
            Node::Directory => None,
        })
    }

    /// `path` itself and everything below it, in order.
    fn under(&self, path: &Path) -> impl Iterator<Item = (&PathBuf, &Node)> {
        let first = key(path);
        let rest = self.nodes.range(first.clone()..);
        // What has the path's name at the beginning of a longer one is no part of it.
        let below = rest.take_while(move |(name, _)| {
            let behind = name.strip_prefix(&first[..]);
            behind.is_some_and(|behind| first.is_empty() || behind.first().is_none_or(|next| *next == 0))
        });
        below.map(|(_, (path, node))| (path, node))
    }
}

fn entry(name: &Path, node: &Node) -> Option<DirEntry> {
    let (kind, size) = match node {
        Node::Directory => (EntryKind::Directory, 0),
        Node::File(file) => (EntryKind::File, file.borrow().size()),
    };
    let name = name.file_name()?.to_str()?.to_owned();
    Some(DirEntry { name, kind, size })
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

fn is_a_directory(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::IsADirectory,
        format!("{} is a directory", path.display()),
    )
}

fn already_there(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("{} is there already, and is of another kind", path.display()),
    )
}
