//! The reference of all keys as a page of Markdown: `docs/settings.md`, which a test compares with this.

use std::fmt::Write as _;

use super::{Config, Knob};

const HEAD: &str = "\
# Settings

Every key of `headwater-server`, as the program knows them. This page is generated; to renew it, run

```sh
cargo run -p headwater-server --example settings > docs/settings.md
```

`headwater-server --print-config` prints the same for a running configuration, with the source of each value, as a file to edit.
[tuning.md](../tuning.md) says which few keys matter for what.

A key is set in the TOML file that `--config` names, in the environment, or by a flag; the later of these wins:

```text
[log]
segment_size_bytes = \"512MiB\"                       # in the file
HEADWATER_LOG_SEGMENT_SIZE_BYTES=512MiB             # in the environment
--set log.segment_size_bytes=512MiB                 # as a flag
```

Sizes are plain numbers of bytes or carry a unit (`64MiB`, `1GiB`, `100MB`). Times are plain numbers in the unit that the key ends
with, or carry one (`50us`, `10ms`, `7d`).
";

/// Every key with its default, its range, what it does and when to move it.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    for (section, doc) in Config::SECTIONS {
        let _ = write!(out, "\n## {section}\n\n{doc}\n\n");
        out.push_str("| key | default | allowed | what it does | when to move it |\n|---|---|---|---|---|\n");
        for knob in Config::KNOBS.iter().filter(|knob| knob.section == *section) {
            row(&mut out, knob);
        }
    }
    out
}

fn row(out: &mut String, knob: &Knob) {
    let default = Config::default();
    let value = match knob.value(&default).show() {
        empty if empty.is_empty() => "\"\"".to_owned(),
        value => value,
    };
    let (name, allowed) = (knob.name(), knob.allowed(&default));
    let _ = writeln!(
        out,
        "| `{name}` | `{value}` | {allowed} | {} | {} |",
        knob.doc, knob.advice
    );
}
