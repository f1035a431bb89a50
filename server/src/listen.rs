//! Connections: taken while there is room, each with its own bounds, and ended in good order.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{
    rt::{Sleep, Timer},
    server::conn::http1,
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    time::{interval, sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;

use crate::{
    around::Around,
    state::{HEAD_BYTES_MAX, Limits},
};

/// How long the head of a request may take, and how long a connection may lie idle: up to a beat more.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How often a connection looks at the time.
const BEAT: Duration = Duration::from_secs(5);
/// How long a caller may take none of its answer.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// After a connection could not be taken, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time beyond a request's own, for callers to take their answers on shutdown.
const SHUTDOWN_EXTRA: Duration = Duration::from_secs(5);

/// Serves connections until `stop`; then takes no more, and finishes the requests that were begun.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Around,
    limits: Limits,
    mut stop: oneshot::Receiver<()>,
) {
    let connections = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut http = http1::Builder::new();
    http.timer(Beats).header_read_timeout(HEAD_WAIT).max_buf_size(HEAD_BYTES_MAX);
    // Who has said all may say so, and is answered all the same.
    http.half_close(true);
    loop {
        let place = tokio::select! {
            place = room.clone().acquire_owned() => place.expect("nobody closes the semaphore"),
            _ = &mut stop => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => bounded(stream),
            Err(error) => {
                tracing::warn!(error = error.to_string(), "a connection could not be taken");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = http.serve_connection(TokioIo::new(stream), routes.clone());
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = with_beats(BEAT, connection).await {
                tracing::debug!(error = error.to_string(), "a connection broke");
            }
            drop(place);
        });
    }
    drop(listener);
    if timeout(limits.timeout + SHUTDOWN_EXTRA, connections.shutdown()).await.is_err() {
        tracing::warn!("some callers took too long: their connections are cut");
    }
}

/// Drives a connection on, and lets it look at its [`Beats`] now and then.
async fn with_beats<T>(beat: Duration, connection: impl Future<Output = T>) -> T {
    let mut connection = pin!(connection);
    let mut beats = interval(beat);
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => return ended,
            _ = beats.tick() => {}
        }
    }
}

/// Timers that are looked at when a connection is driven on, and wake nobody: one that is set and unset with each
/// request costs next to nothing.
#[derive(Clone, Copy)]
struct Beats;

struct Until(Instant);

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if Instant::now() < self.0 { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Sleep for Until {}

impl Timer for Beats {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Until(deadline))
    }
}

/// A connection that breaks when nobody reads from it.
fn bounded(stream: TcpStream) -> Pin<Box<TimeoutStream<TcpStream>>> {
    // Answers are written whole: waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = error.to_string(), "a connection keeps its delay");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_WAIT));
    Box::pin(stream)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn connection_ends_if_the_rest_of_a_head_does_not_come() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut caller = std::net::TcpStream::connect(addr).unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let mut http = http1::Builder::new();
        http.timer(Beats).header_read_timeout(Duration::from_millis(60));
        let service = hyper::service::service_fn(async |_| {
            Ok::<_, std::convert::Infallible>(hyper::Response::new(String::new()))
        });
        let connection = http.serve_connection(TokioIo::new(server), service);
        caller.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT").unwrap();
        let begun = Instant::now();
        let ended = timeout(Duration::from_secs(20), with_beats(BEAT / 500, connection)).await;
        assert!(ended.expect("it ends by itself").unwrap_err().is_timeout());
        // The timeout drives it on too.
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
