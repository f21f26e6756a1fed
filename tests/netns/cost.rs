//! What an event costs with each mechanism, beside none, all in one run; where there are bars, nothing
//! may cost more. On a machine whose clock counts instructions a nanosecond is one of them.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    traffic::{BATCH, Family, Flood, Flows, Protocol},
};

use crate::{
    On, Test,
    mechanism::{self, Mechanism},
    test,
    watch::{Watch, ctwatch},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Benchmark, "what_each_mechanism_costs", cost),
    test(On::Benchmark, "what_a_start_costs", starts),
];

/// How many times its instructions a packet may take while somebody watches with the default lists.
struct Bar {
    mechanism: Mechanism,
    /// What is aimed at; in the order of [`PHASES`].
    aims: [f64; 3],
    /// What a change must not exceed meanwhile: what was measured, and 0.01; 1.005 where nothing
    /// runs for such a packet. On 6.1, 6.12, later.
    limits: [[f64; 3]; 3],
}

const BARS: [Bar; 4] = [
    Bar {
        mechanism: Mechanism::Fexit,
        aims: [1.03, 1.08, 1.005],
        limits: [[1.05, 1.12, 1.005], [1.06, 1.13, 1.005], [1.06, 1.12, 1.005]],
    },
    Bar {
        mechanism: Mechanism::Kprobe,
        aims: [1.06, 1.20, 1.005],
        limits: [[1.07, 1.31, 1.005], [1.08, 1.35, 1.005], [1.07, 1.34, 1.005]],
    },
    Bar {
        mechanism: Mechanism::Tracepoint,
        aims: [1.02, 1.10, 1.03],
        limits: [[1.05, 1.15, 1.031], [1.06, 1.17, 1.037], [1.07, 1.17, 1.042]],
    },
    Bar {
        mechanism: Mechanism::Counters,
        aims: [1.005, 1.005, 1.005],
        limits: [[1.01, 1.01, 1.005]; 3],
    },
];

/// Watching makes no packet cheaper: less than this, and it was not measured well.
const LEAST: [f64; 3] = [0.99, 0.99, 0.995];

impl Bar {
    /// That of a mechanism on this kernel, and its limits here; older kernels have none.
    fn here(mechanism: Mechanism) -> Result<Option<(&'static Self, [f64; 3])>> {
        let column = match mechanism::release()? {
            (6, 1) => 0,
            (6, 12) => 1,
            release if release > (6, 12) => 2,
            _ => return Ok(None),
        };
        let bar = BARS.iter().find(|bar| bar.mechanism == mechanism);
        Ok(bar.map(|bar| (bar, bar.limits[column])))
    }
}

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What becomes of the packets: they begin a connection; conntrack drops them, the table being full;
/// they belong to a connection that is established.
const PHASES: [&str; 3] = ["new", "dropped", "established"];
const PART: u64 = 160 * BATCH as u64;
/// Not measured: until lists have spent on a flood what they may spend at once.
const WARM_UP: u64 = 2 * PART;
/// Of which the middle one counts: the others may have met the kernel's collector of entries.
const MEASURED: u64 = 3 * PART;

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);
/// The number of the flow that is established: its destination is no other's.
const ESTABLISHED: u64 = 60_000 * 59_999;
/// A link that packets leave the router by, as they leave by a network card: nobody drops them.
const SINK: &str = "sink";

/// Of each program: runs, and the time they took by the kernel's own statistics.
type Programs = BTreeMap<String, (u64, Duration)>;

/// What packets of one phase took.
struct Took {
    /// Nanoseconds a packet.
    each: f64,
    /// Where the kernel keeps statistics.
    programs: Programs,
}

/// How somebody watches.
#[derive(Clone, Copy)]
struct Way {
    mechanism: Mechanism,
    lists: Lists,
}

#[derive(Clone, Copy, PartialEq)]
enum Lists {
    All,
    /// As without any option.
    Some,
    None,
}

impl Way {
    /// All that this kernel offers; or those that there are bars for.
    fn all(with_bars: bool) -> Vec<Self> {
        let mechanisms = mechanism::asked_for().0;
        let ways = mechanisms.into_iter().flat_map(|mechanism| {
            [Lists::All, Lists::Some, Lists::None].map(|lists| Self { mechanism, lists })
        });
        let wanted = |way: &Self| match way.lists {
            Lists::Some => true,
            _ => !with_bars && way.mechanism.has_programs(),
        };
        ways.filter(wanted).collect()
    }

