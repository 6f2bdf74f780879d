//! Groups of type consumer (KIP-848): the heartbeat that their members do everything with, and what such groups are like.

use std::{collections::BTreeSet, time::Duration};

use headwater_kafka::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, consumer_group_describe_response as describe_response,
    consumer_group_heartbeat_response as heartbeat_response,
};
use headwater_protocol::{error::ErrorCode, id::TopicId};

use super::asking::{Asking, topic_id, uuid_of};
use crate::{
    image::ClusterImage,
    machine,
    model::{
        access::{Operation, ResourceKind},
        bounds,
        consumer::{
            ConsumerGroup, ConsumerHeartbeat, ConsumerMember, JOINS, LEAVES, PAUSES, Reconciled, ServerAssignor, Share,
        },
        group::{Answer, InstanceId, MemberId, Request},
        op::{Op, Outcome},
        refusal::Refusal,
    },
};

/// From this version on a member has an id of its own making.
const OWN_IDS_FROM: i16 = 1;

/// What tells members of this protocol from those of the classic one in a description.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

/// Kafka's words.
const HIDDEN_TOPICS: &str = "The group has described topic(s) that the client is not authorized to describe.";

pub(super) async fn heartbeat(
    asking: &Asking,
    request: ConsumerGroupHeartbeatRequest<'_>,
) -> ConsumerGroupHeartbeatResponse<'static> {
    let may = asking.need(Operation::Read, (ResourceKind::Group, &request.group_id));
    let done = match may.and_then(|()| read(asking, &request)) {
        Ok(beat) => {
            let asked = Op::Group(request.group_id.into_owned(), Request::ConsumerHeartbeat(beat));
            asking.perform(asked).await
        }
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(Outcome::Group(Answer::Reconciled(told))) => response(told),
        done => {
            let refusal = done.err().unwrap_or_else(Refusal::stopping);
            ConsumerGroupHeartbeatResponse {
                error_code: asking.tells(refusal.code),
                error_message: message(&refusal),
                ..ConsumerGroupHeartbeatResponse::default()
            }
        }
    }
}

/// What went wrong, where Kafka says it.
fn message(refusal: &Refusal) -> Option<headwater_kafka::Str<'static>> {
    let is_told = !matches!(
        refusal.code,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::InvalidGroupId
    );
    is_told.then(|| refusal.message.clone().into())
}

fn response(told: Reconciled) -> ConsumerGroupHeartbeatResponse<'static> {
    let assignment = told.assignment.map(|share| heartbeat_response::Assignment {
        topic_partitions: by_topic(&share)
            .map(|(topic, partitions)| heartbeat_response::TopicPartitions {
                topic_id: uuid_of(topic),
                partitions,
            })
            .collect(),
    });
    ConsumerGroupHeartbeatResponse {
        member_id: Some(told.member.to_string().into()),
        member_epoch: told.epoch,
        heartbeat_interval_ms: i32::try_from(told.interval.as_millis()).unwrap_or(i32::MAX),
        assignment,
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

fn by_topic(share: &Share) -> impl Iterator<Item = (TopicId, Vec<i32>)> {
    let mut left = share.iter().copied().peekable();
    std::iter::from_fn(move || {
        let (topic, first) = left.next()?;
        let mut partitions = vec![first];
        while let Some((_, partition)) = left.next_if(|(other, _)| *other == topic) {
            partitions.push(partition);
        }
        Some((topic, partitions))
    })
}

fn invalid(message: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}

/// Refuses what Kafka refuses before it looks at the group, in its words.
fn check(asking: &Asking, request: &ConsumerGroupHeartbeatRequest<'_>) -> Result<(), Refusal> {
    let makes_id = asking.version < OWN_IDS_FROM && request.member_epoch == JOINS;
    if request.member_id.is_empty() && !makes_id {
        return Err(invalid("MemberId can't be empty."));
    }
    if request.group_id.trim().is_empty() {
        return Err(invalid("GroupId can't be empty."));
    }
    let is_blank = |text: &Option<headwater_kafka::Str<'_>>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    if is_blank(&request.instance_id) {
        return Err(invalid("InstanceId can't be empty."));
    }
    if is_blank(&request.rack_id) {
        return Err(invalid("RackId can't be empty."));
    }
    match request.member_epoch {
        JOINS => {
            if request.rebalance_timeout_ms == -1 {
                return Err(invalid("RebalanceTimeoutMs must be provided in first request."));
            }
            if request.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return Err(invalid("TopicPartitions must be empty when (re-)joining."));
            }
            if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
                let message = "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.";
                return Err(invalid(message));
            }
        }
        PAUSES if request.instance_id.is_none() => return Err(invalid("InstanceId can't be null.")),
        epoch if epoch < LEAVES && epoch != PAUSES => return Err(invalid("MemberEpoch is invalid.")),
        _ => {}
    }
    Ok(())
}

