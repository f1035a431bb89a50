//! The tables: medians with the spread, and how they compare with Anwansi on fjall.

use std::fmt::Write as _;

use crate::{
    Outcome, Turn,
    peers::Name,
    workload::{Measured, Shape},
};

/// A row of the tables.
struct Row {
    title: &'static str,
    number: fn(&Measured) -> f64,
    format: fn(f64) -> String,
    /// Whether more is better: it is said beside the ratios.
    better: Better,
}

#[derive(Clone, Copy)]
enum Better {
    More,
    Less,
}

const ROWS: [Row; 14] = [
    row("new keys/s, durable with root", |m| m.loads_per_s, whole, Better::More),
    row("updates/s, durable with root", |m| m.updates_per_s, whole, Better::More),
    row("processor time per update, µs", |m| m.cpu_us_per_update, tenths, Better::Less),
    row("written per update, bytes", |m| m.written_per_update, whole, Better::Less),
    row(
        "written per update until closed",
        |m| m.written_until_closed_per_update,
        whole,
        Better::Less,
    ),
    row("peak memory, MB", |m| bytes(m.memory_bytes_max), mega, Better::Less),
    row("gets/s, one thread", |m| m.gets_per_s, whole, Better::More),
    row("proofs made/s, one thread", |m| m.proofs_made_per_s, whole, Better::More),
    row("proofs verified/s, one thread", |m| m.proofs_verified_per_s, whole, Better::More),
    row("proof, bytes", |m| m.proof_bytes, whole, Better::Less),
    row("disk after close, MB", |m| bytes(m.disk_bytes), mega, Better::Less),
    row("clean close, s", |m| m.close_s, seconds, Better::Less),
    row("reopen after it, s", |m| m.reopen_s, seconds, Better::Less),
    row("close and reopen, s", |m| m.close_s + m.reopen_s, seconds, Better::Less),
];

const fn row(
    title: &'static str,
    number: fn(&Measured) -> f64,
    format: fn(f64) -> String,
    better: Better,
) -> Row {
    Row { title, number, format, better }
}

/// The tables of `turns`, in Markdown.
pub(crate) fn markdown(shape: &Shape, peers: &[Name], turns: &[Turn]) -> String {
    let Shape { keys, updates, batch, gets, proofs } = shape;
    let mut text = format!(
        "{} keys, {} updates in batches of {}, {} gets, {} proofs. Medians, with the least and the most.\n\n",
        grouped(*keys),
        grouped(*updates),
        grouped(*batch),
        grouped(*gets),
        grouped(*proofs),
    );
    let columns = peers.iter().map(|&peer| (peer, measured(peer, turns))).collect::<Vec<_>>();
    heading(&mut text, &columns);
    for row in &ROWS {
        let cells = columns.iter().map(|(_, runs)| spread(row, runs));
        line(&mut text, row.title, cells);
    }
    line(&mut text, "runs", columns.iter().map(|(_, runs)| runs.len().to_string()));

    let base = columns.iter().find(|(peer, _)| *peer == Name::AnwansiFjall);
    if let Some((_, base)) = base.filter(|(_, runs)| !runs.is_empty()) {
        text.push_str("\nThe medians as multiples of those of Anwansi on fjall:\n\n");
        heading(&mut text, &columns);
        for row in &ROWS {
            let title = match row.better {
                Better::More => format!("{} (more is better)", row.title),
                Better::Less => format!("{} (less is better)", row.title),
            };
            let base = median(row, base);
            let cells = columns.iter().map(|(_, runs)| match (median(row, runs), base) {
                (Some(median), Some(base)) if base > 0.0 => format!("{:.2}", median / base),
                _ => "-".to_owned(),
            });
            line(&mut text, &title, cells);
        }
    }

    text.push('\n');
    for (index, peer) in peers.iter().enumerate() {
        writeln!(text, "[{}] {}: {}", index + 1, peer.title(), peer.note()).expect("text grows");
    }
    for turn in turns {
        if let Outcome::Failed(reason) = &turn.outcome {
            let (title, round) = (turn.peer.title(), turn.round);
            writeln!(text, "\nFailed: {title}, round {round}: {reason}").expect("text grows");
        }
    }
    text
}

fn measured(peer: Name, turns: &[Turn]) -> Vec<Measured> {
    let of_peer = turns.iter().filter(|turn| turn.peer == peer);
    of_peer
        .filter_map(|turn| match &turn.outcome {
            Outcome::Measured(measured) => Some(*measured),
            Outcome::Failed(_) => None,
        })
        .collect()
}

fn heading(text: &mut String, columns: &[(Name, Vec<Measured>)]) {
    let titles = columns.iter().enumerate();
    line(text, "", titles.map(|(index, (peer, _))| format!("{} [{}]", peer.title(), index + 1)));
    line(text, "---", columns.iter().map(|_| "---:".to_owned()));
}

fn line(text: &mut String, title: &str, cells: impl Iterator<Item = String>) {
    write!(text, "| {title} |").expect("text grows");
    for cell in cells {
        write!(text, " {cell} |").expect("text grows");
    }
    text.push('\n');
}

/// The median, with the least and the most where they differ from it.
fn spread(row: &Row, runs: &[Measured]) -> String {
    let Some(median) = median(row, runs) else { return "failed".to_owned() };
    let numbers = runs.iter().map(row.number);
    let least = (row.format)(numbers.clone().fold(f64::INFINITY, f64::min));
    let most = (row.format)(numbers.fold(f64::NEG_INFINITY, f64::max));
    let median = (row.format)(median);
    if least == most { median } else { format!("{median} ({least} to {most})") }
}

fn median(row: &Row, runs: &[Measured]) -> Option<f64> {
    let mut numbers = runs.iter().map(row.number).collect::<Vec<_>>();
    numbers.sort_unstable_by(f64::total_cmp);
    let upper = numbers.get(numbers.len() / 2)?;
    let lower = numbers[(numbers.len() - 1) / 2];
    Some(f64::midpoint(lower, *upper))
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn bytes(count: u64) -> f64 {
    count as f64
}

fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    digits.parse().map_or(digits, grouped)
}

fn mega(number: f64) -> String {
    whole(number / 1e6)
}

fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

fn seconds(number: f64) -> String {
    format!("{number:.2}")
}

/// With a comma before each three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
