//! `headwater completions` and `headwater man`: how a shell asks this program what could come next, and manual pages that are made
//! from the command line itself.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, ValueHint};
use clap_complete::Shell;
use clap_complete::env::Shells;
use serde_json::json;

use crate::args::{Cli, Output};
use crate::complete;
use crate::failure::Failure;
use crate::screen::Screen;

pub const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  headwater completions bash > ~/.local/share/bash-completion/completions/headwater
  headwater completions zsh > ~/.zfunc/_headwater            # with ~/.zfunc in fpath
  headwater completions fish > ~/.config/fish/completions/headwater.fish

The shell then asks this program, and this program asks the broker for the names of topics, groups and settings: the one of --server \
or HEADWATER_SERVER, for a second at most. Write the file anew after an update.";

pub const MAN_EXAMPLES: &str = "\
Examples:
  headwater man ~/.local/share/man/man1                      # then: man headwater, man headwater-topic-create
  headwater man /tmp/man";

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where the pages go; it is made if it is not there
    #[arg(value_hint = ValueHint::DirPath)]
    directory: PathBuf,
}

/// Prints the completions.
pub fn completions(args: &CompletionsArgs, output: Output) -> Result<(), Failure> {
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    let shell = shells
        .completer(&name)
        .ok_or_else(|| Failure::failed(format!("{name} cannot be taught")))?;
    let mut script = Vec::new();
    shell
        .write_registration(complete::VARIABLE, "headwater", "headwater", "headwater", &mut script)
        .map_err(|error| Failure::failed(format!("cannot write the completions of {name}: {error}")))?;
    let text = String::from_utf8_lossy(&script);
    if output == Output::Json {
        let json = || json!({"shell": name, "script": text});
        return Screen::new(output).show(json, String::new);
    }
    // In one piece, which a closed pipe cuts short quietly.
    Ok(std::io::stdout().write_all(&script)?)
}

/// Writes a page for each command.
pub fn man(args: &ManArgs, output: Output) -> Result<(), Failure> {
    let directory = &args.directory;
    let failed = |error: std::io::Error| Failure::failed(format!("cannot write to {}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    let mut pages: Vec<String> = std::fs::read_dir(directory)
        .map_err(failed)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("headwater") && name.ends_with(".1"))
        .collect();
    pages.sort_unstable();
    Screen::new(output).show(
        || json!({"directory": directory, "pages": pages}),
        || {
            let count = pages.len();
            format!(
                "wrote {count} pages to {}; read them with: man -l {}\n",
                directory.display(),
                directory.join("headwater.1").display()
            )
        },
    )
}
