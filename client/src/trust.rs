//! Where trust comes from: never from the server, unless a person looked at its key and said so.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anwansi_proofs::{POLICY_BYTES_MAX, Policy, Vkey};
use serde::Deserialize;

use crate::{
    Error,
    memory::{file_name, make_directory, write_atomically},
    transport::Transport,
};

/// The longest answer of `/v1/info`.
const INFO_BYTES_MAX: u64 = 1 << 20;

/// The policy in a file.
///
/// # Errors
/// [`Error::File`] if it cannot be read or is no policy.
pub fn of_file(path: &Path) -> Result<Policy, Error> {
    let length = fs::metadata(path).map_err(Error::file(path))?.len();
    if length > POLICY_BYTES_MAX as u64 {
        return Err(invalid(path, "longer than policies are"));
    }
    let text = fs::read_to_string(path).map_err(Error::file(path))?;
    Policy::parse(&text).map_err(|error| invalid(path, error))
}

/// The policy that asks for the signature of the log with this key, and no witness.
///
/// # Errors
/// [`Error::Usage`] if it is not the key of a log.
pub fn of_vkey(text: &str) -> Result<Policy, Error> {
    let refused = |error| Error::Usage(format!("not the key of a log: {error}"));
    Policy::of_log(text.parse().map_err(refused)?).map_err(refused)
}

/// The policy that was pinned for the server at `url`, if one was.
///
/// # Errors
/// [`Error::File`] if it cannot be read or is no policy.
pub fn pinned(directory: &Path, url: &str) -> Result<Option<Policy>, Error> {
    let path = pin_path(directory, url);
    let there = path.try_exists().map_err(Error::file(&path))?;
    there.then(|| of_file(&path)).transpose()
}

/// Pins the log's key for the server at `url`: from now on its signature is believed, and no other.
/// Tells where.
///
/// # Errors
/// [`Error::Usage`] if another policy is pinned; [`Error::File`].
pub fn pin(directory: &Path, url: &str, vkey: &Vkey) -> Result<PathBuf, Error> {
    let policy = of_vkey(&vkey.to_string())?;
    let path = pin_path(directory, url);
    match pinned(directory, url)? {
        Some(before) if before == policy => return Ok(path),
        Some(before) => {
            return Err(Error::Usage(format!(
                "{url} is pinned to another key, {}, in {}: remove that file if you mean to trust the \
                 new one",
                before.log(),
                path.display(),
            )));
        }
        None => make_directory(path.parent().expect("the pin lies in a directory"))?,
    }
    write_atomically(&path, format!("# {}\nlog {vkey}\nquorum none\n", trimmed(url)).as_bytes())?;
    Ok(path)
}

/// The key that the server at `url` says is its log's. Anyone can say so: compare it with what its
/// operator shows elsewhere.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::Refused`], and [`Error::NotProven`] if it says no key.
pub fn offered(url: &str) -> Result<Vkey, Error> {
    #[derive(Deserialize)]
    struct Info {
        vkey: String,
    }
    let answer = Transport::new(url)?.get("v1/info", INFO_BYTES_MAX)?;
    let Info { vkey } = serde_json::from_slice(&answer.body).map_err(Error::form)?;
    let vkey: Vkey = vkey.parse()?;
    // Only what could be pinned is offered.
    Policy::of_log(vkey.clone())?;
    Ok(vkey)
}

fn pin_path(directory: &Path, url: &str) -> PathBuf {
    directory.join("trust").join(format!("{}.policy", file_name(trimmed(url))))
}

/// One server under one name, with or without a slash behind it.
fn trimmed(url: &str) -> &str {
    url.trim_end_matches('/')
}

fn invalid(path: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::file(path)(io::Error::new(io::ErrorKind::InvalidData, why))
}
