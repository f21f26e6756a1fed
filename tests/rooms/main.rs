//! The rooms of the code know of each other what ARCHITECTURE.md says, and no more.

use std::{fs, path::Path};

/// A room, and what must not be named in it.
const RULES: &[(&str, &[&str])] = &[
    (
        "model",
        &[
            "aya",
            "tokio",
            "std::fs",
            "UdpSocket",
            "TcpStream",
            "TcpListener",
            "std::io",
            "Instant",
            "SystemTime",
            "Timestamp::now",
            "crate::host",
            "crate::probe",
            "crate::collect",
            "crate::taker",
            "crate::output",
            "crate::commands",
        ],
    ),
    (
        "output",
        &[
            "aya",
            "tokio",
            "std::fs",
            "UdpSocket",
            "TcpStream",
            "TcpListener",
            "Instant",
            "SystemTime",
            "Timestamp::now",
            "crate::host",
            "crate::probe",
            "crate::collect",
            "crate::taker",
            "crate::commands",
        ],
    ),
    (
        "diagnosis",
        &[
            "aya",
            "tokio",
            "std::fs",
            "std::process",
            "std::io",
            "Instant",
            "SystemTime",
            "Timestamp::now",
            "crate::host",
            "crate::probe",
            "crate::collect",
            "crate::taker",
            "crate::survey",
            "crate::output",
            "crate::commands",
        ],
    ),
    (
        "survey.rs",
        &[
            "aya",
            "crate::probe",
            "crate::taker",
            "crate::model",
            "crate::output",
            "crate::commands",
        ],
    ),
    ("report.rs", &["crate::"]),
    (
        "host",
        &[
            "aya",
            "crate::probe",
            "crate::collect",
            "crate::taker",
            "crate::model",
            "crate::output",
            "crate::commands",
        ],
    ),
    (
        "probe",
        &["crate::collect", "crate::taker", "crate::model", "crate::output", "crate::commands"],
    ),
    ("commands", &["aya"]),
    ("collect.rs", &["aya", "crate::taker", "crate::model", "crate::output", "crate::commands"]),
    ("taker.rs", &["aya", "crate::output", "crate::commands"]),
    // The one thing that samples, facts and the model share.
    ("workload.rs", &["aya", "crate::"]),
    (
        "sample.rs",
        &[
            "aya",
            "crate::host",
            "crate::probe",
            "crate::collect",
            "crate::taker",
            "crate::survey",
            "crate::facts",
            "crate::model",
            "crate::diagnosis",
            "crate::report",
            "crate::output",
            "crate::commands",
        ],
    ),
    ("wanted.rs", &["aya", "crate::host", "crate::model", "crate::collect", "crate::commands"]),
    (
        "facts.rs",
        &[
            "aya",
            "crate::host",
            "crate::probe",
            "crate::collect",
            "crate::taker",
            "crate::survey",
            "crate::sample",
            "crate::model",
            "crate::diagnosis",
            "crate::report",
            "crate::output",
            "crate::commands",
        ],
    ),
    ("family.rs", &["aya", "crate::"]),
];

#[test]
fn no_room_names_what_it_must_not_know() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut looked_at = 0;
    for (room, forbidden) in RULES {
        for (file, text) in files(&source.join(room)) {
            looked_at += 1;
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for name in *forbidden {
                    assert!(!names(code, name), "{file}:{}: {name} in {room}", number + 1);
                }
            }
        }
    }
    assert!(looked_at > 20, "only {looked_at} files were found");
}

/// Whether the code has this name, and not only a longer one that ends or begins with it.
fn names(code: &str, name: &str) -> bool {
    let within = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        !before.is_some_and(within) && (name.ends_with(':') || !after.is_some_and(within))
    })
}

fn files(place: &Path) -> Vec<(String, String)> {
    if place.is_file() {
        let text = fs::read_to_string(place).unwrap_or_default();
        return vec![(place.display().to_string(), text)];
    }
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.flat_map(|entry| files(&entry.path())).collect()
}

#[test]
fn every_licence_that_is_named_is_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let line = manifest.lines().find_map(|line| line.strip_prefix("license = ")).unwrap();
    for (name, file, words) in [
        ("MIT", "LICENSE-MIT", "without restriction, including without limitation"),
        ("Apache-2.0", "LICENSE-APACHE", "Apache License"),
    ] {
        assert!(line.contains(name), "{line}");
        assert!(fs::read_to_string(root.join(file)).unwrap().contains(words), "{file}");
    }
}
