//! Those who take part in a run, and whether they are at work.

use std::{cell::Cell, rc::Rc, time::Duration};

use headwater_client::Assignor;
use headwater_engine::Signal;

use super::{
    client::Brokers,
    guests::{Admin, Book, Committer, Keeper, Member, Producer, Reader, Topics, Trimmer},
    house::CLIENT_PORTS,
    ledger::Ledger,
    scenario::{CALM_MAX, host},
    trouble::Guest,
};
use crate::machine::{
    self,
    simulated::{World, clock::Clock, net::Net},
};

/// How many take part, and how much they do.
#[derive(Clone, Copy)]
pub(super) struct Crowd {
    pub(super) producers_max: u32,
    /// Records of a producer, at most; and of one whose records each fill a block.
    pub(super) records_max: (u32, u32),
    /// A producer pauses for so long at most, in milliseconds, one as much as another.
    pub(super) pauses_ms: [u64; 3],
    pub(super) readers_max: u32,
}

/// Those who take part, each a process on a host of its own.
pub(super) struct Cast {
    world: Rc<World>,
    brokers: Brokers,
    partitions: i32,
    crowd: Crowd,
    pub(super) guests: Vec<Guest>,
    pub(super) ledger: Rc<Ledger>,
    pub(super) topics: Rc<Topics>,
    /// Of the one who keeps the compacted topic, if there is one.
    pub(super) book: Option<Rc<Book>>,
    pub(super) working: Rc<Working>,
    /// Those who change topics, delete records, or commit.
    administering: Rc<Working>,
    /// Nothing new is sent any more.
    pub(super) is_calm: Rc<Cell<bool>>,
    /// All that was sent is acknowledged.
    pub(super) is_written: Rc<Cell<bool>>,
    /// The run is over.
    pub(super) is_over: Rc<Cell<bool>>,
}

impl Cast {
    pub(super) fn new(brokers: &Brokers, partitions: i32, ledger: Ledger, crowd: Crowd) -> Cast {
        Cast {
            world: Rc::clone(ledger.world()),
            brokers: brokers.clone(),
            partitions,
            crowd,
            guests: Vec::new(),
            ledger: Rc::new(ledger),
            topics: Rc::default(),
            book: None,
            working: Rc::default(),
            administering: Rc::default(),
            is_calm: Rc::default(),
            is_written: Rc::default(),
            is_over: Rc::default(),
        }
    }

    fn enter(&mut self, name: String, part: impl Future<Output = ()> + 'static) -> Guest {
        let host = host(20 + self.guests.len() as u8);
        let process = self.world.process(name, host, Clock::default());
        self.world.spawn(process, part);
        let guest = Guest { host, process };
        self.guests.push(guest);
        guest
    }

    /// The same for whoever changes topics, deletes records, or commits.
    fn enter_to_administer(&mut self, name: &str, part: impl Future<Output = ()> + 'static) {
        let work = self.administering.begin();
        self.enter(name.to_owned(), async move {
            part.await;
            drop(work);
        });
    }

    /// Nobody begins anything any more, and what those who administer have begun is over.
    pub(super) async fn ends(&self) {
        self.is_over.set(true);
        let all = machine::until(machine::now() + CALM_MAX, self.administering.are_done()).await;
        assert!(
            all.is_some(),
            "an administrator is not answered, though nothing is wrong any more"
        );
    }

    /// Everybody is gone at once.
    pub(super) fn leave(&self) {
        for guest in &self.guests {
            self.world.end(guest.process);
        }
    }

