//! `headwater cluster`: the members of the coordinator quorum.

use clap::{Args, Subcommand};
use headwater_client::{BrokerId, QuorumDescription};
use serde_json::json;

use super::confirm;
use crate::failure::Failure;
use crate::screen::{Rows, facts, note};
use crate::session::Session;

const STATUS_EXAMPLES: &str = "\
Examples:
  headwater cluster status
  headwater cluster status --output json

COMMITTED is the last entry that a member knows to be agreed on. A member that does not answer is told with the reason.";

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
    /// Show the members of the coordinator quorum, and how they are
    #[command(after_help = STATUS_EXAMPLES)]
    Status,
    /// Make others members, all in one change
    #[command(after_help = ADD_EXAMPLES)]
    Add(AddArgs),
    /// Take a member out, whether it runs or not
    #[command(visible_alias = "rm", after_help = REMOVE_EXAMPLES)]
    Remove(RemoveArgs),
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
        ClusterCommand::Status => status(session).await,
        ClusterCommand::Add(args) => add(session, args).await,
        ClusterCommand::Remove(args) => remove(session, &args).await,
    }
}

async fn status(session: &Session) -> Result<(), Failure> {
    let quorum = session.admin.describe_quorum().await;
    let quorum = quorum.map_err(|error| Failure::client("ask for the members of the quorum", &error))?;
    session.screen.show(
        || {
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
            json!({
                "cluster": quorum.cluster_id,
                "active": quorum.active.map(BrokerId::get),
                "term": quorum.term,
                "members": members.collect::<Vec<_>>(),
            })
        },
        || text(&quorum),
    )
}

fn text(quorum: &QuorumDescription) -> String {
    let active = quorum
        .active
        .map_or_else(|| "none".to_owned(), |active| active.to_string());
    let mut out = facts(&[
        ("cluster", quorum.cluster_id.clone()),
        ("active coordinator", active),
        ("term", quorum.term.to_string()),
    ]);
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
    out.push('\n');
    out.push_str(&rows.text());
    out
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
