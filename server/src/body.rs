//! Bodies of requests: bounded before they are kept, and in time.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderMap, header},
};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    problem::{Kind, Problem},
    state::{Room, Shared},
};

/// How much of a refused body is still taken from the wire, and thrown away, so that a caller who
/// sends first and reads later sees the answer and not a broken connection.
const DISCARDED_BYTES_MAX: usize = 64 << 20;
/// How long that may take.
const DISCARDED_WAIT: Duration = Duration::from_secs(5);

/// A body, and its place in the budget for bodies.
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) room: Room,
}

/// Reads a body of at most `max` bytes.
///
/// # Errors
/// [`Kind::BodyTooLarge`], if possible before anything of it is read; [`Kind::RequestTimeout`];
/// [`Kind::Malformed`] if the connection ends before the body does; [`Kind::TooBusy`].
pub(crate) async fn receive(
    app: &Shared,
    headers: &HeaderMap,
    mut body: Body,
    max: usize,
) -> Result<Received, Problem> {
    let too_large = || {
        let detail = format!("the body has more than {max} bytes: send less at a time");
        Problem::new(Kind::BodyTooLarge, detail).with("max", max)
    };
    let told = body.size_hint().exact().map(|told| usize::try_from(told).unwrap_or(usize::MAX));
    if told.is_some_and(|told| told > max) {
        discard(headers, body).await;
        return Err(too_large());
    }
    // Without a length it may become as long as allowed.
    let room = match app.room_for_body(told.unwrap_or(max)) {
        Ok(room) => room,
        Err(busy) => {
            discard(headers, body).await;
            return Err(busy);
        }
    };
    let end = Instant::now() + app.limits.timeout / 2;
    let mut bytes = Vec::new();
    loop {
        let frame = timeout_at(end, body.frame()).await.map_err(|_| {
            let detail = "the body did not arrive in time: send less at a time, or faster";
            Problem::new(Kind::RequestTimeout, detail)
        })?;
        let Some(frame) = frame else { return Ok(Received { bytes, room }) };
        let frame = frame.map_err(|_| {
            Problem::malformed("the body ends before its length: send all of it, and send it again")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > max {
            drop((bytes, data));
            discard(headers, body).await;
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
}

/// Takes a refused body from the wire, within bounds. A caller who waits to be asked for the body is not
/// asked.
pub(crate) async fn discard(headers: &HeaderMap, mut body: Body) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let all = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, bytes::Bytes::len);
            if seen > DISCARDED_BYTES_MAX {
                break;
            }
        }
    };
    // Whether all of it came or not: it is refused.
    let _ = timeout(DISCARDED_WAIT, all).await;
}
