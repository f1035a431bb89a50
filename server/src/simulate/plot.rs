//! The figure: how often a wrong result is accepted, and what it costs not to, against the lead.

use anwansi_proofs::agreement::{Voters, first_to_wrong};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    ERRORS, Group, LEADS, replicas_needed,
    row::{Compared, Row},
    task::Rule,
};

const SIZE: (u32, u32) = (1000, 480);
/// One for each of [`ERRORS`], for people too who do not see all colours.
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(0, 138, 96), RGBColor(213, 94, 0)];
const FONT: &str = "sans-serif";

/// Draws the figure.
pub(super) fn figure(groups: &[Group]) -> String {
    let rows: Vec<&Row> = groups.iter().flat_map(|group| &group.rows).collect();
    let mut svg = String::new();
    draw(&mut svg, [&wrong(&rows), &executions(&rows)])
        .expect("a string takes everything that is drawn into it");
    svg
}

/// A panel over the leads.
struct Panel {
    title: &'static str,
    subtitle: &'static str,
    y: std::ops::Range<f64>,
    y_label: fn(&f64) -> String,
    lines: Vec<Line>,
}

#[derive(Clone, Copy)]
enum Stroke {
    /// For the rule of the ledger; dots are filled.
    Solid,
    /// For what it is compared with; dots are empty.
    Dashed,
}

/// What is computed, as a line, and what was measured, as dots on it.
struct Line {
    colour: RGBColor,
    stroke: Stroke,
    /// What stands at the end of the line, if anything does.
    label: String,
    figures: Vec<(f64, f64)>,
    measured: Vec<(f64, f64)>,
}

/// The rows in which nodes err independently, with this probability, for which `which` gives a place.
fn places<'a>(
    rows: &[&'a Row],
    error: f64,
    which: impl Fn(Rule) -> Option<u32>,
) -> Vec<(f64, &'a Row)> {
    let mine = |row: &&&Row| row.voters == Voters::Independent { error };
    let place = |row: &&'a Row| Some((f64::from(which(row.rule)?), *row));
    rows.iter().filter(mine).filter_map(place).collect()
}

fn by_lead(rule: Rule) -> Option<u32> {
    match rule {
        Rule::Lead { lead, nodes_max } if nodes_max == 4 * lead => Some(lead),
        _ => None,
    }
}

/// How often a wrong result is accepted, as a power of ten.
fn wrong(rows: &[&Row]) -> Panel {
    let mut lines = Vec::new();
    for (error, colour) in ERRORS.into_iter().zip(COLOURS) {
        let lead = places(rows, error, by_lead);
        let first = places(rows, error, |rule| match rule {
            Rule::FirstTo { count } => Some(count),
            _ => None,
        });
        let values = |places: &[(f64, &Row)], value: fn(Compared) -> f64| {
            let values = places.iter().map(|(x, row)| (*x, value(row.wrong()).log10()));
            // What was never seen has no place on a logarithmic axis.
            values.filter(|(_, y)| y.is_finite()).collect::<Vec<_>>()
        };
        lines.push(Line {
            colour,
            stroke: Stroke::Solid,
            label: format!("e = {error}"),
            figures: values(&lead, |wrong| wrong.figure),
            measured: values(&lead, |wrong| wrong.measured),
        });
        let figure = |count| (f64::from(count), first_to_wrong(error, count).log10());
        lines.push(Line {
            colour,
            stroke: Stroke::Dashed,
            label: String::new(),
            figures: LEADS.map(figure).collect(),
            measured: values(&first, |wrong| wrong.measured),
        });
    }
    Panel {
        title: "Wrong results accepted, part of all tasks",
        subtitle: "solid: l votes ahead; dashed: first to l votes, as wrong as 2l - 1 replicas",
        y: -6.5..0.0,
        y_label: |power| if *power == 0.0 { "1".to_owned() } else { format!("1e{power:.0}") },
        lines,
    }
}

/// Executions a task, and how many replicas run it that are as safe.
fn executions(rows: &[&Row]) -> Panel {
    let mut lines = Vec::new();
    for (error, colour) in ERRORS.into_iter().zip(COLOURS) {
        let lead = places(rows, error, by_lead);
        let values = |value: fn(Compared) -> f64| {
            lead.iter().map(|(x, row)| (*x, value(row.executions()))).collect()
        };
        lines.push(Line {
            colour,
            stroke: Stroke::Solid,
            label: format!("e = {error}"),
            figures: values(|executions| executions.figure),
            measured: values(|executions| executions.measured),
        });
        let needed = |lead| replicas_needed(error, lead);
        lines.push(Line {
            colour,
            stroke: Stroke::Dashed,
            label: format!("{} replicas", needed(*LEADS.end())),
            figures: LEADS.map(|lead| (f64::from(lead), f64::from(needed(lead)))).collect(),
            measured: Vec::new(),
        });
    }
    Panel {
        title: "Executions a task",
        subtitle: "solid: l votes ahead; dashed: as many replicas as are as safe",
        y: 0.0..40.0,
        y_label: |executions| format!("{executions:.0}"),
        lines,
    }
}

type Failed = Box<dyn std::error::Error>;

fn draw(svg: &mut String, panels: [&Panel; 2]) -> Result<(), Failed> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let area = area.margin(8, 24, 8, 8);
    let note = "e: how often a node errs. Lines are computed, dots measured.";
    let grey = RGBColor(90, 90, 90);
    area.draw_text(note, &(FONT, 14).into_text_style(&area).color(&grey), (12, 446))?;
    for (panel, half) in panels.into_iter().zip(area.split_evenly((1, 2))) {
        let half = half.titled(panel.title, (FONT, 18))?;
        let half = half.titled(panel.subtitle, (FONT, 13).into_text_style(&half).color(&grey))?;
        let mut chart = ChartBuilder::on(&half)
            .margin(10)
            .x_label_area_size(38)
            .y_label_area_size(48)
            .build_cartesian_2d(0.75..6.95, panel.y.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_labels(8)
            .x_label_formatter(&|lead| format!("{lead:.0}"))
            .y_label_formatter(&panel.y_label)
            .x_desc("l, votes")
            .label_style((FONT, 14))
            .draw()?;
        for line in &panel.lines {
            let (colour, figures) = (line.colour, line.figures.iter().copied());
            let dot = match line.stroke {
                Stroke::Solid => {
                    chart.draw_series(LineSeries::new(figures, colour.stroke_width(2)))?;
                    colour.filled()
                }
                Stroke::Dashed => {
                    let dashes = DashedLineSeries::new(figures, 5, 4, colour.stroke_width(1));
                    chart.draw_series(dashes)?;
                    colour.stroke_width(1)
                }
            };
            chart.draw_series(line.measured.iter().map(|at| Circle::new(*at, 4, dot)))?;
            if let Some((x, y)) = line.figures.last() {
                let middle = Pos::new(HPos::Left, VPos::Center);
                let style = (FONT, 14).into_font().color(&colour).pos(middle);
                chart.draw_series([Text::new(line.label.clone(), (x + 0.12, *y), style)])?;
            }
        }
    }
    area.present()?;
    Ok(())
}
