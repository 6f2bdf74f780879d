//! Frames: length, CRC-32C, content.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::cluster::quorum::codec::CodecError;

const HEADER_LEN: usize = 8;

/// Why a frame cannot be sent or received. The connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The connection failed, or was closed.
    #[error("the connection to the peer failed: {source}")]
    Io {
        /// How.
        #[from]
        source: io::Error,
    },
    /// It says that it is longer than any frame.
    #[error("the peer sends a frame of {len} bytes, and {max} are allowed: it is no member, or a newer one")]
    TooLong {
        /// What it says.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// It is not what was sent.
    #[error("a frame of the peer was changed on its way: its CRC-32C is {computed:#010x} and should be {sent:#010x}")]
    Checksum {
        /// Of what came.
        computed: u32,
        /// What it says.
        sent: u32,
    },
    /// What is in it cannot be read.
    #[error("a frame of the peer cannot be read: {source}")]
    Content {
        /// Why not.
        #[from]
        source: CodecError,
    },
}

/// Sends one.
pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), content: &[u8]) -> Result<(), FrameError> {
    let mut frame = Vec::with_capacity(HEADER_LEN + content.len());
    frame.extend_from_slice(&(content.len() as u32).to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(content).to_be_bytes());
    frame.extend_from_slice(content);
    to.write_all(&frame).await?;
    // One that encrypts may still hold some of it.
    Ok(to.flush().await?)
}

/// Receives one of at most so many bytes. Memory grows with what arrives, not with what is announced.
pub(super) async fn receive(from: &mut (impl AsyncRead + Unpin), max: usize) -> Result<Vec<u8>, FrameError> {
    let len = from.read_u32().await? as usize;
    if len > max {
        return Err(FrameError::TooLong { len, max });
    }
    let sent = from.read_u32().await?;
    let mut content = Vec::new();
    from.take(len as u64).read_to_end(&mut content).await?;
    if content.len() < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let computed = crc32c::crc32c(&content);
    if computed == sent {
        Ok(content)
    } else {
        Err(FrameError::Checksum { computed, sent })
    }
}
