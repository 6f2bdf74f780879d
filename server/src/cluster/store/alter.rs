//! Changes to a topic that exists: its settings, and more partitions.
//!
//! ```text
//! settings: store the topic with them
//! partitions: store what it is to become ─► directories of the new partitions ─► store the topic as that
//! ```
//! Each arrow is durable before the next begins; a growth that a crash cut short is finished when the store is opened. Until
//! the last step the topic is served with the partitions that it had. Partitions are never taken away: their records would be.

use std::sync::Arc;
use std::time::Instant;

use headwater_engine::disk::Directory;

use super::names::Listing;
use super::{StoreError, TopicError, TopicStore, room};
use crate::image::{Topic, TopicState};
use crate::settings::{self, TopicSettings};

/// What a client asks for when it alters a topic.
#[derive(Clone, Debug)]
pub struct TopicAlteration {
    /// The topic.
    pub name: String,
    /// Settings in Kafka's names; one without a value returns to the broker's default.
    pub configs: Vec<(String, Option<String>)>,
    /// Number of partitions; -1 leaves it as it is.
    pub partitions: i32,
}

impl<D: Directory> TopicStore<D> {
    /// The topic that [`alter`](Self::alter) would leave, or why it would not. Changes nothing.
    pub fn check_alter(&self, alteration: &TopicAlteration) -> Result<Topic, TopicError> {
        let topic = self.image.topic(&alteration.name);
        let Some(topic) = topic.filter(|topic| topic.state == TopicState::Ready) else {
            let name = alteration.name.clone();
            return Err(TopicError::Unknown { name });
        };
        let partition_count = self.altered_partition_count(topic, alteration.partitions)?;
        let overrides = settings::altered(&topic.overrides, &alteration.configs)?;
        let changed = alteration.configs.iter().map(|(key, _)| key.as_str());
        let settings = TopicSettings::of_altered_topic(&overrides, changed, &self.config)?;
        Ok(Topic {
            partition_count,
            overrides,
            settings,
            becoming: None,
            ..Topic::clone(topic)
        })
    }

    fn altered_partition_count(&self, topic: &Topic, asked: i32) -> Result<u32, TopicError> {
        let has = topic.partition_count;
        if asked == -1 {
            return Ok(has);
        }
        let max = self.config.limits.partitions_per_topic_max;
        let count = u32::try_from(asked).ok().filter(|count| *count > 0);
        // The limit may have been lowered below what the topic has.
        let count = count.filter(|count| *count <= max.max(has));
        let count = count.ok_or(TopicError::Partitions { count: asked, max })?;
        if count < has {
            let name = topic.name.clone();
            return Err(TopicError::FewerPartitions { name, has, count });
        }
        let (held, max) = (self.image.partition_count(), self.config.limits.partitions_max);
        if count > has {
            room("partitions", held, (count - has).into(), max, "limits.partitions_max")?;
        }
        Ok(count)
    }

    /// Alters a topic. When it has returned `Ok`, the change stays whatever happens. After an error the topic is served as it
    /// was; if the disk failed, a restart may finish the change.
    pub async fn alter(&mut self, alteration: &TopicAlteration) -> Result<Arc<Topic>, TopicError> {
        let altered = self.check_alter(alteration)?;
        let id = altered.id;
        if let Some(former) = self.image.topic_by_id(id).filter(|topic| topic.becoming.is_some()) {
            // A growth that failed, and whose traces could not be removed then.
            self.undo_grow(&Arc::clone(former)).await?;
        }
        let former = Arc::clone(
            self.image
                .topic_by_id(id)
                .expect("it was found above, and nobody else changes the image"),
        );
        if altered.partition_count == former.partition_count {
            if altered != *former {
                self.put(altered).await?;
            }
        } else {
            self.grow(&former, altered).await?;
        }
        Ok(Arc::clone(
            self.image
                .topic_by_id(id)
                .expect("it was stored just now, and nobody else changes the image"),
        ))
    }

    async fn grow(&mut self, former: &Topic, altered: Topic) -> Result<(), TopicError> {
        // Whatever has the right name would be taken for the topic's, with records that nobody sent to it.
        let listing = Listing::read(&self.disk, &self.directory).await?;
        let mut added = altered.partitions().skip(former.partition_count as usize);
        if let Some(partition) = added.find(|partition| listing.kind(&altered, *partition).is_some()) {
            let path = self.directory.join(altered.partition_directory(partition));
            return Err(TopicError::InTheWay { path });
        }
        let growing = Topic {
            becoming: Some(Arc::new(altered)),
            ..former.clone()
        };
        self.put(growing.clone()).await?;
        if let Err(error) = self.finish_grow(&growing).await {
            // Nobody was told of it. If this fails too, the next change or a restart sees to what is left.
            if let Err(error) = self.undo_grow(&growing).await
                && let Some(unsaid) = self.left.may_speak(Instant::now())
            {
                tracing::warn!(topic = %growing.name, %error, unsaid, "partitions that could not be added could not be removed");
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// Makes a growing topic what it is to become.
    pub(super) async fn finish_grow(&mut self, growing: &Topic) -> Result<(), StoreError> {
        let Some(altered) = &growing.becoming else {
            return Ok(());
        };
        let added = altered.partitions().skip(growing.partition_count as usize);
        self.make_directories(altered, added).await?;
        self.put(Topic::clone(altered)).await
    }

    /// Makes a growing topic what it was. Its new partitions were never served, and hold nothing.
    async fn undo_grow(&mut self, growing: &Topic) -> Result<(), StoreError> {
        // The disk may have the larger topic already, whose partitions must not go missing.
        self.put(growing.clone()).await?;
        let added = growing.directories().skip(growing.partition_count as usize);
        self.remove_directories(added.map(|partition| growing.partition_directory(partition)))
            .await?;
        self.put(Topic {
            becoming: None,
            ..growing.clone()
        })
        .await
    }
}
