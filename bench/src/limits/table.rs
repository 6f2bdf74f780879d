//! The limits as two tables for people: throughput, and latency.

use comfy_table::Table;

use super::figures::{Limits, Percentiles};
use super::summary::Summary;
use crate::environment::Environment;
use crate::report::table::{self, machine};
use crate::report::text::Text;

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
    let mut text = Text::for_output();
    for table in [rates(summary, repeat), times(summary, repeat)] {
        if table.row_count() > 0 {
            text.table(table);
            text.gap();
        }
    }
    if let Some(flush_us) = summary.median.disk.write_flush_after_us {
        let content =
            format!("one fdatasync after the writes of 1 MiB took {flush_us:.0} us, which is not in their time");
        text.line("disk", &content);
    }
    if repeat > 1 {
        let content = format!("{repeat}: medians, and the lowest and highest of each figure");
        text.line("repeats", &content);
    }
    text.line("machine", &machine(environment));
    for note in notes {
        text.line("note", note);
    }
    text.finish()
}

fn rates(summary: &Summary, repeat: u32) -> Table {
    let spread: &[&str] = if repeat > 1 { &["min", "max"] } else { &[] };
    let mut table = table::new([&["throughput", "MB/s"], spread].concat());
    for (title, figure) in RATES {
        let Some(median) = figure(&summary.median) else {
            continue;
        };
        let mut row = vec![median];
        if repeat > 1 {
            row.extend([&summary.min, &summary.max].into_iter().filter_map(figure));
        }
        let row = row.into_iter().map(|rate| format!("{:.0}", rate / 1e6));
        table::add(&mut table, std::iter::once(title.to_owned()).chain(row));
    }
    table
}

fn times(summary: &Summary, repeat: u32) -> Table {
    let repeated = repeat > 1;
    let header = if repeated {
        &["latency, us", "p50", "range", "p90", "p99", "range", "p99.9", "max"][..]
    } else {
        &["latency, us", "p50", "p90", "p99", "p99.9", "max"]
    };
    let mut table = table::new(header.iter().copied());
    for (title, figure) in TIMES {
        let (Some(median), Some(min), Some(max)) =
            (figure(&summary.median), figure(&summary.min), figure(&summary.max))
        else {
            continue;
        };
        let us = |us: f64| Some(format!("{us:.0}"));
        let range = |min: f64, max: f64| repeated.then(|| format!("{min:.0}-{max:.0}"));
        let row = [
            us(median.p50),
            range(min.p50, max.p50),
            us(median.p90),
            us(median.p99),
            range(min.p99, max.p99),
            us(median.p999),
            us(median.max),
        ];
        table::add(
            &mut table,
            std::iter::once(title.to_owned()).chain(row.into_iter().flatten()),
        );
    }
    table
}
