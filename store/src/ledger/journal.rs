//! What the ledger keeps: one key a fact, written when it happens and never before.
//!
//! ```text
//! Ledger    0, version                        the registry: a proof of all nodes in that version's state
//!           1, id                             the specification
//!           2, id                             Transition: opened, and decided once it is
//!           3, id, task, round, node          Pledged
//!           4, id, task, round                Closed
//!           5, id, task, round, node          Revealed
//!           6, id, task, round, node          Revealed, but it does not open the pledge
//!           7, id, task, round                Ended
//!           8, id                             there while the transition is not decided
//!           9, version, id                    there from its decision in that version until it is dropped
//!           10, id                            what was applied: a proof of the keys written, in the deciding version
//!           11, id                            what was added to: the same of the version before
//! Blobs     0, digest                         the content
//!           1, digest                         Readable: from which version on anyone may read it
//!           2, digest                         Named: the newest version whose decisions name it
//! Meta      ledger-horizon                    LedgerHorizon: from which version on decisions are kept
//! ```
//!
//! What opens, closes and decides is in the batch of its version; pledges, reveals and the ends of rounds
//! have batches of their own and are answered when those are durable (FORMAT.md, "The ledger").

use std::ops::Bound::{Excluded, Included};

use anwansi_proofs::{Digest, NodeKey, Pledge, TransitionId, Version};
use bytes::Bytes;

use crate::{
    Damage, Error,
    engine::{Batch, Direction, Engine, Keyspace, scan_prefix},
    record::{
        Closed, Ended, LEDGER_HORIZON_KEY, LedgerHorizon, Named, Pledged, Readable, Revealed,
        Transition, decode, encode,
    },
};

const REGISTRY: u8 = 0;
const SPEC: u8 = 1;
const TRANSITION: u8 = 2;
const PLEDGED: u8 = 3;
const CLOSED: u8 = 4;
const REVEALED: u8 = 5;
const BAD_REVEAL: u8 = 6;
const ENDED: u8 = 7;
const OPEN: u8 = 8;
const DECIDED: u8 = 9;
const STATE_AFTER: u8 = 10;
const STATE_BEFORE: u8 = 11;

/// A round of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoundId {
    pub(crate) transition: TransitionId,
    pub(crate) task: u32,
    pub(crate) round: u32,
}

/// Something that happened to a task, as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Pledged { pledge: Pledge, second: Option<Pledge> },
    Closed { version: Version },
    Revealed { node: NodeKey, reveal: Reveal },
    BadReveal { node: NodeKey },
    Ended,
}

/// What opens a pledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reveal {
    pub(crate) salt: [u8; 32],
    pub(crate) digest: Digest,
}

pub(crate) fn put_registry(batch: &mut Batch, version: Version, proof: Vec<u8>) {
    batch.put(Keyspace::Ledger, registry_key(version), proof);
}

/// One of the two states around a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// That of the version before.
    Before,
    /// That of the deciding version.
    After,
}

impl Moment {
    fn tag(self) -> u8 {
        match self {
            Moment::Before => STATE_BEFORE,
            Moment::After => STATE_AFTER,
        }
    }
}

/// Leads a proof of a state that is kept, and stands alone for one that is not.
const PROOF_KEPT: u8 = 1;
const PROOF_LEFT_OUT: u8 = 0;

/// Keeps a proof of what a transition has changed, at that moment; or notes that there is none, because it is too long.
pub(crate) fn put_state(
    batch: &mut Batch,
    id: &TransitionId,
    moment: Moment,
    proof: Option<Vec<u8>>,
) {
    let value = proof.map_or(vec![PROOF_LEFT_OUT], |mut proof| {
        proof.insert(0, PROOF_KEPT);
        proof
    });
    batch.put(Keyspace::Ledger, key(moment.tag(), id), value);
}

/// The proof of what an applied transition has changed, at that moment; `None` if it was too long to be kept.
pub(crate) fn state(
    engine: &dyn Engine,
    id: &TransitionId,
    moment: Moment,
) -> Result<Option<Bytes>, Error> {
    let value = engine.get(Keyspace::Ledger, &key(moment.tag(), id))?;
    match value.as_deref() {
        Some([PROOF_LEFT_OUT]) => Ok(None),
        Some([PROOF_KEPT, ..]) => Ok(value.map(|value| value.slice(1..))),
        _ => Err(Error::Damaged(Damage::Transition(*id))),
    }
}

pub(crate) fn put_spec(batch: &mut Batch, id: &TransitionId, spec: &[u8]) {
    batch.put(Keyspace::Ledger, key(SPEC, id), spec.to_vec());
}

