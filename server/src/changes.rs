//! What a version changed, as lines of JSON that are made while they are sent.
//!
//! ```text
//! {"header","finality","update":"<base64>"}
//! {"key_hex","value":"<base64>"|null}          in key order
//! {"count":n}                                  without it the answer was cut
//! ```

use std::convert::Infallible;

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    openapi::ProblemDocument,
    problem::Problem,
    read::{Form, Tag, in_path, json_lines},
    state::{App, Room},
};

/// Lines are sent in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for a slow reader.
const PIECES_MAX: usize = 2;

/// The changes of a version, and the proof that they lead from the version before to it.
#[utoipa::path(get, path = "/v1/versions/{v}/changes", tag = "versions", params(
    ("v" = u64, Path, description = "The version"),
), responses(
    (status = 200, description = "JSON lines: header, finality and update proof; then the changes; last `{\"count\":n}`, without which the answer was cut", content_type = "application/jsonl", body = String),
    (status = 304, description = "Nothing has changed since"),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 404, description = "`no-such-version`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn changes(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let version = in_path(path)?;
    let size = app.store.latest().version().0 + 1;
    let tag = Tag { version, size, form: Form::Json };
    if version.0 < size && tag.is_known(&headers) {
        return Ok(tag.not_modified());
    }
    let room = app.room_for_stream()?;
    let read = app.read(move |store| {
        let finality = store.finality(version)?;
        let update = STANDARD.encode(store.update_proof(version)?);
        Ok((finality, update, store.changes(version)?))
    });
    let (finality, update, changes) = read.await?;
    let tag = Tag { version, size: finality.log_size, form: Form::Json };
    let (header, proof) = (&finality.header, finality.proof.to_string());
    let first = json!({ "header": header, "finality": proof, "update": update }).to_string();
    let (pieces, body) = mpsc::channel(PIECES_MAX);
    tokio::spawn(produce(first, changes, pieces, app, room));
    Ok(json_lines(Body::from_stream(ReceiverStream::new(body)), tag.headers()))
}

/// Sends the lines until all are sent, or the reader is gone or too slow; then the count is missing.
async fn produce(
    mut lines: String,
    changes: Vec<(Bytes, Option<Bytes>)>,
    pieces: mpsc::Sender<Result<Bytes, Infallible>>,
    app: App,
    _room: Room,
) {
    let count = changes.len();
    lines.push('\n');
    for (key, value) in changes {
        let value = value.map(|value| STANDARD.encode(value));
        lines.push_str(&json!({ "key_hex": hex::encode(key), "value": value }).to_string());
        lines.push('\n');
        if lines.len() >= PIECE_BYTES {
            let piece = Ok(Bytes::from(std::mem::take(&mut lines)));
            if !matches!(timeout(app.limits.timeout, pieces.send(piece)).await, Ok(Ok(()))) {
                return;
            }
        }
    }
    lines.push_str(&json!({ "count": count }).to_string());
    lines.push('\n');
    // Whether the reader took it: it knows.
    let _ = timeout(app.limits.timeout, pieces.send(Ok(Bytes::from(lines)))).await;
}
