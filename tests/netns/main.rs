//! The live kernel against its own counters and a generator that knows what it sent.
//!
//! Needs root, for namespaces and probes; without it every test here is counted as skipped. One
//! test at a time (`--test-threads=1`): the limit is one for the whole machine.
//!
//! `CTWATCH_MECHANISMS` names the mechanisms that this kernel is known to offer: then the tests of
//! what is counted run once with each, and this is a machine of its own, for the tests that nobody
//! would run on theirs. With `CTWATCH_BENCH` it is for the benchmarks, and for no test; where that is `bars`,
//! only for what is held against bars.
//!
//! `CTWATCH_LIST` prints all trials that there can be with those mechanisms, and whether the outcome
//! depends on the kernel; nothing is run. `CTWATCH_TRIALS` names a file with one trial on each line:
//! exactly these are run, in that order. `CTWATCH_SOAK` is for how many seconds to soak, and nothing else
//! is run then; with `CTWATCH_FAULTS=all` no fault is left out. `CTWATCH_OWNERS` is a root file system with owners of a
//! firewall, `CTWATCH_SOS` is what lays sos over it; without them their tests are skipped, and say so. After each
//! trial a line says how many milliseconds it took.

mod advice;
mod behaviour;
mod cases;
mod causes;
mod census;
mod check;
mod claims;
mod collect;
#[cfg(target_arch = "x86_64")]
mod confined;
/// It makes a thread do what it would not by x86's registers.
#[cfg(not(target_arch = "x86_64"))]
mod confined {
    pub(crate) const TESTS: &[super::Test] = &[];
}
mod cost;
mod deployed;
mod doctor;
mod faults;
mod floods;
mod guards;
mod harness;
mod hidden;
mod lab;
mod lacking;
mod loading;
mod lookalikes;
mod machine;
mod masked;
mod mechanism;
mod namespaces;
mod offline;
mod owners;
mod panes;
mod picture;
mod pods;
mod readme;
mod recordings;
mod records;
mod restricted;
mod rules;
mod scenarios;
mod screen;
mod serve;
mod sight;
mod situations;
mod soak;
mod sos;
mod start;
mod strangers;
mod syscalls;
mod terminal;
mod top;
mod trace;
mod watch;
mod what_if;

use std::{
    collections::HashMap,
    env::{var, var_os},
    fs,
    process::ExitCode,
};

use anyhow::{Context, Result};
use ctwatch_lab::{judge, kept};
use harness::Trial;
use libtest_mimic::Arguments;
use mechanism::Mechanism;

struct Test {
    name: &'static str,
    on: On,
    of: Of,
    run: fn() -> Result<()>,
}

/// Where a test belongs.
#[derive(Clone, Copy, PartialEq)]
enum On {
    /// With each mechanism.
    Each,
    /// With each that has programs in the kernel.
    EachWithPrograms,
    /// With each that has programs in the kernel, on a machine of its own.
    EachAlone,
    /// With each, where this kernel limits how long a hash chain may grow.
    EachWithChainLimit,
    /// Once, with whatever is chosen.
    Once,
    /// Once, where this kernel limits how long a hash chain may grow.
    OnceWithChainLimit,
    /// Once, on a machine of its own.
    OnceAlone,
    /// Once, in no virtual machine: its outcome is the same on all kernels, or is written down in the docs.
    OnceHere,
    /// Once, on a machine that Debian's packages can be fetched for: in no virtual machine.
    OnceWithOwners,
    /// Once, where Debian's sos can be fetched, too.
    OnceWithSos,
    /// Once, on a machine that what judges dist/ can be fetched for: in no virtual machine.
    OnceWithJudges,
    /// Once, where the kernel has cgroups of version 2.
    OnceWithCgroups,
    /// Not a test: measures, where that is all that is asked for.
    Benchmark,
    /// Not for each change: goes on for as long as is asked for.
    Soak,
}

/// What the outcome of a test depends on.
#[derive(Clone, Copy)]
enum Of {
    /// The kernel: it must be run on each.
    Kernel,
    /// This program alone: one kernel is as good as another.
    Anywhere,
}

const fn test(on: On, name: &'static str, run: fn() -> Result<()>) -> Test {
    Test { name, on, of: Of::Kernel, run }
}

impl Test {
    const fn anywhere(self) -> Self {
        Self { of: Of::Anywhere, ..self }
    }
}

const GROUPS: [&[Test]; 44] = [
    cases::TESTS,
    floods::TESTS,
    recordings::TESTS,
    what_if::TESTS,
    masked::TESTS,
    records::TESTS,
    rules::TESTS,
    scenarios::TESTS,
    top::TESTS,
    screen::TESTS,
    panes::TESTS,
    census::TESTS,
    check::TESTS,
    causes::TESTS,
    claims::TESTS,
    collect::TESTS,
    confined::TESTS,
    trace::TESTS,
    namespaces::TESTS,
    strangers::TESTS,
    sight::TESTS,
    situations::TESTS,
    behaviour::TESTS,
    lab::TESTS,
    readme::TESTS,
    doctor::TESTS,
    offline::TESTS,
    advice::TESTS,
    owners::TESTS,
    pods::TESTS,
    lookalikes::TESTS,
    machine::TESTS,
    loading::TESTS,
    faults::TESTS,
    serve::TESTS,
    soak::TESTS,
    sos::TESTS,
    start::TESTS,
    cost::TESTS,
    deployed::TESTS,
    restricted::TESTS,
    lacking::TESTS,
    syscalls::TESTS,
    // The last: a lockdown is for good.
    guards::TESTS,
];

