//! Any bytes at all, said to a broker where it listens for Kafka's clients.
//!
//! A broker may answer or hang up. What it answers is whole frames in the order of the requests, and it never leaves one hanging who
//! has said all that it had to say.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// In a corpus, the id of the topic `fuzz`: each broker gives it another.
pub const TOPIC_ID: [u8; 16] = *b"ID-OF-TOPIC-fuzz";

/// Longer than any broker takes, whatever else the machine has to do.
const PATIENCE: Duration = Duration::from_mins(1);

/// Of a frame: what states its size, which does not count itself.
const SIZE_LEN: usize = 4;

/// Where the correlation id ends, from the frame's beginning on.
const HEAD_LEN: usize = 12;

/// Where a batch states how long the rest of it is, its format, and what its checksum is and covers.
const BATCH: [usize; 4] = [8, 16, 17, 21];

/// The same bytes, about the topic that has this id.
pub fn aimed(bytes: &[u8], topic: [u8; 16]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(16).position(|part| part == TOPIC_ID) {
        at += found;
        bytes[at..at + 16].copy_from_slice(&topic);
    }
    bytes
}

/// Frames, as far as their sizes can be believed; the last is what is left.
pub fn frames(bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while let Some(size) = rest.first_chunk().map(|size| u32::from_be_bytes(*size) as usize) {
        if size > rest.len() - SIZE_LEN {
            break;
        }
        let (frame, behind) = rest.split_at(SIZE_LEN + size);
        frames.push(frame);
        rest = behind;
    }
    if !rest.is_empty() {
        frames.push(rest);
    }
    frames
}

/// The same frame with a size that is right and batches that have their checksums, so that what is behind these is reached.
pub fn mended(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame.len() < SIZE_LEN {
        return frame;
    }
    let size = (frame.len() - SIZE_LEN) as u32;
    frame[..SIZE_LEN].copy_from_slice(&size.to_be_bytes());
    let [length, magic, crc, covered] = BATCH;
    for at in HEAD_LEN..frame.len().saturating_sub(covered) {
        let batch = &mut frame[at..];
        let stated = u32::from_be_bytes([batch[length], batch[length + 1], batch[length + 2], batch[length + 3]]);
        let end = (stated as usize).saturating_add(length + 4);
        if batch[..length] == [0; 8] && batch[magic] == 2 && (covered..=batch.len()).contains(&end) {
            let sum = crc32c::crc32c(&batch[covered..end]);
            batch[crc..covered].copy_from_slice(&sum.to_be_bytes());
        }
    }
    frame
}

/// The correlation ids of frames that are whole.
fn ids(bytes: &[u8]) -> Vec<i32> {
    let whole = frames(bytes).into_iter().filter(|frame| frame.len() >= HEAD_LEN);
    whole
        .map(|frame| i32::from_be_bytes([frame[8], frame[9], frame[10], frame[11]]))
        .collect()
}

/// Says this, in pieces of so many bytes, and nothing more; returns how many answers there were.
///
/// # Panics
/// If the broker is not there, or behaves as none may.
pub fn hold(broker: SocketAddr, bytes: &[u8], piece: usize) -> usize {
    let said = || format!("after \"{}\"", bytes.escape_ascii());
    let mut stream = TcpStream::connect(broker).unwrap_or_else(|error| panic!("nobody listens {}: {error}", said()));
    stream.set_nodelay(true).expect("a socket takes options");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes options");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("a socket takes options");
    for piece in bytes.chunks(piece.max(1)) {
        // Whoever is hung up on may notice here.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    // The same.
    let _ = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    let ended = stream.read_to_end(&mut answers);
    if let Err(error) = &ended {
        let hangs = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        assert!(!hangs, "neither an answer nor an end {}", said());
    }
    check(&answers, &ids(bytes), ended.is_ok(), &said)
}

/// Each answer is whole and has the id of a request, in their order; the last may be cut off by a connection that breaks.
fn check(answers: &[u8], asked: &[i32], is_whole: bool, said: &impl Fn() -> String) -> usize {
    let mut asked = asked.iter();
    let mut count = 0;
    for answer in frames(answers) {
        let (size, rest) = answer.split_first_chunk().unwrap_or((&[0; SIZE_LEN], &[]));
        if u32::from_be_bytes(*size) as usize != rest.len() {
            assert!(!is_whole, "half an answer {}", said());
            break;
        }
        let id = rest.first_chunk().map(|id| i32::from_be_bytes(*id));
        let id = id.unwrap_or_else(|| panic!("an answer without an id {}", said()));
        assert!(
            asked.any(|asked| *asked == id),
            "an answer to {id}, which was not asked then {}",
            said()
        );
        count += 1;
    }
    count
}
