//! `headwater broker`: the brokers of a cluster.

mod change;

use clap::{Args, Subcommand};
use headwater_client::{BrokerId, BrokerListing, ClusterListing};
use serde_json::{Value, json};

use super::watch::{self, WatchArgs};
use crate::failure::Failure;
use crate::screen::{Rows, Screen, facts};
use crate::session::Session;
use crate::values;

const LIST_EXAMPLES: &str = "\
Examples:
  headwater broker list
  headwater broker list --watch                              # again every two seconds, in place
  headwater broker list --output json

A broker that is not there (fenced) leads nothing and is in sync with nobody. One that is cordoned gets no further replicas.";

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  headwater broker describe 1
  headwater broker describe 1 --output json

`headwater status` and `headwater config` show how the broker itself is that --server names, and what it is set to.";

/// What to do with brokers.
#[derive(Debug, Subcommand)]
pub enum BrokerCommand {
    /// List the brokers of the cluster
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show where a broker is and what it has
    #[command(visible_alias = "show", after_help = DESCRIBE_EXAMPLES)]
    Describe(DescribeArgs),
    /// Have a broker get no further replicas
    #[command(after_help = change::CORDON_EXAMPLES)]
    Cordon(change::CordonArgs),
    /// Have a broker get replicas again
    #[command(after_help = change::CORDON_EXAMPLES)]
    Uncordon(change::CordonArgs),
    /// Move everything that a broker has to others
    #[command(after_help = change::DRAIN_EXAMPLES)]
    Drain(change::DrainArgs),
    /// Take a broker out of the cluster that was stopped for good
    #[command(after_help = change::FORGET_EXAMPLES)]
    Forget(change::ForgetArgs),
}

/// Options of `broker list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    watch: WatchArgs,
}

/// Options of `broker describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// Its number
    #[arg(value_name = "NUMBER")]
    broker: i32,
}

/// Does what was asked for.
pub async fn run(session: &Session, command: BrokerCommand) -> Result<(), Failure> {
    match command {
        BrokerCommand::List(args) => watch::run(session, args.watch, async |screen| list(session, screen).await).await,
        BrokerCommand::Describe(args) => describe(session, args.broker).await,
        BrokerCommand::Cordon(args) => change::cordon(session, &args, true).await,
        BrokerCommand::Uncordon(args) => change::cordon(session, &args, false).await,
        BrokerCommand::Drain(args) => change::drain(session, &args).await,
        BrokerCommand::Forget(args) => change::forget(session, &args).await,
    }
}

fn number_of(broker: u16) -> BrokerId {
    BrokerId::new(broker.into())
}

/// All brokers.
pub async fn look(session: &Session) -> Result<ClusterListing, Failure> {
    let cluster = session.admin.list_brokers().await;
    cluster.map_err(|error| Failure::client("ask for the brokers", &error))
}

async fn list(session: &Session, screen: Screen) -> Result<(), Failure> {
    let cluster = look(session).await?;
    screen.show(
        || cluster.brokers.iter().map(broker_json).collect(),
        || broker_rows(&cluster.brokers).text(),
    )
}

async fn describe(session: &Session, number: i32) -> Result<(), Failure> {
    let cluster = look(session).await?;
    let broker = cluster.brokers.iter().find(|broker| broker.id.get() == number);
    let broker = broker.ok_or_else(|| {
        Failure::not_found(format!("there is no broker {number}")).hint("`headwater broker list` lists all brokers")
    })?;
    session.screen.show(|| broker_json(broker), || text(broker))
}

/// Where the cores are, by the broker's own host.
fn ports(broker: &BrokerListing) -> String {
    let ports: Vec<_> = broker.core_ports.iter().map(ToString::to_string).collect();
    ports.join(",")
}

fn state(broker: &BrokerListing) -> &'static str {
    match (broker.is_fenced, broker.is_cordoned) {
        (true, _) => "NOT THERE",
        (false, true) => "cordoned",
        (false, false) => "there",
    }
}

fn text(broker: &BrokerListing) -> String {
    let out = broker.replicas.saturating_sub(broker.in_sync);
    facts(&[
        ("broker", broker.id.to_string()),
        ("state", state(broker).to_owned()),
        ("address", format!("{}:{}", broker.host, broker.port)),
        ("ports of cores", ports(broker)),
        ("rack", broker.rack.clone().unwrap_or_else(|| "none".to_owned())),
        ("incarnation", broker.incarnation.to_string()),
        (
            "replicas",
            format!(
                "{}, {out} of them not in sync",
                values::count(broker.replicas as u64, "partition")
            ),
        ),
        ("leads", values::count(broker.leads as u64, "partition")),
        ("is to lead", values::count(broker.preferred as u64, "partition")),
    ])
}

/// A broker as JSON.
pub fn broker_json(broker: &BrokerListing) -> Value {
    json!({
        "id": broker.id.get(),
        "host": broker.host,
        "port": broker.port,
        "core_ports": broker.core_ports,
        "rack": broker.rack,
        "incarnation": broker.incarnation,
        "fenced": broker.is_fenced,
        "cordoned": broker.is_cordoned,
        "replicas": broker.replicas,
        "in_sync": broker.in_sync,
        "leads": broker.leads,
        "preferred": broker.preferred,
    })
}

/// A line for each broker.
pub fn broker_rows(brokers: &[BrokerListing]) -> Rows {
    let mut rows = Rows::new([
        "BROKER",
        "ADDRESS",
        "RACK",
        ">REPLICAS",
        ">IN SYNC",
        ">LEADS",
        ">CORES",
        "STATE",
    ]);
    for broker in brokers {
        rows.add([
            broker.id.to_string(),
            format!("{}:{}", broker.host, broker.port),
            broker.rack.clone().unwrap_or_default(),
            broker.replicas.to_string(),
            broker.in_sync.to_string(),
            broker.leads.to_string(),
            broker.core_ports.len().to_string(),
            state(broker).to_owned(),
        ]);
    }
    rows
}
