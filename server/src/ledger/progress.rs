//! How a transition stands, as JSON.

use anwansi_proofs::{
    Pledge,
    record::{Outcome, TaskRecord},
};
use anwansi_store::{Equivocation, Progress, Stage, TaskProgress};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::state::ANSWER_BYTES_MAX;

/// How a transition stands.
#[derive(Serialize, ToSchema)]
#[schema(as = Progress)]
pub(crate) struct Document {
    id: String,
    /// `open`, `applied`, `failed` or `cancelled`.
    outcome: &'static str,
    /// The version that opened it.
    opened: u64,
    /// The version that decided it.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided: Option<u64>,
    /// Why nothing was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// By index; none for the moment in which it is being opened or decided.
    tasks: Vec<Task>,
    /// Where the tasks go on; not there if they are at their end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u32>,
    /// Nodes that signed two pledges for one round of these tasks.
    equivocations: Vec<TwoPledges>,
}

/// How a task stands.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskProgress)]
pub(crate) struct Task {
    index: u32,
    /// `pledging`, `closing`, `revealing`, `counting` or `ended`; once the transition is decided `final`,
    /// `no_agreement`, `expired` or `cancelled`.
    phase: &'static str,
    /// The round that is under way, or was the last.
    round: u32,
    /// The votes of the rounds that ended.
    votes: u64,
    /// The nodes that it waits for.
    waiting_for: Vec<String>,
    /// How long it waits for them at most, in milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    /// What the version that decided it records, in the words of the specification of `anwansi-proofs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Map<String, Value>>,
}

/// Two pledges for one round, both signed by one node.
#[derive(Serialize, ToSchema)]
pub(crate) struct TwoPledges {
    node: String,
    index: u32,
    round: u32,
    /// The one that came first, and is in the closing.
    first: Signed,
    second: Signed,
}

/// A pledge with its signature.
#[derive(Serialize, ToSchema)]
pub(crate) struct Signed {
    /// 64 hex digits.
    pledge: String,
    /// In base64.
    signature: String,
}

impl Document {
    /// The tasks from one on: at most `limit`, and as many as an answer has room for, one at least.
    pub(crate) fn new(progress: Progress, from: u32, limit: usize) -> Self {
        let tasks = progress.tasks.len();
        let (mut shown, mut bytes) = (Vec::new(), 0);
        let left = (0..).zip(progress.tasks).skip(from as usize).take(limit);
        for (index, task) in left {
            bytes += size(&task);
            if !shown.is_empty() && bytes > ANSWER_BYTES_MAX {
                break;
            }
            shown.push(Task::new(index, &task));
        }
        let end = from as usize + shown.len();
        let is_shown = |equivocation: &Equivocation| {
            (from as usize..end).contains(&(equivocation.place.task as usize))
        };
        Document {
            id: progress.id.to_string(),
            outcome: progress.decided.map_or("open", |(_, outcome)| Outcome::as_str(outcome)),
            opened: progress.opened.0,
            decided: progress.decided.map(|(version, _)| version.0),
            reason: progress.reason,
            tasks: shown,
            next: u32::try_from(end).ok().filter(|_| end < tasks),
            equivocations: progress
                .equivocations
                .iter()
                .filter(|it| is_shown(it))
                .map(two)
                .collect(),
        }
    }
}

/// Bytes of a task's JSON, about.
fn size(task: &TaskProgress) -> usize {
    let keys = 70 * task.waiting_for.len();
    let record = task.record.as_ref();
    128 + keys + record.map_or(0, |it| 512 + 80 * it.dissent.len() + 8 * it.closed.len())
}

impl Task {
    fn new(index: u32, task: &TaskProgress) -> Self {
        Task {
            index,
            phase: match task.stage {
                Stage::Pledging => "pledging",
                Stage::Closing => "closing",
                Stage::Revealing => "revealing",
                Stage::Counting => "counting",
                Stage::Ended => "ended",
                Stage::Decided(status) => status.as_str(),
            },
            round: task.round,
            votes: task.votes,
            waiting_for: task.waiting_for.iter().map(ToString::to_string).collect(),
            until_ms: task.until_ms,
            record: task.record.as_ref().map(TaskRecord::to_bytes).map(|record| members(&record)),
        }
    }
}

/// The members of a record, which is canonical JSON.
pub(super) fn members(record: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(record).expect("records are objects")
}

fn two(equivocation: &Equivocation) -> TwoPledges {
    let signed = |pledge: &Pledge| Signed {
        pledge: pledge.pledge.to_string(),
        signature: STANDARD.encode(pledge.signature),
    };
    TwoPledges {
        node: equivocation.first.node.to_string(),
        index: equivocation.place.task,
        round: equivocation.place.round,
        first: signed(&equivocation.first),
        second: signed(&equivocation.second),
    }
}
