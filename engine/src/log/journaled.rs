//! What a log does with its core's journal: a few bytes become durable there, and come to the segment's file later.
//!
//! ```text
//! start ── in the segments' files ── [filed] ── in the journal, and in memory ── [durable] ── in memory ── end
//! ```
//! `flush` moves the durable offset, by the journal where that is enough: little is waiting, space is reserved in the segment's file, so
//! that what is acknowledged will fit, and the journal has room. Else it writes to the file, from `filed` on, and both move. `file` moves
//! `filed` alone, beside appends and flushes. A segment gets a file only once all before it is in theirs, so what is not filed lies
//! in one segment. Before anything is dropped, all is filed and the journal forgets the log.

use std::{cell::Cell, rc::Rc};

use headwater_protocol::{
    batch::RecordBatch,
    id::{Offset, Timestamp},
};

use super::{DurablePoint, FlushConfig, Log, Recovery, State, flush::Stopped, replica::end_of};
use crate::{
    disk::{Disk, is_full},
    error::LogError,
    journal::{Aside, Journal, Piece},
    moment::{Moment, Since},
    owner::Owner,
    segment::Segment,
};

/// A log's place in its core's journal.
#[derive(Debug)]
pub(super) struct Journaled<D: Disk> {
    pub(super) journal: Rc<Journal<D>>,
    pub(super) owner: Owner,
    /// Nothing more goes there.
    is_left_out: Cell<bool>,
}

impl<D: Disk> Journaled<D> {
    pub(super) fn new((journal, owner): (Rc<Journal<D>>, Owner)) -> Journaled<D> {
        let is_left_out = Cell::new(false);
        Journaled {
            journal,
            owner,
            is_left_out,
        }
    }

    /// Most bytes that become durable there at once; `None` if none do.
    fn bytes_max(&self) -> Option<u64> {
        self.journal.entry_bytes_max().filter(|_| !self.is_left_out.get())
    }

    /// All below this offset is in segments.
    pub(super) fn filed(&self, below: Offset) {
        self.journal.filed(self.owner, below);
    }
}

/// How far a segment is to be written to its file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    /// As far as it is filled, also meanwhile.
    End,
    /// To the end of an append.
    Point {
        point: DurablePoint,
        /// When more than this is appended behind it, the goal moves on to there.
        ahead_max: Option<u64>,
    },
}

impl Goal {
    pub(super) fn position<D: Disk>(self, segment: &Segment<D>) -> u64 {
        match self {
            Goal::End => segment.end(),
            Goal::Point { point, .. } => point.position,
        }
    }

    /// It is durable in the journal, and nobody waits for it.
    pub(super) fn may_wait(self) -> bool {
        matches!(self, Goal::Point { ahead_max: None, .. })
    }

    /// Looks at what has been appended meanwhile.
    pub(super) fn look_at<D: Disk>(&mut self, segment: &Segment<D>) {
        if let Goal::Point {
            point,
            ahead_max: Some(ahead_max),
        } = self
            && segment.end() > point.position + *ahead_max
        {
            *point = end_of(segment.base_offset, segment.extent.get());
        }
    }
}

/// Appends that are to become durable together.
struct Stretch<D: Disk> {
    segment: Rc<Segment<D>>,
    from: DurablePoint,
    to: DurablePoint,
}

impl<D: Disk> Stretch<D> {
    fn length(&self) -> usize {
        (self.to.position - self.from.position) as usize
    }

    fn copy_to(&self, out: &mut Vec<u8>) {
        let mut position = self.from.position;
        while position < self.to.position {
            let slice = self.segment.tail_slice(position, self.to.position);
            let slice = slice.expect("what is not durable stays in memory");
            out.extend_from_slice(&slice);
            position += slice.len() as u64;
        }
    }
}

impl<D: Disk> State<D> {
    /// How far the log is in its files, once so much of the segment is.
    pub(super) fn filed_by(&self, segment: &Segment<D>, position: u64, goal: Goal) -> DurablePoint {
        let is_in_file = |point: &DurablePoint| point.segment == segment.base_offset && point.position <= position;
        let is_all = position == segment.end() && self.durable.segment > segment.base_offset;
        let goal = match goal {
            // The durable offset has gone on to the next one by the journal.
            Goal::End if is_all => end_of(segment.base_offset, segment.extent.get()),
            Goal::End => self.filed,
            Goal::Point { point, .. } => point,
        };
        let reached = [self.durable, goal].into_iter().filter(is_in_file);
        let reached = reached.max_by_key(|point| point.offset);
        reached
            .filter(|point| point.offset >= self.filed.offset)
            .unwrap_or(self.filed)
    }

