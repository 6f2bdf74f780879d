//! Produce: look at the records, append, tell when they are as safe as was asked for.
//!
//! The append happens while the request is being taken in, so the order of arrival on a connection is the order in the log.
//! Looking at compressed records takes long: it is done in turns with other tasks, on the connection's core.

use std::{
    cell::RefCell,
    future::{self, Future},
    rc::Rc,
    time::Instant,
};

use futures::FutureExt as _;
use headwater_engine::{AppendError, Appended, Begins, Vetted, VettedBytes};
use headwater_protocol::{
    batch::{BatchError, BatchHeader, BatchLimits},
    error::ErrorCode,
};

use crate::{
    core::{
        Core,
        budget::Lease,
        mesh::{CoreMessage, Forward, Reply},
    },
    machine,
    metrics::{Refused, Stage},
    model::{
        id::PartitionId,
        records::{Acks, Blame, Produce, Produced, RefusedRecords},
        refusal::Refusal,
    },
    partition::{Partition, Partitions},
};

/// So many bytes of records that need no opening are looked at at once.
const AT_ONCE_BYTES: usize = 16 << 10;

/// Records that are in a log, or on their way to another core, which will be durable or refused.
pub(crate) enum Pending<F> {
    Here(Rc<Partition>, Appended, Acks),
    Elsewhere(F),
}

/// Looks at the records and appends them.
pub(crate) async fn take(
    partitions: &Partitions,
    produce: Produce<'_>,
) -> Result<Pending<impl Future<Output = Result<Produced, Refusal>> + use<>>, Refusal> {
    let core = &partitions.core;
    let Produce { id, acks, records, .. } = produce;
    let owner = id.owner(core.mesh.len());
    let vetted = match vet_at_once(partitions, id, records) {
        Some(vetted) => vetted,
        // A future of its own: it is large, and every connection, idle ones too, would hold the space for it.
        None => Box::pin(vet(partitions, id, records)).await,
    };
    if !produce.is_within
        && let Ok(vetted) = &vetted
        && vetted.is_transactional()
    {
        let message = "the records say that they are in a transaction, and the producer does not say in which";
        return Err(Refusal::new(ErrorCode::InvalidRecord, message));
    }
    let vetted = if produce.begins_anywhere {
        let refuse = |_: &Refusal| {
            if let Ok(batch) = BatchHeader::read(records) {
                partitions.beginnings.refuse(id, batch);
            }
        };
        let vetted = vetted.inspect_err(refuse)?;
        vetted.beginning(Begins::Anywhere)
    } else {
        vetted?
    };
    let vetted = begin(partitions, id, vetted);
    if owner == core.id {
        let (partition, appended) = append(partitions, id, acks, &vetted)?;
        return Ok(Pending::Here(partition, appended, acks));
    }
    let records = vetted.to_bytes();
    let produced = core.mesh.ask(owner, move |reply| {
        CoreMessage::Forward(Forward::Produce {
            id,
            acks,
            records,
            reply,
        })
    });
    Ok(Pending::Elsewhere(
        produced.map(|produced| produced.unwrap_or_else(|| Err(Refusal::stopping()))),
    ))
}

impl<F: Future<Output = Result<Produced, Refusal>> + 'static> Pending<F> {
    /// Has somebody told what becomes of the records.
    pub(crate) fn tell(self, core: &Rc<Core>, told: impl FnOnce(Result<Produced, Refusal>) + 'static) {
        match self {
            Pending::Here(partition, appended, acks) => partition.tell_when_safe(core, appended, acks, told),
            Pending::Elsewhere(produced) => machine::spawn(async move { told(produced.await) }),
        }
    }

    /// Has somebody told if another core refuses them.
    pub(crate) fn tell_if_refused(self, told: impl FnOnce(Refusal) + 'static) {
        if let Pending::Elsewhere(produced) = self {
            machine::spawn(async move {
                if let Err(refusal) = produced.await {
                    told(refusal);
                }
            });
        }
    }
}

/// Appends for a connection of another core, in the order of the inbox.
pub(crate) fn answer_other_core(
    partitions: &Partitions,
    (id, acks): (PartitionId, Acks),
    records: &VettedBytes,
    reply: Reply<Result<Produced, Refusal>>,
) {
    let tell = |produced| {
        // Whoever asked may have gone.
        let _ = reply.send(produced);
    };
    let vetted = records.borrow().map_err(|error| Refusal::because(error.code(), &error));
    let vetted = vetted.map(|vetted| begin(partitions, id, vetted));
    match vetted.and_then(|vetted| append(partitions, id, acks, &vetted)) {
        Ok((partition, appended)) => partition.tell_when_safe(&partitions.core, appended, acks, tell),
        Err(refusal) => tell(Err(refusal)),
    }
}

/// Whoever may begin anywhere must begin with what this core has refused of it.
fn begin<'a>(partitions: &Partitions, id: PartitionId, vetted: Vetted<'a>) -> Vetted<'a> {
    match vetted.begins() {
        Begins::Anywhere => {
            let begins = partitions.beginnings.of(id, vetted.batches()[0].header());
            vetted.beginning(begins)
        }
        _ => vetted,
    }
}

