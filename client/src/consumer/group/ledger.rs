//! What the application has been handed of each partition, and what of that may be committed.
//!
//! Shared by the consumer, its driver and its committer, under one short lock; where both are taken, this lock comes before the
//! one of the fetcher's state. Invariant: committed <= processed <= handed, except after a seek. A claim numbers the stay of a
//! partition with this consumer, so that nothing of an earlier stay is handed out or committed in a later one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use headwater_protocol::id::Offset;
use tokio::sync::Notify;

use super::membership::Place;
use crate::admin::CommittedOffset;
use crate::error::Error;
use crate::requests::Identity;
use crate::runtime::sync::Mutex;
use crate::runtime::{self, Instant};

/// The number of a partition's stay with this consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim(u64);

/// How far one partition is.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) claim: Claim,
    /// Its place in the fetcher's state.
    pub(super) index: usize,
    /// After the last record that the application was given.
    pub(super) handed: Offset,
    /// After the last record that the application is done with, or has committed itself.
    pub(super) processed: Offset,
    pub(super) committed: Option<Offset>,
    /// It is to be given up: nothing more of it is handed out.
    pub(super) stopping: bool,
    /// By the application.
    pub(super) paused: bool,
}

/// An offset to commit, as long as the claim holds.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) claim: Claim,
    pub(super) offset: CommittedOffset,
}

impl Mark {
    pub(super) fn place(&self) -> Place {
        (self.offset.topic.clone(), self.offset.partition)
    }
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) identity: Identity,
    pub(super) partitions: BTreeMap<Place, Progress>,
    /// The partitions whose records the application is at.
    in_hand: Vec<Place>,
    /// The application is waiting for records; else since when it is not.
    pub(super) is_polled: bool,
    pub(super) idle_since: Instant,
    /// The application was away for too long, and has not been told.
    pub(super) is_away: bool,
    /// To be told, each once.
    pub(super) news: VecDeque<Error>,
    /// Why there is no going on.
    pub(super) failed: Option<Error>,
    /// Why it is not known yet where to begin in what was assigned.
    pub(super) start_failure: Option<Error>,
    claims: u64,
}

/// What the consumer, its driver and its committer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) ledger: Mutex<Ledger>,
    /// Wakes the driver: the application is done with some records, or has come back.
    pub(super) returned: Notify,
}

impl Shared {
    pub(super) fn new(instance_id: Option<String>) -> Self {
        let ledger = Ledger {
            identity: Identity {
                member_id: String::new(),
                generation: -1,
                instance_id,
            },
            partitions: BTreeMap::new(),
            in_hand: Vec::new(),
            is_polled: false,
            idle_since: runtime::now(),
            is_away: false,
            news: VecDeque::new(),
            failed: None,
            start_failure: None,
            claims: 0,
        };
        Self {
            ledger: Mutex::new(ledger),
            returned: Notify::new(),
        }
    }
}

impl Ledger {
    /// A partition begins its stay, with its first record at `offset`.
    pub(super) fn add(&mut self, place: Place, index: usize, offset: Offset, committed: Option<Offset>) {
        self.claims += 1;
        let progress = Progress {
            claim: Claim(self.claims),
            index,
            handed: offset,
            processed: offset,
            committed,
            stopping: false,
            paused: false,
        };
        self.partitions.insert(place, progress);
    }

    /// The stay of a partition is over.
    pub(super) fn remove(&mut self, place: &Place) -> Option<Progress> {
        self.let_go(place);
        self.partitions.remove(place)
    }

    /// The partition that the fetcher's state has at this place.
    pub(super) fn at(&self, index: usize) -> Option<(&Place, &Progress)> {
        self.partitions.iter().find(|(_, progress)| progress.index == index)
    }

    /// The partition, if its stay is still this one and its records may be handed out.
    pub(super) fn open(&mut self, place: &Place, claim: Claim) -> Option<&mut Progress> {
        let progress = self.partitions.get_mut(place)?;
        (progress.claim == claim && !progress.stopping && !progress.paused).then_some(progress)
    }

    /// The application is given records up to `next` of an open partition.
    pub(super) fn hand(&mut self, place: &Place, next: Offset) {
        if let Some(progress) = self.partitions.get_mut(place) {
            progress.handed = next;
        }
        if !self.in_hand.contains(place) {
            self.in_hand.push(place.clone());
        }
    }

