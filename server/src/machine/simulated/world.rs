//! The world: its processes and their tasks, and the agenda of what happens when.

use std::{
    cell::{Cell, RefCell},
    fmt::Display,
    future::Future,
    net::IpAddr,
    pin::pin,
    rc::Rc,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use rand::{
    RngExt as _, SeedableRng as _,
    distr::{
        Distribution, StandardUniform,
        uniform::{SampleRange, SampleUniform},
    },
    rngs::SmallRng,
};

use super::{
    Here,
    clock::Clock,
    host::Hosts,
    net::{End, Net},
    tasks::{Agenda, Entry, Flag, Ready, Task, TaskId, Tasks, waker},
};

/// Worlds begin when their clocks have run for a while, so that any time can be subtracted from.
const BEGINNING: Duration = Duration::from_hours(24);

/// Of a world in which tasks do nothing but wake each other.
const POLLS_MAX: u64 = 20_000_000;

/// One run of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId(usize);

/// What is planned.
pub(crate) enum Happening {
    Wake(Waker),
    /// The disk of this number completes an operation.
    Disk(usize),
    /// The oldest packet that this end has sent arrives.
    Packet(Rc<End>),
}

/// Why a world did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stuck {
    #[error("no task is ready and nothing is planned: a wake-up was lost, or tasks wait for each other")]
    Deadlock,
    #[error("tasks wake each other without end")]
    Livelock,
    #[error("it takes longer than it may")]
    Late,
}

struct Process {
    name: String,
    host: IpAddr,
    clock: Clock,
    /// None of its tasks runs before.
    frozen_until: Duration,
}

pub(crate) struct World {
    now: Cell<Duration>,
    random: RefCell<SmallRng>,
    /// What each poll takes at most, in microseconds: some seeds have a fast machine, some a slow one.
    poll_us_max: u64,
    polls: Cell<u64>,
    counter: Cell<u64>,
    tasks: RefCell<Tasks>,
    ready: Ready,
    agenda: RefCell<Agenda>,
    processes: RefCell<Vec<Process>>,
    pub(super) hosts: Hosts,
    pub(crate) net: Net,
    /// What happens is written down.
    is_told: Cell<bool>,
    history: RefCell<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Rc<World> {
        let mut random = SmallRng::seed_from_u64(seed);
        let poll_us_max = [0, 2, 20][random.random_range(0..3)];
        let net = Net::new(&mut random);
        Rc::new(World {
            now: Cell::new(BEGINNING),
            random: RefCell::new(random),
            poll_us_max,
            polls: Cell::new(0),
            counter: Cell::new(0),
            tasks: RefCell::default(),
            ready: Arc::default(),
            agenda: RefCell::default(),
            processes: RefCell::default(),
            hosts: Hosts::default(),
            net,
            is_told: Cell::default(),
            history: RefCell::default(),
        })
    }

    /// How long the world has been there.
    pub(crate) fn now(&self) -> Duration {
        self.now.get()
    }

    pub(crate) fn random<T>(&self) -> T
    where
        StandardUniform: Distribution<T>,
    {
        self.random.borrow_mut().random()
    }

    pub(crate) fn draw<T: SampleUniform>(&self, range: impl SampleRange<T>) -> T {
        self.random.borrow_mut().random_range(range)
    }

    pub(crate) fn chance(&self, probability: f64) -> bool {
        self.random.borrow_mut().random_bool(probability)
    }

    /// Chance for what is drawn without changing anything that is drawn later.
    pub(crate) fn draws_beside(&self) -> impl FnMut(std::ops::Range<usize>) -> usize {
        let next: u64 = self.random.borrow().clone().random();
        let mut beside = SmallRng::seed_from_u64(!next);
        move |range| beside.random_range(range)
    }

    /// Begins a process on a host.
    pub(crate) fn process(&self, name: impl Into<String>, host: IpAddr, clock: Clock) -> ProcessId {
        let mut processes = self.processes.borrow_mut();
        processes.push(Process {
            name: name.into(),
            host,
            clock,
            frozen_until: Duration::ZERO,
        });
        ProcessId(processes.len() - 1)
    }

    pub(crate) fn clock(&self, process: ProcessId) -> Clock {
        self.processes.borrow()[process.0].clock
    }

    pub(crate) fn set_clock(&self, process: ProcessId, clock: Clock) {
        self.processes.borrow_mut()[process.0].clock = clock;
    }

    /// Lets the process stand still for so long, as a stopped one does, or one whose machine has stopped. Others find it silent.
    pub(crate) fn freeze(&self, process: ProcessId, duration: Duration) {
        self.processes.borrow_mut()[process.0].frozen_until = self.now() + duration;
    }

    /// Whether the process stands still.
    pub(crate) fn is_frozen(&self, process: ProcessId) -> bool {
        self.processes.borrow()[process.0].frozen_until > self.now()
    }

    pub(crate) fn host_of(&self, process: ProcessId) -> IpAddr {
        self.processes.borrow()[process.0].host
    }

    /// From now on there is a history. Nothing else depends on it.
    pub(crate) fn is_to_be_told(&self) {
        self.is_told.set(true);
    }

    /// Writes a line into the history, if there is one.
    pub(crate) fn tell(&self, process: Option<ProcessId>, line: impl Display) {
        if !self.is_told.get() {
            return;
        }
        let at = self.now().saturating_sub(BEGINNING).as_secs_f64();
        let name = process.map_or_else(
            || "world".to_owned(),
            |process| self.processes.borrow()[process.0].name.clone(),
        );
        self.history.borrow_mut().push(format!("{at:12.6} {name:12} {line}"));
    }

