//! `headwater group reset-offsets` and `delete-offsets`: what a group has committed, set and forgotten from outside.

use std::collections::BTreeMap;

use clap::Args;
use clap_complete::ArgValueCandidates;
use headwater_client::{CommittedOffset, Offset, OffsetSpec, PartitionIndex, Timestamp, TopicName};
use serde_json::json;

use super::super::confirm;
use crate::complete;
use crate::failure::Failure;
use crate::screen::Rows;
use crate::session::{Ends, Session};
use crate::values;

pub(super) const RESET_EXAMPLES: &str = "\
Examples:
  headwater group reset-offsets billing --to-beginning --dry-run
  headwater group reset-offsets billing --topic orders --to-end
  headwater group reset-offsets billing --topic orders --partition 0 --to-offset 1000
  headwater group reset-offsets billing --to-time '1h ago'   # process the last hour again
  headwater group reset-offsets billing --shift-by=-100      # 100 back in each partition

The group must have no members. Without --topic it is every topic that the group has committed offsets for. Offsets \
outside of what a partition holds are moved to its beginning or end.";

pub(super) const DELETE_EXAMPLES: &str = "\
Examples:
  headwater group delete-offsets billing --topic orders
  headwater group delete-offsets billing --topic orders --partition 0 --yes    # without asking

It asks on a terminal; a script has to say --yes. Whoever consumes these partitions as this group next begins as if it never had. No \
member of the group may be subscribed to the topics. The topics need not exist any more.";

/// Options of `group reset-offsets`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The group's id
    #[arg(add = ArgValueCandidates::new(complete::groups))]
    group: String,
    /// Only this topic; several times for several
    #[arg(short, long = "topic", value_name = "NAME", add = ArgValueCandidates::new(complete::topics))]
    topics: Vec<String>,
    /// Only this partition; several times for several
    #[arg(short, long = "partition", value_name = "NUMBER", requires = "topics")]
    partitions: Vec<i32>,
    #[command(flatten)]
    to: To,
    /// Only show what would be committed
    #[arg(long)]
    dry_run: bool,
}

/// Where the group is to go on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// The first record that is there
    #[arg(long = "to-beginning", help_heading = "Where to go on")]
    beginning: bool,
    /// The next record that comes
    #[arg(long = "to-end", help_heading = "Where to go on")]
    end: bool,
    /// This offset
    #[arg(long = "to-offset", value_name = "NUMBER", help_heading = "Where to go on")]
    offset: Option<u64>,
    /// The first record at or after this moment: '10m ago', 2026-01-31, '2026-01-31 12:00' (local time),
    /// 2026-01-31T12:00:00Z, or milliseconds since 1970
    #[arg(long = "to-time", value_name = "TIME", value_parser = values::moment, help_heading = "Where to go on")]
    moment: Option<Timestamp>,
    /// So many offsets after (or before, with a minus) what is committed now
    #[arg(
        long,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        help_heading = "Where to go on"
    )]
    shift_by: Option<i64>,
}

/// Options of `group delete-offsets`.
#[derive(Debug, Args)]
pub struct DeleteOffsetsArgs {
    /// The group's id
    #[arg(add = ArgValueCandidates::new(complete::groups))]
    group: String,
    /// This topic; several times for several
    #[arg(
        short,
        long = "topic",
        value_name = "NAME",
        required = true,
        add = ArgValueCandidates::new(complete::topics)
    )]
    topics: Vec<String>,
    /// Only this partition; several times for several
    #[arg(short, long = "partition", value_name = "NUMBER")]
    partitions: Vec<i32>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Where one partition of a group goes on.
struct Move {
    topic: TopicName,
    partition: PartitionIndex,
    from: Option<u64>,
    to: u64,
}

pub(super) async fn reset_offsets(session: &Session, args: &ResetArgs) -> Result<(), Failure> {
    let group = &args.group;
    let moves = moves(session, args).await?;
    if moves.is_empty() {
        return Err(
            Failure::not_found(format!("group {group} has no committed offsets to reset"))
                .hint("name topics with --topic to commit offsets for them, or see `headwater group list`"),
        );
    }
    if !args.dry_run {
        let offsets: Vec<_> = moves
            .iter()
            .map(|one| CommittedOffset::new(one.topic.clone(), one.partition, Offset::new(one.to)))
            .collect();
        let reset = session.admin.groups().reset_offsets(group, &offsets).await;
        reset.map_err(|error| Failure::client(&format!("reset the offsets of group {group}"), &error))?;
    }
    session.screen.show(
        || {
            let one = |one: &Move| {
                json!({"topic": one.topic.as_str(), "partition": one.partition.get(), "from": one.from, "to": one.to})
            };
            json!({"group": group, "reset": !args.dry_run, "partitions": moves.iter().map(one).collect::<Vec<_>>()})
        },
        || {
            let mut rows = Rows::new(["TOPIC", ">PARTITION", ">FROM", ">TO"]);
            for one in &moves {
                let from = one.from.map(|from| from.to_string()).unwrap_or_default();
                rows.add([one.topic.to_string(), one.partition.to_string(), from, one.to.to_string()]);
            }
            let end = if args.dry_run { "\nnothing was changed: this is a dry run\n" } else { "" };
            format!("{}{end}", rows.text())
        },
    )
}

