//! Order and uniqueness under random harm, each run from a seed.
//!
//! `HEADWATER_CLIENT_SEED=7 cargo test -p headwater-client random` runs one seed; `HEADWATER_CLIENT_SEEDS=1000` that many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{sleep, timeout};

use super::broker::Harm;
use super::network::Network;
use super::{Broker, builder};
use crate::producer::{Acks, ProducerBuilder};
use crate::{Client, Compression, Error, PartitionIndex, Record, Start};

const PARTITIONS: i32 = 3;

fn seeds() -> std::ops::Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|value| value.parse::<u64>().expect("a number"))
    };
    match (number("HEADWATER_CLIENT_SEED"), number("HEADWATER_CLIENT_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(30),
    }
}

/// Runs `scenario` for every seed, each in a runtime of its own, and names the seed that fails.
fn for_each_seed(scenario: impl AsyncFn(u64)) {
    for seed in seeds() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let run = async || {
            timeout(Duration::from_hours(1), scenario(seed))
                .await
                .expect("it hangs");
        };
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(run()));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("failed with HEADWATER_CLIENT_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

struct World {
    network: Arc<Network>,
    broker: Arc<Broker>,
    client: Client,
    rng: SmallRng,
}

async fn world(seed: u64, harm: Harm) -> World {
    let network = Network::new();
    let broker = Broker::start(&network, 2);
    broker.seed(seed);
    broker.create_topic("t", PARTITIONS as u16);
    let client = builder(&network, seed).build().await.unwrap();
    broker.harm(harm);
    World {
        network,
        broker,
        client,
        rng: SmallRng::seed_from_u64(seed),
    }
}

fn random_harm(rng: &mut SmallRng) -> Harm {
    Harm {
        cut_before: rng.random_range(0.0..0.1),
        cut_after: rng.random_range(0.0..0.1),
        refuse: rng.random_range(0.0..0.2),
        slow: Duration::from_micros(rng.random_range(0..2000)),
        delay_max: Duration::from_micros(rng.random_range(0..20_000)),
        ..Harm::default()
    }
}

/// What was sent to each partition, in order, and whether it was acknowledged.
type Sent = HashMap<i32, Vec<(String, Result<(), Error>)>>;

/// Several producers write while connections are cut from both ends.
async fn produce(world: &mut World, configure: impl Fn(ProducerBuilder) -> ProducerBuilder) -> Vec<Sent> {
    let mut tasks = Vec::new();
    for name in ["a", "b"] {
        let builder = client_producer(&world.client, &mut world.rng);
        let producer = configure(builder).build().await.unwrap();
        let mut rng = SmallRng::seed_from_u64(world.rng.random());
        tasks.push(tokio::spawn(async move {
            let mut deliveries = Vec::new();
            for i in 0..400 {
                let partition = rng.random_range(0..PARTITIONS);
                let value = format!("{name}-{i}-{}", "x".repeat(rng.random_range(0..300)));
                let record = Record::to("t").partition(PartitionIndex::new(partition)).value(&value);
                let delivery = producer.send(record).await.unwrap();
                deliveries.push((partition, value.clone(), delivery));
                if rng.random_bool(0.1) {
                    sleep(Duration::from_micros(rng.random_range(0..30_000))).await;
                }
            }
            let mut sent = Sent::new();
            for (partition, value, delivery) in deliveries {
                sent.entry(partition)
                    .or_default()
                    .push((value, delivery.await.map(drop)));
            }
            sent
        }));
    }
    let (network, mut rng) = (Arc::clone(&world.network), SmallRng::seed_from_u64(world.rng.random()));
    let cutter = tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(rng.random_range(1..200))).await;
            network.cut_all();
        }
    });
    let mut sent = Vec::new();
    for task in tasks {
        sent.push(task.await.unwrap());
    }
    cutter.abort();
    // What cut connections had sent is still on its way.
    sleep(Duration::from_secs(10)).await;
    sent
}

fn client_producer(client: &Client, rng: &mut SmallRng) -> ProducerBuilder {
    client
        .producer()
        .batch_bytes(rng.random_range(1024..4096))
        .linger(Duration::from_millis(rng.random_range(0..5)))
        .compression(Compression::ALL[rng.random_range(0..Compression::ALL.len())])
        .in_flight_batches_max(rng.random_range(1..=64))
}

/// What one producer has in the log.
fn stored(world: &World, partition: i32, producer: &str) -> Vec<String> {
    let mut values = world.broker.values("t", partition as usize);
    values.retain(|value| value.starts_with(producer));
    values
}

#[test]
fn an_idempotent_producer_stores_each_record_once_and_in_order_whatever_fails() {
    for_each_seed(async |seed| {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut world = world(seed, random_harm(&mut rng)).await;
        let sent = produce(&mut world, |builder| builder).await;
        for (sent, name) in sent.iter().zip(["a", "b"]) {
            for (&partition, records) in sent {
                let check = |(value, result): &(String, Result<(), Error>)| {
                    assert!(result.is_ok(), "{result:?}");
                    value.clone()
                };
                let values: Vec<_> = records.iter().map(check).collect();
                assert_eq!(stored(&world, partition, name), values, "partition {partition}");
            }
        }
    });
}

