//! One connection to one listener: pipelined requests, responses in any order, matched by correlation id.
//!
//! Two tasks own the socket's halves: the reader splits frames off and hands each to the reply that waits for it, the
//! writer sends what was submitted, in that order, many frames in one vectored write. A connection that fails in any way
//! is closed for good, and every open request ends with the same error. Reconnecting is the pool's business.

pub(crate) mod credentials;
mod frames;
pub(crate) mod probe;
mod reply;
mod tasks;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::frame::{self, Api, FrameHeader};
use headwater_protocol::head::{self, Head};
use headwater_protocol::id::CorrelationId;
use headwater_protocol::schema;
use tokio::sync::{Notify, oneshot};

use crate::address::Address;
use crate::error::{Error, ProtocolViolation, Sign};
use crate::requests::BrokerLimits;
use crate::runtime::sync::Mutex;
use crate::runtime::transport::{Connector, Halves};
use crate::runtime::{self, Instant, timeout};
use crate::statistics::Traffic;
use crate::tls;

pub(crate) use credentials::Credentials;
pub(crate) use frames::Frame;
pub(crate) use reply::{Outcome, Reply};

/// Of the time for which a proof counts so much passes before the next, as with Kafka's clients at least.
const PROVE_AGAIN_AFTER: f64 = 0.8;

/// The version of every api that this client speaks.
const VERSION: u16 = 0;

/// How one connection is made, and its limits.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSettings {
    /// What the program calls itself.
    pub(crate) client_id: Option<Arc<str>>,
    /// For resolving, connecting, and the first exchange.
    pub(crate) connect_timeout: Duration,
    /// For any one response; when it passes the connection counts as dead.
    pub(crate) request_timeout: Duration,
    /// Largest frame to read, in bytes.
    pub(crate) frame_size_max: u32,
    /// Who the client is, if it says so.
    pub(crate) credentials: Option<Credentials>,
}

/// A handle to a connection. Cheap to clone; the connection closes when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    broker: BrokerLimits,
    request_timeout: Duration,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.fail(&Error::Closed);
    }
}

/// What the handles and the two tasks share.
#[derive(Debug)]
struct Shared {
    address: Address,
    correlation: AtomicU32,
    queue: Mutex<Queue>,
    /// Wakes the writer.
    submitted: Notify,
    is_failed: AtomicBool,
    /// Wakes both tasks when it has failed.
    failed: Notify,
}

#[derive(Default)]
struct Queue {
    /// Requests that wait for a response, whether written or not.
    waiting: HashMap<CorrelationId, Waiting>,
    outgoing: VecDeque<Outgoing>,
    failure: Option<Error>,
    /// The first exchange has succeeded.
    is_greeted: bool,
    /// When it was lost, if that was said.
    lost_at: Option<Instant>,
    /// Counted here, as the lock is taken anyway.
    traffic: Traffic,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (waiting, outgoing) = (self.waiting.len(), self.outgoing.len());
        write!(
            f,
            "Queue {{ waiting: {waiting}, outgoing: {outgoing}, failure: {:?} }}",
            self.failure
        )
    }
}

impl Queue {
    /// Whether a failure takes away what was in use. A broker also closes a connection that was idle for long, or when it stops.
    fn is_lost_by(&self, error: &Error) -> bool {
        let is_closed = matches!(error, Error::Disconnected { source: None, .. });
        let is_idle = self.waiting.is_empty() && self.outgoing.is_empty();
        self.is_greeted && !matches!(error, Error::Closed) && !(is_closed && is_idle)
    }
}

struct Waiting {
    api: Api,
    since: Instant,
    reply: Reply,
    /// Wants the response's head as soon as it is there.
    announce: Option<oneshot::Sender<Bytes>>,
}

struct Outgoing {
    head: Bytes,
    payload: Bytes,
    /// For a request without response.
    written: Option<Reply>,
}

/// Whether the broker answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Expected,
    None,
}

