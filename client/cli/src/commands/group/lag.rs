//! `headwater group lag`: how far groups are behind.
//!
//! Where a group has committed nothing, and there are records, nobody knows where it will begin: that is said, and not taken for 0.

use std::collections::BTreeMap;

use clap::Args;
use clap_complete::ArgValueCandidates;
use headwater_client::{Offset, PartitionLag};
use serde_json::{Value, json};

use super::super::watch::WatchArgs;
use crate::complete;
use crate::failure::Failure;
use crate::screen::{Rows, Screen, note};
use crate::session::Session;
use crate::values;

pub(super) const EXAMPLES: &str = "\
Examples:
  headwater group lag billing
  headwater group lag                                        # of all groups, by topic
  headwater group lag billing --watch                        # again every two seconds, in place
  headwater group lag billing --output json | jq .lag        # of all partitions together; null if one is unknown

Lag counts the offsets from what is committed to the end of the partition. It is unknown where there are records and nothing is \
committed: the group may begin at either end.";

/// Options of `group lag`.
#[derive(Debug, Args)]
pub struct LagArgs {
    /// The groups' ids; all groups without any
    #[arg(value_name = "GROUP", add = ArgValueCandidates::new(complete::groups))]
    groups: Vec<String>,
    /// Of all groups, as without a name
    #[arg(long, conflicts_with = "groups")]
    all: bool,
    #[command(flatten)]
    pub(super) watch: WatchArgs,
}

/// How far a group is behind.
struct GroupLag {
    group: String,
    partitions: Vec<PartitionLag>,
}

/// Lags of several partitions together.
#[derive(Default)]
struct Total {
    partitions: u64,
    known: u64,
    unknown: u64,
}

impl Total {
    fn add(&mut self, lag: Option<u64>) {
        self.partitions += 1;
        match lag {
            Some(lag) => self.known += lag,
            None => self.unknown += 1,
        }
    }

    fn of(partitions: &[PartitionLag]) -> Self {
        let mut total = Self::default();
        for partition in partitions {
            total.add(partition.lag());
        }
        total
    }

    /// `None` if any part of it is unknown.
    fn lag(&self) -> Option<u64> {
        (self.unknown == 0).then_some(self.known)
    }

    fn words(&self) -> String {
        let known = values::count(self.known, "record");
        let unknown = values::count(self.unknown, "partition");
        match (self.unknown, self.partitions - self.unknown) {
            (0, _) => format!("{known} behind in all"),
            (_, 0) => format!("unknown for {unknown}: nothing is committed there"),
            (_, others) => {
                let others = values::count(others, "partition");
                format!("{known} behind in {others}, unknown for {unknown}: nothing is committed there")
            }
        }
    }
}

pub(super) async fn lag(session: &Session, screen: Screen, args: &LagArgs) -> Result<(), Failure> {
    let mut lags = Vec::new();
    if args.groups.is_empty() {
        let groups = session.admin.groups().list().await;
        for group in groups.map_err(|error| Failure::client("list groups", &error))? {
            match lag_of(session, &group.group_id).await {
                Ok(lag) => lags.push(lag),
                // It is gone since it was listed.
                Err(failure) if failure.is_not_found() => {}
                Err(failure) => return Err(failure),
            }
        }
        if lags.is_empty() && !screen.is_json() {
            note("there are no groups; one is there once a member has joined it");
        }
    } else {
        for group in &args.groups {
            lags.push(lag_of(session, group).await?);
        }
    }
    let is_one = args.groups.len() == 1;
    screen.show(
        || match &lags[..] {
            [lag] if is_one => group_json(lag),
            lags => lags.iter().map(group_json).collect(),
        },
        || match &lags[..] {
            [lag] if is_one => group_text(lag),
            lags => text_by_topic(lags),
        },
    )
}

async fn lag_of(session: &Session, group: &str) -> Result<GroupLag, Failure> {
    match session.admin.groups().lag(group).await {
        Ok(partitions) => Ok(GroupLag {
            group: group.to_owned(),
            partitions,
        }),
        Err(error) => Err(session
            .group_failure(&format!("look up the lag of group {group}"), group, &error)
            .await),
    }
}

fn group_json(lag: &GroupLag) -> Value {
    let partition = |lag: &PartitionLag| {
        json!({
            "topic": lag.topic.as_str(),
            "partition": lag.partition.get(),
            "committed": lag.committed.map(Offset::get),
            "start": lag.log_start.map(Offset::get),
            "end": lag.log_end.map(Offset::get),
            "lag": lag.lag(),
            "member": lag.member_id,
        })
    };
    let total = Total::of(&lag.partitions);
    json!({
        "group": lag.group,
        "lag": total.lag(),
        "partitions_unknown": total.unknown,
        "partitions": lag.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn group_text(lag: &GroupLag) -> String {
    let GroupLag { group, partitions } = lag;
    if partitions.is_empty() {
        note(&format!("group {group} has neither committed offsets nor partitions"));
        return String::new();
    }
    let offset = |offset: Option<Offset>| offset.map(|offset| offset.to_string()).unwrap_or_default();
    let mut rows = Rows::new(["TOPIC", ">PARTITION", ">COMMITTED", ">END", ">LAG", "MEMBER"]);
    for lag in partitions {
        rows.add([
            lag.topic.to_string(),
            lag.partition.to_string(),
            offset(lag.committed),
            offset(lag.log_end),
            lag.lag().map_or_else(|| "unknown".to_owned(), |lag| lag.to_string()),
            lag.member_id.clone().unwrap_or_default(),
        ]);
    }
    format!("{}\n{}\n", rows.text(), Total::of(partitions).words())
}

/// A line for each topic of each group.
fn text_by_topic(lags: &[GroupLag]) -> String {
    if lags.is_empty() {
        return String::new();
    }
    let mut rows = Rows::new(["GROUP", "TOPIC", ">PARTITIONS", ">LAG", ">UNKNOWN"]);
    for GroupLag { group, partitions } in lags {
        let mut topics: BTreeMap<&str, Total> = BTreeMap::new();
        for partition in partitions {
            topics.entry(partition.topic.as_str()).or_default().add(partition.lag());
        }
        if topics.is_empty() {
            topics.insert("", Total::default());
        }
        for (topic, total) in topics {
            let is_known = total.unknown < total.partitions || total.partitions == 0;
            rows.add([
                group.clone(),
                topic.to_owned(),
                total.partitions.to_string(),
                if is_known {
                    total.known.to_string()
                } else {
                    String::new()
                },
                total.unknown.to_string(),
            ]);
        }
    }
    rows.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_not_taken_for_nothing() {
        let total = |lags: &[Option<u64>]| {
            let mut total = Total::default();
            for lag in lags {
                total.add(*lag);
            }
            (total.lag(), total.words())
        };
        let (lag, words) = total(&[Some(1), Some(0)]);
        assert_eq!((lag, &*words), (Some(1), "1 record behind in all"));
        let (lag, words) = total(&[Some(2), None, None]);
        assert_eq!(lag, None);
        assert!(
            words.starts_with("2 records behind in 1 partition, unknown for 2 partitions"),
            "{words}"
        );
        let (lag, words) = total(&[None]);
        assert_eq!(lag, None);
        assert!(words.starts_with("unknown for 1 partition"), "{words}");
    }
}
