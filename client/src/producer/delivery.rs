//! The fate of records: one completion for each batch, and a light handle on it for each record.
//!
//! A [`Delivery`] is a counted reference and an index. It allocates nothing unless it is awaited before the end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use headwater_protocol::id::{Offset, PartitionIndex, Timestamp};
use headwater_protocol::topic::TopicName;

use super::tally::guarded;
use crate::error::Error;
use crate::runtime::sync::Mutex;

/// Where a record ended up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// The record's number in the partition. `None` with [`Acks::None`](crate::Acks::None), and in the rare case that
    /// the broker only remembers that it had the record before.
    pub offset: Option<Offset>,
    /// The record's own timestamp, or the broker's if the topic stamps records.
    pub timestamp: Timestamp,
}

/// How a batch ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivered {
    pub(super) base_offset: Option<Offset>,
    pub(super) append_time: Option<Timestamp>,
}

/// The end of one batch, shared by its sender and all deliveries.
#[derive(Debug)]
pub(super) struct Completion {
    topic: TopicName,
    partition: PartitionIndex,
    end: OnceLock<End>,
    /// One for each delivery that was polled, or given a callback, before the end.
    waiting: Mutex<Vec<Waiting>>,
}

/// Who is to be told of the end.
enum Waiting {
    Task(Waker),
    /// On the heap, as it is large and rare.
    Call(Box<(Delivery, Callback)>),
}

type Callback = Box<dyn FnOnce(Result<RecordMetadata, Error>) + Send>;

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Task(_) => "Task",
            Self::Call(_) => "Call",
        })
    }
}

#[derive(Debug)]
enum End {
    Done(Result<Delivered, Error>),
    /// Its records went on in smaller batches: the first record of each, in order and from 0 on.
    Split(Vec<(u32, Arc<Completion>)>),
}

impl Completion {
    pub(super) fn is_done(&self) -> bool {
        match self.end.get() {
            None => false,
            Some(End::Done(_)) => true,
            Some(End::Split(parts)) => parts.iter().all(|(_, part)| part.is_done()),
        }
    }

    /// Waits until all its records have ended.
    pub(super) async fn ended(self: Arc<Self>) {
        let mut left = vec![self];
        while let Some(batch) = left.pop() {
            // A failure is each delivery's to tell.
            let _ = Delivery::of(Arc::clone(&batch), 0, Timestamp::NONE).await;
            if let Some(End::Split(parts)) = batch.end.get() {
                left.extend(parts.iter().map(|(_, part)| Arc::clone(part)));
            }
        }
    }
}

/// The duty to complete a batch. Dropped without that, the batch ends as [`Error::Closed`].
#[derive(Debug)]
pub(super) struct Completer(Arc<Completion>);

impl Completer {
    pub(super) fn new(topic: &TopicName, partition: PartitionIndex) -> Self {
        Self(Arc::new(Completion {
            topic: topic.clone(),
            partition,
            end: OnceLock::new(),
            waiting: Mutex::default(),
        }))
    }

    pub(super) fn completion(&self) -> &Arc<Completion> {
        &self.0
    }

    /// A handle for the record with this index.
    pub(super) fn delivery(&self, index: u32, timestamp: Timestamp) -> Delivery {
        Delivery::of(Arc::clone(&self.0), index, timestamp)
    }

    pub(super) fn topic(&self) -> &TopicName {
        &self.0.topic
    }

    pub(super) fn partition(&self) -> PartitionIndex {
        self.0.partition
    }

    /// Ends the batch; only the first end counts.
    pub(super) fn complete(&self, result: Result<Delivered, Error>) {
        self.end(End::Done(result));
    }

    /// Hands the records over to smaller batches, which begin at these indexes, the first at 0.
    pub(super) fn split(self, firsts: &[u32]) -> Vec<Self> {
        debug_assert_eq!(firsts.first(), Some(&0), "every record is in one of the parts");
        let parts: Vec<_> = firsts
            .iter()
            .map(|_| Self::new(&self.0.topic, self.0.partition))
            .collect();
        let ends = firsts
            .iter()
            .zip(&parts)
            .map(|(&first, part)| (first, Arc::clone(&part.0)));
        self.end(End::Split(ends.collect()));
        parts
    }

    fn end(&self, end: End) {
        if self.0.end.set(end).is_ok() {
            let waiting = std::mem::take(&mut *self.0.waiting.lock());
            for waiting in waiting {
                match waiting {
                    Waiting::Task(waker) => waker.wake(),
                    Waiting::Call(call) => call.0.call_at_end(call.1),
                }
            }
        }
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        self.complete(Err(Error::Closed));
    }
}

