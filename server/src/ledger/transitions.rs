//! Transitions: submitted, looked at, shown with their evidence, cancelled.

use anwansi_proofs::{
    Digest, SPEC_BYTES_MAX,
    agreement::{ROUNDS_NODES_MAX, Rounds, Voters, some_task},
};
use anwansi_store::{Submitted, TASKS_MAX};
use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap, StatusCode, Uri,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{Texts, json_answer, named_answer, progress, small, transition, with_token};
use crate::{
    auth::Scope,
    body::{Received, discard},
    openapi::{EvidenceDocument, ProblemDocument},
    problem::Problem,
    query::Query,
    read::{is_known, limit},
    state::App,
    tiles::REVALIDATE,
};

/// A transition that was opened.
#[derive(Serialize, ToSchema)]
pub(crate) struct Begun {
    /// Its name: the digest of the specification.
    id: String,
    /// How many tasks it has.
    tasks: u32,
    /// The version that opened it, by which its nodes are drawn.
    opened: u64,
    /// The probability that some task ends without agreement, if every drawn node votes and errs as often as
    /// the policy says. With over 512 nodes a task it is that of 512, which is more; null with such a lead.
    #[schema(required = true)]
    no_agreement: Option<f64>,
}

/// Opens a transition. The answer comes when it is in a version; a repeat is answered as the first was, as long as the
/// transition is not pruned.
#[utoipa::path(post, path = "/v1/transitions", tag = "ledger", security(("token" = ["submit"])),
    request_body(description = "The specification, canonical JSON: its bytes are what the id is of", content_type = "application/json", content = String),
    responses(
    (status = 201, description = "Opened", body = Begun),
    (status = 401, description = "`unauthorized`", body = ProblemDocument),
    (status = 403, description = "`forbidden`", body = ProblemDocument),
    (status = 408, description = "`request-timeout`", body = ProblemDocument),
    (status = 409, description = "`too-few-nodes`; `conflict`: it was opened before, and pruned", body = ProblemDocument),
    (status = 413, description = "`body-too-large`, `too-many-tasks`", body = ProblemDocument),
    (status = 422, description = "`malformed-spec`, `no-inputs`, `bad-into`, `bad-policy`, `unknown-fold`, `fold-use`, `unknown-blob`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `too-much-open`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn submit(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let received = with_token(&app, &headers, body, Scope::Submit, SPEC_BYTES_MAX).await?;
    let opened = app.step(move |store| {
        let Received { bytes, room: _room } = received;
        Ok(Begun::from(store.ledger().submit(&bytes)?))
    });
    Ok((StatusCode::CREATED, axum::Json(opened.await?)).into_response())
}

impl From<Submitted> for Begun {
    fn from(Submitted { id, tasks, opened, policy, registered }: Submitted) -> Self {
        // No more are counted than may be drawn.
        let registered = u32::try_from(registered).unwrap_or(u32::MAX);
        let nodes_max = policy.nodes_max.min(ROUNDS_NODES_MAX).min(registered);
        let outcome = Rounds::new(policy.lead, nodes_max)
            .map(|rounds| rounds.outcome(Voters::Independent { error: policy.error() }));
        let no_agreement = outcome.map(|outcome| some_task(outcome.no_agreement, tasks));
        Begun { id: id.to_string(), tasks, opened: opened.0, no_agreement }
    }
}

/// How a transition stands, and what each of its tasks waits for.
///
/// Which answers there are is sealed until it is decided; then each task has its record, for ever. Two pledges of one
/// node are shown until the transition is pruned.
#[utoipa::path(get, path = "/v1/transitions/{id}", tag = "ledger", params(
    ("id" = String, Path, description = "The transition, 64 hex digits"),
    ("from" = Option<u32>, Query, description = "The first task, 0 if not given"),
    ("limit" = Option<u64>, Query, description = "How many tasks at most; see `tasks_per_transition` in /v1/info, which it is if not given"),
), responses(
    (status = 200, body = progress::Document),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 404, description = "`unknown-transition`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn stands(
    State(app): State<App>,
    path: Texts<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let id = transition(path)?;
    let query = Query::parse(uri.query(), &["from", "limit"])?;
    let from = query.number("from")?.unwrap_or(0);
    let from = small("from", &from.to_string())?;
    let limit = limit(&query, TASKS_MAX, TASKS_MAX)?;
    let json = app.read(move |store| {
        let document = progress::Document::new(store.ledger().progress(&id)?, from, limit);
        Ok(serde_json::to_string(&document).expect("strings and numbers are always JSON"))
    });
    json_answer(&app, StatusCode::OK, json.await?)
}