/// Records a transition as it stands: `record.decided` tells whether it is still open.
pub(crate) fn put_transition(batch: &mut Batch, id: &TransitionId, record: &Transition) {
    batch.put(Keyspace::Ledger, key(TRANSITION, id), encode(record));
    if let Some(decided) = &record.decided {
        batch.delete(Keyspace::Ledger, key(OPEN, id));
        let decided = decided_key(Version(decided.version), id);
        batch.put(Keyspace::Ledger, decided, Vec::new());
    } else {
        batch.put(Keyspace::Ledger, key(OPEN, id), Vec::new());
    }
}

/// Records a node's pledge of a round, beside the second one that it signed, if it did.
pub(crate) fn put_pledge(batch: &mut Batch, at: &RoundId, first: &Pledge, second: Option<&Pledge>) {
    let two = |pledge: &Pledge| (pledge.pledge.0, pledge.signature);
    let record = Pledged { first: two(first), second: second.map(two) };
    batch.put(Keyspace::Ledger, node_key(PLEDGED, at, &first.node), encode(&record));
}

pub(crate) fn put_closed(batch: &mut Batch, at: &RoundId, version: Version) {
    batch.put(Keyspace::Ledger, round_key(CLOSED, at), encode(&Closed { version: version.0 }));
}

/// Records what opens a node's pledge.
pub(crate) fn put_reveal(batch: &mut Batch, at: &RoundId, node: &NodeKey, reveal: &Reveal) {
    let record = Revealed { salt: reveal.salt, digest: reveal.digest.0 };
    batch.put(Keyspace::Ledger, node_key(REVEALED, at, node), encode(&record));
}

/// Records what was shown instead of what opens a node's pledge.
pub(crate) fn put_bad_reveal(batch: &mut Batch, at: &RoundId, node: &NodeKey, reveal: &Reveal) {
    let record = Revealed { salt: reveal.salt, digest: reveal.digest.0 };
    batch.put(Keyspace::Ledger, node_key(BAD_REVEAL, at, node), encode(&record));
}

pub(crate) fn put_ended(batch: &mut Batch, at: &RoundId) {
    batch.put(Keyspace::Ledger, round_key(ENDED, at), encode(&Ended {}));
}

/// The proof of all nodes that were registered in a version in which transitions were opened.
pub(crate) fn registry(engine: &dyn Engine, version: Version) -> Result<Bytes, Error> {
    let proof = engine.get(Keyspace::Ledger, &registry_key(version))?;
    proof.ok_or(Error::Damaged(Damage::Registry(version)))
}

/// The bytes of a specification, if the transition was ever opened.
pub(crate) fn spec(engine: &dyn Engine, id: &TransitionId) -> Result<Option<Bytes>, Error> {
    Ok(engine.get(Keyspace::Ledger, &key(SPEC, id))?)
}

/// How a transition stands, if it was ever opened.
pub(crate) fn transition(
    engine: &dyn Engine,
    id: &TransitionId,
) -> Result<Option<Transition>, Error> {
    let record = engine.get(Keyspace::Ledger, &key(TRANSITION, id))?;
    record.map(|record| decode(&record, Damage::Transition(*id))).transpose()
}

/// Whether a transition is among those that are not decided.
pub(crate) fn is_open(engine: &dyn Engine, id: &TransitionId) -> Result<bool, Error> {
    Ok(engine.get(Keyspace::Ledger, &key(OPEN, id))?.is_some())
}

/// Whether a transition is among those that were decided in `version` and are not dropped.
pub(crate) fn is_decided(
    engine: &dyn Engine,
    version: Version,
    id: &TransitionId,
) -> Result<bool, Error> {
    Ok(engine.get(Keyspace::Ledger, &decided_key(version, id))?.is_some())
}

/// What an entry is about; `None` if it is nothing that the ledger writes.
pub(crate) enum About {
    Registry(Version),
    /// The record of a transition, which stays for ever.
    Transition(TransitionId),
    /// Anything else of it.
    Part(TransitionId),
    Decided(Version, TransitionId),
    Readable(Digest),
    Named(Digest),
    Content(Digest),
}

