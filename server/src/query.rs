//! What callers write in queries and JSON bodies, read strictly: nothing is guessed, nothing skipped.

use std::{borrow::Cow, fmt, str::FromStr};

use anwansi_proofs::{DECIMAL_MAX, Version, path::KEY_BYTES_MAX};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, SeqAccess, Visitor},
};

use crate::problem::{Kind, Problem};

/// The most that a detail repeats of what was sent.
const QUOTED_BYTES_MAX: usize = 200;

/// The names and values of a query. Names may repeat; values are any bytes.
#[derive(Debug)]
pub(crate) struct Query<'q>(Vec<(Text<'q>, Text<'q>)>);

/// Bytes that are borrowed, unless something in them was encoded.
type Text<'q> = Cow<'q, [u8]>;

impl<'q> Query<'q> {
    /// Reads a query that has no other names than those `known`.
    ///
    /// `+` is a space, as forms write it; `%` is followed by two hex digits, always.
    pub(crate) fn parse(query: Option<&'q str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (percent_decode(name)?, percent_decode(value)?);
            if !known.iter().any(|known| known.as_bytes() == &name[..]) {
                return Err(Problem::malformed(format!(
                    "the query has a parameter {:?}: known here are {}",
                    quote(&String::from_utf8_lossy(&name)),
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") },
                )));
            }
            pairs.push((name, value));
        }
        Ok(Query(pairs))
    }

    /// All values of `name`, in their order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |pair| pair.0[..] == *name.as_bytes()).map(|pair| &pair.1[..])
    }

    /// The value of `name`, which stands once or not at all.
    pub(crate) fn one<'a>(&'a self, name: &'a str) -> Result<Option<&'a [u8]>, Problem> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Problem::malformed(format!("the query has {name} twice: give it once"))),
        }
    }

    /// The value of `name`, a decimal.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        decimal(name, &String::from_utf8_lossy(value)).map(Some)
    }

    /// The version that is asked for.
    pub(crate) fn version(&self) -> Result<Option<Version>, Problem> {
        Ok(self.number("version")?.map(Version))
    }

    /// The bytes that stand under `name`, or in hex under `name_hex`.
    pub(crate) fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, Problem> {
        let hex_name = format!("{name}_hex");
        let (plain, hex) = (self.one(name)?, self.one(&hex_name)?);
        match (plain, hex) {
            (Some(_), Some(_)) => {
                Err(Problem::malformed(format!("give {name} or {hex_name}, not both")))
            }
            (Some(plain), None) => Ok(Some(plain.to_vec())),
            (None, Some(hex)) => decode_hex(&hex_name, hex).map(Some),
            (None, None) => Ok(None),
        }
    }
}

fn percent_decode(text: &str) -> Result<Text<'_>, Problem> {
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Ok(text.as_bytes().into());
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let (byte, length) = match byte {
            b'+' => (b' ', 1),
            b'%' => match (digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
                (Some(high), Some(low)) => (u8::try_from(16 * high + low).expect("two digits"), 3),
                _ => {
                    return Err(Problem::malformed(
                        "the query has a % that two hex digits do not follow: write %25 for a \
                         percent sign",
                    ));
                }
            },
            byte => (*byte, 1),
        };
        decoded.push(byte);
        at += length;
    }
    Ok(decoded.into())
}

/// Reads `0`, or digits that start with 1 to 9, up to 2^53 - 1.
pub(crate) fn decimal(name: &str, text: &str) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let minimal = text == "0" || !text.starts_with('0');
    let value = text.parse().ok().filter(|value| digits && minimal && *value <= DECIMAL_MAX);
    value.ok_or_else(|| {
        let text = quote(text);
        Problem::malformed(format!(
            "{name} is {text:?}: give a decimal integer from 0 to {DECIMAL_MAX}"
        ))
    })
}

/// A version from a JSON body.
pub(crate) fn version(name: &str, number: Option<u64>) -> Result<Option<Version>, Problem> {
    number.map(|number| decimal(name, &number.to_string()).map(Version)).transpose()
}

pub(crate) fn decode_hex(name: &str, text: &[u8]) -> Result<Vec<u8>, Problem> {
    let refused = |_| Problem::malformed(format!("{name} is not hex: give two digits a byte"));
    hex::decode(text).map_err(refused)
}

/// Passes on a key that has a length that keys have.
pub(crate) fn key(key: Vec<u8>) -> Result<Vec<u8>, Problem> {
    let length = key.len();
    if (1..=KEY_BYTES_MAX).contains(&length) {
        return Ok(key);
    }
    let detail = format!("a key has {length} bytes: give one of 1 to {KEY_BYTES_MAX}");
    Err(Problem::new(Kind::KeyLength, detail).with("length", length))
}

/// Passes on a prefix, or an end of a range, that is not longer than keys are.
pub(crate) fn bound(name: &str, bound: Vec<u8>) -> Result<Vec<u8>, Problem> {
    let length = bound.len();
    if length <= KEY_BYTES_MAX {
        return Ok(bound);
    }
    let detail = format!("{name} has {length} bytes: keys have at most {KEY_BYTES_MAX}");
    Err(Problem::new(Kind::KeyLength, detail).with("length", length))
}

