//! The units at work: they start, count, are restarted, record, and stop.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{PATIENCE, said, until};

pub(crate) const SERVICE: &str = "ctwatch.service";
pub(crate) const SOCKET: &str = "ctwatch.socket";
pub(crate) const RECORDINGS: &str = "/var/lib/ctwatch";
pub(crate) const PROGRAM: &str = "/usr/bin/ctwatch";
/// Where `systemctl edit` puts what its user writes.
pub(crate) const EDITED: &str = "/etc/systemd/system/ctwatch.service.d/override.conf";
/// As docs/deploy.md has them.
const DOCS: &str = include_str!("../../docs/deploy.md");
const ENABLE: &str = "systemctl enable --now ctwatch.socket ctwatch.service";
const ADDRESS: &str = "localhost:10466";
/// The same; a Debian without an installer's /etc/hosts has no names.
pub(crate) const BY_NUMBER: &str = "127.0.0.1:10466";
/// The bar of tests/deploy/unit.rs.
const MOST_EXPOSED: &str = "29";
/// To 200 ports, of control planes among them.
const SYNS: Flows = Flows { sources: 10, services: 200, ..Flows::of(Family::V4, Protocol::TcpSyn) };

pub(crate) fn systemctl(args: &[&str]) -> Result<String> {
    said(Command::new("systemctl").arg("--no-pager").args(args))
}

pub(crate) fn property(unit: &str, name: &str) -> Result<String> {
    Ok(systemctl(&["show", "--value", "--property", name, unit])?.trim().to_owned())
}

/// What `is-enabled` or `is-active` says; it fails for what is not.
pub(crate) fn state(question: &str, unit: &str) -> Result<String> {
    let output = Command::new("systemctl").args([question, unit]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The process that watches.
pub(crate) fn pid() -> Result<String> {
    property(SERVICE, "MainPID")
}

pub(crate) fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.lines().next().is_some_and(|line| line.contains(" 200 ")), "{path}: {head}");
    Ok(body.to_owned())
}

/// The metrics of the unit.
pub(crate) fn metrics() -> Result<String> {
    get(BY_NUMBER, "/metrics")
}

/// When tables are read.
pub(crate) fn is_watching() -> Result<String> {
    until("a tick", || Ok(Some(metrics()?).filter(|page| page.contains("ctwatch_entries{"))))
}

/// The value of one sample, named as on the page.
fn sample(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn of(page: &str, counter: &str, netns: &str) -> Option<f64> {
    sample(page, &format!("{counter}{{netns={netns:?}}}"))
}

pub(crate) fn has_started() -> Result<()> {
    // Every unit that was to be started has been, but for this one.
    let failed = systemctl(&["list-units", "--failed", "--plain", "--no-legend"])?;
    ensure!(failed.trim().is_empty(), "{failed}");
    let version = systemctl(&["--version"])?;
    println!("{}", version.lines().next().unwrap_or_default());
    println!("up since {}", fs::read_to_string("/proc/uptime")?.trim());
    Ok(())
}

/// What systemd thinks of the units, with the program in its place.
pub(crate) fn verified() -> Result<()> {
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", SERVICE, SOCKET]);
    let output = verify.output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && !complaint.contains("ctwatch"), "{complaint}");
    let mut security = Command::new("systemd-analyze");
    let threshold = format!("--threshold={MOST_EXPOSED}");
    security.args(["security", "--no-pager", &threshold, SERVICE]);
    let said = said(security.env("LC_ALL", "C.UTF-8"))?;
    let overall = said.lines().find(|line| line.contains("Overall exposure level"));
    println!("{}", overall.with_context(|| said.clone())?.trim());
    Ok(())
}

pub(crate) fn enabled() -> Result<()> {
    ensure!(DOCS.contains(&format!("\n{ENABLE}\n")), "docs/deploy.md does not say {ENABLE}");
    ensure!(DOCS.contains(&format!("curl -s {ADDRESS}/metrics")), "nor where it listens");
    said(Command::new("sh").args(["-c", ENABLE]))?;
    for unit in [SOCKET, SERVICE] {
        ensure!(state("is-enabled", unit)? == "enabled", "{unit} is not enabled");
        until("the unit", || Ok((state("is-active", unit)? == "active").then_some(())))?;
    }
    // Nothing tracks in a clean Debian; the unit says so, and waits.
    let absent = "ctwatch_conntrack_state{state=\"absent\"}";
    until("that conntrack is absent", || Ok(sample(&metrics()?, absent).filter(|s| *s == 1.0)))?;
    said(Command::new("modprobe").arg("nf_conntrack"))?;
    let page = is_watching()?;
    ensure!(sample(&page, absent) == Some(0.0), "{page}");
    no_complaint()
}

