//! What the files of a recording are called, and which there are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};

/// One file of a recording.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentFile {
    /// From 1; one more for each.
    pub number: u64,
    pub path: PathBuf,
    /// It is finished, and gzip.
    pub is_sealed: bool,
    pub bytes: u64,
}

const PLAIN: &str = ".ndjson";
const SEALED: &str = ".ndjson.gz";
/// One that is not finished: left by a recorder that was killed while it sealed.
pub const UNFINISHED: &str = ".unfinished";

/// `ctwatch-000012-20261126T030000Z.ndjson`: in the order of their names, whatever the clock did.
pub fn name(number: u64, time: Timestamp) -> String {
    let time = time.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
    format!("ctwatch-{number:06}-{time}{PLAIN}")
}

pub fn sealed(plain: &Path) -> PathBuf {
    let mut name = plain.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

fn number(name: &str) -> Option<(u64, bool)> {
    let rest = name.strip_prefix("ctwatch-")?;
    let (rest, is_sealed) = match rest.strip_suffix(SEALED) {
        Some(rest) => (rest, true),
        None => (rest.strip_suffix(PLAIN)?, false),
    };
    let (number, _) = rest.split_once('-')?;
    Some((number.parse().ok()?, is_sealed))
}

/// The segments of a folder, the oldest first. Of one that is there twice, as it was being sealed when its
/// recorder was killed, the plain one.
pub fn list(folder: &Path) -> io::Result<Vec<SegmentFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((number, is_sealed)) = name.to_str().and_then(number) else { continue };
        let Ok(about) = entry.metadata() else { continue };
        if about.is_file() {
            files.push(SegmentFile { number, path: entry.path(), is_sealed, bytes: about.len() });
        }
    }
    files.sort_by_key(|file| (file.number, file.is_sealed));
    files.dedup_by_key(|file| file.number);
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_read_again() {
        let name = name(12, "2026-11-26T03:00:00Z".parse().unwrap());
        assert_eq!(name, "ctwatch-000012-20261126T030000Z.ndjson");
        assert_eq!(number(&name), Some((12, false)));
        assert_eq!(number(&format!("{name}.gz")), Some((12, true)));
        for other in ["x.ndjson", "ctwatch-x-1.ndjson", "ctwatch-1.ndjson", "ctwatch-1-2.json"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn the_plain_one_of_two_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ctwatch-2-b.ndjson", "ctwatch-2-b.ndjson.gz", "ctwatch-1-a.ndjson.gz", "lock"]
        {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let files = list(folder.path()).unwrap();
        let found: Vec<_> = files.iter().map(|file| (file.number, file.is_sealed)).collect();
        assert_eq!(found, [(1, true), (2, false)]);
    }
}
