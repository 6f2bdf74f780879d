//! What operators see of transactions, and the way to end one in a partition where nobody else does.

use std::collections::BTreeMap;

use headwater_kafka::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest, ListTransactionsResponse,
    WriteTxnMarkersRequest, WriteTxnMarkersResponse,
    describe_transactions_response::{TopicData, TransactionState as Described},
    list_transactions_response::TransactionState as Listed,
    write_txn_markers_response::{
        WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
    },
};
use headwater_protocol::error::ErrorCode;

use super::coordinator::ask;
use crate::{
    machine,
    model::{
        op::{Op, Outcome},
        transaction::{self, Answer, End, Marker, Phase, Producer, Request},
    },
    session::kafka::asking::{Asking, find_topic, partition_of},
};

/// Memory of a compiled pattern.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub(in crate::session::kafka) async fn describe<'a>(
    asking: &Asking,
    request: DescribeTransactionsRequest<'a>,
) -> DescribeTransactionsResponse<'a> {
    let mut response = DescribeTransactionsResponse::default();
    for id in request.transactional_ids {
        let found = match asking.part().await {
            Ok(()) => ask(asking, &id, Request::Describe).await,
            Err(code) => Err(code),
        };
        let told = match found {
            Ok(Answer::Described(found)) => described(found),
            Ok(_) => failed(asking, ErrorCode::UnknownServerError),
            Err(code) => failed(asking, code),
        };
        let topics = told
            .topics
            .iter()
            .map(|topic| topic.topic.len() + 4 * topic.partitions.len());
        asking.adds(size_of::<Described<'_>>() + id.len() + topics.sum::<usize>());
        response.transaction_states.push(Described {
            transactional_id: id,
            ..told
        });
    }
    response
}

fn failed(asking: &Asking, code: ErrorCode) -> Described<'static> {
    Described {
        error_code: asking.tells(code),
        ..Described::default()
    }
}

fn described(found: transaction::Described) -> Described<'static> {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, index) in found.places {
        topics.entry(topic).or_default().push(index);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| TopicData {
        topic: topic.into(),
        partitions,
    });
    Described {
        error_code: 0,
        transactional_id: "".into(),
        transaction_state: found.phase.name().into(),
        transaction_timeout_ms: found.timeout_ms,
        transaction_start_time_ms: found.began.get(),
        producer_id: found.producer.id.get(),
        producer_epoch: found.producer.epoch.get(),
        topics: topics.collect(),
    }
}

pub(in crate::session::kafka) async fn list<'a>(
    asking: &Asking,
    request: ListTransactionsRequest<'a>,
) -> ListTransactionsResponse<'a> {
    let mut response = ListTransactionsResponse::default();
    let of_name = |name: &str| Phase::ALL.into_iter().find(|phase| phase.name() == name);
    let mut wanted = Vec::new();
    for name in request.state_filters {
        match of_name(&name) {
            Some(phase) => wanted.push(phase),
            None => response.unknown_state_filters.push(name),
        }
    }
    if wanted.is_empty() && !response.unknown_state_filters.is_empty() {
        return response;
    }
    let pattern = request.transactional_id_pattern.filter(|pattern| !pattern.is_empty());
    let pattern = match pattern.map(|pattern| compile(&pattern)).transpose() {
        Ok(pattern) => pattern,
        Err(_invalid) => {
            response.error_code = asking.tells(ErrorCode::InvalidRegularExpression);
            return response;
        }
    };
    // Of a broker whose cores are nodes, each is asked.
    let is_own = asking.sessions.core.config.kafka.core_nodes;
    let found = match asking.perform(Op::ListTransactions(is_own)).await {
        Ok(Outcome::Transactions(found)) => found,
        done => {
            let code = done.err().map_or(ErrorCode::UnknownServerError, |refusal| refusal.code);
            response.error_code = asking.tells(code);
            return response;
        }
    };
    let now = machine::wall().get();
    let producers = request.producer_id_filters;
    let duration = request.duration_filter;
    let is_wanted = |found: &transaction::Described| {
        // One that never ran began long ago.
        let has_run_for = now.saturating_sub(found.began.get());
        (wanted.is_empty() || wanted.contains(&found.phase))
            && (producers.is_empty() || producers.contains(&found.producer.id.get()))
            && (duration < 0 || has_run_for > duration)
            && pattern
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(found.id.as_str()))
    };
    let listed = found.into_iter().filter(is_wanted).map(|found| Listed {
        transactional_id: found.id.to_string().into(),
        producer_id: found.producer.id.get(),
        transaction_state: found.phase.name().into(),
    });
    response.transaction_states = listed.collect();
    response
}

/// It must fit the whole id, as in Kafka.
fn compile(pattern: &str) -> Result<regex::Regex, regex::Error> {
    let mut builder = regex::RegexBuilder::new(&format!("^(?:{pattern})$"));
    builder.size_limit(PATTERN_BYTES_MAX).build()
}

pub(in crate::session::kafka) async fn write_markers<'a>(
    asking: &Asking,
    request: WriteTxnMarkersRequest<'a>,
) -> WriteTxnMarkersResponse<'a> {
    let image = asking.image();
    let mut response = WriteTxnMarkersResponse::default();
    for asked in request.markers {
        let marker = Marker {
            producer: Producer::new(asked.producer_id, asked.producer_epoch),
            end: if asked.transaction_result {
                End::Commit
            } else {
                End::Abort
            },
            coordinator_epoch: asked.coordinator_epoch,
            is_raised: asked.transaction_version >= 2,
        };
        let mut topics = Vec::new();
        for topic in asked.topics {
            let mut partitions = Vec::new();
            for partition_index in topic.partition_indexes {
                let place = match asking.part().await {
                    Ok(()) => find_topic(&image, &topic.name).and_then(|topic| partition_of(topic, partition_index)),
                    Err(code) => Err(code),
                };
                // Who may not is told so, whatever there is.
                let ids = place.map(|id| vec![id]);
                let may = asking.perform(Op::Mark(marker, ids.clone().unwrap_or_default())).await;
                let code = match (may, ids) {
                    (Err(refusal), _) => refusal.code,
                    (_, Err(code)) => code,
                    (Ok(Outcome::Marked(codes)), Ok(_)) => {
                        codes.first().copied().unwrap_or(ErrorCode::UnknownServerError)
                    }
                    (Ok(_), Ok(_)) => ErrorCode::UnknownServerError,
                };
                asking.adds(size_of::<WritableTxnMarkerPartitionResult>());
                partitions.push(WritableTxnMarkerPartitionResult {
                    partition_index,
                    error_code: asking.tells(code),
                });
            }
            topics.push(WritableTxnMarkerTopicResult {
                name: topic.name,
                partitions,
            });
        }
        response.markers.push(WritableTxnMarkerResult {
            producer_id: asked.producer_id,
            topics,
        });
    }
    response
}
