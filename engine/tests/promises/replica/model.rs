//! Whatever is done to a log of one or of several replicas and to a list of batches gives the same.

use std::rc::Rc;

use headwater_engine::{LogConfig, LogError, ReadLimit, ReplicaError, TailMemory, Ticket, disk::SimDisk};
use headwater_protocol::{
    batch::stamp,
    id::{LeaderEpoch, Offset, Timestamp},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::naive::{Naive, is_settled, split};
use crate::support::{NOON, SimLog, for_each_seed, open_with, run, small_config};

const NOW: Timestamp = Timestamp::new(NOON);

const LIMITS: [ReadLimit; 3] = [ReadLimit::Durable, ReadLimit::HighWatermark, ReadLimit::LogEnd];

/// Steps of one run.
const STEPS: usize = 150;

/// Who waits for an append.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says something that the others do not"
)]
struct Waiting {
    next: u64,
    /// It was appended when the log had other replicas.
    is_held: bool,
    durable: Ticket,
    committed: Ticket,
    is_durable: bool,
    is_committed: bool,
    is_dropped: bool,
}

struct Pair {
    disk: SimDisk,
    config: LogConfig,
    memory: Rc<TailMemory>,
    log: Rc<SimLog>,
    naive: Naive,
    waiting: Vec<Waiting>,
    next_id: u64,
    /// Holes are expected below.
    holes_below: u64,
    rng: StdRng,
}

impl Pair {
    fn draw(&mut self, most: u64) -> u64 {
        self.rng.random_range(0..most.max(1))
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        self.rng.random_range(from..=to)
    }

    async fn step(&mut self) {
        match self.draw(25) {
            0..4 => self.append(),
            4..6 | 20 => self.append_replica(),
            21 => self.refused(),
            22 => {
                let to = self.naive.end + self.draw(60);
                self.log.expect_holes_below(Offset::new(to)).await.unwrap();
                self.holes_below = self.holes_below.max(to);
                assert_eq!(self.log.holes_below().get(), self.holes_below);
            }
            23 if self.draw(4) == 0 => {
                let start = self.draw(self.naive.end + 200);
                self.log.begin_again_at(Offset::new(start)).await.unwrap();
                self.naive.begin_again_at(start);
                self.dropped();
            }
            6..9 => self.flush().await,
            9 => {
                let at = self.between(self.naive.start, self.naive.end + 3);
                self.log.hold_high_watermark(Offset::new(at));
                self.naive.watermark = self.naive.watermark.min(at);
                if !std::mem::replace(&mut self.naive.is_held, true) {
                    self.waiting.iter_mut().for_each(|waiting| waiting.is_held = false);
                }
            }
            10..13 if self.naive.is_held => {
                let to = self.between(self.naive.start, self.naive.end + 3);
                self.log.advance_high_watermark(Offset::new(to));
                self.naive.watermark = self.naive.watermark.max(to.min(self.naive.end));
            }
            13 => {
                self.log.follow_durable_offset();
                self.naive.is_held = false;
                self.naive.watermark = self.naive.watermark.max(self.naive.durable);
            }
            14 => self.truncate().await,
            15 => {
                let before = self.between(self.naive.start, self.naive.end);
                let start = self.log.delete_records(Offset::new(before)).await.unwrap();
                let highest = self.naive.durable.min(self.naive.watermark);
                self.naive.start = self.naive.start.max(before.min(highest));
                assert_eq!(start.get(), self.naive.start);
            }
            16 => self.log.checkpoint(NOW).await.unwrap(),
            17 if self.draw(3) == 0 => self.restart().await,
            _ => {}
        }
        self.check().await;
    }

    /// A payload of a client: a producer sends one batch a request.
    fn append(&mut self) {
        let rng = &mut self.rng;
        let payload = self.naive.make(&mut self.next_id, |most| rng.random_range(0..most));
        let epoch = self.naive.latest_epoch().unwrap_or(0) + i32::from(self.draw(5) == 0);
        self.log.set_leader_epoch(LeaderEpoch::new(epoch));
        let Ok(appended) = self.log.append(&payload, NOW) else {
            assert!(payload.len() as u64 > self.config.segment_size_bytes);
            return;
        };
        assert!(!appended.duplicate);
        self.naive.append(&payload, epoch);
        self.wait_for(appended);
    }

    /// Batches as a leader might have them, which follow one another perhaps behind holes.
    fn replicated(&mut self) -> Vec<u8> {
        let mut leader = self.naive.clone();
        for _ in 0..=self.draw(3) {
            let rng = &mut self.rng;
            let mut batch = leader.make(&mut self.next_id, |most| rng.random_range(0..most));
            let epoch = leader.latest_epoch().unwrap_or(0) + self.draw(4).saturating_sub(2) as i32;
            let hole = [0, self.draw(20)][self.draw(2) as usize];
            let base = leader.end + if leader.end + hole <= self.holes_below { hole } else { 0 };
            stamp(&mut batch, Offset::new(base), LeaderEpoch::new(epoch));
            leader.append_replica(&batch);
        }
        let new = &leader.batches[self.naive.batches.len()..];
        new.iter().flat_map(|batch| batch.bytes.clone()).collect()
    }

    fn append_replica(&mut self) {
        let payload = self.replicated();
        let appended = self.log.append_replica(&payload, NOW).unwrap();
        self.naive.append_replica(&payload);
        self.wait_for(appended);
    }

