//! Commits ever later offsets for a group that has no members, and has another client look what is committed: whoever is asked knows of
//! all that was acknowledged before.

use std::{cell::Cell, rc::Rc, time::Duration};

use futures::future::join;
use headwater_client::{CommittedOffset, Offset, PartitionIndex, TopicName};

use super::{
    client::{Brokers, connect_with},
    scenario::TOPIC,
    wire::{pause, tell},
};

const GROUP: &str = "accountants";

/// Neither waits longer for an answer: whoever runs the group may be cut off from the others.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between one question and the next, at most.
const PAUSE: Duration = Duration::from_millis(800);

pub(in crate::simulation) struct Committer {
    pub(in crate::simulation) brokers: Brokers,
    /// The run is over.
    pub(in crate::simulation) is_over: Rc<Cell<bool>>,
}

impl Committer {
    pub(in crate::simulation) async fn run(self) {
        // The last that was acknowledged.
        let done = Cell::new(0);
        join(self.commit(&done), self.look(&done)).await;
    }

    async fn commit(&self, done: &Cell<u64>) {
        let client = connect_with(&self.brokers, PATIENCE).await;
        let topic: TopicName = TOPIC.parse().expect("it is a name");
        while !self.is_over.get() {
            // One that nobody knows of is tried again: it may come late, and is not to take back a later one.
            let next = done.get() + 1;
            let offset = CommittedOffset::new(topic.clone(), PartitionIndex::new(0), Offset::new(next));
            match client.admin().groups().reset_offsets(GROUP, &[offset]).await {
                Ok(()) => done.set(next),
                Err(error) => tell(&format!("does not know whether {next} is committed: {error}")),
            }
            pause(PAUSE).await;
        }
    }

    async fn look(&self, done: &Cell<u64>) {
        let client = connect_with(&self.brokers, PATIENCE).await;
        while !self.is_over.get() {
            pause(PAUSE).await;
            let before = done.get();
            match client.admin().groups().committed_offsets(GROUP).await {
                Ok(found) => {
                    let found = found.first().map_or(0, |found| found.offset.get());
                    assert!(
                        before <= found,
                        "a commit went back: {found} is committed, and {before} was acknowledged"
                    );
                }
                Err(error) => tell(&format!("does not learn what is committed: {error}")),
            }
        }
    }
}
