//! `partition move` and `partition moves`: who has which partition.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueHint};
use clap_complete::ArgValueCandidates;
use headwater_client::{BrokerId, PartitionMove, RefusedPartition, TopicDescription};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::elect::judge;
use super::plan::{self, Plan};
use super::progress::{self, Behind};
use crate::commands::cluster::numbers;
use crate::commands::watch::{self, WatchArgs};
use crate::complete;
use crate::failure::Failure;
use crate::screen::{Rows, Screen, note};
use crate::session::{Session, chosen};
use crate::values;

pub const EXAMPLES: &str = "\
Examples:
  headwater partition move orders 0 --to 2,0,1               # broker 2 leads it from then on
  headwater partition move orders --to 2,0,1                 # all partitions of the topic
  headwater partition move --from 1 --to 3 --plan            # what would change if broker 3 took the place of broker 1
  headwater partition move --from 1 --to 3                   # in all topics
  headwater partition move --file plan.json --no-wait        # as Kafka's reassignment tool has it, and as --plan -o json shows it
  headwater partition move orders 0 --cancel                 # it stays where it was
  headwater partition move --cancel                          # whatever moves

A broker that gets a partition copies it from the leader, which sends no faster than its cluster.catch_up_bytes_per_second_max; who \
loses it keeps it until all others are in sync. It goes on by itself when this command is interrupted: `headwater partition moves` \
shows what moves.";

pub const LIST_EXAMPLES: &str = "\
Examples:
  headwater partition moves
  headwater partition moves --watch                          # again every two seconds, in place
  headwater partition moves --output json

LEFT is what the brokers that get it lack of what its leader has, as far as they have answered.";

/// How often there is a look at what is left.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A broker that answers may hear so much later of what was agreed on.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// Partitions of one request, far from as many as it may have.
const ASKED_AT_ONCE: usize = 1000;

/// Options of `partition move`.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The topic; without one, all topics
    #[arg(add = ArgValueCandidates::new(complete::topics), conflicts_with = "file")]
    topic: Option<String>,
    /// The partitions' numbers, from 0; without any, all of the topic
    #[arg(value_name = "PARTITION")]
    partitions: Vec<i32>,
    /// The brokers that are to have them, the one that is to lead first; with --from, the one that takes its place
    #[arg(
        long,
        value_name = "NUMBERS",
        value_delimiter = ',',
        required_unless_present_any = ["cancel", "file"]
    )]
    to: Vec<u16>,
    /// The broker that is not to have them any more
    #[arg(long, value_name = "NUMBER", requires = "to")]
    from: Option<u16>,
    /// A file of JSON that says which partition goes where
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["to", "from"])]
    file: Option<PathBuf>,
    /// Give moves up that are under way
    #[arg(long, conflicts_with_all = ["to", "from", "file", "plan", "no_wait"])]
    cancel: bool,
    /// Only show what would change
    #[arg(long)]
    plan: bool,
    /// Only begin
    #[arg(long)]
    no_wait: bool,
}

/// Options of `partition moves`.
#[derive(Debug, Args)]
pub struct MovesArgs {
    #[command(flatten)]
    watch: WatchArgs,
}

pub async fn move_to(session: &Session, args: &MoveArgs) -> Result<(), Failure> {
    if args.cancel {
        return cancel(session, args).await;
    }
    let plan = planned(session, args).await?;
    if args.plan {
        return session.screen.show(|| plan.json(), || plan.text());
    }
    if plan.0.is_empty() {
        note("all of them are there already: nothing moves");
        return Ok(());
    }
    let refused = ask(session, &plan.moves()).await?;
    let begun = values::count((plan.0.len() - refused.len().min(plan.0.len())) as u64, "partition");
    judge(&refused, &format!("begun, for {begun}"))?;
    if args.no_wait {
        return Ok(());
    }
    tokio::select! {
        waited = wait(session, &plan) => waited,
        _ = tokio::signal::ctrl_c() => {
            note("the moves go on; `headwater partition moves` shows them, `headwater partition move --cancel` gives them up");
            Err(Failure::interrupted())
        }
    }
}

/// All topics, or the one that is named.
async fn topics(session: &Session, name: Option<&str>) -> Result<Vec<TopicDescription>, Failure> {
    if let Some(name) = name {
        return Ok(vec![session.topic(name).await?]);
    }
    let all = session.admin.topics().await;
    let all = all.map_err(|error| Failure::client("list topics", &error))?;
    session.describe_all(all.iter().map(|topic| topic.name.as_str())).await
}

async fn planned(session: &Session, args: &MoveArgs) -> Result<Plan, Failure> {
    if let Some(path) = &args.file {
        let file = plan::read(path)?;
        let names: Vec<String> = file.iter().map(|wanted| wanted.topic.clone()).collect();
        return Plan::of_file(&file, &session.topics(&names).await?);
    }
    let to: Vec<BrokerId> = args.to.iter().map(|id| BrokerId::new((*id).into())).collect();
    let target = |before: &[BrokerId]| match (args.from, &to[..]) {
        (Some(from), [to]) => plan::replaced(before, BrokerId::new(from.into()), *to),
        _ => to.clone(),
    };
    match (&args.topic, args.from, to.len()) {
        (_, Some(_), 2..) => {
            return Err(Failure::usage(
                "one broker takes the place of another: --to names one with --from",
            ));
        }
        (None, None, _) => {
            return Err(
                Failure::usage("name a topic, or with --from the broker whose place is taken")
                    .hint("without --from every partition of every topic would go to the same brokers"),
            );
        }
        _ => {}
    }
    let topics = topics(session, args.topic.as_deref()).await?;
    let mut partitions = Vec::new();
    for topic in &topics {
        let wanted = chosen(topic, &args.partitions)?;
        let those = topic
            .partitions
            .iter()
            .filter(|found| wanted.contains(&found.partition));
        partitions.extend(those.map(|partition| (topic, partition)));
    }
    Ok(Plan::new(partitions.into_iter(), target))
}

