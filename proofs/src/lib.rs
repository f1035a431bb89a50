//! Formats of Anwansi and their verification.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod error;
pub mod hash;
mod varint;

pub use error::{Error, Format};
pub use hash::{Digest, Root};
