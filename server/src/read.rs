//! What the server is, and the versions it has: `/v1/info`, `/v1/versions`, health.

use anwansi_proofs::Version;
use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    openapi::ProblemDocument,
    problem::{Kind, Problem},
    query::{Query, decimal},
    state::{AllLimits, App, VERSIONS, VERSIONS_MAX},
    tiles::{IMMUTABLE, REVALIDATE},
};

/// What this server speaks.
const FORMAT: &str = "anwansi/v1";

#[derive(Serialize, ToSchema)]
pub(crate) struct Info {
    origin: String,
    /// The log's key, to be compared with one from elsewhere before it is trusted.
    vkey: String,
    /// The newest version.
    version: u64,
    /// The root of the newest version's state.
    state: String,
    /// The oldest version that is kept. Between it and the newest some may be pruned.
    oldest: u64,
    /// The oldest version whose decisions are kept with all that led to them: specifications, votes, results.
    oldest_decided: u64,
    engine: String,
    format: String,
    limits: AllLimits,
    /// The text of a policy that trusts this log.
    policy: String,
}

/// What this server is, has and allows.
#[utoipa::path(get, path = "/v1/info", tag = "log", responses((status = 200, body = Info)))]
pub(crate) async fn info(State(app): State<App>) -> Response {
    let (store, latest) = (&app.store, app.store.latest());
    let info = Info {
        origin: store.origin().to_string(),
        vkey: store.vkey().to_string(),
        version: latest.version().0,
        state: latest.root().to_string(),
        oldest: store.oldest().0,
        oldest_decided: store.ledger().oldest().0,
        engine: store.engine().name().to_owned(),
        format: FORMAT.to_owned(),
        limits: AllLimits::new(&app.limits),
        policy: format!("log {}\nquorum none\n", store.vkey()),
    };
    ([(CACHE_CONTROL, REVALIDATE)], Json(info)).into_response()
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Versions {
    /// The texts of headers, one version after the other.
    versions: Vec<String>,
    /// Where the list goes on; not there if it is at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// The headers of versions, from one on.
#[utoipa::path(get, path = "/v1/versions", tag = "versions", params(
    ("from" = Option<u64>, Query, description = "The first version, 0 if not given"),
    ("limit" = Option<u64>, Query, description = "How many at most; see `versions_per_list` in /v1/info"),
), responses(
    (status = 200, body = Versions),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 404, description = "`no-such-version`", body = ProblemDocument),
))]
pub(crate) async fn versions(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::parse(uri.query(), &["from", "limit"])?;
    let first = query.number("from")?.unwrap_or(0);
    let limit = limit(&query, VERSIONS, VERSIONS_MAX)?;
    let list = app.read(move |store| {
        let newest = store.latest().version();
        if first > newest.0 {
            return Err(no_such_version(Version(first), newest));
        }
        let versions = store.headers(Version(first), limit)?;
        let next = Some(first + versions.len() as u64).filter(|next| *next <= newest.0);
        Ok(Versions { versions, next })
    });
    let list = list.await?;
    // What has something behind it was cut at the limit, and will be cut there for ever.
    let cache = if list.next.is_some() { IMMUTABLE } else { REVALIDATE };
    Ok(([(CACHE_CONTROL, cache)], Json(list)).into_response())
}

#[derive(Serialize, ToSchema)]
pub(crate) struct OneVersion {
    /// The text of the header.
    header: String,
    /// The tlog-proof that it is in the log, under the newest checkpoint.
    finality: String,
}

/// The header of one version, with the proof that it is in the log.
#[utoipa::path(get, path = "/v1/versions/{v}", tag = "versions", params(
    ("v" = u64, Path, description = "The version"),
), responses(
    (status = 200, body = OneVersion),
    (status = 304, description = "Nothing has changed since"),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 404, description = "`no-such-version`", body = ProblemDocument),
))]
pub(crate) async fn version(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let version = in_path(path)?;
    let tag = Tag { version, size: app.store.latest().version().0 + 1, form: Form::Json };
    if tag.version.0 < tag.size && tag.is_known(&headers) {
        return Ok(tag.not_modified());
    }
    let finality = app.read(move |store| Ok(store.finality(version)?)).await?;
    let tag = Tag { version, size: finality.log_size, form: Form::Json };
    let body = OneVersion { header: finality.header.clone(), finality: finality.proof.to_string() };
    Ok((tag.headers(), Json(body)).into_response())
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, description = "It does")))]
pub(crate) async fn healthz() -> Response {
    Json(json!({ "status": "alive" })).into_response()
}

