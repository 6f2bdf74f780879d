//! Frames, headers, and the order of answers.

use headwater_kafka::{
    ApiKey,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse,
        fetch_request,
    },
};

use super::wire::{Wire, frame_of};
use crate::support::{Site, run};

fn hello() -> ApiVersionsRequest<'static> {
    ApiVersionsRequest {
        client_software_name: "a.b-c".into(),
        client_software_version: "1.2".into(),
        ..ApiVersionsRequest::default()
    }
}

#[test]
fn what_is_no_request_of_kafkas_protocol_closes_its_connection_and_nothing_else() {
    run(async {
        let site = Site::new().cores(1).set("limits.frame_size_bytes_max", "2MiB");
        let broker = site.start();
        let head = |api: i16, version: i16| {
            let body = [
                &api.to_be_bytes()[..],
                &version.to_be_bytes(),
                &[0, 0, 0, 7, 0xff, 0xff, 0],
            ]
            .concat();
            [&(body.len() as i32).to_be_bytes(), &body[..]].concat()
        };
        let closing: &[(&str, Vec<u8>)] = &[
            ("a negative length", (-1_i32).to_be_bytes().to_vec()),
            ("no length", 0_i32.to_be_bytes().to_vec()),
            ("one byte", vec![0, 0, 0, 1, 0]),
            ("more than is read", (2 * 1024 * 1024 + 1_i32).to_be_bytes().to_vec()),
            ("no client id", vec![0, 0, 0, 8, 0, 18, 0, 0, 0, 0, 0, 1]),
            ("an unknown api", head(9999, 0)),
            ("a negative api", head(-1, 0)),
            ("an api of before", head(4, 0)),
            ("Produce 0, though it is offered", head(0, 0)),
            ("Produce 14", head(0, 14)),
            ("Fetch 3", head(1, 3)),
            ("Metadata 99", head(3, 99)),
            ("an api that is not served", head(71, 0)),
        ];
        let mut beside = Wire::of(&site).await;
        for (what, bytes) in closing {
            let mut wire = Wire::of(&site).await;
            wire.send_bytes(bytes).await;
            assert_eq!(wire.receive().await, None, "{what}");
            let answer: ApiVersionsResponse<'_> = beside.ask(ApiKey::ApiVersions, 4, &hello()).await;
            assert_eq!(answer.error_code, 0, "{what}");
        }
        // What follows a message is passed over.
        let mut longer = frame_of(ApiKey::ApiVersions, 0, 1, &hello());
        longer.extend_from_slice(&[1; 10]);
        longer[3] += 10;
        beside.send_bytes(&longer).await;
        beside
            .response::<ApiVersionsResponse<'_>>(ApiKey::ApiVersions, 0, 1)
            .await;
        broker.stop();
    });
}

#[test]
fn a_client_learns_what_is_offered_whatever_version_it_asks_at() {
    run(async {
        let site = Site::new().cores(1).set("broker.cluster_id", "blue");
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        let mut frame = frame_of(ApiKey::ApiVersions, 5, 9, &hello());
        frame[7] = 99;
        wire.send_bytes(&frame).await;
        // An error at version 0, with one range: that of the request itself.
        assert_eq!(
            wire.receive().await.unwrap(),
            [0, 0, 0, 9, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 5]
        );
        let code = async |wire: &mut Wire, request: &ApiVersionsRequest<'_>| {
            let answer: ApiVersionsResponse<'_> = wire.ask(ApiKey::ApiVersions, 5, request).await;
            assert_eq!(answer.api_keys.is_empty(), answer.error_code != 0);
            answer.error_code
        };
        for name in ["", "a b/c", "-x", "x-", "ü"] {
            let request = ApiVersionsRequest {
                client_software_name: name.into(),
                ..hello()
            };
            assert_eq!(code(&mut wire, &request).await, 42, "{name:?}");
        }
        for (cluster, node, expected) in [
            (None, -1, 0),
            (None, 0, 42),
            (Some("red"), 0, 129),
            (Some("blue"), 7, 129),
            (Some("blue"), 0, 0),
        ] {
            let request = ApiVersionsRequest {
                cluster_id: cluster.map(Into::into),
                node_id: node,
                ..hello()
            };
            assert_eq!(code(&mut wire, &request).await, expected, "{cluster:?} {node}");
        }
        broker.stop();
    });
}

#[test]
fn answers_come_in_the_order_of_the_requests_whatever_takes_long() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        wire.create_topic("quiet", 1, &[]).await;
        let id = wire.topic("quiet").await.topic_id;
        let partition = fetch_request::FetchPartition {
            partition_max_bytes: 1000,
            ..fetch_request::FetchPartition::default()
        };
        let fetch = FetchRequest {
            max_wait_ms: 300,
            min_bytes: 1,
            topics: vec![fetch_request::FetchTopic {
                topic_id: id,
                partitions: vec![partition],
                ..fetch_request::FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let waits = wire.send(ApiKey::Fetch, 18, &fetch).await;
        let metadata = wire.send(ApiKey::Metadata, 9, &MetadataRequest::default()).await;
        let last = wire.send(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default()).await;
        let fetched: FetchResponse<'_> = wire.response(ApiKey::Fetch, 18, waits).await;
        assert_eq!(fetched.responses[0].partitions[0].error_code, 0);
        wire.response::<MetadataResponse<'_>>(ApiKey::Metadata, 9, metadata)
            .await;
        wire.response::<ApiVersionsResponse<'_>>(ApiKey::ApiVersions, 0, last)
            .await;
        broker.stop();
    });
}
