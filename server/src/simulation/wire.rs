//! A client of the wire protocol, as small as it can be: frames out, frames in.

use std::{io, net::SocketAddr, time::Duration};

use flatbuffers::{Follow, Verifiable};
use headwater_protocol::{
    error::ErrorCode,
    frame::{self, Api, FrameHeader},
    head::{self, Head},
    id::CorrelationId,
};

use super::client::PATIENCE;
use crate::machine::{
    self,
    simulated::{here, net::Stream},
};

/// Largest frame that a client takes.
const FRAME_MAX: u32 = 64 << 20;

/// A connection to the broker.
pub(super) struct Wire {
    stream: Stream,
    received: Vec<u8>,
    next_id: u32,
}

/// A frame that has come.
pub(super) struct Reply {
    pub(super) id: CorrelationId,
    pub(super) api: u16,
    pub(super) head: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Reply {
    /// In bytes.
    pub(super) fn size(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// The head, if it is what was asked for.
    pub(super) fn read<'a, T>(&'a self) -> io::Result<T::Inner>
    where
        T: Follow<'a> + Verifiable + 'a,
    {
        if self.api == Api::Error.as_u16() {
            return Err(io::Error::other("the broker did not understand a request"));
        }
        head::decode_response::<T>(&self.head).map_err(io::Error::other)
    }
}

/// Waits for an answer, but not for ever.
pub(super) async fn patiently<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let answered = machine::until(machine::now() + PATIENCE, answer).await;
    answered.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

impl Wire {
    pub(super) async fn open(address: SocketAddr) -> io::Result<Wire> {
        Ok(Wire {
            stream: Stream::connect(address).await?,
            received: Vec::new(),
            next_id: 1,
        })
    }

    /// Sends a request; its number is the answer's.
    async fn send<H: Head>(&mut self, head: &H) -> io::Result<CorrelationId> {
        let id = CorrelationId::new(self.next_id);
        self.next_id += 1;
        let bytes = frame::encode_head(head, 0, id, 0);
        let mut left = &bytes[..];
        while !left.is_empty() {
            match self.stream.try_send(left)? {
                Some(count) => left = &left[count..],
                None => self.stream.writable().await,
            }
        }
        Ok(id)
    }

    /// The next answer.
    async fn receive(&mut self) -> io::Result<Reply> {
        loop {
            let header = FrameHeader::parse(&self.received, FRAME_MAX).map_err(io::Error::other)?;
            if let Some(header) = header
                && self.received.len() >= header.frame_len()
            {
                let frame: Vec<u8> = self.received.drain(..header.frame_len()).collect();
                let (head, payload) = frame[frame::HEADER_LEN..].split_at(header.head_len());
                return Ok(Reply {
                    id: header.correlation_id,
                    api: header.api,
                    head: head.to_vec(),
                    payload: payload.to_vec(),
                });
            }
            let mut buffer = vec![0; 16 << 10];
            let count = self.stream.read(&mut buffer).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&buffer[..count]);
        }
    }

    /// Sends a request and waits for its answer, the only one under way.
    pub(super) async fn ask<H: Head>(&mut self, head: &H) -> io::Result<Reply> {
        let answer = async {
            let id = self.send(head).await?;
            let reply = self.receive().await?;
            assert_eq!(reply.id, id, "the broker answers something that was not asked");
            Ok(reply)
        };
        patiently(answer).await
    }
}

/// An error of the broker's as one of the connection's, so that whoever asked tries again.
pub(super) fn check(error: i16) -> io::Result<()> {
    match ErrorCode::from_i16(error) {
        ErrorCode::None => Ok(()),
        code => Err(io::Error::other(code.name())),
    }
}

/// Writes a line of whoever runs into the history.
pub(super) fn tell(line: &str) {
    if let Some(here) = here() {
        here.world.tell(Some(here.process), line);
    }
}

/// Waits for so long at most.
pub(super) async fn pause(most: Duration) {
    machine::sleep(most.mul_f64(machine::random::<f64>())).await;
}
