pub(in crate::cluster::quorum) mod crash;
pub(in crate::cluster::quorum) mod disk;

use futures::FutureExt as _;
use openraft::{
    StorageError,
    storage::{IOFlushed, RaftLogStorage},
    testing::log::{StoreBuilder, Suite},
    type_config::TypeConfigExt as _,
};
use tempfile::TempDir;

use self::disk::Disk;
use super::{file::File, *};
use crate::cluster::quorum::{
    applier::Applier,
    id::{Cluster, NodeId, StoreId},
    order::{Order, Proposal},
    types::{Entry, LogId, Types, Vote},
};

fn identity() -> Identity {
    Identity {
        cluster: Cluster::try_from("a cluster".to_owned()).unwrap(),
        node: NodeId::from(1),
        store: StoreId::new(),
    }
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(term.into(), index)
}

/// An entry that orders something.
fn entry(term: u64, index: u64) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: openraft::EntryPayload::Normal(Proposal::new(Order::ReserveProducerIds)),
    }
}

fn temporary() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
}

fn open(path: &Path) -> Result<(Store, Part), StoreError> {
    Store::open(path, |error| panic!("{error}"))
}

/// Closes it, and waits until it is closed.
fn close(store: Store, writer: Part) -> Result<(), StopError> {
    drop(store);
    writer.join(crate::machine::now() + std::time::Duration::from_mins(1))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

struct Builder;

impl StoreBuilder<Types, LogStore, Applier, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Applier), StorageError<Types>> {
        let directory = temporary();
        let path = directory.path().join("quorum.redb");
        Store::create(&path, &identity(), None).unwrap();
        let (store, _) = open(&path).unwrap();
        let (applier, _) = Applier::new(store.clone()).unwrap();
        Ok((directory, LogStore(store), applier))
    }
}

#[test]
fn the_store_does_what_openraft_asks_of_one() {
    runtime().block_on(Suite::test_all(Builder)).unwrap();
}

/// Appends, and waits until it is durable.
async fn append(log: &mut LogStore, entries: Vec<Entry>) -> std::io::Result<()> {
    let (done, is_done) = Types::oneshot();
    RaftLogStorage::<Types>::append(log, entries, IOFlushed::signal(done)).await?;
    is_done.await.unwrap()
}

#[test]
fn a_store_that_is_opened_again_has_what_was_acknowledged_and_a_new_incarnation() {
    let directory = temporary();
    let path = directory.path().join("quorum.redb");
    let identity = identity();
    Store::create(&path, &identity, None).unwrap();
    let (store, writer) = open(&path).unwrap();
    assert_eq!(store.identity(), &identity);
    let first = store.incarnation();
    let mut log = LogStore(store);
    let vote = Vote::new(3, NodeId::from(1));
    runtime().block_on(async {
        RaftLogStorage::<Types>::save_vote(&mut log, &vote).await.unwrap();
        append(&mut log, (0..10).map(|index| entry(3, index)).collect())
            .await
            .unwrap();
        RaftLogStorage::<Types>::truncate_after(&mut log, Some(log_id(3, 7)))
            .await
            .unwrap();
    });
    // As it is on disk while it is open, which is what is left of it when the process is killed.
    let copy = directory.path().join("copy.redb");
    std::fs::copy(&path, &copy).unwrap();
    close(log.0, writer).unwrap();
    for path in [&path, &copy] {
        let (store, writer) = open(path).unwrap();
        assert!(store.incarnation() > first);
        let kept = store.kept();
        assert_eq!((kept.vote, kept.last()), (Some(vote), Some(log_id(3, 7))));
        assert_eq!(kept.range(&(..)).count(), 8);
        drop(kept);
        close(store, writer).unwrap();
    }
}

#[test]
fn a_store_is_never_begun_again_where_there_must_be_one() {
    let directory = temporary();
    let path = directory.path().join("quorum.redb");
    assert!(matches!(open(&path), Err(StoreError::Missing { .. })));
    Store::create(&path, &identity(), None).unwrap();
    assert!(matches!(
        Store::create(&path, &identity(), None),
        Err(StoreError::Exists { .. })
    ));
    let (store, writer) = open(&path).unwrap();
    assert!(matches!(open(&path), Err(StoreError::Database { .. })), "it is in use");
    close(store, writer).unwrap();
    std::fs::write(&path, b"").unwrap();
    let emptied = open(&path).map(drop).unwrap_err();
    assert!(
        matches!(emptied, StoreError::Damaged { .. } | StoreError::Database { .. }),
        "{emptied}"
    );
}

