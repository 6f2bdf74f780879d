//! What the program says of itself.

use crate::support::{Site, program, ran};

/// Every command, as it is typed.
const COMMANDS: [&str; 29] = [
    "",
    "topic",
    "topic create",
    "topic list",
    "topic describe",
    "topic alter",
    "topic delete",
    "topic delete-records",
    "produce",
    "consume",
    "group",
    "group list",
    "group describe",
    "group lag",
    "group reset-offsets",
    "group delete-offsets",
    "group delete",
    "partition",
    "partition describe",
    "offsets",
    "log",
    "log dump",
    "log verify",
    "config",
    "config topic",
    "status",
    "bench",
    "completions",
    "man",
];

#[test]
fn the_help_of_every_command_needs_no_broker_and_teaches_by_example() {
    for command in COMMANDS {
        let words: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let ran = ran(program(&words).output().unwrap());
        let text = String::from_utf8(ran.out).unwrap();
        assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{command}");
        assert!(
            text.contains("Usage:") && text.contains("--server"),
            "{command}: {text}"
        );
        let has_commands = text.contains("Commands:") && command != "config";
        assert!(has_commands || text.contains("Examples:"), "{command}: {text}");
    }
    let root = String::from_utf8(program(&["--help"]).output().unwrap().stdout).unwrap();
    let root = root.split_whitespace().collect::<Vec<_>>().join(" ");
    for code in [
        "0 done",
        "1 failed",
        "2 wrong usage",
        "3 topic",
        "4 cannot connect",
        "5 refused",
        "6 damage found",
        "130 interrupted",
    ] {
        assert!(root.contains(code), "{root}");
    }
}

#[test]
fn manual_pages_know_every_command() {
    let site = Site::start();
    let directory = site.directory().join("man");
    site.ok(&["man", directory.to_str().unwrap()]);
    for command in COMMANDS {
        let name = ["headwater"]
            .into_iter()
            .chain(command.split_whitespace())
            .collect::<Vec<_>>()
            .join("-");
        let page = std::fs::read_to_string(directory.join(format!("{name}.1")))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".TH") && page.len() > 500, "{name}: {page}");
    }
}

#[test]
fn the_benchmark_is_pointed_to_where_it_is_not_there() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // In a directory of its own, so that nothing lies beside it.
    let alone = temporary.path().join("headwater");
    std::fs::hard_link(env!("CARGO_BIN_EXE_headwater"), &alone).unwrap();
    let bench = |with: bool| {
        if with {
            // By another process: no file may be run that this one, or what it has forked meanwhile, has open for writing.
            let script = r#"printf '#!/bin/sh\necho measured "$@"\n' > headwater-bench && chmod +x headwater-bench"#;
            let mut shell = std::process::Command::new("sh");
            let made = shell.args(["-c", script]).current_dir(temporary.path()).status();
            assert!(made.unwrap().success());
        }
        let mut command = std::process::Command::new(&alone);
        ran(command
            .env("PATH", "")
            .args(["bench", "quick", "--seconds", "2"])
            .output()
            .unwrap())
    };
    let absent = bench(false);
    assert!(
        absent.code == Some(3) && absent.err.contains("cargo build --release -p headwater-bench"),
        "{absent:?}"
    );
    let present = bench(true);
    assert_eq!(
        (present.code, &present.out[..]),
        (Some(0), &b"measured quick --seconds 2\n"[..])
    );
}

#[test]
fn a_command_that_is_not_whole_shows_what_there_is() {
    for (words, shown) in [
        (&[][..], "A first tour"),
        (&["topic"], "describe"),
        (&["--timeout", "1s", "group"], "reset-offsets"),
    ] {
        let ran = ran(program(words).output().unwrap());
        assert_eq!((ran.code, ran.out.len()), (Some(2), 0), "{words:?}");
        assert!(ran.err.contains(shown), "{words:?}: {}", ran.err);
        assert!(ran.err.contains("Commands:"), "{words:?}: {}", ran.err);
    }
}
