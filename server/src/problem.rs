//! Errors as callers see them: RFC 9457 problem documents, each kind under a stable name.
//!
//! A 4xx says what the caller did and how to mend it. A 5xx says nothing more than that, and what it
//! was is logged whole where it is made.

use std::fmt::{self, Write as _};

use anwansi_store::Error;
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// What every `type` starts with.
pub const TYPE_PREFIX: &str = "https://anwansi.example/problems/";
/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";
/// After how many seconds a caller may try again what there was no room for.
pub const RETRY_AFTER_S: u64 = 1;

/// The kinds of problem: name, status and title are one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is not of the form it should have.
    Malformed,
    /// A key has no length that keys have.
    KeyLength,
    /// A key starts with a zero byte and was to be written.
    ReservedKey,
    /// No token, or one that the server does not know.
    Unauthorized,
    /// The token's scopes do not reach this far.
    Forbidden,
    /// There is nothing under this path.
    UnknownRoute,
    /// There is no such tile in the log yet, or never.
    NoSuchTile,
    /// There is no such version yet.
    NoSuchVersion,
    /// The version is not pinned.
    NoSuchPin,
    /// The version was there, and has been pruned.
    Pruned,
    /// As many versions are pinned as can be.
    TooManyPins,
    /// The path knows other methods.
    MethodNotAllowed,
    /// The request did not arrive in time.
    RequestTimeout,
    /// What the commit rests on has changed.
    Conflict,
    /// The body is longer than the server takes.
    BodyTooLarge,
    /// A value is longer than values are.
    ValueTooLarge,
    /// A commit has more writes or bytes than commits have.
    CommitTooLarge,
    /// The answer would be larger than answers are.
    AnswerTooLarge,
    /// The idempotency key came with another body before.
    IdempotencyMismatch,

    /// A specification is not canonical JSON, or has other members than specifications have.
    MalformedSpec,
    /// A specification has no inputs.
    NoInputs,
    /// A specification names a key that nothing can be written to.
    BadInto,
    /// A specification has a policy that could decide nothing.
    BadPolicy,
    /// A specification has more tasks than the server takes.
    TooManyTasks,
    /// Nobody registered this fold here.
    UnknownFold,
    /// The fold cannot be used as the specification wants.
    FoldUse,
    /// An input is not there.
    UnknownBlob,
    /// Fewer nodes are registered than have to agree.
    TooFewNodes,
    /// As many nodes are registered as can be.
    TooManyNodes,
    /// Too many transitions and tasks are open.
    TooMuchOpen,
    /// There is no such transition.
    UnknownTransition,
    /// The transition has no such task.
    UnknownTask,
    /// There is no such node.
    UnknownNode,
    /// There is no such blob, or nobody may read it yet.
    NoSuchBlob,
    /// The transition is not decided.
    NotDecided,
    /// The transition cannot be cancelled any more.
    NotCancellable,
    /// The node is not drawn.
    NotDrawn,
    /// It came after the end of its phase.
    TooLate,
    /// What it follows on is not in the log yet.
    TooEarly,
    /// The node has not pledged.
    NotPledged,
    /// A signature is not the node's.
    BadSignature,
    /// A reveal does not open its pledge.
    BadReveal,
    /// The node has signed two pledges for one round.
    Equivocated,
    /// A result is longer than results are.
    ResultTooLarge,
    /// The content has another digest.
    WrongDigest,

    /// The server failed.
    Internal,
    /// The server has no room right now.
    TooBusy,
    /// The server is ending, or takes no more commits.
    Unavailable,
    /// The server did not finish in time.
    Timeout,
}

