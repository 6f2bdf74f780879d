//! Requests of a few bytes that ask for very much.

use headwater_client::ErrorCode;
use headwater_protocol::schema::{
    ListGroupsRequestT, MetadataRequestT, OffsetDeleteRequestT, OffsetFetchRequestT, TopicPartitionsT,
};

use super::{KIND, Setting};
use crate::{
    groups,
    support::{Raw, run},
};

/// One more than a request may list.
const TOO_MANY: usize = (1 << 16) + 1;

#[test]
fn a_topic_that_is_named_many_times_is_described_once() {
    run(async {
        let setting = Setting::new().await;
        let mut raw = setting.connect().await;
        let names = |count| {
            let names = [KIND.topic, "no-such-topic"].into_iter().cycle().take(count);
            Some(names.map(str::to_owned).collect())
        };
        let request = MetadataRequestT {
            topics: names(TOO_MANY - 1),
        };
        let topics = raw.call(&request, &[]).await.metadata().topics.unwrap();
        assert_eq!(topics.len(), 2);
        let described = topics.iter().map(|topic| (topic.name.as_deref().unwrap(), topic.error));
        let unknown = ErrorCode::UnknownTopicOrPartition as i16;
        assert_eq!(
            described.collect::<Vec<_>>(),
            [(KIND.topic, 0), ("no-such-topic", unknown)]
        );
        let request = MetadataRequestT {
            topics: names(TOO_MANY),
        };
        let refused = raw.call(&request, &[]).await.error_response();
        assert_eq!(ErrorCode::from_i16(refused.error), ErrorCode::InvalidRequest);
        assert!(refused.message.unwrap().contains("ask in parts"));
        setting.end().await;
    });
}

#[test]
fn what_a_request_about_offsets_lists_is_bounded_and_so_is_what_it_repeats() {
    run(async {
        let setting = Setting::new().await;
        let mut raw = groups::connect(&setting.site, "g").await;
        let most = places("t", TOO_MANY - 1);
        assert_eq!(
            ask_for_offsets(&mut raw, &most).await,
            [ErrorCode::None, ErrorCode::GroupIdNotFound]
        );
        let too_many = places("t", TOO_MANY);
        assert_eq!(
            ask_for_offsets(&mut raw, &too_many).await,
            [ErrorCode::InvalidRequest; 2]
        );
        // Once for each of its partitions it would come to 32 GiB.
        let long = places(&"x".repeat(1 << 19), TOO_MANY - 1);
        assert_eq!(
            ask_for_offsets(&mut raw, &long).await,
            [ErrorCode::InvalidTopicException; 2]
        );
        let request = ListGroupsRequestT {
            states: Some(vec!["Stable".to_owned(); TOO_MANY]),
        };
        let refused = raw.call(&request, &[]).await.list_groups();
        assert_eq!(ErrorCode::from_i16(refused.error), ErrorCode::InvalidRequest);
        setting.end().await;
    });
}

fn places(topic: &str, count: usize) -> Vec<TopicPartitionsT> {
    let topic = TopicPartitionsT {
        topic: Some(topic.to_owned()),
        partitions: Some(vec![0; count]),
    };
    vec![topic]
}

/// Fetches and deletes the offsets of these places.
async fn ask_for_offsets(raw: &mut Raw, topics: &[TopicPartitionsT]) -> [ErrorCode; 2] {
    let fetch = OffsetFetchRequestT {
        group_id: Some("g".to_owned()),
        topics: Some(topics.to_vec()),
    };
    let fetched = raw.call(&fetch, &[]).await.offset_fetch().error;
    let delete = OffsetDeleteRequestT {
        group_id: Some("g".to_owned()),
        topics: Some(topics.to_vec()),
    };
    let deleted = raw.call(&delete, &[]).await.offset_delete().error;
    [fetched, deleted].map(ErrorCode::from_i16)
}
