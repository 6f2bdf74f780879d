//! The other side of a [`RemoteRange`]: a task that keeps the range and copies a piece whenever one is asked for.

use std::{io, rc::Rc};

use futures::{StreamExt as _, channel::mpsc};
use headwater_engine::LogRange;

use super::served::Partition;
use crate::{
    core::remote::{PieceRequest, RemoteRange},
    machine::{self, Disk},
};

/// Lets another core read records of this one.
pub(crate) fn lend(partition: Rc<Partition>, range: LogRange<Disk>) -> RemoteRange {
    let (remote, inbox) = RemoteRange::new(range.len());
    machine::spawn(serve(partition, range, inbox));
    remote
}

async fn serve(partition: Rc<Partition>, mut range: LogRange<Disk>, mut inbox: mpsc::UnboundedReceiver<PieceRequest>) {
    while let Some(request) = inbox.next().await {
        range.advance(request.skip);
        let read = partition.log.read(&range.first(request.bytes)).await;
        // Whoever asked may have gone.
        let _ = request.reply.send(read.map_err(io::Error::other));
    }
}
