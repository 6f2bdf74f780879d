//! `headwater log`: what is in the files of a log, without a broker.
//!
//! ```text
//! place -> partition (which segments, what they must be like) -> segment (walks the batches of one) -> check -> dump | verify
//! ```
//! Nothing is opened for writing and no lock is taken.

mod dump;
mod listing;
mod partition;
mod place;
mod segment;
#[cfg(test)]
mod tests;
mod verify;

use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use self::partition::Segment;
use self::segment::{Batch, Boundary, Step, Walk};
use crate::args::Output;
use crate::failure::Failure;

/// What to do with the files of a log.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Print the batches that are in segment files
    #[command(after_help = dump::EXAMPLES)]
    Dump(dump::DumpArgs),
    /// Check every batch in segment files, and name what is damaged
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::VerifyArgs),
}

/// Does what was asked for.
pub fn run(command: &LogCommand, output: Output) -> Result<(), Failure> {
    match command {
        LogCommand::Dump(args) => dump::run(args, output),
        LogCommand::Verify(args) => verify::run(args, output),
    }
}

/// Bytes that are not what was written.
#[derive(Debug, Clone)]
struct Damage {
    file: PathBuf,
    position: u64,
    reason: String,
    /// Where whole batches go on.
    next: Option<Boundary>,
}

impl Damage {
    /// Of a file as a whole.
    fn of_file(file: PathBuf, reason: String) -> Self {
        Self {
            file,
            position: 0,
            reason,
            next: None,
        }
    }

    fn text(&self) -> String {
        let Self { position, reason, .. } = self;
        let goes_on = self.next.map_or_else(String::new, |next| {
            format!("; goes on at byte {} with offset {}", next.position, next.offset)
        });
        format!(
            "{} is damaged at byte {position}: {reason}{goes_on}",
            self.file.display()
        )
    }

    fn json(&self) -> Value {
        json!({"damage": {
            "file": self.file,
            "position": self.position,
            "reason": self.reason,
            "next_position": self.next.map(|next| next.position),
            "next_offset": self.next.map(|next| next.offset),
        }})
    }
}

/// What is behind the end of the log, as a broker leaves it that writes or was killed.
#[derive(Debug, Clone)]
struct Unfinished {
    file: PathBuf,
    position: u64,
    bytes: u64,
}

impl Unfinished {
    fn text(&self) -> String {
        let Self { file, position, bytes } = self;
        format!(
            "{} ends at byte {position}; the {bytes} bytes behind it are of a write that was never acknowledged, or of an earlier use \
             of the file, and the next start cuts them off",
            file.display()
        )
    }

    fn json(&self) -> Value {
        json!({"unfinished": {"file": self.file, "position": self.position, "bytes": self.bytes}})
    }
}

/// What is come upon in a segment.
#[derive(Debug, Clone)]
enum Finding {
    Batch(Batch),
    Damage(Damage),
    Unfinished(Unfinished),
}

/// The damage that was found, as the command's failure.
fn failure(damaged: u64) -> Result<(), Failure> {
    if damaged == 0 {
        return Ok(());
    }
    let places = if damaged == 1 {
        "1 place is".to_owned()
    } else {
        format!("{damaged} places are")
    };
    Err(Failure::damaged(format!("{places} damaged"))
        .hint("docs/operate.md, \"Look into the files\", says what a broker does about it and what you can do"))
}

/// Walks a segment from front to back. Ends when `each` returns false.
fn check(segment: &Segment, mut each: impl FnMut(Finding) -> Result<bool, Failure>) -> Result<(), Failure> {
    let damage = |position, reason, next| {
        Finding::Damage(Damage {
            file: segment.path.clone(),
            position,
            reason,
            next,
        })
    };
    let mut walk = match Walk::open(&segment.path, segment.base_offset, segment.has_holes) {
        Ok(walk) => walk,
        // Retention has removed it since it was listed.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return each(damage(0, format!("it cannot be opened: {error}"), None)).map(drop),
    };
    loop {
        let Boundary { position, offset } = walk.place();
        let is_settled = position < segment.settled;
        let (reason, next) = match walk.next() {
            Ok(Step::Batch(batch)) => {
                if !each(Finding::Batch(batch))? {
                    return Ok(());
                }
                continue;
            }
            // The next segment begins where this one ends. Behind that may be what the file was reserved for, or held before.
            Ok(Step::Bad { .. }) if !is_settled && segment.next == Some(offset) => return Ok(()),
            // It may be on its way: writes end in any order.
            Ok(Step::Bad { .. }) if !is_settled && segment.is_written => return Ok(()),
            Ok(Step::Bad { next: None, .. }) if !is_settled && segment.next.is_none() => {
                let bytes = segment.size.saturating_sub(position);
                let file = segment.path.clone();
                return each(Finding::Unfinished(Unfinished { file, position, bytes })).map(drop);
            }
            Ok(Step::Bad { reason, next }) => (reason, next),
            Ok(Step::Reserved | Step::End) if is_settled => {
                let settled = segment.settled;
                (
                    format!("the records end here, and {settled} bytes of them were durable"),
                    None,
                )
            }
            Ok(Step::Reserved | Step::End) => match segment.next {
                Some(next) if next != offset => (
                    format!("the segment ends at offset {offset}, and the next one begins at {next}"),
                    None,
                ),
                _ => return Ok(()),
            },
            Err(error) => (format!("it cannot be read: {error}"), None),
        };
        // A broker that lets go of a segment may write another into its file.
        let is_gone = !walk.is_named(&segment.path);
        if is_gone || !each(damage(position, reason, next))? || next.is_none() {
            return Ok(());
        }
    }
}
