//! Policies: whose word makes a checkpoint a fact.
//!
//! ```text
//! log <vkey>                              exactly one, of type 0x01
//! witness <name> <vkey>                   of type 0x04
//! group <name> <k|any|all> <member>...    met when k of its members are
//! quorum <name|none>                      exactly one
//! ```
//!
//! Items are separated by spaces and tabs; every line ends in a newline; an item that starts with `#`
//! starts a comment. Names are defined before they are used, once, and `none` is no name. A name is a
//! member of one group at most, so that nobody counts twice. Source: C2SP tlog-policy, with one log
//! and without URLs.

use alloc::vec::Vec;

use crate::{Checkpoint, Cosignature, Error, Format, KeyKind, Note, Vkey, text::decimal};

/// The longest policy file.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;

/// The most witnesses and groups of a policy together.
pub const POLICY_NAMES_MAX: usize = 128;

/// The log to believe, and the witnesses who must have seen it.
///
/// ```
/// # use anwansi_proofs::{Error, Policy};
/// let policy = Policy::parse("\
///     log example.org/memory+55315757+AVfiiiPgrKqUTFL20me1TKAR9YWwjCsP6ZilidHZxCFe\n\
///     witness w witness.example.net+cefd7968+BGgSP3KGeNlXHcoSxWgwPFJ6BmSeyS5MBk6zSdJiDVEq\n\
///     quorum w\n")?;
/// assert_eq!(policy.origin(), "example.org/memory");
/// # let note = "example.org/memory\n7\ngFYQe1jNIZSx8P9L7iisA7OFrWg835RPC9n5G9j5/J0=\n\n\u{2014} example.org/memory VTFXV90c/XemNscAPmkIw0kClc/d9SB3HG7yV6rYtKYwOl2qQD5wU3BYUYBJkCC7Mjrx5DCYbZbjGOf8wRt+BsKsrQE=\n\u{2014} witness.example.net zv15aAAAAABqsTvkabNCFy/XSi2rhphmWhq2Lyp1B+wClFPqsx4W9Z2Nu7ryrJZTHKlA8nydQE+1kE7dmbhGVPiF1VnHmPn7ltCrBQ==\n";
/// let checkpoint = policy.verify(note)?; // `note`: from anyone
/// assert_eq!(checkpoint.size(), 7);
/// assert!(policy.fresh_since(&checkpoint, 1_790_000_000));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    log: Vkey,
    /// In order of definition: members stand before their groups.
    rules: Vec<Rule>,
    quorum: Quorum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quorum {
    /// No witness is asked for.
    None,
    /// The rule of this index is to be met.
    Rule(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Witness(Vkey),
    Group { threshold: usize, members: Vec<usize> },
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the line refused; the one after the last if `log` or `quorum` is
    /// missing.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refused = |at| Error::Malformed { format: Format::Policy, at };
        if text.len() > POLICY_BYTES_MAX {
            return Err(refused(1));
        }
        let mut draft = Draft::default();
        let mut end = 1;
        for line in text.split_inclusive('\n') {
            draft.line(line).ok_or(refused(end))?;
            end += 1;
        }
        let (Some(log), Some(quorum)) = (draft.log, draft.quorum) else {
            return Err(refused(end));
        };
        Ok(Policy { log, rules: draft.rules, quorum })
    }

    /// The policy that asks for the signature of this log and no witness.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the key is not of type 0x01.
    pub fn of_log(log: Vkey) -> Result<Self, Error> {
        if log.kind() != KeyKind::Ed25519 {
            return Err(Error::Malformed { format: Format::Policy, at: 1 });
        }
        Ok(Policy { log, rules: Vec::new(), quorum: Quorum::None })
    }

    /// Makes a checkpoint of a note: the log signed it, no signature by a key of the policy is wrong,
    /// and the witnesses who cosigned make the quorum.
    ///
    /// # Errors
    /// [`Error::Malformed`] as a note or as a checkpoint; [`Error::NotSigned`] by the log;
    /// [`Error::BadSignature`]; [`Error::OriginMismatch`] if the text names another origin
    /// than the log's key; [`Error::NoQuorum`].
    /// # Cost
    /// One signature check for each line of a key of the policy.
    pub fn verify(&self, note: &str) -> Result<Checkpoint, Error> {
        self.verify_note(&note.parse()?)
    }

    /// Like [`Policy::verify`], for a note that was read before.
    ///
    /// # Errors
    /// Those of [`Policy::verify`].
    pub fn verify_note(&self, note: &Note) -> Result<Checkpoint, Error> {
        Checkpoint::verified(note, self)
    }

    /// Whether witnesses make the quorum who cosigned the checkpoint at `time` or later, in seconds
    /// since 1970. Never so with `quorum none`, under which nobody vouches for a time.
    #[must_use]
    pub fn fresh_since(&self, checkpoint: &Checkpoint, time: u64) -> bool {
        self.quorum != Quorum::None && self.quorum_since(checkpoint.cosignatures(), time)
    }

    /// The key of the log.
    #[must_use]
    pub fn log(&self) -> &Vkey {
        &self.log
    }

    /// The origin of the log: its key's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.log.name()
    }

    /// The keys of the witnesses, in the order of the policy.
    pub fn witnesses(&self) -> impl Iterator<Item = &Vkey> {
        self.rules.iter().filter_map(|rule| match rule {
            Rule::Witness(key) => Some(key),
            Rule::Group { .. } => None,
        })
    }

    /// Whether these cosignatures make the quorum, counting those from `time` on.
    pub(crate) fn quorum_since(&self, cosignatures: &[Cosignature], time: u64) -> bool {
        let Quorum::Rule(quorum) = self.quorum else { return true };
        let counts =
            |key: &Vkey| cosignatures.iter().any(|one| one.time() >= time && one.witness() == key);
        let mut met: Vec<bool> = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            met.push(match rule {
                Rule::Witness(key) => counts(key),
                Rule::Group { threshold, members } => {
                    members.iter().filter(|member| met[**member]).count() >= *threshold
                }
            });
        }
        met[quorum]
    }
}

