//! Produce: look at the records, append, answer when durable.
//!
//! The append happens while the frame is being taken in, so the order of arrival on a connection is the order in the log; only the
//! wait for the disk is a task. Looking at compressed records takes long: it is done in turns with other tasks, on the connection's
//! core. acks 1 and -1 are the same with one replica: both wait until the records are on stable storage.

use std::{cell::RefCell, rc::Rc, time::Instant};

use headwater_engine::{AppendError, Appended, Vetted, VettedBytes};
use headwater_protocol::{
    batch::BatchLimits,
    error::ErrorCode,
    id::{CorrelationId, PartitionIndex, Timestamp, TopicId},
    schema::{ProduceRequest, ProduceResponseT},
};

use crate::{
    core::{
        Core,
        budget::Lease,
        mesh::{CoreMessage, Forward, Reply},
    },
    machine,
    metrics::{Refused, Stage},
    model::{id::PartitionId, records::Produced, refusal::Refusal},
    session::{
        connection::Connection,
        native::{dispatch::Taken, reply},
        outbox::{RequestLease, Response},
    },
};

/// Whether a client wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acks {
    None,
    Durable,
}

/// Takes in a produce request whose head has been verified.
pub(crate) async fn take(
    core: &Rc<Core>,
    connection: &Rc<Connection>,
    correlation_id: CorrelationId,
    request: ProduceRequest<'_>,
    payload: &[u8],
    lease: RequestLease,
) -> Taken {
    let answer = Answer {
        connection: Rc::clone(connection),
        correlation_id,
        lease,
    };
    let acks = match request.acks() {
        0 => Acks::None,
        1 | -1 => Acks::Durable,
        other => {
            let message = format!("acks is {other}; it may be 0 (none), 1 (leader) or -1 (all)");
            answer.send(Err(Refusal::new(ErrorCode::InvalidRequiredAcks, message)));
            return Taken::Done;
        }
    };
    let id = match partition_id(&request) {
        Ok(id) => id,
        Err(refusal) => return answer.refuse(acks, refusal),
    };
    let owner = id.owner(core.mesh.len());
    // A future of its own: it is large, and every connection, idle ones too, would hold the space for it.
    let vetted = match Box::pin(vet(core, id, payload)).await {
        Ok(vetted) => vetted,
        Err(refusal) => return answer.refuse(acks, refusal),
    };
    if owner == core.id {
        return match append(core, id, &vetted) {
            Ok(_) if acks == Acks::None => Taken::Done,
            Ok(appended) => {
                let (core, working) = (Rc::clone(core), core.working());
                machine::spawn(async move {
                    let produced = settled(&core, id, appended).await;
                    answer.send(produced);
                    drop(working);
                });
                Taken::Done
            }
            Err(refusal) => answer.refuse(acks, refusal),
        };
    }
    let records = vetted.to_bytes();
    let produced = core.mesh.ask(owner, move |reply| {
        CoreMessage::Forward(Forward::Produce { id, records, reply })
    });
    machine::spawn(async move {
        let produced = produced.await.unwrap_or_else(|| Err(Refusal::stopping()));
        match acks {
            Acks::Durable => answer.send(produced),
            Acks::None => {
                if let Err(refusal) = produced {
                    tracing::info!(
                        refusal.message,
                        "a connection is closed: its request cannot be answered"
                    );
                    answer.connection.outbox.hang_up();
                }
            }
        }
    });
    Taken::Done
}

/// Appends for a connection of another core, in the order of the inbox.
pub(crate) fn answer_other_core(
    core: &Rc<Core>,
    id: PartitionId,
    records: &VettedBytes,
    reply: Reply<Result<Produced, Refusal>>,
) {
    let vetted = records.borrow().map_err(|error| Refusal::because(error.code(), &error));
    match vetted.and_then(|vetted| append(core, id, &vetted)) {
        Ok(appended) => {
            let (core, working) = (Rc::clone(core), core.working());
            machine::spawn(async move {
                let _ = reply.send(settled(&core, id, appended).await);
                drop(working);
            });
        }
        Err(refusal) => {
            let _ = reply.send(Err(refusal));
        }
    }
}

