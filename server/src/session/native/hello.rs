//! The first exchange on every connection: who the client is, and what the broker speaks.

use headwater_protocol::{
    frame::Api,
    schema::{ApiRangeT, ApiVersionsRequest, ApiVersionsResponseT},
};

use super::{codec, reply::Reply};
use crate::{
    model::refusal::Refusal,
    session::{peer::Connection, sessions::Sessions},
};

/// Says what the broker speaks.
pub(super) fn answer(reply: Reply) {
    let range = |api: &Api| {
        let (version_min, version_max) = api.versions();
        ApiRangeT {
            api: api.as_u16(),
            version_min,
            version_max,
        }
    };
    let Sessions { core, ops, .. } = &*reply.sessions;
    let head = ApiVersionsResponseT {
        apis: Some(Api::REQUESTS.iter().map(range).collect()),
        broker_id: core.config.broker.id.get(),
        cluster_id: Some(ops.addresses.cluster_id.clone()),
        frame_size_max: core.config.limits.frame_size_bytes_max.bytes() as u32,
        batch_size_max: core.config.log.batch_size_bytes_max.bytes() as u32,
        ..ApiVersionsResponseT::default()
    };
    reply.head(&head);
}

/// Learns what the client is called.
pub(super) fn meet(connection: &Connection, head: &[u8]) -> Result<(), Refusal> {
    let hello = codec::read::<ApiVersionsRequest>(head)?;
    let id = hello.client_id().filter(|id| !id.is_empty());
    connection.is_named(id.or(hello.client_name()).unwrap_or_default());
    Ok(())
}
