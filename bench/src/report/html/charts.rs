//! The charts of the page, and how each part of a run looks in them: a colour for who it is about, everywhere the same.

use maud::{Markup, PreEscaped, html};

use crate::load::meter::Point;
use crate::report::chart::{Axis, Line, NARROW, Scale, WIDE, lines};
use crate::report::table::{microseconds, three};
use crate::report::{Phase, Run};

/// Seconds of a run.
pub const TIME: Axis = Axis {
    scale: Scale::Linear,
    show: |seconds| format!("{} s", short(seconds)),
    tell: |seconds| format!("{} s", three(seconds)),
};
/// Microseconds.
pub const LATENCY: Axis = Axis {
    scale: Scale::Log,
    show: |us| match us {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.0} s", us / 1e6),
    },
    tell: microseconds,
};
/// Bytes a second.
pub const THROUGHPUT: Axis = Axis {
    scale: Scale::Linear,
    show: |bytes| {
        if bytes >= 1e7 {
            format!("{:.0} MB/s", bytes / 1e6)
        } else {
            format!("{} MB/s", short(bytes / 1e6))
        }
    },
    tell: |bytes| format!("{} MB/s", three(bytes / 1e6)),
};
/// From 0 to 1.
pub const QUANTILE: Axis = Axis {
    scale: Scale::Nines,
    show: percent,
    tell: percent,
};