    /// What does not follow, or is not whole, leaves nothing.
    fn refused(&mut self) {
        let (latest, end) = (self.naive.latest_epoch().unwrap_or(0), self.naive.end);
        let good = self.replicated();
        let first = |base, epoch| {
            let mut payload = good.clone();
            stamp(&mut payload, Offset::new(base), LeaderEpoch::new(epoch));
            self.log.append_replica(&payload, NOW)
        };
        if latest > 0 {
            assert!(matches!(first(end, latest - 1), Err(ReplicaError::EarlierEpoch { .. })));
        }
        assert!(matches!(first(end, -1), Err(ReplicaError::EarlierEpoch { .. })));
        if end > 0 {
            assert!(matches!(first(end - 1, latest), Err(ReplicaError::Overlap { .. })));
        }
        let behind = first(end.max(self.holes_below) + 1, latest);
        assert!(matches!(behind, Err(ReplicaError::Gap { .. })));
        // From the checksum on, and in the length.
        let size = split(&good)[0].bytes.len();
        for at in [self.rng.random_range(17..size), self.rng.random_range(8..12)] {
            let mut damaged = good.clone();
            damaged[at] ^= 128;
            let result = self.log.append_replica(&damaged, NOW);
            assert!(matches!(result, Err(ReplicaError::Batch(_))), "byte {at}: {result:?}");
        }
        assert!(matches!(self.log.append_replica(&[], NOW), Err(ReplicaError::Empty)));
    }

    fn wait_for(&mut self, appended: headwater_engine::Appended) {
        assert_eq!(appended.next_offset.get(), self.naive.end);
        self.waiting.push(Waiting {
            next: appended.next_offset.get(),
            is_held: self.naive.is_held,
            committed: self.log.committed(&appended),
            durable: appended.durable,
            is_durable: false,
            is_committed: false,
            is_dropped: false,
        });
    }

    async fn flush(&mut self) {
        self.log.flush().await.unwrap();
        self.naive.flush();
    }

    async fn truncate(&mut self) {
        let to = self.between(self.naive.start, self.naive.end);
        self.log.truncate(Offset::new(to)).await.unwrap();
        self.naive.truncate(to);
        self.dropped();
    }

    /// The log has become shorter, or another one.
    fn dropped(&mut self) {
        let end = self.naive.end;
        self.holes_below = self.log.holes_below().get();
        let is_gone = |waiting: &&mut Waiting| waiting.next > end || self.naive.batches.is_empty();
        for waiting in self.waiting.iter_mut().filter(is_gone) {
            waiting.is_dropped = true;
        }
    }

    /// The same log is opened again. Whether it has other replicas, it is told anew.
    async fn restart(&mut self) {
        self.log.close().await.unwrap();
        let closed = self.naive.watermark;
        self.naive.flush();
        let (log, recovery) = open_with(&self.disk, &self.config, &self.memory).await.unwrap();
        self.log = log;
        self.holes_below = self.log.holes_below().get();
        self.waiting.clear();
        let known = if self.naive.is_held { closed } else { self.naive.durable };
        assert_eq!(recovery.high_watermark.get(), known);
        if self.naive.is_held {
            self.log.hold_high_watermark(recovery.high_watermark);
        }
    }

    async fn check(&mut self) {
        self.naive.check_offsets(&self.log);
        self.naive.check_epochs(&self.log);
        self.naive.check_producers(&self.log);
        for limit in LIMITS {
            let offset = self.between(self.naive.start, self.naive.end);
            let max_bytes = self.draw(20_000);
            self.naive
                .check_fetch(&self.disk, &self.log, offset, max_bytes, limit)
                .await;
        }
        let (durable, watermark) = (self.naive.durable, self.naive.watermark);
        for waiting in &mut self.waiting {
            waiting.is_durable |= !waiting.is_dropped && waiting.next <= durable;
            waiting.is_committed |= !waiting.is_dropped && waiting.next <= watermark;
            check_ticket(&mut waiting.committed, waiting.is_committed, waiting.is_dropped);
            if waiting.is_held {
                check_ticket(&mut waiting.durable, waiting.is_durable, waiting.is_dropped);
            }
        }
    }
}

fn check_ticket(ticket: &mut Ticket, is_there: bool, is_dropped: bool) {
    match is_settled(ticket) {
        Some(Ok(())) => assert!(is_there, "answered too early"),
        Some(Err(LogError::Truncated)) => assert!(is_dropped && !is_there, "refused, but it is there"),
        Some(Err(error)) => panic!("{error}"),
        None => assert!(!is_there && !is_dropped, "not answered"),
    }
}

#[test]
fn a_log_of_several_replicas_behaves_like_a_list_of_batches() {
    let name = "a_log_of_several_replicas_behaves_like_a_list_of_batches";
    for_each_seed(name, 150, |seed| {
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let mut rng = StdRng::seed_from_u64(seed);
            // Little memory: what is durable is read from the disk, beside what is not.
            let memory = TailMemory::new([8 << 10, 16 << 20][rng.random_range(0..2)]);
            let config = LogConfig {
                segment_size_bytes: [8 << 10, 40 << 10][rng.random_range(0..2)],
                ..small_config()
            };
            let (log, _) = open_with(&disk, &config, &memory).await.unwrap();
            let mut pair = Pair {
                disk: disk.clone(),
                config,
                memory,
                log,
                naive: Naive::default(),
                waiting: Vec::new(),
                next_id: 0,
                holes_below: 0,
                rng,
            };
            for _ in 0..STEPS {
                pair.step().await;
            }
            pair.restart().await;
            pair.check().await;
            pair.naive.check_all(&pair.disk, &pair.log).await;
        });
    });
}
