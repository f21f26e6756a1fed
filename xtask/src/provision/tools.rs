//! The programs that the lab and the tests call: `ip`, `nft`, `conntrack`, legacy iptables.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    Of, Store,
    apt::{Apt, summary},
    bpf::multiarch,
    say,
};
use crate::process::find;

/// A program and the package it is in.
const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("iptables-legacy", "iptables"),
    ("ip6tables-legacy", "iptables"),
    ("iptables-legacy-save", "iptables"),
    ("iptables-legacy-restore", "iptables"),
    ("iptables", "iptables"),
    ("iptables-save", "iptables"),
    ("iptables-restore", "iptables"),
    ("ip6tables", "iptables"),
    ("ip6tables-save", "iptables"),
    ("ip6tables-restore", "iptables"),
    ("iptables-nft", "iptables"),
    ("iptables-nft-save", "iptables"),
    ("iptables-nft-restore", "iptables"),
    ("ip6tables-legacy-save", "iptables"),
    ("ip6tables-legacy-restore", "iptables"),
    ("ip6tables-nft", "iptables"),
    ("ip6tables-nft-save", "iptables"),
    ("ip6tables-nft-restore", "iptables"),
    ("sysctl", "procps"),
];

/// What the alternatives of an installed package would call it.
const CALLED: &[(&str, &str)] = &[
    ("iptables", "iptables-nft"),
    ("iptables-save", "iptables-nft-save"),
    ("iptables-restore", "iptables-nft-restore"),
    ("ip6tables", "ip6tables-nft"),
    ("ip6tables-save", "ip6tables-nft-save"),
    ("ip6tables-restore", "ip6tables-nft-restore"),
];

/// What the benchmark compares with.
const RIVALS: &[(&str, &str)] = &[("bpftrace", "bpftrace")];

/// A value for PATH with which all of them are found.
pub(crate) fn path(store: &Store) -> Result<std::ffi::OsString> {
    path_of(store, "tools", TOOLS)
}

fn path_of(store: &Store, name: &str, tools: &[(&str, &str)]) -> Result<std::ffi::OsString> {
    let missing: Vec<_> = tools.iter().filter(|(tool, _)| find(tool).is_none()).collect();
    let mut dirs: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    if !missing.is_empty() {
        // What was fetched when less was missing is not enough.
        let wrapper = |tool: &str| store.path(name).join("wrappers").join(tool);
        if missing.iter().any(|(tool, _)| !wrapper(tool).is_file()) {
            store.forget(name)?;
        }
        let names: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
        let folder = store
            .folder(name, Of::Programs(names.join(" ")), |dir| unpack(store, dir, &missing))
            .with_context(|| {
                let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
                format!("programs of these packages are needed: {}", packages.join(" "))
            })?;
        dirs.push(folder.join("wrappers"));
    }
    Ok(std::env::join_paths(dirs)?)
}

/// Has this process, and what it starts, find them.
pub(crate) fn use_path(store: &Store) -> Result<()> {
    set_path(path(store)?);
    Ok(())
}

/// Also what the benchmark compares with.
pub(crate) fn use_rivals(store: &Store) -> Result<()> {
    use_path(store)?;
    set_path(path_of(store, "rivals", RIVALS)?);
    Ok(())
}

fn set_path(path: std::ffi::OsString) {
    // SAFETY: called before any other thread is started.
    unsafe { std::env::set_var("PATH", path) };
}

fn unpack(store: &Store, dir: &Path, missing: &[&(&str, &str)]) -> Result<()> {
    let apt = Apt::open(store)?;
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    let all = apt.look_up(&apt.missing_for(&packages)?)?;
    say(&format!(
        "fetching what the tests and the lab call from Debian, for target/ only: {}",
        summary(&all)
    ));
    apt.unpack(&all, dir)?;
    fs::create_dir_all(dir.join("wrappers"))?;
    for (tool, package) in missing {
        wrap(dir, tool).with_context(|| format!("{package} holds no {tool}"))?;
    }
    Ok(())
}

/// A script that finds libraries and extensions from where it is itself: the folder is renamed
/// when it is whole.
fn wrap(dir: &Path, tool: &str) -> Result<()> {
    let file = CALLED.iter().find(|(called, _)| *called == tool).map_or(tool, |(_, file)| file);
    let real = ["usr/sbin", "sbin", "usr/bin", "bin"]
        .into_iter()
        .find_map(|place| below(dir, Path::new(place).join(file)))
        .context("not among the unpacked files")?;
    let arch = multiarch()?;
    let wrapper = dir.join("wrappers").join(tool);
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\nroot=$(dirname \"$0\")/..\n\
             export LD_LIBRARY_PATH=\"$root/usr/lib/{arch}:$root/lib/{arch}\"\n\
             export XTABLES_LIBDIR=\"$root/usr/lib/{arch}/xtables\"\n\
             exec \"$root/{}\" \"$@\"\n",
            real.display()
        ),
    )?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The path of this file below `dir`, if it is there. An absolute link, as /sbin/ip -> /bin/ip, is
/// meant within the package; a relative one is left alone, because programs that are many in one
/// ask for the name they were called by.
pub(super) fn below(dir: &Path, file: PathBuf) -> Option<PathBuf> {
    let real = match fs::read_link(dir.join(&file)) {
        Ok(target) if target.is_absolute() => target.strip_prefix("/").ok()?.to_owned(),
        _ => file,
    };
    dir.join(&real).is_file().then_some(real)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn absolute_links_of_a_package_stay_within_it() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("xtask-below-{}", std::process::id()));
        fs::create_dir_all(dir.join("bin"))?;
        fs::write(dir.join("bin/ip"), "")?;
        symlink("/bin/ip", dir.join("absolute"))?;
        symlink("bin/ip", dir.join("relative"))?;
        let found = ["absolute", "relative", "nowhere"].map(|file| below(&dir, file.into()));
        fs::remove_dir_all(&dir)?;
        assert_eq!(found, [Some("bin/ip".into()), Some("relative".into()), None]);
        Ok(())
    }
}
