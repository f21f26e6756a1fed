//! The programs that the lab and the tests call: `ip`, `nft`, `conntrack`, legacy iptables.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{Thing, process::find};

/// A program and the package it is in.
pub type Tool = (&'static str, &'static str);

pub const TOOLS: &[Tool] = &[
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

/// What judges the files of dist/: rules, the unit, the image; and ctwatch as they have it.
pub const JUDGES: &[Tool] = &[
    ("promtool", "prometheus"),
    ("prometheus", "prometheus"),
    ("systemd-analyze", "systemd"),
    ("strace", "strace"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
];

/// What compiles C for every machine.
pub const CLANG: Tool = ("clang", "clang");

/// What the benchmark compares with.
pub const RIVALS: &[Tool] = &[("bpftrace", "bpftrace")];

/// Those that this machine lacks.
pub fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().filter(|(tool, _)| find(tool).is_none()).copied().collect()
}

/// Whether each of them was fetched: what was fetched when less was missing is not enough.
pub fn are_complete(folder: &Path, missing: &[Tool]) -> bool {
    missing.iter().all(|(tool, _)| folder.join("wrappers").join(tool).is_file())
}

/// A value for PATH with which all of them are found.
pub fn path() -> Result<OsString> {
    path_of(&Thing::Tools, TOOLS)
}

fn path_of(thing: &Thing, tools: &[Tool]) -> Result<OsString> {
    let missing = missing(tools);
    let mut dirs: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    if !missing.is_empty() {
        let folder = thing.place();
        if !are_complete(&folder, &missing) {
            thing.fetch().with_context(|| {
                let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
                format!("programs of these packages are needed: {}", packages.join(" "))
            })?;
        }
        dirs.push(folder.join("wrappers"));
    }
    Ok(env::join_paths(dirs)?)
}

/// The folder with those judges that this machine lacks; `None`: it lacks none.
pub fn judges() -> Result<Option<PathBuf>> {
    let missing = missing(JUDGES);
    if missing.is_empty() {
        return Ok(None);
    }
    let folder = Thing::Judges.place();
    if !are_complete(&folder, &missing) {
        Thing::Judges.fetch().context("what judges the files of dist/ could not be had")?;
    }
    Ok(Some(folder.join("wrappers")))
}

/// The compiler of C, this machine's or Debian's.
pub fn clang() -> Result<PathBuf> {
    let (program, _) = CLANG;
    if let Some(installed) = find(program) {
        return Ok(installed);
    }
    let folder = Thing::Clang.provide().context("a compiler of C could not be had")?;
    Ok(folder.join("wrappers").join(program))
}

/// Has this process, and what it starts, find them.
pub fn use_path() -> Result<()> {
    set_path(path()?);
    Ok(())
}

/// Also what the benchmark compares with.
pub fn use_rivals() -> Result<()> {
    use_path()?;
    set_path(path_of(&Thing::Rivals, RIVALS)?);
    Ok(())
}

fn set_path(path: OsString) {
    // SAFETY: called before any other thread is started.
    unsafe { env::set_var("PATH", path) };
}

/// The path of this file below `dir`, if it is there. An absolute link, as /sbin/ip -> /bin/ip, is
/// meant within the package; a relative one is left alone, because programs that are many in one
/// ask for the name they were called by.
pub fn below(dir: &Path, file: PathBuf) -> Option<PathBuf> {
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
        let dir = env::temp_dir().join(format!("xtask-below-{}", std::process::id()));
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
