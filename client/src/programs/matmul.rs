//! Multiplies matrices over the integers modulo a prime, a block of the product per task: `matmul/1`.
//!
//! ```text
//!                    +---+---+ B      input    {"a":[[..],..],"b":[[..],..],"column":c,"modulus":p,"row":r}
//!                    |   | b |        result   {"<r>,<c>":[[..],..]}
//!                    +---+---+
//!   A +-------+      +---+---+        a: some rows of A, from row r on
//!     +-------+      |   |   |        b: some columns of B, from column c on
//!     |   a   |      +---+---+        p: a prime below 2^32; all numbers are from 0 to p - 1
//!     +-------+      |   |a b|
//!                    +---+---+        the fold `merge` puts the blocks together, each under its place
//! ```
//!
//! **Noise**: a random change of basis R in between, `(a R)(R^-1 b)`, is `a b` again, exactly. R is a product
//! of steps that are each undone at once: to add a multiple of a column of `a` to another is undone by
//! taking the same multiple of a row of `b` from another.

use std::collections::BTreeMap;

use anwansi_proofs::{Digest, Error as ProofError, Json};

use super::{Noise, Program, ProgramError, check_length};

/// The most rows and the most columns of a matrix in one task.
const DIMENSION_MAX: usize = 256;
/// The longest input: two matrices of the largest numbers.
const INPUT_BYTES_MAX: usize = 2 * DIMENSION_MAX * DIMENSION_MAX * "4294967290,".len() + 4096;
/// Products of two numbers below it fit into 64 bits.
const MODULUS_END: u64 = 1 << 32;

/// Multiplies two matrices.
#[derive(Clone, Copy, Debug, Default)]
pub struct MatMul;

/// Numbers in rows and columns, at least one of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    /// Row by row.
    entries: Vec<u64>,
}

/// What is wrong with matrices that shall be multiplied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MatMulFault {
    /// It is not canonical JSON.
    #[error(transparent)]
    Json(#[from] ProofError),
    /// A member is missing, or is not what it has to be, or there is one more.
    #[error("the member {name:?} is missing, unknown or not of its type")]
    Member {
        /// Its name.
        name: String,
    },
    /// Only over a field every change of basis can be undone.
    #[error("the modulus {modulus} is no prime")]
    NotPrime {
        /// What was given.
        modulus: u64,
    },
    /// The modulus is too big to calculate with.
    #[error("the modulus {modulus} is not below 2^32")]
    ModulusTooBig {
        /// What was given.
        modulus: u64,
    },
    /// A matrix has no numbers.
    #[error("a matrix has at least one row and one column")]
    Empty,
    /// A row is longer or shorter than the first.
    #[error("row {row} has {columns} numbers, row 0 has {first}")]
    Ragged {
        /// The row.
        row: usize,
        /// Its length.
        columns: usize,
        /// The length of the first one.
        first: usize,
    },
    /// A matrix is too large for one task.
    #[error("a matrix of {rows} rows and {columns} columns: {DIMENSION_MAX} of each are the most")]
    TooLarge {
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
    /// A number is not below the modulus.
    #[error("the number {number} is not below the modulus")]
    NotReduced {
        /// The number.
        number: u64,
    },
    /// There are not as many rows on the right as columns on the left.
    #[error("{columns} columns cannot be multiplied with {rows} rows")]
    Mismatch {
        /// The columns of the left matrix.
        columns: usize,
        /// The rows of the right one.
        rows: usize,
    },
    /// The blocks do not cover a matrix, each place once.
    #[error("the blocks do not fit together at {place:?}")]
    Blocks {
        /// A place that is covered twice or not at all, or no place.
        place: String,
    },
}

impl Program for MatMul {
    fn name(&self) -> &'static str {
        "matmul/1"
    }

    fn run(&self, input: &[u8], seed: &Digest) -> Result<Vec<u8>, ProgramError> {
        check_length(input, INPUT_BYTES_MAX)?;
        let mut task = Task::parse(input)?;
        task.change_basis(&mut Noise::new(seed));
        let product = task.a.times(&task.b, task.modulus);
        Ok(Json::from([(&*place(task.row, task.column), product.to_json())]).to_bytes())
    }
}

