//! Logs of several replicas that part and come together again, as leaders change, machines stop, and leaders compact.

use std::{cell::Cell, rc::Rc};

use headwater_engine::{
    CommonPoint, LogConfig, ReadLimit, ReplicaError,
    disk::{SimDisk, SimExecutor},
};
use headwater_protocol::{
    batch::Compression,
    id::{LeaderEpoch, Offset, Timestamp},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::naive::{Stored, split};
use crate::{
    compact::model as compact,
    support::{NOON, Record, SimLog, append_durably, batch, for_each_seed, open, run, small_config},
};

const NOW: Timestamp = Timestamp::new(NOON);

struct Replica {
    disk: SimDisk,
    log: Rc<SimLog>,
}

impl Replica {
    fn new(seed: u64, config: &LogConfig) -> Replica {
        let disk = SimDisk::new(seed);
        let log = run(&disk, seed, async { open(&disk, config).await.unwrap().0 });
        log.hold_high_watermark(Offset::ZERO);
        Replica { disk, log }
    }

    fn run<T>(&self, seed: u64, future: impl Future<Output = T>) -> T {
        SimExecutor::new(&self.disk, seed).block_on(future).expect("it goes on")
    }

    /// All that is in the log, durable or not.
    async fn all(&self) -> Vec<Stored> {
        let mut found = Vec::new();
        let mut next = self.log.offsets().start;
        while let Some(range) = self.log.fetch(next, 8000, ReadLimit::LogEnd).await.unwrap().range {
            found.extend(split(&self.log.read(&range).await.unwrap()));
            next = range.next_offset();
        }
        found
    }

    /// Stops, and opens again what is left.
    fn restart(&mut self, seed: u64, config: &LogConfig) {
        self.disk = self.disk.crash(seed);
        let (log, recovery) = run(&self.disk, seed, open(&self.disk, config)).unwrap();
        log.hold_high_watermark(recovery.high_watermark);
        self.log = log;
    }

    /// Drops what is not the leader's. Returns how often it had to ask.
    async fn agree(&self, leader: &Replica) -> u32 {
        let Some(mut epoch) = self.log.latest_epoch() else {
            return 0;
        };
        for asked in 1.. {
            match self.log.truncate_to(leader.log.end_of_epoch(epoch)).await.unwrap() {
                CommonPoint::At(_) => return asked,
                CommonPoint::Older { epoch: older, .. } => epoch = older,
            }
        }
        unreachable!("there are only so many epochs")
    }
}

/// Batches that both have, from the first on.
fn common(a: &[Stored], b: &[Stored]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a.bytes == b.bytes).count()
}

