//! `headwater group`: consumer groups.

mod lag;
mod offsets;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use headwater_client::{GroupDescription, GroupMember};
use serde_json::{Value, json};

use super::{confirm, watch};
use crate::complete;
use crate::failure::Failure;
use crate::screen::{Rows, facts, note};
use crate::session::Session;
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

const DELETE_EXAMPLES: &str = "\
Examples:
  headwater group delete billing
  headwater group delete billing audit --yes                 # without asking

It asks on a terminal; a script has to say --yes. The group must have no members.";

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List all groups
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show the members of a group and what each has
    #[command(visible_alias = "show", after_help = DESCRIBE_EXAMPLES)]
    Describe(GroupArgs),
    /// Show how far groups are behind
    #[command(after_help = lag::EXAMPLES)]
    Lag(lag::LagArgs),
    /// Let a group without members go on elsewhere
    #[command(after_help = offsets::RESET_EXAMPLES, override_usage = "headwater group reset-offsets [OPTIONS] <GROUP> --to-…|--shift-by")]
    ResetOffsets(offsets::ResetArgs),
    /// Forget what a group has committed for topics that it does not consume any more
    #[command(after_help = offsets::DELETE_EXAMPLES)]
    DeleteOffsets(offsets::DeleteOffsetsArgs),
    /// Delete groups without members, with their committed offsets
    #[command(visible_alias = "rm", after_help = DELETE_EXAMPLES)]
    Delete(DeleteArgs),
}

/// Options of `group list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only groups in this state
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
}

/// The group.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// The group's id
    #[arg(add = ArgValueCandidates::new(complete::groups))]
    group: String,
}

/// Options of `group delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The groups' ids
    #[arg(required = true, value_name = "GROUP", add = ArgValueCandidates::new(complete::groups))]
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
        GroupCommand::Lag(args) => {
            watch::run(session, args.watch, async |screen| {
                lag::lag(session, screen, &args).await
            })
            .await
        }
        GroupCommand::ResetOffsets(args) => offsets::reset_offsets(session, &args).await,
        GroupCommand::DeleteOffsets(args) => offsets::delete_offsets(session, &args).await,
        GroupCommand::Delete(args) => delete(session, &args).await,
    }
}

async fn list(session: &Session, args: &ListArgs) -> Result<(), Failure> {
    let groups = session.admin.groups().list().await;
    let mut groups = groups.map_err(|error| Failure::client("list groups", &error))?;
    if let Some(state) = &args.state {
        groups.retain(|group| group.state.name().eq_ignore_ascii_case(state));
    }
    if groups.is_empty() && !session.screen.is_json() {
        match &args.state {
            Some(state) => note(&format!(
                "no group is in the state {state}; `headwater group list` shows all"
            )),
            None => note("there are no groups; one is there once a member has joined it"),
        }
    }
    session.screen.show(
        || {
            let group = |group: &headwater_client::GroupListing| {
                json!({
                    "group": group.group_id,
                    "state": group.state.name(),
                    "protocol_type": group.protocol_type,
                    "members": group.members,
                })
            };
            groups.iter().map(group).collect()
        },
        || {
            if groups.is_empty() {
                return String::new();
            }
            let mut rows = Rows::new(["GROUP", "STATE", ">MEMBERS", "TYPE"]);
            for group in &groups {
                rows.add([
                    group.group_id.clone(),
                    group.state.to_string(),
                    group.members.to_string(),
                    group.protocol_type.clone(),
                ]);
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
                    member.instance_id.clone().unwrap_or_default(),
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
    topics.join("; ")
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
