//! Files of deleted segments become those of later ones, and what they held before is never taken for records.

use std::{
    cell::{Cell, RefCell},
    path::Path,
};

use headwater_engine::{
    ColdMemory, Log, LogConfig, Memory, ReadLimit, TailMemory,
    disk::{DirectDisk, Directory, Fault, Halt, OpKind, REGION_SIZE, SimDisk, SimExecutor},
};
use headwater_protocol::id::{Offset, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    history::History,
    support::{
        NOON, Record, SimLog, append_durably, batch, decode, directory, for_each_seed, ids, open, open_with, read_all,
        read_directly, run, small_config,
    },
};

const NOW: Timestamp = Timestamp::new(NOON);

/// Two sealed segments and the active one are kept.
fn config() -> LogConfig {
    LogConfig {
        retention_bytes: Some(64 << 10),
        ..small_config()
    }
}

/// Size of a record whose batch has this size.
fn record_size(batch_size: usize) -> usize {
    let sizes = (8..batch_size).rev();
    let mut fitting = sizes.filter(|size| batch(&[Record::new(0, *size)]).len() <= batch_size);
    fitting.next().expect("a batch is larger than its header")
}

/// Names of the files that wait to be used again.
async fn spares(disk: &impl Directory, directory: &Path) -> Vec<String> {
    let entries = disk.list(directory).await.unwrap();
    let names = entries.into_iter().map(|entry| entry.name);
    names
        .filter(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|extension| extension == "recycled")
        })
        .collect()
}

/// Appends records of 5 kB, and looks after the log behind each, until so many files have been recycled.
async fn fill_until_recycled(disk: &SimDisk, log: &SimLog, ids: &mut u64, count: u64) {
    fill_until_recycled_with(5000, disk, log, ids, count).await;
}

async fn fill_until_recycled_with(size: usize, disk: &SimDisk, log: &SimLog, ids: &mut u64, count: u64) {
    let before = disk.count(OpKind::Rename);
    // Each is renamed twice: away, and to its new name.
    while disk.count(OpKind::Rename) < before + 2 * count {
        append_durably(log, &batch(&[Record::new(*ids, size)])).await;
        *ids += 1;
        log.maintain(NOW).await.unwrap();
        assert!(*ids < 10_000, "nothing is recycled");
    }
}

#[test]
fn a_busy_partition_writes_into_the_files_of_its_deleted_segments_and_an_idle_one_gives_them_back() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config()).await.unwrap();
        let mut next = 0;
        fill_until_recycled(&disk, &log, &mut next, 3).await;
        let (reserved, zeros) = (disk.count(OpKind::Allocate), disk.count(OpKind::WriteZeros));
        fill_until_recycled(&disk, &log, &mut next, 10).await;
        assert!(
            disk.count(OpKind::Allocate) - reserved <= 10,
            "only ends of segments are reserved"
        );
        // Ahead of writes there are none, as these blocks were written before; but for where old batches could be taken for new ones.
        let zeros = disk.count(OpKind::WriteZeros) - zeros;
        assert!(zeros < 10, "zeros were written {zeros} times");
        assert!(spares(&disk, &directory()).await.len() <= 2);
        let records = read_all(&log).await;
        assert_eq!(ids(&records), (log.offsets().start.get()..next).collect::<Vec<_>>());
        // Until there is one that waits.
        while spares(&disk, &directory()).await.is_empty() {
            append_durably(&log, &batch(&[Record::new(next, 5000)])).await;
            log.maintain(NOW).await.unwrap();
        }
        let used = disk.used();
        log.retain(Timestamp::new(NOON + 10 * 60 * 1000)).await.unwrap();
        assert_eq!(spares(&disk, &directory()).await, [""; 0]);
        assert!(disk.used() + 20_000 < used);
        let off = LogConfig {
            recycle: false,
            ..config()
        };
        let (log, _) = open(&disk, &off).await.unwrap();
        let renamed = disk.count(OpKind::Rename);
        for id in 0..60 {
            append_durably(&log, &batch(&[Record::new(id, 5000)])).await;
            log.maintain(NOW).await.unwrap();
        }
        assert_eq!(disk.count(OpKind::Rename), renamed, "it was switched off");
    });
}

