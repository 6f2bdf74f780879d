//! `headwater-server`: reads the configuration, checks the machine, runs the broker until a signal ends it, or only reports
//! what it found (`check`), writes a first configuration (`init`), or asks a broker that runs (`ready`).
//!
//! Everything that it does is in the library; here are the command line, the logs and the exit codes.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum, ValueHint};
use headwater_server::broker::{Broker, StopSignals};
use headwater_server::check::Report;
use headwater_server::commands::ready::Question;
use headwater_server::commands::shell::Shell;
use headwater_server::commands::{init, ready, shell};
use headwater_server::config::{Config, ConfigError, Effective, Layers, LogFormat};
use headwater_server::failure;

/// Exit code for a configuration that is not valid, as clap has it for a command line that is not.
const EXIT_CONFIGURATION: u8 = 2;

const EXAMPLES: &str = "\
A value that is given twice is taken from the last of: default, --config file, environment \
(HEADWATER_SECTION_KEY), the flags above, --set. --print-config explains every key.

Examples:
  headwater-server --data-dir /srv/headwater --listen 0.0.0.0:9292
      A broker for other machines, with its data on a disk of its own.
  headwater-server init --data /srv/headwater
      A configuration file for this machine, headwater.toml, to edit and use with --config.
  headwater-server --print-config
      The configuration in force, with every key.
  headwater-server --config headwater.toml --set log.retention_ms=30d
  HEADWATER_LOG_RETENTION_MS=30d headwater-server --config headwater.toml
      Keep records for 30 days, whatever the file says.
  headwater-server check --config headwater.toml
      What makes a broker slow or unsafe on this machine, and how to change it.

Stop it with SIGTERM or SIGINT: requests in flight are answered and everything is on disk when it \
ends. A second signal ends it at once.
Exit codes: 0 after a shutdown in order, 1 if it could not start or stop, 2 if the configuration is \
not valid, 3 after a second signal, 70 if a part of it has panicked, which is a bug.";

const CHECK_AFTER: &str = "\
Takes the flags of the broker, before or after `check`, and judges the machine for that configuration. \
Nothing is changed, and a broker that runs is not disturbed. To try direct I/O, a file without a name \
is written in the data directory, or in the nearest one above it that exists. \
\"The machine\" in tuning.md explains every item.

Examples:
  headwater-server check --data-dir /srv/headwater
  headwater-server check --config headwater.toml --output json

Exit codes: 0 if nothing must change, 1 if something must, 2 if the configuration is not valid.";

const INIT_AFTER: &str = "\
Takes the flags of the broker: what they say is in the file. Besides, the number of cores, their budgets of memory, and segments that \
fit the disk are set, each with its reason; every other key is there with its default, commented out.

Examples:
  headwater-server init --data /srv/headwater
  headwater-server init --data /srv/headwater --listen 0.0.0.0:9292 --output /etc/headwater/headwater.toml
  headwater-server init --output - | less

Exit codes: 0 if it is written, 1 if not, as when there is such a file already, 2 if the flags are not valid.";

const READY_AFTER: &str = "\
Takes the flags and variables of the broker, of which it needs metrics.listen: there it asks. A broker is ready when every core answers, \
no partition is offline, an active coordinator is heard of, the broker is not fenced, and all its replicas are in sync. What it says is \
printed; if it is not ready the reasons are there.

Examples:
  headwater-server ready --config headwater.toml
  headwater-server ready --config headwater.toml --wait 10m  # after a restart, before the next broker is restarted
  headwater-server ready --health --set metrics.listen=127.0.0.1:9644

Exit codes: 0 if it is, 1 if it is not, or nobody answers, 2 if the configuration is not valid.";

const COMPLETIONS_AFTER: &str = "\
Examples:
  headwater-server completions bash > ~/.local/share/bash-completion/completions/headwater-server
  headwater-server completions zsh > ~/.zfunc/_headwater-server    # with ~/.zfunc in fpath
  headwater-server completions fish > ~/.config/fish/completions/headwater-server.fish";

const MAN_AFTER: &str = "\
Examples:
  headwater-server man ~/.local/share/man/man1               # then: man headwater-server, man headwater-server-check";

