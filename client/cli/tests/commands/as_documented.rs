//! The README's section on the command line is true.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use crate::support::{Site, pause, ran};

const README: &str = include_str!("../../../../README.md");

/// The lines of the block that is marked so.
fn block(mark: &str) -> Vec<&'static str> {
    let found = README
        .split_once(&format!("```sh {mark}\n"))
        .and_then(|(_, rest)| rest.split_once("```"));
    let (lines, _) = found.unwrap_or_else(|| panic!("the README has no block {mark}"));
    lines.lines().collect()
}

/// A line as a shell would run it at the site.
fn shell(site: &Site, line: &str) -> Command {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_headwater"));
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .env("PATH", &path)
        .env("HEADWATER_SERVER", site.address())
        .stdin(Stdio::null())
        .current_dir(site.directory());
    command
}

/// A consumer in a terminal of its own. Killed when it is dropped.
struct Member(Child);

impl Member {
    fn start(site: &Site, number: usize, printed: &Sender<(usize, String)>) -> Self {
        let [line] = block("group-member")[..] else {
            panic!("a member is one line");
        };
        // In the place of the shell, so that it is what is killed.
        let mut child = shell(site, &format!("exec {line}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, printed) = (child.stdout.take().unwrap(), printed.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if printed.send((number, line)).is_err() {
                    return;
                }
            }
        });
        Self(child)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until all these have been printed.
fn await_printed(printed: &Receiver<(usize, String)>, numbers: std::ops::RangeInclusive<u32>) -> HashSet<usize> {
    let mut missing: HashSet<String> = numbers.map(|number| number.to_string()).collect();
    let mut members = HashSet::new();
    while !missing.is_empty() {
        let line = printed.recv_timeout(Duration::from_mins(1));
        let (member, line) = line.unwrap_or_else(|error| panic!("{error}: {} are missing", missing.len()));
        missing.remove(&line);
        members.insert(member);
    }
    members
}

#[test]
fn the_walk_through_of_a_group_works_as_it_stands() {
    let site = Site::start();
    let (sender, printed) = mpsc::channel();
    let run = |line: &str| ran(shell(&site, line).output().unwrap()).ok(&[line]);
    for line in block("group-setup") {
        drop(run(line));
    }
    let first = Member::start(&site, 1, &sender);
    let second = Member::start(&site, 2, &sender);
    let shares = || {
        let described = &site.json(&["group", "describe", "workers"])[0];
        let members = described["members"].as_array().unwrap().clone();
        let count = |member: &serde_json::Value| member.to_string().matches("\"partition").count();
        (
            described["state"] == "Stable",
            members.iter().map(count).collect::<Vec<_>>(),
        )
    };
    // Not found until the first member has made it.
    while site.run(&["group", "describe", "workers"]).code == Some(3) {
        pause();
    }
    while !matches!(shares(), (true, members) if members.len() == 2) {
        pause();
    }
    for line in block("group-load") {
        drop(run(line));
    }
    let members = await_printed(&printed, 1..=2000);
    assert_eq!(
        members.len(),
        2,
        "the work is not shared: all of it went to {members:?}"
    );
    drop(first);
    for line in block("group-load") {
        drop(run(&line.replace("seq 2000", "seq 2001 2400")));
    }
    let members = await_printed(&printed, 2001..=2400);
    assert!(members.contains(&2), "{members:?}");
    let [describe, lag] = block("group-look")[..] else {
        panic!("two ways to look");
    };
    assert!(run(describe).contains("server-sticky"));
    while !run(lag).contains("0 records behind in all") {
        pause();
    }
    drop(second);
}

#[test]
fn the_lines_of_the_readme_work_as_they_stand() {
    let site = Site::start();
    let mut outputs = Vec::new();
    for line in block("command-line") {
        outputs.push(ran(shell(&site, line).output().unwrap()).ok(&[line]));
    }
    assert!(outputs.len() >= 6, "only {} lines", outputs.len());
    assert!(
        outputs[2].contains("Ada: one book") && outputs[2].lines().count() == 2,
        "{}",
        outputs[2]
    );
}
