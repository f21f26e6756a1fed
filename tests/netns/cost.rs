//! What an event costs with each mechanism, beside none, all in one run. Nothing here fails for
//! being slow: what comes out goes into the docs. On a machine whose clock counts instructions a
//! nanosecond is one of them.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read},
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
    mechanism::{self, Mechanism},
    test,
    watch::{Watch, ctwatch},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Benchmark, "what_each_mechanism_costs", cost),
    test(On::Benchmark, "what_a_start_costs", starts),
];

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const ROUNDS: usize = 3;
const PACKETS: u64 = 20_000;

/// What one flood into a roomy table took, and one into a full table.
#[derive(Clone, Copy)]
struct Took {
    inserting: f64,
    refusing: f64,
}

/// What was spent with one mechanism.
#[derive(Default)]
struct Spent {
    took: Vec<Took>,
    /// Times what was spent without, right before and right after.
    ratios: Vec<Took>,
    /// By program: runs, and the time they took by the kernel's own statistics.
    programs: BTreeMap<String, (u64, Duration)>,
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
    /// All that this kernel offers.
    fn all() -> Vec<Self> {
        let mechanisms = mechanism::asked_for().0;
        let ways = mechanisms.into_iter().flat_map(|mechanism| {
            [Lists::All, Lists::Some, Lists::None].map(|lists| Self { mechanism, lists })
        });
        ways.filter(|way| way.lists == Lists::Some || way.mechanism.has_programs()).collect()
    }

    fn name(self) -> String {
        let name = self.mechanism.name();
        match self.lists {
            Lists::All => format!("{name}, all lists"),
            Lists::Some => name.to_owned(),
            Lists::None => format!("{name}, no lists"),
        }
    }

    /// Once a second.
    fn start(self) -> Result<Watch> {
        mechanism::set(self.mechanism);
        let lists: &[&str] = match self.lists {
            Lists::All => &["--by", "source,destination,service,flow,interface,process"],
            Lists::Some => &[],
            Lists::None => &["--top", "0"],
        };
        Watch::start(&[&["--interval", "1s"], lists].concat())
    }
}

struct Bench {
    lab: Lab,
    first: u64,
}

impl Bench {
    fn new() -> Result<Self> {
        let mut lab = Lab::new(Plan::default())?;
        // So many that hardly anything is ever found in a bucket to be thrown out.
        lab.set_buckets(1 << 18)?;
        lab.keep_entries()?;
        Ok(Self { lab, first: 0 })
    }

    fn send(&mut self, flows: Flows, packets: u64) -> Result<f64> {
        self.first += 1 << 24;
        let sent = self.lab.send(&Flood { first: self.first, ..Flood::of(flows, packets) })?;
        Ok(sent.elapsed.as_secs_f64())
    }

    fn took(&mut self) -> Result<Took> {
        const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);
        let many = Flows { sources: 1000, services: 10, ..UDP };
        self.lab.set_limit(1_000_000)?;
        let inserting = self.send(many, PACKETS)?;
        self.lab.router().run(&["conntrack", "-F"])?;
        self.lab.set_limit(10)?;
        self.send(Flows { protocol: Protocol::IcmpEcho, ..UDP }, 10)?;
        let before = judge::ask(self.lab.router())?;
        let refusing = self.send(many, PACKETS)?;
        let after = judge::ask(self.lab.router())?;
        let refused = after.drop - before.drop;
        ensure!(refused > PACKETS * 9 / 10, "only {refused} were refused");
        self.lab.router().run(&["conntrack", "-F"])?;
        Ok(Took { inserting, refusing })
    }

    fn watched(&mut self, way: Way) -> Result<Took> {
        let watch = way.start()?;
        let took = self.took()?;
        watch.stop()?;
        Ok(took)
    }

    fn counted(&mut self, way: Way, spent: &mut Spent) -> Result<()> {
        fs::write(STATISTICS, "1").with_context(|| format!("cannot write {STATISTICS}"))?;
        let watch = way.start()?;
        self.took()?;
        for program in aya::programs::loaded_programs().flatten() {
            let name = String::from_utf8_lossy(program.name()).into_owned();
            let sum = spent.programs.entry(name).or_default();
            sum.0 += program.run_count();
            sum.1 += program.run_time();
        }
        watch.stop()?;
        fs::write(STATISTICS, "0").map_err(Into::into)
    }
}

fn cost() -> Result<()> {
    let ways = Way::all();
    let mut spent: Vec<Spent> = ways.iter().map(|_| Spent::default()).collect();
    let mut bench = Bench::new()?;
    let mut unwatched = vec![bench.took()?];
    for _ in 0..ROUNDS {
        for (way, spent) in ways.iter().zip(&mut spent) {
            let before = unwatched[unwatched.len() - 1];
            let took = bench.watched(*way)?;
            let after = bench.took()?;
            spent.took.push(took);
            spent.ratios.push(Took {
                inserting: took.inserting / f64::midpoint(before.inserting, after.inserting),
                refusing: took.refusing / f64::midpoint(before.refusing, after.refusing),
            });
            unwatched.push(after);
        }
    }
    for (way, spent) in ways.iter().zip(&mut spent) {
        bench.counted(*way, spent)?;
    }
    // Rows of their own, whatever the harness has begun to print.
    println!();
    let each = |seconds: f64| seconds * 1e9 / PACKETS as f64;
    let base = medians(&unwatched);
    println!("cost | unwatched | {:.0} | 1.00 | {:.0} | 1.00 |  |", each(base.0), each(base.1));
    for (way, spent) in ways.iter().zip(&spent) {
        let name = way.name();
        let ran: Vec<String> = spent
            .programs
            .iter()
            .filter(|(_, (runs, _))| *runs > 0)
            .map(|(program, (runs, time))| {
                let each = time.as_nanos() / u128::from(*runs);
                format!("{program} {each} x {:.2}", *runs as f64 / (2 * PACKETS) as f64)
            })
            .collect();
        let ((new, refused), (of_new, of_refused)) = (medians(&spent.took), medians(&spent.ratios));
        println!(
            "cost | {name} | {:.0} | {of_new:.2} | {:.0} | {of_refused:.2} | {} |",
            each(new),
            each(refused),
            ran.join(", ")
        );
        ensure!(ran.is_empty() != way.mechanism.has_programs(), "{name} ran {ran:?}");
    }
    Ok(())
}

fn medians(took: &[Took]) -> (f64, f64) {
    let median = |of: fn(&Took) -> f64| {
        let mut values: Vec<f64> = took.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    (median(|took| took.inserting), median(|took| took.refusing))
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
