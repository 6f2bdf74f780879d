//! Configuration of producers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::batch::Compression;

use super::accumulator::BatchSettings;
use super::memory::Memory;
use super::partitioner::{DefaultPartitioner, Partitioner};
use super::tally::{DeliveryReport, OnDelivery, Tally};
use super::window::{Identity, WindowLimits};
use super::{Inner, Producer, SenderSettings, Shared};
use crate::cluster::Cluster;
use crate::deadline::LONGEST;
use crate::error::Error;
use crate::runtime::Runtime;
use crate::runtime::sync::RwLock;

/// How many of the last batches of a producer the broker tells from new ones. More in flight could be stored twice.
const BROKER_BATCHES: usize = 128;

/// A batch is never smaller than this.
const BATCH_BYTES_MIN: usize = 1 << 10;

/// When a record counts as delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Acks {
    /// When its bytes have been handed to the socket: it may still be lost, and its offset stays unknown. Not retried
    /// after that, hence never stored twice.
    None,
    /// When the leader has it on stable storage.
    Leader,
    /// When every in-sync replica has it on stable storage.
    #[default]
    All,
}

impl Acks {
    /// The number on the wire, which is Kafka's.
    pub(crate) const fn wire(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// Configures a [`Producer`]; from [`Client::producer`](crate::Client::producer).
///
/// ```no_run
/// # async fn example(client: headwater_client::Client) -> Result<(), headwater_client::Error> {
/// use std::time::Duration;
/// use headwater_client::{Acks, Compression};
///
/// let producer = client
///     .producer()
///     .acks(Acks::All)
///     .linger(Duration::from_millis(5))
///     .compression(Compression::Lz4)
///     .build()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until it builds"]
pub struct ProducerBuilder {
    cluster: Arc<Cluster>,
    settings: ProducerSettings,
    partitioner: Box<dyn Partitioner>,
    on_delivery: Option<OnDelivery>,
}

/// What a producer can also be told by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProducerSettings {
    pub(crate) acks: Acks,
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) memory_max: usize,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) in_flight_batches_max: usize,
    pub(crate) compression: Compression,
    /// `None`: unless `acks` forbids it.
    pub(crate) idempotent: Option<bool>,
    pub(crate) delivery_timeout: Duration,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            linger: Duration::ZERO,
            batch_bytes: 256 << 10,
            memory_max: 64 << 20,
            in_flight_bytes_max: 8 << 20,
            in_flight_batches_max: 64,
            compression: Compression::None,
            idempotent: None,
            delivery_timeout: Duration::from_mins(2),
        }
    }
}

