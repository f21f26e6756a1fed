//! `cargo xtask bench`: what watching costs, side by side in one run, as ratios of medians.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan,
    crowd::Crowd,
    netns::Netns,
    traffic::{Family, Flood, Flows, Protocol},
};

use super::build;
use ctwatch_provision::tools;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds; in each, every watcher is measured between two unwatched runs
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Packets of one measurement
    #[arg(long, default_value_t = 400_000)]
    packets: u64,
    /// Measure only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Another ctwatch: its starts are measured in turns with those of this one, its ticks over many
    /// namespaces after them
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
    /// How many namespaces are many
    #[arg(long, default_value_t = 2000)]
    namespaces: usize,
    #[command(flatten)]
    build: build::Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// New flows, packets into a full table, and the number of sources
    Traffic,
    /// Ticks and censuses over a table of 500,000 entries
    Census,
    /// From start to first line, and what that takes
    Start,
    /// One reading, and the namespaces in it
    Reading,
    /// Ticks over 2,000 namespaces in which something happened once, and the doctor
    Namespaces,
}

/// Who watches while the traffic runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watcher {
    /// With everything it counts, and all lists.
    Ctwatch,
    /// As without any option.
    WithItsTops,
    WithoutTops,
    Counters,
    ConntrackEvents,
    Bpftrace,
}

/// Drops by source, as one would write it down in need. It wants the kernel's tracing files, which
/// are not mounted everywhere.
const BPFTRACE: &str = "mount -t tracefs tracefs /sys/kernel/tracing || exit 1; exec bpftrace -e '
    tracepoint:skb:kfree_skb /args->protocol == 2048/ {
        $skb = (struct sk_buff *)args->skbaddr;
        $ip = (struct iphdr *)($skb->head + $skb->network_header);
        @[ntop($ip->saddr)] = count();
    }'";

impl Watcher {
    const ALL: [Self; 6] = [
        Self::Ctwatch,
        Self::WithItsTops,
        Self::WithoutTops,
        Self::Counters,
        Self::ConntrackEvents,
        Self::Bpftrace,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ctwatch => "ctwatch --top 20, all lists",
            Self::WithItsTops => "ctwatch",
            Self::WithoutTops => "ctwatch --top 0",
            Self::Counters => "ctwatch --mechanism counters",
            Self::ConntrackEvents => "conntrack -E -e NEW",
            Self::Bpftrace => "bpftrace, drops by source",
        }
    }

    fn start(self, ctwatch: &Path, router: &Netns) -> Result<Watching> {
        let mut command = match self {
            Self::Ctwatch | Self::WithItsTops | Self::WithoutTops | Self::Counters => {
                let mut command = Command::new(ctwatch);
                command.args(match self {
                    Self::Ctwatch => ["--top", "20", "--by", ALL_LISTS].as_slice(),
                    Self::WithItsTops => &[],
                    Self::WithoutTops => &["--top", "0"],
                    _ => &["--mechanism", "counters"],
                });
                command
            }
            Self::Bpftrace => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", BPFTRACE]);
                command
            }
            Self::ConntrackEvents => {
                let mut command = router.command("conntrack")?;
                command.args(["-E", "-e", "NEW"]);
                command
            }
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // Until it is attached.
        let patience = if self == Self::Bpftrace { 2500 } else { 600 };
        thread::sleep(Duration::from_millis(patience));
        ensure!(child.try_wait()?.is_none(), "{} ended at once", self.name());
        Ok(Watching(child))
    }
}

const ALL_LISTS: &str = "source,destination,service,flow,interface,process";

