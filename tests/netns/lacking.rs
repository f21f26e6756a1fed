//! Machines that lack something: what ctwatch counts by there, what it says, and that the figures hold.

use std::{collections::HashMap, fs, process::Command, thread};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    traffic::{Family, Flood, Flows, Protocol},
};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

use crate::{
    On, Test,
    hidden::hide,
    test,
    top::{bounds, list},
    watch::{Watch, agrees_with, ctwatch, finished, table},
};

pub(crate) const TESTS: &[Test] = &[
    // xtask knows its name, and gives it a machine with room for 256 CPUs.
    test(On::OnceAlone, "more_cpus_are_possible_than_online", many_cpus),
    test(On::Once, "without_btf_the_counters_are_left", without_btf),
    test(On::Once, "without_files_of_conntracks_ctnetlink_answers", without_procfs),
    test(On::OnceAlone, "too_little_locked_memory_is_named", little_locked_memory),
];

const UDP: Flows = Flows { sources: 10, ..Flows::of(Family::V4, Protocol::Udp) };

/// A table that is full, and stays so.
fn full() -> Result<Lab> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    Ok(lab)
}

/// ctwatch where these commands of a shell have changed what it sees of the file system; nobody else sees that.
fn seeing(changes: &str) -> Result<Command> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &format!("{changes}; exec \"$@\""), "sh"]);
    command.arg(ctwatch()?.get_program());
    Ok(command)
}

/// What its outputs say together.
fn said(mut command: Command, args: &[&str]) -> Result<String> {
    let (out, err, _) = finished(command.args(args))?;
    Ok(out + &err)
}

const CPUS: &str = "/sys/devices/system/cpu";
const SECOND: &str = "/sys/devices/system/cpu/cpu1/online";

/// As many as are in a list like `0-255`.
fn cpus(file: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("{CPUS}/{file}"))?;
    let last = text.trim().rsplit(['-', ',']).next().context("no CPU")?;
    Ok(last.parse::<u64>().with_context(|| text.clone())? + 1)
}

/// One CPU less, for as long as this lives.
struct OneLess;

impl OneLess {
    fn begin() -> Result<Self> {
        fs::write(SECOND, "0").with_context(|| format!("cannot write {SECOND}"))?;
        Ok(Self)
    }
}

impl Drop for OneLess {
    fn drop(&mut self) {
        let _ = fs::write(SECOND, "1");
    }
}

/// Sends from this CPU, which is the one that conntrack then runs on: the lab's links are veths.
fn send_from(cpu: usize, lab: &Lab, first: u64, packets: u64) -> Result<()> {
    let send = || -> Result<()> {
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only).context("cannot stay on one CPU")?;
        let sent = lab.send(&Flood { first, ..Flood::of(UDP, packets) })?;
        ensure!(sent.arrived == packets, "{sent:?}");
        Ok(())
    };
    // A thread of its own: its CPUs are nobody else's.
    let joined = thread::scope(|scope| scope.spawn(send).join());
    joined.map_err(|_| anyhow::anyhow!("the sender panicked"))?
}

/// What a process' maps are, each once, as the kernel says in /proc/PID/fdinfo.
fn maps(pid: u32) -> Result<HashMap<u64, HashMap<String, u64>>> {
    let mut maps = HashMap::new();
    for file in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // One that was closed meanwhile.
        let Ok(text) = fs::read_to_string(file?.path()) else { continue };
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        let fields: HashMap<String, u64> = fields
            .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
            .collect();
        if let (Some(id), true) = (fields.get("map_id"), fields.contains_key("map_type")) {
            maps.insert(*id, fields);
        }
    }
    Ok(maps)
}

