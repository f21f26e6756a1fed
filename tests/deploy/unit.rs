//! The unit of systemd: what it may do is little, and known.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{Needs, Test, dist, read, said};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "the_unit_exposes_little",
        needs: &[Needs::Program("systemd-analyze")],
        run: exposes_little,
    },
    Test {
        name: "the_units_are_sound",
        needs: &[Needs::Program("systemd-analyze"), Needs::Variable("CTWATCH_BIN")],
        run: sound,
    },
    Test { name: "the_unit_keeps_six_capabilities", needs: &[Needs::Nothing], run: capabilities },
];

const SERVICE: &str = "systemd/ctwatch.service";
const SOCKET: &str = "systemd/ctwatch.socket";
/// Of the scale from 0 to 10.
const MOST_EXPOSED: f64 = 2.9;

pub(crate) const CAPABILITIES: [&str; 6] =
    ["BPF", "NET_ADMIN", "PERFMON", "SYSLOG", "SYS_ADMIN", "SYS_PTRACE"];

fn exposes_little() -> Result<()> {
    let threshold = format!("--threshold={:.0}", MOST_EXPOSED * 10.0);
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=yes", "--no-pager", &threshold]).arg(dist(SERVICE));
    let said = said(analyze.env("LC_ALL", "C.UTF-8"))?;
    let overall = said.lines().find(|line| line.contains("Overall exposure level"));
    let overall = overall.with_context(|| said.clone())?;
    let score = overall.split(": ").nth(1).and_then(|rest| rest.split(' ').next());
    let score: f64 = score.with_context(|| overall.to_owned())?.parse()?;
    ensure!(score <= MOST_EXPOSED, "{overall}");
    Ok(())
}

/// With the program where it is here: systemd looks whether it can be started.
fn sound() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = std::env::var("CTWATCH_BIN")?;
    let (service, socket) =
        (folder.path().join("ctwatch.service"), folder.path().join("ctwatch.socket"));
    fs::write(&service, read(&dist(SERVICE))?.replace("/usr/bin/ctwatch", &program))?;
    fs::write(&socket, read(&dist(SOCKET))?)?;
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no", "--recursive-errors=no"]).args([&service, &socket]);
    let output = analyze.output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    // Of these two files; this machine's own units are another matter.
    let ours: Vec<_> = complaint.lines().filter(|line| line.contains("ctwatch")).collect();
    ensure!(output.status.success() && ours.is_empty(), "{:?}: {complaint}", output.status);
    Ok(())
}

fn capabilities() -> Result<()> {
    let unit = read(&dist(SERVICE))?;
    for setting in ["CapabilityBoundingSet=", "AmbientCapabilities="] {
        let line = unit.lines().find_map(|line| line.strip_prefix(setting)).context(setting)?;
        let mut kept: Vec<_> =
            line.split(' ').map(|name| name.trim_start_matches("CAP_")).collect();
        kept.sort_unstable();
        ensure!(kept == CAPABILITIES, "{setting}{line}");
    }
    // What would blind it.
    for setting in
        ["ProtectKernelTunables=yes", "ProtectKernelLogs=yes", "PrivateUsers=yes", "ProcSubset=pid"]
    {
        ensure!(!unit.lines().any(|line| line == setting), "{setting}");
    }
    Ok(())
}
