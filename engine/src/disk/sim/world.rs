//! The simulated machine's disk: operations under way, the order in which they complete, and what each does when it
//! completes, fails, or is cut short by a crash.
//!
//! All decisions come from one seeded generator, so that a run is a function of the seed and of what the caller does.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    task::Waker,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    content::Content,
    faults::{Fault, Faults, OpKind},
    file::{Change, File, FileRef, Usage},
    names::Names,
    operation::{Operation, Output},
    tear::{blend, tear},
};

/// Number of an operation, in the order in which they started.
pub(super) type OpNumber = u64;

/// An operation that has started and not completed.
#[derive(Debug)]
struct InFlight {
    operation: Operation,
    fault: Option<Fault>,
    waker: Option<Waker>,
    /// Nobody waits for it any more; it completes all the same.
    abandoned: bool,
}

#[derive(Debug)]
pub(super) struct World {
    pub rng: StdRng,
    pub faults: Faults,
    pub capacity: Option<u64>,
    /// Bytes beyond the capacity that a change which makes room may use.
    pub reserve: u64,
    /// Operations complete when an executor says so, rather than by being polled.
    pub stepped: bool,
    /// How often work was handed to another thread.
    pub asides: u64,
    crashed: bool,
    names: Names,
    usage: Usage,
    in_flight: BTreeMap<OpNumber, InFlight>,
    completed: BTreeMap<OpNumber, io::Result<Output>>,
    started: OpNumber,
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            rng: StdRng::seed_from_u64(seed),
            faults: Faults::default(),
            capacity: None,
            reserve: 0,
            stepped: false,
            asides: 0,
            crashed: false,
            names: Names::default(),
            usage: Rc::new(Cell::new(0)),
            in_flight: BTreeMap::new(),
            completed: BTreeMap::new(),
            started: 0,
        }
    }

    pub fn used(&self) -> u64 {
        self.usage.get()
    }

    pub fn crashed(&self) -> bool {
        self.crashed
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Starts an operation.
    ///
    /// # Panics
    /// When the operation breaks a rule that [`SimDisk`](super::SimDisk) states for its callers.
    pub fn start(&mut self, mut operation: Operation) -> OpNumber {
        let number = self.started;
        self.started += 1;
        if self.crashed {
            return number;
        }
        for other in self.in_flight.values() {
            operation.check_beside(&other.operation);
        }
        operation.begin(&mut self.rng);
        let (fault, crash) = self.faults.start(operation.kind(), &mut self.rng);
        let in_flight = InFlight {
            operation,
            fault,
            waker: None,
            abandoned: false,
        };
        self.in_flight.insert(number, in_flight);
        if crash {
            self.power_off();
        }
        number
    }

    /// Nothing completes from now on; everyone who waits is woken to be told.
    pub fn power_off(&mut self) {
        self.crashed = true;
        for in_flight in self.in_flight.values_mut() {
            if let Some(waker) = in_flight.waker.take() {
                waker.wake();
            }
        }
    }

    /// The machine has not stopped after all; only those who waited are gone.
    pub fn power_on(&mut self) {
        self.crashed = false;
        self.faults.no_crash();
        self.completed.clear();
        for in_flight in self.in_flight.values_mut() {
            in_flight.abandoned = true;
        }
    }

    /// The result of an operation, if it has completed; else remembers whom to wake.
    pub fn take_result(&mut self, number: OpNumber, waker: &Waker) -> Option<io::Result<Output>> {
        if let Some(result) = self.completed.remove(&number) {
            return Some(result);
        }
        // An executor that steps polls nobody again; another one must be told, or it would wait for ever.
        if self.crashed && !self.stepped {
            return Some(Err(io::Error::other("the simulated machine has crashed")));
        }
        if let Some(in_flight) = self.in_flight.get_mut(&number) {
            in_flight.waker = Some(waker.clone());
        }
        None
    }

    /// Nobody will ask for the result.
    pub fn abandon(&mut self, number: OpNumber) {
        self.completed.remove(&number);
        if let Some(in_flight) = self.in_flight.get_mut(&number) {
            in_flight.abandoned = true;
        }
    }

    /// Completes one operation, if there is one. Returns whether, and whom to wake.
    pub fn complete_one(&mut self) -> (bool, Option<Waker>) {
        if self.crashed || self.in_flight.is_empty() {
            return (false, None);
        }
        let index = self.rng.random_range(0..self.in_flight.len());
        let number = *self
            .in_flight
            .keys()
            .nth(index)
            .expect("the index is below their number");
        let in_flight = self.in_flight.remove(&number).expect("its key was just read");
        let result = self.perform(in_flight.operation, in_flight.fault);
        if !in_flight.abandoned {
            self.completed.insert(number, result);
        }
        (true, in_flight.waker)
    }

    fn perform(&mut self, operation: Operation, fault: Option<Fault>) -> io::Result<Output> {
        match operation {
            Operation::Write {
                file,
                position,
                data,
                early,
                kind,
            } => {
                let bytes = blend(&mut self.rng, early, &data.to_vec());
                self.write(
                    &file,
                    Change::Write { position, bytes },
                    kind == OpKind::WriteDurable,
                    fault,
                )
            }
            Operation::Allocate { file, end } => self.write(&file, Change::Extend { size: end }, false, fault),
            Operation::Sync { file, covered } => {
                if let Some(fault) = fault {
                    file.borrow_mut().sync_failed(covered, &mut self.rng);
                    return Err(fault.to_error());
                }
                file.borrow_mut().synced(covered);
                Ok(Output::Done)
            }
            Operation::Truncate { file, size } => {
                if let Some(fault) = fault {
                    if self.rng.random_bool(0.5) {
                        let durable = self.rng.random_bool(0.5);
                        file.borrow_mut().truncate(size, durable);
                    }
                    return Err(fault.to_error());
                }
                file.borrow_mut().truncate(size, true);
                Ok(Output::Done)
            }
            reading if !reading.kind().changes() => match fault {
                Some(fault) => Err(fault.to_error()),
                None => self.look(reading),
            },
            naming => {
                let Some(fault) = fault else {
                    return self.rename(naming);
                };
                // A failed flush of a directory: the change may have been made all the same.
                if fault == Fault::InputOutput && self.rng.random_bool(0.5) {
                    self.rename(naming)?;
                }
                Err(fault.to_error())
            }
        }
    }

    fn write(&mut self, file: &FileRef, change: Change, durable: bool, fault: Option<Fault>) -> io::Result<Output> {
        let full = file.borrow().growth(change.end()) > self.room();
        let fault = fault.or(full.then_some(Fault::StorageFull));
        let Some(fault) = fault else {
            file.borrow_mut().change(change, durable);
            return Ok(Output::Done);
        };
        for part in change.torn(&mut self.rng) {
            if file.borrow().growth(part.end()) <= self.room() {
                file.borrow_mut().change(part, false);
            }
        }
        Err(fault.to_error())
    }

    fn room(&self) -> u64 {
        self.capacity
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    fn room_with_reserve(&self) -> u64 {
        let capacity = self.capacity.map(|capacity| capacity.saturating_add(self.reserve));
        capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    /// Operations that change nothing.
    fn look(&mut self, operation: Operation) -> io::Result<Output> {
        match operation {
            Operation::Read {
                file,
                position,
                length,
                early,
            } => {
                let bytes = early.unwrap_or_else(|| self.read(&file, position, length));
                Ok(Output::Bytes(bytes))
            }
            Operation::Size { file } => Ok(Output::Size(file.borrow().size())),
            Operation::List { path } => Ok(Output::Entries(self.names.list(&path)?)),
            Operation::ReadFile { path } => {
                let file = self.names.file(&path)?;
                let size = file.borrow().size();
                Ok(Output::Bytes(self.read(&file, 0, size as usize)))
            }
            other => unreachable!("{:?} changes something", other.kind()),
        }
    }

    /// What a reader sees now: where a write is under way, each sector old or new.
    fn read(&mut self, file: &FileRef, position: u64, length: usize) -> Vec<u8> {
        let mut bytes = file.borrow().read(position, length);
        for in_flight in self.in_flight.values() {
            let Operation::Write {
                file: written,
                position: start,
                data,
                ..
            } = &in_flight.operation
            else {
                continue;
            };
            if !Rc::ptr_eq(file, written) {
                continue;
            }
            let data = data.to_vec();
            for range in tear(&mut self.rng, data.len()) {
                for (at, byte) in range.clone().zip(&data[range]) {
                    let place = (start + at as u64).checked_sub(position);
                    if let Some(seen) = place.and_then(|place| bytes.get_mut(place as usize)) {
                        *seen = *byte;
                    }
                }
            }
        }
        bytes
    }

    /// Operations on names.
    fn rename(&mut self, operation: Operation) -> io::Result<Output> {
        match operation {
            Operation::Open { path, create } => match self.names.file(&path) {
                Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                    let file = self.new_file(&path, Content::default());
                    self.names.put(&path, Rc::clone(&file))?;
                    Ok(Output::File(file))
                }
                file => Ok(Output::File(file?)),
            },
            Operation::CreateDir { path } => {
                for missing in self.names.missing(&path) {
                    self.names.create_dir(&missing)?;
                }
                Ok(Output::Done)
            }
            Operation::ReplaceFile {
                path,
                content,
                makes_room,
            } => {
                let temporary = temporary(&path);
                // The temporary file of an earlier failure is overwritten.
                self.names.remove_file(&temporary)?;
                let room = if makes_room {
                    self.room_with_reserve()
                } else {
                    self.room()
                };
                let fitting = (content.len() as u64).min(room);
                if fitting < content.len() as u64 {
                    let file = self.new_file(&temporary, Content::of(&content[..fitting as usize]));
                    self.names.put(&temporary, file)?;
                    return Err(Fault::StorageFull.to_error());
                }
                let file = self.new_file(&path, Content::of(&content));
                self.names.put(&path, file)?;
                Ok(Output::Done)
            }
            Operation::Rename { from, to } => self.names.rename(&from, &to).map(|()| Output::Done),
            Operation::RemoveFile { path } => {
                self.names.remove_file(&path)?;
                Ok(Output::Done)
            }
            Operation::RemoveDirAll { path } => {
                for name in self.names.below(&path) {
                    self.names.remove(&name);
                }
                Ok(Output::Done)
            }
            other => unreachable!("{:?} has nothing to do with names", other.kind()),
        }
    }

    fn new_file(&self, path: &Path, content: Content) -> FileRef {
        let name = path.display().to_string();
        Rc::new(RefCell::new(File::new(name, content, &self.usage)))
    }

    /// The world after power was lost now and came back. This one is not changed.
    pub fn after_crash(&self, seed: u64) -> World {
        let mut after = World::new(seed);
        (after.capacity, after.reserve) = (self.capacity, self.reserve);
        after.names = self.names.clone();
        let mut rng = StdRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
        let mut under_way: Vec<&Operation> = self.in_flight.values().map(|in_flight| &in_flight.operation).collect();
        under_way.shuffle(&mut rng);
        after.copy_files(|file| {
            let writes = under_way
                .iter()
                .filter_map(|operation| operation.change_of(file, &mut rng))
                .collect();
            let mut content = file.borrow().after_crash(writes, &mut rng);
            for operation in &under_way {
                if let Some(size) = operation.cut_of(file)
                    && rng.random_bool(0.5)
                {
                    content.truncate(size);
                }
            }
            content
        });
        for operation in under_way {
            after.interrupt(operation, &mut rng);
        }
        after
    }

    /// The world after a crash that undid all that a crash may undo.
    pub fn certain(&self, seed: u64) -> World {
        let mut after = World::new(seed);
        (after.capacity, after.reserve) = (self.capacity, self.reserve);
        after.names = self.names.clone();
        after.copy_files(|file| file.borrow().certain());
        after
    }

    /// Replaces the files of another world, which the names refer to, by this world's own.
    fn copy_files(&mut self, mut content: impl FnMut(&FileRef) -> Content) {
        let usage = Rc::clone(&self.usage);
        for (path, file) in self.names.files_mut() {
            let name = path.display().to_string();
            let copy = File::new(name, content(file), &usage);
            *file = Rc::new(RefCell::new(copy));
        }
    }

    /// What is left of an operation on names that was under way when power was lost.
    fn interrupt(&mut self, operation: &Operation, rng: &mut StdRng) {
        let done = rng.random_bool(0.5);
        // What could not be done before the crash is not done by it either.
        let _ = match operation {
            Operation::CreateDir { path } => {
                let missing = self.names.missing(path);
                let made = rng.random_range(0..=missing.len());
                missing[..made].iter().try_for_each(|path| self.names.create_dir(path))
            }
            Operation::RemoveDirAll { path } => {
                let below = self.names.below(path);
                let removed = rng.random_range(0..=below.len());
                below[..removed].iter().for_each(|path| self.names.remove(path));
                Ok(())
            }
            Operation::ReplaceFile { path, content, .. } if !done => {
                let written = rng.random_range(0..=content.len());
                let temporary = temporary(path);
                let file = self.new_file(&temporary, Content::of(&content[..written]));
                self.names.put(&temporary, file)
            }
            Operation::Open { .. }
            | Operation::ReplaceFile { .. }
            | Operation::Rename { .. }
            | Operation::RemoveFile { .. }
                if done =>
            {
                self.rename(operation.clone()).map(drop)
            }
            _ => Ok(()),
        };
    }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}
