//! The documents are true where a program can tell: links lead somewhere, and flags and keys are those of this build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use headwater_server::Config;

/// A document, apart from what is between its fences.
struct Page {
    path: PathBuf,
    /// Lines of prose and tables.
    prose: Vec<String>,
    /// Lines of blocks that a shell would run, a line for each command.
    commands: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every document below a directory.
fn pages(directory: &Path) -> Vec<Page> {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory of the project") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            pages.extend(self::pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(page(path));
        }
    }
    pages
}

fn page(path: PathBuf) -> Page {
    let text = std::fs::read_to_string(&path).expect("a document is text");
    let (mut prose, mut commands, mut fence) = (Vec::new(), Vec::new(), None);
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &fence) {
            (Some(_), Some(_)) => fence = None,
            (Some(kind), None) => fence = Some(kind.split(' ').next().unwrap_or_default().to_owned()),
            (None, Some(kind)) if kind == "sh" => commands.push(line.to_owned()),
            (None, Some(_)) => {}
            (None, None) => prose.push(line.to_owned()),
        }
    }
    Page { path, prose, commands }
}

/// The documents that say what is so today. The lab says what was so on a day, and the changelog what came when.
fn current() -> Vec<Page> {
    let mut pages = pages(&root());
    pages.retain(|page| {
        !page.path.ends_with("CHANGELOG.md") && !page.path.components().any(|part| part.as_os_str() == "lab")
    });
    assert!(pages.len() >= 8, "only {} documents were found", pages.len());
    pages
}

/// A heading as it is linked to: <https://docs.github.com/en/get-started/writing-on-github> (section links).
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let pages = pages(&root());
    let canonical = |path: &Path| path.canonicalize().ok();
    let anchors: BTreeMap<PathBuf, BTreeSet<String>> = pages
        .iter()
        .filter_map(|page| {
            let headings = page.prose.iter().filter(|line| line.starts_with('#'));
            let anchors = headings.map(|line| anchor(line.trim_start_matches('#')));
            Some((canonical(&page.path)?, anchors.collect()))
        })
        .collect();
    let (mut dead, mut count) = (Vec::new(), 0);
    for page in &pages {
        let links = page.prose.iter().flat_map(|line| line.split("](").skip(1));
        for link in links.filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.path.clone(),
                file => page.path.parent().expect("a file is in a directory").join(file),
            };
            let found = canonical(&target);
            let has_section = || {
                found
                    .as_ref()
                    .and_then(|path| anchors.get(path))
                    .is_some_and(|all| all.contains(section))
            };
            if found.is_none() || !section.is_empty() && !has_section() {
                dead.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
    assert!(count >= 50, "only {count} links were found");
}

/// What a program prints about itself, or about one of its commands.
fn help(program: &Path, command: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(command)
        .arg("--help")
        .output()
        .expect("it starts");
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The program that a command runs, and what it is told; nothing for programs of others.
fn invocation(command: &str) -> Option<(String, Vec<&str>)> {
    if let Some(run) = command.strip_prefix("cargo run --release -p ") {
        let (package, arguments) = run.split_once(" -- ")?;
        let program = package.split(' ').next()?.to_owned();
        return (!package.contains("--example")).then(|| (program, arguments.split_whitespace().collect()));
    }
    let command = command.strip_prefix("sudo -u headwater ").unwrap_or(command);
    let mut words = command.split_whitespace();
    let program = words.next()?;
    let is_ours = matches!(program, "headwater" | "headwater-server" | "headwater-bench");
    is_ours.then(|| (program.to_owned(), words.collect()))
}

#[test]
fn every_flag_in_the_documents_is_one_that_the_program_knows() {
    let programs = Path::new(env!("CARGO_BIN_EXE_headwater-bench"))
        .parent()
        .expect("it is in a directory");
    let (mut unknown, mut count) = (Vec::new(), 0);
    for page in current() {
        let commands = page.commands.iter().flat_map(|line| line.split([';', '|']));
        for (program, words) in commands.filter_map(|command| invocation(command.trim())) {
            let path = programs.join(&program);
            assert!(
                path.exists(),
                "{} is missing: run `cargo test --workspace`, which builds it",
                path.display()
            );
            // A command of a command, a command, or the program itself.
            let help = (0..=2.min(words.len())).rev().find_map(|depth| {
                let command = &words[..depth];
                let is_name =
                    |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
                command.iter().all(is_name).then(|| help(&path, command)).flatten()
            });
            let help = help.unwrap_or_else(|| panic!("{}: {program} {words:?}", page.path.display()));
            for flag in words.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
                count += 1;
                if !help
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                    .any(|word| word == *flag)
                {
                    unknown.push(format!("{}: {program} {} has no {flag}", page.path.display(), words[0]));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(count >= 30, "only {count} flags were found");
}

#[test]
fn every_key_in_the_documents_is_one_of_the_configuration() {
    let keys: BTreeSet<String> = Config::KNOBS.iter().map(headwater_server::config::Knob::name).collect();
    let is_section = |name: &str| Config::SECTIONS.iter().any(|(section, _)| *section == name);
    // Files are named like keys, and so are settings of Kafka.
    let is_key = |rest: &str| {
        !["rs", "json", "md", "messages", "protocol", "providers"].contains(&rest)
            && rest.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let (mut unknown, mut count) = (Vec::new(), 0);
    for page in current() {
        let quoted = page.prose.iter().flat_map(|line| line.split('`').skip(1).step_by(2));
        let set = page.commands.iter().flat_map(|line| line.split("--set ").skip(1));
        for name in quoted.chain(set).filter_map(|text| text.split(['=', ' ']).next()) {
            if name
                .split_once('.')
                .is_some_and(|(section, rest)| is_section(section) && is_key(rest))
            {
                count += 1;
                if !keys.contains(name) {
                    unknown.push(format!("{}: {name}", page.path.display()));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(count >= 100, "only {count} keys were found");
}