fn percent(quantile: f64) -> String {
    let text = format!("{:.4}", 100.0 * quantile);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Three digits, or all those before the point, without zeros at the end.
fn short(value: f64) -> f64 {
    let decimals = (2.0 - value.abs().log10().floor()).clamp(0.0, 9.0);
    let scale = 10_f64.powf(decimals);
    (value * scale).round() / scale
}

/// How parts are called whose others are not there: with what, and how their lines are drawn.
const VARIANTS: [(&str, &str, &str); 2] = [
    ("alone", "alone", ", alone"),
    ("beside_slow", "beside", ", beside a slow group"),
];

/// A part's name without its variant, and the variant.
fn split(part: &str) -> (&str, Option<(&'static str, &'static str)>) {
    for (prefix, class, words) in VARIANTS {
        if let Some(rest) = part.strip_prefix(prefix) {
            let rest = rest.trim_start_matches('_');
            let name = if rest.is_empty() { "produce" } else { rest };
            return (name, Some((class, words)));
        }
    }
    (part, None)
}

/// How a part is called.
pub fn title(part: &str) -> String {
    let (name, variant) = split(part);
    let words = variant.map_or("", |(_, words)| words);
    format!("{}{words}", name.replace('_', " "))
}

/// How a part looks: the class of its colour, and of its variant.
pub fn look(part: &str) -> String {
    let (name, variant) = split(part);
    let colour = match name {
        "produce" => "produce",
        "consume" | "end_to_end" | "tail" => "consume",
        "group" => "group",
        "catch_up" => "old",
        "slow_group" => "slow",
        _ => "other",
    };
    match variant {
        Some((class, _)) => format!("{colour} {class}"),
        None => colour.to_owned(),
    }
}

/// All charts of a run.
pub fn curves(run: &Run) -> Markup {
    let of = |points: fn(&Phase) -> Vec<(f64, f64)>| -> Vec<Line> {
        let line = |phase: &Phase| Line {
            name: title(phase.workload),
            look: look(phase.workload),
            points: points(phase),
        };
        run.phases.iter().map(line).collect()
    };
    let percentiles = of(|phase| {
        let points = phase.percentiles.iter();
        points.map(|point| (point.quantile, point.us)).collect()
    });
    let throughput = of(|phase| {
        let points = phase.series.iter();
        points.map(|point| (point.at_s, point.bytes_per_s)).collect()
    });
    let meaning = html! {
        @for phase in run.phases.iter().filter(|phase| phase.latency_us.is_some()) {
            p.meaning { strong { (title(phase.workload)) } " is the time " (phase.latency_note) "." }
        }
    };
    html! {
        (chart("Latency by percentile", "How long how many took: to the right of 99% is the slowest one in a hundred.",
            &percentiles, QUANTILE, LATENCY, &meaning))
        (chart("Throughput over time", "", &throughput, TIME, THROUGHPUT, &html! {}))
        (chart("Latency over time", "Of what came in each moment: the median, the slowest one in a hundred, and the slowest.",
            &latency(run), TIME, LATENCY, &html! {}))
    }
}

/// A figure of a moment, and what it is called.
type Figure = (&'static str, fn(&Point) -> Option<f64>);

fn latency(run: &Run) -> Vec<Line> {
    let timed = run.phases.iter().filter(|phase| phase.latency_us.is_some());
    // Of several parts the maxima would hide everything else.
    let figures: &[Figure] = match timed.clone().count() {
        1 => &[
            ("p50", |point| point.p50_us),
            ("p99", |point| point.p99_us),
            ("max", |point| point.max_us),
        ],
        _ => &[("p50", |point| point.p50_us), ("p99", |point| point.p99_us)],
    };
    let line = |phase: &Phase, name: &str, figure: fn(&Point) -> Option<f64>| {
        let points = phase.series.iter();
        Line {
            name: format!("{} {name}", title(phase.workload)),
            look: format!("{} {name}", look(phase.workload)),
            points: points.filter_map(|point| Some((point.at_s, figure(point)?))).collect(),
        }
    };
    timed
        .flat_map(|phase| figures.iter().map(move |&(name, figure)| line(phase, name, figure)))
        .collect()
}

/// A chart with its legend; nothing if there is nothing to draw.
pub fn chart(name: &str, caption: &str, all: &[Line], x: Axis, y: Axis, below: &Markup) -> Markup {
    let drawn: Vec<Line> = all.iter().filter(|line| line.points.len() > 1).cloned().collect();
    let drawings = [WIDE, NARROW].map(|size| lines(name, &drawn, x, y, size));
    html! {
        @if let [Some(wide), Some(narrow)] = drawings {
            section {
                h2 { (name) }
                @if !caption.is_empty() { p.caption { (caption) } }
                (PreEscaped(wide))
                (PreEscaped(narrow))
                p.legend { @for line in &drawn { span { (sample(&line.look)) (line.name) } } }
                (below)
            }
        }
    }
}

/// A piece of a line, for the legend.
fn sample(look: &str) -> Markup {
    html! { svg viewBox="0 0 26 8" aria-hidden="true" { path class=(format!("line {look}")) d="M0 4L26 4" {} } }
}

/// A share as a bar, with its name, its value in words, and what it is.
pub fn bar(name: &str, value: &str, share: f64, look: &str, explained: &str) -> Markup {
    let width = format!("width:{:.1}%", 100.0 * share.clamp(0.0, 1.0));
    html! {
        div.bar {
            span.name { (name) }
            span.track { i class=(look) style=(width) {} }
            span.value { (value) }
            @if !explained.is_empty() { span.explained { (explained) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_steps_of_an_axis_look_the_same_however_short_or_slow_the_run_was() {
        for size in [WIDE, NARROW] {
            for (seconds, bytes_per_s) in [(0.3, 700.0), (2.4, 12e3), (7.0, 1e6), (60.0, 9e6), (5_000.0, 3e9)] {
                let line = Line {
                    name: String::new(),
                    look: String::new(),
                    points: vec![(0.0, 0.0), (seconds, bytes_per_s)],
                };
                let svg = lines("", &[line], TIME, THROUGHPUT, size).unwrap();
                let labels = svg.split(r#"class="tick""#).skip(1);
                let labels: Vec<_> = labels.map(|rest| rest.split(['>', '<']).nth(1).unwrap()).collect();
                let different: BTreeSet<_> = labels.iter().collect();
                assert!(labels.len() > 4 && different.len() == labels.len(), "{labels:?}");
            }
        }
    }

    #[test]
    fn a_part_has_one_colour_with_and_without_the_others() {
        assert_eq!(
            (look("produce"), look("alone")),
            ("produce".into(), "produce alone".into())
        );
        assert_eq!(
            (look("tail"), look("alone_tail")),
            ("consume".into(), "consume alone".into())
        );
        assert_eq!(look("beside_slow_group"), "group beside");
        assert_eq!(look("end_to_end"), look("consume"));
        assert_eq!(title("beside_slow"), "produce, beside a slow group");
        assert_eq!(
            (title("alone_tail"), title("catch_up")),
            ("tail, alone".into(), "catch up".into())
        );
    }

    #[test]
    fn what_is_pointed_at_is_told_with_three_digits() {
        let tell = |axis: Axis, value| (axis.tell)(value);
        assert_eq!(tell(LATENCY, 19_987.6), "20.0 ms");
        assert_eq!(tell(LATENCY, 1_234.5), "1.23 ms");
        assert_eq!(tell(THROUGHPUT, 1_402_812_345.0), "1403 MB/s");
        assert_eq!(tell(THROUGHPUT, 512_345.0), "0.512 MB/s");
        assert_eq!(tell(TIME, 2.054_321), "2.05 s");
    }
}
