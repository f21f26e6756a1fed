//! The rooms of the code know of each other what the tables below allow, and no more; ARCHITECTURE.md
//! draws them. A room is what stands at the top of ctwatch/src: `host` is host.rs and all in host/.
//!
//! Each test reads the source and compares it with a table, both ways: what is new fails, and what a
//! table lists and the source no longer does.

mod code;
mod house;
mod imports;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::LazyLock,
};

use house::{Arrows, House, Of, cycle, leads};

/// A room, and the rooms that it may name. `abi` is the crate ctwatch-abi, `lib` is lib.rs.
const ALLOWED: &[(&str, &[&str])] = &[
    // What the kernel's own files look like is known to the host already.
    ("bundle", &["abi", "host", "model", "record"]),
    ("cli", &["abi", "model", "observe"]),
    ("collect", &["host", "record"]),
    (
        "commands",
        &[
            "abi",
            "bundle",
            "cli",
            "collect",
            "diagnosis",
            "host",
            "model",
            "observe",
            "output",
            "probe",
            "record",
            "recording",
            "threads",
            "tui",
            "unpack",
            "web",
        ],
    ),
    ("diagnosis", &["abi", "model", "record"]),
    ("dumps", &[]),
    ("family", &[]),
    ("host", &["abi", "family", "record"]),
    ("lib", &[]),
    ("main", &["cli", "commands", "host", "output", "web"]),
    ("model", &["abi", "family", "record"]),
    ("observe", &["abi", "host", "model", "probe", "record", "threads"]),
    ("old_kernels", &[]),
    ("output", &["abi", "diagnosis", "model", "record"]),
    ("probe", &["abi", "host", "record"]),
    ("record", &["abi"]),
    ("recording", &["abi", "host", "model", "observe", "record", "threads", "unpack"]),
    ("threads", &[]),
    ("top_lists", &[]),
    ("tui", &["abi", "diagnosis", "model", "output", "record"]),
    ("unpack", &["host"]),
    // It says which format of metrics a client wants, and what went wrong.
    ("web", &["host", "output", "threads"]),
];

/// What a room's tests may name beyond that.
const ALLOWED_IN_TESTS: &[(&str, &[&str])] = &[
    ("dumps", &["bundle", "diagnosis", "record"]),
    ("old_kernels", &["abi", "host", "model", "record"]),
    ("top_lists", &["abi", "model", "probe", "record"]),
];

/// A name, and the only rooms that may have it.
const ONLY_IN: &[(&str, &[&str])] = &[("aya", &["probe"])];

/// A room, and names from outside that it must not have.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "model",
        &[
            "tokio",
            "std::fs",
            "UdpSocket",
            "TcpStream",
            "TcpListener",
            "std::io",
            "Instant",
            "SystemTime",
            "Timestamp::now",
        ],
    ),
    (
        "bundle",
        &[
            "tokio",
            "std::fs",
            "std::process",
            "UdpSocket",
            "TcpStream",
            "TcpListener",
            "Instant",
            "SystemTime",
            "Timestamp::now",
        ],
    ),
    (
        "output",
        &[
            "tokio",
            "std::fs",
            "UdpSocket",
            "TcpStream",
            "TcpListener",
            "Instant",
            "SystemTime",
            "Timestamp::now",
        ],
    ),
    (
        "tui",
        &[
            "tokio",
            "std::fs",
            "std::io",
            "std::env",
            "UdpSocket",
            "TcpStream",
            "TcpListener",
            "Instant",
            "SystemTime",
            "Timestamp::now",
        ],
    ),
    (
        "diagnosis",
        &["tokio", "std::fs", "std::process", "std::io", "Instant", "SystemTime", "Timestamp::now"],
    ),
];

/// A file, a file that it names although that one leads back to it, and why. Without these no file
/// leads back to itself. `diagnosis/*` is every file of the folder that does.
const KNOWN_BACKWARDS: &[(&str, &str, &str)] = &[];

/// A type's name that is defined in more than one file.
const KNOWN_TYPES: &[(&str, &[&str])] = &[];

/// Files that are no Rust: one that is includes them as they are.
const INCLUDED: &[&str] = &["output/html/hover.js", "output/html/style.css"];

/// Read once for all tests.
fn house() -> &'static House {
    static HOUSE: LazyLock<House> =
        LazyLock::new(|| House::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")));
    &HOUSE
}

fn arrows(table: &[(&str, &[&str])]) -> Arrows {
    let each = |(from, to): &(&str, &[&str])| {
        let from = (*from).to_owned();
        to.iter().map(move |to| (from.clone(), (*to).to_owned())).collect::<Vec<_>>()
    };
    table.iter().flat_map(each).collect()
}

fn shown<'a>(arrows: impl IntoIterator<Item = &'a (String, String)>) -> String {
    let shown = arrows.into_iter().map(|(from, to)| format!("{from} -> {to}"));
    shown.collect::<Vec<_>>().join(", ")
}

/// What is wrong about the arrows that are there, in a sentence that says what to do.
fn complaint(there: &Arrows, allowed: &Arrows, table: &str) -> Option<String> {
    let new: Vec<_> = there.difference(allowed).collect();
    if !new.is_empty() {
        return Some(format!(
            "a room names another one that {table} in tests/rooms/main.rs does not list: {}. Name it \
             from a room that may, hand it over as a plain value, or list the arrow and draw it in \
             ARCHITECTURE.md",
            shown(new)
        ));
    }
    let gone: Vec<_> = allowed.difference(there).collect();
    (!gone.is_empty()).then(|| {
        format!(
            "{table} in tests/rooms/main.rs lists arrows that no code needs any more: {}. Delete them \
             there, and in ARCHITECTURE.md",
            shown(gone)
        )
    })
}

