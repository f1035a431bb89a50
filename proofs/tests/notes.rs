//! Goal: only what a policy's keys signed becomes a checkpoint, and each note, key and finality
//! proof has one text.
//!
//! Method: the vector, with every byte of its texts changed to every other; forgeries of each listed
//! kind, signed with keys the test holds; limits at their edge; random damage from fixed seeds.
#![allow(clippy::unwrap_used)]

mod signers;

use anwansi_proofs::{
    Checkpoint, DECIMAL_MAX, Error, Format, KEY_NAME_BYTES_MAX, KeyKind, LogHash, LogProof,
    NOTE_BYTES_MAX, Note, Policy, SIGNATURES_MAX, Signature, Vkey, checkpoint_body,
    log::{LOG_PROOF_BYTES_MAX, SIBLINGS_MAX},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::SigningKey;
use serde_json::Value;
use sha2::{Digest, Sha256};

use signers::{ORIGIN, Party, body, log, malformed, note, one_byte_changed, text, vector};

fn vector_policy(vector: &Value) -> Policy {
    let (log, witness) = (text(vector, "log_vkey"), text(vector, "witness_vkey"));
    Policy::parse(&format!("log {log}\nwitness w {witness}\nquorum w\n")).unwrap()
}

#[test]
fn the_vector_is_accepted_and_can_be_signed_again() {
    let vector = vector();
    let policy = vector_policy(&vector);
    let shown = text(&vector, "checkpoint");
    let checkpoint = policy.verify(shown).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size()), ("example.org/memory", 7));
    let root = hex::decode(vector["log_roots_by_size"][7].as_str().unwrap()).unwrap();
    assert_eq!(checkpoint.root().0[..], root);
    assert_eq!(checkpoint.note(), shown);
    let time = vector["cosigned_at"].as_u64().unwrap();
    let [cosignature] = checkpoint.cosignatures() else { panic!("one witness cosigned") };
    assert_eq!(cosignature.time(), time);
    assert_eq!(cosignature.witness().to_string(), text(&vector, "witness_vkey"));
    assert!(policy.fresh_since(&checkpoint, time));
    assert!(!policy.fresh_since(&checkpoint, time + 1));

    for one in vector["finality"].as_array().unwrap() {
        let text = one["finality"].as_str().unwrap();
        let proof: LogProof = text.parse().unwrap();
        assert_eq!(proof.to_string(), text);
        assert_eq!(proof.index(), one["index"].as_u64().unwrap());
        let header =
            |index: u64| vector["headers"][usize::try_from(index).unwrap()].as_str().unwrap();
        assert_eq!(proof.verify(header(proof.index()).as_bytes(), &policy), Ok(checkpoint.clone()));
        let other = header((proof.index() + 1) % 7).as_bytes();
        let refused = Err(Error::NotInLog { index: proof.index(), size: 7 });
        assert_eq!(proof.verify(other, &policy), refused);
    }

    let party = |seed: &str, vkey: &str| {
        let seed = hex::decode(text(&vector, seed)).unwrap().try_into().unwrap();
        let name = text(&vector, vkey).split('+').next().unwrap().to_string();
        Party { secret: SigningKey::from_bytes(&seed), name }
    };
    let (log, witness) = (party("log_seed", "log_vkey"), party("witness_seed", "witness_vkey"));
    assert_eq!(log.log_key().to_string(), text(&vector, "log_vkey"));
    assert_eq!(witness.witness_key().to_string(), text(&vector, "witness_vkey"));
    let body = checkpoint_body("example.org/memory", 7, checkpoint.root()).unwrap();
    let signatures = vec![log.sign(&body), witness.cosign(&body, time)];
    assert_eq!(Note::new(body, signatures).unwrap().to_string(), shown);
}

#[test]
fn a_checkpoint_with_a_changed_byte_is_refused() {
    let vector = vector();
    let shown = text(&vector, "checkpoint");
    let policy = vector_policy(&vector);
    for (at, changed) in one_byte_changed(shown) {
        assert!(policy.verify(&changed).is_err(), "byte {at} of {changed:?}");
    }
}

