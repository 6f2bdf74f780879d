//! The trace that a record belongs to: W3C's trace context (<https://www.w3.org/TR/trace-context/#traceparent-header>) in a header of the
//! record, by the name under which instrumentation of Kafka's clients looks for it. Nothing is recorded or sent here: that is for
//! the application's tracing library, whose ids this carries.

use std::{fmt, str};

/// Bytes of `00-<32 digits>-<16 digits>-<2 digits>`.
const LEN: usize = 55;

/// Where a record comes from in a trace. It goes with a record by [`Record::trace`](crate::Record::trace), and comes with one by
/// [`ConsumerRecord::trace`](crate::ConsumerRecord::trace).
///
/// ```
/// use headwater_client::{Record, TraceParent};
///
/// // Of the span that sends it, as the tracing library has it.
/// let parent = TraceParent::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7, true).expect("ids are not 0");
/// let record = Record::to("orders").value("one book").trace(&parent);
/// # let _ = record;
/// assert_eq!(parent.as_str(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
/// assert_eq!(TraceParent::parse(parent.as_str().as_bytes()), Some(parent));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// Digits and dashes.
    text: [u8; LEN],
}

impl TraceParent {
    /// The name of the header.
    pub const HEADER: &'static str = "traceparent";

    /// A span of a trace. `None`: an id is 0, which stands for none.
    pub fn new(trace_id: u128, span_id: u64, is_sampled: bool) -> Option<TraceParent> {
        let flags = u8::from(is_sampled);
        let text = format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}");
        TraceParent::parse(text.as_bytes())
    }

    /// Reads a header's value. `None`: it is no trace context. What a later version of the format has behind the four parts is left out.
    pub fn parse(value: &[u8]) -> Option<TraceParent> {
        let (text, rest) = value.split_first_chunk::<LEN>()?;
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_formed = text.iter().enumerate().all(|(at, byte)| match at {
            2 | 35 | 52 => *byte == b'-',
            _ => is_digit(byte),
        });
        let has_ids = [&text[3..35], &text[36..52]]
            .iter()
            .all(|id| id.iter().any(|digit| *digit != b'0'));
        let is_known = match &text[..2] {
            b"ff" => false,
            b"00" => rest.is_empty(),
            _ => rest.is_empty() || rest[0] == b'-',
        };
        if !(is_formed && has_ids && is_known) {
            return None;
        }
        let mut text = *text;
        text[..2].copy_from_slice(b"00");
        Some(TraceParent { text })
    }

    /// Another span of the same trace, such as one that handles the record. `None`: its id is 0.
    pub fn child(&self, span_id: u64) -> Option<TraceParent> {
        TraceParent::new(self.trace_id(), span_id, self.is_sampled())
    }

    /// The trace.
    pub fn trace_id(&self) -> u128 {
        self.number(3, 35)
    }

    /// The span in it.
    pub fn span_id(&self) -> u64 {
        self.number(36, 52) as u64
    }

    /// Whether the trace may be recorded.
    pub fn is_sampled(&self) -> bool {
        self.number(53, LEN) & 1 == 1
    }

    /// As the header has it.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.text).unwrap_or_default()
    }

    fn number(&self, from: usize, to: usize) -> u128 {
        u128::from_str_radix(&self.as_str()[from..to], 16).unwrap_or_default()
    }
}

impl AsRef<[u8]> for TraceParent {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceParent({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_what_was_written() {
        let parent = TraceParent::parse(VALID.as_bytes()).unwrap();
        assert_eq!(parent.to_string(), VALID);
        assert_eq!(parent.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(parent.span_id(), 0x00f0_67aa_0ba9_02b7);
        assert!(parent.is_sampled());
        let child = parent.child(7).unwrap();
        assert_eq!(
            (child.trace_id(), child.span_id(), child.is_sampled()),
            (parent.trace_id(), 7, true)
        );
        assert!(!TraceParent::new(1, 1, false).unwrap().is_sampled());
        assert_eq!(
            (TraceParent::new(0, 1, true), TraceParent::new(1, 0, true)),
            (None, None)
        );
    }

    #[test]
    fn what_is_no_trace_context_is_none() {
        let mut wrong: Vec<String> = (0..LEN).map(|at| VALID[..at].to_owned()).collect();
        // Each place spoilt: a digit that is none, or a dash that is missing.
        wrong.extend((0..LEN).map(|at| format!("{}X{}", &VALID[..at], &VALID[at + 1..])));
        wrong.push(VALID.to_uppercase());
        wrong.push(VALID.replacen("00", "ff", 1));
        wrong.push(format!("{VALID}-more"));
        wrong.push(VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)));
        wrong.push(VALID.replace("00f067aa0ba902b7", &"0".repeat(16)));
        for value in wrong {
            assert_eq!(TraceParent::parse(value.as_bytes()), None, "{value}");
        }
        let later = format!("{}-more", VALID.replacen("00", "cc", 1));
        assert_eq!(TraceParent::parse(later.as_bytes()).unwrap().as_str(), VALID);
        let joined = format!("{}more", VALID.replacen("00", "cc", 1));
        assert_eq!(TraceParent::parse(joined.as_bytes()), None);
    }
}
