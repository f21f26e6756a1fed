//! Situations from the field, each made in a lab and diagnosed three times: live, from what `ctwatch collect`
//! took along, and from what plain commands print, pasted into one text. The findings are the same, but for
//! those that the report names as undecided; docs/situations.md holds what was found, and a line of it that
//! is not true any more fails its test.

mod made;

use std::{
    collections::{BTreeMap, BTreeSet},
    env::var_os,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    On, Test,
    doctor::report,
    offline::undecided,
    test,
    watch::{ctwatch, finished},
};
use made::Made;

const fn situation(name: &'static str, run: fn() -> Result<()>) -> Test {
    test(On::OnceHere, name, run)
}

pub(crate) const TESTS: &[Test] = &[
    situation("situation_cluster_dns", || compared("cluster DNS fills the table", made::dns)),
    situation("situation_vxlan", || compared("VXLAN fills it, beside a service", made::tunnel)),
    situation("situation_close_wait", || {
        compared("CLOSE_WAIT for an hour, on a node of Kubernetes", made::close_wait)
    }),
    situation("situation_container", || {
        compared("full, seen from inside a container", made::container)
    }),
    situation("situation_ports", || compared("NAT used up its ports", made::ports)),
    situation("situation_over", || compared("it was full, and is over", made::over)),
    situation("situation_invalid", || compared("a rule drops INVALID packets", made::invalid)),
    situation("situation_one_way", || compared("one direction only was seen", made::one_way)),
    situation("situation_openwrt", || compared("OpenWrt's firewall, full", made::openwrt)),
    situation("situation_ufw_and_docker", || compared("ufw and Docker, full", made::owned)),
    situation("situation_bridge", || compared("a bridge is tracked", made::bridge)),
    situation("situation_scan", || compared("one host scans", made::scan)),
    situation("situation_gone", || compared("a backend that is gone", made::gone)),
    situation("situation_switch", || {
        compared("a switch's control plane, into a full table", made::control_plane)
    }),
    situation("situation_boot", || compared("settings are lost at boot", made::boot)),
    situation("situation_idle", || compared("nothing is wrong", made::idle)),
    situation("situation_many_idle", || compared("40 idle namespaces", made::many_idle)),
    situation("situation_clashes", || compared("first packets clash", made::clashes)),
    situation("situation_columns", || {
        compared("a bit less than an hour is left to all", made::columns)
    }),
    situation("situation_buckets", || compared("few buckets for many entries", made::buckets)),
    situation("situation_expectations", || {
        compared("as many connections expected as may be", made::expectations)
    }),
];

/// Why this kernel cannot be brought into it.
pub(crate) fn missing(test: &str) -> Option<&'static str> {
    let is_bridge = test == "situation_bridge";
    (is_bridge && !Path::new(made::BRIDGED).exists()).then_some("br_netfilter is not loaded here")
}

/// What the machine on which the tests run may have of its own, whatever the lab is like.
const OF_THE_MACHINE: [&str; 7] = [
    "no_memory",
    "expectations_full",
    "lost_at_boot",
    "cloud_allowance",
    "others",
    "few_buckets",
    "bridge_tracked",
];
/// An archive of collect leaves no more than so many findings of a situation undecided.
const MOST_UNDECIDED: usize = 3;

const PAGE: &str = "docs/situations.md";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE)
}

/// By id, with how bad it is; of several with one id, the worst, which comes first.
fn found(report: &Value, about: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for finding in report["findings"].as_array().context("no findings")? {
        let text = |name: &str| finding[name].as_str().context("a finding without a name");
        let (id, severity) = (text("id")?, text("severity")?);
        if about.contains(&id) || !OF_THE_MACHINE.contains(&id) {
            found.entry(id.to_owned()).or_insert_with(|| severity.to_owned());
        }
    }
    Ok(found)
}

/// What one way of reading finds, against the live one.
struct Found {
    missing: BTreeSet<String>,
    more: BTreeSet<String>,
    /// Found, and called more or less bad.
    other: Vec<String>,
    undecided: BTreeSet<String>,
}

impl Found {
    fn of(live: &BTreeMap<String, String>, offline: &Value, about: &[&str]) -> Result<Self> {
        let here = found(offline, about)?;
        let without = |one: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
            one.keys().filter(|id| !other.contains_key(*id)).cloned().collect()
        };
        let both = live.iter().filter_map(|(id, live)| Some((id, live, here.get(id)?)));
        let other = both.filter(|(_, live, here)| live != here);
        Ok(Self {
            missing: without(live, &here),
            more: without(&here, live),
            other: other.map(|(id, live, here)| format!("`{id}` {here}, live {live}")).collect(),
            undecided: undecided(offline),
        })
    }

    fn is_as_live(&self, what: &str, live: &Value, offline: &Value) -> Result<()> {
        let Self { missing, more, undecided, .. } = self;
        let unsaid: Vec<_> = missing.difference(undecided).collect();
        ensure!(
            unsaid.is_empty(),
            "{what}: {unsaid:?} is found live, and neither found nor called undecided: {:#}\nlive: {:#}",
            offline["offline"],
            live["findings"]
        );
        ensure!(more.is_empty(), "{what} finds more: {more:?} {:#}", offline["findings"]);
        Ok(())
    }

    fn cell(&self) -> String {
        let mut words = self.other.clone();
        if !self.missing.is_empty() {
            words.push(format!("undecided: {}", listed(self.missing.iter())));
        }
        if words.is_empty() { "the same".to_owned() } else { words.join("; ") }
    }
}

