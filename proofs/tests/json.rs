//! Every value has one spelling, and no other bytes are read.
//!
//! Method: random values are written, and each of their bytes is changed, left out, doubled and preceded by
//! others: what is then still read must be written as exactly those bytes. `serde_json` says of documents
//! without fractions whether they are JSON at all. Then each rule and each limit by name.
#![allow(clippy::unwrap_used)]

use anwansi_proofs::{BigInt, DIGITS_MAX, Error, Format, Json, NESTING_MAX, Object};
use fastrand::Rng;
use serde_json::Value;

/// Any value, nested at most `levels` deep, with what is hard to spell in its strings.
fn any(rng: &mut Rng, levels: usize) -> Json {
    match rng.usize(..if levels == 0 { 5 } else { 8 }) {
        0 => Json::Null,
        1 => Json::Bool(rng.bool()),
        2 => Json::from(rng.u64(..) >> rng.u32(..64)),
        3 => {
            let bytes: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
            Json::Integer(BigInt::from_signed_bytes_be(&bytes))
        }
        4 => Json::String(any_text(rng)),
        5 | 6 => (0..rng.usize(..4)).map(|_| any(rng, levels - 1)).collect(),
        _ => {
            let member = |rng: &mut Rng| (any_text(rng), any(rng, levels - 1));
            Json::Object((0..rng.usize(..4)).map(|_| member(rng)).collect())
        }
    }
}

fn any_text(rng: &mut Rng) -> String {
    let edges = [
        '\0',
        '\u{1f}',
        ' ',
        '"',
        '\\',
        '/',
        '\u{7f}',
        '\u{80}',
        '\u{7ff}',
        '\u{ffff}',
        '\u{10ffff}',
    ];
    let any = |rng: &mut Rng| match rng.usize(..4) {
        0 => *rng.choice(&edges).unwrap(),
        1 => rng.char('\0'..' '),
        2 => rng.char('a'..='d'),
        _ => rng.char(..),
    };
    (0..rng.usize(..6)).map(|_| any(rng)).collect()
}

fn refused_at(bytes: impl AsRef<[u8]>) -> Option<usize> {
    match Json::parse(bytes.as_ref()) {
        Ok(_) => None,
        Err(Error::Malformed { format: Format::Json, at }) => Some(at),
        Err(other) => panic!("{other}"),
    }
}

/// Whether the bytes are read; if so, they must be what is written.
fn read(bytes: &[u8]) -> bool {
    let read = Json::parse(bytes);
    if let Ok(value) = &read {
        assert_eq!(value.to_bytes(), bytes, "{}", String::from_utf8_lossy(bytes));
        assert!(value.fits(NESTING_MAX));
    }
    read.is_ok()
}

/// The same value as `serde_json` has it: integers beyond 64 bits are floats there, both sort names by bytes.
fn oracle(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Integer(integer) => Value::Number(integer.to_string().parse().unwrap()),
        Json::String(text) => Value::String(text.clone()),
        Json::Array(values) => values.iter().map(oracle).collect(),
        Json::Object(members) => Value::Object(
            members.iter().map(|(name, value)| (name.clone(), oracle(value))).collect(),
        ),
    }
}

#[test]
fn what_is_written_is_read() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..20_000 {
        let value = any(&mut rng, 4);
        assert_eq!(Json::parse(&value.to_bytes()).as_ref(), Ok(&value));
    }
}

#[test]
fn no_value_has_a_second_spelling() {
    let mut rng = Rng::with_seed(2);
    let (mut tried, mut still_read) = (0_u32, 0_u32);
    let mut attempt = |bytes: &[u8]| {
        tried += 1;
        still_read += u32::from(read(bytes));
    };
    for _ in 0..300 {
        let bytes = any(&mut rng, 3).to_bytes();
        for at in 0..=bytes.len() {
            let (before, after) = bytes.split_at(at);
            attempt(before);
            for with in (0..=0x80).chain([rng.u8(..)]) {
                attempt(&[before, &[with], after].concat());
            }
            let Some((&byte, after)) = after.split_first() else { continue };
            attempt(&[before, after].concat());
            for with in (0..=0x80).chain([rng.u8(..)]) {
                attempt(&[before, &[if with == byte { b'0' } else { with }], after].concat());
            }
        }
    }
    println!("{still_read} of {tried} changed documents were read");
    assert!(still_read > 1000 && tried > 2 * still_read);
}

