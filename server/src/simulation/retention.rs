//! What is kept of the topic in some runs, while everybody is at work; in the others it is everything.

use std::time::Duration;

use headwater_client::{Client, Error, NewTopic, TopicAlteration};

use super::scenario::TOPIC;
use crate::machine::simulated::World;

/// A segment is full, or so old, before it can be deleted.
const SEGMENT_MS: u64 = 300;

#[derive(Debug, Clone, Copy)]
pub(super) enum Retention {
    /// Whatever was sent so long ago, or less.
    Age(Duration),
    /// So many of the newest bytes of each partition, or more.
    Size(u64),
}

impl Retention {
    pub(super) fn draw(world: &World) -> Option<Retention> {
        if !world.chance(0.25) {
            return None;
        }
        Some(if world.chance(0.5) {
            Retention::Age(Duration::from_millis(world.draw(500..6_000)))
        } else {
            Retention::Size(world.draw(0..100_000))
        })
    }

    /// Has the topic keep so much.
    pub(super) fn of(self, topic: NewTopic) -> NewTopic {
        let topic = topic.config("segment.ms", SEGMENT_MS);
        match self {
            Retention::Age(age) => topic.config("retention.ms", age.as_millis()),
            Retention::Size(bytes) => topic.config("retention.bytes", bytes),
        }
    }

    /// Has the topic keep all that it has.
    pub(super) async fn end(client: &Client) -> Result<(), Error> {
        let alteration = TopicAlteration::of(TOPIC);
        let alteration = alteration.set("retention.ms", -1).set("retention.bytes", -1);
        client.admin().alter_topic(alteration).await.map(drop)
    }
}