fn listed<'a>(ids: impl Iterator<Item = &'a String>) -> String {
    let ids: Vec<String> = ids.map(|id| format!("`{id}`")).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

fn run(mut command: Command) -> Result<String> {
    let (said, errors, code) = finished(&mut command)?;
    ensure!(code == Some(0), "{command:?}: {errors}");
    Ok(said)
}

fn compared(name: &str, make: fn() -> Result<Made>) -> Result<()> {
    let made = make()?;
    let about = made.about;
    let place = made.place();
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("case.tar.gz");
    let paste = folder.path().join("ticket.txt");
    let chosen = ["--netns", &place];
    let (live, text) = made.while_it_lasts(|| {
        let mut doctor = made.command(&ctwatch()?)?;
        doctor.args(["doctor", "--output", "json"]).args(chosen);
        let live: Value = serde_json::from_str(&run(doctor)?)?;
        let mut collect = made.command(&ctwatch()?)?;
        collect.args(["collect", "--duration", "1s", "-o"]).arg(&archive).args(chosen);
        run(collect)?;
        Ok((live, made.pasted()?))
    })?;
    fs::write(&paste, text)?;
    let from = |path: &Path| report(&["--from", path.to_str().context("an odd name")?]);
    let (of_archive, of_paste) = (from(&archive)?, from(&paste)?);

    let seen = found(&live, about)?;
    for id in made.expected {
        ensure!(seen.contains_key(*id), "live it is no {id}: {:#}", live["findings"]);
    }
    let archived = Found::of(&seen, &of_archive, about)?;
    archived.is_as_live("the archive", &live, &of_archive)?;
    ensure!(archived.missing.len() <= MOST_UNDECIDED, "{:?}", archived.missing);
    let critical = archived.missing.iter().find(|id| seen[*id] == "critical");
    ensure!(critical.is_none(), "{critical:?} is critical, and undecided");
    let pasted = Found::of(&seen, &of_paste, about)?;
    pasted.is_as_live("the paste", &live, &of_paste)?;
    let not_understood = &of_paste["offline"]["not_understood"];
    ensure!(not_understood == &Value::Array(Vec::new()), "{not_understood:#}");
    let columns = |path: Option<&Path>| -> Result<Value> {
        let mut command = ctwatch()?;
        command.args(["census", "--output", "json"]);
        match path {
            Some(path) => command.arg("--from").arg(path),
            None => command.args(chosen),
        };
        let census: Value = serde_json::from_str(&run(command)?)?;
        Ok(census["tables"][0]["states"].clone())
    };
    if made.by_columns {
        let live = columns(None)?;
        ensure!(live.to_string().contains("100"), "{live:#}");
        for path in [&archive, &paste] {
            let read = columns(Some(path))?;
            ensure!(read == live, "{}: {read:#} {live:#}", path.display());
        }
    }
    let [of_archive, of_paste] = [archived, pasted].map(|found| found.cell());
    is_on_the_page(&format!("| {name} | {} | {of_archive} | {of_paste} |", listed(seen.keys())))
}

/// `UPDATE_EXPECT=1` writes the line; the test fails where it has to.
fn is_on_the_page(line: &str) -> Result<()> {
    let path = page();
    let text = fs::read_to_string(&path).with_context(|| format!("no {PAGE}"))?;
    if text.lines().any(|other| other == line) {
        let rows = text.lines().filter(|line| line.starts_with("| ")).count();
        // With the head of the table.
        let known = TESTS.len() + 2;
        let is_update = var_os("UPDATE_EXPECT").is_some();
        ensure!(rows == known || is_update, "{PAGE} has {rows} rows, and {known} are known");
        return Ok(());
    }
    let begin = |line: &str| line.split(" | ").next().unwrap_or_default().to_owned();
    ensure!(
        var_os("UPDATE_EXPECT").is_some(),
        "{PAGE} does not say what was found; UPDATE_EXPECT=1 writes it anew: look at the difference\n{line}\n{:?}",
        text.lines().find(|other| begin(other) == begin(line))
    );
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.iter().position(|other| begin(other) == begin(line)) {
        Some(at) => lines[at] = line,
        None => {
            let last =
                lines.iter().rposition(|other| other.starts_with('|')).context("no table")?;
            lines.insert(last + 1, line);
        }
    }
    fs::write(&path, lines.join("\n") + "\n")?;
    Ok(())
}
