//! Commits of a group consumer: orders, which are carried out one after the other.
//!
//! Owned by the committer, one task for each group consumer. What a commit means is in the [ledger](super::ledger).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::topic::TopicName;
use tokio::sync::{mpsc, oneshot};

use super::ledger::{Mark, Shared};
use super::route::Route;
use crate::cluster::Cluster;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::requests;
use crate::runtime;

/// Offsets to commit, and whom to tell.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) marks: Vec<Mark>,
    pub(super) deadline: Deadline,
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
}

/// Hands orders to the committer, which keeps their order.
#[derive(Debug, Clone)]
pub(super) struct Orders(mpsc::UnboundedSender<Order>);

impl Orders {
    /// Orders a commit. It is done whether or not the result is waited for.
    pub(super) fn place(
        &self,
        marks: Vec<Mark>,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (reply, result) = oneshot::channel();
        let is_placed = if marks.is_empty() {
            // There is nothing to do.
            reply.send(Ok(())).is_ok()
        } else {
            self.0.send(Order { marks, deadline, reply }).is_ok()
        };
        async move {
            if !is_placed {
                return Err(Error::Closed);
            }
            match result.await {
                Ok(result) => result,
                Err(_dropped) => Err(Error::Closed),
            }
        }
    }
}

/// Commits what is ordered, one order after the other, until nobody can order any more.
pub(super) fn start_committer(route: Route, shared: Arc<Shared>) -> (Orders, impl Future<Output = ()> + Send) {
    let (sender, mut orders) = mpsc::unbounded_channel::<Order>();
    let run = async move {
        while let Some(Order { marks, deadline, reply }) = orders.recv().await {
            let result = commit(&route, &shared, marks, deadline).await;
            // Nobody may wait for it.
            let _ = reply.send(result);
        }
    };
    (Orders(sender), run)
}

/// While the group rebalances, commits are refused, and tried again in the next generation with the partitions that stayed. A
/// partition that will not do keeps no other from being committed; the first of these errors is told when all others are done with.
async fn commit(route: &Route, shared: &Shared, marks: Vec<Mark>, deadline: Deadline) -> Result<(), Error> {
    let mut backoff = route.cluster.backoff();
    let mut open = marks;
    let mut told = None;
    loop {
        let (who, lost) = {
            let ledger = shared.ledger.lock();
            let (held, lost): (Vec<Mark>, Vec<Mark>) = open.into_iter().partition(|mark| ledger.is_held(mark));
            open = held;
            (ledger.identity.clone(), lost)
        };
        if !lost.is_empty() {
            told.get_or_insert(Error::PartitionsLost {
                partitions: lost.into_iter().map(|mark| mark.place()).collect(),
                code: ErrorCode::IllegalGeneration,
            });
        }
        if open.is_empty() {
            return told.map_or(Ok(()), Err);
        }
        let offsets: Vec<_> = open.iter().map(|mark| mark.offset.clone()).collect();
        let request = requests::commit_as(&route.group_id, &who, &offsets);
        let read = |bytes: &[u8]| requests::read_commit_offsets(bytes, open.len());
        let attempt = route.ask(&request, Duration::ZERO, read);
        let error = match deadline.run(attempt).await {
            Ok(codes) => {
                note(shared, &open, &codes);
                let refused = open.into_iter().zip(codes).filter(|(_, code)| !code.is_none());
                let refused = sort_out(&route.cluster, deadline, refused.collect()).await;
                if let Some(error) = refused.for_good {
                    told.get_or_insert(error);
                }
                open = refused.to_try_again;
                refused.last
            }
            Err(error) if is_passing(&error) => Some(error),
            Err(error) => return Err(told.unwrap_or(error)),
        };
        if open.is_empty() {
            continue;
        }
        let pause = backoff.next_pause();
        if deadline.is_over_after(pause) {
            return Err(told.unwrap_or_else(|| deadline.error(error)));
        }
        runtime::sleep(pause).await;
    }
}

/// What has been committed of these.
fn note(shared: &Shared, marks: &[Mark], codes: &[ErrorCode]) {
    let mut ledger = shared.ledger.lock();
    for (mark, _) in marks.iter().zip(codes).filter(|(_, code)| code.is_none()) {
        ledger.on_committed(&mark.offset);
    }
}

/// What a broker has refused to commit.
#[derive(Default)]
struct Refused {
    to_try_again: Vec<Mark>,
    /// Why those should be tried again.
    last: Option<Error>,
    /// The first error of the others.
    for_good: Option<Error>,
}

/// A partition that the group's core does not know may be new, or gone. One look at the topics tells.
async fn sort_out(cluster: &Cluster, deadline: Deadline, refused: Vec<(Mark, ErrorCode)>) -> Refused {
    let is_unknown = |code: ErrorCode| code == ErrorCode::UnknownTopicOrPartition;
    let unknown = refused.iter().filter(|(_, code)| is_unknown(*code));
    let unknown: BTreeSet<&TopicName> = unknown.map(|(mark, _)| &mark.offset.topic).collect();
    let topics: Vec<TopicName> = unknown.into_iter().cloned().collect();
    let has_looked = !topics.is_empty() && deadline.run(cluster.refresh(&topics)).await.is_ok();
    let mut sorted = Refused::default();
    for (mark, code) in refused {
        let error = Error::Broker {
            code,
            message: Arc::from(format!(
                "partition {} of topic {}: {}",
                mark.offset.partition,
                mark.offset.topic,
                code.description()
            )),
        };
        let gone = if has_looked && is_unknown(code) {
            gone(cluster, &mark)
        } else {
            None
        };
        match gone {
            None if is_passing(&error) => {
                sorted.to_try_again.push(mark);
                sorted.last = Some(error);
            }
            gone => {
                sorted.for_good.get_or_insert(gone.unwrap_or(error));
            }
        }
    }
    sorted
}

/// The error for a partition that is not there, as far as is known.
fn gone(cluster: &Cluster, mark: &Mark) -> Option<Error> {
    let (topic, partition) = mark.place();
    match cluster.known_topic(&topic) {
        Ok(image) if partition.as_usize() < image.partitions.len() => None,
        Ok(image) => Some(Error::UnknownPartition {
            topic,
            partition,
            partitions: image.partitions.len(),
        }),
        Err(error @ Error::UnknownTopic(_)) => Some(error),
        Err(_) => None,
    }
}

/// Whether the same commit may be taken later, perhaps in another generation.
fn is_passing(error: &Error) -> bool {
    let is_between_generations = matches!(
        error,
        Error::Broker {
            code: ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress,
            ..
        }
    );
    is_between_generations || error.is_retriable()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_outlasts_a_rebalance_and_a_core_that_is_away_but_no_refusal_of_the_member() {
        let passes = |code| {
            is_passing(&Error::Broker {
                code,
                message: Arc::from(""),
            })
        };
        for code in [
            ErrorCode::RebalanceInProgress,
            ErrorCode::IllegalGeneration,
            ErrorCode::CoordinatorLoadInProgress,
            ErrorCode::NotCoordinator,
            ErrorCode::KafkaStorageError,
        ] {
            assert!(passes(code), "{code}");
        }
        for code in [
            ErrorCode::UnknownMemberId,
            ErrorCode::FencedInstanceId,
            ErrorCode::OffsetMetadataTooLarge,
            ErrorCode::OffsetOutOfRange,
        ] {
            assert!(!passes(code), "{code}");
        }
    }
}
