//! The task that keeps a consumer's partitions filled: it sends what the state plans and feeds back what comes.
//!
//! One for each consumer; ends with it. Fetches to different cores run at the same time. The next fetch of a partition is sent
//! as soon as the head of a response says where it begins, while the records are still coming. The broker holds a fetch back until there are records (long poll), so that an idle consumer costs next to nothing.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use headwater_protocol::id::{Offset, PartitionIndex};
use headwater_protocol::topic::TopicName;

use super::builder::{Isolation, OffsetReset, Start};
use super::start_offset;
use super::state::{Assignment, Plan, PlannedFetch, PlannedLookup, Shared, Ticket};
use crate::address::Address;
use crate::admin::OffsetSpec;
use crate::cluster::{Cluster, leader};
use crate::connection::Frame;
use crate::error::{Error, ProtocolViolation};
use crate::requests::{self, FetchSlot, FetchTerms, Fetched};
use crate::runtime::{self, sleep_until};

/// How a consumer fetches.
#[derive(Debug, Clone)]
pub(crate) struct FetchSettings {
    pub(crate) fetch_bytes_max: u32,
    pub(crate) partition_bytes_max: u32,
    pub(crate) fetch_bytes_min: u32,
    pub(crate) wait_max: Duration,
    pub(crate) prefetch_bytes: usize,
    pub(crate) reset: OffsetReset,
    pub(crate) isolation: Isolation,
    pub(crate) check_crcs: bool,
    pub(crate) decompressed_bytes_max: usize,
    /// Where the consumer is, if it is to read from replicas there.
    pub(crate) rack: Option<Arc<str>>,
    /// After so long the leader is asked again which replica is the nearest. This and those that follow are the client's.
    pub(crate) preferred_max: Duration,
    /// How long a topic may be unknown before that is reported.
    pub(crate) unknown_patience: Duration,
    /// How long nothing but failures may come before that is reported.
    pub(crate) failing_patience: Duration,
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self {
            fetch_bytes_max: 8 << 20,
            partition_bytes_max: 1 << 20,
            fetch_bytes_min: 1,
            wait_max: Duration::from_millis(500),
            prefetch_bytes: 32 << 20,
            reset: OffsetReset::default(),
            isolation: Isolation::default(),
            check_crcs: true,
            decompressed_bytes_max: 64 << 20,
            rack: None,
            preferred_max: Duration::ZERO,
            unknown_patience: Duration::ZERO,
            failing_patience: Duration::ZERO,
        }
    }
}

/// Something that was asked for has come.
enum Done {
    /// The head of a response: what follows it can be asked for while its records are still coming.
    Begun {
        tickets: Vec<Ticket>,
        fetched: Vec<Fetched>,
        rest: Pin<Box<dyn Future<Output = Done> + Send>>,
    },
    Fetched {
        address: Address,
        tickets: Vec<Ticket>,
        result: Result<(Vec<Fetched>, Frame), Error>,
    },
    LookedUp {
        ticket: Ticket,
        result: Result<Offset, Error>,
    },
    Refreshed {
        topics: Vec<TopicName>,
        result: Result<(), Error>,
    },
}

type Work = FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>;

pub(super) struct Fetcher {
    cluster: Arc<Cluster>,
    shared: Arc<Shared>,
    settings: Arc<FetchSettings>,
    work: Work,
    in_flight: HashMap<Address, usize>,
    refreshing: bool,
    /// The metadata in which new partitions were last looked for. At first none: the topic may have got some since the consumer
    /// was told which there are.
    generation: Option<u64>,
}

impl Fetcher {
    pub(super) fn new(cluster: Arc<Cluster>, shared: Arc<Shared>, settings: Arc<FetchSettings>) -> Self {
        let (work, in_flight) = (Work::new(), HashMap::new());
        Self {
            cluster,
            shared,
            settings,
            work,
            in_flight,
            refreshing: false,
            generation: None,
        }
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
        loop {
            self.look_for_partitions();
            let plan = self.shared.state.lock().plan(runtime::now(), &self.in_flight);
            let wake_at = plan.wake_at;
            self.start(plan);
            let pause = async {
                match wake_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(done) = self.work.next() => {
                    let is_news = !matches!(done, Done::Begun { .. });
                    self.on_done(done);
                    if is_news {
                        self.shared.arrived.notify_one();
                    }
                }
                () = self.shared.wanted.notified() => {}
                () = pause => {}
            }
        }
    }

    fn start(&mut self, plan: Plan) {
        for fetch in plan.fetches {
            *self.in_flight.entry(fetch.address.clone()).or_default() += 1;
            self.work.push(Box::pin(run_fetch(
                Arc::clone(&self.cluster),
                fetch,
                Arc::clone(&self.settings),
            )));
        }
        for lookup in plan.lookups {
            let isolation = self.settings.isolation;
            self.work
                .push(Box::pin(run_lookup(Arc::clone(&self.cluster), lookup, isolation)));
        }
        if !plan.leaderless.is_empty() && !self.refreshing {
            self.refreshing = true;
            self.work
                .push(Box::pin(run_refresh(Arc::clone(&self.cluster), plan.leaderless)));
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Begun { tickets, fetched, rest } => {
                let mut state = self.shared.state.lock();
                for (&ticket, fetched) in tickets.iter().zip(&fetched) {
                    state.on_begun(ticket, fetched);
                }
                self.work.push(rest);
            }
            Done::Fetched {
                address,
                tickets,
                result,
            } => {
                if let Some(count) = self.in_flight.get_mut(&address) {
                    *count -= 1;
                }
                self.on_fetched(&tickets, result);
            }
            Done::LookedUp { ticket, result } => self.shared.state.lock().on_lookup(ticket, result, runtime::now()),
            Done::Refreshed { topics, result } => {
                self.refreshing = false;
                self.on_refreshed(&topics, &result);
            }
        }
    }

