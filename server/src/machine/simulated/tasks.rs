//! The tasks of a world, by their places, and what is planned: both are asked at every step.

use std::{
    cmp::{Ordering as Order, Reverse},
    collections::BinaryHeap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use super::world::{Happening, ProcessId};

/// A task: its place, and a number that is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskId {
    place: usize,
    number: u64,
}

/// Those that are to be polled.
pub(super) type Ready = Arc<Mutex<Vec<TaskId>>>;

pub(super) struct Task {
    pub(super) process: ProcessId,
    pub(super) future: Pin<Box<dyn Future<Output = ()>>>,
    pub(super) flag: Arc<Flag>,
}

/// Puts its task among those that are ready, once.
pub(super) struct Flag {
    pub(super) task: TaskId,
    is_ready: AtomicBool,
    ready: Ready,
}

impl Flag {
    /// Of a task that is ready.
    pub(super) fn raised(task: TaskId, ready: &Ready) -> Arc<Flag> {
        let flag = Arc::new(Flag {
            task,
            is_ready: AtomicBool::new(false),
            ready: Arc::clone(ready),
        });
        Arc::clone(&flag).wake();
        flag
    }

    /// The task is about to be polled.
    pub(super) fn lower(&self) {
        self.is_ready.store(false, Ordering::Relaxed);
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.push(self.task);
        }
    }
}

/// All tasks. That of a place is away while it is polled.
#[derive(Default)]
pub(super) struct Tasks {
    places: Vec<(u64, Option<Task>)>,
    free: Vec<usize>,
}

impl Tasks {
    /// A place for the task of this number.
    pub(super) fn reserve(&mut self, number: u64) -> TaskId {
        let place = self.free.pop().unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push((number, None));
        } else {
            self.places[place] = (number, None);
        }
        TaskId { place, number }
    }

    /// The task is at its place, for the first time or again.
    pub(super) fn put(&mut self, id: TaskId, task: Task) {
        self.places[id.place].1 = Some(task);
    }

    /// Takes the task away to poll it, if it is there.
    pub(super) fn take(&mut self, id: TaskId) -> Option<Task> {
        let (number, task) = &mut self.places[id.place];
        task.take_if(|_| *number == id.number)
    }

    /// The task has ended; its place is another's.
    pub(super) fn has_ended(&mut self, id: TaskId) {
        self.free.push(id.place);
    }

    /// Takes away all tasks of a process, in the order in which they began.
    pub(super) fn take_all_of(&mut self, process: ProcessId) -> Vec<Task> {
        let mut taken = Vec::new();
        for (place, (number, task)) in self.places.iter_mut().enumerate() {
            if let Some(task) = task.take_if(|task| task.process == process) {
                taken.push((*number, task));
                self.free.push(place);
            }
        }
        taken.sort_by_key(|(number, _)| *number);
        taken.into_iter().map(|(_, task)| task).collect()
    }
}

/// A place in the agenda.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    at: Duration,
    number: u64,
    place: usize,
    /// The time in nanoseconds and then the number, as entries are compared more often than anything else is done.
    order: u128,
}

impl Entry {
    fn new(at: Duration, number: u64, place: usize) -> Entry {
        let order = at.as_nanos().min(u64::MAX.into()) << u64::BITS | u128::from(number);
        Entry {
            at,
            number,
            place,
            order,
        }
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Order {
        self.order.cmp(&other.order)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Order> {
        Some(self.cmp(other))
    }

    fn lt(&self, other: &Entry) -> bool {
        self.order < other.order
    }

    fn le(&self, other: &Entry) -> bool {
        self.order <= other.order
    }
}

/// The agenda is looked through when this many of it are forgotten, and they are most of it.
const FORGOTTEN_MAX: usize = 64;

/// What happens when.
#[derive(Default)]
pub(super) struct Agenda {
    /// With those that were forgotten since.
    order: BinaryHeap<Reverse<Entry>>,
    forgotten: usize,
    places: Vec<(u64, Option<Happening>)>,
    free: Vec<usize>,
}

impl Agenda {
    /// Plans it for then. Of what is planned for one time that comes first whose number is lower.
    pub(super) fn plan(&mut self, at: Duration, number: u64, what: Happening) -> Entry {
        let place = self.free.pop().unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push((number, Some(what)));
        } else {
            self.places[place] = (number, Some(what));
        }
        let entry = Entry::new(at, number, place);
        self.order.push(Reverse(entry));
        entry
    }

    /// Takes out what was planned, unless it has happened.
    pub(super) fn forget(&mut self, entry: Entry) -> Option<Happening> {
        let forgotten = self.take(entry);
        self.forgotten += usize::from(forgotten.is_some());
        if self.forgotten > FORGOTTEN_MAX.max(self.order.len() / 2) {
            // Mostly limits of what has long ended.
            let places = &self.places;
            let is_planned = |entry: &Entry| {
                let (number, what) = &places[entry.place];
                *number == entry.number && what.is_some()
            };
            self.order.retain(|Reverse(entry)| is_planned(entry));
            self.forgotten = 0;
        }
        forgotten
    }

    fn take(&mut self, entry: Entry) -> Option<Happening> {
        let (number, what) = self.places.get_mut(entry.place)?;
        let forgotten = what.take_if(|_| *number == entry.number);
        if forgotten.is_some() {
            self.free.push(entry.place);
        }
        forgotten
    }

    /// Takes out what is first, if it is not later than that, and when it is to be.
    pub(super) fn pop_before(&mut self, limit: Duration) -> Option<(Duration, Happening)> {
        loop {
            let Reverse(first) = *self.order.peek()?;
            if first.at > limit {
                return None;
            }
            self.order.pop();
            match self.take(first) {
                Some(what) => return Some((first.at, what)),
                None => self.forgotten = self.forgotten.saturating_sub(1),
            }
        }
    }
}

/// The waker of a task.
pub(super) fn waker(flag: &Arc<Flag>) -> Waker {
    Waker::from(Arc::clone(flag))
}
