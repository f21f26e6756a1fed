//! The tests of the live kernel on every kernel and with every mechanism: run in virtual machines,
//! and set out as a table.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    build::{self, Built},
    test::{Counts, result},
    vm::{KERNELS, MODULES, Parts},
};
use crate::{
    process::root,
    provision::kernels::Kernel,
    vm::{image::Job, machine::Clock},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these kernels
    #[arg(long = "kernel", value_name = "NAME", value_parser = KERNELS.map(|(name, _)| name))]
    kernels: Vec<String>,
    /// The benchmarks instead of the tests: by a clock that counts instructions
    #[arg(long)]
    bench: bool,
    /// Tests and benchmarks on all kernels; what comes of them goes into docs/matrix.md
    #[arg(long, conflicts_with_all = ["bench", "kernels", "filter"])]
    write: bool,
    #[command(flatten)]
    build: build::Options,
    /// Only tests whose name contains this
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let built = build::run(&args.build)?;
    let wanted = |name: &str| args.kernels.is_empty() || args.kernels.iter().any(|k| k == name);
    let names: Vec<String> =
        KERNELS.iter().map(|(name, _)| (*name).to_owned()).filter(|name| wanted(name)).collect();
    let parts = Parts::provide(&names)?;
    let filter = args.filter.as_deref();
    let outcome = if args.write {
        let mut outcome = Matrix::run(&parts, &built, What::Tests, None)?;
        outcome.take_costs(Matrix::run(&parts, &built, What::Benchmarks, None)?);
        outcome
    } else {
        let what = if args.bench { What::Benchmarks } else { What::Tests };
        Matrix::run(&parts, &built, what, filter)?
    };
    let (counts, succeeded) = outcome.counts();
    let place = outcome.write_table(args.write)?;
    eprintln!("xtask: {counts}; the table is in {}", place.display());
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is run there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Tests,
    Benchmarks,
}

/// What became of the tests.
#[derive(Default)]
pub(crate) struct Matrix {
    kernels: Vec<Run>,
}

struct Run {
    name: String,
    release: String,
    counts: Counts,
    /// By mechanism and scenario.
    outcomes: BTreeMap<(String, String), Outcome>,
    /// Rows of the table of costs.
    costs: Vec<String>,
    /// Rows of the table of what a census takes.
    censuses: Vec<String>,
    /// It ran to its end, and that was a good one.
    succeeded: bool,
    took: Duration,
    /// What each test took, as far as its line came when it was over.
    times: Vec<(Duration, String)>,
    /// When the last line came.
    last: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    NotApplicable(String),
}

impl Matrix {
    /// Runs them on these kernels; what they print is shown as it comes.
    pub(crate) fn run(
        parts: &Parts,
        built: &Built,
        what: What,
        filter: Option<&str>,
    ) -> Result<Self> {
        let tests = build::live_tests(&built.probes)?;
        let job = |kernel: &Kernel| job(kernel, built, &tests, what, filter);
        let clock = match what {
            What::Tests => Clock::Real,
            What::Benchmarks => Clock::Instructions,
        };
        let runs: Mutex<BTreeMap<String, Run>> = Mutex::default();
        let started = Instant::now();
        let outcomes = parts.run(clock, job, |kernel, line| {
            let mut runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
            let run = runs.entry(kernel.name.clone()).or_insert_with(|| Run::of(kernel));
            run.take(line);
            if is_worth_showing(line) {
                println!("[{} {:4.0}s] {line}", kernel.name, started.elapsed().as_secs_f64());
            }
        });
        let mut runs = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut matrix = Self::default();
        for (kernel, outcome, took) in outcomes {
            let mut run = runs.remove(&kernel.name).unwrap_or_else(|| Run::of(kernel));
            run.took = took;
            run.succeeded = matches!(outcome, Ok(0)) && run.counts.failed == 0;
            if let Err(error) = outcome {
                println!("[{}] {error:#}", kernel.name);
            }
            let (name, release, counts) = (&run.name, &run.release, run.counts);
            println!("{name} ({release}): {counts}, {:.0} s", took.as_secs_f64());
            println!("  the slowest: {}", run.slowest());
            matrix.kernels.push(run);
        }
        Ok(matrix)
    }

    /// From a run of the benchmarks on the same kernels.
    fn take_costs(&mut self, benchmarks: Self) {
        for (run, bench) in self.kernels.iter_mut().zip(benchmarks.kernels) {
            run.counts.add(bench.counts);
            run.succeeded &= bench.succeeded;
            (run.costs, run.censuses) = (bench.costs, bench.censuses);
        }
    }

    /// Of all kernels, and whether each ran to a good end.
    pub(crate) fn counts(&self) -> (Counts, bool) {
        let mut counts = Counts::default();
        self.kernels.iter().for_each(|run| counts.add(run.counts));
        (counts, self.kernels.iter().all(|run| run.succeeded))
    }