/// systemd says of what it cannot do for a unit that it ignores it, and goes on.
fn no_complaint() -> Result<()> {
    let mut journal = Command::new("journalctl");
    let args = ["--boot", "--no-pager", "--output=cat", "--unit=ctwatch.service"];
    let said = said(journal.args(args).arg("--unit=ctwatch.socket"))?;
    ensure!(said.contains("Started ctwatch"), "the journal does not say that it started: {said}");
    let words = ["ignoring", "unsupported", "not supported", "Unknown", "Failed", "failed"];
    let complaints: Vec<_> =
        said.lines().filter(|line| words.iter().any(|word| line.contains(word))).collect();
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}

/// Killed when it is dropped.
struct AsRoot(Child);

impl Drop for AsRoot {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nothing that root has without the unit is missing under it.
pub(crate) fn by_the_best() -> Result<()> {
    const APART: &str = "127.0.0.1:10467";
    let mut serve = Command::new(PROGRAM);
    serve.args(["serve", "--web.listen-address", APART]).stdout(Stdio::null());
    let root = AsRoot(serve.stderr(Stdio::null()).spawn()?);
    let of_root = until("a tick of root's", || {
        Ok(Some(get(APART, "/metrics")?).filter(|page| page.contains("ctwatch_entries{")))
    })?;
    drop(root);
    let of_unit = is_watching()?;
    let lines = |page: &str, metric: &str| -> Vec<String> {
        page.lines().filter(|line| line.starts_with(metric)).map(str::to_owned).collect()
    };
    let mechanisms = "ctwatch_mechanism_info{";
    let (root, unit) = (lines(&of_root, mechanisms), lines(&of_unit, mechanisms));
    ensure!(!unit.is_empty() && root == unit, "root {root:?}, the unit {unit:?}");
    // Some figures come with time, such as those of a census.
    until("a figure that root has", || {
        let unit = lines(&metrics()?, "ctwatch_figure_available{");
        let root = lines(&of_root, "ctwatch_figure_available{");
        let lacking: Vec<_> =
            root.iter().filter(|line| line.ends_with(" 1") && !unit.contains(line)).collect();
        ensure!(lacking.is_empty(), "{lacking:?}");
        Ok(Some(()))
    })?;
    for signal in ["drops", "insertions", "removals"] {
        let line = format!("ctwatch_mechanism_info{{signal=\"{signal}\",mechanism=\"fexit\"}} 1");
        ensure!(of_unit.lines().any(|found| found == line), "no {line}: {of_unit}");
    }
    Ok(())
}

/// Fills a table and has 2,000 packets come to it. Returns the namespace, and how many were dropped and let in.
fn saturate(lab: &mut Lab) -> Result<(u64, u64)> {
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    let before = judge::ask(lab.router())?.drop;
    let sent = lab.send(&Flood::of(SYNS, 2000))?;
    let dropped = judge::ask(lab.router())?.drop - before;
    ensure!(dropped > 1000 && sent.arrived == sent.packets, "{sent:?}, {dropped} dropped");
    Ok((dropped, sent.packets - dropped))
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
pub(crate) fn counts() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    let name = lab.router().name().to_owned();
    let all = ["ctwatch_dropped_total", "ctwatch_insertions_total"];
    let counted = |page: &str| -> Option<[f64; 2]> {
        let [dropped, inserted] = all.map(|counter| of(page, counter, &name));
        Some([dropped?, inserted?])
    };
    let first = until("the new namespace", || Ok(counted(&metrics()?)))?;
    let (dropped, let_in) = saturate(&mut lab)?;
    let page = until("the drops", || {
        let page = metrics()?;
        let enough = counted(&page).is_some_and(|now| now[0] - first[0] >= dropped as f64);
        Ok(enough.then_some(page))
    })?;
    let now = counted(&page).context("no counters")?;
    let grown = [now[0] - first[0], now[1] - first[1]];
    ensure!(grown == [dropped as f64, let_in as f64], "{dropped} {let_in}, but {grown:?}");
    ensure!(of(&page, "ctwatch_entries", &name) == Some(STAYS_FULL.into()), "{page}");
    println!("{dropped} packets dropped, {let_in} entries inserted, by the kernel and by the unit");
    // Whose packets, and what it is made of, while it is saturated.
    until("a census and lists", || {
        let page = metrics()?;
        let here = page.contains("ctwatch_census_entries{") && page.contains("ctwatch_top_share{");
        Ok(here.then_some(()))
    })?;

    // What is mounted on the host later is seen, and what is deleted is not kept.
    let later = lab.add_netns("later")?;
    let inode = later.inode()?;
    let seen = || Ok::<_, anyhow::Error>(of(&metrics()?, "ctwatch_netns_readable", later.name()));
    until("the later namespace", || Ok(seen()?.filter(|readable| *readable == 1.0)))?;
    lab.remove_netns(&later)?;
    until("that it is gone", || Ok(seen()?.is_none().then_some(())))?;
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", pid()?))?;
    ensure!(!mounts.contains(&format!("net:[{inode}]")), "it is still mounted: {mounts}");
    Ok(())
}

pub(crate) fn started_again() -> Result<()> {
    is_watching()?;
    let pinged = || property(SERVICE, "WatchdogTimestampMonotonic");
    let before = pinged()?;
    ensure!(before != "0", "the watchdog is off");
    until("a sign of life", || Ok((pinged()? != before).then_some(())))?;
    let first = pid()?;
    systemctl(&["kill", "--kill-whom=main", "--signal=KILL", SERVICE])?;
    until("another process", || {
        let now = pid()?;
        Ok((now != first && now != "0" && state("is-active", SERVICE)? == "active").then_some(()))
    })?;
    is_watching().map(|_| ())
}

/// The part of docs/deploy.md that says how to record.
fn edit_of_the_docs() -> Result<&'static str> {
    let rest = DOCS.split_once("To record too: `systemctl edit ctwatch`, and\n\n```\n");
    let edit = rest.and_then(|(_, rest)| rest.split_once("```")).context("no such part")?.0;
    ensure!(edit.contains(&format!("--record {RECORDINGS}")), "{edit}");
    Ok(edit)
}

