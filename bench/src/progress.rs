//! What has been done so far, and the bar that shows it: on standard error, and only on a terminal.
//!
//! Threads add to a counter in strides; one task looks at it ten times a second. Without a terminal nothing is drawn. Whatever else
//! is written to standard error goes through [`StandardError`], which takes the bars away for as long as that takes.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

const REFRESH: Duration = Duration::from_millis(100);

/// All bars of this process.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Draws a bar to standard error, and nowhere if that is no terminal.
///
/// # Panics
/// If the template is not legal.
pub fn show(bar: ProgressBar, template: &str) -> ProgressBar {
    bar.set_style(ProgressStyle::with_template(template).expect("the template is legal"));
    BARS.add(bar)
}

/// Standard error, written to with no bar in the way.
#[derive(Debug, Clone, Copy)]
pub struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Records and bytes of values so far.
#[derive(Debug, Default)]
pub struct Counter {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    /// Adds what was done since the last call.
    pub fn add(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How far there is to go.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// So many bytes of values.
    Bytes(u64),
    /// So much time.
    Time(Duration),
    /// Not known.
    None,
}

/// A bar, drawn until it is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    task: JoinHandle<()>,
    counter: Arc<Counter>,
}

impl Progress {
    /// Begins to draw.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(title: &'static str, goal: Goal) -> Self {
        let bar = match goal {
            Goal::Bytes(bytes) => ProgressBar::new(bytes),
            Goal::Time(time) => ProgressBar::new(time.as_millis() as u64),
            Goal::None => ProgressBar::no_length(),
        };
        let template = match goal {
            Goal::None => "{prefix} {spinner} {elapsed} {msg}",
            _ => "{prefix} {bar:40} {percent:>3}% {msg}",
        };
        let bar = show(bar, template);
        bar.set_prefix(title);
        let counter = Arc::new(Counter::default());
        let task = tokio::spawn(draw(bar.clone(), goal, Arc::clone(&counter)));
        Self { bar, task, counter }
    }

    /// What to count in.
    pub fn counter(&self) -> Arc<Counter> {
        Arc::clone(&self.counter)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

async fn draw(bar: ProgressBar, goal: Goal, counter: Arc<Counter>) {
    if bar.is_hidden() {
        return;
    }
    let started = Instant::now();
    let mut ticks = tokio::time::interval(REFRESH);
    loop {
        ticks.tick().await;
        let (records, bytes) = (
            counter.records.load(Ordering::Relaxed),
            counter.bytes.load(Ordering::Relaxed),
        );
        let elapsed = started.elapsed();
        bar.set_position(match goal {
            Goal::Bytes(_) => bytes,
            Goal::Time(_) | Goal::None => elapsed.as_millis() as u64,
        });
        let rate = bytes as f64 / 1e6 / elapsed.as_secs_f64().max(1e-3);
        bar.set_message(format!(
            "{:.1} GB, {records} records, {rate:.0} MB/s",
            bytes as f64 / 1e9
        ));
    }
}
