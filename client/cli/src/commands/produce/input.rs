//! The input of `produce`, read by a thread of its own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read as _};
use std::path::Path;
use std::thread;

use tokio::sync::mpsc;

use crate::failure::Failure;

/// Longest line, or largest raw input, in bytes: more than any broker takes.
const LINE_LEN_MAX: u64 = 256 << 20;
/// What the thread reads at once.
const BUFFER_LEN: usize = 1 << 20;
/// Bytes of lines that are handed over together.
const PIECE_LEN: usize = 256 << 10;
/// Pieces that may wait.
const PIECES_MAX: usize = 4;

/// A line without its end, or all of a raw input.
#[derive(Debug)]
pub struct Line {
    pub bytes: Vec<u8>,
    /// Counted from 1.
    pub number: u64,
    /// Where it ends in the input.
    pub end: u64,
}

/// Lines as they come.
#[derive(Debug)]
pub struct Input {
    pieces: mpsc::Receiver<Result<Vec<Line>, Failure>>,
    /// Bytes of the file, if it is one.
    pub size: Option<u64>,
    /// Somebody types it.
    pub is_typed: bool,
}

impl Input {
    /// Begins to read the file, or standard input.
    pub fn open(file: Option<&Path>, whole: bool) -> Result<Self, Failure> {
        let file = file.filter(|path| *path != Path::new("-"));
        let failed = |error: io::Error| {
            let path = file.unwrap_or(Path::new("standard input")).display();
            Failure::failed(format!("cannot read {path}: {error}"))
        };
        let (source, size): (Box<dyn io::Read + Send>, _) = match file {
            None => (Box::new(io::stdin()), None),
            Some(path) => {
                let file = File::open(path).map_err(failed)?;
                let about = file.metadata().map_err(failed)?;
                (Box::new(file), about.is_file().then_some(about.len()))
            }
        };
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let name = file.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
        let reader = Reader {
            source: BufReader::with_capacity(BUFFER_LEN, source),
            name,
            number: 0,
            position: 0,
        };
        let read = move || reader.run(&sender, whole);
        let thread = thread::Builder::new().name("input".to_owned()).spawn(read);
        thread.map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
        let is_typed = file.is_none() && io::stdin().is_terminal();
        Ok(Self { pieces, size, is_typed })
    }

    /// The next lines; `None` at the end. May be cancelled.
    pub async fn next(&mut self) -> Option<Result<Vec<Line>, Failure>> {
        self.pieces.recv().await
    }
}

struct Reader {
    source: BufReader<Box<dyn io::Read + Send>>,
    name: String,
    number: u64,
    position: u64,
}

impl Reader {
    fn run(mut self, pieces: &mpsc::Sender<Result<Vec<Line>, Failure>>, whole: bool) {
        loop {
            let piece = if whole { self.whole() } else { self.piece() };
            let is_last = whole || piece.as_ref().map_or(true, Vec::is_empty);
            // Nobody waits for it any more if the command has ended.
            if piece.as_ref().is_ok_and(Vec::is_empty) || pieces.blocking_send(piece).is_err() || is_last {
                return;
            }
        }
    }

    /// At least one line, and what follows it as far as no waiting is needed; none at the end.
    fn piece(&mut self) -> Result<Vec<Line>, Failure> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_LEN && (lines.is_empty() || self.source.buffer().contains(&b'\n')) {
            let Some(line) = self.line()? else { break };
            bytes += line.bytes.len() + 1;
            lines.push(line);
        }
        Ok(lines)
    }

    fn line(&mut self) -> Result<Option<Line>, Failure> {
        let mut bytes = Vec::new();
        let read = (&mut self.source).take(LINE_LEN_MAX + 1).read_until(b'\n', &mut bytes);
        self.took(read)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Ok(Some(self.numbered(bytes)))
    }

    fn whole(&mut self) -> Result<Vec<Line>, Failure> {
        let mut bytes = Vec::new();
        let read = (&mut self.source).take(LINE_LEN_MAX + 1).read_to_end(&mut bytes);
        self.took(read)?;
        Ok(vec![self.numbered(bytes)])
    }

    fn numbered(&mut self, bytes: Vec<u8>) -> Line {
        self.number += 1;
        Line {
            bytes,
            number: self.number,
            end: self.position,
        }
    }

    fn took(&mut self, read: io::Result<usize>) -> Result<(), Failure> {
        let read = read.map_err(|error| Failure::failed(format!("cannot read {}: {error}", self.name)))? as u64;
        self.position += read;
        if read > LINE_LEN_MAX {
            let message = format!("{}: line {} is longer than 256 MiB", self.name, self.number + 1);
            return Err(
                Failure::failed(message).hint("--input raw is for binary files; no broker takes records that large")
            );
        }
        Ok(())
    }
}
