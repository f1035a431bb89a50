//! Anwansi over HTTP: state goes in, evidence comes out.
//!
//! ```text
//!   listen.rs     connections, within bounds
//!     |
//!   around.rs     around all routes: counted (metrics.rs), in time, read by pages of other sites (browsers.rs)
//!     |
//!   routes()      the table below; errors are problem documents (problem.rs)
//!     |
//!   tiles.rs      /checkpoint, /tile/...            the log, for anyone's tools
//!   read.rs       /v1/info, /v1/versions, health
//!   changes.rs    /v1/versions/{v}/changes          a version, to be followed
//!   prove.rs      /v1/state, /v1/state/range, /v1/proofs
//!   write.rs      /v1/commits                       with a token (auth.rs)
//!   pins.rs       /v1/pins                          versions that are kept
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

mod around;
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
mod pins;
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
pub use server::{Server, StartError, check, prune, serve};
pub use simulate::{Simulated, TASKS_MAX, TASKS_MIN, simulate};
pub use state::{
    ANSWER_BYTES_MAX, HEAD_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, Limits, NODES, NODES_MAX,
    PROOF_KEYS_MAX, QUESTION_BYTES_MAX, RANGE_ENTRIES, RANGE_ENTRIES_MAX, VERSIONS, VERSIONS_MAX,
    WAIT_MAX,
};

use axum::{
    Router,
    http::{Method, Uri},
    middleware::map_response,
    routing::{get, post},
};

use around::Around;
use ledger::{assignments, blobs, events, nodes, transitions, votes};
use problem::{Kind, Problem};
use state::App;

/// The table of routes.
fn routes(app: App) -> Around {
    let reads = [
        ("/checkpoint", get(tiles::checkpoint)),
        ("/tile/{*path}", get(tiles::tile)),
        ("/v1/info", get(read::info)),
        ("/v1/versions", get(read::versions)),
        ("/v1/versions/{v}", get(read::version)),
        ("/v1/versions/{v}/changes", get(changes::changes)),
        ("/v1/pins", get(pins::list)),
        ("/v1/state", get(prove::state)),
        ("/v1/state/range", get(prove::range)),
        ("/v1/proofs", post(prove::proofs)),
        ("/v1/transitions/{id}", get(transitions::stands)),
        ("/v1/transitions/{id}/spec", get(transitions::spec)),
        ("/v1/transitions/{id}/evidence", get(transitions::evidence)),
        ("/v1/transitions/{id}/tasks/{i}/pledges", get(votes::pledges).post(votes::pledge)),
        ("/v1/transitions/{id}/tasks/{i}/reveals", post(votes::reveal)),
        ("/v1/assignments", get(assignments::assignments)),
        ("/v1/nodes", get(nodes::list)),
        // Browsers of other sites may read here, and are told that they may not PUT and DELETE.
        ("/v1/nodes/{key}", get(nodes::one).put(nodes::register).delete(nodes::remove)),
        ("/v1/blobs/{digest}", get(blobs::get).put(blobs::put)),
        ("/v1/events", get(events::events)),
        ("/healthz", get(read::healthz)),
        ("/readyz", get(read::readyz)),
        ("/metrics", get(metrics::metrics)),
        ("/openapi.json", get(openapi::openapi)),
    ];
    let writes = [
        ("/v1/pins/{v}", post(pins::pin).delete(pins::unpin)),
        ("/v1/commits", post(write::commits)),
        ("/v1/transitions", post(transitions::submit)),
        ("/v1/transitions/{id}/cancel", post(transitions::cancel)),
    ];
    let paths = reads.iter().chain(&writes).map(|(path, _)| *path).collect::<Vec<_>>();
    let add = |router: Router<App>, (path, methods)| router.route(path, methods);
    let reads = reads.into_iter().fold(Router::new(), add);
    let writes = writes.into_iter().fold(Router::new(), add);
    let writes = writes.method_not_allowed_fallback(unknown_method);
    let router = reads
        .method_not_allowed_fallback(unknown_method)
        .merge(writes.layer(map_response(browsers::not_for_others)))
        .fallback(unknown_route)
        .with_state(app.clone());
    Around::new(app, router, paths)
}

async fn unknown_route() -> Problem {
    Problem::new(Kind::UnknownRoute, "there is nothing under this path: see /openapi.json")
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not for {}: the header Allow says what is", uri.path());
    Problem::new(Kind::MethodNotAllowed, detail)
}
