//! What tests of notes and policies share: who signs, and every changed byte of a text.
#![allow(clippy::unwrap_used, missing_docs)]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use anwansi_proofs::{Error, Format, LogHash, Note, Signature, Vkey, checkpoint_body, cosignature};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::Value;

pub const ORIGIN: &str = "example.org/log";

pub fn vector() -> Value {
    serde_json::from_str(include_str!("../../vectors/log.json")).unwrap()
}

pub fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().unwrap()
}

/// Every text that differs from `text` in one byte.
pub fn one_byte_changed(text: &str) -> impl Iterator<Item = (usize, String)> {
    (0..text.len()).flat_map(move |at| {
        (1..=u8::MAX).filter_map(move |change| {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= change;
            Some((at, String::from_utf8(bytes).ok()?))
        })
    })
}

/// Someone who signs: a secret key, under a name.
pub struct Party {
    pub secret: SigningKey,
    pub name: String,
}

impl Party {
    pub fn new(name: &str, seed: u8) -> Self {
        Party { secret: SigningKey::from_bytes(&[seed; 32]), name: name.into() }
    }

    pub fn public(&self) -> [u8; 32] {
        self.secret.verifying_key().to_bytes()
    }

    pub fn log_key(&self) -> Vkey {
        Vkey::ed25519(&self.name, &self.public()).unwrap()
    }

    pub fn witness_key(&self) -> Vkey {
        Vkey::cosignature(&self.name, &self.public()).unwrap()
    }

    pub fn sign(&self, body: &str) -> Signature {
        Signature::new(&self.log_key(), &self.secret.sign(body.as_bytes()).to_bytes())
    }

    pub fn cosign(&self, body: &str, time: u64) -> Signature {
        let message = cosignature::message(time, body);
        let signature = self.secret.sign(message.as_bytes()).to_bytes();
        Signature::new(&self.witness_key(), &cosignature::encode(time, &signature))
    }
}

pub fn log() -> Party {
    Party::new(ORIGIN, 1)
}

pub fn body() -> String {
    checkpoint_body(ORIGIN, 5, &LogHash([5; 32])).unwrap()
}

pub fn note(signatures: &[Signature]) -> String {
    Note::new(body(), signatures.to_vec()).unwrap().to_string()
}

pub fn malformed<T>(format: Format, at: usize) -> Result<T, Error> {
    Err(Error::Malformed { format, at })
}
