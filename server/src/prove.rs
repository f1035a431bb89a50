//! Questions about the state and their answers: evidence, or the bare proof.

use anwansi_proofs::{
    Evidence, Part, Question, Version,
    path::{VALUE_BYTES_MAX, after_prefix},
};
use anwansi_store::{Published, Snapshot, Which, engine::Direction};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Uri, header::CONTENT_TYPE},
    response::Response,
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    body::receive,
    openapi::{EvidenceDocument, ProblemDocument},
    problem::{Kind, Problem},
    query::{AtMost, Query, bound, decode_hex, either, in_order, json, key, version},
    read::{Form, Tag, limit},
    state::{
        ANSWER_BYTES_MAX, App, PROOF_KEYS_MAX, QUESTION_BYTES_MAX, RANGE_ENTRIES,
        RANGE_ENTRIES_MAX, at,
    },
    tiles::OCTETS,
};

/// The first key that an answer does not cover: a hint, the proof decides.
pub(crate) const NEXT_HEADER: &str = "anwansi-next";

/// Keys that are asked for together and answered without waiting for a turn, if all of them are in memory: some ten
/// microseconds each.
const AT_ONCE_MAX: usize = 4;

/// A range of keys: start, inclusive, and end, exclusive; none: to the last key.
type Range = (Vec<u8>, Option<Vec<u8>>);

/// An answer on its way out.
struct Answer {
    bytes: Vec<u8>,
    tag: Tag,
    /// The first key not covered.
    next: Option<bytes::Bytes>,
}

/// Evidence for keys: their values, or that they are absent.
#[utoipa::path(get, path = "/v1/state", tag = "state", params(
    ("key" = Option<Vec<String>>, Query, description = "A key; may be repeated. `+` is a space"),
    ("key_hex" = Option<Vec<String>>, Query, description = "A key in hex; may be repeated"),
    ("version" = Option<u64>, Query, description = "The version that is asked; else the newest"),
), responses(
    (status = 200, description = "Evidence; a key that is absent is proven absent. With `Accept: application/octet-stream` the proof alone", body = EvidenceDocument),
    (status = 304, description = "Nothing has changed since"),
    (status = 400, description = "`malformed`, `key-length`", body = ProblemDocument),
    (status = 404, description = "`no-such-version`", body = ProblemDocument),
    (status = 413, description = "`answer-too-large`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn state(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let headers = request.headers();
    let query = Query::parse(request.uri().query(), &["key", "key_hex", "version"])?;
    let mut keys = Vec::new();
    for plain in query.all("key") {
        keys.push(key(plain.to_vec())?);
    }
    for hex in query.all("key_hex") {
        keys.push(key(decode_hex("key_hex", hex)?)?);
    }
    if keys.is_empty() {
        return Err(Problem::malformed("name at least one key, as key=... or key_hex=..."));
    }
    too_many(keys.len())?;
    let (version, form) = (query.version()?, Form::wanted(headers));
    let question = keys.iter().fold(Question::default(), |question, key| question.key(key));
    {
        // Dropped before anything is waited for: it holds a version in memory.
        let published = app.store.published();
        let latest = published.snapshot();
        let newest = latest.version();
        if let Some(tag) = known(newest, version, form, headers) {
            return Ok(tag.not_modified());
        }
        // To hand it to another thread would take longer than to do it. Values in memory are short: all fits.
        if keys.len() <= AT_ONCE_MAX
            && version.is_none_or(|version| version == newest)
            && let Some(proof) = latest.prove_near(&question)
        {
            return send(&app, answer(&published, newest, Which::State, proof, form)?);
        }
    }
    let answer = app.read(move |store| {
        let snapshot = at(store, version)?;
        fits(&snapshot, &keys, &[])?;
        let proof = snapshot.prove(Which::State, &question)?;
        answer(&store.published(), snapshot.version(), Which::State, proof, form)
    });
    send(&app, answer.await?)
}

/// Evidence for a range of keys: all entries in it, and that there are no others.
#[utoipa::path(get, path = "/v1/state/range", tag = "state", params(
    ("prefix" = Option<String>, Query, description = "All keys that start so; or `prefix_hex`"),
    ("start" = Option<String>, Query, description = "The first key, inclusive; or `start_hex`"),
    ("end" = Option<String>, Query, description = "The last key, exclusive; or `end_hex`; else to the last one"),
    ("limit" = Option<u64>, Query, description = "Entries at most; see `entries_per_range` in /v1/info"),
    ("version" = Option<u64>, Query, description = "The version that is asked; else the newest"),
), responses(
    (status = 200, description = "Evidence. If it was cut, the header `Anwansi-Next` has the first key not covered, in hex", body = EvidenceDocument),
    (status = 304, description = "Nothing has changed since"),
    (status = 400, description = "`malformed`, `key-length`", body = ProblemDocument),
    (status = 404, description = "`no-such-version`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn range(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known_names =
        ["prefix", "prefix_hex", "start", "start_hex", "end", "end_hex", "limit", "version"];
    let query = Query::parse(uri.query(), &known_names)?;
    let part = |name| query.bytes(name)?.map(|bytes| bound(name, bytes)).transpose();
    let (prefix, start, end) = (part("prefix")?, part("start")?, part("end")?);
    let (start, end) = match (prefix, start, end) {
        (Some(prefix), None, None) => {
            let end = after_prefix(&prefix);
            (prefix, end)
        }
        (Some(_), _, _) => {
            return Err(Problem::malformed("give prefix, or start and end, not both"));
        }
        (None, start, end) => (start.unwrap_or_default(), end),
    };
    in_order(&start, end.as_deref())?;
    let limit = limit(&query, RANGE_ENTRIES, RANGE_ENTRIES_MAX)?;
    let (version, form) = (query.version()?, Form::wanted(&headers));
    // Whether it was cut stands in a header, which is not known before the range is read: only then can
    // it be said that nothing has changed.
    let answer = app.read(move |store| {
        let snapshot = at(store, version)?;
        let next = cut(&snapshot, &start, end.as_deref(), limit)?;
        let end = next.as_deref().or(end.as_deref());
        let question = Question::default().range(&start, end);
        let proof = snapshot.prove(Which::State, &question)?;
        let answer = answer(&store.published(), snapshot.version(), Which::State, proof, form)?;
        Ok(Answer { next, ..answer })
    });
    let answer = answer.await?;
    if answer.next.is_none() && answer.tag.is_known(&headers) {
        return Ok(answer.tag.not_modified());
    }
    send(&app, answer)
}

/// A question of several parts, answered by one proof.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    version: Option<u64>,
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    keys: AtMost<String, PROOF_KEYS_MAX>,
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    keys_hex: AtMost<String, PROOF_KEYS_MAX>,
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    prefixes: AtMost<String, PROOF_KEYS_MAX>,
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    prefixes_hex: AtMost<String, PROOF_KEYS_MAX>,
    #[serde(default)]
    #[schema(value_type = Vec<AskedRange>)]
    ranges: AtMost<AskedRange, PROOF_KEYS_MAX>,
    #[serde(default)]
    tree: AskedTree,
}