/// Refuses a range whose start comes after its end.
pub(crate) fn in_order(start: &[u8], end: Option<&[u8]>) -> Result<(), Problem> {
    match end {
        Some(end) if start > end => {
            Err(Problem::malformed("the range is reversed: give the smaller key as start"))
        }
        _ => Ok(()),
    }
}

/// The bytes that stand in one of two JSON members, as text or in hex.
pub(crate) fn either(
    name: &str,
    text: Option<String>,
    hex: Option<String>,
) -> Result<Option<Vec<u8>>, Problem> {
    match (text, hex) {
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(hex)) => decode_hex(&format!("{name}_hex"), hex.as_bytes()).map(Some),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(Problem::malformed(format!("give {name} or {name}_hex, not both")))
        }
    }
}

/// Reads a JSON body.
pub(crate) fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let error = error.to_string();
        Problem::malformed(format!("the body is not the JSON that is expected: {}", quote(&error)))
    })
}

/// The start of what was sent, short enough to be repeated.
fn quote(text: &str) -> &str {
    let mut end = text.len().min(QUOTED_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A JSON array of which no more than `MAX` items are kept; the others are counted.
#[derive(Debug)]
pub(crate) struct AtMost<T, const MAX: usize> {
    pub(crate) items: Vec<T>,
    pub(crate) count: usize,
}

impl<T, const MAX: usize> Default for AtMost<T, MAX> {
    fn default() -> Self {
        AtMost { items: Vec::new(), count: 0 }
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for AtMost<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(AtMost<T, MAX>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = AtMost<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
                while self.0.items.len() < MAX {
                    let Some(item) = seq.next_element()? else { break };
                    self.0.items.push(item);
                }
                self.0.count = self.0.items.len();
                while self.0.count >= MAX && seq.next_element::<IgnoredAny>()?.is_some() {
                    self.0.count += 1;
                }
                Ok(self.0)
            }
        }

        deserializer.deserialize_seq(Items(AtMost::default()))
    }
}

/// A member that is base64 or null, and is always there.
pub(crate) fn maybe_base64<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Bytes>, D::Error> {
    struct Text;

    impl<'de> Visitor<'de> for Text {
        type Value = Option<Bytes>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("standard base64 with padding, or null")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
            inner.deserialize_str(self)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let decoded = STANDARD.decode(text);
            let decoded = decoded.map_err(|_| E::custom("a value is not standard base64"))?;
            Ok(Some(Bytes::from(decoded)))
        }
    }

    deserializer.deserialize_option(Text)
}

/// A member that is a text of this form.
pub(crate) fn text<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    text.parse().map_err(|error| de::Error::custom(format_args!("{:?}: {error}", quote(&text))))
}

/// A member that is base64.
pub(crate) fn base64_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let bytes = maybe_base64(deserializer)?;
    bytes.ok_or_else(|| de::Error::custom("null is not base64"))
}

/// A member that is so many bytes, in base64.
pub(crate) fn base64_array<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    let bytes = base64_bytes(deserializer)?;
    let refused = |_| de::Error::custom(format_args!("{} bytes in base64, not {N}", bytes.len()));
    bytes[..].try_into().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_whole_or_refused() {
        assert_eq!(*percent_decode("a%2Fb+c%00%ff").unwrap(), *b"a/b c\x00\xff");
        for refused in ["%", "%2", "%2g", "a%zz", "%%41", "%+1"] {
            assert_eq!(percent_decode(refused).unwrap_err().kind(), Kind::Malformed, "{refused}");
        }
    }

    #[test]
    fn a_query_has_known_names_only_and_may_repeat_them() {
        let query = Query::parse(Some("key=a&key=%00&key&version=7"), &["key", "version"]).unwrap();
        assert_eq!(query.all("key").collect::<Vec<_>>(), [&b"a"[..], b"\0", b""]);
        assert_eq!(query.number("version").unwrap(), Some(7));
        assert!(query.one("key").is_err());
        assert!(Query::parse(Some("kye=a"), &["key"]).is_err());
        for refused in ["", "-1", "01", "1.0", "1e3", "9007199254740992", "99999999999999999999"] {
            let text = format!("version={refused}");
            let query = Query::parse(Some(&text), &["version"]).unwrap();
            assert_eq!(query.version().unwrap_err().kind(), Kind::Malformed, "{refused}");
        }
    }

    #[test]
    fn no_more_of_an_array_is_kept_than_allowed() {
        for (json, kept, count) in [("[]", 0, 0), ("[1,2]", 2, 2), ("[1,2,3,\"x\"]", 2, 4)] {
            let read: AtMost<u8, 2> = serde_json::from_str(json).unwrap();
            assert_eq!((read.items.len(), read.count), (kept, count));
        }
    }
}
