//! Text for people: tables, and lines with a title, which are broken at words where a terminal would break them anywhere.

use comfy_table::Table;

/// Wider than this nobody reads.
const WIDTH_MAX: usize = 120;

/// Narrower than this there is no use in breaking lines.
const WIDTH_MIN: usize = 40;

/// The width of the titles of lines.
const TITLE: usize = 9;

/// What is printed at the end.
#[derive(Debug)]
pub struct Text {
    text: String,
    width: Option<usize>,
}

impl Text {
    /// For standard output: as wide as the terminal, and with whole lines where there is none.
    pub fn for_output() -> Self {
        let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
        Self::of_width(width)
    }

    /// So many columns wide.
    pub fn of_width(width: Option<usize>) -> Self {
        Self {
            text: String::new(),
            width: width.map(|width| width.clamp(WIDTH_MIN, WIDTH_MAX)),
        }
    }

    /// Adds a table, with nothing around its lines and two spaces between its columns.
    pub fn table(&mut self, mut table: Table) {
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.lines() {
            self.push(line.trim_end());
        }
    }

    /// Adds a line with its title.
    pub fn line(&mut self, title: &str, content: &str) {
        self.wrapped(&format!("{title:<TITLE$} {content}"), TITLE + 1);
    }

    /// Adds a sentence on a line of its own.
    pub fn prose(&mut self, sentence: &str) {
        self.wrapped(sentence, 2);
    }

    /// Adds an empty line.
    pub fn gap(&mut self) {
        self.push("");
    }

    fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn wrapped(&mut self, line: &str, indent: usize) {
        let Some(width) = self.width else {
            return self.push(line);
        };
        let mut rest = line.to_owned();
        while let Some(place) = break_of(&rest, width, indent) {
            self.push(rest[..place].trim_end());
            rest = format!("{:indent$}{}", "", rest[place..].trim_start());
        }
        self.push(&rest);
    }

    /// All of it; the last line is ended.
    pub fn finish(self) -> String {
        self.text
    }
}

/// Where a line that is too long is to be broken: at the last space that fits, beyond the indent.
fn break_of(line: &str, width: usize, indent: usize) -> Option<usize> {
    let (end, _) = line.char_indices().nth(width)?;
    let (beyond, _) = line.char_indices().nth(indent)?;
    let space = line[beyond..]
        .char_indices()
        .map(|(place, letter)| (place + beyond, letter))
        .filter(|(_, letter)| *letter == ' ');
    let fits = space.clone().take_while(|(place, _)| *place <= end).last();
    // A word that is too long for any line stays whole.
    fits.or_else(|| space.clone().next())
        .map(|(place, _)| place)
        .filter(|&place| place > beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_go_on_below_their_content() {
        let mut text = Text::of_width(Some(40));
        text.line("verified", "1000 records: 0 lost, 0 duplicated, 0 reordered, 0 corrupt");
        text.line("note", "short");
        text.prose("/a/path/that/is/longer/than/any/line/can/be and more");
        assert_eq!(
            text.finish(),
            "verified  1000 records: 0 lost, 0\n          duplicated, 0 reordered, 0\n          corrupt\nnote      short\n\
             /a/path/that/is/longer/than/any/line/can/be\n  and more\n"
        );
    }

    #[test]
    fn without_a_terminal_lines_stay_whole() {
        let mut text = Text::of_width(None);
        let long = "word ".repeat(100);
        text.line("note", long.trim_end());
        assert_eq!(text.finish().lines().count(), 1);
    }
}
