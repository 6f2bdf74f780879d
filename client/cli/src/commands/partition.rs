//! `headwater partition`: one partition, or some.

mod elect;
mod moves;
mod plan;
pub mod progress;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use headwater_client::OffsetSpec;
use serde_json::{Value, json};

use crate::complete;
use crate::failure::Failure;
use crate::screen::facts;
use crate::session::{Session, chosen};
use crate::{json, values};

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  headwater partition describe orders 0
  headwater partition describe orders 0 --output json";

/// What to do with a partition.
#[derive(Debug, Subcommand)]
pub enum PartitionCommand {
    /// Show who serves a partition, its offsets and its size
    #[command(visible_alias = "show", after_help = DESCRIBE_EXAMPLES)]
    Describe(DescribeArgs),
    /// Have the preferred replicas lead again, or one that lacks records
    #[command(after_help = elect::EXAMPLES)]
    Elect(elect::ElectArgs),
    /// Move partitions to other brokers, and wait until they are there
    #[command(after_help = moves::EXAMPLES)]
    Move(moves::MoveArgs),
    /// List the partitions that move, and how much is left of each
    #[command(after_help = moves::LIST_EXAMPLES)]
    Moves(moves::MovesArgs),
}

/// Options of `partition describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// The topic
    #[arg(add = ArgValueCandidates::new(complete::topics))]
    topic: String,
    /// The partition's number, from 0
    partition: i32,
}

/// Does what was asked for.
pub async fn run(session: &Session, command: PartitionCommand) -> Result<(), Failure> {
    match command {
        PartitionCommand::Describe(args) => describe(session, args).await,
        PartitionCommand::Elect(args) => elect::elect(session, args).await,
        PartitionCommand::Move(args) => moves::move_to(session, &args).await,
        PartitionCommand::Moves(args) => moves::list(session, args).await,
    }
}

async fn describe(session: &Session, args: DescribeArgs) -> Result<(), Failure> {
    let topic = session.topic(&args.topic).await?;
    let wanted = chosen(&topic, &[args.partition])?;
    let name = topic.name.as_str();
    let found = topic
        .partitions
        .iter()
        .find(|partition| wanted.contains(&partition.partition));
    let partition =
        found.ok_or_else(|| Failure::not_found(format!("topic {name} has no partition {}", args.partition)))?;
    let leader = partition.leader;
    // It may be offline, and is described all the same.
    let visible = match partition.error {
        None => session
            .offsets(name, &wanted, OffsetSpec::Latest)
            .await?
            .first()
            .copied()
            .flatten(),
        Some(_) => None,
    };
    session.screen.show(
        || {
            let mut value = json::partition(partition);
            if let Value::Object(fields) = &mut value {
                fields.insert("topic".to_owned(), json!(name));
            }
            value
        },
        || {
            let (start, end) = (partition.log_start_offset.get(), partition.high_watermark.get());
            facts(&[
                ("topic", name.to_owned()),
                ("partition", partition.partition.to_string()),
                ("state", json::partition_state(partition)),
                (
                    "leader",
                    format!(
                        "broker {leader}, core {}, epoch {}",
                        partition.core, partition.leader_epoch
                    ),
                ),
                ("log start offset", start.to_string()),
                ("high watermark", visible.unwrap_or(end).to_string()),
                ("log end offset", partition.log_end_offset.to_string()),
                ("records", end.saturating_sub(start).to_string()),
                ("segments", partition.segments.to_string()),
                ("size", values::size(partition.size_bytes)),
            ])
        },
    )
}
