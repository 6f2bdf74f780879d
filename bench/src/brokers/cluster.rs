//! Several brokers as one cluster on the loopback: each a process of its own, so that it can be killed, with its data in a directory of
//! its own below one that is gone when the bench is.
//!
//! Each has an address of the loopback network to itself, where its ports stay the same however often it is started. What a broker logs
//! is in its directory; of one that fails, the last lines are part of the error.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::process::Ready;
use super::{Purpose, default_cores, settings};
use crate::cli::BrokerArgs;
use crate::data::{DataDirectory, drop_page_cache};
use crate::error::BenchError;

/// How long a broker may take to be ready: it waits for the others, and recovers what it was killed over.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// How long a broker may take to stop in order.
const STOPPED_WITHIN: Duration = Duration::from_mins(1);

/// Between two looks whether a process has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Cores of a broker are nodes to Kafka's clients, whose numbers are that of the broker times this, and up.
const NODES_OF_BROKER: i32 = 1024;

/// Lines of the log of a broker that fails.
const LAST_LINES: usize = 8;

/// Several brokers, with their data. They are killed when this is dropped.
#[derive(Debug)]
pub struct Brokers {
    members: Members,
    /// Where their data is.
    pub directory: DataDirectory,
    /// Cores of each.
    pub cores: u16,
    /// Numbers of nodes that a broker has, as its clients count them.
    pub nodes_each: i32,
}

/// The brokers without their data, for whoever kills and starts them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Members(Arc<Vec<Member>>);

/// One of them, whether it runs or not.
#[derive(Debug)]
struct Member {
    number: u16,
    settings: Vec<(String, String)>,
    address: SocketAddr,
    log: PathBuf,
    /// From when it is launched.
    process: Mutex<Option<Process>>,
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Held, as the process goes when it is closed.
    _input: Option<ChildStdin>,
    metrics: Option<String>,
}

impl Brokers {
    /// Starts so many, all at once, as each waits for a majority. Call from an ordinary thread.
    pub fn start(args: &BrokerArgs, count: u16, purpose: Purpose) -> Result<Self, BenchError> {
        let directory = DataDirectory::make(args.data_dir.as_deref(), args.keep)?;
        let failed = |source| BenchError::Directory {
            path: directory.path().to_owned(),
            source,
        };
        let place = fs::canonicalize(directory.path()).map_err(failed)?;
        let mut peers = Vec::new();
        for number in 0..count {
            peers.push(free_address(number).map_err(BenchError::Threads)?);
        }
        let names: Vec<_> = peers
            .iter()
            .enumerate()
            .map(|(id, peer)| format!("{id}@{peer}"))
            .collect();
        let mut members = Vec::new();
        for (number, peer) in (0..count).zip(&peers) {
            let data = place.join(format!("broker-{number}"));
            let address = free_address(number).map_err(BenchError::Threads)?;
            let mut settings = settings(args, default_cores(count), purpose, &data);
            let kafka = free_address(number).map_err(BenchError::Threads)?;
            let own = [
                ("broker.id", number.to_string()),
                ("broker.cluster_id", "headwater-bench".to_owned()),
                ("broker.listen", address.to_string()),
                (
                    "kafka.listen",
                    if purpose.is_kafka {
                        kafka.to_string()
                    } else {
                        "off".to_owned()
                    },
                ),
                ("cluster.listen", peer.to_string()),
                ("cluster.members", names.join(",")),
                // They share the CPUs.
                ("cores.pin", "false".to_owned()),
            ];
            // Before those of the options, which win.
            let place = settings.len() - args.set.len();
            settings.splice(place..place, own.map(|(key, value)| (key.to_owned(), value)));
            // What is wrong with them is said before anything is started.
            super::config(&settings)?;
            members.push(Member {
                number,
                settings,
                address: if purpose.is_kafka { kafka } else { address },
                log: place_of_log(&data),
                process: Mutex::default(),
            });
        }
        let first = super::config(&members[0].settings)?;
        let cores = first.cores.count;
        let brokers = Self {
            nodes_each: if purpose.is_kafka && first.kafka.core_nodes {
                NODES_OF_BROKER
            } else {
                1
            },
            members: Members(Arc::new(members)),
            directory,
            cores,
        };
        brokers.start_all()?;
        Ok(brokers)
    }

    fn start_all(&self) -> Result<(), BenchError> {
        let launched: Result<Vec<_>, _> = self.members.0.iter().map(Member::launch).collect();
        let mut members = self.members.0.iter().zip(launched?);
        members.try_for_each(|(member, said)| member.await_ready(&said))
    }

    /// Those that can be killed and started.
    pub fn members(&self) -> Members {
        self.members.clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.members.0.len()
    }