#[test]
fn what_is_read_is_json_of_the_same_value() {
    let mut rng = Rng::with_seed(3);
    for _ in 0..5_000 {
        let value = any(&mut rng, 4);
        let bytes = value.to_bytes();
        let theirs: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(theirs, oracle(&value));
    }
    // Short documents over the alphabet of the format: whatever is read here is read there, and whatever is
    // read there is read here, but for white space, second spellings, fractions and names out of order.
    let tokens =
        ["[", "]", "{", "}", ",", ":", "0", "1", "-", "\"a\"", "\"b\"", "null", "true", "\"\\n\""];
    let (mut both, mut out_of_order) = (0, 0);
    for _ in 0..400_000 {
        let text: String = (0..rng.usize(1..8)).map(|_| *rng.choice(&tokens).unwrap()).collect();
        let theirs = serde_json::from_str::<Value>(&text);
        assert!(!read(text.as_bytes()) || theirs.is_ok(), "{text}");
        if let Ok(theirs) = theirs {
            let same = serde_json::to_string(&theirs).unwrap() == text;
            assert_eq!(read(text.as_bytes()), same, "{text}");
            both += u32::from(same);
            out_of_order += u32::from(!same);
        }
    }
    assert!(both > 1000 && out_of_order > 10, "{both} {out_of_order}");
}

