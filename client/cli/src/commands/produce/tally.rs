//! What became of the records: how many are stored, and where; which were refused.

use std::collections::BTreeMap;

use headwater_client::{Error, RecordMetadata};
use serde_json::json;

use crate::failure::{Failure, chain};
use crate::session::Session;
use crate::values;

/// Refused records that are told one by one as they come.
const TOLD_MAX: u64 = 10;
/// Runs of lines that are kept to be listed.
const RUNS_MAX: usize = 1000;
/// Runs of lines that a message lists.
const LISTED_MAX: usize = 8;

/// What has been stored, and where; and what has not.
#[derive(Debug, Default)]
pub struct Tally {
    records: u64,
    /// By partition.
    partitions: BTreeMap<i32, Stored>,
    refused: u64,
    /// The first of those.
    refusal: Option<Error>,
    /// Their lines, first and last of each run, as far as they were kept.
    lines: Vec<(u64, u64)>,
    /// Records that failed in another way, and may be stored or not.
    lost: u64,
}

/// Records, and their first and last offset if those are known.
type Stored = (u64, Option<(u64, u64)>);

impl Tally {
    /// A record is stored.
    pub fn add(&mut self, stored: &RecordMetadata) {
        self.records += 1;
        let (records, offsets) = self.partitions.entry(stored.partition.get()).or_default();
        *records += 1;
        if let Some(offset) = stored.offset {
            let (first, last) = offsets.get_or_insert((offset.get(), offset.get()));
            (*first, *last) = ((*first).min(offset.get()), (*last).max(offset.get()));
        }
    }

    /// A record was refused for what it is.
    pub fn refuse(&mut self, line: u64, error: Error) {
        self.refused += 1;
        if let Some((_, last)) = self.lines.last_mut().filter(|(_, last)| *last + 1 == line) {
            *last = line;
        } else if self.lines.len() < RUNS_MAX {
            self.lines.push((line, line));
        }
        if self.refused <= TOLD_MAX {
            anstream::eprintln!("line {line}: {}", chain(&error));
        }
        self.refusal.get_or_insert(error);
    }

    /// So many records failed in another way.
    pub fn lose(&mut self, records: u64) {
        self.lost += records;
    }

    /// The failure that the refused records are, if there are any.
    pub fn refusal(&self) -> Option<Failure> {
        let error = self.refusal.as_ref()?;
        let total = values::count(self.records + self.refused, "record");
        let doing = format!("store {} of {total}, line {}", self.refused, self.listed());
        Some(Failure::client(&doing, error))
    }

    /// Says on standard error what became of the records before a failure.
    pub fn tell(&self, topic: &str) {
        let mut parts = Vec::new();
        if self.records > 0 {
            let stored = values::count(self.records, "record");
            parts.push(format!("{stored} had been stored in {topic} before that"));
        }
        if self.refused > 0 {
            let refused = values::count(self.refused, "record");
            parts.push(format!("{refused} had been refused, line {}", self.listed()));
        }
        if self.lost > 0 {
            let lost = values::count(self.lost, "record");
            parts.push(format!("{lost} may be stored or not"));
        }
        if !parts.is_empty() {
            anstream::eprintln!("{}", parts.join("; "));
        }
    }

    fn listed(&self) -> String {
        let run = |&(first, last): &(u64, u64)| match last - first {
            0 => first.to_string(),
            _ => format!("{first}-{last}"),
        };
        let mut runs: Vec<_> = self.lines.iter().take(LISTED_MAX).map(run).collect();
        if self.lines.len() > LISTED_MAX {
            runs.push("…".to_owned());
        }
        runs.join(", ")
    }

    /// Says what is stored on standard output.
    pub fn show(&self, session: &Session, topic: &str) -> Result<(), Failure> {
        session.screen.show(
            || {
                let partition = |(number, (records, offsets)): (&i32, &Stored)| {
                    let (first, last) = offsets.unzip();
                    json!({"partition": number, "records": records, "first_offset": first, "last_offset": last})
                };
                let partitions: Vec<_> = self.partitions.iter().map(partition).collect();
                let mut told = json!({"topic": topic, "records": self.records, "partitions": partitions});
                if self.refused > 0 {
                    told["refused"] = json!({"records": self.refused, "lines": self.lines});
                }
                told
            },
            || {
                let place = |(number, (_, offsets)): (&i32, &Stored)| match offsets {
                    None => format!("partition {number}"),
                    Some((first, last)) if first == last => format!("partition {number} at offset {first}"),
                    Some((first, last)) => format!("partition {number} at offsets {first} to {last}"),
                };
                let places: Vec<_> = self.partitions.iter().map(place).collect();
                let places = match places.len() {
                    0 => String::new(),
                    1..=8 => format!(": {}", places.join(", ")),
                    many => format!(" in {many} partitions"),
                };
                format!("stored {} in {topic}{places}\n", values::count(self.records, "record"))
            },
        )
    }
}
