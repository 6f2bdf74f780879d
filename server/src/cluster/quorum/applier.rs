//! Applies what was agreed on, and publishes what it leads to.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use tokio::sync::watch;

use super::{
    codec::CodecError,
    order::Outcome,
    state::State,
    store::Store,
    types::{LogId, Membership, QuorumTypes, Snapshot, SnapshotMeta},
};
use crate::{cluster::replicas::ReplicaMap, image::ClusterImage};

/// What a member shows of its state.
#[derive(Clone)]
pub(crate) struct Shown {
    /// Each is later than the one before.
    pub(crate) images: watch::Receiver<Arc<ClusterImage>>,
    /// Brokers and replicas: not older than the image that is shown.
    pub(crate) replicas: watch::Receiver<ReplicaMap>,
}

/// Where it is shown.
pub(crate) struct Show {
    images: watch::Sender<Arc<ClusterImage>>,
    replicas: watch::Sender<ReplicaMap>,
}

impl Show {
    pub(super) fn new(state: &State) -> (Show, Shown) {
        let (images, shown_images) = watch::channel(Arc::clone(state.image()));
        let (replicas, shown_replicas) = watch::channel(state.replicas().clone());
        let shown = Shown {
            images: shown_images,
            replicas: shown_replicas,
        };
        (Show { images, replicas }, shown)
    }

    /// Whoever finds a topic in the image finds its replicas.
    pub(super) fn publish(&self, state: &State) {
        self.replicas.send_if_modified(|shown| {
            let is_new = shown != state.replicas();
            if is_new {
                *shown = state.replicas().clone();
            }
            is_new
        });
        let image = state.image();
        self.images.send_if_modified(|shown| {
            let is_new = shown.version() != image.version();
            if is_new {
                *shown = Arc::clone(image);
            }
            is_new
        });
    }
}

/// The state of this member. It is in memory; at a start it is the last snapshot, and openraft applies the log that follows.
pub(crate) struct Applier {
    state: State,
    applied: Option<LogId>,
    membership: Membership,
    show: Show,
    store: Store,
}

impl Applier {
    /// Begins with the last snapshot. Whoever has what is shown sees each image that is later than the one that it has seen.
    pub(crate) fn new(store: Store) -> Result<(Applier, Shown), CodecError> {
        let (meta, state) = match store.snapshot() {
            Some((meta, data)) => (meta, State::decode(&data)?),
            None => (SnapshotMeta::default(), State::default()),
        };
        let (show, shown) = Show::new(&state);
        let applier = Applier {
            state,
            applied: meta.last_log_id,
            membership: meta.last_membership,
            show,
            store,
        };
        Ok((applier, shown))
    }

    #[cfg(test)]
    pub(super) fn state(&self) -> &State {
        &self.state
    }
}

impl<C: QuorumTypes> RaftStateMachine<C> for Applier {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Photographer;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<C>>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        while let Some((entry, answer)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            let outcome = match entry.payload {
                EntryPayload::Blank => Outcome::Nothing,
                EntryPayload::Normal(proposal) => self.state.apply(proposal),
                EntryPayload::Membership(membership) => {
                    self.membership = Membership::new(Some(entry.log_id), membership);
                    Outcome::Nothing
                }
            };
            answers.extend(answer.map(|answer| (answer, outcome)));
        }
        // Whoever is answered finds it in the image.
        self.show.publish(&self.state);
        for (answer, outcome) in answers {
            answer.send(outcome);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Photographer {
        Photographer {
            state: self.state.clone(),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            store: self.store.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        let state = State::decode(&data).map_err(io::Error::other)?;
        self.store.save_snapshot(meta.clone(), data).await?;
        self.state = state;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.show.publish(&self.state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let snapshot = self.store.snapshot();
        Ok(snapshot.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Makes a snapshot of the state as it was when this was made; the state goes on meanwhile.
pub(crate) struct Photographer {
    state: State,
    meta: SnapshotMeta,
    store: Store,
}

impl<C: QuorumTypes> RaftSnapshotBuilder<C> for Photographer {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let data = Bytes::from(self.state.encode());
        self.store.save_snapshot(self.meta.clone(), data.clone()).await?;
        let meta = self.meta.clone();
        Ok(Snapshot { meta, snapshot: data })
    }
}
