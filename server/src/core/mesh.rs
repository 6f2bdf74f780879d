//! What crosses cores: typed messages into each core's inbox, each with the way back.
//!
//! Senders are held by every core and by the control plane. A message owns what it carries; records in a produce request are
//! a copy, made because it came to a core that does not own the partition, and records to be fetched stay where they are (see
//! `remote`). The leases of the request stay with the connection's core, so the inboxes need no bound of their own.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    hash::Hash,
    pin::pin,
    sync::Arc,
    time::Instant,
};

use futures::{
    channel::{mpsc, oneshot},
    future::{Either, select},
};
use headwater_engine::VettedBytes;
use headwater_protocol::{
    error::ErrorCode,
    id::{CoreId, Offset, PartitionIndex, Timestamp, TopicId},
    schema::PartitionDescriptionT,
};

use crate::{
    coordinator::{GroupCall, GroupReply, Listed, Wanted},
    core::remote::RemoteRange,
    failure::{Failure, StopError},
    image::ClusterImage,
    metrics::CoreSnapshot,
};

/// A partition, for ever: a topic of the same name made later has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PartitionId {
    pub(crate) topic: TopicId,
    pub(crate) index: PartitionIndex,
}

impl PartitionId {
    /// The core that owns the partition. Depends only on the ids and the number of cores, so that every core and every
    /// restart agrees; a topic's partitions are spread evenly.
    pub(crate) fn owner(self, cores: usize) -> CoreId {
        let (high, low) = self.topic.as_uuid().as_u64_pair();
        let start = high ^ low;
        let core = start.wrapping_add(self.index.as_usize() as u64) % cores as u64;
        CoreId::new(u16::try_from(core).expect("the number of cores fits a core id"))
    }
}

/// An error for a client: a code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

/// Longest message in bytes. Messages quote what the client sent, which may be megabytes.
const MESSAGE_LEN_MAX: usize = 1024;

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl fmt::Display) -> Refusal {
        let mut start = Start(String::new());
        if write!(start, "{message}").is_err() {
            start.0.push('…');
        }
        Refusal { code, message: start.0 }
    }

    /// What went wrong, in the words of the error.
    pub(crate) fn because(code: ErrorCode, error: &dyn std::error::Error) -> Refusal {
        Refusal::new(code, error)
    }

    /// The other core has ended, which it only does when the broker stops.
    pub(crate) fn stopping() -> Refusal {
        Refusal::new(ErrorCode::NotLeaderOrFollower, "the broker is stopping")
    }
}

/// The start of a text, as much of it as a message may have; what would come behind it is never written out.
struct Start(String);

impl fmt::Write for Start {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MESSAGE_LEN_MAX - self.0.len();
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

/// What became of a produce request, once it is durable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Produced {
    pub(crate) base_offset: Offset,
    pub(crate) append_time: Timestamp,
    pub(crate) log_start_offset: Offset,
}

/// One partition of a fetch request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchItem {
    /// Where in the request: the answer is there in the response.
    pub(crate) place: u32,
    pub(crate) id: PartitionId,
    pub(crate) offset: i64,
    pub(crate) max_bytes: u64,
}

/// A fetch request.
#[derive(Debug)]
pub(crate) struct FetchCall {
    pub(crate) items: Vec<FetchItem>,
    pub(crate) min_bytes: u64,
    pub(crate) max_bytes: u64,
    pub(crate) deadline: Instant,
}

/// What a fetch response has room for, as it goes from partition to partition and from core to core.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    bytes: u64,
    is_untouched: bool,
}

impl Room {
    pub(crate) fn new(bytes: u64) -> Room {
        Room {
            bytes,
            is_untouched: true,
        }
    }

    pub(crate) fn bytes(self) -> u64 {
        self.bytes
    }

    /// Whether so many bytes of whole batches fit. The first batch of a response always does, or who fetches could never get
    /// beyond it.
    pub(crate) fn takes(self, bytes: u64) -> bool {
        self.is_untouched || bytes <= self.bytes
    }

    pub(crate) fn without(self, bytes: u64) -> Room {
        Room {
            bytes: self.bytes.saturating_sub(bytes),
            is_untouched: self.is_untouched && bytes == 0,
        }
    }
}

