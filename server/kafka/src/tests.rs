//! Every message at every version: there and back, against another implementation, and with bytes that are no message.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic, helpers of tests too")]

mod allocation;
mod hostile;
mod hot;
mod oracle;
mod random;
mod round_trip;

use std::cell::OnceCell;
use std::fmt::Debug;
use std::ops::RangeInclusive;

use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message as TheirMessage};

use crate::messages;
use crate::reader::{Malformed, Reader};
use crate::value::{Message, Version};
use random::{Random, Source};

/// One message, and what can be done with it.
struct Case {
    name: &'static str,
    versions: RangeInclusive<i16>,
    /// Versions that the other implementation knows.
    known_to_them: RangeInclusive<i16>,
    /// One made of random bytes is written and read again, and must be the same; its bytes.
    there_and_back: fn(&[u8], i16) -> Vec<u8>,
    /// Reads one, if it is one.
    read: fn(&[u8], i16),
    /// Reads one, and writes it again.
    rewrite: fn(&[u8], i16) -> Result<Vec<u8>, Malformed>,
    /// The same by the other implementation.
    their_rewrite: fn(&[u8], i16) -> Vec<u8>,
}

macro_rules! case {
    ($message:ident) => {
        Case {
            name: <messages::$message as Message>::NAME,
            versions: <messages::$message as Message>::VERSIONS,
            known_to_them: {
                let versions = <theirs::$message as TheirMessage>::VERSIONS;
                versions.min..=versions.max
            },
            there_and_back: |source, version| there_and_back::<messages::$message>(source, version, &OnceCell::new()),
            read: |bytes, version| {
                let _ = messages::$message::read(&mut Reader::new(bytes), version);
            },
            rewrite: |bytes, version| rewrite::<messages::$message>(bytes, version),
            their_rewrite: their_rewrite::<theirs::$message>,
        }
    };
}

/// `CASES`, and how each message is made at random.
#[allow(clippy::all, clippy::pedantic, reason = "generated")]
mod cases {
    use super::*;

    include!(concat!(env!("OUT_DIR"), "/cases.rs"));
}
use cases::CASES;

fn there_and_back<'a, M: Message<'a> + Random + PartialEq + Debug>(
    source: &[u8],
    version: i16,
    bytes: &'a OnceCell<Vec<u8>>,
) -> Vec<u8> {
    let form = Version {
        number: version,
        flexible: version >= M::FLEXIBLE_FROM,
    };
    let message = M::random(&mut Source::new(source), form);
    let bytes = bytes.get_or_init(|| {
        let mut out = Vec::new();
        message.write(&mut out, version).unwrap();
        out
    });
    let mut reader = Reader::new(bytes);
    let read = M::read(&mut reader, version).unwrap();
    assert_eq!(read, message, "{} {version}: {bytes:02x?}", M::NAME);
    assert_eq!(reader.left(), 0, "{} {version}: {bytes:02x?}", M::NAME);
    bytes.clone()
}

fn rewrite<'a, M: Message<'a>>(bytes: &'a [u8], version: i16) -> Result<Vec<u8>, Malformed> {
    let message = M::read(&mut Reader::new(bytes), version)?;
    let mut out = Vec::new();
    message.write(&mut out, version).unwrap();
    Ok(out)
}

fn their_rewrite<M: Decodable + Encodable>(mut bytes: &[u8], version: i16) -> Vec<u8> {
    let message = M::decode(&mut bytes, version).unwrap();
    assert_eq!(bytes.len(), 0);
    let mut out = Vec::new();
    message.encode(&mut out, version).unwrap();
    out
}
