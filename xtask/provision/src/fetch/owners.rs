//! Owners of a firewall as Debian has them, in a root file system of their own: the tests of advice
//! run them there, and nothing of this machine's /etc is touched. Unpacked and not installed, so what
//! their installation scripts would do is done here.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context, Result};
use ctwatch_provision::{Thing, process::run};

use super::{
    Of, Store,
    apt::{Apt, leave_out, summary},
    say,
};

/// What all of them need, and what the advice is typed with.
const SYSTEM: [&str; 14] = [
    // Spares the program that would merge them, and its perl.
    "usr-is-merged",
    "dash",
    "bash",
    "coreutils",
    "debianutils",
    "sed",
    "mawk",
    "grep",
    "util-linux",
    "procps",
    "iproute2",
    "conntrack",
    "iptables",
    "nftables",
];
/// Each by itself: Debian lets no two of them be installed together.
const OWNERS: [&[&str]; 3] =
    [&["ufw"], &["netfilter-persistent", "iptables-persistent"], &["firewalld", "dbus", "systemd"]];
/// Nothing there reads these.
const SPARED: [&str; 6] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/zoneinfo",
    "usr/lib/udev/hwdb.d",
];

pub(super) fn provide(store: &Store) -> Result<()> {
    store
        .folder(&Thing::Owners, Of::Itself, |dir| unpack(store, dir))
        .context("cannot fetch ufw, firewalld and netfilter-persistent from Debian")
}

fn unpack(store: &Store, dir: &Path) -> Result<()> {
    let apt = Apt::open(store)?;
    let mut names: Vec<String> = Vec::new();
    for owner in OWNERS {
        let asked = [&SYSTEM[..], owner].concat();
        names.extend(apt.everything_for(&asked)?);
    }
    names.sort();
    names.dedup();
    let packages = apt.look_up(&names)?;
    say(&format!(
        "fetching ufw, firewalld and netfilter-persistent with all they need from Debian, for target/ \
         only: {}",
        summary(&packages)
    ));
    apt.unpack(&packages, dir)?;
    leave_out(dir, &SPARED)?;
    merge(dir)?;
    configure(dir)
}

/// /bin, /sbin and /lib are links into /usr, as on an installed Debian.
pub(super) fn merge(dir: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let (old, new) = (dir.join(name), dir.join("usr").join(name));
        fs::create_dir_all(&new)?;
        if old.is_dir() && !old.is_symlink() {
            let mut copy = std::process::Command::new("cp");
            run(copy.args(["-a", "-n"]).arg(old.join(".")).arg(&new))
                .with_context(|| format!("cannot merge /{name}"))?;
            fs::remove_dir_all(&old)?;
        }
        if !old.is_symlink() {
            symlink(format!("usr/{name}"), &old)?;
        }
    }
    Ok(())
}

/// What the packages' installation scripts do.
fn configure(dir: &Path) -> Result<()> {
    for tool in ["iptables", "ip6tables"] {
        for part in ["", "-save", "-restore"] {
            link(dir, &format!("usr/sbin/{tool}{part}"), &format!("{tool}-nft{part}"))?;
        }
    }
    link(dir, "usr/bin/awk", "mawk")?;
    link(dir, "usr/bin/sh", "dash")?;
    let ufw = dir.join("usr/share/ufw");
    for (from, file) in [
        ("iptables", "before.rules"),
        ("iptables", "before6.rules"),
        ("iptables", "after.rules"),
        ("iptables", "after6.rules"),
        ("iptables", "user.rules"),
        ("iptables", "user6.rules"),
        (".", "before.init"),
        (".", "after.init"),
        (".", "ufw.conf"),
    ] {
        let (from, to) = (ufw.join(from).join(file), dir.join("etc/ufw").join(file));
        fs::copy(&from, to).with_context(|| format!("ufw has no {}", from.display()))?;
    }
    for (file, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nmessagebus:x:100:100::/nonexistent:/usr/sbin/nologin\n",
        ),
        ("etc/group", "root:x:0:\nmessagebus:x:100:\n"),
        ("etc/machine-id", "00000000000000000000000000000001\n"),
    ] {
        fs::write(dir.join(file), text)?;
    }
    for folder in ["etc/iptables", "etc/sysctl.d", "var/lib/dbus", "root", "run", "tmp"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    Ok(())
}

fn link(dir: &Path, path: &str, target: &str) -> Result<()> {
    let link = dir.join(path);
    if link.symlink_metadata().is_err() {
        symlink(target, &link).with_context(|| format!("cannot make {path}"))?;
    }
    Ok(())
}
