//! The axes of a sweep: each names an option or a knob of the broker, and the values that it takes.
//!
//! A point is applied to the options by parsing it as the option would be, so that what is legal there is legal here.

use std::fmt;
use std::str::FromStr;

use clap::{FromArgMatches as _, ValueEnum};
use headwater_server::Config;
use serde::{Serialize, Serializer};

use super::RunArgs;
use crate::error::BenchError;

/// What is varied, and its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Axis {
    /// What.
    pub name: AxisName,
    /// Its values, as given.
    pub points: Vec<String>,
}

/// What can be swept over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AxisName {
    /// An option of the bench.
    Option(AxisOption),
    /// A knob of the broker in this process, `SECTION.KEY`.
    Knob(String),
}

/// Options that can be swept over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AxisOption {
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
    /// `--system`: Headwater by its own protocol and by Kafka's
    #[cfg(feature = "kafka")]
    System,
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
    /// As the command of this name, with one consumer of what was just written
    Consume,
    /// The same from the disk
    ConsumeCold,
}

impl AxisOption {
    /// The option without its dashes.
    pub fn option(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

impl fmt::Display for AxisName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(option) => f.write_str(&option.option()),
            Self::Knob(key) => f.write_str(key),
        }
    }
}

impl Serialize for AxisName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, points) = text
            .split_once('=')
            .ok_or("it must be NAME=VALUE,VALUE,..., such as record-size=100,1KiB")?;
        let name = if name.contains('.') {
            AxisName::Knob(name.to_owned())
        } else {
            let option = AxisOption::from_str(name, false).map_err(|_unknown| {
                let names: Vec<_> = AxisOption::value_variants().iter().map(|name| name.option()).collect();
                let names = names.join(", ");
                format!("there is no axis {name:?}; there are {names}, and SECTION.KEY for every knob of the broker")
            })?;
            AxisName::Option(option)
        };
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
/// If the option refuses the value. Whether the broker takes a knob's is for [`check`].
pub fn set(run: &mut RunArgs, axis: &AxisName, value: &str) -> Result<(), BenchError> {
    match axis {
        AxisName::Option(option) => set_option(run, *option, value),
        AxisName::Knob(key) => set_knob(run, key, value),
    }
}

fn set_knob(run: &mut RunArgs, key: &str, value: &str) -> Result<(), BenchError> {
    if run.place.server.is_some() {
        return Err(BenchError::Options(format!(
            "axis {key}: knobs are those of the broker in this process; leave out --server"
        )));
    }
    run.place.broker.set.push((key.to_owned(), value.to_owned()));
    Ok(())
}

/// Whether the broker takes its knobs as they are at a point, with those of all axes.
///
/// # Errors
/// If it does not.
pub fn check(run: &RunArgs) -> Result<(), BenchError> {
    let set = run.place.broker.set.iter();
    Config::default().with(set.map(|(key, value)| (key.as_str(), value.as_str())))?;
    Ok(())
}

fn set_option(run: &mut RunArgs, axis: AxisOption, value: &str) -> Result<(), BenchError> {
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
        AxisOption::RecordSize => run.values.record_size = parsed.values.record_size,
        AxisOption::BatchBytes => run.load.client.batch_bytes = parsed.load.client.batch_bytes,
        AxisOption::Linger => run.load.client.linger = parsed.load.client.linger,
        AxisOption::Producers => run.load.producers = parsed.load.producers,
        AxisOption::Partitions => run.load.partitions = parsed.load.partitions,
        AxisOption::Cores => run.place.broker.cores = parsed.place.broker.cores,
        AxisOption::Acks => run.load.client.acks = parsed.load.client.acks,
        AxisOption::Rate => run.load.rate = parsed.load.rate,
        #[cfg(feature = "kafka")]
        AxisOption::System if run.place.server.is_some() => {
            return Err(BenchError::Options(
                "axis system: systems that run have addresses of their own; leave out --server, or compare two results"
                    .into(),
            ));
        }
        #[cfg(feature = "kafka")]
        AxisOption::System => run.place.system = parsed.place.system,
    }
    Ok(())
}

/// Every point of the grid of all axes, the last axis fastest.
pub fn grid(axes: &[Axis]) -> Vec<Vec<(AxisName, String)>> {
    let mut cells = vec![Vec::new()];
    for axis in axes {
        let extend = |cell: &Vec<(AxisName, String)>, point: &String| {
            let mut cell = cell.clone();
            cell.push((axis.name.clone(), point.clone()));
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
                (AxisName::Option(AxisOption::Linger), "0ms".to_owned()),
                (AxisName::Option(AxisOption::Acks), "none".to_owned())
            ]
        );
    }

    #[test]
    fn every_axis_changes_its_option_and_nothing_else() {
        let unchanged = serde_json::to_value(options()).unwrap();
        for (&axis, value) in AxisOption::value_variants()
            .iter()
            .zip(["7", "7KiB", "7ms", "7", "7", "7", "none", "7", "kafka"])
        {
            let mut run = options();
            set(&mut run, &AxisName::Option(axis), value).unwrap();
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
        for (axis, value) in [("linger", "soon"), ("flush.delay_us", "soon"), ("flush.speed", "1")] {
            let axis: Axis = format!("{axis}={value}").parse().unwrap();
            let mut run = options();
            let error = set(&mut run, &axis.name, value).and_then(|()| check(&run));
            let (error, named) = (error.unwrap_err().to_string(), axis.name.to_string());
            assert!(
                error.contains(&named) && (error.contains(value) || value == "1"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_knob_of_the_broker_is_an_axis_unless_the_broker_is_another_process() {
        let axis: Axis = "flush.delay_us=0us,50us".parse().unwrap();
        let mut run = options();
        set(&mut run, &axis.name, &axis.points[1]).unwrap();
        assert_eq!(run.place.broker.set, [("flush.delay_us".to_owned(), "50us".to_owned())]);
        check(&run).unwrap();
        run.place.server = Some("localhost:9292".into());
        let error = set(&mut run, &axis.name, &axis.points[0]).unwrap_err().to_string();
        assert!(error.contains("--server"), "{error}");
    }
}
