//! What people see on a terminal, and what a terminal must not be made to do.

use std::process::Command;

use crate::support::terminal::Terminal;
use crate::support::{Site, interrupt};

/// What a command shows on a terminal of the usual size, to its end.
fn shown(command: Command) -> Vec<u8> {
    let (code, shown) = Terminal::run(command, 80, 24).end();
    assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&shown));
    shown
}

#[test]
fn bytes_of_records_that_a_terminal_would_obey_are_escaped_there_and_nowhere_else() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    let own = b"k\x1b[31m=\x1b]0;title\x07\x9b2J \xff\tend\r\n";
    site.feed(&["produce", "t", "-k", "=", "-H", "h=\u{9b}2J"], own).ok(&[]);
    let lines = ["consume", "t", "-k", "="];
    let escaped = b"k\\x1b[31m=\\x1b]0;title\\x07\\x9b2J \\xff\tend\\x0d\n";
    assert_eq!(
        String::from_utf8_lossy(&shown(site.command(&lines))),
        String::from_utf8_lossy(escaped)
    );
    assert_eq!(site.run(&lines).out, own);
    // What the user has written means what it says; what the record holds does not.
    let formatted = ["consume", "t", "--format", "\\x1b[1m%k %h\\n"];
    assert_eq!(
        String::from_utf8_lossy(&shown(site.command(&formatted))),
        "\u{1b}[1mk\\x1b[31m h=\\xc2\\x9b2J\n"
    );
    let raw = ["consume", "t", "--raw"];
    let value = &own[own.len() - 20..own.len() - 1];
    assert!(shown(site.command(&raw)).ends_with(value));
    // JSON stays JSON, of the same record.
    let json = shown(site.command(&["consume", "t", "-o", "json"]));
    let json = String::from_utf8(json).unwrap();
    assert!(!json.contains(['\u{1b}', '\u{9b}']), "{json}");
    let [record] = &site.json(&["consume", "t"])[..] else {
        panic!("one record")
    };
    assert_eq!(&serde_json::from_str::<serde_json::Value>(&json).unwrap(), record);
}

#[test]
fn names_that_a_terminal_would_obey_are_escaped_in_tables_json_and_errors() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    let group = "red\u{1b}[31m\u{9b}";
    site.ok(&["group", "reset-offsets", group, "--topic", "t", "--to-end"]);
    for command in [&["group", "list"][..], &["group", "describe", group], &["group", "lag"]] {
        for form in [&[][..], &["-o", "json"]] {
            let arguments = [command, form].concat();
            let shown = String::from_utf8(shown(site.command(&arguments))).unwrap();
            assert!(!shown.contains("red\u{1b}") && !shown.contains('\u{9b}'), "{shown:?}");
            let name = if form.is_empty() {
                r"red\x1b[31m\xc2\x9b"
            } else {
                r"red\u001b[31m\u009b"
            };
            assert!(shown.contains(name), "{shown:?}");
        }
    }
    assert_eq!(site.json(&["group", "list"])[0][0]["group"], group);
    let unknown = Terminal::run(site.command(&["group", "describe", "\u{1b}[2J"]), 80, 24);
    let (code, said) = unknown.end();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(code, Some(3));
    assert!(
        said.contains(r"there is no group \x1b[2J") && !said.contains("\u{1b}[2J"),
        "{said:?}"
    );
}

#[test]
fn a_terminal_is_asked_before_something_is_lost_and_only_yes_means_yes() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    site.feed(&["produce", "t"], b"1\n2\n3\n").ok(&[]);
    let records = ["topic", "delete-records", "t", "-p", "0", "--before", "2"];
    for (arguments, question) in [
        (&records[..], "Delete for good: 2 records of t, partition 0? [y/N] "),
        (&["topic", "delete", "t"], "Delete for good: t (1 record)? [y/N] "),
    ] {
        for (answer, code) in [("\n", 1), ("never\n", 1), ("y\n", 0)] {
            let mut terminal = Terminal::run(site.command(arguments), 80, 24);
            terminal.await_shown(question, 1);
            terminal.type_in(answer);
            let (ended, said) = terminal.end();
            let said = String::from_utf8(said).unwrap();
            assert_eq!(ended, Some(code), "{said}");
            assert_eq!(said.contains("nothing was done"), code == 1, "{said}");
            assert_eq!(said.contains("deleted "), code == 0, "{said}");
        }
    }
    assert_eq!(site.json(&["topic", "list"]), [serde_json::json!([])]);
}

#[test]
fn a_watched_result_is_drawn_in_place_on_a_terminal_and_fits_it() {
    const REDRAW: &str = "\u{1b}[H\u{1b}[J";
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "30"]);
    site.ok(&["group", "reset-offsets", "g", "--topic", "t", "--to-end"]);
    for arguments in [&["status"][..], &["topic", "list"], &["group", "lag", "g"]] {
        let watch = [arguments, &["--watch", "50ms"]].concat();
        let mut terminal = Terminal::run(site.command(&watch), 80, 10);
        terminal.await_shown(REDRAW, 3);
        let id = terminal.id();
        interrupt(id);
        let (code, shown) = terminal.end();
        let shown = String::from_utf8(shown).unwrap();
        assert_eq!(code, Some(130), "{shown}");
        let frames: Vec<_> = shown.split(REDRAW).skip(1).collect();
        for frame in &frames[..frames.len() - 1] {
            assert!(frame.contains(", every 50ms until Ctrl-C\n"), "{frame}");
            // The cursor is on the line after the last.
            assert!(frame.lines().count() < 10, "{frame}");
        }
        let is_cut = frames[0].contains(" more lines)\n");
        assert_eq!(is_cut, arguments != ["topic", "list"], "{}", frames[0]);
    }
}

#[test]
fn a_watched_result_in_a_pipe_is_repeated_without_anything_for_terminals() {
    use std::io::{BufRead as _, BufReader};

    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    let read = |arguments: &[&str], count: usize| -> Vec<String> {
        let mut child = site.spawn(arguments);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines = lines.take(count).map(Result::unwrap).collect();
        interrupt(child.id());
        child.wait().unwrap();
        lines
    };
    let lines = read(&["topic", "list", "--watch", "50ms"], 6);
    assert!(lines[0].starts_with("TOPIC") && lines[1].starts_with("t "), "{lines:?}");
    assert_eq!(lines[2], "");
    assert_eq!(lines[..3], lines[3..]);
    let lines = read(&["topic", "list", "--watch", "50ms", "-o", "json"], 2);
    for line in lines {
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value[0]["name"], "t");
    }
}

#[test]
fn a_broker_that_goes_away_is_said_and_does_not_end_a_watch() {
    use std::io::{BufRead as _, BufReader};

    let mut site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    let mut child = site.spawn(&["topic", "list", "--watch", "50ms", "--timeout", "1s"]);
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(shown.next().unwrap().unwrap().starts_with("TOPIC"));
    site.stop();
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    for line in said.take(2) {
        let line = line.unwrap();
        assert!(
            line.starts_with("note: cannot list topics: ") && line.ends_with("; going on"),
            "{line}"
        );
    }
    site.go_on();
    site.ok(&["topic", "create", "later", "-p", "1"]);
    assert!(shown.map_while(Result::ok).any(|line| line.starts_with("later ")));
    interrupt(child.id());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
