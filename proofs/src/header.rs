//! The header of a version: the text that is the log's entry, and names the version's roots.

use alloc::string::String;
use core::{fmt, str::FromStr};

use crate::{DECIMAL_MAX, Digest, Error, Format, Root, text::decimal};

/// The longest origin, in bytes.
pub const ORIGIN_BYTES_MAX: usize = 255;
/// The longest header, in bytes: its fixed words, the longest origin, and integers of 16 digits.
pub const HEADER_BYTES_MAX: usize = 600;

/// The number of a version, which is also its index in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The name of a log: 1 to 255 printable ASCII characters without space and `+`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = |at| Error::Malformed { format: Format::Origin, at };
        if text.is_empty() || text.len() > ORIGIN_BYTES_MAX {
            return Err(refused(text.len().min(ORIGIN_BYTES_MAX)));
        }
        match text.bytes().position(|byte| !byte.is_ascii_graphic() || byte == b'+') {
            Some(at) => Err(refused(at)),
            None => Ok(Origin(text.into())),
        }
    }
}

/// What is said of one version: seven lines of text, the entry of the log at index `version`.
///
/// Reading a header checks its form. That it is true is what the log and its checkpoint are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    origin: Origin,
    version: Version,
    parent: Digest,
    state: Root,
    tasks: Root,
    time: u64,
}

impl Header {
    /// The header of version 0: the empty state, no tasks.
    ///
    /// # Panics
    /// If `time`, in milliseconds since 1970, is above [`DECIMAL_MAX`].
    #[must_use]
    pub fn first(origin: Origin, time: u64) -> Self {
        assert!(time <= DECIMAL_MAX, "the clock is in range");
        let (state, tasks) = (Root::empty(), Root::empty());
        Header { origin, version: Version(0), parent: Digest::ZERO, state, tasks, time }
    }

    /// The header of the version after this one. If the clock went back, it stands still.
    ///
    /// # Panics
    /// If the version or `time`, in milliseconds since 1970, would be above [`DECIMAL_MAX`].
    #[must_use]
    pub fn next(&self, state: Root, tasks: Root, time: u64) -> Self {
        let version = Version(self.version.0 + 1);
        let time = time.max(self.time);
        assert!(version.0.max(time) <= DECIMAL_MAX, "versions and the clock are in range");
        Header { origin: self.origin.clone(), version, parent: self.digest(), state, tasks, time }
    }

    /// Checks that this header is the next one after `before`.
    ///
    /// # Errors
    /// [`Error::OriginMismatch`], or [`Error::NotNext`] if version, parent or time do not follow.
    pub fn follows(&self, before: &Header) -> Result<(), Error> {
        if self.origin != before.origin {
            return Err(Error::OriginMismatch);
        }
        let parent = before.digest();
        let next = self.version.0 == before.version.0 + 1 && self.time >= before.time;
        if next && self.parent == parent {
            Ok(())
        } else {
            Err(Error::NotNext { version: before.version.0 + 1, parent })
        }
    }

    /// The digest of the header's text: the next header's parent.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(alloc::format!("{self}").as_bytes())
    }

    /// The name of the log that this is an entry of.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The number of the version, and the header's index in the log.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The digest of the header before; zeros for version 0. For readers: the proof is the log.
    #[must_use]
    pub fn parent(&self) -> Digest {
        self.parent
    }

    /// The root of the state.
    #[must_use]
    pub fn state(&self) -> Root {
        self.state
    }

    /// The root of the tasks tree of this version alone.
    #[must_use]
    pub fn tasks(&self) -> Root {
        self.tasks
    }

    /// When it was made, by the server's clock, in milliseconds since 1970.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.time
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header { origin, version, parent, state, tasks, time } = self;
        write!(
            f,
            "anwansi/header/v1\norigin {origin}\nversion {version}\nparent {parent}\n\
             state {state}\ntasks {tasks}\ntime {time}\n"
        )
    }
}

impl FromStr for Header {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut lines = Lines { rest: text, line: 0 };
        if text.len() > HEADER_BYTES_MAX || lines.next("")? != "anwansi/header/v1" {
            return Err(lines.refused());
        }
        let header = Header {
            origin: lines.field("origin ")?,
            version: Version(lines.integer("version ")?),
            parent: lines.field("parent ")?,
            state: lines.field("state ")?,
            tasks: lines.field("tasks ")?,
            time: lines.integer("time ")?,
        };
        // Version 0 is the empty state, and nothing else is.
        let first = header.version.0 == 0;
        if !lines.rest.is_empty()
            || first && header != Header::first(header.origin.clone(), header.time)
        {
            return Err(lines.refused());
        }
        Ok(header)
    }
}

struct Lines<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lines<'a> {
    fn refused(&self) -> Error {
        Error::Malformed { format: Format::Header, at: self.line }
    }

    /// What stands behind `name` on the next line.
    fn next(&mut self, name: &str) -> Result<&'a str, Error> {
        self.line += 1;
        let (line, rest) = self.rest.split_once('\n').ok_or(self.refused())?;
        self.rest = rest;
        line.strip_prefix(name).ok_or(self.refused())
    }

    fn field<T: FromStr>(&mut self, name: &str) -> Result<T, Error> {
        self.next(name)?.parse().map_err(|_| self.refused())
    }

    fn integer(&mut self, name: &str) -> Result<u64, Error> {
        decimal(self.next(name)?).ok_or(self.refused())
    }
}