impl Connection {
    /// Connects and exchanges versions.
    pub(crate) async fn open(
        connector: &dyn Connector,
        address: &Address,
        settings: &ConnectionSettings,
    ) -> Result<Self, Error> {
        let fail = |source| Error::Connect {
            address: address.clone(),
            is_advertised: false,
            source: Arc::new(source),
        };
        let halves = match timeout(settings.connect_timeout, connector.connect(address)).await {
            Some(connected) => connected.map_err(fail)?,
            None => return Err(fail(std::io::ErrorKind::TimedOut.into())),
        };
        let shared = Shared::start(address.clone(), halves, settings.frame_size_max);
        // Closes the connection if the exchange fails or is given up.
        let mut handle = Handle {
            shared,
            broker: BrokerLimits::default(),
            request_timeout: settings.connect_timeout,
        };
        let request = crate::requests::api_versions(settings.client_id.as_deref());
        let response = handle.call(&request, Bytes::new()).await;
        let response = response.map_err(|error| unlike_headwater(address, error))?;
        handle.broker = crate::requests::read_api_versions(&response.head).map_err(|error| error.at(address))?;
        let mut lifetime = None;
        if let Some(credentials) = &settings.credentials {
            lifetime = handle.authenticate(credentials).await?;
        }
        handle.request_timeout = settings.request_timeout;
        handle.shared.queue.lock().is_greeted = true;
        tracing::debug!(%address, broker = %handle.broker.broker_id, "connected");
        let handle = Arc::new(handle);
        if let Some((credentials, lifetime)) = settings.credentials.as_ref().zip(lifetime) {
            prove_again(&handle, credentials.clone(), lifetime);
        }
        Ok(Self { handle })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.handle.shared.address
    }

    /// What the broker said about itself.
    pub(crate) fn broker(&self) -> &BrokerLimits {
        &self.handle.broker
    }

    /// How many requests wait for their answer. Adds what has passed over the connection to `total`.
    pub(crate) fn add_traffic(&self, total: &mut Traffic) -> usize {
        let queue = self.handle.shared.queue.lock();
        total.add(&queue.traffic);
        queue.waiting.len()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.handle.shared.is_failed.load(Ordering::Acquire)
    }

    /// How long the oldest request has waited for its answer.
    pub(crate) fn waits_for(&self) -> Option<Duration> {
        let queue = self.handle.shared.queue.lock();
        let oldest = queue.waiting.values().map(|waiting| waiting.since).min();
        oldest.map(runtime::since)
    }

    /// When it was lost, if that is worth a word.
    pub(crate) fn lost_at(&self) -> Option<Instant> {
        self.handle.shared.queue.lock().lost_at
    }

    /// Ends the connection and every open request on it with this error.
    pub(crate) fn close(&self, error: &Error) {
        self.handle.shared.fail(error);
    }

    /// Queues a request and returns at once; `reply` is called when it has ended, perhaps before this returns.
    pub(crate) fn submit<H: Head>(&self, head: &H, payload: Bytes, answer: Answer, reply: Reply) {
        match self.handle.check_support(H::API) {
            Ok(()) => self.handle.shared.submit(head, payload, answer, reply, None),
            Err(error) => reply.done(Err(error)),
        }
    }

    /// Sends a request and waits for its response. May be cancelled: a late response is dropped.
    pub(crate) async fn call<H: Head>(&self, head: &H) -> Result<Frame, Error> {
        self.call_within(head, Duration::ZERO).await
    }

    /// As [`Connection::call`], for a request that the broker may hold back for `hold`.
    pub(crate) async fn call_within<H: Head>(&self, head: &H, hold: Duration) -> Result<Frame, Error> {
        self.handle.check_support(H::API)?;
        self.handle.call_within(head, Bytes::new(), hold).await
    }

    /// As [`Connection::call_within`], in two parts: the response's head, which comes before its payload, and then the whole.
    /// The head is left out where all came at once, and after a failure. Each part may take as long as a response, as over a slow
    /// connection the payload can; wait for the head first.
    pub(crate) fn call_in_parts<H: Head>(
        &self,
        head: &H,
        hold: Duration,
    ) -> Result<
        (
            impl Future<Output = Option<Bytes>> + Send + use<H>,
            impl Future<Output = Result<Frame, Error>> + Send + use<H>,
        ),
        Error,
    > {
        self.handle.check_support(H::API)?;
        let (announce, announced) = oneshot::channel();
        let (reply, receiver) = Reply::channel(self.address());
        self.handle
            .shared
            .submit(head, Bytes::new(), Answer::Expected, reply, Some(announce));
        let limit = self.handle.request_timeout + hold;
        let handles = [(); 2].map(|()| Arc::clone(&self.handle));
        let [of_head, of_whole] = handles;
        let head = async move {
            let announced = timeout(limit, announced).await;
            if announced.is_none() {
                of_head.give_up(H::API, limit);
            }
            announced.and_then(Result::ok)
        };
        Ok((head, async move { of_whole.wait(H::API, receiver, limit).await }))
    }