    /// Whether something is durable that is not in the segments' files.
    pub(super) fn has_unfiled(&self) -> bool {
        self.filed.offset < self.durable.offset
    }

    /// Where the part of a segment ends that is durable in its file.
    pub(super) fn filed_end_of(&self, segment: &Segment<D>) -> u64 {
        if segment.base_offset == self.filed.segment {
            self.filed.position
        } else {
            segment.end()
        }
    }

    /// The segment that is not all in its file although it is durable, and where the durable part of it ends.
    fn unfiled(&self) -> Option<(Rc<Segment<D>>, DurablePoint)> {
        if !self.has_unfiled() {
            return None;
        }
        let segment = Rc::clone(self.segment_at(self.filed));
        let end = if self.durable.segment == segment.base_offset {
            self.durable
        } else {
            end_of(segment.base_offset, segment.extent.get())
        };
        Some((segment, end))
    }
}

impl<D: Disk> Log<D> {
    /// Whether appends go through the journal that the log was opened with, from now on: not for one whose appends nobody waits for.
    pub fn use_journal(&self, is_used: bool) {
        if let Some(journaled) = &self.journaled {
            journaled.is_left_out.set(!is_used);
        }
    }

    /// Makes the oldest appends that are not durable so by the journal, if they are to go there. False if they were not.
    pub(super) async fn flush_into_journal(&self) -> bool {
        let Some(journaled) = &self.journaled else {
            return false;
        };
        let Some(stretch) = journaled.bytes_max().and_then(|bytes_max| self.stretch(bytes_max)) else {
            return false;
        };
        let piece = Piece {
            owner: journaled.owner,
            base: stretch.from.offset,
            next: stretch.to.offset,
            length: stretch.length(),
        };
        let abandoned = self.fence_if_dropped();
        let is_durable = journaled.journal.commit(piece, |out| stretch.copy_to(out)).await;
        abandoned.finished.set(true);
        if is_durable {
            self.made_durable_in_journal(stretch.to);
        }
        is_durable
    }

    /// What waits to become durable in the first segment that has such, if it is little enough, and its place in the file is reserved.
    fn stretch(&self, bytes_max: u64) -> Option<Stretch<D>> {
        let state = self.state.borrow();
        let (from, segment) = (state.durable, state.segment_at(state.durable));
        let to = end_of(segment.base_offset, segment.extent.get());
        let is_little = (from.position + 1..=from.position + bytes_max).contains(&to.position);
        // The file of a segment is begun when all before is in theirs.
        let has_place = state.filed.segment == from.segment && segment.prepared.get() >= to.position;
        (is_little && has_place).then(|| Stretch {
            segment: Rc::clone(segment),
            from,
            to,
        })
    }

    fn made_durable_in_journal(&self, end: DurablePoint) {
        let mut state = self.state.borrow_mut();
        if state.fence.is_some() {
            // Who waits for it was told that it has failed.
            return;
        }
        let reached = state.pending.settle(end.segment, end.position);
        assert_eq!(reached, Some(end), "what is committed ends with an append");
        state.durable = end;
        state.watermark.made_durable(end.offset);
        state.settle_transactions();
        state.step_over_segment_end();
        state.check();
        drop(state);
        self.advanced.notify();
    }

    /// How far a segment is to be written when the journal has not taken what waits: with a journal no further than it has to, as
    /// what comes next may be for the journal again.
    pub(super) fn goal_of(&self, segment: &Segment<D>) -> Goal {
        let journaled = self.journaled.as_ref();
        match journaled.and_then(Journaled::bytes_max) {
            None => Goal::End,
            ahead_max => Goal::Point {
                point: end_of(segment.base_offset, segment.extent.get()),
                ahead_max,
            },
        }
    }

    /// How files are written: where the journal takes small writes there are few of them here, and what it has kept is flushed with
    /// that of others.
    pub(super) fn flush_config(&self, goal: Goal) -> FlushConfig {
        let config = self.config().flush;
        let is_journaled = self
            .journaled
            .as_ref()
            .is_some_and(|journaled| journaled.bytes_max().is_some());
        let zero_ahead_bytes = if is_journaled { 0 } else { config.zero_ahead_bytes };
        FlushConfig {
            zero_ahead_bytes,
            single_write_bytes_max: if goal.may_wait() {
                0
            } else {
                config.single_write_bytes_max
            },
            ..config
        }
    }

    /// Writes what is durable in the journal to the segments' files, which frees its place there. Appends and flushes go on meanwhile. To
    /// be called when the [`Journal`] says that it is [`due`](Journal::due). Poll it to its end, as [`flush`](Self::flush).
    ///
    /// After [`LogError::DiskFull`] or [`LogError::OutOfFiles`] nothing is lost; try it again some time later.
    pub async fn file(&self) -> Result<(), LogError> {
        let _entered = self.file_gate.enter().await;
        self.file_all().await
    }

