//! A Debian with systemd and nothing more: the packages that each Debian has, and dpkg's list of them, so that dpkg
//! installs others there. Unpacked and not installed, which takes no root; what their installation scripts would do
//! for a first boot is done here.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use ctwatch_provision::Thing;

use super::{
    Of, Store,
    apt::{Apt, leave_out, summary},
    owners::merge,
    say,
};

/// Those that Debian calls essential, without what makes and mends file systems.
const PACKAGES: [&str; 24] = [
    // Spares the program that would merge them, and more of its perl.
    "usr-is-merged",
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "kmod",
    "libc-bin",
    "login",
    "mawk",
    "ncurses-bin",
    "perl-base",
    "sed",
    "systemd-sysv",
    "tar",
    "util-linux",
];
/// Nothing there reads these.
const SPARED: [&str; 7] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/zoneinfo",
    "usr/lib/udev/hwdb.d",
    "lib/udev/hwdb.d",
];

pub(super) fn provide(store: &Store) -> Result<()> {
    store.folder(&Thing::Debian, Of::Itself, |dir| unpack(store, dir))
}

fn unpack(store: &Store, dir: &Path) -> Result<()> {
    let apt = Apt::open(store)?;
    let packages = apt.look_up(&apt.everything_for(&PACKAGES)?)?;
    say(&format!(
        "fetching a Debian to boot in a virtual machine, for target/ only: {}",
        summary(&packages)
    ));
    apt.unpack_known_to_dpkg(&packages, dir)?;
    leave_out(dir, &SPARED)?;
    merge(dir)?;
    configure(dir).context("cannot set up a Debian")
}

/// What the packages' installation scripts, and an installer, do.
fn configure(dir: &Path) -> Result<()> {
    for (from, to) in [
        ("usr/share/base-passwd/passwd.master", "etc/passwd"),
        ("usr/share/base-passwd/group.master", "etc/group"),
        ("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
    ] {
        fs::copy(dir.join(from), dir.join(to)).with_context(|| format!("there is no {from}"))?;
    }
    for (file, text) in [
        // Without one systemd takes it for the first boot, and enables what is not to be.
        ("etc/machine-id", "00000000000000000000000000000001\n"),
        ("etc/hostname", "clean\n"),
        ("etc/fstab", ""),
    ] {
        fs::write(dir.join(file), text)?;
    }
    for (path, target) in [("usr/bin/sh", "dash"), ("usr/bin/awk", "mawk")] {
        if dir.join(path).symlink_metadata().is_err() {
            std::os::unix::fs::symlink(target, dir.join(path))?;
        }
    }
    Ok(())
}
