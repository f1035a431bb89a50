//! Bytes as text that any terminal shows as it is, and from which the bytes can be had again.

use std::fmt::Write as _;

/// Writes printable characters as they are, a backslash as `\\`, and all else as `\t`, `\n`, `\r` or
/// `\xNN`, a byte each.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\t' => text.push_str("\\t"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                character if is_hidden(character) => {
                    hex(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                character => text.push(character),
            }
        }
        hex(&mut text, chunk.invalid());
    }
    text
}

/// Control characters, and those that change the direction or the place of others.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(text, "\\x{byte:02x}").expect("a string takes all text");
    }
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn only_what_a_terminal_shows_is_left_as_it_is() {
        assert_eq!(escape("Sant Julià\\ a\tb\n".as_bytes()), "Sant Julià\\\\ a\\tb\\n");
        assert_eq!(escape(b"\x1b[2J\0\xff\x7f"), "\\x1b[2J\\x00\\xff\\x7f");
        assert_eq!(escape("\u{202e}x\u{9b}".as_bytes()), "\\xe2\\x80\\xaex\\xc2\\x9b");
    }
}