impl MatMul {
    /// The inputs of a transition that multiplies `a` and `b` modulo `modulus`, in blocks of at most
    /// `block` rows and columns. Its fold is `merge`.
    ///
    /// # Errors
    /// [`MatMulFault`], where a task would refuse its input.
    /// # Panics
    /// If `block` is 0.
    pub fn split(
        a: &Matrix,
        b: &Matrix,
        modulus: u64,
        block: usize,
    ) -> Result<Vec<Vec<u8>>, MatMulFault> {
        assert!(block > 0, "a block has a row and a column");
        let mut inputs = Vec::new();
        for row in (0..a.rows).step_by(block) {
            for column in (0..b.columns).step_by(block) {
                let task = Task {
                    a: a.part(row..a.rows.min(row + block), 0..a.columns),
                    b: b.part(0..b.rows, column..b.columns.min(column + block)),
                    modulus,
                    row: row as u64,
                    column: column as u64,
                };
                task.check()?;
                inputs.push(task.to_bytes());
            }
        }
        Ok(inputs)
    }

    /// The product, from the blocks that `merge` has put together.
    ///
    /// # Errors
    /// [`MatMulFault`] if these are not all blocks of a product.
    pub fn join(merged: &[u8]) -> Result<Matrix, MatMulFault> {
        let Json::Object(blocks) = Json::parse(merged)? else {
            return Err(MatMulFault::Blocks { place: String::new() });
        };
        let mut numbers = BTreeMap::new();
        for (place, block) in blocks {
            let wrong = || MatMulFault::Blocks { place: place.clone() };
            let (row, column) = place.split_once(',').ok_or_else(wrong)?;
            let start = |text: &str| text.parse::<usize>().map_err(|_| wrong());
            let (row, column) = (start(row)?, start(column)?);
            let block = Matrix::of(&block, "block")?;
            for (index, number) in block.entries.iter().enumerate() {
                let at = |start: usize, offset| start.checked_add(offset).ok_or_else(wrong);
                let at = (at(row, index / block.columns)?, at(column, index % block.columns)?);
                if numbers.insert(at, *number).is_some() {
                    return Err(wrong());
                }
            }
        }
        // In order and complete, they stand row by row.
        let columns = numbers.keys().take_while(|(row, _)| *row == 0).count().max(1);
        let place_of = |index| (index / columns, index % columns);
        let missing = numbers.keys().enumerate().position(|(index, at)| *at != place_of(index));
        let missing = missing.or((!numbers.len().is_multiple_of(columns)).then_some(numbers.len()));
        if let Some((row, column)) = missing.map(place_of) {
            return Err(MatMulFault::Blocks { place: place(row as u64, column as u64) });
        }
        let entries = numbers.into_values().collect::<Vec<_>>();
        if entries.is_empty() {
            return Err(MatMulFault::Empty);
        }
        Ok(Matrix { rows: entries.len() / columns, columns, entries })
    }
}

impl Matrix {
    /// The matrix of these rows.
    ///
    /// # Errors
    /// [`MatMulFault::Empty`], [`MatMulFault::Ragged`].
    pub fn new(rows: &[Vec<u64>]) -> Result<Self, MatMulFault> {
        let first = rows.first().map_or(0, Vec::len);
        if first == 0 {
            return Err(MatMulFault::Empty);
        }
        if let Some(row) = rows.iter().position(|row| row.len() != first) {
            return Err(MatMulFault::Ragged { row, columns: rows[row].len(), first });
        }
        Ok(Matrix { rows: rows.len(), columns: first, entries: rows.concat() })
    }

    /// Its rows.
    #[must_use]
    pub fn to_rows(&self) -> Vec<Vec<u64>> {
        self.entries.chunks(self.columns).map(<[u64]>::to_vec).collect()
    }

    fn of(json: &Json, name: &str) -> Result<Self, MatMulFault> {
        let wrong = || MatMulFault::Member { name: name.into() };
        let row = |row: &Json| {
            let numbers = row.as_array().ok_or_else(wrong)?;
            numbers.iter().map(|number| number.as_u64().ok_or_else(wrong)).collect()
        };
        let rows = json.as_array().ok_or_else(wrong)?.iter().map(row);
        Matrix::new(&rows.collect::<Result<Vec<_>, _>>()?)
    }

    fn to_json(&self) -> Json {
        Json::from(self.entries.chunks(self.columns).map(<[u64]>::to_vec).collect::<Vec<_>>())
    }

    fn part(&self, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) -> Self {
        let row = |row| {
            let start = row * self.columns;
            &self.entries[start + columns.start..start + columns.end]
        };
        let entries = rows.clone().flat_map(row).copied().collect();
        Matrix { rows: rows.len(), columns: columns.len(), entries }
    }

    fn times(&self, other: &Matrix, modulus: u64) -> Matrix {
        let mut entries = vec![0; self.rows * other.columns];
        for (row, product) in
            self.entries.chunks(self.columns).zip(entries.chunks_mut(other.columns))
        {
            for (factor, others) in row.iter().zip(other.entries.chunks(other.columns)) {
                for (sum, number) in product.iter_mut().zip(others) {
                    *sum = (*sum + factor * number % modulus) % modulus;
                }
            }
        }
        Matrix { rows: self.rows, columns: other.columns, entries }
    }

