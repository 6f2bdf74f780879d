//! The broker's configuration: every knob with its text, default and range, declared once in `sections!`.
//!
//! The structs, `--print-config`, the environment variables, the flags and the check of `tuning.md` all come from that
//! one declaration. A `Config` is read once at start-up by [`Layers`] (defaults < file < environment < flags), checked
//! by [`Config::validate`], and immutable afterwards. Nothing here touches the system: that is `check.rs`.

mod error;
mod knob;
mod limits;
mod load;
mod print;
#[cfg(test)]
mod tests;
mod value;

use std::path::PathBuf;

use headwater_protocol::id::BrokerId;

pub use error::{ConfigError, Problem};
pub use knob::Knob;
use knob::sections;
pub use load::{Effective, Layers, Source, Sources};
pub use value::{
    ByteSize, ClusterId, CpuSet, HostName, HttpAddress, LogFilter, LogFormat, Micros, Millis, Ratio, Value,
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

sections! {
    /// Who this broker is and where it listens.
    broker: BrokerSection {
        /// Number of this broker in its cluster. It is written into the data directory at the first start and must stay.
        id: BrokerId = BrokerId::new(0), 0..=i32::MAX as u64;
        /// Identity of the cluster; "auto" generates one at the first start and keeps it in the data directory.
        cluster_id: Option<ClusterId> = None;
        /// Address and port that every core shares. Port 0 takes any free port.
        listen: std::net::SocketAddr = std::net::SocketAddr::from(([127, 0, 0, 1], 9292));
        /// Host that clients are told to connect to; "auto" is the listen address, or the host's name if that is 0.0.0.0 or [::].
        advertised_host: Option<HostName> = None;
        /// Port of core 0's own listener, core n has this plus n. 0 takes any free ports.
        core_port_base: u16 = 0, 0..=65_535;
    }

    /// The executors, one on each core, and what memory each may use.
    cores: CoresSection {
        /// Number of cores to run on; 0 is every core that this process may use.
        count: u16 = 0, 0..=1024;
        /// CPUs to run on, such as "0,2-3"; empty lets `count` choose.
        set: CpuSet = CpuSet::default();
        /// Pin each executor to its CPU. Turn it off where other programs share the CPUs.
        pin: bool = true;
        /// How long an idle core polls before it sleeps. Longer saves wake-ups of a few tens of microseconds and burns CPU.
        spin_before_park_us: Micros = Micros::new(0), 0..=100_000;
        /// Tail buffers of one core: what is not yet on disk, and the most recent records for consumers.
        tail_buffer_bytes_max: ByteSize = ByteSize::new(64 * MIB), 4 * MIB..=TIB;
        /// Memory of one core for records that consumers read from disk, past the page cache. Below 2 MiB, and beyond it, they are read through the page cache.
        cold_read_bytes_max: ByteSize = ByteSize::new(32 * MIB), 0..=TIB;
        /// Map all memory for tail buffers and for reading past the page cache at the start. It takes seconds for gigabytes; without it the first records pay for it.
        prefault: bool = false;
        /// How far ahead of a consumer that reads from disk in order is read. 0 leaves it to the kernel and its page cache.
        read_ahead_bytes: ByteSize = ByteSize::new(8 * MIB), 0..=GIB;
        /// Read buffers of all connections of one core. When it is spent, sockets are not read.
        connection_bytes_max: ByteSize = ByteSize::new(64 * MIB), 2 * MIB..=TIB;
        /// Requests of one core that are not answered yet. When it is spent, sockets are not read.
        in_flight_bytes_max: ByteSize = ByteSize::new(64 * MIB), 2 * MIB..=TIB;
    }

    /// Segments on disk: where they are, when they roll, how long they stay.
    log: LogSection {
        /// Data directory. It is made if it is missing; its file system must support direct I/O.
        directory: PathBuf = PathBuf::from("headwater-data");
        /// A segment rolls when it would grow beyond this.
        segment_size_bytes: ByteSize = ByteSize::new(GIB), 64 * KIB..=headwater_engine::LogConfig::SEGMENT_SIZE_MAX;
        /// A segment rolls when its first record is this old.
        segment_age_ms: Millis = Millis::new(7 * DAY_MS), 100..=3650 * DAY_MS;
        /// Records older than this are deleted, a whole segment at a time.
        retention_ms: Option<Millis> = Some(Millis::new(7 * DAY_MS)), 1..=36_500 * DAY_MS;
        /// The oldest segments of a partition are deleted while it holds more than this.
        retention_bytes: Option<ByteSize> = None, 0..=u64::MAX;
        /// How often retention looks for segments to delete.
        retention_check_interval_ms: Millis = Millis::new(30_000), 10..=DAY_MS;
        /// Files of deleted segments become those of later ones, in partitions that are busy: writes into them are faster.
        recycle: bool = true;
        /// Bytes of log between two entries of the offset and time indexes.
        index_interval_bytes: ByteSize = ByteSize::new(4 * KIB), KIB..=GIB;
        /// Largest record batch that is stored, compressed as it came.
        batch_size_bytes_max: ByteSize = ByteSize::new(4 * MIB), KIB..=256 * MIB;
        /// How often the position from which recovery would scan is written. Restart time depends on what was written since.
        checkpoint_interval_ms: Millis = Millis::new(5_000), 10..=DAY_MS;
        /// A partition that was written this much to since gets it at once.
        checkpoint_bytes_max: ByteSize = ByteSize::new(128 * MIB), MIB..=TIB;
        /// Most space that is reserved ahead of a partition's writes. It grows to this with what the partition holds.
        prepare_step_bytes_max: ByteSize = ByteSize::new(128 * MIB), 64 * KIB..=2 * GIB;
        /// Bytes ahead of small writes that are filled with zeros, because writes into blocks that were written before are made durable faster. 0 fills none.
        zero_ahead_bytes: ByteSize = ByteSize::new(256 * KIB), 0..=64 * MIB;
        /// How far ahead of this machine's clock a producer's timestamp may be.
        timestamp_ahead_ms_max: Millis = Millis::new(60 * 60 * 1000), 0..=36_500 * DAY_MS;
    }

    /// Compaction of topics with cleanup.policy=compact: what a topic gets when it does not say, and what it may cost a core.
    compaction: CompactionSection {
        /// A partition is compacted when this share of its sealed segments, by bytes, has not been compacted yet.
        dirty_ratio_min: Ratio = Ratio::percent(50), 0..=Ratio::WHOLE;
        /// Age that a record reaches before it may be compacted away.
        lag_ms_min: Millis = Millis::new(0), 0..=36_500 * DAY_MS;
        /// Age at which a record is compacted away whatever the ratio; its segment rolls at this age too.
        lag_ms_max: Option<Millis> = None, 100..=36_500 * DAY_MS;
        /// How long a tombstone stays after all that it deletes is gone, for consumers that have read that.
        delete_retention_ms: Millis = Millis::new(DAY_MS), 0..=36_500 * DAY_MS;
        /// How often a core looks for partitions to compact.
        check_interval_ms: Millis = Millis::new(15_000), 10..=DAY_MS;
        /// Memory of a core for the offsets of keys while it compacts, 30 bytes a key. When it is spent, a partition takes several passes.
        map_bytes_max: ByteSize = ByteSize::new(32 * MIB), KIB..=64 * GIB;
        /// Bytes that compaction reads and writes in a second on one core.
        bytes_per_second_max: ByteSize = ByteSize::new(32 * MIB), 64 * KIB..=TIB;
    }

    /// How records get to the disk: the group commit of each partition.
    flush: FlushSection {
        /// How long a flush waits for more records when the disk is idle. 0 flushes at once; what arrives meanwhile rides on the next.
        delay_us: Micros = Micros::new(0), 0..=1_000_000;
        /// Writes of one partition that may be under way at once.
        writes_in_flight_max: u16 = 8, 1..=256;
        /// A flush starts as soon as this much is not yet covered by one, even while writes are in flight.
        uncovered_bytes_max: ByteSize = ByteSize::new(MIB), 4 * KIB..=GIB;
        /// A lone write up to this size is made durable by itself (`RWF_DSYNC`) instead of by a flush.
        single_write_bytes_max: ByteSize = ByteSize::new(64 * KIB), 0..=16 * MIB;
    }

    /// Which idempotent producers each partition remembers, to recognise what they send twice.
    producers: ProducersSection {
        /// A producer that was silent for this long is forgotten.
        expiry_ms: Millis = Millis::new(DAY_MS), 1000..=3650 * DAY_MS;
        /// Producers that one partition remembers; beyond it the longest silent are forgotten.
        count_max: u32 = 10_000, 1..=1_000_000;
    }

    /// Limits on what clients may ask for.
    limits: LimitsSection {
        /// Connections to this broker; further ones are closed at once.
        connections_max: u32 = 4_096, 1..=1_000_000;
        /// A connection without a request for this long is closed.
        connection_idle_ms: Millis = Millis::new(10 * 60 * 1000), 10..=365 * DAY_MS;
        /// How long a frame may take from its first byte to its last; then the connection is closed.
        frame_wait_ms_max: Millis = Millis::new(30_000), 10..=365 * DAY_MS;
        /// Largest frame that is read from a client.
        frame_size_bytes_max: ByteSize = ByteSize::new(8 * MIB), 8 * KIB..=GIB;
        /// Requests of one connection that are not answered yet; beyond it the socket is not read.
        requests_in_flight_max: u32 = 1024, 1..=65_536;
        /// Bytes of those requests; beyond it the socket is not read.
        requests_in_flight_bytes_max: ByteSize = ByteSize::new(32 * MIB), 8 * KIB..=64 * GIB;
        /// Topics on this broker.
        topics_max: u32 = 4_096, 1..=1_000_000;
        /// Partitions of one topic.
        partitions_per_topic_max: u32 = 1_000, 1..=100_000;
        /// Partitions of all topics on this broker. Each holds a few files open.
        partitions_max: u32 = 4_096, 1..=1_000_000;
        /// Longest that a fetch may wait for records; a longer wish is cut to this.
        fetch_wait_ms_max: Millis = Millis::new(60_000), 0..=3_600_000;
        /// Most bytes of records in one fetch response; a larger wish is cut to this.
        fetch_size_bytes_max: ByteSize = ByteSize::new(64 * MIB), 4 * KIB..=GIB;
        /// How long a shutdown waits for requests in flight before it closes their connections.
        shutdown_grace_ms: Millis = Millis::new(30_000), 0..=3_600_000;
    }

    /// What a new topic gets when its creator does not say.
    topics: TopicsSection {
        /// Partitions of a new topic.
        partitions: u32 = 1, 1..=100_000;
        /// Replicas of each partition. A single broker has one.
        replication_factor: u16 = 1, 1..=1;
    }

    /// Consumer groups and their committed offsets.
    groups: GroupsSection {
        /// Shortest session timeout that a member may ask for.
        session_timeout_ms_min: Millis = Millis::new(6_000), 10..=DAY_MS;
        /// Longest session timeout that a member may ask for.
        session_timeout_ms_max: Millis = Millis::new(30 * 60 * 1000), 10..=DAY_MS;
        /// How long the first member of an empty group waits for others, and again for each that comes meanwhile.
        initial_rebalance_delay_ms: Millis = Millis::new(500), 0..=60_000;
        /// Groups that one core runs.
        count_max: u32 = 10_000, 1..=10_000_000;
        /// Members of one group.
        members_max: u32 = 1_000, 1..=100_000;
        /// Longest group id, instance id, protocol type or protocol name.
        id_bytes_max: ByteSize = ByteSize::new(255), 1..=4096;
        /// Most that one member may tell its group when it joins, and most that it may be assigned.
        metadata_bytes_max: ByteSize = ByteSize::new(64 * KIB), 128..=4 * MIB;
        /// Longest metadata of a committed offset.
        offset_metadata_bytes_max: ByteSize = ByteSize::new(4 * KIB), 0..=32_767;
        /// Committed offsets of a group that has been empty for this long are deleted.
        offsets_retention_ms: Millis = Millis::new(7 * DAY_MS), 1..=36_500 * DAY_MS;
        /// How often the broker looks for offsets and groups to delete.
        offsets_check_interval_ms: Millis = Millis::new(10 * 60 * 1000), 10..=DAY_MS;
        /// Partitions of the internal topic `__consumer_offsets`, which is made when the first group is.
        offsets_partitions: u32 = 50, 1..=100_000;
        /// A segment of the internal topic is ended when it reaches this size; only then is it compacted.
        offsets_segment_size_bytes: ByteSize = ByteSize::new(100 * MIB), 64 * KIB..=headwater_engine::LogConfig::SEGMENT_SIZE_MAX;
    }

    /// What the broker counts, for Prometheus.
    metrics: MetricsSection {
        /// Address and port of the HTTP endpoint `/metrics`; "off" has none. Whoever can reach it can read it.
        listen: Option<HttpAddress> = None;
        /// How often a core asks itself for a turn, to measure how late it gets one (stage `tick`). 0 does not; it costs wake-ups.
        tick_us: Micros = Micros::new(0), 0..=1_000_000;
    }

    /// What the broker says on stderr.
    logging: LoggingSection {
        /// "text" for people, "json" for machines: one object a line.
        format: LogFormat = LogFormat::Text;
        /// What is logged, such as "info" or `headwater_server=debug,info`.
        filter: LogFilter = LogFilter::default();
    }
}

impl Config {
    /// The host that clients are told to connect to: as configured, else the listen address, else (if that is the
    /// unspecified address) the name of this host.
    pub fn advertised_host(&self) -> String {
        let ip = self.broker.listen.ip();
        match &self.broker.advertised_host {
            Some(host) => host.as_str().to_owned(),
            None if ip.is_unspecified() => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            None => ip.to_string(),
        }
    }
}
