//! A broker in this process on a free port, and the program as a user would run it.

pub mod terminal;

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use headwater_server::{Broker, Config};
use serde_json::Value;
use tempfile::TempDir;

/// Only ends what hangs.
const LIMIT: Duration = Duration::from_mins(1);

/// A broker with its data; both end with it.
pub struct Site {
    broker: Option<Broker>,
    config: Config,
    directory: TempDir,
    address: String,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl Site {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With these settings of the broker.
    pub fn with(own: &[(&str, &str)]) -> Self {
        // Hardly any broker puts much into its memory: to fill huge pages with zeros would take longer than most tests.
        rustix::thread::disable_transparent_huge_pages(true).unwrap();
        // On the disk of the build: where the system keeps temporary files may be memory, which has no direct I/O.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut config = Config::default();
        config.broker.listen = ([127, 0, 0, 1], 0).into();
        config.log.directory = directory.path().join("data");
        let settings = [
            ("cores.count", "1"),
            ("cores.pin", "false"),
            ("cores.tail_buffer_bytes_max", "16MiB"),
            ("log.segment_size_bytes", "16MiB"),
            ("groups.initial_rebalance_delay_ms", "50ms"),
            ("groups.offsets_partitions", "4"),
        ];
        let mut config = config.with(settings).unwrap().with(own.iter().copied()).unwrap();
        let broker = Broker::start(config.clone()).unwrap();
        // To be found there again.
        config.broker.listen = broker.addr();
        let address = broker.addr().to_string();
        Self {
            broker: Some(broker),
            config,
            directory,
            address,
        }
    }

    /// Where files of the test can be.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn metrics_address(&self) -> String {
        let address = self.broker.as_ref().and_then(Broker::metrics_addr);
        address.unwrap().to_string()
    }

    /// Stops the broker.
    pub fn stop(&mut self) {
        self.broker.take().unwrap().shutdown().unwrap();
    }

    /// Starts it again where it was.
    pub fn go_on(&mut self) {
        self.broker = Some(Broker::start(self.config.clone()).unwrap());
    }

    /// The command with the broker's address in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("HEADWATER_SERVER", &self.address);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments).stdin(Stdio::null()).output().unwrap())
    }

    /// The same with this on its standard input.
    pub fn feed(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut child = self.spawn(arguments);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // It may end before it has read everything.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        ran(output)
    }

    /// Starts a command, with pipes.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok(arguments)
    }

    /// The same with `--output json`: every value that it printed.
    pub fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let arguments = [arguments, &["--output", "json"]].concat();
        let out = self.ok(&arguments);
        let values = serde_json::Deserializer::from_str(&out).into_iter();
        values
            .map(|value| value.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}")))
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            // A failing test has its own panic.
            let _ = broker.shutdown();
        }
    }
}

impl Ran {
    pub fn ok(self, arguments: &[&str]) -> String {
        assert_eq!((self.code, &*self.err), (Some(0), ""), "{arguments:?}");
        String::from_utf8(self.out).unwrap()
    }
}

/// The program without anything of the developer's own environment.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEADWATER_")) {
        command.env_remove(variable);
    }
    command.args(arguments);
    command
}

pub fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The end of a command, which must come.
pub fn end_of(mut child: Child) -> Ran {
    let (told, end) = mpsc::channel();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    for (number, stream) in [
        out.map(|out| Box::new(out) as Box<dyn Read + Send>),
        err.map(|err| Box::new(err) as _),
    ]
    .into_iter()
    .enumerate()
    {
        let told = told.clone();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.map(|mut stream| stream.read_to_end(&mut bytes));
            told.send((number, bytes))
        });
    }
    let mut streams = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        let Ok((number, bytes)) = end.recv_timeout(LIMIT) else {
            child.kill().unwrap();
            panic!("the command does not end");
        };
        streams[number] = bytes;
    }
    let [stdout, stderr] = streams;
    let status = child.wait().unwrap();
    ran(std::process::Output { status, stdout, stderr })
}

/// The lines that a command prints, as they come.
pub struct Lines(mpsc::Receiver<String>);

impl Lines {
    pub fn of(stream: Option<impl Read + Send + 'static>) -> Self {
        let (told, lines) = mpsc::channel();
        let out = BufReader::new(stream.unwrap());
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
        Self(lines)
    }

    pub fn next(&self) -> String {
        self.0.recv_timeout(LIMIT).expect("a line comes")
    }

    pub fn any_within(&self, time: Duration) -> bool {
        self.0.recv_timeout(time).is_ok()
    }
}

/// Before another look at what comes by itself: each is a process of its own, and whoever is looked at needs the CPUs more.
pub fn pause() {
    thread::sleep(Duration::from_millis(50));
}

/// What Ctrl-C does to the process of a command.
pub fn interrupt(process: u32) {
    let kill = Command::new("kill").args(["-INT", &process.to_string()]).status();
    assert!(kill.unwrap().success());
}
