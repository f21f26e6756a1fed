//! The real sos, as Debian has it, takes a full table down: the doctor finds in its archive what it found live.
//!
//! It runs in the root file system of the owners of a firewall, with processes and a host name of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{Lab, Plan};

use crate::{
    On, Test,
    advice::datagrams,
    doctor::{found, report},
    offline::{ids, undecided},
    owners, test,
};

pub(crate) const TESTS: &[Test] =
    &[test(On::OnceWithSos, "sos_archives_tell_what_live_does", told)];

const VARIABLE: &str = "CTWATCH_SOS";
/// What it takes down; the rest is of no use here.
const PLUGINS: &str = "conntrack,date,firewall_tables,host,kernel,networking,process";

/// Why these tests cannot be run here.
pub(crate) fn missing() -> Option<&'static str> {
    let none = "CTWATCH_SOS names no folder with Debian's sos (cargo xtask test fetches it)";
    owners::missing().or_else(|| env::var_os(VARIABLE).is_none().then_some(none))
}

/// Nothing of it outlives the namespace of mounts, but for the archive.
const RUN: &str = "
    mount --make-rprivate /
    mount -t tmpfs ctwatch /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay ctwatch -o lowerdir=$1:$2,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
    cd /mnt/root
    echo box > /proc/sys/kernel/hostname
    mount -t proc proc proc
    mount --rbind /sys sys
    mount --rbind /dev dev
    mkdir -p run/netns out
    mount --rbind /run/netns run/netns
    printf 'ID=debian\\nNAME=\"Debian GNU/Linux\"\\nPRETTY_NAME=\"Debian GNU/Linux 13\"\\nVERSION_ID=13\\n' \\
        > etc/os-release
    chroot . env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C python3 /usr/bin/sos report \\
        --batch --tmp-dir /out -o $4 --allow-system-changes --plugin-timeout 120 --cmd-timeout 60 -z xz
    cp out/sosreport-box-*.tar.xz $3
";

/// Makes an archive in this folder.
fn sos(into: &Path) -> Result<PathBuf> {
    let root = |name: &str| env::var_os(name).with_context(|| format!("no {name}"));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--uts", "sh", "-ec", RUN, "sos"]);
    command.arg(root(VARIABLE)?).arg(root("CTWATCH_OWNERS")?).arg(into).arg(PLUGINS);
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let mut archives = fs::read_dir(into)?;
    Ok(archives.next().with_context(|| format!("no archive: {said}"))??.path())
}

fn told() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(300)?;
    lab.keep_entries()?;
    datagrams(&lab.client().clone(), 20_000..20_600, "10.100.0.2:9000")?;
    let name = lab.router().name().to_owned();
    let live = report(&["--netns", &name])?;
    let folder = tempfile::tempdir()?;
    let archive = sos(folder.path())?;
    let offline = report(&["--from", archive.to_str().context("an odd name")?])?;
    let (seen, read) = (ids(&live, &name)?, ids(&offline, &name)?);
    ensure!(seen.contains("table_full") && seen.contains("top_talkers"), "{seen:?}");
    let said = &offline["offline"];
    let open = undecided(&offline);
    let missing: Vec<_> = seen.difference(&read).filter(|id| !open.contains(*id)).collect();
    ensure!(missing.is_empty(), "live {seen:?}, by sos {read:?}, missing {missing:?}: {said:#}");
    let more: Vec<_> = read.difference(&seen).collect();
    ensure!(more.is_empty(), "only by sos: {more:?}");
    ensure!(said["host"] == "box" && said["not_understood"] == serde_json::json!([]), "{said:#}");
    // The list that its two outputs were mixed in is whole.
    let notes = said["notes"].to_string();
    ensure!(!notes.contains("cut off") && !notes.contains("not understood"), "{notes}");
    let full = found(&offline, "table_full", &name)?;
    ensure!(full["severity"] == "critical", "{full:#}");
    Ok(())
}