impl About {
    pub(crate) fn of_entry(key: &[u8], value: &[u8]) -> Option<Self> {
        let (&tag, rest) = key.split_first()?;
        if tag == REGISTRY {
            return Some(About::Registry(Version(u64::from_be_bytes(rest.try_into().ok()?))));
        }
        if tag == DECIDED {
            let (version, id) = read_decided_key(key)?;
            return value.is_empty().then_some(About::Decided(version, id));
        }
        let id = TransitionId(Digest(*rest.first_chunk()?));
        let is_whole = match tag {
            TRANSITION if rest.len() == Digest::LEN => return Some(About::Transition(id)),
            SPEC | STATE_AFTER | STATE_BEFORE => rest.len() == Digest::LEN,
            OPEN => rest.len() == Digest::LEN && value.is_empty(),
            PLEDGED..=ENDED => read_key(key).is_some(),
            _ => false,
        };
        is_whole.then_some(About::Part(id))
    }

    pub(crate) fn of_blob(key: &[u8]) -> Option<Self> {
        let (&tag, digest) = key.split_first()?;
        let digest = Digest(digest.try_into().ok()?);
        match tag {
            CONTENT => Some(About::Content(digest)),
            READABLE => Some(About::Readable(digest)),
            NAMED => Some(About::Named(digest)),
            _ => None,
        }
    }
}

/// The transitions that are not decided.
pub(crate) fn open(engine: &dyn Engine) -> Result<Vec<TransitionId>, Error> {
    let (start, end) = (Included(&[OPEN][..]), Excluded(&[OPEN + 1][..]));
    let id = |entry: Result<(Bytes, Bytes), _>| {
        let id = entry?.0[1..].try_into().map_err(|_| Error::Damaged(Damage::Manifest))?;
        Ok(TransitionId(Digest(id)))
    };
    engine.scan(Keyspace::Ledger, start, end, Direction::Ascending).map(id).collect()
}

/// All that happened to the tasks of a transition, in an order in which it could have happened.
pub(crate) fn facts(engine: &dyn Engine, id: &TransitionId) -> Result<Vec<(RoundId, Fact)>, Error> {
    let mut facts = scan(engine, id, |tag| key(tag, id))?;
    // Rounds follow one another; what happens in one is in the order of the tags.
    facts.sort_by_key(|(at, _)| *at);
    Ok(facts)
}

/// All that happened in one round, in such an order.
pub(crate) fn facts_of_round(engine: &dyn Engine, at: &RoundId) -> Result<Vec<Fact>, Error> {
    let facts = scan(engine, &at.transition, |tag| round_key(tag, at))?;
    Ok(facts.into_iter().map(|(_, fact)| fact).collect())
}

/// What a node has pledged in a round, first.
pub(crate) fn pledged(
    engine: &dyn Engine,
    at: &RoundId,
    node: &NodeKey,
) -> Result<Option<Digest>, Error> {
    let damage = Damage::Transition(at.transition);
    let record = engine.get(Keyspace::Ledger, &node_key(PLEDGED, at, node))?;
    let record = record.map(|record| decode::<Pledged>(&record, damage)).transpose()?;
    Ok(record.map(|record| Digest(record.first.0)))
}

/// What a node has opened its pledge with.
pub(crate) fn revealed(
    engine: &dyn Engine,
    at: &RoundId,
    node: &NodeKey,
) -> Result<Option<Reveal>, Error> {
    let damage = Damage::Transition(at.transition);
    let record = engine.get(Keyspace::Ledger, &node_key(REVEALED, at, node))?;
    let record = record.map(|record| decode::<Revealed>(&record, damage)).transpose()?;
    Ok(record.map(|Revealed { salt, digest }| Reveal { salt, digest: Digest(digest) }))
}

/// The facts whose keys start with what `start` gives for their tag.
fn scan(
    engine: &dyn Engine,
    id: &TransitionId,
    start: impl Fn(u8) -> Vec<u8>,
) -> Result<Vec<(RoundId, Fact)>, Error> {
    let damage = Damage::Transition(*id);
    let mut facts = Vec::new();
    for tag in [PLEDGED, CLOSED, REVEALED, BAD_REVEAL, ENDED] {
        for entry in scan_prefix(engine, Keyspace::Ledger, &start(tag)) {
            let (key, value) = entry?;
            let (at, node) = read_key(&key).ok_or(Error::Damaged(damage))?;
            facts.push((at, read(tag, node, &value, damage)?));
        }
    }
    Ok(facts)
}

