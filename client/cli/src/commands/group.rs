//! `headwater group`: consumer groups.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use headwater_client::{
    CommittedOffset, GroupDescription, GroupMember, Offset, OffsetSpec, PartitionIndex, PartitionLag, Timestamp,
    TopicName,
};
use serde_json::{Value, json};

use super::confirm;
use crate::failure::Failure;
use crate::screen::{Rows, facts};
use crate::session::{Ends, Session};
use crate::values;

const LIST_EXAMPLES: &str = "\
Examples:
  headwater group list
  headwater group list --state Empty                         # Stable, Empty, PreparingRebalance, CompletingRebalance, Dead
  headwater group list --output json";

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  headwater group describe billing                           # who is in it, and who has which partitions
  headwater group describe billing --output json";

const LAG_EXAMPLES: &str = "\
Examples:
  headwater group lag billing
  headwater group lag billing --output json | jq .lag        # of all partitions together

Lag counts the offsets from what is committed to the end of the partition.";

const RESET_EXAMPLES: &str = "\
Examples:
  headwater group reset-offsets billing --to-beginning --dry-run
  headwater group reset-offsets billing --topic orders --to-end
  headwater group reset-offsets billing --topic orders --partition 0 --to-offset 1000
  headwater group reset-offsets billing --to-time '1h ago'   # process the last hour again
  headwater group reset-offsets billing --shift-by=-100      # 100 back in each partition

The group must have no members. Without --topic it is every topic that the group has committed offsets for. Offsets \
outside of what a partition holds are moved to its beginning or end.";

const DELETE_EXAMPLES: &str = "\
Examples:
  headwater group delete billing
  headwater group delete billing audit --yes                 # without asking

It asks on a terminal, and never in a script. The group must have no members.";

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List all groups
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show the members of a group and what each has
    #[command(after_help = DESCRIBE_EXAMPLES)]
    Describe(GroupArgs),
    /// Show how far a group is behind
    #[command(after_help = LAG_EXAMPLES)]
    Lag(GroupArgs),
    /// Let a group without members go on elsewhere
    #[command(after_help = RESET_EXAMPLES, override_usage = "headwater group reset-offsets [OPTIONS] <GROUP> --to-…|--shift-by")]
    ResetOffsets(ResetArgs),
    /// Delete groups without members, with their committed offsets
    #[command(after_help = DELETE_EXAMPLES)]
    Delete(DeleteArgs),
}

/// Options of `group list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only groups in this state
    #[arg(long)]
    state: Option<String>,
}

/// The group.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// The group's id
    group: String,
}

/// Options of `group reset-offsets`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The group's id
    group: String,
    /// Only this topic; several times for several
    #[arg(short, long = "topic", value_name = "NAME")]
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

/// Options of `group delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The groups' ids
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Does what was asked for.
pub async fn run(session: &Session, command: GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::List(args) => list(session, &args).await,
        GroupCommand::Describe(args) => describe(session, &args.group).await,
        GroupCommand::Lag(args) => lag(session, &args.group).await,
        GroupCommand::ResetOffsets(args) => reset_offsets(session, &args).await,
        GroupCommand::Delete(args) => delete(session, &args).await,
    }
}

async fn list(session: &Session, args: &ListArgs) -> Result<(), Failure> {
    let groups = session.admin.groups().list().await;
    let mut groups = groups.map_err(|error| Failure::client("list groups", &error))?;
    if let Some(state) = &args.state {
        groups.retain(|group| group.state.name().eq_ignore_ascii_case(state));
    }
    session.screen.show(
        || {
            let group = |group: &headwater_client::GroupListing| {
                json!({"group": group.group_id, "state": group.state.name(), "protocol_type": group.protocol_type})
            };
            groups.iter().map(group).collect()
        },
        || {
            if groups.is_empty() {
                return "there are no such groups; a group is there once a member has joined it\n".to_owned();
            }
            let mut rows = Rows::new(["GROUP", "STATE", "TYPE"]);
            for group in &groups {
                rows.add([group.group_id.clone(), group.state.to_string(), group.protocol_type.clone()]);
            }
            rows.text()
        },
    )
}

async fn described(session: &Session, group: &str) -> Result<GroupDescription, Failure> {
    match session.admin.groups().describe(group).await {
        Ok(described) => Ok(described),
        Err(error) => Err(session
            .group_failure(&format!("describe group {group}"), group, &error)
            .await),
    }
}

