use std::{
    fs,
    io::{BufRead, Write},
    os::unix::fs::symlink,
};

use ::tar::{Builder, EntryType, Header};
use flate2::{Compression, write::GzEncoder};
use rustix::fs::{CWD, mknodat};

use super::*;

/// A tar with one file, by xz 5.4: `sos-1/proc/modules`.
const TAR_XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a3e027ff00895d00399bcac900cbb0919fb9b67a12206c209f\
f2ea7c8bf98c4cc05be8c800de7cf651c29f010e840c35b2acf4b608af2d443ea6f5e801b151833b5295c77c3edacb7eeb9ea27bdeee1446c0ee6f1c\
7d7a0394250a3f19f6ddabae6e47e5bb014e0c190ed075a5d5d982a7216e5149cefd35b7d4a6720f421f43a4e0a4d15bfec2661cf7f3fc14dc399900\
0000000069a2cfc1901316660001a50180500000bbe50136b1c467fb020000000004595a";
/// A MiB of zeros.
const ZEROS_XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a3efffff00d95d00006ffdffffa3b7ff473e481572396151b8\
9228e6a38607f9eee41e82d32fc53a3c014bb17ec98a8a4d2fa30dd97fa6e38c231153e05918c5758ae277f8b6947f0c6ac0de744964e2e95c53b204\
d8f7440cab5f0d6d46e9e5c37688b79657acb64de1691d6ffb4b88106c42cb883f5c008fd04eaf262894711f3d8f24e1709ea7235fec28cb85d19598\
8a7e2a91f22775f719c006984d98fdd8afd5900fc42553f8f591363105a5b0ee6fc1704d470cd19111aaad601dbaceb127185c5986e9665258bee976\
ac59e4e55b0508f9c7daadfcfb522af7e495250000000000c2f6ba3ea2706b600001f5018080400079977f47b1c467fb020000000004595a";
/// Wants to keep 256 MiB of what it unpacked, for one byte.
const GREEDY_XZ: &str = "fd377a585a000004e6d6b44602002101200000000988a576010000780000000045aeef83f8ee160a00011901a52c81cc\
1fb6f37d010000000004595a";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

struct Archived(Builder<Vec<u8>>);

impl Archived {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn file(mut self, name: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        self.0.append_data(&mut header, name, content).unwrap();
        self
    }

