//! Charts as inline SVG: lines over an axis. How a line looks is a class of the page's style, light or dark.
//!
//! Each chart is drawn twice, wide and narrow, and the page shows the one that fits: text in a drawing that is scaled down to a
//! phone cannot be read.

use std::fmt::Write as _;

/// A line.
#[derive(Debug, Clone)]
pub struct Line {
    /// Of the legend.
    pub name: String,
    /// How it looks: classes of the page's style.
    pub look: String,
    /// In the order of x.
    pub points: Vec<(f64, f64)>,
}

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From 0 on.
    Linear,
    /// In powers of ten.
    Log,
    /// Of quantiles: each nine has as much room as the one before.
    Nines,
}

/// An axis.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// How it is divided.
    pub scale: Scale,
    /// What the lines of the grid are called: round numbers.
    pub show: fn(f64) -> String,
    /// What any other value is called, to three digits.
    pub tell: fn(f64) -> String,
}

/// The room of a drawing.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    class: &'static str,
    width: f64,
    height: f64,
    left: f64,
    /// Of linear axes.
    steps: f64,
}

/// For a desk.
pub const WIDE: Size = Size {
    class: "wide",
    width: 900.0,
    height: 300.0,
    left: 76.0,
    steps: 6.0,
};

/// For a phone.
pub const NARROW: Size = Size {
    class: "narrow",
    width: 340.0,
    height: 240.0,
    left: 62.0,
    steps: 3.5,
};

const RIGHT: f64 = 18.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 30.0;

/// How wide a letter of a label is at most.
const LETTER: f64 = 6.6;

/// A line has at most so many points that can be pointed at.
const MARKS_MAX: usize = 120;

/// An axis with its range, in the units of its scale.
struct Range {
    axis: Axis,
    low: f64,
    high: f64,
    steps: f64,
}

impl Range {
    fn of(axis: Axis, values: impl Iterator<Item = f64>, steps: f64) -> Option<Self> {
        let placed: Vec<f64> = values
            .map(|value| axis.place(value))
            .filter(|place| place.is_finite())
            .collect();
        let low = placed.iter().copied().reduce(f64::min)?;
        let high = placed.iter().copied().fold(low, f64::max);
        let (low, high) = match axis.scale {
            Scale::Linear => (0.0, if high > 0.0 { high } else { 1.0 }),
            Scale::Log => (low.floor(), high.ceil().max(low.floor() + 1.0)),
            Scale::Nines => (0.0, high.max(1.0)),
        };
        Some(Self { axis, low, high, steps })
    }

    /// The same up to the next line of the grid.
    fn up_to_a_tick(self) -> Self {
        let high = match self.axis.scale {
            Scale::Linear => {
                let step = nice(self.high / self.steps);
                (self.high / step - 0.001).ceil() * step
            }
            Scale::Log | Scale::Nines => self.high,
        };
        Self { high, ..self }
    }

    /// From 0 to 1.
    fn share(&self, value: f64) -> f64 {
        ((self.axis.place(value) - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Where lines of the grid are, as values.
    fn ticks(&self) -> Vec<f64> {
        match self.axis.scale {
            Scale::Linear => {
                let step = nice(self.high / self.steps);
                (0_u32..=10)
                    .map(|i| f64::from(i) * step)
                    .take_while(|&value| value <= self.high * 1.001)
                    .collect()
            }
            Scale::Log => (self.low as i32..=self.high as i32)
                .map(|power| 10_f64.powi(power))
                .collect(),
            Scale::Nines => {
                let nines = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999_999];
                nines
                    .into_iter()
                    .filter(|&value| self.axis.place(value) <= self.high * 1.001)
                    .collect()
            }
        }
    }
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(1e-3).log10(),
            Scale::Nines => -(1.0 - value).log10(),
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-12).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps
        .into_iter()
        .map(|step| step * power)
        .find(|&step| step >= least * 0.999)
        .unwrap_or(10.0 * power)
}

/// Lines over an x axis; nothing if there is nothing to draw.
pub fn lines(title: &str, lines: &[Line], x: Axis, y: Axis, size: Size) -> Option<String> {
    let all = || lines.iter().flat_map(|line| line.points.iter());
    let drawing = Drawing {
        x: Range::of(x, all().map(|point| point.0), size.steps)?,
        y: Range::of(y, all().map(|point| point.1), 5.0)?.up_to_a_tick(),
        size,
    };
    let Size {
        class, width, height, ..
    } = size;
    let mut svg = format!(
        r#"<svg class="chart {class}" viewBox="0 0 {width} {height}" role="img" aria-label="{}">"#,
        escape(title)
    );
    drawing.grid(&mut svg);
    for line in lines {
        drawing.line(&mut svg, line);
    }
    svg.push_str("</svg>");
    Some(svg)
}

struct Drawing {
    x: Range,
    y: Range,
    size: Size,
}

impl Drawing {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let Size {
            width, height, left, ..
        } = self.size;
        (
            left + self.x.share(x) * (width - left - RIGHT),
            height - BOTTOM - self.y.share(y) * (height - TOP - BOTTOM),
        )
    }

