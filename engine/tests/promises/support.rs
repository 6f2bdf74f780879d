//! What all promises need: seeds, record batches whose records can be told apart, and a log on a simulated disk.

use std::{
    future::Future,
    path::PathBuf,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use bytes::Bytes;
use headwater_engine::{
    FetchError, FlushConfig, Journal, JournalConfig, Log, LogConfig, LogError, LogRange, Memory, Owner, ReadLimit,
    Recovery, TailMemory,
    disk::{Directory, Disk, SimDisk, SimExecutor},
    journal::recover,
};
use headwater_protocol::{
    batch::{BatchBuilder, BatchLimits, Batches, Compression, RecordSet},
    id::{CoreId, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId},
};

pub type SimLog = Log<SimDisk>;

/// A time of the simulated clock, in milliseconds since the epoch.
pub const NOON: i64 = 1_700_000_000_000;

/// Runs `test` for as many seeds as the environment asks for: `HEADWATER_SEED` for that one alone, `HEADWATER_SEEDS` for so
/// many, else `count`.
pub fn for_each_seed(name: &str, count: u64, test: impl Fn(u64)) {
    let number = |variable| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("HEADWATER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HEADWATER_SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        let _told = TellIfFailed(name, seed);
        test(seed);
    }
}

struct TellIfFailed<'a>(&'a str, u64);

impl Drop for TellIfFailed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let TellIfFailed(name, seed) = self;
            eprintln!(
                "failed with seed {seed}; again: HEADWATER_SEED={seed} cargo test -p headwater-engine --test promises {name}"
            );
        }
    }
}

pub fn directory() -> PathBuf {
    PathBuf::from("/data/topic-0")
}

/// The directory that journals lie in, and those of partitions.
pub fn data_directory() -> PathBuf {
    PathBuf::from("/data")
}

/// Whose the log is.
pub fn owner() -> Owner {
    Owner {
        topic: TopicId::NIL,
        partition: PartitionIndex::new(0),
    }
}

pub type SimJournal = Journal<SimDisk>;

/// One that no other journal has.
pub fn generation() -> u128 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    u128::from(COUNT.fetch_add(1, Ordering::Relaxed)) << 64 | 7
}

/// A core begins: what journals hold is handed to the partitions, and it gets an empty one.
pub async fn open_journal(
    disk: &SimDisk,
    config: JournalConfig,
    tail: &Rc<TailMemory>,
) -> Result<Rc<SimJournal>, LogError> {
    let directory = data_directory();
    disk.create_dir(&directory).await.expect("the disk works");
    recover(disk, &directory).await?;
    Journal::open(
        disk.clone(),
        &directory,
        CoreId::new(0),
        generation(),
        config,
        Rc::clone(tail),
    )
    .await
}

/// A log whose small appends go through the journal.
pub async fn open_journaled(
    disk: &SimDisk,
    config: &LogConfig,
    tail: &Rc<TailMemory>,
    journal: &Rc<SimJournal>,
) -> Result<(Rc<SimLog>, Recovery), LogError> {
    rustix::thread::disable_transparent_huge_pages(true).expect("any process may do without");
    let directory = directory();
    disk.create_dir(&directory).await.expect("the disk works");
    let entries = disk.list(&directory).await.expect("the disk works");
    owner().claim(disk, &directory, &entries).await?;
    let journal = Some((Rc::clone(journal), owner()));
    let (log, recovery) = Log::open_with(disk.clone(), directory, config.clone(), Rc::clone(tail), journal).await?;
    Ok((Rc::new(log), recovery))
}

/// Of files so small that zeros are written ahead in small steps.
pub fn small_flush() -> FlushConfig {
    FlushConfig {
        zero_ahead_bytes: 8 << 10,
        ..FlushConfig::default()
    }
}

/// Small segments, so that everything happens often.
pub fn small_config() -> LogConfig {
    LogConfig {
        segment_size_bytes: 32 << 10,
        retention_ms: None,
        index_interval_bytes: 1024,
        flush: small_flush(),
        ..LogConfig::default()
    }
}

pub async fn open(disk: &SimDisk, config: &LogConfig) -> Result<(Rc<SimLog>, Recovery), LogError> {
    open_with(disk, config, &TailMemory::new(16 << 20)).await
}

pub async fn open_with(
    disk: &SimDisk,
    config: &LogConfig,
    memory: &Rc<TailMemory>,
) -> Result<(Rc<SimLog>, Recovery), LogError> {
    open_in(disk, config, Rc::clone(memory).into()).await
}

pub async fn open_in(disk: &SimDisk, config: &LogConfig, memory: Memory) -> Result<(Rc<SimLog>, Recovery), LogError> {
    // A machine has many lives, and puts little into the memory of each: to fill a huge page with zeros takes longer.
    rustix::thread::disable_transparent_huge_pages(true).expect("any process may do without");
    let (log, recovery) = Log::open(disk.clone(), directory(), config.clone(), memory).await?;
    Ok((Rc::new(log), recovery))
}

/// Runs a future on the disk to its end.
pub fn run<T>(disk: &SimDisk, seed: u64, future: impl Future<Output = T>) -> T {
    SimExecutor::new(disk, seed)
        .block_on(future)
        .expect("nothing stops the machine")
}

/// A record that is known again by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub id: u64,
    pub timestamp: i64,
    /// Length of the value in bytes, at least 8.
    pub size: usize,
}

impl Record {
    pub fn new(id: u64, size: usize) -> Record {
        Record {
            id,
            timestamp: NOON,
            size,
        }
    }