    /// There is nothing to hand out of a partition before `next`. That is processed too once the application is done with what
    /// it has of the partition.
    pub(super) fn pass(&mut self, place: &Place, next: Offset) {
        let is_in_hand = self.in_hand.contains(place);
        if let Some(progress) = self.partitions.get_mut(place) {
            progress.handed = next;
            if !is_in_hand {
                progress.processed = next;
            }
        }
    }

    /// What the application has of a partition counts for nothing.
    pub(super) fn let_go(&mut self, place: &Place) {
        self.in_hand.retain(|other| other != place);
    }

    /// The application is done with what it was handed. Returns whether somebody waits for that.
    pub(super) fn take_back(&mut self) -> bool {
        let mut is_awaited = false;
        for place in self.in_hand.drain(..) {
            if let Some(progress) = self.partitions.get_mut(&place) {
                progress.processed = progress.handed;
                is_awaited |= progress.stopping;
            }
        }
        is_awaited
    }

    /// Whether the application is done with the records of these partitions.
    pub(super) fn is_done_with(&self, places: &BTreeSet<Place>) -> bool {
        !self.in_hand.iter().any(|place| places.contains(place))
    }

    /// The application commits all that it was handed. That counts as processed, or the next commit of what is would take it back.
    pub(super) fn process_all(&mut self) {
        for progress in self.partitions.values_mut() {
            progress.processed = progress.handed;
        }
    }

    /// The application commits so much of a partition; as for all.
    pub(super) fn process(&mut self, offset: &CommittedOffset) {
        if let Some(progress) = self.partitions.get_mut(&(offset.topic.clone(), offset.partition)) {
            progress.processed = progress.processed.max(offset.offset);
        }
    }

    /// Why what was received may be committed no more, if the application does not know yet: it must not take a commit of the rest for
    /// one of all.
    pub(super) fn untold_loss(&self, limit: Duration) -> Option<Error> {
        if self.is_away {
            return Some(Error::PollIntervalExceeded { limit });
        }
        let mut news = self.news.iter();
        let lost = news.find(|news| matches!(news, Error::PartitionsLost { .. }));
        lost.or(self.failed.as_ref()).cloned()
    }

    /// What was processed since the last commit.
    pub(super) fn marks(&self, wanted: impl Fn(&Place) -> bool) -> Vec<Mark> {
        let mark = |(place, progress): (&Place, &Progress)| {
            let offset = progress.processed;
            (progress.committed != Some(offset) && wanted(place)).then(|| Mark {
                claim: progress.claim,
                offset: CommittedOffset::new(place.0.clone(), place.1, offset),
            })
        };
        self.partitions.iter().filter_map(mark).collect()
    }

    /// Whether the partition is still in the same stay.
    pub(super) fn is_held(&self, mark: &Mark) -> bool {
        let held = self.partitions.get(&mark.place());
        held.is_some_and(|progress| progress.claim == mark.claim)
    }

