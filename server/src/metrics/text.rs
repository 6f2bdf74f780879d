//! Figures as text that Prometheus reads (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).

use std::fmt;

use headwater_engine::TimedSnapshot;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    partitions,
    snapshot::{Family, Gathered},
};

/// The media type of what [`encode`] makes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of a histogram: two an octave, from a microsecond to half a minute.
const BOUND_MIN_NS: f64 = 1_000.0;
const BOUNDS: u32 = 50;

/// How a family is shown.
struct Shape {
    family: Family,
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// The label that tells a core's samples apart.
    label: Option<&'static str>,
}

const fn counter(family: Family, name: &'static str, label: Option<&'static str>, help: &'static str) -> Shape {
    Shape {
        family,
        name,
        help,
        kind: MetricType::Counter,
        label,
    }
}

const fn gauge(family: Family, name: &'static str, help: &'static str) -> Shape {
    Shape {
        family,
        name,
        help,
        kind: MetricType::Gauge,
        label: None,
    }
}

const SHAPES: &[Shape] = &[
    counter(
        Family::Requests,
        "requests",
        Some("api"),
        "Request frames that were taken in",
    ),
    counter(Family::Received, "received_bytes", None, "Bytes of those frames"),
    counter(
        Family::Sent,
        "sent_bytes",
        None,
        "Bytes of responses, with their records",
    ),
    counter(
        Family::FetchBytes,
        "fetch_bytes",
        Some("path"),
        "Bytes of records that were sent to consumers, by where they came from: tail buffer, disk past the page cache \
         (direct), page cache (sendfile), disk through the page cache (buffered), another core (remote)",
    ),
    counter(
        Family::DiskBytes,
        "disk_bytes",
        Some("operation"),
        "Bytes that were written to segments, and bytes that flushes have made durable",
    ),
    gauge(Family::TailBytes, "tail_buffer_bytes", "Memory that tail buffers hold"),
    gauge(
        Family::TailBytesMax,
        "tail_buffer_bytes_max",
        "What cores.tail_buffer_bytes_max allows",
    ),
    gauge(
        Family::ColdBytes,
        "cold_read_bytes",
        "Memory for records that consumers read from disk",
    ),
    gauge(
        Family::InFlightBytes,
        "in_flight_bytes",
        "Requests that are not answered yet",
    ),
    gauge(
        Family::ReadBufferBytes,
        "read_buffer_bytes",
        "Memory that read buffers of connections hold",
    ),
    gauge(Family::Connections, "connections", "Open connections"),
    counter(
        Family::ConnectionsRefused,
        "connections_refused",
        None,
        "Connections that were closed at once, because limits.connections_max were open",
    ),
    counter(
        Family::Strangers,
        "strangers",
        Some("protocol"),
        "Connections that were closed because they spoke another protocol",
    ),
    counter(
        Family::Errors,
        "errors",
        Some("error"),
        "Responses that told of an error; of a fetch the first partition's",
    ),
    gauge(
        Family::Tasks,
        "tasks",
        "Tasks that have not ended: of connections, of requests that wait, of partitions that are being flushed",
    ),
    gauge(
        Family::OpenFiles,
        "open_files",
        "Descriptors of segment files that are open",
    ),
    gauge(
        Family::OpenFilesMax,
        "open_files_max",
        "How many of them stay open that nobody uses: cores.open_files_max, or a share of the limit on open files",
    ),
    counter(
        Family::FilesOpened,
        "files_opened",
        None,
        "Descriptors of segment files that were opened",
    ),
    counter(
        Family::FilesEvicted,
        "files_evicted",
        None,
        "Segment files that were closed to make room for others",
    ),
    gauge(
        Family::Partitions,
        "partitions",
        "Partitions that are open, with those that are fenced",
    ),
    Shape {
        label: Some("reason"),
        ..gauge(
            Family::PartitionsOffline,
            "partitions_offline",
            "Partitions that take no records: they could not be opened (not_opened), or a write or flush has failed and what \
             is there can only be read (fenced); the log says why",
        )
    },
    gauge(
        Family::Unsealed,
        "unsealed_segments",
        "Segments that are full and wait to be sealed; when they are many, sockets are not read",
    ),
    counter(
        Family::Refused,
        "produce_refused",
        Some("reason"),
        "Produce requests that were refused, because the disk is full (disk_full), because the partition is offline or its \
         disk has failed (storage), or because the records are not as they should be (rules)",
    ),
    counter(
        Family::Failures,
        "failures",
        Some("what"),
        "What has failed and is tried again: checkpoint, retention, sealing, compaction, index_write, accept",
    ),
    counter(
        Family::IndexesRebuilt,
        "indexes_rebuilt",
        None,
        "Indexes that were made anew from their segments, because their files were missing or damaged or could not be read",
    ),
    counter(
        Family::Damage,
        "damage",
        None,
        "Times that stored records were found damaged, by a fetch, a look-up by time, a compaction or when a partition was opened; \
         the log names the place. Consumers find more: they look at every checksum",
    ),
    gauge(Family::Groups, "groups", "Groups that the core runs"),
    gauge(
        Family::GroupPartitionsOffline,
        "group_partitions_offline",
        "Partitions of __consumer_offsets whose groups could not be read; the log says why",
    ),
    gauge(Family::GroupMembers, "group_members", "Members of those groups"),
    counter(
        Family::GroupRebalances,
        "group_rebalances",
        None,
        "New generations of groups",
    ),
    counter(
        Family::OffsetCommits,
        "offset_commits",
        None,
        "Offsets that were committed",
    ),
    counter(
        Family::Stalls,
        "stalls",
        None,
        "Times that a core with work did not come round for 100 ms",
    ),
    counter(
        Family::StalledSeconds,
        "stalled_seconds",
        None,
        "Duration of those stalls",
    ),
    counter(
        Family::BusySeconds,
        "busy_seconds",
        None,
        "Time that a core has run tasks",
    ),
    counter(
        Family::CompactionBytes,
        "compaction_bytes",
        Some("operation"),
        "Bytes of segments that compaction has read and written",
    ),
    counter(
        Family::CompactionPasses,
        "compaction_passes",
        None,
        "Passes of compaction over a partition; several in a row where compaction.map_bytes_max was too small for its keys",
    ),
    counter(
        Family::CompactionRemoved,
        "compaction_removed_records",
        None,
        "Records that compaction has removed",
    ),
    counter(
        Family::CompactionSeconds,
        "compaction_seconds",
        None,
        "Time from the beginning to the end of compactions, with what they waited for compaction.bytes_per_second_max",
    ),
    gauge(
        Family::CompactionDirty,
        "compaction_dirty_ratio_max",
        "Largest share of what is sealed in a partition that was not compacted yet, when it was looked at last",
    ),
    gauge(
        Family::CompactionHalted,
        "compaction_halted_partitions",
        "Partitions that are not compacted any more, because bytes in them do not read back; the log says where",
    ),
];

