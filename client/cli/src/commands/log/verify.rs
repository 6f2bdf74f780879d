//! `headwater log verify`: every batch of segment files is checked, and what is damaged is named.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::partition::Partition;
use super::place::Place;
use super::{Damage, Finding, Unfinished, check, failure};
use crate::args::Output;
use crate::failure::Failure;
use crate::screen::Rows;
use crate::values;

pub const EXAMPLES: &str = "\
Examples:
  headwater log verify /srv/headwater
  headwater log verify /srv/headwater/orders-0
  headwater log verify /srv/headwater --output json | jq .damage.file

Needs no broker, changes nothing and takes no lock. Checked are lengths, checksums, that offsets follow one another in and between \
segments, that every record can be read, also when it is compressed, and that all is there that the last checkpoint says was \
durable. Index files are not looked at: a broker makes them anew. With `--output json` each line is an object with one of \
`partition`, `damage` or `unfinished`. Exit status 6: damage was found.";

/// Options of `log verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A data directory, a partition's directory in it, or a segment (.log)
    #[arg(required = true, value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
}

/// What one partition holds.
#[derive(Debug, Default)]
struct Tally {
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
    /// First offset, and the one behind the last.
    offsets: Option<(u64, u64)>,
    damage: Vec<Damage>,
    unfinished: Vec<Unfinished>,
}

/// Does what was asked for.
pub fn run(args: &VerifyArgs, output: Output) -> Result<(), Failure> {
    let places: Vec<Place> = args
        .paths
        .iter()
        .map(|path| Place::read(path))
        .collect::<Result<_, _>>()?;
    places.iter().for_each(Place::warn_if_in_use);
    let partitions: Vec<&Partition> = places.iter().flat_map(|place| &place.partitions).collect();
    let bar = progress(partitions.iter().map(|partition| partition.size()).sum());
    let mut tallies = Vec::with_capacity(partitions.len());
    for partition in partitions {
        bar.set_message(partition.name.clone());
        tallies.push((partition, tally(partition, &bar)?));
    }
    bar.finish_and_clear();
    let text = match output {
        Output::Json => values::lines(
            tallies
                .iter()
                .flat_map(|(partition, tally)| json_lines(partition, tally)),
        ),
        Output::Table => table(&tallies),
    };
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    failure(tallies.iter().map(|(_, tally)| tally.damage.len() as u64).sum())
}

/// A bar for whoever waits.
fn progress(bytes: u64) -> ProgressBar {
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let template = "{bar:30} {percent:>3}% {binary_bytes_per_sec}, {eta} left, {msg}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is legal"));
    bar
}

fn tally(partition: &Partition, bar: &ProgressBar) -> Result<Tally, Failure> {
    let mut tally = Tally {
        damage: partition.damage.clone(),
        ..Tally::default()
    };
    for segment in &partition.segments {
        tally.segments += 1;
        let done = bar.position();
        check(segment, |finding| {
            match finding {
                Finding::Batch(batch) => {
                    let header = batch.header();
                    tally.batches += 1;
                    tally.records += u64::from(header.record_count());
                    tally.bytes += batch.size();
                    let first = tally.offsets.map_or(header.base_offset().get(), |(first, _)| first);
                    tally.offsets = Some((first, header.next_offset().get()));
                    bar.inc(batch.size());
                }
                Finding::Damage(damage) => tally.damage.push(damage),
                Finding::Unfinished(unfinished) => tally.unfinished.push(unfinished),
            }
            Ok(true)
        })?;
        bar.set_position(done + segment.size);
    }
    Ok(tally)
}

fn json_lines(partition: &Partition, tally: &Tally) -> Vec<Value> {
    let (topic, number) = partition.split_name();
    let mut lines = vec![json!({"partition": {
        "topic": topic,
        "partition": number,
        "segments": tally.segments,
        "batches": tally.batches,
        "records": tally.records,
        "size_bytes": tally.bytes,
        "first_offset": tally.offsets.map(|(first, _)| first),
        "next_offset": tally.offsets.map(|(_, next)| next),
        "damaged": tally.damage.len(),
    }})];
    lines.extend(tally.damage.iter().map(Damage::json));
    lines.extend(tally.unfinished.iter().map(Unfinished::json));
    lines
}

fn table(tallies: &[(&Partition, Tally)]) -> String {
    let mut rows = Rows::new([
        "PARTITION",
        ">SEGMENTS",
        ">BATCHES",
        ">RECORDS",
        ">SIZE",
        "OFFSETS",
        "RESULT",
    ]);
    let mut below = Vec::new();
    for (partition, tally) in tallies {
        let last = |(first, next): (u64, u64)| format!("{first}-{}", next - 1);
        let result = match tally.damage.len() {
            0 => "whole".to_owned(),
            damaged => format!("{damaged} damaged"),
        };
        rows.add([
            partition.name.clone(),
            tally.segments.to_string(),
            tally.batches.to_string(),
            tally.records.to_string(),
            values::size(tally.bytes),
            tally.offsets.map_or_else(|| "none".to_owned(), last),
            result,
        ]);
        below.extend(tally.damage.iter().map(Damage::text));
        below.extend(tally.unfinished.iter().map(Unfinished::text));
    }
    rows.text() + &values::lines(below.into_iter())
}
