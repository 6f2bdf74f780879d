//! `headwater cluster`: whether all is well, and the members of the coordinator quorum.

mod features;
mod health;
mod order;
mod wait;

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use headwater_client::{BrokerId, ClusterListing, QuorumDescription, TopicDescription};
use serde_json::{Value, json};

use self::health::{Finding, Unwell};
use super::confirm;
use super::partition::progress::{self, Left, Named};
use crate::failure::Failure;
use crate::screen::{Rows, facts, note};
use crate::session::Session;
use crate::values;

pub use self::health::{lacks, numbers};

const STATUS_EXAMPLES: &str = "\
Examples:
  headwater cluster status
  headwater cluster status --output json
  headwater cluster status --wait 10m                        # until all is well: for scripts

It begins with whether all is well, and if not, with what to do. COMMITTED is the last entry that a member knows to be agreed on. \
A broker that is not there leads nothing and is in sync with nobody. IN SYNC are the replicas without which nothing is acknowledged, \
ELIGIBLE those that may lead though they are not in sync, and LAG is what the others lack. The exit status is 0 whatever is found; with --wait it is 4 if that time \
was not enough.";

const ORDER_EXAMPLES: &str = "\
Examples:
  headwater cluster restart-order
  headwater cluster status --wait 10m &&
  for broker in $(headwater cluster restart-order); do
      ssh broker-$broker sudo systemctl restart headwater
      headwater cluster status --wait 10m || break
  done

It restarts nothing. Members that are not there come first, as they cost nothing, and the active coordinator last, so that it hands \
over its place once. A broker that is stopped by SIGTERM hands over what it leads; wait after each until all is well.";

const ADD_EXAMPLES: &str = "\
Examples:
  headwater cluster add 1@two.example:9293 2@three.example:9293
  headwater cluster add 2@three.example:9293                 # in the place of one that was removed

They must run, with cluster.listen, cluster.members and broker.cluster_id set, and wait to be added. Add two to one at once: while \
there are two members, both must run for anything to be changed.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  headwater cluster remove 2
  headwater cluster remove 2 --yes                           # without asking

Remove a member that has lost its disk, start it with an empty one, and add it again. It asks on a terminal; a script has to say --yes.";

/// What to do with the members.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show whether all is well with quorum, brokers and partitions, and if not, what to do
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Print the numbers of all members and brokers in the order in which to restart them
    #[command(after_help = ORDER_EXAMPLES)]
    RestartOrder,
    /// Show the cluster's feature level, and which levels its brokers can do
    #[command(after_help = features::EXAMPLES)]
    Features,
    /// Have the cluster be at a feature level, once all brokers can do it
    #[command(after_help = features::FINALISE_EXAMPLES)]
    Finalise(features::FinaliseArgs),
    /// Make others members, all in one change
    #[command(after_help = ADD_EXAMPLES)]
    Add(AddArgs),
    /// Take a member out, whether it runs or not
    #[command(visible_alias = "rm", after_help = REMOVE_EXAMPLES)]
    Remove(RemoveArgs),
}

/// Options of `cluster status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Wait until all is well, but no longer than this
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "10m", value_parser = values::duration)]
    wait: Option<Duration>,
}

/// Options of `cluster add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Number of each, and where the others reach it
    #[arg(required = true, value_name = "NUMBER@HOST:PORT", value_parser = member)]
    members: Vec<(i32, String)>,
}

/// Options of `cluster remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Its number
    #[arg(value_name = "NUMBER")]
    member: u16,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

fn member(text: &str) -> Result<(i32, String), String> {
    let expected = "a number, host and port, such as 1@two.example:9293";
    let (number, address) = text.split_once('@').ok_or(expected)?;
    let number = number.parse().ok().filter(|number| *number >= 0).ok_or(expected)?;
    Ok((number, address.to_owned()))
}