    fn name(self) -> String {
        let name = self.mechanism.name();
        match self.lists {
            Lists::All => format!("{name}, all lists"),
            Lists::Some => name.to_owned(),
            Lists::None => format!("{name}, no lists"),
        }
    }

    /// Its ticks are rare: what they take depends on the number of tables, not of packets.
    fn start(self) -> Result<Watch> {
        mechanism::set(self.mechanism);
        let lists: &[&str] = match self.lists {
            Lists::All => &["--by", "source,destination,service,flow,interface,process"],
            Lists::Some => &[],
            Lists::None => &["--top", "0"],
        };
        Watch::start(&[&["--interval", "10s"], lists].concat())
    }
}

struct Bench {
    lab: Lab,
    first: u64,
}

impl Bench {
    fn new() -> Result<Self> {
        let mut lab = Lab::new(Plan::fresh())?;
        // So many that hardly anything is ever found in a bucket to be thrown out.
        lab.set_buckets(1 << 18)?;
        lab.keep_entries()?;
        let to = format!("{}/32", UDP.flow(ESTABLISHED).dst);
        for words in [
            ["link", "add", SINK, "type", "dummy"].as_slice(),
            &["link", "set", SINK, "up"],
            &["route", "add", &to, "dev", SINK],
        ] {
            lab.router().run(&[&["ip"], words].concat())?;
        }
        Ok(Self { lab, first: 0 })
    }

    /// Each packet a flow of its own.
    fn flows(&mut self, flows: Flows, packets: u64) -> Flood {
        self.first += 1 << 24;
        Flood { first: self.first, ..Flood::of(flows, packets) }
    }

    fn flush(&self) -> Result<()> {
        self.lab.router().run(&["conntrack", "-F"]).map(drop)
    }

    /// One flood to warm up, and one that is measured.
    fn measured(&self, [warming, measured]: [Flood; 2]) -> Result<Took> {
        self.lab.send(&warming)?;
        let before = programs();
        let mut parts = self.lab.send_in_parts(&measured, PART)?;
        let mut programs = programs();
        for (name, (runs, time)) in &mut programs {
            let (runs_before, time_before) = before.get(name).copied().unwrap_or_default();
            *runs = runs.saturating_sub(runs_before);
            *time = time.saturating_sub(time_before);
        }
        programs.retain(|_, (runs, _)| *runs > 0);
        parts.sort();
        let middle = parts.get(parts.len() / 2).context("nothing was measured")?;
        Ok(Took { each: middle.as_secs_f64() * 1e9 / PART as f64, programs })
    }

    /// In the order of [`PHASES`].
    fn took(&mut self) -> Result<[Took; 3]> {
        self.lab.set_limit(1_000_000)?;
        let many = Flows { sources: 1000, services: 10, ..UDP };
        let floods = [WARM_UP, MEASURED].map(|packets| self.flows(many, packets));
        let new = self.measured(floods)?;
        self.flush()?;
        let established = self.established()?;
        self.flush()?;
        self.lab.set_limit(10)?;
        let full = self.flows(Flows { protocol: Protocol::IcmpEcho, ..UDP }, 10);
        self.lab.send(&full)?;
        let before = judge::ask(self.lab.router())?;
        let floods = [WARM_UP, MEASURED].map(|packets| self.flows(many, packets));
        let dropped = self.measured(floods)?;
        let count = judge::ask(self.lab.router())?.drop - before.drop;
        ensure!(count > (WARM_UP + MEASURED) * 9 / 10, "only {count} were dropped");
        self.flush()?;
        Ok([new, dropped, established])
    }

