//! Opening a log: trust what the checkpoint vouches for, scan what was written since, cut what a crash has torn.
//!
//! A segment is only begun when the one before it is wholly durable, so a crash can tear nothing but the last segment, and
//! only that is ever cut. Damage anywhere else is not a crash but a bad disk or a lost file: the log then refuses to open and
//! says where, instead of deleting what follows.

mod segments;

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    rc::Rc,
};

use headwater_protocol::id::{LeaderEpoch, Offset};

use super::{
    DurablePoint, Gate, Log, LogConfig, State,
    compact::{self, Compactor, Progress},
    files::remove_segment_files,
    journaled::Journaled,
    recycle::{self, Spares},
    ticket::Pending,
    upkeep::checkpoint_of,
    watermark::Watermark,
};
use crate::{
    checkpoint::{self, Checkpoint, SegmentFacts},
    disk::{BLOCK_SIZE, DirEntry, Disk, EntryKind, SegmentFile, out_of_place},
    epochs::EpochTable,
    error::LogError,
    journal::{Aside, Journal},
    memory::Memory,
    owner::Owner,
    producers::Producers,
    segment::{Extent, Segment, Sight, Stage, base_offset_of, segment_path},
    seldom::Seldom,
    signal::Signal,
    transactions::Transactions,
};

/// What was found when a log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes that had to be read and checked, because they were written after the checkpoint.
    pub scanned_bytes: u64,
    /// What was cut from the end of the log.
    pub cut: Option<Cut>,
    /// Bytes that were cut from the end of the log because they are from before its file was recycled: nothing is lost.
    pub earlier_use_bytes: u64,
    /// The high watermark was at least here when the log was used last: see [`Log::hold_high_watermark`].
    pub high_watermark: Offset,
    /// Why the checkpoint could not be used, if there was one.
    pub checkpoint_damage: Option<String>,
}

/// Bytes at the end of the last segment that were not a record batch. They had never been acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment file.
    pub path: PathBuf,
    /// Where it was cut.
    pub position: u64,
    /// Offset of the next record.
    pub offset: Offset,
    /// How many bytes were cut, reserved space included.
    pub bytes: u64,
    /// What was wrong with them.
    pub reason: String,
}

/// Everything that opening finds out on its way.
struct Opening<'a, D: Disk> {
    disk: &'a D,
    directory: &'a Path,
    config: &'a LogConfig,
    memory: &'a Memory,
    producers: Producers,
    transactions: Transactions,
    epochs: EpochTable,
    compaction: compact::Record,
    report: Recovery,
    /// What a journal has kept, which may not be in the segments.
    aside: Option<Aside>,
}

impl<D: Disk> Log<D> {
    /// Opens the log in `directory`, which is made if it is not there. Returns what recovery had to do.
    pub async fn open(
        disk: D,
        directory: PathBuf,
        config: LogConfig,
        memory: impl Into<Memory>,
    ) -> Result<(Log<D>, Recovery), LogError> {
        Log::open_with(disk, directory, config, memory, None).await
    }

    /// The same, for a log whose small appends become durable in its core's journal, under the name of the partition whose log it is. Every
    /// directory must be [claimed](Owner::claim) by its owner before.
    pub async fn open_with(
        disk: D,
        directory: PathBuf,
        config: LogConfig,
        memory: impl Into<Memory>,
        journal: Option<(Rc<Journal<D>>, Owner)>,
    ) -> Result<(Log<D>, Recovery), LogError> {
        config.check();
        if let Some((journal, owner)) = &journal {
            journal.check_undoubted(*owner).await?;
        }
        let memory = memory.into();
        disk.create_dir(&directory)
            .await
            .map_err(LogError::io("create", &directory))?;
        let mut opening = Opening {
            disk: &disk,
            directory: &directory,
            config: &config,
            memory: &memory,
            producers: Producers::default(),
            transactions: Transactions::default(),
            epochs: EpochTable::default(),
            compaction: compact::Record::default(),
            report: Recovery::default(),
            aside: None,
        };
        let mut files = opening.list_segments().await?;
        let mut checkpoint = opening.read_checkpoint().await?;
        if let Some(empty) = checkpoint.take_if(|checkpoint| checkpoint.begins_again) {
            checkpoint = Some(opening.begin_again(std::mem::take(&mut files), empty).await?);
        }
        let start = checkpoint
            .as_ref()
            .map_or(Offset::ZERO, |checkpoint| Offset::new(checkpoint.log_start_offset));
        let end = checkpoint
            .as_ref()
            .map_or(Offset::ZERO, |checkpoint| Offset::new(checkpoint.recovery.offset));
        let segments = opening.open_segments(&files, checkpoint.clone()).await?;
        let mut state = opening.finish(segments, start, end).await?;
        let known = checkpoint.as_ref().and_then(|checkpoint| checkpoint.high_watermark);
        let known = known.map_or(end, Offset::new);
        opening.report.high_watermark = known.clamp(state.start, state.end());
        if opening.is_known(&state, checkpoint) {
            state.saved_changes = state.changes;
        }
        opening.cut_compaction(&state).await?;
        let Opening { mut report, aside, .. } = opening;
        let log = Log {
            disk,
            directory,
            config: RefCell::new(Rc::new(config)),
            memory,
            state: RefCell::new(state),
            appended: Signal::default(),
            advanced: Signal::default(),
            journaled: journal.map(Journaled::new),
            flush_gate: Gate::default(),
            file_gate: Gate::default(),
            upkeep_gate: Gate::default(),
            compactor: Compactor::default(),
            unreadable: Seldom::default(),
        };
        log.settle_opened(report.high_watermark);
        let active = Sight::of(log.state.borrow().active());
        log.load_aborted(&active).await?;
        if let Some(aside) = aside {
            log.take_back(&aside, &mut report).await?;
        }
        Ok((log, report))
    }
}

