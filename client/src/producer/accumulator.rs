//! The batches of one partition that records are still being added to, or that wait for the sender to fetch them.
//!
//! Shared by all callers of `send` and the partition's sender task, under one short lock. A record is encoded straight
//! into the open batch: no allocation and no message for each record. Memory is reserved in steps as a batch grows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headwater_protocol::batch::{BatchBuilder, Compression, HEADER_LEN};
use headwater_protocol::id::PartitionIndex;
use headwater_protocol::topic::TopicName;
use tokio::sync::Notify;

use super::delivery::{Completer, Completion, Delivery};
use super::memory::{Memory, Reservation};
use super::topic::TopicSpread;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::record::Record;
use crate::runtime::sync::Mutex;
use crate::runtime::{self, Instant};

/// Room for a partition's first batch, in bytes; later ones get what the ones before needed.
const SIZE_HINT_FIRST: usize = 4 << 10;

/// Limits of batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchSettings {
    pub(super) compression: Compression,
    /// A batch is closed before it grows beyond this many bytes.
    pub(super) batch_size: usize,
    /// A record larger than `batch_size` gets a batch of its own up to this many bytes, where the topic has no limit that is
    /// known.
    pub(super) batch_size_max: usize,
}

/// Bytes of a record that compression may yet bring below the topic's limit: as much as consumers and brokers decompress.
const UNCOMPRESSED_SIZE_MAX: usize = 64 << 20;

/// A batch on its way from `send` to the sender.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) builder: BatchBuilder,
    pub(super) completer: Completer,
    pub(super) reserved: Reservation,
    /// When its first record came.
    pub(super) opened_at: Instant,
}

/// The batches of one partition.
#[derive(Debug)]
pub(super) struct PartitionQueue {
    pub(super) topic: TopicName,
    pub(super) partition: PartitionIndex,
    settings: BatchSettings,
    memory: Arc<Memory>,
    spread: Arc<TopicSpread>,
    state: Mutex<State>,
    /// Why its batches have to be sent again.
    trouble: Mutex<Option<Error>>,
    /// Wakes the sender: a batch was closed, or opened while the sender awaits that, or has come to an end.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    open: Option<Batch>,
    /// Closed batches, oldest first.
    closed: VecDeque<Batch>,
    /// Every batch that has not ended, for `flush`; ended ones are dropped when the next is opened.
    unfinished: VecDeque<Arc<Completion>>,
    /// Room for the next batch in bytes.
    size_hint: usize,
    /// The sender has something to do as soon as a batch is opened: send it, or time its lingering.
    awaits_open: bool,
    /// The open batch is not to linger: somebody waits for memory.
    hurried: bool,
    /// No record is taken any more.
    shut: bool,
}

/// The outcome of an append that met no error.
#[derive(Debug)]
pub(super) enum Append {
    Done(Delivery),
    /// Nothing was done: so many bytes are to be reserved first.
    NeedsMemory(usize),
}

/// What the sender found in the queue.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) batches: Vec<Batch>,
    /// When the batch that stays open was opened.
    pub(super) open_since: Option<Instant>,
    /// Nothing is left and nothing will come.
    pub(super) finished: bool,
}

impl PartitionQueue {
    pub(super) fn new(
        topic: &TopicName,
        partition: PartitionIndex,
        settings: BatchSettings,
        memory: Arc<Memory>,
        spread: Arc<TopicSpread>,
    ) -> Self {
        let state = State {
            open: None,
            closed: VecDeque::new(),
            unfinished: VecDeque::new(),
            size_hint: SIZE_HINT_FIRST.min(settings.batch_size),
            awaits_open: true,
            hurried: false,
            shut: false,
        };
        let (state, changed) = (Mutex::new(state), Notify::new());
        Self {
            topic: topic.clone(),
            partition,
            settings,
            memory,
            spread,
            state,
            trouble: Mutex::default(),
            changed,
        }
    }

