#!/usr/bin/env bash
# prometheus-parse, version 0.2.5 (crates.io): samples of a valid exposition are lost or altered without an error.
#
# Guess before the run: what the text format of Prometheus 0.0.4 allows in a label's value (braces, commas, escaped quotes and
# backslashes) comes back as it was written, or the parser says that it cannot read the line.
# Seen: `Scrape::parse` returns Ok. The sample with braces in a label's value is gone, so is one whose name has a colon (a recording
# rule's), and one with blanks around braces; a value ends at its first comma; escapes stay as they were written, and an escaped quote
# loses its last character; a value with both quotes and a comma loses the label.
# So a label value that comes from outside (a path, a route, a client's name) can make a counter vanish from whoever reads with it.
#
# Needs cargo. Fails if the behaviour changes.
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
prometheus-parse = "=0.2.5"
[workspace]
TOML
cat >"$folder/src/main.rs" <<'RUST'
fn main() {
    let text = r#"# TYPE a_total counter
a_total{path="plain"} 1
a_total{path="/x/{id}"} 2
a_total{path="a,b"} 3
a_total{path="say \"hi\""} 4
a_total{path="C:\\dir"} 5
a_total{path="k=\"v\",z"} 6
a_total { path = "blanks" } 7
job:a_total:sum{path="colon"} 8
"#;
    let lines = text.lines().map(|line| Ok::<_, std::io::Error>(line.to_owned()));
    for sample in prometheus_parse::Scrape::parse(lines).expect("no error is reported").samples {
        println!("{} {} {:?}", sample.metric, sample.labels.get("path").unwrap_or("-"), sample.value);
    }
}
RUST
seen=$(cd "$folder" && cargo run --quiet)
expected='a_total plain Counter(1.0)
a_total a Counter(3.0)
a_total say \"hi\ Counter(4.0)
a_total C:\\dir Counter(5.0)
a_total - Counter(6.0)'
printf '%s\n' "$seen"
if [[ "$seen" != "$expected" ]]; then
    printf 'The behaviour has changed; it was:\n%s\n' "$expected" >&2
    exit 1
fi
echo "As found: of eight samples three are gone and four altered, and no error."
