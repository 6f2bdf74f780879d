//! One run: a broker, its clients, trouble, and the calm after it.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use futures::future::join_all;
use headwater_engine::Signal;
use headwater_protocol::{
    error::ErrorCode,
    schema::{CreateTopicRequestT, CreateTopicResponse},
};

use super::{
    admin::{Admin, Topics},
    house::{House, PORT},
    ledger::Ledger,
    member::Member,
    producer::{Producer, pause},
    reader::{Reader, read_all},
    trouble::{self, CORES_MAX},
    wire::{PATIENCE, Wire, check, patiently},
};
use crate::{
    config::{ByteSize, Config, Millis},
    machine::{
        self,
        simulated::{Stuck, World, clock::Clock},
    },
};

pub(super) const TOPIC: &str = "orders";

/// Longer than any run takes, in the world's time.
const RUN_MAX: Duration = Duration::from_hours(2);

/// So long everything may take to work again when the trouble is over. What was tried again and again is tried every minute.
const CALM_MAX: Duration = Duration::from_mins(5);

/// What a run was.
pub(super) struct Outcome {
    pub(super) history: Vec<String>,
    pub(super) promised: usize,
}

fn host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

fn config(world: &World, broker: IpAddr) -> Config {
    let mut config = Config::default();
    config.broker.listen = SocketAddr::new(broker, PORT);
    config.log.directory = PathBuf::from("/data");
    config.log.segment_size_bytes = ByteSize::new([64 << 10, 256 << 10, 1 << 30][world.draw(0..3)]);
    config.log.checkpoint_interval_ms = Millis::new([100, 1_000, 5_000][world.draw(0..3)]);
    config.log.retention_ms = None;
    config.log.zero_ahead_bytes = ByteSize::new([0, 16 << 10, 256 << 10][world.draw(0..3)]);
    config.flush.single_write_bytes_max = ByteSize::new([0, 4 << 10, 64 << 10][world.draw(0..3)]);
    config.flush.writes_in_flight_max = [1, 2, 8][world.draw(0..3)];
    config.cores.tail_buffer_bytes_max = ByteSize::new(4 << 20);
    config.cores.cold_read_bytes_max = ByteSize::new([0, 2 << 20, 8 << 20][world.draw(0..3)]);
    config.cores.connection_bytes_max = ByteSize::new(2 << 20);
    config.cores.in_flight_bytes_max = ByteSize::new(2 << 20);
    config.groups.offsets_partitions = 3;
    config.groups.offsets_segment_size_bytes = ByteSize::new(64 << 10);
    config.limits.shutdown_grace_ms = Millis::new(2_000);
    config
}

/// Runs a seed in a world of its own.
///
/// # Panics
/// When a promise is broken.
pub(super) fn run(world: &Rc<World>) -> Result<Outcome, Stuck> {
    let process = world.process("world", host(254), Clock::default());
    let outcome = world.run(process, RUN_MAX, play(Rc::clone(world)));
    world.end_all();
    outcome
}

