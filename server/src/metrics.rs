//! What the server counts, for Prometheus.

use std::{sync::OnceLock, time::Duration};

use anwansi_store::{Error, Receipt};
use axum::{
    extract::State,
    http::{Method, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    ledger::figures::Figures,
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
    pub(crate) at_work: Gauge,
    commits: Counter,
    pub(crate) ledger: Figures,
    prunings: Prunings,
    version: Gauge,
    oldest: Gauge,
    oldest_decided: Gauge,
    entries: Gauge,
    bytes: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

/// What is counted of one route, found without looking for it each time.
pub(crate) struct RouteCounters {
    route: &'static str,
    requests: Family<RequestLabels, Counter>,
    /// Of those that were answered with 200, by their methods.
    usual: [OnceLock<Counter>; METHODS.len()],
    seconds: Histogram,
}

/// What prunings in the background did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prunings {
    done: Counter,
    failed: Counter,
    versions: Counter,
    transitions: Counter,
    pages: Counter,
    bytes: Counter,
}

impl Prunings {
    fn register(&self, registry: &mut Registry) {
        registry.register("prunings", "Prunings that were done", self.done.clone());
        registry.register("prunings_failed", "Prunings that failed", self.failed.clone());
        registry.register("pruned_versions", "Versions that were pruned", self.versions.clone());
        registry.register(
            "pruned_transitions",
            "Transitions of which only the records were kept",
            self.transitions.clone(),
        );
        registry.register("pruned_pages", "Pages that prunings freed", self.pages.clone());
        registry.register(
            "pruned_bytes",
            "Bytes of pages, changes, large values and blobs that prunings freed",
            self.bytes.clone(),
        );
    }

    /// Counts one, and logs its receipt.
    pub(crate) fn note(&self, receipt: &Result<Receipt, Error>) {
        match receipt {
            Ok(receipt) => {
                self.done.inc();
                self.versions.inc_by(receipt.dropped);
                self.transitions.inc_by(receipt.transitions);
                self.pages.inc_by(receipt.pages.count);
                let freed = [receipt.pages, receipt.changes, receipt.values, receipt.blobs];
                self.bytes.inc_by(freed.iter().map(|freed| freed.bytes).sum());
                let counts =
                    [receipt.dropped, receipt.transitions, receipt.flushes, receipt.entries];
                let freed = freed.iter().map(|freed| freed.count);
                if counts.into_iter().chain(freed).any(|count| count > 0) {
                    tracing::info!("pruned: {receipt}");
                } else {
                    tracing::debug!("nothing to prune: {receipt}");
                }
            }
            Err(error) => {
                self.failed.inc();
                tracing::error!(error = error.to_string(), "pruning failed");
            }
        }
    }
}

/// The methods that are told apart; all others are the last one.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "other"];

impl RouteCounters {
    /// Counts a request that was answered after so long. Gives the name of its method.
    pub(crate) fn count(
        &self,
        method: &Method,
        status: StatusCode,
        elapsed: Duration,
    ) -> &'static str {
        let known = METHODS.iter().position(|known| *known == method.as_str());
        let at = known.unwrap_or(METHODS.len() - 1);
        let (route, method, status) = (self.route, METHODS[at], status.as_u16());
        let counter =
            || self.requests.get_or_create(&RequestLabels { route, method, status }).clone();
        if status == 200 {
            self.usual[at].get_or_init(counter).inc();
        } else {
            counter().inc();
        }
        self.seconds.observe(elapsed.as_secs_f64());
        method
    }
}

impl Metrics {
    /// Those of a route.
    pub(crate) fn of_route(&self, route: &'static str) -> RouteCounters {
        let seconds = self.seconds.get_or_create(&RouteLabels { route }).clone();
        RouteCounters { route, requests: self.requests.clone(), usual: <_>::default(), seconds }
    }

    pub(crate) fn new(prunings: Prunings) -> Self {
        let metrics = Metrics {
            prunings,
            oldest: Gauge::default(),
            oldest_decided: Gauge::default(),
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
        registry.register("oldest_version", "The oldest version kept", self.oldest.clone());
        registry.register(
            "oldest_decided_version",
            "The oldest version whose decisions are kept with all that led to them",
            self.oldest_decided.clone(),
        );
        self.prunings.register(registry);
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
        self.oldest.set(number(app.store.oldest().0));
        self.oldest_decided.set(number(app.store.ledger().oldest().0));
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
