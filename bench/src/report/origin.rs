//! When a command was run, and how it was called: so that it can be run once more.

use std::time::SystemTime;

use serde::Serialize;

/// Where a result comes from.
#[derive(Debug, Clone, Serialize)]
pub struct Origin {
    /// In UTC, as RFC 3339 has it.
    pub date: String,
    /// As it can be given to a shell.
    pub command: String,
}

impl Origin {
    /// This process, now.
    pub fn here() -> Self {
        let arguments = std::env::args_os().skip(1);
        let words = arguments.map(|word| quoted(&word.to_string_lossy()));
        let command: Vec<_> = std::iter::once(env!("CARGO_PKG_NAME").to_owned())
            .chain(words)
            .collect();
        Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command: command.join(" "),
        }
    }
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+:,./@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_the_words_of_a_command_as_they_were() {
        for word in ["plain-1.5:x=y,z", "", "two words", "it's", "$HOME", "a\nb", "*", "\\"] {
            let echo = format!("printf %s {}", quoted(word));
            let said = std::process::Command::new("sh").args(["-c", &echo]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), word);
        }
        assert_eq!(quoted("--rate=10"), "--rate=10");
    }
}
