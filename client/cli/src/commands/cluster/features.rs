//! `cluster features` and `cluster finalise`: what the brokers may rely on of each other, and when that changes.

use clap::Args;
use headwater_client::{BrokerListing, ClusterListing};
use serde_json::{Value, json};

use crate::commands::broker::look;
use crate::commands::confirm;
use crate::failure::Failure;
use crate::screen::{Rows, facts, note};
use crate::session::Session;

pub const EXAMPLES: &str = "\
Examples:
  headwater cluster features
  headwater cluster features --output json

A new program may be able to do what an older one cannot read. It does that only once the level is finalised that unlocks it: until \
then every broker can be started as the older program again. Level 1 is everything that there is today.";

pub const FINALISE_EXAMPLES: &str = "\
Examples:
  headwater cluster finalise 2                               # after the upgrade of every broker
  headwater cluster finalise 2 --yes                         # in a script

It is refused if a broker cannot do that level. There is no way back: a broker that cannot do the level is not let in any more. It asks \
on a terminal; a script has to say --yes.";

/// Options of `cluster finalise`.
#[derive(Debug, Args)]
pub struct FinaliseArgs {
    /// The level
    #[arg(value_name = "LEVEL")]
    level: u16,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// The level that could be finalised, if it is a later one.
fn next(cluster: &ClusterListing) -> Option<u16> {
    let newest = cluster
        .brokers
        .iter()
        .map(|broker| *broker.feature_levels.end())
        .min()?;
    (newest > cluster.feature_level).then_some(newest)
}

fn range(broker: &BrokerListing) -> String {
    let levels = &broker.feature_levels;
    if levels.start() == levels.end() {
        levels.start().to_string()
    } else {
        format!("{} to {}", levels.start(), levels.end())
    }
}

pub async fn show(session: &Session) -> Result<(), Failure> {
    let cluster = look(session).await?;
    session.screen.show(|| as_json(&cluster), || text(&cluster))
}

fn as_json(cluster: &ClusterListing) -> Value {
    let brokers = cluster.brokers.iter().map(|broker| {
        json!({
            "id": broker.id.get(),
            "oldest": broker.feature_levels.start(),
            "newest": broker.feature_levels.end(),
        })
    });
    json!({
        "finalised": cluster.feature_level,
        "can_finalise": next(cluster),
        "brokers": brokers.collect::<Vec<_>>(),
    })
}

fn text(cluster: &ClusterListing) -> String {
    let can = next(cluster).map_or_else(
        || "no later level: not every broker can do one".to_owned(),
        |level| format!("level {level}, by `headwater cluster finalise {level}`"),
    );
    let mut rows = Rows::new(["BROKER", "LEVELS"]);
    for broker in &cluster.brokers {
        rows.add([broker.id.to_string(), range(broker)]);
    }
    let told = facts(&[
        ("feature level", cluster.feature_level.to_string()),
        ("can be finalised", can),
    ]);
    format!("{told}\n{}", rows.text())
}

pub async fn finalise(session: &Session, args: &FinaliseArgs) -> Result<(), Failure> {
    let level = args.level;
    confirm(
        &format!("Finalise feature level {level}? There is no way back."),
        args.yes,
    )?;
    let finalised = session.admin.finalise_features(level).await;
    finalised.map_err(|error| Failure::client(&format!("finalise feature level {level}"), &error))?;
    note(&format!("the cluster is at feature level {level}"));
    Ok(())
}
