//! The JSON form of evidence: what a server writes and a client reads, before anything of it is believed.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString as _},
    vec::Vec,
};
use core::{fmt, marker::PhantomData, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    Digest, Error, Format, Pledge, Spec, Vote,
    text::{base64, base64_decode, base64_len, decimal, push_base64},
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
    pub(super) header: String,
    pub(super) finality: String,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_base64")]
    pub(super) state: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_base64")]
    pub(super) tasks: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) earlier: Vec<Part>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_base64")]
    pub(super) spec: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_named")]
    pub(super) pledges: Option<Named<TaskRound>>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_named")]
    pub(super) votes: Option<Named<Task>>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_named")]
    pub(super) outputs: Option<Named<Digest>>,
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

    /// The same, resting on other versions as well: each below this one, and each once.
    #[must_use]
    pub fn with_earlier(mut self, parts: impl IntoIterator<Item = Part>) -> Self {
        self.earlier.extend(parts);
        self
    }

    /// The same, with all that a transition's votes are recounted from: its specification; the pledges of
    /// every ended round, by task and round; the votes of every task. Where there are none an empty list
    /// stands.
    #[must_use]
    pub fn with_votes(
        mut self,
        spec: &Spec,
        pledges: impl IntoIterator<Item = ((u32, u32), Vec<Pledge>)>,
        votes: impl IntoIterator<Item = (u32, Vec<Vote>)>,
    ) -> Self {
        let pledges = pledges.into_iter().map(|((task, round), pledges)| {
            (TaskRound(Task(task), round), pledges.iter().flat_map(Pledge::to_bytes).collect())
        });
        let votes = votes
            .into_iter()
            .map(|(task, votes)| (Task(task), votes.iter().flat_map(Vote::to_bytes).collect()));
        self.spec = Some(spec.bytes().to_vec());
        self.pledges = Some(Named(pledges.collect()));
        self.votes = Some(Named(votes.collect()));
        self
    }

    /// The same, with the results that nodes voted for.
    #[must_use]
    pub fn with_outputs(mut self, outputs: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let outputs = outputs.into_iter().map(|output| (Digest::of(&output), output));
        self.outputs = Some(Named(outputs.collect()));
        self
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
}

/// Evidence about the state of one version as JSON, up to the proof: all answers of a version begin with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceStart(String);

impl EvidenceStart {
    /// Of a version with this header and tlog-proof, each in its text.
    #[must_use]
    pub fn new(header: &str, finality: &str) -> Self {
        let (header, finality) = (header.into(), finality.into());
        let part = Part { header, finality, state: Some(Vec::new()), tasks: None };
        let mut json = Evidence::new(part).to_json();
        assert!(json.ends_with(END), "the proof over the state is the last member");
        json.truncate(json.len() - END.len());
        EvidenceStart(json)
    }

    /// The evidence with a proof over the state, as [`Evidence::to_json`] writes it.
    #[must_use]
    pub fn with(&self, proof: &[u8]) -> String {
        let EvidenceStart(start) = self;
        let mut json = String::with_capacity(start.len() + base64_len(proof.len()) + END.len());
        json.push_str(start);
        push_base64(&mut json, proof);
        json.push_str(END);
        json
    }
}

/// What stands behind the proof.
const END: &str = "\"}";

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
pub(super) struct Named<N>(pub(super) BTreeMap<N, Vec<u8>>);

/// A task, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Task(pub(super) u32);

/// A round of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskRound(pub(super) Task, pub(super) u32);

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
