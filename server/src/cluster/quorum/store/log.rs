//! The store as openraft asks for it.

use std::{
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, stream};
use openraft::{
    OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};

use super::{Store, file::Change, kept::Kept};
use crate::cluster::quorum::{
    codec::encode,
    types::{Entry, LogId, QuorumTypes, Vote},
};

/// Bytes of entries that are sent to a peer at once, unless the first has more.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Writes. There is one of it, which openraft asks for one thing at a time.
pub(crate) struct LogStore(pub(crate) Store);

/// Reads, without the disk.
pub(crate) struct LogReader(Arc<Mutex<Kept>>);

impl LogReader {
    fn kept<T>(&self, read: impl FnOnce(&Kept) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<C: QuorumTypes> RaftLogStorage<C> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        let kept = self.0.kept();
        Ok(LogState {
            last_purged_log_id: kept.purged,
            last_log_id: kept.last(),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader(Arc::clone(&self.0.kept))
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.0.kept().vote = Some(*vote);
        self.0.begin(Change::Vote(*vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.0.kept().committed = committed;
        self.0.hands.give(Change::Committed(committed), Box::new(drop));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.0.kept().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        let entries = entries.into_iter().map(|entry| {
            let bytes = encode(&entry);
            let len = bytes.len() as u32;
            encoded.push((entry.log_id.index, bytes));
            (entry, len)
        });
        self.0.kept().append(entries)?;
        let done = move |result| callback.io_completed(result);
        self.0.hands.give(Change::Append(encoded), Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        self.0.kept().truncate(from);
        self.0.begin(Change::Truncate(from)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.0.kept().purge(upto);
        self.0.begin(Change::Purge(upto)).await
    }
}

impl<C: QuorumTypes> RaftLogReader<C> for LogReader {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.kept(|kept| kept.range(&range).map(|(entry, _)| entry.clone()).collect()))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.kept(|kept| kept.vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        Ok(self.kept(|kept| {
            let mut bytes = 0;
            let mut entries = Vec::new();
            for (entry, len) in kept.range(&(start..end)) {
                bytes += u64::from(*len);
                if bytes > READ_BYTES_MAX && !entries.is_empty() {
                    break;
                }
                entries.push(entry.clone());
            }
            entries
        }))
    }

    /// One at a time: what is applied at once may be as long as the log.
    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let indices: Vec<u64> = self.kept(|kept| kept.range(&range).map(|(entry, _)| entry.log_id.index).collect());
        let kept = Arc::clone(&self.0);
        stream::iter(indices.into_iter().map(move |index| {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = kept.range(&(index..=index)).next().map(|(entry, _)| entry.clone());
            entry.ok_or_else(|| io::Error::other(format!("the entry {index} was taken from the log while it was read")))
        }))
    }
}
