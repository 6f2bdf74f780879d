//! Groups, as far as administration sees them: each on one core, which alone answers for it.

use std::collections::BTreeMap;

use super::*;

/// A group. It has members if it has a member; what they say of themselves is given as bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::tests) struct Group {
    pub(in crate::tests) members: Vec<schema::DescribedMemberT>,
    pub(in crate::tests) offsets: BTreeMap<(String, i32), i64>,
    /// Answers of the core that runs it to the next requests.
    pub(in crate::tests) errors: VecDeque<ErrorCode>,
}

impl Group {
    fn state(&self) -> String {
        if self.members.is_empty() { "Empty" } else { "Stable" }.to_owned()
    }
}

impl Broker {
    /// The core that runs a group.
    fn core_of_group(&self, group_id: &str) -> u16 {
        group_id.len() as u16 % self.cores
    }

    pub(super) fn answer_for_groups(&self, api: Api, request: &Request) -> Option<Vec<u8>> {
        Some(match api {
            Api::FindGroup => {
                let head = decode::<schema::FindGroupRequest<'_>>(&request.head).unwrap();
                request.reply(&schema::FindGroupResponseT {
                    broker_id: 1,
                    host: Some("broker".into()),
                    core_port: PORT + 1 + self.core_of_group(head.group_id().unwrap()),
                    ..Default::default()
                })
            }
            Api::ListGroups => {
                let state = self.state.lock();
                let listed = state.groups.iter().map(|(id, group)| schema::ListedGroupT {
                    group_id: Some(id.clone()),
                    protocol_type: Some("consumer".into()),
                    state: Some(group.state()),
                    members: 2,
                });
                request.reply(&schema::ListGroupsResponseT {
                    groups: Some(listed.collect()),
                    ..Default::default()
                })
            }
            Api::DescribeGroup => request.reply(&self.describe_group(request)),
            Api::DeleteGroup => request.reply(&self.delete_group(request)),
            Api::OffsetFetch => request.reply(&self.fetch_offsets(request)),
            Api::OffsetCommit => request.reply(&self.commit_offsets(request)),
            Api::OffsetDelete => request.reply(&self.delete_offsets(request)),
            _ => return None,
        })
    }

    /// Runs `act` on the group if it is run by the core behind the request's port.
    fn on_group<T>(
        &self,
        request: &Request,
        group_id: &str,
        act: impl FnOnce(&mut HashMap<String, Group>) -> Result<T, ErrorCode>,
    ) -> Result<T, ErrorCode> {
        if request.port != PORT + 1 + self.core_of_group(group_id) {
            return Err(ErrorCode::NotCoordinator);
        }
        let groups = &mut self.state.lock().groups;
        match groups.get_mut(group_id).and_then(|group| group.errors.pop_front()) {
            Some(error) => Err(error),
            None => act(groups),
        }
    }

    fn describe_group(&self, request: &Request) -> schema::DescribeGroupResponseT {
        let head = decode::<schema::DescribeGroupRequest<'_>>(&request.head).unwrap();
        let id = head.group_id().unwrap();
        let group = self.on_group(request, id, |groups| Ok(groups.get(id).cloned()));
        let error = group.as_ref().err().copied().unwrap_or(ErrorCode::None) as i16;
        let Some(group) = group.ok().flatten() else {
            return schema::DescribeGroupResponseT {
                error,
                state: Some("Dead".into()),
                ..Default::default()
            };
        };
        schema::DescribeGroupResponseT {
            error,
            message: None,
            state: Some(group.state()),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("server-sticky".into()),
            generation: 7,
            members: Some(group.members),
        }
    }

    fn delete_group(&self, request: &Request) -> schema::DeleteGroupResponseT {
        let head = decode::<schema::DeleteGroupRequest<'_>>(&request.head).unwrap();
        let id = head.group_id().unwrap();
        let deleted = self.on_group(request, id, |groups| match groups.get(id) {
            None => Err(ErrorCode::GroupIdNotFound),
            Some(group) if !group.members.is_empty() => Err(ErrorCode::NonEmptyGroup),
            Some(_) => {
                groups.remove(id);
                Ok(())
            }
        });
        schema::DeleteGroupResponseT {
            error: deleted.err().unwrap_or(ErrorCode::None) as i16,
            message: None,
        }
    }

    fn fetch_offsets(&self, request: &Request) -> schema::OffsetFetchResponseT {
        let head = decode::<schema::OffsetFetchRequest<'_>>(&request.head).unwrap();
        assert!(head.topics().is_none(), "administration asks for all");
        let id = head.group_id().unwrap();
        let group = self.on_group(request, id, |groups| Ok(groups.get(id).cloned().unwrap_or_default()));
        let offset = |(key, offset): (&(String, i32), &i64)| schema::CommittedOffsetT {
            topic: Some(key.0.clone()),
            partition: key.1,
            offset: *offset,
            ..Default::default()
        };
        let error = group.as_ref().err().copied().unwrap_or(ErrorCode::None) as i16;
        // Last first: the client puts them in order.
        let offsets = group.iter().flat_map(|group| group.offsets.iter().rev().map(offset));
        schema::OffsetFetchResponseT {
            error,
            message: None,
            offsets: Some(offsets.collect()),
        }
    }

    fn commit_offsets(&self, request: &Request) -> schema::OffsetCommitResponseT {
        let head = decode::<schema::OffsetCommitRequest<'_>>(&request.head)
            .unwrap()
            .unpack();
        let id = head.group_id.unwrap();
        let refused = self.on_group(request, &id, |groups| {
            if head.generation != -1 || head.member_id.is_some_and(|member| !member.is_empty()) {
                return Err(ErrorCode::IllegalGeneration);
            }
            let group = groups.entry(id.clone()).or_default();
            if !group.members.is_empty() {
                return Err(ErrorCode::UnknownMemberId);
            }
            let commit = |offset: &schema::CommittedOffsetT| {
                let topic = offset.topic.clone().unwrap();
                if topic == "refused" {
                    return ErrorCode::UnknownTopicOrPartition as i16;
                }
                group.offsets.insert((topic, offset.partition), offset.offset);
                0
            };
            Ok(head.offsets.iter().flatten().map(commit).collect::<Vec<_>>())
        });
        schema::OffsetCommitResponseT {
            error: refused.as_ref().err().copied().unwrap_or(ErrorCode::None) as i16,
            message: None,
            errors: refused.ok(),
        }
    }

    fn delete_offsets(&self, request: &Request) -> schema::OffsetDeleteResponseT {
        let head = decode::<schema::OffsetDeleteRequest<'_>>(&request.head)
            .unwrap()
            .unpack();
        let id = head.group_id.unwrap();
        let deleted = self.on_group(request, &id, |groups| {
            let group = groups.get_mut(&id).ok_or(ErrorCode::GroupIdNotFound)?;
            let mut errors = Vec::new();
            for topic in head.topics.iter().flatten() {
                let name = topic.topic.clone().unwrap();
                for partition in topic.partitions.iter().flatten() {
                    let known = group.offsets.remove(&(name.clone(), *partition)).is_some();
                    errors.push(if known {
                        0
                    } else {
                        ErrorCode::GroupSubscribedToTopic as i16
                    });
                }
            }
            Ok(errors)
        });
        schema::OffsetDeleteResponseT {
            error: deleted.as_ref().err().copied().unwrap_or(ErrorCode::None) as i16,
            message: None,
            errors: deleted.ok(),
        }
    }
}
