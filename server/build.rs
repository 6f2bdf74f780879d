//! Tells the program which commit it was built from. Without git, or outside a work tree, it says nothing; nor does it in builds
//! for development, which would be made anew at every commit.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo names the version of every package that it builds");
    let Some(commit) = commit() else {
        println!("cargo::rustc-env=HEADWATER_VERSION={version}");
        return;
    };
    println!("cargo::rustc-env=HEADWATER_COMMIT={commit}");
    println!("cargo::rustc-env=HEADWATER_VERSION={version} ({commit})");
}

fn commit() -> Option<String> {
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return None;
    }
    // Changes with every commit and checkout.
    let log = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={log}");
    git(&["rev-parse", "--short=12", "HEAD"])
}