fn read(asking: &Asking, request: &ConsumerGroupHeartbeatRequest<'_>) -> Result<ConsumerHeartbeat, Refusal> {
    check(asking, request)?;
    let assignor = match request.server_assignor.as_deref() {
        Some(name) => Some(ServerAssignor::named(name).ok_or_else(|| unsupported(name))?),
        None => None,
    };
    let member = if request.member_id.is_empty() {
        MemberId::new(machine::uuid().to_string())
    } else {
        MemberId::new(&*request.member_id)
    };
    let (names, owned) = (&request.subscribed_topic_names, &request.topic_partitions);
    bounds::check_items("topics", names.as_ref().map_or(0, Vec::len))?;
    let partitions = owned.iter().flatten().map(|topic| topic.partitions.len());
    bounds::check_items("partitions", partitions.sum())?;
    let topics = names.as_ref().map(|names| {
        let names = names.iter().map(ToString::to_string);
        names.collect::<BTreeSet<String>>()
    });
    let owned = owned.as_ref().map(|owned| {
        let spots = owned.iter().flat_map(|topic| {
            let id = topic_id(topic.topic_id);
            topic.partitions.iter().map(move |partition| (id, *partition))
        });
        spots.collect::<Share>()
    });
    let timeout = u64::try_from(request.rebalance_timeout_ms).ok();
    Ok(ConsumerHeartbeat {
        member,
        epoch: request.member_epoch,
        instance: request.instance_id.as_deref().map(InstanceId::new),
        rack: request.rack_id.as_deref().map(str::to_owned),
        client: (*asking.connection.client()).clone(),
        // At once is as soon as there is time at all.
        rebalance_timeout: timeout.map(|millis| Duration::from_millis(millis.max(1))),
        topics,
        pattern: request.subscribed_topic_regex.as_deref().map(str::to_owned),
        assignor,
        owned,
    })
}

fn unsupported(name: &str) -> Refusal {
    let known = ServerAssignor::ALL.map(ServerAssignor::name).join(", ");
    let message = format!("ServerAssignor {name} is not supported. Supported assignors: {known}.");
    Refusal::new(ErrorCode::UnsupportedAssignor, message)
}

pub(super) async fn describe<'a>(
    asking: &Asking,
    request: ConsumerGroupDescribeRequest<'a>,
) -> ConsumerGroupDescribeResponse<'a> {
    let mut response = ConsumerGroupDescribeResponse::default();
    for group in request.group_ids {
        let done = match asking.part().await {
            Ok(()) => {
                let asked = Op::Group(group.clone().into_owned(), Request::DescribeConsumers);
                asking.perform(asked).await
            }
            Err(code) => Err(Refusal::new(code, "too much is asked for at once")),
        };
        let told = match done {
            Ok(Outcome::Group(Answer::DescribedConsumers(described))) if !may_describe(asking, &described) => {
                describe_response::DescribedGroup {
                    error_code: asking.tells(ErrorCode::TopicAuthorizationFailed),
                    error_message: Some(HIDDEN_TOPICS.into()),
                    ..describe_response::DescribedGroup::default()
                }
            }
            Ok(Outcome::Group(Answer::DescribedConsumers(described))) => describe_response::DescribedGroup {
                authorized_operations: asking
                    .operations(request.include_authorized_operations, (ResourceKind::Group, &group)),
                ..description(described, &asking.image())
            },
            done => {
                let refusal = done.err().unwrap_or_else(Refusal::stopping);
                describe_response::DescribedGroup {
                    error_code: asking.tells(refusal.code),
                    error_message: message(&refusal),
                    ..describe_response::DescribedGroup::default()
                }
            }
        };
        asking.adds(size_of_group(&told) + group.len());
        response.groups.push(describe_response::DescribedGroup {
            group_id: group,
            ..told
        });
    }
    response
}