async fn moves(session: &Session, args: &ResetArgs) -> Result<Vec<Move>, Failure> {
    let group = &args.group;
    let committed = session.admin.groups().committed_offsets(group).await;
    let committed = committed.map_err(|error| Failure::client(&format!("look up group {group}"), &error))?;
    let committed: BTreeMap<_, _> = committed
        .into_iter()
        .map(|offset| ((offset.topic, offset.partition), offset.offset.get()))
        .collect();
    let named = !args.topics.is_empty();
    let mut topics = args.topics.clone();
    if !named {
        topics = committed.keys().map(|(topic, _)| topic.to_string()).collect();
    }
    topics.sort_unstable();
    topics.dedup();
    let mut moves = Vec::new();
    for name in &topics {
        let topic = session.topic(name).await?;
        let ends = session.ends(&topic, &args.partitions).await?;
        let partitions: Vec<_> = ends.iter().map(|ends| ends.partition).collect();
        let at = match args.to.moment {
            Some(moment) => {
                session
                    .offsets(name, &partitions, OffsetSpec::Timestamp(moment))
                    .await?
            }
            None => vec![None; ends.len()],
        };
        for (ends, at) in ends.into_iter().zip(at) {
            let from = committed.get(&(topic.name.clone(), ends.partition)).copied();
            if from.is_none() && (!named || args.to.shift_by.is_some()) {
                continue;
            }
            moves.push(Move {
                topic: topic.name.clone(),
                partition: ends.partition,
                from,
                to: target(&args.to, ends, from, at),
            });
        }
    }
    Ok(moves)
}

/// Where a partition goes on, within what it holds.
fn target(to: &To, ends: Ends, from: Option<u64>, at: Option<u64>) -> u64 {
    let Ends { start, end, .. } = ends;
    let target = if to.beginning {
        start
    } else if to.end {
        end
    } else if let Some(offset) = to.offset {
        offset
    } else if let Some(by) = to.shift_by {
        from.unwrap_or(start).saturating_add_signed(by)
    } else {
        // No record is as late: go on with the next one.
        at.unwrap_or(end)
    };
    target.clamp(start, end)
}

pub(super) async fn delete_offsets(session: &Session, args: &DeleteOffsetsArgs) -> Result<(), Failure> {
    let group = &args.group;
    let groups = session.admin.groups();
    let committed = groups.committed_offsets(group).await;
    let mut committed = committed.map_err(|error| Failure::client(&format!("look up group {group}"), &error))?;
    let is_meant = |offset: &CommittedOffset| {
        let numbers = &args.partitions;
        args.topics.iter().any(|topic| topic == offset.topic.as_str())
            && (numbers.is_empty() || numbers.contains(&offset.partition.get()))
    };
    committed.retain(is_meant);
    if committed.is_empty() {
        return Err(
            Failure::not_found(format!("group {group} has no such committed offsets"))
                .hint(format!("`headwater group lag {group}` shows those that it has")),
        );
    }
    confirm(
        &format!(
            "Delete {} of group {group} in {}?",
            values::count(committed.len() as u64, "committed offset"),
            args.topics.join(", ")
        ),
        args.yes,
    )?;
    let places: Vec<_> = committed.iter().map(|one| (one.topic.clone(), one.partition)).collect();
    let deleted = groups.delete_offsets(group, &places).await;
    deleted.map_err(|error| Failure::client(&format!("delete the offsets of group {group}"), &error))?;
    session.screen.show(
        || {
            let one = |one: &CommittedOffset| {
                json!({"topic": one.topic.as_str(), "partition": one.partition.get(), "committed": one.offset.get()})
            };
            json!({"group": group, "deleted": committed.iter().map(one).collect::<Vec<_>>()})
        },
        || {
            let line = |one: &CommittedOffset| {
                format!("deleted {} partition {}: was at {}", one.topic, one.partition, one.offset)
            };
            values::lines(committed.iter().map(line))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_goes_on_within_what_the_partition_holds() {
        let ends = Ends {
            partition: PartitionIndex::new(0),
            start: 10,
            end: 20,
        };
        let none = || To {
            beginning: false,
            end: false,
            offset: None,
            moment: None,
            shift_by: None,
        };
        let offset = |offset| To {
            offset: Some(offset),
            ..none()
        };
        let shift = |by| To {
            shift_by: Some(by),
            ..none()
        };
        let beginning = To {
            beginning: true,
            ..none()
        };
        let end = To { end: true, ..none() };
        for (to, from, at, expected) in [
            (beginning, Some(15), None, 10),
            (end, None, None, 20),
            (offset(12), None, None, 12),
            (offset(3), None, None, 10),
            (offset(99), None, None, 20),
            (shift(-2), Some(15), None, 13),
            (shift(-100), Some(15), None, 10),
            (shift(100), Some(15), None, 20),
            (none(), Some(15), Some(17), 17),
            (none(), Some(15), None, 20),
        ] {
            assert_eq!(target(&to, ends, from, at), expected, "{to:?}");
        }
    }
}
