//! Offsets of groups that are committed within transactions.

use headwater_kafka::{
    Str, Uuid,
    messages::{
        AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        txn_offset_commit_request::TxnOffsetCommitRequestPartition,
        txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
    },
};
use headwater_protocol::{error::ErrorCode, id::LeaderEpoch};

use super::coordinator::{FENCED_FROM, ask, denied, fenced};
use crate::{
    model::{
        access::{Operation, ResourceKind},
        group::{self, CommitItem, Generation, Identity, InstanceId, MemberId},
        op::{Op, Outcome},
        transaction::{Adding, Answer, Producer, Request},
    },
    ops::transactions::{self, Within},
    session::kafka::asking::{Asking, check_name, find_topic_by_id},
};

/// From this version on the broker makes the group part of the transaction (KIP-890).
const ADDS_FROM: i16 = 5;

/// From this version on topics have ids in the place of names.
const IDS_FROM: i16 = 6;

/// Makes a group part of a transaction: it gets offsets in it.
pub(in crate::session::kafka) async fn add_offsets(
    asking: &Asking,
    request: AddOffsetsToTxnRequest<'_>,
) -> AddOffsetsToTxnResponse {
    let denied = denied(
        asking,
        Operation::Write,
        ResourceKind::TransactionalId,
        &request.transactional_id,
    )
    .or_else(|| denied(asking, Operation::Read, ResourceKind::Group, &request.group_id));
    let added = match denied {
        Some(code) => Err(code),
        None => add(asking, &request).await,
    };
    let code = added.err().unwrap_or(ErrorCode::None);
    AddOffsetsToTxnResponse {
        error_code: asking.tells(fenced(asking, code, FENCED_FROM)),
        ..AddOffsetsToTxnResponse::default()
    }
}

async fn add(asking: &Asking, request: &AddOffsetsToTxnRequest<'_>) -> Result<(), ErrorCode> {
    let find = || transactions::place_of_group(&asking.image(), &request.group_id);
    if find().is_err() {
        // Its topic is made with the first group.
        let found = asking.perform(Op::FindGroup(request.group_id.to_string())).await;
        found.map_err(|refusal| refusal.code)?;
    }
    let (place, _) = find()?;
    let asked = Request::Add {
        producer: Producer::new(request.producer_id, request.producer_epoch),
        places: vec![place],
        adding: Adding::Add,
    };
    match ask(asking, &request.transactional_id, asked).await? {
        Answer::Added(_) => Ok(()),
        _ => Err(ErrorCode::UnknownServerError),
    }
}

pub(in crate::session::kafka) async fn commit_offsets<'a>(
    asking: &Asking,
    request: TxnOffsetCommitRequest<'a>,
) -> TxnOffsetCommitResponse<'a> {
    let of_all = denied(
        asking,
        Operation::Write,
        ResourceKind::TransactionalId,
        &request.transactional_id,
    )
    .or_else(|| denied(asking, Operation::Read, ResourceKind::Group, &request.group_id));
    let mut items = Vec::new();
    let mut topics = Vec::new();
    for topic in request.topics {
        let named = match of_all {
            Some(code) => Err(code),
            None => name_of(asking, &topic.name, topic.topic_id),
        };
        if let Ok(name) = &named {
            items.extend(topic.partitions.iter().map(|partition| item(name, partition)));
        }
        topics.push((named.err(), (topic.name, topic.topic_id), topic.partitions));
    }
    let who = Identity {
        generation: Generation::new(request.generation_id_or_member_epoch),
        member: MemberId::new(&*request.member_id),
        instance: request.group_instance_id.map(|id| InstanceId::new(&*id)),
    };
    let within = Within {
        id: request.transactional_id.into_owned(),
        producer: Producer::new(request.producer_id, request.producer_epoch),
        adding: if asking.version >= ADDS_FROM {
            Adding::Add
        } else {
            Adding::Verify
        },
    };
    let done = if items.is_empty() {
        Ok(Vec::new())
    } else {
        commit(asking, request.group_id.into_owned(), (who, &within), items).await
    };
    let mut codes = done.as_ref().map(|codes| codes.iter().copied());
    let mut next = || match &mut codes {
        Ok(codes) => codes.next().unwrap_or(ErrorCode::UnknownServerError),
        Err(code) => **code,
    };
    let told = topics.into_iter().map(|(unknown, (name, topic_id), partitions)| {
        let partitions = partitions
            .into_iter()
            .map(|partition| TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: asking.tells(unknown.unwrap_or_else(&mut next)),
            });
        TxnOffsetCommitResponseTopic {
            name,
            topic_id,
            partitions: partitions.collect(),
        }
    });
    TxnOffsetCommitResponse {
        topics: told.collect(),
        ..TxnOffsetCommitResponse::default()
    }
}

fn name_of(asking: &Asking, name: &str, id: Uuid) -> Result<String, ErrorCode> {
    let name = if asking.version < IDS_FROM {
        check_name(name)?;
        name.to_owned()
    } else {
        find_topic_by_id(&asking.image(), id)?.name.to_string()
    };
    match denied(asking, Operation::Read, ResourceKind::Topic, &name) {
        Some(code) => Err(code),
        None => Ok(name),
    }
}

fn item(topic: &str, partition: &TxnOffsetCommitRequestPartition<'_>) -> CommitItem {
    let metadata: Option<&Str<'_>> = partition.committed_metadata.as_ref();
    CommitItem {
        topic: topic.to_owned(),
        partition: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: LeaderEpoch::new(partition.committed_leader_epoch),
        metadata: metadata.map(ToString::to_string).unwrap_or_default(),
    }
}

async fn commit(
    asking: &Asking,
    group: String,
    (who, within): (Identity, &Within),
    items: Vec<CommitItem>,
) -> Result<Vec<ErrorCode>, ErrorCode> {
    let admitted = transactions::admit_group(asking.ops(), &group, within).await;
    admitted.map_err(|code| code_of(asking, code))?;
    let request = group::Request::CommitIn(within.producer, who, items);
    match asking.perform(Op::Group(group, request)).await {
        Ok(Outcome::Group(group::Answer::Committed(codes))) => Ok(codes),
        Ok(_) => Err(ErrorCode::UnknownServerError),
        Err(refusal) => Err(refusal.code),
    }
}

/// Why the group is not part of the transaction, in the terms of those who commit.
fn code_of(asking: &Asking, code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::ConcurrentTransactions if asking.version >= ADDS_FROM => code,
        // To be asked again. That the transactions' coordinator has moved is nothing that who asks the group's can mend.
        ErrorCode::ConcurrentTransactions | ErrorCode::NotCoordinator | ErrorCode::NetworkException => {
            ErrorCode::CoordinatorLoadInProgress
        }
        code => code,
    }
}
