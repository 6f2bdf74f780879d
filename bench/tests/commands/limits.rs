//! The command `limits` as a user runs it: a real process, a real disk, real sockets.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::support::{Place, bench, command, json, text};

#[test]
fn limits_prints_what_was_asked_for_and_leaves_nothing_behind() {
    let place = Place::new();
    let limits = format!(
        "limits --data-dir {} --seconds 0.02 --file-size 16MiB --repeat 2 --only disk,loopback,bare,floor",
        place.path().display()
    );
    let output = bench(&format!("{limits} --output json"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
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
    let table = text(&bench(&limits));
    for line in [
        "disk write, 1 MiB",
        "min(disk write, loopback)",
        "bare program",
        "floor: end to end",
    ] {
        assert!(table.contains(line), "{table}");
    }
    assert!(place.names().is_empty());
}

#[test]
fn an_interrupted_run_says_so_and_leaves_no_file() {
    let place = Place::new();
    let mut child = command(&format!(
        "limits --data-dir {} --file-size 64MiB --seconds 60 --only disk",
        place.path().display()
    ))
    .stdout(Stdio::null())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let id = child.id();
    // It holds the file open (deleted from the beginning), so it is measuring or about to.
    while !holds_file_in(id, place.path()) {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let id = rustix::process::Pid::from_raw(id.cast_signed()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("interrupted"),
        "{output:?}"
    );
    assert!(place.names().is_empty());
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
        ("--data-dir /nowhere/at/all", "/nowhere/at/all"),
        ("--file-size 1TiB", "it must be from"),
        ("--seconds 0", "it must be from"),
        ("--only everything", "possible values"),
    ] {
        let output = bench(&format!("limits {args}"));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(reason), "{text}");
        assert!(output.stdout.is_empty());
    }
}
