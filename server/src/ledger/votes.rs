//! What nodes say: pledges, and the reveals that open them. They sign; no token is asked for.

use anwansi_proofs::{Digest, NodeKey, Pledge};
use anwansi_store::RESULT_BYTES_MAX;
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Uri, header::CACHE_CONTROL},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Texts, figures::Sent, small, task};
use crate::{
    body::{Received, receive},
    openapi::ProblemDocument,
    problem::Problem,
    query::{Query, base64_array, base64_bytes, json, text},
    state::App,
    tiles::IMMUTABLE,
};

/// The longest body of a pledge.
const PLEDGE_BYTES_MAX: usize = 4 << 10;
/// The longest body of a reveal: the result in base64, and as much beside it as a pledge has.
const REVEAL_BYTES_MAX: usize = RESULT_BYTES_MAX.div_ceil(3) * 4 + PLEDGE_BYTES_MAX;

/// A node's word that it has a result.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pledged {
    /// Who pledges: 64 hex digits.
    #[serde(deserialize_with = "text")]
    #[schema(value_type = String)]
    node: NodeKey,
    round: u32,
    /// 64 hex digits.
    #[serde(deserialize_with = "text")]
    #[schema(value_type = String)]
    pledge: Digest,
    /// The node's signature, in base64.
    #[serde(deserialize_with = "base64_array")]
    #[schema(value_type = String)]
    signature: [u8; 64],
}

/// What opens a pledge.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revealed {
    /// Who reveals: 64 hex digits.
    #[serde(deserialize_with = "text")]
    #[schema(value_type = String)]
    node: NodeKey,
    round: u32,
    /// 32 bytes, in base64.
    #[serde(deserialize_with = "base64_array")]
    #[schema(value_type = String)]
    salt: [u8; 32],
    /// The result, in base64.
    #[serde(deserialize_with = "base64_bytes")]
    #[schema(value_type = String)]
    result: Bytes,
}

/// That it was taken, and is durable.
#[derive(Serialize, ToSchema)]
pub(crate) struct Taken {
    taken: bool,
}

/// Takes a pledge. The answer comes when it is durable; a repeat is answered as the first was.
#[utoipa::path(post, path = "/v1/transitions/{id}/tasks/{i}/pledges", tag = "ledger", request_body = Pledged, params(
    ("id" = String, Path, description = "The transition, 64 hex digits"),
    ("i" = u32, Path, description = "The task"),
), responses(
    (status = 200, description = "Taken", body = Taken),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 403, description = "`bad-signature`, `not-drawn`", body = ProblemDocument),
    (status = 404, description = "`unknown-transition`, `unknown-task`", body = ProblemDocument),
    (status = 408, description = "`request-timeout`", body = ProblemDocument),
    (status = 409, description = "`too-late`; `equivocated`: another pledge was signed for this round, both are kept", body = ProblemDocument),
    (status = 413, description = "`body-too-large`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`: send it again", body = ProblemDocument),
))]
pub(crate) async fn pledge(
    State(app): State<App>,
    path: Texts<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let received = receive(&app, &headers, body, PLEDGE_BYTES_MAX).await?;
    let (id, index) = task(path)?;
    let Pledged { node, round, pledge, signature } = json(&received.bytes)?;
    let pledge = Pledge { node, pledge, signature };
    app.vote(move |store| Ok(store.ledger().pledge(&id, index, round, &pledge)?)).await?;
    app.metrics.ledger.taken(Sent::Pledge);
    Ok(Json(Taken { taken: true }).into_response())
}

/// Takes a reveal. The answer comes when it is durable; the result is sealed until the transition is decided.
#[utoipa::path(post, path = "/v1/transitions/{id}/tasks/{i}/reveals", tag = "ledger", request_body = Revealed, params(
    ("id" = String, Path, description = "The transition, 64 hex digits"),
    ("i" = u32, Path, description = "The task"),
), responses(
    (status = 200, description = "Taken", body = Taken),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 403, description = "`not-drawn`", body = ProblemDocument),
    (status = 404, description = "`unknown-transition`, `unknown-task`", body = ProblemDocument),
    (status = 408, description = "`request-timeout`", body = ProblemDocument),
    (status = 409, description = "`not-pledged`, `too-early`, `too-late`, `equivocated`", body = ProblemDocument),
    (status = 413, description = "`body-too-large`, `result-too-large`", body = ProblemDocument),
    (status = 422, description = "`bad-reveal`: recorded, and a right one may follow", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`: send it again", body = ProblemDocument),
))]
pub(crate) async fn reveal(
    State(app): State<App>,
    path: Texts<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let received = receive(&app, &headers, body, REVEAL_BYTES_MAX).await?;
    let (id, index) = task(path)?;
    let take = app.vote(move |store| {
        let Received { bytes, room: _room } = received;
        let Revealed { node, round, salt, result } = json(&bytes)?;
        drop(bytes);
        Ok(store.ledger().reveal(&id, index, round, &node, salt, result)?)
    });
    take.await?;
    app.metrics.ledger.taken(Sent::Reveal);
    Ok(Json(Taken { taken: true }).into_response())
}

/// What a round was pledged, once it is closed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Closed {
    /// The pledges' leaves one after the other, in the order of their nodes, in base64.
    leaves: String,
}

/// The pledges of a round that was closed, of which the root is in the closing's version.
#[utoipa::path(get, path = "/v1/transitions/{id}/tasks/{i}/pledges", tag = "ledger", params(
    ("id" = String, Path, description = "The transition, 64 hex digits"),
    ("i" = u32, Path, description = "The task"),
    ("round" = u32, Query, description = "The round"),
), responses(
    (status = 200, description = "Never changes", body = Closed),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 404, description = "`unknown-transition`", body = ProblemDocument),
    (status = 409, description = "`too-early`", body = ProblemDocument),
    (status = 410, description = "`pruned`: it was decided before `oldest_decided` of /v1/info", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn pledges(
    State(app): State<App>,
    path: Texts<(String, String)>,
    uri: Uri,
) -> Result<Response, Problem> {
    let (id, index) = task(path)?;
    let query = Query::parse(uri.query(), &["round"])?;
    let round = query.number("round")?;
    let round = round.ok_or_else(|| Problem::malformed("name the round, as round=0"))?;
    let round = small("round", &round.to_string())?;
    let leaves = app.read(move |store| {
        let pledges = store.ledger().pledges(&id, index, round)?;
        Ok(STANDARD.encode(pledges.iter().flat_map(Pledge::to_bytes).collect::<Vec<_>>()))
    });
    let leaves = leaves.await?;
    Ok(([(CACHE_CONTROL, IMMUTABLE)], Json(Closed { leaves })).into_response())
}
