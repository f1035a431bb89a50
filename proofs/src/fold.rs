//! Folds: how the outputs of a transition's tasks become one value, and that value part of the state.
//!
//! ```text
//!   outputs of tasks 0, 1, ..      Fold::fold        the value, whose digest is in the record
//!                                      |
//!            spread: false             |             spread: true, Fold::spread
//!        one value, under `into`  <----+---->    each member, under `into`/name
//!                |                                            |
//!   replace: as it is                            replace: as it is
//!   add: Fold::add(old, value)                   add: Fold::add_member(old, name, member)
//! ```
//!
//! All but [`Fold::List`] are commutative and associative over integers of any size, so that neither the
//! order of the tasks nor how they are grouped shows in the result. Limits hold for what is read and for
//! results, not for sums on the way, or else the order would show. The old value under a key is whatever
//! someone wrote there, and is read as suspiciously as an output.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec,
    vec::Vec,
};
use core::{fmt, str::FromStr};

use crate::{BigInt, Error, Format, Json, NESTING_MAX};

/// A rule that makes one value of many.
///
/// ```
/// # use anwansi_proofs::{Fold, FoldError};
/// let counts: [&[u8]; 2] = [br#"{"a":2,"b":1}"#, br#"{"b":1,"c":1}"#];
/// let total = Fold::SumByKey.fold(counts)?;
/// assert_eq!(total.to_bytes(), br#"{"a":2,"b":2,"c":1}"#);
/// let total = Fold::SumByKey.add(Some(br#"{"c":-1,"d":0}"#), &total)?;
/// assert_eq!(total.to_bytes(), br#"{"a":2,"b":2,"c":0,"d":0}"#);
/// # Ok::<(), FoldError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fold {
    /// `sum`: integers, added.
    Sum,
    /// `min`: integers, the least.
    Min,
    /// `max`: integers, the greatest.
    Max,
    /// `sum_vector`: arrays of integers, all of one length, added place by place.
    SumVector,
    /// `sum_by_key`: objects of integers, added name by name. A sum of 0 stays.
    SumByKey,
    /// `union`: arrays of strings; each string once, sorted by UTF-8 bytes.
    Union,
    /// `merge`: objects that share no name; all their members.
    Merge,
    /// `list`: anything; an array by task index, which nests one deeper than the outputs may.
    List,
}

impl Fold {
    /// All folds.
    pub const ALL: [Fold; 8] = [
        Fold::Sum,
        Fold::Min,
        Fold::Max,
        Fold::SumVector,
        Fold::SumByKey,
        Fold::Union,
        Fold::Merge,
        Fold::List,
    ];