    /// The same for who has entered the gate.
    pub(super) async fn file_all(&self) -> Result<(), LogError> {
        loop {
            let unfiled = {
                let state = self.state.borrow();
                if let Some(fence) = &state.fence {
                    return Err(fence.clone());
                }
                state.unfiled()
            };
            let Some((segment, point)) = unfiled else { return Ok(()) };
            let goal = Goal::Point { point, ahead_max: None };
            match self.write_segment(&segment, goal).await {
                Ok(()) => self.note_filed(&segment, goal),
                Err(Stopped::OutOfFiles(error)) => return Err(error),
                Err(Stopped::Failed { failure, abandoned }) => {
                    let is_full = is_full(&failure.source);
                    let error = if is_full {
                        self.is_short().await;
                        let path = segment.path.clone();
                        LogError::DiskFull { path }
                    } else {
                        self.fence_after(&segment, failure).await
                    };
                    abandoned.finished.set(true);
                    return Err(error);
                }
            }
        }
    }

    /// A goal was reached, perhaps by what was written before.
    fn note_filed(&self, segment: &Segment<D>, goal: Goal) {
        let mut state = self.state.borrow_mut();
        state.filed = state.filed_by(segment, segment.durable.get(), goal);
        state.settle_transactions();
        state.step_over_segment_end();
        state.check();
        let filed = state.filed.offset;
        drop(state);
        if let Some(journaled) = &self.journaled {
            journaled.filed(filed);
        }
    }

    /// Files all that is durable and has the journal forget the log: before something of it is dropped. For who has entered all gates.
    pub(super) async fn settle_in_journal(&self) -> Result<(), LogError> {
        let Some(journaled) = &self.journaled else {
            return Ok(());
        };
        self.file_all().await?;
        journaled.journal.settle(journaled.owner).await
    }

    /// Has the journal forget the log, of which nothing is wanted any more, or nothing that is not elsewhere.
    pub(super) async fn leave_journal(&self) -> Result<(), LogError> {
        match &self.journaled {
            Some(journaled) => journaled.journal.settle(journaled.owner).await,
            None => Ok(()),
        }
    }

    /// Leaves what is durable and not filed to the log that is opened next, beside the segments.
    pub(super) async fn set_aside_unfiled(&self) -> Result<(), LogError> {
        let unfiled = self.state.borrow().unfiled();
        let Some((segment, to)) = unfiled else { return Ok(()) };
        let from = self.state.borrow().filed;
        let stretch = Stretch { segment, from, to };
        let mut bytes = Vec::with_capacity(stretch.length());
        stretch.copy_to(&mut bytes);
        Aside::of(bytes).write(&self.disk, &self.directory).await
    }

    /// Takes in what a journal, or a log before, has set aside, as far as it is not in the segments: nobody else has the log yet.
    pub(super) async fn take_back(&self, aside: &Aside, report: &mut Recovery) -> Result<(), LogError> {
        let unusable = |reason: String| LogError::Corrupt {
            path: self.directory.clone(),
            position: 0,
            reason: format!("what its journal has kept does not follow what is in its segments: {reason}"),
            resume_at: None,
        };
        let batches = aside.batches().map_err(unusable)?;
        let end = self.offsets().end;
        let missing: Vec<RecordBatch<'_>> = batches.into_iter().filter(|batch| batch.next_offset() > end).collect();
        if !missing.is_empty() {
            let mut state = self.state.borrow_mut();
            state
                .check_follows(&missing)
                .map_err(|error| unusable(error.to_string()))?;
            let never = Moment::from(Timestamp::NONE);
            let end = self.put_all(&mut state, &missing, never, Since::UNKNOWN);
            let _nobody = state.pending.push(end);
            // No earlier epoch may follow.
            state.leader_epoch = state.epochs.latest().unwrap_or(state.leader_epoch);
            for segment in &state.segments {
                segment.began.set(None);
            }
            state.changed();
            state.check();
        }
        let taken = self.offsets().end;
        let _entered = self.file_gate.enter().await;
        while let Some(segment) = self.first_to_write() {
            match self.write_segment(&segment, Goal::End).await {
                Ok(()) => {}
                Err(Stopped::OutOfFiles(error)) => return Err(error),
                Err(Stopped::Failed { failure, abandoned }) => {
                    abandoned.finished.set(true);
                    return Err(LogError::io("write", &segment.path)(failure.source));
                }
            }
        }
        if report.cut.as_ref().is_some_and(|cut| cut.offset < taken) {
            // It was here.
            report.cut = None;
        }
        Aside::remove(&self.disk, &self.directory).await
    }
}
