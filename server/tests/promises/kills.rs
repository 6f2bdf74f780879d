//! The broker is killed at random moments, while it starts, serves or stops, and nothing that was acknowledged is lost.

use std::time::Duration;

use rand::{RngExt as _, rngs::SmallRng};
use rustix::process::Signal;

use crate::support::{Broker, Kind, Load, Seed, Site, check, read_topic, run};

const KIND: Kind = Kind {
    topic: "kills",
    partitions: 4,
    value_lens: &[20, 300, 90, 2_000],
};

/// So many at most, since all that was written is read again after each kill.
const RECORDS_BETWEEN_KILLS: usize = 3_000;

#[test]
fn acknowledged_records_survive_sigkill() {
    let mut seed = Seed::of("acknowledged_records_survive_sigkill");
    let kills = seed.number("HEADWATER_KILLS", 20);
    let mut random = seed.random();
    let has_journal = random.random_bool(0.5);
    // Small segments roll and are sealed now and then, so that the kills hit that as well, and a small journal is filled.
    let site = Site::new()
        .set("log.segment_size_bytes", "1MiB")
        .set("log.checkpoint_interval_ms", "20ms")
        .set("journal.enabled", &has_journal.to_string())
        .set("journal.size_bytes", "1MiB");
    run(async {
        let mut broker = site.start();
        let checker = site.client_with_topic(KIND.topic, KIND.partitions.into()).await;
        let producers = [site.client().await, site.client().await, site.client().await];
        let load = Load::start(producers, KIND, 0).await;
        for _ in 0..kills {
            broker = kill_and_restart(&site, broker, &load, &mut random).await;
            let acknowledged = load.ledger.acknowledged();
            check(&acknowledged, &read_topic(&checker, KIND.topic).await);
        }
        let ledger = load.finish().await;
        ledger.check_complete(&read_topic(&checker, KIND.topic).await);
        broker.stop();
    });
}

/// Kills the broker once some more has been acknowledged, and again while it starts or stops, if chance will have it.
async fn kill_and_restart(site: &Site, broker: Broker, load: &Load, random: &mut SmallRng) -> Broker {
    let goal = load.ledger.count() + random.random_range(1..RECORDS_BETWEEN_KILLS as u64);
    load.allow(RECORDS_BETWEEN_KILLS);
    load.ledger.await_count(goal).await;
    // The moment, not a pause: an acknowledgement is only ever at the end of a write.
    tokio::time::sleep(Duration::from_micros(random.random_range(0..5_000))).await;
    if random.random_ratio(1, 4) {
        broker.signal(Signal::TERM);
        tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
    }
    broker.kill();
    while random.random_ratio(1, 4) {
        let broker = site.launch();
        tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        broker.kill();
    }
    site.start()
}