    /// The value of the outputs of tasks 0, 1, and so on, as they were revealed.
    ///
    /// # Errors
    /// The first output at fault, in task order: [`FoldError::NotCanonical`], [`FoldError::WrongType`],
    /// [`FoldError::LengthDiffers`], [`FoldError::NameTwice`]; then [`FoldError::TooLarge`] of the result.
    /// [`FoldError::NoOutput`] without outputs.
    /// # Cost
    /// Each output is read once, and one at a time is held beside the result.
    pub fn fold<'a>(self, outputs: impl IntoIterator<Item = &'a [u8]>) -> Result<Json, FoldError> {
        let outputs = outputs.into_iter().enumerate();
        self.combine(outputs.map(|(task, bytes)| read(Operand::Output(task), bytes)))
    }

    /// What `apply: "add"` writes where `old` stands: the fold of `old` and of `new`, which is what
    /// [`fold`](Self::fold) returned. Where nothing stands, `new` itself.
    ///
    /// A name that [`Fold::Merge`] finds in both fails, as it does in two outputs.
    ///
    /// # Errors
    /// [`FoldError::NotAddable`] for [`Fold::List`], also where nothing stands, so that a transition does not
    /// depend on that; else as of [`fold`](Self::fold).
    /// # Cost
    /// Reads `old` and copies `new`.
    pub fn add(self, old: Option<&[u8]>, new: &Json) -> Result<Json, FoldError> {
        if !self.adds() {
            return Err(FoldError::NotAddable { fold: self });
        }
        let old = old.map(|bytes| read(Operand::Old, bytes));
        self.combine(old.into_iter().chain([Ok((Operand::New, new.clone()))]))
    }

    /// The members that `spread` writes, each to a key of its own, in the order of their names. `value` is
    /// what [`fold`](Self::fold) returned; it may have none, then nothing is written.
    ///
    /// # Errors
    /// [`FoldError::NotSpreadable`] unless the fold makes objects; [`FoldError::WrongType`] if `value` is
    /// none.
    pub fn spread(self, value: &Json) -> Result<impl Iterator<Item = (&str, &Json)>, FoldError> {
        if !self.spreads() {
            return Err(FoldError::NotSpreadable { fold: self });
        }
        let wrong = FoldError::WrongType { of: Operand::New, fold: self };
        let members = value.as_object().ok_or(wrong)?;
        Ok(members.iter().map(|(name, member)| (name.as_str(), member)))
    }

    /// What `apply: "add"` writes for one member of [`spread`](Self::spread) where `old` stands. For
    /// [`Fold::SumByKey`] it is their sum; for [`Fold::Merge`] the name is there already, which fails,
    /// whatever `old` is. Where nothing stands, it is the member itself.
    ///
    /// # Errors
    /// [`FoldError::NameTwice`] as said; for sums those of [`add`](Self::add) by [`Fold::Sum`];
    /// [`FoldError::NotSpreadable`] for all other folds.
    pub fn add_member(
        self,
        old: Option<&[u8]>,
        name: &str,
        member: &Json,
    ) -> Result<Json, FoldError> {
        match (self, old) {
            (Fold::SumByKey, old) => Fold::Sum.add(old, member),
            (Fold::Merge, None) => Ok(member.clone()),
            (Fold::Merge, Some(_)) => {
                Err(FoldError::NameTwice { of: Operand::New, name: name.into() })
            }
            _ => Err(FoldError::NotSpreadable { fold: self }),
        }
    }

    /// Whether the fold may be applied by `add`.
    #[must_use]
    pub fn adds(self) -> bool {
        self != Fold::List
    }

    /// Whether the fold makes objects, which alone may be `spread`.
    #[must_use]
    pub fn spreads(self) -> bool {
        matches!(self, Fold::SumByKey | Fold::Merge)
    }

    /// The name in a spec.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fold::Sum => "sum",
            Fold::Min => "min",
            Fold::Max => "max",
            Fold::SumVector => "sum_vector",
            Fold::SumByKey => "sum_by_key",
            Fold::Union => "union",
            Fold::Merge => "merge",
            Fold::List => "list",
        }
    }

    fn takes(self) -> &'static str {
        match self {
            Fold::Sum | Fold::Min | Fold::Max => "an integer",
            Fold::SumVector => "an array of integers",
            Fold::SumByKey => "an object of integers",
            Fold::Union => "an array of strings",
            Fold::Merge => "an object",
            Fold::List => "any value",
        }
    }

    fn combine(self, operands: impl Iterator<Item = Read>) -> Result<Json, FoldError> {
        let result = match self {
            Fold::Sum => self.reduce(operands, integer, |a, b, _| Ok(a + b)),
            Fold::Min => self.reduce(operands, integer, |a, b, _| Ok(a.min(b))),
            Fold::Max => self.reduce(operands, integer, |a, b, _| Ok(a.max(b))),
            Fold::SumVector => self.reduce(operands, integers, add_vectors),
            Fold::SumByKey => {
                self.reduce(operands, integers_by_name, |a, b, _| Ok(add_by_name(a, b)))
            }
            Fold::Union => self.reduce(operands, strings, |a, b, _| Ok(extend(a, b))),
            Fold::Merge => self.reduce(operands, object, merge),
            Fold::List => {
                self.reduce(operands, |value| Some(vec![value]), |a, b, _| Ok(extend(a, b)))
            }
        }?;
        let nesting_max = NESTING_MAX + usize::from(self == Fold::List);
        if result.fits(nesting_max) { Ok(result) } else { Err(FoldError::TooLarge) }
    }

    /// Joins the operands, in their order, as what `typed` finds them to be.
    fn reduce<T: Into<Json>>(
        self,
        operands: impl Iterator<Item = Read>,
        typed: impl Fn(Json) -> Option<T>,
        join: impl Fn(T, T, Operand) -> Result<T, FoldError>,
    ) -> Result<Json, FoldError> {
        let mut joined = None;
        for operand in operands {
            let (of, value) = operand?;
            let next = typed(value).ok_or(FoldError::WrongType { of, fold: self })?;
            joined = Some(match joined {
                Some(joined) => join(joined, next, of)?,
                None => next,
            });
        }
        joined.map(Into::into).ok_or(FoldError::NoOutput)
    }
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fold {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let named = Fold::ALL.into_iter().find(|fold| fold.name() == name);
        named.ok_or(Error::Malformed { format: Format::Fold, at: 0 })
    }
}