#[test]
fn without_witnesses_only_the_line_of_an_unknown_key_may_change() {
    let vector = vector();
    let shown = text(&vector, "checkpoint");
    let policy = Policy::of_log(text(&vector, "log_vkey").parse().unwrap()).unwrap();
    let checkpoint = policy.verify(shown).unwrap();
    assert_eq!(checkpoint.cosignatures(), []);
    let unknown = shown.rfind('\u{2014}').unwrap();
    let mut accepted = 0;
    for (at, changed) in one_byte_changed(shown) {
        if let Ok(same) = policy.verify(&changed) {
            assert!(at > unknown + "\u{2014} ".len() - 1, "byte {at} of {changed:?}");
            let facts = |one: &Checkpoint| (one.origin().to_string(), one.size(), *one.root());
            assert_eq!(facts(&same), facts(&checkpoint));
            accepted += 1;
        }
    }
    assert!(accepted > 1000);
}

#[test]
fn a_finality_proof_with_a_changed_byte_is_refused() {
    let vector = vector();
    let policy = vector_policy(&vector);
    for one in vector["finality"].as_array().unwrap() {
        let index = usize::try_from(one["index"].as_u64().unwrap()).unwrap();
        let header = vector["headers"][index].as_str().unwrap().as_bytes();
        let text = one["finality"].as_str().unwrap();
        // The checkpoint is the same in all of them: its bytes are changed in the first.
        let bytes = if index == 0 { text.len() } else { text.find("\n\n").unwrap() + 2 };
        for (at, changed) in one_byte_changed(text).take_while(|(at, _)| *at < bytes) {
            let Ok(proof) = changed.parse::<LogProof>() else { continue };
            assert_eq!(proof.to_string(), changed);
            assert!(proof.verify(header, &policy).is_err(), "byte {at} of {changed:?}");
        }
    }
}

#[test]
fn a_vkey_with_a_changed_byte_is_refused() {
    let vector = vector();
    for vkey in ["log_vkey", "witness_vkey"] {
        let text = text(&vector, vkey);
        assert_eq!(text.parse::<Vkey>().unwrap().to_string(), text);
        for (at, changed) in one_byte_changed(text) {
            assert!(changed.parse::<Vkey>().is_err(), "byte {at} of {changed}");
        }
    }
}

#[test]
fn vkeys_are_read_strictly() {
    let key = log().log_key().to_string();
    let base64 = key.rsplit('+').next().unwrap();
    assert!(base64.len() == 44 && !base64.contains('+'));
    let text = |name: &str| Vkey::ed25519(name, &log().public()).unwrap().to_string();
    let long = "n".repeat(KEY_NAME_BYTES_MAX);
    for name in ["n", "\u{e9}", "a#b", &long] {
        assert_eq!(text(name).parse::<Vkey>().unwrap().to_string(), text(name));
    }
    let id = &text("n")[2..10];
    assert!(id.contains(|digit| matches!(digit, 'a'..='f')), "to be written in upper case");
    let refused = [
        (String::new(), 0),
        ("n".into(), 1),
        (format!("n+{id}"), 10),
        (format!("+{id}+{base64}"), 0),
        (format!("a b+{id}+{base64}"), 1),
        (format!("a\u{3000}b+{id}+{base64}"), 1),
        (format!("a\u{1}b+{id}+{base64}"), 1),
        (format!("{long}n+{id}+{base64}"), KEY_NAME_BYTES_MAX),
        (format!("n+{}+{base64}", id.to_uppercase()), 2),
        (format!("n+0{id}+{base64}"), 2),
        (format!("m+{id}+{base64}"), 2),
        (format!("n+{id}+{base64}="), 11),
        (format!("n+{id}+{base64}\n"), 11),
        (format!("n+{id}+{}", &base64[..40]), 11),
    ];
    for (text, at) in refused {
        assert_eq!(text.parse::<Vkey>(), malformed(Format::Vkey, at), "{text}");
    }
    // A key of type 0x02 with the right id.
    let typed = [&[2][..], &log().public()].concat();
    let id = hex::encode(&Sha256::digest([&b"n\n"[..], &typed].concat())[..4]);
    let ecdsa = format!("n+{id}+{}", STANDARD.encode(typed));
    assert_eq!(ecdsa.parse::<Vkey>(), malformed(Format::Vkey, 11));
    assert_eq!(log().witness_key().kind(), KeyKind::Cosignature);
    assert_ne!(log().witness_key().id(), log().log_key().id());
}