    /// All packets of one flow, as if it had been answered.
    fn established(&self) -> Result<Took> {
        let router = self.lab.router();
        let flow = UDP.flow(ESTABLISHED);
        let [src, dst] = [flow.src, flow.dst].map(|address| address.to_string());
        let [sport, dport] = [flow.sport, flow.dport].map(|port| port.to_string());
        let tuple = ["-p", "udp", "-s", &src, "-d", &dst, "--sport", &sport, "--dport", &dport];
        let status = ["-t", "300", "-u", "SEEN_REPLY,ASSURED"];
        router.run(&[&["conntrack", "-I"], tuple.as_slice(), &status].concat())?;
        let before = self.forwarded()?;
        let floods = [WARM_UP, MEASURED].map(|packets| Flood {
            first: ESTABLISHED,
            each: packets,
            ..Flood::of(UDP, packets)
        });
        let took = self.measured(floods)?;
        let (count, entries) = (self.forwarded()? - before, judge::ask(router)?.entries);
        ensure!(count >= WARM_UP + MEASURED, "only {count} packets were forwarded");
        ensure!(entries == 1, "they are of {entries} flows");
        Ok(took)
    }

    /// Packets that left by the sink.
    fn forwarded(&self) -> Result<u64> {
        const SENT: usize = 9;
        let text =
            self.lab.router().within(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix("sink:"));
        let count = line.and_then(|line| line.split_whitespace().nth(SENT)?.parse().ok());
        count.context("the sink counts nothing")
    }

    fn watched(&mut self, way: Way) -> Result<[f64; 3]> {
        let watch = way.start()?;
        let took = self.took()?;
        watch.stop()?;
        Ok(took.map(|phase| phase.each))
    }

    /// By the kernel's statistics, which cost time of their own.
    fn counted(&mut self, way: Way) -> Result<[Programs; 3]> {
        fs::write(STATISTICS, "1").with_context(|| format!("cannot write {STATISTICS}"))?;
        let watch = way.start()?;
        let took = self.took()?;
        watch.stop()?;
        fs::write(STATISTICS, "0")?;
        Ok(took.map(|phase| phase.programs))
    }
}

/// All that are loaded.
fn programs() -> Programs {
    let mut programs = Programs::new();
    for program in aya::programs::loaded_programs().flatten() {
        let name = String::from_utf8_lossy(program.name()).into_owned();
        let sum = programs.entry(name).or_default();
        sum.0 += program.run_count();
        sum.1 += program.run_time();
    }
    programs
}

fn cost() -> Result<()> {
    // Only what is held against bars, for every change.
    let only_bars = std::env::var("CTWATCH_BENCH").is_ok_and(|what| what == "bars");
    let mut bench = Bench::new()?;
    // Twice, because the first of all finds nothing that was ever used.
    bench.took()?;
    let unwatched = bench.took()?.map(|phase| phase.each);
    // Rows of their own, whatever the harness has begun to print.
    println!();
    println!("cost | unwatched | {} |  |", row(unwatched, unwatched));
    let mut wrong = String::new();
    for way in Way::all(only_bars) {
        let (name, took) = (way.name(), bench.watched(way)?);
        let mut ran = String::new();
        if !only_bars {
            let programs = bench.counted(way)?;
            let some = programs.iter().any(|programs| !programs.is_empty());
            ensure!(some == way.mechanism.has_programs(), "{name} ran {programs:?}");
            ran = told(&programs);
        }
        println!("cost | {name} | {} | {ran} |", row(took, unwatched));
        let Some((bar, limits)) = Bar::here(way.mechanism)?.filter(|_| way.lists == Lists::Some)
        else {
            continue;
        };
        let [new, dropped, established] =
            [0, 1, 2].map(|at| format!("{:.3} | {:.3}", bar.aims[at], limits[at]));
        println!("bar | {name} | {new} | {dropped} | {established} |");
        for (at, phase) in PHASES.iter().enumerate() {
            let (ratio, least, limit) = (took[at] / unwatched[at], LEAST[at], limits[at]);
            if !(least..=limit).contains(&ratio) {
                let _ = write!(wrong, "; {name}, {phase}: {ratio:.3}, allowed {least} to {limit}");
            }
        }
    }
    // What comes of measuring the same again.
    println!("cost | unwatched, again | {} |  |", row(bench.took()?.map(|it| it.each), unwatched));
    ensure!(wrong.is_empty(), "not within the bars of tests/netns/cost.rs{wrong}");
    Ok(())
}

