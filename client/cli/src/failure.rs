//! What ends a command early: a message, what to do next, and the exit code that scripts can use.

use std::io;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use headwater_client::{Error, ErrorCode};

use crate::values::escaped_text;

/// The exit codes, as every `--help` has them.
pub const EXIT_CODES: &str = "\
Exit status: 0 done; 1 failed here (a file, an input line); 2 wrong usage; 3 topic, partition, group or offset not found; \
4 cannot connect, or no answer in time; 5 refused by the broker; 6 damage found in a log's files; 130 interrupted by Ctrl-C.";

/// Who is at fault, as the exit code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Whoever read the output has what it wanted.
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Connection = 4,
    Refused = 5,
    Damaged = 6,
    Interrupted = 130,
}

/// Why a command ends early.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            kind,
            message,
            hint: None,
        }
    }

    /// Something on this side: a file, a line of the input.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Options that do not go together, or not with what is there.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// What was named is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Nobody answers.
    pub fn connection(message: impl Into<String>) -> Self {
        Self::new(Kind::Connection, message)
    }

    /// Files are not what was written.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(Kind::Damaged, message)
    }

    /// Ctrl-C: nothing is said.
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "")
    }

    /// Whether it was Ctrl-C.
    pub fn is_interruption(&self) -> bool {
        self.kind == Kind::Interrupted
    }

    /// Whether what was named is not there.
    pub fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    /// Whether nobody answered, which may be different next time.
    pub fn is_connection(&self) -> bool {
        self.kind == Kind::Connection
    }

    /// What went wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure, with where it happened.
    pub fn at(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// A call of the client that failed while `doing` this.
    pub fn client(doing: &str, error: &Error) -> Self {
        let kind = kind_of(error);
        let failure = Self::new(kind, format!("cannot {doing}: {}", chain(error)));
        if let Some(host) = advertised(error) {
            return failure.hint(format!(
                "the broker sends its clients to {host}: set broker.advertised_host to a name by which they reach it"
            ));
        }
        match (kind, error.code()) {
            (Kind::Connection, _) => failure.hint(CONNECTION_HINT),
            (_, Some(ErrorCode::InvalidConfig)) => {
                failure.hint("`headwater config topic NAME` shows every setting of a topic that exists with its value")
            }
            (_, Some(ErrorCode::UnsupportedVersion)) => {
                failure.hint("this broker is older than this program; `headwater config` tells its version if it can")
            }
            (_, Some(ErrorCode::NonEmptyGroup | ErrorCode::UnknownMemberId)) => {
                failure.hint("stop the group's members first; `headwater group describe GROUP` shows who they are")
            }
            (_, Some(ErrorCode::GroupSubscribedToTopic)) => failure.hint(
                "stop the members that consume the topic first; `headwater group describe GROUP` shows who they are",
            ),
            (_, Some(ErrorCode::GroupIdNotFound)) => failure.hint("`headwater group list` lists the groups there are"),
            (_, Some(ErrorCode::MessageTooLarge)) => {
                failure.hint("`headwater topic alter NAME --set max.message.bytes=…` raises the limit of a topic")
            }
            (_, Some(ErrorCode::InvalidRecord)) => failure.hint("a compacted topic needs a key on every record"),
            (_, Some(ErrorCode::CoordinatorNotAvailable)) => {
                failure.hint("`headwater cluster status` shows which members of the coordinator quorum answer")
            }
            (Kind::Refused, Some(_)) => failure.hint("the broker's log may tell more"),
            _ => failure,
        }
    }

    /// Says what went wrong on standard error.
    pub fn report(self) -> ExitCode {
        let Self { kind, message, hint } = self;
        if !matches!(kind, Kind::Done | Kind::Interrupted) {
            let (red, cyan) = (AnsiColor::Red.on_default().bold(), AnsiColor::Cyan.on_default());
            say("error", red, &message);
            if let Some(hint) = hint {
                say("hint", cyan, &hint);
            }
        }
        ExitCode::from(kind as u8)
    }
}

