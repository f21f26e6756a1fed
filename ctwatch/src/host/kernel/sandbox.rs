//! Confines this thread, and those that it starts, to the files that it is to read and write: a mistake in a
//! reader of strangers' files then reaches nothing else. By Landlock, where the kernel has it.
//! <https://docs.kernel.org/userspace-api/landlock.html>

use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result};
use rustix::{
    fs::{FileType, Mode, OFlags, fstat, open},
    io::Errno,
};

/// Read whatever is shown: names of services, and how local time is told.
const EVERYWHERE: [&str; 3] = ["/etc/services", "/etc/localtime", "/usr/share/zoneinfo"];

const VERSION: u32 = 1;
const PATH_BENEATH: c_long = 1;
/// `LANDLOCK_ACCESS_FS_…`
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/landlock.h>
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_REG: u64 = 1 << 8;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
/// All that the first version knew.
const FIRST: u64 = (1 << 13) - 1;
const IOCTL_DEV: u64 = 1 << 15;
/// To bind and to connect, by TCP.
const NETWORK: u64 = 0b11;
/// Sockets by name, and signals.
const SCOPES: u64 = 0b11;

/// `struct landlock_ruleset_attr`: an older kernel takes a longer one whose rest is zero.
#[repr(C)]
#[derive(Default)]
struct Ruleset {
    files: u64,
    network: u64,
    scopes: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// From here on this thread reads only below `reads`, and makes and removes files only in the folder
/// `writes`; it opens no connection. `false`: the kernel cannot do that.
///
/// New privileges must be given up before.
pub fn confine(reads: &[&Path], writes: Option<&Path>) -> Result<bool> {
    let reads = reads.iter().copied().chain(EVERYWHERE.iter().map(Path::new));
    restrict(reads, writes)
}

/// From here on this thread opens no file at all, binds no TCP socket and opens no connection. `false`: the kernel
/// cannot do that.
///
/// New privileges must be given up before.
pub fn seal() -> Result<bool> {
    restrict(std::iter::empty(), None)
}

fn restrict<'a>(reads: impl Iterator<Item = &'a Path>, writes: Option<&Path>) -> Result<bool> {
    let Some(version) = version() else { return Ok(false) };
    let files = match version {
        1 => FIRST,
        2 => FIRST | REFER,
        3 | 4 => FIRST | REFER | TRUNCATE,
        _ => FIRST | REFER | TRUNCATE | IOCTL_DEV,
    };
    let network = if version >= 4 { NETWORK } else { 0 };
    let scopes = if version >= 6 { SCOPES } else { 0 };
    let ruleset = Ruleset { files, network, scopes };
    // SAFETY: a structure of the length that is passed along; the answer is a new descriptor.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size_of::<Ruleset>(),
            0,
        )
    };
    let rules = i32::try_from(checked(answer).context("cannot make a Landlock ruleset")?)?;
    // SAFETY: it was just opened, and nothing else has it.
    let rules = unsafe { OwnedFd::from_raw_fd(rules) };
    for path in reads {
        allow(&rules, path, READ_FILE | READ_DIR)?;
    }
    if let Some(folder) = writes {
        let allowed = WRITE_FILE | MAKE_REG | REMOVE_FILE | TRUNCATE;
        allow(&rules, folder, allowed & files)?;
    }
    // SAFETY: two numbers.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    checked(answer).context("cannot confine this process by Landlock")?;
    Ok(true)
}

/// What the kernel knows of it; `None`: nothing, or it is turned off, or a container forbids it.
fn version() -> Option<c_long> {
    // SAFETY: it takes no pointer, and says a number.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<Ruleset>(),
            0_usize,
            VERSION,
        )
    };
    (answer > 0).then_some(answer)
}

fn checked(answer: c_long) -> io::Result<c_long> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// What is not there cannot be opened either: that is said when it is.
fn allow(rules: &OwnedFd, path: &Path, allowed: u64) -> Result<()> {
    let place = || format!("cannot confine this process to {}", path.display());
    let parent = match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error).with_context(place),
    };
    let about = fstat(&parent).with_context(place)?;
    let is_folder = FileType::from_raw_mode(about.st_mode) == FileType::Directory;
    let allowed = if is_folder { allowed } else { allowed & (READ_FILE | WRITE_FILE | TRUNCATE) };
    let rule = PathBeneath { allowed, parent: parent.as_raw_fd() };
    // SAFETY: an open ruleset, and a structure that names an open file.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            0,
        )
    };
    checked(answer).with_context(place)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, net::TcpListener};

    use super::*;
    use crate::host::kernel::privileges::{Work, keep};

    #[test]
    fn a_sealed_thread_opens_nothing() {
        let sealed = std::thread::spawn(|| {
            keep(Work::Rest, false).unwrap();
            if !seal().unwrap() {
                return false;
            }
            for path in ["/etc/services", "/etc/localtime", "/proc/self/status", "/dev/null"] {
                let error = fs::read(path).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{path}");
            }
            if version() >= Some(4) {
                assert!(TcpListener::bind("127.0.0.1:0").is_err());
            }
            true
        });
        assert_eq!(sealed.join().unwrap(), version().is_some());
    }

    /// On a thread of its own: it does not get out again.
    #[test]
    fn a_confined_thread_reaches_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("inside"), place.path().join("outside"));
        let out = place.path().join("out");
        for folder in [&inside, &outside, &out] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("file"), "x").unwrap();
        }
        std::os::unix::fs::symlink(outside.join("file"), inside.join("link")).unwrap();
        let confined = std::thread::spawn(move || {
            keep(Work::Read, true).unwrap();
            let confined = confine(&[&inside, Path::new("/none")], Some(&out)).unwrap();
            if !confined {
                return false;
            }
            assert_eq!(fs::read_to_string(inside.join("file")).unwrap(), "x");
            for path in [outside.join("file"), inside.join("link"), "/etc/passwd".into()] {
                let error = fs::read_to_string(&path).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{}", path.display());
            }
            assert!(fs::read_dir(&outside).is_err());
            fs::write(out.join("new"), "y").unwrap();
            fs::rename(out.join("new"), out.join("newer")).unwrap();
            fs::remove_file(out.join("newer")).unwrap();
            assert!(fs::write(inside.join("new"), "y").is_err());
            assert!(fs::write(outside.join("new"), "y").is_err());
            // What it starts is no freer.
            let path = outside.join("file");
            assert!(std::thread::spawn(move || fs::read(path)).join().unwrap().is_err());
            if version() >= Some(4) {
                assert!(TcpListener::bind("127.0.0.1:0").is_err());
            }
            true
        });
        assert_eq!(confined.join().unwrap(), version().is_some());
        assert_eq!(fs::read_to_string("/etc/passwd").map(|_| ()).map_err(|e| e.kind()), Ok(()));
    }
}