/// Ended when dropped.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the benchmark makes network namespaces: run it as root"
    );
    ensure!(args.rounds > 0 && args.packets > 0, "nothing to measure");
    let ctwatch = build::run(&args.build)?;
    let wanted = |part| args.only.is_none_or(|only| only == part);
    if wanted(Part::Traffic) || wanted(Part::Census) {
        tools::use_rivals()?;
    }
    if wanted(Part::Traffic) {
        println!("{} rounds of {} packets, medians", args.rounds, args.packets);
        println!("{}", introduction(&ctwatch)?);
        let roomy = u32::try_from(args.packets * 2)?.max(262_144);
        println!("\nnew flows into a roomy table (aim: 0.98 with all lists)");
        paths(&ctwatch, args, roomy)?;
        println!("\npackets into a full table (aim: 0.92 by tracepoint)");
        paths(&ctwatch, args, 200)?;
        println!("\nnew flows, all lists, by the number of sources");
        crowds(&ctwatch, args, roomy)?;
    }
    if wanted(Part::Census) {
        large(&ctwatch)?;
    }
    if wanted(Part::Reading) {
        let (without, with) = idle(&ctwatch, args.rounds)?;
        println!("\none reading, CPU time      {:>8.2} ms", without * 1000.0);
        println!("with {IDLE} idle namespaces  {:>8.2} ms", with * 1000.0);
        println!("peak memory               {:>8.1} MB", peak(&ctwatch)? as f64 / 1024.0);
    }
    if wanted(Part::Namespaces) {
        crowd(&ctwatch, args.namespaces)?;
        if let Some(beside) = &args.beside {
            println!("\nbeside");
            crowd(beside, args.namespaces)?;
        }
    }
    if wanted(Part::Start) {
        starts(&ctwatch, args.beside.as_deref(), args.rounds)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The rate of packets through the router for each watcher. A machine's speed drifts, so each
/// measurement is compared to the two unwatched ones right before and after it.
fn paths(ctwatch: &Path, args: &Args, limit: u32) -> Result<()> {
    let mut unwatched = Vec::new();
    let mut watched = Watcher::ALL.map(|_| (Vec::new(), Vec::new()));
    for _ in 0..args.rounds {
        let mut before = measure(limit, args.packets, None)?;
        for (watcher, (rates, ratios)) in Watcher::ALL.into_iter().zip(&mut watched) {
            let rate = measure(limit, args.packets, Some((watcher, ctwatch)))?;
            let after = measure(limit, args.packets, None)?;
            rates.push(rate);
            ratios.push(rate / f64::midpoint(before, after));
            unwatched.push(before);
            before = after;
        }
    }
    println!("  {:<30} {:>9.0} /s", "unwatched", median(unwatched));
    for (watcher, (rates, mut ratios)) in Watcher::ALL.iter().zip(watched) {
        ratios.sort_by(f64::total_cmp);
        println!(
            "  {:<30} {:>9.0} /s   {:.3} of unwatched ({:.3} to {:.3})",
            watcher.name(),
            median(rates),
            median(ratios.clone()),
            ratios[0],
            ratios[ratios.len() - 1]
        );
    }
    Ok(())
}

/// What it costs must not depend on how many there are.
fn crowds(ctwatch: &Path, args: &Args, limit: u32) -> Result<()> {
    const CROWDS: [u32; 3] = [10, 1_000, 1_000_000];
    let mut ratios = CROWDS.map(|_| Vec::new());
    for _ in 0..args.rounds {
        for (sources, ratios) in CROWDS.into_iter().zip(&mut ratios) {
            let before = measure_crowd(limit, args.packets, sources, None)?;
            let watcher = Some((Watcher::Ctwatch, ctwatch));
            let watched = measure_crowd(limit, args.packets, sources, watcher)?;
            let after = measure_crowd(limit, args.packets, sources, None)?;
            ratios.push(watched / f64::midpoint(before, after));
        }
    }
    for (sources, ratios) in CROWDS.into_iter().zip(ratios) {
        println!("  {sources:>9} sources {:>15.3} of unwatched", median(ratios));
    }
    Ok(())
}

/// Seconds of CPU at one tick a second, and memory, with all lists over a large table: outside of a
/// census, and with it.
fn large(ctwatch: &Path) -> Result<()> {
    const ENTRIES: u64 = 500_000;
    const TICKS: u32 = 20;
    let mut lab = Lab::new(Plan::default())?;
    lab.set_buckets(1 << 18)?;
    lab.set_limit(1_000_000)?;
    lab.router().sysctl("net/netfilter/nf_conntrack_udp_timeout", "3600")?;
    let flows = Flows { sources: 50_000, services: 50, ..Flows::of(Family::V4, Protocol::Udp) };
    lab.send(&Flood::of(flows, ENTRIES))?;
    println!("\n{ENTRIES} entries, all lists, a tick a second (aim: 12 MB without a census)");
    for (what, top) in [("without a census", None), ("with censuses", Some("20"))] {
        let mut command = Command::new(ctwatch);
        command.args(["-i", "1s", "--output", "json", "--by", ALL_LISTS]);
        command.args(top.map(|top| ["--top", top]).into_iter().flatten());
        let mut child = Watching(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
        let output = child.0.stdout.take().context("ctwatch has no output")?;
        let mut lines = BufReader::new(output).lines();
        lines.next().context("ctwatch printed nothing")??;
        let before = cpu_time(child.0.id())?;
        for _ in 0..TICKS {
            lines.next().context("ctwatch ended early")??;
        }
        let share = (cpu_time(child.0.id())? - before) / f64::from(TICKS);
        let peak = high_water(child.0.id())?;
        println!(
            "  {what:<30} {:>8.2} % of a CPU, {:>5.1} MB at most",
            share * 100.0,
            peak as f64 / 1024.0
        );
    }
    censuses(ctwatch, lab.router())
}

/// Seconds to count a large table, in turns with what there was before.
fn censuses(ctwatch: &Path, router: &Netns) -> Result<()> {
    const ROUNDS: usize = 5;
    let timed = |command: &mut Command| -> Result<f64> {
        let started = Instant::now();
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "{command:?} failed: {status}");
        Ok(started.elapsed().as_secs_f64())
    };
    let counted = |more: &[&str]| {
        timed(Command::new(ctwatch).args(["census", "--netns", router.name()]).args(more))
    };
    let mut seconds = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        seconds[0].push(timed(router.command("conntrack")?.arg("-L"))?);
        let file = "/proc/net/nf_conntrack";
        seconds[1].push(timed(router.command("cat")?.arg(file)).unwrap_or(f64::NAN));
        seconds[2].push(counted(&["--mechanism", "ctnetlink"])?);
        seconds[3].push(counted(&[])?);
    }
    println!("\na census of them, seconds of the whole command (aim: 5 times as fast)");
    let [base, file, ctnetlink, census] = seconds.map(median);
    println!("  {:<30} {base:>8.2}", "conntrack -L");
    println!("  {:<30} {file:>8.2}", "/proc/net/nf_conntrack");
    for (what, took) in [("census by ctnetlink", ctnetlink), ("census", census)] {
        let name = format!("ctwatch {what}");
        println!("  {name:<30} {took:>8.2}   {:.1} times as fast", base / took);
    }
    Ok(())
}

