//! How it feels, and what it leaves behind.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    On, Test,
    machine::{modprobe, unload},
    test,
    watch::{Background, PATIENCE, Watch, ctwatch, finished, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "killed_it_leaves_nothing_in_the_kernel", killed),
    test(On::Once, "a_killed_lab_leaves_nothing_behind", killed_lab).anywhere(),
    test(On::Once, "loud_lines_and_a_summary", loud).anywhere(),
    test(On::Once, "narrow_terminals_get_narrow_lines", narrow).anywhere(),
    test(On::Once, "a_missing_capability_is_named_with_what_it_costs", capabilities),
    test(On::Once, "probes_that_the_kernel_refuses_are_replaced_and_it_is_said", refused),
    test(On::OnceAlone, "it_waits_for_conntrack_to_be_loaded", waiting).anywhere(),
    test(On::Once, "without_root_what_anyone_may_read_is_shown", nobody),
    test(On::Once, "a_closed_pipe_is_no_error", closed_pipe).anywhere(),
    test(On::Once, "the_doctor_says_what_watch_then_does", doctor),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

/// Programs of ctwatch that the kernel holds.
fn programs() -> usize {
    let ours = [&b"dropped"[..], b"freed", b"page_allocated", b"fx_", b"kp_", b"kr_"];
    let loaded = aya::programs::loaded_programs().flatten();
    loaded.filter(|program| ours.iter().any(|name| program.name().starts_with(name))).count()
}

/// The kernel frees programs in its own time after the last holder is gone.
pub(crate) fn until_no_programs() -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while programs() > 0 {
        ensure!(Instant::now() < until, "{} programs are loaded", programs());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn killed() -> Result<()> {
    until_no_programs()?;
    let watch = Watch::start(&[])?;
    ensure!(programs() >= 4, "{} programs are loaded", programs());
    // Dropped unstopped: SIGKILL.
    drop(watch);
    until_no_programs()
}

/// Run again with this set, this executable builds a lab and waits to be killed.
const VICTIM: &str = "CTWATCH_LAB_VICTIM";

fn killed_lab() -> Result<()> {
    const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
    if std::env::var_os(VICTIM).is_some() {
        let mut lab = Lab::new(Plan::default())?;
        lab.set_limit(123)?;
        println!("\n{}", lab.router().name());
        std::thread::sleep(Duration::from_secs(60));
        return Ok(());
    }
    // Only whoever has a lab knows that no other process changes the limit.
    let limit = || -> Result<String> {
        let _lab = Lab::new(Plan::default())?;
        Ok(std::fs::read_to_string(LIMIT)?)
    };
    let before = limit()?;
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "a_killed_lab_leaves_nothing_behind", "--nocapture"])
        .env(VICTIM, "1")
        .env_remove("CTWATCH_TRIALS")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = victim.stdout.take().context("no output")?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    let name = lines.by_ref().find_map(|line| line.ok().filter(|line| line.ends_with("-rt")));
    let name = name.context("the lab was not built")?;
    ensure!(std::fs::read_to_string(LIMIT)?.trim() == "123");
    victim.kill()?;
    victim.wait()?;
    let router = ctwatch_lab::netns::Netns::named(&name);
    let until = Instant::now() + PATIENCE;
    while router.path().exists() {
        ensure!(Instant::now() < until, "{name} is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    let after = limit()?;
    ensure!(after == before, "the limit is {after} and was {before}");
    Ok(())
}

fn loud() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    let mut command = ctwatch()?;
    command.args(["-i", "300ms", "--netns", lab.router().name()]);
    let mut watching = Background::start(&mut command)?;
    let name = lab.router().name().to_owned();
    lab.send(&Flood::of(UDP, 2000))?;
    watching.until(|text| text.contains(&format!("*** {name}: TABLE FULL: ")))?;
    lab.router().run(&["conntrack", "-F"])?;
    watching.until(|text| text.contains(&format!("*** {name}: recovered: ")))?;
    let (text, errors, code) = watching.interrupt()?;
    ensure!(code == Some(0), "{code:?} {errors}");
    let verdict = judge::ask(lab.router())?;
    let dropped = format!("dropped: {0} in all; table_full {0}; ", verdict.drop);
    ensure!(text.contains(&dropped), "{text}");
    ensure!(text.contains(&format!("inserted: {}\n", 2000 - verdict.drop)), "{text}");
    Ok(())
}

fn narrow() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    let mut command = ctwatch()?;
    command.args(["-i", "300ms"]).env("COLUMNS", "40");
    let mut watching = Background::start(&mut command)?;
    lab.send(&Flood::of(UDP, 2000))?;
    watching.until(|text| text.contains("TABLE FULL"))?;
    let (text, ..) = watching.interrupt()?;
    for line in text.lines() {
        ensure!(line.chars().count() <= 40, "{} columns: {line}", line.len());
    }
    Ok(())
}

fn without(capabilities: &str) -> Result<Command> {
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set={capabilities}")).arg(ctwatch()?.get_program());
    Ok(command)
}