#[test]
fn a_segment_that_somebody_still_reads_is_not_written_over() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        // So little memory that only the end of the log is in it.
        let (log, _) = open_with(&disk, &config(), &TailMemory::new(8 << 10)).await.unwrap();
        let mut next = 0;
        fill_until_recycled(&disk, &log, &mut next, 2).await;
        let mut held = Vec::new();
        for round in 0..60 {
            if round % 7 == 0 {
                let start = log.offsets().start;
                held.push((
                    start.get(),
                    log.fetch(start, 12_000, ReadLimit::HighWatermark)
                        .await
                        .unwrap()
                        .range
                        .unwrap(),
                ));
            }
            append_durably(&log, &batch(&[Record::new(next, 5000)])).await;
            next += 1;
            log.maintain(NOW).await.unwrap();
        }
        for (offset, range) in held {
            assert_eq!(
                ids(&decode(&log.read(&range).await.unwrap()))[..2],
                [offset, offset + 1]
            );
        }
    });
}

#[test]
fn recovery_takes_what_a_recycled_file_held_before_for_the_end_of_the_log_and_a_torn_block_for_torn() {
    let disk = SimDisk::new(1);
    let (log, mut next) = run(&disk, 1, async {
        let (log, _) = open(&disk, &config()).await.unwrap();
        let mut next = 0;
        fill_until_recycled(&disk, &log, &mut next, 3).await;
        (log, next)
    });
    let (mut earlier, mut torn) = (0, 0);
    for _ in 0..40 {
        run(&disk, 1, async {
            append_durably(&log, &batch(&[Record::new(next, 3000)])).await;
            next += 1;
            // A segment that is full stays as long as its file was.
            if next % 3 == 0 {
                log.retain(NOW).await.unwrap();
            }
        });
        let image = disk.certain_image(next);
        let expected = run(&disk, 1, read_all(&log));
        run(&image, 1, async {
            let (log, recovery) = open(&image, &config()).await.unwrap();
            assert_eq!(recovery.cut, None, "nothing was torn");
            earlier += u64::from(recovery.earlier_use_bytes > 0);
            assert_eq!(read_all(&log).await, expected);
            assert_eq!(spares(&image, &directory()).await, [""; 0]);
        });
        let image = disk.certain_image(next);
        run(&image, 1, async {
            let entries = image.list(&directory()).await.unwrap();
            let mut logs = entries.iter().filter(|entry| crate::damage::is_log(&entry.name));
            let path = directory().join(&logs.next_back().unwrap().name);
            let mut bytes = image.read_file(&path).await.unwrap();
            let end = bytes.len() - {
                open(&disk.certain_image(next), &config())
                    .await
                    .unwrap()
                    .1
                    .earlier_use_bytes as usize
            };
            if end < bytes.len() && end % 4096 != 0 {
                bytes[end] = 1;
                image.replace_file(&path, bytes).await.unwrap();
                let (log, recovery) = open(&image, &config()).await.unwrap();
                assert!(
                    recovery.cut.is_some_and(|cut| cut.position == end as u64),
                    "half a block is torn"
                );
                assert_eq!(read_all(&log).await, expected);
                torn += 1;
            }
        });
    }
    assert!(earlier > 10 && torn > 10, "{earlier} {torn}");
}

