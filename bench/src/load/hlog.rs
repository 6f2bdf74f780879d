//! The histogram log (`.hlog`): one interval histogram a second for each part of a workload, tagged with its name, as
//! the tools of `HdrHistogram` read it. Values are nanoseconds.
//!
//! Written by a thread of its own, so that no measurement waits for a disk.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::error::BenchError;

/// A log that is being written; complete once [`HistogramLog::finish`] has returned.
#[derive(Debug)]
pub struct HistogramLog {
    lines: mpsc::SyncSender<Line>,
    thread: JoinHandle<std::io::Result<()>>,
    path: PathBuf,
}

/// Lines that may wait for the disk; then samplers wait.
const LINES_MAX: usize = 1024;

#[derive(Debug)]
struct Line {
    tag: &'static str,
    start: Duration,
    length: Duration,
    histogram: Histogram<u64>,
}

impl HistogramLog {
    /// Makes the file, or empties it.
    pub fn create(path: &Path) -> Result<Self, BenchError> {
        let file = File::create(path).map_err(|source| BenchError::file(path, source))?;
        let (lines, received) = mpsc::sync_channel(LINES_MAX);
        let thread = std::thread::Builder::new()
            .name("histogram-log".into())
            .spawn(move || write(BufWriter::new(file), &received))
            .map_err(BenchError::Threads)?;
        Ok(Self {
            lines,
            thread,
            path: path.to_owned(),
        })
    }

    /// Adds an interval: its start and length since the window began, and its latencies in nanoseconds.
    pub fn write(&self, tag: &'static str, start: Duration, length: Duration, histogram: &Histogram<u64>) {
        // If the thread has failed, `finish` says why.
        let _ = self.lines.send(Line {
            tag,
            start,
            length,
            histogram: histogram.clone(),
        });
    }

    /// Waits until everything is in the file.
    pub fn finish(self) -> Result<(), BenchError> {
        drop(self.lines);
        let written = self.thread.join();
        let written = written.unwrap_or_else(|_panic| Err(std::io::Error::other("the writer panicked")));
        written.map_err(|source| BenchError::file(&self.path, source))
    }
}

fn write(mut file: BufWriter<File>, lines: &mpsc::Receiver<Line>) -> std::io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("headwater-bench: latencies in nanoseconds, one interval a second, tagged with the part")
        .with_start_time(SystemTime::now())
        .with_max_value_divisor(1e6);
    let mut log = builder.begin_log_with(&mut file, &mut serializer)?;
    for line in lines {
        let tag = Tag::new(line.tag);
        let written = log.write_histogram(&line.histogram, line.start, line.length, tag);
        written.map_err(|error| std::io::Error::other(format!("{error:?}")))?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::load::meter::histogram;

    #[test]
    fn intervals_come_back_from_the_file_as_they_were_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = HistogramLog::create(file.path()).unwrap();
        let mut latencies = histogram();
        latencies.record_n(1_000_000, 10).unwrap();
        log.write("produce", Duration::ZERO, Duration::from_secs(1), &latencies);
        latencies.record(5_000_000).unwrap();
        log.write("consume", Duration::from_secs(1), Duration::from_secs(1), &latencies);
        log.finish().unwrap();

        let text = std::fs::read(file.path()).unwrap();
        let intervals: Vec<_> = IntervalLogIterator::new(&text)
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        let tags: Vec<_> = intervals
            .iter()
            .map(|found| found.tag().unwrap().as_str().to_owned())
            .collect();
        assert_eq!(tags, ["produce", "consume"]);
        let encoded = base64(intervals[1].encoded_histogram());
        let found: Histogram<u64> = Deserializer::new().deserialize(&mut &encoded[..]).unwrap();
        assert_eq!((found.len(), found.max()), (11, latencies.max()));
    }

    /// Standard base64 with padding.
    fn base64(text: &str) -> Vec<u8> {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits = text
            .bytes()
            .filter_map(|byte| DIGITS.iter().position(|&digit| digit == byte));
        let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
        for digit in digits {
            bits = bits << 6 | digit as u32;
            count += 6;
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count) as u8);
                bits &= (1 << count) - 1;
            }
        }
        bytes
    }
}
