//! The topics of the cluster and how they change. Decisions alone, which come out the same on every broker that is given the same
//! commands: nothing here waits, draws a number, asks a clock, or knows any broker's own configuration.
//!
//! ```text
//! Create ─► Creating ─┬─ settled ─► Ready ─ Delete ─► Deleting ─ settled ─► gone
//!                     └─ abandoned ──────────────────────▲
//! Alter ─► Ready, and becoming larger ─┬─ settled ───► Ready, with more partitions
//!                                      └─ abandoned ─► Ready, as it was
//! ```
//! Commands are what somebody asks for. What a topic's state then asks for on disk is [`reconcile`](super::reconcile)'s, who reports
//! it as settled, or as abandoned.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_protocol::id::TopicId;
use headwater_protocol::topic::TopicName;
use serde::{Deserialize, Serialize};

use super::error::TopicError;
use crate::image::{AccessRules, ClusterImage, QuotaRules, Topic, TopicState};
use crate::model::{access::AccessChange, refusal::Refusal};

/// What can be altered of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// Number of partitions.
    pub(crate) partition_count: u32,
    /// Its settings by name.
    pub(crate) overrides: BTreeMap<String, String>,
}

impl From<&Topic> for Shape {
    fn from(topic: &Topic) -> Shape {
        Shape {
            partition_count: topic.partition_count,
            overrides: topic.overrides.clone(),
        }
    }
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// There is to be a topic.
    Create {
        /// Its name.
        name: TopicName,
        /// Its identity, which no topic has had before.
        id: TopicId,
        /// Number of partitions, at least 1.
        partition_count: u32,
        /// Its settings by name.
        overrides: BTreeMap<String, String>,
    },
    /// A topic is to have these settings, and so many partitions, once they are there; until then it is served as it was.
    Alter {
        /// The topic.
        id: TopicId,
        /// What it had when this was decided: if it has something else by now, it is to be decided again.
        before: Option<Shape>,
        /// Number of partitions, not less than it has.
        partition_count: u32,
        /// All its settings by name.
        overrides: BTreeMap<String, String>,
    },
    /// A topic is to go, whatever its state.
    Delete {
        /// The topic.
        id: TopicId,
    },
}

impl Command {
    /// The topic that it is about.
    pub(crate) fn topic(&self) -> TopicId {
        match self {
            Self::Create { id, .. } | Self::Alter { id, .. } | Self::Delete { id } => *id,
        }
    }
}

/// What has become of the one topic that a command was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The topic as it was, if there was one.
    pub(crate) before: Option<Arc<Topic>>,
    /// The topic as it is, if there is one.
    pub(crate) after: Option<Arc<Topic>>,
}

impl Change {
    /// Whether everything is as it was.
    pub(crate) fn is_none(&self) -> bool {
        self.before == self.after
    }
}

/// All topics as they are to be. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterState {
    image: Arc<ClusterImage>,
}

impl ClusterState {
    /// These topics, after so many changes.
    pub(crate) fn new(version: u64, topics: Vec<Arc<Topic>>) -> ClusterState {
        ClusterState {
            image: Arc::new(ClusterImage::new(version, topics)),
        }
    }

    /// The state that shows this picture.
    pub(crate) fn of(image: Arc<ClusterImage>) -> ClusterState {
        ClusterState { image }
    }

    /// The picture of it that is published.
    pub(crate) fn image(&self) -> &Arc<ClusterImage> {
        &self.image
    }

    /// The state after a command, and what that has changed; or why it cannot be.
    pub(crate) fn apply(&self, command: Command) -> Result<(ClusterState, Change), TopicError> {
        let before = self.image.topic_by_id(command.topic()).cloned();
        let after = match command {
            Command::Create {
                name,
                id,
                partition_count,
                overrides,
            } => {
                if let Some(there) = before.as_ref().or_else(|| self.image.topic(name.as_str())) {
                    return Err(TopicError::exists(there));
                }
                Some(Topic {
                    name,
                    id,
                    partition_count,
                    overrides,
                    state: TopicState::Creating,
                    becoming: None,
                })
            }
            Command::Alter {
                id,
                before: as_decided,
                partition_count,
                overrides,
            } => {
                let topic = before.as_deref().ok_or_else(|| TopicError::unknown(id))?;
                Some(altered(topic, as_decided.as_ref(), (partition_count, overrides))?)
            }
            Command::Delete { id } => {
                let topic = before.as_deref().ok_or_else(|| TopicError::unknown(id))?;
                Some(with_state(topic, TopicState::Deleting))
            }
        };
        Ok(self.with(before, after))
    }