/// In a lab of its own: no measurement meets what another left in the table.
fn measure(limit: u32, packets: u64, watcher: Option<(Watcher, &Path)>) -> Result<f64> {
    measure_crowd(limit, packets, 1000, watcher)
}

fn measure_crowd(
    limit: u32,
    packets: u64,
    sources: u32,
    watcher: Option<(Watcher, &Path)>,
) -> Result<f64> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(limit)?;
    let _watching =
        watcher.map(|(watcher, ctwatch)| watcher.start(ctwatch, lab.router())).transpose()?;
    let flows = Flows { sources, services: 10, ..Flows::of(Family::V4, Protocol::Udp) };
    // Until lists have spent on each CPU what they may spend at once.
    lab.send(&Flood { first: packets, ..Flood::of(flows, WARM_UP) })?;
    Ok(lab.send(&Flood::of(flows, packets))?.per_s())
}

const WARM_UP: u64 = 50_000;

/// The line in which ctwatch says by what it counts here.
fn introduction(ctwatch: &Path) -> Result<String> {
    let _lab = Lab::new(Plan::default())?;
    let output = Command::new(ctwatch)
        .args(["watch", "--interval", "100ms", "--count", "1"])
        .stderr(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("ctwatch "));
    line.map(str::to_owned).with_context(|| format!("it does not say what it is: {text}"))
}

