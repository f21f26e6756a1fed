//! A small file that is kept from one call to the next, where somebody else may write beside it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    fs::{FileType, Mode, OFlags, fstat, open},
    io::Errno,
    process::{geteuid, getpid},
};

/// Some thousand namespaces take less.
const MOST: u64 = 4 << 20;

/// `None` where there is none yet. A link, or what somebody else could have written, is refused.
pub fn read(path: &Path) -> Result<Option<String>> {
    let place = path.display();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => anyhow::bail!("{place} is a symbolic link: name a file"),
        other => other.with_context(|| format!("cannot open {place}"))?,
    };
    let status = fstat(&file).with_context(|| format!("cannot look at {place}"))?;
    let is_file = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
    ensure!(is_file, "{place} is no regular file");
    let is_shared = status.st_mode & 0o022 != 0 || status.st_uid != geteuid().as_raw();
    ensure!(!is_shared, "others may write into {place}: name a file that is only this user's");
    let mut text = String::new();
    let read = File::from(file).take(MOST + 1).read_to_string(&mut text);
    let length = read.with_context(|| format!("cannot read {place}"))?;
    ensure!(length as u64 <= MOST, "{place} is too long to be a state file");
    Ok(Some(text))
}

/// Whole or not at all: into a new file beside it, which then takes its name.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", getpid().as_raw_nonzero()));
    let beside = PathBuf::from(beside);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let written = (|| -> Result<()> {
        let new = || open(&beside, flags, Mode::RUSR | Mode::WUSR);
        let file = match new() {
            // Left by one that was killed, and had this number: in a container many have.
            Err(Errno::EXIST) => {
                fs::remove_file(&beside)?;
                new()?
            }
            file => file?,
        };
        let mut file = File::from(file);
        let renamed = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&beside, path));
        if renamed.is_err() {
            let _ = fs::remove_file(&beside);
        }
        Ok(renamed?)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_was_written_is_read_and_only_by_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_a_killed_call_left_is_in_no_ones_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let left = folder.path().join(format!("state.{}", getpid().as_raw_nonzero()));
        fs::write(&left, "half").unwrap();
        write(&path, "whole").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("whole"));
        assert!(!left.exists());
    }

    #[test]
    fn links_and_files_that_others_may_write_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("state"), folder.path().join("link"));
        write(&path, "one").unwrap();
        symlink(&path, &link).unwrap();
        let why = |path: &Path| format!("{:#}", read(path).unwrap_err());
        assert!(why(&link).contains("symbolic link"), "{}", why(&link));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(why(&path).contains("others may write"), "{}", why(&path));
        assert!(why(folder.path()).contains("no regular file"), "{}", why(folder.path()));
        assert!(why(Path::new("/dev/null")).contains("no regular file"));
        assert!(write(&folder.path().join("none/state"), "x").is_err());
    }
}