    /// The state after what a topic asked for on disk is done. Never refused; of no effect if the topic is another by now, so it may be
    /// said late, and twice.
    pub(crate) fn settled(&self, topic: &Arc<Topic>) -> (ClusterState, Change) {
        self.reported(topic, settled)
    }

    /// The same, but it is given up: a topic that was being made goes, one that was growing stays as it was.
    pub(crate) fn abandoned(&self, topic: &Arc<Topic>) -> (ClusterState, Change) {
        self.reported(topic, |topic| Some(abandoned(topic)))
    }

    fn reported(&self, topic: &Arc<Topic>, then: impl FnOnce(&Topic) -> Option<Topic>) -> (ClusterState, Change) {
        let before = self.image.topic_by_id(topic.id).cloned();
        let after = match &before {
            Some(before) if before == topic => then(topic),
            before => before.as_deref().cloned(),
        };
        self.with(before, after)
    }

    fn with(&self, before: Option<Arc<Topic>>, after: Option<Topic>) -> (ClusterState, Change) {
        let after = after.map(Arc::new);
        let change = Change { before, after };
        if change.is_none() {
            return (self.clone(), change);
        }
        let former = change.before.as_ref().map(|topic| topic.id);
        let others = self.image.topics().filter(|other| Some(other.id) != former);
        let topics = others.chain(&change.after).cloned();
        let image = ClusterImage::new(self.image.version() + 1, topics);
        let image = Arc::new(image.with_rules_of(&self.image));
        (ClusterState { image }, change)
    }

    /// The state after a change of rules, users or quotas; or why it cannot be.
    pub(crate) fn change_access(&self, change: &AccessChange) -> Result<ClusterState, Refusal> {
        let (access, quotas) = (self.image.access(), self.image.quotas());
        let next = self.image.version() + 1;
        if let AccessChange::AlterQuotas(alterations) = change {
            let altered = quotas.after(alterations)?;
            if altered == **quotas {
                return Ok(self.clone());
            }
            return Ok(self.with_rules(next, Arc::clone(access), Arc::new(altered)));
        }
        let changed = access.after(change)?;
        if changed == **access {
            return Ok(self.clone());
        }
        Ok(self.with_rules(next, Arc::new(changed), Arc::clone(quotas)))
    }

    /// The same topics with these rules and users, and these quotas.
    pub(crate) fn with_rules(&self, version: u64, access: Arc<AccessRules>, quotas: Arc<QuotaRules>) -> ClusterState {
        let image = ClusterImage::new(version, self.image.topics().cloned());
        ClusterState {
            image: Arc::new(image.with_rules(access, quotas)),
        }
    }
}

fn with_state(topic: &Topic, state: TopicState) -> Topic {
    Topic { state, ..topic.clone() }
}

fn altered(
    topic: &Topic,
    as_decided: Option<&Shape>,
    (partition_count, overrides): (u32, BTreeMap<String, String>),
) -> Result<Topic, TopicError> {
    if topic.state != TopicState::Ready {
        return Err(TopicError::unknown(topic.id));
    }
    if topic.becoming.is_some() {
        let name = topic.name.clone();
        return Err(TopicError::Growing { name });
    }
    if as_decided.is_some_and(|before| *before != Shape::from(topic)) {
        let name = topic.name.clone();
        return Err(TopicError::Changed { name });
    }
    if partition_count < topic.partition_count {
        return Err(TopicError::FewerPartitions {
            name: topic.name.clone(),
            has: topic.partition_count,
            count: partition_count,
        });
    }
    let altered = Topic {
        partition_count,
        overrides,
        ..topic.clone()
    };
    if partition_count == topic.partition_count {
        return Ok(altered);
    }
    Ok(Topic {
        becoming: Some(Arc::new(altered)),
        ..topic.clone()
    })
}

