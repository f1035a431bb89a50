//! A fold of outputs is one value, whatever the order and the grouping of the tasks, or an error that says
//! which of them is at fault.
//!
//! Method: random outputs of every fold are compared with a naive model that looks at one name, place or
//! string at a time, then shuffled, and folded group by group through `add`. Each error, each limit and each
//! combination of `apply` and `spread` by name.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use anwansi_proofs::{
    BigInt, DIGITS_MAX, Error, Fold, FoldError, Format, Json, NESTING_MAX, Object, Operand,
};
use fastrand::Rng;

fn json(text: &str) -> Json {
    Json::parse(text.as_bytes()).unwrap()
}

fn folded(fold: Fold, outputs: &[impl AsRef<[u8]>]) -> Result<String, FoldError> {
    let value = fold.fold(outputs.iter().map(AsRef::as_ref))?;
    Ok(String::from_utf8(value.to_bytes()).unwrap())
}

fn added(fold: Fold, old: Option<&str>, new: &str) -> Result<String, FoldError> {
    let value = fold.add(old.map(str::as_bytes), &json(new))?;
    Ok(String::from_utf8(value.to_bytes()).unwrap())
}

fn wrong<T>(of: Operand, fold: Fold) -> Result<T, FoldError> {
    Err(FoldError::WrongType { of, fold })
}

/// Small and huge ones of both signs, so that sums cancel and carry.
fn any_integer(rng: &mut Rng) -> BigInt {
    let bytes: Vec<u8> = (0..rng.usize(..20)).map(|_| rng.u8(..)).collect();
    if rng.bool() { rng.i32(-3..=3).into() } else { BigInt::from_signed_bytes_be(&bytes) }
}

fn any_name(rng: &mut Rng) -> String {
    ["", "a", "b", "aa", "\n", "\"", "é", "\u{e000}", "\u{10000}"][rng.usize(..9)].into()
}

/// Outputs of `tasks` tasks that the fold takes.
fn any_outputs(fold: Fold, tasks: usize, rng: &mut Rng) -> Vec<Json> {
    let length = rng.usize(..5);
    let one = |task: usize| match fold {
        Fold::Sum | Fold::Min | Fold::Max => any_integer(rng).into(),
        Fold::SumVector => (0..length).map(|_| any_integer(rng)).collect(),
        Fold::SumByKey => {
            let members = (0..rng.usize(..6)).map(|_| (any_name(rng), any_integer(rng)));
            members.collect::<BTreeMap<_, _>>().into()
        }
        Fold::Union => (0..rng.usize(..6)).map(|_| any_name(rng)).collect(),
        Fold::Merge => {
            let members =
                (0..rng.usize(..6)).map(|_| (format!("{}{task}", any_name(rng)), Json::Null));
            members.collect::<BTreeMap<_, _>>().into()
        }
        Fold::List => {
            [Json::Null, any_name(rng).into(), any_integer(rng).into()][rng.usize(..3)].clone()
        }
    };
    (0..tasks).map(one).collect()
}

fn as_integer(value: &Json) -> BigInt {
    if let Json::Integer(integer) = value { integer.clone() } else { panic!("{value:?}") }
}

/// What the folds mean, one name, place or string at a time.
fn model(fold: Fold, outputs: &[Json]) -> Json {
    let integers = || outputs.iter().map(as_integer);
    let arrays = || outputs.iter().filter_map(Json::as_array);
    let objects = || outputs.iter().filter_map(Json::as_object);
    match fold {
        Fold::Sum => integers().sum::<BigInt>().into(),
        Fold::Min => integers().min().unwrap().into(),
        Fold::Max => integers().max().unwrap().into(),
        Fold::SumVector => {
            let place = |at: usize| arrays().map(|array| as_integer(&array[at])).sum::<BigInt>();
            (0..outputs[0].as_array().unwrap().len()).map(place).collect()
        }
        Fold::SumByKey => {
            let names: BTreeSet<&String> = objects().flat_map(Object::keys).collect();
            let sum =
                |name| objects().filter_map(|it| it.get(name)).map(as_integer).sum::<BigInt>();
            Json::Object(names.iter().map(|&name| (name.clone(), sum(name).into())).collect())
        }
        Fold::Union => {
            let mut strings: Vec<&str> =
                arrays().flatten().map(|it| it.as_str().unwrap()).collect();
            strings.sort_by_key(|text| text.as_bytes());
            strings.dedup();
            strings.into_iter().collect()
        }
        Fold::Merge => {
            let members = objects().flatten().map(|(name, value)| (name.clone(), value.clone()));
            Json::Object(members.collect())
        }
        Fold::List => Json::Array(outputs.to_vec()),
    }
}

