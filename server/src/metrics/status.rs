//! What the broker is doing, in a few figures, for whoever asks a core over the native protocol.

use std::time::Instant;

use futures::future::join_all;
use headwater_protocol::{id::CoreId, schema::BrokerStatusT};

use super::{CoreSnapshot, DiskSpace, Family, http::ANSWER_MAX, snapshot};
use crate::{
    core::{Core, mesh::CoreMessage},
    image::TopicState,
    machine,
};

/// Asks every core; one that does not answer in time is left out.
pub(crate) async fn status(core: &Core) -> BrokerStatusT {
    let deadline = Instant::now() + ANSWER_MAX;
    let ask = |id: CoreId| async move {
        if id == core.id {
            return Some(snapshot(core));
        }
        let answer = core.mesh.ask(id, |reply| CoreMessage::Metrics { reply });
        machine::until(deadline, answer).await.flatten()
    };
    let cores: Vec<CoreSnapshot> = join_all(core.mesh.ids().map(ask)).await.into_iter().flatten().collect();
    // The file system may take its time.
    let directory = core.config.log.directory.clone();
    let disk = machine::blocking(move || DiskSpace::of(&directory)).await;
    let image = core.image();
    let topics = || image.topics().filter(|topic| topic.state == TopicState::Ready);
    BrokerStatusT {
        cores: core.mesh.len() as u16,
        cores_up: cores.len() as u16,
        uptime_ms: core.uptime().as_millis() as u64,
        connections: sum(&cores, Family::Connections),
        topics: topics().count() as u32,
        partitions: topics().map(|topic| u64::from(topic.partition_count)).sum(),
        partitions_offline: sum(&cores, Family::PartitionsOffline),
        groups: sum(&cores, Family::Groups),
        group_members: sum(&cores, Family::GroupMembers),
        received_bytes: sum(&cores, Family::Received),
        fetched_bytes: sum(&cores, Family::FetchBytes),
        disk_free_bytes: disk.map_or(0, |disk| disk.free_bytes),
        disk_size_bytes: disk.map_or(0, |disk| disk.size_bytes),
    }
}

fn sum(cores: &[CoreSnapshot], of: Family) -> u64 {
    let samples = cores.iter().flat_map(|core| &core.samples);
    let samples = samples.filter(|(family, ..)| *family == of);
    samples.map(|(_, _, value)| *value as u64).sum()
}
