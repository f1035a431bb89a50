//! Canonical JSON: every value has exactly one spelling, so that equal values have equal digests.
//!
//! No white space. Names are unique and sorted by their UTF-8 bytes. In strings only `"`, `\` and the
//! characters below U+0020 are escaped, in the short form where there is one, else as `\u00xx`. Numbers are
//! integers of any size up to [`DIGITS_MAX`]; there are no fractions and no exponents. [`Json::parse`] reads
//! what [`Json::to_bytes`] writes, and refuses all other bytes, also those that mean the same.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString as _},
    vec::Vec,
};

use litemap::LiteMap;
pub use num_bigint::BigInt;
use num_bigint::BigUint;

use crate::{Error, Format};

/// How many arrays and objects may lie in one another: `[]` is nested once.
pub const NESTING_MAX: usize = 64;

/// The most digits of an integer, its sign not counted.
pub const DIGITS_MAX: usize = 4096;

/// The members of an object, sorted by name. A sorted vector: an object of one member, of which hostile input
/// has millions, takes no more than that member.
pub type Object = LiteMap<String, Json>;

/// A JSON value whose numbers are integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number without fraction and exponent. Bytes hold at most [`DIGITS_MAX`] digits: see
    /// [`Json::fits`].
    Integer(BigInt),
    /// A string.
    String(String),
    /// Values in their order.
    Array(Vec<Json>),
    /// Values by name.
    Object(Object),
}

impl Json {
    /// Reads one value, nested at most [`NESTING_MAX`] deep.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the byte from which on it is not what [`Json::to_bytes`] writes.
    /// # Cost
    /// One pass. Allocates in proportion to the input: less than twice its length for long strings and
    /// numbers, up to 64 times for arrays of single digits. The caller bounds the input.
    pub fn parse(bytes: &[u8]) -> Result<Json, Error> {
        Json::parse_nested(bytes, NESTING_MAX)
    }

    /// As [`Json::parse`], nested at most `nesting_max` deep, which also bounds the recursion. What
    /// [`Fold::List`](crate::Fold::List) makes is one deeper than its parts.
    ///
    /// # Errors
    /// As of [`Json::parse`].
    pub fn parse_nested(bytes: &[u8], nesting_max: usize) -> Result<Json, Error> {
        let mut reader = Reader { bytes, at: 0 };
        let value = reader.value(nesting_max)?;
        if reader.at == bytes.len() { Ok(value) } else { Err(reader.refused()) }
    }

    /// The value's one spelling. It can be read again if the value [fits](Json::fits).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Whether [`Json::parse_nested`] with this `nesting_max` reads what [`Json::to_bytes`] writes: all that
    /// was read fits, what was computed may have outgrown the limits.
    #[must_use]
    pub fn fits(&self, nesting_max: usize) -> bool {
        match (self, nesting_max.checked_sub(1)) {
            (Json::Null | Json::Bool(_) | Json::String(_), _) => true,
            (Json::Integer(integer), _) => digits_fit(integer),
            (Json::Array(_) | Json::Object(_), None) => false,
            (Json::Array(values), Some(inner)) => values.iter().all(|value| value.fits(inner)),
            (Json::Object(members), Some(inner)) => members.values().all(|value| value.fits(inner)),
        }
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Json::Bool(value) = self { Some(*value) } else { None }
    }

    /// The integer, if it is one from 0 to 2^32 - 1.
    #[must_use]
    pub fn as_u32(&self) -> Option<u32> {
        if let Json::Integer(integer) = self { integer.try_into().ok() } else { None }
    }

    /// The integer, if it is one from 0 to 2^64 - 1.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        if let Json::Integer(integer) = self { integer.try_into().ok() } else { None }
    }

    /// The text, if it is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Json::String(text) = self { Some(text) } else { None }
    }

    /// The values, if it is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Json]> {
        if let Json::Array(values) = self { Some(values) } else { None }
    }

    /// The values by name, if it is an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        if let Json::Object(members) = self { Some(members) } else { None }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Null => out.extend(b"null"),
            Json::Bool(value) => out.extend(value.to_string().bytes()),
            Json::Integer(integer) => out.extend(integer.to_string().bytes()),
            Json::String(text) => write_string(text, out),
            Json::Array(values) => write_between(*b"[]", values, out, Json::write),
            Json::Object(members) => write_between(*b"{}", members, out, |(name, value), out| {
                write_string(name, out);
                out.push(b':');
                value.write(out);
            }),
        }
    }
}

