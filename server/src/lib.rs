//! Anwansi over HTTP: state goes in, evidence comes out.
//!
//! ```text
//!   listen.rs     connections, within bounds
//!     |
//!   routes()      the table below: counted, in time, errors as problem documents (problem.rs),
//!     |           read by pages of other sites (browsers.rs)
//!     |
//!   tiles.rs      /checkpoint, /tile/...            the log, for anyone's tools
//!   read.rs       /v1/info, /v1/versions, health
//!   changes.rs    /v1/versions/{v}/changes          a version, to be followed
//!   prove.rs      /v1/state, /v1/state/range, /v1/proofs
//!   write.rs      /v1/commits                       with a token (auth.rs)
//!   ledger/       /v1/transitions, /v1/assignments, /v1/nodes, /v1/blobs, /v1/events
//!     |
//!   state.rs      budgets: what waits, what is refused; the store's blocking calls
//!   news.rs       tells those who wait that something has changed
//! ```
//!
//! Nothing here is trusted by those who ask: they verify what they get with `anwansi-proofs`.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use anwansi_server::{Config, Server};
//!
//! let server = Server::start(Config { engine: "fjall:./data".into(), ..Config::default() }).await?;
//! println!("http://{} has the log {}", server.addr(), server.vkey());
//! server.shutdown().await?; // finishes what was accepted
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod auth;
mod body;
mod browsers;
mod changes;
mod config;
mod demo;
mod ledger;
mod listen;
mod metrics;
mod news;
mod openapi;
pub mod problem;
mod prove;
mod query;
mod read;
mod server;
mod simulate;
mod state;
mod tiles;
mod write;

pub use auth::TOKEN_FILE;
pub use config::{Config, ConfigError, LogFormat, Settings};
pub use demo::{DemoError, Shown, Stage, demo};
pub use server::{Server, StartError, check, serve};
pub use simulate::{Simulated, TASKS_MAX, TASKS_MIN, simulate};
pub use state::{
    ANSWER_BYTES_MAX, HEAD_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, Limits, NODES, NODES_MAX,
    PROOF_KEYS_MAX, QUESTION_BYTES_MAX, RANGE_ENTRIES, RANGE_ENTRIES_MAX, VERSIONS, VERSIONS_MAX,
    WAIT_MAX,
};

use axum::{
    Router,
    http::{Method, Uri},
    middleware::{from_fn_with_state, map_response},
    response::IntoResponse as _,
    routing::{get, post},
};
use tower_http::catch_panic::CatchPanicLayer;

use ledger::{assignments, blobs, events, nodes, transitions, votes};
use problem::{Kind, Problem};
use state::App;

/// The table of routes.
fn routes(app: App) -> Router {
    let reads = Router::new()
        .route("/checkpoint", get(tiles::checkpoint))
        .route("/tile/{*path}", get(tiles::tile))
        .route("/v1/info", get(read::info))
        .route("/v1/versions", get(read::versions))
        .route("/v1/versions/{v}", get(read::version))
        .route("/v1/versions/{v}/changes", get(changes::changes))
        .route("/v1/state", get(prove::state))
        .route("/v1/state/range", get(prove::range))
        .route("/v1/proofs", post(prove::proofs))
        .route("/v1/transitions/{id}", get(transitions::stands))
        .route("/v1/transitions/{id}/spec", get(transitions::spec))
        .route("/v1/transitions/{id}/evidence", get(transitions::evidence))
        .route("/v1/transitions/{id}/tasks/{i}/pledges", get(votes::pledges).post(votes::pledge))
        .route("/v1/transitions/{id}/tasks/{i}/reveals", post(votes::reveal))
        .route("/v1/assignments", get(assignments::assignments))
        .route("/v1/nodes", get(nodes::list))
        // Browsers of other sites may read here, and are told that they may not PUT and DELETE.
        .route("/v1/nodes/{key}", get(nodes::one).put(nodes::register).delete(nodes::remove))
        .route("/v1/blobs/{digest}", get(blobs::get).put(blobs::put))
        .route("/v1/events", get(events::events))
        .route("/healthz", get(read::healthz))
        .route("/readyz", get(read::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .method_not_allowed_fallback(unknown_method);
    let writes = Router::new()
        .route("/v1/commits", post(write::commits))
        .route("/v1/transitions", post(transitions::submit))
        .route("/v1/transitions/{id}/cancel", post(transitions::cancel))
        .method_not_allowed_fallback(unknown_method)
        .layer(map_response(browsers::not_for_others));
    reads
        .merge(writes)
        .fallback(unknown_route)
        // The first one is around the second: together they cost what one does.
        .layer((from_fn_with_state(app.clone(), metrics::count), CatchPanicLayer::custom(panicked)))
        .with_state(app)
}

async fn unknown_route() -> Problem {
    Problem::new(Kind::UnknownRoute, "there is nothing under this path: see /openapi.json")
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not for {}: the header Allow says what is", uri.path());
    Problem::new(Kind::MethodNotAllowed, detail)
}

#[expect(clippy::needless_pass_by_value, reason = "the form that the layer calls")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
    tracing::error!(panic = text, "a request panicked");
    let problem = Problem::new(Kind::Internal, "the server failed; its log says how");
    browsers::mark(problem.into_response())
}
