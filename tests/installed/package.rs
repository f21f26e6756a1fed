//! The package comes, is replaced by a later one, and goes.

use std::{
    env::var_os,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    running::{
        BY_NUMBER, EDITED, PROGRAM, RECORDINGS, SERVICE, SOCKET, get, is_watching, metrics, pid,
        segments, state, systemctl,
    },
    said, until,
};

fn dpkg(args: &[&str]) -> Result<String> {
    said(Command::new("dpkg").args(args).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn deb(variable: &str) -> Result<String> {
    let file = var_os(variable).with_context(|| format!("no {variable}"))?;
    Ok(file.to_string_lossy().into_owned())
}

fn version() -> Result<String> {
    said(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", "ctwatch"]))
}

pub(crate) fn is_off() -> Result<()> {
    dpkg(&["--install", &deb("CTWATCH_DEB")?])?;
    let said = said(Command::new(PROGRAM).arg("--version"))?;
    ensure!(said.trim() == concat!("ctwatch ", env!("CARGO_PKG_VERSION")), "{said}");
    // As a system does that is booted for the first time.
    systemctl(&["preset", SERVICE, SOCKET])?;
    for unit in [SERVICE, SOCKET] {
        // systemd knows them, and nothing more.
        let (enabled, active) = (state("is-enabled", unit)?, state("is-active", unit)?);
        ensure!(enabled == "disabled" && active == "inactive", "{unit}: {enabled}, {active}");
    }
    ensure!(get(BY_NUMBER, "/metrics").is_err(), "something listens");
    ensure!(!Path::new(RECORDINGS).exists(), "there is {RECORDINGS}");
    ensure!(!Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists(), "it loads conntrack");
    Ok(())
}

/// What is in each finished segment.
fn finished() -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let finished = segments()?.into_iter().filter(|(_, is_finished)| *is_finished);
    finished.map(|(path, _)| Ok((path.clone(), fs::read(&path)?))).collect()
}

fn all_there(before: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    for (path, bytes) in before {
        let now = fs::read(path).with_context(|| format!("{} is gone", path.display()))?;
        ensure!(now == *bytes, "{} is another", path.display());
    }
    Ok(())
}

fn ticks(page: &str) -> Option<&str> {
    page.lines().find(|line| line.starts_with("ctwatch_last_tick_timestamp_seconds "))
}

pub(crate) fn upgraded() -> Result<()> {
    let (before, process, first) = (finished()?, pid()?, version()?);
    ensure!(!before.is_empty(), "nothing is finished yet");
    dpkg(&["--install", &deb("CTWATCH_DEB_LATER")?])?;
    let second = version()?;
    ensure!(second != first, "it is still {first}");
    all_there(&before)?;
    // The one that ran runs on, and records.
    ensure!(pid()? == process, "it was restarted");
    let tick = metrics()?;
    until("another tick", || Ok((ticks(&metrics()?) != ticks(&tick)).then_some(())))?;
    for unit in [SERVICE, SOCKET] {
        ensure!(state("is-enabled", unit)? == "enabled", "{unit} is not enabled any more");
    }
    let runs = || Ok::<_, anyhow::Error>(fs::read_link(format!("/proc/{}/exe", pid()?))?);
    ensure!(runs()?.to_string_lossy().ends_with("(deleted)"), "it runs {:?}", runs()?);
    // Until the operator says otherwise.
    systemctl(&["restart", SERVICE])?;
    is_watching()?;
    ensure!(runs()? == Path::new(PROGRAM), "it runs {:?}", runs()?);
    all_there(&before)?;
    let now = until("what it recorded meanwhile", || {
        Ok(Some(finished()?).filter(|now| now.len() == before.len() + 1))
    })?;
    println!("from {first} to {second}: {} finished segments, {} before", now.len(), before.len());
    Ok(())
}

/// By a file that is there before and after.
fn recordings() -> Result<usize> {
    let found = segments()?;
    ensure!(!found.is_empty(), "no recording is left");
    Ok(found.len())
}

pub(crate) fn removed() -> Result<()> {
    let (before, process, all) = (finished()?, pid()?, recordings()?);
    dpkg(&["--remove", "ctwatch"])?;
    ensure!(!Path::new(PROGRAM).exists(), "{PROGRAM} is left");
    ensure!(!Path::new("/proc").join(&process).exists(), "it runs on");
    ensure!(get(BY_NUMBER, "/metrics").is_err(), "something listens still");
    for unit in [SERVICE, SOCKET] {
        ensure!(state("is-active", unit)? != "active", "{unit} is active");
        for wants in ["multi-user.target.wants", "sockets.target.wants"] {
            let link = Path::new("/etc/systemd/system").join(wants).join(unit);
            ensure!(link.symlink_metadata().is_err(), "{} leads nowhere", link.display());
        }
    }
    all_there(&before)?;
    ensure!(recordings()? == all, "a recording is gone");
    // What the operator wrote is not the package's.
    ensure!(Path::new(EDITED).exists(), "{EDITED} is gone");
    Ok(())
}

pub(crate) fn purged() -> Result<()> {
    let (before, all) = (finished()?, recordings()?);
    dpkg(&["--purge", "ctwatch"])?;
    ensure!(version().is_err(), "dpkg still knows it");
    all_there(&before)?;
    ensure!(recordings()? == all, "a recording is gone");
    Ok(())
}
