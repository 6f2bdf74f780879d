//! The replicas in the end: all are in sync, and they are the same, byte for byte.

use std::{collections::BTreeMap, path::Path, time::Duration};

use headwater_engine::disk::{Directory as _, Disk as _, SegmentFile as _, SimDisk, SimFile};
use headwater_protocol::batch::{BatchHeader, HEADER_LEN};

use super::{
    super::scenario::{CALM_MAX, TOPIC},
    Cluster,
};
use crate::{cluster::Agreement, machine};

/// Waits until every partition has a leader and all its replicas are in sync.
pub(super) async fn all_in_sync(agreement: &Agreement) {
    let deadline = machine::now() + CALM_MAX;
    loop {
        let map = agreement.replicas();
        let lacking = map.partitions().find(|(_, replicas)| {
            let is_moving = !replicas.adding.is_empty() || !replicas.removing.is_empty();
            let is_whole = replicas.isr.len() == replicas.replicas.len() && replicas.offline.is_empty();
            replicas.leader.is_none() || is_moving || !is_whole
        });
        let Some(lacking) = lacking else {
            return;
        };
        assert!(
            machine::now() < deadline,
            "not everybody is in sync, though nothing is wrong any more: {lacking:?}"
        );
        machine::sleep(Duration::from_millis(100)).await;
    }
}

/// What the checksum of a batch covers begins here.
const CRC_COVERS: usize = 21;

/// A log as it is on a disk: its batches by their offsets, as far as they are whole.
#[derive(Default)]
pub(super) struct Batches {
    batches: BTreeMap<u64, Vec<u8>>,
    end: u64,
}

impl Batches {
    /// Whether the record at this offset is there, and all before it.
    pub(super) fn contains(&self, offset: u64) -> bool {
        offset < self.end
    }

    /// What was acknowledged in a journal and is not in segments: batches behind a first line.
    fn take_in(&mut self, journaled: &[u8]) {
        let line = journaled.iter().position(|byte| *byte == b'\n');
        let mut rest = &journaled[line.expect("it has a first line") + 1..];
        while let Ok(header) = BatchHeader::read(rest) {
            let (batch, after) = rest.split_at(header.size());
            if header.base_offset().get() >= self.end {
                self.batches.insert(header.base_offset().get(), batch.to_vec());
                self.end = header.next_offset().get();
            }
            rest = after;
        }
    }
}

/// Compares what all replicas of the topic have on their disks. The brokers have stopped in order.
pub(super) async fn compare_logs(cluster: &Cluster, partitions: i32) {
    for partition in 0..partitions {
        let (image, map) = (cluster.agreement.image(), cluster.agreement.replicas());
        let topic = image.topic(TOPIC).expect("nobody has deleted it").id;
        let mut logs: Vec<(String, Batches)> = Vec::new();
        for broker in &map.replicas_of(topic)[partition as usize].replicas {
            let house = &cluster.houses[broker.get() as usize];
            let directory = format!("/data/{TOPIC}-{partition}");
            let log = read(&house.disk().certain_image(0), Path::new(&directory)).await;
            // Where nothing ever came, a broker may have stopped before it had heard of the topic.
            logs.push((house.host.to_string(), log.unwrap_or_default()));
        }
        let Some(((first, log), others)) = logs.split_first() else {
            continue;
        };
        for (other, their) in others {
            let ours = log.batches.keys().chain(their.batches.keys());
            for offset in ours {
                assert!(
                    log.batches.get(offset) == their.batches.get(offset),
                    "the batches at {offset} of partition {partition} on {first} and {other} differ"
                );
            }
        }
    }
}

/// Reads a log; none if it has no directory.
pub(super) async fn read(disk: &SimDisk, directory: &Path) -> Option<Batches> {
    let data = directory.parent().expect("partitions lie in the data directory");
    // A disk that is new has not even that.
    disk.list(data).await.ok()?;
    let recovered = headwater_engine::journal::recover(disk, data).await;
    recovered.expect("journals are whole");
    let entries = disk.list(directory).await.ok()?;
    let mut log = Batches::default();
    let mut next = None;
    for name in entries.into_iter().map(|entry| entry.name) {
        let Some(base) = name.strip_suffix(".log") else {
            continue;
        };
        let base: u64 = base.parse().expect("a segment is named by its offset");
        if next.is_some_and(|next| next != base) {
            // The one before was torn, or this one is left of before.
            break;
        }
        let file = disk.open(&directory.join(&name), false).await;
        let file = file.expect("a sound disk opens");
        log.end = base;
        let mut position = 0;
        // Batch for batch: most of the file may be room for what comes.
        while let Some(batch) = read_batch(&file, position, log.end).await {
            let header = BatchHeader::read(&batch).expect("it was read before");
            log.end = header.next_offset().get();
            position += batch.len() as u64;
            log.batches.insert(header.base_offset().get(), batch);
        }
        next = Some(log.end);
    }
    if let Ok(journaled) = disk.read_file(&directory.join("journaled")).await {
        log.take_in(&journaled);
    }
    Some(log)
}

/// The batch at a position, if it is whole, and the one that begins at this offset.
async fn read_batch(file: &SimFile, position: u64, base: u64) -> Option<Vec<u8>> {
    let read = async |length| file.read(position, length).await.expect("a sound disk reads");
    let bytes = read(HEADER_LEN).await;
    let header = BatchHeader::read(&bytes).ok()?;
    if header.base_offset().get() != base {
        return None;
    }
    let batch = read(header.size()).await;
    let is_whole = batch.len() == header.size() && crc32c::crc32c(&batch[CRC_COVERS..]) == header.crc();
    is_whole.then_some(batch)
}
