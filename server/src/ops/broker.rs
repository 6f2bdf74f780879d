//! What this broker is set to, and what it is doing.

use futures::future::join_all;
use headwater_protocol::id::CoreId;

use super::{Ops, figures};
use crate::{
    config::{Config, Knob},
    core::mesh::CoreMessage,
    image::TopicState,
    machine,
    metrics::{ANSWER_MAX, CoreSnapshot, DiskSpace, Family},
    model::op::{BrokerDescription, BrokerStatus},
};

/// Settings and status.
pub(super) async fn describe(ops: &Ops) -> BrokerDescription {
    let core = &ops.core;
    let setting = |knob: &Knob| (knob.name(), knob.value(&core.config).show());
    BrokerDescription {
        id: core.config.broker.id,
        configs: Config::KNOBS.iter().map(setting).collect(),
        status: status(ops).await,
    }
}

/// Asks every core; one that does not answer in time is left out.
async fn status(ops: &Ops) -> BrokerStatus {
    let core = &ops.core;
    let deadline = machine::now() + ANSWER_MAX;
    let ask = |id: CoreId| async move {
        if id == core.id {
            return Some(figures::snapshot(ops, false));
        }
        let answer = core.mesh.ask(id, |reply| CoreMessage::Metrics {
            with_times: false,
            reply,
        });
        machine::until(deadline, answer).await.flatten()
    };
    let cores: Vec<CoreSnapshot> = join_all(core.mesh.ids().map(ask)).await.into_iter().flatten().collect();
    // The file system may take its time.
    let directory = core.config.log.directory.clone();
    let disk = machine::blocking(move || DiskSpace::of(&directory)).await;
    let image = ops.partitions.image();
    let topics = || image.topics().filter(|topic| topic.state == TopicState::Ready);
    let sum = |family| cores.iter().map(|core| core.sum(family)).sum();
    BrokerStatus {
        cores: core.mesh.len(),
        cores_up: cores.len(),
        uptime_ms: core.uptime().as_millis() as u64,
        connections: sum(Family::Connections),
        topics: topics().count(),
        partitions: topics().map(|topic| u64::from(topic.partition_count)).sum(),
        partitions_offline: sum(Family::PartitionsOffline),
        groups: sum(Family::Groups),
        group_members: sum(Family::GroupMembers),
        received_bytes: sum(Family::Received),
        fetched_bytes: sum(Family::FetchBytes),
        disk_free_bytes: disk.map_or(0, |disk| disk.free_bytes),
        disk_size_bytes: disk.map_or(0, |disk| disk.size_bytes),
    }
}
