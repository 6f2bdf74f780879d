//! The simulated directory tree. Names are durable as soon as they change: what a crash does to an operation on names
//! that was under way is decided by `world`.

use std::{
    collections::BTreeMap,
    io,
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
    nodes: BTreeMap<PathBuf, Node>,
}

impl Names {
    fn is_directory(&self, path: &Path) -> bool {
        path.parent().is_none() || matches!(self.nodes.get(path), Some(Node::Directory))
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
        if let Some(Node::File(_)) = self.nodes.get(path) {
            return Err(already_there(path));
        }
        self.nodes.insert(path.to_path_buf(), Node::Directory);
        Ok(())
    }

    pub fn file(&self, path: &Path) -> io::Result<FileRef> {
        match self.nodes.get(path) {
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
        self.nodes.insert(path.to_path_buf(), Node::File(file));
        Ok(())
    }

    pub fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        match self.nodes.get(path) {
            Some(Node::Directory) => return Err(is_a_directory(path)),
            Some(Node::File(_)) => self.nodes.remove(path),
            None => None,
        };
        Ok(())
    }

    /// The directory and all below it, innermost first, so that removing any prefix of the list leaves a tree.
    pub fn below(&self, path: &Path) -> Vec<PathBuf> {
        let mut below: Vec<PathBuf> = self.under(path).map(|(name, _)| name.clone()).collect();
        below.reverse();
        below
    }

    pub fn remove(&mut self, path: &Path) {
        self.nodes.remove(path);
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.nodes.contains_key(from) {
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
            let (Ok(rest), Some(node)) = (name.strip_prefix(from), self.nodes.remove(&name)) else {
                continue;
            };
            // Joining an empty rest would add a trailing slash.
            let name = if rest.as_os_str().is_empty() {
                to.to_path_buf()
            } else {
                to.join(rest)
            };
            self.nodes.insert(name, node);
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
    pub fn files_mut(&mut self) -> impl Iterator<Item = (&PathBuf, &mut FileRef)> {
        self.nodes.iter_mut().filter_map(|(path, node)| match node {
            Node::File(file) => Some((path, file)),
            Node::Directory => None,
        })
    }

    /// `path` itself and everything below it, in order; paths sort by their components.
    fn under(&self, path: &Path) -> impl Iterator<Item = (&PathBuf, &Node)> {
        self.nodes
            .range(path.to_path_buf()..)
            .take_while(move |(name, _)| name.starts_with(path))
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