/// Nanoseconds a packet and ratios. Of what is established a few thousandths matter.
fn row(took: [f64; 3], unwatched: [f64; 3]) -> String {
    let [new, dropped, established] = took;
    let [of_new, of_dropped, of_established] = [0, 1, 2].map(|at| took[at] / unwatched[at]);
    format!(
        "{new:.0} | {of_new:.2} | {dropped:.0} | {of_dropped:.2} | {established:.0} | \
         {of_established:.3}"
    )
}

/// `new: fx_freed 132 x 0.50; dropped: refused 863 x 1.00`
fn told(programs: &[Programs; 3]) -> String {
    /// Less often than this it has little to do with packets.
    const OFTEN: f64 = 0.005;
    let mut phases = Vec::new();
    for (phase, programs) in PHASES.iter().zip(programs) {
        let told = programs.iter().filter_map(|(program, (runs, time))| {
            let often = *runs as f64 / MEASURED as f64;
            let each = time.as_nanos() / u128::from(*runs);
            (often >= OFTEN).then(|| format!("{program} {each} x {often:.2}"))
        });
        let told: Vec<String> = told.collect();
        if !told.is_empty() {
            phases.push(format!("{phase}: {}", told.join(", ")));
        }
    }
    phases.join("; ")
}

/// What a start took, in nanoseconds, which are instructions on a machine whose clock counts those.
#[derive(Clone, Copy)]
struct Started {
    /// On the clock: everything that ran until then. But for ctwatch this machine is idle.
    first_line: u128,
    /// On the CPU, to the end of the process: its own, and the kernel's for it.
    whole: u128,
}

fn started(executable: &OsString, mechanism: Mechanism) -> Result<Started> {
    let begin = Instant::now();
    let mut child = Command::new(executable)
        .args(["watch", "--interval", "100ms", "--count", "1", "--mechanism", mechanism.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ctwatch")?;
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let first_line = begin.elapsed().as_nanos();
    output.read_to_string(&mut String::new())?;
    let before = cpu_of_children()?;
    let status = child.wait()?;
    let whole = cpu_of_children()?.saturating_sub(before).as_nanos();
    let mut said = String::new();
    child.stderr.take().context("no error output")?.read_to_string(&mut said)?;
    ensure!(status.success() && line.starts_with("ctwatch "), "it ended with {status}: {said}");
    Ok(Started { first_line, whole })
}

/// Of those that were waited for.
fn cpu_of_children() -> Result<Duration> {
    // SAFETY: a plain C struct for which all zero is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the place outlives the call.
    let answer = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    ensure!(answer == 0, "the kernel does not say what was used");
    let time = |time: libc::timeval| -> Result<Duration> {
        let microseconds = u64::try_from(time.tv_usec)?;
        Ok(Duration::from_secs(time.tv_sec.try_into()?) + Duration::from_micros(microseconds))
    };
    Ok(time(usage.ru_utime)? + time(usage.ru_stime)?)
}

/// Beside another executable, if one is named, in turns.
fn starts() -> Result<()> {
    const ROUNDS: usize = 5;
    // There is a table before it starts, and nothing in it.
    let _lab = Lab::new(Plan::default())?;
    let this = ctwatch()?.get_program().to_owned();
    let beside = std::env::var_os("CTWATCH_BESIDE");
    println!();
    for mechanism in mechanism::asked_for().0 {
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (executable, took) in [Some(&this), beside.as_ref()].into_iter().zip(&mut took) {
                took.extend(executable.map(|it| started(it, mechanism)).transpose()?);
            }
        }
        let name = mechanism.name();
        let [of_this, of_other] = took.map(|took| (!took.is_empty()).then(|| middle(&took)));
        let this = of_this.context("nothing was started")?;
        println!("start | {name} | {} | {} |", this.first_line, this.whole);
        if let Some(other) = of_other {
            let ratio = |this: u128, other: u128| this as f64 / other as f64;
            println!(
                "start | {name}, beside | {} | {} | {:.2} | {:.2} |",
                other.first_line,
                other.whole,
                ratio(this.first_line, other.first_line),
                ratio(this.whole, other.whole)
            );
        }
    }
    Ok(())
}

/// The medians of both.
fn middle(took: &[Started]) -> Started {
    let median = |of: fn(&Started) -> u128| {
        let mut values: Vec<u128> = took.iter().map(of).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    Started { first_line: median(|it| it.first_line), whole: median(|it| it.whole) }
}
