//! Whatever is done to a log of one or of several replicas and to a list of batches gives the same.

use std::rc::Rc;

use headwater_engine::{LogConfig, LogError, ReadLimit, TailMemory, Ticket, disk::SimDisk};
use headwater_protocol::id::{Offset, Timestamp};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::naive::{Naive, is_settled};
use crate::support::{NOON, Record, SimLog, batch, for_each_seed, open_with, run, small_config};

const NOW: Timestamp = Timestamp::new(NOON);

const LIMITS: [ReadLimit; 3] = [ReadLimit::Durable, ReadLimit::HighWatermark, ReadLimit::LogEnd];

/// Steps of one run.
const STEPS: usize = 150;

/// Who waits for an append.
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
        match self.draw(20) {
            0..6 => self.append(),
            6..9 => self.flush().await,
            9 => {
                let at = self.between(self.naive.start, self.naive.end() + 3);
                self.log.hold_high_watermark(Offset::new(at));
                self.naive.watermark = self.naive.watermark.min(at);
                if !std::mem::replace(&mut self.naive.is_held, true) {
                    self.waiting.iter_mut().for_each(|waiting| waiting.is_held = false);
                }
            }
            10..13 if self.naive.is_held => {
                let to = self.between(self.naive.start, self.naive.end() + 3);
                self.log.advance_high_watermark(Offset::new(to));
                self.naive.watermark = self.naive.watermark.max(to.min(self.naive.end()));
            }
            13 => {
                self.log.follow_durable_offset();
                self.naive.is_held = false;
                self.naive.watermark = self.naive.watermark.max(self.naive.durable);
            }
            14 => self.truncate().await,
            15 => {
                let before = self.between(self.naive.start, self.naive.end());
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

    fn append(&mut self) {
        let mut payload = Vec::new();
        for _ in 0..=self.draw(2) {
            let size = [10, 200, 1500, 5000][self.draw(4) as usize];
            let records: Vec<_> = (0..=self.draw(3))
                .map(|_| {
                    self.next_id += 1;
                    Record::new(self.next_id, size)
                })
                .collect();
            payload.extend_from_slice(&batch(&records));
        }
        let Ok(appended) = self.log.append(&payload, NOW) else {
            assert!(payload.len() as u64 > self.config.segment_size_bytes);
            return;
        };
        self.naive.append(&payload, 0);
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
        let to = self.between(self.naive.start, self.naive.end());
        self.log.truncate(Offset::new(to)).await.unwrap();
        self.naive.truncate(to);
        let end = self.naive.end();
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.next > end) {
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
        self.waiting.clear();
        let known = if self.naive.is_held { closed } else { self.naive.durable };
        assert_eq!(recovery.high_watermark.get(), known);
        if self.naive.is_held {
            self.log.hold_high_watermark(recovery.high_watermark);
        }
    }

    async fn check(&mut self) {
        self.naive.check_offsets(&self.log);
        for limit in LIMITS {
            let offset = self.between(self.naive.start, self.naive.end());
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
                rng,
            };
            for _ in 0..STEPS {
                pair.step().await;
            }
            pair.restart().await;
            pair.check().await;
        });
    });
}