/// From start, inclusive, to end, exclusive; without an end, to the last key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskedRange {
    start: Option<String>,
    start_hex: Option<String>,
    end: Option<String>,
    end_hex: Option<String>,
}

/// Which of a version's trees is asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AskedTree {
    #[default]
    State,
    Tasks,
}

/// Evidence for any number of keys, prefixes and ranges together.
#[utoipa::path(post, path = "/v1/proofs", tag = "state", request_body = Asked, responses(
    (status = 200, description = "Evidence, complete for all that was asked", body = EvidenceDocument),
    (status = 400, description = "`malformed`, `key-length`", body = ProblemDocument),
    (status = 404, description = "`no-such-version`", body = ProblemDocument),
    (status = 413, description = "`body-too-large`, `answer-too-large`", body = ProblemDocument),
    (status = 503, description = "`too-busy`, `timeout`", body = ProblemDocument),
))]
pub(crate) async fn proofs(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let received = receive(&app, &headers, body, QUESTION_BYTES_MAX).await?;
    let form = Form::wanted(&headers);
    let answer = app.read(move |store| {
        let asked: Asked = json(&received.bytes)?;
        drop(received);
        let version = version("version", asked.version)?;
        let which = match asked.tree {
            AskedTree::State => Which::State,
            AskedTree::Tasks => Which::Tasks,
        };
        let (keys, ranges) = asked.parts()?;
        let snapshot = at(store, version)?;
        if which == Which::State {
            fits(&snapshot, &keys, &ranges)?;
        }
        let mut question = keys.iter().fold(Question::default(), |question, key| question.key(key));
        for (start, end) in &ranges {
            question = question.range(start, end.as_deref());
        }
        let proof = snapshot.prove(which, &question)?;
        answer(&store.published(), snapshot.version(), which, proof, form)
    });
    send(&app, answer.await?)
}

