//! What monitoring is told: thresholds around what the generator sent and the kernel counted, read
//! as a monitoring server reads it.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    netns::Netns,
    plugin::{self, Output},
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    On, Test,
    machine::{modprobe, unload},
    test,
    watch::{PATIENCE, ctwatch, finished, while_more_come},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "check_at_thresholds_around_a_known_fill", fill).anywhere(),
    test(On::Once, "check_counts_drops_while_it_watches", drops),
    test(On::Once, "check_foretells_a_full_table", full).anywhere(),
    test(On::Once, "check_without_root", nobody).anywhere(),
    test(On::OnceAlone, "where_conntrack_is_not_loaded", not_loaded).anywhere(),
    test(On::Once, "check_of_all_namespaces_and_hostile_names", hostile).anywhere(),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);
const SHORT: [&str; 2] = ["--for", "100ms"];

/// What it printed, which agrees with its exit code.
fn read(text: &str, errors: &str, code: Option<i32>) -> Result<Output> {
    let output = plugin::parse("CTWATCH", text).with_context(|| format!("{text}{errors}"))?;
    ensure!(code == Some(output.code()), "{code:?}: {text}");
    ensure!(errors.is_empty(), "{errors}");
    Ok(output)
}

fn said(command: &mut Command) -> Result<Output> {
    let (text, errors, code) = finished(command)?;
    read(&text, &errors, code)
}

fn check(netns: &Netns, args: &[&str]) -> Result<Output> {
    said(ctwatch()?.arg("check").args(["--netns", netns.name()]).args(args))
}

/// As `check`, in the background.
fn begin(netns: &Netns, args: &[&str]) -> Result<Child> {
    let mut command = ctwatch()?;
    command.arg("check").args(["--netns", netns.name()]).args(args);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("cannot start ctwatch")
}

/// Whether all of its threads sleep, as they do from when it has begun to watch until its time is over.
fn sleeps(child: &Child) -> Result<bool> {
    for task in fs::read_dir(format!("/proc/{}/task", child.id()))? {
        // One that ended meanwhile is no thread that sleeps.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { return Ok(false) };
        if !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns when they have begun to watch.
fn all_watch(checks: &[Child]) -> Result<()> {
    let (begun, mut looks) = (Instant::now(), 0);
    while looks < 6 {
        ensure!(begun.elapsed() < PATIENCE, "they do not begin");
        let asleep = checks.iter().map(sleeps).collect::<Result<Vec<_>>>()?;
        looks = if asleep.contains(&false) { 0 } else { looks + 1 };
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn end(child: Child) -> Result<Output> {
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    read(&text(&output.stdout), &text(&output.stderr), output.status.code())
}

fn value(output: &Output, netns: &Netns, what: &str) -> Result<Option<f64>> {
    Ok(output.metric(&format!("{} {what}", netns.name()))?.value)
}

/// An entry that makes no room for others.
fn pin(netns: &Netns, number: u16) -> Result<()> {
    let port = (1000 + number).to_string();
    let words = "conntrack -I -p tcp -s 192.0.2.1 -d 192.0.2.2 --dport 179 --state ESTABLISHED \
                 -t 3000 -u ASSURED,SEEN_REPLY --sport";
    let words: Vec<&str> = words.split_whitespace().chain([port.as_str()]).collect();
    netns.run(&words).map(|_| ())
}

fn fill() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(1000)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 480))?;
    (0..20).try_for_each(|number| pin(lab.router(), number))?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.entries == 500, "{verdict:?}");
    for (warning, critical, state) in [
        ("fill=50.1%", "fill=90%", "OK"),
        ("fill=50%", "fill=50.1%", "WARNING"),
        ("fill=10%", "fill=50%", "CRITICAL"),
        ("pinned=2.1%", "fill=90%", "OK"),
        ("pinned=2%", "pinned=2.1%", "WARNING"),
        ("pinned=1%", "pinned=2%", "CRITICAL"),
        ("fill=50%", "pinned=2%", "CRITICAL"),
        ("fill=50%,pinned=2%", "drops=0", "WARNING"),
        // Nothing comes and nothing goes.
        ("full=1h", "full=1m,drops=0", "OK"),
    ] {
        let args = [&SHORT[..], &["-w", warning, "-c", critical]].concat();
        let output = check(lab.router(), &args)?;
        ensure!(output.state == state, "{warning} {critical}: {output:?}");
        ensure!(value(&output, lab.router(), "count")? == Some(500.0), "{output:?}");
        ensure!(value(&output, lab.router(), "drops")? == Some(0.0), "{output:?}");
        let count = output.metric(&format!("{} count", lab.router().name()))?;
        ensure!((count.min, count.max) == (Some(0.0), Some(1000.0)), "{output:?}");
        if args.join(" ").contains("pinned") {
            ensure!(value(&output, lab.router(), "pinned")? == Some(20.0), "{output:?}");
        }
        if warning.contains("full") {
            ensure!(value(&output, lab.router(), "full")?.is_none(), "{output:?}");
        }
    }
    // One that holds nothing is no reason to worry, and is there when it is asked for.
    let output = check(lab.client(), &[&SHORT[..], &["-w", "fill=1%,pinned=1%"]].concat())?;
    ensure!(output.state == "OK", "{output:?}");
    ensure!(value(&output, lab.client(), "count")? == Some(0.0), "{output:?}");
    ensure!(value(&output, lab.client(), "pinned")? == Some(0.0), "{output:?}");
    Ok(())
}

