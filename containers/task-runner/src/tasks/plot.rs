//! The plot of a simulation, as SVG: how the mean squared distance settles as walkers come in, and where it must.
//!
//! Invariant: the same numbers give the same bytes everywhere. Floating point is used in operations only that IEEE 754
//! defines to the last bit, and written with one digit after the point.

use std::fmt::Write as _;

/// The picture, and the frame within it.
const SIZE: (f64, f64) = (640.0, 400.0);
const LEFT: f64 = 76.0;
const RIGHT: f64 = 624.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 348.0;

/// The mean after so many walkers.
pub(crate) type Sample = (u64, f64);

/// What is drawn.
pub(crate) struct Plot<'a> {
    /// At least one, each of more walkers than the one before.
    pub(crate) samples: &'a [Sample],
    /// Where the mean must be in the end.
    pub(crate) exact: f64,
    /// The standard error of the mean of one walker; of n it is smaller by √n.
    pub(crate) spread: f64,
    /// What was simulated, in words.
    pub(crate) subtitle: &'a str,
}

impl Plot<'_> {
    /// The text of the file.
    pub(crate) fn to_svg(&self) -> String {
        let walkers = self.samples.last().map_or(1.0, |(walkers, _)| *walkers as f64);
        let error_at = |walkers: u64| self.spread / (walkers as f64).sqrt();
        // Twice the error that the first mean may have, and never nothing.
        let reach = self.samples.first().map_or(1.0, |(walkers, _)| 2.5 * error_at(*walkers)).max(self.exact * 1e-3);
        let x = |of: u64| LEFT + (RIGHT - LEFT) * (of as f64 / walkers);
        let y = |of: f64| {
            let share = (of - (self.exact - reach)) / (2.0 * reach);
            BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0)
        };
        let points = |values: &mut dyn Iterator<Item = Sample>| {
            let points: Vec<String> = values.map(|(of, value)| format!("{:.1},{:.1}", x(of), y(value))).collect();
            points.join(" ")
        };
        let above = points(&mut self.samples.iter().map(|(of, _)| (*of, self.exact + 2.0 * error_at(*of))));
        let below = points(&mut self.samples.iter().rev().map(|(of, _)| (*of, self.exact - 2.0 * error_at(*of))));
        let mean = points(&mut self.samples.iter().copied());

        let (width, height) = SIZE;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"15\" font-weight=\"bold\">Mean squared distance from the origin</text>\n\
             <text x=\"{LEFT}\" y=\"40\" fill=\"#555\">{}</text>\n\
             <polygon points=\"{above} {below}\" fill=\"#1a5fb4\" fill-opacity=\"0.12\"/>\n",
            self.subtitle
        );
        // Five lines each way, with their numbers.
        for part in 0..=4_u32 {
            let share = f64::from(part) / 4.0;
            let value = self.exact - reach + 2.0 * reach * share;
            let of = (walkers * share) as u64;
            let (at_x, at_y) = (x(of), y(value));
            // A write to a text cannot fail.
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at_y:.1}H{RIGHT}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>\
                 <text x=\"{at_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{of}</text>",
                LEFT - 8.0,
                at_y + 4.0,
                BOTTOM + 18.0
            );
        }
        let _ = write!(
            svg,
            "<path d=\"M{LEFT} {0:.1}H{RIGHT}\" stroke=\"#b3261e\" stroke-dasharray=\"6 4\"/>\n\
             <polyline points=\"{mean}\" fill=\"none\" stroke=\"#1a5fb4\" stroke-width=\"1.6\"/>\n\
             <path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"#333\"/>\n\
             <text x=\"{1:.1}\" y=\"{2:.1}\" text-anchor=\"middle\">walkers</text>\n\
             <text x=\"{RIGHT}\" y=\"{3:.1}\" text-anchor=\"end\" fill=\"#b3261e\">exact: {4:.1}</text>\n</svg>\n",
            y(self.exact),
            (LEFT + RIGHT) / 2.0,
            BOTTOM + 38.0,
            TOP + 14.0,
            self.exact,
        );
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_lies_within_the_picture_and_is_whole() {
        for (samples, exact, spread) in [
            (&[(10, 120.0), (20, 95.0), (30, 101.0)][..], 100.0, 100.0),
            // Far off, and of one step, whose error is nothing.
            (&[(1, -1e300), (2, 1e300)], 1.0, 0.0),
            (&[(10_000_000, 5.0)], 1_000_000.0, 1e6),
        ] {
            let svg = Plot { samples, exact, spread, subtitle: "s" }.to_svg();
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let points = svg.split("points=\"").skip(1).flat_map(|rest| {
                let list = rest.split('"').next().unwrap();
                list.split(' ').map(|point| point.split_once(',').unwrap()).collect::<Vec<_>>()
            });
            for (x, y) in points {
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((LEFT..=RIGHT).contains(&x) && (TOP..=BOTTOM).contains(&y), "{x},{y}");
            }
        }
    }
}
