//! Decimals and base64 as every text of ours writes them: one spelling each.

use alloc::{string::String, vec::Vec};

use base64::{Engine, engine::general_purpose::STANDARD};

/// The largest integer written in decimal: JavaScript counts exactly up to here.
pub const DECIMAL_MAX: u64 = (1 << 53) - 1;

/// Reads `0`, or digits that start with 1 to 9, at most [`DECIMAL_MAX`]; `None` for all else.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    const DIGITS_MAX: usize = 16;
    let digits = text.len() <= DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
    let minimal = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|value| digits && minimal && *value <= DECIMAL_MAX)
}

/// Writes standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Appends what [`base64`] writes.
pub(crate) fn push_base64(text: &mut String, bytes: &[u8]) {
    STANDARD.encode_string(bytes, text);
}

/// How long that is.
pub(crate) fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Reads what [`base64`] writes, and nothing else: padding and zero trailing bits are required.
/// Allocates three quarters of `text`; the caller bounds its length.
pub(crate) fn base64_decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_has_one_spelling() {
        for value in [0, 1, 9, 10, 1_000_000, DECIMAL_MAX - 1, DECIMAL_MAX] {
            assert_eq!(decimal(&alloc::format!("{value}")), Some(value));
        }
        for refused in ["", "00", "01", "+1", "-0", " 1", "1 ", "1_0", "0x1", "\u{661}"] {
            assert_eq!(decimal(refused), None, "{refused:?}");
        }
        assert_eq!(decimal("9007199254740992"), None);
        assert_eq!(decimal("18446744073709551616"), None);
    }

    #[test]
    fn base64_has_one_spelling() {
        assert_eq!(base64_decode("AAE="), Some(alloc::vec![0, 1]));
        assert_eq!(base64_decode(""), Some(alloc::vec![]));
        for refused in ["AAE", "AAF=", "AA==E", "AAE=\n", " AAE=", "AAE-", "AAE==", "=", "A==="] {
            assert_eq!(base64_decode(refused), None, "{refused:?}");
        }
    }
}