fn drops() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(50)?;
    lab.send(&Flood::of(UDP, 500))?;
    let before = judge::ask(lab.router())?;
    ensure!(before.drop > 0, "{before:?}");
    let quiet = check(lab.router(), &[&SHORT[..], &["-w", "drops=0", "-c", "drops=0"]].concat())?;
    ensure!(quiet.state == "OK", "what was dropped before is none of it: {quiet:?}");

    let limits = [
        ("drops=0", "drops=1000000", "WARNING"),
        ("drops=0", "drops=1", "CRITICAL"),
        ("drops=500000", "drops=1000000", "OK"),
    ];
    let emulated = std::env::var_os("CTWATCH_EMULATED").is_some();
    let seconds = if emulated { "12s" } else { "5s" };
    let checks = limits.map(|(warning, critical, _)| {
        begin(lab.router(), &["--for", seconds, "-w", warning, "-c", critical])
    });
    let checks = checks.into_iter().collect::<Result<Vec<_>>>()?;
    all_watch(&checks)?;
    lab.send(&Flood { first: 1 << 32, ..Flood::of(UDP, 2000) })?;
    let dropped = judge::ask(lab.router())?.drop - before.drop;
    ensure!(dropped > 1000, "{dropped}");
    for (child, (warning, critical, state)) in checks.into_iter().zip(limits) {
        let output = end(child)?;
        ensure!(output.state == state, "{warning} {critical}: {output:?}");
        let counted = format!("dropped {dropped} packets in ");
        ensure!(state == "OK" || output.text.contains(&counted), "{dropped}: {output:?}");
        let per_s = value(&output, lab.router(), "drops")?.context("no rate")?;
        // At least for the time that was asked for, and not for much longer.
        let rate = dropped as f64 / seconds.trim_end_matches('s').parse::<f64>()?;
        ensure!((rate / 2.0..=rate).contains(&per_s), "{per_s} is not {rate}: {output:?}");
    }

    let output = while_more_come(&lab, UDP, 1 << 33, 500, || {
        check(lab.router(), &["--for", "1s", "-c", "drops=10"])
    })?;
    ensure!(output.state == "CRITICAL", "{output:?}");
    let per_s = value(&output, lab.router(), "drops")?.context("no rate")?;
    ensure!((100.0..=1000.0).contains(&per_s), "of 500 a second: {output:?}");
    Ok(())
}

fn full() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(10_000)?;
    for (number, warning, critical, state) in
        [(1, "full=10m", "full=2", "WARNING"), (2, "full=10m", "full=5m", "CRITICAL")]
    {
        let output = while_more_come(&lab, UDP, number << 32, 500, || {
            check(lab.router(), &["--for", "1s", "-w", warning, "-c", critical])
        })?;
        ensure!(output.state == state, "{output:?}");
        let seconds = value(&output, lab.router(), "full")?.context("no time")?;
        ensure!((2.0..200.0).contains(&seconds), "{output:?}");
    }
    Ok(())
}