#[test]
fn a_log_without_a_vote_or_with_a_gap_is_refused() {
    let vote = Some(Vote::new(1, NodeId::from(1)));
    let entries = |indices: &[u64]| indices.iter().map(|index| (entry(1, *index), 1)).collect::<Vec<_>>();
    let purged = Some(log_id(1, 4));
    let snapshot = |index| {
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(1, index)),
            ..SnapshotMeta::default()
        };
        Some((meta, Bytes::new()))
    };
    for (vote, purged, entries, snapshot, words) in [
        (None, None, entries(&[0, 1]), None, "no vote"),
        (vote, None, entries(&[0, 2]), None, "where the entry 1 should be"),
        (vote, None, entries(&[1]), None, "where the entry 0 should be"),
        (vote, purged, entries(&[6]), snapshot(5), "where the entry 5 should be"),
        (
            vote,
            purged,
            entries(&[5]),
            snapshot(3),
            "no snapshot has what was there",
        ),
        (vote, purged, entries(&[5]), None, "no snapshot has what was there"),
    ] {
        let refused = Kept::new(vote, None, purged, entries, snapshot).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
    Kept::new(vote, None, purged, entries(&[5, 6]), snapshot(6)).unwrap();
    Kept::new(vote, None, None, Vec::new(), None).unwrap();
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_any_more_though_the_disk_is_well_again() {
    let disk = Disk::default();
    let file = File::on(disk.clone(), Some(&identity())).unwrap();
    let (identity, incarnation, kept) = file.load().unwrap();
    let mut log = LogStore(Store::new(identity, incarnation, kept, Hands::own(file)));
    let mut save = |term| {
        let vote = Vote::new(term, NodeId::from(1));
        let saved = RaftLogStorage::<Types>::save_vote(&mut log, &vote).now_or_never();
        saved.unwrap()
    };
    save(1).unwrap();
    disk.fail_after(Some(0));
    save(2).unwrap_err();
    disk.fail_after(None);
    save(3).unwrap_err();
}

#[test]
fn what_peers_are_sent_at_once_is_bounded_by_its_bytes() {
    let mut kept = Kept::default();
    let len = 400 << 10;
    kept.append((0..10).map(|index| (entry(1, index), len))).unwrap();
    let store = Store::new(
        identity(),
        Incarnation(1),
        kept,
        Hands::own(File::on(Disk::default(), Some(&identity())).unwrap()),
    );
    let mut log = LogStore(store);
    let reader = RaftLogStorage::<Types>::get_log_reader(&mut log).now_or_never();
    let mut reader = reader.unwrap();
    let mut read = |start, end| {
        let read = openraft::RaftLogReader::<Types>::limited_get_log_entries(&mut reader, start, end).now_or_never();
        let indices = read.unwrap().unwrap().into_iter().map(|entry| entry.log_id.index);
        indices.collect::<Vec<_>>()
    };
    assert_eq!(read(0, 10), [0, 1]);
    assert_eq!(read(9, 10), [9]);
    assert_eq!(read(8, 9), [8]);
}

#[test]
fn an_earlier_snapshot_never_takes_the_place_of_a_later_one() {
    let disk = Disk::default();
    let file = File::on(disk.clone(), Some(&identity())).unwrap();
    let (identity, incarnation, kept) = file.load().unwrap();
    let store = Store::new(identity, incarnation, kept, Hands::own(file));
    let save = |index| {
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(1, index)),
            ..SnapshotMeta::default()
        };
        let saved = store.save_snapshot(meta, Bytes::from(vec![index as u8])).now_or_never();
        saved.unwrap().unwrap();
    };
    save(7);
    save(5);
    let reopened = File::on(Disk::holding(disk.crash(|| true)), None).unwrap();
    let (_, _, kept) = reopened.load().unwrap();
    for (meta, data) in [store.snapshot().unwrap(), kept.snapshot.unwrap()] {
        assert_eq!((meta.last_log_id, data.as_ref()), (Some(log_id(1, 7)), [7].as_slice()));
    }
}

#[test]
fn a_store_has_its_room_on_disk_before_it_needs_it() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = temporary();
    let path = directory.path().join("quorum.redb");
    Store::create(&path, &identity(), None).unwrap();
    let (store, writer) = open(&path).unwrap();
    let allocated = std::fs::metadata(&path).unwrap().blocks() * 512;
    assert!(allocated >= 16 << 20, "{allocated} bytes are allocated");
    close(store, writer).unwrap();
}
