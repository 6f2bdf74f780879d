//! From a frame to whoever answers it: checks api and version, verifies the head, and starts the answer.

use std::{pin::pin, rc::Rc, time::Instant};

use futures::{
    FutureExt,
    future::{Either, LocalBoxFuture, select},
};
use headwater_protocol::{
    error::ErrorCode,
    frame::Api,
    head::{self, HeadError},
    id::CorrelationId,
    schema::{
        AlterTopicRequest, ApiVersionsRequest, CreateTopicRequest, DeleteGroupRequest, DeleteRecordsRequest,
        DeleteTopicRequest, DescribeBrokerRequest, DescribeGroupRequest, DescribeTopicRequest, FetchRequest,
        FindGroupRequest, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
        ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest,
        OffsetFetchRequest, ProduceRequest, SyncGroupRequest,
    },
};

use crate::{
    core::Core,
    machine,
    model::refusal::Refusal,
    ops::{admin, fetch, groups, offsets, produce},
    session::{
        connection::Connection,
        native::{frame::Frame, reply},
        outbox::{RequestLease, Response},
    },
};

/// What became of a frame.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is answered, or will be.
    Done,
    /// It cannot be answered, for this reason, and the client must learn that something is wrong.
    Close(String),
}

/// A request with its way back.
struct Request<'a> {
    core: &'a Rc<Core>,
    connection: &'a Rc<Connection>,
    id: CorrelationId,
    lease: RequestLease,
}

/// Takes a request in. Only the append of a produce request happens before this returns.
pub(crate) async fn take(
    core: &Rc<Core>,
    connection: &Rc<Connection>,
    frame: &Frame<'_>,
    lease: RequestLease,
) -> Taken {
    let request = Request {
        core,
        connection,
        id: frame.header.correlation_id,
        lease,
    };
    let Some(api) = Api::from_u16(frame.header.api).filter(|api| *api != Api::Error) else {
        let message = format!("api {} is not known", frame.header.api);
        return request.refuse(&Refusal::new(ErrorCode::UnsupportedVersion, message));
    };
    let (oldest, newest) = api.versions();
    let version = frame.header.version;
    if version < oldest || version > newest {
        let message = format!("version {version} of {api:?} is not supported; supported are {oldest} to {newest}");
        return request.refuse(&Refusal::new(ErrorCode::UnsupportedVersion, message));
    }
    core.metrics.received(api, frame.header.frame_len() as u64);
    if api == Api::Produce {
        return match head::decode::<ProduceRequest>(frame.head) {
            Ok(head) => produce::take(core, connection, request.id, head, frame.payload, request.lease).await,
            Err(error) => request.refuse(&malformed(&error)),
        };
    }
    if !frame.payload.is_empty() {
        let message = format!(
            "{api:?} has no payload, but {} bytes follow its head",
            frame.payload.len()
        );
        return request.refuse(&Refusal::new(ErrorCode::InvalidRequest, message));
    }
    request.start(api, frame.head)
}

fn malformed(error: &HeadError) -> Refusal {
    Refusal::because(ErrorCode::InvalidRequest, &error)
}

impl Request<'_> {
    fn refuse(self, refusal: &Refusal) -> Taken {
        let head = reply::error(self.id, refusal.code, &refusal.message);
        self.connection.outbox.push(Response::of(head), self.lease);
        Taken::Done
    }

    fn start(self, api: Api, head: &[u8]) -> Taken {
        match answer(&self, api, head) {
            Ok(Answer::Now(response)) => self.connection.outbox.push(response, self.lease),
            Ok(Answer::Later(answer)) => {
                let (connection, mut lease, working) = (Rc::clone(self.connection), self.lease, self.core.working());
                machine::spawn(async move {
                    let (turn, answer) = match api {
                        // It may wait for long, and its response is not much larger than itself.
                        Api::Fetch => (None, Some(answer.await)),
                        // A member waits for the others of its group, and sends heartbeats meanwhile.
                        Api::JoinGroup | Api::SyncGroup => {
                            lease.give_bytes_back();
                            (None, unless_ending(&connection, answer).await)
                        }
                        _ => {
                            let turn = connection.turn().await;
                            let is_wanted = !connection.outbox.is_closed() || changes_something(api);
                            let answer = if is_wanted { Some(answer.await) } else { None };
                            (Some(turn), answer)
                        }
                    };
                    if let Some(answer) = answer {
                        connection.outbox.push(answer, lease);
                    }
                    drop((turn, working));
                });
            }
            Err(refusal) => return self.refuse(&refusal),
        }
        Taken::Done
    }
}

/// The answer, unless the client sends nothing more before it is there.
async fn unless_ending(connection: &Connection, answer: LocalBoxFuture<'static, Response>) -> Option<Response> {
    match select(answer, pin!(connection.ending())).await {
        Either::Left((answer, _)) => Some(answer),
        Either::Right(_) => None,
    }
}