/// Memory goes by the CPUs that are online; what happens on one that comes later is counted whole, and the lists,
/// which have no room for it, say so by their bounds.
fn many_cpus() -> Result<()> {
    const PER_CPU_ARRAY: u64 = 6;
    const PACKETS: u64 = 1000;
    let lab = full()?;
    let less = OneLess::begin()?;
    let (online, possible) = (cpus("online")?, cpus("possible")?);
    ensure!((online, possible > 1) == (1, true), "{online} of {possible} CPUs");
    let watch = Watch::start(&["--top", "20", "--by", "source"])?;
    let maps = maps(watch.pid())?;
    let sizes = maps.values().map(|map| (map["map_type"], map["value_size"] * map["max_entries"]));
    let sizes: Vec<(u64, u64)> = sizes.collect();
    let per_cpu: u64 =
        sizes.iter().filter(|(of, _)| *of == PER_CPU_ARRAY).map(|(_, size)| size).sum();
    ensure!((1..=5200).contains(&per_cpu), "{per_cpu} bytes for each CPU: {sizes:?}");
    let largest = sizes.iter().map(|(_, size)| *size).max();
    ensure!(largest.is_some_and(|bytes| bytes < 1 << 20), "{largest:?} bytes: {sizes:?}");
    send_from(0, &lab, 0, PACKETS)?;
    let listed = judge::ask(lab.router())?.drop;
    drop(less);
    send_from(1, &lab, 1 << 32, PACKETS)?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    let inserted = u64::from(STAYS_FULL) + verdict.early_drop;
    ensure!(verdict.drop + inserted == 2 * PACKETS, "{verdict:?}");
    let rt = table(&last, lab.router())?;
    agrees_with(rt, &verdict, inserted)?;
    let unlisted = verdict.drop - listed;
    let bounds = list(rt, "drops", "source")?.into_iter().map(bounds);
    let bounds: Vec<(u64, u64)> = bounds.collect::<Result<_>>()?;
    let certain: u64 = bounds.iter().map(|(least, _)| least).sum();
    ensure!((bounds.len(), certain) == (10, listed), "{listed} and {unlisted}: {bounds:?}");
    let says = |(least, most): &(u64, u64)| most - least >= unlisted;
    ensure!(unlisted > 500 && bounds.iter().all(says), "{listed} and {unlisted}: {bounds:?}");
    // As many as are said to be online have room, within what is promised.
    for (online, megabytes) in [("0", "0.8"), ("0-1", "1.7"), ("0-7", "6.7"), ("0-255", "6.7")] {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), online)?;
        let hide = format!("mount --bind {} {CPUS}/online", file.path().display());
        let text = said(seeing(&hide)?, &["watch", "-n", "1", "--top", "5"])?;
        let line = format!("top lists in {megabytes} MB of the kernel's memory, no more");
        ensure!(text.lines().any(|said| said == line), "{online}: {text}");
    }
    Ok(())
}

/// Counts by the kernel's counters alone, and the figures are right.
fn by_counters(command: Command, lab: &Lab, first: u64) -> Result<()> {
    let before = judge::ask(lab.router())?;
    let watch = Watch::by(command, &[])?;
    lab.send(&Flood { first, ..Flood::of(UDP, 1000) })?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    let by = serde_json::json!({
        "drops": "counters", "insertions": null, "removals": null, "table": "ctnetlink",
    });
    ensure!(last["mechanisms"] == by, "{}", last["mechanisms"]);
    let rt = table(&last, lab.router())?;
    let dropped = verdict.drop - before.drop;
    ensure!(dropped > 500, "{verdict:?}");
    ensure!(rt["dropped"]["total"] == dropped && rt["dropped"]["exactness"] == "exact", "{rt}");
    let full = &rt["drops"]["table_full"];
    ensure!(full["total"] == dropped && full["exactness"] == "upper_bound", "{full}");
    ensure!(rt["insertions"]["total"].is_null(), "{rt}");
    ensure!(rt["entries"] == STAYS_FULL, "{rt}");
    Ok(())
}

