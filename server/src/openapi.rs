//! The description of the routes for other programs: `/openapi.json`.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use crate::{
    changes,
    ledger::{assignments, blobs, events, nodes, transitions, votes},
    metrics, pins, prove, read, tiles, write,
};

/// A problem, as RFC 9457 has it. Some kinds have further members.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, written in problem.rs")]
pub(crate) struct ProblemDocument {
    /// `https://anwansi.example/problems/` and a stable name.
    r#type: String,
    title: String,
    status: u16,
    /// What was wrong with this request, and how to mend it.
    detail: String,
}

/// Evidence: to be verified, not believed. Its format is in the specification of `anwansi-proofs`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, written by anwansi-proofs")]
pub(crate) struct EvidenceDocument {
    format: String,
    /// The text of the version's header.
    header: String,
    /// The tlog-proof that the header is in the log.
    finality: String,
    /// A proof over the state, in base64.
    state: Option<String>,
    /// A proof over the tasks of this version, in base64.
    tasks: Option<String>,
    /// The versions that it rests on, each with header, finality and proofs.
    earlier: Option<Vec<utoipa::openapi::Object>>,
    /// The specification of a transition, in base64.
    spec: Option<String>,
    /// By task and round (`<i>/<r>`), the pledges of a closed round, in base64.
    pledges: Option<BTreeMap<String, String>>,
    /// By task, its votes, in base64.
    votes: Option<BTreeMap<String, String>>,
    /// By digest, a result, in base64.
    outputs: Option<BTreeMap<String, String>>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Anwansi",
        description = "A memory that can be checked: every answer comes with a proof. Errors are problem documents (RFC 9457) with stable types."
    ),
    paths(
        tiles::checkpoint,
        tiles::tile,
        read::info,
        read::versions,
        read::version,
        changes::changes,
        prove::state,
        prove::range,
        prove::proofs,
        write::commits,
        pins::list,
        pins::pin,
        pins::unpin,
        transitions::submit,
        transitions::stands,
        transitions::spec,
        transitions::evidence,
        transitions::cancel,
        assignments::assignments,
        votes::pledge,
        votes::reveal,
        votes::pledges,
        nodes::register,
        nodes::remove,
        nodes::one,
        nodes::list,
        blobs::put,
        blobs::get,
        events::events,
        read::healthz,
        read::readyz,
        metrics::metrics,
        openapi,
    ),
    modifiers(&Token)
)]
struct Api;

/// How writes are allowed.
struct Token;

impl Modify for Token {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "operation", responses(
    (status = 200, description = "OpenAPI", content_type = "application/json", body = String),
))]
pub(crate) async fn openapi() -> Response {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| Api::openapi().to_json().expect("the description is JSON"));
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}