    /// Into `target/`, or where the docs are.
    pub(crate) fn write_table(&self, docs: bool) -> Result<PathBuf> {
        let path = root().join(if docs { "docs/matrix.md" } else { "target/vm/matrix.md" });
        let dir = path.parent().context("no folder")?;
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::write(&path, self.table())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn costs(&self) -> String {
        let mut text = String::from(
            "\n## What an event costs\n\nInstructions a packet and their ratio to unwatched, for \
             packets that begin a connection and for packets that\nare refused, counted by the \
             emulator: the clock of these machines, with one CPU, is the number of instructions.\n\
             Then the programs, by the kernel's own statistics (which cost some 100 each), and how \
             often each ran for a packet.\nOn a real CPU much of a packet's time goes into waiting \
             for memory, of which the programs have their share\ntoo; that is not in these \
             figures.\n",
        );
        for run in self.kernels.iter().filter(|run| !run.costs.is_empty()) {
            let _ = write!(
                text,
                "\n{}:\n\n| | new | ratio | refused | ratio | programs |\n\
                 | --- | --- | --- | --- | --- | --- |\n",
                run.release
            );
            run.costs.iter().for_each(|row| {
                let _ = writeln!(text, "{row}");
            });
        }
        text
    }

    fn censuses(&self) -> String {
        let mut text = String::from(
            "\n## What a census takes\n\nInstructions for each entry of a table of so many, and how \
             many times fewer that is than `conntrack -L`\ntakes beside it.\n",
        );
        for run in self.kernels.iter().filter(|run| !run.censuses.is_empty()) {
            let _ = write!(
                text,
                "\n{}:\n\n| | entries | instructions | times fewer |\n| --- | --- | --- | --- |\n",
                run.release
            );
            run.censuses.iter().for_each(|row| {
                let _ = writeln!(text, "{row}");
            });
        }
        text
    }

    fn table(&self) -> String {
        let mut text = String::from(
            "# Kernels, mechanisms, scenarios\n\n\
             Made by `cargo xtask matrix --write`: each test of the live kernel, on Debian's cloud \
             kernels in virtual machines,\nwith each mechanism that the kernel offers. Every \
             figure is compared with conntrack's own counters and with what was sent:\nequal where \
             it is marked exact, inside its bounds where it is not.\n\n",
        );
        let releases = self.kernels.iter().map(|run| format!("- {}: {}\n", run.name, run.release));
        text.extend(releases);
        text.push_str(
            "\nf: fexit, k: kprobe, t: tracepoint, c: counters; capital where it failed, \
             `-` where it does not apply.\n\n| scenario |",
        );
        self.kernels.iter().for_each(|run| {
            let _ = write!(text, " {} |", run.name);
        });
        text.push_str("\n| --- |");
        text.push_str(&" --- |".repeat(self.kernels.len()));
        text.push('\n');
        let mut scenarios: Vec<&String> = self
            .kernels
            .iter()
            .flat_map(|run| run.outcomes.keys().map(|(_, scenario)| scenario))
            .collect();
        scenarios.sort();
        scenarios.dedup();
        for scenario in scenarios {
            let _ = write!(text, "| {} |", scenario.replace('_', " "));
            for run in &self.kernels {
                let _ = write!(text, " {} |", run.cell(scenario));
            }
            text.push('\n');
        }
        let reasons: BTreeMap<(&String, &String), &String> = self
            .kernels
            .iter()
            .flat_map(|run| {
                run.outcomes.iter().filter_map(move |((_, scenario), outcome)| match outcome {
                    Outcome::NotApplicable(why) => Some(((&run.name, scenario), why)),
                    _ => None,
                })
            })
            .collect();
        if !reasons.is_empty() {
            text.push('\n');
        }
        for ((kernel, scenario), why) in reasons {
            let _ = writeln!(text, "- {kernel}, {}: {why}.", scenario.replace('_', " "));
        }
        text.push_str(&self.costs());
        text.push_str(&self.censuses());
        text
    }
}

/// With the marks of the mechanisms, in this order.
const MARKS: [(&str, &str); 5] =
    [("auto", "a"), ("fexit", "f"), ("kprobe", "k"), ("tracepoint", "t"), ("counters", "c")];

impl Run {
    fn of(kernel: &Kernel) -> Self {
        Self {
            name: kernel.name.clone(),
            release: kernel.release.clone(),
            counts: Counts::default(),
            outcomes: BTreeMap::new(),
            costs: Vec::new(),
            censuses: Vec::new(),
            succeeded: false,
            took: Duration::ZERO,
            times: Vec::new(),
            last: Instant::now(),
        }
    }

