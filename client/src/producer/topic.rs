//! What a producer knows of one topic, for all its partitions: how many there are, what a batch may be, how records were spread.
//!
//! Shared by all callers of `send` and the senders of the partitions; each brings it up to date before relying on it.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use headwater_protocol::topic::TopicName;

use super::partitioner::Spread;
use crate::cluster::Cluster;
use crate::requests::TopicImage;

/// What one topic's partitions share.
#[derive(Debug)]
pub(super) struct TopicSpread {
    pub(super) spread: Spread,
    /// How many partitions the topic has.
    pub(super) count: AtomicU32,
    /// Bytes of the largest batch that the topic takes; 0 if that is not known.
    pub(super) batch_size_max: AtomicUsize,
    /// The metadata that these come from.
    generation: AtomicU64,
}

impl TopicSpread {
    /// As of metadata of this generation, or later.
    pub(super) fn new(image: &TopicImage, generation: u64) -> Self {
        let spread = Self {
            spread: Spread::new(),
            count: AtomicU32::new(0),
            batch_size_max: AtomicUsize::new(0),
            generation: AtomicU64::new(generation),
        };
        spread.learn(image);
        spread
    }

    fn learn(&self, image: &TopicImage) {
        self.count.store(image.partitions.len() as u32, Ordering::Relaxed);
        let size_max = image.batch_size_max.unwrap_or(0);
        self.batch_size_max.store(size_max, Ordering::Relaxed);
    }

    /// Takes over what has changed since.
    pub(super) fn follow(&self, cluster: &Cluster, topic: &TopicName) {
        let generation = cluster.metadata.generation();
        // Asked for every record, by several threads: written only if there is something new.
        if self.generation.load(Ordering::Relaxed) != generation
            && self.generation.swap(generation, Ordering::Relaxed) != generation
            && let Ok(image) = cluster.known_topic(topic)
        {
            self.learn(&image);
        }
    }
}
