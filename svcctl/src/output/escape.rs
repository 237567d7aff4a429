//! Text from etcd, made safe for a terminal.
//!
//! Whoever can write a record could otherwise clear an operator's screen, recolour it, or forge lines of a table.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with every control character, and every character that reorders or hides others, written as an escape.
///
/// ```
/// assert_eq!(svcctl::output::escape("a\x1b[2J"), "a\\u{1b}[2J");
/// ```
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            // Writing to a String cannot fail.
            let _ = write!(safe, "{}", c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}'     // zero width, direction marks
            | '\u{2028}'..='\u{202e}'   // line and paragraph separators, embeddings, overrides
            | '\u{2060}'..='\u{206f}'   // invisible operators, isolates
            | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_passes() {
        for (text, safe) in [
            ("plain ä 漢", "plain ä 漢"),
            ("\x1b]0;owned\x07", "\\u{1b}]0;owned\\u{7}"),
            ("a\r\nb\tc", "a\\u{d}\\u{a}b\\u{9}c"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}txt", "abc\\u{202e}txt"),
            ("\u{7f}", "\\u{7f}"),
        ] {
            assert_eq!(escape(text), safe);
        }
    }
}
