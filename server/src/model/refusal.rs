//! Why something is not done, in the words that a client is told.

use std::fmt::{self, Write as _};

use headwater_protocol::error::ErrorCode;

use super::records::RefusedRecords;

/// An error for a client: a code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    /// Of records.
    pub(crate) refused: Option<Box<RefusedRecords>>,
}

/// Longest message in bytes. Messages quote what the client sent, which may be megabytes.
const MESSAGE_LEN_MAX: usize = 1024;

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl fmt::Display) -> Refusal {
        let mut start = Start(String::new());
        if write!(start, "{message}").is_err() {
            start.0.push('…');
        }
        Refusal {
            code,
            message: start.0,
            refused: None,
        }
    }

    /// What went wrong, in the words of the error.
    pub(crate) fn because(code: ErrorCode, error: &dyn std::error::Error) -> Refusal {
        Refusal::new(code, error)
    }

    /// The same of records of which more is known.
    pub(crate) fn of(self, refused: RefusedRecords) -> Refusal {
        let refused = Some(Box::new(refused));
        Refusal { refused, ..self }
    }

    /// The other core has ended, which it only does when the broker stops.
    pub(crate) fn stopping() -> Refusal {
        Refusal::new(ErrorCode::NotLeaderOrFollower, "the broker is stopping")
    }
}

/// The start of a text, as much of it as a message may have; what would come behind it is never written out.
struct Start(String);

impl fmt::Write for Start {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MESSAGE_LEN_MAX - self.0.len();
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A name as it is quoted: six bytes for each of these, and it counts how many were asked for.
    struct Quoted<'a>(usize, &'a Cell<usize>);

    impl fmt::Display for Quoted<'_> {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            (0..self.0).try_for_each(|_| {
                self.1.set(self.1.get() + 1);
                formatter.write_str("\\u{1é}")
            })
        }
    }

    #[test]
    fn a_message_ends_where_nobody_would_read_on_and_the_rest_is_never_written() {
        let refused = |count: usize| {
            let asked = Cell::new(0);
            let message = Refusal::new(ErrorCode::InvalidConfig, Quoted(count, &asked)).message;
            (message, asked.get())
        };
        let piece = "\\u{1é}".len();
        let whole = MESSAGE_LEN_MAX / piece;
        assert_eq!(refused(whole), ("\\u{1é}".repeat(whole), whole));
        let (message, asked) = refused(1 << 20);
        assert_eq!(asked, whole + 1);
        let text = message.strip_suffix('…').unwrap();
        assert!(
            text.len() <= MESSAGE_LEN_MAX && text.starts_with(&"\\u{1é}".repeat(whole)),
            "{message}"
        );
    }
}
