//! Every family of counters and gauges that a core counts: a row each.

use prometheus_client::metrics::MetricType;

/// How a family is shown.
pub(super) struct Shape {
    pub(super) family: Family,
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    /// The label that tells a core's samples apart, if there is one.
    pub(super) label: &'static [&'static str],
}

/// Declares families: `Family = Kind "name" by "label": "help";`.
macro_rules! families {
    ($($Family:ident = $Kind:ident $name:literal $(by $label:literal)?: $help:literal;)+) => {
        /// A family of counters or gauges.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Family { $($Family,)+ }

        pub(super) const SHAPES: &[Shape] = &[$(Shape {
            family: Family::$Family,
            name: $name,
            help: $help,
            kind: MetricType::$Kind,
            label: &[$($label)?],
        },)+];
    };
}

families! {
    Requests = Counter "requests" by "api": "Request frames that were taken in";
    KafkaRequests = Counter "kafka_requests" by "api": "Requests of Kafka's protocol that were taken in";
    Received = Counter "received_bytes": "Bytes of the requests of both protocols";
    Sent = Counter "sent_bytes": "Bytes of responses, with their records";
    FetchBytes = Counter "fetch_bytes" by "path":
        "Bytes of records that were sent to consumers, by where they came from: tail buffer, disk past the page cache \
         (direct), page cache (sendfile), disk through the page cache (buffered), another core (remote), page cache by a copy, \
         to encrypted connections (copied)";
    FollowerFetchBytes = Counter "follower_fetch_bytes":
        "Bytes of records that consumers were given of partitions that another broker leads, as they are in this broker's rack";
    DiskBytes = Counter "disk_bytes" by "operation":
        "Bytes that were written to segments, and bytes that flushes have made durable";
    JournalFrames = Counter "journal_frames": "Writes of the journal, each of which makes small appends of several partitions durable";
    JournalEntries = Counter "journal_entries": "Times that a partition has made appends durable in the journal";
    JournalBytes = Counter "journal_bytes": "Bytes that were written to the journal";
    JournalHeldBytes = Gauge "journal_held_bytes": "Bytes of the journal with records that are not in segments yet";
    JournalRefusals = Counter "journal_refusals":
        "Times that a partition has written to its segment because the journal had no room";
    JournalFailed = Gauge "journal_failed":
        "1 if a write of the journal has failed: small appends are slower until the broker is started again";
    TailBytes = Gauge "tail_buffer_bytes": "Memory that tail buffers hold";
    TailBytesMax = Gauge "tail_buffer_bytes_max": "What cores.tail_buffer_bytes_max allows";
    ColdBytes = Gauge "cold_read_bytes": "Memory for records that consumers read from disk";
    InFlightBytes = Gauge "in_flight_bytes": "Requests that are not answered yet";
    ReadBufferBytes = Gauge "read_buffer_bytes": "Memory that read buffers of connections hold";
    Connections = Gauge "connections": "Open connections";
    ConnectionsRefused = Counter "connections_refused":
        "Connections that were closed at once, because limits.connections_max were open";
    ConnectionsOverQuota = Counter "connections_over_quota":
        "Connections that were closed, because their address had made more than connection_creation_rate allows";
    Authentications = Counter "authentications" by "outcome": "Clients that wanted to prove who they are, and have (succeeded) or have not (failed)";
    Denied = Counter "denied": "Times that somebody asked for what it may not do";
    AuditRecords = Counter "audit_records": "Lines of the audit log that were written";
    AuditDropped = Counter "audit_dropped":
        "Decisions that are missing in the audit log, or in its topic, as they came faster than they are written, or this broker leads \
         no partition of __audit";
    Strangers = Counter "strangers" by "protocol": "Connections that were closed because they spoke another protocol";
    Handshakes = Counter "tls_handshakes" by "outcome":
        "Handshakes of TLS on the ports of clients: done, failed, late (limits.handshake_wait_ms_max), or given up as too many \
         others were under way (crowded, limits.handshakes_max)";
    Errors = Counter "errors" by "error": "Responses that told of an error; of a fetch the first partition's";
    Tasks = Gauge "tasks":
        "Tasks that have not ended: of connections, of requests that wait, of partitions that are being flushed";
    OpenFiles = Gauge "open_files": "Descriptors of segment files that are open";
    OpenFilesMax = Gauge "open_files_max":
        "How many of them stay open that nobody uses: cores.open_files_max, or a share of the limit on open files";
    FilesOpened = Counter "files_opened": "Descriptors of segment files that were opened";
    FilesEvicted = Counter "files_evicted": "Segment files that were closed to make room for others";
    Partitions = Gauge "partitions": "Partitions that are open, with those that are fenced";
    PartitionsOffline = Gauge "partitions_offline" by "reason":
        "Partitions that take no records: they could not be opened (not_opened), or a write or flush has failed and \
         what is there can only be read (fenced); the log says why";
    PartitionsLed = Gauge "partitions_led": "Partitions that are led here";
    PartitionsLagging = Gauge "partitions_lagging" by "what":
        "Partitions that are led here and of which not all replicas are in sync (under_replicated), or fewer than an \
         acknowledgement takes (under_min_isr)";
    PartitionsLeaderless = Gauge "partitions_leaderless": "Partitions of which there is a replica here, and that nobody leads";
    ReplicaChanges = Counter "replica_changes" by "what":
        "Times that this broker was made the leader of a partition (elected), and that in-sync replicas of one that it leads \
         became fewer (isr_shrunk) or more (isr_expanded)";
    ReplicaLagRecords = Gauge "replica_lag_records_max":
        "Records that the follower lacks that is furthest behind, of the partitions that are led here";
    ReplicaLagBytes = Gauge "replica_lag_bytes_max": "The same in bytes, as far as indexes in memory tell";
    ReplicaLagSeconds = Gauge "replica_lag_seconds_max": "The longest time since such a follower last had everything";
    ReplicasCatchingUp = Gauge "replicas_catching_up":
        "Replicas of partitions that are led here that are not in sync, and fetch what they lack";
    CatchUpBytes = Counter "catch_up_bytes":
        "Bytes of records sent to replicas that are not in sync: cluster.catch_up_bytes_per_second_max bounds how fast, besides \
         what producers append meanwhile";
    Unsealed = Gauge "unsealed_segments":
        "Segments that are full and wait to be sealed; when they are many, sockets are not read";
    Refused = Counter "produce_refused" by "reason":
        "Produce requests that were refused, because the disk is full (disk_full), because the partition is offline \
         or its disk has failed (storage), or because the records are not as they should be (rules)";
    Failures = Counter "failures" by "what":
        "What has failed and is tried again: checkpoint, retention, sealing, compaction, index_write, accept";
    IndexesRebuilt = Counter "indexes_rebuilt":
        "Indexes that were made anew from their segments, because their files were missing or damaged or could not be \
         read";
    Damage = Counter "damage":
        "Times that stored records were found damaged, by a fetch, a look-up by time, a compaction or when a \
         partition was opened; the log names the place. Consumers find more: they look at every checksum";
    Groups = Gauge "groups": "Groups that the core runs";
    GroupPartitionsOffline = Gauge "group_partitions_offline":
        "Partitions of __consumer_offsets whose groups could not be read; the log says why";
    GroupMembers = Gauge "group_members": "Members of those groups";
    GroupRebalances = Counter "group_rebalances": "New generations of groups";
    OffsetCommits = Counter "offset_commits": "Offsets that were committed";
    Stalls = Counter "stalls": "Times that a core with work did not come round for 100 ms";
    StalledSeconds = Counter "stalled_seconds": "Duration of those stalls";
    BusySeconds = Counter "busy_seconds": "Time that a core has run tasks";
    CompactionBytes = Counter "compaction_bytes" by "operation":
        "Bytes of segments that compaction has read and written";
    CompactionPasses = Counter "compaction_passes":
        "Passes of compaction over a partition; several in a row where compaction.map_bytes_max was too small for its \
         keys";
    CompactionRemoved = Counter "compaction_removed_records": "Records that compaction has removed";
    CompactionSeconds = Counter "compaction_seconds":
        "Time from the beginning to the end of compactions, with what they waited for compaction.bytes_per_second_max";
    CompactionDirty = Gauge "compaction_dirty_ratio_max":
        "Largest share of what is sealed in a partition that was not compacted yet, when it was looked at last";
    CompactionHalted = Gauge "compaction_halted_partitions":
        "Partitions that are not compacted any more, because bytes in them do not read back; the log says where";
}
