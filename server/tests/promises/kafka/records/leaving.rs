//! What has come of a client that has left.

use std::time::{Duration, Instant};

use headwater_kafka::{
    ApiKey,
    messages::{
        ApiVersionsRequest, FindCoordinatorRequest, FindCoordinatorResponse, OffsetCommitRequest, OffsetCommitResponse,
        OffsetFetchRequest, OffsetFetchResponse, offset_commit_request,
        offset_fetch_response::OffsetFetchResponseTopic,
    },
};

use super::{fetch, produce};
use crate::{
    kafka::wire::{Wire, frame_of},
    support::{Site, batch, run},
};

/// Commits an offset for nobody's member.
fn commit(topic: &str, offset: i64) -> OffsetCommitRequest<'static> {
    OffsetCommitRequest {
        group_id: "gone".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![offset_commit_request::OffsetCommitRequestTopic {
            name: topic.to_owned().into(),
            partitions: vec![offset_commit_request::OffsetCommitRequestPartition {
                committed_offset: offset,
                ..offset_commit_request::OffsetCommitRequestPartition::default()
            }],
            ..offset_commit_request::OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

#[test]
fn records_that_a_client_sent_before_it_left_and_that_need_no_answer_are_taken_in_and_nothing_else() {
    const CLIENTS: i64 = 20;
    const REQUESTS: i64 = 300;
    run(async {
        let site = Site::new();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        wire.create_topic("gone", 1, &[]).await;
        let topic = ("gone", wire.topic("gone").await.topic_id);
        // The topic of committed offsets is made when somebody asks for a coordinator.
        let find = FindCoordinatorRequest {
            coordinator_keys: vec!["gone".into()],
            ..FindCoordinatorRequest::default()
        };
        let _: FindCoordinatorResponse<'_> = wire.ask(ApiKey::FindCoordinator, 6, &find).await;
        let told: OffsetCommitResponse<'_> = wire.ask(ApiKey::OffsetCommit, 8, &commit("gone", 3)).await;
        assert_eq!(told.topics[0].partitions[0].error_code, 0);
        let mut bytes = Vec::new();
        let records = || batch(&[b"a"]);
        for number in 1..=REQUESTS {
            if number == REQUESTS {
                // By now it is known that nobody is there. Whoever sent these may have been followed by another.
                bytes.extend(frame_of(ApiKey::OffsetCommit, 8, 3, &commit("gone", 1)));
                bytes.extend(frame_of(ApiKey::Produce, 13, 4, &produce(topic, 0, 1, records())));
            }
            // The answer to the first can reach nobody any more, and the second wants none.
            bytes.extend(frame_of(ApiKey::ApiVersions, 0, 1, &ApiVersionsRequest::default()));
            bytes.extend(frame_of(ApiKey::Produce, 13, 2, &produce(topic, 0, 0, records())));
        }
        for _ in 0..CLIENTS {
            let mut client = Wire::of(&site).await;
            client.send_bytes(&bytes).await;
        }
        let end = async |wire: &mut Wire| {
            let found = wire.fetched(18, &fetch(topic, &[(0, 0)])).await;
            found[0].high_watermark
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let end = end(&mut wire).await;
            if end >= CLIENTS * REQUESTS {
                assert_eq!(end, CLIENTS * REQUESTS);
                break;
            }
            assert!(Instant::now() < deadline, "only {end} records are there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let committed = OffsetFetchRequest {
            group_id: "gone".into(),
            topics: None,
            ..OffsetFetchRequest::default()
        };
        let told: OffsetFetchResponse<'_> = wire.ask(ApiKey::OffsetFetch, 7, &committed).await;
        let offset = |topic: &OffsetFetchResponseTopic<'_>| topic.partitions[0].committed_offset;
        assert_eq!(told.topics.iter().map(offset).collect::<Vec<_>>(), [3]);
        broker.stop();
    });
}