fn read(tag: u8, node: Option<NodeKey>, value: &[u8], damage: Damage) -> Result<Fact, Error> {
    let damaged = Error::Damaged(damage);
    Ok(match (tag, node) {
        (PLEDGED, Some(node)) => {
            let record: Pledged = decode(value, damage)?;
            let pledge = |(pledge, signature)| Pledge { node, pledge: Digest(pledge), signature };
            Fact::Pledged { pledge: pledge(record.first), second: record.second.map(pledge) }
        }
        (CLOSED, None) => {
            let Closed { version } = decode(value, damage)?;
            Fact::Closed { version: Version(version) }
        }
        (REVEALED, Some(node)) => {
            let Revealed { salt, digest } = decode(value, damage)?;
            Fact::Revealed { node, reveal: Reveal { salt, digest: Digest(digest) } }
        }
        (BAD_REVEAL, Some(node)) => {
            let Revealed { .. } = decode(value, damage)?;
            Fact::BadReveal { node }
        }
        (ENDED, None) => {
            let Ended {} = decode(value, damage)?;
            Fact::Ended
        }
        _ => return Err(damaged),
    })
}

fn key(tag: u8, id: &TransitionId) -> Vec<u8> {
    [&[tag], &id.0.0[..]].concat()
}

fn decided_key(version: Version, id: &TransitionId) -> Vec<u8> {
    [&[DECIDED], &version.0.to_be_bytes()[..], &id.0.0].concat()
}

fn read_decided_key(key: &[u8]) -> Option<(Version, TransitionId)> {
    let (version, id) = key.strip_prefix(&[DECIDED])?.split_first_chunk()?;
    Some((Version(u64::from_be_bytes(*version)), TransitionId(Digest(id.try_into().ok()?))))
}

fn registry_key(version: Version) -> Vec<u8> {
    [&[REGISTRY], &version.0.to_be_bytes()[..]].concat()
}

fn round_key(tag: u8, at: &RoundId) -> Vec<u8> {
    [&[tag], &at.transition.0.0[..], &at.task.to_be_bytes(), &at.round.to_be_bytes()].concat()
}

fn node_key(tag: u8, at: &RoundId, node: &NodeKey) -> Vec<u8> {
    [&round_key(tag, at)[..], &node.0].concat()
}

/// The round, and the node, if there is one, that a key is about.
fn read_key(key: &[u8]) -> Option<(RoundId, Option<NodeKey>)> {
    let (id, rest) = key.get(1..)?.split_first_chunk()?;
    let (task, rest) = rest.split_first_chunk()?;
    let (round, rest) = rest.split_first_chunk()?;
    let at = RoundId {
        transition: TransitionId(Digest(*id)),
        task: u32::from_be_bytes(*task),
        round: u32::from_be_bytes(*round),
    };
    let node = if rest.is_empty() { None } else { Some(NodeKey(rest.try_into().ok()?)) };
    Some((at, node))
}

const CONTENT: u8 = 0;
const READABLE: u8 = 1;
const NAMED: u8 = 2;

/// Keeps content under its digest; readable once [`put_readable`] says so.
pub(crate) fn put_blob(batch: &mut Batch, digest: &Digest, content: Bytes) {
    batch.put(Keyspace::Blobs, blob_key(CONTENT, digest), content);
}

/// Lets anyone read the content of this digest once `version` is shown.
pub(crate) fn put_readable(batch: &mut Batch, digest: &Digest, version: Version) {
    let record = Readable { since: version.0 };
    batch.put(Keyspace::Blobs, blob_key(READABLE, digest), encode(&record));
}

/// Notes that a decision of `version` names this digest: there is none of a newer version.
pub(crate) fn put_named(batch: &mut Batch, digest: &Digest, version: Version) {
    let record = Named { last: version.0 };
    batch.put(Keyspace::Blobs, blob_key(NAMED, digest), encode(&record));
}

/// The content of this digest, readable or not.
pub(crate) fn blob(engine: &dyn Engine, digest: &Digest) -> Result<Option<Bytes>, Error> {
    let content = engine.get(Keyspace::Blobs, &blob_key(CONTENT, digest))?;
    match content {
        Some(content) if Digest::of(&content) != *digest => {
            Err(Error::Damaged(Damage::Blob(*digest)))
        }
        content => Ok(content),
    }
}

/// How long the content of this digest is, if it is there.
pub(crate) fn blob_bytes(engine: &dyn Engine, digest: &Digest) -> Result<Option<u64>, Error> {
    let content = engine.get(Keyspace::Blobs, &blob_key(CONTENT, digest))?;
    Ok(content.map(|content| content.len() as u64))
}

/// Whether anyone may read the content of this digest when `shown` is the newest version shown.
pub(crate) fn is_readable(
    engine: &dyn Engine,
    digest: &Digest,
    shown: Version,
) -> Result<bool, Error> {
    Ok(since(engine, digest)?.is_some_and(|since| since <= shown))
}