#[test]
fn an_older_batch_behind_a_last_write_that_was_whole_is_not_taken_for_torn() {
    let disk = SimDisk::new(1);
    // Each batch is one block, so that an older one begins wherever a newer one ends.
    let size = record_size(4096);
    assert_eq!(batch(&[Record::new(0, size)]).len(), 4096);
    let (log, mut next) = run(&disk, 1, async {
        let (log, _) = open(&disk, &config()).await.unwrap();
        let mut next = 0;
        fill_until_recycled_with(size, &disk, &log, &mut next, 3).await;
        (log, next)
    });
    let (mut earlier, mut torn) = (0, 0);
    for _ in 0..30 {
        run(&disk, 1, async {
            append_durably(&log, &batch(&[Record::new(next, size)])).await;
            next += 1;
            log.retain(NOW).await.unwrap();
        });
        let image = disk.certain_image(next);
        let expected = run(&disk, 1, read_all(&log));
        run(&image, 1, async {
            let (log, recovery) = open(&image, &config()).await.unwrap();
            assert_eq!(recovery.cut, None, "nothing was torn");
            earlier += u64::from(recovery.earlier_use_bytes > 0);
            assert_eq!(read_all(&log).await, expected);
        });
        // The last batch itself, torn within its block, belongs to this use of the file.
        let image = disk.certain_image(next);
        run(&image, 1, async {
            let mut logs: Vec<_> = image.list(&directory()).await.unwrap();
            logs.retain(|entry| crate::damage::is_log(&entry.name) && entry.size > 0);
            let name = logs.into_iter().map(|entry| entry.name).max().unwrap();
            let base: u64 = name[..20].parse().unwrap();
            let path = directory().join(name);
            let mut bytes = image.read_file(&path).await.unwrap();
            bytes[(next - 1 - base) as usize * 4096 + 2000] ^= 1;
            image.replace_file(&path, bytes).await.unwrap();
            let (log, recovery) = open(&image, &config()).await.unwrap();
            // Unless a checkpoint has just said that it is whole.
            if recovery.scanned_bytes > 0 {
                assert!(recovery.cut.is_some(), "a torn batch was taken for an older one");
                assert_eq!(log.offsets().end.get(), next - 1);
                torn += 1;
            }
        });
    }
    assert!(earlier > 10 && torn > 10, "{earlier} {torn}");
}

#[test]
fn a_sealed_segment_in_a_recycled_file_is_as_long_as_its_records() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config()).await.unwrap();
        let mut next = 0;
        fill_until_recycled(&disk, &log, &mut next, 3).await;
        // Fewer bytes of these fit.
        let size = batch(&[Record::new(0, 7000)]).len() as u64;
        let from = next;
        fill_until_recycled_with(7000, &disk, &log, &mut next, 6).await;
        let entries = disk.list(&directory()).await.unwrap();
        let logs = entries.iter().filter(|entry| crate::damage::is_log(&entry.name));
        let logs: Vec<_> = logs
            .map(|entry| (entry.name[..20].parse::<u64>().unwrap(), entry.size))
            .collect();
        assert!(logs.len() > 2 && logs[0].0 > from, "{logs:?}");
        for pair in logs.windows(2) {
            let records = pair[1].0 - pair[0].0;
            assert_eq!(pair[0].1, records * size, "old bytes are left at the end of {pair:?}");
        }
    });
}

#[test]
fn a_full_disk_gets_the_recycled_files_back() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config()).await.unwrap();
        let mut next = 0;
        fill_until_recycled(&disk, &log, &mut next, 3).await;
        while spares(&disk, &directory()).await.is_empty() {
            append_durably(&log, &batch(&[Record::new(next, 5000)])).await;
            log.maintain(NOW).await.unwrap();
        }
        for kind in [OpKind::Write, OpKind::WriteDurable] {
            disk.fail_nth(kind, 0, Fault::StorageFull);
        }
        let refused = log.append(&batch(&[Record::new(0, 5000)]), NOW).unwrap().durable;
        log.flush().await.unwrap_err();
        refused.await.unwrap_err();
        assert_eq!(spares(&disk, &directory()).await, [""; 0]);
        disk.heal();
        append_durably(&log, &batch(&[Record::new(0, 5000)])).await;
    });
}

/// A log whose batches all begin at the same bytes of each segment, so that a torn write mixes like with like.
struct Alike {
    config: LogConfig,
    record_size: usize,
    history: RefCell<History>,
    rng: RefCell<StdRng>,
    recycled: Cell<u64>,
}

impl Alike {
    fn draw(&self, most: u64) -> u64 {
        self.rng.borrow_mut().random_range(0..most)
    }

