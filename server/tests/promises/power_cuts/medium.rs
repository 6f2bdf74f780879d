//! What was written to a device, what was flushed, and what is left of it when the power fails.
//!
//! As the kernel has it (`Documentation/block/writeback_cache_control.rst`): a flush covers the writes that had completed when it
//! began, and nothing else. Each thing that happens has a moment of its own, so that the power can fail at any of them afterwards.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use rand::{RngExt as _, rngs::SmallRng};

/// So much of a write is there or is not.
const SECTOR: usize = 512;

/// Pieces in which an image is looked at and copied.
const PIECE: usize = 1 << 20;

/// Counts what has happened.
pub type Moment = u64;

struct Write {
    position: usize,
    data: Vec<u8>,
    arrived: Moment,
    completed: Option<Moment>,
    durable: Option<Moment>,
}

/// What the power takes of that which was not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    Everything,
    /// Any sectors of it.
    Some,
}

/// The device's content from its beginning on.
pub struct Medium {
    first: Vec<u8>,
    /// Where there is more than zeros in it.
    first_pieces: Vec<usize>,
    now: Vec<u8>,
    writes: Vec<Write>,
    clock: Moment,
    /// Writes that each flush under way covers.
    flushes: HashMap<usize, Vec<usize>>,
    flushed: usize,
}

impl Medium {
    /// Begins with this image.
    pub fn of(image: &Path) -> io::Result<Medium> {
        let mut first = Vec::new();
        File::open(image)?.read_to_end(&mut first)?;
        let pieces = first.chunks(PIECE).enumerate();
        let pieces = pieces.filter(|(_, piece)| piece.iter().any(|byte| *byte != 0));
        let first_pieces = pieces.map(|(number, _)| number * PIECE).collect();
        Ok(Medium {
            now: first.clone(),
            first,
            first_pieces,
            writes: Vec::new(),
            clock: 0,
            flushes: HashMap::new(),
            flushed: 0,
        })
    }

    pub fn size(&self) -> u64 {
        self.first.len() as u64
    }

    /// All that has happened so far is before it or at it.
    pub fn moment(&self) -> Moment {
        self.clock
    }

    fn next_moment(&mut self) -> Moment {
        self.clock += 1;
        self.clock
    }

    pub fn read(&self, position: u64, length: u32) -> &[u8] {
        let position = (position as usize).min(self.now.len());
        &self.now[position..(position + length as usize).min(self.now.len())]
    }

    /// A write has come. It is not complete before [`complete`](Self::complete).
    pub fn write(&mut self, position: u64, data: &[u8]) -> usize {
        let position = position as usize;
        self.now[position..position + data.len()].copy_from_slice(data);
        let arrived = self.next_moment();
        self.writes.push(Write {
            position,
            data: data.to_vec(),
            arrived,
            completed: None,
            durable: None,
        });
        self.writes.len() - 1
    }

    pub fn complete(&mut self, write: usize) {
        let moment = self.next_moment();
        self.writes[write].completed = Some(moment);
    }

    /// A flush begins.
    pub fn begin_flush(&mut self) -> usize {
        let is_covered = |write: &Write| write.completed.is_some() && write.durable.is_none();
        let writes = self.writes.iter().enumerate();
        let covered = writes.filter(|(_, write)| is_covered(write)).map(|(at, _)| at);
        let covered = covered.collect();
        self.flushed += 1;
        self.flushes.insert(self.flushed, covered);
        self.flushed
    }

    pub fn end_flush(&mut self, flush: usize) {
        let moment = self.next_moment();
        for write in self.flushes.remove(&flush).unwrap() {
            self.writes[write].durable.get_or_insert(moment);
        }
    }

    /// Makes the image that is found when the power has failed right after this moment.
    pub fn cut(&self, moment: Moment, loss: Loss, random: &mut SmallRng, image: &Path) -> io::Result<()> {
        let file = File::create(image)?;
        file.set_len(self.size())?;
        for &piece in &self.first_pieces {
            let end = (piece + PIECE).min(self.first.len());
            file.write_all_at(&self.first[piece..end], piece as u64)?;
        }
        for write in self.writes.iter().take_while(|write| write.arrived <= moment) {
            if write.durable.is_some_and(|durable| durable <= moment) {
                file.write_all_at(&write.data, write.position as u64)?;
            } else if loss == Loss::Some {
                for (number, sector) in write.data.chunks(SECTOR).enumerate() {
                    if random.random_bool(0.5) {
                        file.write_all_at(sector, (write.position + number * SECTOR) as u64)?;
                    }
                }
            }
        }
        Ok(())
    }
}
