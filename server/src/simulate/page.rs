//! The page: what was played, how it is tested, what it shows, and every row.

use std::fmt::Write as _;

use anwansi_proofs::agreement::Voters;

use super::{
    Group, replicas_needed,
    row::{Compared, Row, Z_MAX},
    task::Rule,
};

pub(super) const ALONE: &str = "\
Each node errs with probability e, whatever the others do. `lead 3 of 12`: a result is accepted when it is 3
votes ahead, and no more than 12 nodes are drawn.";
pub(super) const OTHERS: &str = "\
Not used by Anwansi. With `first to 3`, the first answer to get 3 votes is accepted. With `9 replicas`, 9 nodes
run every task and most of them decide; each number of replicas is the smallest that is as safe as a lead of 3,
or of 6. Most of 5 replicas are wrong as often as the first to 3 votes: the first to 3 is most of 5.";
pub(super) const TOGETHER: &str = "\
Each task has an error of its own, beta-distributed around e = 0.1, so that two nodes' errors on it have the
correlation rho.";
pub(super) const LIARS: &str = "\
Of 100 nodes some are dishonest and all vote for the same wrong result; e is the error of the others. Nodes are
drawn without replacement.";

const HEAD: [&str; 11] = [
    "decided by",
    "nodes",
    "wrong",
    "figure",
    "z",
    "none",
    "figure",
    "z",
    "executions",
    "figure",
    "z",
];

/// The page of a simulation.
pub(super) fn page(seed: u64, tasks: u32, groups: &[Group]) -> String {
    let count = indicatif::HumanCount(tasks.into());
    let mut page = format!(
        "\
# What agreement does, measured

Each row below is {count} tasks, played by drawing nodes and counting their votes, and beside it the figures of
`anwansi_proofs::agreement`, which know nothing of the play. All wrong votes on a task are for the same result,
the worst they can be. A lead is played in rounds: the first draws as many nodes as the lead, each further one as
many as the leading result still lacks; a round that could draw more nodes than allowed ends the task without
agreement.

    cargo run --release -p anwansi-server -- simulate --seed {seed} --tasks {tasks} --out docs

writes this page and its figure, the same ones each time, and fails if a measured value lies outside of its
interval. Errors of 0.1 to 0.3 and leads of up to 6 are no advice: they are such that wrong results are accepted
often enough to be counted.

![Wrong results accepted and executions a task, against the lead](simulation.svg)

"
    );
    findings(&mut page, groups);
    let _ = write!(
        page,
        "
`wrong`: part of the tasks of which a wrong result was accepted; `none`: part that ended without agreement;
`executions`: mean number of nodes that ran a task. `z` is by how many standard deviations the measured value
differs from its figure, for the two parts by Chernoff's bound, which holds for rare events too. Beyond {Z_MAX}
either way, which chance brings about less than once in a million values, it is marked with `!` and the command
fails.
"
    );
    for group in groups {
        let _ = write!(page, "\n## {}\n\n{}\n\n", group.title, group.text);
        table(&mut page, &group.rows);
    }
    page
}

/// What a reader should take away, in the numbers of these tasks.
fn findings(page: &mut String, groups: &[Group]) {
    let find = |rule, voters| {
        let mut rows = groups.iter().flat_map(|group| &group.rows);
        rows.find(|row| row.rule == rule && row.voters == voters).expect("the case is played")
    };
    let independent = Voters::Independent { error: 0.1 };
    let [three, six] = [3, 6].map(|lead| Rule::Lead { lead, nodes_max: 4 * lead });
    let (lead, lead_3) = (find(six, independent), find(three, independent));
    let count = |number: u32| indicatif::HumanCount(number.into());
    let first = find(Rule::FirstTo { count: 3 }, independent);
    let together = find(six, Voters::Correlated { error: 0.1, correlation: 0.1 });
    let liars = find(six, Voters::Dishonest { nodes: 100, dishonest: 20, error: 0.0 });
    let _ = write!(
        page,
        "\
- At e = 0.1 a lead of 6 accepted {} wrong results, for {:.2} executions a task. It takes {} replicas, and as
  many executions, to be as safe.
- Being first to 3 votes accepted {} wrong results for {:.2} executions a task, being 3 ahead {} for {:.2}.
- Independence carries the figures: with a correlation of 0.1 between nodes' errors the same lead of 6 accepted
  {} wrong results.
- 20 dishonest nodes of 100 got {} wrong results past a lead of 6. If all 100 nodes ran every task, and most
  decided, they would get none past it, for 100 executions a task instead of {:.2}.
",
        count(lead.tally.wrong),
        lead.executions().measured,
        replicas_needed(0.1, 6),
        count(first.tally.wrong),
        first.executions().measured,
        count(lead_3.tally.wrong),
        lead_3.executions().measured,
        count(together.tally.wrong),
        count(liars.tally.wrong),
        liars.executions().measured,
    );
}

/// A table of rows, in columns that line up as text too.
fn table(page: &mut String, rows: &[Row]) {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths = std::array::from_fn::<_, { HEAD.len() }, _>(width);
    // Names to the left, numbers to the right.
    let rule = |(column, width): (usize, &usize)| match column {
        0 | 1 => format!("|{}", "-".repeat(width + 2)),
        _ => format!("|{}:", "-".repeat(width + 1)),
    };
    let rule = widths.iter().enumerate().map(rule).collect::<String>() + "|\n";
    for (at, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let _ = match column {
                0 | 1 => write!(page, "| {cell:<width$} "),
                _ => write!(page, "| {cell:>width$} "),
            };
        }
        page.push_str("|\n");
        if at == 0 {
            page.push_str(&rule);
        }
    }
}

fn cells(row: &Row) -> [String; HEAD.len()] {
    let rule = match row.rule {
        Rule::Lead { lead, nodes_max } => format!("lead {lead} of {nodes_max}"),
        Rule::FirstTo { count } => format!("first to {count}"),
        Rule::Replicas { nodes } => format!("{nodes} replicas"),
    };
    let nodes = match row.voters {
        Voters::Independent { error } => format!("e = {error}"),
        Voters::Correlated { error, correlation } => format!("e = {error}, rho = {correlation}"),
        Voters::Dishonest { dishonest, error: 0.0, .. } => format!("{dishonest} dishonest"),
        Voters::Dishonest { dishonest, error, .. } => format!("{dishonest} dishonest, e = {error}"),
    };
    let part = |p: f64| if p == 0.0 { "0".to_owned() } else { format!("{p:.2e}") };
    let mean = |votes: f64| format!("{votes:.3}");
    let (wrong, none, executions) = (row.wrong(), row.no_agreement(), row.executions());
    [
        rule,
        nodes,
        part(wrong.measured),
        part(wrong.figure),
        z(wrong),
        part(none.measured),
        part(none.figure),
        z(none),
        mean(executions.measured),
        mean(executions.figure),
        z(executions),
    ]
}

fn z(value: Compared) -> String {
    let mark = if value.is_within() { "" } else { "!" };
    if value.z == 0.0 { format!("0{mark}") } else { format!("{:+.1}{mark}", value.z) }
}
