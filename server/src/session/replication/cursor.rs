//! How far a leader has sent records to a follower: it sends on without being asked, up to what the follower takes unreported.

use std::collections::VecDeque;

use crate::partition::replication::{Place, Progress};

/// One partition on one connection. Sending on is a guess: nothing that was sent counts before the follower has said that it has it,
/// and a follower that turns out to be elsewhere is sent records from there.
#[derive(Debug)]
pub(super) struct Cursor {
    /// Where the follower was when it said so last.
    reported: Place,
    /// Where it is after each of those that were sent since, and the bytes of each.
    sent: VecDeque<(Place, u64)>,
    unreported: u64,
    /// Bytes that may be unreported, but for one batch that is larger.
    window: u64,
    /// What it was told last beside records.
    told: Option<Progress>,
}

impl Cursor {
    /// Of a follower that is at this place and was sent nothing.
    pub(super) fn new(place: Place, window: u64) -> Cursor {
        Cursor {
            reported: place,
            sent: VecDeque::new(),
            unreported: 0,
            window,
            told: None,
        }
    }

    /// The follower says where it is. False if that is nowhere on its way: then all that was sent is of no use to it.
    pub(super) fn reports(&mut self, place: Place, window: u64) -> bool {
        if place != self.reported {
            let Some(reached) = self.sent.iter().position(|(after, _)| *after == place) else {
                return false;
            };
            let taken: u64 = self.sent.drain(..=reached).map(|(_, bytes)| bytes).sum();
            self.unreported -= taken;
            self.reported = place;
        }
        self.window = window;
        true
    }

    /// Where the next records go on.
    pub(super) fn next(&self) -> Place {
        self.sent.back().map_or(self.reported, |(after, _)| *after)
    }

    /// Bytes that may be sent now.
    pub(super) fn room(&self) -> u64 {
        if self.sent.is_empty() {
            self.window.max(1)
        } else {
            self.window.saturating_sub(self.unreported)
        }
    }

    /// So many bytes of records are sent, after which the follower is at this place.
    pub(super) fn sends(&mut self, bytes: u64, after: Place) {
        self.sent.push_back((after, bytes));
        self.unreported += bytes;
    }

    /// Whether this is news to the follower, which is told it now.
    pub(super) fn tells(&mut self, progress: Progress) -> bool {
        self.told.replace(progress) != Some(progress)
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::id::{LeaderEpoch, Offset};

    use super::*;

    fn at(offset: u64) -> Place {
        Place {
            leader_epoch: LeaderEpoch::new(5),
            offset: Offset::new(offset),
            last_epoch: LeaderEpoch::new(4),
        }
    }

    #[test]
    fn no_more_is_sent_unreported_than_the_follower_takes_and_at_least_one_batch_is() {
        let mut cursor = Cursor::new(at(10), 100);
        assert_eq!((cursor.next(), cursor.room()), (at(10), 100));
        cursor.sends(60, at(20));
        assert_eq!((cursor.next(), cursor.room()), (at(20), 40));
        cursor.sends(70, at(30));
        assert_eq!(cursor.room(), 0);
        assert!(
            cursor.reports(at(10), 100),
            "it is durable further, and no further than it was"
        );
        assert_eq!(cursor.room(), 0);
        assert!(cursor.reports(at(20), 100));
        assert_eq!((cursor.next(), cursor.room()), (at(30), 30));
        assert!(cursor.reports(at(30), 0));
        assert_eq!((cursor.next(), cursor.room()), (at(30), 1));
    }

    #[test]
    fn a_follower_that_is_elsewhere_is_sent_records_from_there() {
        let mut cursor = Cursor::new(at(10), 100);
        cursor.sends(60, at(20));
        assert!(!cursor.reports(at(5), 100), "it has lost some");
        assert!(!cursor.reports(at(15), 100), "it has cut a batch");
        let later = Place {
            leader_epoch: LeaderEpoch::new(6),
            ..at(20)
        };
        assert!(!cursor.reports(later, 100), "in another epoch");
        let other = Place {
            last_epoch: LeaderEpoch::new(3),
            ..at(20)
        };
        assert!(!cursor.reports(other, 100), "its last record is another");
    }

    #[test]
    fn what_is_known_is_not_told_again() {
        let progress = |watermark| Progress {
            high_watermark: Offset::new(watermark),
            log_start: Offset::ZERO,
            holes_below: Offset::ZERO,
        };
        let mut cursor = Cursor::new(at(10), 100);
        let told: Vec<bool> = [5, 5, 6, 6].map(|watermark| cursor.tells(progress(watermark))).into();
        assert_eq!(told, [true, false, true, false]);
    }
}
