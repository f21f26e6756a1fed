//! The programs that the lab and the tests call, from Debian's packages.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use ctwatch_provision::{
    Thing,
    bpf::multiarch,
    tools::{Tool, are_complete, below, missing},
};

use super::{
    Of, Store,
    apt::{Apt, summary},
    say,
};

/// What the alternatives of an installed package would call it.
const CALLED: &[(&str, &str)] = &[
    ("iptables", "iptables-nft"),
    ("iptables-save", "iptables-nft-save"),
    ("iptables-restore", "iptables-nft-restore"),
    ("ip6tables", "ip6tables-nft"),
    ("ip6tables-save", "ip6tables-nft-save"),
    ("ip6tables-restore", "ip6tables-nft-restore"),
];

/// Those of the tools that this machine lacks.
pub(super) fn provide(store: &Store, thing: &Thing, tools: &[Tool]) -> Result<()> {
    let missing = missing(tools);
    let names: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let of = Of::Programs(names.join(" "));
    store.folder_where(
        thing,
        of,
        |folder| are_complete(folder, &missing),
        |dir| unpack(store, dir, &missing),
    )
}

fn unpack(store: &Store, dir: &Path, missing: &[Tool]) -> Result<()> {
    let apt = Apt::open(store)?;
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    let all = apt.look_up(&apt.missing_for(&packages)?)?;
    say(&format!("fetching programs from Debian, for target/ only: {}", summary(&all)));
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
             export LD_LIBRARY_PATH=\"$root/usr/lib/{arch}:$root/lib/{arch}:$root/usr/lib/systemd:$root/lib/systemd\"\n\
             export XTABLES_LIBDIR=\"$root/usr/lib/{arch}/xtables\"\n\
             exec \"$root/{}\" \"$@\"\n",
            real.display()
        ),
    )?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
