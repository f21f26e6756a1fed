//! Files that strangers made: each trick ends in one sentence, with little memory.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::command;

/// What a reader may take, whatever the file is like.
const MEMORY_KB: u64 = 40 << 10;

/// What it said, and the most memory that it was seen to take, in kB.
fn read(path: &Path) -> (Option<i32>, String, u64) {
    let mut command = command(&["incidents", "--from"]);
    command.arg(path).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut memory = 0;
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
        let peak = status
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        memory = memory.max(peak.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(1));
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (code, said, memory)
}

fn refused(path: &Path, words: &[&str]) {
    let begun = Instant::now();
    let (code, said, memory) = read(path);
    // What is over at once may be over before it is looked at.
    let is_over_at_once = begun.elapsed() < Duration::from_millis(200);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for words in words {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
    assert!(memory > 0 || is_over_at_once, "its memory was not seen: {said}");
    assert!(memory < MEMORY_KB, "{memory} kB: {said}");
}

/// Packed members, each so many times, one after the other.
fn members(path: &Path, members: &[(&[u8], usize)]) {
    let mut file = File::create(path).unwrap();
    for (bytes, times) in members {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(bytes).unwrap();
        let packed = packed.finish().unwrap();
        for _ in 0..*times {
            file.write_all(&packed).unwrap();
        }
    }
}

fn header(name: &str, size: u64, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_cksum();
    header
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn a_bomb_is_not_unpacked() {
    let place = Place::new();
    let zeros = vec![0; 16 << 20];
    let bomb = header("zeros", 64 << 30, EntryType::Regular);
    let path = place.at("bomb.tar.gz");
    members(&path, &[(bomb.as_bytes(), 1), (&zeros, 4096)]);
    refused(&path, &["no recording of ctwatch is in it", "that is no text of a machine"]);
    // One that is no archive.
    let path = place.at("bomb.gz");
    members(&path, &[(&zeros, 640)]);
    refused(&path, &["is no recording of ctwatch"]);
}

#[test]
fn ten_million_files_are_not_counted() {
    let place = Place::new();
    let one = header("x", 0, EntryType::Regular);
    let path = place.at("many.tar.gz");
    members(&path, &[(&one.as_bytes().repeat(10_000), 1000)]);
    refused(&path, &["there are more than 500000 files in it"]);
}

#[test]
fn a_line_of_two_gigabytes_is_no_recording() {
    let place = Place::new();
    let path = place.at("line.gz");
    members(&path, &[(&vec![b'x'; 16 << 20], 128)]);
    refused(&path, &["is no recording of ctwatch"]);
    // And within an archive.
    let long = header("ctwatch/recording.ndjson", 2 << 30, EntryType::Regular);
    let path = place.at("line.tar.gz");
    let noise: Vec<u8> =
        (0..16_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    members(&path, &[(long.as_bytes(), 1), (&noise, 128)]);
    let (code, said, memory) = read(&path);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("too long") && memory < 3 * MEMORY_KB, "{memory} kB: {said}");
}

#[test]
fn links_in_an_archive_lead_nowhere() {
    let place = Place::new();
    let path = place.at("links.tar");
    let mut archive = Builder::new(File::create(&path).unwrap());
    for (name, kind) in
        [("ctwatch/recording.ndjson", EntryType::Symlink), ("hard", EntryType::Link)]
    {
        let mut header = header(name, 0, kind);
        header.set_link_name("/etc/shadow").unwrap();
        header.set_cksum();
        archive.append(&header, std::io::empty()).unwrap();
    }
    archive.finish().unwrap();
    refused(&path, &["left out: ctwatch/recording.ndjson, hard: links are not followed"]);
}

/// A recording of so many seconds.
fn recording(path: &Path, seconds: u32) {
    let mut text = String::new();
    let time = |second: u32| format!("2026-11-26T03:{:02}:{:02}Z", second / 60 % 60, second % 60);
    let mut line = |value: serde_json::Value| {
        text.push_str(&value.to_string());
        text.push('\n');
    };
    line(json!({"type": "segment", "format": 1, "version": "0.1.0", "kernel": "6.12.0",
                "time": time(0), "number": 1}));
    line(json!({"type": "begin", "epoch": {"number": 1}, "header": {
                "format": 1, "version": "0.1.0", "kernel": "6.12.0", "interval_ns": 1_000_000_000}}));
    for second in 0..=seconds {
        let table = json!({"id": 3, "inode": 3, "name": "host", "owner": "host", "is_judged": true,
                           "access": "entered", "entries": second % 100});
        line(json!({"type": "tick", "full": true, "sample": {
                    "time": time(second), "elapsed_ns": u64::from(second) * 1_000_000_000,
                    "limit": 100, "tables": [table]}}));
    }
    fs::write(path, text).unwrap();
}

/// It waits for whoever reads its output, and the kernel says what it may.
#[test]
fn a_reader_has_no_privilege_left() {
    let place = Place::new();
    let path = place.at("one.ndjson");
    recording(&path, 1000);
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    rustix::pipe::fcntl_setpipe_size(&write, 4096).unwrap();
    let mut child = command(&["--output", "json", "--from"])
        .arg(&path)
        .stdout(write)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = || fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let begun = Instant::now();
    let waits = |status: &str| status.contains("\nState:\tS") && status.contains("NoNewPrivs:\t1");
    let mut seen = status();
    while !waits(&seen) && begun.elapsed().as_secs() < 20 {
        std::thread::sleep(Duration::from_millis(5));
        seen = status();
    }
    let sets = ["NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"];
    let has = sets.map(|set| seen.lines().any(|line| line == set));
    let ended = child.try_wait().unwrap();
    drop(read);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ended.is_none(), "it did not wait");
    assert_eq!(has, [true; 3], "{sets:?} in {seen}");
}

#[test]
fn what_is_confined_writes_its_output() {
    let place = Place::new();
    recording(&place.at("one.ndjson"), 100);
    fs::create_dir(place.at("out")).unwrap();
    let run = |args: &[&str]| {
        let output = command(args).current_dir(place.0.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for args in [
        &["report", "--from", "one.ndjson", "-o", "out/page.html"][..],
        &["report", "--from", "one.ndjson", "-o", "page.html"],
        &["record", "one.ndjson", "--cut", "out/part.gz", "--mask"],
        &["incidents", "--from", "out/part.gz"],
    ] {
        let (code, said) = run(args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
    }
    for file in ["out/page.html", "page.html", "out/part.gz"] {
        assert!(fs::metadata(place.at(file)).unwrap().len() > 100, "{file}");
    }
    let (code, said) = run(&["report", "--from", "one.ndjson", "-o", "none/page.html"]);
    assert!(code == Some(1) && said.contains("cannot write none/page.html"), "{said}");
}
