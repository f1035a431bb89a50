//! The figure of how cost, proofs, memory and disk grow with the number of entries.

use plotters::prelude::*;

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

const SIZE: (u32, u32) = (1000, 640);
const COLOUR: RGBColor = RGBColor(0, 114, 178);
const GREY: RGBColor = RGBColor(90, 90, 90);
const FONT: &str = "sans-serif";

/// A panel over the number of entries.
struct Panel {
    title: &'static str,
    subtitle: &'static str,
    /// Of a logarithmic axis the power of ten.
    value: fn(&Point) -> f64,
    label: fn(f64) -> String,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "Microseconds for a durable update",
        subtitle: "in commits of 10,000, on all processors together",
        value: |point| 1e6 / point.updates,
        label: plain,
    },
    Panel {
        title: "Bytes of a proof",
        subtitle: "of one entry, without the entry",
        value: |point| point.proof,
        label: plain,
    },
    Panel {
        title: "Memory, MB",
        subtitle: "the most that the process took, without the keys it made",
        value: |point| (point.memory / 1e6).log10(),
        label: power,
    },
    Panel {
        title: "Disk, MB",
        subtitle: "with the log of all versions",
        value: |point| (point.disk / 1e6).log10(),
        label: power,
    },
];

fn plain(value: f64) -> String {
    format!("{}", (value * 10.0).round() / 10.0)
}

/// A whole power of ten; between them nothing.
fn power(power: f64) -> String {
    let whole = (power - power.round()).abs() < 1e-9;
    if whole { format!("{}", 10_f64.powf(power).round()) } else { String::new() }
}

/// Draws the figure, as SVG.
///
/// # Panics
/// If there is no point.
#[must_use]
pub fn figure(points: &[Point]) -> String {
    let mut svg = String::new();
    draw(&mut svg, points).expect("a string takes everything that is drawn into it");
    svg
}

fn draw(svg: &mut String, points: &[Point]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let area = area.margin(8, 8, 8, 24);
    let (first, last) = (points.first().expect("a point"), points.last().expect("a point"));
    for (panel, part) in PANELS.iter().zip(area.split_evenly((2, 2))) {
        let part = part.titled(panel.title, (FONT, 18))?;
        let part = part.titled(panel.subtitle, (FONT, 13).into_text_style(&part).color(&GREY))?;
        let values = points.iter().map(|point| (point.keys.log10(), (panel.value)(point)));
        let values = values.collect::<Vec<_>>();
        let largest = values.iter().map(|(_, y)| *y).fold(0.0, f64::max);
        let sizes = first.keys.log10() - 0.1..last.keys.log10() + 0.1;
        let mut chart = ChartBuilder::on(&part)
            .margin(10)
            .x_label_area_size(38)
            .y_label_area_size(56)
            .build_cartesian_2d(sizes, 0.0..(largest * 1.1).ceil())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_labels(8)
            .x_label_formatter(&|size| power(*size))
            .y_labels(6)
            .y_label_formatter(&|value| (panel.label)(*value))
            .x_desc("entries")
            .label_style((FONT, 14))
            .draw()?;
        chart.draw_series(LineSeries::new(values.iter().copied(), COLOUR.stroke_width(2)))?;
        chart.draw_series(values.iter().map(|at| Circle::new(*at, 4, COLOUR.filled())))?;
    }
    area.present()?;
    Ok(())
}
