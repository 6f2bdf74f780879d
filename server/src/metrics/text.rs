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
    families::{SHAPES, Shape},
    partitions, quotas,
    snapshot::Gathered,
};

/// The media type of what [`encode`] makes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of a histogram: two an octave, from a microsecond to half a minute.
const BOUND_MIN_NS: f64 = 1_000.0;
const BOUNDS: u32 = 50;

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
        self.quorum.encode(&mut encoder)?;
        for shape in SHAPES {
            self.encode_shape(&mut encoder, shape)?;
        }
        self.encode_stages(&mut encoder)?;
        let snapshots = self.cores.iter().filter_map(|(_, snapshot)| snapshot.as_ref());
        let throttled: Vec<_> = snapshots.flat_map(|snapshot| &snapshot.quotas.0).collect();
        quotas::encode(&throttled, &mut encoder)?;
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
        if !self.certificates.is_empty() {
            let help = "When the first certificate of a port ends, in seconds since 1970";
            let name = "tls_certificate_expiry_timestamp_seconds";
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (port, at) in &self.certificates {
                family.encode_family(&[("port", *port)])?.encode_gauge(at)?;
            }
        }
        if let Some(refused) = self.proofs_refused {
            let help = "Who said that they are brokers and did not know the secret of the cluster";
            let mut family = encoder.encode_descriptor("peer_proofs_refused", help, None, MetricType::Counter)?;
            family.encode_counter::<NoLabelSet, _, u64>(&refused, None)?;
        }
        if let Some((done, failed)) = self.key_fetches {
            let help = "Attempts to fetch the keys by which tokens are checked";
            let mut family = encoder.encode_descriptor("token_key_fetches", help, None, MetricType::Counter)?;
            for (outcome, count) in [("done", done), ("failed", failed)] {
                let labels = [("outcome", outcome)];
                let mut of_outcome = family.encode_family(&labels)?;
                of_outcome.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
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
                labels.extend(shape.label.iter().map(|label| (*label, (*value_of_label).to_owned())));
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