/// Segments, and whether they are finished, the oldest first.
pub(crate) fn segments() -> Result<Vec<(PathBuf, bool)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(RECORDINGS)? {
        let path = entry?.path();
        let text = path.to_string_lossy();
        if text.contains("/ctwatch-") {
            let is_finished = text.ends_with(".ndjson.gz");
            ensure!(is_finished || text.ends_with(".ndjson"), "{text}");
            found.push((path, is_finished));
        }
    }
    found.sort();
    Ok(found)
}

/// What is played back, as JSON.
pub(crate) fn played() -> Result<String> {
    said(Command::new(PROGRAM).args(["--from", RECORDINGS, "--output", "json"]))
}

pub(crate) fn records() -> Result<()> {
    let folder = Path::new(EDITED).parent().context("no folder")?;
    fs::create_dir_all(folder)?;
    fs::write(EDITED, edit_of_the_docs()?)?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["restart", SERVICE])?;
    is_watching()?;
    let mut lab = Lab::new(Plan::fresh())?;
    let name = lab.router().name().to_owned();
    until("the new namespace", || Ok(of(&metrics()?, "ctwatch_dropped_total", &name)))?;
    let (dropped, _) = saturate(&mut lab)?;
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let truth = dropped as f64;
    until("the drops", || {
        Ok(of(&metrics()?, "ctwatch_dropped_total", &name).filter(|now| *now == truth))
    })?;
    let found = segments()?;
    ensure!(matches!(found.as_slice(), [(_, false)]), "{found:?}");
    // Whoever is root reads it, and so does its page.
    let whose = fs::metadata(RECORDINGS)?;
    {
        use std::os::unix::fs::MetadataExt;
        ensure!(whose.mode() & 0o777 == 0o700 && whose.uid() != 0, "{whose:?}");
    }
    let said_of_it = format!("\"name\":\"{name}\"");
    until("the drops in the recording", || {
        let told = said(Command::new(PROGRAM).args(["incidents", "--from", RECORDINGS]))?;
        Ok((told.contains(&name) && told.contains(&dropped.to_string())).then_some(()))
    })?;
    ensure!(played()?.contains(&said_of_it), "it does not play back");
    let page = "/tmp/report.html";
    said(Command::new(PROGRAM).args(["report", "--from", RECORDINGS, "-o", page]))?;
    let text = fs::read_to_string(page)?;
    ensure!(text.contains(&name) && text.contains("table_full"), "the page does not tell it");
    Ok(())
}

pub(crate) fn stops() -> Result<()> {
    systemctl(&["stop", SOCKET, SERVICE])?;
    let ended = ["ActiveState", "Result", "ExecMainCode", "ExecMainStatus"];
    let ended: Vec<String> =
        ended.iter().map(|name| property(SERVICE, name)).collect::<Result<_>>()?;
    // The third says that it exited, by itself.
    ensure!(ended == ["inactive", "success", "1", "0"], "{ended:?}");
    ensure!(get(BY_NUMBER, "/metrics").is_err(), "something listens still");
    let found = segments()?;
    let [(segment, false)] = found.as_slice() else { anyhow::bail!("{found:?}") };
    let text = fs::read_to_string(segment)?;
    let last = text.lines().last().unwrap_or_default();
    ensure!(text.ends_with('\n') && last.contains("\"type\":\"end\""), "{last}");
    // The next one finishes it, and goes on in another.
    systemctl(&["start", SOCKET, SERVICE])?;
    is_watching()?;
    let found =
        until("a second segment", || Ok(Some(segments()?).filter(|found| found.len() == 2)))?;
    ensure!(matches!(found.as_slice(), [(_, true), (_, false)]), "{found:?}");
    Ok(())
}