/// Whether a request stands though nobody waits for its answer any more.
fn changes_something(api: Api) -> bool {
    !matches!(
        api,
        Api::ListOffsets
            | Api::DescribeTopic
            | Api::DescribeBroker
            | Api::OffsetFetch
            | Api::ListGroups
            | Api::DescribeGroup
    )
}

enum Answer {
    Now(Response),
    /// From a task of its own.
    Later(LocalBoxFuture<'static, Response>),
}

/// Verifies the head, copies out of it what the answer needs, and begins the answer.
fn answer(request: &Request<'_>, api: Api, bytes: &[u8]) -> Result<Answer, Refusal> {
    macro_rules! decode {
        ($table:ty) => {
            head::decode::<$table>(bytes).map_err(|error| malformed(&error))?
        };
    }
    let (core, id) = (Rc::clone(request.core), request.id);
    let later = match api {
        Api::ApiVersions => {
            let hello = decode!(ApiVersionsRequest);
            let id = hello.client_id().filter(|id| !id.is_empty());
            request
                .connection
                .is_named(id.or(hello.client_name()).unwrap_or_default());
            return Ok(Answer::Now(admin::api_versions(&core, request.id)));
        }
        Api::Metadata => {
            let names = admin::read_metadata(decode!(MetadataRequest))?;
            return Ok(Answer::Now(admin::metadata(&core, id, names)));
        }
        Api::Fetch => {
            let call = fetch::read(&core, decode!(FetchRequest), Instant::now())?;
            let connection = Rc::clone(request.connection);
            async move { fetch::answer(&core, &connection, id, call).await }.boxed_local()
        }
        Api::ListOffsets => {
            let items = offsets::read_list(decode!(ListOffsetsRequest))?;
            async move { offsets::answer_list(&core, id, items).await }.boxed_local()
        }
        Api::DeleteRecords => {
            let call = offsets::read_delete(decode!(DeleteRecordsRequest))?;
            async move { offsets::answer_delete(&core, id, call).await }.boxed_local()
        }
        Api::CreateTopic => {
            let new = decode!(CreateTopicRequest).unpack();
            async move { admin::create_topic(&core, id, new).await }.boxed_local()
        }
        Api::AlterTopic => {
            let request = decode!(AlterTopicRequest).unpack();
            async move { admin::alter_topic(&core, id, request).await }.boxed_local()
        }
        Api::DescribeBroker => {
            decode!(DescribeBrokerRequest);
            async move { admin::describe_broker(&core, id).await }.boxed_local()
        }
        Api::DeleteTopic => {
            let name = decode!(DeleteTopicRequest).name().unwrap_or_default().to_owned();
            async move { admin::delete_topic(&core, id, name).await }.boxed_local()
        }
        Api::DescribeTopic => {
            let name = decode!(DescribeTopicRequest).name().unwrap_or_default().to_owned();
            async move { admin::describe_topic(&core, id, name).await }.boxed_local()
        }
        Api::InitProducerId => {
            let known = decode!(InitProducerIdRequest).unpack();
            async move { admin::init_producer_id(&core, id, known).await }.boxed_local()
        }
        Api::Produce | Api::Error => unreachable!("dealt with before"),
        _ => return group_answer(request, api, bytes),
    };
    Ok(Answer::Later(later))
}

/// The same for requests about groups.
fn group_answer(request: &Request<'_>, api: Api, bytes: &[u8]) -> Result<Answer, Refusal> {
    macro_rules! decode {
        ($table:ty) => {
            head::decode::<$table>(bytes)
                .map_err(|error| malformed(&error))?
                .unpack()
        };
    }
    let (core, id) = (Rc::clone(request.core), request.id);
    let later = match api {
        Api::FindGroup => groups::find_group(core, id, decode!(FindGroupRequest).group_id).boxed_local(),
        Api::JoinGroup => {
            let client = request.connection.client.borrow().clone();
            groups::join(core, id, client, decode!(JoinGroupRequest)).boxed_local()
        }
        Api::SyncGroup => groups::sync(core, id, decode!(SyncGroupRequest)).boxed_local(),
        Api::Heartbeat => groups::heartbeat(core, id, decode!(HeartbeatRequest)).boxed_local(),
        Api::LeaveGroup => groups::leave(core, id, decode!(LeaveGroupRequest)).boxed_local(),
        Api::OffsetCommit => groups::commit(core, id, decode!(OffsetCommitRequest)).boxed_local(),
        Api::OffsetFetch => groups::fetch_offsets(core, id, decode!(OffsetFetchRequest)).boxed_local(),
        Api::OffsetDelete => groups::delete_offsets(core, id, decode!(OffsetDeleteRequest)).boxed_local(),
        Api::ListGroups => groups::list_groups(core, id, decode!(ListGroupsRequest)).boxed_local(),
        Api::DescribeGroup => groups::describe_group(core, id, decode!(DescribeGroupRequest).group_id).boxed_local(),
        Api::DeleteGroup => groups::delete_group(core, id, decode!(DeleteGroupRequest).group_id).boxed_local(),
        _ => unreachable!("every other api is dealt with before"),
    };
    Ok(Answer::Later(later))
}
