//! What has settings.

use headwater_kafka::messages::{
    ListConfigResourcesRequest, ListConfigResourcesResponse, list_config_resources_response::ConfigResource,
};
use headwater_protocol::error::ErrorCode;

use super::super::asking::Asking;
use crate::{image::TopicState, model::access::Operation, ops::nodes::Places};

/// What it may be. Groups and clients have none here.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

/// Before this version only the settings of clients' metrics could be asked for.
const TYPES_FROM: i16 = 1;

pub(in crate::session::kafka) async fn list(
    asking: &Asking,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse<'static> {
    let kinds = [GROUP, CLIENT_METRICS, BROKER_LOGGER, BROKER, TOPIC];
    let asked = request.resource_types;
    if asked.iter().any(|kind| !kinds.contains(kind)) {
        return ListConfigResourcesResponse {
            error_code: asking.tells(ErrorCode::UnsupportedVersion),
            ..ListConfigResourcesResponse::default()
        };
    }
    if let Err(refusal) = asking.need_cluster(Operation::DescribeConfigs) {
        return ListConfigResourcesResponse {
            error_code: asking.tells(refusal.code),
            ..ListConfigResourcesResponse::default()
        };
    }
    let is_wanted = |kind: i8| asking.version >= TYPES_FROM && (asked.is_empty() || asked.contains(&kind));
    let resource = |name: String, resource_type: i8| ConfigResource {
        resource_name: name.into(),
        resource_type,
    };
    let mut config_resources = Vec::new();
    let nodes = Places::of(asking.ops()).nodes();
    for kind in [BROKER_LOGGER, BROKER].into_iter().filter(|kind| is_wanted(*kind)) {
        config_resources.extend(nodes.iter().map(|node| resource(node.id.to_string(), kind)));
    }
    if is_wanted(TOPIC) {
        let image = asking.image();
        let topics = image.topics().filter(|topic| topic.state == TopicState::Ready);
        config_resources.extend(topics.map(|topic| resource(topic.name.to_string(), TOPIC)));
    }
    ListConfigResourcesResponse {
        config_resources,
        ..ListConfigResourcesResponse::default()
    }
}
