//! Which files of a core are open: no more descriptors than a limit, whatever is read and written.
//!
//! Every descriptor of a disk's files is counted for as long as it is open. A [`FileSlot`] holds a file that can be opened
//! again by its name, for as long as there is room. When there are more descriptors than the limit, or the process has none left,
//! slots that nobody uses give theirs up, those first that were not asked for in a while (the clock algorithm). A file that
//! somebody uses stays open and counts, so what is under way at once may exceed the limit.
//!
//! Owned by one core.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    ops::AsyncFnMut,
    rc::{Rc, Weak},
};

use super::{SegmentFile, is_out_of_files};

/// Descriptors if nobody says: half of what a process may have open by default.
const LIMIT: usize = 512;

/// The open files of one core.
#[derive(Debug)]
pub struct OpenFiles {
    limit: Cell<usize>,
    /// Descriptors.
    open: Cell<usize>,
    opened: Cell<u64>,
    evicted: Cell<u64>,
    /// Slots with a file, by the order in which it was opened.
    slots: RefCell<BTreeMap<u64, Weak<dyn Evict>>>,
    /// The slot that is looked at next is this one, or the first after it.
    hand: Cell<u64>,
    next: Cell<u64>,
}

impl Default for OpenFiles {
    fn default() -> OpenFiles {
        OpenFiles {
            limit: Cell::new(LIMIT),
            open: Cell::new(0),
            opened: Cell::new(0),
            evicted: Cell::new(0),
            slots: RefCell::default(),
            hand: Cell::new(0),
            next: Cell::new(0),
        }
    }
}

impl OpenFiles {
    /// Sets how many descriptors may be open while nobody uses more.
    pub fn set_limit(&self, descriptors: usize) {
        self.limit.set(descriptors);
        self.keep_to_limit();
    }

    /// The limit.
    pub fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Descriptors that are open.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Descriptors that were opened so far.
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// Files that were closed so far to make room for others.
    pub fn evicted(&self) -> u64 {
        self.evicted.get()
    }

    /// Closes a file that nobody uses. False if there is none.
    pub fn give_way(&self) -> bool {
        // Twice round: the first time only takes the mark from those that were asked for.
        let most = 2 * self.slots.borrow().len();
        for _ in 0..most {
            if self.turn().is_some_and(|slot| slot.give_way()) {
                self.evicted.set(self.evicted.get() + 1);
                return true;
            }
        }
        false
    }

    /// Opens something else that needs a descriptor, such as a socket. While the process has none left, files that nobody uses give
    /// way and it is tried again.
    pub fn make_room_for<T>(&self, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                Err(error) if is_out_of_files(&error) && self.give_way() => {}
                opened => return opened,
            }
        }
    }

    /// The same for who can wait: the kernel may close a file a little after it gave way.
    pub async fn wait_for_room<T>(
        &self,
        mut open: impl FnMut() -> io::Result<T>,
        mut pause: impl AsyncFnMut(),
    ) -> io::Result<T> {
        loop {
            match open() {
                Err(error) if is_out_of_files(&error) && self.give_way() => pause().await,
                opened => return opened,
            }
        }
    }

    /// The same for what waits.
    pub(super) async fn with_descriptor<T>(&self, mut operation: impl AsyncFnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match operation().await {
                Err(error) if is_out_of_files(&error) && self.give_way() => {}
                done => return done,
            }
        }
    }

    /// Counts a descriptor that was just opened; others give way if that is one too many.
    pub(super) fn count(self: &Rc<Self>) -> Descriptor {
        self.open.set(self.open.get() + 1);
        self.opened.set(self.opened.get() + 1);
        self.keep_to_limit();
        Descriptor(Rc::clone(self))
    }

    fn keep_to_limit(&self) {
        while self.open.get() > self.limit.get() && self.give_way() {}
    }

    fn turn(&self) -> Option<Rc<dyn Evict>> {
        let slots = self.slots.borrow();
        let next = slots.range(self.hand.get()..).next();
        let (number, slot) = next.or_else(|| slots.first_key_value())?;
        self.hand.set(number + 1);
        slot.upgrade()
    }

    fn enlist(self: &Rc<Self>, slot: Weak<dyn Evict>) -> Enlisted {
        let number = self.next.replace(self.next.get() + 1);
        self.slots.borrow_mut().insert(number, slot);
        let files = Rc::clone(self);
        Enlisted { files, number }
    }
}

/// A descriptor that counts for as long as this lives.
#[derive(Debug)]
pub(super) struct Descriptor(Rc<OpenFiles>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

trait Evict {
    /// Closes the file if nobody uses it, nor has asked for it since this was called last. Returns whether it did.
    fn give_way(&self) -> bool;
}

/// A slot's place among those that may give way.
#[derive(Debug)]
struct Enlisted {
    files: Rc<OpenFiles>,
    number: u64,
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.files.slots.borrow_mut().remove(&self.number);
    }
}

/// A file that is open as long as there is room for it, or, if it is kept, as long as the slot lives.
#[derive(Debug)]
pub(crate) struct FileSlot<F> {
    file: RefCell<Option<(F, Enlisted)>>,
    asked: Cell<bool>,
    kept: Cell<bool>,
}

impl<F: SegmentFile> FileSlot<F> {
    pub(crate) fn new() -> Rc<FileSlot<F>> {
        Rc::new(FileSlot {
            file: RefCell::new(None),
            asked: Cell::new(false),
            kept: Cell::new(false),
        })
    }

