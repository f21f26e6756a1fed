//! What runs in a virtual machine besides the tests: a shell and the programs they call, from
//! Debian's packages, complete with their own C library, so that it does not depend on this machine.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Of, Store,
    apt::{Apt, summary},
    bpf::multiarch,
    say,
    tools::below,
};

/// With another name whenever what is in it is another.
const FOLDER: &str = "guest-4";

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

pub(crate) struct Guest(PathBuf);

impl Guest {
    pub(crate) fn provide(store: &Store) -> Result<Self> {
        store.folder(FOLDER, Of::Itself, |dir| unpack(store, dir)).map(Self)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// One of its programs, to run on this machine.
    pub(super) fn command(&self, program: &str) -> Result<Command> {
        let arch = multiarch()?;
        let places = ["usr/lib", "lib"].map(|lib| self.0.join(lib).join(&arch));
        let dirs = ["sbin", "usr/sbin", "bin", "usr/bin"];
        let file = dirs.iter().find_map(|dir| below(&self.0, Path::new(dir).join(program)));
        let file = file.with_context(|| format!("no {program} among the guest's programs"))?;
        let libraries = fs::read_dir(self.0.join("lib").join(&arch))?.flatten();
        let loader = libraries
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"ld-")))
            .context("the guest has no dynamic loader")?;
        let mut command = Command::new(loader);
        // Programs that are many in one ask for the name they were called by.
        command.arg("--argv0").arg(program).arg("--library-path");
        command.arg(std::env::join_paths(places)?).arg(self.0.join(file));
        Ok(command)
    }
}

fn unpack(store: &Store, dir: &Path) -> Result<()> {
    let apt = Apt::open(store)?;
    let packages = apt.look_up(&apt.everything_for(&PACKAGES)?)?;
    say(&format!(
        "fetching what runs in the virtual machines from Debian, for target/ only: {}",
        summary(&packages)
    ));
    apt.unpack(&packages, dir)?;
    for spared in SPARED {
        let spared = dir.join(spared);
        if spared.exists() {
            fs::remove_dir_all(&spared)?;
        }
    }
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
