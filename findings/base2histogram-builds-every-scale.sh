#!/usr/bin/env bash
# base2histogram, version 0.2.3 (crates.io), on which openraft 0.10.0-alpha.37 depends: one histogram costs 26 MiB.
#
# Guess before the run: a histogram of the default width (3 bits), with its 252 buckets, and a table of where each begins, takes a few KiB.
# Seen: the first histogram makes the tables of all sixteen widths that there are, the widest with 1.6 million entries of 8 bytes;
# they stay for as long as the process runs. Whoever starts a Raft node of openraft has them, with the feature `runtime-stats` or without.
#
# Needs cargo and /proc. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
base2histogram = "=0.2.3"
[workspace]
TOML
cat >"$folder/src/main.rs" <<'RUST'
use base2histogram::Histogram;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn main() {
    let before = resident_kib();
    let mut first: Histogram = Histogram::new();
    first.record(1);
    let with_one = resident_kib();
    let mut more: Vec<Histogram> = (0..100).map(|_| Histogram::new()).collect();
    more.iter_mut().for_each(|histogram| histogram.record(1));
    let mib = |kib: u64| (kib + 512) / 1024;
    println!("the first histogram: {} MiB", mib(with_one - before));
    println!("100 more: {} MiB", mib(resident_kib() - with_one));
}
RUST
seen=$(cd "$folder" && cargo run --quiet --release)
printf '%s\n' "$seen"
first=$(sed -n 's/^the first histogram: \([0-9]*\) MiB$/\1/p' <<<"$seen")
more=$(sed -n 's/^100 more: \([0-9]*\) MiB$/\1/p' <<<"$seen")
if ((first < 20 || more > 1)); then
    echo "The behaviour has changed; it was 26 MiB for the first and 0 for 100 more." >&2
    exit 1
fi
echo "As found: the first histogram makes tables of 26 MiB."