    pub(super) fn producers(&mut self) {
        let (world, crowd) = (Rc::clone(&self.world), self.crowd);
        let is_even = world.chance(0.4);
        let records_max = if is_even {
            crowd.records_max.1
        } else {
            crowd.records_max.0
        };
        // Whose batches others could take the places of.
        let least = if is_even { 2 } else { 1 };
        for number in 0..world.draw(least..=crowd.producers_max) {
            let producer = Producer {
                number,
                // Batches of one size come from all to one partition.
                partition: if is_even { 0 } else { world.draw(0..self.partitions) },
                is_idempotent: world.chance(0.7),
                is_even,
                count: world.draw(records_max / 8..records_max),
                pause: Duration::from_millis(crowd.pauses_ms[world.draw(0..3)]),
                is_calm: Rc::clone(&self.is_calm),
                brokers: self.brokers.clone(),
                ledger: Rc::clone(&self.ledger),
            };
            let work = self.working.begin();
            let guest = self.enter(format!("producer-{number}"), async move {
                producer.run().await;
                drop(work);
            });
            Net::lead_astray(&world, guest.process, CLIENT_PORTS);
        }
    }

    pub(super) fn readers(&mut self) {
        for number in 0..self.world.draw(0..=self.crowd.readers_max) {
            let reader = Reader {
                number,
                partition: self.world.draw(0..self.partitions),
                brokers: self.brokers.clone(),
                ledger: Rc::clone(&self.ledger),
                is_over: Rc::clone(&self.is_written),
            };
            let guest = self.enter(format!("reader-{number}"), reader.run());
            Net::lead_astray(&self.world, guest.process, CLIENT_PORTS);
        }
    }

    /// Members of a group; whether there are any.
    pub(super) fn members(&mut self) -> bool {
        let world = Rc::clone(&self.world);
        let count = if world.chance(0.4) { world.draw(1..=3_u32) } else { 0 };
        let assignor = [Assignor::Sticky, Assignor::Range, Assignor::RoundRobin][world.draw(0..3)];
        for number in 0..count {
            let member = Member {
                brokers: self.brokers.clone(),
                ledger: Rc::clone(&self.ledger),
                assignor,
                auto_commit: world.chance(0.5).then_some(Duration::from_millis(700)),
                is_over: Rc::clone(&self.is_over),
            };
            self.enter(format!("member-{number}"), member.run());
        }
        count > 0
    }

    pub(super) fn trimmer(&mut self) {
        if self.world.chance(0.2) {
            let trimmer = Trimmer {
                brokers: self.brokers.clone(),
                partitions: self.partitions,
                ledger: Rc::clone(&self.ledger),
                is_over: Rc::clone(&self.is_over),
            };
            self.enter_to_administer("trimmer", trimmer.run());
        }
    }

    pub(super) fn keeper(&mut self) {
        if self.world.chance(0.25) {
            let book = Rc::<Book>::default();
            let keeper = Keeper {
                brokers: self.brokers.clone(),
                book: Rc::clone(&book),
                count: self.world.draw(50..400),
                is_calm: Rc::clone(&self.is_calm),
            };
            let work = self.working.begin();
            self.enter("keeper".to_owned(), async move {
                keeper.run().await;
                drop(work);
            });
            self.book = Some(book);
        }
    }

    /// One who commits for a group without members.
    pub(super) fn committer(&mut self) {
        let committer = Committer {
            brokers: self.brokers.clone(),
            is_over: Rc::clone(&self.is_over),
        };
        self.enter_to_administer("committer", committer.run());
    }

    pub(super) fn administrator(&mut self) {
        if self.world.chance(0.3) {
            let admin = Admin {
                brokers: self.brokers.clone(),
                topics: Rc::clone(&self.topics),
                is_over: Rc::clone(&self.is_over),
            };
            self.enter_to_administer("admin", admin.run());
        }
    }
}

/// Those who are at work.
#[derive(Default)]
pub(super) struct Working {
    count: Cell<usize>,
    changed: Signal,
}

struct Work(Rc<Working>);

impl Working {
    fn begin(self: &Rc<Self>) -> Work {
        self.count.set(self.count.get() + 1);
        Work(Rc::clone(self))
    }

    pub(super) async fn are_done(&self) {
        while self.count.get() > 0 {
            self.changed.wait().await;
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.changed.notify();
    }
}
