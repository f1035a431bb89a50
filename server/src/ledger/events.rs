//! What happens, to be followed: server-sent events, made from versions while they are sent.
//!
//! ```text
//! id: version * 2^20             event: version    the version itself
//! id: version * 2^20 + n         event: task       the n-th task that it decided, in the order of the
//!                                                  tasks' keys, n from 1
//! ```
//!
//! Nothing is kept for those who follow: whoever comes back with the last id that was seen goes on behind it,
//! however long ago that was, and also after the server was started anew.

use std::{convert::Infallible, time::Duration};

use anwansi_proofs::{
    Digest, Header, Root, TransitionId, Version,
    record::{Outcome, TransitionRecord},
};
use anwansi_store::{OPEN_TASKS_MAX, Store};
use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use super::progress::members;
use crate::{
    news::Listener,
    openapi::ProblemDocument,
    problem::Problem,
    query::decimal,
    read::no_such_version,
    state::{App, Room},
};

/// Bits of an id below its version.
const TASK_BITS: u32 = 20;
const _: () = assert!(OPEN_TASKS_MAX < 1 << TASK_BITS, "a version decides only what was open");
/// Events are sent in pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;
/// Versions that one piece looks at.
const PIECE_VERSIONS: usize = 1024;
/// Pieces that wait for a slow reader.
const PIECES_MAX: usize = 1;
/// After this time without an event a comment is sent, so that everyone between sees that somebody is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long after news they are looked at: what comes meanwhile is sent with them, in one piece.
const PAUSE: Duration = Duration::from_millis(20);
const LAST_EVENT_ID: &str = "last-event-id";

/// Where someone who follows is: the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    version: u64,
    /// 0 for the version itself.
    event: usize,
}

impl Place {
    fn behind(id: u64) -> Self {
        let event = (id % (1 << TASK_BITS)) + 1;
        Place { version: id >> TASK_BITS, event: usize::try_from(event).expect("21 bits") }
    }

    fn id(self) -> u64 {
        (self.version << TASK_BITS) + self.event as u64
    }
}

/// Versions and decided tasks, as server-sent events.
///
/// Each event has an id that is larger than all before. `version` has `{"version","state","tasks","time"}`, as in
/// the header; `task` has `{"transition","outcome",..}` and the members of the task's record. They come from the
/// newest version on; with `Last-Event-ID` from behind that event, whenever it was. Whoever does not take
/// them for too long is cut off, and may come back with the last id.
#[utoipa::path(get, path = "/v1/events", tag = "ledger", params(
    ("Last-Event-ID" = Option<String>, Header, description = "The last event that was seen"),
), responses(
    (status = 200, description = "Without an end, but for the server's", content_type = "text/event-stream", body = String),
    (status = 400, description = "`malformed`", body = ProblemDocument),
    (status = 404, description = "`no-such-version`: the id is from another log, or from a future of this one", body = ProblemDocument),
    (status = 503, description = "`too-busy`", body = ProblemDocument),
))]
pub(crate) async fn events(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let newest = app.store.latest().version();
    let place = match last_seen(&headers)? {
        None => Place { version: newest.0, event: 0 },
        Some(place) if place.version > newest.0 => {
            return Err(no_such_version(Version(place.version), newest));
        }
        Some(place) => place,
    };
    let room = app.room_for_follower()?;
    let news = app.news.listen();
    let (pieces, body) = mpsc::channel(PIECES_MAX);
    tokio::spawn(produce(place, news, pieces, app, room));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(ReceiverStream::new(body))).into_response())
}

fn last_seen(headers: &HeaderMap) -> Result<Option<Place>, Problem> {
    let mut given = headers.get_all(LAST_EVENT_ID).iter();
    let Some(id) = given.next() else { return Ok(None) };
    let id = id.to_str().unwrap_or_default();
    if given.next().is_some() {
        return Err(Problem::malformed("Last-Event-ID stands twice: give it once"));
    }
    decimal("Last-Event-ID", id).map(|id| Some(Place::behind(id)))
}

