//! A group that keeps up, seen as one consumer: its members share the partitions, and each is read by one of them.
//!
//! The members are driven by one task, so that one intake sees every record, whichever member it comes through: a partition that
//! changes hands shows as damage if anything of it is lost, comes twice or goes back. The group begins where it is told, and is
//! settled before its first record is due. The group is removed when it is dropped, or by the broker some time later.

use std::sync::Arc;

use headwater_client::{
    Advance, Client, CommittedOffset, GroupConsumer, Offset, PartitionIndex, RebalanceListener, TopicName,
};
use tokio::sync::watch;

use super::{Position, connect};
use crate::error::BenchError;
use crate::workload::RunId;

/// A group that nobody else has.
pub fn new_name() -> String {
    format!("bench-{:08x}", RunId::random().get())
}

/// Has a group begin at these positions, which must have no members yet.
pub async fn begin_at(client: &Client, group: &str, topic: &str, from: &[Position]) -> Result<(), BenchError> {
    let failed = || BenchError::client("cannot say where a group begins");
    let topic = client.admin().describe_topic(topic).await.map_err(failed())?.name;
    let offset = |(partition, position): (usize, &Position)| {
        let partition = PartitionIndex::new(partition as i32);
        CommittedOffset::new(topic.clone(), partition, Offset::new(position.0))
    };
    let offsets: Vec<_> = from.iter().enumerate().map(offset).collect();
    let groups = client.admin().groups();
    groups.reset_offsets(group, &offsets).await.map_err(failed())
}

/// How many partitions each member has; told by the members' listeners.
#[derive(Debug, Clone)]
pub struct Shares(Arc<watch::Sender<Vec<usize>>>);

/// One member's.
struct Share {
    shares: Shares,
    member: usize,
}

impl Shares {
    /// Of so many members, none of which has any.
    pub fn new(members: u16) -> Self {
        Self(Arc::new(watch::Sender::new(vec![0; usize::from(members)])))
    }

    /// Tells of one member.
    pub fn listener(&self, member: usize) -> impl RebalanceListener + 'static {
        Share {
            shares: self.clone(),
            member,
        }
    }

    /// Waits until all partitions have an owner, and no member has two more than another.
    pub async fn settled(&self, partitions: usize) {
        let is_settled = |shares: &Vec<usize>| {
            let members = shares.len();
            let fair = partitions / members..=partitions.div_ceil(members);
            shares.iter().sum::<usize>() == partitions && shares.iter().all(|share| fair.contains(share))
        };
        let told = self.0.subscribe().wait_for(is_settled).await.map(drop);
        told.expect("the sender is here");
    }
}

impl RebalanceListener for Share {
    fn assigned(&self, partitions: &[(TopicName, PartitionIndex)]) {
        self.shares
            .0
            .send_modify(|shares| shares[self.member] += partitions.len());
    }

    fn revoked(&self, partitions: &[(TopicName, PartitionIndex)]) {
        self.shares.0.send_modify(|shares| {
            let share = &mut shares[self.member];
            *share = share.saturating_sub(partitions.len());
        });
    }
}

/// So many members, each with a client of its own.
#[derive(Debug)]
pub struct Members {
    name: String,
    consumers: Vec<GroupConsumer>,
    /// For administration.
    client: Client,
}

impl Members {
    /// Joins a new group, which begins at these positions; returns when each member has its share.
    pub async fn join(bootstrap: &str, topic: &str, members: u16, from: &[Position]) -> Result<Self, BenchError> {
        let client = connect(bootstrap).await?;
        let name = new_name();
        begin_at(&client, &name, topic, from).await?;
        let shares = Shares::new(members);
        let mut joined = Vec::new();
        for member in 0..usize::from(members) {
            let builder = connect(bootstrap).await?.group_consumer(&name).topics([topic]);
            let consumer = builder.listener(shares.listener(member)).build().await;
            joined.push(consumer.map_err(BenchError::client("cannot join a group"))?);
        }
        shares.settled(from.len()).await;
        Ok(Self {
            name,
            consumers: joined,
            client,
        })
    }

    /// What comes next to any member. May be cancelled without loss.
    pub async fn advance(&mut self) -> Result<Advance, headwater_client::Error> {
        // Another one is asked first each time, so that none waits for ever.
        self.consumers.rotate_left(1);
        let asked = self.consumers.iter_mut().map(|member| Box::pin(member.advance()));
        let (first, ..) = futures::future::select_all(asked).await;
        first
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        let (consumers, client) = (std::mem::take(&mut self.consumers), self.client.clone());
        let name = std::mem::take(&mut self.name);
        // Nobody waits for it: the broker forgets members and groups that are not heard of.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for member in consumers {
                    let _ = member.close().await;
                }
                let _ = client.admin().groups().delete(&name).await;
            });
        }
    }
}
