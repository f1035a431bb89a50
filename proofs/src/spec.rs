//! The specification of a transition: which tasks there are, and what becomes of their results.

use alloc::{
    string::{String, ToString as _},
    vec::Vec,
};
use core::{fmt, ops::Deref, str::FromStr};

use crate::{
    Digest, Error,
    hash::Hasher,
    json::Json,
    members::Members,
    path::KEY_BYTES_MAX,
    text::{base64, base64_decode},
};

/// The longest specification, in bytes.
pub const SPEC_BYTES_MAX: usize = 16 << 20;

/// Names a transition: the digest of its specification.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransitionId(pub Digest);

/// What a transition is to be, before anyone checked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What the nodes run, with its version: `wordcount/1`.
    pub program: String,
    /// The digest of the program's code, where it matters.
    pub code: Option<Digest>,
    /// Any text: it makes two transitions different that are equal in all else.
    pub nonce: String,
    /// One a task.
    pub inputs: Vec<Input>,
    /// How the results become one value.
    pub fold: String,
    /// The key that the value is written to.
    pub into: String,
    /// What becomes of the value that was there.
    pub apply: Apply,
    /// Whether each member of the value, an object, is written to a key of its own, `<into>/<name>`.
    pub spread: bool,
    /// How many nodes have to agree.
    pub policy: TaskPolicy,
}

/// The input of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// It stands in the specification.
    Data(Vec<u8>),
    /// It is found by its digest.
    Blob(Digest),
}

/// What becomes of the value that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// The new one takes its place.
    Replace,
    /// The new one is folded into it.
    Add,
}

/// When a task's result is accepted, and how long its nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskPolicy {
    /// How often a node is expected to err, in millionths: below 500,000.
    pub error_ppm: u32,
    /// By how many votes the first answer has to be ahead of the second: 1 or more.
    pub lead: u32,
    /// The most nodes drawn for one task: `lead` or more.
    pub nodes_max: u32,
    /// The most drawn nodes without a vote.
    pub missed_max: u32,
    /// How long a round waits for pledges, in milliseconds.
    pub pledge_ms: u32,
    /// How long a round waits for reveals, in milliseconds.
    pub reveal_ms: u32,
}

impl Default for TaskPolicy {
    /// Ten in a hundred err, and six votes decide: accepted and wrong with less than two in a million.
    fn default() -> Self {
        TaskPolicy::with_lead(6)
    }
}

impl TaskPolicy {
    /// The policy that decides by `lead` votes, all else as clients fill it in.
    #[must_use]
    pub fn with_lead(lead: u32) -> Self {
        TaskPolicy {
            error_ppm: 100_000,
            lead,
            nodes_max: lead.saturating_mul(4),
            missed_max: lead.saturating_mul(2),
            pledge_ms: 30_000,
            reveal_ms: 10_000,
        }
    }

    /// The expected error of a node, as a probability.
    #[must_use]
    pub fn error(&self) -> f64 {
        f64::from(self.error_ppm) / 1e6
    }

    fn check(&self) -> Result<(), SpecFault> {
        if self.error_ppm >= ERROR_PPM_END {
            return Err(SpecFault::ErrorRate { error_ppm: self.error_ppm });
        }
        if self.lead == 0 {
            return Err(SpecFault::NoLead);
        }
        if self.nodes_max < self.lead {
            return Err(SpecFault::TooFewNodes { nodes_max: self.nodes_max, lead: self.lead });
        }
        Ok(())
    }
}

/// An error rate at which agreement says nothing any more.
const ERROR_PPM_END: u32 = 500_000;

/// What is wrong with a specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecFault {
    /// It is too long.
    #[error("it has {length} bytes, at most {SPEC_BYTES_MAX} are allowed: give inputs as blobs")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It is not canonical JSON.
    #[error("it is not canonical JSON, from byte {at} on")]
    NotCanonical {
        /// The first byte refused.
        at: usize,
    },
    /// A member is missing, or is not what it has to be.
    #[error("the member {name:?} is missing, or is not of its type")]
    Member {
        /// Its name.
        name: &'static str,
    },
    /// There is a member that specifications do not have.
    #[error("it has a member with an unknown name")]
    UnknownName,
    /// There is no task.
    #[error("it has no inputs, and so no tasks")]
    NoInputs,
    /// The value cannot be written there.
    #[error("\"into\" is a key of 1 to 1024 bytes that does not start with a zero byte")]
    Into,
    /// Nodes that err so often agree by chance.
    #[error("error_ppm is {error_ppm}: agreement means something below 500000")]
    ErrorRate {
        /// What was given.
        error_ppm: u32,
    },
    /// Nothing would have to agree.
    #[error("lead is 0: it is 1 or more")]
    NoLead,
    /// No task could be decided.
    #[error("nodes_max is {nodes_max}, below the lead of {lead}")]
    TooFewNodes {
        /// What was given.
        nodes_max: u32,
        /// The lead that was given.
        lead: u32,
    },
}

/// A specification that follows all rules, with its bytes and its id. Reads as its [`Draft`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    draft: Draft,
    bytes: Vec<u8>,
    id: TransitionId,
}

impl Spec {
    /// Checks a draft.
    ///
    /// # Errors
    /// [`Error::Spec`] with the first rule that is broken.
    pub fn new(draft: &Draft) -> Result<Self, Error> {
        draft.check()?;
        let bytes = draft.to_json().to_bytes();
        // What is written is read again: nothing is asked for that readers would refuse.
        Self::parse(bytes)
    }

