//! What a node has to do: answered at once if there is something, or as soon as there is.

use std::time::Duration;

use anwansi_proofs::Input;
use anwansi_store::{Assignment, Turn};
use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::{digits, json_answer, waiters::Asking};
use crate::{openapi::ProblemDocument, problem::Problem, query::Query, state::App};

#[derive(Serialize, ToSchema)]
pub(crate) struct Assignments {
    /// Some of it, if it is much: the rest follows when these are done.
    assignments: Vec<Assigned>,
}

/// Something that a node has to do.
#[derive(Serialize, ToSchema)]
#[schema(as = Assignment)]
pub(crate) struct Assigned {
    transition: String,
    index: u32,
    round: u32,
    /// What is awaited: `pledge` or `reveal`.
    phase: &'static str,
    /// The version that opened the transition.
    opened: u64,
    /// With `reveal`, the version with the closing that contains its pledge.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<u64>,
    /// How many nodes were drawn in each round so far.
    draws: Vec<u32>,
    program: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    input: AssignedInput,
    /// In milliseconds from now.
    until_ms: u64,
}

/// What to run it on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AssignedInput {
    /// In base64.
    Data(String),
    /// The digest of a blob.
    Blob(String),
}

impl From<Assignment> for Assigned {
    fn from(assignment: Assignment) -> Self {
        let (phase, closed) = match assignment.turn {
            Turn::Pledge => ("pledge", None),
            Turn::Reveal { closed } => ("reveal", Some(closed.0)),
        };
        Assigned {
            transition: assignment.transition.to_string(),
            index: assignment.index,
            round: assignment.round,
            phase,
            opened: assignment.opened.0,
            closed,
            draws: assignment.draws,
            program: assignment.program,
            code: assignment.code.map(|code| code.to_string()),
            input: match assignment.input {
                Input::Data(data) => AssignedInput::Data(STANDARD.encode(data)),
                Input::Blob(digest) => AssignedInput::Blob(digest.to_string()),
            },
            until_ms: assignment.until_ms,
        }
    }
}

/// What a node has to do. With `wait_ms` the answer waits until there is something, but no longer.
#[utoipa::path(get, path = "/v1/assignments", tag = "ledger", params(
    ("node" = String, Query, description = "The node's public key, 64 hex digits"),
    ("program" = Option<String>, Query, description = "A program that it runs; repeat for more. Of any, if none is given"),
    ("wait_ms" = Option<u64>, Query, description = "How long to wait; cut at `wait_ms` in /v1/info, 0 if not given"),
), responses(
    (status = 200, description = "Nothing is to be done if it is empty: ask again", body = Assignments),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn assignments(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::parse(uri.query(), &["node", "program", "wait_ms"])?;
    let node = query.one("node")?;
    let node = node.ok_or_else(|| Problem::malformed("name the node, as node=<64 hex digits>"))?;
    let node = digits("node", &String::from_utf8_lossy(node))?;
    let programs = query.all("program").map(|name| String::from_utf8_lossy(name).into_owned());
    let asking = (node, programs.collect::<Vec<_>>());
    let wait = Duration::from_millis(query.number("wait_ms")?.unwrap_or(0)).min(app.limits.wait());
    let end = Instant::now() + wait;
    let (mut room, mut news) = (None, app.news.listen());
    loop {
        // Before the look, so that nothing comes between the two.
        let woken = (!wait.is_zero()).then(|| app.waiters.add(asking.clone()));
        let found = look(&app, asking.clone()).await?;
        let (None, Some(woken)) = (&found, woken) else {
            return json_answer(&app, StatusCode::OK, found.unwrap_or_else(none));
        };
        if room.is_none() {
            room = Some(app.room_for_wait()?);
        }
        tokio::select! {
            woken = timeout_at(end, woken) => if woken.is_ok() { continue },
            () = news.ended() => {}
        }
        // The time is up, or the server ends: the next question will be answered.
        return json_answer(&app, StatusCode::OK, none());
    }
}

/// The answer, if there is something to do. What is to be done is under a lock, for which a thread waits.
async fn look(app: &App, (node, programs): Asking) -> Result<Option<String>, Problem> {
    let found = app.read(move |store| {
        let found = store.ledger().assignments(&node, &programs);
        if found.is_empty() {
            return Ok(None);
        }
        Ok(Some(text(found.into_iter().map(Assigned::from).collect())))
    });
    found.await
}

fn none() -> String {
    text(Vec::new())
}

fn text(assignments: Vec<Assigned>) -> String {
    let answer = Assignments { assignments };
    serde_json::to_string(&answer).expect("strings and numbers are always JSON")
}
