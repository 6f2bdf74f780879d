//! Random appends, flushes, losses, crashes, elections and moves; the world checks itself at every step.

use std::{io::Write as _, time::Duration};

use super::{
    log::offset,
    world::{Seen, World},
    *,
};

const STEPS: usize = 400;
/// In which everything is done in order, and nothing is lost.
const CALM_ROUNDS: usize = 60;

struct TellIfFailed(u64);

impl Drop for TellIfFailed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let again = "cargo test -p headwater-server --lib partition::replication::tests::promises";
            let told = writeln!(
                std::io::stderr(),
                "failed with seed {}; again: HEADWATER_SEED={} {again}",
                self.0,
                self.0
            );
            told.unwrap();
        }
    }
}

fn step(world: &mut World) {
    use rand::RngExt as _;
    let place = world.random.random_range(0..world.nodes.len());
    match world.random.random_range(0..100) {
        0..14 => world.append(place),
        14..28 => world.flush(place),
        28..44 => world.fetch(place),
        44..46 => world.end_cut(place),
        46..78 => world.deliver(),
        78..90 => world.learn(place),
        90 => world.crash(place),
        91 => world.restart(place),
        92 => world.fence(place),
        93 => world.fail_log(place),
        94 => world.open_log(place),
        95 => world.delete_oldest(place),
        96 => world.administer(),
        97 => world.wipe(place),
        98 => world.nodes[place].connection += 1,
        _ => {
            let seconds = world.random.random_range(0..20);
            world.pass(Duration::from_secs(seconds));
        }
    }
    world.check();
}

/// Faults end, and everything is to come to rest.
fn calm(world: &mut World) {
    world.has_faults = false;
    world.mail.clear();
    for round in 0..CALM_ROUNDS {
        world.pass(Duration::from_secs(2));
        for place in 0..world.nodes.len() {
            world.restart(place);
            world.open_log(place);
            world.end_cut(place);
            world.learn(place);
            world.flush(place);
            world.fetch(place);
            if round == CALM_ROUNDS / 2 {
                world.append(place);
            }
        }
        while !world.mail.is_empty() {
            world.deliver();
            world.check();
        }
        world.check();
    }
}

fn check_rest(world: &mut World) {
    let replicas = world.replicas().clone();
    let may_be_lost = replicas.terms.durability == Durability::Memory || world.has_wiped;
    if replicas.leader.is_none() && replicas.elr.is_empty() && may_be_lost {
        // All that had it have crashed, or another disk: whoever leads now, an operator decides.
        return;
    }
    let leader = replicas.leader.expect("somebody leads");
    assert_eq!(
        (&replicas.adding, &replicas.removing),
        (&vec![], &vec![]),
        "a move comes to its end"
    );
    assert_eq!(replicas.isr, replicas.replicas, "all are in sync");
    let lead = world.nodes[leader.get() as usize - 1].log.clone();
    world.check_has_all(&lead, "the leader");
    assert!(world.acknowledged.len() == lead.end(), "all is acknowledged");
    for broker in &replicas.replicas {
        let log = &world.nodes[broker.get() as usize - 1].log;
        let from = lead.start.max(log.start);
        assert_eq!(log.records.get(from..), lead.records.get(from..), "broker {broker}");
        assert_eq!(log.held().durable, offset(lead.end()));
    }
}

fn run(seed: u64) -> Seen {
    let _told = TellIfFailed(seed);
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        step(&mut world);
    }
    calm(&mut world);
    check_rest(&mut world);
    world.seen
}

#[test]
fn nothing_acknowledged_is_lost_logs_are_the_same_below_the_watermark_and_all_come_to_rest() {
    let number = |variable| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("HEADWATER_SEED") {
        run(seed);
        return;
    }
    let mut all = Seen::default();
    for seed in 0..number("HEADWATER_SEEDS").unwrap_or(2_000) {
        let seen = run(seed);
        all.leaders += seen.leaders;
        all.acknowledged += seen.acknowledged;
        all.diverged += seen.diverged;
        all.probed += seen.probed;
        all.began_again += seen.began_again;
        all.joined += seen.joined;
        all.left += seen.left;
        all.eligible += seen.eligible;
        all.moved += seen.moved;
        all.stale += seen.stale;
    }
    println!("{all:?}");
    let counts = [
        all.leaders,
        all.acknowledged,
        all.diverged,
        all.began_again,
        all.joined,
        all.left,
        all.eligible,
        all.moved,
        all.stale,
    ];
    assert!(
        counts.iter().all(|count| *count > 0),
        "something never happened: {all:?}"
    );
}