async fn describe(session: &Session, group: &str) -> Result<(), Failure> {
    let group = described(session, group).await?;
    session.screen.show(
        || {
            json!({
                "group": group.group_id,
                "state": group.state.name(),
                "protocol_type": group.protocol_type,
                "protocol": group.protocol_name,
                "generation": group.generation,
                "members": group.members.iter().map(member_json).collect::<Vec<_>>(),
            })
        },
        || {
            let about = facts(&[
                ("group", group.group_id.clone()),
                ("state", group.state.to_string()),
                ("type", group.protocol_type.clone()),
                ("assignment", group.protocol_name.clone()),
                ("generation", group.generation.to_string()),
                ("members", group.members.len().to_string()),
            ]);
            if group.members.is_empty() {
                return about;
            }
            let mut rows = Rows::new(["MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS"]);
            for member in &group.members {
                rows.add([
                    member.member_id.clone(),
                    member.instance_id.clone().unwrap_or_else(|| "-".to_owned()),
                    member.client_id.clone(),
                    member.client_host.clone(),
                    assignment_text(member),
                ]);
            }
            format!("{about}\n{}", rows.text())
        },
    )
}

fn assignment_text(member: &GroupMember) -> String {
    let Some(assignment) = &member.assignment else {
        return "(not in Kafka's form)".to_owned();
    };
    let topics: Vec<_> = assignment
        .iter()
        .map(|of| {
            let numbers = of.partitions.iter().map(|partition| partition.get());
            format!("{}: {}", of.topic, values::ranges(numbers))
        })
        .collect();
    if topics.is_empty() {
        "-".to_owned()
    } else {
        topics.join("; ")
    }
}

fn member_json(member: &GroupMember) -> Value {
    let assignment = member.assignment.as_ref().map(|assignment| {
        let topic = |of: &headwater_client::MemberPartitions| {
            let partitions: Vec<_> = of.partitions.iter().map(|partition| partition.get()).collect();
            json!({"topic": of.topic, "partitions": partitions})
        };
        assignment.iter().map(topic).collect::<Vec<_>>()
    });
    json!({
        "member": member.member_id,
        "instance": member.instance_id,
        "client": member.client_id,
        "host": member.client_host,
        "subscription": member.subscription,
        "assignment": assignment,
    })
}

async fn lag(session: &Session, group: &str) -> Result<(), Failure> {
    let lags = match session.admin.groups().lag(group).await {
        Ok(lags) => lags,
        Err(error) => {
            return Err(session
                .group_failure(&format!("look up the lag of group {group}"), group, &error)
                .await);
        }
    };
    let total: u64 = lags.iter().filter_map(PartitionLag::lag).sum();
    session.screen.show(
        || {
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
            json!({"group": group, "lag": total, "partitions": lags.iter().map(partition).collect::<Vec<_>>()})
        },
        || {
            if lags.is_empty() {
                return format!("group {group} has neither committed offsets nor partitions\n");
            }
            let offset = |offset: Option<Offset>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
            let mut rows = Rows::new(["TOPIC", ">PARTITION", ">COMMITTED", ">END", ">LAG", "MEMBER"]);
            for lag in &lags {
                rows.add([
                    lag.topic.to_string(),
                    lag.partition.to_string(),
                    offset(lag.committed),
                    offset(lag.log_end),
                    lag.lag().map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
                    lag.member_id.clone().unwrap_or_else(|| "-".to_owned()),
                ]);
            }
            format!("{}\n{} behind in all\n", rows.text(), values::count(total, "record"))
        },
    )
}

/// Where one partition of a group goes on.
struct Move {
    topic: TopicName,
    partition: PartitionIndex,
    from: Option<u64>,
    to: u64,
}

async fn reset_offsets(session: &Session, args: &ResetArgs) -> Result<(), Failure> {
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
                let from = one.from.map_or_else(|| "-".to_owned(), |from| from.to_string());
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

async fn delete(session: &Session, args: &DeleteArgs) -> Result<(), Failure> {
    for group in &args.groups {
        described(session, group).await?;
    }
    confirm(
        &format!("Delete with their committed offsets: {}?", args.groups.join(", ")),
        args.yes,
    )?;
    for group in &args.groups {
        if let Err(error) = session.admin.groups().delete(group).await {
            return Err(session
                .group_failure(&format!("delete group {group}"), group, &error)
                .await);
        }
    }
    session.screen.show(
        || json!({"deleted": args.groups}),
        || values::lines(args.groups.iter().map(|group| format!("deleted group {group}"))),
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