impl ProducerBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self {
            settings: cluster.settings.defaults.producer,
            cluster,
            partitioner: Box::new(DefaultPartitioner),
            on_delivery: None,
        }
    }

    /// When a record counts as delivered. Default [`Acks::All`].
    pub fn acks(mut self, acks: Acks) -> Self {
        self.settings.acks = acks;
        self
    }

    /// How long a batch that is not full may wait for more records, from its first one on. Default zero.
    ///
    /// With zero a batch leaves at once while few others are in flight, of its partition and of all together, and else as
    /// soon as one of its partition is acknowledged: single records are fast, and under load batches fill all the same.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Size in bytes, before compression, beyond which a batch does not grow. A larger record goes alone. Default
    /// 256 KiB, which the broker takes in most quickly.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes = bytes;
        self
    }

    /// Bytes of memory that all batches together may hold, full or not, from `send` to their acknowledgement; then `send`
    /// waits. An eighth of that is kept on top for the next batches. Default 64 MiB.
    pub fn memory_max(mut self, bytes: usize) -> Self {
        self.settings.memory_max = bytes;
        self
    }

    /// Bytes of one partition that may wait for acknowledgement by the broker. Default 8 MiB.
    pub fn in_flight_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.in_flight_bytes_max = bytes;
        self
    }

    /// Batches of one partition that may wait for acknowledgement by the broker; at most 128, the number of batches
    /// for which the broker recognises a repetition. Default 64. Without idempotence, [`Acks::Leader`] and
    /// [`Acks::All`] allow only one, as a retry would otherwise change the order.
    pub fn in_flight_batches_max(mut self, batches: usize) -> Self {
        self.settings.in_flight_batches_max = batches;
        self
    }

    /// How batches are compressed. Default not at all.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// How the partition of a record is chosen that names none itself. Default
    /// [`DefaultPartitioner`](crate::DefaultPartitioner).
    pub fn partitioner(mut self, partitioner: impl Partitioner) -> Self {
        self.partitioner = Box::new(partitioner);
        self
    }

    /// Whether batches are numbered, so that the broker drops repetitions. Default yes, except with [`Acks::None`],
    /// which does not allow it. Without it a retry can store a batch twice.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.settings.idempotent = Some(idempotent);
        self
    }

    /// How long a record may take from `send` to its acknowledgement, all retries included; then its delivery fails
    /// with [`Error::Timeout`] and an unknown outcome. Default 2 min.
    pub fn delivery_timeout(mut self, limit: Duration) -> Self {
        self.settings.delivery_timeout = limit;
        self
    }

    /// Has `call` called with the end of every batch of records, well or badly. So that no record's end goes unnoticed, whoever sent it;
    /// for one record see [`Delivery::on_end`](crate::Delivery::on_end).
    ///
    /// It is called on the task that sends the records of the batch's partition (for a record that
    /// [`Producer::send_and_forget`] could not take, on the task that sent it), and before anybody who awaits a delivery goes on.
    /// Meanwhile that task sends nothing, and on a runtime with one thread nothing else happens: so it must not block, nor take long.
    /// Several partitions may call at the same time. A panic in it is logged, and ends nothing else.
    pub fn on_delivery(mut self, call: impl Fn(&DeliveryReport<'_>) + Send + Sync + 'static) -> Self {
        self.on_delivery = Some(Arc::new(call));
        self
    }

    /// Gets the producer its identity from the broker.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting out of range; [`Error::Timeout`] if no broker answers within the call timeout.
    pub async fn build(self) -> Result<Producer, Error> {
        let idempotent = self.settings.check()?;
        let settings = self.settings;
        let deadline = self.cluster.deadline("start a producer");
        let cluster = &self.cluster;
        let connection = deadline.retry(cluster.backoff(), || cluster.any()).await?;
        let batch_size_max = match connection.broker().batch_size_max {
            0 => usize::MAX,
            limit => limit,
        };
        let identity = if idempotent {
            Some(Identity::new(cluster.new_producer_id(deadline).await?))
        } else {
            None
        };
        // A retry beside another batch in flight could overtake it; only numbers prevent that.
        let ordered = idempotent || settings.acks == Acks::None;
        let window = WindowLimits {
            batches_max: if ordered { settings.in_flight_batches_max } else { 1 },
            bytes_max: settings.in_flight_bytes_max,
            delivery_timeout: settings.delivery_timeout,
        };
        let batches = BatchSettings {
            compression: settings.compression,
            batch_size: settings.batch_bytes.min(batch_size_max),
            batch_size_max,
        };
        let shared = Shared {
            runtime: Runtime::current(),
            batches,
            sender: SenderSettings {
                acks: settings.acks,
                linger: settings.linger,
                window,
            },
            identity,
            partitioner: self.partitioner,
            memory: Memory::new(settings.memory_max),
            topics: RwLock::default(),
            shut: false.into(),
            tally: Arc::new(Tally::new(self.on_delivery)),
            cluster: self.cluster,
        };
        Ok(Producer {
            inner: Arc::new(Inner {
                shared: Arc::new(shared),
            }),
        })
    }
}

impl ProducerSettings {
    /// Checks the settings, each alone and against each other. Returns whether the producer is to be idempotent.
    fn check(&self) -> Result<bool, Error> {
        let idempotent = self.idempotent.unwrap_or(self.acks != Acks::None);
        if idempotent && self.acks == Acks::None {
            return Err(Error::config(
                "idempotent",
                "cannot be had with Acks::None, under which nothing is repeated",
            ));
        }
        if self.batch_bytes < BATCH_BYTES_MIN {
            return Err(Error::config(
                "batch_bytes",
                format!("must be at least {BATCH_BYTES_MIN}"),
            ));
        }
        if self.memory_max < self.batch_bytes || self.memory_max > u32::MAX as usize {
            return Err(Error::config(
                "memory_max",
                "must be at least batch_bytes and below 4 GiB",
            ));
        }
        if self.in_flight_bytes_max < self.batch_bytes {
            return Err(Error::config("in_flight_bytes_max", "must be at least batch_bytes"));
        }
        if !(1..=BROKER_BATCHES).contains(&self.in_flight_batches_max) {
            return Err(Error::config(
                "in_flight_batches_max",
                format!("must be from 1 to {BROKER_BATCHES}"),
            ));
        }
        if self.delivery_timeout.is_zero() || self.delivery_timeout <= self.linger {
            return Err(Error::config(
                "delivery_timeout",
                "must be longer than linger, and than zero",
            ));
        }
        if self.delivery_timeout > LONGEST {
            return Err(Error::config("delivery_timeout", "must be at most 100 years"));
        }
        Ok(idempotent)
    }
}

impl fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
