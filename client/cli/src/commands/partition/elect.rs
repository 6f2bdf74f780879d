//! Who leads partitions.

use clap::Args;
use clap_complete::ArgValueCandidates;
use headwater_client::{BrokerId, RefusedPartition};

use crate::commands::confirm;
use crate::complete;
use crate::failure::Failure;
use crate::screen::note;
use crate::session::Session;
use crate::values;

pub const EXAMPLES: &str = "\
Examples:
  headwater partition elect                                  # the preferred leaders of all partitions
  headwater partition elect orders 0 1                       # of these
  headwater partition elect orders 0 --unclean 2             # LOSES what broker 2 lacks

Leadership returns to the preferred leaders by itself some seconds after they are in sync again. An unclean election is for a \
partition that nobody leads, and whose in-sync and eligible replicas (`headwater topic describe`) will not come back: what was \
acknowledged and this broker lacks is lost. It asks on a terminal; a script has to say --yes.";

/// Options of `partition elect`.
#[derive(Debug, Args)]
pub struct ElectArgs {
    /// The topic; without one, all partitions of all topics
    #[arg(add = ArgValueCandidates::new(complete::topics), requires = "partitions")]
    topic: Option<String>,
    /// The partitions' numbers, from 0
    #[arg(value_name = "PARTITION")]
    partitions: Vec<i32>,
    /// This broker is to lead, though it may lack records that were acknowledged
    #[arg(long, value_name = "NUMBER", requires = "topic")]
    unclean: Option<u16>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub async fn elect(session: &Session, args: ElectArgs) -> Result<(), Failure> {
    let named = args.topic.map(|topic| vec![(topic, args.partitions)]);
    let refused = match (args.unclean, &named) {
        (Some(broker), Some(partitions)) => {
            let question = format!("Have broker {broker} lead, and LOSE what was acknowledged and it lacks?");
            confirm(&question, args.yes)?;
            session
                .admin
                .elect_unclean(partitions, BrokerId::new(broker.into()))
                .await
        }
        _ => session.admin.elect_preferred(named.as_deref()).await,
    };
    let refused = refused.map_err(|error| Failure::client("elect leaders", &error))?;
    judge(&refused, "elected")
}

/// Says for which partitions it was refused, and fails if it was for any.
pub fn judge(refused: &[RefusedPartition], done: &str) -> Result<(), Failure> {
    for RefusedPartition {
        topic,
        partition,
        error,
        ..
    } in refused
    {
        note(&format!("{topic} {partition}: {error}"));
    }
    if refused.is_empty() {
        note(done);
        return Ok(());
    }
    let count = values::count(refused.len() as u64, "partition");
    Err(Failure::failed(format!(
        "it was refused for {count}; the others are done"
    )))
}
