//! `headwater status`: how a broker is, on one screen.

use std::cell::Cell;
use std::time::{Duration, Instant};

use clap::Args;
use headwater_client::{BrokerDescription, BrokerStatus};
use serde_json::json;

use super::watch::{self, WatchArgs};
use crate::failure::Failure;
use crate::screen::{Screen, facts};
use crate::session::Session;
use crate::values;

pub const EXAMPLES: &str = "\
Examples:
  headwater status
  headwater status --watch                                   # again every two seconds, in place
  headwater status --server broker.example:9292 --output json

Throughput is what came in with requests, and the records that consumers were sent, in a second or since it was shown last. \
The exit status is 0 whatever is offline: `/ready` of the broker's metrics is there for programs that watch over it.";

/// For how long throughput is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// Options of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    watch: WatchArgs,
}

/// What had been counted at a moment.
#[derive(Clone, Copy)]
struct Counted {
    at: Instant,
    received: u64,
    fetched: u64,
}

/// Bytes a second.
#[derive(Clone, Copy)]
struct Rates {
    received: f64,
    fetched: f64,
}

impl Counted {
    fn new(status: &BrokerStatus) -> Self {
        Self {
            at: Instant::now(),
            received: status.received_bytes,
            fetched: status.fetched_bytes,
        }
    }

    /// `None` if the broker was started anew since.
    fn rates_since(self, before: Self) -> Option<Rates> {
        let seconds = (self.at - before.at).as_secs_f64();
        let rate = |now: u64, before: u64| Some(now.checked_sub(before)? as f64 / seconds);
        Some(Rates {
            received: rate(self.received, before.received)?,
            fetched: rate(self.fetched, before.fetched)?,
        })
    }
}

/// Does what was asked for.
pub async fn run(session: &Session, server: &str, args: StatusArgs) -> Result<(), Failure> {
    let last: Cell<Option<Counted>> = Cell::new(None);
    let show_once = async |screen: Screen| {
        let before = if let Some(before) = last.get() {
            before
        } else {
            let before = Counted::new(&ask(session).await?.1);
            tokio::time::sleep(MEASURED).await;
            before
        };
        let (broker, status) = ask(session).await?;
        let now = Counted::new(&status);
        last.set(Some(now));
        show(screen, server, &broker, &status, now.rates_since(before))
    };
    watch::run(session, args.watch, show_once).await
}

async fn ask(session: &Session) -> Result<(BrokerDescription, BrokerStatus), Failure> {
    let broker = session.admin.describe_broker().await;
    let broker = broker.map_err(|error| Failure::client("ask the broker how it is", &error))?;
    let status = broker.status.ok_or_else(|| {
        Failure::failed(format!("a broker of version {} does not say how it is", broker.version))
            .hint("its metrics may: see docs/metrics.md")
    })?;
    Ok((broker, status))
}

fn show(
    screen: Screen,
    server: &str,
    broker: &BrokerDescription,
    status: &BrokerStatus,
    rates: Option<Rates>,
) -> Result<(), Failure> {
    screen.show(
        || {
            json!({
                "server": server,
                "broker": broker.id.get(),
                "version": broker.version,
                "uptime_seconds": status.uptime.as_secs(),
                "cores": status.cores,
                "cores_up": status.cores_up,
                "topics": status.topics,
                "partitions": status.partitions,
                "partitions_offline": status.partitions_offline,
                "groups": status.groups,
                "group_members": status.group_members,
                "connections": status.connections,
                "disk": status.disk.map(|disk| json!({"free_bytes": disk.free_bytes, "size_bytes": disk.size_bytes})),
                "bytes_per_second": rates.map(|rates| {
                    json!({"received": rates.received.round() as u64, "fetched": rates.fetched.round() as u64})
                }),
                "metrics": metrics(broker),
            })
        },
        || text(server, broker, status, rates),
    )
}

/// Where the broker's metrics are, if it has any.
fn metrics(broker: &BrokerDescription) -> Option<String> {
    let listen = broker
        .settings
        .iter()
        .find(|setting| setting.name == "metrics.listen")?;
    let listen = listen.value.as_deref().filter(|listen| *listen != "off")?;
    Some(format!("http://{listen}/metrics"))
}

fn text(server: &str, broker: &BrokerDescription, status: &BrokerStatus, rates: Option<Rates>) -> String {
    let offline = match status.partitions_offline {
        0 => "none offline".to_owned(),
        offline => format!("{offline} OFFLINE (`headwater topic list` shows where)"),
    };
    let cores = match status.cores.saturating_sub(status.cores_up) {
        0 => status.cores.to_string(),
        silent => format!("{}, {silent} of them SILENT", status.cores),
    };
    let members = values::count(status.group_members, "member");
    let disk = status.disk.map_or_else(
        || "not known".to_owned(),
        |disk| {
            let share = disk.free_bytes as f64 * 100.0 / disk.size_bytes.max(1) as f64;
            let (free, size) = (values::size(disk.free_bytes), values::size(disk.size_bytes));
            format!("{free} free of {size} ({share:.0}%)")
        },
    );
    let rates = rates.map_or_else(
        || "not known: the broker was started anew".to_owned(),
        |rates| format!("{} in, {} out", rate(rates.received), rate(rates.fetched)),
    );
    let uptime = Duration::from_secs(status.uptime.as_secs());
    facts(&[
        ("broker", format!("{} at {server}", broker.id)),
        ("version", broker.version.clone()),
        ("running for", humantime::format_duration(uptime).to_string()),
        ("cores", cores),
        ("topics", status.topics.to_string()),
        ("partitions", format!("{}, {offline}", status.partitions)),
        ("groups", format!("{}, with {members}", status.groups)),
        ("connections", status.connections.to_string()),
        ("disk", disk),
        ("throughput", rates),
        ("metrics", metrics(broker).unwrap_or_else(|| "off".to_owned())),
    ])
}

fn rate(bytes: f64) -> String {
    format!("{}/s", values::size(bytes.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_not_made_up_where_the_broker_has_begun_to_count_anew() {
        let at = Instant::now();
        let counted = |seconds: u64, received, fetched| Counted {
            at: at + Duration::from_secs(seconds),
            received,
            fetched,
        };
        let rates = counted(4, 500, 900).rates_since(counted(2, 100, 100)).unwrap();
        assert_eq!(
            (rates.received.to_bits(), rates.fetched.to_bits()),
            (200_f64.to_bits(), 400_f64.to_bits())
        );
        assert!(counted(4, 50, 900).rates_since(counted(2, 100, 100)).is_none());
    }
}
