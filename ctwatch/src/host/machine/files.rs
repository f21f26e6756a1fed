//! Files that others put where they are read: what is no file must not be waited for.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// A configuration, a list of modules, a kernel's options: nothing of that is longer.
const MOST: u64 = 16 << 20;

/// Never waits, as for somebody to write into a FIFO.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// The text of a regular file; what is no UTF-8 in it is replaced.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let file = open(path.as_ref())?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    let length = file.take(MOST + 1).read_to_end(&mut bytes)?;
    if length as u64 > MOST {
        return Err(io::Error::other("it is too long"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_fifo_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(text(&fifo).unwrap_err().to_string(), "it is no regular file");
        assert!(open(&fifo).is_ok());
        assert!(text(folder.path()).is_err() && text("/dev/zero").is_err());
    }

    #[test]
    fn what_is_no_text_is_read_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"a\xff\n").unwrap();
        assert_eq!(text(&file).unwrap(), "a\u{fffd}\n");
    }
}