/// What this machine has, and what was asked for.
struct Machine {
    /// Somebody named the mechanisms, so it is a machine of its own.
    alone: bool,
    /// Whether this kernel limits how long a hash chain may grow.
    chains: bool,
}

const NO_LIMIT: &str = "this kernel has no limit on chains";

impl Machine {
    /// Why this test is none for this machine.
    fn bars(&self, test: &Test, mechanism: Mechanism) -> Option<&'static str> {
        let (good, why) = match test.on {
            On::Each | On::Once | On::OnceWithCgroups | On::Benchmark | On::Soak => return None,
            On::EachWithPrograms => (mechanism.has_programs(), "this mechanism has no programs"),
            On::EachAlone => (
                self.alone && mechanism.has_programs(),
                "only by programs, and on a machine of its own",
            ),
            On::EachWithChainLimit | On::OnceWithChainLimit => (self.chains, NO_LIMIT),
            On::OnceAlone => (self.alone, "only on a machine of its own"),
            On::OnceHere | On::OnceWithOwners | On::OnceWithSos | On::OnceWithJudges => {
                (!self.alone, "not in a virtual machine")
            }
        };
        (!good).then_some(why)
    }
}

/// A test with one mechanism.
struct Case {
    name: String,
    test: &'static Test,
    mechanism: Mechanism,
}

fn main() -> ExitCode {
    if let Some(code) = ctwatch_lab::strangers::stranger() {
        return code;
    }
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let args = Arguments::from_args();
    let (mechanisms, alone) = mechanism::asked_for();
    let cases = cases(&mechanisms, alone);
    if var_os("CTWATCH_LIST").is_some() {
        let machine = Machine { alone, chains: true };
        for case in cases.iter().filter(|c| machine.bars(c.test, c.mechanism).is_none()) {
            let of = match case.test.of {
                Of::Kernel => "kernel",
                Of::Anywhere => "anywhere",
            };
            println!("{}\t{of}", case.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("the tests of the live kernel need root: skipped");
    }
    let machine = Machine { alone, chains: root && judge::limits_chains()? };
    let wanted = match var("CTWATCH_TRIALS") {
        Ok(file) => named_in(&file, &cases, &machine)?,
        Err(_) => all(&cases, &machine),
    };
    let _keeping = kept::Keeping::begin();
    harness::run(&args, wanted.into_iter().map(trial).collect(), !root).map_err(Into::into)
}

/// All that there can be with these mechanisms.
fn cases(mechanisms: &[Mechanism], by_mechanism: bool) -> Vec<Case> {
    let (bench, soak) = (var_os("CTWATCH_BENCH").is_some(), var_os(soak::SECONDS).is_some());
    let mut cases = Vec::new();
    for test in GROUPS.into_iter().flatten() {
        if bench != (test.on == On::Benchmark) || soak != (test.on == On::Soak) {
            continue;
        }
        let each = [On::Each, On::EachWithPrograms, On::EachAlone, On::EachWithChainLimit]
            .contains(&test.on);
        if !each {
            cases.push(Case { name: test.name.to_owned(), test, mechanism: Mechanism::Auto });
            continue;
        }
        for mechanism in mechanisms {
            let name = match by_mechanism {
                true => format!("{}::{}", mechanism.name(), test.name),
                false => test.name.to_owned(),
            };
            cases.push(Case { name, test, mechanism: *mechanism });
        }
    }
    cases
}

/// All that this machine can run. The kernel's own limits are stated; that a mechanism has no
/// programs, or that this machine has other users, is the same everywhere.
fn all<'a>(cases: &'a [Case], machine: &Machine) -> Vec<&'a Case> {
    let mut wanted = Vec::new();
    for case in cases {
        match machine.bars(case.test, case.mechanism) {
            None => wanted.push(case),
            Some(NO_LIMIT) => println!("n/a {}: {NO_LIMIT}", case.name),
            Some(_) => {}
        }
    }
    wanted
}

/// Those that a file names, in its order. One that cannot be run here is stated.
fn named_in<'a>(file: &str, cases: &'a [Case], machine: &Machine) -> Result<Vec<&'a Case>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let by_name: HashMap<&str, &Case> =
        cases.iter().map(|case| (case.name.as_str(), case)).collect();
    let mut wanted = Vec::new();
    for name in text.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let case = by_name.get(name).copied();
        let bar = match case {
            Some(case) => machine.bars(case.test, case.mechanism),
            None => Some("no trial has this name here"),
        };
        match (case, bar) {
            (Some(case), None) => wanted.push(case),
            (_, why) => println!("n/a {name}: {}", why.unwrap_or_default()),
        }
    }
    Ok(wanted)
}

fn trial(case: &Case) -> Trial {
    let (mechanism, run) = (case.mechanism, case.test.run);
    let run = move || {
        mechanism::set(mechanism);
        let lab = kept::Suspect::of("its trial failed");
        run()?;
        lab.is_good();
        Ok(())
    };
    let skipped = match case.test.on {
        On::OnceHere => situations::missing(&case.name),
        On::OnceWithOwners => owners::missing(),
        On::OnceWithSos => sos::missing(),
        On::OnceWithJudges => deployed::missing().or_else(syscalls::missing),
        On::OnceWithCgroups => pods::missing(),
        _ => None,
    };
    Trial { name: case.name.clone(), run: Box::new(run), skipped }
}
