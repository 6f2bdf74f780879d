//! The recipe for a restart of all brokers, as the operator's page has it: on three processes, while records are produced.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use headwater_server::{Broker, Config};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::support::{end_of, pause, program, ran};

/// Nothing takes so long, on a machine that does anything at all.
const LONG: Duration = Duration::from_mins(1);

/// Where a process finds the settings of the broker that it is to be, a line for each.
const SETTINGS: &str = "BROKER_OF_THE_ROLLING_RESTART";

const PARTITIONS: usize = 3;

/// A moment between two records of a partition.
const RECORD_EVERY: Duration = Duration::from_millis(5);

/// Not a test by itself: what the test below starts as processes of their own.
#[test]
fn a_broker_that_stops_in_order_when_it_is_told() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    // The test has ended, however it did.
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1)
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut told = signal(SignalKind::terminate()).unwrap();
        let settings = settings.lines().map(|line| line.split_once('=').unwrap());
        let config = Config::default().with(settings).unwrap();
        let broker = tokio::task::spawn_blocking(|| Broker::start(config).unwrap());
        let broker = broker.await.unwrap();
        told.recv().await;
        broker.shutdown().unwrap();
    });
}

/// Three processes, each with its data.
struct Trio {
    processes: Vec<Child>,
    settings: Vec<String>,
    server: String,
    directory: TempDir,
}

/// A free port of an address that nothing else on this machine has.
fn free(number: u8) -> SocketAddr {
    let process = std::process::id();
    // Not where other tests have theirs.
    let last = 230 + number;
    let ip = Ipv4Addr::new(127, 1 + (process / 256 % 254) as u8, (process % 256) as u8, last);
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

fn launch(settings: &str) -> Child {
    rustix::thread::disable_transparent_huge_pages(true).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "rolling::a_broker_that_stops_in_order_when_it_is_told"]);
    command.env(SETTINGS, settings).stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

