//! What the bench leaves behind and where it writes: files, terminals, pipes.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::FromRawFd as _;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Place, bench, broker, command, text};

/// A bench that is at work, with data in a directory of its own.
fn at_work(place: &Place) -> Child {
    let before = place.names();
    let mut running = command(&format!("produce --seconds 600 --limits off {place}"));
    let mut running = running.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let has_records = |directory: &str| {
        let segments = fs::read_dir(place.path().join(directory).join("bench-0"))
            .into_iter()
            .flatten();
        segments
            .filter_map(Result::ok)
            .any(|file| file.metadata().is_ok_and(|found| found.len() > 0))
    };
    let is_new = |name: &&String| !before.contains(*name);
    while !place.names().iter().filter(is_new).any(|name| has_records(name)) {
        assert!(running.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running
}

fn signal(running: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(running), signal).unwrap();
}

#[test]
fn the_data_of_a_bench_that_was_killed_is_removed_by_the_next_and_that_of_a_running_one_is_not() {
    let place = Place::new();
    let mut killed = at_work(&place);
    let left = place.names();
    assert_eq!(left.len(), 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(place.names(), left);

    let mut running = at_work(&place);
    assert!(!place.names().contains(&left[0]), "the next one has removed it");
    let kept = place.names();
    assert_eq!(kept.len(), 1);
    let third = bench(&format!("quick --bytes 1MB --limits off {place}"));
    assert_eq!(third.status.code(), Some(0), "{third:?}");
    assert_eq!(place.names(), kept, "the one that runs keeps its data");
    assert!(running.try_wait().unwrap().is_none());
    // What service managers and `timeout` send ends it as Ctrl-C does.
    signal(&running, rustix::process::Signal::TERM);
    assert_eq!(running.wait().unwrap().code(), Some(130));
    assert!(place.names().is_empty());
}

#[test]
fn an_interrupted_bench_removes_its_topic_from_a_running_broker() {
    let place = Place::new();
    let broker = broker(place.path());
    let arguments = format!("produce --seconds 600 --limits off --server {}", broker.addr());
    let mut running = command(&arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let has_topic = || {
        place
            .names()
            .iter()
            .any(|name| name.starts_with("bench-") && name.ends_with("-0"))
    };
    while !has_topic() {
        assert!(running.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    signal(&running, rustix::process::Signal::INT);
    assert_eq!(running.wait().unwrap().code(), Some(130));
    assert!(!has_topic(), "{:?}", place.names());
    broker.shutdown().unwrap();
}

#[test]
fn log_lines_in_a_pipe_have_no_escapes() {
    let place = Place::new();
    let output = command(&format!("quick --bytes 1MB --limits off {place}"))
        .env("RUST_LOG", "info")
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("INFO") && log.lines().count() > 1, "{log}");
    assert!(!log.contains('\x1b') && !log.contains('\r'), "{log:?}");
}

/// A terminal: the side that shows, and the side that programs write to.
fn terminal(columns: u16) -> (File, File) {
    let size = libc::winsize {
        ws_row: 50,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut shows, mut takes) = (0, 0);
    let nothing = std::ptr::null_mut();
    // SAFETY: both numbers outlive the call, and there is no name and no setting but the size, which is only read.
    let opened = unsafe {
        libc::openpty(
            &raw mut shows,
            &raw mut takes,
            nothing,
            std::ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(opened, 0);
    // SAFETY: both were opened just now, and nobody else has them.
    unsafe { (File::from_raw_fd(shows), File::from_raw_fd(takes)) }
}

/// What a terminal shows of a program that writes everything to it.
fn shown(mut command: Command, columns: u16) -> String {
    let (mut shows, takes) = terminal(columns);
    let mut running = command
        .env("TERM", "xterm-256color")
        .stdin(Stdio::null())
        .stdout(takes.try_clone().unwrap())
        .stderr(takes)
        .spawn()
        .unwrap();
    // The command holds the terminal open as long as it is here.
    drop(command);
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    // A terminal that nobody writes to any more fails.
    while let Ok(count @ 1..) = shows.read(&mut piece) {
        bytes.extend_from_slice(&piece[..count]);
    }
    assert_eq!(running.wait().unwrap().code(), Some(0));
    String::from_utf8(bytes).unwrap()
}

/// The same without its escapes; a line that was taken back is empty.
fn plain(shown: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut letters = shown.chars().peekable();
    while let Some(letter) = letters.next() {
        let last = lines.last_mut().unwrap();
        match letter {
            '\n' => lines.push(String::new()),
            '\r' if letters.peek() != Some(&'\n') => last.push('\r'),
            '\r' => {}
            '\x1b' => {
                let end = letters.by_ref().skip(1).find(char::is_ascii_alphabetic);
                if end == Some('K') {
                    last.clear();
                }
            }
            other => last.push(other),
        }
    }
    lines
}

#[test]
fn log_lines_on_a_terminal_begin_where_the_bar_was() {
    let place = Place::new();
    let mut quick = command(&format!("quick --seconds 1 --limits off {place}"));
    quick.env(
        "RUST_LOG",
        "headwater_server=trace,headwater_client=trace,headwater_engine=trace",
    );
    let shown = shown(quick, 200);
    assert!(shown.contains("produce"), "{shown}");
    let lines = plain(&shown);
    let is_log = |line: &&String| {
        [" TRACE ", " DEBUG ", " INFO "]
            .iter()
            .any(|level| line.contains(level))
    };
    let log: Vec<_> = lines.iter().filter(is_log).collect();
    assert!(!log.is_empty());
    for line in log {
        let begin = line.rsplit('\r').next().unwrap();
        assert!(begin.trim_start().starts_with("20"), "a bar is in front of {line:?}");
    }
}

#[test]
fn text_on_a_terminal_is_broken_between_words() {
    let place = Place::new();
    for columns in [80, 120] {
        let shown = shown(command(&format!("quick --bytes 1MB --limits off {place}")), columns);
        for line in plain(&shown) {
            let line = line.rsplit('\r').next().unwrap();
            assert!(
                line.chars().count() <= usize::from(columns),
                "{columns} columns: {line}"
            );
        }
    }
}

#[test]
fn tables_fit_narrow_terminals() {
    let place = Place::new();
    // How their headers begin.
    let headers = ["part", "latency", "broker stage", "throughput", "flush."];
    let widest = |arguments: &str| {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = text(&output);
        let blocks = text.split("\n\n");
        let tables = blocks.filter(|block| headers.iter().any(|header| block.starts_with(header)));
        let widths: Vec<_> = tables.flat_map(str::lines).map(|line| line.chars().count()).collect();
        assert!(widths.len() > 4, "{text}");
        widths.into_iter().max().unwrap()
    };
    let mixed = "mixed --bytes 1MB --history 1MB --catch-up-consumers 1 --limits off";
    assert!(widest(&format!("{mixed} {place}")) <= 80);
    let limits = "limits --only disk,flush,loopback,memory --seconds 0.02 --file-size 16MiB --repeat 2";
    assert!(widest(&format!("{limits} --data-dir {}", place.path().display())) <= 100);
    let axes = "--axis flush.single_write_bytes_max=64KiB,0 --axis record-size=100,1KiB --repeat 2";
    assert!(widest(&format!("sweep {axes} --bytes 100KB --limits off {place}")) <= 100);
}

#[test]
fn a_comparison_that_may_not_be_worse_fails_by_its_exit_status() {
    let place = Place::new();
    let file = |name: &str, rates: &[f64]| {
        let path = place.path().join(name);
        let runs: Vec<Value> = rates.iter().map(|rate| json!({ "bytes_per_s": rate })).collect();
        fs::write(&path, json!({ "workload": "produce", "runs": runs }).to_string()).unwrap();
        path.display().to_string()
    };
    let before = file("before", &[1e9, 1.01e9, 1.02e9]);
    let slower = file("slower", &[0.90e9, 0.91e9, 0.92e9]);
    let few = file("few", &[1e9]);
    let status = |arguments: &str| {
        let output = bench(&format!("compare {arguments}"));
        (output.status.code().unwrap(), text(&output), output.stderr)
    };
    let (code, text, _) = status(&format!("{before} {slower} --fail-on worse:5%"));
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("FAILED    throughput is worse"), "{text}");
    assert_eq!(status(&format!("{before} {slower} --fail-on worse:15%")).0, 0);
    assert_eq!(status(&format!("{slower} {before} --fail-on worse")).0, 0);
    assert_eq!(status(&format!("{before} {slower}")).0, 0);
    let (code, json, _) = status(&format!("{before} {slower} --fail-on worse:5% --output json"));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["failed"]), (3, &json!(["throughput"])));
    let (code, _, why) = status(&format!("{before} {few} --fail-on worse:5%"));
    assert_eq!(code, 2);
    assert!(String::from_utf8(why).unwrap().contains("--repeat"));
}
