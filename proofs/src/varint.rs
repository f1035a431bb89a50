//! Minimal LEB128 integers, as protobuf writes them, below 2^32.

/// The encoding of `value` and its length.
pub(crate) fn encode(value: usize) -> ([u8; 5], usize) {
    let mut value = u32::try_from(value).expect("what is encoded is a length below 2^32");
    let mut bytes = [0; 5];
    let mut len = 0;
    loop {
        bytes[len] = value.to_le_bytes()[0] & 0x7f;
        len += 1;
        value >>= 7;
        if value == 0 {
            return (bytes, len);
        }
        bytes[len - 1] |= 0x80;
    }
}

/// The integer at the start of `bytes` and the length of its encoding; `None` if there is none, it
/// is not minimal, or it is 2^32 or more.
pub(crate) fn decode(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let minimal = *byte != 0 || i == 0;
            let value = u32::try_from(value).ok().filter(|_| minimal)?;
            return Some((usize::try_from(value).ok()?, i + 1));
        }
    }
    None
}