/// Whether the integer has at most [`DIGITS_MAX`] digits, which is to be less than a power of ten.
fn digits_fit(integer: &BigInt) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "4096")]
    let beyond = || BigUint::from(10_u8).pow(DIGITS_MAX as u32);
    // A digit is worth more than three bits: hardly any integer must be compared.
    integer.bits() <= 3 * DIGITS_MAX as u64 || *integer.magnitude() < beyond()
}

fn write_between<T>(
    [open, close]: [u8; 2],
    items: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    write: impl Fn(T, &mut Vec<u8>),
) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(close);
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| is_escaped(byte)) {
        let (plain, byte) = (&rest[..at], rest[at]);
        rest = &rest[at + 1..];
        out.extend(plain);
        match SHORT.iter().find(|(escaped, _)| *escaped == byte) {
            Some((_, letter)) => out.extend([b'\\', *letter]),
            None => out.extend(alloc::format!("\\u{byte:04x}").bytes()),
        }
    }
    out.extend(rest);
    out.push(b'"');
}

/// All that is escaped is one byte long in UTF-8, and no byte of a longer character looks like it.
fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\')
}

/// The bytes that have a short escape, and what stands for them behind the `\`.
const SHORT: [(u8, u8); 7] = [
    (b'"', b'"'),
    (b'\\', b'\\'),
    (0x08, b'b'),
    (b'\t', b't'),
    (b'\n', b'n'),
    (0x0c, b'f'),
    (b'\r', b'r'),
];