    /// Reads a specification: canonical JSON with the members of SPEC.md and no others.
    ///
    /// # Errors
    /// [`Error::Spec`] with the first rule that is broken.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        let draft = Draft::read(&bytes)?;
        draft.check()?;
        let id = TransitionId::of(&bytes);
        Ok(Spec { draft, bytes, id })
    }

    /// The name of the transition.
    #[must_use]
    pub fn id(&self) -> TransitionId {
        self.id
    }

    /// The bytes that it was read from.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of tasks.
    #[must_use]
    pub fn tasks(&self) -> u32 {
        u32::try_from(self.draft.inputs.len()).expect("a specification has so many bytes at least")
    }
}

impl Deref for Spec {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.draft
    }
}

impl Draft {
    fn check(&self) -> Result<(), SpecFault> {
        if self.inputs.is_empty() || u32::try_from(self.inputs.len()).is_err() {
            return Err(SpecFault::NoInputs);
        }
        if !(1..=KEY_BYTES_MAX).contains(&self.into.len()) || self.into.starts_with('\0') {
            return Err(SpecFault::Into);
        }
        self.policy.check()
    }

    fn to_json(&self) -> Json {
        let policy = &self.policy;
        let numbers = [
            ("error_ppm", policy.error_ppm),
            ("lead", policy.lead),
            ("missed_max", policy.missed_max),
            ("nodes_max", policy.nodes_max),
            ("pledge_ms", policy.pledge_ms),
            ("reveal_ms", policy.reveal_ms),
        ];
        let numbers = numbers.map(|(name, number)| (name, Json::from(number)));
        let text = |text: &str| Json::from(text);
        let apply = if self.apply == Apply::Add { "add" } else { "replace" };
        let members = [
            ("apply", text(apply)),
            ("fold", text(&self.fold)),
            ("inputs", Json::Array(self.inputs.iter().map(Input::to_json).collect())),
            ("into", text(&self.into)),
            ("nonce", text(&self.nonce)),
            ("policy", Json::from(numbers)),
            ("program", text(&self.program)),
            ("spread", Json::Bool(self.spread)),
        ];
        let code = self.code.map(|code| ("code", text(&code.to_string())));
        let members = members.into_iter().chain(code);
        Json::Object(members.map(|(name, value)| (name.to_string(), value)).collect())
    }

    fn read(bytes: &[u8]) -> Result<Self, SpecFault> {
        if bytes.len() > SPEC_BYTES_MAX {
            return Err(SpecFault::TooLong { length: bytes.len() });
        }
        let json = Json::parse(bytes).map_err(|error| match error {
            Error::Malformed { at, .. } => SpecFault::NotCanonical { at },
            _ => SpecFault::NotCanonical { at: 0 },
        })?;
        let member = |name| move || SpecFault::Member { name };
        let mut members = Members::of(json).ok_or(SpecFault::NotCanonical { at: 0 })?;
        let mut text = |name| members.text(name).ok_or_else(member(name));
        let (program, nonce) = (text("program")?, text("nonce")?);
        let (fold, into) = (text("fold")?, text("into")?);
        let apply = match text("apply")?.as_str() {
            "replace" => Apply::Replace,
            "add" => Apply::Add,
            _ => return Err(member("apply")()),
        };
        let code = match members.take("code") {
            Some(Json::String(code)) => Some(code.parse().map_err(|_| member("code")())?),
            Some(_) => return Err(member("code")()),
            None => None,
        };
        let Some(Json::Bool(spread)) = members.take("spread") else {
            return Err(member("spread")());
        };
        let Some(Json::Array(inputs)) = members.take("inputs") else {
            return Err(member("inputs")());
        };
        let inputs =
            inputs.into_iter().map(|input| Input::read(input).ok_or_else(member("inputs")));
        let inputs = inputs.collect::<Result<_, _>>()?;
        let policy = members.take("policy").and_then(Members::of).ok_or_else(member("policy"))?;
        let policy = TaskPolicy::read(policy)?;
        members.finish().ok_or(SpecFault::UnknownName)?;
        Ok(Draft { program, code, nonce, inputs, fold, into, apply, spread, policy })
    }
}

impl TaskPolicy {
    fn read(mut members: Members) -> Result<Self, SpecFault> {
        let mut number = |name| members.u32(name).ok_or(SpecFault::Member { name });
        let policy = TaskPolicy {
            error_ppm: number("error_ppm")?,
            lead: number("lead")?,
            nodes_max: number("nodes_max")?,
            missed_max: number("missed_max")?,
            pledge_ms: number("pledge_ms")?,
            reveal_ms: number("reveal_ms")?,
        };
        members.finish().ok_or(SpecFault::UnknownName)?;
        Ok(policy)
    }
}

impl Input {
    fn to_json(&self) -> Json {
        let (name, value) = match self {
            Input::Data(data) => ("data", base64(data)),
            Input::Blob(digest) => ("blob", digest.to_string()),
        };
        Json::from([(name, Json::String(value))])
    }

    fn read(json: Json) -> Option<Self> {
        let mut members = Members::of(json)?;
        let input = match members.text("data") {
            Some(data) => Input::Data(base64_decode(&data)?),
            None => Input::Blob(members.text("blob")?.parse().ok()?),
        };
        members.finish()?;
        Some(input)
    }
}

impl From<SpecFault> for Error {
    fn from(fault: SpecFault) -> Self {
        Error::Spec(fault)
    }
}

impl TransitionId {
    /// The name of the transition with this specification.
    #[must_use]
    pub fn of(spec: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(b"anwansi/trns/v1\n");
        hasher.update(spec);
        TransitionId(hasher.finish())
    }
}

impl fmt::Display for TransitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for TransitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TransitionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(TransitionId)
    }
}