/// The exact bytes of a transition's specification.
#[utoipa::path(get, path = "/v1/transitions/{id}/spec", tag = "ledger", params(
    ("id" = String, Path, description = "The transition, 64 hex digits"),
), responses(
    (status = 200, description = "Never changes: the id is its digest", content_type = "application/json", body = String),
    (status = 304, description = "As the caller has it"),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 404, description = "`unknown-transition`", body = ProblemDocument),
    (status = 410, description = "`pruned`: it was decided before `oldest_decided` of /v1/info", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn spec(
    State(app): State<App>,
    path: Texts<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = transition(path)?;
    let bytes = app.read(move |store| Ok(store.ledger().spec(&id)?)).await?;
    named_answer(&app, &headers, id, "application/json", bytes)
}

/// Evidence of a transition that was decided: everything that its decision is recounted from.
#[utoipa::path(get, path = "/v1/transitions/{id}/evidence", tag = "ledger", params(
    ("id" = String, Path, description = "The transition, 64 hex digits"),
    ("outputs" = Option<bool>, Query, description = "With the results, to be folded again; false if not given"),
), responses(
    (status = 200, description = "Evidence", body = EvidenceDocument),
    (status = 304, description = "As the caller has it"),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 404, description = "`unknown-transition`", body = ProblemDocument),
    (status = 409, description = "`not-decided`", body = ProblemDocument),
    (status = 410, description = "`pruned`: it was decided before `oldest_decided` of /v1/info, or, with results and if it wrote more than 8 MiB, in a version that is not kept", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn evidence(
    State(app): State<App>,
    path: Texts<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = transition(path)?;
    let query = Query::parse(uri.query(), &["outputs"])?;
    let outputs = match query.one("outputs")? {
        None | Some(b"false" | b"0") => false,
        Some(b"true" | b"1") => true,
        Some(_) => return Err(Problem::malformed("outputs is neither true nor false")),
    };
    let evidence = app.evidence(move |store| {
        let json = store.ledger().evidence(&id, outputs)?.to_json();
        Ok((Digest::of(json.as_bytes()), json))
    });
    let (digest, json) = evidence.await?;
    // Another with each checkpoint, so that its content is what names it.
    let tag = format!("\"{digest}\"");
    let known = is_known(&headers, &tag);
    let headers = [(ETAG, tag.as_str()), (CACHE_CONTROL, REVALIDATE)];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, headers, Body::empty()).into_response());
    }
    let json = app.answer(Bytes::from(json))?;
    Ok((headers, [(CONTENT_TYPE, "application/json")], json).into_response())
}

/// Cancels a transition of which no node has pledged yet. The answer comes when that is decided.
#[utoipa::path(post, path = "/v1/transitions/{id}/cancel", tag = "ledger", security(("token" = ["submit"])), params(
    ("id" = String, Path, description = "The transition, 64 hex digits"),
), responses(
    (status = 200, description = "Cancelled: `{\"id\",\"outcome\":\"cancelled\"}`", content_type = "application/json", body = String),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 401, description = "`unauthorized`", body = ProblemDocument),
    (status = 403, description = "`forbidden`", body = ProblemDocument),
    (status = 404, description = "`unknown-transition`", body = ProblemDocument),
    (status = 409, description = "`not-cancellable`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn cancel(
    State(app): State<App>,
    path: Texts<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let allowed = app.tokens.check(&headers, Scope::Submit);
    // Nothing has to be said beside the path.
    discard(&headers, body).await;
    allowed?;
    let id = transition(path)?;
    app.step(move |store| Ok(store.ledger().cancel(&id)?)).await?;
    let cancelled = json!({ "id": id.to_string(), "outcome": "cancelled" });
    json_answer(&app, StatusCode::OK, cancelled.to_string())
}