impl Kind {
    const fn parts(self) -> (&'static str, u16, &'static str) {
        match self {
            Kind::Malformed => ("malformed", 400, "The request is malformed"),
            Kind::KeyLength => ("key-length", 400, "A key has no length that keys have"),
            Kind::ReservedKey => ("reserved-key", 400, "The key is reserved"),
            Kind::Unauthorized => ("unauthorized", 401, "A token is needed"),
            Kind::Forbidden => ("forbidden", 403, "The token does not allow this"),
            Kind::UnknownRoute => ("unknown-route", 404, "There is nothing here"),
            Kind::NoSuchTile => ("no-such-tile", 404, "There is no such tile"),
            Kind::NoSuchVersion => ("no-such-version", 404, "There is no such version"),
            Kind::NoSuchPin => ("no-such-pin", 404, "The version is not pinned"),
            Kind::Pruned => ("pruned", 410, "What was asked for was pruned"),
            Kind::TooManyPins => ("too-many-pins", 409, "Too many versions are pinned"),
            Kind::MethodNotAllowed => ("method-not-allowed", 405, "The method is not allowed here"),
            Kind::RequestTimeout => ("request-timeout", 408, "The request came too slowly"),
            Kind::Conflict => ("conflict", 409, "The state has changed"),
            Kind::BodyTooLarge => ("body-too-large", 413, "The body is too large"),
            Kind::ValueTooLarge => ("value-too-large", 413, "A value is too large"),
            Kind::CommitTooLarge => ("commit-too-large", 413, "The commit is too large"),
            Kind::AnswerTooLarge => ("answer-too-large", 413, "The answer would be too large"),
            Kind::IdempotencyMismatch => {
                ("idempotency-mismatch", 422, "The idempotency key was used for another request")
            }
            Kind::MalformedSpec => ("malformed-spec", 422, "The specification is malformed"),
            Kind::NoInputs => ("no-inputs", 422, "The specification has no tasks"),
            Kind::BadInto => ("bad-into", 422, "Nothing can be written to this key"),
            Kind::BadPolicy => ("bad-policy", 422, "The policy could decide nothing"),
            Kind::TooManyTasks => ("too-many-tasks", 413, "The transition has too many tasks"),
            Kind::UnknownFold => ("unknown-fold", 422, "There is no such fold"),
            Kind::FoldUse => ("fold-use", 422, "The fold cannot be used like this"),
            Kind::UnknownBlob => ("unknown-blob", 422, "An input is not there"),
            Kind::TooFewNodes => ("too-few-nodes", 409, "Too few nodes are registered"),
            Kind::TooManyNodes => ("too-many-nodes", 409, "Too many nodes are registered"),
            Kind::TooMuchOpen => ("too-much-open", 503, "Too many transitions are open"),
            Kind::UnknownTransition => ("unknown-transition", 404, "There is no such transition"),
            Kind::UnknownTask => ("unknown-task", 404, "There is no such task"),
            Kind::UnknownNode => ("unknown-node", 404, "There is no such node"),
            Kind::NoSuchBlob => ("no-such-blob", 404, "There is no such blob"),
            Kind::NotDecided => ("not-decided", 409, "The transition is not decided"),
            Kind::NotCancellable => ("not-cancellable", 409, "The transition goes on"),
            Kind::NotDrawn => ("not-drawn", 403, "The node is not drawn"),
            Kind::TooLate => ("too-late", 409, "It came too late"),
            Kind::TooEarly => ("too-early", 409, "It came too early"),
            Kind::NotPledged => ("not-pledged", 409, "The node has not pledged"),
            Kind::BadSignature => ("bad-signature", 403, "The signature is not the node's"),
            Kind::BadReveal => ("bad-reveal", 422, "The reveal does not open the pledge"),
            Kind::Equivocated => ("equivocated", 409, "The node has signed two pledges"),
            Kind::ResultTooLarge => ("result-too-large", 413, "The result is too large"),
            Kind::WrongDigest => ("wrong-digest", 422, "The content has another digest"),
            Kind::Internal => ("internal", 500, "The server failed"),
            Kind::TooBusy => ("too-busy", 503, "The server is busy"),
            Kind::Unavailable => ("unavailable", 503, "The server takes no requests"),
            Kind::Timeout => ("timeout", 503, "The server took too long"),
        }
    }

    /// The stable name, which ends the `type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.parts().0
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.parts().1).expect("the statuses above are statuses")
    }
}

/// A problem: what went wrong with this request.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: Kind,
    detail: String,
    /// Further members, for programs.
    members: Map<String, Value>,
}

impl Problem {
    /// A problem of this kind. `detail` says what the caller did and how to mend it.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Problem { kind, detail: detail.into(), members: Map::new() }
    }

    /// A request that is not of the form it should have.
    #[must_use]
    pub fn malformed(detail: impl Into<String>) -> Self {
        Problem::new(Kind::Malformed, detail)
    }

    /// Logs what failed, whole, and tells the caller nothing of it.
    #[must_use]
    pub fn internal(error: &dyn std::error::Error) -> Self {
        let mut whole = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            write!(whole, ": {cause}").expect("strings take all that is written");
            source = cause.source();
        }
        tracing::error!(error = whole, "a request failed");
        Problem::new(Kind::Internal, "the server failed; its log says how")
    }

    /// There is no room for what is `wanted`.
    #[must_use]
    pub fn busy(wanted: &str) -> Self {
        Problem::new(Kind::TooBusy, format!("there is no room for {wanted} now: try again soon"))
    }

    /// Adds a member for programs to read.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn to_json(&self) -> Value {
        let (name, status, title) = self.kind.parts();
        let mut problem = json!({
            "type": format!("{TYPE_PREFIX}{name}"),
            "title": title,
            "status": status,
            "detail": self.detail,
        });
        let members = problem.as_object_mut().expect("a problem is an object");
        members.extend(self.members.clone());
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.kind.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let said = error.to_string();
        match error {
            Error::KeyLength { length } => {
                Problem::new(Kind::KeyLength, said).with("length", length)
            }
            Error::ValueTooLarge { max, .. } => {
                Problem::new(Kind::ValueTooLarge, said).with("max", max)
            }
            Error::ReservedKey { key } => Problem::new(
                Kind::ReservedKey,
                "a key starts with a zero byte: such keys belong to the ledger, choose another",
            )
            .with("key_hex", hex::encode(key)),
            Error::KeyTwice { key } => {
                Problem::malformed("a key is written twice in one commit: write each key once")
                    .with("key_hex", hex::encode(key))
            }
            Error::NoWrites => Problem::malformed(said),
            Error::CommitTooLarge { max, .. } => {
                Problem::new(Kind::CommitTooLarge, format!("{said}: commit it in parts"))
                    .with("max", max)
            }
            Error::Conflict { key } => {
                Problem::new(Kind::Conflict, "what was read has changed: read again and retry")
                    .with("key_hex", hex::encode(key))
            }
            Error::UnexpectedVersion { expected, newest } => {
                Problem::new(Kind::Conflict, format!("{said}: read again and retry"))
                    .with("expected", expected.0)
                    .with("newest", newest.0)
            }
            Error::RequestMismatch => Problem::new(
                Kind::IdempotencyMismatch,
                "the same Idempotency-Key came with another body before: give each request its own",
            ),
            Error::NoSuchVersion { newest, .. } => {
                Problem::new(Kind::NoSuchVersion, said).with("newest", newest.0)
            }
            Error::Pruned { oldest, .. } => {
                Problem::new(Kind::Pruned, said).with("oldest", oldest.0)
            }
            Error::Busy => Problem::busy("another old version"),
            Error::Closed => Problem::new(Kind::Unavailable, "the server is ending"),
            Error::Refused(refusal) => refusal.into(),
            error => Problem::internal(&error),
        }
    }
}
