//! Words for a shell, out of names that strangers have chosen.

/// For a shell, whatever is in it: a word that prints, and is shown as it is. What does not print is
/// written out, in the way that all shells but the smallest know.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@%+=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if word.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let mut out = String::from("$'");
    for byte in word.bytes() {
        match byte {
            b'\'' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            // Octal, and all of its digits: whatever follows is no part of it.
            other => out.push_str(&format!("\\{other:03o}")),
        }
    }
    out + "'"
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::quoted;

    #[test]
    fn a_shell_takes_a_quoted_word_for_what_it_is() {
        let names = [
            "plain",
            "",
            "two words",
            "h1'; touch PWNED #",
            "a';id>P2;#",
            "$(id)",
            "`id`",
            "a\\b\\\\",
            "~",
            "-n",
            "*",
            "!x",
            "\"q\"",
            "line\nbreak",
            "\u{1b}[31m\u{202e}rtl",
            "h\u{f6}st 7'\\",
        ];
        for name in names {
            let word = quoted(name);
            assert!(word.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{word}");
            // Of the small shells some do not know $'…'.
            let shell = if word.starts_with('$') { "bash" } else { "sh" };
            let line = format!("printf %s {word}");
            let said = Command::new(shell).args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&said.stdout), *name, "{line}");
        }
    }
}