    /// The file, if it is open.
    pub(crate) fn get(&self) -> Option<F> {
        self.asked.set(true);
        self.file.borrow().as_ref().map(|(file, _)| file.clone())
    }

    /// Puts in an open file.
    pub(crate) fn put(self: &Rc<Self>, file: F, files: &Rc<OpenFiles>) {
        let slot: Rc<dyn Evict> = Rc::clone(self) as Rc<dyn Evict>;
        let enlisted = files.enlist(Rc::downgrade(&slot));
        self.asked.set(true);
        let before = self.file.borrow_mut().replace((file, enlisted));
        drop(before);
    }

    /// Closes it as soon as nobody uses it any more.
    pub(crate) fn close(&self) {
        let file = self.file.borrow_mut().take();
        drop(file);
    }

    /// Whether it stays, whatever the limit: it could not be opened again.
    pub(crate) fn keep(&self, kept: bool) {
        self.kept.set(kept);
    }
}

impl<F: SegmentFile> Evict for FileSlot<F> {
    fn give_way(&self) -> bool {
        if self.asked.take() || self.kept.get() {
            return false;
        }
        let is_used = self.file.borrow().as_ref().is_none_or(|(file, _)| file.is_shared());
        if !is_used {
            self.close();
        }
        !is_used
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures::executor::block_on;

    use super::*;
    use crate::disk::{Disk as _, Fault, OpKind, SimDisk, SimFile};

    fn disk(limit: usize) -> SimDisk {
        let disk = SimDisk::new(1);
        disk.open_files().set_limit(limit);
        disk
    }

    fn open(disk: &SimDisk, number: usize) -> SimFile {
        block_on(disk.open(Path::new(&format!("/{number}")), true)).unwrap()
    }

    fn slots(disk: &SimDisk, count: usize) -> Vec<Rc<FileSlot<SimFile>>> {
        let fill = |number| {
            let slot = FileSlot::new();
            slot.put(open(disk, number), disk.open_files());
            slot
        };
        (0..count).map(fill).collect()
    }

    fn is_open(slot: &FileSlot<SimFile>) -> bool {
        slot.file.borrow().is_some()
    }

    #[test]
    fn those_that_are_asked_for_stay_and_the_others_give_way() {
        let disk = disk(4);
        let slots = slots(&disk, 4);
        for number in 4..20 {
            // Whoever comes round first has taken all marks.
            assert!(slots[1].get().is_some(), "file {number}");
            let other = FileSlot::new();
            other.put(open(&disk, number), disk.open_files());
            assert_eq!(disk.open_files().open(), 4);
        }
        assert!(is_open(&slots[1]) && !is_open(&slots[0]));
    }

    #[test]
    fn what_is_used_or_kept_stays_open_and_counts_beyond_the_limit() {
        let disk = disk(2);
        let (files, slots) = (disk.open_files(), slots(&disk, 2));
        let used = slots[0].get().unwrap();
        slots[1].keep(true);
        let others: Vec<_> = (2..5).map(|number| open(&disk, number)).collect();
        assert!(slots.iter().all(|slot| is_open(slot)));
        assert_eq!(files.open(), 5);
        assert!(!files.give_way());
        drop(used);
        assert!(files.give_way() && !is_open(&slots[0]));
        assert!(!files.give_way());
        slots[1].keep(false);
        assert!(files.give_way() && !is_open(&slots[1]));
        drop(others);
        assert_eq!((files.open(), files.opened(), files.evicted()), (0, 5, 2));
    }

    #[test]
    fn slots_that_are_closed_or_gone_leave_nothing_behind() {
        let disk = disk(100);
        let slots = slots(&disk, 3);
        slots[0].close();
        slots[1].put(open(&disk, 1), disk.open_files());
        assert_eq!(disk.open_files().slots.borrow().len(), 2);
        drop(slots);
        assert!(disk.open_files().slots.borrow().is_empty());
        assert_eq!(disk.open_files().open(), 0);
    }

    #[test]
    fn without_a_descriptor_files_give_way_until_there_is_one_or_no_file_is_left() {
        let disk = disk(100);
        let slots = slots(&disk, 3);
        disk.fail_nth(OpKind::Open, 0, Fault::OutOfFiles);
        disk.fail_nth(OpKind::Open, 1, Fault::OutOfFiles);
        let file = open(&disk, 0);
        assert_eq!(slots.iter().filter(|slot| is_open(slot)).count(), 1);
        disk.fail_randomly(OpKind::Open, 1.0, Fault::OutOfFiles);
        let refused = block_on(disk.open(Path::new("/1"), false)).unwrap_err();
        assert!(is_out_of_files(&refused));
        assert_eq!(
            (
                slots.iter().filter(|slot| is_open(slot)).count(),
                disk.open_files().open()
            ),
            (0, 1)
        );
        drop(file);
    }

    #[test]
    fn who_waits_until_a_file_is_closed_lets_no_other_give_way() {
        let disk = disk(100);
        let slots = slots(&disk, 3);
        let closed = Cell::new(false);
        let open = || {
            if closed.get() {
                return Ok(());
            }
            Err(io::Error::from(rustix::io::Errno::MFILE))
        };
        let opened = disk.open_files().wait_for_room(open, async || closed.set(true));
        block_on(opened).unwrap();
        assert_eq!(slots.iter().filter(|slot| is_open(slot)).count(), 2);
    }
}
