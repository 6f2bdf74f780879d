//! What keys records have: none, or one of so many, all equally likely or some far more than others (Zipf's law).
//!
//! A key is 16 bytes: its number, and a scrambled copy by which a consumer tells a whole key from a damaged one. The
//! partition follows from the key as in Kafka's default partitioner, so that a skew of keys is a skew of partitions.

use std::fmt;
use std::str::FromStr;

use headwater_client::murmur2;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};
use serde::{Serialize, Serializer};

use super::{GOLDEN, scramble};

/// The distribution of keys. `none`, `uniform:COUNT`, `zipf:COUNT` or `zipf:COUNT:EXPONENT`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Keys {
    /// No key: records go to the partitions by turns.
    #[default]
    None,
    /// So many keys, all equally likely.
    Uniform(u64),
    /// So many keys; the n-th is 1/n^exponent as likely as the first.
    Zipf(u64, f64),
}

impl Keys {
    /// Bytes in a key.
    pub const LEN: usize = 16;

    /// Whether a key is as the bench makes them.
    pub fn is_whole(key: &[u8]) -> bool {
        key.len() == Self::LEN
            && key
                .first_chunk()
                .is_some_and(|number| key == bytes(u64::from_be_bytes(*number)))
    }
}

fn bytes(number: u64) -> [u8; Keys::LEN] {
    let mut key = [0; Keys::LEN];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&scramble(number.wrapping_add(GOLDEN)).to_be_bytes());
    key
}

impl FromStr for Keys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let count = |count: &str| match count.parse::<u64>() {
            Ok(count) if (1..=1 << 40).contains(&count) => Ok(count),
            _ => Err(format!(
                "{count:?} is no number of keys: it must be from 1 to {}",
                1_u64 << 40
            )),
        };
        match parts[..] {
            ["none"] => Ok(Self::None),
            ["uniform", keys] => Ok(Self::Uniform(count(keys)?)),
            ["zipf", keys] => Ok(Self::Zipf(count(keys)?, 1.0)),
            ["zipf", keys, exponent] => match exponent.parse() {
                Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(Self::Zipf(count(keys)?, exponent)),
                _ => Err(format!("{exponent:?} is no exponent: it must be a number from 0 to 10")),
            },
            _ => Err("it must be none, uniform:COUNT, zipf:COUNT or zipf:COUNT:EXPONENT".into()),
        }
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Uniform(count) => write!(f, "uniform:{count}"),
            Self::Zipf(count, exponent) => write!(f, "zipf:{count}:{exponent}"),
        }
    }
}

impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Draws the keys of one producer.
#[derive(Debug)]
pub struct KeySource {
    keys: Keys,
    zipf: Option<Zipf<f64>>,
    random: SmallRng,
    partitions: u32,
}

impl KeySource {
    /// `seed` tells the producers of one run apart.
    pub fn new(keys: Keys, partitions: u32, seed: u64) -> Self {
        let zipf = match keys {
            Keys::Zipf(count, exponent) => Zipf::new(count as f64, exponent).ok(),
            _ => None,
        };
        Self {
            keys,
            zipf,
            random: SmallRng::seed_from_u64(seed),
            partitions: partitions.max(1),
        }
    }

    /// The next key and the index of its partition; `None` if records have no keys.
    #[inline]
    pub fn draw(&mut self) -> Option<([u8; Keys::LEN], usize)> {
        let number = match self.keys {
            Keys::None => return None,
            Keys::Uniform(count) => self.random.random_range(0..count),
            // Ranks begin at 1.
            Keys::Zipf(..) => self.zipf.as_ref()?.sample(&mut self.random) as u64 - 1,
        };
        let key = bytes(number);
        // As in Kafka's default partitioner: the hash without its sign.
        let hash = murmur2(&key) & 0x7fff_ffff;
        Some((key, (hash % self.partitions) as usize))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn counts(keys: Keys) -> Vec<usize> {
        let mut source = KeySource::new(keys, 4, 1);
        let mut counts: HashMap<_, usize> = HashMap::new();
        for _ in 0..20_000 {
            *counts.entry(source.draw().unwrap().0).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    #[test]
    fn keys_come_as_often_as_their_distribution_says() {
        let uniform = counts(Keys::Uniform(10));
        assert_eq!(uniform.len(), 10);
        assert!(uniform[0] < 2 * uniform[9], "{uniform:?}");
        let zipf = counts(Keys::Zipf(10, 1.0));
        // The first of ten has 1 / (1 + 1/2 + ... + 1/10) = 34% of all.
        assert!((6_000..7_700).contains(&zipf[0]), "{zipf:?}");
    }

    #[test]
    fn a_key_has_one_partition_and_a_damaged_key_is_told() {
        let mut source = KeySource::new(Keys::Uniform(50), 7, 1);
        let mut places = HashMap::new();
        for _ in 0..1000 {
            let (mut key, partition) = source.draw().unwrap();
            assert_eq!(*places.entry(key).or_insert(partition), partition);
            assert!(Keys::is_whole(&key));
            key[3] ^= 1;
            assert!(!Keys::is_whole(&key));
        }
    }

    #[test]
    fn distributions_are_read_as_they_are_written() {
        for text in ["none", "uniform:10", "zipf:10:1.5"] {
            assert_eq!(text.parse::<Keys>().unwrap().to_string(), text);
        }
        assert_eq!("zipf:10".parse::<Keys>().unwrap(), Keys::Zipf(10, 1.0));
        for bad in [
            "",
            "none:1",
            "uniform",
            "uniform:0",
            "uniform:1:2",
            "zipf:10:x",
            "other:1",
        ] {
            assert!(bad.parse::<Keys>().is_err(), "{bad}");
        }
    }
}
