//! One member of a group, and the protocols it offers.

use std::time::Duration;

use bytes::Bytes;

use crate::model::group::{CallId, Client, InstanceId, Join, MemberId, Protocol, Timeouts};

/// How long a new member may wait for its first generation: it cannot send heartbeats yet, and may be gone (Kafka's
/// `NewMemberJoinTimeoutMs`).
pub(super) const FIRST_JOIN_MAX: Duration = Duration::from_mins(5);

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) instance: Option<InstanceId>,
    pub(super) client: Client,
    pub(super) timeouts: Timeouts,
    pub(super) protocols: Vec<Protocol>,
    /// Of the last generation that was completed.
    pub(super) assignment: Bytes,
    /// It waits for the next generation.
    pub(super) joining: Option<CallId>,
    /// It waits for its assignment.
    pub(super) syncing: Option<CallId>,
    /// It has asked for its assignment in this generation.
    pub(super) has_synced: bool,
    /// It has not been part of a generation.
    pub(super) is_new: bool,
    /// When its silence has been too long.
    pub(super) session_end: Duration,
}

impl Member {
    pub(super) fn new(join: &Join, now: Duration) -> Member {
        Member {
            instance: join.instance.clone(),
            client: join.client.clone(),
            timeouts: join.timeouts,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            joining: None,
            syncing: None,
            has_synced: false,
            is_new: true,
            session_end: now + FIRST_JOIN_MAX,
        }
    }

    /// It was heard of.
    pub(super) fn touch(&mut self, now: Duration) {
        self.session_end = now + self.timeouts.session;
    }

    /// When it is taken out unless something is heard of it; a member that waits for the group cannot be heard.
    pub(super) fn expires(&self) -> Option<Duration> {
        let waits = self.joining.is_some() || self.syncing.is_some();
        (self.is_new || !waits).then_some(self.session_end)
    }

    /// What it says in a protocol; empty if it does not speak it.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let spoken = self.protocols.iter().find(|offer| offer.name == protocol);
        spoken.map(|offer| offer.metadata.clone()).unwrap_or_default()
    }

    pub(super) fn speaks(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|offer| offer.name == protocol)
    }

    /// By what it is put in order: its instance id stays when it is started again.
    pub(super) fn order<'a>(&'a self, id: &'a MemberId) -> (bool, &'a str) {
        match &self.instance {
            Some(instance) => (false, instance.as_str()),
            None => (true, id.as_str()),
        }
    }
}
