//! Commits: from a request to a durable version under a signed checkpoint.

use anwansi_proofs::Digest;
use anwansi_store::{COMMIT_WRITES_MAX, Commit, Error, RequestId};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, task::spawn_blocking};
use utoipa::ToSchema;

use crate::{
    auth::Scope,
    body::{discard, receive},
    openapi::ProblemDocument,
    problem::Problem,
    query::{AtMost, either, json, key, maybe_base64, version},
    state::{App, IDEMPOTENCY_KEY_BYTES_MAX},
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Writes that take effect together, in one version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[schema(value_type = Vec<AskedWrite>)]
    writes: AtMost<AskedWrite, COMMIT_WRITES_MAX>,
    /// The newest version must be this one.
    expect_version: Option<u64>,
}

/// A new value for a key, or its removal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskedWrite {
    key: Option<String>,
    key_hex: Option<String>,
    /// In base64; null removes the key.
    #[serde(deserialize_with = "maybe_base64")]
    #[schema(value_type = Option<String>, required = true)]
    value: Option<Bytes>,
}

/// What became of a commit.
#[derive(Serialize, ToSchema)]
pub(crate) struct Done {
    /// The version that it is part of.
    version: u64,
    /// The root of that version's state.
    state: String,
}

/// Commits writes. The answer comes when they are durable and in a signed checkpoint.
#[utoipa::path(post, path = "/v1/commits", tag = "state", request_body = Asked,
    security(("token" = ["write"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request for a day: a repeat is answered as the first was")),
    responses(
    (status = 201, description = "Durable", body = Done),
    (status = 400, description = "`malformed`, `key-length`, `reserved-key`", body = ProblemDocument),
    (status = 401, description = "`unauthorized`", body = ProblemDocument),
    (status = 403, description = "`forbidden`", body = ProblemDocument),
    (status = 408, description = "`request-timeout`", body = ProblemDocument),
    (status = 409, description = "`conflict`: the newest version is another than expected", body = ProblemDocument),
    (status = 413, description = "`body-too-large`, `value-too-large`, `commit-too-large`", body = ProblemDocument),
    (status = 422, description = "`idempotency-mismatch`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`: after a timeout it may or may not have happened, repeat it under its Idempotency-Key", body = ProblemDocument),
))]
pub(crate) async fn commits(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let allowed = app.tokens.check(&headers, Scope::Write).and_then(|()| request_name(&headers));
    let name = match allowed {
        Ok(name) => name,
        Err(refused) => {
            discard(&headers, body).await;
            return Err(refused);
        }
    };
    let received = receive(&app, &headers, body, app.limits.body_bytes).await?;
    let room = app.room_for_commit()?;
    let (done, answered) = oneshot::channel();
    let store = app.store.clone();
    // Reading a large body takes a while; handing the commit over takes none, there is room for it.
    let handed_over = spawn_blocking(move || -> Result<(), Problem> {
        let commit = commit(&received.bytes, name)?;
        let rooms = (room, received.room);
        drop(received.bytes);
        let answer = move |result| {
            // Whoever asked may have gone: what was accepted is carried out all the same.
            let _ = done.send(result);
            drop(rooms);
        };
        store.commit_then(commit, Box::new(answer));
        Ok(())
    });
    handed_over.await.map_err(|error| Problem::internal(&error))??;
    let committed = answered.await.unwrap_or(Err(Error::Closed))?;
    app.metrics.committed();
    let done = Done { version: committed.version.0, state: committed.state.to_string() };
    Ok((StatusCode::CREATED, Json(done)).into_response())
}

/// The digest of the request's `Idempotency-Key`.
fn request_name(headers: &HeaderMap) -> Result<Option<Digest>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (first, second) = (given.next(), given.next());
    let Some(name) = first else { return Ok(None) };
    let name = name.as_bytes();
    let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&name.len());
    if second.is_some() || !fits || !name.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Problem::malformed(format!(
            "give one Idempotency-Key of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters"
        )));
    }
    Ok(Some(Digest::of(name)))
}

/// Reads the body of a commit.
fn commit(body: &[u8], name: Option<Digest>) -> Result<Commit, Problem> {
    let asked: Asked = json(body)?;
    let (found, max) = (asked.writes.count, COMMIT_WRITES_MAX);
    if found > max {
        return Err(Error::CommitTooLarge { what: "writes", found, max }.into());
    }
    let mut writes = Vec::with_capacity(asked.writes.items.len());
    for write in asked.writes.items {
        let name = either("key", write.key, write.key_hex)?;
        let name = name.ok_or_else(|| Problem::malformed("a write has neither key nor key_hex"))?;
        writes.push((Bytes::from(key(name)?), write.value));
    }
    let expect_version = version("expect_version", asked.expect_version)?;
    let mut commit = Commit::new(writes);
    commit.expect_version = expect_version;
    commit.request = name.map(|name| RequestId { name, body: content(&commit) });
    Ok(commit)
}

/// The digest of what a commit asks, however its JSON was written and in whatever order.
///
/// ```text
/// "anwansi/comm/v1\n" || 0 | 1 || u64 expected version
/// each write, in key order: u64 length || key || 0 | 1 || H(value), or zeros
/// ```
fn content(commit: &Commit) -> Digest {
    let mut writes = commit.writes.iter().collect::<Vec<_>>();
    writes.sort_unstable();
    let mut bytes = b"anwansi/comm/v1\n".to_vec();
    bytes.push(u8::from(commit.expect_version.is_some()));
    bytes.extend(commit.expect_version.map_or(0, |version| version.0).to_be_bytes());
    for (key, value) in writes {
        bytes.extend((key.len() as u64).to_be_bytes());
        bytes.extend_from_slice(key);
        bytes.push(u8::from(value.is_some()));
        bytes.extend(value.as_ref().map_or(Digest::ZERO, |value| Digest::of(value)).0);
    }
    Digest::of(&bytes)
}
