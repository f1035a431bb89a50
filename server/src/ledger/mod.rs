//! The ledger over HTTP: transitions go in, nodes vote on their tasks, evidence comes out.
//!
//! ```text
//!   transitions.rs   submit (token), how one stands, its specification, its evidence, cancel (token)
//!   assignments.rs   what a node has to do: an answer that waits until there is something
//!   votes.rs         pledges and reveals: no token, nodes sign them; what a closed round was pledged
//!   nodes.rs         the registry (token to change it), with scores
//!   blobs.rs         inputs (token to put them), and results of what was decided
//!   events.rs        versions and decided tasks, to be followed
//!     |
//!   waiters.rs       wakes the nodes that wait for something to do
//!   progress.rs      how a transition stands, as JSON
//!   refused.rs       refusals of the ledger as problems
//!   figures.rs       what is counted
//! ```
//!
//! Whatever is answered with success is durable; all of it can be sent again, and is answered as it was.

pub(crate) mod assignments;
pub(crate) mod blobs;
pub(crate) mod events;
pub(crate) mod figures;
pub(crate) mod nodes;
mod progress;
mod refused;
pub(crate) mod transitions;
pub(crate) mod votes;
pub(crate) mod waiters;

use std::{fmt::Display, str::FromStr};

use anwansi_proofs::TransitionId;
use axum::{
    body::Body,
    extract::{Path, rejection::PathRejection},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;

use crate::{
    auth::Scope,
    body::{Received, discard, receive},
    problem::Problem,
    query::decimal,
    read::is_known,
    state::App,
    tiles::{IMMUTABLE, REVALIDATE},
};

/// The parts of a path, as texts.
type Texts<T> = Result<Path<T>, PathRejection>;

fn texts<T>(path: Texts<T>) -> Result<T, Problem> {
    let refused = |_| Problem::malformed("the path is not valid percent-encoded UTF-8");
    path.map(|Path(texts)| texts).map_err(refused)
}

/// The id that the path names.
fn transition(path: Texts<String>) -> Result<TransitionId, Problem> {
    digits("the id in the path", &texts(path)?)
}

/// The transition and the index of the task that the path names.
fn task(path: Texts<(String, String)>) -> Result<(TransitionId, u32), Problem> {
    let (id, index) = texts(path)?;
    Ok((digits("the id in the path", &id)?, small("the task in the path", &index)?))
}

/// Reads 32 bytes: a digest, an id, a key.
fn digits<T: FromStr>(name: &str, text: &str) -> Result<T, Problem> {
    let refused = |_| Problem::malformed(format!("{name} is not 64 lower-case hex digits"));
    text.parse().map_err(refused)
}

/// Reads a decimal of 32 bits.
fn small(name: &str, text: &str) -> Result<u32, Problem> {
    let max = u32::MAX;
    let number = u32::try_from(decimal(name, text)?);
    number.map_err(|_| Problem::malformed(format!("{name} is out of range: give 0 to {max}")))
}

/// Reads the body of a request that needs a token, or refuses it.
async fn with_token(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    scope: Scope,
    max: usize,
) -> Result<Received, Problem> {
    if let Err(refused) = app.tokens.check(headers, scope) {
        discard(headers, body).await;
        return Err(refused);
    }
    receive(app, headers, body, max).await
}

/// JSON that counts against the budget for answers, and that may be another next time.
fn json_answer(app: &App, status: StatusCode, json: String) -> Result<Response, Problem> {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, REVALIDATE)];
    Ok((status, headers, app.answer(json)?).into_response())
}

/// Bytes that never change under their name, or that the caller has them already.
fn named_answer(
    app: &App,
    headers: &HeaderMap,
    name: impl Display,
    media_type: &'static str,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let tag = format!("\"{name}\"");
    let known = is_known(headers, &tag);
    let headers = [(ETAG, tag.as_str()), (CACHE_CONTROL, IMMUTABLE)];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, headers, Body::empty()).into_response());
    }
    // Whoever wrote the bytes is not to say what browsers take them for.
    let typed = [(CONTENT_TYPE, media_type), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, typed, app.answer(bytes)?).into_response())
}
