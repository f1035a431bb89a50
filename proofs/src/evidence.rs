//! Evidence: what a server answers and a client keeps, checked level by level.
//!
//! ```text
//! finality     the header is in the log, under a checkpoint that satisfies the policy
//! inclusion    the proofs lead to that header's roots: they may be asked
//! agreement    the votes behind a transition, recounted              not checked yet
//! aggregate    its results, folded again and found in the state      not checked yet
//! ```
//!
//! A level is there when its members are; then anything missing or wrong refuses the whole. What this
//! crate cannot check yet it calls [`Finding::NotChecked`], never verified.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString as _},
    vec,
    vec::Vec,
};
use core::{fmt, marker::PhantomData, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    Checkpoint, Digest, Error, Format, Header, LogHash, LogProof, Policy, Proof, Root, Shown,
    log::verify_inclusion,
    text::{base64, base64_decode, decimal},
};

/// The longest evidence, in bytes of JSON.
pub const EVIDENCE_BYTES_MAX: usize = 256 << 20;

/// The most versions that evidence may rest on.
pub const EARLIER_MAX: usize = 100_000;

/// Evidence as it was received: a claim by anyone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Evidence {
    format: Name,
    header: String,
    finality: String,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_base64")]
    state: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_base64")]
    tasks: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Part>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_base64")]
    spec: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_named")]
    pledges: Option<Named<TaskRound>>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_named")]
    votes: Option<Named<Task>>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_named")]
    outputs: Option<Named<Digest>>,
}

/// What evidence says of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Part {
    /// The text of the version's header.
    pub header: String,
    /// The text of the tlog-proof that it is in the log.
    pub finality: String,
    /// A proof over the version's state.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_base64")]
    pub state: Option<Vec<u8>>,
    /// A proof over the version's tasks tree.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_base64")]
    pub tasks: Option<Vec<u8>>,
}

/// What evidence can show, each level resting on those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The header is in the log.
    Finality,
    /// The proofs are over that header's trees.
    Inclusion,
    /// The votes behind a transition were recounted.
    Agreement,
    /// The results were folded again, and found in the state.
    Aggregate,
}

/// What was found of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is there, and all of it is right.
    Verified,
    /// It is not there.
    NotShown,
    /// It is there, and nobody looked: this says nothing of whether it is right.
    NotChecked,
}

/// Evidence whose finality and inclusion hold. Whether more was shown, [`finding`](Self::finding) tells.
#[must_use]
pub struct Checked<'a> {
    checkpoint: Checkpoint,
    /// The main one first, then those it rests on.
    versions: Vec<CheckedVersion<'a>>,
    agreement: Finding,
    aggregate: Finding,
}

/// A version that is final, and what was shown of it.
pub struct CheckedVersion<'a> {
    header: Header,
    state: Option<Shown<'a>>,
    tasks: Option<Shown<'a>>,
}

impl Evidence {
    /// Evidence of one version.
    #[must_use]
    pub fn new(Part { header, finality, state, tasks }: Part) -> Self {
        Evidence {
            format: Name,
            header,
            finality,
            state,
            tasks,
            earlier: Vec::new(),
            spec: None,
            pledges: None,
            votes: None,
            outputs: None,
        }
    }

    /// Reads evidence from JSON. Unknown names are refused, and so is a name given twice.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the line refused.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        let refused = |at| Error::Malformed { format: Format::Evidence, at };
        if json.len() > EVIDENCE_BYTES_MAX {
            return Err(refused(0));
        }
        serde_json::from_slice(json).map_err(|error| refused(error.line()))
    }

    /// The evidence as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and maps of strings are always JSON")
    }

    /// Checks finality and inclusion, of all parts.
    ///
    /// # Errors
    /// Whatever is wrong first: then nothing of the evidence holds.
    ///
    /// # Cost
    /// Two signatures or more a part, and hashing all proofs.
    pub fn check(&self, policy: &Policy) -> Result<Checked<'_>, Error> {
        let refused = Error::Malformed { format: Format::Evidence, at: 0 };
        if self.earlier.len() > EARLIER_MAX {
            return Err(refused);
        }
        let finality: LogProof = self.finality.parse()?;
        let checkpoint = policy.verify_note(finality.checkpoint())?;
        let (state, tasks) = (self.state.as_deref(), self.tasks.as_deref());
        let main = check_part(&self.header, &finality, &checkpoint, state, tasks)?;
        let newest = main.header.version();
        let mut versions = vec![main];
        let mut seen = BTreeSet::new();
        for Part { header, finality, state, tasks } in &self.earlier {
            let finality: LogProof = finality.parse()?;
            // One checkpoint for all, to the letter: then its signatures need no second look.
            if finality.checkpoint().to_string() != checkpoint.note() {
                return Err(Error::PartsDisagree);
            }
            let (state, tasks) = (state.as_deref(), tasks.as_deref());
            let version = check_part(header, &finality, &checkpoint, state, tasks)?;
            let number = version.header.version();
            if number >= newest || !seen.insert(number) {
                return Err(Error::PartsDisagree);
            }
            versions.push(version);
        }
        let has = |there| if there { Finding::NotChecked } else { Finding::NotShown };
        let outputs = self.outputs.is_some();
        let votes = self.spec.is_some() || self.pledges.is_some() || self.votes.is_some();
        let (agreement, aggregate) = (has(votes || outputs), has(outputs));
        Ok(Checked { checkpoint, versions, agreement, aggregate })
    }
}

