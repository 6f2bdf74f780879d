//! A log of one member without openraft: the whole state, replaced in one file at each order. It stands in for the quorum where a whole
//! broker is simulated, and where a disk fails at each operation in turn. Whoever asks sees no difference: an order that could not be
//! written may be done or not, and every later one fails until the broker is started again.

use std::{
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use headwater_engine::disk::Directory;
use headwater_protocol::error::ErrorCode;
use tokio::sync::mpsc;

use crate::{
    cluster::{
        QUORUM_FILE, StoreError, beginning,
        quorum::{
            QuorumHandle,
            applier::Show,
            codec::{CodecError, decode, encode},
            handle::Wish,
            id::{Identity, Incarnation},
            order::{Outcome, Proposal},
            state::State,
        },
    },
    config::Config,
    metrics::QuorumFigures,
    model::refusal::Refusal,
};

pub(crate) struct LocalLog<D> {
    disk: D,
    path: PathBuf,
    identity: Identity,
    state: State,
    show: Show,
    has_failed: Arc<AtomicBool>,
}

impl<D: Directory> LocalLog<D> {
    /// The way to it, and its work, which ends when nobody has the way any more.
    pub(crate) async fn open(
        disk: &D,
        config: &Config,
    ) -> Result<(QuorumHandle, impl Future<Output = ()> + use<D>), StoreError> {
        let path = config.log.directory.join(QUORUM_FILE);
        if let Some((identity, begun)) = beginning(disk, config).await? {
            let state = begun.map_or_else(State::default, |begun| begun.state);
            let content = content(&identity, &state);
            let written = disk.replace_file_to_make_room(&path, content).await;
            written.map_err(StoreError::io("write", &path))?;
        }
        let content = disk.read_file(&path).await;
        let content = content.map_err(StoreError::io("read", &path))?;
        let corrupt = |error: CodecError| StoreError::Corrupt {
            path: path.clone(),
            reason: error.to_string(),
        };
        let (identity, state): (Identity, Vec<u8>) = decode(&content).map_err(corrupt)?;
        let state = State::decode(&state).map_err(corrupt)?;
        let (show, shown) = Show::new(&state);
        let has_failed = Arc::<AtomicBool>::default();
        let look = Arc::new({
            let has_failed = Arc::clone(&has_failed);
            move || QuorumFigures {
                is_up: !has_failed.load(Ordering::Relaxed),
                ..QuorumFigures::default()
            }
        });
        let (handle, wishes) = QuorumHandle::new(identity.clone(), Incarnation(1), shown, look, Arc::default());
        let log = LocalLog {
            disk: disk.clone(),
            path,
            identity,
            state,
            show,
            has_failed,
        };
        Ok((handle, log.work(wishes)))
    }

    async fn work(mut self, mut wishes: mpsc::Receiver<Wish>) {
        while let Some(wish) = wishes.recv().await {
            // It has no other members.
            if let Wish::Order(order, reply) = wish {
                let _ = reply.send(self.agree(Proposal::new(order)).await);
            }
        }
    }

    async fn agree(&mut self, proposal: Proposal) -> Result<Outcome, Refusal> {
        let ended = |why: &str| Err(Refusal::new(ErrorCode::KafkaStorageError, why));
        if self.has_failed.load(Ordering::Relaxed) {
            return ended("the log has failed, and the broker has to be started again");
        }
        let mut next = self.state.clone();
        let outcome = next.apply(proposal);
        let content = content(&self.identity, &next);
        if let Err(error) = self.disk.replace_file_to_make_room(&self.path, content).await {
            self.has_failed.store(true, Ordering::Relaxed);
            return ended(&error.to_string());
        }
        self.state = next;
        self.show.publish(&self.state);
        Ok(outcome)
    }
}

fn content(identity: &Identity, state: &State) -> Vec<u8> {
    encode(&(identity, state.encode()))
}