/// Whether it can do its work: it cannot after a write has failed.
#[utoipa::path(get, path = "/readyz", tag = "operation", responses(
    (status = 200, description = "Ready"),
    (status = 503, description = "`unavailable`: takes no commits", body = ProblemDocument),
))]
pub(crate) async fn readyz(State(app): State<App>) -> Result<Response, Problem> {
    match app.store.failure() {
        None => Ok(Json(json!({ "status": "ready" })).into_response()),
        Some(error) => {
            tracing::error!(error = error.to_string(), "not ready: the store takes no commits");
            Err(Problem::new(
                Kind::Unavailable,
                "the server takes no commits until it is restarted",
            ))
        }
    }
}

/// Everything is answered in one of two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// The bare bytes of a proof.
    Bytes,
}

impl Form {
    /// The form that the caller likes better.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(axum::http::header::ACCEPT).iter();
        let accepted = accepted.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        let types = accepted.map(|one| one.split(';').next().unwrap_or_default().trim());
        for media_type in types {
            match media_type {
                crate::tiles::OCTETS => return Form::Bytes,
                "application/json" | "application/*" | "*/*" => return Form::Json,
                _ => {}
            }
        }
        Form::Json
    }
}

/// About how many headers an answer has in the end.
const HEADERS_USUAL: usize = 8;

/// What an answer depends on, beside its URL: the version, the checkpoint, the form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    pub(crate) version: Version,
    /// The size of the log under the checkpoint.
    pub(crate) size: u64,
    pub(crate) form: Form,
}

impl Tag {
    fn text(&self) -> String {
        let form = if self.form == Form::Json { "json" } else { "proof" };
        format!("\"{}-{}-{form}\"", self.version, self.size)
    }

    /// Whether the caller has the answer already.
    pub(crate) fn is_known(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(IF_NONE_MATCH) && is_known(headers, &self.text())
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(HEADERS_USUAL);
        let tag = HeaderValue::try_from(self.text()).expect("digits and letters are a header");
        headers.insert(ETAG, tag);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(REVALIDATE));
        headers.insert(VARY, HeaderValue::from_static("accept"));
        headers.insert(VERSION_HEADER, self.version.0.into());
        headers
    }

    pub(crate) fn not_modified(&self) -> Response {
        (StatusCode::NOT_MODIFIED, self.headers(), Body::empty()).into_response()
    }
}

/// Whether the caller has the answer with this tag already.
pub(crate) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter();
    let mut known = known.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    known.any(|known| matches!(known.trim(), "*") || known.trim().trim_start_matches("W/") == tag)
}

/// The version that an answer is about.
pub(crate) const VERSION_HEADER: &str = "anwansi-version";

/// The version that the path names.
pub(crate) fn in_path(path: Result<Path<String>, PathRejection>) -> Result<Version, Problem> {
    let Path(text) = path.map_err(|_| {
        Problem::malformed("the path is not valid percent-encoded UTF-8: give a decimal version")
    })?;
    decimal("the version in the path", &text).map(Version)
}

/// The limit that the query asks for, 1 to `max`.
pub(crate) fn limit(query: &Query, default: usize, max: usize) -> Result<usize, Problem> {
    let Some(limit) = query.number("limit")? else { return Ok(default) };
    let limit = usize::try_from(limit).ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| Problem::malformed(format!("limit is out of range: give 1 to {max}")))
}

pub(crate) fn no_such_version(version: Version, newest: Version) -> Problem {
    anwansi_store::Error::NoSuchVersion { version, newest }.into()
}

/// What is answered as lines of JSON.
pub(crate) fn json_lines(body: Body, mut headers: HeaderMap) -> Response {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    (headers, body).into_response()
}
