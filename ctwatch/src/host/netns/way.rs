//! A way into a network namespace, and what tells that it still leads to the same one.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::record::workload::Workload;

/// Where `ip netns` keeps its bind mounts.
pub(super) const IP_NETNS: &str = "/run/netns";

/// A way into a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Netns {
    pub inode: u32,
    pub name: Option<String>,
    /// A file whose opening gives the namespace; gone when the namespace or the process is.
    pub path: PathBuf,
    /// What lives in it, where a [`Finder`] found it and knows.
    pub workload: Workload,
}

impl Netns {
    /// Whether `ip netns exec` knows it by its name.
    pub fn is_by_ip(&self) -> bool {
        self.path.starts_with(IP_NETNS)
    }

    /// As patterns know it: by its name, and as `NAMESPACE/POD`.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.workload.names(called(self.name.as_deref(), self.inode))
    }

    /// As text shows it, or its number.
    pub fn shown(&self) -> String {
        let shown = self.workload.shown(self.name.as_deref());
        shown.map_or_else(|| self.inode.to_string(), Cow::into_owned)
    }

    /// A process that lives in it, where that is what showed it.
    pub fn pid(&self) -> Option<u32> {
        let process = self.path.strip_prefix("/proc").ok()?.iter().next()?;
        process.to_str()?.parse().ok()
    }

    /// What leads to it, in words that no other mount or process has: when a mount's file was
    /// made, or a process began. `None` where that is gone.
    pub fn way(&self) -> Option<String> {
        let path = self.path.display();
        if let Some(mount) = self.mount() {
            // A mount of a namespace keeps its file, and with it the time that it was made.
            let file = fs::symlink_metadata(mount).ok()?;
            return Some(format!("{path} of {}.{:09}", file.ctime(), file.ctime_nsec()));
        }
        let folder = self.path.parent()?.parent()?;
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        Some(format!("{path} of {}", began(&stat)?))
    }

    /// Where it is mounted, if it is.
    pub fn mount(&self) -> Option<&Path> {
        (!self.path.starts_with("/proc")).then_some(self.path.as_path())
    }
}

/// `net:[4026532246]`, where it has no name.
pub fn called(name: Option<&str>, inode: u32) -> String {
    name.map_or_else(|| format!("net:[{inode}]"), str::to_owned)
}

/// One namespace that was asked for, and by what it is known again: its inode number is used
/// anew as soon as it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub inode: u32,
    /// `None` before Linux 5.14, and where it could not be entered.
    pub(super) cookie: Option<u64>,
    /// What led to it.
    pub(super) netns: Netns,
    pub(super) way: Option<String>,
}

impl Target {
    pub fn new(netns: Netns, cookie: Option<u64>) -> Self {
        Self { inode: netns.inode, cookie, way: netns.way(), netns }
    }

    /// The way into it, among all that were found, as long as there is one.
    pub fn among(&self, found: &BTreeMap<u32, Netns>) -> Option<Netns> {
        match self.cookie {
            // Whether it is the same is seen inside.
            Some(_) => found.get(&self.inode).cloned(),
            None => self.is_there().then(|| self.netns.clone()),
        }
    }

    /// Whether the namespace with this cookie is it.
    pub fn is(&self, cookie: Option<u64>) -> bool {
        self.cookie.is_none() || self.cookie == cookie
    }

    /// Whether what the programs count under this number is it; `cookies`: they know them.
    pub fn is_counted_as(&self, id: u64, cookies: bool) -> bool {
        match self.cookie.filter(|_| cookies) {
            Some(cookie) => cookie == id,
            None => u64::from(self.inode) == id && self.is_there(),
        }
    }

    /// Whether the mount or the process that led to it still does. Where there are no cookies, it
    /// is gone with that.
    pub fn is_there(&self) -> bool {
        self.cookie.is_some()
            || (self.way.is_some()
                && inode_of(&self.netns).ok() == Some(self.inode)
                && self.netns.way() == self.way)
    }
}

pub(super) fn inode_of(netns: &Netns) -> Result<u32> {
    match netns.mount() {
        Some(mount) => Ok(u32::try_from(fs::symlink_metadata(mount)?.ino())?),
        None => link_inode(&netns.path),
    }
}

pub(super) fn link_inode(link: &Path) -> Result<u32> {
    let target = fs::read_link(link).with_context(|| format!("cannot read {}", link.display()))?;
    ns_inode(target.as_os_str().as_bytes())
        .with_context(|| format!("{} is no network namespace", link.display()))
}

/// The network namespace that a process is in now.
pub(super) fn inode_of_process(pid: u32) -> Option<u32> {
    link_inode(&PathBuf::from(format!("/proc/{pid}/ns/net"))).ok()
}

/// When a process began, in ticks since boot.
pub(super) fn began_at(pid: u32) -> Option<u64> {
    began(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?.parse().ok()
}

/// The 22nd field of `/proc/PID/stat`; the second is a name that may hold anything.
/// <https://docs.kernel.org/filesystems/proc.html>
pub(super) fn began(stat: &str) -> Option<&str> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)
}

/// `net:[4026531840]`
pub(super) fn ns_inode(target: &[u8]) -> Option<u32> {
    let digits = target.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
