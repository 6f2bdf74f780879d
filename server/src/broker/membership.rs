//! The first thing that a broker does: its member of the quorum is started, and it waits until that belongs to one.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use futures::executor::block_on;
use headwater_engine::disk::StdDirectory;

use super::{error::StartError, ports::bind_peers};
use crate::{
    cluster::{self, Joined, NodeId, QUORUM_FILE, QuorumHandle, QuorumStore, QuorumThread, Seat, TopicStore},
    config::Config,
    core::mesh::Mesh,
    tls::Tls,
};

/// Waits for the others, and says whether they have come: what it is given may be given up.
pub(super) type Wait<'a> = &'a mut dyn FnMut(Pin<&mut dyn Future<Output = ()>>) -> bool;

/// The member, and the topics that the quorum knows. None: it was given up.
pub(super) fn with_topics(
    config: &Arc<Config>,
    names: &StdDirectory,
    (mesh, tls): (&Mesh, &Arc<Tls>),
    wait: Wait<'_>,
) -> Result<Option<(QuorumThread, TopicStore<StdDirectory>)>, StartError> {
    let (quorum, joined, _) = start(config, names, (mesh, tls))?;
    let find = async {
        let handle = joined.wait().await.map_err(|error| refused(&error))?;
        Ok::<_, StartError>(TopicStore::open(names.clone(), Arc::clone(config), handle).await?)
    };
    let Some((store, recovery)) = unless_given_up(find, wait)? else {
        return Ok(None);
    };
    if !recovery.orphans.is_empty() {
        tracing::warn!(directories = ?recovery.orphans,
            "what looks like partitions belongs to no topic; it is left alone and takes up space");
    }
    Ok(Some((quorum, store)))
}

/// The member alone, and where the others reach it. None: it was given up.
pub(super) fn alone(
    config: &Arc<Config>,
    names: &StdDirectory,
    (mesh, tls): (&Mesh, &Arc<Tls>),
    wait: Wait<'_>,
) -> Result<Option<(QuorumThread, QuorumHandle, SocketAddr)>, StartError> {
    let (quorum, joined, address) = start(config, names, (mesh, tls))?;
    let has_joined = async { joined.wait().await.map_err(|error| refused(&error)) };
    let joined = unless_given_up(has_joined, wait)?;
    let address = address.unwrap_or(config.broker.listen);
    Ok(joined.map(|handle| (quorum, handle, address)))
}

fn start(
    config: &Config,
    names: &StdDirectory,
    (mesh, tls): (&Mesh, &Arc<Tls>),
) -> Result<(QuorumThread, Joined, Option<SocketAddr>), StartError> {
    let (listener, address) = bind_peers(config)?.unzip();
    let store = config.log.directory.join(QUORUM_FILE);
    if let Some((identity, beginning)) = block_on(cluster::beginning(names, config))? {
        QuorumStore::create(&store, &identity, beginning.as_ref()).map_err(|error| refused(&error))?;
    }
    let members = config.cluster.members.iter();
    let members = members.map(|(id, address)| (NodeId::from(id), address.to_string()));
    let seat = Seat {
        store,
        listener,
        tls: Arc::clone(tls),
        members: members.collect(),
        balance: config.cluster.balance,
    };
    let mesh = mesh.clone();
    let tell = move |error| mesh.alarm()(error);
    let (quorum, joined) = QuorumThread::start(seat, tell).map_err(|error| refused(&error))?;
    Ok((quorum, joined, address))
}

fn unless_given_up<T>(
    work: impl Future<Output = Result<T, StartError>>,
    wait: Wait<'_>,
) -> Result<Option<T>, StartError> {
    let mut result = None;
    let is_done = {
        // What was begun and is given up is finished at the next start.
        let working = std::pin::pin!(async { result = Some(work.await) });
        wait(working)
    };
    if is_done { result.transpose() } else { Ok(None) }
}

fn refused(error: &dyn std::error::Error) -> StartError {
    StartError::Quorum {
        reason: error.to_string(),
    }
}
