//! What crosses cores: typed messages into each core's inbox, each with the way back.
//!
//! Senders are held by every core and by the control plane. A message owns what it carries; records in a produce request are
//! a copy, made because it came to a core that does not own the partition, and records to be fetched stay where they are (see
//! `remote`). The leases of the request stay with the connection's core, so the inboxes need no bound of their own.

use std::{pin::pin, sync::Arc};

use futures::{
    channel::{mpsc, oneshot},
    future::{Either, select},
};
use headwater_engine::{ActiveProducer, VettedBytes};
use headwater_protocol::{
    error::ErrorCode,
    id::{CoreId, Offset},
};

use crate::{
    core::remote::RemoteRange,
    failure::{Failure, StopError},
    image::{Assignment, ClusterImage, Wishes},
    machine::{Bound, HashMap},
    metrics::CoreSnapshot,
    model::{
        group::{self, Call, Listed, Wanted},
        id::PartitionId,
        op::PartitionDescription,
        records::{Acks, FetchItem, FetchedItem, ListItem, ListedItem, Produced, Room, Seen},
        refusal::Refusal,
        transaction,
    },
};

pub(crate) type Reply<T> = oneshot::Sender<T>;

/// Sends the answer once it is there, and ends as soon as nobody waits for it any more.
pub(crate) async fn answer<T>(mut reply: Reply<T>, answer: impl Future<Output = T>) {
    let answered = match select(pin!(answer), reply.cancellation()).await {
        Either::Left((answer, _)) => Some(answer),
        Either::Right(_) => None,
    };
    if let Some(answer) = answered {
        // Whoever asked may have gone just now.
        let _ = reply.send(answer);
    }
}

/// A request that appends, passed on to the core that owns what it is for.
pub(crate) enum Forward {
    Produce {
        id: PartitionId,
        acks: Acks,
        records: VettedBytes,
        reply: Reply<Result<Produced, Refusal>>,
    },
    /// A request to a group that this core runs.
    Group {
        call: Box<Call>,
        reply: Reply<group::Reply>,
    },
    /// A request about a transaction that this core coordinates.
    Transaction {
        call: Box<transaction::Call>,
        reply: Reply<transaction::Reply>,
    },
}

/// What a core can be asked by another thread.
pub(crate) enum CoreMessage {
    Forward(Forward),
    /// What is there now, as far as there is room for it?
    Fetch {
        items: Vec<FetchItem>,
        room: Room,
        reply: Reply<Vec<FetchedItem<RemoteRange>>>,
    },
    /// Answer when one of these partitions has more than that, or is gone. Ends when the reply is no longer waited for.
    AwaitNews {
        seen: Vec<Seen>,
        reply: Reply<()>,
    },
    ListOffsets {
        items: Vec<ListItem>,
        reply: Reply<Vec<ListedItem>>,
    },
    DeleteRecords {
        id: PartitionId,
        before: i64,
        reply: Reply<Result<Offset, Refusal>>,
    },
    Describe {
        ids: Vec<PartitionId>,
        reply: Reply<Vec<PartitionDescription>>,
    },
    Producers {
        id: PartitionId,
        reply: Reply<Result<Vec<ActiveProducer>, Refusal>>,
    },
    ListGroups {
        wanted: Wanted,
        reply: Reply<Result<Vec<Listed>, Refusal>>,
    },
    ListTransactions {
        reply: Reply<Result<Vec<transaction::Described>, Refusal>>,
    },
    /// A transaction has ended: one code for each partition once it has the marker.
    Mark {
        marker: transaction::Marker,
        ids: Vec<PartitionId>,
        reply: Reply<Vec<ErrorCode>>,
    },
    /// What has been counted so far?
    Metrics {
        /// How long things take is much to copy: only for those who look at it.
        with_times: bool,
        reply: Reply<CoreSnapshot>,
    },
    /// The cluster looks like this now: open what is new, let go of what is gone.
    Apply {
        image: Arc<ClusterImage>,
        reply: Reply<()>,
    },
    /// Brokers and replicas are like this now: lead, follow or let go.
    Assign {
        assignment: Arc<Assignment>,
        reply: Reply<()>,
    },
    /// Append to the audit log, which nobody waits for.
    Audit {
        id: PartitionId,
        records: Vec<Vec<u8>>,
    },
    /// What would partitions have the coordinator change?
    Wishes {
        reply: Reply<Wishes>,
    },
    /// Accept connections on the port that all cores share and on the core's own.
    Serve {
        listeners: Listeners,
    },
    /// Answer what has been taken in, make everything durable, and end.
    Stop,
    /// Whatever a test wants to happen to a core.
    #[cfg(test)]
    Run(Box<dyn FnOnce() + Send>),
}