impl<D: Disk> Opening<'_, D> {
    async fn list(&self) -> Result<Vec<DirEntry>, LogError> {
        let entries = self.disk.list(self.directory).await;
        let entries = entries.map_err(LogError::io("list", self.directory))?;
        let is_foreign = |entry: &&DirEntry| !matches!(entry.kind, EntryKind::File | EntryKind::Directory);
        match entries.iter().find(is_foreign) {
            Some(foreign) => Err(LogError::io("use", self.directory.join(&foreign.name))(out_of_place(
                foreign.kind,
            ))),
            None => Ok(entries),
        }
    }

    /// Base offset and file size of every segment file.
    async fn list_segments(&mut self) -> Result<BTreeMap<Offset, u64>, LogError> {
        let mut entries = self.list().await?;
        if compact::swap::recover(self.disk, self.directory, &entries).await? {
            entries = self.list().await?;
        }
        if entries.iter().any(|entry| entry.name == compact::progress::FILE_NAME) {
            self.compaction = compact::Record::read(self.disk, self.directory).await?;
        }
        if entries.iter().any(|entry| entry.name == Aside::FILE_NAME) {
            self.aside = Aside::read(self.disk, self.directory).await?;
        }
        let mut segments = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
            let is_spare = base_offset_of(&entry.name, recycle::EXTENSION).is_some();
            if is_spare || entry.name.strip_suffix(".tmp").is_some() {
                let path = self.directory.join(&entry.name);
                self.disk
                    .remove_file(&path)
                    .await
                    .map_err(LogError::io("remove", &path))?;
            } else if let Some(base_offset) = base_offset_of(&entry.name, "log") {
                segments.insert(base_offset, entry.size);
            }
        }
        Ok(segments)
    }

    async fn read_checkpoint(&mut self) -> Result<Option<Checkpoint>, LogError> {
        let path = self.directory.join(checkpoint::FILE_NAME);
        let file = match self.disk.read_file(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io("read", &path)(error)),
        };
        match Checkpoint::decode_aside(file, self.disk).await {
            Ok(mut checkpoint) => {
                self.producers = Producers::from_checkpoint(std::mem::take(&mut checkpoint.producers));
                self.epochs = checkpoint.epochs.clone().unwrap_or_default();
                let known_from = checkpoint.high_watermark.unwrap_or(checkpoint.recovery.offset);
                let transactions = std::mem::take(&mut checkpoint.transactions);
                self.transactions = Transactions::from_checkpoint(transactions, Offset::new(known_from));
                Ok(Some(checkpoint))
            }
            Err(damage) => {
                tracing::warn!(path = %path.display(), damage, "the checkpoint is damaged; every segment is scanned");
                self.report.checkpoint_damage = Some(damage);
                Ok(None)
            }
        }
    }

    /// Finishes what a crash has interrupted: drops all segments, and then the word that says so.
    async fn begin_again(&mut self, files: BTreeMap<Offset, u64>, empty: Checkpoint) -> Result<Checkpoint, LogError> {
        for base_offset in files.into_keys().rev() {
            self.remove(base_offset).await?;
        }
        if self.aside.take().is_some() {
            Aside::remove(self.disk, self.directory).await?;
        }
        let empty = Checkpoint {
            begins_again: false,
            ..empty
        };
        let path = self.directory.join(checkpoint::FILE_NAME);
        let written = match empty.clone().encode() {
            Ok(content) => self.disk.replace_file_to_make_room(&path, content).await,
            Err(error) => Err(error.into()),
        };
        written.map_err(LogError::io("write", &path))?;
        Ok(empty)
    }

    async fn remove(&self, base_offset: Offset) -> Result<(), LogError> {
        remove_segment_files(self.disk, self.directory, base_offset).await
    }

    /// Puts the state together: an active segment at the end, its last partial block in memory. `end` is the end of the
    /// log if it holds no segment at all.
    async fn finish(
        &mut self,
        mut segments: VecDeque<Rc<Segment<D>>>,
        start: Offset,
        end: Offset,
    ) -> Result<State<D>, LogError> {
        let interval = self.config.index_interval_bytes;
        if segments.back().is_none_or(|last| last.stage.get() != Stage::Active) {
            let next_offset = segments.back().map_or(end, |last| last.extent.get().next_offset);
            segments.push_back(Rc::new(Segment::new(
                self.directory,
                next_offset,
                self.memory,
                interval,
            )));
            let active = segments.back().expect("just pushed");
            active.transactions.open_since.set(self.transactions.open_since());
        }
        let active = segments.back().expect("pushed above if there was none");
        let Extent { end, next_offset, .. } = active.extent.get();
        if !end.is_multiple_of(BLOCK_SIZE as u64) {
            let file = active.open(self.disk).await?;
            let block_start = end / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
            let read = file.read(block_start, (end - block_start) as usize).await;
            let block = read.map_err(LogError::io("read", &active.path))?;
            active.tail.borrow_mut().restart(block_start, &block);
        }
        // Thousands of logs may be opened at once, and few of them are used soon.
        for segment in &segments {
            segment.file.close();
        }
        let first = segments.front().map_or(start, |first| first.base_offset);
        let start = start.max(first).min(next_offset);
        let mut epochs = std::mem::take(&mut self.epochs);
        epochs.begin_at(start, next_offset);
        let durable = DurablePoint {
            segment: active.base_offset,
            position: end,
            offset: next_offset,
        };
        let state = State {
            start,
            durable,
            filed: durable,
            watermark: Watermark::new(next_offset),
            segments,
            leader_epoch: epochs.latest().unwrap_or(LeaderEpoch::new(0)),
            epochs,
            producers: std::mem::take(&mut self.producers),
            transactions: std::mem::take(&mut self.transactions),
            spares: Spares::default(),
            dropped: Vec::new(),
            compaction: Progress::new(self.compaction.cut(next_offset)),
            pending: Pending::default(),
            fence: None,
            // Until it has been compared with the checkpoint.
            changes: 1,
            saved_changes: 0,
            has_unsealed: false,
            last_append: None,
        };
        state.check();
        Ok(state)
    }

    /// Whether opening the log again would find the same, and read no more: no checkpoint need be written before it changes. The
    /// producers are the checkpoint's own if nothing was scanned.
    fn is_known(&self, state: &State<D>, checkpoint: Option<Checkpoint>) -> bool {
        let Some(known) = checkpoint else {
            return state.end() == Offset::ZERO && self.report.checkpoint_damage.is_none();
        };
        let now = checkpoint_of(state, state.durable);
        // It is written before the segments are removed that it lets go.
        let is_there = |facts: &&SegmentFacts| facts.base_offset >= now.segments[0].base_offset;
        self.report.scanned_bytes == 0
            && (now.log_start_offset, now.recovery) == (known.log_start_offset, known.recovery)
            && now.segments.iter().eq(known.segments.iter().filter(is_there))
    }

    /// A crash may have come between a truncation and the note of it.
    async fn cut_compaction(&self, state: &State<D>) -> Result<(), LogError> {
        let record = self.compaction.cut(state.end());
        if record == self.compaction {
            return Ok(());
        }
        record.write(self.disk, self.directory).await
    }

    fn corrupt(&self, base_offset: Offset, position: u64, reason: &str) -> LogError {
        let path = segment_path(self.directory, base_offset, "log");
        LogError::Corrupt {
            path,
            position,
            reason: reason.to_owned(),
            resume_at: None,
        }
    }
}
