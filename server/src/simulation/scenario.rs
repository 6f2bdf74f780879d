//! One run: a broker, its clients, trouble, and the calm after it.

use std::{
    cell::Cell,
    fmt::Display,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use futures::future::join_all;
use headwater_client::{Assignor, Client, ErrorCode, NewTopic, RecordView};
use headwater_engine::Signal;

use super::{
    client::{PATIENCE, connect},
    guests::{Admin, Book, Keeper, Member, Producer, Reader, Topics, Trimmer, commit_late},
    house::{House, PORT},
    judge::{self, read_all},
    ledger::{Ledger, Sent},
    retention::Retention,
    trouble::{self, CORES_MAX, Guest},
    wire::pause,
};
use crate::{
    config::{ByteSize, Config, Millis},
    machine::{
        self,
        simulated::{Stuck, World, clock::Clock, here, net::Net},
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
    /// Records that compaction has taken out.
    pub(super) compacted: usize,
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
    config.log.retention_check_interval_ms = Millis::new([200, 2_000, 30_000][world.draw(0..3)]);
    config.compaction.check_interval_ms = Millis::new(500);
    config.log.zero_ahead_bytes = ByteSize::new([0, 16 << 10, 256 << 10][world.draw(0..3)]);
    config.flush.single_write_bytes_max = ByteSize::new([0, 4 << 10, 64 << 10][world.draw(0..3)]);
    config.flush.writes_in_flight_max = [1, 2, 8][world.draw(0..3)];
    config.cores.tail_buffer_bytes_max = ByteSize::new(4 << 20);
    config.cores.cold_read_bytes_max = ByteSize::new([0, 2 << 20, 8 << 20][world.draw(0..3)]);
    config.cores.connection_bytes_max = ByteSize::new(2 << 20);
    config.cores.in_flight_bytes_max = ByteSize::new(2 << 20);
    config.groups.offsets_partitions = 3;
    if world.chance(0.3) {
        tighten(&mut config, world);
    }
    config.groups.offsets_segment_size_bytes = ByteSize::new(64 << 10);
    config.limits.shutdown_grace_ms = Millis::new(2_000);
    config
}

/// Little may be held at once, so that everybody has to wait for others.
fn tighten(config: &mut Config, world: &World) {
    let frame = 20 << 10;
    config.log.batch_size_bytes_max = ByteSize::new(16 << 10);
    config.limits.frame_size_bytes_max = ByteSize::new(frame);
    config.limits.requests_in_flight_bytes_max = ByteSize::new(frame);
    config.limits.requests_in_flight_max = world.draw(1..=4);
    config.limits.fetch_size_bytes_max = ByteSize::new(16 << 10);
    config.cores.connection_bytes_max = ByteSize::new(4 * frame);
    config.cores.in_flight_bytes_max = ByteSize::new(4 * frame);
    config.cores.tail_buffer_bytes_max = ByteSize::new(256 << 10);
    config.flush.uncovered_bytes_max = ByteSize::new(64 << 10);
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
    let client = connect(house.address()).await;
    let retention = Retention::draw(&world);
    house.is_timely.set(matches!(retention, Some(Retention::Age(_))));
    create_topic(&client, &house, partitions, retention).await;

    let mut cast = Cast::new(&house, partitions, retention);
    cast.producers();
    cast.readers();
    let has_members = cast.members();
    cast.administrator();
    if retention.is_none() {
        cast.trimmer();
    }
    cast.keeper();
    let looking = Rc::clone(&house);
    world.spawn(here().expect("a run has a world").process, async move {
        loop {
            pause(Duration::from_secs(5)).await;
            looking.check_budgets().await;
        }
    });
    trouble::make(&house, world.draw(1..=8), &cast.guests).await;
    let Cast {
        ledger,
        topics,
        book,
        working,
        is_calm,
        is_over,
        ..
    } = &cast;
    is_calm.set(true);
    world.tell(None, "the trouble is over");
    if retention.is_some() {
        keep_all(&house, ledger, &client, partitions).await;
    }
    let all = machine::until(machine::now() + CALM_MAX, working.are_done()).await;
    assert!(
        all.is_some(),
        "producers do not come to their end, though nothing is wrong any more"
    );
    if has_members {
        let all = machine::until(machine::now() + CALM_MAX, processed(ledger)).await;
        assert!(
            all.is_some(),
            "members do not come to the end of the log, though nothing is wrong any more"
        );
    }
    is_over.set(true);
    // The administrator may be at work.
    machine::sleep(PATIENCE * 5).await;
    compare_topics(&house, topics, &client).await;
    compare(&house, ledger, partitions).await;
    if let Some(book) = book {
        compare_book(&house, book).await;
    }
    judge::ask_on_one_connection(house.address())
        .await
        .expect("nothing is wrong any more");
    let late = async || commit_late(house.address()).await;
    insist(&house, "a straggler does not come to commit", late).await;
    cast.leave();
    machine::sleep(PATIENCE).await;
    house.check_at_rest().await;
    assert!(house.stop().await, "the broker does not stop");
    house.begin(world.draw(1..=CORES_MAX));
    trouble::bring_up(&house).await;
    compare_topics(&house, topics, &client).await;
    compare(&house, ledger, partitions).await;
    if let Some(book) = book {
        compare_book(&house, book).await;
    }
    Outcome {
        history: world.history(),
        promised: ledger.promised(),
        compacted: book.as_ref().map_or(0, |book| book.compacted()),
    }
}

/// Those who take part, each a process on a host of its own.
struct Cast {
    world: Rc<World>,
    address: SocketAddr,
    partitions: i32,
    guests: Vec<Guest>,
    ledger: Rc<Ledger>,
    topics: Rc<Topics>,
    /// Of the one who keeps the compacted topic, if there is one.
    book: Option<Rc<Book>>,
    working: Rc<Working>,
    /// Nothing new is sent any more.
    is_calm: Rc<Cell<bool>>,
    /// The run is over.
    is_over: Rc<Cell<bool>>,
}

impl Cast {
    fn new(house: &House, partitions: i32, retention: Option<Retention>) -> Cast {
        Cast {
            world: Rc::clone(&house.world),
            address: house.address(),
            partitions,
            guests: Vec::new(),
            ledger: Rc::new(Ledger::new(&house.world, retention)),
            topics: Rc::default(),
            book: None,
            working: Rc::default(),
            is_calm: Rc::default(),
            is_over: Rc::default(),
        }
    }

    fn enter(&mut self, name: String, part: impl Future<Output = ()> + 'static) -> Guest {
        let host = host(10 + self.guests.len() as u8);
        let process = self.world.process(name, host, Clock::default());
        self.world.spawn(process, part);
        let guest = Guest { host, process };
        self.guests.push(guest);
        guest
    }

    /// Everybody is gone at once.
    fn leave(&self) {
        for guest in &self.guests {
            self.world.end(guest.process);
        }
    }

    fn producers(&mut self) {
        let world = Rc::clone(&self.world);
        let is_even = world.chance(0.4);
        // Whose batches others could take the places of.
        let least = if is_even { 2 } else { 1 };
        for number in 0..world.draw(least..=3_u32) {
            let producer = Producer {
                number,
                // Batches of one size come from all to one partition.
                partition: if is_even { 0 } else { world.draw(0..self.partitions) },
                is_idempotent: world.chance(0.7),
                is_even,
                count: world.draw(20..if is_even { 150 } else { 600 }),
                pause: Duration::from_millis([0, 20, 200][world.draw(0..3)]),
                is_calm: Rc::clone(&self.is_calm),
                address: self.address,
                ledger: Rc::clone(&self.ledger),
            };
            let work = self.working.begin();
            let guest = self.enter(format!("producer-{number}"), async move {
                producer.run().await;
                drop(work);
            });
            Net::lead_astray(&world, guest.process);
        }
    }

    fn readers(&mut self) {
        for number in 0..self.world.draw(0..=2_u32) {
            let reader = Reader {
                number,
                partition: self.world.draw(0..self.partitions),
                address: self.address,
                ledger: Rc::clone(&self.ledger),
                is_over: Rc::clone(&self.is_over),
            };
            let guest = self.enter(format!("reader-{number}"), reader.run());
            Net::lead_astray(&self.world, guest.process);
        }
    }

    /// Members of a group; whether there are any.
    fn members(&mut self) -> bool {
        let world = Rc::clone(&self.world);
        let count = if world.chance(0.4) { world.draw(1..=3_u32) } else { 0 };
        let assignor = [Assignor::Sticky, Assignor::Range, Assignor::RoundRobin][world.draw(0..3)];
        for number in 0..count {
            let member = Member {
                address: self.address,
                ledger: Rc::clone(&self.ledger),
                assignor,
                auto_commit: world.chance(0.5).then_some(Duration::from_millis(700)),
                is_over: Rc::clone(&self.is_over),
            };
            self.enter(format!("member-{number}"), member.run());
        }
        count > 0
    }

    fn trimmer(&mut self) {
        if self.world.chance(0.2) {
            let trimmer = Trimmer {
                address: self.address,
                partitions: self.partitions,
                ledger: Rc::clone(&self.ledger),
                is_over: Rc::clone(&self.is_over),
            };
            self.enter("trimmer".to_owned(), trimmer.run());
        }
    }

    fn keeper(&mut self) {
        if self.world.chance(0.25) {
            let book = Rc::<Book>::default();
            let keeper = Keeper {
                address: self.address,
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

    fn administrator(&mut self) {
        if self.world.chance(0.3) {
            let admin = Admin {
                address: self.address,
                topics: Rc::clone(&self.topics),
                is_over: Rc::clone(&self.is_over),
            };
            self.enter("admin".to_owned(), admin.run());
        }
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

/// Tries until it is done.
async fn insist<T, E: Display>(house: &House, what: &str, mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    for _ in 0..200 {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => house.world.tell(None, format!("{what}: {error}")),
        }
        pause(Duration::from_secs(2)).await;
    }
    panic!("{what}, though nothing is wrong");
}

async fn create_topic(client: &Client, house: &House, partitions: i32, retention: Option<Retention>) {
    let topic = NewTopic::new(TOPIC).partitions(partitions);
    let topic = retention.map_or(topic.clone(), |retention| retention.of(topic));
    insist(house, "the topic is not created", async || {
        match client.admin().create_topic(topic.clone()).await {
            // Perhaps by this call, tried again.
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => Ok(()),
            created => created.map(drop),
        }
    })
    .await;
}

/// Retention ends, so that whatever is there now must be there in the end.
async fn keep_all(house: &House, ledger: &Ledger, client: &Client, partitions: i32) {
    insist(house, "the topic is not altered", async || Retention::end(client).await).await;
    ledger.keep_all();
    for partition in 0..partitions {
        let look = async || judge::start_of(house.address(), TOPIC, partition).await;
        let start = insist(house, "it is not known where a partition begins", look).await;
        ledger.begin_at(partition, start);
    }
}

/// Resolves when the group has come to the end.
async fn processed(ledger: &Ledger) {
    while !ledger.is_processed() {
        machine::sleep(Duration::from_millis(100)).await;
    }
}

async fn compare_topics(house: &House, topics: &Topics, client: &Client) {
    insist(house, "topics cannot be compared", async || {
        topics.compare(client).await
    })
    .await;
}

async fn compare_book(house: &House, book: &Book) {
    let look = async || book.compare(house.address()).await;
    insist(house, "what is kept cannot be read", look).await;
}

/// Reads everything and compares it with the ledger.
async fn compare(house: &House, ledger: &Ledger, partitions: i32) {
    let logs = (0..partitions).map(async |partition| {
        let what = format!("partition {partition} cannot be read");
        insist(house, &what, async || {
            let mut log = Vec::new();
            let see = |record: &RecordView<'_>| {
                let value = record.value.expect("no record was sent without a value");
                log.push((record.offset.get(), Sent::of(value)));
            };
            let extent = read_all(house.address(), TOPIC, partition, see).await?;
            Ok::<_, io::Error>((extent, log))
        })
        .await
    });
    for (partition, (extent, log)) in (0..partitions).zip(join_all(logs).await) {
        ledger.close(partition, extent, &log);
    }
}