    fn on_fetched(&self, tickets: &[Ticket], result: Result<(Vec<Fetched>, Frame), Error>) {
        let now = runtime::now();
        let mut state = self.shared.state.lock();
        match result {
            Ok((fetched, frame)) => {
                let mut payload = frame.payload;
                for (&ticket, fetched) in tickets.iter().zip(&fetched) {
                    let records = payload.split_to(fetched.records_size);
                    state.on_fetched(ticket, fetched, records, now);
                    if let Some((broker, core)) = fetched.preferred {
                        let replica = self.cluster.metadata.core_address(broker, core);
                        state.on_preferred(ticket, replica, now);
                    }
                }
            }
            Err(error) => {
                for &ticket in tickets {
                    state.on_failure(ticket, &error, now);
                }
            }
        }
    }

    fn on_refreshed(&self, topics: &[TopicName], result: &Result<(), Error>) {
        let now = runtime::now();
        let mut state = self.shared.state.lock();
        for topic in topics {
            let image = result.clone().and_then(|()| self.cluster.known_topic(topic));
            for (ticket, partition) in state.leaderless(topic) {
                let found = image
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|image| leader(image, topic, partition).map(|leader| (image.id, leader.address.clone())));
                match found {
                    Ok((id, address)) => state.on_leader(ticket, id, address),
                    Err(error) => state.on_failure(ticket, &error, now),
                }
            }
        }
    }

    /// Takes in partitions that a subscribed topic has got since. They are read from offset 0, wherever the consumer began: all
    /// that they hold is newer than it.
    fn look_for_partitions(&mut self) {
        let generation = self.cluster.metadata.generation();
        if self.generation.replace(generation) == Some(generation) {
            return;
        }
        let mut state = self.shared.state.lock();
        for topic in state.subscribed.clone() {
            let Ok(image) = self.cluster.known_topic(&topic) else {
                continue;
            };
            let known = state.partitions_of(&topic);
            let all = (0..image.partitions.len() as i32).map(PartitionIndex::new);
            for partition in all.filter(|partition| !known.contains(partition)) {
                tracing::info!(%topic, %partition, "reading a partition that the topic has got since");
                state.add(Assignment {
                    topic: topic.clone(),
                    partition,
                    topic_id: image.id,
                    offset: Offset::ZERO,
                });
            }
        }
    }
}

async fn run_fetch(cluster: Arc<Cluster>, fetch: PlannedFetch, settings: Arc<FetchSettings>) -> Done {
    let PlannedFetch {
        address,
        tickets,
        slots,
        bytes_max,
    } = fetch;
    let terms = FetchTerms {
        wait_ms_max: settings.wait_max.as_millis() as u32,
        bytes_min: settings.fetch_bytes_min,
        bytes_max,
        rack: settings.rack.as_deref(),
        isolation: settings.isolation,
    };
    let isolation = settings.isolation;
    let request = requests::fetch(&slots, &terms);
    let sent = cluster.connect(&address).await.and_then(|connection| {
        let (head, frame) = connection.call_in_parts(&request, settings.wait_max)?;
        Ok((connection, head, frame))
    });
    let (connection, head, frame) = match sent {
        Ok(sent) => sent,
        Err(error) => {
            return Done::Fetched {
                address,
                tickets,
                result: Err(error),
            };
        }
    };
    // A head that is not right is reported with its frame.
    let head = head.await.and_then(|head| requests::read_fetch(&head, isolation).ok());
    let begun = head.filter(|fetched| is_answer(&slots, fetched));
    let tickets_begun = tickets.clone();
    let rest = async move {
        let result = frame.await.and_then(|frame| {
            let fetched = connection.read(&frame, |head| requests::read_fetch(head, isolation))?;
            let size: usize = fetched.iter().map(|fetched| fetched.records_size).sum();
            if is_answer(&slots, &fetched) && size == frame.payload.len() {
                return Ok((fetched, frame));
            }
            let source = ProtocolViolation::Field("a fetch response that does not answer its request");
            let error = Error::Protocol {
                address: address.clone(),
                source,
            };
            connection.close(&error);
            Err(error)
        });
        Done::Fetched {
            address,
            tickets,
            result,
        }
    };
    match begun {
        Some(fetched) => Done::Begun {
            tickets: tickets_begun,
            fetched,
            rest: Box::pin(rest),
        },
        None => rest.await,
    }
}

/// Whether a response is about the partitions that were asked for.
fn is_answer(slots: &[FetchSlot], fetched: &[Fetched]) -> bool {
    let same =
        |(slot, fetched): (&FetchSlot, &Fetched)| slot.topic == fetched.topic && slot.partition == fetched.partition;
    fetched.len() == slots.len() && slots.iter().zip(fetched).all(same)
}

async fn run_lookup(cluster: Arc<Cluster>, lookup: PlannedLookup, isolation: Isolation) -> Done {
    let PlannedLookup {
        ticket,
        topic,
        partition,
        spec,
    } = lookup;
    let deadline = cluster.deadline("look up an offset");
    let start = if spec == OffsetSpec::Earliest {
        Start::Earliest
    } else {
        Start::Latest
    };
    let result = start_offset(&cluster, deadline, &topic, partition, start, isolation).await;
    Done::LookedUp { ticket, result }
}

async fn run_refresh(cluster: Arc<Cluster>, topics: Vec<TopicName>) -> Done {
    let deadline = cluster.deadline("refresh the metadata");
    let result = deadline.run(cluster.refresh(&topics)).await;
    Done::Refreshed { topics, result }
}
