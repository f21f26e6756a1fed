//! What to type and what to write, in the words of a shell.

use crate::{
    facts::Namespace,
    report::{File, Fix},
};

/// Named after this program, as all files are, so that whoever finds it knows where it is from.
const UDEV_FILE: &str = "/etc/udev/rules.d/90-ctwatch-conntrack.rules";

/// A shell's command in this namespace; `None` where it has no name to enter it by.
pub(super) fn within(namespace: &Namespace, command: &str) -> Option<String> {
    if namespace.is_host() {
        return Some(command.to_owned());
    }
    let name = namespace.name.as_deref().filter(|_| namespace.by_ip)?;
    Some(format!("ip netns exec {} {command}", quoted(name)))
}

/// For a shell, whatever is in it: a word that prints, and is shown as it is. What does not print is
/// written out, in the way that all shells but the smallest know.
pub(super) fn quoted(word: &str) -> String {
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

pub(super) fn sysctl(name: &str, value: impl std::fmt::Display) -> String {
    format!("sysctl -w net.netfilter.{name}={value}")
}

/// Sysctls that last: the file, and, where conntrack is a module, what applies it when that is
/// loaded; at boot there is no such sysctl yet. Each fix has a file of its own, so that none undoes
/// another.
pub(super) fn sysctl_files(name: &str, values: &[(&str, u64)], is_module: bool) -> Vec<File> {
    let mut content = String::from("# Written by ctwatch doctor.\n");
    for (name, value) in values {
        content.push_str(&format!("net.netfilter.{name} = {value}\n"));
    }
    let mut files = vec![File { path: format!("/etc/sysctl.d/90-ctwatch-{name}.conf"), content }];
    if is_module {
        files.push(udev_rule());
    }
    files
}

/// <https://www.freedesktop.org/software/systemd/man/latest/sysctl.d.html>, example 3
pub(super) fn udev_rule() -> File {
    let content = "# Written by ctwatch doctor: conntrack's sysctls are there only once it is loaded.\n\
                   ACTION==\"add\", SUBSYSTEM==\"module\", KERNEL==\"nf_conntrack\", \
                   RUN+=\"/sbin/sysctl --system\"\n";
    File { path: UDEV_FILE.to_owned(), content: content.to_owned() }
}

/// How to take back what was written.
pub(super) fn remove(files: &[File]) -> Vec<String> {
    files.iter().map(|file| format!("rm -f {}", quoted(&file.path))).collect()
}

pub(super) fn fix(title: &str) -> Fix {
    Fix {
        title: title.to_owned(),
        now: Vec::new(),
        files: Vec::new(),
        breaks: String::new(),
        undo: Vec::new(),
        expect: String::new(),
    }
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
