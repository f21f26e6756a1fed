//! Recordings that earlier versions wrote are played by this one: tests/fixtures/recordings/README.md.

use std::{
    env::var_os,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{evening, root, text};

/// What is asked of each, and the file that the answer is in.
const ASKED: [(&str, &str); 13] = [
    ("watch.txt", "watch --from HERE"),
    ("watch-top.txt", "watch --from HERE --top 3 --by source,service,interface,process"),
    (
        "watch.json",
        "watch --from HERE --output json --since 2026-11-26T03:01:00Z --until 2026-11-26T03:01:20Z",
    ),
    ("watch-at.txt", "watch --from HERE --at 2026-11-26T03:01:10Z"),
    ("doctor.txt", "doctor --from HERE"),
    ("doctor.json", "doctor --from HERE --output json"),
    ("census.txt", "census --from HERE"),
    ("census.json", "census --from HERE --output json"),
    ("check.txt", "check --from HERE --at 2026-11-26T03:01:10Z --for 5s"),
    ("incidents.txt", "incidents --from HERE"),
    ("incidents.json", "incidents --from HERE --output json"),
    ("incident.txt", "incidents --from HERE --id 0b9e8b7c"),
    ("report.txt", "report --from HERE --output -"),
];

fn recordings() -> PathBuf {
    root().join("tests/fixtures/recordings")
}

/// Of each version, in order.
fn versions() -> Vec<String> {
    let entries = fs::read_dir(recordings()).unwrap().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut versions: Vec<String> =
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    versions.sort();
    versions
}

/// What it says, and after a line what it says aside.
fn said(asked: &str, version: &str) -> String {
    let here = format!("tests/fixtures/recordings/{version}");
    let words: Vec<&str> =
        asked.split(' ').map(|word| if word == "HERE" { here.as_str() } else { word }).collect();
    let mut command = crate::command(&words);
    for variable in ["COLUMNS", "NO_COLOR", "LINES"] {
        command.env_remove(variable);
    }
    let output = command.current_dir(root()).env("TZ", "UTC").output().unwrap();
    let aside = text(&output.stderr);
    let mut said = text(&output.stdout);
    // Its exit code is a part of what it says.
    match asked.starts_with("check") {
        true => said += &format!("exit code {:?}\n", output.status.code()),
        false => assert!(output.status.success(), "{words:?}: {aside}"),
    }
    let said = if said.starts_with("<!DOCTYPE html>") { read(&said) } else { said };
    let said = format!("{said}--- aside\n{aside}");
    // The doctor is of this version, whatever it looks at.
    if !asked.starts_with("doctor") {
        return said;
    }
    said.replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

/// What of a page is there to read, without how it looks.
fn read(page: &str) -> String {
    let (mut texts, mut rest) = (String::new(), page);
    while let Some((before, after)) = rest.split_once('<') {
        if !before.trim().is_empty() {
            texts.push_str(before.trim());
            texts.push('\n');
        }
        let unread = ["style", "script"].into_iter().find(|name| after.starts_with(name));
        let end = unread.map_or(">".to_owned(), |name| format!("</{name}>"));
        rest = after.split_once(&end).map_or("", |(_, rest)| rest);
    }
    texts
}

#[test]
fn recordings_of_each_version_play_as_they_did() {
    let versions = versions();
    assert!(versions.iter().any(|version| version == "1"), "{versions:?}");
    for version in versions {
        let golden = root().join("tests/golden/recordings").join(&version);
        for (file, command) in ASKED {
            let (path, said) = (golden.join(file), said(command, &version));
            if var_os("UPDATE_EXPECT").is_some() {
                fs::create_dir_all(&golden).unwrap();
                fs::write(&path, said).unwrap();
                continue;
            }
            let wanted = fs::read_to_string(&path).unwrap_or_default();
            let other = said.lines().zip(wanted.lines()).find(|(now, then)| now != then);
            assert!(
                said == wanted,
                "{command} of version {version} is not {}: {other:?}, {} and {} bytes. Where that is \
                 meant, UPDATE_EXPECT=1 writes it anew: look at the difference",
                path.display(),
                said.len(),
                wanted.len()
            );
        }
    }
}

/// By coreutils, whose list is written by hand when one is added.
#[test]
fn recordings_that_are_kept_never_change() {
    let list = fs::read_to_string(recordings().join("SHA256SUMS")).unwrap();
    let mut command = Command::new("sha256sum");
    let output =
        command.args(["--check", "--strict", "SHA256SUMS"]).current_dir(recordings()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let listed: Vec<&str> = list.lines().filter_map(|line| line.split("  ").nth(1)).collect();
    for version in versions() {
        for entry in fs::read_dir(recordings().join(&version)).unwrap() {
            let name = format!("{version}/{}", entry.unwrap().file_name().display());
            assert!(listed.contains(&name.as_str()), "{name} is not in SHA256SUMS");
        }
    }
}

/// Each kind of line is in them: what is in none may be lost unseen.
#[test]
fn the_recording_has_each_kind_of_line() {
    let folder = tempfile::tempdir().unwrap();
    evening::record(folder.path());
    let kinds = |folder: &Path| {
        let mut kinds = std::collections::BTreeSet::new();
        let mut lines = ctwatch::recording::read::Lines::open(folder).unwrap();
        while let Some(line) = lines.next_line().unwrap() {
            let value = serde_json::to_value(&line).unwrap();
            kinds.insert(value["type"].as_str().unwrap().to_owned());
        }
        kinds
    };
    let written = kinds(folder.path());
    let wanted = "absent begin census changed end facts gone loaded loads_blind loads_lost loads_since \
                  no_census segment slow tick torn unwritten";
    assert_eq!(written.iter().map(String::as_str).collect::<Vec<_>>().join(" "), wanted);
    assert_eq!(kinds(&recordings().join("1")), written);
}

/// Only where it is asked for, and never over one that is there.
#[test]
fn a_recording_is_written_where_asked_for() {
    let Some(version) = var_os("CTWATCH_WRITE_RECORDING") else { return };
    let folder = recordings().join(version);
    assert!(!folder.exists(), "{} is there, and stays as it is", folder.display());
    evening::record(&folder);
}
