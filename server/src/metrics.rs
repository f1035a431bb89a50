//! What the server counts, for Prometheus.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, header::CONTENT_TYPE},
    middleware::Next,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tracing::Level;

use crate::{
    browsers::open_to_others,
    ledger::figures::Figures,
    problem::{Kind, Problem},
    state::{App, Shared},
};

const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Bounds of the durations that are told apart, in seconds.
const SECONDS: [f64; 12] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// The counters, of which all labels come from fixed sets.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram>,
    at_work: Gauge,
    commits: Counter,
    pub(crate) ledger: Figures,
    version: Gauge,
    entries: Gauge,
    bytes: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Arc<str>,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Arc<str>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Metrics {
            registry: Registry::with_prefix("anwansi"),
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            at_work: Gauge::default(),
            commits: Counter::default(),
            ledger: Figures::default(),
            version: Gauge::default(),
            entries: Gauge::default(),
            bytes: Gauge::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register(
            "http_request_seconds",
            "Time to the head of the answer",
            self.seconds.clone(),
        );
        registry.register("http_requests_at_work", "Requests at work", self.at_work.clone());
        registry.register("commits", "Commits answered as durable", self.commits.clone());
        registry.register("version", "The newest version", self.version.clone());
        registry.register("state_entries", "Entries in the newest version", self.entries.clone());
        registry.register(
            "state_bytes",
            "Bytes of keys and values in the newest version",
            self.bytes.clone(),
        );
        self.ledger.register(registry);
        self
    }

    pub(crate) fn committed(&self) {
        self.commits.inc();
    }

    fn text(&self, app: &Shared) -> String {
        let latest = app.store.latest();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.version.set(number(latest.version().0));
        self.entries.set(number(latest.entries()));
        self.bytes.set(number(latest.bytes()));
        self.ledger.note_load(app.store.ledger().load());
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("strings take all that is written");
        text
    }
}

/// Counters for Prometheus, as `OpenMetrics` text.
#[utoipa::path(get, path = "/metrics", tag = "operation", responses(
    (status = 200, description = "OpenMetrics text", content_type = "application/openmetrics-text", body = String),
))]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    ([(CONTENT_TYPE, MEDIA_TYPE)], app.metrics.text(&app)).into_response()
}

/// Counts a request, whatever becomes of it, and logs it; ends what takes too long, and lets others see the answer.
pub(crate) async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let route: Arc<str> = match request.extensions().get::<MatchedPath>() {
        Some(route) => route.as_str().into(),
        None => "none".into(),
    };
    let method = request.method().clone();
    let path = tracing::enabled!(Level::DEBUG).then(|| request.uri().path().to_owned());
    app.metrics.at_work.inc();
    let at_work = AtWork(app.clone());
    let begun = Instant::now();
    let answered = tokio::time::timeout(app.limits.timeout, next.run(request)).await;
    let in_time = answered.map(|response| open_to_others(&method, response));
    let response = in_time.unwrap_or_else(|_| {
        let detail = "the request took too long; what it asks for may or may not have happened: send it \
                      again, a commit under its Idempotency-Key";
        Problem::new(Kind::Timeout, detail).into_response()
    });
    let method = match method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    drop(at_work);
    let (elapsed, status) = (begun.elapsed(), response.status().as_u16());
    tracing::debug!(method, path, status, micros = elapsed.as_micros(), "answered");
    app.metrics
        .seconds
        .get_or_create(&RouteLabels { route: route.clone() })
        .observe(elapsed.as_secs_f64());
    app.metrics.requests.get_or_create(&RequestLabels { route, method, status }).inc();
    response
}

/// Counts down also where a caller goes away before the answer.
struct AtWork(App);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.metrics.at_work.dec();
    }
}
