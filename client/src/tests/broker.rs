//! A simulated broker: the native protocol's rules over `Vec`s, and harm on demand.

mod admin;
mod groups;
mod log;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::batch::{BatchHeader, BatchLimits};
use headwater_protocol::error::ErrorCode;
use headwater_protocol::frame::{Api, FrameHeader, HEADER_LEN, encode_head};
use headwater_protocol::head::{Head, decode};
use headwater_protocol::id::{CorrelationId, TopicId};
use headwater_protocol::schema;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, WriteHalf, split};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

pub(super) use groups::Group;
pub(super) use log::{Partition, Topic};

use super::network::Network;
use crate::runtime::sync::Mutex;

/// The shared port; core n listens on this plus 1 plus n.
pub(super) const PORT: u16 = 9000;
const LIMITS: BatchLimits = BatchLimits {
    batch_size_max: 16 << 20,
};

/// The harm that the broker does. Probabilities are for each request.
#[derive(Debug, Clone, Default)]
pub(super) struct Harm {
    /// The connection ends before the request is looked at.
    pub(super) cut_before: f64,
    /// The connection ends after the request took effect, without a response.
    pub(super) cut_after: f64,
    /// Produce is refused with a retriable error.
    pub(super) refuse: f64,
    /// Each connection's requests are taken up this slowly: what a cut connection had sent still takes effect, later.
    pub(super) slow: Duration,
    /// Responses take up to this long, each its own time: they come out of order.
    pub(super) delay_max: Duration,
    /// No request is answered.
    pub(super) silent: bool,
    /// Answers to the next produce requests, none of which takes effect.
    pub(super) produce_errors: VecDeque<ErrorCode>,
    /// Answers to the next fetches, for all their partitions.
    pub(super) fetch_errors: VecDeque<ErrorCode>,
}

pub(super) struct Broker {
    network: Arc<Network>,
    pub(super) cores: u16,
    pub(super) state: Mutex<State>,
    pub(super) harm: Mutex<Harm>,
    rng: Mutex<SmallRng>,
    appended: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) topics: HashMap<String, Topic>,
    pub(super) groups: HashMap<String, Group>,
    /// Configurations that were set, or returned to their default.
    pub(super) altered: Vec<(String, Option<String>)>,
    next_producer_id: i64,
    /// Requests that came, by api.
    pub(super) requests: HashMap<u16, usize>,
    /// Transactions of every topic's first partition that were aborted: producer, first offset, and that of the marker.
    pub(super) aborted: Vec<(i64, i64, i64)>,
    /// It is from before there were transactions.
    pub(super) knows_no_isolation: bool,
    /// Partitions of each fetch that came, with the offset asked for.
    pub(super) fetches: Vec<Vec<(i32, i64)>>,
    /// Most record bytes that were ever asked for and not yet answered.
    pub(super) produce_bytes_open_max: usize,
    produce_bytes_open: usize,
}

impl Broker {
    /// Listens on the shared port and one for each core.
    pub(super) fn start(network: &Arc<Network>, cores: u16) -> Arc<Self> {
        let broker = Arc::new(Self {
            network: Arc::clone(network),
            cores,
            state: Mutex::default(),
            harm: Mutex::default(),
            rng: Mutex::new(SmallRng::seed_from_u64(0)),
            appended: Notify::new(),
        });
        broker.listen();
        broker
    }

    pub(super) fn listen(self: &Arc<Self>) {
        for port in PORT..=PORT + self.cores {
            let mut incoming = self.network.listen(port);
            let broker = Arc::clone(self);
            tokio::spawn(async move {
                while let Some(stream) = incoming.recv().await {
                    tokio::spawn(Arc::clone(&broker).serve(stream, port));
                }
            });
        }
    }

    /// Refuses connections, and ends those there are.
    pub(super) fn stop(&self) {
        (PORT..=PORT + self.cores).for_each(|port| self.network.close(port));
        self.network.cut_all();
    }

    pub(super) fn seed(&self, seed: u64) {
        *self.rng.lock() = SmallRng::seed_from_u64(seed);
    }

    pub(super) fn harm(&self, harm: Harm) {
        *self.harm.lock() = harm;
    }

    /// Creates a topic, in place of one of the same name; partition n belongs to core n modulo the cores.
    pub(super) fn create_topic(&self, name: &str, partitions: u16) -> TopicId {
        let id = TopicId::random();
        let partition = |index| Partition {
            core: index % self.cores,
            ..Partition::default()
        };
        let topic = Topic {
            id,
            partitions: (0..partitions).map(partition).collect(),
            batch_size_max: LIMITS.batch_size_max,
            tells_batch_size: true,
        };
        self.state.lock().topics.insert(name.to_owned(), topic);
        id
    }

