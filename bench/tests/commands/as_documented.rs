//! Runs the lines of the README's walk-through, as they stand there, with the programs that this build has made.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const README: &str = include_str!("../../../README.md");

/// The command lines of the blocks that are marked as part of the walk-through.
fn walkthrough() -> Vec<&'static str> {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in README.lines() {
        match line {
            "```sh walkthrough" => inside = true,
            "```" => inside = false,
            line if inside => lines.push(line),
            _ => {}
        }
    }
    lines
}

/// `cargo run --release -p PACKAGE [--example NAME] -- ARGUMENTS` as the program that cargo would run.
fn program(line: &str, programs: &Path) -> Command {
    let run = line
        .strip_prefix("cargo run --release -p ")
        .expect("a line of the walk-through runs a package");
    let (target, arguments) = run.split_once(" -- ").expect("arguments follow --");
    let path = match target.split_once(" --example ") {
        Some((_, example)) => programs.join("examples").join(example),
        None => programs.join(target),
    };
    assert!(
        path.exists(),
        "{} is missing: run `cargo test --workspace`, which builds it",
        path.display()
    );
    let mut command = Command::new(path);
    command.args(arguments.split_whitespace());
    command
}

/// Killed when dropped, so that a failing test leaves no broker behind.
struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn succeed(mut command: Command) -> String {
    let output = command.output().expect("the program starts");
    let (out, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}\n{errors}",
        output.status
    );
    out.into_owned()
}

#[test]
fn the_walk_through_of_the_readme_works_as_it_stands() {
    let programs: PathBuf = Path::new(env!("CARGO_BIN_EXE_headwater-bench"))
        .parent()
        .expect("it is in a directory")
        .into();
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port is free")
        .port();
    let here = |line: &str| {
        let data = data.path().to_str().expect("a path of this test");
        line.replace("127.0.0.1:9292", &format!("127.0.0.1:{port}"))
            .replace("./headwater-data", data)
    };
    let lines = walkthrough();
    let (start, rest) = lines.split_first().expect("the README has a walk-through");
    let mut server = program(&here(start), &programs);
    let mut broker = Broker(server.stderr(Stdio::piped()).spawn().expect("the broker starts"));
    let log = broker.0.stderr.take().expect("it is piped");
    let mut log = BufReader::new(log).lines().map_while(Result::ok);
    assert!(
        log.any(|line| line.contains("the broker is ready")),
        "the broker did not become ready"
    );
    // Read on, so that the broker never waits for somebody to read its log.
    std::thread::spawn(move || log.for_each(drop));

    let outputs: Vec<String> = rest
        .iter()
        .map(|line| succeed(program(&here(line), &programs)))
        .collect();
    assert_eq!(
        outputs.len(),
        3,
        "the walk-through has another length than this test knows"
    );
    assert!(
        outputs[0].contains("0: hello, Ada") && outputs[0].contains("2: hello, Barbara"),
        "{}",
        outputs[0]
    );
    assert!(
        outputs[2].contains("0 lost, 0 duplicated, 0 reordered, 0 corrupt"),
        "{}",
        outputs[2]
    );

    let pid = rustix::process::Pid::from_child(&broker.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("the broker is running");
    let status = broker.0.wait().expect("it is our child");
    assert!(status.success(), "Ctrl-C: {status}");
}

/// The section on a cluster, in a place and at addresses of its own.
struct Laptop {
    programs: PathBuf,
    directory: tempfile::TempDir,
    ip: String,
}

impl Laptop {
    fn new() -> Self {
        let programs = Path::new(env!("CARGO_BIN_EXE_headwater-bench")).parent();
        let process = std::process::id();
        Self {
            programs: programs.expect("it is in a directory").into(),
            directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made"),
            // All of 127.0.0.0/8 is this machine: whoever else has these ports is at another address.
            ip: format!("127.{}.{}.200", 1 + process / 256 % 254, process % 256),
        }
    }

    /// The block that is marked so, as a shell would run it.
    fn shell(&self, mark: &str, replace: &[(&str, &str)]) -> Command {
        let found = README
            .split_once(&format!("```sh {mark}\n"))
            .and_then(|(_, rest)| rest.split_once("```"));
        let (block, _) = found.unwrap_or_else(|| panic!("the README has no block {mark}"));
        let mut script = block.replace("127.0.0.1", &self.ip);
        for (from, to) in replace {
            assert!(script.contains(from), "{from} in {script}");
            script = script.replace(from, to);
        }
        let path = std::env::var("PATH").expect("there is a path");
        let mut command = Command::new("bash");
        command
            .args(["-e", "-c", &script])
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .env("HEADWATER_SERVER", self.servers())
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    fn servers(&self) -> String {
        [0, 1, 2].map(|number| format!("{}:920{number}", self.ip)).join(",")
    }

    /// A broker in a terminal of its own; the receiver is told when it is ready.
    fn start(&self, number: usize) -> (Broker, std::sync::mpsc::Receiver<()>) {
        // In the place of the shell, so that it is what is killed.
        let replace = [
            ("NUMBER=0", format!("NUMBER={number}")),
            ("headwater-server", "exec headwater-server".to_owned()),
            // Each has as many cores as the machine otherwise, and this is not alone on it.
            ("--set cores.pin=false", "--set cores.pin=false --cores 1".to_owned()),
        ];
        let replace: Vec<_> = replace.iter().map(|(from, to)| (*from, to.as_str())).collect();
        let mut command = self.shell("cluster-broker", &replace);
        let mut broker = Broker(command.stderr(Stdio::piped()).spawn().expect("bash is there"));
        let log = BufReader::new(broker.0.stderr.take().expect("it is piped"));
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if line.contains("the broker is ready") {
                    let _ = tell.send(());
                }
            }
        });
        (broker, told)
    }
}

#[test]
fn the_cluster_of_the_readme_loses_nothing_when_a_broker_is_killed() {
    let limit = std::time::Duration::from_mins(1);
    let laptop = Laptop::new();
    let mut brokers = [0, 1, 2].map(|number| laptop.start(number));
    for (_, ready) in &brokers {
        ready.recv_timeout(limit).expect("three brokers become ready");
    }
    let outputs = succeed(laptop.shell("cluster-topic", &[]));
    assert!(
        outputs.contains("all is well") && outputs.contains("IN SYNC"),
        "{outputs}"
    );
    let mut load = laptop.shell("cluster-load", &[("--seconds 60", "--seconds 10")]);
    let load = load.stdout(Stdio::piped()).spawn().expect("bash is there");
    let shown = || succeed(laptop.shell("cluster-look", &[]));
    // The broker is killed by this.
    drop(brokers[1].0.0.kill());
    let await_shown = |text: &str| {
        let deadline = std::time::Instant::now() + limit;
        loop {
            let shown = shown();
            if shown.contains(text) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{text:?} does not come: {shown}");
            // Who looks all the time has the CPUs that brokers need.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    };
    await_shown("! broker 1 is not there");
    brokers[1] = laptop.start(1);
    await_shown("all is well");
    let load = load.wait_with_output().expect("it is our child");
    let text = String::from_utf8_lossy(&load.stdout);
    assert!(
        load.status.success() && text.contains("0 lost, 0 duplicated, 0 reordered, 0 corrupt"),
        "{}: {text}",
        load.status
    );
}