#[test]
fn every_file_is_read() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut there = BTreeSet::new();
    let mut open = vec![src.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                there.insert(path.strip_prefix(&src).unwrap().display().to_string());
            }
        }
    }
    let house = house();
    let read = house.paths().into_iter().chain(INCLUDED.iter().copied());
    let read: BTreeSet<_> = read.map(str::to_owned).collect();
    let other: Vec<_> = read.symmetric_difference(&there).collect();
    assert!(
        other.is_empty(),
        "files of ctwatch/src that belong to no module, or to several: {other:?}. Delete them, name \
         each in one `mod`, or list what is no Rust in INCLUDED of tests/rooms/main.rs"
    );
}

#[test]
fn every_room_is_in_the_table() {
    let house = house();
    let listed: BTreeSet<_> = ALLOWED.iter().map(|(room, _)| *room).collect();
    assert_eq!(
        house.rooms(),
        listed,
        "the rooms of ctwatch/src (left) are not those of ALLOWED in tests/rooms/main.rs (right): list \
         each with the rooms it may name, and describe it in ARCHITECTURE.md"
    );
}

#[test]
fn rooms_name_what_they_may() {
    let there = house().rooms_named(Of::Product);
    assert!(there.len() > 20, "only {} arrows were found", there.len());
    let complaint = complaint(&there, &arrows(ALLOWED), "ALLOWED");
    assert!(complaint.is_none(), "{}", complaint.unwrap_or_default());
}

#[test]
fn tests_of_rooms_name_what_they_may() {
    let house = house();
    let product = house.rooms_named(Of::Product);
    let more = house.rooms_named(Of::Tests).difference(&product).cloned().collect();
    let complaint = complaint(&more, &arrows(ALLOWED_IN_TESTS), "ALLOWED_IN_TESTS");
    assert!(complaint.is_none(), "{}", complaint.unwrap_or_default());
}

#[test]
fn rooms_have_no_forbidden_names() {
    let house = house();
    let mut found = Vec::new();
    let mut look = |room: &str, names: &[&str]| {
        let mut looked_at = 0;
        for (file, has) in house.of_room(room) {
            looked_at += 1;
            let forbidden = names.iter().filter(|name| has.has(name));
            found.extend(forbidden.map(|name| format!("{name} in {file}")));
        }
        assert!(looked_at > 0, "FORBIDDEN in tests/rooms/main.rs lists {room}, which is no room");
    };
    for (room, names) in FORBIDDEN {
        look(room, names);
    }
    for (name, rooms) in ONLY_IN {
        for room in house.rooms().difference(&rooms.iter().copied().collect()) {
            look(room, &[name]);
        }
    }
    assert!(
        found.is_empty(),
        "names that FORBIDDEN and ONLY_IN in tests/rooms/main.rs keep out of these rooms: {}. Do it in \
         a room that may, and hand over a plain value",
        found.join(", ")
    );
}

/// `diagnosis/*` is every file of that folder that names the other one.
fn fits(pattern: &str, file: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(folder) => file.starts_with(folder),
        None => file == pattern,
    }
}

#[test]
fn no_file_leads_back_to_itself() {
    let there = house().files_named();
    assert!(there.len() > 200, "only {} arrows were found", there.len());
    let known = |(from, to): &&(String, String)| {
        KNOWN_BACKWARDS.iter().any(|(a, b, _)| fits(a, from) && b == to)
    };
    let forward: Arrows = there.iter().filter(|arrow| !known(arrow)).cloned().collect();
    let back = cycle(&forward);
    assert!(
        back.is_none(),
        "these files name each other in a circle: {}. Move what they share into a file of its own, \
         which names none of them; or list one arrow, with the reason, in KNOWN_BACKWARDS of \
         tests/rooms/main.rs",
        back.unwrap_or_default().join(" -> ")
    );
    for (from, to, _) in KNOWN_BACKWARDS {
        let mut arrows = there.iter().filter(|(a, b)| fits(from, a) && b == to);
        assert!(
            arrows.any(|(from, to)| leads(&forward, to, from)),
            "{from} -> {to} closes no circle any more: delete it from KNOWN_BACKWARDS in \
             tests/rooms/main.rs"
        );
    }
}

#[test]
fn type_names_are_defined_once() {
    let house = house();
    let there = house.types_of_many();
    let known: BTreeMap<_, _> =
        KNOWN_TYPES.iter().map(|(name, files)| (*name, files.to_vec())).collect();
    let new: Vec<_> = there.iter().filter(|(name, at)| known.get(*name) != Some(*at)).collect();
    assert!(
        new.is_empty(),
        "types of one name in several files: {new:?}. Rename one, or list all places in KNOWN_TYPES of \
         tests/rooms/main.rs"
    );
    let gone: Vec<_> = known.keys().filter(|name| !there.contains_key(*name)).collect();
    assert!(
        gone.is_empty(),
        "these names are defined once now: delete them from KNOWN_TYPES in tests/rooms/main.rs: \
         {gone:?}"
    );
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

mod tests {
    use super::*;

    fn of(arrows: &[(&str, &str)]) -> Arrows {
        arrows.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
    }

    #[test]
    fn an_arrow_that_is_new_or_gone_is_complained_about() {
        let (one, two) = (of(&[("a", "b")]), of(&[("a", "b"), ("a", "c")]));
        assert_eq!(complaint(&one, &one, "T"), None);
        let new = complaint(&two, &one, "T").unwrap_or_default();
        assert!(new.contains("does not list: a -> c."), "{new}");
        let gone = complaint(&one, &two, "T").unwrap_or_default();
        assert!(gone.contains("no code needs any more: a -> c."), "{gone}");
    }
}
