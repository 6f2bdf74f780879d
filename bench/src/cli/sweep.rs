//! The axes of a sweep: each names an option, and the values that it takes.
//!
//! A point is applied to the options by parsing it as the option would be, so that what is legal there is legal here.

use std::str::FromStr;

use clap::{FromArgMatches as _, ValueEnum};
use serde::{Serialize, Serializer};

use super::RunArgs;
use crate::error::BenchError;

/// An option and its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Axis {
    /// The option.
    pub name: AxisName,
    /// Its values, as given.
    pub points: Vec<String>,
}

/// Options that can be swept over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AxisName {
    /// `--record-size`
    RecordSize,
    /// `--batch-bytes`
    BatchBytes,
    /// `--linger`
    Linger,
    /// `--producers`
    Producers,
    /// `--partitions`
    Partitions,
    /// `--cores`
    Cores,
    /// `--acks`
    Acks,
    /// `--rate`
    Rate,
}

/// What is run at each point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SweepWorkload {
    /// As the command of this name
    #[default]
    Produce,
    /// As the command of this name, with one consumer
    EndToEnd,
}

impl AxisName {
    /// The option without its dashes.
    pub fn option(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

impl Serialize for AxisName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.option())
    }
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, points) = text
            .split_once('=')
            .ok_or("it must be NAME=VALUE,VALUE,..., such as record-size=100,1KiB")?;
        let name = AxisName::from_str(name, false).map_err(|_unknown| {
            let names: Vec<_> = AxisName::value_variants().iter().map(|name| name.option()).collect();
            format!("there is no axis {name:?}; there are {}", names.join(", "))
        })?;
        let points: Vec<_> = points.split(',').map(|point| point.trim().to_owned()).collect();
        if points.iter().any(String::is_empty) {
            return Err("a value is missing between commas".into());
        }
        Ok(Self { name, points })
    }
}

/// The options with this value for an axis.
///
/// # Errors
/// If the option refuses the value.
pub fn set(run: &mut RunArgs, axis: AxisName, value: &str) -> Result<(), BenchError> {
    let option = axis.option();
    let refused = |error: &clap::Error| {
        let reason = error.to_string();
        let reason = reason.lines().next().unwrap_or_default().trim_start_matches("error: ");
        BenchError::Options(format!("axis {option}: {reason}"))
    };
    let command = <RunArgs as clap::Args>::augment_args(clap::Command::new("sweep").no_binary_name(true));
    let matches = command.try_get_matches_from([format!("--{option}={value}")]);
    let parsed = matches.and_then(|matches| RunArgs::from_arg_matches(&matches));
    let parsed = parsed.map_err(|error| refused(&error))?;
    match axis {
        AxisName::RecordSize => run.values.record_size = parsed.values.record_size,
        AxisName::BatchBytes => run.load.client.batch_bytes = parsed.load.client.batch_bytes,
        AxisName::Linger => run.load.client.linger = parsed.load.client.linger,
        AxisName::Producers => run.load.producers = parsed.load.producers,
        AxisName::Partitions => run.load.partitions = parsed.load.partitions,
        AxisName::Cores => run.place.broker.cores = parsed.place.broker.cores,
        AxisName::Acks => run.load.client.acks = parsed.load.client.acks,
        AxisName::Rate => run.load.rate = parsed.load.rate,
    }
    Ok(())
}

/// Every point of the grid of all axes, the last axis fastest.
pub fn grid(axes: &[Axis]) -> Vec<Vec<(AxisName, String)>> {
    let mut cells = vec![Vec::new()];
    for axis in axes {
        let extend = |cell: &Vec<(AxisName, String)>, point: &String| {
            let mut cell = cell.clone();
            cell.push((axis.name, point.clone()));
            cell
        };
        cells = cells
            .iter()
            .flat_map(|cell| axis.points.iter().map(|point| extend(cell, point)).collect::<Vec<_>>())
            .collect();
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> RunArgs {
        let command = <RunArgs as clap::Args>::augment_args(clap::Command::new("test"));
        RunArgs::from_arg_matches(&command.get_matches_from(["test", "--seconds", "3"])).unwrap()
    }

    #[test]
    fn a_grid_has_every_point_of_every_axis_once() {
        let axes = ["linger=0ms,1ms", "acks=all,none,leader"].map(|text| text.parse().unwrap());
        let cells = grid(&axes);
        assert_eq!(cells.len(), 6);
        assert_eq!(
            cells[1],
            [
                (AxisName::Linger, "0ms".to_owned()),
                (AxisName::Acks, "none".to_owned())
            ]
        );
    }

    #[test]
    fn every_axis_changes_its_option_and_nothing_else() {
        let unchanged = serde_json::to_value(options()).unwrap();
        for (&axis, value) in AxisName::value_variants()
            .iter()
            .zip(["7", "7KiB", "7ms", "7", "7", "7", "none", "7"])
        {
            let mut run = options();
            set(&mut run, axis, value).unwrap();
            let changed = serde_json::to_value(run).unwrap();
            let differ = changed
                .as_object()
                .unwrap()
                .iter()
                .filter(|&(key, value)| unchanged[key] != *value);
            let differ: Vec<_> = differ.map(|(key, _)| key.clone()).collect();
            let name = axis.option().replace('-', "_");
            assert_eq!(differ.len(), 1, "{differ:?}");
            assert!(differ[0].starts_with(&name), "{differ:?} for {name}");
        }
    }

    #[test]
    fn what_is_no_axis_or_no_value_of_it_is_refused_by_name() {
        assert!("colour=red".parse::<Axis>().unwrap_err().contains("record-size"));
        assert!("linger".parse::<Axis>().is_err() && "acks=all,,none".parse::<Axis>().is_err());
        let error = set(&mut options(), AxisName::Linger, "soon").unwrap_err().to_string();
        assert!(error.contains("linger") && error.contains("soon"), "{error}");
    }
}