/// What batches may be, as far as this core knows.
fn limits(partitions: &Partitions, id: PartitionId) -> Result<BatchLimits, Refusal> {
    match partitions.get(id) {
        Ok(partition) => {
            partition.check_not_internal()?;
            Ok(partition.log.config().batch)
        }
        Err(refusal) if partitions.is_here(id) => Err(refusal),
        // Its owner knows.
        Err(_) => Ok(BatchLimits {
            batch_size_max: partitions.core.config.log.batch_size_bytes_max.bytes() as usize,
        }),
    }
}

/// Looks at every record, if they are few and open: `None` if others must have their turn meanwhile.
fn vet_at_once<'a>(partitions: &Partitions, id: PartitionId, records: &'a [u8]) -> Option<Result<Vetted<'a>, Refusal>> {
    if records.len() > AT_ONCE_BYTES {
        return None;
    }
    let limits = match limits(partitions, id) {
        Ok(limits) => limits,
        Err(refusal) => return Some(Err(refusal)),
    };
    let began = machine::now();
    let vetted = Vetted::look(records, &limits, future::pending).now_or_never()?;
    Some(judged(partitions, id, began, vetted))
}

/// Looks at every record, so that whatever is stored can be read. Compressed ones are opened by one request at a time, which bounds the
/// memory for it.
async fn vet<'a>(partitions: &Partitions, id: PartitionId, records: &'a [u8]) -> Result<Vetted<'a>, Refusal> {
    let limits = limits(partitions, id)?;
    let began = machine::now();
    let turn: RefCell<Option<Lease>> = RefCell::default();
    let give_way = async || {
        if turn.borrow().is_some() {
            machine::yield_now().await;
        } else {
            let lease = partitions.core.vetting.lease(1).await;
            *turn.borrow_mut() = Some(lease);
        }
    };
    let vetted = Vetted::look(records, &limits, give_way).await;
    judged(partitions, id, began, vetted)
}

fn judged<'a>(
    partitions: &Partitions,
    id: PartitionId,
    began: Instant,
    vetted: Result<Vetted<'a>, AppendError>,
) -> Result<Vetted<'a>, Refusal> {
    let metrics = &partitions.core.metrics;
    metrics.passed(Stage::Vet, machine::since(began));
    vetted.map_err(|error| {
        metrics.refused(Refused::Rules);
        // Kafka says where the log begins once it has found whole batches.
        let is_whole = !matches!(
            error,
            AppendError::Empty
                | AppendError::Batch(
                    BatchError::Truncated { .. }
                        | BatchError::TooLarge { .. }
                        | BatchError::BadLength { .. }
                        | BatchError::BadMagic { .. }
                        | BatchError::BadCrc { .. }
                )
        );
        let partition = is_whole.then(|| partitions.get(id).ok()).flatten();
        refusal(&error, partition.as_deref())
    })
}

/// An error in the terms of whoever asked.
fn refusal(error: &AppendError, partition: Option<&Partition>) -> Refusal {
    let blame = match error {
        AppendError::NoKey { count, first } => Blame::NoKey {
            count: *count,
            first: first.clone(),
        },
        AppendError::Timestamp {
            index,
            timestamp,
            earliest,
            latest,
        } => Blame::Time {
            index: *index,
            timestamp: *timestamp,
            earliest: *earliest,
            latest: *latest,
        },
        _ => Blame::Nobody,
    };
    let log_start = partition.map(|partition| partition.log.offsets().start);
    Refusal::because(error.code(), error).of(RefusedRecords { log_start, blame })
}

fn append(
    partitions: &Partitions,
    id: PartitionId,
    acks: Acks,
    vetted: &Vetted<'_>,
) -> Result<(Rc<Partition>, Appended), Refusal> {
    let appended = append_here(partitions, id, acks, vetted);
    if vetted.begins() != Begins::AtZero {
        let batch = vetted.batches()[0].header();
        match &appended {
            Ok(_) => partitions.beginnings.forget(id, batch),
            Err(_) => partitions.beginnings.refuse(id, batch),
        }
    }
    appended
}

fn append_here(
    partitions: &Partitions,
    id: PartitionId,
    acks: Acks,
    vetted: &Vetted<'_>,
) -> Result<(Rc<Partition>, Appended), Refusal> {
    let core = &partitions.core;
    let offline = |refusal: &Refusal| {
        if refusal.code == ErrorCode::KafkaStorageError {
            core.metrics.refused(Refused::Storage);
        }
    };
    let partition = partitions.get(id).inspect_err(offline)?;
    partition.check_not_internal()?;
    partition.check_takes(acks)?;
    let began = machine::now();
    let appended = partition.append_vetted(core, vetted);
    core.metrics.passed(Stage::Append, machine::since(began));
    let appended = appended.map_err(|error| {
        core.metrics.refused(match &error {
            AppendError::Log(error) => Refused::by(error),
            _ => Refused::Rules,
        });
        refusal(&error, Some(&partition))
    })?;
    Ok((partition, appended))
}
