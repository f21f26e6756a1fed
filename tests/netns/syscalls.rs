//! The system calls of `ctwatch serve`, against what the unit allows and what a container runtime does by default: a
//! call that they forbid would fail on the first machine that it is deployed to.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test,
    deployed::{CAPABILITIES, free_port, serve_with, setting},
    test,
    watch::{ctwatch, finished},
};

pub(crate) const TESTS: &[Test] =
    &[test(On::OnceWithJudges, "each_system_call_is_allowed_where_it_is_deployed", allowed)];

const UDP: Flows = Flows { sources: 10, ..Flows::of(Family::V4, Protocol::Udp) };

/// The profile that podman and CRI-O apply by default, which Debian has as a file.
const PROFILE: &str = "usr/share/containers/seccomp.json";

fn profile() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let near = env::split_paths(&path).map(|dir| dir.join("..").join(PROFILE));
    near.chain([Path::new("/").join(PROFILE)]).find(|file| file.is_file())
}

/// What is missing to know.
pub(crate) fn missing() -> Option<&'static str> {
    profile().is_none().then_some("there is no seccomp profile of containers-common")
}

fn allowed() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("strace");
    let (record, textfile) = (folder.path().join("rec"), folder.path().join("textfile"));
    fs::create_dir(&textfile)?;
    let mut command = Command::new("strace");
    // A grandchild traces, so that the child is ctwatch itself.
    command.args(["-D", "-f", "-qq", "-o"]).arg(&log).arg(ctwatch()?.get_program());
    let more = [Path::new("--record"), &record, Path::new("--textfile"), &textfile];
    let mut serve = serve_with(&mut command, &more, free_port()?, folder.path(), "serve.log")?;
    lab.send(&Flood::of(UDP, 1000))?;
    let later = lab.add_netns("later")?;
    let readable = format!("ctwatch_netns_readable{{netns={:?}}} 1", later.name());
    serve.until("a new namespace and a census", |serve| {
        let page = serve.get("/metrics")?;
        for path in ["/", "/-/healthy", "/api/v1/snapshot", "/api/v1/top"] {
            serve.get(path)?;
        }
        let all = page.contains(&readable) && page.contains("ctwatch_census_entries{");
        Ok(all.then_some(()))
    })?;
    serve.ended()?;

    let used = used(&fs::read_to_string(&log)?);
    for sure in ["bpf", "setns", "capset", "landlock_restrict_self", "accept4"] {
        ensure!(used.contains(sure), "it was not seen to call {sure}: {used:?}");
    }
    let beyond = |allowed: &BTreeSet<String>| used.difference(allowed).cloned().collect::<Vec<_>>();
    let by_unit = beyond(&by_unit()?);
    ensure!(by_unit.is_empty(), "the unit forbids {by_unit:?}");
    let by_profile = beyond(&by_profile()?);
    ensure!(by_profile.is_empty(), "the runtime's profile forbids {by_profile:?}");
    Ok(())
}

/// `123 openat(AT_FDCWD, ...` and `123 <... openat resumed>...`
fn used(log: &str) -> BTreeSet<String> {
    let call = |line: &str| {
        let (_, rest) = line.split_once(' ')?;
        let rest = rest.trim_start();
        let rest = rest.strip_prefix("<... ").unwrap_or(rest);
        let end = rest.find(['(', ' '])?;
        let name = &rest[..end];
        let is_name =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_name.then(|| name.to_owned())
    };
    log.lines().filter_map(call).collect()
}

fn by_unit() -> Result<BTreeSet<String>> {
    let (text, _, _) =
        finished(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager"]))?;
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut group = "";
    for line in text.lines() {
        match line.trim() {
            "" => {}
            name if line.starts_with('@') => group = name,
            call if line.starts_with("    ") && !call.starts_with('#') => {
                groups.entry(group).or_default().push(call);
            }
            _ => {}
        }
    }
    let mut allowed = BTreeSet::new();
    // Systemd adds the first to every list.
    let mut open = vec!["@default".to_owned()];
    for line in setting("SystemCallFilter")? {
        open.extend(line.split(' ').map(str::to_owned));
    }
    while let Some(word) = open.pop() {
        match groups.get(word.as_str()) {
            Some(calls) => open.extend(calls.iter().map(|call| (*call).to_owned())),
            None => {
                ensure!(!word.starts_with(['@', '~']), "what is {word} in the unit's filter?");
                allowed.insert(word);
            }
        }
    }
    Ok(allowed)
}

/// For a container with the capabilities of the manifests.
fn by_profile() -> Result<BTreeSet<String>> {
    let profile = profile().context("no profile")?;
    let profile: Value = serde_json::from_str(&fs::read_to_string(profile)?)?;
    let kept = setting(CAPABILITIES)?.join(" ");
    let kept: BTreeSet<_> = kept.split(' ').collect();
    let mut allowed = BTreeSet::new();
    for rule in profile["syscalls"].as_array().context("no rules")? {
        let names = |of: &Value| -> Vec<String> {
            let all = of.as_array().into_iter().flatten();
            all.filter_map(|name| name.as_str().map(str::to_owned)).collect()
        };
        let any = |caps: &[String]| caps.iter().any(|cap| kept.contains(cap.as_str()));
        let (only, not) = (names(&rule["includes"]["caps"]), names(&rule["excludes"]["caps"]));
        if rule["action"] == "SCMP_ACT_ALLOW" && (only.is_empty() || any(&only)) && !any(&not) {
            allowed.extend(names(&rule["names"]));
        }
    }
    Ok(allowed)
}