    pub(super) fn on_committed(&mut self, offset: &CommittedOffset) {
        if let Some(progress) = self.partitions.get_mut(&(offset.topic.clone(), offset.partition)) {
            progress.committed = Some(offset.offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::error::ErrorCode;
    use headwater_protocol::id::PartitionIndex;
    use headwater_protocol::topic::TopicName;

    use super::*;

    fn place(partition: i32) -> Place {
        (TopicName::new("t").unwrap(), PartitionIndex::new(partition))
    }

    fn ledger() -> Ledger {
        let shared = Shared::new(None);
        let mut ledger = shared.ledger.into_inner();
        ledger.add(place(0), 0, Offset::new(5), Some(Offset::new(5)));
        ledger
    }

    fn hand(ledger: &mut Ledger, offset: u64) {
        ledger.hand(&place(0), Offset::new(offset));
    }

    fn offsets(marks: &[Mark]) -> Vec<u64> {
        marks.iter().map(|mark| mark.offset.offset.get()).collect()
    }

    #[test]
    fn a_record_counts_as_processed_only_when_the_application_asks_for_the_next() {
        let mut ledger = ledger();
        hand(&mut ledger, 6);
        assert_eq!(offsets(&ledger.marks(|_| true)), [0; 0]);
        ledger.take_back();
        hand(&mut ledger, 7);
        assert_eq!(offsets(&ledger.marks(|_| true)), [6]);
    }

    #[test]
    fn what_the_application_commits_of_a_record_that_it_is_not_done_with_is_not_taken_back() {
        let mut ledger = ledger();
        ledger.add(place(1), 1, Offset::new(0), Some(Offset::new(0)));
        hand(&mut ledger, 9);
        ledger.process_all();
        let marks = ledger.marks(|_| true);
        assert_eq!(offsets(&marks), [9]);
        ledger.on_committed(&marks[0].offset);
        assert_eq!(offsets(&ledger.marks(|_| true)), [0; 0]);
        // Before it is known to be committed.
        ledger.hand(&place(1), Offset::new(4));
        ledger.process(&CommittedOffset::new(place(1).0, place(1).1, Offset::new(3)));
        assert_eq!(offsets(&ledger.marks(|_| true)), [3]);
        ledger.process(&CommittedOffset::new(place(1).0, place(1).1, Offset::new(2)));
        assert_eq!(offsets(&ledger.marks(|_| true)), [3]);
    }

    #[test]
    fn what_was_handed_out_together_is_processed_together_past_the_ends_of_batches() {
        let mut ledger = ledger();
        ledger.add(place(1), 1, Offset::new(0), Some(Offset::new(0)));
        hand(&mut ledger, 9);
        ledger.pass(&place(0), Offset::new(12));
        ledger.hand(&place(1), Offset::new(3));
        ledger.pass(&place(1), Offset::new(3));
        assert_eq!(offsets(&ledger.marks(|_| true)), [0; 0], "nothing came back");
        ledger.take_back();
        assert_eq!(offsets(&ledger.marks(|_| true)), [12, 3]);
        // What holds no record is nobody's to process.
        ledger.pass(&place(1), Offset::new(8));
        assert_eq!(offsets(&ledger.marks(|_| true)), [12, 8]);
    }

    #[test]
    fn nothing_of_an_earlier_stay_is_committed_in_a_later_one() {
        let mut ledger = ledger();
        hand(&mut ledger, 9);
        ledger.take_back();
        let marks = ledger.marks(|_| true);
        assert!(marks.len() == 1 && ledger.is_held(&marks[0]));
        ledger.remove(&place(0));
        assert!(!ledger.is_held(&marks[0]));
        ledger.add(place(0), 0, Offset::new(20), None);
        assert!(!ledger.is_held(&marks[0]));
    }

    #[test]
    fn whoever_commits_hears_of_a_loss_once_it_is_there_and_until_it_is_told() {
        const LIMIT: Duration = Duration::from_secs(1);
        let mut ledger = ledger();
        ledger.news.push_back(Error::Closed);
        assert!(ledger.untold_loss(LIMIT).is_none(), "that is no loss");
        ledger.news.push_back(Error::PartitionsLost {
            partitions: [place(0)].into(),
            code: ErrorCode::UnknownMemberId,
        });
        for _ in 0..2 {
            let loss = ledger.untold_loss(LIMIT);
            assert!(matches!(loss, Some(Error::PartitionsLost { .. })), "{loss:?}");
        }
        ledger.news.clear();
        assert!(ledger.untold_loss(LIMIT).is_none());
        ledger.failed = Some(Error::Closed);
        assert!(matches!(ledger.untold_loss(LIMIT), Some(Error::Closed)));
        ledger.is_away = true;
        let loss = ledger.untold_loss(LIMIT);
        assert!(
            matches!(loss, Some(Error::PollIntervalExceeded { limit: LIMIT })),
            "{loss:?}"
        );
    }

    #[test]
    fn a_partition_is_not_given_up_while_the_application_is_at_its_records() {
        let mut ledger = ledger();
        let places = BTreeSet::from([place(0)]);
        assert!(ledger.is_done_with(&places));
        hand(&mut ledger, 6);
        ledger.partitions.get_mut(&place(0)).unwrap().stopping = true;
        assert!(!ledger.is_done_with(&places));
        assert!(ledger.take_back(), "the driver is to be woken");
        assert!(ledger.is_done_with(&places));
    }
}
