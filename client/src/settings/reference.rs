//! The reference of all settings as a page of Markdown: `docs/client-settings.md`, which a test compares with this.

use std::fmt::Write as _;

use super::Part;
use super::foreign::FOREIGN;
use super::table::SETTINGS;

const HEAD: &str = "\
# Settings of the client

Every setting that `Client::builder().set(name, value)` knows, as the program knows them; in code there is a method for each, of the
client's builder or of that of a producer or consumer. This page is generated; to renew it, run

```sh
cargo run -p headwater-client --example client_settings > docs/client-settings.md
```

The names also work in a map (`set_all`) and in the environment (`set_from_env(\"HEADWATER_CLIENT_\")`): `linger`, `linger.ms` and
`HEADWATER_CLIENT_LINGER_MS` are one. Times are numbers of milliseconds or carry a unit (`5s`), sizes are numbers of bytes or carry one
(`8MiB`). A name that nobody knows is an error, as is one of Kafka's that has no meaning here.
";

/// Every setting with its names, its default and its meaning, as the page `docs/client-settings.md`.
pub fn settings_reference() -> String {
    let mut page = String::from(HEAD);
    for (part, title) in [
        (Part::Client, "The client"),
        (Part::Producer, "Producers"),
        (Part::Consumer, "Consumers"),
        (Part::Group, "Consumers in groups"),
    ] {
        let _ = write!(
            page,
            "\n## {title}\n\n| name | Kafka's name | default | |\n|---|---|---|---|\n"
        );
        for setting in SETTINGS.iter().filter(|setting| setting.part == part) {
            let kafka: Vec<_> = setting.kafka.iter().map(|name| format!("`{name}`")).collect();
            let default = match setting.default {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            let (name, meaning) = (setting.name, setting.meaning);
            let _ = writeln!(page, "| `{name}` | {} | {default} | {meaning} |", kafka.join(", "));
        }
    }
    page.push_str("\n## Kafka's names that have no meaning here\n\n| name | instead |\n|---|---|\n");
    for (names, instead) in FOREIGN {
        let names: Vec<_> = names
            .iter()
            .map(|name| {
                if name.ends_with('.') {
                    format!("`{name}*`")
                } else {
                    format!("`{name}`")
                }
            })
            .collect();
        let _ = writeln!(page, "| {} | {instead} |", names.join(", "));
    }
    page
}