const IDLE: usize = 200;

/// Seconds of CPU for one reading, without and with many idle namespaces beside the lab's.
fn idle(ctwatch: &Path, rounds: usize) -> Result<(f64, f64)> {
    let mut lab = Lab::new(Plan::default())?;
    let costs = || (0..rounds).map(|_| reading(ctwatch)).collect::<Result<Vec<_>>>();
    let without = costs()?;
    let roles: Vec<String> = (0..IDLE).map(|number| format!("idle{number}")).collect();
    lab.add_many(&roles.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok((median(without), median(costs()?)))
}

/// Seconds of CPU for one reading, as the mean of many.
fn reading(ctwatch: &Path) -> Result<f64> {
    const READINGS: u32 = 20;
    let mut child = Watching(
        Command::new(ctwatch)
            .args(["-i", "100ms", "--output", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?,
    );
    let output = child.0.stdout.take().context("ctwatch has no output")?;
    let mut lines = BufReader::new(output).lines();
    lines.next().context("ctwatch printed nothing")??;
    let before = cpu_time(child.0.id())?;
    for _ in 0..READINGS {
        lines.next().context("ctwatch ended early")??;
    }
    Ok((cpu_time(child.0.id())? - before) / f64::from(READINGS))
}

/// CPU time of a tick, a tick a second, over many namespaces.
fn crowd(ctwatch: &Path, count: usize) -> Result<()> {
    const CHANGING: usize = 50;
    const TICKS: u32 = 15;
    let mut lab = Lab::new(Plan::default())?;
    let crowd = Crowd::new(&mut lab, count)?;
    println!("\n{count} namespaces, milliseconds of CPU of a tick, a tick a second");
    for output in ["text", "json"] {
        let mut child = Watching(
            Command::new(ctwatch)
                .args(["-i", "1s", "--output", output])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?,
        );
        // Until it is attached, and has read all of them twice.
        thread::sleep(Duration::from_secs(5));
        let mut measured = |what: &str, mut each: Box<dyn FnMut() -> Result<()> + '_>| {
            let before = cpu_time(child.0.id())?;
            let until = Instant::now() + Duration::from_secs(1) * TICKS;
            while Instant::now() < until {
                each()?;
            }
            ensure!(child.0.try_wait()?.is_none(), "ctwatch ended early");
            let each = (cpu_time(child.0.id())? - before) * 1000.0 / f64::from(TICKS);
            println!("  {output}: {what:<44} {each:>8.2}");
            anyhow::Ok(())
        };
        let pause = || thread::sleep(Duration::from_millis(300));
        let idle = || {
            pause();
            anyhow::Ok(())
        };
        let refusing = |these: usize| {
            let crowd = &crowd;
            move || {
                crowd.refuse(these)?;
                pause();
                anyhow::Ok(())
            }
        };
        measured("idle, nothing ever happened", Box::new(idle))?;
        let limit = |lab: &mut Lab, limit| lab.set_limit(limit);
        limit(&mut lab, 1)?;
        crowd.enter(count)?;
        crowd.refuse(count)?;
        crowd.flush()?;
        thread::sleep(Duration::from_secs(4));
        measured("idle, after one packet was refused in each", Box::new(idle))?;
        crowd.enter(CHANGING)?;
        measured("50 of them refuse packets", Box::new(refusing(CHANGING)))?;
        crowd.flush()?;
        crowd.enter(count)?;
        measured("all of them refuse packets", Box::new(refusing(count)))?;
        crowd.flush()?;
        limit(&mut lab, 100_000)?;
        let peak = high_water(child.0.id())?;
        println!("  {output}: peak memory, MB {:>32.1}", peak as f64 / 1024.0);
    }
    let started = Instant::now();
    let status =
        Command::new(ctwatch).arg("doctor").stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "ctwatch doctor failed: {status}");
    println!("  doctor, seconds {:>47.2}", started.elapsed().as_secs_f64());
    Ok(())
}

/// Seconds that a process has spent in its threads: `schedstat` counts nanoseconds, where `stat`
/// counts ticks.
fn cpu_time(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let spent = text.split_whitespace().next().context("no schedstat")?;
        nanoseconds += spent.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// What is started, and what it has to do.
const STARTS: [(&str, &[&str]); 4] = [
    ("watch", &["watch", "-i", "100ms", "--count", "1"]),
    ("check", &["check", "--for", "100ms"]),
    ("census", &["census"]),
    ("doctor", &["doctor"]),
];

/// What one start took.
#[derive(Clone, Copy)]
struct Start {
    /// Seconds to the first line.
    first_line: f64,
    /// Seconds of CPU to the end of it all, its own and the kernel's for it.
    cpu: f64,
}

/// In turns, because a machine's speed drifts: each start right after one of the other.
fn starts(ctwatch: &Path, beside: Option<&Path>, rounds: usize) -> Result<()> {
    println!("\na start, to its first line and in CPU time, medians of {rounds}");
    for (name, args) in STARTS {
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            let both = [Some(ctwatch), beside];
            for (executable, took) in both.into_iter().zip(&mut took) {
                if let Some(executable) = executable {
                    took.push(start(executable, args)?);
                }
            }
        }
        let [this, other] = took.map(|took| {
            let median_of = |of: fn(&Start) -> f64| median(took.iter().map(of).collect());
            (!took.is_empty()).then(|| (median_of(|it| it.first_line), median_of(|it| it.cpu)))
        });
        let Some((first_line, cpu)) = this else { continue };
        print!("  {name:<8} {:>8.1} ms {:>8.1} ms", first_line * 1000.0, cpu * 1000.0);
        if let Some((other_first_line, other_cpu)) = other {
            print!(
                "   beside {:>8.1} ms {:>8.1} ms   ratio {:.2} and {:.2}",
                other_first_line * 1000.0,
                other_cpu * 1000.0,
                first_line / other_first_line,
                cpu / other_cpu
            );
        }
        println!();
    }
    Ok(())
}

fn start(ctwatch: &Path, args: &[&str]) -> Result<Start> {
    let started = Instant::now();
    let mut child =
        Command::new(ctwatch).args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = child.stdout.take().context("ctwatch has no output")?;
    let mut child = Watching(child);
    let mut lines = BufReader::new(output).lines();
    let first = lines.next();
    let first_line = started.elapsed().as_secs_f64();
    first.with_context(|| format!("ctwatch {} printed nothing", args.join(" ")))??;
    lines.try_for_each(|line| line.map(drop))?;
    let before = cpu_of_children()?;
    // By its code, `check` says what it found.
    ensure!(child.0.wait()?.code().is_some(), "ctwatch {} was killed", args.join(" "));
    Ok(Start { first_line, cpu: cpu_of_children()? - before })
}

/// Seconds of CPU, their own and the kernel's for them, of all that were waited for.
fn cpu_of_children() -> Result<f64> {
    // SAFETY: a plain C struct for which all zero is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the place outlives the call.
    let answer = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    ensure!(answer == 0, "the kernel does not say what was used: {}", io::Error::last_os_error());
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

/// The most memory that it takes within its first ticks, in kB.
fn peak(ctwatch: &Path) -> Result<u64> {
    let child = Command::new(ctwatch).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let child = Watching(child);
    thread::sleep(Duration::from_millis(2500));
    high_water(child.0.id())
}

/// `VmHWM:     9508 kB`
fn high_water(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmHWM")?.parse()?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