/// One of the values that a fold combines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The output of the task of this index.
    Output(usize),
    /// What stands in the state already.
    Old,
    /// What was folded from the outputs, or a member of it.
    New,
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Output(task) => write!(f, "the output of task {task}"),
            Operand::Old => f.write_str("the old value under the key"),
            Operand::New => f.write_str("the fold of the outputs"),
        }
    }
}

/// Why there is no result: the transition fails, and nothing of it is applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// Nothing was given to fold.
    #[error("there is no output to fold")]
    NoOutput,
    /// An operand is not canonical JSON.
    #[error("{of}: {error}")]
    NotCanonical {
        /// Which one.
        of: Operand,
        /// Where it was refused.
        error: Error,
    },
    /// An operand is of a type that the fold does not take.
    #[error("{of} is not {}, which {fold} takes", fold.takes())]
    WrongType {
        /// Which one.
        of: Operand,
        /// The fold that does not take it.
        fold: Fold,
    },
    /// An array for [`Fold::SumVector`] is not as long as those before it.
    #[error("{of} has {length} integers where {expected} were expected")]
    LengthDiffers {
        /// Which one.
        of: Operand,
        /// Its length.
        length: usize,
        /// The length of those before it.
        expected: usize,
    },
    /// An object for [`Fold::Merge`] has a name that one before it has. Of a long name 64 characters
    /// are displayed.
    #[error("{of} has a name that is there already: {name:.64}")]
    NameTwice {
        /// Which one.
        of: Operand,
        /// The name.
        name: String,
    },
    /// The result would not be readable.
    #[error("the result has an integer of too many digits, or is nested too deep")]
    TooLarge,
    /// The fold cannot be applied by `add`.
    #[error("{fold} cannot be added to an old value")]
    NotAddable {
        /// The fold.
        fold: Fold,
    },
    /// The fold makes no objects, so there are no members to spread.
    #[error("{fold} makes no object that could be spread")]
    NotSpreadable {
        /// The fold.
        fold: Fold,
    },
}

type ByName<T> = BTreeMap<String, T>;

/// An operand and its value, if it is canonical JSON.
type Read = Result<(Operand, Json), FoldError>;

fn read(of: Operand, bytes: &[u8]) -> Read {
    match Json::parse(bytes) {
        Ok(value) => Ok((of, value)),
        Err(error) => Err(FoldError::NotCanonical { of, error }),
    }
}

fn integer(value: Json) -> Option<BigInt> {
    if let Json::Integer(integer) = value { Some(integer) } else { None }
}

fn string(value: Json) -> Option<String> {
    if let Json::String(text) = value { Some(text) } else { None }
}

fn array(value: Json) -> Option<Vec<Json>> {
    if let Json::Array(values) = value { Some(values) } else { None }
}

fn object(value: Json) -> Option<ByName<Json>> {
    if let Json::Object(members) = value { Some(members.into_iter().collect()) } else { None }
}

fn integers(value: Json) -> Option<Vec<BigInt>> {
    array(value)?.into_iter().map(integer).collect()
}

fn strings(value: Json) -> Option<BTreeSet<String>> {
    array(value)?.into_iter().map(string).collect()
}

fn integers_by_name(value: Json) -> Option<ByName<BigInt>> {
    let Json::Object(members) = value else { return None };
    members.into_iter().map(|(name, value)| Some((name, integer(value)?))).collect()
}

fn add_vectors(
    mut sums: Vec<BigInt>,
    next: Vec<BigInt>,
    of: Operand,
) -> Result<Vec<BigInt>, FoldError> {
    let (length, expected) = (next.len(), sums.len());
    if length != expected {
        return Err(FoldError::LengthDiffers { of, length, expected });
    }
    for (sum, integer) in sums.iter_mut().zip(next) {
        *sum += integer;
    }
    Ok(sums)
}

fn add_by_name(mut sums: ByName<BigInt>, next: ByName<BigInt>) -> ByName<BigInt> {
    for (name, integer) in next {
        *sums.entry(name).or_default() += integer;
    }
    sums
}

fn merge(
    mut members: ByName<Json>,
    next: ByName<Json>,
    of: Operand,
) -> Result<ByName<Json>, FoldError> {
    for (name, value) in next {
        if members.contains_key(&name) {
            return Err(FoldError::NameTwice { of, name });
        }
        members.insert(name, value);
    }
    Ok(members)
}

/// Arrays one behind the other, or sets united.
fn extend<T: Extend<I> + IntoIterator<Item = I>, I>(mut all: T, next: T) -> T {
    all.extend(next);
    all
}