    fn check(&self, modulus: u64) -> Result<(), MatMulFault> {
        let (rows, columns) = (self.rows, self.columns);
        if rows > DIMENSION_MAX || columns > DIMENSION_MAX {
            return Err(MatMulFault::TooLarge { rows, columns });
        }
        match self.entries.iter().find(|number| **number >= modulus) {
            Some(number) => Err(MatMulFault::NotReduced { number: *number }),
            None => Ok(()),
        }
    }
}

/// One block of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Task {
    a: Matrix,
    b: Matrix,
    modulus: u64,
    row: u64,
    column: u64,
}

impl Task {
    fn parse(input: &[u8]) -> Result<Self, MatMulFault> {
        let member = |name: &str| MatMulFault::Member { name: name.into() };
        let Json::Object(mut members) = Json::parse(input)? else { return Err(member("a")) };
        let mut take = |name| members.remove(name).ok_or_else(|| member(name));
        let (a, b) = (Matrix::of(&take("a")?, "a")?, Matrix::of(&take("b")?, "b")?);
        let mut number = |name| take(name)?.as_u64().ok_or_else(|| member(name));
        let (column, modulus, row) = (number("column")?, number("modulus")?, number("row")?);
        if let Some(name) = members.keys().next() {
            return Err(member(name));
        }
        let task = Task { a, b, modulus, row, column };
        task.check()?;
        Ok(task)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let task = Json::from([
            ("a", self.a.to_json()),
            ("b", self.b.to_json()),
            ("column", Json::from(self.column)),
            ("modulus", Json::from(self.modulus)),
            ("row", Json::from(self.row)),
        ]);
        task.to_bytes()
    }

    fn check(&self) -> Result<(), MatMulFault> {
        let modulus = self.modulus;
        if modulus >= MODULUS_END {
            return Err(MatMulFault::ModulusTooBig { modulus });
        }
        if !is_prime(modulus) {
            return Err(MatMulFault::NotPrime { modulus });
        }
        if self.a.columns != self.b.rows {
            return Err(MatMulFault::Mismatch { columns: self.a.columns, rows: self.b.rows });
        }
        self.a.check(modulus)?;
        self.b.check(modulus)
    }

    /// Replaces the matrices by `a R` and `R^-1 b`. R is a lower triangle, a diagonal and an upper
    /// triangle, all random, and so it mixes every column with every other.
    fn change_basis(&mut self, noise: &mut Noise) {
        let inner = self.a.columns;
        for to in 0..inner {
            (to + 1..inner).for_each(|from| self.add(from, to, noise));
        }
        for at in 0..inner {
            let factor = 1 + noise.below(self.modulus - 1);
            self.scale(at, factor);
        }
        for to in 0..inner {
            (0..to).for_each(|from| self.add(from, to, noise));
        }
    }

    /// Adds a multiple of a column of `a` to another one, and undoes it in `b`.
    fn add(&mut self, from: usize, to: usize, noise: &mut Noise) {
        let p = self.modulus;
        let factor = noise.below(p);
        for row in self.a.entries.chunks_mut(self.a.columns) {
            row[to] = (row[to] + row[from] * factor % p) % p;
        }
        let columns = self.b.columns;
        for column in 0..columns {
            let taken = self.b.entries[to * columns + column] * factor % p;
            let number = &mut self.b.entries[from * columns + column];
            *number = (*number + p - taken) % p;
        }
    }

    /// Multiplies a column of `a` with `factor`, which is not 0, and undoes it in `b`.
    fn scale(&mut self, at: usize, factor: u64) {
        let p = self.modulus;
        let inverse = power(factor, p - 2, p);
        for row in self.a.entries.chunks_mut(self.a.columns) {
            row[at] = row[at] * factor % p;
        }
        let columns = self.b.columns;
        for number in &mut self.b.entries[at * columns..(at + 1) * columns] {
            *number = *number * inverse % p;
        }
    }
}

/// The name of the block that starts at this row and column.
fn place(row: u64, column: u64) -> String {
    format!("{row},{column}")
}

fn power(mut base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let mut power = 1 % modulus;
    while exponent > 0 {
        if exponent % 2 == 1 {
            power = power * base % modulus;
        }
        base = base * base % modulus;
        exponent /= 2;
    }
    power
}

/// By trial division: 65,536 divisors at most.
fn is_prime(number: u64) -> bool {
    number >= 2 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor))
}

impl From<MatMulFault> for ProgramError {
    fn from(fault: MatMulFault) -> Self {
        ProgramError::Input(fault.into())
    }
}

#[cfg(test)]
mod tests;
