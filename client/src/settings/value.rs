//! How values are written: times and sizes as plain numbers, as Kafka has them, or with a unit.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::connection::credentials::SaslMechanism;
use crate::consumer::{Assignor, Isolation, OffsetReset, Start};
use crate::producer::Acks;

/// Puts what was read into its place.
pub(super) fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

/// `250ms`, `5s`, `2m`, or a number of milliseconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected =
        |problem: &dyn Display| format!("{text:?} is not a time, such as 10ms or a number of milliseconds: {problem}");
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text
            .parse()
            .map(Duration::from_millis)
            .map_err(|error| expected(&error));
    }
    humantime::parse_duration(text).map_err(|error| expected(&error))
}

/// `64KiB`, `8MiB`, or a number of bytes.
pub(super) fn bytes<T: TryFrom<u64, Error: Display>>(text: &str) -> Result<T, String> {
    let expected =
        |problem: &dyn Display| format!("{text:?} is not a size, such as 1MiB or a number of bytes: {problem}");
    let size = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse::<u64>().map_err(|error| expected(&error))?
    } else {
        let size = text.parse::<bytesize::ByteSize>();
        size.map_err(|error| expected(&error))?.as_u64()
    };
    T::try_from(size).map_err(|error| expected(&error))
}

pub(super) fn count<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error| format!("{text:?} is not a number: {error}"))
}

pub(super) fn flag(text: &str) -> Result<bool, String> {
    one_of(text, &[("true", true), ("false", false)])
}

pub(super) fn acks(text: &str) -> Result<Acks, String> {
    let all = [
        ("all", Acks::All),
        ("-1", Acks::All),
        ("1", Acks::Leader),
        ("leader", Acks::Leader),
        ("0", Acks::None),
        ("none", Acks::None),
    ];
    one_of(text, &all)
}

pub(super) fn mechanism(text: &str) -> Result<SaslMechanism, String> {
    one_of(text, &SaslMechanism::ALL.map(|mechanism| (mechanism.name(), mechanism)))
}

pub(super) fn reset(text: &str) -> Result<OffsetReset, String> {
    let all = [
        ("earliest", OffsetReset::Earliest),
        ("latest", OffsetReset::Latest),
        ("none", OffsetReset::Error),
        ("error", OffsetReset::Error),
    ];
    one_of(text, &all)
}

pub(super) fn isolation(text: &str) -> Result<Isolation, String> {
    let all = [
        ("read_uncommitted", Isolation::ReadUncommitted),
        ("read_committed", Isolation::ReadCommitted),
    ];
    one_of(text, &all)
}

pub(super) fn start(text: &str) -> Result<Start, String> {
    one_of(text, &[("earliest", Start::Earliest), ("latest", Start::Latest)])
}

/// By our names, by librdkafka's, or by those of Kafka's classes.
pub(super) fn assignor(text: &str) -> Result<Assignor, String> {
    let class = text.strip_prefix("org.apache.kafka.clients.consumer.").unwrap_or(text);
    let all = [
        ("sticky", Assignor::Sticky),
        ("range", Assignor::Range),
        ("round-robin", Assignor::RoundRobin),
        ("cooperative-sticky", Assignor::Sticky),
        ("roundrobin", Assignor::RoundRobin),
        ("CooperativeStickyAssignor", Assignor::Sticky),
        ("RangeAssignor", Assignor::Range),
        ("RoundRobinAssignor", Assignor::RoundRobin),
    ];
    one_of(class, &all)
}

pub(super) fn text(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    Ok(text.to_owned())
}

fn one_of<T: Copy>(text: &str, all: &[(&str, T)]) -> Result<T, String> {
    let found = all.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
        format!("{text:?} is none of {}", names.join(", "))
    })
}