    /// Reads a response's head with `read`; one that breaks the protocol closes the connection.
    pub(crate) fn read<T>(
        &self,
        frame: &Frame,
        read: impl FnOnce(&[u8]) -> Result<T, crate::requests::ResponseError>,
    ) -> Result<T, Error> {
        read(&frame.head).map_err(|error| {
            let error = error.at(self.address());
            if matches!(error, Error::Protocol { .. }) {
                self.close(&error);
            }
            error
        })
    }
}

/// Proves again and again who the client is, before what it has proved counts no more, for as long as the connection is in use.
fn prove_again(handle: &Arc<Handle>, credentials: Credentials, lifetime: Duration) {
    let handle = Arc::downgrade(handle);
    runtime::spawn(async move {
        let mut next = Some(lifetime);
        while let Some(lifetime) = next {
            runtime::sleep(lifetime.mul_f64(PROVE_AGAIN_AFTER)).await;
            let Some(handle) = handle.upgrade() else { return };
            match handle.authenticate(&credentials).await {
                Ok(lifetime) => next = lifetime,
                Err(error) => return handle.shared.fail(&error),
            }
        }
    });
}

impl Handle {
    /// Proves who the client is. For how long that counts, if it has an end.
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<Duration>, Error> {
        self.check_support(Api::Authenticate)?;
        let address = &self.shared.address;
        let failed = |source| Error::Authentication {
            address: address.clone(),
            source,
        };
        let (mut proof, mut message) = credentials.begin()?;
        let mut mechanism = Some(credentials.mechanism);
        loop {
            let request = credentials::request(mechanism.take(), message);
            let frame = self.call(&request, Bytes::new()).await?;
            let answer = credentials::read(&frame.head).map_err(|error| error.at(address))?;
            let lifetime = answer.lifetime;
            let Some(next) = proof.next(&answer).map_err(failed)? else {
                return Ok(lifetime);
            };
            (proof, message) = next;
        }
    }

    fn check_support(&self, api: Api) -> Result<(), Error> {
        if self.broker.supports(api, VERSION) {
            return Ok(());
        }
        Err(Error::Unsupported {
            address: self.shared.address.clone(),
            request: api_name(api),
        })
    }

    async fn call<H: Head>(&self, head: &H, payload: Bytes) -> Result<Frame, Error> {
        self.call_within(head, payload, Duration::ZERO).await
    }

    async fn call_within<H: Head>(&self, head: &H, payload: Bytes, hold: Duration) -> Result<Frame, Error> {
        let (reply, receiver) = Reply::channel(&self.shared.address);
        self.shared.submit(head, payload, Answer::Expected, reply, None);
        self.wait(H::API, receiver, self.request_timeout + hold).await
    }

    async fn wait(
        &self,
        api: Api,
        receiver: oneshot::Receiver<Result<Outcome, Error>>,
        limit: Duration,
    ) -> Result<Frame, Error> {
        match timeout(limit, receiver).await {
            Some(Ok(Ok(Outcome::Response(frame)))) => Ok(frame),
            Some(Ok(Err(error))) => Err(error),
            // A reply ends with a result even if it is dropped, and a request with an answer is never just "written".
            Some(Ok(Ok(Outcome::Written)) | Err(_)) => Err(Error::Closed),
            None => Err(self.give_up(api, limit)),
        }
    }

    /// Ends the connection, as nothing came for so long.
    fn give_up(&self, api: Api, limit: Duration) -> Error {
        let error = Error::Timeout {
            operation: api_name(api),
            limit,
            last: None,
        };
        self.shared.fail(&error);
        error
    }
}

impl Shared {
    /// Makes the shared state and starts the two tasks.
    fn start(address: Address, halves: Halves, frame_size_max: u32) -> Arc<Self> {
        let shared = Arc::new(Self {
            address,
            correlation: AtomicU32::new(0),
            queue: Mutex::default(),
            submitted: Notify::new(),
            is_failed: AtomicBool::new(false),
            failed: Notify::new(),
        });
        runtime::spawn(tasks::read(Arc::clone(&shared), halves.read, frame_size_max));
        runtime::spawn(tasks::write(Arc::clone(&shared), halves.write));
        shared
    }