/// Sends events until the server ends, or the reader is gone or too slow.
async fn produce(
    mut place: Place,
    mut news: Listener,
    pieces: mpsc::Sender<Result<Bytes, Infallible>>,
    app: App,
    _room: Room,
) {
    loop {
        let Ok((piece, next)) = app.read(move |store| piece(store, place)).await else {
            // Storage failed, or had no room for long: whoever comes back goes on from here.
            return;
        };
        let waits = piece.is_empty() && next == place;
        place = next;
        let piece = if waits {
            tokio::select! {
                changed = timeout(KEEP_ALIVE, news.changed()) => match changed {
                    Ok(Ok(())) => {
                        sleep(PAUSE).await;
                        continue;
                    }
                    Ok(Err(_)) => return,
                    Err(_) => ":\n\n".to_owned(),
                },
                () = pieces.closed() => return,
            }
        } else {
            piece
        };
        if piece.is_empty() {
            continue;
        }
        let sent = timeout(app.limits.timeout, pieces.send(Ok(Bytes::from(piece))));
        tokio::select! {
            sent = sent => match sent {
                Ok(Ok(())) => {}
                _ => return,
            },
            // It may hear of changes too: the next look, which comes behind it, sees them.
            () = news.ended() => return,
        }
    }
}

/// Some of the events from a place on, and the place behind them.
fn piece(store: &Store, mut place: Place) -> Result<(String, Place), Problem> {
    let mut text = String::new();
    let headers = store.headers(Version(place.version), PIECE_VERSIONS)?;
    for header in headers {
        let header: Header = header.parse().expect("the store's headers are headers");
        if place.event == 0 {
            event(&mut text, place, "version", &version_data(&header));
            place.event = 1;
        }
        if header.tasks() != Root::empty() {
            let tasks = decided(store, header.version())?;
            while let Some((id, outcome, record)) = tasks.get(place.event - 1) {
                event(&mut text, place, "task", &task_data(id, *outcome, record));
                place.event += 1;
                if text.len() > PIECE_BYTES {
                    return Ok((text, place));
                }
            }
        }
        place = Place { version: place.version + 1, event: 0 };
        if text.len() > PIECE_BYTES {
            break;
        }
    }
    Ok((text, place))
}

fn event(text: &mut String, place: Place, event: &str, data: &Value) {
    use std::fmt::Write as _;
    write!(text, "id: {}\nevent: {event}\ndata: {data}\n\n", place.id())
        .expect("strings take all that is written");
}

fn version_data(header: &Header) -> Value {
    json!({
        "version": header.version().0,
        "state": header.state().to_string(),
        "tasks": header.tasks().to_string(),
        "time": header.time(),
    })
}

fn task_data(id: &TransitionId, outcome: Outcome, record: &[u8]) -> Value {
    let mut data = members(record);
    data.insert("transition".to_owned(), id.to_string().into());
    data.insert("outcome".to_owned(), outcome.as_str().into());
    data.into()
}

/// A task that a version decided: its transition, what became of that, and its own record.
pub(super) type Decided = (TransitionId, Outcome, Bytes);

/// The tasks that a version decided, in the order of their keys.
pub(super) fn decided(store: &Store, version: Version) -> Result<Vec<Decided>, Problem> {
    let mut outcome = None;
    let mut tasks = Vec::new();
    for (key, record) in store.tasks(version)? {
        match key.len() {
            // The transition comes before its tasks.
            Digest::LEN => outcome = TransitionRecord::parse(&record).map(|it| (it.id, it.outcome)),
            TASK_KEY_BYTES => {
                let (id, outcome) = outcome.expect("a version decides tasks with their transition");
                tasks.push((id, outcome, record));
            }
            _ => {}
        }
    }
    Ok(tasks)
}

/// A task's record lies under the transition's id and its index.
const TASK_KEY_BYTES: usize = Digest::LEN + size_of::<u32>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_places_and_back() {
        for (version, event) in [(0, 0), (0, 7), (9, 0), (9, OPEN_TASKS_MAX), (1 << 33, 1)] {
            let place = Place { version, event };
            let behind = Place { event: event + 1, ..place };
            assert_eq!(Place::behind(place.id()), behind);
        }
    }
}
