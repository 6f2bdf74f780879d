//! The replicas in the end: all are in sync, and they are the same, byte for byte.

use std::{collections::BTreeMap, path::Path, time::Duration};

use headwater_engine::disk::{Directory as _, SimDisk};
use headwater_protocol::batch::BatchHeader;

use super::{
    super::scenario::{CALM_MAX, TOPIC},
    Cluster,
};
use crate::{cluster::Agreement, machine};

/// Waits until every partition has a leader and all its replicas are in sync.
pub(super) async fn all_in_sync(agreement: &Agreement) {
    let deadline = machine::now() + CALM_MAX;
    loop {
        let state = agreement.state();
        let lacking = state.replicas().partitions().find(|(_, replicas)| {
            let is_moving = !replicas.adding.is_empty() || !replicas.removing.is_empty();
            let is_whole = replicas.isr.len() == replicas.replicas.len() && replicas.offline.is_empty();
            replicas.leader.is_none() || is_moving || !is_whole
        });
        let Some(lacking) = lacking else { return };
        assert!(
            machine::now() < deadline,
            "not everybody is in sync, though nothing is wrong any more: {lacking:?}"
        );
        machine::sleep(Duration::from_millis(100)).await;
    }
}

/// A log as it is on a disk: its batches by their offsets.
type Batches = BTreeMap<u64, Vec<u8>>;

/// Compares what all replicas of the topic have on their disks. The brokers have stopped in order.
pub(super) async fn compare_logs(cluster: &Cluster, partitions: i32) {
    for partition in 0..partitions {
        let state = cluster.agreement.state();
        let topic = state.image().topic(TOPIC).expect("nobody has deleted it").id;
        let mut logs: Vec<(String, Batches)> = Vec::new();
        for broker in &state.replicas().replicas_of(topic)[partition as usize].replicas {
            let house = &cluster.houses[broker.get() as usize];
            let directory = format!("/data/{TOPIC}-{partition}");
            let log = read(&house.disk(), Path::new(&directory)).await;
            let log = log.unwrap_or_else(|| panic!("{} has no partition {partition}", house.host));
            logs.push((house.host.to_string(), log));
        }
        let Some(((first, log), others)) = logs.split_first() else {
            continue;
        };
        for (other, their) in others {
            let ours = log.keys().chain(their.keys());
            for offset in ours {
                assert!(
                    log.get(offset) == their.get(offset),
                    "the batches at {offset} of partition {partition} on {first} and {other} differ"
                );
            }
        }
    }
}

async fn read(disk: &SimDisk, directory: &Path) -> Option<Batches> {
    let entries = disk.list(directory).await.ok()?;
    let mut batches = Batches::new();
    let mut next = None;
    for name in entries.into_iter().map(|entry| entry.name) {
        let Some(base) = name.strip_suffix(".log") else {
            continue;
        };
        let base: u64 = base.parse().expect("a segment is named by its offset");
        let bytes = disk.read_file(&directory.join(&name)).await;
        let bytes = bytes.expect("a sound disk reads");
        assert!(next.is_none_or(|next| next == base), "segment {name} does not follow");
        let mut expected = base;
        let mut rest = &bytes[..];
        while let Ok(header) = BatchHeader::read(rest)
            && header.base_offset().get() == expected
            && header.size() <= rest.len()
        {
            let (batch, behind) = rest.split_at(header.size());
            expected = header.next_offset().get();
            batches.insert(header.base_offset().get(), batch.to_vec());
            rest = behind;
        }
        next = Some(expected);
    }
    Some(batches)
}
