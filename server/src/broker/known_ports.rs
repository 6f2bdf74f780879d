//! The ports of cores that nobody has chosen. A broker that is started again takes the same ones, if they are free: clients that have
//! nothing but the addresses of nodes find them again.
//!
//! A line for each protocol, `kafka.core_port_base 40001 40002`. What cannot be read, or written, counts as not known.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use futures::FutureExt as _;
use headwater_engine::disk::{Directory as _, StdDirectory};

/// In the data directory.
const FILE: &str = "core-ports";

/// More is not read, in bytes.
const LEN_MAX: u64 = 64 * 1024;

/// The ports of each protocol's cores, by the setting that would choose them.
pub(super) struct KnownPorts {
    path: PathBuf,
    by_key: BTreeMap<String, Vec<u16>>,
    is_new: bool,
}

impl KnownPorts {
    /// Those of last time.
    pub(super) fn read(directory: &Path) -> KnownPorts {
        let path = directory.join(FILE);
        let is_small = fs::metadata(&path).is_ok_and(|found| found.len() <= LEN_MAX);
        let text = if is_small {
            fs::read_to_string(&path)
        } else {
            Ok(String::new())
        };
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let key = words.next()?.to_owned();
            Some((key, words.map_while(|port| port.parse().ok()).collect()))
        };
        KnownPorts {
            path,
            by_key: text.unwrap_or_default().lines().filter_map(line).collect(),
            is_new: false,
        }
    }

    /// Those of cores, in order.
    pub(super) fn of(&self, key: &str) -> &[u16] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// They are these now.
    pub(super) fn are(&mut self, key: &str, ports: &[u16]) {
        if self.of(key) != ports {
            self.by_key.insert(key.to_owned(), ports.to_vec());
            self.is_new = true;
        }
    }

    /// Writes them down for the next time.
    pub(super) fn keep(&self) {
        if !self.is_new {
            return;
        }
        let mut text = String::new();
        for (key, ports) in &self.by_key {
            text += key;
            for port in ports {
                text.push(' ');
                text += &port.to_string();
            }
            text.push('\n');
        }
        let written = StdDirectory::default()
            .replace_file(&self.path, text.into_bytes())
            .now_or_never();
        if let Some(Err(error)) = written {
            tracing::warn!(%error, "the ports of the cores cannot be written down: they will be others at the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_known_again_and_what_cannot_be_read_is_not_known() {
        let directory = tempfile::tempdir().unwrap();
        let mut ports = KnownPorts::read(directory.path());
        assert_eq!(ports.of("a"), [0_u16; 0]);
        ports.are("a", &[1, 2]);
        ports.are("b", &[3]);
        ports.keep();
        let ports = KnownPorts::read(directory.path());
        assert_eq!((ports.of("a"), ports.of("b")), (&[1, 2][..], &[3][..]));
        for (text, known) in [("a 1 2 x 3", &[1, 2][..]), ("a 70000", &[]), ("\u{0}", &[])] {
            fs::write(directory.path().join(FILE), text).unwrap();
            assert_eq!(KnownPorts::read(directory.path()).of("a"), known, "{text:?}");
        }
    }
}