fn settled(topic: &Topic) -> Option<Topic> {
    match (topic.state, &topic.becoming) {
        (TopicState::Creating, _) => Some(with_state(topic, TopicState::Ready)),
        (TopicState::Ready, Some(larger)) => Some(Topic::clone(larger)),
        (TopicState::Ready, None) => Some(topic.clone()),
        (TopicState::Deleting, _) => None,
    }
}

fn abandoned(topic: &Topic) -> Topic {
    match topic.state {
        TopicState::Creating => with_state(topic, TopicState::Deleting),
        TopicState::Ready => Topic {
            becoming: None,
            ..topic.clone()
        },
        TopicState::Deleting => topic.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u128) -> TopicId {
        TopicId::new(uuid::Uuid::from_u128(number))
    }

    fn settings(age: u32) -> BTreeMap<String, String> {
        BTreeMap::from([("retention.ms".to_owned(), age.to_string())])
    }

    fn create(number: u128, partition_count: u32) -> Command {
        Command::Create {
            name: format!("topic-{number}").parse().unwrap(),
            id: id(number),
            partition_count,
            overrides: settings(1),
        }
    }

    fn alter(number: u128, partition_count: u32) -> Command {
        Command::Alter {
            id: id(number),
            before: None,
            partition_count,
            overrides: settings(2),
        }
    }

    /// The topic with this number, as it is.
    fn topic(state: &ClusterState, number: u128) -> Arc<Topic> {
        Arc::clone(state.image().topic_by_id(id(number)).unwrap())
    }

    fn apply(state: &ClusterState, command: Command) -> ClusterState {
        state.apply(command).unwrap().0
    }

    fn settle(state: &ClusterState) -> ClusterState {
        state.settled(&topic(state, 1)).0
    }

    fn abandon(state: &ClusterState) -> ClusterState {
        state.abandoned(&topic(state, 1)).0
    }

    fn delete(state: &ClusterState) -> ClusterState {
        apply(state, Command::Delete { id: id(1) })
    }

    /// State, partitions, retention, and partitions that it will have.
    fn told(state: &ClusterState) -> Option<(TopicState, u32, &str, Option<u32>)> {
        let topic = state.image().topic_by_id(id(1))?;
        let becoming = topic.becoming.as_ref().map(|larger| larger.partition_count);
        let retention = topic.overrides["retention.ms"].as_str();
        Some((topic.state, topic.partition_count, retention, becoming))
    }

    #[test]
    fn a_topic_goes_from_each_state_to_the_next_as_it_is_drawn_above() {
        use TopicState::{Creating, Deleting, Ready};
        let creating = apply(&ClusterState::default(), create(1, 2));
        let ready = settle(&creating);
        let growing = apply(&ready, alter(1, 5));
        for (state, expected) in [
            (&creating, Some((Creating, 2, "1", None))),
            (&ready, Some((Ready, 2, "1", None))),
            (&abandon(&creating), Some((Deleting, 2, "1", None))),
            (&delete(&creating), Some((Deleting, 2, "1", None))),
            (&delete(&ready), Some((Deleting, 2, "1", None))),
            (&apply(&ready, alter(1, 2)), Some((Ready, 2, "2", None))),
            (&abandon(&ready), Some((Ready, 2, "1", None))),
            (&growing, Some((Ready, 2, "1", Some(5)))),
            (&settle(&growing), Some((Ready, 5, "2", None))),
            (&abandon(&growing), Some((Ready, 2, "1", None))),
            // All directories that it may have are to go.
            (&delete(&growing), Some((Deleting, 2, "1", Some(5)))),
            (&settle(&delete(&ready)), None),
        ] {
            assert_eq!(told(state), expected);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let ready = settle(&apply(&ClusterState::default(), create(1, 2)));
        let growing = apply(&ready, alter(1, 3));
        let deleting = delete(&ready);
        let changed = apply(&ready, alter(1, 2));
        let from_before = Command::Alter {
            id: id(1),
            before: Some(Shape::from(&*topic(&ready, 1))),
            partition_count: 2,
            overrides: settings(3),
        };
        assert!(ready.apply(from_before.clone()).is_ok());
        let same_name = Command::Create {
            name: topic(&ready, 1).name.clone(),
            id: id(2),
            partition_count: 1,
            overrides: BTreeMap::new(),
        };
        for (state, command, words) in [
            (&ready, create(1, 2), "the topic topic-1 exists already"),
            (&ready, same_name, "the topic topic-1 exists already"),
            (&deleting, create(1, 2), "is being deleted"),
            (&ready, alter(1, 1), "has 2 partitions and cannot have 1"),
            (&ready, alter(7, 1), "there is no topic"),
            (&deleting, alter(1, 3), "there is no topic"),
            (&growing, alter(1, 4), "is still getting partitions"),
            (&changed, from_before, "was altered by others meanwhile; try again"),
            (&ready, Command::Delete { id: id(7) }, "there is no topic"),
        ] {
            let refused = state.apply(command).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask(Command),
        /// Says of any topic that there has ever been that it is done, or given up.
        Report(prop::sample::Index, bool),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let number = 1..4_u128;
        prop_oneof![
            (number.clone(), 1..4_u32).prop_map(|(number, count)| Step::Ask(create(number, count))),
            (number.clone(), 1..6_u32).prop_map(|(number, count)| Step::Ask(alter(number, count))),
            number.prop_map(|number| Step::Ask(Command::Delete { id: id(number) })),
            (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, is_done)| Step::Report(which, is_done)),
            (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, is_done)| Step::Report(which, is_done)),
        ]
    }

    type Applied = Result<(ClusterState, Change), TopicError>;

    /// The topic that a step is about, and what comes of it; `None` if nothing has been there that could be reported.
    fn take(state: &ClusterState, step: &Step, seen: &[Arc<Topic>]) -> Option<(TopicId, Applied)> {
        match step {
            Step::Ask(command) => Some((command.topic(), state.apply(command.clone()))),
            Step::Report(..) if seen.is_empty() => None,
            Step::Report(which, true) => Some((which.get(seen).id, Ok(state.settled(which.get(seen))))),
            Step::Report(which, false) => Some((which.get(seen).id, Ok(state.abandoned(which.get(seen))))),
        }
    }

    proptest! {
        /// Commands are applied on every broker, and again from the beginning after a restart.
        #[test]
        fn the_same_commands_lead_to_the_same_state_and_touch_one_topic_each(
            steps in proptest::collection::vec(any_step(), 0..80),
        ) {
            let (mut state, mut other) = (ClusterState::default(), ClusterState::default());
            let mut seen = Vec::new();
            for step in steps {
                let Some((about, taken)) = take(&state, &step, &seen) else { continue };
                let (_, elsewhere) = take(&other, &step, &seen).unwrap();
                let Ok((next, change)) = taken else {
                    prop_assert!(elsewhere.is_err());
                    continue;
                };
                let (again, same) = elsewhere.unwrap();
                prop_assert_eq!(&change, &same);
                prop_assert_eq!(next.image().topic_by_id(about), change.after.as_ref());
                let changes = next.image().version() - state.image().version();
                prop_assert_eq!(changes, u64::from(!change.is_none()));
                let others = |state: &ClusterState| -> Vec<Arc<Topic>> {
                    state.image().topics().filter(|topic| topic.id != about).cloned().collect()
                };
                prop_assert_eq!(others(&next), others(&state));
                if let (Some(before), Some(after)) = (&change.before, &change.after) {
                    prop_assert!(after.partition_count >= before.partition_count, "no partition is taken away");
                }
                if let Step::Report(which, _) = &step {
                    let reported = which.get(&seen);
                    prop_assert!(change.is_none() || change.before.as_ref() == Some(reported), "it is another by now");
                    let twice = take(&next, &step, &seen).unwrap().1.unwrap().1;
                    prop_assert!(twice.is_none(), "said twice");
                }
                seen.extend(change.after);
                (state, other) = (next, again);
            }
        }
    }
}