/// No program counts, for this reason: each verb says so, and answers as well as it can.
fn each_verb_says(ctwatch: &dyn Fn() -> Result<Command>, lab: &Lab, why: &str) -> Result<Value> {
    let netns = ["--netns", lab.router().name()];
    let with = |args: &[&'static str]| [args, &netns[..]].concat();
    let watch = said(ctwatch()?, &with(&["watch", "-n", "1"]))?;
    let note = format!("no drops, insertions, removals by fexit, kprobe, tracepoint: {why}");
    ensure!(watch.lines().any(|line| line == format!("note: {note}")), "{note}: {watch}");
    let trace = said(ctwatch()?, &with(&["trace", "-n", "1"]))?;
    let cannot = "ctwatch: counters know no single packet, and no program can be used: no drops by \
                  fexit, kprobe, tracepoint";
    ensure!(trace.lines().any(|line| line == format!("{cannot}: {why}")), "{trace}");
    let (out, err, code) = finished(ctwatch()?.args(with(&["census", "-o", "json"])))?;
    let census: Value = serde_json::from_str(&out).with_context(|| format!("{out}{err}"))?;
    ensure!(code == Some(0) && census["entries"] == STAYS_FULL, "{census}");
    let census = said(ctwatch()?, &with(&["census"]))?;
    let is_told = |line: &str| line.contains("not by walk: ") && line.ends_with(why);
    ensure!(census.lines().any(is_told), "{census}");
    let (out, err, code) = finished(ctwatch()?.args(with(&["check", "-w", "80%"])))?;
    // A table that is full.
    ensure!(code == Some(1) || code == Some(2), "{code:?} {out}{err}");
    let (out, err, _) = finished(ctwatch()?.args(with(&["doctor", "-o", "json"])))?;
    let report: Value = serde_json::from_str(&out).with_context(|| format!("{out}{err}"))?;
    let refused = report["refused"].to_string();
    ensure!(refused.contains(&note), "{refused}");
    Ok(report)
}

fn without_btf() -> Result<()> {
    let lab = full()?;
    let ctwatch = || seeing("mount -t tmpfs none /sys/kernel/btf");
    by_counters(ctwatch()?, &lab, 0)?;
    let why = "cannot read /sys/kernel/btf/vmlinux (a kernel without CONFIG_DEBUG_INFO_BTF?): No \
               such file or directory (os error 2)";
    let report = each_verb_says(&ctwatch, &lab, why)?;
    let advice = "a kernel with CONFIG_DEBUG_INFO_BTF: without it nobody knows where in an entry to \
                  look, and the counters are all there is";
    let advised = report["advice"].as_array().context("no advice")?;
    ensure!(advised.iter().any(|words| words == advice), "{advised:?}");
    Ok(())
}

/// As on Ubuntu's kernels, which are built without CONFIG_NF_CONNTRACK_PROCFS.
fn without_procfs() -> Result<()> {
    const FILES: &[&str] = &["/net/nf_conntrack", "/net/stat/nf_conntrack"];
    let ctwatch = || Ok::<_, anyhow::Error>(hide(ctwatch()?, FILES));
    for file in FILES {
        let mut cat = Command::new("cat");
        cat.arg(format!("/proc/self{file}"));
        let text = said(hide(cat, FILES), &[])?;
        ensure!(text.contains("No such file or directory"), "{file} is there: {text}");
    }
    let lab = full()?;
    let netns = ["--netns", lab.router().name()];
    let with = |args: &[&'static str]| [args, &netns[..]].concat();
    let watch = Watch::by(ctwatch()?, &[])?;
    lab.send(&Flood::of(UDP, 1000))?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(last["mechanisms"]["table"] == "ctnetlink", "{}", last["mechanisms"]);
    agrees_with(table(&last, lab.router())?, &verdict, u64::from(STAYS_FULL) + verdict.early_drop)?;
    let mut counters = ctwatch()?;
    // Behind the verb, so that it is the last one that is said.
    counters.arg("watch").args(["--mechanism", "counters", "-n", "1"]);
    let text = said(counters, &netns)?;
    ensure!(text.contains("; drops by counters; "), "{text}");
    ensure!(text.contains("; table by ctnetlink"), "{text}");
    for by in [None, Some("ctnetlink")] {
        let mut census = ctwatch()?;
        census.args(["census", "-o", "json"]).args(netns);
        let (out, err, code) = finished(census.args(by.map(|by| format!("--mechanism={by}"))))?;
        let held: Value = serde_json::from_str(&out).with_context(|| format!("{out}{err}"))?;
        ensure!(code == Some(0) && held["entries"] == STAYS_FULL, "{by:?}: {out}{err}");
    }
    let (out, err, code) = finished(ctwatch()?.args(with(&["check"])))?;
    ensure!(code == Some(2) && out.contains("100.0% full (99 of 99)"), "{code:?} {out}{err}");
    let (out, err, _) = finished(ctwatch()?.args(with(&["doctor", "-o", "json"])))?;
    let report: Value = serde_json::from_str(&out).with_context(|| format!("{out}{err}"))?;
    let offers = report["offers"].as_array().context("no offers")?;
    let offered = |name: &str| offers.iter().any(|o| o["name"] == name && o["offered"] == true);
    ensure!(offered("counters") && offered("ctnetlink"), "{offers:?}");
    let advice = report["advice"].to_string();
    ensure!(!advice.contains("PROCFS"), "{advice}");
    // Where ctnetlink may not be asked either, both are named.
    let mut few = Command::new("setpriv");
    few.args(["--bounding-set=-net_admin", "--"]).arg(self::ctwatch()?.get_program());
    let text = said(hide(few, FILES), &["watch", "-n", "1", "--mechanism", "counters"])?;
    let why = "the mechanism counters cannot be used here: there is no \
               /proc/thread-self/net/stat/nf_conntrack: a kernel without CONFIG_NF_CONNTRACK_PROCFS, \
               and ctnetlink needs CAP_NET_ADMIN";
    ensure!(text.lines().any(|line| line == format!("ctwatch: {why}")), "{text}");
    Ok(())
}

/// Before Linux 5.11 maps are locked memory; later on that limit is none for them.
fn little_locked_memory() -> Result<()> {
    let lab = full()?;
    let limited = |bytes: &str| -> Result<Command> {
        let mut command = Command::new("prlimit");
        command.args([&format!("--memlock={bytes}:{bytes}"), "--", "setpriv"]);
        command.args(["--bounding-set=-sys_resource", "--"]).arg(ctwatch()?.get_program());
        Ok(command)
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let is_counted = numbers.next().zip(numbers.next()) < Some((5, 11));
    if !is_counted {
        let text = said(limited("65536")?, &["watch", "-n", "1"])?;
        ensure!(!text.contains("locked memory"), "{text}");
        ensure!(!text.contains("drops by counters"), "{text}");
        return Ok(());
    }
    let why = |kib: u32| {
        format!(
            "maps count against the limit of locked memory (ulimit -l), which is {kib} KiB, and \
             CAP_SYS_RESOURCE, which would lift it, is missing"
        )
    };
    by_counters(limited("65536")?, &lab, 0)?;
    let report = each_verb_says(&|| limited("65536"), &lab, &why(64))?;
    let advice = "raise the limit of locked memory (ulimit -l unlimited; in a unit \
                  LimitMEMLOCK=infinity), or add CAP_SYS_RESOURCE";
    let advised = report["advice"].as_array().context("no advice")?;
    ensure!(advised.iter().any(|words| words == advice), "{advised:?}");
    // Enough for a few maps, and not for all.
    by_counters(limited("1048576")?, &lab, 1 << 32)?;
    let text = said(limited("1048576")?, &["watch", "-n", "1"])?;
    ensure!(text.contains(&why(1024)), "{text}");
    // What is advised helps.
    let text = said(limited("unlimited")?, &["watch", "-n", "1"])?;
    ensure!(!text.contains("locked memory") && !text.contains("drops by counters"), "{text}");
    Ok(())
}
