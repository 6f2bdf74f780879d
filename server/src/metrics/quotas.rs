//! Figures of those who are held up by a quota: as many as `metrics.series_max` allows.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

/// One who has a quota, at one moment. Labels that the quota is not by are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuotaFigures {
    pub(crate) quota: &'static str,
    pub(crate) user: String,
    pub(crate) client: String,
    pub(crate) ip: String,
    pub(crate) throttles: u64,
    pub(crate) throttled: Duration,
}

/// How a figure is shown.
type Shape = (&'static str, &'static str, fn(&QuotaFigures) -> f64);

const SHAPES: &[Shape] = &[
    (
        "quota_throttles",
        "Times that somebody was held up because its quota was used up; of those who ever were",
        |figures| figures.throttles as f64,
    ),
    (
        "quota_throttled_seconds",
        "For how long their connections were not read, all together",
        |figures| figures.throttled.as_secs_f64(),
    ),
];

/// Writes them.
pub(super) fn encode(throttled: &[&QuotaFigures], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for (name, help, value) in SHAPES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for figures in throttled {
            let labels = [
                ("quota", figures.quota),
                ("user", figures.user.as_str()),
                ("client_id", figures.client.as_str()),
                ("ip", figures.ip.as_str()),
            ];
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, f64>(&value(figures), None)?;
        }
    }
    Ok(())
}
