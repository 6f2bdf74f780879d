//! Partitions of which one stream between two cores has something to say, each once, in the order in which they came to have it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, VecDeque},
};

use headwater_engine::Signal;

use crate::model::id::PartitionId;

/// What one connection has still to say. Owned by the core that says it.
#[derive(Debug, Default)]
pub(crate) struct News {
    ready: RefCell<VecDeque<PartitionId>>,
    /// The same ones.
    listed: RefCell<BTreeSet<PartitionId>>,
    /// A word is to be said even if there is nothing to say.
    is_called: Cell<bool>,
    is_over: Cell<bool>,
    changed: Signal,
}

impl News {
    /// There is something to say of this partition.
    pub(crate) fn of(&self, id: PartitionId) {
        if self.is_over.get() || !self.listed.borrow_mut().insert(id) {
            return;
        }
        self.ready.borrow_mut().push_back(id);
        self.changed.notify();
    }

    /// A word is to be said: the other side wants to know whether this one is there, or is asked whether it is.
    pub(crate) fn call(&self) {
        self.is_called.set(true);
        self.changed.notify();
    }

    /// Whether a word was to be said, which from now on it is not any more.
    pub(crate) fn answers_call(&self) -> bool {
        self.is_called.replace(false)
    }

    /// Waits until there is something to say, and takes at most so many partitions, those first that have waited longest. None, if a
    /// word is to be said all the same.
    pub(crate) async fn take(&self, most: usize) -> Vec<PartitionId> {
        let has_some = || self.is_called.get() || !self.ready.borrow().is_empty();
        self.changed.until(has_some).await;
        let mut ready = self.ready.borrow_mut();
        let count = most.min(ready.len());
        let taken: Vec<PartitionId> = ready.drain(..count).collect();
        let mut listed = self.listed.borrow_mut();
        for id in &taken {
            listed.remove(id);
        }
        taken
    }

    /// The connection is to end: what it has said does not hold any more, or another has taken its place.
    pub(crate) fn end(&self) {
        self.is_over.set(true);
        self.changed.notify();
    }

    /// Whether the connection is to end, or has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Resolves when the connection is to end.
    pub(crate) async fn over(&self) {
        self.changed.until(|| self.is_over.get()).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn each_partition_is_told_of_once_and_none_is_passed_over_by_others() {
        let news = News::default();
        assert!(news.take(8).now_or_never().is_none());
        for index in [3, 1, 3, 2, 1] {
            news.of(PartitionId::of_test(index));
        }
        assert_eq!(
            news.take(2).now_or_never().unwrap(),
            [PartitionId::of_test(3), PartitionId::of_test(1)]
        );
        news.of(PartitionId::of_test(3));
        assert_eq!(
            news.take(8).now_or_never().unwrap(),
            [PartitionId::of_test(2), PartitionId::of_test(3)]
        );
        assert!(news.take(8).now_or_never().is_none() && news.over().now_or_never().is_none());
        news.call();
        assert!(news.take(8).now_or_never().unwrap().is_empty());
        assert!(news.answers_call() && news.take(8).now_or_never().is_none());
        news.end();
        news.of(PartitionId::of_test(1));
        assert!(news.take(8).now_or_never().is_none() && news.over().now_or_never().is_some());
    }
}
