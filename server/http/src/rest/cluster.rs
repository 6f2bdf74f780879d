//! The cluster: its brokers, its quorum, and how the broker is set that answers.

use axum::http::StatusCode;
use headwater_client::{BrokerId, BrokerListing, ErrorCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{Json, Path};
use crate::{caller::Caller, problem::Problem};

/// The cluster at a glance.
#[derive(Serialize, ToSchema)]
pub(crate) struct Cluster {
    /// Its identity.
    cluster_id: String,
    /// The active coordinator; none if nobody is, as far as the broker knows.
    active_coordinator: Option<i32>,
    /// The members of the coordinator quorum.
    coordinators: Vec<Coordinator>,
    /// How many brokers there are.
    brokers: usize,
    /// Those that are not there, or not let in.
    brokers_fenced: usize,
    /// Partitions of all topics.
    partitions: usize,
    /// Those that nobody leads.
    leaderless: usize,
    /// Those that take no records, because too few replicas are in sync.
    under_min_isr: usize,
    /// Those of which not all replicas are in sync.
    under_replicated: usize,
}

/// A member of the coordinator quorum.
#[derive(Serialize, ToSchema)]
pub(crate) struct Coordinator {
    /// Its number.
    id: i32,
    /// Whether it is one of those of whom a majority agrees.
    voter: bool,
    /// The last entry that it knows to be agreed on; none if it does not answer.
    committed: Option<u64>,
}

/// A broker.
#[derive(Serialize, ToSchema)]
pub(crate) struct Broker {
    /// Its number.
    id: i32,
    /// Where clients reach it.
    host: String,
    /// The port that its cores share.
    port: u16,
    /// What fails together with it has the same one.
    rack: Option<String>,
    /// It is not there, or not let in.
    fenced: bool,
    /// It gets no further replicas.
    cordoned: bool,
    /// Partitions that it has.
    replicas: usize,
    /// Those of them that are in sync.
    in_sync: usize,
    /// Those of them that it leads.
    leads: usize,
}

impl From<BrokerListing> for Broker {
    fn from(broker: BrokerListing) -> Broker {
        Broker {
            id: broker.id.get(),
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
            fenced: broker.is_fenced,
            cordoned: broker.is_cordoned,
            replicas: broker.replicas,
            in_sync: broker.in_sync,
            leads: broker.leads,
        }
    }
}

/// The broker that answers, and how it is set.
#[derive(Serialize, ToSchema)]
pub(crate) struct OwnBroker {
    /// Its number.
    id: i32,
    /// The version of its program.
    version: String,
    /// What it is doing; none if it does not say.
    status: Option<Status>,
    /// Every setting in force.
    config: Vec<BrokerSetting>,
}

/// What a broker is doing.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    /// How many cores it has.
    cores: usize,
    /// How many of them have answered.
    cores_up: usize,
    /// For how long it has been running, in milliseconds.
    uptime_ms: u64,
    /// Open connections.
    connections: u64,
    /// Partitions that it has.
    partitions: u64,
    /// Those of them that take no records.
    partitions_offline: u64,
    /// Bytes that are free where its data is.
    disk_free_bytes: Option<u64>,
    /// Bytes that there are.
    disk_size_bytes: Option<u64>,
}

/// A setting of a broker.
#[derive(Serialize, ToSchema)]
pub(crate) struct BrokerSetting {
    /// Its name.
    name: String,
    /// Its value; none for a secret.
    value: Option<String>,
}

/// A change to a broker.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BrokerChange {
    /// Whether it gets no further replicas.
    cordoned: bool,
}

/// Shows the cluster at a glance.
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster", operation_id = "cluster",
    responses((status = 200, description = "The cluster", body = Cluster)))]
pub(crate) async fn show(caller: Caller) -> Result<axum::Json<Cluster>, Problem> {
    let admin = caller.client().admin();
    let (quorum, listing) = (admin.describe_quorum().await?, admin.list_brokers().await?);
    let coordinators = quorum.members.into_iter().map(|member| Coordinator {
        id: member.id.get(),
        voter: member.is_voter,
        committed: member.committed.ok(),
    });
    Ok(axum::Json(Cluster {
        cluster_id: quorum.cluster_id,
        active_coordinator: quorum.active.map(BrokerId::get),
        coordinators: coordinators.collect(),
        brokers: listing.brokers.len(),
        brokers_fenced: listing.brokers.iter().filter(|broker| broker.is_fenced).count(),
        partitions: listing.partitions,
        leaderless: listing.leaderless,
        under_min_isr: listing.under_min_isr,
        under_replicated: listing.under_replicated,
    }))
}

/// Lists the brokers.
#[utoipa::path(get, path = "/v1/brokers", tag = "cluster", operation_id = "list_brokers",
    responses((status = 200, description = "The brokers", body = Vec<Broker>)))]
pub(crate) async fn brokers(caller: Caller) -> Result<axum::Json<Vec<Broker>>, Problem> {
    let listing = caller.client().admin().list_brokers().await?;
    Ok(axum::Json(listing.brokers.into_iter().map(Broker::from).collect()))
}

/// Describes a broker.
#[utoipa::path(get, path = "/v1/brokers/{broker}", tag = "cluster", operation_id = "describe_broker",
    params(("broker" = i32, Path, description = "Its number")),
    responses((status = 200, description = "The broker", body = Broker)))]
pub(crate) async fn broker(caller: Caller, Path(id): Path<i32>) -> Result<axum::Json<Broker>, Problem> {
    let listing = caller.client().admin().list_brokers().await?;
    let found = listing.brokers.into_iter().find(|broker| broker.id.get() == id);
    let absent = || {
        Problem::new(ErrorCode::BrokerIdNotRegistered, format!("there is no broker {id}"))
            .next("GET /v1/brokers lists them")
    };
    found.map(|broker| axum::Json(broker.into())).ok_or_else(absent)
}

/// Has a broker get no further replicas, or get them again.
#[utoipa::path(patch, path = "/v1/brokers/{broker}", tag = "cluster", operation_id = "cordon_broker",
    params(("broker" = i32, Path, description = "Its number")), request_body = BrokerChange,
    responses((status = 204, description = "It is so")))]
pub(crate) async fn change(
    caller: Caller,
    Path(id): Path<i32>,
    change: Json<BrokerChange>,
) -> Result<StatusCode, Problem> {
    if id < 0 {
        return Err(Problem::invalid("brokers have numbers from 0 on"));
    }
    caller
        .client()
        .admin()
        .cordon_broker(BrokerId::new(id), change.value.cordoned)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Describes the broker that answers: what it is doing, and every setting in force.
#[utoipa::path(get, path = "/v1/broker", tag = "cluster", operation_id = "own_broker",
    responses((status = 200, description = "The broker", body = OwnBroker)))]
pub(crate) async fn own(caller: Caller) -> Result<axum::Json<OwnBroker>, Problem> {
    let described = caller.client().admin().describe_broker().await?;
    let status = described.status.map(|status| Status {
        cores: status.cores,
        cores_up: status.cores_up,
        uptime_ms: status.uptime.as_millis() as u64,
        connections: status.connections,
        partitions: status.partitions,
        partitions_offline: status.partitions_offline,
        disk_free_bytes: status.disk.map(|disk| disk.free_bytes),
        disk_size_bytes: status.disk.map(|disk| disk.size_bytes),
    });
    let config = described.settings.into_iter().map(|setting| BrokerSetting {
        name: setting.name,
        value: setting.value,
    });
    Ok(axum::Json(OwnBroker {
        id: described.id.get(),
        version: described.version,
        status,
        config: config.collect(),
    }))
}
