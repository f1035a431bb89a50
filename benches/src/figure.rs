//! Figures: panels with lines through what was measured, as SVG.

use std::ops::Range;

use plotters::prelude::*;

/// A panel: lines over the same thing, each of another thing that was measured in the same unit.
pub struct Panel<'a> {
    /// What was measured, and in which unit.
    pub title: &'a str,
    /// How.
    pub subtitle: &'a str,
    /// What it is drawn over.
    pub over: &'a str,
    /// From where to where.
    pub range: Range<f64>,
    /// How places are named.
    pub place: fn(f64) -> String,
    /// How values are named.
    pub value: fn(f64) -> String,
    /// The lines. Two at most are told apart.
    pub lines: Vec<Line<'a>>,
}

/// A line of a panel.
pub struct Line<'a> {
    /// What it is of; nothing, if it is the only one.
    pub name: &'a str,
    /// Places and values.
    pub points: Vec<(f64, f64)>,
}

/// For people too who do not see all colours.
const COLOURS: [RGBColor; 2] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0)];
const GREY: RGBColor = RGBColor(90, 90, 90);
const LIGHT: RGBColor = RGBColor(225, 225, 225);
const FONT: &str = "sans-serif";

/// A number with one digit behind the point, if it has one.
#[must_use]
pub fn plain(value: f64) -> String {
    format!("{}", (value * 10.0).round() / 10.0)
}

/// A whole power of ten; between them nothing.
#[must_use]
pub fn power(power: f64) -> String {
    let whole = (power - power.round()).abs() < 1e-9;
    if whole { format!("{}", 10_f64.powf(power).round()) } else { String::new() }
}

/// Draws panels in so many rows and columns, on so many points from left to right and from top to bottom.
#[must_use]
pub fn figure(panels: &[Panel<'_>], split: (usize, usize), size: (u32, u32)) -> String {
    let mut svg = String::new();
    draw(&mut svg, panels, split, size).expect("a string takes everything that is drawn into it");
    svg
}

fn draw(
    svg: &mut String,
    panels: &[Panel<'_>],
    split: (usize, usize),
    size: (u32, u32),
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    let area = area.margin(8, 8, 8, 24);
    for (panel, part) in panels.iter().zip(area.split_evenly(split)) {
        let part = part.titled(panel.title, (FONT, 18))?;
        let part = part.titled(panel.subtitle, (FONT, 13).into_text_style(&part).color(&GREY))?;
        let values = panel.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
        let largest = values.fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(&part)
            .margin(10)
            .x_label_area_size(38)
            .y_label_area_size(56)
            .build_cartesian_2d(panel.range.clone(), 0.0..(largest * 1.1).ceil())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(LIGHT)
            .x_labels(8)
            .x_label_formatter(&|place| (panel.place)(*place))
            .y_labels(6)
            .y_label_formatter(&|value| (panel.value)(*value))
            .x_desc(panel.over)
            .label_style((FONT, 14))
            .draw()?;
        for (Line { name, points }, colour) in panel.lines.iter().zip(COLOURS) {
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            let line = chart.draw_series(line)?;
            if !name.is_empty() {
                line.label(*name).legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
            }
            chart.draw_series(points.iter().map(|at| Circle::new(*at, 3, colour.filled())))?;
        }
        if panel.lines.iter().any(|line| !line.name.is_empty()) {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerRight)
                .background_style(WHITE)
                .label_font((FONT, 14))
                .draw()?;
        }
    }
    area.present()?;
    Ok(())
}
