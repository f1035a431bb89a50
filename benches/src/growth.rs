//! The figure of how cost, proofs, memory and disk grow with the number of entries.

use crate::figure::{self, Line, Panel, plain, power};

/// What was measured at one size.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Entries.
    pub keys: f64,
    /// Durable updates a second, each commit waited for.
    pub updates: f64,
    /// Bytes of a proof of one entry, without the entry.
    pub proof: f64,
    /// Bytes of memory at most, without the keys that the program itself holds.
    pub memory: f64,
    /// Bytes on disk after loading, updating and closing.
    pub disk: f64,
}

/// Draws the figure, as SVG.
///
/// # Panics
/// If there is no point.
#[must_use]
pub fn figure(points: &[Point]) -> String {
    let (first, last) = (points.first().expect("a point"), points.last().expect("a point"));
    let panel = |title, subtitle, label, value: fn(&Point) -> f64| Panel {
        title,
        subtitle,
        over: "entries",
        range: first.keys.log10() - 0.1..last.keys.log10() + 0.1,
        place: power,
        value: label,
        lines: vec![Line {
            name: "",
            points: points.iter().map(|point| (point.keys.log10(), value(point))).collect(),
        }],
    };
    let panels = [
        panel(
            "Microseconds for a durable update",
            "in commits of 10,000, on all processors together",
            plain,
            |point| 1e6 / point.updates,
        ),
        panel("Bytes of a proof", "of one entry, without the entry", plain, |point| point.proof),
        panel(
            "Memory, MB",
            "the most that the process took, without the keys it made",
            power,
            |point| (point.memory / 1e6).log10(),
        ),
        panel("Disk, MB", "with the log of all versions", power, |point| {
            (point.disk / 1e6).log10()
        }),
    ];
    figure::figure(&panels, (2, 2), (1000, 640))
}