impl Asked {
    /// The keys and ranges that are asked for; a prefix is a range.
    fn parts(self) -> Result<(Vec<Vec<u8>>, Vec<Range>), Problem> {
        let prefixes = self.prefixes.count + self.prefixes_hex.count;
        too_many(self.keys.count + self.keys_hex.count + prefixes + self.ranges.count)?;
        let (mut keys, mut ranges) = (Vec::new(), Vec::new());
        for text in self.keys.items {
            keys.push(key(text.into_bytes())?);
        }
        for hex in self.keys_hex.items {
            keys.push(key(decode_hex("keys_hex", hex.as_bytes())?)?);
        }
        let mut prefix = |prefix: Vec<u8>| -> Result<(), Problem> {
            let prefix = bound("a prefix", prefix)?;
            let end = after_prefix(&prefix);
            ranges.push((prefix, end));
            Ok(())
        };
        for text in self.prefixes.items {
            prefix(text.into_bytes())?;
        }
        for hex in self.prefixes_hex.items {
            prefix(decode_hex("prefixes_hex", hex.as_bytes())?)?;
        }
        for AskedRange { start, start_hex, end, end_hex } in self.ranges.items {
            let start = bound("start", either("start", start, start_hex)?.unwrap_or_default())?;
            let end = either("end", end, end_hex)?.map(|end| bound("end", end)).transpose()?;
            in_order(&start, end.as_deref())?;
            ranges.push((start, end));
        }
        if keys.is_empty() && ranges.is_empty() {
            return Err(Problem::malformed("ask for at least one key, prefix or range"));
        }
        Ok((keys, ranges))
    }
}

/// Puts the evidence together, under the checkpoint of what is published.
fn answer(
    published: &Published,
    version: Version,
    which: Which,
    proof: Vec<u8>,
    form: Form,
) -> Result<Answer, Problem> {
    let finality = published.finality(version)?;
    let tag = Tag { version, size: finality.log_size, form };
    let bytes = match (form, which) {
        (Form::Bytes, _) => proof,
        (Form::Json, Which::State) => finality.evidence(&proof).into_bytes(),
        (Form::Json, Which::Tasks) => {
            let part = Part { tasks: Some(proof), ..finality.part() };
            Evidence::new(part).to_json().into_bytes()
        }
    };
    Ok(Answer { bytes, tag, next: None })
}

fn send(app: &App, Answer { bytes, tag, next }: Answer) -> Result<Response, Problem> {
    let mut headers = tag.headers();
    let media_type = if tag.form == Form::Json { "application/json" } else { OCTETS };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Some(next) = next {
        let next = HeaderValue::try_from(hex::encode(next)).expect("hex digits are a header");
        headers.insert(NEXT_HEADER, next);
    }
    let mut response = Response::new(Body::from(app.answer(bytes)?));
    *response.headers_mut() = headers;
    Ok(response)
}

/// The tag of the answer that would be made now, if the caller has it already.
fn known(
    newest: Version,
    version: Option<Version>,
    form: Form,
    headers: &HeaderMap,
) -> Option<Tag> {
    let version = version.unwrap_or(newest);
    let tag = Tag { version, size: newest.0 + 1, form };
    (version <= newest && tag.is_known(headers)).then_some(tag)
}

fn too_many(keys: usize) -> Result<(), Problem> {
    if keys <= PROOF_KEYS_MAX {
        return Ok(());
    }
    let detail = format!(
        "{keys} keys, prefixes and ranges are asked for: ask for at most {PROOF_KEYS_MAX} at a time"
    );
    Err(Problem::malformed(detail).with("max", PROOF_KEYS_MAX))
}

/// The first key of a range that its answer has no room for.
fn cut(
    snapshot: &Snapshot,
    start: &[u8],
    end: Option<&[u8]>,
    limit: usize,
) -> Result<Option<bytes::Bytes>, Problem> {
    let mut bytes = 0;
    for (count, entry) in snapshot.range(start, end, Direction::Ascending).enumerate() {
        let (key, value) = entry?;
        bytes += key.len() + value.len();
        if count == limit || (count > 0 && bytes > ANSWER_BYTES_MAX) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Refuses a question whose answer would have too many entries or bytes, before it is made. One entry
/// always fits.
fn fits(snapshot: &Snapshot, keys: &[Vec<u8>], ranges: &[Range]) -> Result<(), Problem> {
    const { assert!(ANSWER_BYTES_MAX <= VALUE_BYTES_MAX, "one entry fits, whatever its size") };
    if keys.len() + ranges.len() == 1 && ranges.is_empty() {
        return Ok(());
    }
    let (mut entries, mut bytes) = (0_usize, 0_usize);
    let mut add = |key: usize, value: usize| {
        (entries, bytes) = (entries + 1, bytes + key + value);
        if entries <= RANGE_ENTRIES_MAX && (entries == 1 || bytes <= ANSWER_BYTES_MAX) {
            return Ok(());
        }
        let detail = format!(
            "the answer would have over {RANGE_ENTRIES_MAX} entries or {ANSWER_BYTES_MAX} bytes: ask \
             for less at a time, or page through GET /v1/state/range"
        );
        Err(Problem::new(Kind::AnswerTooLarge, detail))
    };
    for key in keys {
        add(key.len(), snapshot.get(key)?.map_or(0, |value| value.len()))?;
    }
    for (start, end) in ranges {
        for entry in snapshot.range(start, end.as_deref(), Direction::Ascending) {
            let (key, value) = entry?;
            add(key.len(), value.len())?;
        }
    }
    Ok(())
}
