//! Whose a network namespace is, by the user namespace that it belongs to.
//! <https://man7.org/linux/man-pages/man2/ioctl_nsfs.2.html>

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::MetadataExt,
    },
};

use super::Netns;
use crate::record::sample::Owner;

/// `_IO(0xb7, 1)` and `_IO(0xb7, 4)`.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/nsfs.h>
const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
/// The inode number of the first user namespace: `PROC_USER_INIT_INO`.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/proc_ns.h>
const FIRST: u64 = 0xEFFF_FFFD;
/// What the kernel says of a user who has no number in this user namespace.
const NO_NUMBER: u32 = 65_534;
const OWN: &str = "/proc/self/ns/user";

/// Of the namespace that this way leads to now.
pub fn owner(netns: &Netns) -> Owner {
    let file = match crate::host::machine::files::open(&netns.path) {
        Ok(file) => file,
        Err(error) => return unknown(format!("cannot open {}: {error}", netns.path.display())),
    };
    match file.metadata() {
        Ok(found) if found.ino() == u64::from(netns.inode) => of(&file),
        _ => unknown("it was gone before it was asked for".to_owned()),
    }
}

/// What only the programs have seen of it: they read the same place in the kernel.
pub fn as_counted(uid: Option<u32>) -> Owner {
    match uid {
        Some(0) => Owner::Host,
        Some(uid) => Owner::User(uid),
        None => unknown("it was never seen, and the programs could not read it".to_owned()),
    }
}

fn of(netns: &File) -> Owner {
    let own = fs::metadata(OWN).map(|own| own.ino());
    let user_namespace = match user_namespace(netns) {
        Ok(file) => file,
        Err(error) => return refused(&error, own.err().map(|error| error.kind())),
    };
    let inode = match user_namespace.metadata() {
        Ok(found) => found.ino(),
        Err(error) => return unknown(format!("the kernel hides its user namespace: {error}")),
    };
    let own = own.ok();
    // Seen from inside a container with users of its own, that is the machine.
    if inode == FIRST || Some(inode) == own {
        return Owner::Host;
    }
    match uid(&user_namespace) {
        Ok(0) => Owner::Host,
        Ok(NO_NUMBER) if own != Some(FIRST) => {
            unknown("the user who made it has no number in this user namespace".to_owned())
        }
        Ok(uid) => Owner::User(uid),
        Err(error) => unknown(format!("the kernel does not say who made it: {error}")),
    }
}

/// `own`: why this process's own user namespace cannot be seen.
fn refused(error: &io::Error, own: Option<io::ErrorKind>) -> Owner {
    match error.raw_os_error() {
        // Without CONFIG_USER_NS there is one user namespace, and it has no file.
        Some(libc::EPERM) if own == Some(io::ErrorKind::NotFound) => Owner::Host,
        // Only those below the own one are shown.
        Some(libc::EPERM) => unknown(
            "it belongs to a user namespace outside of the one that ctwatch runs in".to_owned(),
        ),
        Some(libc::ENOTTY) => unknown("the kernel does not tell (before Linux 4.9)".to_owned()),
        _ => unknown(format!("the kernel does not tell: {error}")),
    }
}

fn unknown(why: String) -> Owner {
    Owner::Unknown(why)
}

fn user_namespace(netns: &File) -> io::Result<File> {
    // SAFETY: an open file, and a request that takes no argument.
    let answer = unsafe { libc::ioctl(netns.as_raw_fd(), NS_GET_USERNS) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nothing else has.
    Ok(unsafe { File::from_raw_fd(answer) })
}

fn uid(user_namespace: &File) -> io::Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: an open file, and room for what the request writes.
    let answer = unsafe { libc::ioctl(user_namespace.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(uid) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netns;

    #[test]
    fn the_own_namespace_is_no_strangers() {
        assert!(!owner(&netns::current().unwrap()).is_stranger());
    }

    #[test]
    fn what_is_not_told_is_unknown_and_says_why() {
        let errno = io::Error::from_raw_os_error;
        assert_eq!(refused(&errno(libc::EPERM), Some(io::ErrorKind::NotFound)), Owner::Host);
        for (error, own, why) in [
            (libc::EPERM, None, "outside"),
            (libc::EPERM, Some(io::ErrorKind::PermissionDenied), "outside"),
            (libc::ENOTTY, None, "Linux 4.9"),
            (libc::EMFILE, None, "open files"),
        ] {
            let Owner::Unknown(said) = refused(&errno(error), own) else { panic!("{error}") };
            assert!(said.contains(why), "{said}");
        }
        let Owner::Unknown(_) = of(&File::open("/dev/null").unwrap()) else { panic!() };
        let gone = Netns { inode: 1, ..netns::current().unwrap() };
        assert!(matches!(owner(&gone), Owner::Unknown(_)));
    }
}
