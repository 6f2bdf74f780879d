//! A disk that keeps what was synced, forgets any part of the rest in a crash, and fails when it is told to.

use std::{
    io,
    sync::{Arc, Mutex},
};

use redb::StorageBackend;

/// What a disk writes as a whole.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Operation {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Operation {
    fn perform(&self, bytes: &mut Vec<u8>) {
        match self {
            Operation::SetLen(len) => bytes.resize(*len as usize, 0),
            Operation::Write(offset, data) => {
                let offset = *offset as usize;
                if bytes.len() < offset + data.len() {
                    bytes.resize(offset + data.len(), 0);
                }
                bytes[offset..offset + data.len()].copy_from_slice(data);
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync.
    pending: Vec<Operation>,
    /// Writes and syncs that succeed before all fail.
    left: Option<u64>,
    done: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// One that holds this.
    pub(crate) fn holding(bytes: Vec<u8>) -> Disk {
        let durable = bytes.clone();
        Disk(Arc::new(Mutex::new(State {
            bytes,
            durable,
            ..State::default()
        })))
    }

    /// After so many more writes and syncs all fail; `None`: none does.
    pub(crate) fn fail_after(&self, operations: Option<u64>) {
        self.0.lock().unwrap().left = operations;
    }

    /// Writes and syncs so far.
    pub(crate) fn done(&self) -> u64 {
        self.0.lock().unwrap().done
    }

    /// What a crash leaves: all that was synced, and of the rest what `chance` says.
    pub(crate) fn crash(&self, mut chance: impl FnMut() -> bool) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let mut bytes = state.durable.clone();
        for operation in &state.pending {
            match operation {
                Operation::SetLen(_) => {
                    if chance() {
                        operation.perform(&mut bytes);
                    }
                }
                Operation::Write(offset, data) => {
                    for (number, sector) in data.chunks(SECTOR).enumerate() {
                        let at = *offset + (number * SECTOR) as u64;
                        if chance() {
                            Operation::Write(at, sector.to_vec()).perform(&mut bytes);
                        }
                    }
                }
            }
        }
        bytes
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        match &mut state.left {
            Some(0) => return Err(rustix::io::Errno::IO.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        state.done += 1;
        change(&mut state);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let offset = offset as usize;
        let there = state.bytes.get(offset..offset + out.len());
        out.copy_from_slice(there.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|state| {
            let operation = Operation::SetLen(len);
            operation.perform(&mut state.bytes);
            state.pending.push(operation);
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|state| {
            // Not a copy of all: a file is large, and what is written to it little.
            for operation in state.pending.drain(..) {
                operation.perform(&mut state.durable);
            }
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|state| {
            let operation = Operation::Write(offset, data.to_vec());
            operation.perform(&mut state.bytes);
            state.pending.push(operation);
        })
    }
}
