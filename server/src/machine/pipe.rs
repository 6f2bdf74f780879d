//! A pipe that the kernel fills from a file, on a thread of its own, and a socket empties: for records that are not in memory, and
//! that nobody has memory for.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use headwater_engine::disk::Disk as _;
#[cfg(test)]
use headwater_engine::disk::SegmentFile as _;
use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags},
};

use super::{
    Disk, Socket,
    disk::{File, direct, direct_file},
};

pub(crate) enum Pipe {
    Kernel(KernelPipe),
    /// Bytes on their way.
    #[cfg(test)]
    Simulated(std::cell::RefCell<Vec<u8>>),
}

pub(crate) struct KernelPipe {
    read: OwnedFd,
    /// The kernel may still fill it when its connection is gone.
    write: Rc<OwnedFd>,
}

impl Pipe {
    /// One that holds so many bytes, if the user may have it. Files that nobody uses give way to its descriptors.
    pub(crate) fn new(disk: &Disk, bytes: usize) -> io::Result<Pipe> {
        #[cfg(test)]
        if super::simulated::is_running() {
            return Ok(Pipe::Simulated(std::cell::RefCell::default()));
        }
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let files = disk.open_files();
        let (read, write) = files.make_room_for(|| Ok(rustix::pipe::pipe_with(flags)?))?;
        // Best effort: a smaller pipe (the user's quota may be spent) only makes smaller pieces.
        if let Err(error) = rustix::pipe::fcntl_setpipe_size(&write, bytes) {
            tracing::debug!(%error, "cannot enlarge a pipe");
        }
        let write = Rc::new(write);
        Ok(Pipe::Kernel(KernelPipe { read, write }))
    }

    /// Fills it from a file. Returns with how many bytes; 0 at the end of the file.
    pub(crate) async fn load(&self, disk: &Disk, file: &File, position: u64, length: u32) -> io::Result<u32> {
        match self {
            Pipe::Kernel(pipe) => {
                let loading = direct(disk)
                    .ring()
                    .splice_to_pipe(direct_file(file), position, &pipe.write, length);
                loading.await
            }
            #[cfg(test)]
            Pipe::Simulated(bytes) => {
                let read = file.read(position, length as usize).await?;
                let count = read.len() as u32;
                bytes.replace(read);
                Ok(count)
            }
        }
    }

    /// Empties it into a socket.
    pub(crate) async fn send(&self, socket: &Socket, loaded: u32) -> io::Result<()> {
        match self {
            Pipe::Kernel(pipe) => pipe.send(socket, loaded as usize).await,
            #[cfg(test)]
            Pipe::Simulated(bytes) => {
                let bytes = bytes.take();
                let mut left = &bytes[..];
                while !left.is_empty() {
                    match socket.try_send(left, false)? {
                        Some(count) => left = &left[count..],
                        None => socket.writable().await?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl KernelPipe {
    async fn send(&self, socket: &Socket, mut left: usize) -> io::Result<()> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        while left > 0 {
            let spliced = match socket {
                Socket::Kernel(to) => rustix::pipe::splice(self.read.as_fd(), None, to.fd(), None, left, flags),
                #[cfg(test)]
                Socket::Simulated(_) => unreachable!("a simulated socket has a simulated pipe"),
            };
            match spliced {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => left -= count,
                Err(Errno::AGAIN | Errno::INTR) => socket.writable().await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
