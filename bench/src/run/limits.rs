//! The limits that a workload needs, measured in turns with it.

use std::io;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::runtime::Runtime;

use super::host::Host;
use super::{Workload, interrupted, limits_by_default};
use crate::cli::{LimitsMode, MixedArgs, RunArgs};
use crate::data;
use crate::error::BenchError;
use crate::limits::beside::Readers;
use crate::limits::floor::Load;
use crate::limits::{Config, Limits, LimitsError, Part, Probe, Selection};
use crate::progress;
use crate::report::table::{microseconds, rate};
use crate::report::{Run, share};

/// Of records that are due at once, so many go in one frame, as a client batches them.
const FRAME_RECORDS_MAX: usize = 256;

/// Longest that the bare program is measured next to readers, and without them.
const BESIDE_MAX: Duration = Duration::from_secs(5);

/// How long each figure is measured for `quick`, and with how large a file: disk and loopback together take a second.
const BRIEF: (Duration, u64) = (Duration::from_millis(200), 256 << 20);

/// What is to be measured.
#[derive(Debug)]
pub struct LimitsPlan {
    selection: Selection,
    config: Config,
    /// Only disk and loopback, and not for long: nobody has asked for it.
    is_brief: bool,
}

impl LimitsPlan {
    /// What goes with a workload; `None` if nothing is to be measured.
    pub fn choose(workload: &Workload, run: &RunArgs, host: &Host) -> Result<Option<Self>, BenchError> {
        let mode = run.output.limits.unwrap_or_else(|| limits_by_default(host));
        if mode == LimitsMode::Off {
            return Ok(None);
        }
        let directory = match host.data_directory() {
            Some(directory) => directory.to_owned(),
            None => data::usual_place(&mut Vec::new())?,
        };
        let mut config = Config::new(directory);
        let client = &run.load.client;
        config.in_flight_bytes = client.in_flight_bytes;
        config.batch_bytes = client.batch_bytes as usize;
        let mean = run.values.record_size.mean().round() as usize;
        config.record_bytes = mean.max(1);
        config.floor_record_bytes = mean.max(8);
        config.floor_records_per_s = run
            .load
            .rate
            .map_or(config.floor_records_per_s, |rate| rate.max(1.0) as u32);
        let is_brief = matches!(workload, Workload::Quick) && run.output.limits.is_none();
        let selection = if is_brief {
            (config.time, config.file_bytes) = BRIEF;
            Selection::of(&[Part::Disk, Part::Loopback])
        } else {
            Selection::of(parts(workload, run.load.rate.is_some()))
        };
        Ok(Some(Self {
            selection,
            config,
            is_brief,
        }))
    }

    /// Ready to measure.
    pub fn probe(self, runtime: &Runtime) -> Turn {
        Turn {
            selection: self.selection,
            is_brief: self.is_brief,
            probe: Some(Probe::new(self.config)),
            runtime: runtime.handle().clone(),
        }
    }
}

fn parts(workload: &Workload, is_paced: bool) -> &'static [Part] {
    match workload {
        Workload::Consume(args) if args.cold => &[Part::Disk, Part::Loopback],
        Workload::Consume(_) => &[Part::Loopback, Part::Sendfile],
        _ if is_paced => &[Part::Floor, Part::FloorPaced],
        Workload::Quick | Workload::Produce { .. } => &[Part::Disk, Part::Loopback, Part::Bare, Part::BareBuilt],
        Workload::EndToEnd(_) | Workload::Failover(_) => &[Part::Disk, Part::Loopback, Part::BarePush],
        Workload::Mixed(_) => &[Part::Disk, Part::Loopback, Part::BareBuilt, Part::BarePush],
    }
}

/// Measures again and again.
#[derive(Debug)]
pub struct Turn {
    selection: Selection,
    /// Whether nobody has asked for it.
    pub is_brief: bool,
    probe: Option<Probe>,
    runtime: tokio::runtime::Handle,
}

