//! The broker's configuration: every knob with its text, default and range, declared once in `sections!`.
//!
//! The structs, `--print-config`, the environment variables, the flags and `docs/settings.md` all come from that one
//! declaration. A `Config` is read once at start-up by [`Layers`] (defaults < file < environment < flags), checked
//! by [`Config::validate`], and immutable afterwards. Nothing here touches the system: that is `check`.

mod error;
mod knob;
mod limits;
mod load;
mod print;
mod reference;
#[cfg(test)]
mod tests;
mod value;

use std::{net::SocketAddr, path::PathBuf};

use headwater_protocol::id::BrokerId;

pub use error::{ConfigError, Problem};
pub use knob::Knob;
use knob::sections;
pub use load::{Effective, Layers, Source, Sources};
pub(crate) use print::comment;
pub use reference::reference;
pub use value::{
    AuditLevel, Balance, ByteSize, ClaimName, Claims, ClientAuth, ClusterId, CpuSet, Files, HostName, HostPort,
    HttpAddress, KafkaListen, LogFilter, LogFormat, Members, Micros, Migration, Millis, Origins, PeerListen,
    PrincipalRules, Rack, Ratio, Role, SaslMechanism, SaslMechanisms, SecretPlace, TokenAlgorithms, TokenKeys, Users,
    Value,
};

/// Where a broker listens unless it is told otherwise.
const NATIVE_PORT: u16 = 9292;

/// Where Kafka's clients look for a broker.
const KAFKA_PORT: u16 = 9092;

/// The cores of a broker have numbers below this, among the nodes that Kafka's clients are told of.
pub(crate) const KAFKA_NODES_OF_A_BROKER: i32 = 1024;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