    fn submit<H: Head>(
        &self,
        head: &H,
        payload: Bytes,
        answer: Answer,
        reply: Reply,
        announce: Option<oneshot::Sender<Bytes>>,
    ) {
        let id = CorrelationId::new(self.correlation.fetch_add(1, Ordering::Relaxed));
        let head = Bytes::from(frame::encode_head(head, VERSION, id, payload.len()));
        let mut queue = self.queue.lock();
        if let Some(failure) = queue.failure.clone() {
            drop(queue);
            return reply.done(Err(failure));
        }
        let written = match answer {
            Answer::None => Some(reply),
            Answer::Expected => {
                let waiting = Waiting {
                    api: H::API,
                    since: runtime::now(),
                    reply,
                    announce,
                };
                queue.waiting.insert(id, waiting);
                None
            }
        };
        queue.traffic.requests += 1;
        queue.outgoing.push_back(Outgoing { head, payload, written });
        drop(queue);
        self.submitted.notify_one();
    }

    /// A connection that is lost is worth a warning; the pool says when there is another.
    fn tell_end(&self, error: &Error, waiting: &HashMap<CorrelationId, Waiting>) {
        let address = &self.address;
        if self.queue.lock().lost_at.is_none() {
            tracing::debug!(%address, %error, open_requests = waiting.len(), "connection ended");
            return;
        }
        let mut open: BTreeMap<&str, usize> = BTreeMap::new();
        for Waiting { api, .. } in waiting.values() {
            *open.entry(api_name(*api)).or_default() += 1;
        }
        let cause = std::error::Error::source(error).map(tracing::field::display);
        tracing::warn!(%address, %error, cause, in_flight = ?open, "a connection is lost; another is made as soon as one can be");
    }

    /// Hands the head of a response that is still coming to whoever wants it early.
    fn announce(&self, header: FrameHeader, head: Bytes) {
        let mut queue = self.queue.lock();
        let waiting = queue.waiting.get_mut(&header.correlation_id);
        let waiting = waiting.filter(|waiting| waiting.api.as_u16() == header.api);
        if let Some(announce) = waiting.and_then(|waiting| waiting.announce.take()) {
            // The caller may have stopped waiting.
            drop(announce.send(head));
        }
    }

    /// Hands a frame to the reply that waits for it. An error is the end of the connection.
    fn dispatch(&self, frame: Frame) -> Result<(), Error> {
        let header = frame.header;
        let is_error = header.api == Api::Error.as_u16();
        let refusal = is_error.then(|| self.read_refusal(&frame)).transpose()?;
        let Some(Waiting { api, reply, .. }) = self.take_waiting(header.correlation_id) else {
            let unknown = ProtocolViolation::UnknownCorrelation(header.correlation_id.get());
            return Err(refusal.unwrap_or_else(|| self.violation(unknown)));
        };
        let (want, got) = (api.as_u16(), header.api);
        match refusal {
            Some(error) => reply.done(Err(error)),
            None if got == want => reply.done(Ok(Outcome::Response(frame))),
            None => {
                let error = self.violation(ProtocolViolation::WrongApi { want, got });
                reply.done(Err(error.clone()));
                return Err(error);
            }
        }
        Ok(())
    }

    fn take_waiting(&self, id: CorrelationId) -> Option<Waiting> {
        let mut queue = self.queue.lock();
        let waiting = queue.waiting.remove(&id)?;
        if !is_held_back(waiting.api) {
            queue.traffic.round_trips.note(runtime::since(waiting.since), 1);
        }
        Some(waiting)
    }

    /// What the broker says in a frame that is only an error.
    fn read_refusal(&self, frame: &Frame) -> Result<Error, Error> {
        let response = head::decode_response::<schema::ErrorResponse<'_>>(&frame.head)
            .map_err(|error| self.violation(ProtocolViolation::Head(Arc::new(error))))?;
        match Error::check(response.error(), response.message()) {
            Err(error) => Ok(error),
            Ok(()) => Err(self.violation(ProtocolViolation::Field("an error response without an error"))),
        }
    }

    fn violation(&self, source: ProtocolViolation) -> Error {
        Error::Protocol {
            address: self.address.clone(),
            source,
        }
    }

