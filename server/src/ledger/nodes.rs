//! The registry of nodes: who may be drawn, and what each has done.

use anwansi_proofs::{NodeKey, agreement::error_estimate, registry::Score};
use anwansi_store::{Committed, Node};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Uri, header::CACHE_CONTROL},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Texts, digits, texts, with_token};
use crate::{
    auth::Scope,
    body::discard,
    openapi::ProblemDocument,
    problem::Problem,
    query::{Query, base64_array, json},
    read::limit,
    state::{App, NODES, NODES_MAX},
    tiles::REVALIDATE,
};

/// The longest body of a registration.
const JOIN_BYTES_MAX: usize = 4 << 10;

/// A registered node.
#[derive(Serialize, ToSchema)]
#[schema(as = Node)]
pub(crate) struct Registered {
    /// Who it is: 64 hex digits.
    key: String,
    /// The version that registered it.
    since: u64,
    score: Scored,
    /// How often it errs, estimated from its score: one half for a node that has done nothing yet.
    error_estimate: f64,
}

/// What a node has done in transitions that were decided.
#[derive(Serialize, ToSchema)]
pub(crate) struct Scored {
    /// Votes for the answer that became final.
    agreed: u64,
    /// Reveals that did not open the pledge.
    bad_reveal: u64,
    /// Votes for another answer.
    dissented: u64,
    /// Rounds in which it signed two pledges.
    equivocated: u64,
    /// Rounds in which it was drawn and did not pledge in time.
    missed: u64,
    /// Pledges without a reveal.
    no_reveal: u64,
}

impl From<Node> for Registered {
    fn from(Node { key, since, score }: Node) -> Self {
        let (successes, failures) = score.successes_and_failures();
        let Score { agreed, dissented, missed, no_reveal, bad_reveal, equivocated } = score;
        Registered {
            key: key.to_string(),
            since: since.0,
            score: Scored { agreed, bad_reveal, dissented, equivocated, missed, no_reveal },
            error_estimate: error_estimate(successes, failures),
        }
    }
}

/// A node's will to be registered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Join {
    /// The node's signature over `anwansi/join/v1`, a line end, and the log's origin, in base64.
    #[serde(deserialize_with = "base64_array")]
    #[schema(value_type = String)]
    signature: [u8; 64],
}

/// The version in which the registry is as it was asked for.
#[derive(Serialize, ToSchema)]
pub(crate) struct Changed {
    version: u64,
    /// The root of that version's state.
    state: String,
}

impl From<Committed> for Changed {
    fn from(committed: Committed) -> Self {
        Changed { version: committed.version.0, state: committed.state.to_string() }
    }
}

fn node(path: Texts<String>) -> Result<NodeKey, Problem> {
    digits("the key in the path", &texts(path)?)
}

/// Registers a node: from the next version on it may be drawn. One that is registered stays so.
#[utoipa::path(put, path = "/v1/nodes/{key}", tag = "ledger", request_body = Join, security(("token" = ["admin"])), params(
    ("key" = String, Path, description = "The node's public key, 64 hex digits"),
), responses(
    (status = 200, description = "Registered", body = Changed),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 401, description = "`unauthorized`", body = ProblemDocument),
    (status = 403, description = "`forbidden`, `bad-signature`", body = ProblemDocument),
    (status = 408, description = "`request-timeout`", body = ProblemDocument),
    (status = 413, description = "`body-too-large`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn register(
    State(app): State<App>,
    path: Texts<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let received = with_token(&app, &headers, body, Scope::Admin, JOIN_BYTES_MAX).await?;
    let node = node(path)?;
    let Join { signature } = json(&received.bytes)?;
    let committed = app.step(move |store| Ok(store.ledger().register(&node, &signature)?)).await?;
    Ok(Json(Changed::from(committed)).into_response())
}

/// Removes a node: it is drawn no more. Its score is kept, and where it was drawn it stays so.
#[utoipa::path(delete, path = "/v1/nodes/{key}", tag = "ledger", security(("token" = ["admin"])), params(
    ("key" = String, Path, description = "The node's public key, 64 hex digits"),
), responses(
    (status = 200, description = "Removed", body = Changed),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 401, description = "`unauthorized`", body = ProblemDocument),
    (status = 403, description = "`forbidden`", body = ProblemDocument),
    (status = 404, description = "`unknown-node`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn remove(
    State(app): State<App>,
    path: Texts<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let allowed = app.tokens.check(&headers, Scope::Admin);
    // Nothing has to be said beside the path.
    discard(&headers, body).await;
    allowed?;
    let node = node(path)?;
    let committed = app.step(move |store| Ok(store.ledger().remove(&node)?)).await?;
    Ok(Json(Changed::from(committed)).into_response())
}

/// A node of the newest version.
#[utoipa::path(get, path = "/v1/nodes/{key}", tag = "ledger", params(
    ("key" = String, Path, description = "The node's public key, 64 hex digits"),
), responses(
    (status = 200, body = Registered),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 404, description = "`unknown-node`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn one(State(app): State<App>, path: Texts<String>) -> Result<Response, Problem> {
    let node = node(path)?;
    let found = app.read(move |store| Ok(store.ledger().node(&node)?)).await?;
    Ok(([(CACHE_CONTROL, REVALIDATE)], Json(Registered::from(found))).into_response())
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Nodes {
    /// In the order of their keys.
    nodes: Vec<Registered>,
    /// Where the list goes on; not there if it is at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The nodes of the newest version.
#[utoipa::path(get, path = "/v1/nodes", tag = "ledger", params(
    ("from" = Option<String>, Query, description = "The first key, 64 hex digits"),
    ("limit" = Option<u64>, Query, description = "How many at most; see `nodes_per_list` in /v1/info"),
), responses(
    (status = 200, body = Nodes),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn list(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::parse(uri.query(), &["from", "limit"])?;
    let first = match query.one("from")? {
        Some(from) => digits("from", &String::from_utf8_lossy(from))?,
        None => NodeKey([0; 32]),
    };
    let limit = limit(&query, NODES, NODES_MAX)?;
    let mut nodes = app.read(move |store| Ok(store.ledger().nodes(&first, limit + 1)?)).await?;
    let next = nodes.get(limit).map(|node| node.key.to_string());
    nodes.truncate(limit);
    let nodes = nodes.into_iter().map(Registered::from).collect();
    Ok(([(CACHE_CONTROL, REVALIDATE)], Json(Nodes { nodes, next })).into_response())
}
