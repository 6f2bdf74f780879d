//! The limits as two tables for people: throughput, and latency.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::figures::{Limits, Percentiles};
use super::summary::Summary;
use crate::environment::Environment;

type Rate = (&'static str, fn(&Limits) -> Option<f64>);
type Time = (&'static str, fn(&Limits) -> Option<Percentiles>);

const RATES: [Rate; 17] = [
    ("disk write, 128 KiB", |l| l.disk.write_128_kib_bytes_per_s),
    ("disk write, 1 MiB", |l| l.disk.write_1_mib_bytes_per_s),
    ("disk read, 128 KiB", |l| l.disk.read_128_kib_bytes_per_s),
    ("disk read, 1 MiB", |l| l.disk.read_1_mib_bytes_per_s),
    ("loopback", |l| l.network.loopback_bytes_per_s),
    ("loopback, sendfile", |l| l.network.sendfile_bytes_per_s),
    ("copy, hot", |l| l.memory.memcpy_bytes_per_s),
    ("copy, hot, aliased", |l| l.memory.memcpy_aliased_bytes_per_s),
    ("copy, cold", |l| l.memory.memcpy_cold_bytes_per_s),
    ("copy, fresh", |l| l.memory.memcpy_fresh_bytes_per_s),
    ("CRC-32C", |l| l.memory.crc_bytes_per_s),
    ("min(disk write, loopback)", Limits::durable_bytes_per_s),
    ("min(disk read, loopback)", Limits::cold_bytes_per_s),
    ("bare program", |l| l.bare.bytes_per_s),
    ("bare, flush per 4 MiB", |l| l.bare.flush_4_mib_bytes_per_s),
    ("bare, built records", |l| l.bare.built_bytes_per_s),
    ("bare, with a consumer", |l| l.bare.push_bytes_per_s),
];

const TIMES: [Time; 8] = [
    ("4 KiB write + fdatasync", |l| l.disk.write_flush_us),
    ("4 KiB write, RWF_DSYNC", |l| l.disk.write_dsync_us),
    ("round trip, 64 B", |l| l.network.round_trip_us),
    ("flush in the bare program", |l| l.bare.flush_us),
    ("floor: acknowledged", |l| l.floor.ack_us),
    ("floor: end to end", |l| l.floor.end_to_end_us),
    ("floor, paced: acknowledged", |l| l.floor.paced_ack_us),
    ("floor, paced: end to end", |l| l.floor.paced_end_to_end_us),
];

/// Several lines, the last of them ended.
pub fn text(summary: &Summary, repeat: u32, environment: &Environment, notes: &[String]) -> String {
    let mut text = String::new();
    for table in [rates(summary, repeat), times(summary, repeat)] {
        if table.row_count() > 0 {
            let _ = writeln!(text, "{table}");
        }
    }
    if let Some(flush_us) = summary.median.disk.write_flush_after_us {
        let _ = writeln!(
            text,
            "disk      one fdatasync after the writes of 1 MiB took {flush_us:.0} us, which is not in their time"
        );
    }
    if repeat > 1 {
        let _ = writeln!(
            text,
            "repeats   {repeat}: medians, and the lowest and highest of each figure"
        );
    }
    let _ = writeln!(text, "machine   {}", machine(environment));
    for note in notes {
        let _ = writeln!(text, "note      {note}");
    }
    text
}

fn machine(environment: &Environment) -> String {
    let model = environment.cpu_model.as_deref().unwrap_or("CPU");
    let mut text = format!("Linux {}, {} x {model}", environment.kernel, environment.cpus);
    if let Some(filesystem) = &environment.filesystem {
        let _ = write!(text, ", file on {filesystem}");
    }
    text
}

fn rates(summary: &Summary, repeat: u32) -> Table {
    let spread: &[&str] = if repeat > 1 { &["min", "max"] } else { &[] };
    let mut table = table(&[&["throughput", "MB/s"], spread].concat());
    for (title, figure) in RATES {
        let Some(median) = figure(&summary.median) else {
            continue;
        };
        let mut row = vec![median];
        if repeat > 1 {
            row.extend([&summary.min, &summary.max].into_iter().filter_map(figure));
        }
        let row = row.into_iter().map(|rate| format!("{:.0}", rate / 1e6));
        add(&mut table, title, row);
    }
    table
}

fn times(summary: &Summary, repeat: u32) -> Table {
    let spread: &[&str] = if repeat > 1 {
        &["p50 min", "p50 max", "p99 min", "p99 max"]
    } else {
        &[]
    };
    let mut table = table(&[&["latency, us", "p50", "p90", "p99", "p99.9", "max"], spread].concat());
    for (title, figure) in TIMES {
        let Some(median) = figure(&summary.median) else {
            continue;
        };
        let mut row = vec![median.p50, median.p90, median.p99, median.p999, median.max];
        if let (true, Some(min), Some(max)) = (repeat > 1, figure(&summary.min), figure(&summary.max)) {
            row.extend([min.p50, max.p50, min.p99, max.p99]);
        }
        add(&mut table, title, row.into_iter().map(|us| format!("{us:.0}")));
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

fn add(table: &mut Table, title: &str, row: impl Iterator<Item = String>) {
    let cells = row.map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
    table.add_row(std::iter::once(Cell::new(title)).chain(cells));
}
