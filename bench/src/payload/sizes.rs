//! How large the values of records are: one size, a range, or several with weights. `1KiB`, `100..10KiB`, `100:9,64KiB:1`.
//!
//! A size is picked by 32 bits that follow from the record's identity, so that whoever verifies a record picks the same.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::VALUE_SIZE_MAX;

/// A distribution of sizes, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    shape: Shape,
    /// As the user gave it.
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Fixed(usize),
    /// Both included, all equally likely.
    Range(usize, usize),
    /// Each with the sum of its weight and those before it.
    Weighted(Vec<(usize, u64)>),
}

impl Sizes {
    /// One size for all.
    #[cfg(test)]
    pub fn fixed(size: usize) -> Self {
        Self {
            shape: Shape::Fixed(size),
            text: size.to_string(),
        }
    }

    /// The one size, if there is only one.
    pub fn as_fixed(&self) -> Option<usize> {
        match self.shape {
            Shape::Fixed(size) => Some(size),
            _ => None,
        }
    }

    /// The largest.
    pub fn max(&self) -> usize {
        match &self.shape {
            Shape::Fixed(size) => *size,
            Shape::Range(_, max) => *max,
            Shape::Weighted(sizes) => sizes.iter().map(|(size, _)| *size).max().unwrap_or_default(),
        }
    }

    /// The mean, in bytes.
    pub fn mean(&self) -> f64 {
        match &self.shape {
            Shape::Fixed(size) => *size as f64,
            Shape::Range(min, max) => f64::midpoint(*min as f64, *max as f64),
            Shape::Weighted(sizes) => {
                let mut before = 0;
                let mut sum = 0.0;
                for &(size, upto) in sizes {
                    sum += size as f64 * (upto - before) as f64;
                    before = upto;
                }
                sum / before.max(1) as f64
            }
        }
    }

    /// The size that these bits, all equally likely, stand for.
    #[inline]
    pub fn pick(&self, bits: u32) -> usize {
        let scaled = |upto: u64| (u64::from(bits) * upto) >> 32;
        match &self.shape {
            Shape::Fixed(size) => *size,
            Shape::Range(min, max) => min + scaled((max - min + 1) as u64) as usize,
            Shape::Weighted(sizes) => {
                let total = sizes.last().map_or(0, |&(_, upto)| upto);
                let place = scaled(total);
                sizes[sizes.partition_point(|&(_, upto)| upto <= place)].0
            }
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = if let Some((min, max)) = text.split_once("..") {
            let (min, max) = (size(min)?, size(max.trim_start_matches('='))?);
            if min > max {
                return Err(format!("the range begins at {min}, beyond its end at {max}"));
            }
            Shape::Range(min, max)
        } else if text.contains([',', ':']) {
            let mut upto = 0_u64;
            let mut sizes = Vec::new();
            for part in text.split(',') {
                let (part, weight) = part.split_once(':').unwrap_or((part, "1"));
                let weight: u32 = weight
                    .trim()
                    .parse()
                    .map_err(|error| format!("the weight {weight:?} of size {part} is no whole number ({error})"))?;
                upto += u64::from(weight);
                if weight > 0 {
                    sizes.push((size(part)?, upto));
                }
            }
            if sizes.is_empty() {
                return Err("all weights are 0: give at least one size a weight above that".into());
            }
            Shape::Weighted(sizes)
        } else {
            Shape::Fixed(size(text)?)
        };
        Ok(Self {
            shape,
            text: text.to_owned(),
        })
    }
}

fn size(text: &str) -> Result<usize, String> {
    let bytes: bytesize::ByteSize = text.trim().parse()?;
    match bytes.as_u64() {
        0 => Err("a size must be more than 0".into()),
        bytes if bytes > VALUE_SIZE_MAX as u64 => Err(format!("a size must be at most {VALUE_SIZE_MAX} bytes")),
        bytes => Ok(bytes as usize),
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Sizes {
    /// A number if there is one size, else as the user gave it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_fixed() {
            Some(size) => serializer.serialize_u64(size as u64),
            None => serializer.serialize_str(&self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(text: &str, sizes: &[usize]) -> Vec<f64> {
        let distribution: Sizes = text.parse().unwrap();
        let picks: Vec<_> = (0..1000_u32)
            .map(|i| distribution.pick(i * (u32::MAX / 1000)))
            .collect();
        let share = |size| picks.iter().filter(|&&pick| pick == size).count() as f64 / 1000.0;
        sizes.iter().map(|&size| share(size)).collect()
    }

    #[test]
    fn each_size_comes_as_often_as_its_weight_says() {
        assert_eq!(shares("1KiB", &[1024]), [1.0]);
        let even = shares("1..4", &[1, 2, 3, 4]);
        assert!(even.iter().all(|share| (share - 0.25).abs() < 0.002), "{even:?}");
        let found = shares("100:9,64KiB:1", &[100, 65_536]);
        assert!(
            (found[0] - 0.9).abs() < 0.002 && (found[1] - 0.1).abs() < 0.002,
            "{found:?}"
        );
        assert!(("100:9,1100:1".parse::<Sizes>().unwrap().mean() - 200.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_distribution_is_refused_with_the_reason() {
        for (bad, reason) in [
            ("0", "more than 0"),
            ("2MiB", "at most"),
            ("10..5", "beyond its end"),
            ("10:x", "weight"),
            ("10:0", "all weights"),
        ] {
            let error = bad.parse::<Sizes>().unwrap_err();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }
}
