//! The README's section on the command line is true.

use std::process::{Command, Stdio};

use crate::support::{Site, ran};

const README: &str = include_str!("../../../../README.md");

#[test]
fn the_lines_of_the_readme_work_as_they_stand() {
    let site = Site::start();
    let block = README
        .split_once("```sh command-line\n")
        .and_then(|(_, rest)| rest.split_once("```"));
    let (lines, _) = block.expect("the README has a section on the command line");
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_headwater"));
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut outputs = Vec::new();
    for line in lines.lines() {
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .env("PATH", &path)
            .env("HEADWATER_SERVER", site.address());
        let ran = ran(command
            .stdin(Stdio::null())
            .current_dir(site.directory())
            .output()
            .unwrap());
        outputs.push(ran.ok(&[line]));
    }
    assert!(outputs.len() >= 6, "only {} lines", outputs.len());
    assert!(
        outputs[2].contains("Ada: one book") && outputs[2].lines().count() == 2,
        "{}",
        outputs[2]
    );
}