sections! {
    /// Who this broker is and where it listens.
    broker: BrokerSection {
        /// Number of this broker in its cluster. It is written into the data directory at the first start and must stay.
        /// Set it before the first start of a second broker; never change it afterwards.
        id: BrokerId = BrokerId::new(0), 0..=i32::MAX as u64;
        /// Identity of the cluster; "auto" generates one at the first start and keeps it in the data directory.
        /// Set it to give several brokers the same identity from the start.
        cluster_id: Option<ClusterId> = None;
        /// Address and port that every core shares. Port 0 takes any free port.
        /// Set it to be reached from other machines: `0.0.0.0:9292`, or the address of one interface.
        listen: std::net::SocketAddr = std::net::SocketAddr::from(([127, 0, 0, 1], NATIVE_PORT));
        /// Host that clients are told to connect to; "auto" is the listen address, or the host's name if that is 0.0.0.0 or [::].
        /// Set it when clients reach the broker by another name: NAT, containers, load balancers.
        advertised_host: Option<HostName> = None;
        /// What this broker has in common with those that fail with it, such as a rack, a room or a zone; "none" says nothing.
        /// Set it on every broker of a cluster, so that the replicas of a partition are in different ones and consumers read from near ones.
        rack: Option<Rack> = None;
        /// Port of core 0's own listener, core n has this plus n. 0 takes any free ports, and the same ones after a restart if they are free still.
        /// Set it when a firewall stands between clients and broker: it must let these ports through.
        core_port_base: u16 = 0, 0..=65_535;
        /// PEM file of the certificate that a client is shown, and behind it those that lead to its CA; "off" speaks no TLS on this port. Of several, with commas between, each serves the names that it is for, and the first those that none is for.
        /// Set it, with the key, wherever others than this machine connect. It names the host that clients connect to (subjectAltName). Changed files are read again.
        tls_certificate: Files = Files::default();
        /// PEM file of its private key; of several certificates each, in the same order. Nobody but the broker may read it.
        tls_key: Files = Files::default();
        /// PEM file of the CAs whose certificates clients may show, or several files.
        /// Set it with `broker.tls_client_auth`. Whoever has a certificate of one of them is let in, so let it be a CA of your own.
        tls_client_ca: Files = Files::default();
        /// Whether clients show a certificate: "none" are asked for one, it is "requested", or "required".
        /// Set it to `required` where every client has a certificate; to `requested` while some have.
        tls_client_auth: ClientAuth = ClientAuth::None;
        /// What a client is called by its certificate: rules as in Kafka's `ssl.principal.mapping.rules`, the first that fits the subject. Whom none fits is refused.
        /// Set it to `RULE:^CN=([^,]+).*$/$1/,DEFAULT`, say, to call clients by their common names.
        tls_principal_rules: PrincipalRules = PrincipalRules::default();
        /// A broker that ends because of a bug in it aborts, which leaves a core dump where the system keeps them, instead of exiting with code 70.
        /// Set it to find such a bug. The dump holds records, and is as large as the broker's memory.
        core_dump: bool = false;
    }

    /// Kafka's protocol, so that Kafka's clients work with this broker unchanged.
    kafka: KafkaSection {
        /// Address and port where Kafka's protocol is spoken. "auto" is port 9092 of the same address if `broker.listen` has its usual port, and none otherwise; "off" has none.
        /// Set it for several brokers on one machine, or where Kafka's clients come from another network.
        listen: KafkaListen = KafkaListen::Auto;
        /// Each core has a port of its own for Kafka's clients, and is told to them as a node: the broker's number times 1024, plus the core's. Off: the broker is one node, with the number of its first core.
        /// Turn it off where a firewall or a proxy lets one port through; requests are then passed on between cores.
        core_nodes: bool = true;
        /// Port of core 0's own listener, core n has this plus n. 0 takes any free ports, and the same ones after a restart if they are free still.
        /// Set it when a firewall stands between clients and broker: it must let these ports through.
        core_port_base: u16 = 0, 0..=65_535;
        /// PEM file of the certificate that a client of Kafka's is shown, and behind it those that lead to its CA; "off" speaks no TLS on this port. Of several, with commas between, each serves the names that it is for, and the first those that none is for.
        /// Set it, with the key, wherever others than this machine connect. It names the host that clients connect to (subjectAltName). Changed files are read again.
        tls_certificate: Files = Files::default();
        /// PEM file of its private key; of several certificates each, in the same order. Nobody but the broker may read it.
        tls_key: Files = Files::default();
        /// PEM file of the CAs whose certificates clients may show, or several files.
        /// Set it with `kafka.tls_client_auth`. Whoever has a certificate of one of them is let in, so let it be a CA of your own.
        tls_client_ca: Files = Files::default();
        /// Whether clients show a certificate: "none" are asked for one, it is "requested", or "required".
        /// Set it to `required` where every client has a certificate; to `requested` while some have.
        tls_client_auth: ClientAuth = ClientAuth::None;
        /// What a client is called by its certificate: rules as in Kafka's `ssl.principal.mapping.rules`, the first that fits the subject. Whom none fits is refused.
        /// Set it to `RULE:^CN=([^,]+).*$/$1/,DEFAULT`, say, to call clients by their common names.
        tls_principal_rules: PrincipalRules = PrincipalRules::default();
        /// A topic that a producer or consumer names and that is not there is made, if the client allows it.
        /// Turn it off where a misspelt name must not become a topic.
        auto_create_topics: bool = true;
    }

    /// The coordinator quorum, which holds what the cluster knows. A broker alone is one of one member and needs none of this.
    cluster: ClusterSection {
        /// "both": serves clients and is a member of the quorum. "coordinator": is a member and nothing else.
        /// Set it to `coordinator` on members that are to have no records.
        role: Role = Role::Both;
        /// Address and port on which the other members reach this one; "off" has none. Who calls there is asked for a certificate if `cluster.tls_certificate` is set, and else for nothing.
        /// Set it on each of several members, to an address of a network that only they can reach.
        listen: Option<PeerListen> = None;
        /// PEM file of the certificate by which brokers know this one, both as the one that calls and as the one that is called, and behind it those that lead to its CA; "off" asks for none.
        /// Set it, with the key and the CA, on every broker, where others than brokers reach the network between them. It names the host that brokers connect to. Changed files are read again.
        tls_certificate: Files = Files::default();
        /// PEM file of its private key. Nobody but the broker may read it.
        tls_key: Files = Files::default();
        /// PEM file of the CAs whose certificates brokers show each other, or several files.
        /// Let it be a CA for brokers and nothing else: whoever has a certificate of it is taken for a broker.
        tls_ca: Files = Files::default();
        /// Where the secret is that the brokers of this cluster share, `file:PATH` or `env:NAME`, of 16 characters at least. Each has the other prove that it knows it, whoever calls; "none" asks for no proof.
        /// Set it, the same on every broker, wherever others can reach the ports of brokers: without it, and without `cluster.tls_certificate`, whoever says that it is a broker gets records. `openssl rand -base64 32` makes one.
        secret: SecretPlace = SecretPlace::None;
        /// Where the secret is that brokers shared before `cluster.secret`; it is taken and shown as well.
        /// Set it while the secret is changed: start one broker after the other with the new one and this, then once more without this.
        secret_previous: SecretPlace = SecretPlace::None;
        /// Members that the first start makes a quorum of: number and address of each, such as `0@10.0.0.1:9293,1@10.0.0.2:9293`, the same on each. All must run.
        /// One, three or five. Later it says only where this member is reached; one that has lost its disk is removed and added again.
        members: Members = Members::default();
        /// What the active coordinator spreads over the brokers by itself. "off": nothing. "leaders": preferred leaders lead again when they are back. "replicas": also moves partitions from brokers that have over a tenth more of them than others, as when one has joined.
        /// Set it to `replicas`, the same on each member, where nobody decides by hand which broker has what.
        balance: Balance = Balance::Leaders;
        /// Bytes that this broker sends in a second to replicas that are not in sync, such as those of partitions that move, besides what producers append meanwhile. 0 has no limit.
        /// Lower it where moves make producers wait; raise it where a replica takes too long to be in sync. Partitions with too few in sync to take records do not wait for it.
        catch_up_bytes_per_second_max: ByteSize = ByteSize::new(64 * MIB), 0..=TIB;
    }

    /// The executors, one on each core, and what memory each may use.
    cores: CoresSection {
        /// Number of cores to run on; 0 is every core that this process may use.
        /// Lower it to leave CPUs to other programs.
        count: u16 = 0, 0..=1024;
        /// CPUs to run on, such as "0,2-3"; empty lets `count` choose.
        /// Set it to stay on one socket (NUMA node), near the disk and the network card.
        set: CpuSet = CpuSet::default();
        /// Pin each executor to its CPU. Turn it off where other programs share the CPUs.
        /// Turn it off for several brokers on one machine, and for tests.
        pin: bool = true;
        /// How long an idle core polls before it sleeps. Longer saves wake-ups of a few tens of microseconds and burns CPU.
        /// Raise it to `1ms` or more where cores have their CPUs to themselves and latency matters more than CPU time; on CPUs that clients share it costs more than it gains.
        spin_before_park_us: Micros = Micros::new(0), 0..=100_000;
        /// Tail buffers of one core: what is not yet on disk, and the most recent records for consumers.
        /// Raise it when consumers that keep up still read from disk, or when a core has many busy partitions.
        tail_buffer_bytes_max: ByteSize = ByteSize::new(64 * MIB), 4 * MIB..=TIB;
        /// Memory of one core for records that consumers read from disk, past the page cache. Below 2 MiB, and beyond it, they are read through the page cache.
        /// Raise it when more than four consumers read old records at the same time; 0 where several groups read the same old records one after the other on a machine with memory to spare, as the page cache keeps them.
        cold_read_bytes_max: ByteSize = ByteSize::new(32 * MIB), 0..=TIB;
        /// Map all memory for tail buffers and for reading past the page cache at the start. It takes seconds for gigabytes; without it the first records pay for it.
        /// Turn it on for steady latency from the first record on, and for benchmarks. The broker does not start if it needs more memory than there is.
        prefault: bool = false;
        /// How far ahead of a consumer that reads from disk in order is read, a quarter of `cores.cold_read_bytes_max` at most. 0 leaves it to the kernel and its page cache.
        /// Raise it for disks that need more in flight for their full speed; lower it where readers of old records make the writes of producers wait, or where very many of them share little memory.
        read_ahead_bytes: ByteSize = ByteSize::new(8 * MIB), 0..=GIB;
        /// Read buffers of all connections of one core. When it is spent, sockets are not read.
        /// Raise it for thousands of connections that send at the same time.
        connection_bytes_max: ByteSize = ByteSize::new(64 * MIB), 2 * MIB..=TIB;
        /// Requests of one core that are not answered yet. When it is spent, sockets are not read.
        /// Raise it when many producers keep many batches in flight and the disk is not yet busy.
        in_flight_bytes_max: ByteSize = ByteSize::new(64 * MIB), 2 * MIB..=TIB;
        /// Descriptors of segment files that one core keeps open. 0 is its share of what the limit on open files leaves beside connections, at most 16384.
        open_files_max: u32 = 0, 0..=1_000_000;
    }

    /// Segments on disk: where they are, when they roll, how long they stay.
    log: LogSection {
        /// Data directory. It is made if it is missing; its file system must support direct I/O.
        /// Set it in production, always: a path on the disk that is meant for the data.
        directory: PathBuf = PathBuf::from("headwater-data");
        /// A segment rolls when it would grow beyond this.
        /// Lower it when retention must be precise on small partitions, as whole segments are deleted.
        segment_size_bytes: ByteSize = ByteSize::new(GIB), 64 * KIB..=headwater_engine::LogConfig::SEGMENT_SIZE_MAX;
        /// A segment rolls when its first record is this old.
        /// Lower it together with `log.retention_ms`.
        segment_age_ms: Millis = Millis::new(7 * DAY_MS), 100..=3650 * DAY_MS;
        /// Records older than this are deleted, a whole segment at a time.
        /// Set it by how far back consumers must be able to go; `unlimited` keeps records for ever.
        retention_ms: Option<Millis> = Some(Millis::new(7 * DAY_MS)), 1..=36_500 * DAY_MS;
        /// The oldest segments of a partition are deleted while it holds more than this.
        /// Set it where the disk must not fill: this times the number of partitions should fit.
        retention_bytes: Option<ByteSize> = None, 0..=u64::MAX;
        /// How often retention looks for segments to delete.
        /// Lower it if the disk fills between two looks.
        retention_check_interval_ms: Millis = Millis::new(30_000), 10..=DAY_MS;
        /// Files of deleted segments become those of later ones, in partitions that are busy: writes into them are faster.
        /// Turn it off where disks are so tight that two more segments of each busy partition do not fit: that is how much it keeps on top of `log.retention_bytes`, until a partition has filled no segment for five minutes or the disk is full.
        recycle: bool = true;
        /// Bytes of log between two entries of the offset and time indexes.
        /// Raise it to keep less index in memory when batches are much larger than this anyway.
        index_interval_bytes: ByteSize = ByteSize::new(4 * KIB), KIB..=GIB;
        /// Largest record batch that is stored, compressed as it came.
        /// Raise it for large records, together with `limits.frame_size_bytes_max` and the budgets of the cores.
        batch_size_bytes_max: ByteSize = ByteSize::new(4 * MIB), KIB..=256 * MIB;
        /// How often a checkpoint is written: the position from which recovery would scan. Restart time depends on what was written since.
        /// Lower it for faster restarts after a crash under heavy load.
        checkpoint_interval_ms: Millis = Millis::new(5_000), 10..=DAY_MS;
        /// A partition that was written this much to since its last checkpoint gets one at once.
        /// Lower it for faster restarts, as it bounds what recovery scans of each busy partition; raise it to spare a few small writes and flushes.
        checkpoint_bytes_max: ByteSize = ByteSize::new(128 * MIB), MIB..=TIB;
        /// Most space that is reserved ahead of a partition's writes. It grows to this with what the partition holds.
        /// Lower it on small disks with many busy partitions.
        prepare_step_bytes_max: ByteSize = ByteSize::new(128 * MIB), 64 * KIB..=2 * GIB;
        /// Bytes ahead of small writes that are filled with zeros, because writes into blocks that were written before are made durable faster. 0 fills none.
        /// Set it to 0 on ext4 without a journal, where it gains little, on file systems that copy on write, and where every written byte counts: each is written twice, once as zero.
        zero_ahead_bytes: ByteSize = ByteSize::new(256 * KIB), 0..=64 * MIB;
        /// How far ahead of this machine's clock a producer's timestamp may be.
        /// Raise it where the clocks of producers cannot be trusted; lower it to protect retention and searches by time from them.
        timestamp_ahead_ms_max: Millis = Millis::new(60 * 60 * 1000), 0..=36_500 * DAY_MS;
    }

    /// The journal of each core, through which small appends of all its partitions become durable together.
    journal: JournalSection {
        /// Small appends become durable in one sequential file for each core, and come to their segments later. New, and off until it has been measured.
        /// Turn it on to try it out, where many partitions get a little each. Before an older version is started on the same data, stop the broker in order.
        enabled: bool = false;
        /// Size of the file of each core, written once as a whole when it is made. It bounds what is not in segments yet, and so what a start after a crash reads.
        /// Raise it for more than a thousand busy partitions on a core, with `cores.tail_buffer_bytes_max`: what is in the journal stays in memory until it is in segments.
        size_bytes: ByteSize = ByteSize::new(128 * MIB), MIB..=16 * GIB;
        /// A partition that has at most this much to make durable does it in the journal; with more it writes to its segment, so that large streams are written once.
        /// Lower it where every written byte counts.
        batch_bytes_max: ByteSize = ByteSize::new(64 * KIB), KIB..=512 * KIB;
    }

    /// Compaction of topics with cleanup.policy=compact: what a topic gets when it does not say, and what it may cost a core.
    compaction: CompactionSection {
        /// A partition is compacted when this share of its sealed segments, by bytes, has not been compacted yet.
        /// Lower it to read less when starting from the beginning, at the cost of writing what stays more often: at 0.1 about ten times for each byte that comes in, at 0.5 twice.
        dirty_ratio_min: Ratio = Ratio::percent(50), 0..=Ratio::WHOLE;
        /// Age that a record reaches before it may be compacted away.
        /// Raise it where consumers must see every record if they come at least so often.
        lag_ms_min: Millis = Millis::new(0), 0..=36_500 * DAY_MS;
        /// Age at which a record is compacted away whatever the ratio; its segment rolls at this age too.
        /// Set it to the time limit that a law or a contract sets for deletion.
        lag_ms_max: Option<Millis> = None, 100..=36_500 * DAY_MS;
        /// How long a tombstone stays after all that it deletes is gone, for consumers that have read that.
        /// Raise it for consumers that take longer than this to read from beginning to end: within this time they miss no deletion.
        delete_retention_ms: Millis = Millis::new(DAY_MS), 0..=36_500 * DAY_MS;
        /// How often a core looks for partitions to compact.
        /// Lower it together with short lags.
        check_interval_ms: Millis = Millis::new(15_000), 10..=DAY_MS;
        /// Memory of a core for the offsets of keys while it compacts, 30 bytes a key. When it is spent, a partition takes several passes.
        /// Raise it when `headwater_compaction_passes_total` grows faster than partitions are compacted.
        map_bytes_max: ByteSize = ByteSize::new(32 * MIB), KIB..=64 * GIB;
        /// Bytes that compaction reads and writes in a second on one core.
        /// Raise it when `headwater_compaction_dirty_ratio_max` stays near 1; lower it on slow disks.
        bytes_per_second_max: ByteSize = ByteSize::new(32 * MIB), 64 * KIB..=TIB;
    }

    /// How records get to the disk: the group commit of each partition.
    flush: FlushSection {
        /// How long a flush waits for more records when the disk is idle. 0 flushes at once; what arrives meanwhile rides on the next.
        /// Raise it to spare a disk with slow flushes or limited write cycles, at the cost of that much latency.
        delay_us: Micros = Micros::new(0), 0..=1_000_000;
        /// Writes of one partition that may be under way at once.
        /// Raise it on disks that need many requests at once: arrays of `NVMe` disks, network block devices.
        writes_in_flight_max: u16 = 8, 1..=256;
        /// A flush starts as soon as this much is not yet covered by one, even while writes are in flight.
        /// Raise it on disks whose flushes are slow. Tail buffers must hold four times as much.
        uncovered_bytes_max: ByteSize = ByteSize::new(MIB), 4 * KIB..=GIB;
        /// A lone write up to this size is made durable by itself (`RWF_DSYNC`) instead of by a flush.
        /// Set it to 0 on disks where such a write costs more than a write and a flush: `headwater-bench limits` shows both.
        single_write_bytes_max: ByteSize = ByteSize::new(64 * KIB), 0..=16 * MIB;
    }

    /// Which idempotent producers each partition remembers, to recognise what they send twice.
    producers: ProducersSection {
        /// A producer that was silent for this long is forgotten.
        /// Raise it where producers pause for longer and then repeat what was not acknowledged.
        expiry_ms: Millis = Millis::new(DAY_MS), 1000..=3650 * DAY_MS;
        /// Producers that one partition remembers; beyond it the longest silent are forgotten.
        /// Lower it to bound memory; raise it where more than this write to one partition at the same time.
        count_max: u32 = 10_000, 1..=1_000_000;
    }

    /// Limits on what clients may ask for.
    limits: LimitsSection {
        /// Connections to this broker; further ones are closed at once.
        /// Raise it with the number of clients. The limit on open files must allow it.
        connections_max: u32 = 4_096, 1..=1_000_000;
        /// A connection without a request for this long is closed.
        /// Lower it where clients vanish without closing; raise it for clients that speak rarely.
        connection_idle_ms: Millis = Millis::new(10 * 60 * 1000), 10..=365 * DAY_MS;
        /// How long a connection may take until TLS is agreed on; then it is closed.
        /// Raise it for clients behind very slow links.
        handshake_wait_ms_max: Millis = Millis::new(10_000), 10..=3_600_000;
        /// Connections of one core on which TLS is not agreed on yet; when there are more, the one that has been at it the longest is closed.
        /// Raise it where very many clients connect at the same moment.
        handshakes_max: u32 = 512, 1..=100_000;
        /// How long a frame may take from its first byte to its last; then the connection is closed.
        /// Raise it for producers with large batches behind slow links.
        frame_wait_ms_max: Millis = Millis::new(30_000), 10..=365 * DAY_MS;
        /// Largest frame that is read from a client.
        /// Raise it with `log.batch_size_bytes_max`, which must fit with room to spare.
        frame_size_bytes_max: ByteSize = ByteSize::new(8 * MIB), 8 * KIB..=GIB;
        /// Requests of one connection that are not answered yet; beyond it the socket is not read.
        /// Raise it for producers with very many small batches in flight.
        requests_in_flight_max: u32 = 1024, 1..=65_536;
        /// Bytes of those requests; beyond it the socket is not read.
        /// Raise it for one fast producer over a long link; lower it so that one connection holds less of its core's budget.
        requests_in_flight_bytes_max: ByteSize = ByteSize::new(32 * MIB), 8 * KIB..=64 * GIB;
        /// Topics on this broker.
        /// Raise it with the number of topics.
        topics_max: u32 = 4_096, 1..=1_000_000;
        /// Partitions of one topic.
        /// Raise it with the largest topic.
        partitions_per_topic_max: u32 = 1_000, 1..=100_000;
        /// Partitions of all topics on this broker.
        /// Raise it with their number. The limit on open files must allow it.
        partitions_max: u32 = 4_096, 1..=1_000_000;
        /// Longest that a fetch may wait for records; a longer wish is cut to this.
        /// Lower it where something between broker and client cuts quiet connections.
        fetch_wait_ms_max: Millis = Millis::new(60_000), 0..=3_600_000;
        /// Most bytes of records in one fetch response; a larger wish is cut to this.
        /// Lower it so that one consumer takes shorter turns on its core.
        fetch_size_bytes_max: ByteSize = ByteSize::new(64 * MIB), 4 * KIB..=GIB;
        /// How long a shutdown waits for requests in flight before it closes their connections.
        /// With `limits.shutdown_close_ms_max` and 15 seconds more, keep it below the time after which the service manager kills the process (`TimeoutStopSec` of systemd).
        shutdown_grace_ms: Millis = Millis::new(30_000), 0..=3_600_000;
        /// How long a shutdown may then take to close partitions. What is not closed by then is recovered at the next start; nothing is lost.
        /// Raise it for very many partitions on a slow disk.
        shutdown_close_ms_max: Millis = Millis::new(30_000), 0..=3_600_000;
    }

    /// Who may come in, and who may do what. Nobody is asked unless it is set here.
    security: SecuritySection {
        /// How clients prove who they are, on the ports of both protocols: some of SCRAM-SHA-256, SCRAM-SHA-512, PLAIN and OAUTHBEARER, with commas between them. Empty: nobody is asked.
        /// Set it to `SCRAM-SHA-256,SCRAM-SHA-512` wherever others than friends can reach the broker. Users are made by `headwater user add`.
        sasl: SaslMechanisms = SaslMechanisms::default();
        /// PLAIN is offered also where nothing is encrypted: whoever listens learns the passwords.
        /// Leave it off.
        plain_without_tls: bool = false;
        /// Only what rules (ACLs) allow, and what super users ask for, is done. Off: everybody may do everything.
        /// Turn it on, the same on each broker, together with `security.sasl`. Rules are made by `headwater acl add` and Kafka's kafka-acls.
        authorizer: bool = false;
        /// Users who may do everything, with commas between them.
        /// Name those who administer the cluster, the same on each broker.
        super_users: Users = Users::default();
        /// Where the password of the user `admin` is, `file:PATH` or `env:NAME`. That user is a super user, and there before any other is made.
        /// Set it for the first start with `security.sasl`, to make users; take it out once there are super users that the quorum knows.
        admin_password: SecretPlace = SecretPlace::None;
        /// After so long a client must prove again who it is, or is disconnected (KIP-368). 0: never, once it has.
        /// Set it so that a user that was removed is out after that time also on connections that are open.
        reauthenticate_ms: Millis = Millis::new(0), 0..=365 * DAY_MS;
        /// So long a client waits to be told that it could not come in.
        /// Raise it where passwords are guessed.
        failure_wait_ms: Millis = Millis::new(500), 0..=60_000;
        /// Which decisions of the authorizer are written to the log, with the target `audit`: "off", "denied", or "all", also what was allowed.
        /// Set it to `denied` where rules are on; to `all` where you have to show who has read and written what.
        audit: AuditLevel = AuditLevel::Off;
        /// The same is also written to the topic `__audit`, as JSON, which is made with the first record.
        /// Turn it on for programs that read it. Allow those to read the topic, and nobody else.
        audit_topic: bool = false;
        /// What is decided again is written down once in so long, with how often it was.
        /// Lower it for figures that are fresher; raise it for fewer lines.
        audit_interval_ms: Millis = Millis::new(10_000), 100..=3_600_000;
        /// So long the topic `__audit` keeps records, as far as they are the last 256 MiB of a partition. It counts when the topic is made.
        /// Set it to what you have to keep.
        audit_retention_ms: Millis = Millis::new(7 * DAY_MS), 60_000..=3_650 * DAY_MS;
        /// Where the public keys are that tokens are checked by (JWKS): `file:PATH`, or a URL that is asked now and then, and when a token names a key that is not known.
        /// Set it with `OAUTHBEARER` in `security.sasl`, to what the issuer names as its `jwks_uri`.
        token_jwks: TokenKeys = TokenKeys::None;
        /// PEM file of the CAs that are trusted where `security.token_jwks` is an https URL, or several files; "off" trusts those of the system.
        /// Set it where the issuer's certificate is of a CA of your own.
        token_jwks_ca: Files = Files::default();
        /// How often that URL is asked. While it does not answer, the keys from before stay in force.
        /// Lower it where a key that the issuer has taken back must be out sooner.
        token_refresh_ms: Millis = Millis::new(10 * 60 * 1000), 1_000..=7 * DAY_MS;
        /// Who makes the tokens, as they name it (`iss`); several with commas between them.
        /// Set it to the issuer's name, letter by letter.
        token_issuers: Claims = Claims::default();
        /// For whom the tokens must be (`aud`); of several, with commas between them, any.
        /// Set it to what the issuer calls this cluster, so that tokens that are for others bring nobody in.
        token_audience: Claims = Claims::default();
        /// The claim of a token that says who somebody is.
        /// Set it where rules (ACLs) name users by something else, such as `email` or `preferred_username`.
        token_principal_claim: ClaimName = ClaimName::default();
        /// How tokens may be signed: some of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and `EdDSA`, with commas between them.
        /// Set it to the one that the issuer uses.
        token_algorithms: TokenAlgorithms = TokenAlgorithms::default();
        /// By so much the clocks of the issuer and of this broker may differ.
        /// Lower it where clocks are kept well.
        token_leeway_ms: Millis = Millis::new(30_000), 0..=300_000;
    }

    /// What a new topic gets when its creator does not say.
    topics: TopicsSection {
        /// Partitions of a new topic.
        /// Raise it to the number of cores or consumers if topics are made without thought.
        partitions: u32 = 1, 1..=100_000;
        /// Replicas of each partition; as many as there are brokers if they are fewer. A single broker has one.
        /// Leave it: with three replicas and `min.insync.replicas` of 2, any one broker may be gone. Raise it to 5 if two may be.
        replication_factor: u16 = 3, 1..=100;
    }

    /// Consumer groups and their committed offsets.
    groups: GroupsSection {
        /// Shortest session timeout that a member may ask for.
        /// Lower it for consumers whose partitions must move within a second; each heartbeat is a request.
        session_timeout_ms_min: Millis = Millis::new(6_000), 10..=DAY_MS;
        /// Longest session timeout that a member may ask for.
        /// Raise it for static members whose restart takes longer.
        session_timeout_ms_max: Millis = Millis::new(30 * 60 * 1000), 10..=DAY_MS;
        /// How long the first member of an empty group waits for others, and again for each that comes meanwhile.
        /// Raise it where many consumers start one after the other, so that they share the partitions once; 0 for a single consumer that should start at once.
        initial_rebalance_delay_ms: Millis = Millis::new(500), 0..=60_000;
        /// Groups that one core runs.
        /// Lower it to bound memory; raise it with the number of groups. A request that would make one more is refused.
        count_max: u32 = 10_000, 1..=10_000_000;
        /// Members of one group.
        /// Lower it to bound memory and the time of a rebalance.
        members_max: u32 = 1_000, 1..=100_000;
        /// How long a member of the consumer protocol (`group.protocol=consumer`) may be silent. Members of the classic one choose for themselves.
        /// Lower it, with the interval below it, where the partitions of a consumer that was killed must move sooner.
        consumer_session_timeout_ms: Millis = Millis::new(45_000), 10..=DAY_MS;
        /// How often members of the consumer protocol are to be heard of. They learn of new partitions, and give up others, with it.
        /// Lower it for rebalances that take a fraction of the time; each heartbeat is a request.
        consumer_heartbeat_interval_ms: Millis = Millis::new(5_000), 10..=DAY_MS;
        /// Time between two assignments of a group of the consumer protocol: whoever comes meanwhile is part of the next.
        /// Raise it for groups of many members that start one after the other; 0 assigns with each change.
        consumer_assignment_interval_ms: Millis = Millis::new(1_000), 0..=60_000;
        /// Whether a group changes its protocol while it has members: "bidirectional", only to "upgrade" or "downgrade", or "disabled".
        /// Set it to `upgrade` once no consumer should go back to the classic protocol.
        consumer_migration: Migration = Migration::Bidirectional;
        /// Longest group id, instance id, protocol type or protocol name.
        /// Raise it for clients that make longer ones.
        id_bytes_max: ByteSize = ByteSize::new(255), 1..=4096;
        /// Most that one member may tell its group when it joins, and most that it may be assigned.
        /// Raise it for members with thousands of topics. What all members of a group say must fit `log.batch_size_bytes_max`.
        metadata_bytes_max: ByteSize = ByteSize::new(64 * KIB), 128..=4 * MIB;
        /// Longest metadata of a committed offset.
        /// Raise it for consumers that keep their state there.
        offset_metadata_bytes_max: ByteSize = ByteSize::new(4 * KIB), 0..=32_767;
        /// Committed offsets of a group that has been empty for this long are deleted.
        /// Raise it for consumers that stand still for longer and must not begin anew.
        offsets_retention_ms: Millis = Millis::new(7 * DAY_MS), 1..=36_500 * DAY_MS;
        /// How often the broker looks for offsets and groups to delete.
        /// Lower it together with the retention.
        offsets_check_interval_ms: Millis = Millis::new(10 * 60 * 1000), 10..=DAY_MS;
        /// Partitions of the internal topic `__consumer_offsets`, which is made when the first group is.
        /// Raise it with many cores, as groups are spread over the cores by these partitions. Once the topic is made, changes have no effect.
        offsets_partitions: u32 = 50, 1..=100_000;
        /// A segment of the internal topic is ended when it reaches this size; only then is it compacted.
        /// Lower it to read less when a broker starts; the record of a group must fit, and so must the deletion of all that it has committed. Once the topic is made, changes have no effect.
        offsets_segment_size_bytes: ByteSize = ByteSize::new(100 * MIB), 64 * KIB..=headwater_engine::LogConfig::SEGMENT_SIZE_MAX;
    }

    /// Transactions of producers.
    transactions: TransactionsSection {
        /// Longest time-out that a transactional producer may ask for: after it the broker aborts what is still open.
        /// Raise it for transactions that are open for longer; consumers of committed records wait for them.
        timeout_ms_max: Millis = Millis::new(15 * 60 * 1000), 1..=DAY_MS;
        /// A transactional id that was not used for this long is forgotten.
        /// Raise it for programs that stand still for longer and must be fenced when they come back.
        id_expiry_ms: Millis = Millis::new(7 * DAY_MS), 1..=36_500 * DAY_MS;
        /// How often the broker looks for transactional ids to forget.
        /// Lower it together with their expiry.
        id_check_interval_ms: Millis = Millis::new(60 * 60 * 1000), 10..=DAY_MS;
        /// Transactional ids that one core knows.
        /// Lower it to bound memory; raise it with the number of transactional producers. One more is refused.
        ids_max: u32 = 100_000, 1..=10_000_000;
        /// Partitions of the internal topic `__transaction_state`, which is made when the first transactional producer comes.
        /// Raise it with many cores, as transactional ids are spread over the cores by these partitions. Once the topic is made, changes have no effect.
        state_partitions: u32 = 50, 1..=100_000;
        /// A segment of the internal topic is ended when it reaches this size; only then is it compacted.
        /// Lower it to read less when a broker starts. Once the topic is made, changes have no effect.
        state_segment_size_bytes: ByteSize = ByteSize::new(100 * MIB), 64 * KIB..=headwater_engine::LogConfig::SEGMENT_SIZE_MAX;
    }

    /// What the broker counts, for Prometheus.
    metrics: MetricsSection {
        /// Address and port of the HTTP endpoints `/metrics`, `/health` and `/ready`; "off" has none. Whoever can reach it can read it.
        /// Set it to `127.0.0.1:9644` to see what a broker does; each look costs the cores a copy of their counters.
        listen: Option<HttpAddress> = None;
        /// PEM file of the certificate for HTTPS, and behind it those that lead to its CA; "off" speaks plain HTTP. Of several, with commas between, each serves the names that it is for, and the first those that none is for.
        /// Set it, with the key, where others than this machine look.
        tls_certificate: Files = Files::default();
        /// PEM file of its private key; of several certificates each, in the same order. Nobody but the broker may read it.
        tls_key: Files = Files::default();
        /// PEM file of the CAs of whose certificates those who look must show one, or several files; "off" asks nobody.
        /// Set it where not everybody who reaches the port may look.
        tls_client_ca: Files = Files::default();
        /// Most partitions that have metrics of their own, and most committed offsets of groups with their lag; 0 has none. Those whose topics come first by name are shown.
        /// Up where dashboards need all of them; 0 where the collector has too many series already.
        series_max: u32 = 1_000, 0..=1_000_000;
        /// How often a core asks itself for a turn, to measure how late it gets one (stage `tick`). 0 does not; it costs wake-ups.
        /// Set it to `100us` to see what a request feels while something else goes on, such as consumers that read from disk.
        tick_us: Micros = Micros::new(0), 0..=1_000_000;
    }

    /// REST, for programs in any language, on a thread of its own: docs/rest.md.
    http: HttpSection {
        /// Address and port of REST over HTTP; "off" has none. The same users and rules hold there as at the other ports.
        /// Set it to `127.0.0.1:9680`, say, where a language has no client, or for scripts.
        listen: Option<HttpAddress> = None;
        /// PEM file of the certificate for HTTPS, and behind it those that lead to its CA; "off" speaks plain HTTP. Of several, with commas between, each serves the names that it is for, and the first those that none is for.
        /// Set it, with the key, where others than this machine connect: passwords pass here as they are.
        tls_certificate: Files = Files::default();
        /// PEM file of its private key; of several certificates each, in the same order. Nobody but the broker may read it.
        tls_key: Files = Files::default();
        /// PEM file of the CAs of whose certificates those who connect must show one, or several files; "off" asks nobody. It only lets them in: who they are their passwords say.
        /// Set it where not everybody who reaches the port may use it.
        tls_client_ca: Files = Files::default();
        /// PEM file of the CAs of the certificates that brokers show their clients (`broker.tls_certificate`), as REST is such a client; "off" trusts the CAs of the system.
        /// Set it where brokers have TLS by a CA of your own.
        broker_ca: Files = Files::default();
        /// PEM file of the certificate that REST shows brokers as their client, and behind it those that lead to its CA.
        /// Set it, with the key, where brokers ask for one (`broker.tls_client_auth`). Without `security.sasl` whoever uses REST is the user of this certificate.
        broker_certificate: Files = Files::default();
        /// PEM file of its private key. Nobody but the broker may read it.
        broker_key: Files = Files::default();
        /// Origins of web pages whose scripts may use REST (CORS), such as `https://dash.example.com`, with commas between them; empty: none. Cookies are never asked for.
        /// Set it where a page of your own is to talk to the broker.
        allowed_origins: Origins = Origins::default();
        /// Whether the console (`/console`) may change anything: set where a group goes on. Whoever does must be allowed to, as everywhere.
        /// Set it to `true` where operators are to do that in a browser.
        console_writes: bool = false;
        /// Connections; further ones are closed at once.
        /// Raise it with the number of programs that keep theirs open. The limit on open files must allow it.
        connections_max: u32 = 1_024, 1..=100_000;
        /// Requests that are not answered yet; further ones are refused with 503 and when to try again.
        /// Raise it where many wait for records at the same time, above `http.streams_max`.
        requests_in_flight_max: u32 = 256, 2..=100_000;
        /// How long a request may take, its body included. Waiting for records does not count.
        /// Raise it for clients behind very slow links.
        request_ms_max: Millis = Millis::new(30_000), 100..=3_600_000;
        /// Largest body of a request.
        /// Raise it for larger batches, with `http.memory_bytes_max`.
        body_bytes_max: ByteSize = ByteSize::new(8 * MIB), KIB..=GIB;
        /// Bytes of all bodies that have come and are not answered yet; further requests are refused with 503. The longest answer is a sixteenth of it.
        /// Raise it where many send large batches at the same time.
        memory_bytes_max: ByteSize = ByteSize::new(64 * MIB), MIB..=TIB;
        /// Streams of records (Server-Sent Events), and requests that wait for records, at one time; further ones are refused with 503.
        /// Raise it with the number of those who listen.
        streams_max: u32 = 128, 1..=100_000;
        /// Consumers that REST keeps for its callers between their requests, as members of groups.
        /// Raise it with their number: each has records ahead in memory, up to a mebibyte.
        consumers_max: u32 = 256, 1..=100_000;
        /// A consumer that nobody has asked for anything in so long leaves its group.
        /// Lower it where the partitions of a program that has died must move sooner.
        consumer_idle_ms: Millis = Millis::new(5 * 60 * 1000), 1_000..=DAY_MS;
        /// Users for whom REST keeps connections to the brokers; beyond it those that were idle longest are closed.
        /// Raise it with the number of users that are at work at the same time.
        users_max: u32 = 64, 1..=100_000;
        /// Answers that are kept for requests with an `Idempotency-Key`, and given again when one is repeated; beyond it the oldest are forgotten.
        /// Raise it with the rate of such requests: this many are to come in `http.idempotency_ms` at most.
        idempotency_keys_max: u32 = 10_000, 0..=1_000_000;
        /// How long such an answer is kept.
        /// Raise it for callers that repeat later.
        idempotency_ms: Millis = Millis::new(10 * 60 * 1000), 1_000..=DAY_MS;
    }

    /// What the broker says on stderr.
    logging: LoggingSection {
        /// "text" for people, "json" for machines: one object a line.
        /// Set it to `json` where logs are collected.
        format: LogFormat = LogFormat::Text;
        /// What is logged, such as "info" or `headwater_server=debug,info`.
        /// Set it to `headwater_server=debug,info` or the like to look into one module.
        filter: LogFilter = LogFilter::default();
    }
}

impl Config {
    /// The host that clients are told to connect to: as configured, else the listen address, else (if that is the
    /// unspecified address) the name of this host.
    pub fn advertised_host(&self) -> String {
        self.host_told_at(self.broker.listen)
    }

    /// The host that clients are told to connect to where this address is listened to.
    pub(crate) fn host_told_at(&self, listen: SocketAddr) -> String {
        let ip = listen.ip();
        match &self.broker.advertised_host {
            Some(host) => host.as_str().to_owned(),
            None if ip.is_unspecified() => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            None => ip.to_string(),
        }
    }

    /// Where Kafka's protocol is spoken, if it is.
    pub(crate) fn kafka_listen(&self) -> Option<SocketAddr> {
        let native = self.broker.listen;
        match self.kafka.listen {
            KafkaListen::Auto => (native.port() == NATIVE_PORT).then(|| SocketAddr::new(native.ip(), KAFKA_PORT)),
            KafkaListen::Off => None,
            KafkaListen::At(address) => Some(address),
        }
    }
}