/// Checks one version of evidence under a checkpoint that was accepted.
fn check_part<'a>(
    text: &str,
    finality: &LogProof,
    checkpoint: &Checkpoint,
    state: Option<&'a [u8]>,
    tasks: Option<&'a [u8]>,
) -> Result<CheckedVersion<'a>, Error> {
    let header: Header = text.parse()?;
    let (index, size) = (header.version().0, checkpoint.size());
    if header.origin().as_str() != checkpoint.origin() {
        return Err(Error::OriginMismatch);
    }
    if finality.index() != index {
        return Err(Error::NotInLog { index, size });
    }
    let leaf = LogHash::leaf(text.as_bytes());
    verify_inclusion(index, size, &leaf, finality.siblings(), checkpoint.root())?;
    let show = |proof: Option<&'a [u8]>, root: Root| {
        proof.map(|proof| Proof::decode(proof)?.verify(&root)).transpose()
    };
    let (state, tasks) = (show(state, header.state())?, show(tasks, header.tasks())?);
    Ok(CheckedVersion { header, state, tasks })
}

impl<'a> Checked<'a> {
    /// What was found of `level`.
    #[must_use]
    pub fn finding(&self, level: Level) -> Finding {
        let proofs =
            self.versions.iter().any(|version| version.state.is_some() || version.tasks.is_some());
        match level {
            Level::Finality => Finding::Verified,
            Level::Inclusion if proofs => Finding::Verified,
            Level::Inclusion => Finding::NotShown,
            Level::Agreement => self.agreement,
            Level::Aggregate => self.aggregate,
        }
    }

    /// The checkpoint that all parts are under.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The version that the evidence is about.
    #[must_use]
    pub fn version(&self) -> &CheckedVersion<'a> {
        &self.versions[0]
    }

    /// The versions that it rests on.
    #[must_use]
    pub fn earlier(&self) -> &[CheckedVersion<'a>] {
        &self.versions[1..]
    }
}

impl<'a> CheckedVersion<'a> {
    /// Its header, which is in the log.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What is shown of its state.
    #[must_use]
    pub fn state(&self) -> Option<&Shown<'a>> {
        self.state.as_ref()
    }

    /// What is shown of its tasks tree.
    #[must_use]
    pub fn tasks(&self) -> Option<&Shown<'a>> {
        self.tasks.as_ref()
    }
}

/// The name of the format, which is all that may stand in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name;

const NAME: &str = "anwansi/evidence/v1";

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(NAME)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)? {
            name if name == NAME => Ok(Name),
            name => Err(de::Error::invalid_value(de::Unexpected::Str(&name), &NAME)),
        }
    }
}

/// Evidence and its parts are objects; a list of the same members in their order is none, though serde
/// would read it as one.
struct Object<T>(PhantomData<T>);

macro_rules! objects {
    ($($object:ty)*) => { $(
        impl<'de> Visitor<'de> for Object<$object> {
            type Value = $object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$object, A::Error> {
                <$object>::deserialize(MapAccessDeserializer::new(map))
            }
        }

        impl<'de> Deserialize<'de> for $object {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_map(Object::<$object>(PhantomData))
            }
        }

        impl Serialize for $object {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$object>::serialize(self, serializer)
            }
        }
    )* };
}

objects! { Evidence Part }

/// Bytes by name, each in base64; a name given twice is refused, and so is one that is no `N`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named<N>(BTreeMap<N, Vec<u8>>);

/// A task, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Task(u32);

/// A round of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TaskRound(Task, u32);

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for TaskRound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TaskRound(task, round) = self;
        write!(f, "{task}/{round}")
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let index = decimal(text).and_then(|index| u32::try_from(index).ok());
        index.map(Task).ok_or(Error::Malformed { format: Format::Evidence, at: 0 })
    }
}

impl FromStr for TaskRound {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = Error::Malformed { format: Format::Evidence, at: 0 };
        let (task, round) = text.split_once('/').ok_or(refused)?;
        let Task(round) = round.parse()?;
        Ok(TaskRound(task.parse()?, round))
    }
}

impl<N: fmt::Display> Serialize for Named<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.0.iter().map(|(name, bytes)| (name.to_string(), base64(bytes)));
        serializer.collect_map(entries)
    }
}

impl<'de, N: FromStr + Ord> Deserialize<'de> for Named<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<N>(PhantomData<N>);

        impl<'de, N: FromStr + Ord> Visitor<'de> for Entries<N> {
            type Value = Named<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of base64 strings, each name once")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<N>, A::Error> {
                let mut named = BTreeMap::new();
                while let Some((name, bytes)) = map.next_entry::<String, String>()? {
                    let name = name.parse().map_err(|_| de::Error::custom("not such a name"))?;
                    if named.insert(name, decode(&bytes)?).is_some() {
                        return Err(de::Error::custom("a name given twice"));
                    }
                }
                Ok(Named(named))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

fn decode<E: de::Error>(text: &str) -> Result<Vec<u8>, E> {
    base64_decode(text).ok_or_else(|| E::custom("not base64"))
}

/// A member that is base64 where it is there; `null` is not its absence.
mod maybe_base64 {
    use super::{Deserialize, Deserializer, Serializer, String, Vec, base64, decode};

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64(bytes.as_deref().unwrap_or_default()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode(&text).map(Some)
    }
}

/// A member that is an object where it is there; `null` is not its absence.
mod maybe_named {
    use super::{Deserialize, Deserializer, FromStr, Named, Serialize, Serializer, fmt};

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer, N: fmt::Display>(
        named: &Option<Named<N>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        named.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, N: FromStr + Ord>(
        deserializer: D,
    ) -> Result<Option<Named<N>>, D::Error> {
        Named::deserialize(deserializer).map(Some)
    }
}