#[test]
fn keys_that_are_not_reduced_or_of_small_order_are_no_vkeys() {
    // y = 3 is a point; y = p + 3 is another encoding of it.
    let mut reduced = [0; 32];
    reduced[0] = 3;
    let mut unreduced = [0xff; 32];
    (unreduced[0], unreduced[31]) = (0xf0, 0x7f);
    assert!(Vkey::ed25519("n", &reduced).is_ok());
    assert_eq!(Vkey::ed25519("n", &unreduced), malformed(Format::Vkey, 11));
    let mut identity = [0; 32];
    identity[0] = 1;
    let order_8 =
        hex::decode("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05").unwrap();
    for weak in [[0; 32], identity, order_8.try_into().unwrap()] {
        assert_eq!(Vkey::ed25519("n", &weak), malformed(Format::Vkey, 11));
        assert_eq!(Vkey::cosignature("n", &weak), malformed(Format::Vkey, 11));
    }
}

#[test]
fn notes_are_split_at_their_last_empty_line() {
    let line = log().sign("x").to_string();
    for text in ["a\n", "\n", "a\n\nb\n", "a\n\n", "\n\n\n", "\u{2014} a AAAAAAA=\n"] {
        let written = format!("{text}\n{line}\n");
        let note: Note = written.parse().unwrap();
        assert_eq!((note.text(), note.signatures().len()), (text, 1));
        assert_eq!(note.to_string(), written);
    }
    let refused = [
        (String::new(), 1),
        (format!("{line}\n"), 2),
        (format!("\n{line}\n"), 3),
        ("a\n".into(), 2),
        ("a\n\n".into(), 3),
        (format!("a\n{line}\n"), 3),
        (format!("a\n\n{line}"), 3),
        (format!("a\n\n{line}\n\n"), 5),
        (format!("a\n\n{line}\nb\n"), 4),
        (format!("a\r\n\r\n{line}\r\n"), 1),
        (format!("a\n\tb\n\n{line}\n"), 2),
        (format!("a\n\n{line}\n{line} \n"), 4),
        (format!("a\n\n{}\n", line.replace('\u{2014}', "-")), 3),
        (format!("a\n\n{}\n", line.replace(' ', "  ")), 3),
        ("a\n\n\u{2014} n AAAAAA==\n".into(), 3),
        ("a\n\n\u{2014} n AAAAAAB=\n".into(), 3),
        ("a\n\n\u{2014} n AAAAAAA\n".into(), 3),
        ("a\n\n\u{2014} n+n AAAAAAA=\n".into(), 3),
        ("a\n\n\u{2014} n\u{a0}n AAAAAAA=\n".into(), 3),
        ("a\n\n\u{2014}  AAAAAAA=\n".into(), 3),
    ];
    for (text, at) in refused {
        assert_eq!(text.parse::<Note>(), malformed(Format::Note, at), "{text:?}");
    }
}

#[test]
fn notes_are_written_only_if_they_can_be_read() {
    let line = log().sign("x");
    for text in ["", "a", "a\n\nb", "a\u{7}\n", &format!("a\n\n{line}")] {
        assert!(Note::new(text.into(), vec![line.clone()]).is_err(), "{text:?}");
    }
    assert!(Note::new("a\n".into(), vec![]).is_err());
    assert!(Note::new("a\n".into(), vec![line.clone(); SIGNATURES_MAX]).is_ok());
    let many = Note::new("a\n".into(), vec![line.clone(); SIGNATURES_MAX + 1]);
    assert_eq!(many, malformed(Format::Note, 3 + SIGNATURES_MAX));
    let text_of = |len: usize| format!("{}\n", "a".repeat(len - 1));
    let rest = format!("\n{line}\n").len();
    assert!(Note::new(text_of(NOTE_BYTES_MAX - rest), vec![line.clone()]).is_ok());
    assert!(Note::new(text_of(NOTE_BYTES_MAX - rest + 1), vec![line]).is_err());
}

