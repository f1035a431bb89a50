//! Counts the words of a text: `wordcount/1`.
//!
//! A word is a longest run of ASCII letters and `'`, lower-cased; all other bytes stand between words. The
//! result is an object of words with their counts, so that `sum_by_key` adds the chapters of a book up.
//!
//! **Noise**: lines are counted in a random order. A word never spans lines, since a newline is no letter.

use std::collections::BTreeMap;

use anwansi_proofs::{Digest, Json};

use super::{INPUT_BYTES_MAX, Noise, Program, ProgramError, check_length};

/// Counts the words of a text.
#[derive(Clone, Copy, Debug, Default)]
pub struct WordCount;

impl Program for WordCount {
    fn name(&self) -> &'static str {
        "wordcount/1"
    }

    fn run(&self, input: &[u8], seed: &Digest) -> Result<Vec<u8>, ProgramError> {
        check_length(input, INPUT_BYTES_MAX)?;
        let counts = count(input, &mut Noise::new(seed), |_| {});
        Ok(Json::from(counts).to_bytes())
    }
}

/// Counts the words of all lines; `visit` hears which line comes next.
fn count(text: &[u8], noise: &mut Noise, mut visit: impl FnMut(usize)) -> BTreeMap<String, u64> {
    let lines = text.split(|byte| *byte == b'\n').collect::<Vec<_>>();
    let mut counts = BTreeMap::new();
    for line in noise.order(lines.len()) {
        visit(line);
        let words = lines[line].split(|byte| !is_letter(*byte)).filter(|word| !word.is_empty());
        for word in words {
            let word = str::from_utf8(word).expect("letters are ASCII").to_ascii_lowercase();
            *counts.entry(word).or_default() += 1;
        }
    }
    counts
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'\''
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letter by letter, from the first to the last.
    fn naive(text: &[u8]) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        let mut word = String::new();
        for byte in text.iter().chain(b" ") {
            match byte {
                b'A'..=b'Z' => word.push((byte - b'A' + b'a').into()),
                b'a'..=b'z' | b'\'' => word.push((*byte).into()),
                _ if word.is_empty() => {}
                _ => *counts.entry(std::mem::take(&mut word)).or_default() += 1,
            }
        }
        counts
    }

    fn run(text: &[u8], seed: u8) -> String {
        String::from_utf8(WordCount.run(text, &Digest([seed; 32])).unwrap()).unwrap()
    }

    #[test]
    fn words_are_runs_of_letters_and_apostrophes() {
        assert_eq!(run(b"", 0), "{}");
        assert_eq!(run(b" \n\n--1851.\xff", 0), "{}");
        assert_eq!(run(b"Call me Ishmael.", 0), r#"{"call":1,"ishmael":1,"me":1}"#);
        let text = b"The whale's a-whale\nthe\r\nWHALE'S 'tis 2whale";
        let counts = r#"{"'tis":1,"a":1,"the":2,"whale":2,"whale's":2}"#;
        assert_eq!(run(text, 0), counts);
        assert_eq!(run("na\u{ef}ve\u{2019}s".as_bytes(), 0), r#"{"na":1,"s":1,"ve":1}"#);
    }

    #[test]
    fn the_noise_changes_the_way_and_not_the_result() {
        let line = |i: u32| format!("line {i} of the whale{}\nit's ", "'s Whale".repeat(3));
        let text = (0..40).map(line).collect::<String>().into_bytes();
        let mut ways = Vec::new();
        for seed in 0..8 {
            let mut way = Vec::new();
            let counts = count(&text, &mut Noise::new(&Digest([seed; 32])), |line| way.push(line));
            assert_eq!(counts, naive(&text));
            assert_eq!(run(&text, seed), run(&text, 0));
            ways.push(way);
        }
        ways.sort();
        ways.dedup();
        assert_eq!(ways.len(), 8, "each seed works in an order of its own");
    }

    #[test]
    fn an_input_that_is_too_long_is_refused() {
        let long = vec![b'a'; INPUT_BYTES_MAX + 1];
        let refused = WordCount.run(&long, &Digest([0; 32]));
        assert!(matches!(refused, Err(ProgramError::TooLong { bytes, max }) if bytes == max + 1));
        let longest = run(&long[1..], 0);
        assert_eq!(longest.len(), INPUT_BYTES_MAX + r#"{"":1}"#.len());
    }
}