/// Does what was asked for.
pub async fn run(session: &Session, command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Status(args) => status(session, &args).await,
        ClusterCommand::RestartOrder => order::show(session).await,
        ClusterCommand::Features => features::show(session).await,
        ClusterCommand::Finalise(args) => features::finalise(session, &args).await,
        ClusterCommand::Add(args) => add(session, args).await,
        ClusterCommand::Remove(args) => remove(session, &args).await,
    }
}

/// What is shown of a cluster.
struct Seen {
    quorum: QuorumDescription,
    cluster: ClusterListing,
    /// All topics, if a partition lacks something.
    topics: Vec<TopicDescription>,
    /// What is to be copied of those that lack something and are shown.
    left: Left,
}

async fn quorum(session: &Session) -> Result<QuorumDescription, Failure> {
    let quorum = session.admin.describe_quorum().await;
    quorum.map_err(|error| Failure::client("ask for the members of the quorum", &error))
}

async fn look(session: &Session) -> Result<Seen, Failure> {
    let quorum = quorum(session).await?;
    let cluster = super::broker::look(session).await?;
    let is_whole = cluster.leaderless + cluster.under_min_isr + cluster.under_replicated == 0;
    let topics = if is_whole {
        Vec::new()
    } else {
        let all = session.admin.topics().await;
        let all = all.map_err(|error| Failure::client("list topics", &error))?;
        session
            .describe_all(all.iter().map(|topic| topic.name.as_str()))
            .await?
    };
    let unwell: Vec<Named<'_>> = health::unwell(&topics)
        .iter()
        .map(|unwell| (unwell.topic, unwell.partition))
        .take(UNWELL_SHOWN)
        .collect();
    let left = Left::of(session, &unwell).await?;
    Ok(Seen {
        quorum,
        cluster,
        topics,
        left,
    })
}

async fn status(session: &Session, args: &StatusArgs) -> Result<(), Failure> {
    let seen = match args.wait {
        Some(limit) => wait::until_well(session, limit).await?,
        None => look(session).await?,
    };
    session.screen.show(|| seen.json(), || seen.text())
}

/// Partitions that are shown one by one to people.
const UNWELL_SHOWN: usize = 20;