/// One partition's answer to a fetch, `records` being whatever names or holds them.
#[derive(Debug)]
pub(crate) struct FetchedItem<R> {
    pub(crate) place: u32,
    pub(crate) id: PartitionId,
    pub(crate) error: ErrorCode,
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
    /// After the last record; -1 without records.
    pub(crate) next_offset: i64,
    pub(crate) records: Option<R>,
    /// How much of what the fetch wants is there: the bytes of the records, or all that the limits allow if more records are
    /// there than they let through.
    pub(crate) available: u64,
}

/// How far a partition was read when a fetch found too little in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) id: PartitionId,
    pub(crate) high_watermark: i64,
}

/// One partition of a list-offsets request: what is asked for, in the wire's terms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListItem {
    pub(crate) id: PartitionId,
    pub(crate) timestamp: i64,
}

/// The answer to a [`ListItem`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListedItem {
    pub(crate) id: PartitionId,
    pub(crate) error: ErrorCode,
    pub(crate) timestamp: i64,
    pub(crate) offset: i64,
}

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
        records: VettedBytes,
        reply: Reply<Result<Produced, Refusal>>,
    },
    /// A request to a group that this core runs.
    Group {
        call: Box<GroupCall>,
        reply: Reply<GroupReply>,
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
        reply: Reply<Vec<PartitionDescriptionT>>,
    },
    ListGroups {
        wanted: Wanted,
        reply: Reply<Result<Vec<Listed>, Refusal>>,
    },
    /// What has been counted so far?
    Metrics {
        reply: Reply<CoreSnapshot>,
    },
    /// The cluster looks like this now: open what is new, let go of what is gone.
    Apply {
        image: Arc<ClusterImage>,
        reply: Reply<()>,
    },
    /// Accept connections on the shared port and on the core's own.
    Serve {
        listeners: [std::net::TcpListener; 2],
    },
    /// Answer what has been taken in, make everything durable, and end.
    Stop,
    /// Whatever a test wants to happen to a core.
    #[cfg(test)]
    Run(Box<dyn FnOnce() + Send>),
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
    pub(crate) fn fail(&self, error: StopError) {
        self.failure.report(error);
        for core in self.ids() {
            self.send(core, CoreMessage::Stop);
        }
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
        let mut groups: HashMap<CoreId, Vec<T>> = HashMap::new();
        for item in items {
            groups.entry(id(&item).owner(self.len())).or_default().push(item);
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn partitions_of_a_topic_are_spread_evenly_and_stably() {
        let topic = TopicId::random();
        for cores in 1..=9_usize {
            let owner = |index| {
                PartitionId {
                    topic,
                    index: PartitionIndex::new(index),
                }
                .owner(cores)
            };
            let mut counts = vec![0; cores];
            for index in 0..(cores as i32 * 3) {
                counts[usize::from(owner(index).get())] += 1;
                assert_eq!(owner(index), owner(index));
            }
            assert!(counts.iter().all(|count| *count == 3), "{counts:?}");
        }
    }

    /// A name as it is quoted: six bytes for each of these, and it counts how many were asked for.
    struct Quoted<'a>(usize, &'a Cell<usize>);

    impl fmt::Display for Quoted<'_> {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            (0..self.0).try_for_each(|_| {
                self.1.set(self.1.get() + 1);
                formatter.write_str("\\u{1é}")
            })
        }
    }

    #[test]
    fn a_message_ends_where_nobody_would_read_on_and_the_rest_is_never_written() {
        let refused = |count: usize| {
            let asked = Cell::new(0);
            let message = Refusal::new(ErrorCode::InvalidConfig, Quoted(count, &asked)).message;
            (message, asked.get())
        };
        let piece = "\\u{1é}".len();
        let whole = MESSAGE_LEN_MAX / piece;
        assert_eq!(refused(whole), ("\\u{1é}".repeat(whole), whole));
        let (message, asked) = refused(1 << 20);
        assert_eq!(asked, whole + 1);
        let text = message.strip_suffix('…').unwrap();
        assert!(
            text.len() <= MESSAGE_LEN_MAX && text.starts_with(&"\\u{1é}".repeat(whole)),
            "{message}"
        );
    }
}
