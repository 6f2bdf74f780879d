//! What the quorum's member of this broker counts.

use std::{fmt, sync::Arc};

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};

/// How a member is at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QuorumFigures {
    /// It has not failed.
    pub(crate) is_up: bool,
    /// It leads, as far as it knows.
    pub(crate) is_active: bool,
    /// It hears of an active coordinator; if it is that one, a majority answers it. What it knows of the cluster may be old otherwise.
    pub(crate) hears_active: bool,
    pub(crate) term: u64,
    /// The last entry of its log.
    pub(crate) log_index: u64,
    /// The last entry that it has applied.
    pub(crate) applied_index: u64,
    /// Members of which a majority agrees.
    pub(crate) voters: u64,
}

/// Looks how a member is.
pub(crate) type LookAtQuorum = Arc<dyn Fn() -> QuorumFigures + Send + Sync>;

impl QuorumFigures {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in [
            (
                "quorum_up",
                "1 unless the member of the coordinator quorum has failed: then the broker ends",
                u64::from(self.is_up),
            ),
            (
                "quorum_active",
                "1 if this member is the active coordinator, as far as it knows",
                u64::from(self.is_active),
            ),
            (
                "quorum_hears_active",
                "1 while this member hears of an active coordinator; if it is that one, while a majority answers it",
                u64::from(self.hears_active),
            ),
            ("quorum_term", "Term of the quorum", self.term),
            ("quorum_log_index", "Last entry of this member's log", self.log_index),
            (
                "quorum_applied_index",
                "Last entry that this member has applied",
                self.applied_index,
            ),
            ("quorum_voters", "Members of which a majority agrees", self.voters),
        ] {
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&value)?;
        }
        Ok(())
    }
}