    fn payload(&self) -> (Vec<u64>, Vec<u8>) {
        let (mut made, mut payload) = (Vec::new(), Vec::new());
        for _ in 0..=self.draw(4) {
            let id = self.history.borrow_mut().new_id();
            made.push(id);
            payload.extend_from_slice(&batch(&[Record::new(id, self.record_size)]));
        }
        (made, payload)
    }

    async fn produce(&self, log: &SimLog) {
        let mut tickets = Vec::new();
        for _ in 0..=self.draw(6) {
            let (made, payload) = self.payload();
            let appended = log.append(&payload, NOW).unwrap();
            self.history.borrow_mut().appended(appended.base_offset.get(), &made);
            tickets.push((made, appended.durable));
        }
        log.flush().await.unwrap();
        for (made, ticket) in tickets {
            ticket.await.unwrap();
            self.history.borrow_mut().acknowledged(&made);
        }
    }

    async fn upkeep(&self, log: &SimLog) {
        self.history.borrow_mut().start_asked(u64::MAX);
        log.maintain(NOW).await.unwrap();
        self.history.borrow_mut().start_moved(log.offsets().start.get());
    }

    async fn truncate(&self, log: &SimLog) {
        let offsets = log.offsets();
        let to = offsets.start.get() + self.draw(offsets.end.get() - offsets.start.get() + 1);
        self.history.borrow_mut().drop_begins(to);
        log.truncate(Offset::new(to)).await.unwrap();
        self.history.borrow_mut().dropped(log.offsets().end.get());
    }

    /// Opens the log, checks it, and works on it until the machine stops or `rounds` are over.
    fn live(&self, disk: &SimDisk, seed: u64, rounds: u64) -> Result<(), Halt> {
        SimExecutor::new(disk, seed).block_on(async {
            let (log, _) = open(disk, &self.config).await.unwrap();
            self.history.borrow_mut().check_recovered(&log).await;
            for _ in 0..rounds {
                self.produce(&log).await;
                if self.draw(2) == 0 {
                    futures::join!(self.upkeep(&log), self.produce(&log));
                }
                if self.draw(12) == 0 {
                    self.truncate(&log).await;
                }
            }
        })?;
        self.recycled.set(self.recycled.get() + disk.count(OpKind::Rename) / 2);
        Ok(())
    }
}

/// One log over some power losses, each at operation `crash_at` of its life.
fn alike(seed: u64, crash_at: Option<u64>) -> (u64, bool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let alike = Alike {
        config: LogConfig {
            segment_size_bytes: 16 << 10,
            retention_bytes: Some(24 << 10),
            flush: headwater_engine::FlushConfig {
                single_write_bytes_max: [0, 64 << 10][rng.random_range(0..2)],
                uncovered_bytes_max: [8 << 10, 1 << 20][rng.random_range(0..2)],
                ..headwater_engine::FlushConfig::default()
            },
            ..small_config()
        },
        // The n-th batch of a segment begins so many times n bytes before a sector's end.
        record_size: record_size([511, 1023, 510, 1021, 700, 1536, 2045][rng.random_range(0..7)]),
        history: RefCell::default(),
        rng: RefCell::new(rng),
        recycled: Cell::new(0),
    };
    let mut disk = SimDisk::new(seed);
    if let Some(change) = crash_at {
        disk.crash_at(change);
        let first = alike.live(&disk, seed, 12);
        disk = disk.crash(alike.draw(u64::MAX));
        alike.live(&disk, seed, 1).unwrap();
        return (alike.recycled.get(), first.is_ok());
    }
    for _ in 0..4 {
        disk.crash_at(disk.changes() + 60 + alike.draw(150));
        let stopped = alike.live(&disk, alike.draw(u64::MAX), 100);
        assert_eq!(stopped, Err(Halt::Crashed));
        alike
            .recycled
            .set(alike.recycled.get() + disk.count(OpKind::Rename) / 2);
        disk = disk.crash(alike.draw(u64::MAX));
    }
    alike.live(&disk, seed, 1).unwrap();
    (alike.recycled.get(), true)
}

