//! All that was appended, as a list, and what is to be known of transactions by walking over it: what the log is compared with.

use std::collections::BTreeMap;

use headwater_engine::LogOffsets;
use headwater_protocol::{batch::Outcome, id::Offset};

use crate::support::SimLog;

/// What a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of no transaction.
    Plain,
    /// Of a producer's transaction.
    Data(i64),
    /// The end of a producer's transaction, if it has one.
    Marker(i64, Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    pub base: u64,
    pub next: u64,
    pub kind: Kind,
}

/// A transaction by the bases of its batches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    pub producer: i64,
    pub data: Vec<u64>,
    pub end: Option<(u64, Option<Outcome>)>,
}

impl Transaction {
    pub fn first(&self) -> u64 {
        self.data[0]
    }

    fn is_aborted(&self) -> bool {
        self.end.is_some_and(|(_, outcome)| outcome == Some(Outcome::Abort))
    }

    fn is_committed(&self) -> bool {
        self.end.is_some_and(|(_, outcome)| outcome == Some(Outcome::Commit))
    }
}

#[derive(Debug, Clone, Default)]
pub struct History {
    pub batches: Vec<Batch>,
}

impl History {
    pub fn appended(&mut self, base: u64, next: u64, kind: Kind) {
        self.batches.push(Batch { base, next, kind });
    }

    /// The log ends there.
    pub fn cut(&mut self, end: u64) {
        self.batches.retain(|batch| batch.next <= end);
    }

    pub fn transactions(&self) -> Vec<Transaction> {
        let mut open: BTreeMap<i64, Transaction> = BTreeMap::new();
        let mut ended = Vec::new();
        for batch in &self.batches {
            match batch.kind {
                Kind::Plain => {}
                Kind::Data(producer) => {
                    let transaction = open.entry(producer).or_default();
                    transaction.producer = producer;
                    transaction.data.push(batch.base);
                }
                Kind::Marker(producer, outcome) => {
                    if let Some(mut transaction) = open.remove(&producer) {
                        transaction.end = Some((batch.base, Some(outcome)));
                        ended.push(transaction);
                    }
                }
            }
        }
        ended.extend(open.into_values());
        ended
    }

    /// The bases of all that a reader of what is committed is to see from `start` up to `end`.
    pub fn committed(&self, start: u64, end: u64) -> Vec<u64> {
        let committed: Vec<u64> = self
            .transactions()
            .into_iter()
            .filter(Transaction::is_committed)
            .flat_map(|transaction| transaction.data)
            .collect();
        let is_seen = |batch: &&Batch| match batch.kind {
            Kind::Plain => true,
            Kind::Data(_) => committed.contains(&batch.base),
            Kind::Marker(..) => false,
        };
        let seen = self.batches.iter().filter(is_seen);
        let in_range = seen.filter(|batch| batch.next > start && batch.next <= end);
        in_range.map(|batch| batch.base).collect()
    }

    /// What is open, and the last stable offset.
    pub fn check_open(&self, log: &SimLog) {
        let LogOffsets {
            start,
            high_watermark,
            last_stable,
            ..
        } = log.offsets();
        let transactions = self.transactions();
        let mut found: BTreeMap<i64, u64> = BTreeMap::new();
        for open in log.open_transactions() {
            found.insert(open.producer_id.get(), open.first_offset.get());
            assert!(log.has_open_transaction(open.producer_id));
        }
        // Of what was deleted nothing need be known, when the log was read again without it.
        let is_left = |transaction: &Transaction| transaction.data.iter().any(|base| *base >= start.get());
        let mut is_exact = true;
        let mut stable = high_watermark;
        for transaction in &transactions {
            let first = transaction.first();
            if transaction.end.is_none() {
                match found.remove(&transaction.producer) {
                    None => assert!(!is_left(transaction), "{transaction:?} is not open"),
                    Some(known) => assert!(
                        known == first || (first < start.get() && transaction.data.contains(&known)),
                        "{transaction:?} begins at {known}"
                    ),
                }
            }
            if transaction.end.is_none_or(|(marker, _)| marker >= high_watermark.get()) {
                stable = stable.min(Offset::new(first));
                is_exact &= first >= start.get();
            }
        }
        assert!(found.is_empty(), "{found:?} are open, and should not be");
        let expected = stable.max(start);
        assert!(
            last_stable <= high_watermark && last_stable >= expected,
            "{last_stable} {expected}"
        );
        if is_exact {
            assert_eq!(last_stable, expected, "last stable offset");
        }
    }

    /// What was aborted.
    pub async fn check_aborted(&self, log: &SimLog, from: u64, to: u64) {
        let start = log.offsets().start.get();
        let aborted = log.aborted(Offset::new(from), Offset::new(to)).await.unwrap();
        let transactions = self.transactions();
        let mut markers = Vec::new();
        for found in &aborted {
            let (first, marker) = (found.first_offset.get(), found.last_offset.get());
            let is_it = |one: &&Transaction| one.end == Some((marker, Some(Outcome::Abort)));
            let known = transactions.iter().find(is_it);
            let known = known.unwrap_or_else(|| panic!("{found:?} was not aborted"));
            assert_eq!(known.producer, found.producer_id.get());
            assert!(
                first == known.first() || (known.first() < start && known.data.contains(&first)),
                "{found:?} of {known:?}"
            );
            assert!(first < to && marker >= from);
            markers.push(marker);
        }
        assert!(markers.is_sorted(), "in the order of their markers");
        let is_in = |base: &u64| (from.max(start)..to).contains(base);
        for transaction in transactions.iter().filter(|one| one.is_aborted()) {
            let (marker, _) = transaction.end.unwrap();
            let is_wanted = transaction.data.iter().any(is_in);
            assert!(
                !is_wanted || markers.contains(&marker),
                "{transaction:?} is missing from {from} to {to}: {aborted:?}"
            );
        }
    }
}