impl Trio {
    fn start() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (peers, listens) = ([0, 1, 2].map(free), [0, 1, 2].map(free));
        let members = [0, 1, 2].map(|number| format!("{number}@{}", peers[number])).join(",");
        let settings = [0, 1, 2].map(|number| {
            let data = directory.path().join(format!("data-{number}"));
            [
                format!("broker.id={number}"),
                "broker.cluster_id=rolling".to_owned(),
                format!("broker.listen={}", listens[number]),
                format!("cluster.listen={}", peers[number]),
                format!("cluster.members={members}"),
                format!("log.directory={}", data.display()),
                "cores.count=1".to_owned(),
                "cores.pin=false".to_owned(),
                "cores.tail_buffer_bytes_max=16MiB".to_owned(),
                "log.segment_size_bytes=16MiB".to_owned(),
            ]
            .join("\n")
        });
        let mut trio = Self {
            processes: settings.iter().map(|settings| launch(settings)).collect(),
            settings: settings.into(),
            server: listens.map(|address| address.to_string()).join(","),
            directory,
        };
        trio.await_brokers();
        trio
    }

    fn await_brokers(&mut self) {
        let deadline = Instant::now() + LONG;
        loop {
            let output = self.command(&["broker", "list", "--output", "json"]).output().unwrap();
            let brokers: Option<Value> = serde_json::from_slice(&output.stdout).ok();
            if brokers.is_some_and(|brokers| brokers.as_array().is_some_and(|brokers| brokers.len() == 3)) {
                return;
            }
            assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&output.stderr));
            pause();
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("HEADWATER_SERVER", &self.server);
        command
    }

    /// As systemd does: it is stopped in order, and the next one is not waited for.
    fn restart(&mut self, number: usize) {
        let process = &mut self.processes[number];
        // Waiting would close it, and so end the process at once.
        let input = process.stdin.take();
        kill_process(Pid::from_child(process), Signal::TERM).unwrap();
        let status = process.wait().unwrap();
        drop(input);
        assert!(status.success(), "broker {number}: {status}");
        *process = launch(&self.settings[number]);
    }

    /// Runs the recipe, and restarts those that it says. Returns them in their order.
    fn follow(&mut self, recipe: &str) -> Vec<usize> {
        let directory = self.directory.path().to_owned();
        // By another process: no file may be run that this one, or what it has forked meanwhile, has open for writing.
        let script = r#"cat > ssh <<'END' && chmod +x ssh
#!/bin/sh
number=${1#broker-}
touch "${0%/*}/asked-$number"
while [ -e "$0" ] && [ ! -e "${0%/*}/done-$number" ]; do sleep 0.02; done
END"#;
        let made = Command::new("sh").args(["-c", script]).current_dir(&directory).status();
        assert!(made.unwrap().success());
        let program = Path::new(env!("CARGO_BIN_EXE_headwater")).parent().unwrap();
        let path = [&directory, program].map(|path| path.display().to_string()).join(":");
        let path = format!("{path}:{}", std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", recipe]).env("PATH", path);
        shell.env("HEADWATER_SERVER", &self.server);
        let mut shell = shell.stdin(Stdio::null()).spawn().unwrap();
        let (mut restarted, deadline) = (Vec::new(), Instant::now() + LONG);
        let status = loop {
            if let Some(status) = shell.try_wait().unwrap() {
                break status;
            }
            for number in 0..3 {
                if directory.join(format!("asked-{number}")).exists() && !restarted.contains(&number) {
                    self.restart(number);
                    restarted.push(number);
                    std::fs::write(directory.join(format!("done-{number}")), "").unwrap();
                }
            }
            if Instant::now() > deadline {
                shell.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "the recipe ends with {status} after {restarted:?}");
        restarted
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The shell commands of the operator's page that restart a cluster.
fn recipe() -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operate.md")).unwrap();
    let blocks = page
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let mut recipes = blocks.filter(|block| block.contains("restart-order"));
    recipes.next().expect("the operator's page has the recipe").to_owned()
}

/// Records that are typed into `headwater produce`, a few at a time, until they are enough.
fn produce(trio: &Trio, partition: usize, are_enough: &Arc<AtomicBool>) -> (Child, thread::JoinHandle<u64>) {
    let partition = partition.to_string();
    let mut command = trio.command(&["produce", "orders", "--partition", &partition]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut input, are_enough) = (child.stdin.take().unwrap(), Arc::clone(are_enough));
    let typing = thread::spawn(move || {
        let mut count = 0;
        while !are_enough.load(Ordering::Relaxed) {
            writeln!(input, "{count}").unwrap();
            count += 1;
            thread::sleep(RECORD_EVERY);
        }
        count
    });
    (child, typing)
}

#[test]
fn the_recipe_of_the_operators_page_restarts_three_brokers_and_no_producer_notices() {
    let mut trio = Trio::start();
    let partitions = PARTITIONS.to_string();
    let created = ran(trio
        .command(&["topic", "create", "orders", "--partitions", &partitions])
        .output()
        .unwrap());
    created.ok(&["topic", "create"]);
    let are_enough = Arc::new(AtomicBool::new(false));
    let producing: BTreeMap<usize, _> = (0..PARTITIONS)
        .map(|number| (number, produce(&trio, number, &are_enough)))
        .collect();
    let status = trio
        .command(&["cluster", "status", "--output", "json"])
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();

    let restarted = trio.follow(&recipe());

    assert_eq!(restarted.len(), 3, "{restarted:?}");
    let last = restarted.last().copied();
    assert_eq!(
        last,
        status["active"].as_u64().map(|active| active as usize),
        "{status}"
    );
    are_enough.store(true, Ordering::Relaxed);
    for (partition, (child, typing)) in producing {
        let sent = typing.join().unwrap();
        let produced = end_of(child);
        assert_eq!((produced.code, &*produced.err), (Some(0), ""), "{produced:?}");
        let partition = partition.to_string();
        let output = trio.command(&["consume", "orders", "--partition", &partition]).output();
        let read = ran(output.unwrap()).ok(&["consume"]);
        let expected: String = (0..sent)
            .flat_map(|number| [number.to_string(), "\n".to_owned()])
            .collect();
        assert!(
            read == expected,
            "of {sent} records of partition {partition} there are {}",
            read.lines().count()
        );
    }

    // Who waits for what does not come is told so.
    trio.processes[2].kill().unwrap();
    let waited = ran(trio.command(&["cluster", "status", "--wait", "1s"]).output().unwrap());
    assert_eq!(waited.code, Some(4), "{waited:?}");
    assert!(
        waited.err.contains("error: the cluster is not well after 1s: "),
        "{waited:?}"
    );
}
