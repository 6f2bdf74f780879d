//! What an application may want to know of a rebalance.

use headwater_protocol::id::PartitionIndex;
use headwater_protocol::topic::TopicName;

/// Is told when partitions come and go. Called by the consumer's own task, which sends the heartbeats too: do not block.
///
/// ```
/// use headwater_client::{PartitionIndex, RebalanceListener, TopicName};
///
/// struct Log;
///
/// impl RebalanceListener for Log {
///     fn assigned(&self, partitions: &[(TopicName, PartitionIndex)]) {
///         println!("now reading {partitions:?} as well");
///     }
///
///     fn lost(&self, partitions: &[(TopicName, PartitionIndex)]) {
///         println!("others read {partitions:?} already: what is in flight may be done twice");
///     }
/// }
/// ```
pub trait RebalanceListener: Send + Sync {
    /// These partitions have been added; none of their records has been received yet.
    fn assigned(&self, partitions: &[(TopicName, PartitionIndex)]) {
        let _ = partitions;
    }

    /// These partitions have been given up: the application is done with what it received of them, with auto commit that is
    /// committed, and nobody else has them yet.
    fn revoked(&self, partitions: &[(TopicName, PartitionIndex)]) {
        let _ = partitions;
    }

    /// These partitions have been taken away, and others may have them already. Default: as [`RebalanceListener::revoked`].
    fn lost(&self, partitions: &[(TopicName, PartitionIndex)]) {
        self.revoked(partitions);
    }
}

/// Wants to know nothing.
#[derive(Debug)]
pub(super) struct Silent;

impl RebalanceListener for Silent {}
