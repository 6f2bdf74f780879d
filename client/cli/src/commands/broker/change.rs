//! What an operator does with a broker: keep new replicas from it, empty it, and take it out.

use std::time::Duration;

use clap::Args;
use headwater_client::BrokerId;

use super::{look, number_of};
use crate::commands::confirm;
use crate::failure::Failure;
use crate::screen::note;
use crate::session::Session;
use crate::values;

pub const CORDON_EXAMPLES: &str = "\
Examples:
  headwater broker cordon 1
  headwater broker uncordon 1

What it has it keeps: `headwater broker drain` empties it.";

pub const DRAIN_EXAMPLES: &str = "\
Examples:
  headwater broker drain 1                                   # and wait until it has nothing left
  headwater broker drain 1 --no-wait --yes                   # in a script

Every replica that it has moves to another broker, which reads it from the leader first. It gets no further replicas. To take it \
out for good, stop it then, and `headwater broker forget`. It asks on a terminal; a script has to say --yes.";

pub const FORGET_EXAMPLES: &str = "\
Examples:
  headwater broker forget 1 --yes                   # after `headwater broker drain 1`, and once it is stopped

It must have been stopped, and have no replicas. It asks on a terminal; a script has to say --yes.";

/// How often there is a look at what is left.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Options of `broker cordon` and `broker uncordon`.
#[derive(Debug, Args)]
pub struct CordonArgs {
    /// Its number
    #[arg(value_name = "NUMBER")]
    broker: u16,
}

/// Options of `broker drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Its number
    #[arg(value_name = "NUMBER")]
    broker: u16,
    /// Only begin
    #[arg(long)]
    no_wait: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Options of `broker forget`.
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// Its number
    #[arg(value_name = "NUMBER")]
    broker: u16,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub async fn cordon(session: &Session, args: &CordonArgs, is_cordoned: bool) -> Result<(), Failure> {
    let broker = number_of(args.broker);
    let changed = session.admin.cordon_broker(broker, is_cordoned).await;
    changed.map_err(|error| Failure::client("cordon the broker", &error))?;
    note(if is_cordoned {
        "it gets no further replicas"
    } else {
        "it gets replicas again"
    });
    Ok(())
}

pub async fn drain(session: &Session, args: &DrainArgs) -> Result<(), Failure> {
    let broker = number_of(args.broker);
    confirm(&format!("Move everything from broker {broker} to others?"), args.yes)?;
    let moves = session.admin.drain_broker(broker).await;
    let moves = moves.map_err(|error| Failure::client("drain the broker", &error))?;
    note(&format!("{} move", values::count(moves as u64, "replica")));
    if args.no_wait {
        return Ok(());
    }
    let mut told = moves;
    loop {
        let left = left(session, broker).await?;
        if left == 0 {
            note("it has nothing left; `headwater broker forget` takes it out once it was stopped");
            return Ok(());
        }
        if left < told {
            told = left;
            note(&format!("{left} left"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn left(session: &Session, broker: BrokerId) -> Result<usize, Failure> {
    let cluster = look(session).await?;
    let found = cluster.brokers.iter().find(|other| other.id == broker);
    Ok(found.map_or(0, |broker| broker.replicas))
}

pub async fn forget(session: &Session, args: &ForgetArgs) -> Result<(), Failure> {
    let broker = number_of(args.broker);
    confirm(&format!("Take broker {broker} out of the cluster?"), args.yes)?;
    let forgotten = session.admin.forget_broker(broker).await;
    forgotten.map_err(|error| Failure::client("forget the broker", &error))?;
    note("it is no broker of the cluster any more; `headwater cluster remove` takes it out of the quorum");
    Ok(())
}