    pub(super) fn values(&self, topic: &str, partition: usize) -> Vec<String> {
        self.state.lock().topics[topic].partitions[partition].values()
    }

    /// As after the time for which a broker remembers idempotent producers.
    pub(super) fn forget_producers(&self) {
        for topic in self.state.lock().topics.values_mut() {
            for partition in &mut topic.partitions {
                partition.forget_producers();
            }
        }
    }

    pub(super) fn requests(&self, api: Api) -> usize {
        self.state
            .lock()
            .requests
            .get(&api.as_u16())
            .copied()
            .unwrap_or_default()
    }

    /// Has waiting fetches look again.
    pub(super) fn wake_fetches(&self) {
        self.appended.notify_waiters();
    }

    fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.rng.lock().random_bool(probability)
    }

    async fn serve(self: Arc<Self>, stream: DuplexStream, port: u16) {
        let (mut read, write) = split(stream);
        let write = Arc::new(tokio::sync::Mutex::new(write));
        loop {
            let mut header = [0; HEADER_LEN];
            if read.read_exact(&mut header).await.is_err() {
                return;
            }
            let header = FrameHeader::parse(&header, 64 << 20).unwrap().unwrap();
            let mut body = vec![0; header.frame_len() - HEADER_LEN];
            if read.read_exact(&mut body).await.is_err() {
                return;
            }
            let harm = self.harm.lock().clone();
            if harm.silent {
                continue;
            }
            if self.chance(harm.cut_before) {
                return;
            }
            if !harm.slow.is_zero() {
                sleep(harm.slow).await;
            }
            *self.state.lock().requests.entry(header.api).or_default() += 1;
            let (head, payload) = body.split_at(header.head_len());
            let request = Request {
                header,
                head: head.to_vec(),
                payload: payload.to_vec(),
                port,
            };
            if Api::from_u16(header.api) == Some(Api::Fetch) {
                tokio::spawn(Arc::clone(&self).fetch(request, Arc::clone(&write)));
                continue;
            }
            let response = self.answer(&request);
            if self.chance(harm.cut_after) {
                return;
            }
            if let Some(response) = response {
                self.respond(response, Arc::clone(&write), payload.len());
            }
        }
    }

    fn respond(self: &Arc<Self>, response: Vec<u8>, write: Arc<Writer>, payload_len: usize) {
        let delay_max = self.harm.lock().delay_max;
        let delay = if delay_max.is_zero() {
            Duration::ZERO
        } else {
            delay_max.mul_f64(self.rng.lock().random())
        };
        let broker = Arc::clone(self);
        {
            let mut state = self.state.lock();
            state.produce_bytes_open += payload_len;
            state.produce_bytes_open_max = state.produce_bytes_open_max.max(state.produce_bytes_open);
        }
        tokio::spawn(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            broker.state.lock().produce_bytes_open -= payload_len;
            let _ = send(&write, &response).await;
        });
    }

    fn answer(&self, request: &Request) -> Option<Vec<u8>> {
        let reply = |head: &dyn Fn() -> Vec<u8>| Some(head());
        match Api::from_u16(request.header.api)? {
            Api::ApiVersions => reply(&|| request.reply(&api_versions())),
            Api::Metadata => Some(request.reply(&self.metadata(request))),
            Api::InitProducerId => {
                let mut state = self.state.lock();
                state.next_producer_id += 1;
                let producer_id = state.next_producer_id;
                let (error, message, producer_epoch) = (0, None, 0);
                Some(request.reply(&schema::InitProducerIdResponseT {
                    error,
                    message,
                    producer_id,
                    producer_epoch,
                }))
            }
            Api::Produce => self.produce(request),
            Api::ListOffsets => Some(request.reply(&self.list_offsets(request))),
            api => Some(self.administer(api, request).unwrap_or_else(|| request.refuse())),
        }
    }

    fn metadata(&self, request: &Request) -> schema::MetadataResponseT {
        let head = decode::<schema::MetadataRequest<'_>>(&request.head).unwrap();
        let state = self.state.lock();
        let names: Vec<String> = match head.topics() {
            Some(names) => names.iter().map(str::to_owned).collect(),
            None => state.topics.keys().cloned().collect(),
        };
        let topic = |name: String| match state.topics.get(&name) {
            None => schema::TopicMetadataT {
                error: ErrorCode::UnknownTopicOrPartition as i16,
                name: Some(name),
                ..Default::default()
            },
            Some(topic) => {
                let partitions =
                    topic
                        .partitions
                        .iter()
                        .zip(0..)
                        .map(|(partition, index)| schema::PartitionMetadataT {
                            partition: index,
                            core: partition.core,
                            leader: 1,
                            ..Default::default()
                        });
                let (id, partitions) = (Some(topic.id.into()), Some(partitions.collect()));
                schema::TopicMetadataT {
                    error: 0,
                    name: Some(name),
                    id,
                    partitions,
                    batch_size_max: if topic.tells_batch_size {
                        topic.batch_size_max as u32
                    } else {
                        0
                    },
                }
            }
        };
        let core_ports = Some((1..=self.cores).map(|core| PORT + core).collect());
        let broker = schema::BrokerT {
            id: 1,
            host: Some("broker".into()),
            port: PORT,
            core_ports,
        };
        let topics = Some(names.into_iter().map(topic).collect());
        schema::MetadataResponseT {
            error: 0,
            message: None,
            brokers: Some(vec![broker]),
            topics,
        }
    }

    /// Runs `act` on the partition, if it is on the core behind this port.
    fn on_partition<T>(
        &self,
        port: u16,
        topic: TopicId,
        partition: i32,
        act: impl FnOnce(&mut Partition) -> Result<T, ErrorCode>,
    ) -> Result<T, ErrorCode> {
        let mut state = self.state.lock();
        let topic = state
            .topics
            .values_mut()
            .find(|other| other.id == topic)
            .ok_or(ErrorCode::UnknownTopicId)?;
        let partition = topic
            .partitions
            .get_mut(partition as usize)
            .ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if port != PORT + 1 + partition.core {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        act(partition)
    }

    fn batch_size_max(&self, topic: TopicId) -> usize {
        let state = self.state.lock();
        let topic = state.topics.values().find(|other| other.id == topic);
        topic.map_or(usize::MAX, |topic| topic.batch_size_max)
    }

    /// Has a topic take batches up to this size, and tell so or not.
    pub(super) fn limit(&self, topic: &str, batch_size_max: usize, tells_batch_size: bool) {
        let mut state = self.state.lock();
        let topic = state.topics.get_mut(topic).unwrap();
        (topic.batch_size_max, topic.tells_batch_size) = (batch_size_max, tells_batch_size);
    }

    fn produce(&self, request: &Request) -> Option<Vec<u8>> {
        let head = decode::<schema::ProduceRequest<'_>>(&request.head).unwrap();
        let topic = TopicId::from(head.topic_id().unwrap());
        let (scripted, refuse) = {
            let mut harm = self.harm.lock();
            (harm.produce_errors.pop_front(), harm.refuse)
        };
        let result = match scripted {
            Some(error) => Err(error),
            None if self.chance(refuse) => Err(ErrorCode::KafkaStorageError),
            None if request.payload.len() > self.batch_size_max(topic) => Err(ErrorCode::MessageTooLarge),
            None => self.on_partition(request.port, topic, head.partition(), |partition| {
                partition.append(&request.payload)
            }),
        };
        self.appended.notify_waiters();
        let mut response = schema::ProduceResponseT::default();
        match result {
            Ok(base) => response.base_offset = base as i64,
            Err(code) => response.error = code as i16,
        }
        (head.acks() != 0).then(|| request.reply(&response))
    }

    fn list_offsets(&self, request: &Request) -> schema::ListOffsetsResponseT {
        let head = decode::<schema::ListOffsetsRequest<'_>>(&request.head).unwrap();
        let asked = head.partitions().unwrap().get(0);
        let topic = TopicId::from(asked.topic_id());
        let offset = self.on_partition(request.port, topic, asked.partition(), |partition| {
            Ok(match asked.timestamp() {
                -2 => partition.log_start as i64,
                -1 => partition.next_offset as i64,
                time => {
                    let mut headers = partition.batches.iter().map(|batch| BatchHeader::read(batch).unwrap());
                    let found = headers.find(|batch| batch.max_timestamp().get() >= time);
                    found.map_or(-1, |batch| batch.base_offset().as_i64())
                }
            })
        });
        let listed = schema::ListedOffsetT {
            topic_id: topic.into(),
            partition: asked.partition(),
            error: offset.err().unwrap_or(ErrorCode::None) as i16,
            timestamp: 0,
            offset: offset.unwrap_or(-1),
        };
        schema::ListOffsetsResponseT {
            error: 0,
            message: None,
            partitions: Some(vec![listed]),
        }
    }

    async fn fetch(self: Arc<Self>, request: Request, write: Arc<Writer>) {
        let head = decode::<schema::FetchRequest<'_>>(&request.head).unwrap();
        let until = Instant::now() + Duration::from_millis(u64::from(head.max_wait_ms()));
        let asked = head.partitions().unwrap();
        let log = asked.iter().map(|slot| (slot.partition(), slot.offset())).collect();
        self.state.lock().fetches.push(log);
        let scripted = self.harm.lock().fetch_errors.pop_front();
        let (partitions, payload) = loop {
            let appended = self.appended.notified();
            let (mut partitions, mut payload, mut failed) = (Vec::new(), Vec::new(), false);
            for slot in asked {
                let topic = TopicId::from(slot.topic_id());
                let room = (head.max_bytes() as usize)
                    .saturating_sub(payload.len())
                    .min(slot.max_bytes() as usize);
                let (mut log_start, mut high_watermark) = (-1, -1);
                let read = |partition: &mut Partition| {
                    log_start = partition.log_start as i64;
                    high_watermark = partition.next_offset as i64;
                    let nothing = || Ok((Vec::new(), -1));
                    if room == 0 {
                        nothing()
                    } else {
                        partition.read(slot.offset() as u64, room)
                    }
                };
                let result = match scripted {
                    Some(code) => Err(code),
                    None => self.on_partition(request.port, topic, slot.partition(), read),
                };
                failed |= result.is_err();
                let error = result.as_ref().err().copied().unwrap_or(ErrorCode::None) as i16;
                let (bytes, next_offset) = result.unwrap_or((Vec::new(), -1));
                partitions.push(schema::FetchedPartitionT {
                    topic_id: topic.into(),
                    partition: slot.partition(),
                    error,
                    records_size: bytes.len() as u32,
                    high_watermark,
                    log_start_offset: log_start,
                    next_offset,
                });
                payload.extend_from_slice(&bytes);
            }
            if failed || payload.len() >= head.min_bytes() as usize || timeout_at(until, appended).await.is_err() {
                break (partitions, payload);
            }
        };
        let (aborted, knows_no_isolation) = {
            let state = self.state.lock();
            let aborted =
                state
                    .aborted
                    .iter()
                    .map(|(producer_id, first_offset, last_offset)| schema::AbortedTransactionT {
                        index: 0,
                        producer_id: *producer_id,
                        first_offset: *first_offset,
                        last_offset: *last_offset,
                    });
            (aborted.collect(), state.knows_no_isolation)
        };
        let head = schema::FetchResponseT {
            error: 0,
            message: None,
            partitions: Some(partitions),
            preferred: None,
            isolation: if knows_no_isolation { 0 } else { head.isolation() },
            aborted: (head.isolation() == 1).then_some(aborted),
            last_stable: None,
        };
        let id = request.header.correlation_id;
        let mut response = encode_head(&head, 0, id, payload.len());
        response.extend_from_slice(&payload);
        self.respond(response, write, 0);
    }
}

