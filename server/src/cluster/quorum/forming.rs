//! The first start of a quorum of several members. The one with the lowest number makes it, of all of them at once, when each has answered
//! that it belongs to none. A member whose disk was emptied has the others against that, however it is started: they belong to one.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use headwater_engine::Seldom;
use openraft::errors::{InitializeError, RaftError};
use tokio::time::sleep;

use super::{
    id::{Member, NodeId},
    member::{Quorum, StartError},
    peer::CallError,
};
use crate::machine;

/// A pause before the others are asked again.
const FORM_PAUSE: Duration = Duration::from_millis(200);

impl Quorum {
    /// Returns when this is a member of a quorum; it makes one of these members, each with its address, if that falls to it.
    pub(super) async fn become_member(&self, members: &BTreeMap<NodeId, String>) -> Result<(), StartError> {
        let own = self.identity().node;
        let saying = Seldom::default();
        while !self.is_member().await? {
            let is_first = members.keys().next() == Some(&own);
            let waits_for = if is_first { self.form(members).await? } else { None };
            if let Some(unsaid) = saying.may_speak(machine::now()) {
                let reason = waits_for.map_or_else(
                    || "nobody has made it a member yet".to_owned(),
                    |error| error.to_string(),
                );
                tracing::warn!(%reason, unsaid, "this member waits until it belongs to a quorum");
            }
            sleep(FORM_PAUSE).await;
        }
        Ok(())
    }

    async fn is_member(&self) -> Result<bool, StartError> {
        // Until openraft answers, it does not show whom it knows.
        let is_initialized = self.raft.is_initialized().await;
        let is_initialized = is_initialized.map_err(|error| StartError::Raft {
            reason: error.to_string(),
        })?;
        Ok(is_initialized && self.membership().get_node(&self.identity().node).is_some())
    }

    /// Makes the quorum, unless one of the members has something against it.
    async fn form(&self, members: &BTreeMap<NodeId, String>) -> Result<Option<CallError>, StartError> {
        let own = self.identity();
        let ask = |(node, address): (&NodeId, &String)| {
            let (node, address) = (*node, address.clone());
            async move {
                if node == own.node {
                    return Ok((
                        node,
                        Member {
                            store: own.store,
                            address,
                        },
                    ));
                }
                let progress = self.ask_newcomer(node, &address).await?;
                let store = progress.store;
                Ok((node, Member { store, address }))
            }
        };
        let answers = join_all(members.iter().map(ask)).await.into_iter();
        let newcomers: BTreeMap<NodeId, Member> = match answers.collect() {
            Ok(newcomers) => newcomers,
            Err(error) => return Ok(Some(error)),
        };
        match self.raft.initialize(newcomers).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(None),
            Err(error) => Err(StartError::Raft {
                reason: error.to_string(),
            }),
        }
    }
}