/// A policy of which some lines are read.
#[derive(Default)]
struct Draft<'a> {
    log: Option<Vkey>,
    rules: Vec<Rule>,
    /// For each rule its name, and whether it is a member of a group.
    names: Vec<(&'a str, bool)>,
    quorum: Option<Quorum>,
}

impl<'a> Draft<'a> {
    /// Takes in a line; `None` if it is refused.
    fn line(&mut self, line: &'a str) -> Option<()> {
        let line = line.strip_suffix('\n')?;
        if line.contains(|character: char| character.is_ascii_control() && character != '\t') {
            return None;
        }
        let items = line.split([' ', '\t']).filter(|item| !item.is_empty());
        let mut items = items.take_while(|item| !item.starts_with('#'));
        match items.next() {
            None => {}
            Some("log") => {
                let key = self.key(items.next()?, KeyKind::Ed25519)?;
                if self.log.replace(key).is_some() {
                    return None;
                }
            }
            Some("witness") => {
                let name = items.next()?;
                let key = self.key(items.next()?, KeyKind::Cosignature)?;
                self.define(name, Rule::Witness(key))?;
            }
            Some("group") => {
                let (name, threshold) = (items.next()?, items.next()?);
                let mut members = Vec::new();
                for member in items.by_ref() {
                    members.push(self.member(member)?);
                }
                let threshold = match threshold {
                    "any" => 1,
                    "all" => members.len(),
                    number => usize::try_from(decimal(number)?).ok()?,
                };
                if !(1..=members.len()).contains(&threshold) {
                    return None;
                }
                self.define(name, Rule::Group { threshold, members })?;
            }
            Some("quorum") => {
                let quorum = match items.next()? {
                    "none" => Quorum::None,
                    name => Quorum::Rule(self.find(name)?),
                };
                if self.quorum.replace(quorum).is_some() {
                    return None;
                }
            }
            Some(_) => return None,
        }
        items.next().is_none().then_some(())
    }

    /// Reads a key of this kind that the policy does not have yet, under any name or kind.
    fn key(&self, text: &str, kind: KeyKind) -> Option<Vkey> {
        let key: Vkey = text.parse().ok().filter(|key: &Vkey| key.kind() == kind)?;
        let witnesses = self.rules.iter().filter_map(|rule| match rule {
            Rule::Witness(key) => Some(key),
            Rule::Group { .. } => None,
        });
        let mut known = self.log.iter().chain(witnesses);
        let twice = known.any(|other| {
            // Two keys to one name and id could never both sign: each line would be wrong for one.
            other.public() == key.public() || (other.name(), other.id()) == (key.name(), key.id())
        });
        (!twice).then_some(key)
    }

    fn define(&mut self, name: &'a str, rule: Rule) -> Option<()> {
        if name == "none" || self.find(name).is_some() || self.rules.len() == POLICY_NAMES_MAX {
            return None;
        }
        self.names.push((name, false));
        self.rules.push(rule);
        Some(())
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|(defined, _)| *defined == name)
    }

    /// Makes a defined name a member of a group, once.
    fn member(&mut self, name: &str) -> Option<usize> {
        let at = self.find(name)?;
        let (_, member) = &mut self.names[at];
        (!core::mem::replace(member, true)).then_some(at)
    }
}