#[test]
fn deliveries_that_time_out_leave_no_duplicate_and_no_disorder_among_the_others() {
    for_each_seed(async |seed| {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut world = world(seed, random_harm(&mut rng)).await;
        let limit = Duration::from_millis(rng.random_range(100..2000));
        let sent = produce(&mut world, |builder| builder.delivery_timeout(limit)).await;
        for (sent, name) in sent.iter().zip(["a", "b"]) {
            for (&partition, records) in sent {
                let stored = stored(&world, partition, name);
                let mut unique = stored.clone();
                unique.sort_unstable();
                unique.dedup();
                assert_eq!(
                    unique.len(),
                    stored.len(),
                    "a record is stored twice in partition {partition}"
                );
                let delivered: Vec<_> = records
                    .iter()
                    .filter(|(_, result)| result.is_ok())
                    .map(|(value, _)| value)
                    .collect();
                let found: Vec<_> = stored.iter().filter(|value| delivered.contains(value)).collect();
                assert_eq!(found, delivered, "partition {partition}");
            }
        }
    });
}

#[test]
fn whatever_batches_a_topic_takes_meanwhile_each_record_is_stored_once_and_in_order() {
    for_each_seed(async |seed| {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut world = world(seed, random_harm(&mut rng)).await;
        let (broker, mut turns) = (Arc::clone(&world.broker), SmallRng::seed_from_u64(rng.random()));
        let altering = tokio::spawn(async move {
            loop {
                // The longest value always fits.
                broker.limit("t", turns.random_range(450..4000), turns.random_bool(0.5));
                sleep(Duration::from_millis(turns.random_range(1..100))).await;
            }
        });
        let sent = produce(&mut world, |builder| builder).await;
        altering.abort();
        for (sent, name) in sent.iter().zip(["a", "b"]) {
            for (&partition, records) in sent {
                let stored = stored(&world, partition, name);
                // Only of what a lost connection had perhaps stored may the end be told wrong.
                let kept = |(value, result): &&(String, Result<(), Error>)| {
                    assert!(
                        result.is_ok() || result.as_ref().is_err_and(Error::is_too_large),
                        "{result:?}"
                    );
                    result.is_ok() || stored.contains(value)
                };
                let kept: Vec<_> = records.iter().filter(kept).map(|(value, _)| value.clone()).collect();
                assert_eq!(stored, kept, "partition {partition}");
            }
        }
    });
}

#[test]
fn without_idempotence_records_may_repeat_and_keep_their_order() {
    for_each_seed(async |seed| {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut harm = random_harm(&mut rng);
        // What a cut connection had sent would come in between later: numbers alone can prevent that.
        harm.slow = Duration::ZERO;
        let mut world = world(seed, harm).await;
        let sent = produce(&mut world, |builder| builder.idempotent(false)).await;
        for (sent, name) in sent.iter().zip(["a", "b"]) {
            for (&partition, records) in sent {
                let mut first = std::collections::HashSet::new();
                let mut stored = stored(&world, partition, name);
                stored.retain(|value| first.insert(value.clone()));
                let values: Vec<_> = records.iter().map(|(value, _)| value.clone()).collect();
                assert_eq!(stored, values, "partition {partition}");
            }
        }
    });
}

#[test]
fn without_acks_nothing_is_stored_twice_or_out_of_order() {
    for_each_seed(async |seed| {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut harm = random_harm(&mut rng);
        harm.slow = Duration::ZERO;
        let mut world = world(seed, harm).await;
        let sent = produce(&mut world, |builder| builder.acks(Acks::None)).await;
        for (sent, name) in sent.iter().zip(["a", "b"]) {
            for (&partition, records) in sent {
                let stored = stored(&world, partition, name);
                let values = records.iter().map(|(value, _)| value.clone());
                let kept: Vec<_> = values.filter(|value| stored.contains(value)).collect();
                assert_eq!(stored, kept, "partition {partition}");
            }
        }
    });
}

#[test]
fn a_consumer_gets_every_record_once_and_in_order_over_cut_connections() {
    for_each_seed(async |seed| {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut world = world(seed, random_harm(&mut rng)).await;
        let start = world.client.consumer().topics(["t"]).start(Start::Earliest);
        let builder = start
            .partition_bytes_max(rng.random_range(1000..20_000))
            .prefetch_bytes(64 << 10);
        let mut consumer = builder.build().await.unwrap();
        let reader = tokio::spawn(async move {
            let mut got: HashMap<i32, Vec<String>> = HashMap::new();
            for _ in 0..800 {
                let record = consumer.recv().await.unwrap();
                let values = got.entry(record.partition.get()).or_default();
                assert_eq!(record.offset.get(), values.len() as u64, "offsets are dense");
                values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            }
            got
        });
        produce(&mut world, |builder| builder).await;
        let got = reader.await.unwrap();
        for partition in 0..PARTITIONS {
            assert_eq!(got[&partition], world.broker.values("t", partition as usize));
        }
    });
}