    /// Adds a record. `grant` is memory that was waited for; what of it is not needed stays there.
    pub(super) fn append(&self, record: &Record<'_>, grant: &mut Option<Reservation>) -> Result<Append, Error> {
        let size = BatchBuilder::record_size_max(record.key, record.value, &record.headers);
        let size_max = self.record_size_max();
        if HEADER_LEN + size > size_max {
            // The exact size, now that it may matter.
            let alone = BatchBuilder::lone_size(record.key, record.value, &record.headers);
            if alone > size_max {
                return Err(Error::RecordTooLarge {
                    topic: self.topic.clone(),
                    size: alone,
                    size_max,
                });
            }
        }
        let batch_size = self.batch_size();
        let timestamp = record.timestamp.unwrap_or_else(runtime::wall);
        let mut state = self.state.lock();
        if state.shut {
            return Err(Error::Closed);
        }
        if state
            .open
            .as_ref()
            .is_some_and(|open| open.builder.len() + size > batch_size)
        {
            self.close_open(&mut state);
        }
        let opened = state.open.is_none();
        if let Err(bytes) = self.make_room(&mut state, size, grant) {
            return Ok(Append::NeedsMemory(bytes));
        }
        let open = state.open.as_mut().expect("make_room opened a batch");
        let appended = open
            .builder
            .append(timestamp, record.key, record.value, &record.headers);
        let delivery = match appended {
            Ok(index) => open.completer.delivery(index, timestamp),
            Err(source) => {
                if opened {
                    state.open = None;
                }
                return Err(Error::IllegalRecord {
                    source: Arc::new(source),
                });
            }
        };
        // Closed at once if there is no room for one more like this.
        let full = open.builder.len() + size > batch_size;
        if opened {
            let completion = Arc::clone(open.completer.completion());
            while state.unfinished.front().is_some_and(|batch| batch.is_done()) {
                state.unfinished.pop_front();
            }
            state.unfinished.push_back(completion);
        }
        if full {
            self.close_open(&mut state);
        }
        let wakes = opened && state.awaits_open;
        drop(state);
        if full || wakes {
            self.changed.notify_one();
        }
        Ok(Append::Done(delivery))
    }

    /// Bytes of the largest batch that the topic takes, as it is sent.
    pub(super) fn size_max(&self) -> usize {
        match self.spread.batch_size_max.load(Ordering::Relaxed) {
            0 => self.settings.batch_size_max,
            known => known,
        }
    }

    /// Beyond so many bytes a batch does not grow.
    fn batch_size(&self) -> usize {
        self.settings.batch_size.min(self.size_max())
    }

    /// Bytes that a batch of one record may have before it is compressed. One that needs more than the whole budget could never
    /// be reserved.
    fn record_size_max(&self) -> usize {
        let size_max = match self.settings.compression {
            Compression::None => self.size_max(),
            _ => self.size_max().max(UNCOMPRESSED_SIZE_MAX),
        };
        size_max.min(self.memory.max())
    }

    /// For the sender: takes over what the cluster knows of the topic by now.
    pub(super) fn follow(&self, cluster: &Cluster) {
        self.spread.follow(cluster, &self.topic);
    }

    /// Makes sure that a batch is open with memory for `size` more bytes, or says how much is missing.
    fn make_room(&self, state: &mut State, size: usize, grant: &mut Option<Reservation>) -> Result<(), usize> {
        // `wish` where it can be had; of what was waited for, `least` will do.
        let take = |grant: &mut Option<Reservation>, least: usize, wish: usize| {
            if let Some(granted) = grant.as_mut().filter(|granted| granted.bytes() >= wish) {
                return Ok(granted.split_off(wish));
            }
            let free = self.memory.try_reserve(wish);
            free.or_else(|| grant.take().filter(|granted| granted.bytes() >= least))
                .ok_or(wish)
        };
        let Some(open) = &mut state.open else {
            let least = (HEADER_LEN + size).min(self.memory.max());
            let mut reserved = take(grant, least, state.size_hint.clamp(least, self.memory.max()))?;
            let buffer = self.memory.buffer(&mut reserved);
            state.open = Some(Batch {
                builder: BatchBuilder::in_buffer(self.settings.compression, buffer),
                completer: Completer::new(&self.topic, self.partition),
                reserved,
                opened_at: runtime::now(),
            });
            return Ok(());
        };
        let missing = (open.builder.len() + size).saturating_sub(open.reserved.bytes());
        if missing > 0 {
            // Doubled, so that the steps are few.
            let doubled = open
                .reserved
                .bytes()
                .min(self.batch_size().saturating_sub(open.reserved.bytes()));
            let more = take(grant, missing, missing.max(doubled))?;
            open.reserved.merge(more);
            open.builder.grow_to(open.reserved.bytes());
        }
        Ok(())
    }

