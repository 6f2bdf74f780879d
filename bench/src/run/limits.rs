//! The limits that a workload needs, measured in turns with it.

use indicatif::ProgressBar;
use tokio::runtime::Runtime;

use super::host::Host;
use super::{Workload, limits_by_default};
use crate::cli::{LimitsMode, RunArgs};
use crate::embedded;
use crate::error::BenchError;
use crate::limits::{Config, Limits, Part, Probe, Selection};
use crate::report::{Run, share};

/// What is to be measured.
#[derive(Debug)]
pub struct LimitsPlan {
    selection: Selection,
    config: Config,
}

impl LimitsPlan {
    /// What goes with a workload; `None` if nothing is to be measured.
    pub fn choose(workload: &Workload, run: &RunArgs, host: &Host) -> Result<Option<Self>, BenchError> {
        let mode = run.output.limits.unwrap_or_else(|| limits_by_default(workload, host));
        if mode == LimitsMode::Off {
            return Ok(None);
        }
        let directory = match host.data_directory() {
            Some(directory) => directory.to_owned(),
            None => embedded::usual_place(&mut Vec::new())?,
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
        let selection = Selection::of(parts(workload, run.load.rate.is_some()));
        Ok(Some(Self { selection, config }))
    }

    /// Ready to measure.
    pub fn probe(self, runtime: &Runtime) -> Turn {
        Turn {
            selection: self.selection,
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
        Workload::Quick | Workload::Produce => &[Part::Disk, Part::Loopback, Part::Bare, Part::BareBuilt],
        Workload::EndToEnd(_) => &[Part::Disk, Part::Loopback, Part::BarePush],
        Workload::Mixed(_) => &[Part::Disk, Part::Loopback, Part::BareBuilt, Part::BarePush],
    }
}

/// Measures again and again.
#[derive(Debug)]
pub struct Turn {
    selection: Selection,
    probe: Option<Probe>,
    runtime: tokio::runtime::Handle,
}

impl Turn {
    /// Once more. Ctrl-C ends it.
    pub fn measure(&mut self) -> Result<Limits, BenchError> {
        let bar = ProgressBar::new_spinner();
        bar.set_prefix("limits");
        let style = indicatif::ProgressStyle::with_template("{prefix} {spinner} {elapsed} {msg}");
        bar.set_style(style.expect("the template is legal"));
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        let mut probe = self.probe.take().expect("it is put back after each turn");
        let selection = self.selection.clone();
        let told = bar.clone();
        let measured = self.runtime.block_on(async {
            let work = tokio::task::spawn_blocking(move || {
                let limits = probe.measure(&selection, &mut |title| told.set_message(title.to_owned()));
                (probe, limits)
            });
            tokio::select! {
                done = work => done.map_err(|error| BenchError::Threads(error.into())),
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted.map_err(BenchError::Threads)?;
                    Err(BenchError::Interrupted)
                }
            }
        });
        bar.finish_and_clear();
        let (probe, limits) = measured?;
        self.probe = Some(probe);
        Ok(limits?)
    }
}

/// Puts what a run gave next to the limits before and after it.
pub fn compare(done: &mut Run, before: &Limits, after: &Limits, run: &RunArgs, workload: &Workload) {
    let limits = share::mean(before, after);
    done.shares = share::shares(&done.phases, &limits, run.load.rate.is_some(), workload.is_cold());
    done.limits = Some(limits);
}