/// From which version on anyone may read the content of this digest: an input from version 0 on.
pub(crate) fn since(engine: &dyn Engine, digest: &Digest) -> Result<Option<Version>, Error> {
    let record = engine.get(Keyspace::Blobs, &blob_key(READABLE, digest))?;
    let record =
        record.map(|record| decode::<Readable>(&record, Damage::Blob(*digest))).transpose()?;
    Ok(record.map(|Readable { since }| Version(since)))
}

/// The newest version whose decisions name this digest. Of inputs it need not be known.
pub(crate) fn named(engine: &dyn Engine, digest: &Digest) -> Result<Option<Version>, Error> {
    let record = engine.get(Keyspace::Blobs, &blob_key(NAMED, digest))?;
    let record =
        record.map(|record| decode::<Named>(&record, Damage::Blob(*digest))).transpose()?;
    Ok(record.map(|Named { last }| Version(last)))
}

fn blob_key(tag: u8, digest: &Digest) -> Vec<u8> {
    [&[tag], &digest.0[..]].concat()
}

/// From which version on decisions are kept.
pub(crate) fn horizon(engine: &dyn Engine) -> Result<Version, Error> {
    let record = engine.get(Keyspace::Meta, LEDGER_HORIZON_KEY)?;
    let record = record.map(|record| decode::<LedgerHorizon>(&record, Damage::Decisions));
    Ok(record.transpose()?.map_or(Version(0), |horizon| Version(horizon.version)))
}

pub(crate) fn put_horizon(batch: &mut Batch, horizon: Version) {
    let record = LedgerHorizon { version: horizon.0 };
    batch.put(Keyspace::Meta, LEDGER_HORIZON_KEY.to_vec(), encode(&record));
}

/// The transitions that were decided before `horizon` and of which something may be left, the first decided first.
pub(crate) fn decided_before(
    engine: &dyn Engine,
    horizon: Version,
) -> impl Iterator<Item = Result<(Version, TransitionId), Error>> + '_ {
    let end = [&[DECIDED], &horizon.0.to_be_bytes()[..]].concat();
    let (start, end) = (Included(&[DECIDED][..]), Excluded(&end[..]));
    engine.scan(Keyspace::Ledger, start, end, Direction::Ascending).map(|entry| {
        let damaged = Error::Damaged(Damage::Ledger);
        read_decided_key(&entry?.0).ok_or(damaged)
    })
}

/// What opened the pledges of a transition: the key of each, and the digest of the result.
pub(crate) fn reveals(
    engine: &dyn Engine,
    id: &TransitionId,
) -> impl Iterator<Item = Result<(Bytes, Digest), Error>> {
    let damage = Damage::Transition(*id);
    scan_prefix(engine, Keyspace::Ledger, &key(REVEALED, id)).map(move |entry| {
        let (key, record) = entry?;
        Ok((key, Digest(decode::<Revealed>(&record, damage)?.digest)))
    })
}

/// The keys of all else that happened to the tasks of a transition, and to the state.
pub(crate) fn fact_keys(
    engine: &dyn Engine,
    id: &TransitionId,
) -> impl Iterator<Item = Result<Bytes, Error>> {
    let scan = |tag| scan_prefix(engine, Keyspace::Ledger, &key(tag, id));
    let tags = [PLEDGED, CLOSED, BAD_REVEAL, ENDED, STATE_AFTER, STATE_BEFORE];
    let facts = tags.map(scan).into_iter().flatten();
    facts.map(|entry| Ok(entry?.0))
}

pub(crate) fn delete_fact(batch: &mut Batch, key: Bytes) {
    batch.delete(Keyspace::Ledger, key);
}

pub(crate) fn delete_spec(batch: &mut Batch, id: &TransitionId) {
    batch.delete(Keyspace::Ledger, key(SPEC, id));
}

pub(crate) fn delete_registry(batch: &mut Batch, version: Version) {
    batch.delete(Keyspace::Ledger, registry_key(version));
}

pub(crate) fn delete_decided(batch: &mut Batch, version: Version, id: &TransitionId) {
    batch.delete(Keyspace::Ledger, decided_key(version, id));
}

/// Deletes a blob, with all that is known of it.
pub(crate) fn delete_blob(batch: &mut Batch, digest: &Digest) {
    for tag in [CONTENT, READABLE, NAMED] {
        batch.delete(Keyspace::Blobs, blob_key(tag, digest));
    }
}

/// Forgets which decision has named a digest.
pub(crate) fn delete_named(batch: &mut Batch, digest: &Digest) {
    batch.delete(Keyspace::Blobs, blob_key(NAMED, digest));
}