    fn close_open(&self, state: &mut State) {
        state.hurried = false;
        if let Some(batch) = state.open.take() {
            // Room for a little more than it had, as what a record takes is known only when it is there, and the last one
            // would have all of the batch copied. Falls slowly, so that one small batch among large ones does not cost the
            // next its room.
            let length = batch.builder.len();
            state.size_hint = (length + length / 8)
                .max(state.size_hint - state.size_hint / 8)
                .min(self.settings.batch_size);
            state.closed.push_back(batch);
            self.spread
                .spread
                .batch_closed(self.partition, self.spread.count.load(Ordering::Relaxed));
        }
    }

    /// Whether batches had better fill before they leave.
    pub(super) fn is_memory_short(&self) -> bool {
        self.memory.is_short()
    }

    /// Has the sender take the open batch as soon as it can, however long it was to linger.
    pub(super) fn hurry(&self) {
        let mut state = self.state.lock();
        state.hurried = state.open.is_some();
        drop(state);
        self.changed.notify_one();
    }

    /// Closes the open batch, whatever its size, and wakes the sender.
    pub(super) fn close_batch(&self) {
        self.close_open(&mut self.state.lock());
        self.changed.notify_one();
    }

    /// Takes no more records, and closes the open batch.
    pub(super) fn shut(&self) {
        let mut state = self.state.lock();
        state.shut = true;
        self.close_open(&mut state);
        drop(state);
        self.changed.notify_one();
    }

    /// Takes note of why batches have to be sent again, or that they have not.
    pub(super) fn set_trouble(&self, trouble: Option<Error>) {
        *self.trouble.lock() = trouble;
    }

    /// Why records wait, if any do and something has failed.
    pub(super) fn trouble(&self) -> Option<Error> {
        let trouble = self.trouble.lock().clone()?;
        (!self.unfinished().is_empty()).then_some(trouble)
    }

    /// Every batch that has not ended.
    pub(super) fn unfinished(&self) -> Vec<Arc<Completion>> {
        self.state
            .lock()
            .unfinished
            .iter()
            .filter(|batch| !batch.is_done())
            .cloned()
            .collect()
    }

    /// For the sender: all closed batches, and the open one as well if `wants_open` says so of when it was opened and of
    /// whether it is hurried. `awaits_open` is whether to wake the sender when the next one is opened; when one is closed it
    /// is woken in any case.
    pub(super) fn collect(&self, awaits_open: bool, wants_open: impl FnOnce(Instant, bool) -> bool) -> Collected {
        let mut state = self.state.lock();
        state.awaits_open = awaits_open;
        let hurried = state.hurried;
        let wants_open = |open: &Batch| wants_open(open.opened_at, hurried);
        let takes_open = state.closed.is_empty() && state.open.as_ref().is_some_and(wants_open);
        if takes_open {
            self.close_open(&mut state);
        }
        let finished = state.shut && state.closed.is_empty() && state.open.is_none();
        let open_since = state.open.as_ref().map(|open| open.opened_at);
        Collected {
            batches: state.closed.drain(..).collect(),
            open_since,
            finished,
        }
    }

    /// For the sender: waits for a batch to be closed, or opened if it awaits that, or for [`Self::wake`].
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Wakes the sender.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::id::{Timestamp, TopicId};

    use super::*;
    use crate::requests::TopicImage;

    fn queue(batch_size: usize, memory_max: usize) -> PartitionQueue {
        let settings = BatchSettings {
            compression: Compression::None,
            batch_size,
            batch_size_max: 4 * batch_size,
        };
        let image = TopicImage {
            id: TopicId::NIL,
            partitions: Vec::new(),
            batch_size_max: None,
        };
        let spread = Arc::new(TopicSpread::new(&image, 0));
        let topic = TopicName::new("t").unwrap();
        PartitionQueue::new(
            &topic,
            PartitionIndex::new(0),
            settings,
            Memory::new(memory_max),
            spread,
        )
    }

    fn append(queue: &PartitionQueue, len: usize) -> Result<Append, Error> {
        queue.append(&Record::to("t").value(&vec![7; len]), &mut None)
    }