/// Where a core accepts connections, of which protocol.
pub(crate) struct Listeners {
    pub(crate) native: Vec<Bound>,
    /// None if Kafka's is not spoken.
    pub(crate) kafka: Vec<Bound>,
}

/// Ways to every core's inbox, in the order of their ids.
#[derive(Clone)]
pub(crate) struct Mesh {
    cores: Arc<[mpsc::UnboundedSender<CoreMessage>]>,
    failure: Arc<Failure>,
}

impl Mesh {
    /// The mesh and each core's inbox.
    pub(crate) fn new(cores: usize) -> (Mesh, Vec<mpsc::UnboundedReceiver<CoreMessage>>) {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..cores).map(|_| mpsc::unbounded()).unzip();
        let mesh = Mesh {
            cores: senders.into(),
            failure: Arc::default(),
        };
        (mesh, inboxes)
    }

    /// The failure of a part of the broker, if there is one.
    pub(crate) fn failure(&self) -> &Arc<Failure> {
        &self.failure
    }

    /// A part of the broker has failed: nobody waits for it any more, and the cores that are left stop.
    fn fail(&self, error: StopError) {
        self.failure.report(error);
        for core in self.ids() {
            self.send(core, CoreMessage::Stop);
        }
    }

    /// What tells all parts of the broker that one has failed.
    pub(crate) fn alarm(&self) -> impl FnOnce(StopError) + Send + use<> {
        let mesh = self.clone();
        move |error| mesh.fail(error)
    }

    /// Number of cores.
    pub(crate) fn len(&self) -> usize {
        self.cores.len()
    }

    /// Puts a message into a core's inbox. If the core has ended, the message's reply is dropped with it.
    pub(crate) fn send(&self, core: CoreId, message: CoreMessage) {
        if self.cores[usize::from(core.get())].unbounded_send(message).is_err() {
            tracing::debug!(core = core.get(), "a message for a core that has ended");
        }
    }

    /// Asks a core at once and waits for its answer; `None` if it has ended, or a part of the broker has failed: a core that has
    /// panicked leaves what it was asked where nothing ends it.
    pub(crate) fn ask<T, M>(&self, core: CoreId, message: M) -> impl Future<Output = Option<T>> + use<T, M>
    where
        M: FnOnce(Reply<T>) -> CoreMessage,
    {
        let (reply, answer) = oneshot::channel();
        self.send(core, message(reply));
        let failure = Arc::clone(&self.failure);
        async move {
            match select(answer, pin!(failure.has_come())).await {
                Either::Left((answer, _)) => answer.ok(),
                Either::Right(_) => None,
            }
        }
    }

    /// Every core.
    pub(crate) fn ids(&self) -> impl Iterator<Item = CoreId> + use<> {
        (0..self.cores.len() as u16).map(CoreId::new)
    }

    /// Splits a list by the core that owns each item.
    pub(crate) fn by_owner<T>(&self, items: Vec<T>, id: impl Fn(&T) -> PartitionId) -> HashMap<CoreId, Vec<T>> {
        let mut groups: HashMap<CoreId, Vec<T>> = HashMap::default();
        for item in items {
            groups.entry(id(&item).owner(self.len())).or_default().push(item);
        }
        groups
    }
}
