//! A real `headwater-server` process: started, watched through what it logs, and never left behind.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

/// How long a broker may take to start or to stop. It is no measure of speed either.
const LIFE_LIMIT: Duration = Duration::from_secs(100);

/// A running broker. It is killed when it is dropped, and must not have panicked or logged an error by then, unless one with the
/// expected text in it.
pub struct Broker {
    process: Child,
    log: Arc<Log>,
    expected: Vec<&'static str>,
}

impl Broker {
    /// `launcher`: a command that becomes the broker, if it is not to be started as it is.
    pub(super) fn launch(launcher: &[String], arguments: &[String]) -> Broker {
        // Hardly any broker puts much into its memory: to fill huge pages with zeros would take longer than most tests.
        rustix::thread::disable_transparent_huge_pages(true).unwrap();
        // Beyond a limit on the size of files, writes fail instead of ending the process.
        let program = ["env", "--ignore-signal=XFSZ", env!("CARGO_BIN_EXE_headwater-server")].map(str::to_owned);
        let mut words = launcher.iter().chain(&program);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        // Nothing of the developer's own environment.
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEADWATER_")) {
            command.env_remove(variable);
        }
        command.args(arguments).env("RUST_BACKTRACE", "1");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let log = Arc::new(Log::default());
        let (stderr, lines) = (process.stderr.take().unwrap(), Arc::clone(&log));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.push(line);
            }
            lines.end();
        });
        Broker {
            process,
            log,
            expected: Vec::new(),
        }
    }

    /// It may log errors with this text in them.
    pub fn expect_errors(mut self, text: &'static str) -> Broker {
        self.expected.push(text);
        self
    }

    pub fn await_ready(&self) {
        self.await_line("the broker is ready");
    }

    /// Waits until the broker has logged a line with this in it.
    pub fn await_line(&self, text: &str) -> String {
        self.await_line_after(0, text)
    }

    /// The same, behind so many other lines.
    pub fn await_line_after(&self, lines: usize, text: &str) -> String {
        let line = self.log.await_line(lines, |line| line.contains(text));
        line.unwrap_or_else(|| panic!("the broker did not log {text:?}:\n{}", self.log.tail()))
    }

    /// Everything it has logged so far.
    pub fn lines(&self) -> Vec<String> {
        self.log.state.lock().unwrap().lines.clone()
    }

    /// SIGKILL, at once.
    pub fn kill(mut self) {
        self.stop_now();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Has it stand still from now on: no thread of it runs any more when this returns. One takes the signal, and stops the others.
    pub fn stand_still(&self) {
        self.signal(Signal::STOP);
        let stands = |task: &Path| {
            // The state follows the name, which is in parentheses (proc(5)). A task that has ended has none.
            let stat = fs::read_to_string(task.join("stat"));
            stat.map_or(true, |stat| {
                stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"))
            })
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let mut tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
            if tasks.all(|task| stands(&task.unwrap().path())) {
                return;
            }
            assert!(Instant::now() < deadline, "it goes on");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sets how many files it may have open, and returns how many it was before.
    pub fn limit_files(&self, count: u64) -> u64 {
        let process = Some(Pid::from_child(&self.process));
        let limits = getrlimit(Resource::Nofile);
        let limits = Rlimit {
            current: Some(count),
            ..limits
        };
        let before = prlimit(process, Resource::Nofile, limits).unwrap();
        before.current.unwrap_or(u64::MAX)
    }

    /// Descriptors of files with this extension.
    pub fn descriptors(&self, extension: &str) -> usize {
        let links = fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap();
        // One that is closed meanwhile does not count.
        let files = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
        files
            .filter(|file| file.extension().is_some_and(|found| found == extension))
            .count()
    }

    /// Lets it open no file but in the place of one that it closes.
    pub fn let_files_give_way(&self) {
        let numbers = fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap();
        let numbers = numbers.map(|link| link.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap());
        self.limit_files(numbers.max().unwrap() + 1);
    }

    /// Sets how large a file may become, in bytes: writes beyond that fail. `None` is without end.
    pub fn limit_file_size(&self, bytes: Option<u64>) {
        let limits = Rlimit {
            current: bytes,
            ..getrlimit(Resource::Fsize)
        };
        prlimit(Some(Pid::from_child(&self.process)), Resource::Fsize, limits).unwrap();
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        assert!(self.log.await_end(), "the broker does not end:\n{}", self.log.tail());
        self.process.wait().unwrap()
    }

    /// Stops it in order.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.log.tail());
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kibibytes * 1024
    }

    fn stop_now(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        self.process.wait().unwrap();
        self.log.await_end();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop_now();
        if thread::panicking() {
            eprintln!("the broker's last lines:\n{}", self.log.tail());
            return;
        }
        for line in self.lines() {
            assert!(
                !line.contains("panicked at"),
                "the broker has panicked:\n{}",
                self.log.tail()
            );
            let is_expected = self.expected.iter().any(|text| line.contains(text));
            assert!(
                is_expected || !line.contains(r#""level":"ERROR""#),
                "an error in the broker: {line}"
            );
        }
    }
}

/// The lines of a process's stderr, as they come.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn push(&self, line: String) {
        self.state.lock().unwrap().lines.push(line);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state.lock().unwrap().ended = true;
        self.changed.notify_all();
    }

    fn await_line(&self, after: usize, is_it: impl Fn(&str) -> bool) -> Option<String> {
        let mut found = None;
        self.wait(|state| {
            found = state.lines.iter().skip(after).find(|line| is_it(line)).cloned();
            found.is_some() || state.ended
        });
        found
    }

    fn await_end(&self) -> bool {
        self.wait(|state| state.ended)
    }

    fn wait(&self, mut done: impl FnMut(&LogState) -> bool) -> bool {
        let deadline = Instant::now() + LIFE_LIMIT;
        let mut state = self.state.lock().unwrap();
        while !done(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        true
    }

    fn tail(&self) -> String {
        let state = self.state.lock().unwrap();
        let skipped = state.lines.len().saturating_sub(40);
        // A panic's trace is of use only with all of its lines.
        let panic = state.lines.iter().position(|line| line.contains("panicked at"));
        let first = panic.unwrap_or(skipped).min(skipped);
        let lines = state.lines[first..]
            .iter()
            .map(|line| line.chars().take(400).collect::<String>());
        lines.collect::<Vec<_>>().join("\n")
    }
}