    /// The id, and then bytes that only this id has.
    fn value(self) -> Vec<u8> {
        let mut value = vec![0; self.size.max(8)];
        let (id, rest) = value.split_at_mut(8);
        id.copy_from_slice(&self.id.to_be_bytes());
        let mut state = self.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()
        };
        // Most of what a test does is to make values and to look at them.
        let (words, last) = rest.as_chunks_mut::<8>();
        for word in words {
            *word = next();
        }
        last.copy_from_slice(&next()[..last.len()]);
        value
    }
}

pub fn builder(records: &[Record], compression: Compression) -> BatchBuilder {
    let mut builder = BatchBuilder::new(compression, 1024);
    for record in records {
        builder
            .append(Timestamp::new(record.timestamp), None, Some(&record.value()), &[])
            .expect("it is a valid record");
    }
    builder
}

/// One batch of these records.
pub fn batch(records: &[Record]) -> Vec<u8> {
    builder(records, Compression::None).build().bytes().to_vec()
}

/// One batch of an idempotent producer.
pub fn sequenced(records: &[Record], producer: i64, epoch: i16, sequence: i32) -> Vec<u8> {
    let mut batch = builder(records, Compression::None).build();
    batch.set_producer(
        ProducerId::new(producer),
        ProducerEpoch::new(epoch),
        Sequence::new(sequence),
    );
    batch.bytes().to_vec()
}

/// A record as it is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    pub offset: u64,
    pub id: u64,
    pub timestamp: i64,
}

/// The records of whole batches; checks framing, CRC, dense offsets, and the content of each record.
pub fn decode(bytes: &[u8]) -> Vec<Stored> {
    let limits = BatchLimits {
        batch_size_max: usize::MAX,
    };
    let mut all = Vec::new();
    for batch in Batches::new(bytes, &limits) {
        let batch = batch.expect("only whole, valid batches are fetched");
        let records = RecordSet::decode(&Bytes::copy_from_slice(batch.bytes()), 64 << 20).expect("records decode");
        for record in &records {
            let record = record.expect("records decode");
            let value = record.value.expect("every test record has a value");
            let id = u64::from_be_bytes(*value.first_chunk().expect("every value begins with its id"));
            let stored = Stored {
                offset: record.offset.get(),
                id,
                timestamp: record.timestamp.get(),
            };
            if let Some(last) = all.last() {
                let Stored { offset, .. } = *last;
                assert_eq!(offset + 1, stored.offset, "offsets are dense");
            }
            let written = Record::new(id, value.len()).value();
            assert!(
                written == value,
                "the value of record {id} at {} changed",
                stored.offset
            );
            all.push(stored);
        }
    }
    all
}

/// The bytes of a range past the page cache, in pieces; `None` if there is no memory for one, or the disk fails.
pub async fn read_directly<D: Disk>(disk: &D, range: &LogRange<D>) -> Option<Vec<u8>> {
    let (mut range, mut out) = (range.clone(), Vec::new());
    let file = range.file(disk).await.ok()?;
    while !range.is_empty() {
        let now = Instant::now();
        if !range.is_read(now) && !range.begin_read(&file, range.position(), range.len(), now) {
            return None;
        }
        let bytes = range.read(now).await?;
        out.extend_from_slice(&bytes);
        range.advance(bytes.len() as u64);
    }
    Some(out)
}

/// What a fetch at `offset` returns, from the record at `offset` on.
pub async fn fetch(log: &SimLog, offset: u64, max_bytes: u64) -> Vec<Stored> {
    try_fetch(log, offset, max_bytes).await.expect("it can be fetched")
}

/// The same, when the segment may be deleted at any time.
pub async fn try_fetch(log: &SimLog, offset: u64, max_bytes: u64) -> Result<Vec<Stored>, FetchError> {
    let fetched = log
        .fetch(Offset::new(offset), max_bytes, ReadLimit::HighWatermark)
        .await?;
    let Some(range) = fetched.range else {
        return Ok(Vec::new());
    };
    let bytes = log.read(&range).await?;
    let records = decode(&bytes);
    let first = records.first().expect("at least one batch");
    let last = records.last().expect("at least one batch");
    assert!(
        first.offset <= offset && offset <= last.offset,
        "the range holds the offset that was asked for"
    );
    assert!(
        Offset::new(last.offset) < fetched.high_watermark,
        "only durable records are seen"
    );
    assert_eq!(
        range.next_offset(),
        Offset::new(last.offset + 1),
        "where the next fetch begins"
    );
    if bytes.len() as u64 > max_bytes {
        let limits = BatchLimits {
            batch_size_max: usize::MAX,
        };
        assert_eq!(Batches::new(&bytes, &limits).count(), 1, "more than was asked for");
    }
    Ok(records.into_iter().filter(|record| record.offset >= offset).collect())
}

/// Every record from the log start offset to the durable offset, read piece by piece.
pub async fn read_all(log: &SimLog) -> Vec<Stored> {
    let offsets = log.offsets();
    let mut all: Vec<Stored> = Vec::new();
    let mut next = offsets.start.get();
    while next < offsets.durable.get() {
        let records = fetch(log, next, 8 << 10).await;
        let first = records.first().expect("there is something below the durable offset");
        assert_eq!(first.offset, next, "no record is missing");
        next = records.last().map_or(next, |last| last.offset + 1);
        all.extend(records);
    }
    all
}

/// Appends one batch and makes it durable; returns its base offset.
pub async fn append_durably(log: &SimLog, payload: &[u8]) -> u64 {
    let appended = log.append(payload, Timestamp::new(NOON)).expect("it is accepted");
    log.flush().await.expect("it is flushed");
    appended.durable.await.expect("it is durable");
    appended.base_offset.get()
}

/// The ids of records, for comparing.
pub fn ids(records: &[Stored]) -> Vec<u64> {
    records.iter().map(|record| record.id).collect()
}

/// Lets others run first.
pub async fn turn() {
    let mut polled = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
