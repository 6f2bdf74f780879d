//! Several runs as one: for each figure the median, the lowest and the highest.
//!
//! Figures are found through their JSON form, so that none can be forgotten here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Limits;

/// Of each figure by itself; they need not come from the same run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The middle one; of an even number, the lower of both.
    #[serde(rename = "limits")]
    pub median: Limits,
    /// The lowest.
    pub min: Limits,
    /// The highest.
    pub max: Limits,
}

impl Summary {
    /// Of at least one run.
    pub fn of(runs: &[Limits]) -> Self {
        let runs: Vec<_> = runs.iter().map(to_value).collect();
        let last = runs.len().saturating_sub(1);
        let at = |place| from_value(merge(&runs.iter().collect::<Vec<_>>(), place));
        Self {
            median: at(last / 2),
            min: at(0),
            max: at(last),
        }
    }
}

fn to_value(limits: &Limits) -> Value {
    serde_json::to_value(limits).expect("figures have string keys only")
}

fn from_value(value: Value) -> Limits {
    serde_json::from_value(value).expect("made of figures only")
}

/// The figures at a place, in the order of their sizes.
fn merge(runs: &[&Value], place: usize) -> Value {
    if let Some(Value::Object(first)) = runs.first() {
        let merged = |key: &String| {
            let figures: Vec<_> = runs.iter().filter_map(|run| run.get(key)).collect();
            (key.clone(), merge(&figures, place))
        };
        return first.keys().map(merged).collect();
    }
    let mut figures = runs.to_vec();
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    figures.sort_by(|a, b| number(a).total_cmp(&number(b)));
    figures.get(place).copied().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::figures::Percentiles;

    fn limits(rate: f64, p50: f64) -> Limits {
        let mut limits = Limits::default();
        limits.bare.bytes_per_s = Some(rate);
        limits.floor.ack_us = Some(Percentiles {
            p50,
            samples: 7,
            ..Percentiles::default()
        });
        limits
    }

    #[test]
    fn each_figure_has_its_own_median_and_extremes() {
        let summary = Summary::of(&[limits(3.0, 1.0), limits(1.0, 2.0), limits(2.0, 3.0)]);
        assert_eq!(summary.median, limits(2.0, 2.0));
        assert_eq!(summary.min, limits(1.0, 1.0));
        assert_eq!(summary.max, limits(3.0, 3.0));
        let one = Summary::of(&[limits(5.0, 6.0)]);
        assert!(one.median == one.min && one.min == one.max);
    }
}
