//! Logs of several replicas as lists of records, each with the epoch of the leader that wrote it and a number of its own.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    epoch: i32,
    number: u64,
}

/// A log, and beside it the table that should say the same.
#[derive(Debug, Clone, Default)]
struct Replica {
    records: Vec<Record>,
    start: usize,
    table: EpochTable,
}

impl Replica {
    fn end(&self) -> Offset {
        Offset::new(self.records.len() as u64)
    }

    fn append(&mut self, record: Record) {
        let end = self.end();
        self.table.note(LeaderEpoch::new(record.epoch), end);
        self.records.push(record);
    }

    fn truncate(&mut self, end: usize) {
        self.records.truncate(end);
        self.start = self.start.min(end);
        self.table.truncate(self.end());
    }

    fn begin_at(&mut self, start: usize) {
        self.start = self.start.max(start);
        self.table.begin_at(Offset::new(self.start as u64), self.end());
    }

    /// Looked up record by record.
    fn end_of(&self, epoch: i32) -> EpochEnd {
        let held = || self.records.iter().enumerate().skip(self.start);
        let last = held().rev().find(|(_, record)| record.epoch <= epoch);
        let next = held().find(|(_, record)| record.epoch > epoch);
        EpochEnd {
            epoch: LeaderEpoch::new(last.map_or(epoch, |(_, record)| record.epoch)),
            end: Offset::new(next.map_or(self.records.len(), |(at, _)| at) as u64),
        }
    }

    fn check(&self, epochs: i32) {
        for end in self.start + 1..=self.records.len() {
            let mut shorter = self.clone();
            shorter.records.truncate(end);
            shorter.table = self.table.as_of(shorter.end());
            assert!(shorter.table.is_valid(self.start as u64, end as u64), "{self:?}");
            for epoch in 0..=epochs {
                let answer = shorter.table.end_of(LeaderEpoch::new(epoch), shorter.end());
                assert_eq!(answer, shorter.end_of(epoch), "epoch {epoch} of {shorter:?}");
            }
        }
    }
}

/// Asks until it is known, as a follower does. Returns how often it asked, too.
fn agree(follower: &Replica, leader: &Replica) -> (usize, u32) {
    let Some(mut epoch) = follower.table.latest() else {
        return (follower.records.len(), 0);
    };
    for asked in 1.. {
        let answer = leader.table.end_of(epoch, leader.end());
        match common_point(&follower.table, follower.end(), answer) {
            CommonPoint::At(point) => return (point.get() as usize, asked),
            CommonPoint::Older { epoch: older, below } => {
                assert!(older < epoch && below <= follower.end(), "it comes to an end");
                epoch = older;
            }
        }
    }
    unreachable!("epochs are finite")
}

/// The first place where both have something and not the same; or where one of them ends.
fn parting(a: &Replica, b: &Replica) -> usize {
    let shorter = a.records.len().min(b.records.len());
    let from = a.start.max(b.start).min(shorter);
    let differs = |at: &usize| a.records[*at] != b.records[*at];
    (from..shorter).find(differs).unwrap_or(shorter)
}

#[test]
fn the_common_point_is_the_end_of_the_longest_common_part_of_two_logs() {
    let (mut asked_again, mut parted) = (0, 0);
    for seed in 0..3000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut replicas = vec![Replica::default(); 3];
        let mut number = 0;
        for epoch in 0..rng.random_range(1..12) {
            // Whoever it is: also one that lacks what others have, as when an operator orders it.
            let leader = rng.random_range(0..3);
            for _ in 0..rng.random_range(0..6) {
                number += 1;
                replicas[leader].append(Record { epoch, number });
            }
            let lead = replicas[leader].clone();
            for (at, follower) in replicas.iter_mut().enumerate() {
                if at == leader || rng.random_bool(0.4) {
                    continue;
                }
                let (point, asked) = agree(follower, &lead);
                let expected = parting(follower, &lead);
                assert_eq!(
                    point.max(follower.start.min(expected)),
                    expected,
                    "seed {seed}: {follower:?} {lead:?}"
                );
                asked_again += u32::from(asked > 1);
                parted += u32::from(expected < follower.records.len().min(lead.records.len()));
                follower.truncate(expected);
                let to = rng.random_range(expected..=lead.records.len());
                if follower.records.len() >= lead.start {
                    for record in &lead.records[expected..to] {
                        follower.append(*record);
                    }
                }
                follower.check(epoch + 1);
            }
            if rng.random_bool(0.2) {
                // What every one of them has is deleted on one.
                let same = (0..3).map(|at| parting(&replicas[0], &replicas[at])).min().unwrap_or(0);
                let to = rng.random_range(0..=same);
                replicas[rng.random_range(0..3)].begin_at(to);
            }
            replicas[leader].check(epoch + 1);
        }
    }
    assert!(asked_again > 100 && parted > 100, "{asked_again} {parted}");
}

#[test]
fn the_example_of_kip_279_is_resolved() {
    // The follower wrote epoch 1 alone and has not seen that the other had epoch 2 before it became the leader of epoch 3.
    let table = |starts: &[(i32, u64)]| {
        let mut table = EpochTable::default();
        for (epoch, offset) in starts {
            table.note(LeaderEpoch::new(*epoch), Offset::new(*offset));
        }
        table
    };
    let follower = table(&[(0, 0), (1, 10)]);
    let leader = table(&[(0, 0), (2, 10), (3, 20)]);
    let answer = leader.end_of(LeaderEpoch::new(1), Offset::new(30));
    assert_eq!(answer.epoch, LeaderEpoch::new(0));
    let point = common_point(&follower, Offset::new(25), answer);
    assert_eq!(point, CommonPoint::At(Offset::new(10)));
    // The other way round: the follower has epochs that the leader's answer lies between.
    let follower = table(&[(0, 0), (2, 10), (4, 20)]);
    let leader = table(&[(0, 0), (3, 10), (5, 40)]);
    let answer = leader.end_of(LeaderEpoch::new(4), Offset::new(50));
    assert_eq!((answer.epoch.get(), answer.end.get()), (3, 40));
    let older = CommonPoint::Older {
        epoch: LeaderEpoch::new(2),
        below: Offset::new(20),
    };
    assert_eq!(common_point(&follower, Offset::new(30), answer), older);
}

#[test]
fn a_log_without_records_has_no_epochs_and_one_of_before_has_epoch_0() {
    let (three, nine, end) = (Offset::new(3), Offset::new(9), Offset::new(20));
    let mut table = EpochTable::of_before(three, nine);
    table.note(LeaderEpoch::new(4), nine);
    table.note(LeaderEpoch::new(2), Offset::new(10));
    table.begin_at(Offset::new(19), end);
    assert_eq!(
        table.latest(),
        Some(LeaderEpoch::new(4)),
        "an earlier one is not believed"
    );
    assert!(table.is_valid(19, 20));
    table.begin_at(end, end);
    assert_eq!(table, EpochTable::default());
    assert_eq!(EpochTable::of_before(three, three), table);
}
