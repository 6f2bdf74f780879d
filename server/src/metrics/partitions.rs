//! Figures of single partitions, and how far groups are behind: as many of each as `metrics.series_max` allows, so that a
//! broker with very many does not flood whoever collects them. How many were left out is a figure too.

use std::{collections::HashMap, fmt, sync::Arc};

use headwater_protocol::id::{CoreId, PartitionIndex};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::snapshot::CoreSnapshot;
use crate::image::Topic;

/// One partition at one moment.
#[derive(Debug)]
pub(crate) struct PartitionFigures {
    pub(crate) topic: Arc<Topic>,
    pub(crate) index: PartitionIndex,
    pub(crate) start: i64,
    pub(crate) high_watermark: i64,
    pub(crate) end: i64,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) appended_bytes: u64,
    pub(crate) fetched_bytes: u64,
}

/// Where a group goes on in one partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupOffset {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// How a figure is shown.
type Shape = (&'static str, &'static str, MetricType, fn(&PartitionFigures) -> f64);

const SHAPES: &[Shape] = &[
    (
        "partition_log_start_offset",
        "First offset that can be fetched",
        MetricType::Gauge,
        |figures| figures.start as f64,
    ),
    (
        "partition_high_watermark",
        "Offset after the last record that consumers can have",
        MetricType::Gauge,
        |figures| figures.high_watermark as f64,
    ),
    (
        "partition_log_end_offset",
        "Offset that the next record gets",
        MetricType::Gauge,
        |figures| figures.end as f64,
    ),
    ("partition_segments", "Segments on disk", MetricType::Gauge, |figures| {
        figures.segments as f64
    }),
    (
        "partition_size_bytes",
        "Bytes of those segments",
        MetricType::Gauge,
        |figures| figures.bytes as f64,
    ),
    (
        "partition_appended_bytes",
        "Bytes of record batches that were appended since the partition was opened",
        MetricType::Counter,
        |figures| figures.appended_bytes as f64,
    ),
    (
        "partition_fetched_bytes",
        "Bytes of record batches that fetches have found since the partition was opened",
        MetricType::Counter,
        |figures| figures.fetched_bytes as f64,
    ),
];

/// All cores' figures together: those that are shown, by name.
#[derive(Debug)]
struct Shown<'a> {
    partitions: Vec<&'a PartitionFigures>,
    groups: Vec<&'a GroupOffset>,
    left_out: [(&'static str, u64); 3],
}

impl<'a> Shown<'a> {
    fn of(cores: &'a [(CoreId, Option<CoreSnapshot>)], most: usize) -> Shown<'a> {
        let snapshots = || cores.iter().filter_map(|(_, snapshot)| snapshot.as_ref());
        let mut partitions: Vec<_> = snapshots().flat_map(|snapshot| &snapshot.partitions.0).collect();
        let mut groups: Vec<_> = snapshots().flat_map(|snapshot| &snapshot.group_offsets.0).collect();
        partitions.sort_unstable_by(|a, b| (&a.topic.name, a.index).cmp(&(&b.topic.name, b.index)));
        groups.sort_unstable();
        let by_cores = [
            snapshots().map(|snapshot| snapshot.partitions.1).sum::<u64>(),
            snapshots().map(|snapshot| snapshot.group_offsets.1).sum(),
        ];
        let beyond = [partitions.len(), groups.len()].map(|count| count.saturating_sub(most) as u64);
        partitions.truncate(most);
        groups.truncate(most);
        Shown {
            partitions,
            groups,
            left_out: [
                ("partitions", by_cores[0] + beyond[0]),
                ("group_offsets", by_cores[1] + beyond[1]),
                ("quotas", snapshots().map(|snapshot| snapshot.quotas.1).sum()),
            ],
        }
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, kind, value) in SHAPES {
            let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
            for figures in &self.partitions {
                let labels = [
                    ("topic", figures.topic.name.as_str().to_owned()),
                    ("partition", figures.index.to_string()),
                ];
                let mut metric = family.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => metric.encode_counter::<NoLabelSet, _, f64>(&value(figures), None)?,
                    _ => metric.encode_gauge(&value(figures))?,
                }
            }
        }
        self.encode_groups(encoder)
    }

    fn encode_groups(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ends: HashMap<(&str, i32), i64> = self
            .partitions
            .iter()
            .map(|figures| {
                (
                    (figures.topic.name.as_str(), figures.index.get()),
                    figures.high_watermark,
                )
            })
            .collect();
        let labels = |at: &GroupOffset| {
            [
                ("group", at.group.clone()),
                ("topic", at.topic.clone()),
                ("partition", at.partition.to_string()),
            ]
        };
        let help = "Offset at which a group goes on, as it was committed last";
        let mut family = encoder.encode_descriptor("group_committed_offset", help, None, MetricType::Gauge)?;
        for at in &self.groups {
            family.encode_family(&labels(at))?.encode_gauge(&at.offset)?;
        }
        let help =
            "Offsets between what a group has committed and the high watermark; not for partitions that are left out";
        let mut family = encoder.encode_descriptor("group_lag", help, None, MetricType::Gauge)?;
        for at in &self.groups {
            if let Some(end) = ends.get(&(at.topic.as_str(), at.partition)) {
                family
                    .encode_family(&labels(at))?
                    .encode_gauge(&(end - at.offset).max(0))?;
            }
        }
        let help = "Partitions, committed offsets and those held up by quotas without figures of their own, for metrics.series_max";
        let mut family = encoder.encode_descriptor("series_left_out", help, None, MetricType::Gauge)?;
        for (kind, count) in &self.left_out {
            let labels = [("kind", (*kind).to_owned())];
            family.encode_family(&labels)?.encode_gauge(count)?;
        }
        Ok(())
    }
}

