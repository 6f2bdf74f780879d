//! What a command prints on standard output: a table for people or JSON for scripts, coloured only on a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::args::Output;
use crate::failure::Failure;
use crate::values;

/// Where results go, and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    output: Output,
    /// Results are shown again and again, with so much time between them.
    repeats: Option<Duration>,
}

/// Goes to the first place of a terminal, and clears it from there on.
const REDRAW: &str = "\x1b[H\x1b[J";

impl Screen {
    pub fn new(output: Output) -> Self {
        Self { output, repeats: None }
    }

    /// The same for a result that is shown again and again: each in the place of the last one on a terminal, and one after the
    /// other in a pipe.
    pub fn repeating(self, interval: Duration) -> Self {
        let repeats = Some(interval);
        Self { repeats, ..self }
    }

    pub fn is_json(self) -> bool {
        self.output == Output::Json
    }

    /// Prints the one or the other. Text ends with a line end.
    pub fn show(self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        let is_terminal = stdout.is_terminal();
        let text = match self.output {
            Output::Table => text(),
            Output::Json if is_terminal => values::escaped_json(&format!("{:#}\n", json())),
            Output::Json => format!("{}\n", json()),
        };
        let text = match (self.repeats, self.output) {
            (Some(interval), _) if is_terminal => format!("{REDRAW}{}", frame(interval, &text)),
            (Some(_), Output::Table) => format!("{text}\n"),
            _ => text,
        };
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }
}

/// What a terminal has room for, under a line that says when it was.
fn frame(interval: Duration, text: &str) -> String {
    let now = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
    let every = humantime::format_duration(interval);
    let title = format!("{now}, every {every} until Ctrl-C\n\n");
    // Two lines of the title, and the one where the cursor is.
    let height = terminal_size::terminal_size().map_or(usize::MAX, |(_, height)| height.0.saturating_sub(3).into());
    let count = text.lines().count();
    if count <= height {
        return title + text;
    }
    let shown = height.saturating_sub(1);
    let more = values::count((count - shown) as u64, "more line");
    title + &values::lines(text.lines().take(shown)) + &format!("({more})\n")
}

/// Says something that is not a result: on standard error, so that no program takes it for one.
pub fn note(text: &str) {
    anstream::eprintln!("note: {}", values::escaped_text(text));
}

/// Whether standard output is a terminal, which obeys some of what it is given.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Text of others in a table. A place with nothing in it is not left empty, so that every line has all of its columns.
fn cell(text: &str) -> Cell {
    if text.is_empty() {
        Cell::new("-")
    } else if is_terminal() {
        Cell::new(values::escaped_text(text))
    } else {
        Cell::new(text)
    }
}

/// Rows under a header. A column whose title begins with `>` holds figures, which stand to the right.
#[derive(Debug)]
pub struct Rows {
    table: Table,
    alignments: Vec<CellAlignment>,
}

impl Rows {
    pub fn new<const N: usize>(titles: [&str; N]) -> Self {
        let mut table = plain();
        let alignments: Vec<_> = titles.iter().map(|title| alignment(title)).collect();
        let header = titles.iter().zip(&alignments).map(|(title, alignment)| {
            let cell = Cell::new(title.trim_start_matches('>')).set_alignment(*alignment);
            if has_colours() {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        });
        table.set_header(header);
        Self { table, alignments }
    }

    pub fn add<const N: usize>(&mut self, row: [String; N]) {
        let cells = row.into_iter().zip(&self.alignments);
        self.table
            .add_row(cells.map(|(text, alignment)| cell(&text).set_alignment(*alignment)));
    }

    /// The table with the end of its last line.
    pub fn text(mut self) -> String {
        trimmed(&mut self.table)
    }
}

/// Names and what belongs to each, one a line.
pub fn facts(facts: &[(&str, String)]) -> String {
    let mut table = plain();
    for (name, value) in facts {
        let name = Cell::new(name);
        let name = if has_colours() {
            name.add_attribute(Attribute::Bold)
        } else {
            name
        };
        table.add_row([name, cell(value)]);
    }
    trimmed(&mut table)
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn alignment(title: &str) -> CellAlignment {
    if title.starts_with('>') {
        CellAlignment::Right
    } else {
        CellAlignment::Left
    }
}

/// The table with nothing around its lines, and two spaces between its columns.
fn trimmed(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    values::lines(table.lines().map(|line| line.trim_end().to_owned()))
}

/// Whether standard output is a terminal that wants colours (<https://no-color.org>).
fn has_colours() -> bool {
    anstream::stdout().is_terminal() && anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}