/// The future end of one record: await it for its [`RecordMetadata`], or drop it; the record is sent either way.
///
/// It always ends: at the latest with [`Error::Timeout`] when the producer's delivery timeout is over.
#[derive(Debug)]
#[must_use = "dropping a delivery means not to know whether the record was stored; say so with `drop`"]
pub struct Delivery {
    batch: Arc<Completion>,
    index: u32,
    /// Place of this delivery's waker in the batch's list, once it is there.
    place: Option<u32>,
    timestamp: Timestamp,
}

impl Delivery {
    pub(super) fn of(batch: Arc<Completion>, index: u32, timestamp: Timestamp) -> Self {
        Self {
            batch,
            index,
            place: None,
            timestamp,
        }
    }

    /// The partition that the record was put into.
    pub fn partition(&self) -> PartitionIndex {
        self.batch.partition
    }

    /// The result, if it is known already.
    pub fn result(&self) -> Option<Result<RecordMetadata, Error>> {
        let (batch, index) = self.place_now();
        match batch.end.get()? {
            End::Done(Ok(delivered)) => Some(Ok(RecordMetadata {
                topic: batch.topic.clone(),
                partition: batch.partition,
                offset: delivered.base_offset.map(|base| base + u64::from(index)),
                timestamp: delivered.append_time.unwrap_or(self.timestamp),
            })),
            End::Done(Err(error)) => Some(Err(error.clone())),
            // Just now; whoever awaits it looks again.
            End::Split(_) => None,
        }
    }