/// What to do when nobody answers.
pub const CONNECTION_HINT: &str =
    "check that a broker runs there, or name another with --server HOST:PORT or HEADWATER_SERVER";

/// What to do when TLS cannot be agreed on.
pub const TLS_HINT: &str =
    "the options are --tls-ca, --tls-certificate with --tls-key, and --tls-server-name; docs/operate.md has an example";

/// One line on standard error, in colour where that is a terminal; nobody hears if it cannot be written.
fn say(title: &str, style: Style, text: &str) {
    anstream::eprintln!("{style}{title}:{style:#} {}", escaped_text(text));
}

impl From<io::Error> for Failure {
    /// Of standard output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Kind::Done, ""),
            _ => Self::failed(format!("cannot write to standard output: {error}")),
        }
    }
}

fn kind_of(error: &Error) -> Kind {
    match error {
        Error::UnknownTopic(_)
        | Error::UnknownPartition { .. }
        | Error::OffsetOutOfRange { .. }
        | Error::Broker {
            code: ErrorCode::GroupIdNotFound | ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId,
            ..
        } => Kind::NotFound,
        Error::Timeout { last: Some(last), .. } => kind_of(last),
        Error::Connect { .. }
        | Error::NotHeadwater { .. }
        | Error::Disconnected { .. }
        | Error::NoLeader { .. }
        | Error::Timeout { last: None, .. } => Kind::Connection,
        Error::Config { .. }
        | Error::UnknownSetting { .. }
        | Error::ForeignSetting { .. }
        | Error::IllegalTopicName { .. } => Kind::Usage,
        Error::IllegalRecord { .. } => Kind::Failed,
        _ => Kind::Refused,
    }
}

/// The host that could not be reached, if the broker has named it.
fn advertised(error: &Error) -> Option<&str> {
    match error {
        Error::Connect {
            address,
            is_advertised: true,
            ..
        } => Some(address.host()),
        Error::Timeout { last: Some(last), .. } => advertised(last),
        _ => None,
    }
}

/// The error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use headwater_client::{PartitionIndex, Sign, TopicName};

    use super::*;

    fn broker(code: ErrorCode) -> Error {
        let message = Arc::from("");
        Error::Broker { code, message }
    }

    fn timeout(last: Option<Error>) -> Error {
        Error::Timeout {
            operation: "test",
            limit: Duration::from_secs(1),
            last: last.map(Box::new),
        }
    }

    #[test]
    fn every_error_of_the_client_has_the_exit_code_that_the_help_promises() {
        let topic = TopicName::new("t").unwrap();
        let partition = PartitionIndex::new(7);
        let no_partition = Error::UnknownPartition {
            topic: topic.clone(),
            partition,
            partitions: 1,
        };
        let no_leader = Error::NoLeader {
            topic: topic.clone(),
            partition,
        };
        let too_large = Error::RecordTooLarge {
            topic: topic.clone(),
            size: 2,
            size_max: 1,
        };
        let config = Error::Config {
            setting: "s",
            reason: String::new(),
        };
        let stranger = Error::NotHeadwater {
            address: "broker".parse().unwrap(),
            sign: Sign::Closes,
        };
        for (error, code) in [
            (stranger, 4),
            (too_large, 5),
            (config, 2),
            (Error::UnknownTopic(topic), 3),
            (no_partition, 3),
            (broker(ErrorCode::GroupIdNotFound), 3),
            (broker(ErrorCode::UnknownTopicOrPartition), 3),
            (broker(ErrorCode::UnknownTopicId), 3),
            (timeout(Some(broker(ErrorCode::UnknownTopicOrPartition))), 3),
            (no_leader, 4),
            (timeout(None), 4),
            (broker(ErrorCode::NonEmptyGroup), 5),
            (timeout(Some(broker(ErrorCode::KafkaStorageError))), 5),
            (Error::Closed, 5),
        ] {
            let failure = Failure::client("test", &error);
            assert_eq!(failure.kind as u8, code, "{error:?}");
            assert_eq!(failure.hint.as_deref() == Some(CONNECTION_HINT), code == 4, "{error:?}");
        }
    }
}
