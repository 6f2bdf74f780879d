//! The first start of a quorum of several members. The one with the lowest number makes it, of all of them at once, when each has answered
//! that it belongs to none. A member whose disk was emptied has the others against that, however it is started: they belong to one.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use headwater_engine::Seldom;
use openraft::{
    errors::{InitializeError, RaftError},
    type_config::TypeConfigExt as _,
};

use super::{
    id::{Member, NodeId},
    member::StartError,
    members::change::Party,
    peer::CallError,
};
use crate::machine;

/// A pause before the others are asked again.
const FORM_PAUSE: Duration = Duration::from_millis(200);

/// Returns when this is a member of a quorum; it makes one of these members, each with its address, if that falls to it.
pub(super) async fn become_member<P: Party>(party: &P, members: &BTreeMap<NodeId, String>) -> Result<(), StartError> {
    let own = party.local().identity().node;
    let saying = Seldom::default();
    while !is_member(party).await? {
        let is_first = members.keys().next() == Some(&own);
        let waits_for = if is_first { form(party, members).await? } else { None };
        if let Some(unsaid) = saying.may_speak(machine::now()) {
            let reason = waits_for.map_or_else(
                || "nobody has made it a member yet".to_owned(),
                |error| error.to_string(),
            );
            tracing::warn!(%reason, unsaid, "this member waits until it belongs to a quorum");
        }
        P::Types::sleep(FORM_PAUSE).await;
    }
    Ok(())
}

async fn is_member<P: Party>(party: &P) -> Result<bool, StartError> {
    // Until openraft answers, it does not show whom it knows.
    let is_initialized = party.raft().is_initialized().await;
    let is_initialized = is_initialized.map_err(|error| StartError::Raft {
        reason: error.to_string(),
    })?;
    let local = party.local();
    Ok(is_initialized && local.membership().get_node(&local.identity().node).is_some())
}

/// Makes the quorum, unless one of the members has something against it.
async fn form<P: Party>(party: &P, members: &BTreeMap<NodeId, String>) -> Result<Option<CallError>, StartError> {
    let own = party.local().identity();
    let ask = |(node, address): (&NodeId, &String)| {
        let (node, address) = (*node, address.clone());
        async move {
            let store = if node == own.node {
                own.store
            } else {
                P::progress(&mut party.newcomers_line(node, &address), node)
                    .await?
                    .store
            };
            Ok((node, Member { store, address }))
        }
    };
    let answers = join_all(members.iter().map(ask)).await.into_iter();
    let newcomers: BTreeMap<NodeId, Member> = match answers.collect() {
        Ok(newcomers) => newcomers,
        Err(error) => return Ok(Some(error)),
    };
    match party.raft().initialize(newcomers).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(None),
        Err(error) => Err(StartError::Raft {
            reason: error.to_string(),
        }),
    }
}
