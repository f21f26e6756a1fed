//! What happens to a whole machine: only on one that nobody else uses.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    topology::TRACKING,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    On, Test,
    mechanism::{self, Mechanism},
    test,
    watch::{PATIENCE, Watch, ctwatch, finished, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::OnceAlone, "conntrack_unloaded_and_loaded_ten_times_under_load", reloaded),
    test(On::OnceAlone, "fexit_holds_the_module_and_lets_it_go", pinned),
    test(On::OnceAlone, "a_cpu_goes_and_comes_back", cpu),
    test(On::OnceAlone, "the_clock_jumps", clock),
    test(On::OnceAlone, "the_clock_jumps_under_a_trace", traced_clock),
    test(On::OnceAlone, "nothing_loaded_and_nothing_loads_it", untouched),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

pub(crate) fn modprobe(args: &[&str]) -> Result<()> {
    let output = Command::new("modprobe").args(args).output().context("cannot run modprobe")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "modprobe {}: {complaint}", args.join(" "));
    Ok(())
}

/// With all that is built on it. Rules let go of it in the kernel's own time.
pub(crate) fn unload() -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while fs::exists("/sys/module/nf_conntrack")? {
        if let Err(error) = unload_with_users("nf_conntrack") {
            ensure!(Instant::now() < until, "{error:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// `nf_conntrack 196608 3 nf_nat,nft_ct,nf_conntrack_netlink, Live 0x0`
fn unload_with_users(module: &str) -> Result<()> {
    let modules = fs::read_to_string("/proc/modules")?;
    let line = modules.lines().find(|line| line.split(' ').next() == Some(module));
    let users = line.and_then(|line| line.split(' ').nth(3)).unwrap_or_default();
    for user in users.split(',').filter(|user| !user.is_empty() && *user != "-") {
        unload_with_users(user)?;
    }
    modprobe(&["-r", module])
}

/// kprobes do not hold a module: ctwatch must notice, wait, and begin anew.
fn reloaded() -> Result<()> {
    mechanism::set(Mechanism::Kprobe);
    let lab = Lab::new(Plan::without_tracking())?;
    unload()?;
    modprobe(&["nf_conntrack"])?;
    let begin = Instant::now();
    let mut watch = Watch::start(&[])?;
    let start = begin.elapsed();
    let mut slowest = Duration::ZERO;
    for round in 2..=11_u64 {
        let flood = Flood { rate: Some(2000), first: round << 32, ..Flood::of(UDP, 2000) };
        std::thread::scope(|scope| {
            let load = scope.spawn(|| lab.send(&flood));
            unload()?;
            modprobe(&["nf_conntrack"])?;
            let loaded = Instant::now();
            lab.router().nft(TRACKING)?;
            let object = watch.until(|object| object["epoch"] == round)?;
            slowest = slowest.max(loaded.elapsed());
            let gap = object["gap_s"].as_f64().context("the gap is not stated")?;
            ensure!(gap > 0.0 && gap < 60.0, "{gap}");
            load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
            anyhow::Ok(())
        })?;
        let total = |object: &serde_json::Value| -> Result<u64> {
            let figure = &table(object, lab.router())?["insertions"]["total"];
            figure.as_u64().context("no insertions")
        };
        let before = total(&watch.fresh()?)?;
        let sent = lab.send(&Flood { first: round << 40, ..Flood::of(UDP, 1000) })?;
        let now = total(&watch.fresh()?)?;
        ensure!(now - before == sent.arrived, "{now} - {before} and not {}", sent.arrived);
        lab.router().run(&["nft", "flush", "ruleset"])?;
    }
    // All that without what it gave up at the start.
    crate::faults::only_what_is_listed(watch.pid())?;
    let (slowest_ms, start_ms) = (slowest.as_millis(), start.as_millis());
    println!("counting resumed within {slowest_ms} ms each time; to start took {start_ms} ms");
    // It looks five times a second; the rest is a start. An emulated machine takes long for that.
    ensure!(slowest < 3 * start + Duration::from_secs(1), "resumed only after {slowest:?}");
    watch.stop().map(|_| ())
}

fn pinned() -> Result<()> {
    mechanism::set(Mechanism::Fexit);
    if !mechanism::asked_for().0.contains(&Mechanism::Fexit) {
        // Then it is refused, and says why.
        let (_, errors, code) = finished(ctwatch()?.args(["--mechanism", "fexit", "-n", "1"]))?;
        ensure!(code == Some(1), "{code:?}");
        ensure!(errors.contains("the mechanism fexit cannot be used here: "), "{errors}");
        return Ok(());
    }
    modprobe(&["nf_conntrack"])?;
    let watch = Watch::start(&[])?;
    let refused = Command::new("rmmod").args(["nf_conntrack_netlink", "nf_conntrack"]).output()?;
    ensure!(!refused.status.success(), "it was unloaded under a program attached to it");
    ensure!(fs::exists("/sys/module/nf_conntrack")?, "it was unloaded");
    watch.stop()?;
    unload()?;
    modprobe(&["nf_conntrack"])
}

fn cpu() -> Result<()> {
    const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";
    let lab = Lab::new(Plan::default())?;
    let watch = Watch::start(&[])?;
    for (round, online) in [(1, "1"), (2, "0"), (3, "1")] {
        fs::write(ONLINE, online).with_context(|| format!("cannot write {ONLINE}"))?;
        lab.send(&Flood { first: round << 32, ..Flood::of(UDP, 1000) })?;
    }
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.entries == 3000, "{verdict:?}");
    crate::watch::agrees_with(table(&last, lab.router())?, &verdict, 3000)
}

fn clock() -> Result<()> {
    const HOUR: i32 = 3600;
    let lab = Lab::new(Plan::default())?;
    let mut watch = Watch::start(&[])?;
    for jump in [HOUR, -2 * HOUR, HOUR] {
        set_clock(jump)?;
        lab.send(&Flood { first: u64::from(jump.unsigned_abs()) << 32, ..Flood::of(UDP, 100) })?;
        let object = watch.next()?;
        let interval = object["interval_s"].as_f64().context("no interval")?;
        ensure!((0.0..30.0).contains(&interval), "an interval of {interval} s");
    }
    let last = watch.stop()?;
    let elapsed = last["elapsed_s"].as_f64().context("no elapsed time")?;
    ensure!((0.0..600.0).contains(&elapsed), "{elapsed} s elapsed");
    let figure = &table(&last, lab.router())?["insertions"];
    // The first and the last jump are as long: their flows are the same.
    ensure!(figure["total"] == 200, "{figure}");
    Ok(())
}

/// The kernel tells since boot when it was, and when boot was depends on the clock.
fn traced_clock() -> Result<()> {
    const HOUR: i32 = 3600;
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(10)?;
    lab.send(&Flood::of(UDP, 100))?;
    let mut trace = ctwatch()?;
    trace.args(["trace", "--output", "json", "--rate", "1000", "-n", "5"]);
    let mut trace = trace.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut errors = BufReader::new(trace.stderr.take().context("no error output")?);
    errors.read_line(&mut String::new())?;
    let output = BufReader::new(trace.stdout.take().context("no output")?);
    set_clock(HOUR)?;
    let outcome = (|| {
        lab.send(&Flood { first: 1 << 32, ..Flood::of(UDP, 100) })?;
        let line = output.lines().next().context("nothing was traced")??;
        let object: serde_json::Value = serde_json::from_str(&line)?;
        let time: jiff::Timestamp = object["time"].as_str().context("no time")?.parse()?;
        let ago = jiff::Timestamp::now().duration_since(time).as_secs();
        ensure!((-5..60).contains(&ago), "{ago} s ago: {object}");
        Ok(())
    })();
    set_clock(-HOUR)?;
    trace.kill()?;
    trace.wait()?;
    outcome
}

fn set_clock(by: i32) -> Result<()> {
    // SAFETY: plain system calls on a value that outlives them.
    unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
        now.tv_sec += libc::time_t::from(by);
        if libc::clock_settime(libc::CLOCK_REALTIME, &raw const now) != 0 {
            bail!("cannot set the clock: {}", std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Looking must not switch tracking on: nor load what is not there.
fn untouched() -> Result<()> {
    unload()?;
    let mut waiting = ctwatch()?.arg("-n").arg("1").stderr(Stdio::piped()).spawn()?;
    let said = BufReader::new(waiting.stderr.take().context("no error output")?);
    let waits = said.lines().map_while(Result::ok).any(|line| line.contains("waiting for it"));
    ensure!(waits, "it does not wait");
    // It looks five times a second.
    std::thread::sleep(Duration::from_secs(1));
    let loaded = fs::exists("/sys/module/nf_conntrack")?;
    waiting.kill()?;
    waiting.wait()?;
    ensure!(!loaded, "watching loaded nf_conntrack");
    modprobe(&["nf_conntrack"])?;
    let (text, errors, code) = finished(ctwatch()?.args(["-i", "200ms", "-n", "2"]))?;
    ensure!(code == Some(0), "{text} {errors}");
    ensure!(!fs::exists("/sys/module/nf_conntrack_netlink")?, "it loaded nf_conntrack_netlink");
    ensure!(text.contains("table by procfs"), "{text}");
    Ok(())
}