    // Writing to a string cannot fail.
    fn grid(&self, svg: &mut String) {
        let Size { left, .. } = self.size;
        let (right, bottom) = (self.size.width - RIGHT, self.size.height - BOTTOM);
        for value in self.y.ticks() {
            let (_, place) = self.at((0.0, value));
            let label = escape(&(self.y.axis.show)(value));
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{left}" x2="{right}" y1="{place:.1}" y2="{place:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"#,
                left - 8.0,
                place + 4.0
            );
        }
        // From the right, as the last label is the one that tells the most.
        let mut free = self.size.width;
        for value in self.x.ticks().into_iter().rev() {
            let (place, _) = self.at((value, 0.0));
            let label = (self.x.axis.show)(value);
            let half = LETTER * label.chars().count() as f64 / 2.0;
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{place:.1}" x2="{place:.1}" y1="{TOP}" y2="{bottom}"/>"#
            );
            let middle = place.min(self.size.width - half);
            if middle + half > free {
                continue;
            }
            free = middle - half - LETTER;
            let _ = write!(
                svg,
                r#"<text class="tick" x="{middle:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                bottom + 18.0,
                escape(&label)
            );
        }
    }

    fn line(&self, svg: &mut String, line: &Line) {
        let mut path = String::new();
        for (number, &point) in line.points.iter().enumerate() {
            let letter = if number == 0 { 'M' } else { 'L' };
            let (x, y) = self.at(point);
            let _ = write!(path, "{letter}{x:.1} {y:.1}");
        }
        let look = escape(&line.look);
        let _ = write!(svg, r#"<path class="line {look}" d="{path}"/>"#);
        let stride = line.points.len().div_ceil(MARKS_MAX).max(1);
        for &point in line.points.iter().step_by(stride) {
            let (x, y) = self.at(point);
            let (at, value) = ((self.x.axis.tell)(point.0), (self.y.axis.tell)(point.1));
            let text = escape(&format!("{}: {value} at {at}", line.name));
            let _ = write!(
                svg,
                r#"<circle class="mark {look}" cx="{x:.1}" cy="{y:.1}" r="3.5"><title>{text}</title></circle>"#
            );
        }
    }
}

/// Text inside of SVG.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Axis = Axis {
        scale: Scale::Linear,
        show: |value| format!("{value}"),
        tell: |value| format!("{value:.2}"),
    };

    fn line(name: &str, points: Vec<(f64, f64)>) -> Line {
        Line {
            name: name.into(),
            look: "produce".into(),
            points,
        }
    }

    #[test]
    fn a_line_goes_from_corner_to_corner_and_text_is_escaped() {
        let svg = lines(
            "<title>",
            &[line("a<b", vec![(0.0, 0.0), (10.0, 5.0)])],
            PLAIN,
            PLAIN,
            WIDE,
        )
        .unwrap();
        assert!(svg.contains(r#"d="M76.0 270.0L882.0 14.0""#), "{svg}");
        assert!(
            svg.contains("a&lt;b") && svg.contains("&lt;title&gt;") && !svg.contains("a<b"),
            "{svg}"
        );
        assert!(lines("", &[], PLAIN, PLAIN, WIDE).is_none());
    }

    #[test]
    fn each_nine_has_as_much_room_as_the_one_before() {
        let axis = Axis {
            scale: Scale::Nines,
            ..PLAIN
        };
        let range = Range::of(axis, [0.0, 0.9999].into_iter(), 5.0).unwrap();
        let places = [0.0, 0.9, 0.99, 0.999, 0.9999].map(|value| (100.0 * range.share(value)).round() as i32);
        assert_eq!(places, [0, 25, 50, 75, 100]);
    }

    #[test]
    fn grids_have_round_numbers() {
        assert_eq!(
            [0.7, 1.0, 3.0, 17.0, 60.0].map(|least| nice(least).round() as i32),
            [1, 1, 5, 20, 100]
        );
    }

    #[test]
    fn labels_below_a_chart_never_lie_on_each_other_however_narrow_it_is() {
        let axis = Axis {
            scale: Scale::Nines,
            show: |quantile| format!("{:.4}%", 100.0 * quantile),
            ..PLAIN
        };
        let svg = lines(
            "",
            &[line("a", vec![(0.0, 1.0), (0.999_999, 2.0)])],
            axis,
            PLAIN,
            NARROW,
        )
        .unwrap();
        let below = svg.split("<text ").filter(|text| text.contains("\"middle\""));
        let of = |text: &str, name: &str| -> f64 {
            let rest = text.split_once(&format!("{name}=\"")).unwrap().1;
            rest.split('"').next().unwrap().parse().unwrap()
        };
        let mut labels: Vec<(f64, f64)> = below
            .map(|text| {
                let label = text.split(['>', '<']).nth(1).unwrap();
                let half = LETTER * label.len() as f64 / 2.0;
                (of(text, "x") - half, of(text, "x") + half)
            })
            .collect();
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(labels.len() >= 3, "{labels:?}");
        assert!(labels.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{labels:?}");
        assert!(labels.last().unwrap().1 <= NARROW.width + 0.1);
    }

    #[test]
    fn a_line_of_any_length_can_be_pointed_at() {
        for count in [2, 120, 121, 5_000] {
            let points = (0..count).map(|i| (f64::from(i), 1.0)).collect();
            let svg = lines("", &[line("a", points)], PLAIN, PLAIN, WIDE).unwrap();
            let marks = svg.matches("<circle").count();
            assert!((1..=MARKS_MAX).contains(&marks), "{marks} of {count}");
        }
    }
}
