//! An administrator of the client library: makes topics, gives them partitions, deletes them, and knows what became of each as far as
//! it was told.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    error::Error as Failing,
    ops::RangeInclusive,
    rc::Rc,
    time::Duration,
};

use headwater_client::{Client, Error, NewTopic, OffsetSpec};

use super::{
    client::{Brokers, connect},
    wire::{pause, tell},
};
use crate::{
    cluster::Agreement,
    image::ClusterImage,
    machine::{self, simulated::here},
};

/// Topics that come and go.
const NAMES: [&str; 4] = ["left", "right", "above", "below"];

/// Within this time a broker knows of a change, when nothing is wrong any more: one that stands still for longer is not in sync.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// How many partitions a topic may have, none if it may be gone: whatever is between what was certain last and what was
/// asked for since.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    least: usize,
    most: usize,
}

/// Somebody has asked for a topic to have so many partitions, or none, and be gone.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Duration,
    name: &'static str,
    partitions: usize,
}

/// What the administrator asked for, and was told.
#[derive(Default)]
pub(in crate::simulation) struct Topics {
    known: RefCell<BTreeMap<&'static str, Known>>,
    asked: RefCell<Vec<Asked>>,
    /// What several brokers have agreed on. What nobody was told of may come at any time, also after what was asked for later; so of
    /// them it is known from here.
    agreement: Option<Rc<Agreement>>,
}

/// Why topics cannot be compared now.
type Failure = Box<dyn Failing>;

pub(in crate::simulation) struct Admin {
    pub(in crate::simulation) brokers: Brokers,
    pub(in crate::simulation) topics: Rc<Topics>,
    /// The run is over.
    pub(in crate::simulation) is_over: Rc<Cell<bool>>,
}

impl Admin {
    pub(in crate::simulation) async fn run(self) {
        let client = connect(&self.brokers).await;
        while !self.is_over.get() {
            if let Err(error) = self.change_one(&client).await {
                tell(&format!("does not know what became of it: {error}"));
            }
            if !self.is_over.get() {
                pause(Duration::from_millis(1500)).await;
            }
        }
    }

    async fn change_one(&self, client: &Client) -> Result<(), Error> {
        let (topics, admin) = (&self.topics, client.admin());
        let name = NAMES[machine::random::<u32>() as usize % NAMES.len()];
        let known = topics.known.borrow().get(name).copied().unwrap_or_default();
        match machine::random::<u32>() % 5 {
            0 | 1 => {
                let partitions = machine::random::<u32>() as usize % 4 + 1;
                let asked = topics.ask(
                    name,
                    partitions,
                    known.least.min(partitions)..=known.most.max(partitions),
                );
                let topic = NewTopic::new(name).partitions(partitions as i32);
                admin.create_topic(topic).await?;
                topics.is_done(asked);
            }
            2 | 3 => {
                let asked = topics.ask(name, 0, 0..=known.most);
                match admin.delete_topic(name).await {
                    Ok(()) | Err(Error::UnknownTopic(_)) => {}
                    Err(error) => return Err(error),
                }
                topics.is_done(asked);
            }
            _ => {
                let partitions = known.most + 1;
                let asked = topics.ask(name, partitions, known.least..=partitions);
                admin.create_partitions(name, partitions as i32).await?;
                topics.is_done(asked);
            }
        }
        Ok(())
    }
}

fn world_now() -> Duration {
    here().expect("an administrator is in a world").world.now()
}

/// So many partitions a topic has.
fn count(image: &ClusterImage, name: &str) -> usize {
    image.topic(name).map_or(0, |topic| topic.partition_count as usize)
}

impl Topics {
    /// Of brokers that agree on them.
    pub(in crate::simulation) fn of_several(agreement: &Rc<Agreement>) -> Topics {
        Topics {
            agreement: Some(Rc::clone(agreement)),
            ..Topics::default()
        }
    }

    /// A topic is to have so many partitions. Until it is known what became of it, it may have any of `may_be`.
    fn ask(&self, name: &'static str, partitions: usize, may_be: RangeInclusive<usize>) -> Asked {
        let at = world_now();
        let (least, most) = may_be.into_inner();
        let asked = Asked { at, name, partitions };
        self.asked.borrow_mut().push(asked);
        self.known.borrow_mut().insert(name, Known { least, most });
        asked
    }

    /// It was answered: it has been so at one moment since it was asked for.
    fn is_done(&self, asked: Asked) {
        let Asked { at, name, partitions } = asked;
        tell(&format!("is told that {name} has {partitions} partitions"));
        let known = Known {
            least: partitions,
            most: partitions,
        };
        self.known.borrow_mut().insert(name, known);
        let Some(agreement) = &self.agreement else { return };
        let images = agreement.images();
        // The last before, and all since.
        let before = images.iter().rposition(|(since, _)| *since <= at).unwrap_or_default();
        assert!(
            images[before..]
                .iter()
                .any(|(_, image)| count(image, name) == partitions),
            "an administrator is told of {asked:?}, and it was never so"
        );
    }

    /// Compares what a broker says of each topic with what the administrator was told. Every partition is there and open. A broker may
    /// not have heard yet of what was agreed on, or have stood still since before this was begun.
    pub(in crate::simulation) async fn compare(&self, client: &Client, begun: Duration) -> Result<(), Failure> {
        let there = client.admin().topics().await?;
        let is_late = |changed: Duration| world_now() >= begun.max(changed) + HEARD_WITHIN;
        for name in NAMES {
            let found = there.iter().find(|topic| topic.name.as_str() == name);
            let found = found.map_or(0, |topic| topic.partitions);
            if let Some(agreement) = &self.agreement {
                let (changed, image) = agreement.images().pop().expect("there is always one");
                let agreed = count(&image, name);
                if agreed != found && !is_late(changed) {
                    return Err(format!("{name} has {found} partitions, and it is to have {agreed}").into());
                }
                assert_eq!(agreed, found, "partitions of topic {name}");
            } else {
                let known = self.known.borrow().get(name).copied().unwrap_or_default();
                assert!(
                    (known.least..=known.most).contains(&found),
                    "topic {name} has {found} partitions, and {known:?} is known of it"
                );
            }
            if found > 0 {
                let described = client.admin().describe_topic(name).await?;
                assert_eq!(described.partitions.len(), found, "topic {name}");
                for partition in described.partitions {
                    // Its leader may be another broker than the one that was asked.
                    let admin = client.admin();
                    admin.list_offset(name, partition.partition, OffsetSpec::Latest).await?;
                }
            }
        }
        Ok(())
    }

    /// Whatever became of a topic somebody had asked for.
    pub(in crate::simulation) fn check_asked(&self) {
        let images = self.agreement.as_ref().map(|agreement| agreement.images());
        let asked = self.asked.borrow();
        for pair in images.iter().flat_map(|images| images.windows(2)) {
            let [(_, before), (at, after)] = pair else { continue };
            for name in NAMES {
                let partitions = count(after, name);
                let is_this = |asked: &Asked| (asked.name, asked.partitions) == (name, partitions) && asked.at <= *at;
                assert!(
                    partitions == count(before, name) || asked.iter().any(is_this),
                    "nobody has asked for topic {name} to have {partitions} partitions"
                );
            }
        }
    }
}
