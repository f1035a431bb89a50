//! Pins: versions that are kept until they are unpinned, whatever the retention is. `/v1/pins`.

use anwansi_proofs::Version;
use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, header::CACHE_CONTROL},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    auth::Scope,
    body::discard,
    openapi::ProblemDocument,
    problem::{Kind, Problem},
    read::in_path,
    state::{App, PINS_MAX},
    tiles::REVALIDATE,
};

#[derive(Serialize, ToSchema)]
pub(crate) struct Pins {
    /// The versions that are pinned, in order.
    pins: Vec<u64>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Pin {
    version: u64,
    /// Whether it is pinned now.
    pinned: bool,
}

/// The versions that are pinned.
#[utoipa::path(get, path = "/v1/pins", tag = "versions", responses((status = 200, body = Pins)))]
pub(crate) async fn list(State(app): State<App>) -> Response {
    let pins = app.store.pins().into_iter().map(|version| version.0).collect();
    ([(CACHE_CONTROL, REVALIDATE)], Json(Pins { pins })).into_response()
}

/// Keeps a version until it is unpinned. One that is pinned stays so.
#[utoipa::path(post, path = "/v1/pins/{v}", tag = "versions", security(("token" = ["admin"])), params(
    ("v" = u64, Path, description = "The version"),
), responses(
    (status = 200, description = "Pinned", body = Pin),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 401, description = "`unauthorized`", body = ProblemDocument),
    (status = 403, description = "`forbidden`", body = ProblemDocument),
    (status = 404, description = "`no-such-version`", body = ProblemDocument),
    (status = 409, description = "`too-many-pins`", body = ProblemDocument),
    (status = 410, description = "`pruned`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn pin(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let version = allowed(&app, path, &headers, body).await?;
    app.step(move |store| {
        let pins = store.pins();
        if pins.len() >= PINS_MAX && pins.binary_search(&version).is_err() {
            let detail = format!("{PINS_MAX} versions are pinned: unpin some first");
            return Err(Problem::new(Kind::TooManyPins, detail).with("max", PINS_MAX));
        }
        Ok(store.pin(version)?)
    })
    .await?;
    Ok(Json(Pin { version: version.0, pinned: true }).into_response())
}

/// Lets the retention decide again about a version.
#[utoipa::path(delete, path = "/v1/pins/{v}", tag = "versions", security(("token" = ["admin"])), params(
    ("v" = u64, Path, description = "The version"),
), responses(
    (status = 200, description = "Not pinned any more", body = Pin),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 401, description = "`unauthorized`", body = ProblemDocument),
    (status = 403, description = "`forbidden`", body = ProblemDocument),
    (status = 404, description = "`no-such-pin`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn unpin(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let version = allowed(&app, path, &headers, body).await?;
    if app.step(move |store| Ok(store.unpin(version)?)).await? {
        Ok(Json(Pin { version: version.0, pinned: false }).into_response())
    } else {
        Err(Problem::new(Kind::NoSuchPin, format!("version {version} is not pinned")))
    }
}

/// The version in the path, if the caller may say what is kept.
async fn allowed(
    app: &App,
    path: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Version, Problem> {
    let allowed = app.tokens.check(headers, Scope::Admin);
    // Nothing has to be said beside the path.
    discard(headers, body).await;
    allowed?;
    in_path(path)
}