/// What anyone may read: the fill of the namespace that one is in.
fn nobody() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(1000)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 500))?;
    let run = |args: &[&str]| -> Result<Output> {
        let mut command = lab.router().command("setpriv")?;
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(ctwatch()?.get_program()).arg("check").args(SHORT).args(args);
        said(&mut command)
    };
    const OTHERS: &str = "other namespaces not looked into: needs CAP_SYS_ADMIN";
    for (warning, critical, state) in [
        ("fill=50.1%", "fill=90%", "OK"),
        ("fill=50%", "fill=90%", "WARNING"),
        ("fill=10%", "fill=50%", "CRITICAL"),
    ] {
        let output = run(&["-w", warning, "-c", critical])?;
        ensure!(output.state == state && output.text.contains(OTHERS), "{output:?}");
        ensure!(output.metrics[0].value == Some(500.0), "{output:?}");
    }
    let output = run(&["-w", "pinned=1%", "-c", "fill=90%"])?;
    let why = "pinned unknown: needs CAP_NET_ADMIN";
    ensure!(output.state == "UNKNOWN" && output.text.contains(why), "{output:?}");
    let pinned = output.metrics.iter().find(|metric| metric.label.ends_with(" pinned"));
    ensure!(pinned.is_some_and(|metric| metric.value.is_none()), "{output:?}");
    let output = run(&["-w", "pinned=1%", "-c", "fill=50%"])?;
    ensure!(output.state == "CRITICAL" && output.text.contains(why), "{output:?}");
    ensure!(output.text.contains("50.0% full (500 of 1000)"), "{output:?}");
    // Asked for more than may be looked at.
    let output = run(&["--netns", "all", "-w", "fill=90%"])?;
    ensure!(output.state == "UNKNOWN" && output.text.contains(OTHERS), "{output:?}");
    let inode = lab.client().inode()?.to_string();
    let output = run(&["--netns", &inode])?;
    ensure!(output.state == "UNKNOWN" && output.text.contains("CAP_SYS_ADMIN"), "{output:?}");
    Ok(())
}

/// Really: that sysctls are hidden is another matter.
fn not_loaded() -> Result<()> {
    unload()?;
    let output = said(ctwatch()?.arg("check"))?;
    let text = "nf_conntrack is not loaded: nothing is tracked";
    ensure!(output.state == "OK" && output.text.contains(text), "{output:?}");
    ensure!(output.metrics.is_empty(), "{output:?}");
    for verb in ["census", "trace"] {
        let (_, errors, code) = finished(ctwatch()?.arg(verb))?;
        ensure!(code == Some(1) && errors.contains(text), "{verb}: {code:?} {errors}");
    }
    let (report, errors, code) = finished(ctwatch()?.arg("doctor"))?;
    ensure!(code == Some(0) && report.contains(text), "{report}{errors}");
    ensure!(!report.contains("may be tracking") && !report.contains("unknown of"), "{report}");
    modprobe(&["nf_conntrack"])
}

/// The same entries seen among all namespaces, of which one has a name that means harm.
fn hostile() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(1000)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 500))?;
    let netns = lab.add_netns("\u{1b}[31m|x=1;2\u{202e}")?;
    netns.nft(ctwatch_lab::topology::TRACKING)?;
    netns.run(&["ip", "link", "set", "lo", "up"])?;
    netns.within(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.send_to(b"x", "127.0.0.1:9").map(|_| ())
    })??;
    let held = judge::ask(&netns)?.entries;
    ensure!(held > 0, "nothing is tracked there");
    let output =
        said(ctwatch()?.arg("check").args(SHORT).args(["-w", "fill=50%", "-c", "fill=99%"]))?;
    ensure!(output.state == "WARNING", "{output:?}");
    ensure!(value(&output, lab.router(), "count")? == Some(500.0), "{output:?}");
    let named = output.metrics.iter().find(|metric| metric.label.contains("\\u{1b}[31m\\u{7c}x"));
    ensure!(named.is_some_and(|metric| metric.value == Some(held as f64)), "{output:?}");
    // By that name, too.
    let output = said(ctwatch()?.arg("check").args(SHORT).args(["--netns", netns.name()]))?;
    ensure!(output.state == "OK" && output.metrics.len() == 2, "{output:?}");
    Ok(())
}