    /// What has happened so far.
    pub(crate) fn history(&self) -> Vec<String> {
        self.history.borrow().clone()
    }

    pub(super) fn next_number(&self) -> u64 {
        self.counter.replace(self.counter.get() + 1)
    }

    pub(crate) fn spawn(&self, process: ProcessId, future: impl Future<Output = ()> + 'static) -> TaskId {
        let id = self.tasks.borrow_mut().reserve(self.next_number());
        let task = Task {
            process,
            future: Box::pin(future),
            flag: Flag::raised(id, &self.ready),
        };
        self.tasks.borrow_mut().put(id, task);
        id
    }

    /// Ends a task where it waits.
    pub(crate) fn cancel(self: &Rc<Self>, id: TaskId) {
        let task = self.tasks.borrow_mut().take(id);
        if let Some(task) = task {
            self.tasks.borrow_mut().has_ended(id);
            self.here(task.process).within(|| drop(task));
        }
    }

    /// Ends all tasks of a process where they wait. What they hold, sockets too, goes with them.
    pub(crate) fn end(self: &Rc<Self>, process: ProcessId) {
        loop {
            let ended = self.tasks.borrow_mut().take_all_of(process);
            if ended.is_empty() {
                return;
            }
            // The last that is dropped may begin others.
            self.here(process).within(|| drop(ended));
        }
    }

    /// Ends everything.
    pub(crate) fn end_all(self: &Rc<Self>) {
        for process in 0..self.processes.borrow().len() {
            self.end(ProcessId(process));
        }
        let agenda = self.agenda.take();
        drop(agenda);
    }

    fn here(self: &Rc<Self>, process: ProcessId) -> Here {
        Here {
            world: Rc::clone(self),
            process,
        }
    }

    pub(crate) fn plan(&self, at: Duration, what: Happening) -> Entry {
        self.agenda.borrow_mut().plan(at, self.next_number(), what)
    }

    pub(crate) fn plan_in(&self, after: Duration, what: Happening) -> Entry {
        self.plan(self.now() + after, what)
    }

    pub(crate) fn forget(&self, entry: Entry) {
        let forgotten = self.agenda.borrow_mut().forget(entry);
        drop(forgotten);
    }

    /// Runs a future as a process, and all tasks meanwhile, for at most so long.
    pub(crate) fn run<T>(
        self: &Rc<Self>,
        process: ProcessId,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Stuck> {
        let mut future = pin!(future);
        let id = self.tasks.borrow_mut().reserve(self.next_number());
        let flag = Flag::raised(id, &self.ready);
        let end = self.now() + limit;
        loop {
            self.begin_due();
            if self.now() > end {
                return Err(Stuck::Late);
            }
            let Some(id) = self.take_ready() else {
                self.wait()?;
                continue;
            };
            self.polls.set(self.polls.get() + 1);
            if self.polls.get() > POLLS_MAX {
                return Err(Stuck::Livelock);
            }
            if id == flag.task {
                flag.lower();
                let waker = waker(&flag);
                let polled = self
                    .here(process)
                    .within(|| future.as_mut().poll(&mut Context::from_waker(&waker)));
                if let Poll::Ready(value) = polled {
                    return Ok(value);
                }
                self.hosts.pump(self, None);
            } else if let Some(host) = self.poll(id) {
                // What goes wrong with disks comes from the world's own host.
                let is_apart = host == self.host_of(process);
                self.hosts.pump(self, (!is_apart).then_some(host));
            }
            if self.poll_us_max > 0 {
                let took = Duration::from_micros(self.draw(0..=self.poll_us_max));
                self.now.set(self.now() + took);
            }
        }
    }

    fn take_ready(&self) -> Option<TaskId> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_empty() {
            return None;
        }
        let index = self.random.borrow_mut().random_range(0..ready.len());
        Some(ready.swap_remove(index))
    }

    /// Polls a task, if it is there, and says where.
    fn poll(self: &Rc<Self>, id: TaskId) -> Option<IpAddr> {
        let task = self.tasks.borrow_mut().take(id);
        // It may have been ended since it was woken.
        let mut task = task?;
        let host = self.host_of(task.process);
        task.flag.lower();
        let waker = waker(&task.flag);
        let frozen_until = self.processes.borrow()[task.process.0].frozen_until;
        if frozen_until > self.now() {
            self.plan(frozen_until, Happening::Wake(waker));
            self.tasks.borrow_mut().put(id, task);
            return None;
        }
        let mut polled = self.here(task.process).within(move || {
            let is_over = task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            if is_over { None } else { Some(task) }
        });
        let mut tasks = self.tasks.borrow_mut();
        match polled.take() {
            Some(task) => tasks.put(id, task),
            None => tasks.has_ended(id),
        }
        Some(host)
    }

    /// Lets time pass until something happens.
    fn wait(&self) -> Result<(), Stuck> {
        let Some((at, what)) = self.agenda.borrow_mut().pop_before(Duration::MAX) else {
            return Err(Stuck::Deadlock);
        };
        self.now.set(self.now().max(at));
        self.begin(what);
        Ok(())
    }

    /// Begins what is due.
    fn begin_due(&self) {
        while let Some((_, what)) = self.due() {
            self.begin(what);
        }
    }

    fn due(&self) -> Option<(Duration, Happening)> {
        self.agenda.borrow_mut().pop_before(self.now())
    }

    fn begin(&self, what: Happening) {
        match what {
            Happening::Wake(waker) => waker.wake(),
            Happening::Disk(disk) => self.hosts.complete_one(self, disk),
            Happening::Packet(end) => Net::arrive(self, &end),
        }
    }
}
