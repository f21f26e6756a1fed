//! Whether connection tracking is there, and as what.

use std::{os::unix::fs::MetadataExt, path::Path};

use anyhow::{Result, ensure};

/// There from the moment `nf_conntrack` is ready, built in or not.
const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const SYSCTLS: &str = "/proc/sys/net";
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

    /// A number that no other life since boot has; 0 where there is only one.
    pub fn number(self) -> u64 {
        self.module.unwrap_or(0)
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

/// Where [`conntrack`] found nothing: that it is really not there, and not only out of sight (a
/// container may see no sysctls).
pub fn conntrack_is_absent() -> Result<()> {
    ensure!(Path::new(SYSCTLS).is_dir(), "{SYSCTLS} cannot be seen, and with it conntrack");
    let loaded = Path::new(MODULES).join(CONNTRACK).exists();
    ensure!(!loaded, "nf_conntrack is loaded, but there is no {LIMIT}");
    Ok(())
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

/// Whether this kernel loads modules at all.
pub fn can_be_loaded() -> bool {
    Path::new("/proc/modules").exists()
}

/// Whether asking for something that this module answers would make the kernel load it: it is on
/// disk, and neither loaded nor built in.
pub fn would_be_loaded(name: &str) -> bool {
    // Where nobody knows, it is not tried.
    is_on_disk(name).unwrap_or(true)
}

/// Whether this module can be loaded and is not there yet; `None` where nobody knows.
pub fn is_on_disk(name: &str) -> Option<bool> {
    if Path::new(MODULES).join(name).exists() {
        return Some(false);
    }
    let folder = Path::new("/lib/modules").join(super::kernel_release());
    match super::files::text(folder.join("modules.dep")) {
        Ok(text) => Some(text.lines().any(|line| is_of_module(line, name))),
        // Without modules nothing can be loaded.
        Err(_) => (!can_be_loaded()).then_some(false),
    }
}

/// `kernel/net/netfilter/nf_tables.ko.xz: …`
pub fn is_of_module(line: &str, name: &str) -> bool {
    let file = line.split(':').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    file.split(".ko").next().is_some_and(|stem| stem.replace('-', "_") == name)
}

#[cfg(test)]
mod tests {
    use super::is_of_module;

    #[test]
    fn a_module_is_found_by_its_whole_name() {
        assert!(is_of_module("kernel/net/netfilter/nf_tables.ko.xz: a b", "nf_tables"));
        assert!(is_of_module("kernel/net/netfilter/nf-tables.ko:", "nf_tables"));
        assert!(!is_of_module("kernel/net/netfilter/nf_tables_x.ko:", "nf_tables"));
        assert!(!is_of_module("kernel/x.ko: kernel/net/netfilter/nf_tables.ko", "nf_tables"));
    }
}
