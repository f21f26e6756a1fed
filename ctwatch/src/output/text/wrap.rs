//! Lines that are longer than the terminal is wide.

use std::io::{self, Write};

/// Breaks between words so that a narrow terminal does not break within them; what follows is
/// indented below what it belongs to.
pub(super) fn wrapped(out: &mut impl Write, text: &str, width: usize) -> io::Result<()> {
    let body = text.trim_start();
    let mut line = text[..text.len() - body.len()].to_owned();
    let indent = format!("{line}  ");
    let mut empty = true;
    for word in body.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            writeln!(out, "{line}")?;
            line.clone_from(&indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_break_between_words_and_keep_their_indent() {
        let mut out = Vec::new();
        wrapped(&mut out, "  one two three", 10).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "  one two\n    three\n");
    }
}
