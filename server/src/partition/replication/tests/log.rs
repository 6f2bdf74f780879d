//! A log as a list of records, with the rules that the engine's has.

use headwater_engine::{CommonPoint, EpochEnd};
use headwater_protocol::id::{LeaderEpoch, Offset};

use super::{Held, Log, LogState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) epoch: i32,
    pub(super) number: u64,
}

/// Below the start of a log that has never had it.
const GONE: Record = Record { epoch: -1, number: 0 };

#[derive(Debug, Clone, Default)]
pub(super) struct ModelLog {
    /// From offset 0 on; those below the start count for nothing.
    pub(super) records: Vec<Record>,
    pub(super) start: usize,
    pub(super) received: usize,
    pub(super) durable: usize,
    pub(super) watermark: usize,
}

pub(super) fn offset(at: usize) -> Offset {
    Offset::new(at as u64)
}

pub(super) fn at(offset: Offset) -> usize {
    offset.get() as usize
}

impl ModelLog {
    pub(super) fn end(&self) -> usize {
        self.records.len()
    }

    pub(super) fn held(&self) -> Held {
        Held {
            received: offset(self.received),
            durable: offset(self.durable),
        }
    }

    pub(super) fn state(&self) -> LogState {
        LogState {
            held: self.held(),
            end: offset(self.end()),
            watermark: offset(self.watermark),
        }
    }

    pub(super) fn of_follower(&self) -> Log {
        let last = self.records[self.start..].last();
        Log {
            end: offset(self.end()),
            latest_epoch: last.map(|record| LeaderEpoch::new(record.epoch)),
            held: self.held(),
            holes_below: Offset::ZERO,
        }
    }

    /// Where the records end that have this epoch or an earlier one, and the latest epoch that those have.
    fn split(&self, epoch: LeaderEpoch) -> (Option<LeaderEpoch>, usize) {
        let held = || self.records.iter().enumerate().skip(self.start);
        let end = held()
            .find(|(_, record)| record.epoch > epoch.get())
            .map_or(self.end(), |(at, _)| at);
        let floor = self.records[self.start..end]
            .last()
            .map(|record| LeaderEpoch::new(record.epoch));
        (floor, end)
    }

    pub(super) fn end_of_epoch(&self, epoch: LeaderEpoch) -> EpochEnd {
        let (floor, end) = self.split(epoch);
        EpochEnd {
            epoch: floor.unwrap_or(epoch),
            end: offset(end),
        }
    }

    pub(super) fn truncate(&mut self, to: usize) {
        self.records.truncate(to);
        for place in [
            &mut self.start,
            &mut self.received,
            &mut self.durable,
            &mut self.watermark,
        ] {
            *place = (*place).min(to);
        }
    }

    pub(super) fn truncate_to(&mut self, leader: EpochEnd) -> CommonPoint {
        let (floor, end) = self.split(leader.epoch);
        match floor {
            Some(epoch) if epoch < leader.epoch => {
                let below = offset(end);
                return CommonPoint::Older { epoch, below };
            }
            Some(_) => self.truncate(end.min(at(leader.end))),
            None => self.truncate(end),
        }
        CommonPoint::At(offset(self.end()))
    }

    /// Nothing is left, and the log goes on at `start`.
    pub(super) fn begin_again_at(&mut self, start: usize) {
        *self = ModelLog {
            records: vec![GONE; start],
            start,
            received: start,
            durable: start,
            watermark: start,
        };
    }
}
