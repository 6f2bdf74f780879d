//! The command `limits` as a user runs it: a real process, a real disk, real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-bench"));
    command
        .arg("limits")
        .args(args)
        .current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

fn limits(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// On the disk that cargo builds on.
fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn limits_prints_what_was_asked_for_and_leaves_nothing_behind() {
    let place = directory();
    let data_dir = place.path().to_str().unwrap();
    let common = [
        "--data-dir",
        data_dir,
        "--seconds",
        "0.02",
        "--file-size",
        "16MiB",
        "--repeat",
        "2",
    ];
    let parts = ["--only", "disk,loopback,bare,floor"];
    let output = limits(&[&common[..], &parts, &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 1, "{output:?}");
    let report: Value = serde_json::from_str(&text).unwrap();
    for summary in ["limits", "min", "max"] {
        for figure in ["disk_write_bytes_per_s", "loopback_bytes_per_s", "bare_bytes_per_s"] {
            assert!(report[summary][figure].as_f64().unwrap() > 0.0, "{figure} in {report}");
        }
        assert!(
            report[summary]["floor_end_to_end_us"]["p50"].as_f64().unwrap() > 0.0,
            "{report}"
        );
        assert_eq!(report[summary].get("round_trip_us"), None);
    }
    assert_eq!(report["config"]["file_bytes"], 16 << 20);
    let table = limits(&[&common[..], &parts].concat());
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    for line in [
        "disk write, 1 MiB",
        "min(disk write, loopback)",
        "bare program",
        "floor: end to end",
    ] {
        assert!(table.contains(line), "{table}");
    }
    assert!(is_empty(place.path()));
}

#[test]
fn an_interrupted_run_says_so_and_leaves_no_file() {
    let place = directory();
    let data_dir = place.path().to_str().unwrap();
    let mut child = command(&[
        "--data-dir",
        data_dir,
        "--file-size",
        "64MiB",
        "--seconds",
        "60",
        "--only",
        "disk",
    ])
    .stdout(Stdio::null())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let id = child.id();
    // It holds the file open (deleted from the beginning), so it is measuring or about to.
    while !holds_file_in(id, place.path()) {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    let id = rustix::process::Pid::from_raw(id.cast_signed()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("interrupted"),
        "{output:?}"
    );
    assert!(is_empty(place.path()));
}

fn holds_file_in(process: u32, directory: &Path) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return false;
    };
    let directory = directory.canonicalize().unwrap();
    files
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
        .any(|target| target.starts_with(&directory))
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_sentence() {
    for (args, reason) in [
        (["--data-dir", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--file-size", "1TiB"], "it must be from"),
        (["--seconds", "0"], "it must be from"),
        (["--only", "everything"], "possible values"),
    ] {
        let output = limits(&args);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(reason), "{text}");
        assert!(output.stdout.is_empty());
    }
}