    /// Has `call` called with the record's end, instead of awaiting it.
    ///
    /// It is called once: at once, on this task, if the record has ended; else on the task that sends the records of its partition.
    /// Meanwhile that task sends nothing, and on a runtime with one thread nothing else happens: so it must not block, nor take long.
    /// A panic in it is logged, and ends nothing else.
    ///
    /// ```no_run
    /// # async fn example(producer: headwater_client::Producer) -> Result<(), headwater_client::Error> {
    /// # use headwater_client::Record;
    /// let (failures, mut failed) = tokio::sync::mpsc::unbounded_channel();
    /// let id = 42;
    /// producer.send(Record::to("orders").value("a book")).await?.on_end(move |end| {
    ///     if let Err(error) = end {
    ///         drop(failures.send((id, error)));
    ///     }
    /// });
    /// # let _ = failed.recv().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_end(self, call: impl FnOnce(Result<RecordMetadata, Error>) + Send + 'static) {
        self.call_at_end(Box::new(call));
    }

    fn call_at_end(mut self, call: Callback) {
        loop {
            self.follow();
            if let Some(result) = self.result() {
                return guarded(|| call(result));
            }
            let batch = Arc::clone(&self.batch);
            let mut waiting = batch.waiting.lock();
            // As in `poll`.
            if batch.end.get().is_none() {
                return waiting.push(Waiting::Call(Box::new((self, call))));
            }
        }
    }

    /// The batch that the record is in by now, and its index there.
    fn place_now(&self) -> (&Arc<Completion>, u32) {
        let (mut batch, mut index) = (&self.batch, self.index);
        while let Some(End::Split(parts)) = batch.end.get() {
            let behind = parts.partition_point(|(first, _)| *first <= index);
            let (first, part) = &parts[behind.saturating_sub(1)];
            (batch, index) = (part, index - first);
        }
        (batch, index)
    }

    /// Goes along with the record, if its batch was split.
    fn follow(&mut self) {
        let (batch, index) = self.place_now();
        if !Arc::ptr_eq(batch, &self.batch) {
            (self.batch, self.index, self.place) = (Arc::clone(batch), index, None);
        }
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            self.follow();
            if let Some(result) = self.result() {
                return Poll::Ready(result);
            }
            let batch = Arc::clone(&self.batch);
            let mut waiting = batch.waiting.lock();
            // Looked at again under the lock, as ending takes the list just after it has set the end.
            if batch.end.get().is_some() {
                continue;
            }
            if let Some(Waiting::Task(waker)) = self.place.and_then(|place| waiting.get_mut(place as usize)) {
                waker.clone_from(context.waker());
            } else {
                self.place = Some(waiting.len() as u32);
                waiting.push(Waiting::Task(context.waker().clone()));
            }
            return Poll::Pending;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::join_all;

    use super::*;

    fn completer() -> Completer {
        Completer::new(&TopicName::new("t").unwrap(), PartitionIndex::new(2))
    }

    fn delivered(base: u64) -> Delivered {
        Delivered {
            base_offset: Some(Offset::new(base)),
            append_time: None,
        }
    }

    #[tokio::test]
    async fn every_record_of_a_batch_learns_its_own_offset() {
        let completer = completer();
        let deliveries: Vec<_> = (0..5)
            .map(|i| completer.delivery(i, Timestamp::new(i64::from(i))))
            .collect();
        let all = tokio::spawn(join_all(deliveries));
        tokio::task::yield_now().await;
        completer.complete(Ok(delivered(100)));
        for (i, metadata) in all.await.unwrap().into_iter().enumerate() {
            let metadata = metadata.unwrap();
            assert_eq!(metadata.offset, Some(Offset::new(100 + i as u64)));
            assert_eq!(metadata.timestamp, Timestamp::new(i as i64));
            assert_eq!(metadata.partition, PartitionIndex::new(2));
        }
    }

    #[test]
    fn polling_again_keeps_one_waker_for_each_delivery() {
        let completer = completer();
        let mut delivery = completer.delivery(0, Timestamp::NONE);
        for _ in 0..10 {
            assert!((&mut delivery).now_or_never().is_none());
        }
        assert_eq!(delivery.batch.waiting.lock().len(), 1);
    }

    #[test]
    fn a_callback_is_called_once_with_the_records_own_end_also_over_splits_and_after_a_panic() {
        let (told, ends) = std::sync::mpsc::channel();
        let note = |which: u32| {
            let told = told.clone();
            move |end: Result<RecordMetadata, Error>| {
                let offset = end.ok().and_then(|metadata| metadata.offset).map(Offset::get);
                told.send((which, offset)).unwrap();
            }
        };
        let whole = completer();
        whole.delivery(0, Timestamp::NONE).on_end(|_| panic!("on purpose"));
        for index in 0..4 {
            whole.delivery(index, Timestamp::NONE).on_end(note(index));
        }
        let late = whole.delivery(1, Timestamp::NONE);
        let mut parts = whole.split(&[0, 3]).into_iter();
        let (first, second) = (parts.next().unwrap(), parts.next().unwrap());
        assert!(ends.try_recv().is_err(), "nothing has ended");
        first.complete(Ok(delivered(10)));
        assert_eq!(
            ends.try_iter().collect::<Vec<_>>(),
            [0, 1, 2].map(|i| (i, Some(10 + u64::from(i))))
        );
        late.on_end(note(7));
        assert_eq!(ends.try_recv(), Ok((7, Some(11))), "at once, as it has ended");
        drop(second);
        assert_eq!(ends.try_iter().collect::<Vec<_>>(), [(3, None)]);
    }

    #[test]
    fn the_brokers_time_replaces_the_records_own() {
        let completer = completer();
        let time = Timestamp::new(77);
        completer.complete(Ok(Delivered {
            base_offset: None,
            append_time: Some(time),
        }));
        let metadata = completer
            .delivery(0, Timestamp::new(1))
            .now_or_never()
            .unwrap()
            .unwrap();
        assert_eq!((metadata.offset, metadata.timestamp), (None, time));
    }

    #[test]
    fn a_batch_that_nobody_completes_ends_as_closed_and_only_the_first_end_counts() {
        let first = completer();
        let delivery = first.delivery(0, Timestamp::NONE);
        drop(first);
        assert!(matches!(delivery.now_or_never(), Some(Err(Error::Closed))));
        let second = completer();
        second.complete(Ok(delivered(1)));
        second.complete(Err(Error::Closed));
        assert!(second.delivery(0, Timestamp::NONE).now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn after_a_split_every_record_learns_the_end_of_its_own_part() {
        let whole = completer();
        let early = whole.delivery(3, Timestamp::NONE);
        let waiting = tokio::spawn(join_all(
            (0..6).map(|i| whole.delivery(i, Timestamp::NONE)).collect::<Vec<_>>(),
        ));
        tokio::task::yield_now().await;
        let batch = Arc::clone(whole.completion());
        let mut parts = whole.split(&[0, 2, 5]).into_iter();
        let (first, second, third) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        first.complete(Ok(delivered(10)));
        third.complete(Err(Error::Closed));
        let mut ended = Box::pin(Arc::clone(&batch).ended());
        assert!(!batch.is_done() && (&mut ended).now_or_never().is_none() && early.result().is_none());
        // A part may be split again.
        let mut halves = second.split(&[0, 1]).into_iter();
        let (half, other) = (halves.next().unwrap(), halves.next().unwrap());
        half.complete(Ok(delivered(12)));
        other.complete(Ok(delivered(20)));
        ended.await;
        assert!(batch.is_done());
        let offset = |end: Result<RecordMetadata, Error>| end.ok().map(|metadata| metadata.offset.unwrap().get());
        let found: Vec<_> = waiting.await.unwrap().into_iter().map(offset).collect();
        assert_eq!(found, [Some(10), Some(11), Some(12), Some(20), Some(21), None]);
        assert_eq!(offset(early.await), Some(20));
    }
}
