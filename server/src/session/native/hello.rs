//! The first exchange on every connection: who the client is, and what the broker speaks.

use headwater_protocol::{
    frame::Api,
    schema::{ApiRangeT, ApiVersionsRequest, ApiVersionsResponseT},
};

use super::{
    codec::head,
    dispatch::{self, Taken},
    reply::Reply,
};
use crate::model::refusal::Refusal;

pub(super) fn answer(reply: Reply, head: &[u8]) -> Taken {
    if let Err(refusal) = read(&reply, head) {
        return dispatch::refused(reply, refusal);
    }
    let range = |api: &Api| {
        let (version_min, version_max) = api.versions();
        ApiRangeT {
            api: api.as_u16(),
            version_min,
            version_max,
        }
    };
    let core = &reply.core;
    let head = ApiVersionsResponseT {
        apis: Some(Api::REQUESTS.iter().map(range).collect()),
        broker_id: core.config.broker.id.get(),
        cluster_id: Some(core.addresses.cluster_id.clone()),
        frame_size_max: core.config.limits.frame_size_bytes_max.bytes() as u32,
        batch_size_max: core.config.log.batch_size_bytes_max.bytes() as u32,
        ..ApiVersionsResponseT::default()
    };
    reply.head(&head);
    Taken::Done
}

fn read(reply: &Reply, head: &[u8]) -> Result<(), Refusal> {
    let hello = head!(ApiVersionsRequest, head);
    let id = hello.client_id().filter(|id| !id.is_empty());
    reply
        .connection
        .is_named(id.or(hello.client_name()).unwrap_or_default());
    Ok(())
}