#[test]
fn old_records_of_a_recycled_file_never_come_back_whatever_a_torn_write_leaves() {
    let name = "old_records_of_a_recycled_file_never_come_back_whatever_a_torn_write_leaves";
    let (recycled, seeds) = (Cell::new(0), Cell::new(0));
    for_each_seed(name, 1500, |seed| {
        recycled.set(recycled.get() + alike(seed, None).0);
        seeds.set(seeds.get() + 1);
    });
    assert!(
        recycled.get() > seeds.get(),
        "{} in {} logs",
        recycled.get(),
        seeds.get()
    );
}

#[test]
fn recycling_loses_and_repeats_nothing_wherever_power_goes() {
    let name = "recycling_loses_and_repeats_nothing_wherever_power_goes";
    let (recycled, seeds) = (Cell::new(0), Cell::new(0));
    for_each_seed(name, 12, |seed| {
        let change = (0..10_000).find(|change| alike(seed, Some(*change)).1);
        recycled.set(recycled.get() + alike(seed, change).0);
        seeds.set(seeds.get() + 1);
    });
    assert!(
        recycled.get() >= seeds.get(),
        "{} in {} logs",
        recycled.get(),
        seeds.get()
    );
}

#[test]
fn readers_of_a_real_file_see_what_was_written_after_it_was_recycled() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("topic-0");
    let builder = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound);
    let running = builder.spawn(move || async move {
        let disk = DirectDisk::new().unwrap();
        let config = LogConfig {
            segment_size_bytes: 256 << 10,
            retention_bytes: Some(1),
            ..small_config()
        };
        // So little memory that what was appended is read from the disk.
        let memory = Memory::new(TailMemory::new(8 << 10), ColdMemory::new(16 * REGION_SIZE));
        let (log, _) = Log::open(disk.clone(), path.clone(), config, memory).await.unwrap();
        let (recycled, last, directly) = (Cell::new(0), RefCell::default(), Cell::new(0));
        let append = async |id| {
            log.append(&batch(&[Record::new(id, 50_000)]), NOW).unwrap();
            log.flush().await.unwrap();
            let now = spares(&disk, &path).await;
            let before = last.replace(now.clone());
            recycled.set(recycled.get() + before.iter().filter(|name| !now.contains(name)).count());
        };
        let read = async |offset| {
            let range = log
                .fetch(Offset::new(offset), 1 << 20, ReadLimit::HighWatermark)
                .await
                .unwrap()
                .range
                .unwrap();
            let cached = log.read(&range).await.unwrap();
            // Each as the first to ask after others have had the memory, and then again.
            for _ in 0..2 {
                if let Some(direct) = read_directly(&disk, &range).await {
                    assert!(direct == cached, "other bytes than in the page cache");
                    directly.set(directly.get() + 1);
                }
            }
            let found = ids(&decode(&cached));
            (found[0], range.file(&disk).await.unwrap())
        };
        let (mut opened, mut next, mut seen) = (Vec::new(), 0, 0);
        while recycled.get() < 4 {
            append(next).await;
            // Its pages are in the cache, and stay there by a descriptor that is not closed.
            let (found, file) = read(next).await;
            assert_eq!(found, next);
            opened.push(file);
            next += 1;
            log.maintain(NOW).await.unwrap();
            last.replace(spares(&disk, &path).await);
            for offset in log.offsets().start.get()..next {
                assert_eq!(read(offset).await.0, offset);
            }
            for file in &opened {
                let mut head = [0; 8];
                rustix::io::pread(file.cached().unwrap(), &mut head, 0).unwrap();
                let first = u64::from_be_bytes(head);
                let is_there = path.join(format!("{first:020}.log")).exists();
                seen += u64::from(is_there && first < next);
                let inode = rustix::fs::fstat(file.cached().unwrap()).unwrap();
                let linked = inode.st_nlink > 0;
                let spare = path.join(format!("{first:020}.recycled")).exists();
                assert!(
                    !linked || is_there || spare,
                    "old bytes of offset {first} in a file that is another's now"
                );
            }
            assert!(next < 400, "nothing is recycled");
        }
        assert!(seen > 0 && directly.get() > 0, "{seen}, {}", directly.get());
    });
    running.unwrap().join().unwrap();
}
