//! Goal: a checkpoint is accepted only with the quorum its policy asks for, and a policy says one thing.
//!
//! Method: cosignatures of every listed wrong kind, signed with keys the test holds; every rule of the
//! policy file broken in a line of its own; every byte of a policy changed to every other.
#![allow(clippy::unwrap_used)]

mod signers;

use anwansi_proofs::{
    Cosignature, Error, Format, POLICY_BYTES_MAX, POLICY_NAMES_MAX, Policy, Signature, cosignature,
};
use ed25519_dalek::Signer;

use signers::{Party, body, log, malformed, note, one_byte_changed, text, vector};

fn witnesses() -> [Party; 3] {
    [Party::new("w.example/a", 11), Party::new("w.example/b", 12), Party::new("w.example/c", 13)]
}

/// A policy of the log, the three witnesses as a, b, c, and the lines given.
fn policy(lines: &str) -> Result<Policy, Error> {
    let [a, b, c] = witnesses().map(|witness| witness.witness_key());
    let log = log().log_key();
    Policy::parse(&format!("log {log}\nwitness a {a}\nwitness b {b}\nwitness c {c}\n{lines}"))
}

#[test]
fn a_policy_with_a_changed_byte_is_refused_or_only_its_blanks_and_comments_changed() {
    let vector = vector();
    let (log, witness) = (text(&vector, "log_vkey"), text(&vector, "witness_vkey"));
    let text =
        format!("# one\nlog {log}\nwitness ann {witness}\ngroup g all ann\nquorum g # end\n");
    let policy = Policy::parse(&text).unwrap();
    let comments = [0.."# one".len(), text.rfind('#').unwrap()..text.len() - 1];
    for (at, changed) in one_byte_changed(&text) {
        let Ok(same) = Policy::parse(&changed) else { continue };
        assert_eq!(same, policy, "{changed}");
        let (was, is) = (text.as_bytes()[at], changed.as_bytes()[at]);
        let blank = [was, is].iter().all(|byte| b" \t\n".contains(byte));
        let comment = comments.iter().any(|comment| comment.contains(&at));
        assert!(blank || comment, "byte {at} of {changed:?}");
    }
}

#[test]
fn quorums_count_witnesses_once() {
    let [a, b, c] = witnesses();
    let signed = log().sign(&body());
    let (a1, b1, c1) = (a.cosign(&body(), 100), b.cosign(&body(), 200), c.cosign(&body(), 300));
    let met = |lines: &str, cosignatures: &[&Signature]| {
        let mut signatures = vec![signed.clone()];
        signatures.extend(cosignatures.iter().map(|one| (*one).clone()));
        policy(lines).unwrap().verify(&note(&signatures)).map(|_| ())
    };
    let no = Err(Error::NoQuorum);
    assert_eq!(met("quorum none\n", &[]), Ok(()));
    assert_eq!(met("quorum b\n", &[&b1]), Ok(()));
    assert_eq!(met("quorum b\n", &[&a1, &c1]), no);
    let two = "group g 2 a b c\nquorum g\n";
    assert_eq!(met(two, &[&a1, &c1]), Ok(()));
    assert_eq!(met(two, &[&a1]), no);
    assert_eq!(met(two, &[&a1, &a1, &a.cosign(&body(), 101)]), no);
    assert_eq!(met("group g any a b c\nquorum g\n", &[&c1]), Ok(()));
    assert_eq!(met("group g any a b c\nquorum g\n", &[]), no);
    assert_eq!(met("group g all a b c\nquorum g\n", &[&a1, &b1]), no);
    assert_eq!(met("group g all a b c\nquorum g\n", &[&a1, &b1, &c1]), Ok(()));
    let nested = "group g any a b\ngroup h all g c\nquorum h\n";
    assert_eq!(met(nested, &[&b1, &c1]), Ok(()));
    assert_eq!(met(nested, &[&a1, &b1]), no);

    // By no witness: the log's key as a cosigner, a witness's key of type 0x01, a witness under
    // another name.
    let strangers = [
        log().cosign(&body(), 5),
        a.sign(&body()),
        Party::new("w.example/x", 11).cosign(&body(), 5),
    ];
    assert_eq!(met(two, &[&a1, &strangers[0], &strangers[1], &strangers[2]]), no);

    // A witness of the policy who is wrong rejects the note, needed or not.
    let key_id = c.witness_key().id();
    let wrong = Err(Error::BadSignature { key_id });
    assert_eq!(met(two, &[&a1, &b1, &c.cosign("other\n", 5)]), wrong);
    assert_eq!(met("quorum none\n", &[&c.cosign("other\n", 5)]), wrong);
    let mut later = c1.bytes().to_vec();
    later[7] ^= 1;
    let later = Signature::new(&c.witness_key(), &later);
    assert_eq!(met(two, &[&a1, &b1, &later]), wrong);
    let signature = c.secret.sign(body().as_bytes()).to_bytes();
    let timeless = Signature::new(&c.witness_key(), &signature);
    assert_eq!(met(two, &[&a1, &b1, &timeless]), wrong);
    assert_eq!(met(two, &[&a1, &c.cosign(&body(), cosignature::TIME_MAX)]), Ok(()));
    assert_eq!(met(two, &[&a1, &c.cosign(&body(), cosignature::TIME_MAX + 1)]), wrong);
}

