//! Transactions of producers: how they begin, what is made part of them, how they end, and what operators see of them.

mod coordinator;
mod offsets;
mod operators;

pub(super) use offsets::{add_offsets, commit_offsets};
pub(super) use operators::{describe, list, write_markers};

use headwater_kafka::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse,
    add_partitions_to_txn_request::AddPartitionsToTxnTopic,
    add_partitions_to_txn_response::{AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult},
};
use headwater_protocol::error::ErrorCode;

use self::coordinator::{FENCED_FROM, ask, fenced};
use super::asking::{Asking, partition_of};
use crate::model::{
    access::{Operation, ResourceKind},
    internal::is_internal,
    transaction::{Adding, Answer, End, Place, Producer, Request},
};

/// From this version on clients that begin know of producers that are fenced.
const INIT_FENCED_FROM: i16 = 4;

/// From this version on the producer goes on with another epoch after each transaction (KIP-890).
const END_BUMPS_FROM: i16 = 5;

/// A producer that calls its transactions so begins, and what its former self left open is aborted.
pub(super) async fn init(asking: &Asking, id: &str, request: &InitProducerIdRequest<'_>) -> InitProducerIdResponse {
    let refused = |code| InitProducerIdResponse {
        error_code: asking.tells(fenced(asking, code, INIT_FENCED_FROM)),
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    let known = Producer::new(request.producer_id, request.producer_epoch);
    let is_known = known != Producer::NONE;
    if is_known && (request.producer_id < 0 || request.producer_epoch < 0) {
        return refused(ErrorCode::InvalidRequest);
    }
    let request = Request::Init {
        timeout_ms: request.transaction_timeout_ms,
        known: is_known.then_some(known),
        fresh: None,
    };
    match ask(asking, id, request).await {
        Ok(Answer::Producer(producer)) => InitProducerIdResponse {
            producer_id: producer.id.get(),
            producer_epoch: producer.epoch.get(),
            ..InitProducerIdResponse::default()
        },
        Ok(_) => refused(ErrorCode::UnknownServerError),
        Err(code) => refused(code),
    }
}

pub(super) async fn add_partitions<'a>(
    asking: &Asking,
    request: AddPartitionsToTxnRequest<'a>,
) -> AddPartitionsToTxnResponse<'a> {
    let id = request.v3_and_below_transactional_id;
    let producer = Producer::new(request.v3_and_below_producer_id, request.v3_and_below_producer_epoch);
    let topics = request.v3_and_below_topics;
    let may = asking.need(Operation::Write, (ResourceKind::TransactionalId, &id));
    let codes = match may {
        Ok(()) => add(asking, &id, producer, &topics).await,
        Err(refusal) => Err(refusal.code),
    };
    let mut codes = codes.as_ref().map(|codes| codes.iter().copied());
    let mut results = Vec::with_capacity(topics.len());
    for topic in topics {
        let partitions = topic.partitions.into_iter().map(|partition_index| {
            let code = match &mut codes {
                Ok(codes) => codes.next().unwrap_or(ErrorCode::UnknownServerError),
                Err(code) => **code,
            };
            AddPartitionsToTxnPartitionResult {
                partition_index,
                partition_error_code: asking.tells(fenced(asking, code, FENCED_FROM)),
            }
        });
        results.push(AddPartitionsToTxnTopicResult {
            results_by_partition: partitions.collect(),
            name: topic.name,
        });
    }
    AddPartitionsToTxnResponse {
        results_by_topic_v3_and_below: results,
        ..AddPartitionsToTxnResponse::default()
    }
}

/// One code for each partition, or one for all. If one may not be added, none is.
async fn add(
    asking: &Asking,
    id: &str,
    producer: Producer,
    topics: &[AddPartitionsToTxnTopic<'_>],
) -> Result<Vec<ErrorCode>, ErrorCode> {
    let image = asking.image();
    let (mut places, mut codes): (Vec<Place>, Vec<ErrorCode>) = (Vec::new(), Vec::new());
    for topic in topics {
        asking.part().await?;
        let found = match asking.find_topic(&image, &topic.name, Operation::Write) {
            Ok(_) if is_internal(&topic.name) => Err(ErrorCode::TopicAuthorizationFailed),
            found => found,
        };
        for index in &topic.partitions {
            let code = found.and_then(|topic| partition_of(topic, *index)).err();
            codes.push(code.unwrap_or(ErrorCode::None));
            places.push((topic.name.to_string(), *index));
        }
    }
    if codes.iter().any(|code| !code.is_none()) {
        let told = |code: ErrorCode| {
            if code.is_none() {
                ErrorCode::OperationNotAttempted
            } else {
                code
            }
        };
        return Ok(codes.into_iter().map(told).collect());
    }
    let request = Request::Add {
        producer,
        places,
        adding: Adding::Add,
    };
    match ask(asking, id, request).await? {
        Answer::Added(codes) => Ok(codes),
        _ => Err(ErrorCode::UnknownServerError),
    }
}

pub(super) async fn end(asking: &Asking, request: EndTxnRequest<'_>) -> EndTxnResponse {
    let end = if request.committed { End::Commit } else { End::Abort };
    let asked = Request::End {
        producer: Producer::new(request.producer_id, request.producer_epoch),
        end,
        bumps: asking.version >= END_BUMPS_FROM,
        fresh: None,
    };
    let ended = match ask(asking, &request.transactional_id, asked).await {
        Ok(Answer::Ended(producer)) => Ok(producer),
        Ok(_) => Err(ErrorCode::UnknownServerError),
        Err(code) => Err(fenced(asking, code, FENCED_FROM)),
    };
    match ended {
        Ok(producer) => EndTxnResponse {
            producer_id: producer.id.get(),
            producer_epoch: producer.epoch.get(),
            ..EndTxnResponse::default()
        },
        Err(code) => EndTxnResponse {
            error_code: asking.tells(code),
            producer_id: -1,
            producer_epoch: -1,
            ..EndTxnResponse::default()
        },
    }
}
