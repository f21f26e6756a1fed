//! What runs in a virtual machine besides the tests, from Debian's packages.

use std::{os::unix::fs::symlink, path::Path};

use anyhow::{Context, Result};
use ctwatch_provision::{Thing, machine::Machine};

use super::{
    Of, Store,
    apt::{Apt, leave_out, summary},
    say,
};

const PACKAGES: [&str; 15] = [
    // Spares the program that would merge them, and its perl.
    "usr-is-merged",
    "dash",
    "coreutils",
    "grep",
    "sed",
    "mawk",
    "util-linux",
    "mount",
    "procps",
    "iproute2",
    "nftables",
    "conntrack",
    "iptables",
    "kmod",
    "udev",
];
/// Nothing there reads these.
const SPARED: [&str; 8] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/bash-completion",
    "usr/share/zoneinfo",
    "usr/lib/udev/hwdb.d",
    "lib/udev/hwdb.d",
];

pub(super) fn provide(store: &Store, machine: Machine) -> Result<()> {
    store.folder(&Thing::Guest(machine), Of::Itself, |dir| unpack(store, machine, dir))
}

fn unpack(store: &Store, machine: Machine, dir: &Path) -> Result<()> {
    let apt = match Machine::of_this()? == machine {
        true => Apt::open(store)?,
        false => Apt::of_machine(store, machine)?,
    };
    let packages = apt.look_up(&apt.everything_for(&PACKAGES)?)?;
    say(&format!(
        "fetching what runs in the virtual machines from Debian, for target/ only: {}",
        summary(&packages)
    ));
    apt.unpack(&packages, dir)?;
    leave_out(dir, &SPARED)?;
    if !dir.join("bin/sh").exists() {
        symlink("dash", dir.join("bin/sh")).context("cannot make /bin/sh")?;
    }
    // What the packages' installation scripts would have chosen.
    for tool in ["iptables", "ip6tables"] {
        for what in ["", "-save", "-restore"] {
            let link = dir.join("usr/sbin").join(format!("{tool}{what}"));
            if link.symlink_metadata().is_err() {
                symlink(format!("{tool}-legacy{what}"), link)?;
            }
        }
    }
    let awk = dir.join("usr/bin/awk");
    if awk.symlink_metadata().is_err() {
        symlink("mawk", awk)?;
    }
    Ok(())
}
