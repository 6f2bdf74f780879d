//! A segment file that can only be read, by a function: for tests.

use std::{
    fmt,
    future::{Future, ready},
    io,
    rc::Rc,
};

use futures::future::LocalBoxFuture;

use super::{BlockSlice, SegmentFile};

/// Gives up to so many bytes from a position.
type Read = dyn Fn(u64, usize) -> LocalBoxFuture<'static, io::Result<Vec<u8>>>;

#[derive(Clone)]
pub(crate) struct ReadOnly {
    pub(crate) size: u64,
    pub(crate) read: Rc<Read>,
}

impl fmt::Debug for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOnly")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl SegmentFile for ReadOnly {
    fn read(&self, position: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>> + 'static {
        (self.read)(position, length)
    }
    fn is_shared(&self) -> bool {
        true
    }
    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        ready(Ok(self.size))
    }

    fn write(&self, _: BlockSlice, _: u64) -> impl Future<Output = io::Result<()>> + 'static {
        no()
    }
    fn write_durable(&self, _: BlockSlice, _: u64) -> impl Future<Output = io::Result<()>> + 'static {
        no()
    }
    fn write_zeros(&self, _: u64, _: u64) -> impl Future<Output = io::Result<()>> + 'static {
        no()
    }
    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        no()
    }
    fn allocate(&self, _: u64, _: u64) -> impl Future<Output = io::Result<()>> + 'static {
        no()
    }
    fn truncate(&self, _: u64) -> impl Future<Output = io::Result<()>> + 'static {
        no()
    }
}

fn no() -> impl Future<Output = io::Result<()>> + 'static {
    ready(Err(io::ErrorKind::Unsupported.into()))
}
