//! The command line of the broker, as a user meets it: what it prints, where, and with which exit code.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> (Output, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-server"));
    // Nothing of the developer's own environment.
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEADWATER_")) {
        command.env_remove(variable);
    }
    let output = command.args(arguments).output().unwrap();
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