#[test]
fn a_log_signature_is_required_and_a_known_key_may_not_be_wrong() {
    let policy = Policy::of_log(log().log_key()).unwrap();
    let good = log().sign(&body());
    let bad = log().sign("another text\n");
    let key_id = log().log_key().id();
    assert!(policy.verify(&note(std::slice::from_ref(&good))).is_ok());
    assert!(policy.verify(&note(&[good.clone(), good.clone()])).is_ok());
    let mixed = note(&[good.clone(), bad]);
    assert_eq!(policy.verify(&mixed), Err(Error::BadSignature { key_id }));
    let short = Signature::new(&log().log_key(), &good.bytes()[..63]);
    assert_eq!(policy.verify(&note(&[short])), Err(Error::BadSignature { key_id }));

    // The same key under another name, another key under the same name, and the log's key as a
    // witness: all unknown.
    let unknown = [
        Party::new("other", 1).sign(&body()),
        Party::new(ORIGIN, 2).sign(&body()),
        log().cosign(&body(), 7),
    ];
    assert_eq!(policy.verify(&note(&unknown)), Err(Error::NotSigned));
    let [a, b, c] = unknown;
    assert!(policy.verify(&note(&[a, b, c, good])).is_ok());
    assert!(Policy::of_log(log().witness_key()).is_err());
}

#[test]
fn a_key_of_one_kind_has_no_signatures_of_the_other() {
    let signatures = vec![log().sign(&body()), log().cosign(&body(), 7)];
    let note = Note::new(body(), signatures).unwrap();
    assert_eq!(note.signed_by(&log().log_key()), Ok(true));
    assert_eq!(note.signed_by(&log().witness_key()), Ok(false));
    assert_eq!(note.cosigned_by(&log().witness_key()), Ok(Some(7)));
    assert_eq!(note.cosigned_by(&log().log_key()), Ok(None));
}

