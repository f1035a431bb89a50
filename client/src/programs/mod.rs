//! What nodes run: from a task's input to its result, each time in another way.
//!
//! All nodes that run a task must come to the same bytes, or there is no agreement. So a program reads
//! nothing but its input: no clock, no file, no floating point whose last digit depends on the machine. Its
//! result is canonical JSON, of the kind that the transition's fold takes.
//!
//! **Noise.** Each node that is drawn has a seed of its own. From it a program derives a variation of the
//! work that is worth the same (another order, another basis) and undoes it in the end, so that a fault
//! that depends on the way does not lead all nodes astray together.

mod matmul;
mod wordcount;

use std::fmt;

use anwansi_proofs::{Digest, hash::Hasher};

pub use matmul::{MatMul, MatMulFault, Matrix};
pub use wordcount::WordCount;

/// The longest input that a program of this crate takes, in bytes.
pub const INPUT_BYTES_MAX: usize = 16 << 20;

/// What a node runs. Other programs than those of this crate are welcome.
pub trait Program: Send + Sync {
    /// Its name in specifications, with its version: a program that answers otherwise has another one.
    fn name(&self) -> &str;

    /// The digest of its code, for specifications that ask for it; none asks for the programs of this crate.
    fn code(&self) -> Option<Digest> {
        None
    }

    /// Runs the program on a task's input, on the variation that the seed gives. The result does not
    /// depend on the seed.
    ///
    /// # Errors
    /// [`ProgramError`]: there is no result, and this node pledges none.
    fn run(&self, input: &[u8], seed: &Digest) -> Result<Vec<u8>, ProgramError>;
}

/// Why a program gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The input is longer than the program takes.
    #[error("the input has {bytes} bytes: {max} are the most")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The most that is taken.
        max: usize,
    },
    /// The input is not what the program takes.
    #[error("the input is not what the program takes: {0}")]
    Input(Box<dyn std::error::Error + Send + Sync>),
    /// The program failed, on an input that may be right.
    #[error("the program failed: {0}")]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// The programs of this crate.
#[must_use]
pub fn all() -> Vec<Box<dyn Program>> {
    vec![Box::new(WordCount), Box::new(MatMul)]
}

/// The program of this crate with this name; without a version, the newest of that name.
#[must_use]
pub fn named(name: &str) -> Option<Box<dyn Program>> {
    let same =
        |full: &str| full == name || full.rsplit_once('/').is_some_and(|(short, _)| short == name);
    all().into_iter().find(|program| same(program.name()))
}

fn check_length(input: &[u8], max: usize) -> Result<(), ProgramError> {
    let bytes = input.len();
    if bytes > max { Err(ProgramError::TooLong { bytes, max }) } else { Ok(()) }
}

/// Random numbers from a seed, the same on every machine: H(seed || 0), H(seed || 1), ... as
/// little-endian words, the counter as eight bytes, little-endian.
struct Noise {
    seed: Digest,
    blocks: u64,
    /// The last block; the first of its words were taken already.
    block: [u8; 32],
    words_taken: usize,
}

impl Noise {
    const WORDS: usize = 4;

    fn new(seed: &Digest) -> Self {
        Noise { seed: *seed, blocks: 0, block: [0; 32], words_taken: Self::WORDS }
    }

    fn word(&mut self) -> u64 {
        if self.words_taken == Self::WORDS {
            let mut hasher = Hasher::default();
            hasher.update(&self.seed.0);
            hasher.update(&self.blocks.to_le_bytes());
            (self.block, self.words_taken) = (hasher.finish().0, 0);
            self.blocks += 1;
        }
        let word = self.block[8 * self.words_taken..].first_chunk().expect("four words of eight");
        self.words_taken += 1;
        u64::from_le_bytes(*word)
    }

    /// A number below `end`, which is not 0. Small ones are likelier, by less than `end` / 2^64.
    fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    /// The numbers below `count` in a random order.
    fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order = (0..count).collect::<Vec<_>>();
        for left in (2..=count).rev() {
            let other = usize::try_from(self.below(left as u64)).expect("less than a length");
            order.swap(left - 1, other);
        }
        order
    }
}

impl fmt::Debug for dyn Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_with_and_without_their_version() {
        for name in ["wordcount", "wordcount/1"] {
            assert_eq!(named(name).unwrap().name(), "wordcount/1");
        }
        assert_eq!(named("matmul").unwrap().name(), "matmul/1");
        assert!(named("wordcount/2").is_none() && named("").is_none() && named("1").is_none());
    }

    #[test]
    fn an_order_has_every_number_once_and_each_seed_its_own() {
        let seeds = [1, 2].map(|byte| Digest([byte; 32]));
        for count in [0, 1, 2, 3, 4, 5, 100] {
            let orders = seeds.map(|seed| Noise::new(&seed).order(count));
            for order in &orders {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..count).collect::<Vec<_>>());
            }
            assert_eq!(orders[0], Noise::new(&seeds[0]).order(count));
            assert!(count < 5 || orders[0] != orders[1]);
        }
    }
}
