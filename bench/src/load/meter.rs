//! What one part of a workload measures while it runs: counts, latencies, and both over time.
//!
//! Threads record into histograms of their own; a sampler drains them every so often, which gives the series, the
//! histogram log and the total. Only what falls into the window after the warm-up is measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::clock::Moment;
use super::hlog::HistogramLog;
use crate::progress::Counter;

/// What is measured of one part, such as the producers.
#[derive(Debug)]
pub struct Meter {
    /// Names it in the report and in the histogram log.
    pub name: &'static str,
    /// For the progress bar, the warm-up included.
    pub progress: Arc<Counter>,
    begin: OnceLock<Moment>,
    records: AtomicU64,
    bytes: AtomicU64,
    /// When the last record was measured.
    last: AtomicU64,
    recorders: Mutex<Vec<Recorder>>,
    late: Recorder,
    collected: Mutex<Collected>,
}

/// Takes the latencies of one thread or task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Mutex<Histogram<u64>>>);

/// What the sampler has drained so far.
#[derive(Debug)]
struct Collected {
    total: Histogram<u64>,
    /// Since the last line of the histogram log.
    logged: Histogram<u64>,
    logged_until: Duration,
    /// Counts at the last sample.
    seen: (u64, u64),
    series: Vec<Point>,
}

/// What happened in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Its end, in seconds of the window.
    pub at_s: f64,
    /// Records a second.
    pub records_per_s: f64,
    /// Bytes of values a second.
    pub bytes_per_s: f64,
    /// In microseconds; `None` if nothing was timed.
    pub p50_us: Option<f64>,
    /// Likewise.
    pub p99_us: Option<f64>,
    /// Likewise.
    pub max_us: Option<f64>,
}

/// What was measured in all.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Records in the window.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// From the begin of the window to the last record.
    pub elapsed: Duration,
    /// In nanoseconds.
    pub latencies: Histogram<u64>,
    /// How long the bench's own tasks took to get round to what they had been told of, in nanoseconds; no part of the latencies.
    pub late: Histogram<u64>,
    /// Over time.
    pub series: Vec<Point>,
}

/// Nanoseconds up to ten minutes, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are legal")
}

/// A thread that panicked ends the run anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(histogram())))
    }

    /// Takes a latency in nanoseconds.
    #[inline]
    pub fn record(&self, nanos: u64) {
        lock(&self.0).saturating_record(nanos.max(1));
    }
}

impl Meter {
    /// Measures nothing until the window begins.
    pub fn new(name: &'static str, progress: Arc<Counter>) -> Arc<Self> {
        Arc::new(Self {
            name,
            progress,
            begin: OnceLock::new(),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last: AtomicU64::new(0),
            recorders: Mutex::new(Vec::new()),
            late: Recorder::new(),
            collected: Mutex::new(Collected {
                total: histogram(),
                logged: histogram(),
                logged_until: Duration::ZERO,
                seen: (0, 0),
                series: Vec::new(),
            }),
        })
    }

    /// The window begins at this moment, which may be yet to come. Only the first call counts.
    pub fn open(&self, begin: Moment) {
        let _ = self.begin.set(begin);
    }

    /// When the window begins; the end of time as long as that is not known.
    #[inline]
    pub fn begin(&self) -> Moment {
        self.begin.get().copied().unwrap_or(Moment::from_nanos(u64::MAX))
    }

    /// A recorder for one thread.
    pub fn recorder(&self) -> Recorder {
        let recorder = Recorder::new();
        lock(&self.recorders).push(recorder.clone());
        recorder
    }

    /// For how late tasks of the bench are.
    pub fn late(&self) -> Recorder {
        self.late.clone()
    }

    /// Counts records that fall into the window.
    #[inline]
    pub fn count(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The last record so far was acknowledged, or arrived, at this moment.
    #[inline]
    pub fn reached(&self, moment: Moment) {
        self.last.fetch_max(moment.as_nanos(), Ordering::Relaxed);
    }

    /// Drains the recorders into one more point of the series, and into the log once a second.
    pub fn sample(&self, now: Moment, log: Option<&HistogramLog>, is_last: bool) {
        let begin = self.begin();
        if now <= begin {
            return;
        }
        let at = now.since(begin);
        let mut interval = histogram();
        for recorder in lock(&self.recorders).iter() {
            let mut recorded = lock(&recorder.0);
            if !recorded.is_empty() {
                interval += &*recorded;
                recorded.reset();
            }
        }
        let seen = (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let mut collected = lock(&self.collected);
        let before = collected.series.last().map_or(0.0, |point| point.at_s);
        let seconds = at.as_secs_f64() - before;
        if seconds > 1e-3 {
            let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
            let us = |nanos: u64| (!interval.is_empty()).then_some(nanos as f64 / 1e3);
            let point = Point {
                at_s: at.as_secs_f64(),
                records_per_s: rate(seen.0, collected.seen.0),
                bytes_per_s: rate(seen.1, collected.seen.1),
                p50_us: us(interval.value_at_quantile(0.5)),
                p99_us: us(interval.value_at_quantile(0.99)),
                max_us: us(interval.max()),
            };
            collected.series.push(point);
            collected.seen = seen;
        }
        if !interval.is_empty() {
            collected.total += &interval;
        }
        if let Some(log) = log {
            collected.logged += &interval;
            let since = at.saturating_sub(collected.logged_until);
            if since >= Duration::from_secs(1) || is_last {
                log.write(self.name, collected.logged_until, since, &collected.logged);
                collected.logged.reset();
                collected.logged_until = at;
            }
        }
    }

    /// What was measured, once everything has been sampled.
    pub fn finish(&self) -> Measured {
        let mut collected = lock(&self.collected);
        let last = Moment::from_nanos(self.last.load(Ordering::Relaxed));
        let elapsed = last.since(self.begin());
        let mut series = std::mem::take(&mut collected.series);
        let step = series.first().map_or(0.0, |point| point.at_s);
        // What comes after the last record is no part of the measurement, and a part of an interval at the end would look
        // like a drop.
        let end = elapsed.as_secs_f64() + 0.3 * step;
        series.truncate(series.iter().take_while(|point| point.at_s <= end).count().max(1));
        if matches!(series[..], [.., before, last] if last.at_s - before.at_s < 0.7 * step) {
            series.pop();
        }
        Measured {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            elapsed,
            latencies: collected.total.clone(),
            late: lock(&self.late.0).clone(),
            series,
        }
    }
}

/// Samples meters until it is dropped, and once more then.
#[derive(Debug)]
pub struct Sampler {
    meters: Vec<Arc<Meter>>,
    log: Option<Arc<HistogramLog>>,
    task: tokio::task::JoinHandle<()>,
}

impl Sampler {
    /// Begins to sample. A run of `expected` gets about a hundred points.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(meters: Vec<Arc<Meter>>, expected: Duration, log: Option<Arc<HistogramLog>>) -> Self {
        let step = (expected / 100).clamp(Duration::from_millis(100), Duration::from_secs(1));
        let (sampled, to) = (meters.clone(), log.clone());
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(step);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let now = Moment::now();
                for meter in &sampled {
                    meter.sample(now, to.as_deref(), false);
                }
            }
        });
        Self { meters, log, task }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
        let now = Moment::now();
        for meter in &self.meters {
            meter.sample(now, self.log.as_deref(), true);
        }
    }
}
