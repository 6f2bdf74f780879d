//! An administrator of the client library: makes topics, gives them partitions, deletes them, and knows what became of each as far as
//! it was told.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use headwater_client::{Client, Error, NewTopic, OffsetSpec};

use super::{
    client::{Brokers, connect},
    wire::{pause, tell},
};
use crate::machine;

/// Topics that come and go.
const NAMES: [&str; 4] = ["left", "right", "above", "below"];

/// How many partitions a topic may have, none if it may be gone: whatever is between what was certain last and what was
/// asked for since.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    least: usize,
    most: usize,
}

#[derive(Default)]
pub(in crate::simulation) struct Topics(RefCell<BTreeMap<&'static str, Known>>);

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
            pause(Duration::from_millis(1500)).await;
        }
    }

    async fn change_one(&self, client: &Client) -> Result<(), Error> {
        let name = NAMES[machine::random::<u32>() as usize % NAMES.len()];
        let known = self.topics.0.borrow().get(name).copied().unwrap_or_default();
        match machine::random::<u32>() % 5 {
            0 | 1 => {
                let partitions = machine::random::<u32>() as usize % 4 + 1;
                self.may_be(name, known.least.min(partitions), known.most.max(partitions));
                let topic = NewTopic::new(name).partitions(partitions as i32);
                client.admin().create_topic(topic).await?;
                tell(&format!("has made {name} with {partitions}"));
                self.may_be(name, partitions, partitions);
            }
            2 | 3 => {
                self.may_be(name, 0, known.most);
                match client.admin().delete_topic(name).await {
                    Ok(()) | Err(Error::UnknownTopic(_)) => {}
                    Err(error) => return Err(error),
                }
                tell(&format!("has deleted {name}"));
                self.may_be(name, 0, 0);
            }
            _ => {
                let partitions = known.most + 1;
                self.may_be(name, known.least, partitions);
                client.admin().create_partitions(name, partitions as i32).await?;
                tell(&format!("has given {name} {partitions} partitions"));
                self.may_be(name, partitions, partitions);
            }
        }
        Ok(())
    }

    fn may_be(&self, name: &'static str, least: usize, most: usize) {
        self.topics.0.borrow_mut().insert(name, Known { least, most });
    }
}

impl Topics {
    /// Compares what a broker says of each topic with what the administrator was told. Every partition is there and open.
    pub(in crate::simulation) async fn compare(&self, client: &Client) -> Result<(), Error> {
        let known = self.0.borrow().clone();
        let there = client.admin().topics().await?;
        for (name, known) in known {
            let found = there.iter().find(|topic| topic.name.as_str() == name);
            let count = found.map_or(0, |topic| topic.partitions);
            assert!(
                (known.least..=known.most).contains(&count),
                "topic {name} has {count} partitions, and {known:?} is known of it"
            );
            if count > 0 {
                let described = client.admin().describe_topic(name).await?;
                assert_eq!(described.partitions.len(), count, "topic {name}");
                for partition in described.partitions {
                    // Its leader may be another broker than the one that was asked.
                    let admin = client.admin();
                    admin.list_offset(name, partition.partition, OffsetSpec::Latest).await?;
                }
            }
        }
        Ok(())
    }
}
