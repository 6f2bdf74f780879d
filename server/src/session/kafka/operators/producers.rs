//! Who has written to partitions, of those producers that number their batches.

use headwater_kafka::messages::{
    DescribeProducersRequest, DescribeProducersResponse,
    describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
};
use headwater_protocol::{error::ErrorCode, id::Offset};

use super::super::asking::{Asking, partition_of};
use crate::model::{
    access::Operation,
    op::{Op, Outcome},
};

pub(in crate::session::kafka) async fn describe<'a>(
    asking: &Asking,
    request: DescribeProducersRequest<'a>,
) -> DescribeProducersResponse<'a> {
    let mut response = DescribeProducersResponse::default();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for partition_index in topic.partition_indexes {
            let described = of_partition(asking, &topic.name, partition_index).await;
            let (code, active_producers) = match described {
                Ok(producers) => (ErrorCode::None, producers),
                Err(code) => (code, Vec::new()),
            };
            asking.adds(size_of::<PartitionResponse<'_>>() + size_of_val(&active_producers[..]));
            partitions.push(PartitionResponse {
                partition_index,
                error_code: asking.tells(code),
                active_producers,
                ..PartitionResponse::default()
            });
        }
        response.topics.push(TopicResponse {
            name: topic.name,
            partitions,
        });
    }
    response
}

async fn of_partition(asking: &Asking, topic: &str, index: i32) -> Result<Vec<ProducerState>, ErrorCode> {
    asking.part().await?;
    let id = {
        let image = asking.image();
        partition_of(asking.find_topic(&image, topic, Operation::Read)?, index)?
    };
    let described = asking.perform(Op::DescribeProducers(id)).await;
    let Ok(Outcome::Producers(producers)) = described else {
        return Err(described
            .err()
            .map_or(ErrorCode::UnknownServerError, |refusal| refusal.code));
    };
    let state = |producer: headwater_engine::ActiveProducer| ProducerState {
        producer_id: producer.id.get(),
        producer_epoch: producer.epoch.get().into(),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_append.get(),
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.transaction_start.map_or(-1, Offset::as_i64),
    };
    Ok(producers.into_iter().map(state).collect())
}
