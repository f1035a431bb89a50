//! What nodes sign and reveal: pledges before anyone shows a result, votes when they have opened.
//!
//! ```text
//! pledge    H(place, node, digest of the result, salt)     signed, published in a closing
//! reveal    the result and the salt                        opens the pledge: the two make a vote
//! ```
//!
//! The place is in everything that is hashed, so that nothing signed for one task, one round or one log
//! means anything in another.

use alloc::vec::Vec;
use core::{fmt, str::FromStr};

use crate::{
    Digest, Error,
    ed25519::PublicKey,
    hash::{Hasher, Seed},
    spec::TransitionId,
};

/// A node's Ed25519 public key: who it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub [u8; 32]);

/// One round of one task of one transition, in one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The digest of the header of the version that opened the transition.
    pub opened: Digest,
    /// The transition.
    pub transition: TransitionId,
    /// The index of the task.
    pub task: u32,
    /// The round, from 0.
    pub round: u32,
}

/// A node's word that it has a result, before it shows which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pledge {
    /// Who pledges.
    pub node: NodeKey,
    /// The digest made by [`Place::pledge`].
    pub pledge: Digest,
    /// The node's signature over [`Place::signed`].
    pub signature: [u8; 64],
}

/// A pledge that was opened: which result the node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The pledge.
    pub pledge: Pledge,
    /// What hid the result in the pledge.
    pub salt: [u8; 32],
    /// The digest of the result.
    pub digest: Digest,
    /// The round in which it was pledged.
    pub round: u32,
}

impl Place {
    /// The pledge of `node` for the result with this digest.
    #[must_use]
    pub fn pledge(&self, node: &NodeKey, digest: &Digest, salt: &[u8; 32]) -> Digest {
        let mut hasher = self.hasher(b"anwansi/pldg/v1\n");
        hasher.update(&node.0);
        hasher.update(&digest.0);
        hasher.update(salt);
        hasher.finish()
    }

    /// The bytes that a node signs to pledge.
    #[must_use]
    pub fn signed(&self, pledge: &Digest) -> [u8; SIGNED_BYTES] {
        let mut signed = [0; SIGNED_BYTES];
        let (place, last) = signed.split_at_mut(SIGNED_BYTES - Digest::LEN);
        place.copy_from_slice(&self.bytes(b"anwansi/vote/v1\n"));
        last.copy_from_slice(&pledge.0);
        signed
    }

    /// What `node` derives its variation of the work from, so that nodes' errors do not repeat one another.
    #[must_use]
    pub fn noise_seed(&self, node: &NodeKey) -> Digest {
        let mut hasher = self.hasher(b"anwansi/seed/v1\n");
        hasher.update(&node.0);
        hasher.finish()
    }

    /// What the nodes of this round are drawn by.
    pub(crate) fn draw_seed(&self) -> Seed {
        self.hasher(b"anwansi/draw/v1\n").seed()
    }

    fn hasher(&self, tag: &[u8; 16]) -> Hasher {
        let mut hasher = Hasher::default();
        hasher.update(&self.bytes(tag));
        hasher
    }

    /// `tag || opened || transition || task || round`, integers big-endian.
    fn bytes(&self, tag: &[u8; 16]) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        bytes[..16].copy_from_slice(tag);
        bytes[16..48].copy_from_slice(&self.opened.0);
        bytes[48..80].copy_from_slice(&self.transition.0.0);
        bytes[80..84].copy_from_slice(&self.task.to_be_bytes());
        bytes[84..].copy_from_slice(&self.round.to_be_bytes());
        bytes
    }
}

const PLACE_BYTES: usize = 16 + 2 * Digest::LEN + 4 + 4;
const SIGNED_BYTES: usize = PLACE_BYTES + Digest::LEN;

impl Pledge {
    /// The bytes of a pledge as a leaf of its round's tree: node, pledge, signature.
    pub const LEN: usize = 128;

    /// Whether the node signed it, for `place`.
    ///
    /// # Cost
    /// One signature check, strict as SPEC.md demands.
    #[must_use]
    pub fn is_signed(&self, place: &Place) -> bool {
        self.node.verify(&place.signed(&self.pledge), &self.signature)
    }

    /// The leaf.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(&self.node.0);
        bytes[32..64].copy_from_slice(&self.pledge.0);
        bytes[64..].copy_from_slice(&self.signature);
        bytes
    }

    /// Reads leaves that stand one after the other; `None` if a part of one is left over.
    #[must_use]
    pub fn read_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let (leaves, rest) = bytes.as_chunks::<{ Self::LEN }>();
        rest.is_empty().then(|| leaves.iter().map(Self::read).collect())
    }

    fn read(bytes: &[u8; Self::LEN]) -> Self {
        Pledge {
            node: NodeKey(part(bytes, 0)),
            pledge: Digest(part(bytes, 32)),
            signature: part(bytes, 64),
        }
    }
}

impl Vote {
    /// The bytes of a vote as a leaf of its task's tree: node, pledge, salt, digest, round, signature.
    pub const LEN: usize = 196;

    /// Whether the result and the salt open the pledge, made by this node at `place`.
    #[must_use]
    pub fn opens(&self, place: &Place) -> bool {
        let Pledge { node, pledge, .. } = &self.pledge;
        self.round == place.round && place.pledge(node, &self.digest, &self.salt) == *pledge
    }

    /// The leaf.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(&self.pledge.node.0);
        bytes[32..64].copy_from_slice(&self.pledge.pledge.0);
        bytes[64..96].copy_from_slice(&self.salt);
        bytes[96..128].copy_from_slice(&self.digest.0);
        bytes[128..132].copy_from_slice(&self.round.to_be_bytes());
        bytes[132..].copy_from_slice(&self.pledge.signature);
        bytes
    }

    /// Reads leaves that stand one after the other; `None` if a part of one is left over.
    #[must_use]
    pub fn read_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let (leaves, rest) = bytes.as_chunks::<{ Self::LEN }>();
        rest.is_empty().then(|| leaves.iter().map(Self::read).collect())
    }

    fn read(bytes: &[u8; Self::LEN]) -> Self {
        let pledge = Digest(part(bytes, 32));
        let node = NodeKey(part(bytes, 0));
        Vote {
            pledge: Pledge { node, pledge, signature: part(bytes, 132) },
            salt: part(bytes, 64),
            digest: Digest(part(bytes, 96)),
            round: u32::from_be_bytes(part(bytes, 128)),
        }
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the parts lie inside of the leaf")
}

impl NodeKey {
    /// Whether `signature` is this node's over `message`; never, if this is no key.
    ///
    /// # Cost
    /// One strict signature check.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        PublicKey::parse(&self.0).is_some_and(|key| key.verify(message, signature))
    }
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Digest(self.0), f)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Digest(bytes) = text.parse()?;
        Ok(NodeKey(bytes))
    }
}
