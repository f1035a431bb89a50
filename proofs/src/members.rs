//! Reads the members of a JSON object strictly: each once by its name, and none left over.

use alloc::{string::String, vec::Vec};

use crate::{
    Digest, Version,
    json::{Json, Object},
    text::DECIMAL_MAX,
};

/// The members of an object that were not read yet. All readers give `None` for a member that is missing
/// or of another type.
pub(crate) struct Members(Object);

impl Members {
    /// The members of `json`, if it is an object.
    pub(crate) fn of(json: Json) -> Option<Self> {
        match json {
            Json::Object(members) => Some(Members(members)),
            _ => None,
        }
    }

    /// Reads canonical JSON.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        Json::parse(bytes).ok().and_then(Self::of)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Json> {
        self.0.remove(name)
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn digest(&mut self, name: &str) -> Option<Digest> {
        self.text(name)?.parse().ok()
    }

    /// A digest or null.
    #[expect(clippy::option_option, reason = "outside it is missing or wrong, inside it is null")]
    pub(crate) fn maybe_digest(&mut self, name: &str) -> Option<Option<Digest>> {
        match self.take(name)? {
            Json::Null => Some(None),
            Json::String(text) => text.parse().ok().map(Some),
            _ => None,
        }
    }

    pub(crate) fn u32(&mut self, name: &str) -> Option<u32> {
        self.take(name)?.as_u32()
    }

    pub(crate) fn version(&mut self, name: &str) -> Option<Version> {
        version(&self.take(name)?)
    }

    pub(crate) fn array(&mut self, name: &str) -> Option<Vec<Json>> {
        match self.take(name)? {
            Json::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// Nothing, if all members were read.
    pub(crate) fn finish(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// A version, as records name it.
pub(crate) fn version(json: &Json) -> Option<Version> {
    json.as_u64().filter(|version| *version <= DECIMAL_MAX).map(Version)
}
