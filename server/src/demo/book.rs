//! Moby-Dick, as it ships with the program: its chapters, and the counts to compare with.

use std::{collections::BTreeMap, io::Read as _};

use flate2::read::GzDecoder;

/// The chapters, a form feed between one and the next (data/README.md).
const BOOK: &[u8] = include_bytes!("../../data/moby-dick.txt.gz");
const SEPARATOR: char = '\x0c';

/// The chapters, in their order.
pub(super) fn chapters() -> Vec<String> {
    let mut book = String::new();
    let read = GzDecoder::new(BOOK).read_to_string(&mut book);
    read.expect("the file in the program is whole, and UTF-8");
    book.split(SEPARATOR).map(String::from).collect()
}

/// How often each word occurs in all `chapters` together: the meaning of `wordcount/1`, in one pass and
/// without its code.
pub(super) fn count(chapters: &[String]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for chapter in chapters {
        let mut word = String::new();
        // What stands behind the last letter ends the last word.
        for letter in chapter.chars().chain([' ']) {
            if letter.is_ascii_alphabetic() || letter == '\'' {
                word.push(letter.to_ascii_lowercase());
            } else if !word.is_empty() {
                *counts.entry(std::mem::take(&mut word)).or_default() += 1;
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_has_its_chapters_and_words() {
        let chapters = chapters();
        assert_eq!(chapters.len(), 135);
        assert!(chapters[0].starts_with("CHAPTER 1. Loomings.\n\nCall me Ishmael."));
        for (number, chapter) in (1..).zip(&chapters) {
            assert!(chapter.starts_with(&format!("CHAPTER {number}. ")), "{number}");
        }
        assert_eq!(count(&chapters[..1])["ishmael"], 2);
        assert!(count(&chapters)["whale"] > 1000);
    }
}
