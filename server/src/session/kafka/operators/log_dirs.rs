//! The directory of the logs. A broker has one, and each of its nodes tells of its own core's part.

use std::collections::BTreeMap;

use headwater_kafka::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse,
    describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
};
use headwater_protocol::error::ErrorCode;

use super::super::asking::{Asking, find_topic, partition_of};
use crate::{
    image::{Topic, TopicState},
    model::{
        id::PartitionId,
        op::{Op, Outcome},
        refusal::Refusal,
    },
};

pub(in crate::session::kafka) async fn describe(
    asking: &Asking,
    request: DescribeLogDirsRequest<'_>,
) -> DescribeLogDirsResponse<'static> {
    let image = asking.image();
    let mut asked: BTreeMap<PartitionId, &Topic> = BTreeMap::new();
    match request.topics {
        None => {
            let ready = image.topics().filter(|topic| topic.state == TopicState::Ready);
            for topic in ready {
                let ids = topic.partitions().map(|index| PartitionId { topic: topic.id, index });
                asked.extend(ids.map(|id| (id, &**topic)));
            }
        }
        Some(topics) => {
            for topic in &topics {
                let Ok(found) = find_topic(&image, &topic.topic) else {
                    continue;
                };
                let ids = topic
                    .partitions
                    .iter()
                    .filter_map(|index| partition_of(found, *index).ok());
                asked.extend(ids.map(|id| (id, &**found)));
            }
        }
    }
    let is_own = asking.sessions.core.config.kafka.core_nodes;
    let ids = asked.keys().copied().collect();
    let described = match asking.perform(Op::DescribeLogs(ids, is_own)).await {
        Ok(Outcome::Logs(described)) => described,
        done => {
            let code = done.err().unwrap_or_else(Refusal::stopping).code;
            return DescribeLogDirsResponse {
                error_code: if asking.version >= 3 { asking.tells(code) } else { 0 },
                ..DescribeLogDirsResponse::default()
            };
        }
    };
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for (id, size_bytes) in described.logs {
        let Some(topic) = asked.get(&id) else { continue };
        let name = topic.name.as_str();
        topics.entry(name).or_default().push(DescribeLogDirsPartition {
            partition_index: id.index.get(),
            partition_size: size_bytes.cast_signed(),
            offset_lag: 0,
            is_future_key: false,
        });
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_unstable_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic {
            name: name.to_owned().into(),
            partitions,
        }
    });
    let (total_bytes, usable_bytes) = described
        .disk
        .map_or((-1, -1), |(size, free)| (size.cast_signed(), free.cast_signed()));
    DescribeLogDirsResponse {
        results: vec![DescribeLogDirsResult {
            error_code: ErrorCode::None.as_i16(),
            log_dir: described.directory.into(),
            topics: topics.collect(),
            total_bytes,
            usable_bytes,
            is_cordoned: described.is_cordoned,
        }],
        ..DescribeLogDirsResponse::default()
    }
}