    /// Where they listen, whether they run or not, separated by commas.
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.members.0.iter().map(|member| member.address.to_string()).collect();
        addresses.join(",")
    }

    /// Where their metrics are, of those that run.
    pub fn metrics(&self) -> Vec<String> {
        let metrics = |member: &Member| member.process().as_ref()?.metrics.clone();
        self.members.0.iter().filter_map(metrics).collect()
    }

    /// The processes of those that run.
    pub fn processes(&self) -> Vec<u32> {
        let process = |member: &Member| Some(member.process().as_ref()?.child.id());
        self.members.0.iter().filter_map(process).collect()
    }

    /// Stops all in order and starts them again, with nothing of their data in memory.
    pub fn restart_cold(&self) -> Result<(), BenchError> {
        self.stop()?;
        drop_page_cache(self.directory.path())?;
        self.start_all()
    }

    /// Stops all in order, at the same time.
    pub fn stop(&self) -> Result<(), BenchError> {
        for member in self.members.0.iter() {
            if let Some(process) = &*member.process() {
                // One that has ended by itself is told of below.
                let _ = kill_process(Pid::from_child(&process.child), Signal::TERM);
            }
        }
        let deadline = Instant::now() + STOPPED_WITHIN;
        for member in self.members.0.iter() {
            let Some(process) = member.process().take() else {
                continue;
            };
            let ended = process.await_end(deadline);
            ended.map_err(|reason| member.failed(&format!("did not stop in order: {reason}")))?;
        }
        Ok(())
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        // Before the directory is removed, whoever else still knows them.
        (0..self.count()).for_each(|number| self.members.kill(number));
    }
}

impl Members {
    /// SIGKILL, at once.
    pub fn kill(&self, number: usize) {
        if let Some(member) = self.0.get(number) {
            drop(member.process().take());
        }
    }

    /// Starts one again; it is ready when this returns.
    pub fn start_one(&self, number: usize) -> Result<(), BenchError> {
        match self.0.get(number) {
            Some(member) => member.await_ready(&member.launch()?),
            None => Err(BenchError::Options(format!("there is no broker {number}"))),
        }
    }
}

impl Member {
    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it; what comes back tells when it is ready.
    fn launch(&self) -> Result<mpsc::Receiver<String>, BenchError> {
        let failed = |source| BenchError::file(&self.log, source);
        let directory = self.log.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(failed)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(failed)?;
        // What runs now, whatever its file has become.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("headwater-bench").arg("broker");
        for (key, value) in &self.settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        let launched = command
            // Ctrl-C is for the bench, which stops them.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn();
        let mut child = launched.map_err(BenchError::Threads)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (tell, said) = mpsc::channel();
        *self.process() = Some(Process {
            child,
            _input: input,
            metrics: None,
        });
        let read = move || {
            let mut line = String::new();
            let read = output.map(|output| BufReader::new(output).read_line(&mut line));
            // Without a line it has ended, and whoever waits finds the channel closed.
            if matches!(read, Some(Ok(1..))) {
                let _ = tell.send(line);
            }
        };
        let reading = std::thread::Builder::new().name("ready".to_owned()).spawn(read);
        reading.map_err(BenchError::Threads)?;
        Ok(said)
    }

    fn await_ready(&self, said: &mpsc::Receiver<String>) -> Result<(), BenchError> {
        let line = match said.recv_timeout(READY_WITHIN) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(self.failed(&format!("is not ready after {} s", READY_WITHIN.as_secs())));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.failed("has ended before it was ready")),
        };
        let ready: Ready = serde_json::from_str(&line)
            .map_err(|error| self.failed(&format!("has said what cannot be understood ({error})")))?;
        if let Some(process) = &mut *self.process() {
            process.metrics = ready.metrics;
        }
        Ok(())
    }

    /// What went wrong, with the last that it has logged.
    fn failed(&self, what: &str) -> BenchError {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
        BenchError::Broker {
            number: self.number,
            what: what.to_owned(),
            last,
        }
    }
}

impl Process {
    /// Waits until it has ended; if it has not by then it is killed.
    fn await_end(mut self, deadline: Instant) -> Result<(), String> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(status.to_string()),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
                Ok(None) => return Err("it takes too long".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn place_of_log(data: &Path) -> PathBuf {
    data.with_extension("log")
}

/// A free port of a loopback address that no other broker has: all of 127.0.0.0/8 is this machine, and what connects from it has
/// 127.0.0.1, so that nothing takes the port while its broker is down.
fn free_address(number: u16) -> io::Result<SocketAddr> {
    let process = std::process::id();
    let [high, low] = ((process % 0xff00) as u16).to_be_bytes();
    let ip = Ipv4Addr::new(127, 1 + high % 254, low, 1 + (number % 254) as u8);
    TcpListener::bind((ip, 0))?.local_addr()
}
