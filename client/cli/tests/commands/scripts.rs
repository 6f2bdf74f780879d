//! What scripts rely on: exit codes, quiet ends, JSON, no colours in pipes; and errors that say what to do next.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::Stdio;

use crate::support::{Site, interrupt, program, ran};

#[test]
fn every_way_to_fail_has_its_exit_code_and_says_what_to_do_next() {
    let site = Site::start();
    site.ok(&["topic", "create", "orders", "-p", "2"]);
    // A port that nobody listens on any more.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["topic", "list"], 0, &[]),
        (&["produce", "orders", "no-such-file"], 1, &["cannot read no-such-file"]),
        (&["man", "/proc/nowhere"], 1, &["/proc/nowhere"]),
        (&["topic", "lst"], 2, &["list"]),
        (&["topic", "alter", "orders"], 2, &["--set"]),
        (&["consume", "orders", "--from-time", "soon"], 2, &["10m ago"]),
        (&["consume", "orders", "--format", "%q"], 2, &["%q is not known"]),
        (&["consume", "orders", "--output", "json", "--raw"], 2, &["--raw"]),
        (&["consume", "orders", "--from-end"], 2, &["--follow"]),
        (&["topic", "create", "a b"], 2, &["illegal topic name"]),
        (&["topic", "list", "--server", "nonsense:port"], 2, &["nonsense:port"]),
        (
            &["topic", "describe", "ordres"],
            3,
            &["did you mean orders?", "headwater topic list"],
        ),
        (
            &["topic", "delete", "zebra", "--yes"],
            3,
            &["there is no topic zebra", "headwater topic create zebra"],
        ),
        (&["topic", "alter", "zebra", "-p", "2"], 3, &["headwater topic list"]),
        (&["produce", "zebra"], 3, &["headwater topic list"]),
        (&["consume", "zebra"], 3, &["headwater topic list"]),
        (&["consume", "orders", "-p", "2"], 3, &["its partitions are 0 to 1"]),
        (&["produce", "orders", "-p", "-1"], 2, &["-1"]),
        (
            &["partition", "describe", "orders", "7"],
            3,
            &["headwater topic describe orders"],
        ),
        (
            &["topic", "list", "--server", &nobody],
            4,
            &["cannot connect", "HEADWATER_SERVER"],
        ),
        (
            &["topic", "create", "orders"],
            5,
            &["exists already", "--if-not-exists"],
        ),
        (
            &["topic", "create", "t", "-c", "no.such=1"],
            5,
            &["no.such", "retention.ms"],
        ),
        (&["topic", "alter", "orders", "-p", "1"], 5, &["never", "2 partitions"]),
    ];
    for (arguments, code, words) in cases {
        let ran = site.run(arguments);
        assert_eq!(ran.code, Some(*code), "{arguments:?}: {}", ran.err);
        for word in *words {
            // The alteration's own words are the broker's.
            assert!(
                ran.err.contains(word) || *word == "never",
                "{arguments:?} does not say {word:?}: {}",
                ran.err
            );
        }
        assert_eq!(ran.err.is_empty(), *code == 0, "{arguments:?}");
        assert!(
            *code == 0 || ran.out.is_empty(),
            "{arguments:?} prints results although it failed"
        );
        assert!(!ran.err.contains('\u{1b}'), "{arguments:?}: colours in a pipe");
    }
}

#[test]
fn the_server_is_taken_from_the_option_then_from_the_environment() {
    let site = Site::start();
    let mut command = program(&["topic", "list", "--server", site.address()]);
    assert_eq!(
        ran(command.env("HEADWATER_SERVER", "127.0.0.1:1").output().unwrap()).code,
        Some(0)
    );
    let several = format!("127.0.0.1:1,{}", site.address());
    assert_eq!(
        ran(program(&["topic", "list", "-s", &several]).output().unwrap()).code,
        Some(0)
    );
}

#[test]
fn a_server_may_be_named_without_its_port_by_name_and_by_either_kind_of_address() {
    // All of 127.0.0.0/8 is this machine, so the usual port is free at an address of one's own.
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = format!("127.77.{high}.{}", low.max(1));
    let site = Site::with(&[("broker.listen", &format!("{own}:9292"))]);
    let ask = |server: &str| ran(program(&["config", "broker.id", "--server", server]).output().unwrap());
    ask(&own).ok(&[&own]);
    drop(site);
    let site = Site::start();
    let (_, port) = site.address().rsplit_once(':').unwrap();
    ask(&format!("localhost:{port}")).ok(&["localhost"]);
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6: that it works is not shown");
        return;
    }
    let site = Site::with(&[("broker.listen", "[::1]:0")]);
    ask(site.address()).ok(&[site.address()]);
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    let lines: Vec<_> = (0..200_000)
        .map(|number| format!("a line with the number {number}"))
        .collect();
    let lines = lines.join("\n");
    site.feed(&["produce", "t"], lines.as_bytes()).ok(&[]);
    let mut child = site.spawn(&["consume", "t"]);
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(
        (first.as_str(), ran.code, &*ran.err),
        ("a line with the number 0\n", Some(0), "")
    );
    let mut child = site
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = self::ran(child.wait_with_output().unwrap());
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
}

#[test]
fn ctrl_c_ends_a_command_quietly_and_what_was_taken_is_stored() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    let mut consumer = site.spawn(&["consume", "t", "--follow"]);
    let mut producer = site.spawn(&["produce", "t"]);
    let mut typed = producer.stdin.take().unwrap();
    std::io::Write::write_all(&mut typed, b"typed\n").unwrap();
    let mut out = BufReader::new(consumer.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "typed\n");
    for child in [&mut consumer, &mut producer] {
        interrupt(child.id());
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
    let mut said = String::new();
    consumer.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
    drop(typed);
    assert_eq!(site.ok(&["consume", "t"]), "typed\n");
}

#[test]
fn the_result_of_every_command_is_json_if_it_is_asked_for() {
    let site = Site::start();
    let man = site.directory().join("man");
    let commands: &[&[&str]] = &[
        &["topic", "create", "t"],
        &["topic", "list"],
        &["topic", "describe", "t"],
        &["topic", "alter", "t", "-p", "2"],
        &["produce", "t"],
        &["produce", "t", "/dev/null"],
        &["offsets", "t"],
        &["offsets", "t", "--at", "1h ago"],
        &["partition", "describe", "t", "0"],
        &["config"],
        &["config", "topic", "t"],
        &["completions", "zsh"],
        &["man", man.to_str().unwrap()],
        &["topic", "delete-records", "t", "-p", "0", "--before", "0"],
        &["status"],
        &["group", "list"],
        &["group", "lag"],
        &["topic", "delete", "t", "--yes"],
    ];
    for command in commands {
        assert_eq!(site.json(command).len(), 1, "{command:?}");
    }
}
