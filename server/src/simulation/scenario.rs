//! One run: a broker, its clients, trouble, and the calm after it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use headwater_client::NewTopic;

use super::{
    cast::{Cast, Crowd},
    client::{Brokers, PATIENCE, connect},
    compare::{compare, compare_book, compare_topics, create_topic, insist, keep_all, processed},
    guests::commit_late,
    house::{House, PORT},
    judge,
    ledger::Ledger,
    retention::Retention,
    trouble,
    wire::pause,
};
use crate::{
    config::{ByteSize, Config, Millis},
    machine::{
        self,
        simulated::{Stuck, World, clock::Clock, here},
    },
};

pub(super) const TOPIC: &str = "orders";

/// Those who take part in a run of one broker.
const CROWD: Crowd = Crowd {
    producers_max: 3,
    records_max: (200, 90),
    pauses_ms: [0, 40, 300],
    readers_max: 2,
};

/// Longer than any run takes, in the world's time.
pub(super) const RUN_MAX: Duration = Duration::from_hours(2);

/// So long everything may take to work again when the trouble is over. What was tried again and again is tried every minute.
pub(super) const CALM_MAX: Duration = Duration::from_mins(5);

/// What a run was.
pub(super) struct Outcome {
    pub(super) promised: usize,
    /// Records that compaction has taken out.
    pub(super) compacted: usize,
}

pub(super) fn host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

pub(super) fn config(world: &World, broker: IpAddr) -> Config {
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
    // Drawn beside the rest: what a seed does without a journal it has always done.
    let mut draw = world.draws_beside();
    config.journal.enabled = draw(0..2) == 0;
    config.journal.size_bytes = ByteSize::new([64 << 10, 256 << 10, 1 << 20][draw(0..3)]);
    config.journal.batch_bytes_max = ByteSize::new([1 << 10, 64 << 10][draw(0..2)]);
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
    let house = Rc::new(House::new(&world, broker, config(&world, broker), None));
    let partitions = world.draw(1..=3);
    house.begin();
    trouble::bring_up(&house).await;
    let brokers = Brokers::new([house.address()]);
    let client = connect(&brokers).await;
    let retention = Retention::draw(&world);
    house.is_timely.set(matches!(retention, Some(Retention::Age(_))));
    let topic = NewTopic::new(TOPIC).partitions(partitions);
    let topic = retention.map_or(topic.clone(), |retention| retention.of(topic));
    create_topic(&client, &world, topic).await;

    let ledger = Ledger::new(&world, retention, false);
    let mut cast = Cast::new(&brokers, partitions, ledger, CROWD);
    cast.producers();
    cast.readers();
    let has_members = cast.members();
    cast.administrator();
    if retention.is_none() {
        cast.trimmer();
    }
    cast.keeper();
    world.spawn(
        here().expect("a run has a world").process,
        trouble::supervise(Rc::clone(&house)),
    );
    let looking = Rc::clone(&house);
    world.spawn(here().expect("a run has a world").process, async move {
        loop {
            pause(Duration::from_secs(10)).await;
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
        is_written,
        ..
    } = &cast;
    is_calm.set(true);
    world.tell(None, "the trouble is over");
    if retention.is_some() {
        keep_all(&brokers, ledger, &client, partitions).await;
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
    is_written.set(true);
    cast.ends().await;
    compare_topics(&world, topics, &client).await;
    compare(&brokers, ledger, partitions).await;
    if let Some(book) = book {
        compare_book(&world, &brokers, book).await;
    }
    judge::ask_on_one_connection(house.address())
        .await
        .expect("nothing is wrong any more");
    let late = async || commit_late(&brokers).await;
    insist(&world, "a straggler does not come to commit", late).await;
    cast.leave();
    house.check_at_rest(PATIENCE).await;
    assert!(house.stop().await, "the broker does not stop");
    house.begin();
    trouble::bring_up(&house).await;
    compare_topics(&world, topics, &client).await;
    compare(&brokers, ledger, partitions).await;
    if let Some(book) = book {
        compare_book(&world, &brokers, book).await;
    }
    Outcome {
        promised: ledger.promised(),
        compacted: book.as_ref().map_or(0, |book| book.compacted()),
    }
}
