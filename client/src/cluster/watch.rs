//! Looks after connections on which an answer is overdue: is the broker still one of the cluster?
//!
//! A broker whose machine has died, or that hangs, closes nothing: what it was asked is in doubt until the request timeout, which has
//! to be long, as a busy broker is slow. The others know better. Whoever the active coordinator does not hear from is fenced, which
//! takes seconds, and is not among the brokers that they name. So once a request has waited for a while, somebody else is asked, and
//! a connection to a broker that has gone is closed: what was in flight goes to whoever leads now.

use std::sync::Weak;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::runtime::sleep;

/// A connection whose oldest request has waited for so long is silent. Longer than fetches are held back, unless somebody asks for that.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(2);

/// How often connections are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Ends with the client.
pub(crate) async fn watch_over(cluster: Weak<Cluster>) {
    loop {
        sleep(LOOK_EVERY).await;
        let Some(cluster) = cluster.upgrade() else { return };
        leave_those_that_have_gone(&cluster).await;
    }
}

async fn leave_those_that_have_gone(cluster: &Cluster) {
    // Less and less often, as a request may be held back for minutes.
    let is_due = |waited: Duration| waited.as_secs().is_power_of_two();
    if cluster.pool.silent().iter().any(|(_, waited)| is_due(*waited)) {
        let topics = cluster.metadata.topics();
        if let Err(error) = cluster.refresh(&topics).await {
            tracing::debug!(%error, "nobody says whether a broker that is silent has gone");
        }
    }
    for (address, waited) in cluster.pool.silent() {
        if cluster.metadata.has_gone(&address) {
            tracing::warn!(%address, ?waited, "a broker that does not answer is not there any more, as others say");
            let source = None;
            cluster.pool.close(
                &address,
                &Error::Disconnected {
                    address: address.clone(),
                    source,
                },
            );
        }
    }
}
