//! `headwater bench`: the way to the benchmark, which is a program of its own.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::failure::Failure;

const PROGRAM: &str = "headwater-bench";

pub const EXAMPLES: &str = "\
Examples:
  headwater bench quick                                      # is it fast here? about 10 seconds
  headwater bench quick --help                               # what it can be told

Everything behind `bench` goes to headwater-bench, which is looked for beside this program and then in PATH. It comes with \
the same workspace: `cargo build --release -p headwater-bench`.";

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What headwater-bench is told
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Becomes the benchmark.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(PROGRAM)));
    let program = beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(PROGRAM));
    // Returns only if it cannot.
    let error = Command::new(program).args(&args.arguments).exec();
    Err(Failure::not_found(format!("cannot run {PROGRAM}: {error}"))
        .hint("build it with `cargo build --release -p headwater-bench`, and put it beside this program or into PATH"))
}
