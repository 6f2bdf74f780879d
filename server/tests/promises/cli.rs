//! The command line of the broker, as a user meets it: what it prints, where, and with which exit code.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-server"));
    // Nothing of the developer's own environment.
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEADWATER_")) {
        command.env_remove(variable);
    }
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> (Output, String, String) {
    let output = command(arguments).output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout.clone()),
        String::from_utf8(output.stderr.clone()),
    );
    (output, stdout.unwrap(), stderr.unwrap())
}

#[test]
fn a_printed_configuration_is_a_configuration_file() {
    let (output, printed, stderr) = run(&[
        "--print-config",
        "--data-dir",
        "/srv/data",
        "--set",
        "log.retention_ms=30d",
    ]);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    assert!(
        printed.contains("directory = \"/srv/data\"  # from --data-dir"),
        "{printed}"
    );
    assert!(printed.contains("retention_ms = \"30d\"  # from --set"), "{printed}");
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("headwater.toml");
    std::fs::write(&file, &printed).unwrap();
    let (output, again, stderr) = run(&["--config", file.to_str().unwrap(), "--print-config"]);
    assert!(output.status.success(), "{stderr}");
    let values = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.split("  # from ").next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(&printed));
}

#[test]
fn every_mistake_in_a_configuration_is_named_before_anything_is_touched() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("data");
    let set = ["--set", "log.segmnt_size_bytes=1MiB", "--set", "cores.pin=maybe"];
    let (output, stdout, stderr) = run(&[&["--data-dir", directory.to_str().unwrap()][..], &set].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout.is_empty() && stderr.lines().count() == 2, "{stderr}");
    assert!(
        stderr
            .contains("log.segmnt_size_bytes (from --set): there is no such key; did you mean log.segment_size_bytes?")
    );
    assert!(
        stderr.contains("cores.pin = \"maybe\" (from --set): expected true or false"),
        "{stderr}"
    );
    assert!(!directory.exists());
}

#[test]
fn a_machine_that_is_not_fit_is_refused_with_the_remedy() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("file");
    std::fs::write(&file, "").unwrap();
    for format in ["text", "json"] {
        let directory = file.join("data");
        let (output, _, stderr) = run(&["--data-dir", directory.to_str().unwrap(), "--log-format", format]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr.contains("cannot be made or written"), "{stderr}");
        assert_eq!(
            stderr.lines().all(|line| line.starts_with('{') && line.ends_with('}')),
            format == "json",
            "{stderr}"
        );
    }
}

#[test]
fn the_help_says_what_there_is_to_say() {
    let (output, stdout, _) = run(&["--help"]);
    assert!(output.status.success());
    for expected in [
        "--config <FILE>",
        "--set <SECTION.KEY=VALUE>",
        "Examples:",
        "Exit codes:",
        "SIGTERM",
    ] {
        assert!(stdout.contains(expected), "{stdout}");
    }
}

/// The data directory's file system is that of the tests, whatever it is; the rest of this asks little of a machine.
const SMALL: [&str; 6] = [
    "--set",
    "log.segment_size_bytes=8MiB",
    "--set",
    "limits.connections_max=64",
    "--set",
    "limits.partitions_max=1000",
];

/// The names of the files in a directory, each with when it or its content was last changed.
fn content(directory: &Path) -> Vec<(PathBuf, i64, i64)> {
    let above = std::iter::once(directory.to_owned());
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut content: Vec<_> = above
        .chain(entries)
        .map(|path| {
            let metadata = std::fs::metadata(&path).unwrap();
            (path, metadata.ctime(), metadata.ctime_nsec())
        })
        .collect();
    content.sort();
    content
}

#[test]
fn a_check_explains_itself_in_a_table_and_in_json_and_changes_nothing() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let before = content(temporary.path());
    let directory = temporary.path().join("not/there/yet");
    let flags = [&["--data-dir", directory.to_str().unwrap()], &SMALL[..]].concat();
    let (output, json, stderr) = run(&[&["check", "--output", "json"], &flags[..]].concat());
    assert!(stderr.is_empty(), "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.lines().count(), 1);
    let passed = report["passed"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(!passed)), "{json}");
    // The flags of the broker may also stand before the command.
    let (_, text, _) = run(&[&flags[..], &["check"]].concat());
    for item in report["items"].as_array().unwrap() {
        let text_of = |key: &str| item[key].as_str().unwrap();
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("│ {} ", text_of("name"))));
        let row = row.unwrap_or_else(|| panic!("{item} is not in {text}"));
        assert!(
            row.contains(text_of("recommended")) && row.contains(text_of("verdict")),
            "{row}"
        );
        if let Some(command) = item["command"].as_str() {
            assert!(text.contains(&format!("# {command}\n")), "{text}");
        }
    }
    assert_eq!(content(temporary.path()), before);
}

#[test]
fn a_check_ends_with_1_if_something_must_change() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let directory = temporary.path().to_str().unwrap();
    let (output, text, _) = run(&["check", "--data-dir", directory, "--cores", "1024"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("Must change before the broker starts:\n") && text.contains("\n  cores: cores.count is 1024"),
        "{text}"
    );
    let (output, _, stderr) = run(&["check", "--cores", "many"]);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
}

