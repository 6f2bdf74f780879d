//! The journal of a core: one sequential file that makes small appends of all its partitions durable, with one write for all that wait.
//!
//! ```text
//! Log::flush ─ a few bytes ─► Journal::commit ─► the frame that is being filled ─► one durable write ─► all of its partitions go on
//!            └ many bytes, or no room here ─► the segment's file, as without a journal
//! Journal::due ─► Log::file ─► from the tail buffer to the segment's file, in large writes ─► the frames' place is free
//! ```
//! Owned by one core and passive, like its logs: whoever fills a frame first writes it, one frame at a time, while the next one fills.
//! What is in a frame and not yet in a segment's file stays in the tail buffer too, so the journal is read only by
//! [`recover`], before any log is opened. When it has no room, or has failed, logs write to their segments themselves:
//! nobody ever waits for room here. Before a log changes otherwise than by appends, it is settled: a later recovery must not bring
//! back what was dropped.

mod aside;
mod beside;
mod commit;
mod filing;
mod frame;
mod holds;
mod recover;
mod settle;
mod space;

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use headwater_protocol::id::CoreId;

pub(crate) use self::{aside::Aside, commit::Piece};
use self::{
    commit::Filling,
    frame::{ENTRY_LEN, FRAME_LEN, FileHead, Generation},
    holds::Holds,
    space::Space,
};
pub use self::{
    filing::Due,
    recover::{JournalRecovery, recover},
};
use crate::{
    disk::{BLOCK_SIZE, BlockBuffer, Disk, SegmentFile},
    error::LogError,
    log::Gate,
    owner::Owner,
    signal::Signal,
    tail::TailMemory,
};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// Largest frame in bytes, unless the journal is small.
const FRAME_BYTES_MAX: u64 = 1 << 20;

/// Frames that the journal has room for at least, so that there is always one to fill.
const FRAMES_MIN: u64 = 8;

/// What a journal can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalConfig {
    /// Size of the file in bytes: at least [`SIZE_MIN`](Self::SIZE_MIN). It bounds what a start has to recover.
    pub size_bytes: u64,
    /// A log that has at most so many bytes to make durable does it here, with more it writes to its segment.
    pub batch_bytes_max: u64,
}

impl JournalConfig {
    /// Smallest journal, in bytes.
    pub const SIZE_MIN: u64 = 64 << 10;

    fn frame_bytes_max(&self) -> u64 {
        FRAME_BYTES_MAX.min((self.size_bytes - BLOCK) / FRAMES_MIN / BLOCK * BLOCK)
    }

    /// Most bytes of one entry: as configured, if a frame holds as much.
    fn entry_bytes_max(&self) -> u64 {
        self.batch_bytes_max
            .min(self.frame_bytes_max() - (FRAME_LEN + 2 * ENTRY_LEN) as u64)
    }
}

impl Default for JournalConfig {
    fn default() -> Self {
        JournalConfig {
            size_bytes: 128 << 20,
            batch_bytes_max: 64 << 10,
        }
    }
}

/// What a journal has done and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalFigures {
    /// Frames that were written.
    pub frames: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes in them, with what fills up their last blocks.
    pub bytes: u64,
    /// Bytes of the file that are needed at the moment: not all of their batches are in segments.
    pub held_bytes: u64,
    /// Partitions with such batches.
    pub held_partitions: usize,
    /// Times that a log has written to its segment because there was no room here.
    pub refusals: u64,
    /// A write has failed, and the journal is not used any more.
    pub has_failed: bool,
}

/// Whether the journal is of use.
#[derive(Debug, Clone)]
enum Condition {
    Works,
    /// A write has failed. What it holds is being written to segments, and it takes nothing more.
    Failed(LogError),
}

#[derive(Debug)]
struct State {
    condition: Condition,
    space: Space,
    holds: Holds,
    /// Number of the frame that is being filled.
    sequence: u64,
    filling: Filling,
    is_writing: bool,
    /// Memory that frames were filled in and written from, for those to come.
    spare_bytes: Vec<u8>,
    spare_buffer: Option<Rc<BlockBuffer>>,
    /// The newest durable frame says that nothing before this one is needed.
    first_needed: u64,
    /// Of each partition the newest frame with batches that recovery might bring back.
    newest: HashMap<Owner, u64>,
    /// Partitions that were given up and could not be settled.
    doubted: HashSet<Owner>,
    /// Partitions of which recovery is to bring back nothing, as a file beside the journal says.
    forgotten: BTreeSet<Owner>,
    figures: JournalFigures,
}

/// One core's journal.
#[derive(Debug)]
pub struct Journal<D: Disk> {
    disk: D,
    path: PathBuf,
    config: JournalConfig,
    generation: Generation,
    file: D::File,
    tail: Rc<TailMemory>,
    state: RefCell<State>,
    /// No frame is being written.
    idle: Signal,
    /// A frame was taken from those that fill it: there is another.
    taken: Signal,
    /// Something is to be filed.
    pressed: Signal,
    /// One at a time says in the file beside the journal what is to be forgotten.
    beside_gate: Gate,
}