async fn play(world: Rc<World>) -> Outcome {
    let broker = host(1);
    let house = Rc::new(House::new(&world, broker, config(&world, broker)));
    let partitions = world.draw(1..=3);
    house.begin(world.draw(1..=CORES_MAX));
    trouble::bring_up(&house).await;
    create_topic(&house, partitions).await;

    let ledger = Rc::new(Ledger::new(&world));
    let is_calm = Rc::new(Cell::new(false));
    let is_over = Rc::new(Cell::new(false));
    let working = Rc::new(Working::default());
    let mut clients = Vec::new();
    for number in 0..world.draw(1..=3_u32) {
        let client = host(10 + number as u8);
        let process = world.process(format!("producer-{number}"), client, Clock::default());
        let producer = Producer {
            number,
            partition: world.draw(0..partitions),
            is_idempotent: world.chance(0.7),
            count: world.draw(20..600),
            pause: Duration::from_millis([0, 20, 200][world.draw(0..3)]),
            is_calm: Rc::clone(&is_calm),
            address: house.address(),
            ledger: Rc::clone(&ledger),
        };
        let work = working.begin();
        world.spawn(process, async move {
            producer.run().await;
            drop(work);
        });
        clients.push(client);
    }
    for number in 0..world.draw(0..=2_u32) {
        let client = host(20 + number as u8);
        let process = world.process(format!("reader-{number}"), client, Clock::default());
        let reader = Reader {
            number,
            partition: world.draw(0..partitions),
            address: house.address(),
            ledger: Rc::clone(&ledger),
            is_over: Rc::clone(&is_over),
        };
        world.spawn(process, reader.run());
        clients.push(client);
    }

    let members = if world.chance(0.4) { world.draw(1..=3_u32) } else { 0 };
    for number in 0..members {
        let client = host(30 + number as u8);
        let process = world.process(format!("member-{number}"), client, Clock::default());
        let member = Member {
            address: house.address(),
            ledger: Rc::clone(&ledger),
            is_over: Rc::clone(&is_over),
        };
        world.spawn(process, member.run());
        clients.push(client);
    }
    let topics = Rc::new(Topics::default());
    if world.chance(0.3) {
        let client = host(40);
        let process = world.process("admin", client, Clock::default());
        let admin = Admin {
            address: house.address(),
            topics: Rc::clone(&topics),
            is_over: Rc::clone(&is_over),
        };
        world.spawn(process, admin.run());
        clients.push(client);
    }

    trouble::make(&house, world.draw(1..=8), &clients).await;
    is_calm.set(true);
    world.tell(None, "the trouble is over");
    let all = machine::until(machine::now() + CALM_MAX, working.are_done()).await;
    assert!(
        all.is_some(),
        "producers do not come to their end, though nothing is wrong any more"
    );
    if members > 0 {
        let all = machine::until(machine::now() + CALM_MAX, processed(&ledger)).await;
        assert!(
            all.is_some(),
            "members do not come to the end of the log, though nothing is wrong any more"
        );
    }
    is_over.set(true);
    // The administrator may be at work.
    machine::sleep(PATIENCE * 2).await;
    compare_topics(&house, &topics).await;
    compare(&house, &ledger, partitions).await;
    assert!(house.stop().await, "the broker does not stop");
    house.begin(world.draw(1..=CORES_MAX));
    trouble::bring_up(&house).await;
    compare_topics(&house, &topics).await;
    compare(&house, &ledger, partitions).await;
    Outcome {
        history: world.history(),
        promised: ledger.promised(),
    }
}

/// Those who are at work.
#[derive(Default)]
struct Working {
    count: Cell<usize>,
    changed: Signal,
}

struct Work(Rc<Working>);

impl Working {
    fn begin(self: &Rc<Self>) -> Work {
        self.count.set(self.count.get() + 1);
        Work(Rc::clone(self))
    }

    async fn are_done(&self) {
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

async fn create_topic(house: &House, partitions: i32) {
    for _ in 0..100 {
        let created = try_create_topic(house, partitions).await;
        match created {
            Ok(()) => return,
            Err(error) => house.world.tell(None, format!("the topic is not created: {error}")),
        }
        pause(Duration::from_secs(1)).await;
    }
    panic!("a topic cannot be created");
}

async fn try_create_topic(house: &House, partitions: i32) -> io::Result<()> {
    let mut wire = patiently(Wire::open(house.address())).await?;
    let head = CreateTopicRequestT {
        name: Some(TOPIC.to_owned()),
        partitions,
        replication_factor: -1,
        configs: None,
        validate_only: false,
    };
    let reply = wire.ask(&head).await?;
    let created = reply.read::<CreateTopicResponse<'_>>()?;
    if ErrorCode::from_i16(created.error()) == ErrorCode::TopicAlreadyExists {
        return Ok(());
    }
    check(created.error())
}

/// Resolves when the group has come to the end.
async fn processed(ledger: &Ledger) {
    while !ledger.is_processed() {
        machine::sleep(Duration::from_millis(100)).await;
    }
}

async fn compare_topics(house: &House, topics: &Topics) {
    for _ in 0..200 {
        match topics.compare(house.address()).await {
            Ok(()) => return,
            Err(error) => house.world.tell(None, format!("topics cannot be compared: {error}")),
        }
        pause(Duration::from_secs(2)).await;
    }
    panic!("topics cannot be described, though nothing is wrong any more");
}

/// Reads everything and compares it with the ledger.
async fn compare(house: &House, ledger: &Ledger, partitions: i32) {
    let logs = (0..partitions).map(async |partition| {
        for _ in 0..200 {
            match read_all(house.address(), partition).await {
                Ok(log) => return log,
                Err(error) => house
                    .world
                    .tell(None, format!("partition {partition} cannot be read: {error}")),
            }
            pause(Duration::from_secs(2)).await;
        }
        panic!("partition {partition} cannot be read, though nothing is wrong any more");
    });
    for (partition, log) in (0..partitions).zip(join_all(logs).await) {
        ledger.close(partition, &log);
    }
}
