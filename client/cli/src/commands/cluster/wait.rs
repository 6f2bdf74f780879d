//! `cluster status --wait`: looks again and again until nothing is found that time or an operator cures.

use std::time::{Duration, Instant};

use super::{Seen, look};
use crate::failure::Failure;
use crate::screen::note;
use crate::session::Session;

/// How often there is a look.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The cluster once it is well. Whoever does not answer meanwhile may be one that is being restarted.
pub async fn until_well(session: &Session, limit: Duration) -> Result<Seen, Failure> {
    let began = Instant::now();
    let mut told = String::new();
    loop {
        let why = match look(session).await {
            Ok(seen) => {
                let findings = seen.findings();
                match findings.into_iter().find(|finding| !finding.is_lasting) {
                    Some(finding) => finding.what,
                    None => return Ok(seen),
                }
            }
            Err(failure) => failure.message().to_owned(),
        };
        if began.elapsed() >= limit {
            let limit = humantime::format_duration(limit);
            let failure = Failure::connection(format!("the cluster is not well after {limit}: {why}"));
            return Err(failure.hint("`headwater cluster status` says what to do"));
        }
        if why != told {
            note(&format!("waiting: {why}"));
            told = why;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
