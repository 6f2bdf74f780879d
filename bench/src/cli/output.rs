//! What comes out of a run, and how often it is repeated.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

/// What comes out.
#[derive(Debug, Clone, Args, Serialize)]
pub struct OutputArgs {
    /// What to print on standard output
    #[arg(long, value_enum, default_value_t)]
    #[serde(skip)]
    pub output: Output,
    /// Write a report to this file: one page with charts that needs no network
    #[arg(long, value_name = "FILE.html")]
    #[serde(skip)]
    pub report: Option<PathBuf>,
    /// Write the latencies of each second to this file, as the tools of `HdrHistogram` read them
    #[arg(long, value_name = "FILE.hlog")]
    #[serde(skip)]
    pub histogram_log: Option<PathBuf>,
    /// Run this often; the run with the median result is shown, all are in the JSON for `compare`
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repeat: u16,
    /// Measure what this machine can do before and after each run, and state the results as a share of that [default:
    /// on; briefly for quick; off for sweep, and for brokers on other machines]
    #[arg(long, value_enum)]
    pub limits: Option<LimitsMode>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// One object on one line, for programs
    Json,
}

/// Whether limits are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitsMode {
    /// Before and after each run
    On,
    /// Not at all
    Off,
}
