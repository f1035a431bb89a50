//! What is around all routes: a request is counted and logged, ends in time, and a panic is a problem like others.

use std::{
    any::Any,
    convert::Infallible,
    future::poll_fn,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Instant,
};

use axum::{
    Router,
    http::Request,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use hyper::{body::Incoming, service::Service};
use tower_service::Service as _;
use tracing::Level;

use crate::{
    browsers,
    metrics::RouteCounters,
    problem::{Kind, Problem},
    state::App,
};

/// All routes, as one service.
#[derive(Clone)]
pub(crate) struct Around(Arc<Inner>);

struct Inner {
    app: App,
    router: Router,
    counters: matchit::Router<RouteCounters>,
    /// Of requests that no route is for.
    unknown: RouteCounters,
}

impl Around {
    /// Around the routes with these paths.
    pub(crate) fn new(
        app: App,
        router: Router,
        paths: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let mut counters = matchit::Router::new();
        for path in paths {
            let inserted = counters.insert(path, app.metrics.of_route(path));
            inserted.expect("the router has taken the same paths");
        }
        let unknown = app.metrics.of_route("none");
        Around(Arc::new(Inner { app, router, counters, unknown }))
    }
}

impl Service<Request<Incoming>> for Around {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let around = self.0.clone();
        Box::pin(async move { Ok(around.answer(request).await) })
    }
}

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Response {
        let begun = Instant::now();
        let found = self.counters.at(request.uri().path());
        let counters = found.map_or(&self.unknown, |found| found.value);
        let method = request.method().clone();
        let path = tracing::enabled!(Level::DEBUG).then(|| request.uri().path().to_owned());
        self.app.metrics.at_work.inc();
        let at_work = AtWork(&self.app);
        let response = browsers::open_to_others(&method, self.in_time(request).await);
        drop(at_work);
        let (elapsed, status) = (begun.elapsed(), response.status());
        let method = counters.count(&method, status, elapsed);
        let (status, micros) = (status.as_u16(), elapsed.as_micros());
        tracing::debug!(method, path, status, micros, "answered");
        response
    }

    /// The answer of the route; or that it took too long, or failed.
    async fn in_time(&self, request: Request<Incoming>) -> Response {
        let mut router = self.router.clone();
        let answer = AssertUnwindSafe(async move { router.call(request).await }).catch_unwind();
        let mut answer = pin!(answer);
        // Most are answered at once: only the others need a timer.
        let at_once = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
        let answer = match at_once {
            Poll::Ready(answer) => Ok(answer),
            Poll::Pending => tokio::time::timeout(self.app.limits.timeout, answer).await,
        };
        match answer {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(panic)) => panicked(&*panic),
            Err(_) => {
                let detail = "the request took too long; what it asks for may or may not have \
                              happened: send it again, a commit under its Idempotency-Key";
                browsers::mark(Problem::new(Kind::Timeout, detail).into_response())
            }
        }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
    tracing::error!(panic = text, "a request panicked");
    let problem = Problem::new(Kind::Internal, "the server failed; its log says how");
    browsers::mark(problem.into_response())
}

/// Counts down also where a caller goes away before the answer.
struct AtWork<'a>(&'a App);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.metrics.at_work.dec();
    }
}
