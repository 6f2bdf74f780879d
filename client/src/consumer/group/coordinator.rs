//! The way to the core that runs a group, and the orders of commits, which go there one after the other.

use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::head::Head;
use tokio::sync::{mpsc, oneshot};

use super::ledger::{Mark, Shared};
use crate::address::Address;
use crate::admin::first_refusal;
use crate::cluster::Cluster;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::requests::{self, ResponseError};
use crate::sync::Mutex;

/// Asks the core that runs a group, which is looked for again whenever that fails.
#[derive(Clone)]
pub(super) struct Coordinator {
    pub(super) cluster: Arc<Cluster>,
    pub(super) group_id: Arc<str>,
    address: Arc<Mutex<Option<Address>>>,
}

impl Coordinator {
    pub(super) fn new(cluster: Arc<Cluster>, group_id: &str) -> Self {
        Self {
            cluster,
            group_id: Arc::from(group_id),
            address: Arc::default(),
        }
    }

    /// One attempt; the broker may take `hold` to answer.
    pub(super) async fn ask<H: Head, T>(
        &self,
        request: &H,
        hold: Duration,
        read: impl FnOnce(&[u8]) -> Result<T, ResponseError>,
    ) -> Result<T, Error> {
        let result = async {
            let address = self.find().await?;
            let connection = self.cluster.connect(&address).await?;
            let frame = connection.call_within(request, hold).await?;
            connection.read(&frame, read)
        };
        let result = result.await;
        // Whoever answers with any other code is the right one to ask.
        let has_moved = match &result {
            Err(Error::Broker { code, .. }) => {
                matches!(
                    code,
                    ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable | ErrorCode::UnknownServerError
                )
            }
            Err(_) => true,
            Ok(_) => false,
        };
        if has_moved {
            *self.address.lock() = None;
        }
        result
    }

    async fn find(&self) -> Result<Address, Error> {
        let known = self.address.lock().clone();
        if let Some(address) = known {
            return Ok(address);
        }
        let any = self.cluster.any().await?;
        let frame = any.call(&requests::find_group(&self.group_id)).await?;
        let address = any.read(&frame, requests::read_find_group)?;
        *self.address.lock() = Some(address.clone());
        Ok(address)
    }
}

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
pub(super) fn start_committer(
    coordinator: Coordinator,
    shared: Arc<Shared>,
) -> (Orders, impl Future<Output = ()> + Send) {
    let (sender, mut orders) = mpsc::unbounded_channel::<Order>();
    let run = async move {
        while let Some(Order { marks, deadline, reply }) = orders.recv().await {
            let result = commit(&coordinator, &shared, &marks, deadline).await;
            // Nobody may wait for it.
            let _ = reply.send(result);
        }
    };
    (Orders(sender), run)
}

/// While the group rebalances, commits are refused, and tried again in the next generation with the partitions that stayed.
async fn commit(coordinator: &Coordinator, shared: &Shared, marks: &[Mark], deadline: Deadline) -> Result<(), Error> {
    let mut backoff = coordinator.cluster.backoff();
    loop {
        let (who, held) = {
            let ledger = shared.ledger.lock();
            (ledger.identity.clone(), ledger.still_held(marks))
        };
        if held.is_empty() {
            let partitions = marks
                .iter()
                .map(|mark| (mark.offset.topic.clone(), mark.offset.partition));
            return Err(Error::PartitionsLost {
                partitions: partitions.collect(),
                code: ErrorCode::IllegalGeneration,
            });
        }
        let request = requests::commit_as(&coordinator.group_id, &who, &held);
        let read = |bytes: &[u8]| requests::read_commit_offsets(bytes, held.len());
        let attempt = coordinator.ask(&request, Duration::ZERO, read);
        let error = match deadline.run(attempt).await {
            Ok(codes) => {
                let mut ledger = shared.ledger.lock();
                for (offset, _) in held.iter().zip(&codes).filter(|(_, code)| code.is_none()) {
                    ledger.on_committed(offset);
                }
                drop(ledger);
                let places = held.iter().map(|offset| (&offset.topic, offset.partition));
                match first_refusal(places, &codes) {
                    Ok(()) if held.len() == marks.len() => return Ok(()),
                    Ok(()) => {
                        let kept = |mark: &&Mark| !held.contains(&mark.offset);
                        let lost = marks.iter().filter(kept);
                        let place = |mark: &Mark| (mark.offset.topic.clone(), mark.offset.partition);
                        return Err(Error::PartitionsLost {
                            partitions: lost.map(place).collect(),
                            code: ErrorCode::IllegalGeneration,
                        });
                    }
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let is_between_generations = matches!(
            &error,
            Error::Broker {
                code: ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress,
                ..
            }
        );
        if !is_between_generations && !error.is_retriable() {
            return Err(error);
        }
        let pause = backoff.next_pause();
        if deadline.is_over_after(pause) {
            return Err(deadline.error(Some(error)));
        }
        tokio::time::sleep(pause).await;
    }
}
