//! Lines in a frame, as SVG.

use std::fmt::Write as _;

const SIZE: (f64, f64) = (760.0, 420.0);
/// Left, top, width and height of the frame.
const FRAME: (f64, f64, f64, f64) = (70.0, 30.0, 500.0, 330.0);
const COLOURS: [&str; 8] =
    ["#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666"];

/// A direction of the plot, with what is written at it.
pub(crate) struct Axis {
    /// The values at its ends.
    pub(crate) ends: (f64, f64),
    /// Whether equal steps are equal factors; then both ends are above 0.
    pub(crate) by_powers: bool,
    /// What is written where.
    pub(crate) marks: Vec<(f64, String)>,
}

impl Axis {
    /// Where a value lies between the ends, from 0 to 1; beyond them, at the end.
    fn at(&self, value: f64) -> f64 {
        let (low, high) = self.ends;
        let share = match self.by_powers {
            true => (value.max(low) / low).log10() / (high / low).log10(),
            false => (value - low) / (high - low),
        };
        // A value that is not a number lies nowhere: at the beginning.
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Powers of ten, with a unit.
    pub(crate) fn powers(low: i32, high: i32, unit: &str) -> Axis {
        let mark = |power| (10f64.powi(power), format!("{}{unit}", 10f64.powi(power)));
        Axis {
            ends: (10f64.powi(low), 10f64.powi(high)),
            by_powers: true,
            marks: (low..=high).map(mark).collect(),
        }
    }
}

/// A line with its name.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// All of it; `below` says what the horizontal axis is.
pub(crate) fn draw(x: &Axis, y: &Axis, lines: &[Line], below: &str) -> String {
    let (left, top, width, height) = FRAME;
    let place = |(at_x, at_y)| (left + width * x.at(at_x), top + height * (1.0 - y.at(at_y)));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        SIZE.0, SIZE.1
    );
    // Writing to a string does not fail.
    for (value, name) in &y.marks {
        let at = place((x.ends.0, *value)).1;
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {at}h{width}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>",
            left - 8.0,
            at + 4.0
        );
    }
    for (value, name) in &x.marks {
        let at = place((*value, y.ends.0)).0;
        let _ = writeln!(
            svg,
            "<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
            top + height + 18.0
        );
    }
    for (n, (line, colour)) in lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let points: Vec<_> =
            line.points.iter().map(|p| place(*p)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{}\" y=\"{}\" fill=\"{colour}\" font-size=\"11\">{}</text>",
            points.join(" "),
            left + width + 10.0,
            top + 14.0 + 18.0 * n as f64,
            line.name
        );
    }
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\">{below}</text>\n</svg>", SIZE.1 - 12.0);
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_in_proportion_and_never_outside() {
        let even = Axis { ends: (0.0, 200.0), by_powers: false, marks: Vec::new() };
        assert_eq!([-5.0, 0.0, 50.0, 200.0, 900.0].map(|v| even.at(v)), [0.0, 0.0, 0.25, 1.0, 1.0]);
        let powers = Axis::powers(0, 4, " ms");
        assert_eq!([0.0, 1.0, 100.0, 1e9].map(|v| powers.at(v)), [0.0, 0.0, 0.5, 1.0]);
        assert_eq!(powers.at(f64::NAN), 0.0);
        assert_eq!(powers.marks[3].1, "1000 ms");
    }

    #[test]
    fn a_line_goes_from_corner_to_corner() {
        let axis = || Axis { ends: (0.0, 1.0), by_powers: false, marks: Vec::new() };
        let line = Line { name: "all".into(), points: vec![(0.0, 0.0), (1.0, 1.0)] };
        let svg = draw(&axis(), &axis(), &[line], "share");
        assert!(svg.contains("points=\"70.0,360.0 570.0,30.0\""), "{svg}");
    }
}
