//! The walk-through of the documents does what it says.

use std::process::{Command, Stdio};

use super::site;
use crate::support::{run, skip};

const README: &str = include_str!("../../../../README.md");
const DOCUMENT: &str = include_str!("../../../../docs/rest.md");

/// Where the documents say that REST is.
const SHOWN: &str = "http://127.0.0.1:9680";

/// The blocks that are marked so, each with the block of text behind it, if one says what it prints.
fn blocks(text: &'static str) -> Vec<(&'static str, Option<&'static str>)> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once("```sh rest\n") {
        let (commands, behind) = behind.split_once("```\n").unwrap();
        let shown = behind.trim_start().strip_prefix("```json\n");
        blocks.push((commands, shown.map(|shown| shown.split_once("```").unwrap().0)));
        rest = behind;
    }
    blocks
}

#[test]
fn the_walk_through_with_curl_works_as_it_stands() {
    if Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        return skip("the_walk_through_with_curl", "there is no curl");
    }
    run(async {
        for (name, text) in [("README.md", README), ("docs/rest.md", DOCUMENT)] {
            let site = site();
            let broker = site.start();
            let blocks = blocks(text);
            assert!(blocks.len() > 1, "{name}");
            for (commands, shown) in blocks {
                let own = format!("http://{}", site.http_address());
                let script = commands.replace(SHOWN, &own);
                let ran = Command::new("bash")
                    .args(["-euo", "pipefail", "-c", &script])
                    .current_dir(site.directory().parent().unwrap())
                    .stdin(Stdio::null())
                    .output()
                    .unwrap();
                let printed = String::from_utf8_lossy(&ran.stdout);
                assert!(
                    ran.status.success(),
                    "{name}: {commands}\n{printed}\n{}",
                    String::from_utf8_lossy(&ran.stderr)
                );
                if let Some(shown) = shown {
                    assert_eq!(plain(&printed), plain(shown), "{name}: {commands}");
                }
            }
            broker.stop();
        }
    });
}

/// Without white space, and without what differs from run to run: times, and names that are drawn.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let text: String = text.split_whitespace().collect();
    let mut rest = text.as_str();
    while let Some((before, behind)) = rest.split_once("\"timestamp\":") {
        plain.push_str(before);
        plain.push_str("\"timestamp\":");
        rest = behind.trim_start_matches(|letter: char| letter.is_ascii_digit());
    }
    plain + rest
}
