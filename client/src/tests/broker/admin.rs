//! Topics and settings.

use super::*;

impl Broker {
    /// The answer, if the simulated broker knows the request.
    pub(super) fn administer(&self, api: Api, request: &Request) -> Option<Vec<u8>> {
        let none = ErrorCode::None as i16;
        Some(match api {
            Api::CreateTopic => {
                let head = decode::<schema::CreateTopicRequest<'_>>(&request.head).unwrap();
                let name = head.name().unwrap();
                let exists = self.state.lock().topics.contains_key(name);
                let partitions = head.partitions().max(1);
                let error = if exists {
                    ErrorCode::TopicAlreadyExists as i16
                } else {
                    none
                };
                let id = (!exists).then(|| self.create_topic(name, partitions as u16).into());
                request.reply(&schema::CreateTopicResponseT {
                    error,
                    message: None,
                    id,
                    partitions,
                })
            }
            Api::AlterTopic => request.reply(&self.alter_topic(request)),
            Api::DescribeBroker => {
                let setting = |name: &str, value: Option<&str>| schema::ConfigT {
                    name: Some(name.to_owned()),
                    value: value.map(str::to_owned),
                    own: false,
                };
                request.reply(&schema::DescribeBrokerResponseT {
                    broker_id: 1,
                    version: Some("1.2.3".into()),
                    configs: Some(vec![setting("log.level", Some("low")), setting("secret", None)]),
                    ..Default::default()
                })
            }
            Api::DeleteTopic => {
                let head = decode::<schema::DeleteTopicRequest<'_>>(&request.head).unwrap();
                let deleted = self.state.lock().topics.remove(head.name().unwrap()).is_some();
                let error = if deleted {
                    none
                } else {
                    ErrorCode::UnknownTopicOrPartition as i16
                };
                request.reply(&schema::DeleteTopicResponseT { error, message: None })
            }
            _ => return self.answer_for_groups(api, request),
        })
    }

    /// Only the number of partitions means anything here; what configurations were asked for is noted.
    fn alter_topic(&self, request: &Request) -> schema::AlterTopicResponseT {
        let head = decode::<schema::AlterTopicRequest<'_>>(&request.head).unwrap().unpack();
        let mut state = self.state.lock();
        let Some(topic) = state.topics.get_mut(&head.name.unwrap()) else {
            return schema::AlterTopicResponseT {
                error: ErrorCode::UnknownTopicOrPartition as i16,
                ..Default::default()
            };
        };
        let has = topic.partitions.len() as i32;
        let partitions = if head.partitions == -1 { has } else { head.partitions };
        if partitions < has {
            return schema::AlterTopicResponseT {
                error: ErrorCode::InvalidPartitions as i16,
                message: Some("fewer".into()),
                ..Default::default()
            };
        }
        if !head.validate_only {
            topic.partitions.resize_with(partitions as usize, Partition::default);
            let configs = head.configs.into_iter().flatten();
            let configs = configs.map(|config| (config.name.unwrap(), config.value));
            state.altered.extend(configs);
        }
        schema::AlterTopicResponseT {
            partitions,
            ..Default::default()
        }
    }
}