/// A broker that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_check_next_to_a_broker_that_runs_reports_it_and_leaves_it_alone() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let flags = [
        "--data-dir",
        temporary.path().to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--cores",
        "1",
    ];
    let flags = [&flags, &SMALL[..], &["--set", "cores.pin=false"]].concat();
    let mut broker = Running(command(&flags).stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(broker.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("the broker is ready") {
        line.clear();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "the broker ended before it was ready"
        );
    }
    let lock = std::fs::read(temporary.path().join("lock")).unwrap();
    let (_, text, _) = run(&[&["check"], &flags[..]].concat());
    let owner = format!("in use by a broker, process {}", broker.0.id());
    assert!(text.contains(&owner), "{text}");
    assert_eq!(std::fs::read(temporary.path().join("lock")).unwrap(), lock);
    assert!(broker.0.try_wait().unwrap().is_none(), "the broker still runs");
    drop(broker);
    let before = content(temporary.path());
    let (_, text, _) = run(&[&["check"], &flags[..]].concat());
    assert!(text.contains("used before; no broker is seen to hold it"), "{text}");
    assert_eq!(content(temporary.path()), before);
}

#[test]
fn a_key_is_set_before_and_after_the_command() {
    let (_, text, stderr) = run(&[
        "--set",
        "log.segment_size_bytes=2GiB",
        "check",
        "--set",
        "cores.pin=false",
    ]);
    assert!(
        stderr.is_empty() && text.contains("6 GiB or more (3 segments)"),
        "{stderr}{text}"
    );
    assert!(text.contains("not pinned"), "{text}");
}

#[test]
fn a_port_that_is_in_use_is_named_with_the_setting_that_chooses_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let core_base = format!("broker.core_port_base={}", taken.local_addr().unwrap().port());
    let keys = [
        ("broker.listen", format!("broker.listen={address}")),
        ("broker.core_port_base", core_base),
        ("metrics.listen", format!("metrics.listen={address}")),
    ];
    let is_named = |key: &str, set: &str| {
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let directory = temporary.path().join("data");
        let free = ["--listen", "127.0.0.1:0", "--cores", "1"];
        let own = ["--data-dir", directory.to_str().unwrap(), "--set", set];
        let (output, _, stderr) = run(&[&free[..], &SMALL, &own].concat());
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let expected = format!("cannot listen on {address}");
        let line = stderr.lines().find(|line| line.contains(&expected));
        assert!(
            line.is_some_and(|line| line.ends_with(&format!("choose another port with {key}"))),
            "{stderr}"
        );
    };
    // Each waits a few seconds for the port.
    std::thread::scope(|scope| {
        for (key, set) in &keys {
            scope.spawn(|| is_named(key, set));
        }
    });
}

#[test]
fn a_first_configuration_is_accepted_says_why_and_replaces_nothing_by_itself() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (file, directory) = (temporary.path().join("headwater.toml"), temporary.path().join("data"));
    let (file, directory) = (file.to_str().unwrap(), directory.to_str().unwrap());
    let init = [
        "init",
        "--data",
        directory,
        "--listen",
        "0.0.0.0:9292",
        "--output",
        file,
    ];
    let (output, stdout, stderr) = run(&init);
    assert!(output.status.success() && stdout.is_empty(), "{stderr}");
    assert!(
        stderr.contains(&format!("headwater-server --config {file}")),
        "{stderr}"
    );
    let text = std::fs::read_to_string(file).unwrap();
    let set: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with(['#', '[']) && !line.is_empty())
        .collect();
    for wanted in [
        "directory = ",
        "listen = \"0.0.0.0:9292\"",
        "tail_buffer_bytes_max = ",
        "count = ",
    ] {
        assert!(
            set.iter().any(|line| line.starts_with(wanted)),
            "no {wanted} in {set:#?}"
        );
    }
    let lines: Vec<&str> = text.lines().collect();
    let is_key = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(key, _)| !key.trim_start_matches('#').contains(' '))
    };
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| is_key(line)) {
        assert!(lines[number - 1].starts_with("# "), "nothing explains {line}");
    }

    // What it says is in force, and so is what it says of the rest.
    let values = |config: &str| {
        let (output, printed, stderr) = run(&["--config", config, "--print-config"]);
        assert!(output.status.success(), "{stderr}");
        let lines = printed.lines().filter(|line| !line.starts_with('#'));
        let values = lines.map(|line| line.split("  # from ").next().unwrap().to_owned());
        values.collect::<Vec<String>>()
    };
    let whole: Vec<&str> = lines
        .iter()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .collect();
    let all = temporary.path().join("all.toml");
    std::fs::write(&all, whole.join("\n")).unwrap();
    assert!(
        whole.iter().filter(|line| is_key(line)).count() > 100,
        "every key is there"
    );
    assert_eq!(values(file), values(all.to_str().unwrap()));
    let (output, _, stderr) = run(&["check", "--config", file]);
    assert!(output.status.code() != Some(2) && stderr.is_empty(), "{stderr}");

    std::fs::write(file, "mine").unwrap();
    let (output, _, stderr) = run(&init);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("is there already; --force"), "{stderr}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
    let (output, _, stderr) = run(&[&init[..], &["--force"]].concat());
    assert!(output.status.success(), "{stderr}");
    let head = text.lines().next().unwrap();
    assert!(std::fs::read_to_string(file).unwrap().starts_with(head));
    let (_, printed, _) = run(&["init", "--output", "-", "--set", "cores.pin=false"]);
    assert!(printed.contains("# As given by --set.\npin = false\n"), "{printed}");
}

#[test]
fn shells_and_man_learn_of_every_command() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let (output, script, stderr) = run(&["completions", shell]);
        assert!(output.status.success(), "{stderr}");
        assert!(script.contains("print-config") && script.contains("init"), "{script}");
    }
    let directory = temporary.path().join("man1");
    let (output, _, stderr) = run(&["man", directory.to_str().unwrap()]);
    assert!(output.status.success(), "{stderr}");
    for page in [
        "headwater-server",
        "headwater-server-check",
        "headwater-server-init",
        "headwater-server-ready",
    ] {
        let page = std::fs::read_to_string(directory.join(format!("{page}.1"))).unwrap();
        assert!(page.contains("Exit codes"), "{page}");
    }
}