#[test]
fn folds_are_what_the_model_says_in_any_order_and_grouping() {
    let mut rng = Rng::with_seed(1);
    for fold in Fold::ALL {
        for round in 0..500 {
            let tasks = [1, 2, 3, 4, 5, 7, 8, 9, 33][round % 9];
            let mut outputs = any_outputs(fold, tasks, &mut rng);
            let expected = model(fold, &outputs);
            let fold_all = |outputs: &[Json]| {
                let bytes: Vec<Vec<u8>> = outputs.iter().map(Json::to_bytes).collect();
                fold.fold(bytes.iter().map(Vec::as_slice)).unwrap()
            };
            assert_eq!(fold_all(&outputs), expected, "{fold}");
            if fold == Fold::List {
                continue;
            }
            rng.shuffle(&mut outputs);
            assert_eq!(fold_all(&outputs), expected, "{fold} shuffled");
            let (first, second) = outputs.split_at(rng.usize(..tasks));
            if !first.is_empty() {
                let old = fold_all(first).to_bytes();
                assert_eq!(fold.add(Some(&old), &fold_all(second)), Ok(expected), "{fold} in two");
            }
        }
    }
}

#[test]
fn each_fold_by_example() {
    let examples: [(Fold, &[&str], &str); 17] = [
        (Fold::SumByKey, &[r#"{"a":2,"b":1}"#, r#"{"b":1,"c":1}"#], r#"{"a":2,"b":2,"c":1}"#),
        (Fold::SumByKey, &[r#"{"a":1}"#, r#"{"a":-1}"#], r#"{"a":0}"#),
        (Fold::SumByKey, &["{}", "{}"], "{}"),
        (Fold::Sum, &["18446744073709551615", "1"], "18446744073709551616"),
        (Fold::Sum, &["-9223372036854775808", "-1"], "-9223372036854775809"),
        (Fold::Sum, &["1", "-1"], "0"),
        (Fold::Min, &["3", "-18446744073709551616", "0"], "-18446744073709551616"),
        (Fold::Max, &["3", "18446744073709551616", "0"], "18446744073709551616"),
        (Fold::SumVector, &["[1,-2]", "[10,2]"], "[11,0]"),
        (Fold::SumVector, &["[]", "[]"], "[]"),
        (Fold::Union, &[r#"["b","a","b"]"#, r#"["é","Z"]"#], r#"["Z","a","b","é"]"#),
        (Fold::Union, &["[\"\u{10000}\"]", "[\"\u{e000}\"]"], "[\"\u{e000}\",\"\u{10000}\"]"),
        (Fold::Union, &["[]", r#"[""]"#], r#"[""]"#),
        (
            Fold::Merge,
            &[r#"{"b":[1]}"#, "{}", r#"{"a":{"b":null}}"#],
            r#"{"a":{"b":null},"b":[1]}"#,
        ),
        (Fold::List, &["1", "[]", "\"a\"", "1"], r#"[1,[],"a",1]"#),
        (Fold::List, &["[]"], "[[]]"),
        (Fold::Sum, &["7"], "7"),
    ];
    for (fold, outputs, result) in examples {
        assert_eq!(folded(fold, outputs).as_deref(), Ok(result), "{fold} {outputs:?}");
    }
    assert_eq!(folded(Fold::Sum, &[""; 0]), Err(FoldError::NoOutput));
}

#[test]
fn an_output_of_another_type_is_named_by_its_task() {
    let values = [
        "null",
        "true",
        "1",
        "\"a\"",
        "[]",
        "[1]",
        "[\"a\"]",
        "[1,\"a\"]",
        "{}",
        r#"{"a":1}"#,
        r#"{"a":"b"}"#,
    ];
    let takes = |fold| match fold {
        Fold::Sum | Fold::Min | Fold::Max => ("1", vec!["1"]),
        Fold::SumVector => ("[1]", vec!["[1]"]),
        Fold::SumByKey => ("{}", vec!["{}", r#"{"a":1}"#]),
        Fold::Union => ("[]", vec!["[]", "[\"a\"]"]),
        Fold::Merge => ("{}", vec!["{}", r#"{"a":1}"#, r#"{"a":"b"}"#]),
        Fold::List => ("1", values.to_vec()),
    };
    for fold in Fold::ALL {
        let (good, same_type) = takes(fold);
        for value in values {
            if same_type.contains(&value) {
                assert!(folded(fold, &[good, value]).is_ok(), "{fold} of {value}");
            } else if (fold, value) == (Fold::SumVector, "[]") {
                assert!(folded(fold, &[value]).is_ok());
            } else {
                assert_eq!(folded(fold, &[value]), wrong(Operand::Output(0), fold));
                assert_eq!(folded(fold, &[good, value, good]), wrong(Operand::Output(1), fold));
                if fold.adds() {
                    assert_eq!(added(fold, Some(value), good), wrong(Operand::Old, fold));
                    assert_eq!(added(fold, Some(good), value), wrong(Operand::New, fold));
                    assert_eq!(added(fold, None, value), wrong(Operand::New, fold));
                }
            }
        }
    }
    let error = folded(Fold::SumByKey, &["{}", "{}", r#"{"a":[]}"#]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the output of task 2 is not an object of integers, which sum_by_key takes"
    );
}

#[test]
fn an_output_that_is_not_canonical_is_refused() {
    let refused = |at| Error::Malformed { format: Format::Json, at };
    for fold in Fold::ALL {
        let good = any_outputs(fold, 1, &mut Rng::with_seed(2))[0].to_bytes();
        for bad in [b"".as_slice(), b"\xff", b" ", &[0; 9]] {
            let of = Operand::Output(1);
            let error = refused(0);
            assert_eq!(folded(fold, &[&good, bad]), Err(FoldError::NotCanonical { of, error }));
        }
        let spaced = [good.as_slice(), b" "].concat();
        let (of, error) = (Operand::Output(0), refused(good.len()));
        assert_eq!(folded(fold, &[spaced]), Err(FoldError::NotCanonical { of, error }));
    }
    let error = folded(Fold::Sum, &["1", "01"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the output of task 1: not a well-formed canonical JSON: refused at byte 1"
    );
}

#[test]
fn what_someone_wrote_under_the_key_is_an_error_and_no_more() {
    for fold in Fold::ALL.into_iter().filter(|fold| fold.adds()) {
        let new = &any_outputs(fold, 1, &mut Rng::with_seed(3))[0];
        let deep = [b'['; 10_000];
        for old in [b"".as_slice(), b"hello", b"\xff\xfe", b"{\"a\":1.5}", &deep] {
            let error = fold.add(Some(old), new).unwrap_err();
            assert!(matches!(error, FoldError::NotCanonical { of: Operand::Old, .. }), "{error}");
        }
    }
    let member = Fold::SumByKey.add_member(Some(b"hello"), "a", &json("1")).unwrap_err();
    assert!(matches!(member, FoldError::NotCanonical { of: Operand::Old, .. }));
}

#[test]
fn vectors_of_two_lengths_are_refused() {
    let differs = |of, length, expected| Err(FoldError::LengthDiffers { of, length, expected });
    assert_eq!(
        folded(Fold::SumVector, &["[1,2]", "[1,2]", "[1]"]),
        differs(Operand::Output(2), 1, 2)
    );
    assert_eq!(folded(Fold::SumVector, &["[]", "[1]"]), differs(Operand::Output(1), 1, 0));
    assert_eq!(added(Fold::SumVector, Some("[1]"), "[1,2]"), differs(Operand::New, 2, 1));
}

#[test]
fn a_name_that_two_outputs_have_is_refused_even_with_one_value() {
    let twice = |of, name: &str| Err(FoldError::NameTwice { of, name: name.into() });
    let outputs = [r#"{"a":1}"#, r#"{"b":1}"#, r#"{"a":1}"#];
    assert_eq!(folded(Fold::Merge, &outputs), twice(Operand::Output(2), "a"));
    assert_eq!(added(Fold::Merge, Some(r#"{"a":1}"#), r#"{"a":1}"#), twice(Operand::New, "a"));
    let long = format!("{{\"{}\":0}}", "é".repeat(1000));
    let error = folded(Fold::Merge, &[&long, &long]).unwrap_err().to_string();
    assert!(error.len() < 200 && error.ends_with("éé"), "{error}");
}

#[test]
fn the_result_keeps_to_the_digits_limit_and_sums_on_the_way_need_not() {
    let greatest = "9".repeat(DIGITS_MAX);
    let least = format!("-{greatest}");
    let almost = format!("{}8", "9".repeat(DIGITS_MAX - 1));
    let (greatest, least, almost) = (greatest.as_str(), least.as_str(), almost.as_str());
    let wrapped = |open: &str, close: &str, values: &[&str]| -> Vec<String> {
        values.iter().map(|value| [open, value, close].concat()).collect()
    };
    for (fold, open, close) in [
        (Fold::Sum, "", ""),
        (Fold::SumVector, "[0,", "]"),
        (Fold::SumByKey, "{\"a\":0,\"b\":", "}"),
    ] {
        let of = |values: &[&str]| folded(fold, &wrapped(open, close, values));
        let fits = |value: &str| Ok([open, value, close].concat());
        assert_eq!(of(&[almost, "1"]), fits(greatest), "{fold}");
        assert_eq!(of(&[greatest, "1"]), Err(FoldError::TooLarge), "{fold}");
        assert_eq!(of(&[least, "-1"]), Err(FoldError::TooLarge), "{fold}");
        assert_eq!(of(&[greatest, greatest, least]), fits(greatest), "{fold}");
        assert_eq!(of(&[greatest, least, greatest]), fits(greatest), "{fold}");
        let [old, new] = &wrapped(open, close, &[greatest, "1"])[..] else { panic!() };
        assert_eq!(added(fold, Some(old), new), Err(FoldError::TooLarge), "{fold}");
    }
    assert_eq!(
        Fold::SumByKey.add_member(Some(greatest.as_bytes()), "a", &json("1")),
        Err(FoldError::TooLarge)
    );
    for fold in [Fold::Min, Fold::Max] {
        assert!(folded(fold, &[greatest, least]).is_ok());
    }
}

#[test]
fn a_list_nests_one_deeper_than_its_outputs() {
    let nested = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
    let result = folded(Fold::List, &[nested(NESTING_MAX), nested(1)]).unwrap();
    assert!(Json::parse(result.as_bytes()).is_err());
    assert!(Json::parse_nested(result.as_bytes(), NESTING_MAX + 1).is_ok());
    let refused = folded(Fold::List, &[nested(1), nested(NESTING_MAX + 1)]);
    assert!(matches!(refused, Err(FoldError::NotCanonical { of: Operand::Output(1), .. })));
    let objects =
        |levels: usize| ["{\"a\":".repeat(levels), "0".into(), "}".repeat(levels)].concat();
    assert!(folded(Fold::Merge, &[objects(NESTING_MAX), "{}".into()]).is_ok());
}

#[test]
fn where_nothing_stands_add_gives_the_fold_itself() {
    let mut rng = Rng::with_seed(4);
    for fold in Fold::ALL {
        let new = model(fold, &any_outputs(fold, 3, &mut rng));
        if fold.adds() {
            assert_eq!(fold.add(None, &new), Ok(new));
        } else {
            assert_eq!(fold.add(None, &new), Err(FoldError::NotAddable { fold }));
            assert_eq!(fold.add(Some(b"[]"), &new), Err(FoldError::NotAddable { fold }));
        }
    }
    // What stands there need not be a result of this fold, only of its type.
    assert_eq!(
        added(Fold::Union, Some(r#"["b","a","b"]"#), "[\"a\"]").as_deref(),
        Ok(r#"["a","b"]"#)
    );
}

#[test]
fn spread_gives_the_members_of_objects_only() {
    let value = json(r#"{"":0,"a":-1,"b/c":2}"#);
    for fold in [Fold::SumByKey, Fold::Merge] {
        let members: Vec<(&str, Vec<u8>)> =
            fold.spread(&value).unwrap().map(|(name, member)| (name, member.to_bytes())).collect();
        assert_eq!(members, [("", b"0".to_vec()), ("a", b"-1".to_vec()), ("b/c", b"2".to_vec())]);
        assert_eq!(fold.spread(&json("{}")).unwrap().count(), 0);
        assert_eq!(
            fold.spread(&json("[]")).err(),
            Some(FoldError::WrongType { of: Operand::New, fold })
        );
    }
    let others = [Fold::Sum, Fold::Min, Fold::Max, Fold::SumVector, Fold::Union, Fold::List];
    for fold in others {
        assert_eq!(fold.spread(&value).err(), Some(FoldError::NotSpreadable { fold }));
        let refused = Err(FoldError::NotSpreadable { fold });
        assert_eq!(fold.add_member(None, "a", &json("1")), refused);
        assert_eq!(fold.add_member(Some(b"1"), "a", &json("1")), refused);
    }
}

#[test]
fn spread_members_are_added_one_by_one() {
    let one = json("1");
    assert_eq!(Fold::SumByKey.add_member(None, "a", &one), Ok(json("1")));
    assert_eq!(Fold::SumByKey.add_member(Some(b"-3"), "a", &one), Ok(json("-2")));
    let whole = Fold::SumByKey.add_member(Some(b"{}"), "a", &one);
    assert_eq!(whole, wrong(Operand::Old, Fold::Sum));
    assert_eq!(Fold::Merge.add_member(None, "a", &json("[]")), Ok(json("[]")));
    let twice = FoldError::NameTwice { of: Operand::New, name: "a".into() };
    for old in [b"1".as_slice(), b"2", b"", b"\xff"] {
        assert_eq!(Fold::Merge.add_member(Some(old), "a", &one), Err(twice.clone()));
    }
}

/// Spreading into keys that are there or not leaves what adding the whole object would.
#[test]
fn added_members_make_the_added_whole() {
    let mut rng = Rng::with_seed(5);
    let (mut sums, mut refused) = (0, 0);
    for round in 0..1000 {
        let fold = [Fold::SumByKey, Fold::Merge][round % 2];
        let mut any_object = || any_outputs(fold, rng.usize(1..3), &mut rng).pop().unwrap();
        let (old, new) = (any_object(), any_object());
        let there = old.as_object().unwrap();
        let members = fold.spread(&new).unwrap().map(|(name, member)| {
            let before = there.get(name).map(Json::to_bytes);
            Ok((name.to_owned(), fold.add_member(before.as_deref(), name, member)?))
        });
        let together = members
            .collect::<Result<BTreeMap<_, _>, FoldError>>()
            .map(|members| Json::Object(there.clone().into_iter().chain(members).collect()));
        sums += i32::from(together.is_ok());
        refused += i32::from(together.is_err());
        assert_eq!(together, fold.add(Some(&old.to_bytes()), &new));
    }
    assert!(sums > 500 && refused > 50, "{sums} {refused}");
}

#[test]
fn folds_are_known_by_their_names_only() {
    let names = Fold::ALL.map(|fold| fold.to_string());
    assert_eq!(names.join(" "), "sum min max sum_vector sum_by_key union merge list");
    for (fold, name) in Fold::ALL.into_iter().zip(&names) {
        assert_eq!(name.parse(), Ok(fold));
    }
    for unknown in ["", "Sum", "sum ", "mean", "sum_by_keys"] {
        let error = Error::Malformed { format: Format::Fold, at: 0 };
        assert_eq!(unknown.parse::<Fold>(), Err(error), "{unknown}");
    }
}