#[test]
fn each_value_is_spelled_so() {
    let spelled = [
        ("null", Json::Null),
        ("true", true.into()),
        ("false", false.into()),
        ("0", 0_u32.into()),
        ("-1", BigInt::from(-1).into()),
        ("18446744073709551616", Json::Integer(BigInt::from(1) << 64)),
        ("\"\"", "".into()),
        ("[]", Json::Array(Vec::new())),
        ("{}", Json::Object(Object::new())),
        (r#"["",[],{}]"#, Json::Array(vec!["".into(), Vec::<Json>::new().into(), [].into()])),
        (
            r#"{"":1,"a":2,"aa":3,"b":4,"é":5}"#,
            Json::from([
                ("é", 5_u32.into()),
                ("b", 4_u32.into()),
                ("aa", 3_u32.into()),
                ("a", 2_u32.into()),
                ("", 1_u32.into()),
            ]),
        ),
        // U+E000 sorts before U+10000 by its UTF-8 bytes; by UTF-16, as JavaScript sorts, it would not.
        (
            "{\"\u{e000}\":1,\"\u{10000}\":2}",
            Json::from([("\u{10000}", 2_u32.into()), ("\u{e000}", 1_u32.into())]),
        ),
        (r#""\"\\/\b\t\n\f\r""#, "\"\\/\u{8}\t\n\u{c}\r".into()),
        (
            "\"\\u0000\\u0007\\u000b\\u000e\\u001f \u{7f}\u{2028}\"",
            "\0\u{7}\u{b}\u{e}\u{1f} \u{7f}\u{2028}".into(),
        ),
    ];
    for (text, value) in spelled {
        assert_eq!(Json::parse(text.as_bytes()).as_ref(), Ok(&value), "{text}");
        assert_eq!(String::from_utf8(value.to_bytes()).unwrap(), text);
    }
}

#[test]
fn other_spellings_are_refused_where_they_begin() {
    let refused = [
        ("nothing", "", 0),
        ("white space before", " 0", 0),
        ("white space behind", "0 ", 1),
        ("white space within", "[0, 1]", 3),
        ("a newline at the end", "{}\n", 2),
        ("a byte order mark", "\u{feff}0", 0),
        ("two values", "0[]", 1),
        ("a word cut short", "nul", 0),
        ("a word in upper case", "True", 0),
        ("a word too long", "nulll", 4),
        ("an array without end", "[0", 2),
        ("an array with a comma too many", "[0,]", 3),
        ("an array with a comma only", "[,]", 1),
        ("an array without comma", "[0 1]", 2),
        ("the wrong bracket", "[0}", 2),
        ("an object without end", r#"{"a":0"#, 6),
        ("an object with a comma too many", r#"{"a":0,}"#, 7),
        ("a member without value", r#"{"a"}"#, 4),
        ("a name that is no string", "{0:0}", 1),
        ("a name twice", r#"{"a":0,"a":0}"#, 7),
        ("names out of order", r#"{"b":0,"a":0}"#, 7),
        ("names in the order of their spelling", r#"{"!":0,"\u0001":0}"#, 7),
        ("a fraction", "1.0", 1),
        ("an exponent", "1e2", 1),
        ("minus zero", "-0", 1),
        ("a zero before", "01", 1),
        ("a zero before, negative", "-01", 1),
        ("a plus", "+1", 0),
        ("a minus alone", "-", 1),
        ("two minus", "--1", 1),
        ("no number", "NaN", 0),
        ("a string without end", "\"a", 2),
        ("a string that ends in an escape", "\"\\", 1),
        ("an escaped slash", r#""\/""#, 1),
        ("an escape without need", r#""\u0041""#, 1),
        ("a long escape where a short one is", r#""\u000a""#, 1),
        ("a long escape of a quote", r#""\u0022""#, 1),
        ("hex in upper case", r#""\u001F""#, 1),
        ("hex that is none", r#""\u001g""#, 1),
        ("an escape cut short", r#""\u001""#, 1),
        ("an escaped surrogate pair", r#""\ud83d\ude00""#, 1),
        ("an escape that is none", r#""\x""#, 1),
        ("a tab as it is", "\"a\t\"", 2),
        ("a zero byte as it is", "\"\0\"", 1),
        ("single quotes", "'a'", 0),
        ("a comment", "0//", 1),
    ];
    for (name, text, at) in refused {
        assert_eq!(refused_at(text), Some(at), "{name}: {text}");
    }
    let not_utf8: [(&str, &[u8], usize); 5] = [
        ("a continuation alone", b"\"a\x80\"", 2),
        ("two bytes for one", b"\"\xc0\xaf\"", 1),
        ("a surrogate", b"\"\xed\xa0\x80\"", 1),
        ("beyond U+10FFFF", b"\"\xf4\x90\x80\x80\"", 1),
        ("a character cut short", b"\"ab\xe2\x82\"", 3),
    ];
    for (name, bytes, at) in not_utf8 {
        assert_eq!(refused_at(bytes), Some(at), "{name}");
    }
}

#[test]
fn digits_end_at_the_limit() {
    let digits = |count: usize| "7".repeat(count);
    for sign in ["", "-"] {
        for count in [1, 2, 18, 19, 20, 21, 63, 64, DIGITS_MAX - 1, DIGITS_MAX] {
            let text = format!("{sign}{}", digits(count));
            assert!(read(text.as_bytes()), "{count} digits");
            assert_eq!(Json::parse(text.as_bytes()).unwrap(), Json::Integer(text.parse().unwrap()));
        }
        for count in [DIGITS_MAX + 1, DIGITS_MAX + 2, 10_000_000] {
            let at = Some(sign.len() + DIGITS_MAX);
            assert_eq!(refused_at(format!("{sign}{}", digits(count))), at, "{count} digits");
        }
    }
}

#[test]
fn a_computed_integer_fits_up_to_the_last_digit() {
    let beyond = BigInt::from(10).pow(DIGITS_MAX.try_into().unwrap());
    for sign in [1, -1] {
        let of = |integer: BigInt| Json::Integer(integer * sign);
        for fits in [BigInt::ZERO, BigInt::from(1) << (3 * DIGITS_MAX), &beyond - 1] {
            assert!(of(fits.clone()).fits(0));
            assert!(read(&of(fits).to_bytes()));
        }
        for grown in [beyond.clone(), &beyond + 1, BigInt::from(1) << 100_000] {
            assert!(!of(grown.clone()).fits(0));
            assert!(!read(&of(grown.clone()).to_bytes()));
            assert!(!Json::from(vec![of(grown.clone())]).fits(NESTING_MAX));
            assert!(!Json::from([("a", of(grown))]).fits(NESTING_MAX));
        }
    }
}

#[test]
fn nesting_ends_at_the_limit() {
    let nested = |open: &str, close: &str, levels: usize| {
        [open.repeat(levels), "0".into(), close.repeat(levels)].concat()
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[0,", "]")] {
        for levels in [0, 1, 2, NESTING_MAX - 1, NESTING_MAX] {
            assert!(read(nested(open, close, levels).as_bytes()), "{levels}");
        }
        let deeper = nested(open, close, NESTING_MAX + 1);
        assert_eq!(refused_at(&deeper), Some(open.len() * NESTING_MAX));
        let value = Json::parse_nested(deeper.as_bytes(), NESTING_MAX + 1).unwrap();
        assert_eq!(value.to_bytes(), deeper.as_bytes());
        assert!(value.fits(NESTING_MAX + 1) && !value.fits(NESTING_MAX));
        assert!(
            Json::parse_nested(nested(open, close, NESTING_MAX + 2).as_bytes(), NESTING_MAX + 1)
                .is_err()
        );
    }
    assert!(Json::parse_nested(b"0", 0).is_ok());
    assert!(Json::parse_nested(b"[]", 0).is_err());
}

#[test]
fn a_million_brackets_overflow_no_stack() {
    let on_a_small_stack = || {
        for open in ["[", "{\"\":", "[{\"\":"] {
            assert!(refused_at(open.repeat(1_000_000)).is_some());
        }
    };
    std::thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(on_a_small_stack)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn accessors_answer_for_their_kind_and_range_only() {
    let text = r#"["a",true,{"b":1},4294967295,4294967296,18446744073709551615,18446744073709551616,-1,null]"#;
    let document = Json::parse(text.as_bytes()).unwrap();
    let values = document.as_array().unwrap();
    let strings: Vec<_> = values.iter().map(Json::as_str).collect();
    assert_eq!(strings, [Some("a"), None, None, None, None, None, None, None, None]);
    let bools: Vec<_> = values.iter().map(Json::as_bool).collect();
    assert_eq!(bools, [None, Some(true), None, None, None, None, None, None, None]);
    assert_eq!(values.iter().position(|value| value.as_object().is_some()), Some(2));
    assert!(values.iter().all(|value| value.as_array().is_none()));
    let small: Vec<_> = values.iter().filter_map(Json::as_u32).collect();
    assert_eq!(small, [u32::MAX]);
    let large: Vec<_> = values.iter().filter_map(Json::as_u64).collect();
    assert_eq!(large, [u64::from(u32::MAX), 1 << 32, u64::MAX]);
}
