//! Connections: taken while there is room, each with its own bounds, and ended in good order.

use std::{sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;

use crate::{
    around::Around,
    state::{HEAD_BYTES_MAX, Limits},
};

/// How long the head of a request may take, and how long a connection may lie idle.
const HEAD_WAIT: Duration = Duration::from_secs(30);
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
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT).max_buf_size(HEAD_BYTES_MAX);
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
            if let Err(error) = connection.await {
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

/// A connection that breaks when nobody reads from it.
fn bounded(stream: TcpStream) -> std::pin::Pin<Box<TimeoutStream<TcpStream>>> {
    // Answers are written whole: waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = error.to_string(), "a connection keeps its delay");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_WAIT));
    Box::pin(stream)
}