fn partition_id(request: &ProduceRequest<'_>) -> Result<PartitionId, Refusal> {
    let topic = request.topic_id().map(TopicId::from);
    let topic = topic.ok_or_else(|| Refusal::new(ErrorCode::InvalidRequest, "a produce request names a topic id"))?;
    let index = PartitionIndex::try_from(request.partition())
        .map_err(|error| Refusal::because(ErrorCode::UnknownTopicOrPartition, &error))?;
    Ok(PartitionId { topic, index })
}

/// Looks at every record, so that whatever is stored can be read. Compressed ones are opened by one request at a time, which bounds the
/// memory for it.
async fn vet<'a>(core: &Core, id: PartitionId, payload: &'a [u8]) -> Result<Vetted<'a>, Refusal> {
    let limits = match core.partition(id) {
        Ok(partition) => {
            partition.check_not_internal()?;
            partition.log.config().batch
        }
        Err(refusal) if id.owner(core.mesh.len()) == core.id => return Err(refusal),
        // Its owner knows.
        Err(_) => BatchLimits {
            batch_size_max: core.config.log.batch_size_bytes_max.bytes() as usize,
        },
    };
    let began = Instant::now();
    let turn: RefCell<Option<Lease>> = RefCell::default();
    let give_way = async || {
        if turn.borrow().is_some() {
            machine::yield_now().await;
        } else {
            let lease = core.vetting.lease(1).await;
            *turn.borrow_mut() = Some(lease);
        }
    };
    let vetted = Vetted::look(payload, &limits, give_way).await;
    core.metrics.passed(Stage::Vet, began.elapsed());
    vetted.map_err(|error| {
        core.metrics.refused(Refused::Rules);
        Refusal::because(error.code(), &error)
    })
}

fn append(core: &Rc<Core>, id: PartitionId, vetted: &Vetted<'_>) -> Result<Appended, Refusal> {
    let offline = |refusal: &Refusal| {
        if refusal.code == ErrorCode::KafkaStorageError {
            core.metrics.refused(Refused::Storage);
        }
    };
    let partition = core.partition(id).inspect_err(offline)?;
    partition.check_not_internal()?;
    let began = Instant::now();
    let appended = partition.append_vetted(core, vetted);
    core.metrics.passed(Stage::Append, began.elapsed());
    appended.map_err(|error| {
        core.metrics.refused(match &error {
            AppendError::Log(error) => Refused::by(error),
            _ => Refused::Rules,
        });
        Refusal::because(error.code(), &error)
    })
}

/// Waits until the append is durable.
async fn settled(core: &Core, id: PartitionId, appended: Appended) -> Result<Produced, Refusal> {
    let began = Instant::now();
    let durable = appended.durable.await;
    core.metrics.passed(Stage::Acknowledge, began.elapsed());
    durable.map_err(|error| {
        core.metrics.refused(Refused::by(&error));
        Refusal::because(error.code(), &error)
    })?;
    let log_start_offset = core
        .partition(id)
        .map_or(appended.base_offset, |partition| partition.log.offsets().start);
    Ok(Produced {
        base_offset: appended.base_offset,
        append_time: appended.append_time.unwrap_or(Timestamp::NONE),
        log_start_offset,
    })
}

/// The way back to the client.
struct Answer {
    connection: Rc<Connection>,
    correlation_id: CorrelationId,
    lease: RequestLease,
}

impl Answer {
    fn send(self, produced: Result<Produced, Refusal>) {
        let head = match produced {
            Ok(produced) => ProduceResponseT {
                error: ErrorCode::None as i16,
                message: None,
                base_offset: produced.base_offset.as_i64(),
                log_append_time: produced.append_time.get(),
                log_start_offset: produced.log_start_offset.as_i64(),
            },
            Err(refusal) => ProduceResponseT {
                error: refusal.code as i16,
                message: Some(refusal.message),
                ..ProduceResponseT::default()
            },
        };
        self.connection
            .outbox
            .push(Response::of(reply::head(self.correlation_id, &head)), self.lease);
    }

    fn refuse(self, acks: Acks, refusal: Refusal) -> Taken {
        if acks == Acks::None {
            return Taken::Close(refusal.message);
        }
        self.send(Err(refusal));
        Taken::Done
    }
}
