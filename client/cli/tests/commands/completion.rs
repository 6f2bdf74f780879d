//! What a shell completes.

use std::net::TcpListener;
use std::process::Command;

use crate::support::{Ran, Site, program, ran};

/// Asks the program as bash does: for the last of the words.
fn ask(mut command: Command, words: &[&str]) -> Ran {
    command.args(["--", "headwater"]).args(words);
    command
        .env("HEADWATER_COMPLETE", "bash")
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .env("_CLAP_COMPLETE_SPACE", "true");
    ran(command.output().unwrap())
}

fn completed(site: &Site, words: &[&str]) -> Vec<String> {
    let found = ask(site.command(&[]), words);
    let lines = String::from_utf8(found.out).unwrap();
    assert_eq!((found.code, &*found.err), (Some(0), ""), "{words:?}");
    lines.lines().map(str::to_owned).collect()
}

#[test]
fn commands_options_topics_groups_and_settings_are_completed() {
    let site = Site::start();
    for topic in ["orders", "orders-old", "payments"] {
        site.ok(&["topic", "create", topic, "-p", "1"]);
    }
    site.ok(&["group", "reset-offsets", "billing", "--topic", "orders", "--to-end"]);
    for (words, expected) in [
        (&["topic", "delete-"][..], &["delete-records"][..]),
        (&["consume", "orders", "--until-"], &["--until-offset", "--until-time"]),
        (&["consume", "or"], &["orders", "orders-old"]),
        (&["produce", "pay"], &["payments"]),
        (&["topic", "describe", "payments", "orders-"], &["orders-old"]),
        (&["topic", "rm", "or"], &["orders", "orders-old"]),
        (&["group", "lag", ""], &["billing"]),
        (&["consume", "orders", "--group", "b"], &["billing"]),
        (
            &["topic", "alter", "orders", "--reset", "retention."],
            &["retention.bytes", "retention.ms"],
        ),
        (&["topic", "create", "t", "--set", "retention.m"], &["retention.ms="]),
        (&["config", "cores.p"], &["cores.pin", "cores.prefault"]),
    ] {
        let mut found = completed(&site, words);
        found.retain(|word| !word.starts_with("--") || words.last().unwrap().starts_with("--"));
        assert_eq!(found, expected, "{words:?}");
    }
}

#[test]
fn the_broker_that_the_line_names_is_asked() {
    let site = Site::start();
    site.ok(&["topic", "create", "orders", "-p", "1"]);
    let words = ["--server", site.address(), "consume", "or"];
    let found = ask(program(&[]), &words);
    assert_eq!(String::from_utf8(found.out).unwrap().trim_end(), "orders");
}

#[test]
fn completion_is_silent_and_ends_when_no_broker_answers() {
    // The system takes the connection, and nobody ever reads from it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    for server in ["127.0.0.1:1", "nonsense", &silent_address] {
        let mut command = program(&[]);
        command.env("HEADWATER_SERVER", server);
        let found = ask(command, &["consume", "or"]);
        assert_eq!((found.code, &*found.err), (Some(0), ""), "{server}");
        assert_eq!(String::from_utf8(found.out).unwrap().trim_end(), "", "{server}");
    }
}

#[test]
fn every_shell_is_taught_to_ask_this_program() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = ran(program(&["completions", shell]).output().unwrap());
        let script = String::from_utf8(ran.out).unwrap();
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));
        assert!(
            script.contains("HEADWATER_COMPLETE") && script.contains("headwater"),
            "{shell}"
        );
    }
}

#[test]
fn bash_completes_with_the_script_that_it_was_given() {
    let site = Site::start();
    site.ok(&["topic", "create", "orders", "-p", "1"]);
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_headwater"));
    let script = "source <(headwater completions bash)
        COMP_WORDS=(headwater consume or) COMP_CWORD=2 COMP_TYPE=9
        eval \"$(complete -p headwater | sed 's/.*-F \\([^ ]*\\).*/\\1/')\" headwater or consume
        echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    bash.args(["-c", script])
        .env("PATH", path)
        .env("HEADWATER_SERVER", site.address());
    let ran = match bash.output() {
        Ok(output) => ran(output),
        // Not everybody has it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(String::from_utf8(ran.out).unwrap().trim_end(), "orders", "{}", ran.err);
}
