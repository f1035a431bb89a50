//! Blobs: inputs that specifications name by their digest, and results of transitions that were decided.

use anwansi_proofs::Digest;
use anwansi_store::BLOB_BYTES_MAX;
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Texts, digits, named_answer, texts, with_token};
use crate::{
    auth::Scope, body::Received, openapi::ProblemDocument, problem::Problem, state::App,
    tiles::OCTETS,
};

/// A blob that is kept.
#[derive(Serialize, ToSchema)]
pub(crate) struct Kept {
    digest: String,
    /// Its length.
    bytes: usize,
}

fn digest(path: Texts<String>) -> Result<Digest, Problem> {
    digits("the digest in the path", &texts(path)?)
}

/// Keeps content for specifications to name. The answer comes when it is durable; anyone may read it then.
#[utoipa::path(put, path = "/v1/blobs/{digest}", tag = "ledger", security(("token" = ["submit"])),
    request_body(description = "The content", content_type = "application/octet-stream", content = [u8]), params(
    ("digest" = String, Path, description = "The BLAKE3 digest of the content, 64 hex digits"),
), responses(
    (status = 201, description = "Kept", body = Kept),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 401, description = "`unauthorized`", body = ProblemDocument),
    (status = 403, description = "`forbidden`", body = ProblemDocument),
    (status = 408, description = "`request-timeout`", body = ProblemDocument),
    (status = 413, description = "`body-too-large`", body = ProblemDocument),
    (status = 422, description = "`wrong-digest`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn put(
    State(app): State<App>,
    path: Texts<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let received = with_token(&app, &headers, body, Scope::Submit, BLOB_BYTES_MAX).await?;
    let digest = digest(path)?;
    let bytes = received.bytes.len();
    let keep = app.step(move |store| {
        let Received { bytes, room: _room } = received;
        Ok(store.ledger().put_blob(&digest, Bytes::from(bytes))?)
    });
    keep.await?;
    let kept = Kept { digest: digest.to_string(), bytes };
    Ok((StatusCode::CREATED, Json(kept)).into_response())
}

/// The content of this digest: an input, or a result of a transition that was decided and is not pruned.
#[utoipa::path(get, path = "/v1/blobs/{digest}", tag = "ledger", params(
    ("digest" = String, Path, description = "The digest of the content, 64 hex digits"),
), responses(
    (status = 200, description = "Never changes", content_type = "application/octet-stream", body = [u8]),
    (status = 304, description = "As the caller has it"),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 404, description = "`no-such-blob`, also while it is sealed, and when it was pruned", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn get(
    State(app): State<App>,
    path: Texts<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let digest = digest(path)?;
    let bytes = app.read(move |store| Ok(store.ledger().blob(&digest)?)).await?;
    named_answer(&app, &headers, digest, OCTETS, bytes)
}