async fn ask(session: &Session, moves: &[PartitionMove]) -> Result<Vec<RefusedPartition>, Failure> {
    let mut refused = Vec::new();
    for moves in moves.chunks(ASKED_AT_ONCE) {
        let asked = session.admin.reassign_partitions(moves).await;
        refused.extend(asked.map_err(|error| Failure::client("move partitions", &error))?);
    }
    Ok(refused)
}

async fn cancel(session: &Session, args: &MoveArgs) -> Result<(), Failure> {
    let topics = topics(session, args.topic.as_deref()).await?;
    let mut moves = Vec::new();
    for topic in &topics {
        let wanted = chosen(topic, &args.partitions)?;
        for partition in &topic.partitions {
            let is_named = !args.partitions.is_empty() && wanted.contains(&partition.partition);
            if is_named || (args.partitions.is_empty() && progress::moves(partition)) {
                moves.push(PartitionMove {
                    topic: topic.name.to_string(),
                    partition: partition.partition.get(),
                    replicas: None,
                });
            }
        }
    }
    if moves.is_empty() {
        note("nothing moves");
        return Ok(());
    }
    judge(&ask(session, &moves).await?, "they stay")
}

/// Shows how far it is until all are where they are to be.
async fn wait(session: &Session, plan: &Plan) -> Result<(), Failure> {
    let mut names: Vec<String> = plan.0.iter().map(|step| step.topic.clone()).collect();
    names.sort_unstable();
    names.dedup();
    let bar = bar(plan
        .0
        .iter()
        .map(|step| step.size_bytes * step.adds().len() as u64)
        .sum());
    let began = Instant::now();
    let mut told = usize::MAX;
    loop {
        let topics = session.describe_all(names.iter().map(String::as_str)).await?;
        let behind = progress::look(session, progress::moving(&topics)).await?;
        let unfinished = |step: &&plan::Step| {
            let topic = topics.iter().find(|topic| topic.name.as_str() == step.topic);
            let partition = topic.and_then(|topic| {
                let mut partitions = topic.partitions.iter();
                partitions.find(|found| found.partition.get() == step.partition)
            });
            // A topic that was deleted meanwhile is nowhere.
            partition.is_some_and(|found| found.replicas.replicas != step.after)
        };
        let left: Vec<&plan::Step> = plan.0.iter().filter(unfinished).collect();
        if left.is_empty() {
            bar.finish_and_clear();
            note("all of them are there");
            return Ok(());
        }
        if behind.is_empty() && began.elapsed() > HEARD_WITHIN {
            bar.finish_and_clear();
            let count = values::count(left.len() as u64, "partition");
            return Err(Failure::failed(format!(
                "the moves of {count} were given up, by somebody else"
            )));
        }
        let bytes = behind.iter().map(|behind| behind.left_bytes).sum::<Option<u64>>();
        let message = message(left.len(), bytes);
        if let Some(bytes) = bytes {
            bar.set_length(bar.length().unwrap_or(0).max(bytes));
            bar.set_position(bar.length().unwrap_or(0) - bytes);
        }
        bar.set_message(message.clone());
        if bar.is_hidden() && left.len() < told {
            note(&message);
        }
        told = told.min(left.len());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn message(partitions: usize, bytes: Option<u64>) -> String {
    let bytes = bytes.map_or_else(String::new, |bytes| format!(", {} to copy", values::size(bytes)));
    format!("{} left{bytes}", values::count(partitions as u64, "partition"))
}

/// A bar for whoever waits.
fn bar(bytes: u64) -> ProgressBar {
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let template = "{bar:30} {percent:>3}% {binary_bytes_per_sec}, {msg}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is legal"));
    bar
}

/// Shows what moves.
pub async fn list(session: &Session, args: MovesArgs) -> Result<(), Failure> {
    watch::run(session, args.watch, async |screen| show(session, screen).await).await
}

async fn show(session: &Session, screen: Screen) -> Result<(), Failure> {
    let topics = topics(session, None).await?;
    let behind = progress::look(session, progress::moving(&topics)).await?;
    screen.show(|| behind.iter().map(row_json).collect(), || rows(&behind).text())
}

fn row_json(behind: &Behind<'_>) -> Value {
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.get()).collect::<Value>();
    let replicas = &behind.partition.replicas;
    json!({
        "topic": behind.topic,
        "partition": behind.partition.partition.get(),
        "leader": behind.partition.leader.get(),
        "replicas": ids(&replicas.replicas),
        "isr": ids(&replicas.isr),
        "adding": ids(&replicas.adding),
        "removing": ids(&replicas.removing),
        "left_bytes": behind.left_bytes,
    })
}

fn rows(behind: &[Behind<'_>]) -> Rows {
    let mut rows = Rows::new([
        "TOPIC",
        ">PARTITION",
        "REPLICAS",
        "IN SYNC",
        "GET IT",
        "LOSE IT",
        ">LEFT",
    ]);
    for behind in behind {
        let replicas = &behind.partition.replicas;
        rows.add([
            behind.topic.to_owned(),
            behind.partition.partition.to_string(),
            numbers(&replicas.replicas),
            numbers(&replicas.isr),
            numbers(&replicas.adding),
            numbers(&replicas.removing),
            behind.left_bytes.map_or_else(|| "not known".to_owned(), values::size),
        ]);
    }
    rows
}