/// Reads from `at` on. A refusal points to where `at` then stands.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn refused(&self) -> Error {
        Error::Malformed { format: Format::Json, at: self.at }
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Steps over `word` if it comes next.
    fn skip(&mut self, word: &[u8]) -> bool {
        let found = self.rest().starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn require(&mut self, word: &[u8]) -> Result<(), Error> {
        if self.skip(word) { Ok(()) } else { Err(self.refused()) }
    }

    /// A value that may open `levels` more arrays and objects in one another.
    fn value(&mut self, levels: usize) -> Result<Json, Error> {
        match self.rest().first() {
            Some(b'n') => self.require(b"null").map(|()| Json::Null),
            Some(b't') => self.require(b"true").map(|()| Json::Bool(true)),
            Some(b'f') => self.require(b"false").map(|()| Json::Bool(false)),
            Some(b'"') => self.string().map(Json::String),
            Some(b'[') => self.array(levels).map(Json::Array),
            Some(b'{') => self.object(levels).map(Json::Object),
            _ => self.integer().map(Json::Integer),
        }
    }

    fn array(&mut self, levels: usize) -> Result<Vec<Json>, Error> {
        let inner = levels.checked_sub(1).ok_or(self.refused())?;
        let mut values = Vec::new();
        self.between(b"[", b"]", |reader| {
            values.push(reader.value(inner)?);
            Ok(())
        })?;
        // A vector starts with room for four: a thousand arrays of one value would take four times theirs.
        values.shrink_to_fit();
        Ok(values)
    }

    fn object(&mut self, levels: usize) -> Result<Object, Error> {
        let inner = levels.checked_sub(1).ok_or(self.refused())?;
        let mut members: Vec<(String, Json)> = Vec::new();
        self.between(b"{", b"}", |reader| {
            let refused = reader.refused();
            let name = reader.string()?;
            if members.last().is_some_and(|(last, _)| *last >= name) {
                return Err(refused);
            }
            reader.require(b":")?;
            members.push((name, reader.value(inner)?));
            Ok(())
        })?;
        members.shrink_to_fit();
        Ok(LiteMap::from_sorted_store_unchecked(members))
    }

    /// What `item` reads, any number of times, with commas between, inside of brackets.
    fn between(
        &mut self,
        open: &[u8],
        close: &[u8],
        mut item: impl FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.require(open)?;
        if self.skip(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.skip(close) {
                return Ok(());
            }
            self.require(b",")?;
        }
    }

    fn string(&mut self) -> Result<String, Error> {
        self.require(b"\"")?;
        let mut text = String::new();
        loop {
            text.push_str(self.plain()?);
            if self.skip(b"\"") {
                return Ok(text);
            }
            text.push(self.escape()?.into());
        }
    }

    /// The characters up to the next that is escaped or ends the string.
    fn plain(&mut self) -> Result<&'a str, Error> {
        let rest = self.rest();
        let length = rest.iter().position(|&byte| is_escaped(byte)).unwrap_or(rest.len());
        match core::str::from_utf8(&rest[..length]) {
            Ok(plain) => {
                self.at += length;
                Ok(plain)
            }
            Err(error) => {
                self.at += error.valid_up_to();
                Err(self.refused())
            }
        }
    }

    /// One escaped byte, if this is its one spelling.
    fn escape(&mut self) -> Result<u8, Error> {
        let (byte, length) = match *self.rest() {
            [b'\\', b'u', b'0', b'0', high @ b'0'..=b'1', low, ..] => {
                let low = match low {
                    b'0'..=b'9' => low - b'0',
                    b'a'..=b'f' => low - b'a' + 10,
                    _ => return Err(self.refused()),
                };
                let byte = (high - b'0') * 16 + low;
                if SHORT.iter().any(|(escaped, _)| *escaped == byte) {
                    return Err(self.refused());
                }
                (byte, 6)
            }
            [b'\\', letter, ..] => {
                let short = SHORT.iter().find(|(_, short)| *short == letter);
                (short.ok_or(self.refused())?.0, 2)
            }
            _ => return Err(self.refused()),
        };
        self.at += length;
        Ok(byte)
    }

    fn integer(&mut self) -> Result<BigInt, Error> {
        let start = self.at;
        let negative = self.skip(b"-");
        let rest = self.rest();
        // Behind the first 0, and behind the limit, another digit is no part of the number, and so it is
        // refused. Reading digits takes time quadratic in their number, which is why that has a limit.
        let digits = match rest.first() {
            Some(b'0') if !negative => 1,
            Some(b'1'..=b'9') => {
                rest.iter().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_digit()).count()
            }
            _ => return Err(self.refused()),
        };
        self.at += digits;
        BigInt::parse_bytes(&self.bytes[start..self.at], 10).ok_or(self.refused())
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Json {
        Json::Bool(value)
    }
}

impl From<u32> for Json {
    fn from(integer: u32) -> Json {
        Json::Integer(integer.into())
    }
}

impl From<u64> for Json {
    fn from(integer: u64) -> Json {
        Json::Integer(integer.into())
    }
}

impl From<BigInt> for Json {
    fn from(integer: BigInt) -> Json {
        Json::Integer(integer)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::String(text.into())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json::String(text)
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(values: Vec<T>) -> Json {
        values.into_iter().collect()
    }
}

/// The strings in the order of their UTF-8 bytes.
impl From<BTreeSet<String>> for Json {
    fn from(strings: BTreeSet<String>) -> Json {
        strings.into_iter().collect()
    }
}

impl<T: Into<Json>> From<BTreeMap<String, T>> for Json {
    fn from(members: BTreeMap<String, T>) -> Json {
        Json::Object(members.into_iter().map(|(name, value)| (name, value.into())).collect())
    }
}

/// An object; of a name given twice the last counts.
impl<const N: usize> From<[(&str, Json); N]> for Json {
    fn from(members: [(&str, Json); N]) -> Json {
        Json::Object(members.map(|(name, value)| (name.into(), value)).into_iter().collect())
    }
}

/// An array.
impl<T: Into<Json>> FromIterator<T> for Json {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Json {
        Json::Array(values.into_iter().map(Into::into).collect())
    }
}