#[test]
fn freshness_counts_only_cosignatures_from_then_on() {
    let [a, b, _] = witnesses();
    let shown = note(&[
        log().sign(&body()),
        a.cosign(&body(), 300),
        b.cosign(&body(), 200),
        a.cosign(&body(), 100),
    ]);
    let fresh = |lines: &str, time| {
        let policy = policy(lines).unwrap();
        policy.fresh_since(&policy.verify(&shown).unwrap(), time)
    };
    assert!(fresh("group g 2 a b c\nquorum g\n", 200));
    assert!(!fresh("group g 2 a b c\nquorum g\n", 201));
    assert!(fresh("quorum a\n", 300));
    assert!(!fresh("quorum a\n", 301));
    // Without a quorum nobody vouches for any time.
    assert!(!fresh("quorum none\n", 0));
    let times: Vec<u64> = policy("quorum none\n")
        .unwrap()
        .verify(&shown)
        .unwrap()
        .cosignatures()
        .iter()
        .map(Cosignature::time)
        .collect();
    assert_eq!(times, [300, 200]);
    // A checkpoint accepted under one policy says nothing to another that knows other witnesses.
    let checkpoint = policy("quorum a\n").unwrap().verify(&shown).unwrap();
    let other = Policy::parse(&format!(
        "log {}\nwitness a {}\nquorum a\n",
        log().log_key(),
        Party::new("w.example/z", 14).witness_key()
    ));
    assert!(!other.unwrap().fresh_since(&checkpoint, 0));
}

#[test]
fn policies_are_refused_at_the_line_that_is_wrong() {
    let refused = |lines: &str, at| {
        assert_eq!(policy(lines), malformed(Format::Policy, at), "{lines}");
    };
    let stranger = Party::new("w.example/d", 14);
    let wrong_lines = [
        "quorum d\n".into(),
        "quorum\n".into(),
        "quorum none none\n".into(),
        "quorum none".into(),
        "quorum none\r\n".into(),
        "quorum \u{7f}\n".into(),
        "quorum none#\n".into(),
        "Quorum none\n".into(),
        format!("log {}\n", stranger.log_key()),
        format!("witness none {}\n", stranger.witness_key()),
        format!("witness a {}\n", stranger.witness_key()),
        format!("witness d {}\n", stranger.log_key()),
        format!("witness d {} https://w.example\n", stranger.witness_key()),
        format!("witness d # {}\n", stranger.witness_key()),
        "witness d\n".into(),
        // Known public keys under another name.
        format!("witness d {}\n", Party::new("w.example/d", 11).witness_key()),
        format!("witness d {}\n", log().witness_key()),
        "group g\n".into(),
        "group g any\n".into(),
        "group g all # a\n".into(),
        "group g 0 a\n".into(),
        "group g 2 a\n".into(),
        "group g 01 a\n".into(),
        "group g some a\n".into(),
        "group g 1 a a\n".into(),
        "group g 1 d\n".into(),
        "group g 1 g\n".into(),
        "group g 1 none\n".into(),
        "group none 1 a\n".into(),
        "group a 1 b\n".into(),
    ];
    for line in wrong_lines {
        refused(&line, 5);
        refused(&format!("# comment\n\n{line}"), 7);
    }
    refused("", 5);
    refused("quorum none\nquorum none\n", 6);
    refused("quorum g\ngroup g any a\n", 5);
    refused("group g any a\ngroup h any a b\nquorum h\n", 6);
    assert_eq!(Policy::parse(""), malformed(Format::Policy, 1));
    assert_eq!(Policy::parse("quorum none\n"), malformed(Format::Policy, 2));
    // The log's key as that of a witness, defined before the log.
    let reversed = format!("witness w {}\nlog {}\n", log().witness_key(), log().log_key());
    assert_eq!(Policy::parse(&reversed), malformed(Format::Policy, 2));
    let of_witness = format!("log {}\nquorum none\n", log().witness_key());
    assert_eq!(Policy::parse(&of_witness), malformed(Format::Policy, 1));
    let long = "#".repeat(POLICY_BYTES_MAX);
    assert_eq!(policy(&long), malformed(Format::Policy, 1));

    assert_eq!(policy("\tgroup  g\t1 a #c\n #\nquorum g#\n"), malformed(Format::Policy, 7));
    assert_eq!(policy("\tgroup  g\t1 a #c\n #\nquorum g #\n"), policy("group g 1 a\nquorum g\n"));
    assert!(policy("group g# 1 a\nquorum g#\n").is_ok());
}

#[test]
fn a_policy_has_at_most_128_names() {
    let lines = |groups: usize| {
        let groups: String = (1..=groups)
            .map(|i| {
                if i == 1 {
                    "group g1 any a\n".into()
                } else {
                    format!("group g{i} any g{}\n", i - 1)
                }
            })
            .collect();
        format!("{groups}quorum a\n")
    };
    // Three witnesses are named in lines 2 to 4.
    assert!(policy(&lines(POLICY_NAMES_MAX - 3)).is_ok());
    let refused = malformed(Format::Policy, 5 + POLICY_NAMES_MAX - 3);
    assert_eq!(policy(&lines(POLICY_NAMES_MAX - 2)), refused);
    // A chain of groups that is as deep as it can be.
    let deep = lines(POLICY_NAMES_MAX - 3).replace("quorum a", "quorum g125");
    let [a, ..] = witnesses();
    let shown = note(&[log().sign(&body()), a.cosign(&body(), 1)]);
    assert!(policy(&deep).unwrap().verify(&shown).is_ok());
    assert_eq!(policy(&deep).unwrap().verify(&note(&[log().sign(&body())])), Err(Error::NoQuorum));
}