/// Writes the figures of all cores.
pub(super) fn encode(
    cores: &[(CoreId, Option<CoreSnapshot>)],
    most: usize,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    Shown::of(cores, most).encode(encoder)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use headwater_protocol::{id::TopicId, topic::TopicName};

    use super::*;
    use crate::{
        image::TopicState,
        metrics::{Gathered, text},
    };

    fn topic(name: &str) -> Arc<Topic> {
        Arc::new(Topic {
            name: TopicName::new(name).unwrap(),
            id: TopicId::random(),
            partition_count: 8,
            overrides: BTreeMap::new(),
            state: TopicState::Ready,
            becoming: None,
        })
    }

    fn figures(topic: &Arc<Topic>, index: i32, high_watermark: i64) -> PartitionFigures {
        PartitionFigures {
            topic: Arc::clone(topic),
            index: PartitionIndex::new(index),
            start: 2,
            high_watermark,
            end: high_watermark + 1,
            segments: 1,
            bytes: 10,
            appended_bytes: 20,
            fetched_bytes: 30,
        }
    }

    fn committed(topic: &str, partition: i32, offset: i64) -> GroupOffset {
        GroupOffset {
            group: "g".to_owned(),
            topic: topic.to_owned(),
            partition,
            offset,
        }
    }

    #[test]
    fn the_first_by_name_are_shown_whatever_their_core_and_the_rest_is_counted() {
        let (a, b) = (topic("a"), topic("b"));
        let of_core = |partitions, group_offsets| CoreSnapshot {
            partitions,
            group_offsets,
            ..CoreSnapshot::default()
        };
        let cores = vec![
            (
                CoreId::new(0),
                Some(of_core((vec![figures(&b, 0, 9)], 4), (vec![committed("b", 0, 1)], 0))),
            ),
            (
                CoreId::new(1),
                Some(of_core(
                    (vec![figures(&a, 1, 7), figures(&a, 0, 5)], 0),
                    (vec![committed("a", 1, 3), committed("a", 0, 8)], 1),
                )),
            ),
            (CoreId::new(2), None),
        ];
        let text = text::encode(Gathered::of(cores, 2)).unwrap();
        for line in [
            "headwater_partition_high_watermark{topic=\"a\",partition=\"0\"} 5.0",
            "headwater_partition_log_end_offset{topic=\"a\",partition=\"1\"} 8.0",
            "headwater_partition_appended_bytes_total{topic=\"a\",partition=\"1\"} 20.0",
            "headwater_group_committed_offset{group=\"g\",topic=\"a\",partition=\"1\"} 3",
            "headwater_group_lag{group=\"g\",topic=\"a\",partition=\"1\"} 4",
            // A group may have committed more than there is, after an unclean end.
            "headwater_group_lag{group=\"g\",topic=\"a\",partition=\"0\"} 0",
            "headwater_series_left_out{kind=\"partitions\"} 5",
            "headwater_series_left_out{kind=\"group_offsets\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
        assert!(!text.contains("topic=\"b\""), "{text}");
    }
}
