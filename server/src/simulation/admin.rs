//! An administrator: makes topics, gives them partitions, deletes them, and knows what became of each as far as it was told.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use headwater_protocol::{
    error::ErrorCode,
    schema::{
        AlterTopicRequestT, AlterTopicResponse, CreateTopicRequestT, CreateTopicResponse, DeleteTopicRequestT,
        DeleteTopicResponse, DescribeTopicRequestT, DescribeTopicResponse, MetadataRequestT, MetadataResponse,
    },
};

use super::{
    producer::pause,
    wire::{Wire, check, patiently, tell},
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
pub(super) struct Topics(RefCell<BTreeMap<&'static str, Known>>);

pub(super) struct Admin {
    pub(super) address: SocketAddr,
    pub(super) topics: Rc<Topics>,
    /// The run is over.
    pub(super) is_over: Rc<Cell<bool>>,
}

impl Admin {
    pub(super) async fn run(self) {
        while !self.is_over.get() {
            if let Err(error) = self.change_one().await {
                tell(&format!("does not know what became of it: {error}"));
            }
            pause(Duration::from_millis(1500)).await;
        }
    }

    async fn change_one(&self) -> io::Result<()> {
        let name = NAMES[machine::random::<u32>() as usize % NAMES.len()];
        let known = self.topics.0.borrow().get(name).copied().unwrap_or_default();
        let mut wire = patiently(Wire::open(self.address)).await?;
        match machine::random::<u32>() % 5 {
            0 | 1 => {
                let partitions = machine::random::<u32>() as usize % 4 + 1;
                self.may_be(name, known.least.min(partitions), known.most.max(partitions));
                let head = CreateTopicRequestT {
                    name: Some(name.to_owned()),
                    partitions: partitions as i32,
                    ..CreateTopicRequestT::default()
                };
                let reply = wire.ask(&head).await?;
                let code = ErrorCode::from_i16(reply.read::<CreateTopicResponse<'_>>()?.error());
                if code == ErrorCode::None {
                    tell(&format!("has made {name} with {partitions}"));
                    self.may_be(name, partitions, partitions);
                }
            }
            2 | 3 => {
                self.may_be(name, 0, known.most);
                let head = DeleteTopicRequestT {
                    name: Some(name.to_owned()),
                };
                let reply = wire.ask(&head).await?;
                let code = ErrorCode::from_i16(reply.read::<DeleteTopicResponse<'_>>()?.error());
                if matches!(code, ErrorCode::None | ErrorCode::UnknownTopicOrPartition) {
                    tell(&format!("has deleted {name}: {}", code.name()));
                    self.may_be(name, 0, 0);
                }
            }
            _ => {
                let partitions = known.most + 1;
                self.may_be(name, known.least, partitions);
                let head = AlterTopicRequestT {
                    name: Some(name.to_owned()),
                    partitions: partitions as i32,
                    ..AlterTopicRequestT::default()
                };
                let reply = wire.ask(&head).await?;
                check(reply.read::<AlterTopicResponse<'_>>()?.error())?;
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
    /// Compares what the broker says of each topic with what the administrator was told.
    pub(super) async fn compare(&self, address: SocketAddr) -> io::Result<()> {
        let known = self.0.borrow().clone();
        for (name, known) in known {
            let mut wire = patiently(Wire::open(address)).await?;
            let topics = Some(vec![name.to_owned()]);
            let reply = wire.ask(&MetadataRequestT { topics }).await?;
            let metadata = reply.read::<MetadataResponse<'_>>()?.unpack();
            check(metadata.error)?;
            let topic = metadata.topics.unwrap_or_default().into_iter().next();
            let topic = topic.ok_or_else(|| io::Error::other("the metadata has no topic"))?;
            let count = match ErrorCode::from_i16(topic.error) {
                ErrorCode::None => topic.partitions.unwrap_or_default().len(),
                ErrorCode::UnknownTopicOrPartition => 0,
                code => return Err(io::Error::other(code.name())),
            };
            assert!(
                (known.least..=known.most).contains(&count),
                "topic {name} has {count} partitions, and {known:?} is known of it"
            );
            if count > 0 {
                describe(&mut wire, name, count).await?;
            }
        }
        Ok(())
    }
}

/// Every partition is there and open.
async fn describe(wire: &mut Wire, name: &str, count: usize) -> io::Result<()> {
    let head = DescribeTopicRequestT {
        name: Some(name.to_owned()),
    };
    let reply = wire.ask(&head).await?;
    let described = reply.read::<DescribeTopicResponse<'_>>()?.unpack();
    check(described.error)?;
    let partitions = described.partitions.unwrap_or_default();
    assert_eq!(partitions.len(), count, "topic {name}");
    partitions.iter().try_for_each(|partition| check(partition.error))
}