    fn slowest(&mut self) -> String {
        const MOST: usize = 6;
        self.times.sort();
        let slowest = self.times.iter().rev().take(MOST);
        let words = slowest.map(|(took, name)| format!("{name} {:.0} s", took.as_secs_f64()));
        words.collect::<Vec<_>>().join(", ")
    }

    /// `test fexit::chains_that_are_too_long ... ok`, `n/a kprobe::…: why`, or the sum.
    fn take(&mut self, line: &str) {
        if let Some(counts) = result(line) {
            self.counts.add(counts);
        }
        if let Some(row) = line.strip_prefix("cost ") {
            self.costs.push(row.to_owned());
        }
        if let Some(row) = line.strip_prefix("census ") {
            self.censuses.push(row.to_owned());
        }
        let begun = std::mem::replace(&mut self.last, Instant::now());
        let Some((name, outcome)) = outcome(line) else { return };
        self.times.push((begun.elapsed(), name.to_owned()));
        if let Some((mechanism, scenario)) = name.split_once("::") {
            self.outcomes.insert((mechanism.to_owned(), scenario.to_owned()), outcome);
        }
    }

    fn cell(&self, scenario: &str) -> String {
        let mut cell = String::new();
        for (mechanism, mark) in MARKS {
            match self.outcomes.get(&(mechanism.to_owned(), scenario.to_owned())) {
                Some(Outcome::Passed) => cell.push_str(mark),
                Some(Outcome::Failed) => cell.push_str(&mark.to_uppercase()),
                Some(Outcome::NotApplicable(_)) => cell.push('-'),
                None => {}
            }
        }
        cell
    }
}

fn outcome(line: &str) -> Option<(&str, Outcome)> {
    if let Some(rest) = line.strip_prefix("n/a ") {
        let (name, why) = rest.split_once(": ")?;
        return Some((name, Outcome::NotApplicable(why.to_owned())));
    }
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let outcome = match outcome.trim() {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        _ => return None,
    };
    Some((name.trim(), outcome))
}

/// All but what passes: there are hundreds of those.
fn is_worth_showing(line: &str) -> bool {
    !line.is_empty() && !matches!(outcome(line), Some((_, Outcome::Passed)))
}

fn job(
    kernel: &Kernel,
    built: &Built,
    tests: &std::path::Path,
    what: What,
    filter: Option<&str>,
) -> Job {
    let offered = KERNELS.iter().find(|(name, _)| *name == kernel.name);
    let mechanisms = offered.map_or(String::new(), |(_, mechanisms)| mechanisms.join(" "));
    let mut env = vec![
        ("CTWATCH_BIN", "/usr/bin/ctwatch"),
        ("CTWATCH_MECHANISMS", &mechanisms),
        ("CTWATCH_EMULATED", "1"),
    ];
    if what == What::Benchmarks {
        env.push(("CTWATCH_BENCH", "1"));
    }
    let mut argv = vec!["/usr/bin/live-tests".to_owned(), "--test-threads=1".to_owned()];
    argv.extend(filter.map(str::to_owned));
    Job {
        argv,
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        modules: MODULES.map(str::to_owned).to_vec(),
        files: vec![
            (built.ctwatch.clone(), "usr/bin/ctwatch".to_owned()),
            (tests.to_path_buf(), "usr/bin/live-tests".to_owned()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lines: &[&str]) -> Run {
        let mut run = Run {
            name: "6.1".to_owned(),
            release: "6.1.0".to_owned(),
            counts: Counts::default(),
            outcomes: BTreeMap::new(),
            costs: Vec::new(),
            censuses: Vec::new(),
            succeeded: true,
            took: Duration::ZERO,
            times: Vec::new(),
            last: Instant::now(),
        };
        lines.iter().for_each(|line| run.take(line));
        run
    }

    #[test]
    fn outcomes_are_set_out_by_scenario() {
        let run = run(&[
            "running 4 tests",
            "test fexit::table_full   ... ok",
            "test kprobe::table_full  ... FAILED",
            "n/a kprobe::chains: this kernel has no limit on chains",
            "test behaviour_of_its_own ... ok",
            "cost | fexit | 12.3 | 1.01 |",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ]);
        assert_eq!((run.cell("table_full"), run.cell("chains")), ("fK".to_owned(), "-".to_owned()));
        let matrix = Matrix { kernels: vec![run] };
        let table = matrix.table();
        assert!(table.contains("| table full | fK |\n"), "{table}");
        assert!(table.contains("- 6.1, chains: this kernel has no limit on chains.\n"), "{table}");
        assert!(table.contains("\n| fexit | 12.3 | 1.01 |\n"), "{table}");
        assert_eq!(matrix.counts().0, Counts { passed: 2, failed: 1, skipped: 0 });
    }
}