fn capabilities() -> Result<()> {
    let short = ["-i", "100ms", "-n", "1"];
    let (text, _, code) = finished(without("-bpf,-perfmon,-sys_admin")?.args(short))?;
    ensure!(code == Some(0), "{text}");
    ensure!(text.contains("removals by fexit, kprobe, tracepoint: needs CAP_BPF"), "{text}");
    ensure!(text.contains("other namespaces are not looked into: needs CAP_SYS_ADMIN"), "{text}");
    ensure!(text.contains("insertions, removals not measured"), "{text}");
    let (text, _, code) = finished(without("-net_admin")?.args(short))?;
    ensure!(
        code == Some(0) && text.contains("no table by ctnetlink: needs CAP_NET_ADMIN"),
        "{text}"
    );
    let forced = ["--mechanism", "tracepoint"];
    let (text, errors, code) = finished(without("-bpf,-sys_admin")?.args(forced))?;
    ensure!(code == Some(1) && text.is_empty(), "{text}");
    ensure!(errors.contains("cannot be used here: needs CAP_BPF"), "{errors}");
    Ok(())
}

/// What is only hidden is not waited for: it is really unloaded.
fn waiting() -> Result<()> {
    unload()?;
    // Interrupted before it comes: an end as good as any.
    let mut interrupted = Command::new("timeout");
    interrupted.args(["--signal=INT", "--preserve-status", "1"]).arg(ctwatch()?.get_program());
    let (text, errors, code) = finished(&mut interrupted)?;
    ensure!(code == Some(0) && text.is_empty(), "{code:?} {text} {errors}");
    let mut watch = ctwatch()?;
    watch.args(["-i", "200ms", "-n", "1"]);
    let waiting = std::thread::spawn(move || finished(&mut watch));
    std::thread::sleep(Duration::from_secs(1));
    modprobe(&["nf_conntrack"])?;
    let (text, errors, code) = waiting.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
    ensure!(code == Some(0) && text.contains(" s watched"), "{text} {errors}");
    ensure!(errors.contains("nf_conntrack is not loaded: nothing is tracked"), "{errors}");
    Ok(())
}

/// Too few files may be open for the maps and programs, but enough for everything else.
fn refused() -> Result<()> {
    for files in 10..30 {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={files}")).arg(ctwatch()?.get_program());
        let (text, _, code) = finished(command.args(["-i", "100ms", "-n", "1"]))?;
        if code == Some(0) && text.contains("drops by counters; insertions, removals not measured")
        {
            ensure!(text.contains("no drops, insertions, removals by "), "{text}");
            ensure!(text.contains("Too many open files"), "{text}");
            return Ok(());
        }
    }
    anyhow::bail!("no limit of open files lets the counters work and not the probes")
}

/// The numbers of the probes and of procfs must find each other without CAP_NET_ADMIN too.
fn nobody() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    lab.send(&Flood::of(UDP, 2000))?;
    let mut command = lab.router().command("setpriv")?;
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(ctwatch()?.get_program()).args(["-i", "100ms", "-n", "1", "--output", "json"]);
    let (json, errors, code) = finished(&mut command)?;
    ensure!(code == Some(0), "{errors}");
    let object: serde_json::Value = serde_json::from_str(&json)?;
    let only = &object["tables"][0];
    // Above 95% the kernel collects entries, also between the two readings.
    let entries = only["entries"].as_u64().context("no entries")?;
    ensure!((judge::ask(lab.router())?.entries..=200).contains(&entries), "{only}");
    ensure!(only["insertions"]["exactness"] == "unavailable", "{only}");
    ensure!(object["mechanisms"]["table"] == "procfs", "{object}");

    let mut command = without("-net_admin")?;
    command.args(["-i", "300ms", "--output", "json"]);
    let watching = Background::start(&mut command)?;
    lab.send(&Flood { first: 1_000_000, ..Flood::of(UDP, 2000) })?;
    let (json, errors, _) = watching.interrupt()?;
    let last = json.lines().last().with_context(|| errors.clone())?;
    let object: serde_json::Value = serde_json::from_str(last)?;
    let removed = &table(&object, lab.router())?["removals"]["total"];
    ensure!(removed.as_u64().is_some_and(|removed| removed > 0), "{object}");
    Ok(())
}

fn closed_pipe() -> Result<()> {
    for format in ["text", "json"] {
        let mut child = ctwatch()?
            .args(["-i", "100ms", "--output", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        drop(child.stdout.take());
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let complained = errors.lines().any(|line| !line.contains("ctwatch doctor says why"));
        ensure!(output.status.code() == Some(0) && !complained, "{errors}");
    }
    Ok(())
}

/// In under a second, and without leaving anything attached.
fn doctor() -> Result<()> {
    let (json, errors, code) = finished(ctwatch()?.args(["doctor", "--output", "json"]))?;
    ensure!(code == Some(0) && errors.is_empty(), "{errors}");
    until_no_programs()?;
    let report: serde_json::Value = serde_json::from_str(&json)?;
    let (text, _, code) = finished(ctwatch()?.arg("doctor"))?;
    ensure!(code == Some(0) && text.contains("\nmechanisms\n"), "{text}");
    let object = Watch::start(&[])?.stop()?;
    let signals = report["signals"].as_array().context("no signals")?;
    ensure!(signals.len() == 4, "{report}");
    for signal in signals {
        let name = signal["name"].as_str().context("no name")?;
        ensure!(object["mechanisms"][name] == signal["mechanism"], "{name}: {signal} {object}");
        let by = signal["mechanism"].as_str().context("nothing measures it")?;
        ensure!(text.contains(&format!("  {name:<24}by {by}")), "{text}");
    }
    Ok(())
}