    /// Resolves when the connection has failed.
    async fn has_failed(&self) {
        // It hears of every failure from here on.
        let failed = self.failed.notified();
        if !self.is_failed.load(Ordering::Acquire) {
            failed.await;
        }
    }

    /// Ends the connection; only the first error counts.
    fn fail(&self, error: &Error) {
        let (waiting, outgoing) = {
            let mut queue = self.queue.lock();
            if queue.failure.is_some() {
                return;
            }
            queue.failure = Some(error.clone());
            if queue.is_lost_by(error) {
                queue.lost_at = Some(runtime::now());
            }
            (std::mem::take(&mut queue.waiting), std::mem::take(&mut queue.outgoing))
        };
        self.is_failed.store(true, Ordering::Release);
        self.failed.notify_waiters();
        self.tell_end(error, &waiting);
        // In the order in which they were asked.
        let mut waiting: Vec<_> = waiting.into_iter().collect();
        waiting.sort_unstable_by_key(|(id, _)| *id);
        for (_, Waiting { reply, .. }) in waiting {
            reply.done(Err(error.clone()));
        }
        for reply in outgoing.into_iter().filter_map(|frame| frame.written) {
            reply.done(Err(error.clone()));
        }
    }
}

/// What a failure of the first exchange says of the peer.
fn unlike_headwater(address: &Address, error: Error) -> Error {
    // A broker that wants a certificate says so only here: by then this side has agreed already.
    if let Error::Disconnected {
        source: Some(source), ..
    } = &error
        && let Some(source) = tls::in_words(source)
    {
        return Error::Connect {
            address: address.clone(),
            is_advertised: false,
            source: Arc::new(source),
        };
    }
    let sign = match error {
        Error::Disconnected { .. } => Sign::Closes,
        Error::Timeout { .. } => Sign::Silent,
        Error::Protocol {
            source: ProtocolViolation::Frame(_) | ProtocolViolation::UnknownCorrelation(_),
            ..
        } => Sign::Unreadable,
        error => return error,
    };
    let address = address.clone();
    Error::NotHeadwater { address, sign }
}

/// Whether the broker may wait before it answers.
fn is_held_back(api: Api) -> bool {
    matches!(api, Api::Fetch | Api::JoinGroup | Api::SyncGroup)
}

fn api_name(api: Api) -> &'static str {
    match api {
        Api::Error => "error",
        Api::ApiVersions => "api versions",
        Api::Metadata => "metadata",
        Api::CreateTopic => "create topic",
        Api::DeleteTopic => "delete topic",
        Api::DescribeTopic => "describe topic",
        Api::InitProducerId => "init producer id",
        Api::Produce => "produce",
        Api::Fetch => "fetch",
        Api::ListOffsets => "list offsets",
        Api::DeleteRecords => "delete records",
        Api::AlterTopic => "alter topic",
        Api::DescribeBroker => "describe broker",
        Api::FindGroup => "find group",
        Api::JoinGroup => "join group",
        Api::SyncGroup => "sync group",
        Api::Heartbeat => "heartbeat",
        Api::LeaveGroup => "leave group",
        Api::OffsetCommit => "offset commit",
        Api::OffsetFetch => "offset fetch",
        Api::OffsetDelete => "offset delete",
        Api::ListGroups => "list groups",
        Api::DescribeGroup => "describe group",
        Api::DeleteGroup => "delete group",
        Api::DescribeQuorum => "describe quorum",
        Api::AddQuorumMembers => "add quorum members",
        Api::RemoveQuorumMember => "remove quorum member",
        Api::ListBrokers => "list brokers",
        Api::CordonBroker => "cordon broker",
        Api::ForgetBroker => "forget broker",
        Api::DrainBroker => "drain broker",
        Api::FinaliseFeatures => "finalise features",
        Api::ElectLeaders => "elect leaders",
        Api::ReassignPartitions => "reassign partitions",
        Api::Authenticate => "authenticate",
        Api::DescribeAcls => "describe acls",
        Api::CreateAcls => "create acls",
        Api::DeleteAcls => "delete acls",
        Api::DescribeUsers => "describe users",
        Api::SetUser => "set user",
        Api::RemoveUser => "remove user",
        Api::DescribeQuotas => "describe quotas",
        Api::AlterQuotas => "alter quotas",
    }
}