/// The Headwater broker: a partitioned, durable log. Records are acknowledged once they are on disk.
#[derive(Parser, Debug)]
#[command(name = "headwater-server", version = headwater_server::VERSION, after_help = EXAMPLES)]
#[expect(
    clippy::doc_markdown,
    reason = "clap prints these texts as they are, and not as Markdown"
)]
struct Args {
    #[command(subcommand)]
    command: Option<Subject>,

    /// Read the configuration from this TOML file
    #[arg(short, long, global = true, value_name = "FILE", env = "HEADWATER_CONFIG")]
    config: Option<PathBuf>,

    /// Print the configuration in force as TOML, with the text and range of every key and the source of every value that
    /// is not the default, and exit
    #[arg(long)]
    print_config: bool,

    /// Address and port to listen on; port 0 takes any free port [broker.listen]
    #[arg(short, long, global = true, value_name = "ADDRESS:PORT")]
    listen: Option<String>,

    /// Host that clients are told to connect to [broker.advertised_host]
    #[arg(long, global = true, value_name = "HOST")]
    advertised_host: Option<String>,

    /// Number of this broker in its cluster [broker.id]
    #[arg(long, global = true, value_name = "NUMBER")]
    id: Option<String>,

    /// Directory for the data, made if it is missing [log.directory]
    #[arg(short, long, visible_alias = "data", global = true, value_name = "DIRECTORY")]
    data_dir: Option<String>,

    /// Number of cores to run on, 0 for all [cores.count]
    #[arg(long, global = true, value_name = "NUMBER")]
    cores: Option<String>,

    /// CPUs to run on, such as 0,2-3 [cores.set]
    #[arg(long, global = true, value_name = "LIST")]
    cpus: Option<String>,

    /// Form of the log on stderr: text or json [logging.format]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,

    /// What is logged, such as info or headwater_server=debug [logging.filter]
    #[arg(long, global = true, value_name = "FILTER")]
    log_filter: Option<String>,

    /// Set any key of the configuration; may be given many times
    #[arg(short, long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

/// What to do other than to run the broker.
#[derive(Subcommand, Clone, Debug)]
enum Subject {
    /// Look at what makes a broker slow or unsafe on this machine: print each thing with its value, the recommended one and
    /// the command to change it, and exit. Changes nothing
    #[command(after_help = CHECK_AFTER)]
    Check {
        /// Print a table and a list of what to change, or the same as one JSON object
        #[arg(short, long, value_name = "FORM", default_value = "text")]
        output: Output,

        /// Set any key of the configuration; may be given many times
        #[arg(short, long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_and_value)]
        set: Vec<(String, String)>,
    },

    /// Write a commented configuration file for this machine, and exit
    #[command(after_help = INIT_AFTER)]
    Init {
        /// Where to write it; - prints it
        #[arg(short, long, value_name = "FILE", default_value = "headwater.toml", value_hint = ValueHint::FilePath)]
        output: PathBuf,

        /// Replace the file if it is there
        #[arg(short, long)]
        force: bool,

        /// Set any key of the configuration; may be given many times
        #[arg(short, long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_and_value)]
        set: Vec<(String, String)>,
    },

    /// Ask the broker of this configuration, which runs, whether it is ready; print what it says, and exit
    #[command(after_help = READY_AFTER)]
    Ready {
        /// Ask only whether every core answers
        #[arg(long)]
        health: bool,

        /// Ask until it is, but no longer than this
        #[arg(short, long, value_name = "TIME", num_args = 0..=1, default_missing_value = "10m", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,

        /// Set any key of the configuration; may be given many times
        #[arg(short, long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_and_value)]
        set: Vec<(String, String)>,
    },

    /// Print a script that has a shell complete flags and commands
    #[command(after_help = COMPLETIONS_AFTER)]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },

