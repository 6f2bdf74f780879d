//! A: what is offered, and frames.

use headwater_kafka::{
    ApiKey,
    messages::{ApiVersionsRequest, ApiVersionsResponse},
};

use super::Look;
use crate::kafka::wire::Wire;

/// A1: each api with its versions.
#[rustfmt::skip]
const KAFKAS: &[(i16, i16, i16)] = &[
    (0, 0, 13), (1, 4, 18), (2, 1, 11), (3, 0, 13), (8, 2, 10), (9, 1, 10), (10, 0, 6), (11, 0, 9), (12, 0, 4), (13, 0, 5), (14, 0, 5),
    (15, 0, 6), (16, 0, 5), (17, 0, 1), (18, 0, 5), (19, 2, 7), (20, 1, 6), (21, 0, 2), (22, 0, 5), (23, 2, 4), (24, 0, 5), (25, 0, 4),
    (26, 0, 5), (27, 1, 2), (28, 0, 6), (29, 1, 3), (30, 1, 3), (31, 1, 3), (32, 1, 4), (33, 0, 2), (34, 1, 2), (35, 1, 5), (36, 0, 2),
    (37, 0, 3), (38, 1, 3), (39, 1, 2), (40, 1, 2), (41, 1, 3), (42, 0, 3), (43, 0, 2), (44, 0, 1), (45, 0, 1), (46, 0, 0), (47, 0, 0),
    (48, 0, 1), (49, 0, 1), (50, 0, 0), (51, 0, 0), (55, 0, 2), (57, 0, 2), (60, 0, 2), (61, 0, 0), (64, 0, 0), (65, 0, 0), (66, 0, 2),
    (68, 0, 1), (69, 0, 1), (74, 0, 1), (75, 0, 0), (76, 1, 1), (77, 1, 1), (78, 1, 2), (79, 1, 2), (80, 0, 1), (81, 0, 0), (83, 0, 0),
    (84, 0, 0), (85, 0, 1), (86, 0, 0), (87, 0, 1), (88, 0, 1), (89, 0, 1), (90, 0, 1), (91, 0, 0), (92, 0, 0), (93, 0, 0), (94, 0, 0),
];

pub async fn look(wire: &mut Wire, look: &mut Look) {
    let hello = ApiVersionsRequest {
        client_software_name: "probe".into(),
        client_software_version: "1".into(),
        ..ApiVersionsRequest::default()
    };
    let offered: ApiVersionsResponse<'_> = wire.ask(ApiKey::ApiVersions, 4, &hello).await;
    look.other(
        "A1",
        "fewer are offered",
        offered.api_keys.len() < KAFKAS.len(),
        (false, true),
    );
    for api in &offered.api_keys {
        if api.api_key == ApiKey::AddPartitionsToTxn.number() {
            look.other("A1", "what brokers ask each other otherwise", api.max_version, (5, 3));
            continue;
        }
        let kafkas = KAFKAS.iter().find(|(key, ..)| *key == api.api_key).copied();
        look.same(
            "A1",
            "versions",
            Some((api.api_key, api.min_version, api.max_version)),
            kafkas,
        );
    }
    let in_order = offered.api_keys.is_sorted_by_key(|api| api.api_key);
    look.same("A1", "the order", in_order, true);
    let metadata = offered
        .finalized_features
        .iter()
        .any(|feature| feature.name == "metadata.version");
    look.other("A2", "metadata.version", metadata, (true, false));
    // Frames: 100 MiB in Kafka, 8 MiB here.
    let mut long = Wire::connect(wire.peer()).await;
    long.send_bytes(&(8 * 1024 * 1024 + 1_i32).to_be_bytes()).await;
    look.other("A6", "8 MiB and a byte", long.receive().await.is_none(), (false, true));
    for (what, client) in [
        ("no client id", None),
        ("an empty one", Some(0)),
        ("the longest", Some(i16::MAX)),
    ] {
        let mut body = [18_i16.to_be_bytes(), 0_i16.to_be_bytes()].concat();
        body.extend(7_i32.to_be_bytes());
        body.extend(client.unwrap_or(-1).to_be_bytes());
        body.extend(vec![b'c'; client.unwrap_or(0) as usize]);
        let frame = [&(body.len() as i32).to_be_bytes()[..], &body].concat();
        let mut wire = Wire::connect(wire.peer()).await;
        wire.send_bytes(&frame).await;
        let answer: ApiVersionsResponse<'_> = wire.response(ApiKey::ApiVersions, 0, 7).await;
        look.same("A9", what, answer.error_code, 0);
    }
}
