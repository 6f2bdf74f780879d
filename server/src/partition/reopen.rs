//! Tries again to open the partitions of a core that are offline, and those that a failed write or flush has fenced.
//!
//! One at a time, so that it costs a core little: a lack of descriptors or a failing disk may last, and then all of them wait.
//! Each has delays of its own that grow. The first failure is logged where it happens, and the end of it here.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use futures::future::{Either, select};
use headwater_protocol::error::ErrorCode;

use super::{
    backoff::Backoff,
    partitions::{Owned, Partitions},
};
use crate::{
    image::TopicState,
    machine::{self, HashMap},
    model::{id::PartitionId, refusal::Refusal},
};

/// A partition that has been well for so long begins with short delays when it fails again.
const REMEMBERED: Duration = Duration::from_mins(10);

/// A partition that has failed.
#[derive(Default)]
struct Retry {
    backoff: Backoff,
    /// When the next attempt is; `None` while it is well.
    due: Option<Instant>,
    /// Since when it is well.
    back: Option<Instant>,
}

impl Retry {
    fn is_remembered(&self) -> bool {
        self.due.is_none() && self.back.is_some_and(|back| machine::since(back) < REMEMBERED)
    }
}

/// Works as long as the core runs.
pub(super) async fn run(partitions: Rc<Partitions>, opened: impl Fn()) {
    let core = &partitions.core;
    let mut retries: HashMap<PartitionId, Retry> = HashMap::default();
    loop {
        let failed = core.failed.wait();
        let failing = partitions.failed_partitions();
        retries.retain(|id, retry| failing.contains_key(id) || retry.is_remembered());
        for (id, code) in failing {
            let Retry { backoff, due, .. } = retries.entry(id).or_default();
            due.get_or_insert_with(|| machine::now() + backoff.delay(code, Duration::ZERO));
        }
        let next = retries.iter().filter_map(|(id, retry)| Some((retry.due?, *id)));
        let Some((due, id)) = next.min_by_key(|(due, _)| *due) else {
            failed.await;
            continue;
        };
        if let Either::Left(_) = select(failed, std::pin::pin!(sleep_until(due))).await {
            continue;
        }
        if core.is_stopping() {
            return;
        }
        let began = machine::now();
        let outcome = attempt(&partitions, id).await;
        let Some(retry) = retries.get_mut(&id) else { continue };
        match outcome {
            Ok(is_back) => {
                if is_back {
                    opened();
                }
                (retry.due, retry.back) = (None, Some(machine::now()));
            }
            Err(why) => {
                tracing::debug!(why = why.message, "a partition is still offline");
                retry.due = Some(machine::now() + retry.backoff.delay(why.code, machine::since(began)));
            }
        }
    }
}

async fn sleep_until(due: Instant) {
    machine::sleep(due.saturating_duration_since(machine::now())).await;
}

/// Opens a partition again, and returns whether it is back, or gone. While it does, nobody removes the directory.
async fn attempt(partitions: &Rc<Partitions>, id: PartitionId) -> Result<bool, Refusal> {
    let _working = partitions.core.working();
    let _opening = partitions.begin_opening(id);
    let image = partitions.image();
    let Some(topic) = image
        .topic_by_id(id.topic)
        .filter(|topic| topic.state == TopicState::Ready)
    else {
        return Ok(false);
    };
    if let Some(Owned::Online(fenced)) = partitions.owned(id) {
        partitions.log_failed(id);
        fenced.log_failed();
        let gives_way = fenced.log.give_way().await;
        gives_way.map_err(|error| Refusal::because(error.code(), &error))?;
        partitions.replace(id, Owned::Offline(opening_again()));
    }
    match partitions.open(topic, id).await {
        Ok(partition) => {
            partitions.replace(id, Owned::Online(partition));
            tracing::info!(topic = %topic.name, partition = %id.index, "a partition is back");
            Ok(true)
        }
        Err(why) => {
            partitions.replace(id, Owned::Offline(why.clone()));
            Err(why)
        }
    }
}

fn opening_again() -> Refusal {
    Refusal::new(
        ErrorCode::KafkaStorageError,
        "the partition is being opened again after a failure of the disk",
    )
}
