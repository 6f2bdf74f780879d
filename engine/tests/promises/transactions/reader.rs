//! A reader of what is committed, as Kafka's clients are: it goes by what a fetch says of aborted transactions, and by the markers.

use std::collections::HashSet;

use headwater_engine::{Aborted, ReadLimit};
use headwater_protocol::{
    batch::{BatchLimits, Batches, EndMarker, Outcome, RecordBatch},
    id::Offset,
};

use crate::support::SimLog;

/// Calls back for each batch that such a reader shows to its user, from the log start offset to the last stable offset.
pub async fn read_committed(log: &SimLog, max_bytes: u64, mut visit: impl FnMut(&RecordBatch<'_>)) {
    let mut next = log.offsets().start;
    loop {
        let fetched = log.fetch(next, max_bytes, ReadLimit::LastStable).await.unwrap();
        let Some(range) = fetched.range else { break };
        assert!(
            range.next_offset() <= fetched.last_stable,
            "read beyond the last stable offset"
        );
        let aborted = log.aborted(next, range.next_offset()).await.unwrap();
        let bytes = log.read(&range).await.unwrap();
        show(&bytes, aborted, next, &mut visit);
        next = range.next_offset();
    }
}

/// One fetch.
fn show(bytes: &[u8], mut aborted: Vec<Aborted>, from: Offset, visit: &mut impl FnMut(&RecordBatch<'_>)) {
    let limits = BatchLimits {
        batch_size_max: usize::MAX,
    };
    aborted.sort_by_key(|aborted| aborted.first_offset);
    let mut aborted = aborted.into_iter().peekable();
    let mut skipped: HashSet<i64> = HashSet::new();
    for batch in Batches::new(bytes, &limits) {
        let batch = batch.expect("only whole, valid batches are fetched");
        while let Some(one) = aborted.next_if(|one| one.first_offset <= batch.last_offset()) {
            skipped.insert(one.producer_id.get());
        }
        let producer = batch.producer_id().get();
        if batch.is_control() {
            if EndMarker::read(&batch).is_some_and(|marker| marker.outcome == Outcome::Abort) {
                skipped.remove(&producer);
            }
        } else if batch.next_offset() > from && !(batch.is_transactional() && skipped.contains(&producer)) {
            visit(&batch);
        }
    }
}

/// The bases of those batches.
pub async fn bases_committed(log: &SimLog, max_bytes: u64) -> Vec<u64> {
    let mut bases = Vec::new();
    read_committed(log, max_bytes, |batch| bases.push(batch.base_offset().get())).await;
    bases
}
