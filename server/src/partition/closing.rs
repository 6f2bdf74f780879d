//! Closes the partitions of a core when the broker stops: several at a time, and for so long as it may take.
//!
//! Nothing depends on it but how fast the next start is: what is acknowledged is durable, and what was not closed is recovered.

use std::{io, time::Duration};

use futures::{StreamExt, stream};

use super::{partitions::Partitions, served::Partition};
use crate::machine;

/// Partitions that are closed at the same time: their flushes share the commits of the file system's journal.
const CLOSED_AT_ONCE: usize = 32;

/// How often a stop that takes long says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// Closes all; an error if that took longer than it may.
pub(crate) async fn close_partitions(partitions: &Partitions) -> io::Result<()> {
    let limit = Duration::from_millis(partitions.core.config.limits.shutdown_close_ms_max.get());
    let open = partitions.online();
    let (total, began) = (open.len(), machine::now());
    let closing = open.iter().map(|partition| close(partition));
    let mut closing = stream::iter(closing).buffer_unordered(CLOSED_AT_ONCE);
    let (mut closed, mut tell) = (0, began + PROGRESS);
    loop {
        match machine::until(tell.min(began + limit), closing.next()).await {
            Some(Some(())) => closed += 1,
            Some(None) => break,
            None if machine::since(began) >= limit => {
                let left = total - closed;
                let message = format!(
                    "{left} of {total} partitions were not closed within {} (limits.shutdown_close_ms_max); nothing is lost, the next start recovers them",
                    partitions.core.config.limits.shutdown_close_ms_max
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            None => {
                tracing::info!(
                    core = partitions.core.id.get(),
                    closed,
                    total,
                    "partitions are being closed"
                );
                tell = machine::now() + PROGRESS;
            }
        }
    }
    close_journal(partitions).await;
    Ok(())
}

/// Leaves nothing in the journal for the next start.
async fn close_journal(partitions: &Partitions) {
    if let Some(journal) = partitions.journal()
        && let Err(error) = journal.close().await
    {
        tracing::warn!(core = partitions.core.id.get(), %error, "the journal was not closed; the next start reads it");
    }
}

async fn close(partition: &Partition) {
    if let Err(error) = partition.log.close().await {
        tracing::error!(directory = %partition.log.directory().display(), %error, "a partition was not closed");
    }
}
