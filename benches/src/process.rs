//! What a process takes, of memory and of disk.

use std::{fs, path::Path};

/// A number of a file that Linux keeps; 0 elsewhere.
#[must_use]
pub fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The bytes of all files below a directory.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn size(path: &Path) -> u64 {
    let entries = fs::read_dir(path).expect("the directory is there").flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        // It was just removed.
        Err(_) => 0,
    });
    sizes.sum()
}
