//! The program, where its data can be, and a broker in this process to run it against.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use headwater_server::{Broker, Config};
use serde_json::Value;
use tempfile::TempDir;

/// The bench with arguments that are separated by blanks.
pub fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-bench"));
    command
        .args(arguments.split_whitespace())
        .current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

/// Runs the bench to its end.
pub fn bench(arguments: &str) -> Output {
    command(arguments).output().unwrap()
}

/// The one JSON object on standard output.
pub fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 1, "{output:?}");
    serde_json::from_str(&text).unwrap()
}

pub fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A directory on the disk that cargo builds on. It is shown as the options of a bench that has its broker's data there, whose
/// memory is found as it is needed, and whose groups have few partitions: all of that at the start takes longer than most runs.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        // Hardly any run puts much into its broker's memory: to fill huge pages with zeros would take longer.
        rustix::thread::disable_transparent_huge_pages(true).unwrap();
        Self(TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The names in it.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.path().display();
        write!(
            f,
            "--data-dir {data} --set cores.prefault=false --set groups.offsets_partitions=4"
        )
    }
}

/// With its data there, on a free port.
pub fn broker(data: &Path) -> Broker {
    let mut config = Config::default();
    config.broker.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    data.clone_into(&mut config.log.directory);
    config.cores.pin = false;
    Broker::start(config).unwrap()
}

/// Every record is there once, in order and unharmed.
pub fn assert_undamaged(report: &Value) {
    for kind in ["lost", "duplicated", "reordered", "corrupt"] {
        assert_eq!(report[kind], 0, "{kind} in {report}");
    }
}