type Writer = tokio::sync::Mutex<WriteHalf<DuplexStream>>;

async fn send(write: &Writer, response: &[u8]) -> io::Result<()> {
    write.lock().await.write_all(response).await
}

struct Request {
    header: FrameHeader,
    head: Vec<u8>,
    payload: Vec<u8>,
    port: u16,
}

impl Request {
    fn reply<H: Head>(&self, head: &H) -> Vec<u8> {
        let id: CorrelationId = self.header.correlation_id;
        encode_head(head, 0, id, 0)
    }

    /// As a broker answers what it does not know.
    fn refuse(&self) -> Vec<u8> {
        let mut response = self.reply(&schema::ErrorResponseT {
            error: ErrorCode::UnsupportedVersion as i16,
            message: Some("no".into()),
        });
        response[4..6].copy_from_slice(&Api::Error.as_u16().to_le_bytes());
        response
    }
}

pub(super) fn api_versions() -> schema::ApiVersionsResponseT {
    let range = |&api: &Api| schema::ApiRangeT {
        api: api.as_u16(),
        version_min: 0,
        version_max: 0,
    };
    schema::ApiVersionsResponseT {
        error: 0,
        message: None,
        apis: Some(Api::REQUESTS.iter().map(range).collect()),
        broker_id: 1,
        cluster_id: Some("simulated".into()),
        frame_size_max: 64 << 20,
        batch_size_max: LIMITS.batch_size_max as u32,
    }
}