/// All figures as text.
pub(crate) fn encode(mut gathered: Gathered) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let process = std::mem::take(&mut gathered.process);
    registry.register_collector(Box::new(process));
    let own = registry.sub_registry_with_prefix("headwater");
    own.register_collector(Box::new(gathered));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut up = encoder.encode_descriptor("core_up", "Whether a core has answered", None, MetricType::Gauge)?;
        for (core, snapshot) in &self.cores {
            let labels = [("core", core.to_string())];
            up.encode_family(&labels)?
                .encode_gauge(&u32::from(snapshot.is_some()))?;
        }
        self.encode_build_and_disk(&mut encoder)?;
        for shape in SHAPES {
            self.encode_shape(&mut encoder, shape)?;
        }
        self.encode_stages(&mut encoder)?;
        partitions::encode(&self.cores, self.series_max, &mut encoder)
    }
}

impl Gathered {
    fn encode_build_and_disk(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", crate::COMMIT.unwrap_or("unknown")),
        ];
        let mut build = encoder.encode_descriptor("build_info", "What is running", None, MetricType::Gauge)?;
        build.encode_family(&labels)?.encode_gauge(&1_u32)?;
        let Some(disk) = self.disk else { return Ok(()) };
        for (name, help, bytes) in [
            (
                "disk_free_bytes",
                "What the broker may still use of the data directory's file system",
                disk.free_bytes,
            ),
            ("disk_size_bytes", "Size of that file system", disk.size_bytes),
        ] {
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&bytes)?;
        }
        Ok(())
    }

    fn encode_shape(&self, encoder: &mut DescriptorEncoder<'_>, shape: &Shape) -> fmt::Result {
        let mut family = encoder.encode_descriptor(shape.name, shape.help, None, shape.kind)?;
        for (core, snapshot) in &self.cores {
            let samples = snapshot.iter().flat_map(|snapshot| &snapshot.samples);
            for (_, value_of_label, value) in samples.filter(|(family, ..)| *family == shape.family) {
                let mut labels = vec![("core", core.to_string())];
                labels.extend(shape.label.map(|label| (label, (*value_of_label).to_owned())));
                let mut metric = family.encode_family(&labels)?;
                match shape.kind {
                    MetricType::Counter => metric.encode_counter::<NoLabelSet, _, f64>(value, None)?,
                    _ => metric.encode_gauge(value)?,
                }
            }
        }
        Ok(())
    }

    fn encode_stages(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time in each stage of a request's way: receive, append, write, flush, acknowledge; fetch_wait, send; and how late a task had its turn: tick";
        let mut family = encoder.encode_descriptor("stage", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (core, snapshot) in &self.cores {
            for (stage, timed) in snapshot.iter().flat_map(|snapshot| &snapshot.stages) {
                let labels = [("core", core.to_string()), ("stage", (*stage).to_owned())];
                let mut metric = family.encode_family(&labels)?;
                let sum = timed.sum.as_secs_f64();
                metric.encode_histogram::<NoLabelSet>(sum, timed.times.len(), &buckets(timed), None)?;
            }
        }
        Ok(())
    }
}

/// Upper bounds in seconds, each with how many times lie between it and the one before.
fn buckets(timed: &TimedSnapshot) -> Vec<(f64, u64)> {
    let mut recorded = timed.times.iter_recorded().peekable();
    let mut buckets = Vec::with_capacity(BOUNDS as usize + 1);
    for step in 0..BOUNDS {
        let bound = BOUND_MIN_NS * 2_f64.powf(f64::from(step) / 2.0);
        let mut count = 0;
        while let Some(value) = recorded.next_if(|value| value.value_iterated_to() as f64 <= bound) {
            count += value.count_since_last_iteration();
        }
        buckets.push((bound / 1e9, count));
    }
    buckets.push((
        f64::INFINITY,
        recorded.map(|value| value.count_since_last_iteration()).sum(),
    ));
    buckets
}