#[test]
fn a_signature_with_s_plus_the_order_rejects_the_note() {
    let order = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let mut bytes = log().sign(&body()).bytes().to_vec();
    let mut carry = 0;
    for (s, order) in bytes[32..].iter_mut().zip(hex::decode(order).unwrap()) {
        let sum = u16::from(*s) + u16::from(order) + carry;
        (*s, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    let forged = note(&[Signature::new(&log().log_key(), &bytes)]);
    let refused = Err(Error::BadSignature { key_id: log().log_key().id() });
    assert_eq!(Policy::of_log(log().log_key()).unwrap().verify(&forged), refused);
}

#[test]
fn checkpoint_bodies_have_one_text() {
    let root = LogHash([5; 32]).to_string();
    let empty = LogHash::empty().to_string();
    let policy = Policy::of_log(log().log_key()).unwrap();
    let verify = |body: &str| {
        let note = Note::new(body.into(), vec![log().sign(body)]).unwrap();
        policy.verify(&note.to_string()).map(|checkpoint| checkpoint.size())
    };
    assert_eq!(verify(&format!("{ORIGIN}\n0\n{empty}\n")), Ok(0));
    assert_eq!(verify(&format!("{ORIGIN}\n{DECIMAL_MAX}\n{root}\n")), Ok(DECIMAL_MAX));
    let refused = [
        (format!("\n1\n{root}\n"), 1),
        (format!("{ORIGIN}\n01\n{root}\n"), 2),
        (format!("{ORIGIN}\n+1\n{root}\n"), 2),
        (format!("{ORIGIN}\n\n{root}\n"), 2),
        (format!("{ORIGIN}\n{}\n{root}\n", DECIMAL_MAX + 1), 2),
        (format!("{ORIGIN}\n1\n"), 3),
        (format!("{ORIGIN}\n1\n{root} \n"), 3),
        (format!("{ORIGIN}\n0\n{root}\n"), 3),
        (format!("{ORIGIN}\n1\n{empty}\n"), 3),
        (format!("{ORIGIN}\n1\n{root}\nextension\n"), 4),
        (format!("{ORIGIN}\n1\n{root}\n\n"), 4),
    ];
    for (body, at) in refused {
        assert_eq!(verify(&body), malformed(Format::Checkpoint, at), "{body:?}");
    }
    assert_eq!(verify(&format!("example.org\n1\n{root}\n")), Err(Error::OriginMismatch));
    for (origin, size, root, at) in [
        ("", 1, LogHash([5; 32]), 1),
        ("a\n5", 1, LogHash([5; 32]), 4),
        ("a\tb", 1, LogHash([5; 32]), 1),
        ("a", DECIMAL_MAX + 1, LogHash([5; 32]), 2),
        ("a", 0, LogHash([5; 32]), 3),
    ] {
        assert_eq!(checkpoint_body(origin, size, &root), malformed(Format::Checkpoint, at));
    }
}

#[test]
fn finality_proofs_have_one_text() {
    let checkpoint = note(&[log().sign(&body())]);
    let hash = LogHash([9; 32]).to_string();
    let first = "c2sp.org/tlog-proof@v1";
    let accepted = [
        format!("{first}\nindex 0\n\n{checkpoint}"),
        format!("{first}\nindex {DECIMAL_MAX}\n{hash}\n{hash}\n\n{checkpoint}"),
        format!("{first}\nextra AAE=\nindex 3\n{hash}\n\n{checkpoint}"),
        format!("{first}\nindex 3\n{}\n{checkpoint}", format!("{hash}\n").repeat(SIBLINGS_MAX)),
    ];
    for text in accepted {
        assert_eq!(text.parse::<LogProof>().unwrap().to_string(), text);
    }
    let many = format!("{hash}\n").repeat(SIBLINGS_MAX + 1);
    let refused = [
        (String::new(), 1),
        (format!("{first}\n\n{checkpoint}"), 2),
        (format!("{first}\nindex 0\n{checkpoint}"), 3),
        (format!("{first} \nindex 0\n\n{checkpoint}"), 1),
        (format!("\n{first}\nindex 0\n\n{checkpoint}"), 1),
        (format!("{first}\r\nindex 0\r\n\r\n{checkpoint}"), 1),
        (format!("{first}\nindex 00\n\n{checkpoint}"), 2),
        (format!("{first}\nindex {}\n\n{checkpoint}", DECIMAL_MAX + 1), 2),
        (format!("{first}\nextra\nindex 0\n\n{checkpoint}"), 2),
        (format!("{first}\nextra \nindex 0\n\n{checkpoint}"), 2),
        (format!("{first}\nextra AAF=\nindex 0\n\n{checkpoint}"), 2),
        (format!("{first}\nextra AAE=\nextra AAE=\nindex 0\n\n{checkpoint}"), 3),
        (format!("{first}\nindex 0\nextra AAE=\n\n{checkpoint}"), 3),
        (format!("{first}\nindex 0\nindex 0\n\n{checkpoint}"), 3),
        (format!("{first}\nindex 0\n{hash}\n{hash}=\n\n{checkpoint}"), 4),
        (format!("{first}\nindex 0\n{many}\n{checkpoint}"), 3 + SIBLINGS_MAX),
        (format!("{first}\nextra {}\n", "A".repeat(LOG_PROOF_BYTES_MAX)), 1),
    ];
    for (text, at) in refused {
        assert_eq!(text.parse::<LogProof>(), malformed(Format::LogProof, at), "{text:.200}");
    }
    let cut = format!("{first}\nindex 0\n\n{}", checkpoint.trim_end());
    assert_eq!(cut.parse::<LogProof>(), malformed(Format::Note, 5));
    let note: Note = checkpoint.parse().unwrap();
    assert!(LogProof::new(DECIMAL_MAX + 1, vec![], note.clone()).is_err());
    assert!(LogProof::new(0, vec![LogHash([9; 32]); SIBLINGS_MAX + 1], note.clone()).is_err());
    let longest = LogProof::new(0, vec![LogHash([9; 32]); SIBLINGS_MAX], note).unwrap();
    assert_eq!(longest.to_string().parse(), Ok(longest));
}

#[test]
fn the_extra_line_is_ignored_and_the_size_is_the_checkpoints() {
    let vector = vector();
    let policy = vector_policy(&vector);
    let header = vector["headers"][3].as_str().unwrap().as_bytes();
    let shown = vector["finality"][1]["finality"].as_str().unwrap();
    let plain: LogProof = shown.parse().unwrap();
    let with_extra: LogProof = shown.replace("\nindex", "\nextra AAE=\nindex").parse().unwrap();
    assert_eq!(plain.verify(header, &policy), with_extra.verify(header, &policy));

    // The proof for the log of 4 entries, whose root is a node of this one, under this checkpoint.
    let siblings = &plain.siblings()[..2];
    let note: Note = text(&vector, "checkpoint").parse().unwrap();
    let short = LogProof::new(3, siblings.to_vec(), note).unwrap();
    let refused = Err(Error::NotInLog { index: 3, size: 7 });
    assert_eq!(short.verify(header, &policy), refused);
}

#[test]
fn a_checkpoint_continues_an_older_one_of_its_log_only() {
    let vector = vector();
    let secret: [u8; 32] = hex::decode(text(&vector, "log_seed")).unwrap().try_into().unwrap();
    let checkpoint = |name: &str, size: usize| {
        let log = Party { secret: SigningKey::from_bytes(&secret), name: name.into() };
        let root = hex::decode(vector["log_roots_by_size"][size].as_str().unwrap()).unwrap();
        let root = LogHash(root.try_into().unwrap());
        let body = checkpoint_body(name, u64::try_from(size).unwrap(), &root).unwrap();
        let note = Note::new(body.clone(), vec![log.sign(&body)]).unwrap().to_string();
        Policy::of_log(log.log_key()).unwrap().verify(&note).unwrap()
    };
    for step in vector["consistency"].as_array().unwrap() {
        let [from, to] =
            ["from", "to"].map(|name| usize::try_from(step[name].as_u64().unwrap()).unwrap());
        let proof: Vec<LogHash> = step["proof"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hash| hash.as_str().unwrap().parse().unwrap())
            .collect();
        let (older, newer) = (checkpoint("a", from), checkpoint("a", to));
        assert_eq!(newer.continues(&older, &proof), Ok(()));
        assert_eq!(newer.continues(&checkpoint("a", 0), &[]), Ok(()));
        assert_eq!(newer.continues(&checkpoint("b", from), &proof), Err(Error::OriginMismatch));
        if from < to {
            assert!(older.continues(&newer, &proof).is_err());
            assert!(newer.continues(&older, &[]).is_err());
        }
    }
}

#[test]
fn damaged_texts_never_panic_and_never_read_as_two() {
    let seed = 0x006e_6f74_6531;
    println!("seed {seed:#x}");
    let mut random = fastrand::Rng::with_seed(seed);
    let vector = vector();
    let finality = vector["finality"][0]["finality"].as_str().unwrap();
    let policy = format!("log {}\nquorum none\n", text(&vector, "log_vkey"));
    let texts = [text(&vector, "checkpoint"), finality, text(&vector, "log_vkey"), &policy];
    let scraps =
        ["\n", "\n\n", "\u{2014} ", "+", "=", "index ", "extra ", " ", "0", "quorum ", "#"];
    for _ in 0..40_000 {
        let mut damaged = random.choice(texts).unwrap().to_string();
        for _ in 0..random.usize(1..4) {
            let at = (0..=random.usize(0..=damaged.len())).rev();
            let at = at.into_iter().find(|at| damaged.is_char_boundary(*at)).unwrap();
            match random.u8(0..3) {
                0 => damaged.truncate(at),
                1 => damaged.insert_str(at, random.choice(scraps).unwrap()),
                _ => damaged = damaged.split_off(at),
            }
        }
        if let Ok(note) = damaged.parse::<Note>() {
            assert_eq!(note.to_string(), damaged);
        }
        if let Ok(proof) = damaged.parse::<LogProof>() {
            assert_eq!(proof.to_string(), damaged);
        }
        if let Ok(key) = damaged.parse::<Vkey>() {
            assert_eq!(key.to_string(), damaged);
        }
        let _ = Policy::parse(&damaged);
    }
}
