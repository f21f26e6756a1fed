//! `ctwatch collect` on whatever machine this is, as whoever runs the test.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use flate2::read::GzDecoder;

use crate::{command, text};

/// The files of an archive, without its folder.
fn pieces(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(path).unwrap()));
    let mut pieces = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        pieces.insert(name.split_once('/').unwrap().1.to_owned(), text);
    }
    pieces
}

fn collect(folder: &Path, args: &[&str]) -> std::process::Output {
    let mut command = command(&["collect", "--duration", "100ms"]);
    command.args(args).current_dir(folder).output().unwrap()
}

#[test]
fn an_archive_is_new_and_private_and_explains_itself() {
    let place = tempfile::tempdir().unwrap();
    let output = collect(place.path(), &["-o", "case.tar.gz"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let path = place.path().join("case.tar.gz");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
    let pieces = pieces(&path);
    let readme = &pieces["README"];
    assert!(readme.contains("ctwatch doctor --from case.tar.gz"), "{readme}");
    for name in pieces.keys().filter(|name| *name != "README") {
        assert!(readme.contains(name.as_str()), "README does not name {name}");
    }
    let first = pieces["ctwatch/recording.ndjson"].lines().next().unwrap();
    assert!(first.contains("\"type\":\"segment\""), "{first}");
    let facts: serde_json::Value = serde_json::from_str(&pieces["ctwatch/facts.json"]).unwrap();
    assert!(facts["release"].is_string(), "{facts}");
    // As any user, and in confinement.
    let doctor = command(&["doctor", "--from"]).arg(&path).output().unwrap();
    assert!(doctor.status.success(), "{}", text(&doctor.stderr));
    assert!(text(&doctor.stdout).contains("conntrack"), "{}", text(&doctor.stdout));
    let again = collect(place.path(), &["-o", "case.tar.gz"]);
    assert!(text(&again.stderr).contains("is it there already"), "{}", text(&again.stderr));
    assert_eq!(again.status.code(), Some(1));
}

#[test]
fn nothing_of_the_machine_is_in_a_masked_one() {
    let place = tempfile::tempdir().unwrap();
    let output = collect(place.path(), &["--mask"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let files: Vec<_> =
        fs::read_dir(place.path()).unwrap().map(|file| file.unwrap().path()).collect();
    let [path] = files.as_slice() else { panic!("{files:?}") };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim();
    assert!(!path.display().to_string().contains(&format!("ctwatch-{host}-")), "{path:?}");
    for (name, piece) in pieces(path) {
        let words = piece.split(|c: char| !(c.is_alphanumeric() || c == '-'));
        // A short name is a word like others.
        if host.len() > 5 {
            assert!(words.clone().all(|word| word != host), "{host} is in {name}");
        }
    }
}

#[test]
fn what_cannot_be_written_is_said_at_once() {
    let place = tempfile::tempdir().unwrap();
    let begun = std::time::Instant::now();
    let output = command(&["collect", "-o", "none/case.tar.gz"]).current_dir(place.path()).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot make none/case.tar.gz"));
    assert!(begun.elapsed().as_secs() < 5);
}
