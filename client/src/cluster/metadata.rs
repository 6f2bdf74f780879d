//! What is known of topics and their leaders, and the coalescing of questions about them.
//!
//! Everyone who waits for metadata shares one request: a caller adds its topic to `wanted` and queues at the gate; the
//! first one through asks for all that are wanted, and the others find their topic answered. Asks only for topics that
//! this client uses. Where the request goes is the cluster's business.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{BrokerId, CoreId, LeaderEpoch, TopicId};
use headwater_protocol::topic::TopicName;

use crate::address::Address;
use crate::error::Error;
use crate::requests::{ClusterImage, Node, TopicImage};
use crate::runtime::sync::Mutex;

/// Ports that are remembered of brokers that have gone.
const GONE_MAX: usize = 4096;

#[derive(Default)]
pub(crate) struct Metadata {
    state: Mutex<State>,
    /// Grows whenever any topic's image changes.
    generation: AtomicU64,
    /// Held by the one caller that asks.
    gate: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    brokers: Vec<Address>,
    nodes: BTreeMap<BrokerId, Node>,
    /// Every port of theirs.
    listeners: BTreeSet<Address>,
    /// Those that were among them and are no more.
    gone: BTreeSet<Address>,
    topics: HashMap<TopicName, Result<Arc<TopicImage>, ErrorCode>>,
    latest: HashMap<TopicName, Latest>,
    wanted: BTreeSet<TopicName>,
}

/// The latest leader epoch that was heard of for each partition of a topic. It outlives the leader: when that is gone, one that led
/// before it may still take itself to lead (KIP-320).
struct Latest {
    topic: TopicId,
    epochs: Vec<Option<LeaderEpoch>>,
}

impl Metadata {
    /// What was last heard of the topic; `None` if nothing.
    pub(crate) fn topic(&self, name: &TopicName) -> Option<Result<Arc<TopicImage>, ErrorCode>> {
        self.state.lock().topics.get(name).cloned()
    }

    /// The shared ports of all brokers that are known.
    pub(crate) fn brokers(&self) -> Vec<Address> {
        self.state.lock().brokers.clone()
    }

    /// Where a core of a broker listens.
    pub(crate) fn core_address(&self, broker: BrokerId, core: CoreId) -> Option<Address> {
        self.state.lock().nodes.get(&broker)?.core_address(core)
    }

    /// Whether a broker listened there, and is none of the cluster's any more as far as is known.
    pub(crate) fn has_gone(&self, address: &Address) -> bool {
        self.state.lock().gone.contains(address)
    }