    fn sizes(collected: &Collected) -> Vec<u32> {
        collected
            .batches
            .iter()
            .map(|batch| batch.builder.record_count())
            .collect()
    }

    #[tokio::test]
    async fn a_batch_is_closed_when_it_has_no_room_for_one_more() {
        let queue = queue(1000, 1 << 20);
        for _ in 0..7 {
            assert!(matches!(append(&queue, 200), Ok(Append::Done(_))));
        }
        let collected = queue.collect(true, |_, _| false);
        assert_eq!(sizes(&collected), [4]);
        assert!(collected.open_since.is_some());
        assert!(collected.batches.iter().all(|batch| batch.builder.len() <= 1000));
        assert_eq!(sizes(&queue.collect(true, |_, _| true)), [3]);
    }

    #[tokio::test]
    async fn a_record_larger_than_a_batch_goes_alone_up_to_the_limit() {
        let queue = queue(1000, 1 << 20);
        assert!(matches!(append(&queue, 10), Ok(Append::Done(_))));
        assert!(matches!(append(&queue, 3000), Ok(Append::Done(_))));
        assert!(matches!(append(&queue, 10), Ok(Append::Done(_))));
        let collected = queue.collect(true, |_, _| true);
        assert_eq!(sizes(&collected), [1, 1]);
        assert!(matches!(
            append(&queue, 4000),
            Err(Error::RecordTooLarge { size_max: 4000, .. })
        ));
    }

    #[tokio::test]
    async fn batches_never_hold_more_memory_than_they_reserved_and_never_more_than_the_budget() {
        let queue = queue(10_000, 30_000);
        let mut appended = 0;
        let missing = loop {
            match append(&queue, 500).unwrap() {
                Append::Done(_) => appended += 1,
                Append::NeedsMemory(bytes) => break bytes,
            }
            assert!(appended < 100, "the budget does not bound the batches");
        };
        assert!(queue.memory.used() <= 30_000);
        assert!(
            appended * 500 > 15_000,
            "most of the budget is of use, not {appended} records"
        );
        let collected = queue.collect(true, |_, _| true);
        assert!(
            collected
                .batches
                .iter()
                .all(|batch| batch.builder.capacity() <= batch.reserved.bytes())
        );
        drop(collected);
        assert_eq!(queue.memory.used(), 0, "memory comes back with the batches");
        let mut grant = Some(queue.memory.reserve(missing).await);
        assert!(matches!(
            queue.append(&Record::to("t").value("v"), &mut grant),
            Ok(Append::Done(_))
        ));
    }

    #[tokio::test]
    async fn a_batch_like_those_before_has_its_room_from_the_first_record_on() {
        for (batch_size, length) in [(10_000, 500), (10_000, 7), (256 << 10, 1024), (5_000, 2_400)] {
            let queue = queue(batch_size, 8 << 20);
            let mut closed = 0;
            let mut capacity = None;
            while closed < 20 {
                append(&queue, length).unwrap();
                let mut state = queue.state.lock();
                if let Some(open) = &state.open {
                    let first = *capacity.get_or_insert(open.builder.capacity());
                    // The first ones tell how large they get.
                    assert!(
                        closed < 2 || open.builder.capacity() == first,
                        "batch {closed} was moved"
                    );
                }
                let full = state.closed.drain(..).count();
                if full > 0 {
                    closed += full;
                    capacity = None;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_encoded_leaves_nothing_behind() {
        let queue = queue(1000, 1 << 20);
        let record = Record::to("t").timestamp(Timestamp::new(-5));
        assert!(matches!(
            queue.append(&record, &mut None),
            Err(Error::IllegalRecord { .. })
        ));
        assert!(queue.collect(true, |_, _| true).batches.is_empty());
        assert!(queue.unfinished().is_empty());
    }

    #[tokio::test]
    async fn once_shut_it_takes_no_record_and_hands_out_what_it_has() {
        let queue = queue(1000, 1 << 20);
        assert!(matches!(append(&queue, 10), Ok(Append::Done(_))));
        queue.shut();
        assert!(matches!(append(&queue, 10), Err(Error::Closed)));
        let first = queue.collect(true, |_, _| false);
        assert_eq!((sizes(&first), first.finished), (vec![1], false));
        assert!(queue.collect(true, |_, _| false).finished);
    }
}
