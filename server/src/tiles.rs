//! The log as the C2SP formats have it: its checkpoint, and the tiles and bundles below.

use anwansi_proofs::{Bundle, Tile};
use axum::{
    extract::{Path, State},
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use crate::{
    problem::{Kind, Problem},
    state::App,
};

/// For what never changes, whoever asks and whenever.
pub(crate) const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// For what may change with the next commit: caches ask again each time.
pub(crate) const REVALIDATE: &str = "no-cache";
pub(crate) const OCTETS: &str = "application/octet-stream";

/// The newest checkpoint, signed.
#[utoipa::path(get, path = "/checkpoint", tag = "log", responses(
    (status = 200, description = "A C2SP checkpoint: a signed note", content_type = "text/plain", body = String),
))]
pub(crate) async fn checkpoint(State(app): State<App>) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, REVALIDATE)];
    (headers, app.store.checkpoint().to_string()).into_response()
}

/// A tile of the log's hashes, or a bundle of its entries, as C2SP tlog-tiles names them.
///
/// Partial ones (`.p/<W>`) are served of every width that the log has reached.
#[utoipa::path(get, path = "/tile/{path}", tag = "log", params(
    ("path" = String, Path, description = "`<L>/<N>[.p/<W>]` or `entries/<N>[.p/<W>]`"),
), responses(
    (status = 200, description = "Never changes", content_type = "application/octet-stream", body = [u8]),
    (status = 404, description = "`no-such-tile`", body = crate::openapi::ProblemDocument),
))]
pub(crate) async fn tile(
    State(app): State<App>,
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Problem> {
    let none = || {
        let detail = "the log has no such tile: see the size in /checkpoint, and C2SP tlog-tiles";
        Problem::new(Kind::NoSuchTile, detail)
    };
    let Path(path) = path.map_err(|_| none())?;
    let path = format!("tile/{path}");
    let bytes = if let Ok(tile) = path.parse::<Tile>() {
        app.read(move |store| Ok(store.tile(tile)?)).await?
    } else if let Ok(bundle) = path.parse::<Bundle>() {
        app.read(move |store| Ok(store.bundle(bundle)?.map(Into::into))).await?
    } else {
        None
    };
    let bytes = bytes.ok_or_else(none)?;
    Ok(([(CONTENT_TYPE, OCTETS), (CACHE_CONTROL, IMMUTABLE)], bytes).into_response())
}