    /// With a name as it is, and of any kind.
    fn odd(mut self, name: &str, kind: EntryType, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.as_old_mut().linkname[..11].copy_from_slice(b"/etc/shadow");
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// What is handed over of such bytes, and what came of it.
fn unpacked(bytes: Vec<u8>, limits: UnpackLimits) -> (Vec<(String, String)>, Unpacked) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("bundle");
    fs::write(&path, bytes).unwrap();
    of(&path, limits)
}

fn of(path: &Path, limits: UnpackLimits) -> (Vec<(String, String)>, Unpacked) {
    let mut found = Vec::new();
    let each = &mut |name: &str, reader: &mut dyn BufRead| {
        let mut text = String::new();
        reader.read_to_string(&mut text)?;
        found.push((name.to_owned(), text));
        Ok(())
    };
    let unpacked = Opened::open(path).unwrap().unpack(limits, each).unwrap();
    found.sort();
    (found, unpacked)
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn left_out(unpacked: &Unpacked, why: &str) -> u64 {
    let reasons = unpacked.left_out.iter().filter(|reason| reason.why.contains(why));
    reasons.map(|reason| reason.count).sum()
}

#[test]
fn an_archive_is_known_whatever_packed_it() {
    let long = format!("a/{}/b", "x".repeat(150));
    let tar = Archived::new().file("./proc/modules", b"one\n").file(&long, b"two\n").bytes();
    let wanted = pairs(&[(&long, "two\n"), ("proc/modules", "one\n")]);
    for packed in [tar.clone(), gzip(&tar)] {
        let (found, unpacked) = unpacked(packed, UnpackLimits::default());
        assert_eq!((&found, unpacked.pieces), (&wanted, 2));
        assert_eq!((unpacked.left_out.len(), unpacked.stopped), (0, None));
    }
    let (found, _) = unpacked(bytes(TAR_XZ), UnpackLimits::default());
    let line = "nf_conntrack 196608 3 nf_nat, Live 0x0\n";
    assert_eq!(found, pairs(&[("sos-1/proc/modules", line)]));
}

#[test]
fn a_single_file_is_one_piece_packed_or_not() {
    for packed in [b"a\n".to_vec(), gzip(b"a\n"), [gzip(b"a"), gzip(b"\n")].concat()] {
        assert_eq!(unpacked(packed, UnpackLimits::default()).0, pairs(&[("bundle", "a\n")]));
    }
    assert_eq!(unpacked(Vec::new(), UnpackLimits::default()).0, pairs(&[("bundle", "")]));
    let zeros = [bytes(ZEROS_XZ), vec![0; 8], bytes(ZEROS_XZ)].concat();
    let (found, _) = unpacked(zeros, UnpackLimits::default());
    assert_eq!(found[0].1.len(), 2 << 20, "streams one after the other");
}

#[test]
fn archives_inside_and_other_kinds_are_named() {
    let inner = Archived::new().file("x", b"y").bytes();
    let tar = Archived::new()
        .file("logs/kern.log.1.gz", &gzip(b"line\n"))
        .file("inner.tar", &inner)
        .file("inner.tar.gz", &gzip(&inner))
        .file("twice.gz", &gzip(&gzip(b"x")))
        .file("inner.zip", b"PK\x03\x04")
        .bytes();
    let (found, unpacked_) = unpacked(gzip(&tar), UnpackLimits::default());
    assert_eq!(found, pairs(&[("logs/kern.log.1.gz", "line\n")]));
    assert_eq!(left_out(&unpacked_, "archives inside are not opened"), 4);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x.zip");
    fs::write(&path, b"PK\x03\x04").unwrap();
    let error = Opened::open(&path).unwrap().unpack(UnpackLimits::default(), &mut |_, _| Ok(()));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("x.zip is a zip archive, which is not opened"), "{error}");
}

#[test]
fn nothing_outside_is_reached_from_an_archive() {
    let long = "n".repeat(99);
    let tar = Archived::new()
        .odd("/etc/passwd", EntryType::Regular, b"x")
        .odd("a/../../etc/passwd", EntryType::Regular, b"x")
        .odd("soft", EntryType::Symlink, b"")
        .odd("hard", EntryType::Link, b"")
        .odd("zero", EntryType::Char, b"")
        .odd("disk", EntryType::Block, b"")
        .odd("pipe", EntryType::Fifo, b"")
        .odd("folder/", EntryType::Regular, b"")
        .odd("odd", EntryType::new(b'Q'), b"x")
        .odd(&long, EntryType::Regular, b"x")
        .odd("good", EntryType::Regular, b"good")
        .bytes();
    let (found, unpacked) = unpacked(tar, UnpackLimits { name: 50, ..UnpackLimits::default() });
    assert_eq!(found, pairs(&[("good", "good")]));
    for (why, count) in [
        ("absolute names", 1),
        ("names that lead out", 1),
        ("links are not followed", 2),
        ("devices and pipes", 3),
        ("not known", 1),
        ("name is too long", 1),
    ] {
        assert_eq!(left_out(&unpacked, why), count, "{why}: {unpacked:?}");
    }
    let notes = unpacked.notes();
    assert!(
        notes.contains(&"left out: soft, hard: links are not followed".to_owned()),
        "{notes:?}"
    );
}

#[test]
fn nothing_outside_is_reached_from_a_folder() {
    let place = tempfile::tempdir().unwrap();
    let (folder, outside) = (place.path().join("folder"), place.path().join("outside"));
    fs::create_dir_all(folder.join("a/b/c")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(folder.join("a/good"), "good").unwrap();
    fs::write(folder.join("a/good.gz"), gzip(b"packed")).unwrap();
    fs::write(folder.join("a/b/c/deep"), "deep").unwrap();
    symlink("/etc/shadow", folder.join("shadow")).unwrap();
    symlink(&outside, folder.join("a/out")).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    mknodat(CWD, folder.join("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let (found, unpacked) = of(&folder, UnpackLimits { depth: 3, ..UnpackLimits::default() });
    assert_eq!(found, pairs(&[("a/good", "good"), ("a/good.gz", "packed")]));
    assert_eq!(left_out(&unpacked, "links are not followed"), 2, "{unpacked:?}");
    assert_eq!(left_out(&unpacked, "devices and pipes"), 1, "{unpacked:?}");
    assert_eq!(left_out(&unpacked, "too many folders"), 1, "{unpacked:?}");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("pipe");
    mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    for path in [pipe.as_path(), Path::new("/dev/zero")] {
        let error = Opened::open(path).err().unwrap().to_string();
        assert!(error.contains("neither a folder nor a file"), "{error}");
    }
    assert!(Opened::open(&place.path().join("none")).is_err());
}

#[test]
fn too_much_of_anything_ends_in_a_sentence() {
    let many = |count: usize| {
        (0..count).fold(Archived::new(), |all, n| all.file(&format!("{n}"), &[b'x'; 1000])).bytes()
    };
    let default = UnpackLimits::default();
    let why = |limits| unpacked(many(20), limits).1.stopped.unwrap_or_default();
    assert_eq!(why(UnpackLimits { entries: 10, ..default }), "there are more than 10 files in it");
    assert!(why(UnpackLimits { bytes: 9000, ..default }).contains("longer than"));
    let (found, all) = unpacked(many(20), UnpackLimits { piece: 999, ..default });
    assert_eq!((found.len(), left_out(&all, "longer than"), all.stopped), (0, 20, None));
    // What was read before the bound stays.
    assert_eq!(unpacked(many(20), UnpackLimits { entries: 10, ..default }).0.len(), 10);
    let bomb = UnpackLimits { ratio: 100, ratio_from: 1 << 20, ..default };
    for packed in [gzip(&vec![0; 4 << 20]), bytes(ZEROS_XZ).repeat(4)] {
        let (found, unpacked) = unpacked(packed, bomb);
        assert!(found.is_empty());
        let stopped = unpacked.stopped.unwrap_or_default();
        assert!(stopped.contains("no text of a machine"), "{stopped}");
    }
}

#[test]
fn memory_is_not_what_a_file_asks_for() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("greedy.xz");
    fs::write(&path, bytes(GREEDY_XZ)).unwrap();
    let error = Opened::open(&path).unwrap().unpack(UnpackLimits::default(), &mut |_, _| Ok(()));
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.ends_with("greedy.xz: it asks for 256 MiB of memory to be unpacked"), "{error}");
    // A name that is a gigabyte long by what its header says.
    let mut header = Header::new_gnu();
    header.set_path("././@LongLink").unwrap();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let (found, unpacked) = unpacked(header.as_bytes().to_vec(), UnpackLimits::default());
    assert!(found.is_empty() && unpacked.stopped.is_some(), "{unpacked:?}");
}

#[test]
fn what_is_damaged_is_named_and_the_rest_is_read() {
    let tar = Archived::new().file("a", b"one").file("b.gz", &gzip(b"two")[..15]).file("c", b"3");
    let tar = tar.bytes();
    let (found, unpacked_) = unpacked(tar.clone(), UnpackLimits::default());
    assert_eq!(found, pairs(&[("a", "one"), ("c", "3")]));
    assert_eq!(unpacked_.left_out[0].names, ["b.gz"], "{unpacked_:?}");
    // No panic, and an end.
    let read = |bytes: Vec<u8>| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        Opened::File(file, "x".to_owned()).unpack(UnpackLimits::default(), &mut |_, reader| {
            io::copy(reader, &mut io::sink())?;
            Ok(())
        })
    };
    let packed = gzip(&tar);
    for cut in 0..packed.len() {
        let whole =
            read(packed[..cut].to_vec()).is_ok_and(|all| all.pieces == 2 && all.stopped.is_none());
        assert!(!whole, "{cut} of {}", packed.len());
    }
    let packed = bytes(TAR_XZ);
    for at in 0..packed.len() {
        let mut damaged = packed.clone();
        damaged[at] ^= 0x10;
        let _ = read(damaged);
    }
}

#[test]
fn an_error_of_who_reads_ends_it() {
    let tar = Archived::new().file("a", b"one").file("b", b"two").bytes();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&tar).unwrap();
    file.rewind().unwrap();
    assert!(is_archive(&mut file).unwrap());
    let input = Opened::File(file, "x".to_owned());
    let error =
        input.unpack(UnpackLimits::default(), &mut |name, _| anyhow::bail!("enough of {name}"));
    assert_eq!(error.unwrap_err().to_string(), "enough of a");
    let mut plain = tempfile::tempfile().unwrap();
    plain.write_all(&gzip(b"{\"type\":\"segment\"}\n")).unwrap();
    plain.rewind().unwrap();
    assert!(!is_archive(&mut plain).unwrap());
    assert!(!is_tar(&[0; 512]) && !is_tar(b""));
}