    /// Every topic that is known to exist.
    pub(crate) fn topics(&self) -> Vec<TopicName> {
        let state = self.state.lock();
        state
            .topics
            .iter()
            .filter(|(_, image)| image.is_ok())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Changes whenever an answer to [`Metadata::topic`] does.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks again about these topics, with `ask`, unless someone else does so after this call began.
    pub(crate) async fn refresh<F>(
        &self,
        topics: &[TopicName],
        ask: impl FnOnce(Vec<TopicName>) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<ClusterImage, Error>>,
    {
        self.state.lock().wanted.extend(topics.iter().cloned());
        let _gate = self.gate.lock().await;
        let asked = {
            let mut state = self.state.lock();
            if !topics.iter().any(|topic| state.wanted.contains(topic)) {
                return Ok(());
            }
            // Whoever wants a topic from here on wants a younger answer than the one asked for now.
            std::mem::take(&mut state.wanted).into_iter().collect()
        };
        let mut asked = Asked {
            metadata: self,
            topics: asked,
            answered: false,
        };
        let image = ask(asked.topics.clone()).await?;
        asked.answered = true;
        self.learn(&asked.topics, image);
        Ok(())
    }

    fn learn(&self, asked: &[TopicName], mut image: ClusterImage) {
        let mut changed = false;
        let mut state = self.state.lock();
        for topic in asked {
            // A topic that is not in the answer does not exist.
            let now = image
                .topics
                .remove(topic)
                .unwrap_or(Err(ErrorCode::UnknownTopicOrPartition));
            let now = now.map(|now| state.without_former_leaders(topic, now));
            if state.topics.get(topic) != Some(&now) {
                changed = true;
                state.topics.insert(topic.clone(), now);
            }
        }
        if !image.brokers.is_empty() {
            state.brokers = image.brokers;
            state.nodes = image.nodes;
            let before = std::mem::replace(&mut state.listeners, image.listeners);
            state.gone.extend(before);
            let State { listeners, gone, .. } = &mut *state;
            gone.retain(|address| !listeners.contains(address));
            // Whoever was there long ago is not connected to any more.
            if gone.len() > GONE_MAX {
                gone.clear();
            }
        }
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }
}

impl State {
    /// What is told of a topic, with the leaders that are known already where those that are told came before them: whoever is cut
    /// off from the others, or stood still, does not know that they have chosen another.
    fn without_former_leaders(&mut self, name: &TopicName, mut told: Arc<TopicImage>) -> Arc<TopicImage> {
        let known = match self.topics.get(name) {
            Some(Ok(known)) if known.id == told.id => Some(known),
            _ => None,
        };
        let anew = || Latest {
            topic: told.id,
            epochs: Vec::new(),
        };
        let latest = self.latest.entry(name.clone()).or_insert_with(anew);
        if latest.topic != told.id {
            *latest = anew();
        }
        for index in 0..told.partitions.len() {
            let Ok(leader) = &told.partitions[index] else { continue };
            match latest.epochs.get_mut(index) {
                Some(epoch) if Some(leader.epoch) < *epoch => {
                    let known = known.and_then(|known| known.partitions.get(index));
                    let known = known.cloned().unwrap_or(Err(ErrorCode::LeaderNotAvailable));
                    Arc::make_mut(&mut told).partitions[index] = known;
                }
                Some(epoch) => *epoch = Some(leader.epoch),
                None => {
                    // One without a leader may come before it.
                    latest.epochs.resize(index, None);
                    latest.epochs.push(Some(leader.epoch));
                }
            }
        }
        told
    }
}

/// Topics that are being asked about; those who wait for them ask themselves if this attempt fails or is cancelled.
struct Asked<'a> {
    metadata: &'a Metadata,
    topics: Vec<TopicName>,
    answered: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.metadata.state.lock().wanted.extend(self.topics.drain(..));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use super::*;
    use crate::requests::Leader;
    use futures::FutureExt;

    fn name(name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    fn image(topics: &[TopicName], port: u16) -> ClusterImage {
        let address = Address::new("h", port);
        let leader = Leader {
            address: address.clone(),
            epoch: LeaderEpoch::new(0),
        };
        let topic = Arc::new(TopicImage {
            id: TopicId::NIL,
            partitions: vec![Ok(leader)],
            batch_size_max: None,
        });
        let topics = topics
            .iter()
            .map(|name| (name.clone(), Ok(Arc::clone(&topic))))
            .collect();
        ClusterImage {
            brokers: vec![address],
            topics,
            ..ClusterImage::default()
        }
    }

    #[tokio::test]
    async fn callers_that_wait_together_share_one_request_for_all_their_topics() {
        let metadata = Metadata::default();
        let asked = Cell::new(0);
        let ask = |topics: Vec<TopicName>| {
            asked.set(asked.get() + 1);
            async move {
                tokio::task::yield_now().await;
                Ok(image(&topics, 1))
            }
        };
        let (a, b, c) = ([name("a")], [name("b")], [name("b")]);
        // The first asks for "a" alone; the others arrive while it waits and share a second request.
        let all = futures::future::join3(
            metadata.refresh(&a, ask),
            metadata.refresh(&b, ask),
            metadata.refresh(&c, ask),
        );
        assert!(matches!(all.await, (Ok(()), Ok(()), Ok(()))));
        assert_eq!(asked.get(), 2);
        assert!(metadata.topic(&name("a")).is_some() && metadata.topic(&name("b")).is_some());
    }

    #[tokio::test]
    async fn a_cancelled_request_leaves_its_topics_wanted_by_those_who_wait() {
        let metadata = Metadata::default();
        let (other, topics) = ([name("z")], [name("a")]);
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let mut gate = Box::pin(metadata.refresh(&other, async |topics| {
            released.await.unwrap();
            Ok(image(&topics, 1))
        }));
        // Both want the topic before either gets to ask; the first takes it along and is cancelled.
        let mut first = Box::pin(metadata.refresh(&topics, async |_| pending().await));
        let mut second = Box::pin(metadata.refresh(&topics, async |topics| Ok(image(&topics, 1))));
        assert!((&mut gate).now_or_never().is_none());
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        release.send(()).unwrap();
        gate.await.unwrap();
        assert!((&mut first).now_or_never().is_none());
        drop(first);
        second.await.unwrap();
        assert!(metadata.topic(&topics[0]).unwrap().is_ok());
    }

    #[tokio::test]
    async fn the_generation_changes_with_the_image_and_only_then() {
        let metadata = Metadata::default();
        let topics = [name("a")];
        metadata
            .refresh(&topics, async |topics| Ok(image(&topics, 1)))
            .await
            .unwrap();
        let generation = metadata.generation();
        metadata
            .refresh(&topics, async |topics| Ok(image(&topics, 1)))
            .await
            .unwrap();
        assert_eq!(metadata.generation(), generation);
        metadata
            .refresh(&topics, async |topics| Ok(image(&topics, 2)))
            .await
            .unwrap();
        assert_ne!(metadata.generation(), generation);
    }

    #[tokio::test]
    async fn a_leader_is_not_given_up_for_the_one_before_it_that_another_broker_still_tells_of() {
        let metadata = Metadata::default();
        let topics = [name("a")];
        let of_epoch = |port, epoch| {
            let mut image = image(&topics, port);
            let topic = image.topics.get_mut(&topics[0]).unwrap().as_mut().unwrap();
            Arc::make_mut(topic).partitions[0].as_mut().unwrap().epoch = LeaderEpoch::new(epoch);
            image
        };
        for (port, epoch, known) in [(1, 5, 1), (2, 6, 2), (1, 5, 2), (3, 6, 3), (1, 7, 1)] {
            let told = of_epoch(port, epoch);
            metadata.refresh(&topics, async |_| Ok(told)).await.unwrap();
            let image = metadata.topic(&topics[0]).unwrap().unwrap();
            assert_eq!(image.partitions[0].as_ref().unwrap().address, Address::new("h", known));
        }
    }

    #[tokio::test]
    async fn one_that_led_before_does_not_lead_again_while_nobody_does() {
        let metadata = Metadata::default();
        let topics = [name("a")];
        let told = [Some(6), None, Some(5), Some(7)];
        let mut known = Vec::new();
        for epoch in told {
            let mut told = image(&topics, 1);
            let topic = told.topics.get_mut(&topics[0]).unwrap().as_mut().unwrap();
            let partition = &mut Arc::make_mut(topic).partitions[0];
            match epoch {
                Some(epoch) => partition.as_mut().unwrap().epoch = LeaderEpoch::new(epoch),
                None => *partition = Err(ErrorCode::LeaderNotAvailable),
            }
            metadata.refresh(&topics, async |_| Ok(told)).await.unwrap();
            let image = metadata.topic(&topics[0]).unwrap().unwrap();
            known.push(image.partitions[0].as_ref().ok().map(|leader| leader.epoch.get()));
        }
        assert_eq!(known, [Some(6), None, None, Some(7)]);
    }

    #[tokio::test]
    async fn a_topic_missing_from_the_answer_does_not_exist() {
        let metadata = Metadata::default();
        metadata
            .refresh(&[name("a")], async |_| Ok(image(&[], 1)))
            .await
            .unwrap();
        assert_eq!(
            metadata.topic(&name("a")),
            Some(Err(ErrorCode::UnknownTopicOrPartition))
        );
        assert!(metadata.topics().is_empty());
    }
}