/// Path of a core's journal.
fn journal_path(directory: &Path, core: CoreId) -> PathBuf {
    directory.join(format!("core-{core}.{EXTENSION}"))
}

/// Extension of a journal that may hold something.
const EXTENSION: &str = "journal";
/// Extensions of one that is being made, and of one that is of no use but for its blocks.
const EXTENSION_NEW: &str = "journal-new";
const EXTENSION_OLD: &str = "journal-old";

impl<D: Disk> Journal<D> {
    /// Begins an empty journal for a core in the data directory. Every journal that was there must have been through
    /// [`recover`]. `generation` is drawn at random: nobody may know it beforehand. `tail` is what the core's logs have for tail
    /// buffers: when that is spent, what is held here is filed.
    ///
    /// # Panics
    /// If the configured size is too small.
    pub async fn open(
        disk: D,
        directory: &Path,
        core: CoreId,
        generation: u128,
        config: JournalConfig,
        tail: Rc<TailMemory>,
    ) -> Result<Rc<Journal<D>>, LogError> {
        assert!(config.size_bytes >= JournalConfig::SIZE_MIN, "the journal is too small");
        let path = journal_path(directory, core);
        let size = config.size_bytes / BLOCK * BLOCK;
        let head = FileHead {
            generation: Generation(generation),
            size,
        };
        let file = begin(&disk, &path, head).await?;
        let state = State {
            condition: Condition::Works,
            space: Space::new(size),
            holds: Holds::default(),
            sequence: 1,
            filling: Filling::default(),
            is_writing: false,
            spare_bytes: Vec::new(),
            spare_buffer: None,
            first_needed: 1,
            newest: HashMap::new(),
            doubted: HashSet::new(),
            forgotten: BTreeSet::new(),
            figures: JournalFigures::default(),
        };
        Ok(Rc::new(Journal {
            disk,
            path,
            config,
            generation: head.generation,
            file,
            tail,
            state: RefCell::new(state),
            idle: Signal::default(),
            taken: Signal::default(),
            pressed: Signal::default(),
            beside_gate: Gate::default(),
        }))
    }

    /// What it has done, and what it holds now.
    pub fn figures(&self) -> JournalFigures {
        let state = self.state.borrow();
        JournalFigures {
            held_bytes: state.held_bytes(),
            held_partitions: state.holds.len(),
            has_failed: !matches!(state.condition, Condition::Works),
            ..state.figures
        }
    }

    /// Largest entry that it takes, in bytes; `None` if it takes none.
    pub(crate) fn entry_bytes_max(&self) -> Option<u64> {
        matches!(self.state.borrow().condition, Condition::Works).then(|| self.config.entry_bytes_max())
    }

    fn has_failed(&self) -> bool {
        matches!(self.state.borrow().condition, Condition::Failed(_))
    }

    /// Nothing is written here any more, and what is held is to be filed: a write that failed is never tried again.
    fn fail(&self, error: LogError) {
        {
            let mut state = self.state.borrow_mut();
            if !matches!(state.condition, Condition::Works) {
                return;
            }
            tracing::error!(path = %self.path.display(), %error, held = state.holds.len(),
                "the journal is not used any more; partitions write to their segments, which is slower, until the broker is started again");
            state.condition = Condition::Failed(error);
        }
        self.taken.notify();
        self.pressed.notify();
    }
}

impl State {
    /// Bytes of the file from the oldest frame on that somebody needs.
    fn held_bytes(&self) -> u64 {
        let oldest = self.holds.oldest();
        oldest.map_or(0, |oldest| self.space.used_from(oldest))
    }
}

/// An empty journal under this name, of blocks that were written before.
async fn begin<D: Disk>(disk: &D, path: &Path, head: FileHead) -> Result<D::File, LogError> {
    let (new, old) = (path.with_extension(EXTENSION_NEW), path.with_extension(EXTENSION_OLD));
    // One that was begun is of unknown content; what is old was written once as a whole.
    disk.remove_file(&new).await.map_err(LogError::io("remove", &new))?;
    let is_old = match disk.rename(&old, &new).await {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(LogError::io("rename", &old)(error)),
    };
    let file = disk.open(&new, true).await.map_err(LogError::io("open", &new))?;
    let prepared = async {
        if !is_old || file.size().await? != head.size {
            file.truncate(0).await?;
            file.allocate(0, head.size).await?;
            file.write_zeros(0, head.size).await?;
            file.sync().await?;
        }
        let first = Rc::new(BlockBuffer::new(BLOCK_SIZE));
        first.append(&head.encode());
        file.write_durable(first.blocks(0, 1), 0).await
    };
    if let Err(error) = prepared.await {
        // It may be what has filled the disk.
        drop(file);
        let _ = disk.remove_file(&new).await;
        return Err(LogError::io("write", &new)(error));
    }
    disk.rename(&new, path).await.map_err(LogError::io("rename", &new))?;
    Ok(file)
}
