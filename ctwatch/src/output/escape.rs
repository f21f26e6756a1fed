//! Names of interfaces, processes and namespaces are chosen by strangers: nothing of them may
//! speak to the terminal.

/// The text with everything that does not print (control characters, direction overrides) and the
/// backslash itself written as escapes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' => out.push(character),
            _ => out.extend(character.escape_debug()),
        }
    }
    out
}

/// A command as it is: an escape more, and a quoted word is another one, or none. Names in it are quoted so that
/// nothing in them fails to print; what does so all the same is no command.
pub(crate) fn verbatim(line: &str) -> String {
    let prints = |c: char| c.is_ascii_graphic() || matches!(c, ' ' | '\t');
    match line.chars().all(prints) {
        true => line.to_owned(),
        false => format!("# not shown, because not all of it prints: {}", escaped(line)),
    }
}

/// For JSON, which keeps every character and lets DEL, C1 controls and direction overrides through
/// as they are: those that do not print, as `\uXXXX`, which any reader turns back.
pub(super) fn json_escape(fragment: &str, mut write: impl FnMut(&str)) {
    let mut plain = 0;
    for (at, character) in fragment.char_indices() {
        let hidden = !character.is_ascii() && character.escape_debug().len() > 1;
        if !hidden && character != '\u{7f}' {
            continue;
        }
        write(&fragment[plain..at]);
        let mut units = [0; 2];
        for unit in character.encode_utf16(&mut units) {
            write(&format!("\\u{unit:04x}"));
        }
        plain = at + character.len_utf8();
    }
    write(&fragment[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prints_stays_and_what_does_not_is_written_out() {
        assert_eq!(escaped("veth0 [x] 'a'"), "veth0 [x] 'a'");
        assert_eq!(escaped("höst"), "höst");
        assert_eq!(escaped("a\x1b[2Jb\r\n"), "a\\u{1b}[2Jb\\r\\n");
        assert_eq!(escaped("\u{9b}31m\u{202e}x\\"), "\\u{9b}31m\\u{202e}x\\\\");
    }

    #[test]
    fn json_keeps_the_text_and_shows_no_control_character() {
        let mut out = String::from("\"");
        json_escape("a\u{9b}b\u{202e}c\u{7f}é\u{e0001}", |part| out.push_str(part));
        out.push('"');
        assert!(out.contains("\\u009b") && out.contains("\\u202e") && out.contains("\\u007f"));
        let back: String = serde_json::from_str(&out).unwrap();
        assert_eq!(back, "a\u{9b}b\u{202e}c\u{7f}é\u{e0001}");
    }
}
