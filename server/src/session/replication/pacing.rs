//! Who of the partitions of one stream may catch up now. Replicas that are in sync have nothing to do with this.
//!
//! A replica that is not in sync is sent a turn's bytes at a time, when the [budget of the broker](CatchUp) has come to it; the partitions
//! of a stream wait in line. Two rules see to it that it comes to the end whatever the budget is: as much as producers append meanwhile is
//! free, so that what it lacked in the beginning becomes less by the whole budget; and one that has had its turn and is near the end goes on
//! by itself, as it must be at the very end at some moment to be let in. Others wait for what it is sent.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    sync::Arc,
};

use headwater_engine::Signal;

use crate::{
    core::catch_up::CatchUp,
    machine::{self, HashMap},
    model::id::PartitionId,
    partition::replication::News,
};

/// Who lacks no more than this is near the end: more than most batches have.
const NEAR_BYTES: u64 = 1 << 20;

/// What is appended to a partition while its replica catches up.
#[derive(Debug, Clone, Copy)]
struct Free {
    /// What producers had appended in all when that was looked at last.
    appended: u64,
    /// Of that, it was not sent yet.
    bytes: u64,
}

impl Free {
    /// By now producers have appended so much in all.
    fn now(self, appended: u64) -> Free {
        Free {
            appended,
            bytes: self.bytes + appended.saturating_sub(self.appended),
        }
    }
}

/// The partitions of one stream that catch up.
#[derive(Debug)]
pub(super) struct Pacing {
    budget: Arc<CatchUp>,
    /// Those that wait for their turn.
    waiting: News,
    /// The one whose turn it is.
    turn: Cell<Option<PartitionId>>,
    ended: Signal,
    /// Those that have had a turn.
    begun: RefCell<HashMap<PartitionId, Free>>,
}

impl Pacing {
    pub(super) fn new(budget: &Arc<CatchUp>) -> Pacing {
        Pacing {
            budget: Arc::clone(budget),
            waiting: News::default(),
            turn: Cell::new(None),
            ended: Signal::default(),
            begun: RefCell::default(),
        }
    }

    /// Gives one after the other its turn, in which there is news of it.
    pub(super) async fn run(&self, news: &News) -> Infallible {
        loop {
            let next = self.waiting.take(1).await;
            let now = machine::now();
            let wait = self.budget.take_turn(now).saturating_duration_since(now);
            if !wait.is_zero() {
                machine::sleep(wait).await;
            }
            self.turn.set(next.first().copied());
            for id in next {
                news.of(id);
            }
            self.ended.until(|| self.turn.get().is_none()).await;
        }
    }

    /// The turn of this partition, if it is its turn now. It ends when this is dropped.
    pub(super) fn turn_of(&self, id: PartitionId) -> Option<Turn<'_>> {
        (self.turn.get() == Some(id)).then(|| Turn {
            pacing: self,
            sent: Cell::new(0),
        })
    }

    /// The replica is in sync, or the partition is not spoken of any more.
    pub(super) fn is_done(&self, id: PartitionId) {
        self.begun.borrow_mut().remove(&id);
    }

    /// How much of what it lacks a replica may be sent now, of a partition to which producers have appended so much in all. `None`: it
    /// has to wait for its turn.
    pub(super) fn room(&self, id: PartitionId, lacks: u64, appended: u64, turn: Option<&Turn<'_>>) -> Option<u64> {
        let room = self.budget.turn_bytes();
        let free = self.begun.borrow().get(&id).map(|free| free.now(appended).bytes);
        if !self.budget.is_limited() || (free.is_some() && lacks <= NEAR_BYTES) {
            return Some(u64::MAX);
        }
        if turn.is_none() {
            self.waiting.of(id);
        }
        turn.map(|_| room + free.unwrap_or(0))
    }

    /// So many bytes were sent to a replica that is not in sync, of a partition to which so many were appended in all.
    pub(super) fn sent(&self, id: PartitionId, bytes: u64, appended: u64, turn: Option<&Turn<'_>>) {
        if !self.budget.is_limited() {
            return;
        }
        let mut begun = self.begun.borrow_mut();
        let free = begun.entry(id).or_insert(Free { appended, bytes: 0 });
        *free = free.now(appended);
        let charged = bytes.saturating_sub(free.bytes);
        free.bytes -= bytes - charged;
        match turn {
            Some(turn) => turn.sent.set(turn.sent.get() + charged),
            None => self.budget.sent_besides(charged, machine::now()),
        }
    }
}

/// The turn of a partition.
pub(super) struct Turn<'a> {
    pacing: &'a Pacing,
    /// What is paid for.
    sent: Cell<u64>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Turn { pacing, sent } = self;
        pacing.budget.ends_turn(sent.get());
        pacing.turn.set(None);
        pacing.ended.notify();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn some(bytes_per_second: u64) -> Pacing {
        Pacing::new(&Arc::new(CatchUp::new(bytes_per_second, machine::now())))
    }

    #[test]
    fn who_lacks_much_waits_for_a_turn_and_who_has_had_one_and_lacks_little_goes_on() {
        let pacing = some(1 << 20);
        let (id, turn_bytes) = (PartitionId::of_test(0), pacing.budget.turn_bytes());
        assert_eq!(
            pacing.room(id, 10, 0, None),
            None,
            "many that lack little are as much as one that lacks much"
        );
        assert!(pacing.turn_of(id).is_none());
        assert_eq!(pacing.waiting.take(9).now_or_never().unwrap(), [id]);
        pacing.turn.set(Some(id));
        {
            let turn = pacing.turn_of(id);
            assert_eq!(pacing.room(id, 1 << 30, 0, turn.as_ref()), Some(turn_bytes));
            pacing.sent(id, turn_bytes, 0, turn.as_ref());
        }
        assert!(pacing.turn.get().is_none(), "it is over");
        assert_eq!(pacing.room(id, NEAR_BYTES + 1, 0, None), None);
        assert_eq!(pacing.room(id, NEAR_BYTES, 0, None), Some(u64::MAX));
        pacing.is_done(id);
        assert_eq!(pacing.room(id, NEAR_BYTES, 0, None), None, "it is behind again");
        assert_eq!(some(0).room(id, 1 << 30, 0, None), Some(u64::MAX), "there is no limit");
    }

    #[test]
    fn what_is_appended_meanwhile_is_free_and_what_was_lacked_before_is_not() {
        let pacing = some(1 << 20);
        let id = PartitionId::of_test(0);
        let charged = |bytes, appended| {
            pacing.turn.set(Some(id));
            let turn = pacing.turn_of(id);
            pacing.sent(id, bytes, appended, turn.as_ref());
            turn.unwrap().sent.get()
        };
        assert_eq!(charged(100, 5_000), 100, "what was there before it began");
        assert_eq!(charged(100, 5_030), 70);
        assert_eq!(charged(100, 5_230), 0);
        pacing.turn.set(Some(id));
        let turn = pacing.turn_of(id);
        let room = pacing.budget.turn_bytes();
        assert_eq!(
            pacing.room(id, 1 << 30, 6_000, turn.as_ref()),
            Some(room + 870),
            "besides what it lacked before"
        );
        drop(turn);
        assert_eq!(charged(120, 5_230), 20, "100 were left");
    }
}