#[test]
fn a_follower_keeps_all_that_it_has_in_common_with_its_leader_and_nothing_else() {
    let name = "a_follower_keeps_all_that_it_has_in_common_with_its_leader_and_nothing_else";
    let (asked_again, dropped) = (Cell::new(0), Cell::new(0));
    for_each_seed(name, 60, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let config = LogConfig {
            segment_size_bytes: 6 << 10,
            ..small_config()
        };
        let mut replicas: Vec<_> = (0..3).map(|number| Replica::new(seed * 3 + number, &config)).collect();
        let mut id = 0;
        for epoch in 0..12 {
            // Any of them, also one that lacks what others have.
            let leader = rng.random_range(0..3);
            if rng.random_bool(0.3) {
                replicas[leader].restart(rng.random(), &config);
            }
            replicas[leader].log.set_leader_epoch(LeaderEpoch::new(epoch));
            for _ in 0..rng.random_range(0..5) {
                id += 1;
                let payload = batch(&[Record::new(id, [50, 2000][rng.random_range(0..2)])]);
                let _ticket = replicas[leader].log.append(&payload, NOW).unwrap();
                if rng.random_bool(0.4) {
                    replicas[leader].run(seed, replicas[leader].log.flush()).unwrap();
                }
            }
            let led = replicas[leader].run(seed, replicas[leader].all());
            for at in (0..3).filter(|at| *at != leader) {
                if rng.random_bool(0.3) {
                    continue;
                }
                if rng.random_bool(0.3) {
                    replicas[at].restart(rng.random(), &config);
                }
                let (follower, leader) = (&replicas[at], &replicas[leader]);
                let before = follower.run(seed, follower.all());
                let durable = follower.log.offsets().durable.get();
                let same = common(&before, &led);
                asked_again.set(asked_again.get() + u32::from(follower.run(seed, follower.agree(leader)) > 1));
                let after = follower.run(seed, follower.all());
                // What was not durable may have gone with what was not common.
                let kept = before[..same].iter().filter(|batch| batch.next <= durable).count();
                assert!(
                    (kept..=same).contains(&after.len()),
                    "{} of {same} common batches are left, {kept} durable",
                    after.len()
                );
                assert_eq!(common(&after, &led), after.len());
                dropped.set(dropped.get() + before.len() - after.len());
                for _ in 0..rng.random_range(0..3) {
                    let end = follower.log.offsets().end;
                    let max_bytes = rng.random_range(0..6000);
                    let fetched = leader
                        .run(seed, leader.log.fetch(end, max_bytes, ReadLimit::LogEnd))
                        .unwrap();
                    let Some(range) = fetched.range else { break };
                    let payload = leader.run(seed, leader.log.read(&range)).unwrap();
                    let _ticket = follower.log.append_replica(&payload, NOW).unwrap();
                    if rng.random_bool(0.7) {
                        follower.run(seed, follower.log.flush()).unwrap();
                    }
                }
                let after = follower.run(seed, follower.all());
                assert_eq!(
                    common(&after, &led),
                    after.len(),
                    "both logs are the same, byte for byte"
                );
                for epoch in 0..=epoch {
                    let (own, theirs) = [follower, leader]
                        .map(|replica| replica.log.end_of_epoch(LeaderEpoch::new(epoch)))
                        .into();
                    let end = follower.log.offsets().end;
                    assert!(own.end == theirs.end.min(end), "epoch {epoch}: {own:?}, {theirs:?}");
                }
            }
        }
    });
    assert!(
        asked_again.get() > 0 && dropped.get() > 0,
        "{asked_again:?} {dropped:?}"
    );
}

#[test]
fn a_follower_takes_over_the_holes_of_a_compacted_leader_and_keeps_what_is_behind_them() {
    let name = "a_follower_takes_over_the_holes_of_a_compacted_leader_and_keeps_what_is_behind_them";
    for_each_seed(name, 20, |seed| {
        let leader = Replica::new(seed, &compact::config());
        leader.run(seed, async {
            for id in 0..60 {
                let keyed = compact::Keyed::new(id % 7, id, NOON);
                append_durably(&leader.log, &compact::batch_of(&[keyed], 400, Compression::None)).await;
            }
            leader.log.advance_high_watermark(Offset::new(60));
            let later = Timestamp::new(NOON + 100_000);
            leader.log.maintain(later).await.unwrap();
            leader.log.compact(later, 1 << 20, compact::at_once).await.unwrap();
        });
        assert!(leader.log.holes_below() > Offset::ZERO);
        let mut follower = Replica::new(seed + 1, &compact::config());
        let mut refused = 0;
        for stop in 0.. {
            let follow = async {
                loop {
                    let end = follower.log.offsets().end;
                    let fetched = leader.run(seed, leader.log.fetch(end, 900, ReadLimit::LogEnd)).unwrap();
                    let Some(range) = fetched.range else { return true };
                    let payload = leader.run(seed, leader.log.read(&range)).unwrap();
                    match follower.log.append_replica(&payload, NOW) {
                        Ok(_) => follower.log.flush().await.unwrap(),
                        Err(ReplicaError::Gap { .. }) => {
                            refused += 1;
                            follower.log.expect_holes_below(leader.log.holes_below()).await.unwrap();
                        }
                        Err(error) => panic!("{error}"),
                    }
                    if split(&payload).last().unwrap().next % 5 == stop {
                        return false;
                    }
                }
            };
            let is_over = SimExecutor::new(&follower.disk, seed).block_on(follow).unwrap();
            let (before, durable) = (follower.run(seed, follower.all()), follower.log.offsets().durable);
            follower.restart(seed + stop, &compact::config());
            assert_eq!(follower.log.offsets().end, durable, "nothing behind a hole is cut off");
            let after = follower.run(seed, follower.all());
            assert!(after.len() == before.len() && common(&after, &before) == before.len());
            if is_over {
                break;
            }
        }
        let (ours, theirs) = (follower.run(seed, follower.all()), leader.run(seed, leader.all()));
        assert!(ours.len() == theirs.len() && common(&ours, &theirs) == theirs.len());
        assert!(refused > 0, "a hole that nobody expects is refused");
    });
}
