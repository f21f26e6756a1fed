//! Whether connection tracking is there, and as what.

use std::{os::unix::fs::MetadataExt, path::Path};

/// There from the moment `nf_conntrack` is ready, built in or not.
const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const MODULES: &str = "/sys/module";
const CONNTRACK: &str = "nf_conntrack";
const CTNETLINK: &str = "nf_conntrack_netlink";

/// One life of the table: from when conntrack came to when it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The module's folder in sysfs, which is made anew with each loading; `None` where conntrack
    /// is built in.
    module: Option<u64>,
}

impl Life {
    pub fn is_module(self) -> bool {
        self.module.is_some()
    }
}

/// `None` while conntrack is not there.
pub fn conntrack() -> Option<Life> {
    if !Path::new(LIMIT).exists() {
        return None;
    }
    if !is_module(CONNTRACK) {
        return Some(Life { module: None });
    }
    let folder = Path::new(MODULES).join(CONNTRACK).metadata();
    Some(Life { module: folder.ok().map(|folder| folder.ino()) })
}

/// Loaded, and not built in: only modules have a state.
pub fn is_module(name: &str) -> bool {
    Path::new(MODULES).join(name).join("initstate").exists()
}

/// Asking ctnetlink would make the kernel load its module, and with it, if need be, conntrack.
pub fn ctnetlink_would_be_loaded() -> bool {
    let built_in = conntrack().is_some_and(|life| life.module.is_none());
    !built_in && !is_module(CTNETLINK)
}