impl Seen {
    fn unwell(&self) -> Vec<Unwell<'_>> {
        health::unwell(&self.topics)
    }

    fn findings(&self) -> Vec<Finding> {
        health::findings(&self.quorum, &self.cluster, &self.unwell())
    }

    fn json(&self) -> Value {
        let Seen { quorum, cluster, .. } = self;
        let members = quorum.members.iter().map(|member| {
            json!({
                "id": member.id.get(),
                "address": member.address,
                "voter": member.is_voter,
                "active": quorum.active == Some(member.id),
                "committed": member.committed.as_ref().ok(),
                "error": member.committed.as_ref().err(),
            })
        });
        let findings = self.findings();
        let unwell = self.unwell();
        let unwell = unwell.iter().map(|unwell| {
            let mut value = crate::json::partition(unwell.partition);
            value["topic"] = unwell.topic.into();
            value["lacks"] = lacks(unwell.partition).into();
            value["lag_bytes"] = self.left.get(unwell.topic, unwell.partition).into();
            value
        });
        let all = findings
            .iter()
            .map(|found| json!({"what": found.what, "todo": found.todo}));
        json!({
            "cluster": quorum.cluster_id,
            "well": findings.is_empty(),
            "findings": all.collect::<Vec<_>>(),
            "active": quorum.active.map(BrokerId::get),
            "term": quorum.term,
            "members": members.collect::<Vec<_>>(),
            "brokers": cluster.brokers.iter().map(super::broker::broker_json).collect::<Vec<_>>(),
            "partitions": {
                "all": cluster.partitions,
                "under_replicated": cluster.under_replicated,
                "under_min_isr": cluster.under_min_isr,
                "offline": cluster.leaderless,
                "moving": progress::moving(&self.topics).len(),
            },
            "unwell": unwell.collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let Seen { quorum, cluster, .. } = self;
        let findings = self.findings();
        let state = match findings.len() {
            0 => "all is well".to_owned(),
            many => format!("NOT WELL: {}", values::count(many as u64, "finding")),
        };
        let active = quorum
            .active
            .map_or_else(|| "none".to_owned(), |active| active.to_string());
        let fenced = cluster.brokers.iter().filter(|broker| broker.is_fenced).count();
        let moving = match progress::moving(&self.topics).len() {
            0 => String::new(),
            moving => format!(", {moving} moving (`headwater partition moves`)"),
        };
        let mut out = facts(&[
            ("state", state),
            ("cluster", quorum.cluster_id.clone()),
            ("active coordinator", format!("{active}, in term {}", quorum.term)),
            ("brokers", format!("{}, {fenced} not there", cluster.brokers.len())),
            (
                "partitions",
                format!(
                    "{}, {} under-replicated, {} under min ISR, {} offline{moving}",
                    cluster.partitions, cluster.under_replicated, cluster.under_min_isr, cluster.leaderless
                ),
            ),
        ]);
        for Finding { what, todo, .. } in &findings {
            // Writing to a string cannot fail.
            let _ = write!(out, "\n! {what}\n  {todo}\n");
        }
        out.push('\n');
        out.push_str(&members(quorum).text());
        out.push('\n');
        out.push_str(&super::broker::broker_rows(&cluster.brokers).text());
        let unwell = self.unwell();
        if !unwell.is_empty() {
            out.push('\n');
            out.push_str(&partitions(&unwell, &self.left).text());
        }
        out
    }
}

fn members(quorum: &QuorumDescription) -> Rows {
    let mut rows = Rows::new(["MEMBER", "ADDRESS", "ROLE", "COMMITTED"]);
    for member in &quorum.members {
        let role = match (quorum.active == Some(member.id), member.is_voter) {
            (true, _) => "active",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let committed = member.committed.as_ref().map_or_else(Clone::clone, ToString::to_string);
        rows.add([
            member.id.to_string(),
            member.address.clone(),
            role.to_owned(),
            committed,
        ]);
    }
    rows
}

/// The first of them.
fn partitions(unwell: &[Unwell<'_>], left: &Left) -> Rows {
    let mut rows = Rows::new([
        "TOPIC",
        ">PARTITION",
        ">LEADER",
        "REPLICAS",
        "IN SYNC",
        "ELIGIBLE",
        ">LAG",
        "STATE",
    ]);
    for Unwell { topic, partition } in unwell.iter().take(UNWELL_SHOWN) {
        let replicas = &partition.replicas;
        rows.add([
            (*topic).to_owned(),
            partition.partition.to_string(),
            crate::json::leader(partition),
            numbers(&replicas.replicas),
            numbers(&replicas.isr),
            numbers(&replicas.elr),
            left.get(topic, partition).map_or_else(String::new, values::size),
            lacks(partition).unwrap_or_default().to_owned(),
        ]);
    }
    if let Some(more) = unwell.len().checked_sub(UNWELL_SHOWN).filter(|more| *more > 0) {
        let rest = format!("({more} more)");
        rows.add([
            rest,
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ]);
    }
    rows
}

async fn add(session: &Session, args: AddArgs) -> Result<(), Failure> {
    let members = args.members.into_iter();
    let members: Vec<(BrokerId, String)> = members.map(|(id, address)| (BrokerId::new(id), address)).collect();
    let added = session.admin.add_quorum_members(&members).await;
    added.map_err(|error| Failure::client("add members to the quorum", &error))?;
    note("they are members now");
    Ok(())
}

async fn remove(session: &Session, args: &RemoveArgs) -> Result<(), Failure> {
    let member = args.member;
    confirm(&format!("Remove member {member} from the quorum?"), args.yes)?;
    let removed = session.admin.remove_quorum_member(BrokerId::new(member.into())).await;
    removed.map_err(|error| Failure::client("remove the member", &error))?;
    note("it is no member any more; stop it if it runs");
    Ok(())
}
