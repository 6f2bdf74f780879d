//! Charts as inline SVG: lines over an axis, and bars. Colours come from the page's style, light or dark.

use std::fmt::Write as _;

/// A line.
#[derive(Debug, Clone)]
pub struct Line {
    /// Of the legend.
    pub name: String,
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
    /// What its values look like.
    pub show: fn(f64) -> String,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// An axis with its range, in the units of its scale.
struct Range {
    axis: Axis,
    low: f64,
    high: f64,
}

impl Range {
    fn of(axis: Axis, values: impl Iterator<Item = f64>) -> Option<Self> {
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
        Some(Self { axis, low, high })
    }

    /// From 0 to 1.
    fn share(&self, value: f64) -> f64 {
        ((self.axis.place(value) - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Where lines of the grid are, as values.
    fn ticks(&self) -> Vec<f64> {
        match self.axis.scale {
            Scale::Linear => {
                let step = nice(self.high / 5.0);
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
pub fn lines(title: &str, lines: &[Line], x: Axis, y: Axis) -> Option<String> {
    let all = || lines.iter().flat_map(|line| line.points.iter());
    let x = Range::of(x, all().map(|point| point.0))?;
    let y = Range::of(y, all().map(|point| point.1))?;
    let at_x = |value: f64| LEFT + x.share(value) * (WIDTH - LEFT - RIGHT);
    let at_y = |value: f64| HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
        escape(title)
    );
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for value in y.ticks() {
        let (place, label) = (at_y(value), escape(&(y.axis.show)(value)));
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{place:.1}" y2="{place:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"#,
            LEFT - 8.0,
            place + 4.0
        );
    }
    for value in x.ticks() {
        let (place, label) = (at_x(value), escape(&(x.axis.show)(value)));
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{place:.1}" x2="{place:.1}" y1="{TOP}" y2="{bottom}"/><text class="tick" x="{place:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#,
            bottom + 18.0
        );
    }
    for (number, line) in lines.iter().enumerate() {
        let mut path = String::new();
        for (place, &(a, b)) in line.points.iter().enumerate() {
            let letter = if place == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", at_x(a), at_y(b));
        }
        let _ = write!(svg, r#"<path class="line c{}" d="{path}"/>"#, number % COLOURS);
        for &(a, b) in line.points.iter().filter(|_| line.points.len() <= MARKS_MAX) {
            let text = escape(&format!("{}: {} at {}", line.name, (y.axis.show)(b), (x.axis.show)(a)));
            let _ = write!(
                svg,
                r#"<circle class="mark c{}" cx="{:.1}" cy="{:.1}" r="3"><title>{text}</title></circle>"#,
                number % COLOURS,
                at_x(a),
                at_y(b)
            );
        }
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// Colours that the page's style has.
pub const COLOURS: usize = 6;

/// Lines with more points have no marks, which would hide them.
const MARKS_MAX: usize = 130;

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
    };

    #[test]
    fn a_line_goes_from_corner_to_corner_and_text_is_escaped() {
        let line = Line {
            name: "a<b".into(),
            points: vec![(0.0, 0.0), (10.0, 5.0)],
        };
        let svg = lines("<title>", &[line], PLAIN, PLAIN).unwrap();
        assert!(svg.contains(r#"d="M76.0 266.0L880.0 14.0""#), "{svg}");
        assert!(
            svg.contains("a&lt;b") && svg.contains("&lt;title&gt;") && !svg.contains("a<b"),
            "{svg}"
        );
        assert!(lines("", &[], PLAIN, PLAIN).is_none());
    }

    #[test]
    fn each_nine_has_as_much_room_as_the_one_before() {
        let axis = Axis {
            scale: Scale::Nines,
            ..PLAIN
        };
        let range = Range::of(axis, [0.0, 0.9999].into_iter()).unwrap();
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
}