/// Whether whoever asks may know of all topics that a description names.
fn may_describe(asking: &Asking, described: &ConsumerGroup) -> bool {
    if !asking.ops().access.is_on() {
        return true;
    }
    let image = asking.image();
    let may = |name: &str| asking.may(Operation::Describe, (ResourceKind::Topic, name));
    let may_all = |share: &Share| {
        let mut topics = share.iter().filter_map(|(topic, _)| image.topic_by_id(*topic));
        topics.all(|topic| may(topic.name.as_str()))
    };
    let mut members = described.members.iter();
    members.all(|member| {
        may_all(&member.assigned) && may_all(&member.target) && member.topics.iter().all(|name| may(name))
    })
}

/// What the answer for one group takes, about, in bytes.
fn size_of_group(told: &describe_response::DescribedGroup<'_>) -> usize {
    let of_assignment = |assignment: &describe_response::Assignment<'_>| -> usize {
        let topics = assignment.topic_partitions.iter();
        topics
            .map(|topic| size_of_val(topic) + topic.topic_name.len() + 4 * topic.partitions.len())
            .sum()
    };
    let members = told.members.iter().map(|member| {
        let names = member.member_id.len() + member.client_id.len() + member.client_host.len();
        let topics: usize = member
            .subscribed_topic_names
            .iter()
            .map(|name| size_of_val(name) + name.len())
            .sum();
        size_of_val(member)
            + names
            + topics
            + of_assignment(&member.assignment)
            + of_assignment(&member.target_assignment)
    });
    size_of_val(told) + members.sum::<usize>()
}

fn description(described: ConsumerGroup, image: &ClusterImage) -> describe_response::DescribedGroup<'static> {
    let assignment = |share: &Share| describe_response::Assignment {
        topic_partitions: by_topic(share)
            .filter_map(|(topic, partitions)| {
                Some(describe_response::TopicPartitions {
                    topic_id: uuid_of(topic),
                    // Of a topic that is gone nothing is told.
                    topic_name: image.topic_by_id(topic)?.name.to_string().into(),
                    partitions,
                })
            })
            .collect(),
    };
    let member = |member: ConsumerMember| describe_response::Member {
        assignment: assignment(&member.assigned),
        target_assignment: assignment(&member.target),
        member_id: member.id.to_string().into(),
        instance_id: member.instance.map(|instance| instance.to_string().into()),
        rack_id: member.rack.map(Into::into),
        member_epoch: member.epoch,
        client_id: member.client.id.into(),
        client_host: format!("/{}", member.client.host).into(),
        subscribed_topic_names: member.topics.into_iter().map(Into::into).collect(),
        subscribed_topic_regex: member.pattern.map(Into::into),
        member_type: if member.is_classic {
            CLASSIC_MEMBER
        } else {
            CONSUMER_MEMBER
        },
    };
    describe_response::DescribedGroup {
        group_state: described.state.into(),
        group_epoch: described.epoch,
        assignment_epoch: described.target_epoch,
        assignor_name: described.assignor.name().into(),
        members: described.members.into_iter().map(member).collect(),
        ..describe_response::DescribedGroup::default()
    }
}
