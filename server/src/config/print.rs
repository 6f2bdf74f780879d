//! `--print-config`: the effective configuration as a TOML file with the text of each key above it.
//!
//! The output is itself a configuration file that reads back to the same values; it is also how a user gets a first
//! file to edit.

use std::fmt::Write as _;

use super::{Config, Effective, Knob, Source};

/// Comments are wrapped so that a line stays within this many characters.
const LINE_LENGTH_MAX: usize = 100;

impl Effective {
    /// The configuration as TOML, with comments.
    pub fn to_toml(&self) -> String {
        let mut out = String::from("# Configuration of headwater-server.\n");
        for (section, doc) in Config::SECTIONS {
            out.push('\n');
            comment(&mut out, doc);
            let _ = writeln!(out, "[{section}]");
            for knob in Config::KNOBS.iter().filter(|knob| knob.section == *section) {
                self.print(&mut out, knob);
            }
        }
        out
    }

    fn print(&self, out: &mut String, knob: &Knob) {
        let value = knob.value(&self.config);
        comment(out, knob.doc);
        if !knob.advice.is_empty() {
            comment(out, knob.advice);
        }
        let default = knob.value(&Config::default()).toml();
        let allowed = knob.allowed(&self.config);
        let allowed = if allowed.is_empty() {
            allowed
        } else {
            format!(" Allowed: {allowed}.")
        };
        comment(out, &format!("Default: {default}.{allowed}"));
        let _ = match self.sources.of(&knob.name()) {
            Source::Default => writeln!(out, "{} = {}", knob.key, value.toml()),
            source => {
                // A path may hold any character, but a comment ends with the line.
                let source = source.to_string().replace(char::is_control, "?");
                writeln!(out, "{} = {}  # from {source}", knob.key, value.toml())
            }
        };
    }
}

/// Adds a text as a comment, in lines of a length that can be read.
pub(crate) fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > LINE_LENGTH_MAX {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}