impl Turn {
    /// Once more. Ctrl-C ends it.
    pub fn measure(&mut self) -> Result<Limits, BenchError> {
        let selection = self.selection.clone();
        self.with_probe(move |probe, progress| probe.measure(&selection, progress))
    }

    /// What readers of old data cost the bare program, at the rates of this run.
    pub fn beside(&mut self, done: &mut Run, args: &MixedArgs) -> Result<(), BenchError> {
        let phase = |name| done.phases.iter().find(|phase| phase.workload == name);
        let p99 = |name| Some(phase(name)?.latency_us?.p99);
        let (Some(catch_up), Some(alone), Some(mixed)) = (phase("catch_up"), p99("alone"), p99("produce")) else {
            return Ok(());
        };
        let readers = Readers {
            count: usize::from(args.catch_up_consumers),
            bytes_per_s: catch_up.bytes_per_s,
        };
        let (run, values) = (&args.run.load, &args.run.values);
        let load = Load {
            record_bytes: (values.record_size.mean().round() as usize).max(8),
            records_per_s: run.rate.map(|rate| rate.max(1.0) as u32),
            frame_records_max: FRAME_RECORDS_MAX,
            time: run.duration().unwrap_or(BESIDE_MAX).min(BESIDE_MAX),
        };
        let beside = match self.with_probe(move |probe, progress| probe.beside(load, readers, progress)) {
            Ok(beside) => beside,
            // The run itself is not in question.
            Err(BenchError::Limits(error)) => {
                done.notes
                    .push(format!("how much of that the disk explains was not measured: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (bare, moved) = (beside.p99_ratio(), mixed / alone.max(1e-9));
        done.notes.push(format!(
            "of that, disk, loopback and CPUs explain x{bare:.2}: the p99 of the bare program at this rate ({} to {}) next to plain \
             readers of {}; beyond it x{:.2}",
            microseconds(beside.alone_ack_us.p99),
            microseconds(beside.with_readers_ack_us.p99),
            rate(beside.bytes_per_s),
            moved / bare,
        ));
        done.beside = Some(beside);
        Ok(())
    }

    fn with_probe<R: Send + 'static>(
        &mut self,
        measure: impl FnOnce(&mut Probe, &mut dyn FnMut(&str)) -> Result<R, LimitsError> + Send + 'static,
    ) -> Result<R, BenchError> {
        let bar = progress::show(ProgressBar::new_spinner(), "limits {spinner} {elapsed} {msg}");
        bar.enable_steady_tick(Duration::from_millis(100));
        let mut probe = self.probe.take().expect("it is put back after each turn");
        let told = bar.clone();
        let (done, end) = tokio::sync::oneshot::channel();
        // Not on a thread of the clients', which may be kept to a few CPUs.
        let work = move || {
            let measured = measure(&mut probe, &mut |title| told.set_message(title.to_owned()));
            // Nobody may wait for it any more.
            let _ = done.send((probe, measured));
        };
        let spawned = std::thread::Builder::new().name("limits".to_owned()).spawn(work);
        spawned.map_err(BenchError::Threads)?;
        let measured = self.runtime.block_on(async {
            tokio::select! {
                done = end => done.map_err(|_panic| BenchError::Threads(io::Error::other("a limit has panicked"))),
                interrupted = interrupted() => {
                    interrupted?;
                    Err(BenchError::Interrupted)
                }
            }
        });
        bar.finish_and_clear();
        let (probe, measured) = measured?;
        self.probe = Some(probe);
        Ok(measured?)
    }
}

/// Puts what a run gave next to the limits before and after it.
pub fn compare(done: &mut Run, before: &Limits, after: &Limits, run: &RunArgs, workload: &Workload) {
    let limits = share::mean(before, after);
    let is_cold = workload.is_cold() || done.is_from_disk();
    done.shares = share::shares(&done.phases, &limits, run.load.rate.is_some(), is_cold);
    done.limits = Some(limits);
}
