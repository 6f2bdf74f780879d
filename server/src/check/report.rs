//! The report of `headwater-server check`: as a table and a list of what to change for people, as one JSON object for
//! programs. The same findings in both.

use std::fmt::Write as _;

use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;

use super::facts::{Asked, DirectoryFacts, Facts};
use super::finding::{Finding, Verdict};
use super::item::{ITEMS, Section};
use super::network::open::{Open, open};
use super::root::{Root, counted};
use crate::config::Config;

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// False if something forbids that the broker starts.
    pub starts: bool,
    /// False if something must change, be it for safety, for speed or to start at all.
    pub passed: bool,
    /// One for each item, in the order of [`ITEMS`].
    pub items: Vec<Row>,
    /// What is open to others, a row each.
    pub open: Vec<Open>,
}

/// An item and what was found.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Where it belongs.
    pub section: Section,
    /// Its name, as in `tuning.md`.
    pub name: &'static str,
    /// What is thought of it.
    #[serde(flatten)]
    pub finding: Finding,
}

impl Report {
    /// Looks at this machine. Changes nothing: no limit is raised, no directory made, no lock taken. To try direct I/O, a
    /// file without a name is written in the data directory, or the nearest one above that exists.
    pub fn look(config: &Config) -> Self {
        let directory = DirectoryFacts::look(&config.log.directory);
        let facts = Facts::gather(&Root::machine(), Asked::now(), directory).with_files_of(config);
        Self::of(&facts, config)
    }

    pub(super) fn of(facts: &Facts, config: &Config) -> Self {
        let row = |item: &super::Item| Row {
            section: item.section,
            name: item.name,
            finding: item.judge(facts, config),
        };
        let items: Vec<Row> = ITEMS.iter().map(row).collect();
        let none = |is: fn(Verdict) -> bool| !items.iter().any(|row| is(row.finding.verdict));
        Self {
            starts: none(|verdict| verdict == Verdict::ForbidsStart),
            passed: none(Verdict::must_change),
            items,
            open: open(&facts.open, config),
        }
    }

    /// One line.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// The table, then what to change, the most important first, then the conclusion. On a terminal, the table is folded
    /// to its width.
    pub fn text(&self, is_terminal: bool) -> String {
        let mut table = self.table();
        if !is_terminal {
            table.force_no_tty();
        }
        let mut text = format!("{table}\n");
        if !self.open.is_empty() {
            let mut open = empty_table(["code", "what is open", "what to do"]);
            for Open { code, what, remedy } in &self.open {
                open.add_row([*code, what, remedy].map(Cell::new));
            }
            if !is_terminal {
                open.force_no_tty();
            }
            let _ = writeln!(
                text,
                "\nOpen to others, as \"What is open\" in docs/security.md has it:\n{open}"
            );
        }
        for (verdict, title) in [
            (Verdict::ForbidsStart, "Must change before the broker starts"),
            (Verdict::MustChange, "Must change"),
            (Verdict::CouldBeBetter, "Could be better"),
        ] {
            let rows: Vec<&Row> = self.with(verdict).collect();
            if !rows.is_empty() {
                let _ = writeln!(text, "\n{title}:");
            }
            for Row { name, finding, .. } in rows {
                let _ = writeln!(text, "  {name}: {}.", finding.why);
                if let Some(command) = &finding.command {
                    let _ = writeln!(text, "    # {command}");
                }
                if let Some(advice) = &finding.advice {
                    let or = if finding.command.is_some() { "or " } else { "" };
                    let _ = writeln!(text, "    {or}{advice}");
                }
            }
        }
        let _ = writeln!(text, "\n{}", self.conclusion());
        text
    }

    fn with(&self, verdict: Verdict) -> impl Iterator<Item = &Row> {
        self.items.iter().filter(move |row| row.finding.verdict == verdict)
    }

    fn table(&self) -> Table {
        let mut table = empty_table(["item", "found", "recommended", "verdict"]);
        for Row { name, finding, .. } in &self.items {
            let Finding {
                value,
                recommended,
                verdict,
                ..
            } = finding;
            table.add_row([*name, value, recommended, verdict.words()].map(Cell::new));
        }
        table
    }

    fn conclusion(&self) -> String {
        let count = |is: fn(Verdict) -> bool| {
            let rows = self.items.iter().filter(|row| is(row.finding.verdict));
            rows.count() as u64
        };
        let must = count(Verdict::must_change);
        let better = count(|verdict| verdict == Verdict::CouldBeBetter);
        let forbids = count(|verdict| verdict == Verdict::ForbidsStart);
        let verdict = match (must, forbids) {
            (0, _) => "Nothing must change".to_owned(),
            (must, 0) => format!("{} must change", counted(must, "item")),
            (must, forbids) if forbids == must => {
                format!("{} must change before the broker starts", counted(must, "item"))
            }
            (must, forbids) => format!(
                "{} must change, {forbids} of them before the broker starts",
                counted(must, "item")
            ),
        };
        let mut text = format!("{verdict}; {better} could be better. Nothing was changed.");
        if must + better > 0 {
            text.push_str(
                "\nCommands (#) are for root and hold until the next boot; \"The machine\" in tuning.md says why, and how to keep them.",
            );
        }
        text
    }
}

fn empty_table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}