    /// Write manual pages
    #[command(after_help = MAN_AFTER)]
    Man {
        /// Where they go; it is made if it is not there
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

impl Subject {
    /// What was set behind the command.
    fn set(&self) -> &[(String, String)] {
        match self {
            Subject::Check { set, .. } | Subject::Init { set, .. } | Subject::Ready { set, .. } => set,
            Subject::Completions { .. } | Subject::Man { .. } => &[],
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Output {
    Text,
    Json,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("expected SECTION.KEY=VALUE, such as log.segment_size_bytes=512MiB")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Args {
    fn layers(self, environment: impl Iterator<Item = (OsString, OsString)>) -> Layers {
        let after = self.command.as_ref().map_or(&[][..], Subject::set).to_vec();
        let named = [
            ("--listen", "broker.listen", self.listen),
            ("--advertised-host", "broker.advertised_host", self.advertised_host),
            ("--id", "broker.id", self.id),
            ("--data-dir", "log.directory", self.data_dir),
            ("--cores", "cores.count", self.cores),
            ("--cpus", "cores.set", self.cpus),
            ("--log-format", "logging.format", self.log_format),
            ("--log-filter", "logging.filter", self.log_filter),
        ];
        let named = named
            .into_iter()
            .filter_map(|(flag, key, value)| Some((flag.to_owned(), key.to_owned(), value?)));
        let set = self
            .set
            .into_iter()
            .chain(after)
            .map(|(key, value)| ("--set".to_owned(), key, value));
        // A value that is not UTF-8 is no value of ours; the replacement makes it fail as such, with its name.
        let text = |text: OsString| text.to_string_lossy().into_owned();
        Layers {
            file: self.config,
            environment: environment
                .map(|(variable, value)| (text(variable), text(value)))
                .collect(),
            flags: named.chain(set).collect(),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match &args.command {
        Some(Subject::Completions { shell }) => return completions(*shell),
        Some(Subject::Man { directory }) => return man(directory),
        _ => {}
    }
    let print_config = args.print_config;
    let command = args.command.clone();
    let effective = match args.layers(std::env::vars_os()).load() {
        Ok(effective) => effective,
        Err(error) => return refuse(&error),
    };
    if print_config {
        return print(effective.to_toml().as_bytes(), ExitCode::SUCCESS);
    }
    match command {
        Some(Subject::Check { output, .. }) => report(&effective.config, output),
        Some(Subject::Init { output, force, .. }) => write_configuration(&effective, &output, force),
        Some(Subject::Ready { health, wait, .. }) => ask(&effective.config, health, wait),
        Some(Subject::Completions { .. } | Subject::Man { .. }) | None => serve(effective),
    }
}

/// Runs the broker.
fn serve(effective: Effective) -> ExitCode {
    start_logging(&effective.config);
    failure::end_process_on_panic(effective.config.broker.core_dump);
    for warning in &effective.warnings {
        tracing::warn!("{warning}");
    }
    match run(effective.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // An error may hold several sentences; each is an event of its own.
            for line in error.to_string().lines() {
                tracing::error!("{line}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the configuration.
fn refuse(error: &ConfigError) -> ExitCode {
    for problem in &error.problems {
        eprintln!("headwater-server: {problem}");
    }
    ExitCode::from(EXIT_CONFIGURATION)
}

fn fail(why: &str) -> ExitCode {
    eprintln!("headwater-server: {why}");
    ExitCode::FAILURE
}

fn write_configuration(told: &Effective, output: &Path, may_replace: bool) -> ExitCode {
    let text = match init::configuration(told) {
        Ok(text) => text,
        Err(error) => return refuse(&error),
    };
    if output == Path::new("-") {
        return print(text.as_bytes(), ExitCode::SUCCESS);
    }
    let path = output.display();
    match init::write(output, &text, may_replace) {
        Ok(()) => {
            eprintln!("wrote {path}; look at it, then: headwater-server --config {path}");
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fail(&format!(
            "{path} is there already; --force replaces it, --output writes elsewhere"
        )),
        Err(error) => fail(&format!("cannot write {path}: {error}")),
    }
}

fn ask(config: &Config, health: bool, wait: Option<Duration>) -> ExitCode {
    let question = if health { Question::Healthy } else { Question::Ready };
    match ready::ask(config, question, wait.unwrap_or_default()) {
        Ok(answer) => {
            let code = if answer.ok {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
            print((answer.body + "\n").as_bytes(), code)
        }
        Err(error) => fail(&error.to_string()),
    }
}

fn completions(shell: Shell) -> ExitCode {
    print(&shell::completions(Args::command(), shell), ExitCode::SUCCESS)
}

fn man(directory: &Path) -> ExitCode {
    let path = directory.display();
    match shell::man(Args::command(), directory) {
        Ok(pages) => {
            println!("wrote {} pages to {path}", pages.len());
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("cannot write to {path}: {error}")),
    }
}

fn report(config: &Config, output: Output) -> ExitCode {
    let report = Report::look(config);
    let text = match output {
        Output::Text => report.text(io::stdout().is_terminal()),
        Output::Json => report.json().map_or_else(
            |error| unreachable!("texts and flags are always JSON: {error}"),
            |json| json + "\n",
        ),
    };
    let code = if report.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    print(text.as_bytes(), code)
}

/// Prints, and ends with the given code.
fn print(text: &[u8], code: ExitCode) -> ExitCode {
    match io::stdout().write_all(text) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("headwater-server: cannot print: {error}");
            ExitCode::FAILURE
        }
        _ => code,
    }
}

fn start_logging(config: &Config) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(config.logging.filter.env_filter())
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match config.logging.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut signals = StopSignals::catch()?;
    tracing::info!(version = headwater_server::VERSION, data = %config.log.directory.display(), "the broker starts");
    let Some(broker) = Broker::start_unless(config, &mut signals)? else {
        tracing::info!("the broker stops before it has joined the quorum");
        return Ok(());
    };
    broker.run_until(signals)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use headwater_server::config::{Effective, Knob, Source};

    use super::*;

    fn load(arguments: &[&str], environment: &[(&str, &str)]) -> Effective {
        let arguments = ["headwater-server"].iter().chain(arguments);
        let environment = environment
            .iter()
            .map(|(variable, value)| ((*variable).into(), (*value).into()));
        Args::try_parse_from(arguments)
            .unwrap()
            .layers(environment)
            .load()
            .unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_flag_names_the_key_that_it_sets() {
        let flags = [
            ("--listen", "0.0.0.0:1"),
            ("--advertised-host", "example.com"),
            ("--id", "7"),
            ("--data-dir", "/srv/data"),
            ("--cores", "1"),
            ("--cpus", "1"),
            ("--log-format", "json"),
            ("--log-filter", "debug"),
        ];
        let command = Args::command();
        for (flag, value) in flags {
            let effective = load(&[flag, value], &[]);
            let set = Config::KNOBS
                .iter()
                .filter(|knob| effective.sources.of(&knob.name()) != Source::Default);
            let set: Vec<&Knob> = set.collect();
            assert_eq!(set.len(), 1, "{flag}");
            assert_eq!(set[0].value(&effective.config).show(), value);
            assert_eq!(effective.sources.of(&set[0].name()), Source::Flag(flag.to_owned()));
            let argument = command
                .get_arguments()
                .find(|arg| arg.get_long() == flag.strip_prefix("--"))
                .unwrap();
            let help = argument.get_help().unwrap().to_string();
            assert!(help.ends_with(&format!("[{}]", set[0].name())), "{help}");
        }
        let others = ["config", "print_config", "set", "help", "version"];
        let all = command
            .get_arguments()
            .filter(|argument| !others.contains(&argument.get_id().as_str()));
        assert_eq!(all.count(), flags.len(), "a flag is not tested");
    }

    #[test]
    fn set_takes_any_key_and_beats_the_named_flags_and_the_environment() {
        let effective = load(
            &["--set", "broker.id=3", "--id", "2", "-s", "logging.filter=a=debug"],
            &[("HEADWATER_BROKER_ID", "1"), ("HEADWATER_LIMITS_TOPICS_MAX", "5")],
        );
        assert_eq!(effective.config.broker.id.get(), 3);
        assert_eq!(effective.config.logging.filter.as_str(), "a=debug");
        assert_eq!(effective.config.limits.topics_max, 5);
        assert!(Args::try_parse_from(["headwater-server", "--set", "broker.id"]).is_err());
    }
}
