//! Running cells in machines, and what came of them.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Cell, KERNELS, Ledger, Slice,
    jobs::{self, Job},
    ledger::{Entry, Outcome},
};
use crate::{
    commands::build::{Built, Inside},
    summary::{Counts, result},
    vm::{
        image,
        machine::Clock,
        parts::{MODULES, Parts},
    },
};

/// A machine that takes longer than this, and than so many times what is expected, hangs: emulated,
/// and beside another one, all takes ten times its time.
const PATIENCE: Duration = Duration::from_secs(600);
const TIMES: u32 = 4;

/// What is run there.
#[derive(Clone, Debug)]
pub(crate) enum What<'a> {
    /// `again`: how often one that failed is run again, to tell what is unsteady.
    Tests { slice: &'a Slice, again: u32 },
    /// All benchmarks with this in their names; beside them, where there is one, another ctwatch.
    Benchmarks {
        kernels: &'a [String],
        filter: Option<&'a str>,
        beside: Option<&'a Path>,
        /// Only what is held against bars.
        bars: bool,
    },
}

/// What became of the cells.
#[derive(Default)]
pub(crate) struct Matrix {
    pub(super) kernels: Vec<Kernel>,
}

/// What came of one kernel.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) name: String,
    pub(super) release: String,
    pub(super) cells: BTreeMap<String, Done>,
    /// Rows of the tables of costs: what an event, a census, a start takes.
    pub(super) costs: Vec<String>,
    /// What an event is aimed to cost, and may cost.
    pub(super) bars: Vec<String>,
    pub(super) censuses: Vec<String>,
    pub(super) starts: Vec<String>,
    /// A machine that did not come to a good end.
    broken: bool,
}

/// What came of one cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Done {
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
    /// For what does not apply.
    pub(super) why: Option<String>,
}

impl Matrix {
    /// What they print is shown as it comes, but for what passes.
    pub(crate) fn run(
        parts: &Parts,
        built: &Built,
        what: &What<'_>,
        ledger: &Ledger,
    ) -> Result<Self> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let (jobs, clock) = match what {
            What::Tests { slice, .. } => (jobs::jobs(slice, ledger, cpus), Clock::Real),
            What::Benchmarks { kernels, filter, .. } => {
                let job = |kernel: &String| Job {
                    kernel: kernel.clone(),
                    trials: filter.map(str::to_owned).into_iter().collect(),
                    expected: Duration::from_secs(600),
                    possible_cpus: None,
                };
                (kernels.iter().map(job).collect(), Clock::Instructions)
            }
        };
        let matrix = Mutex::new(Self::of(parts));
        let started = Instant::now();
        let take = |job: &Job, line: &str| {
            let mut matrix = matrix.lock().unwrap_or_else(PoisonError::into_inner);
            matrix.take(&job.kernel, line);
            if is_worth_showing(line) {
                println!("[{} {:4.0}s] {line}", job.kernel, started.elapsed().as_secs_f64());
            }
        };
        parts.run_all(&jobs, cpus, |number, job, of| {
            let begun = Instant::now();
            let patience = PATIENCE.max(job.expected * TIMES);
            let logs = format!("{}-{number}", job.kernel);
            let outcome =
                built.guests.get(&of.machine).context("it was not built for this machine");
            let outcome = outcome.and_then(|inside| {
                let machine = guest_job(job, inside, what);
                let init = &inside.init;
                parts.run_one(of, &logs, clock, init, &machine, patience, |line| take(job, line))
            });
            let mut matrix = matrix.lock().unwrap_or_else(PoisonError::into_inner);
            matrix.end(job, what, &outcome);
            let (count, took) = (job.trials.len(), begun.elapsed().as_secs_f64());
            let expected = job.expected.as_secs_f64();
            match outcome {
                Ok(_) => println!(
                    "[{} {:4.0}s] {count} trials in {took:.0} s (expected {expected:.0} s)",
                    job.kernel,
                    started.elapsed().as_secs_f64(),
                ),
                Err(error) => println!("[{}] {error:#}", job.kernel),
            }
        })?;
        Ok(matrix.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn of(parts: &Parts) -> Self {
        let kernels = parts.kernels().iter();
        Self { kernels: kernels.map(|kernel| Kernel::of(&kernel.name, &kernel.release)).collect() }
    }

    fn kernel(&mut self, name: &str) -> Option<&mut Kernel> {
        self.kernels.iter_mut().find(|kernel| kernel.name == name)
    }

    fn take(&mut self, kernel: &str, line: &str) {
        if let Some(kernel) = self.kernel(kernel) {
            kernel.take(line);
        }
    }

    /// A machine has ended: what it was to run and said nothing of has failed.
    fn end(&mut self, job: &Job, what: &What<'_>, outcome: &Result<i32>) {
        let Some(kernel) = self.kernel(&job.kernel) else { return };
        // The executable ends with 101 where a trial failed.
        kernel.broken |= !matches!(outcome, Ok(0 | 101));
        let What::Tests { .. } = what else {
            kernel.broken |= !matches!(outcome, Ok(0));
            return;
        };
        for trial in &job.trials {
            if !kernel.cells.contains_key(trial) {
                println!("[{}] {trial} was not run to its end", job.kernel);
                let done = Done { outcome: Outcome::Failed, took: Duration::ZERO, why: None };
                kernel.cells.insert(trial.clone(), done);
            }
        }
    }

    /// Of all kernels, and whether each ran to a good end.
    pub(crate) fn counts(&self) -> (Counts, bool) {
        let mut counts = Counts::default();
        for kernel in &self.kernels {
            for done in kernel.cells.values() {
                match done.outcome {
                    Outcome::Passed => counts.passed += 1,
                    Outcome::Failed => counts.failed += 1,
                    Outcome::Unsteady => counts.unsteady += 1,
                    Outcome::NotApplicable => {}
                }
            }
        }
        (counts, counts.failed == 0 && self.kernels.iter().all(|kernel| !kernel.broken))
    }

    pub(crate) fn enter_into(&self, ledger: &mut Ledger, commit: &str) {
        let run = ledger.begin(commit);
        for kernel in &self.kernels {
            for (trial, Done { outcome, took, .. }) in &kernel.cells {
                let entry = Entry { run, took: *took, outcome: *outcome };
                ledger.put(Cell::new(&kernel.name, trial), entry);
            }
        }
    }

    /// For somebody who waits for it.
    pub(crate) fn slowest(&self) -> String {
        const MOST: usize = 8;
        let mut times: Vec<(Duration, String)> = Vec::new();
        for kernel in &self.kernels {
            let cells = kernel.cells.iter();
            times.extend(cells.map(|(trial, d)| (d.took, format!("{} {trial}", kernel.name))));
        }
        times.sort();
        let slowest = times.iter().rev().take(MOST);
        let words = slowest.map(|(took, name)| format!("{name} {:.0} s", took.as_secs_f64()));
        words.collect::<Vec<_>>().join(", ")
    }
}

impl Kernel {
    pub(super) fn of(name: &str, release: &str) -> Self {
        Self { name: name.to_owned(), release: release.to_owned(), ..Self::default() }
    }

    /// What came of a trial, that one does not apply, or a row of a table.
    pub(super) fn take(&mut self, line: &str) {
        for (begin, rows) in [
            ("cost ", &mut self.costs),
            ("bar ", &mut self.bars),
            ("census ", &mut self.censuses),
            ("start ", &mut self.starts),
        ] {
            rows.extend(line.strip_prefix(begin).map(str::to_owned));
        }
        if let Some((trial, took, outcome)) = took(line) {
            self.cells.insert(trial.to_owned(), Done { outcome, took, why: None });
        }
        if let Some((trial, why)) = not_applicable(line) {
            let (outcome, took) = (Outcome::NotApplicable, Duration::ZERO);
            self.cells.insert(trial.to_owned(), Done { outcome, took, why: Some(why.to_owned()) });
        }
    }
}

/// `took fexit::udp_into_a_full_table 1234 ok`: the line that says what came of a trial.
fn took(line: &str) -> Option<(&str, Duration, Outcome)> {
    let [trial, milliseconds, word] =
        line.strip_prefix("took ")?.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
    let outcome = match word {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        "unsteady" => Outcome::Unsteady,
        _ => return None,
    };
    Some((trial, Duration::from_millis(milliseconds.parse().ok()?), outcome))
}

/// `n/a kprobe::chains: this kernel has no limit on chains`
fn not_applicable(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("n/a ")?.split_once(": ")
}

/// All but what passes: there are hundreds of those.
fn is_worth_showing(line: &str) -> bool {
    let passed = line.starts_with("test ") && line.ends_with(" ok");
    let of_course = line.starts_with("begun ") || took(line).is_some() || result(line).is_some();
    !line.is_empty() && !passed && !of_course
}

/// What the machine is to do.
fn guest_job(job: &Job, inside: &Inside, what: &What<'_>) -> image::Job {
    let offered = KERNELS.iter().find(|(name, _)| *name == job.kernel);
    let mechanisms = offered.map_or(String::new(), |(_, mechanisms)| mechanisms.join(" "));
    let mut argv = vec!["/usr/bin/live-tests".to_owned(), "--test-threads=1".to_owned()];
    let mut env = vec![
        ("CTWATCH_BIN", "/usr/bin/ctwatch".to_owned()),
        ("CTWATCH_MECHANISMS", mechanisms),
        ("CTWATCH_EMULATED", "1".to_owned()),
    ];
    let mut files = vec![
        (inside.ctwatch.clone(), "usr/bin/ctwatch".to_owned()),
        (inside.live_tests.clone(), "usr/bin/live-tests".to_owned()),
    ];
    let mut texts = Vec::new();
    match what {
        What::Tests { again, .. } => {
            env.push(("CTWATCH_TRIALS", "/job/trials".to_owned()));
            env.push(("CTWATCH_AGAIN", again.to_string()));
            texts.push(("job/trials".to_owned(), job.trials.join("\n")));
        }
        What::Benchmarks { beside, bars, .. } => {
            let what = if *bars { "bars" } else { "all" };
            env.push(("CTWATCH_BENCH", what.to_owned()));
            argv.extend(job.trials.iter().cloned());
            if let Some(beside) = beside {
                env.push(("CTWATCH_BESIDE", "/usr/bin/ctwatch-beside".to_owned()));
                files.push((beside.to_path_buf(), "usr/bin/ctwatch-beside".to_owned()));
            }
        }
    }
    image::Job {
        argv,
        env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        modules: MODULES.map(str::to_owned).to_vec(),
        files,
        texts,
        possible_cpus: job.possible_cpus,
        system: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(trials: &[&str]) -> Job {
        let trials = trials.iter().map(|trial| (*trial).to_owned()).collect();
        Job { kernel: "6.1".to_owned(), trials, expected: Duration::ZERO, possible_cpus: None }
    }

    fn matrix() -> Matrix {
        Matrix { kernels: vec![Kernel::of("6.1", "6.1.0")] }
    }

    #[test]
    fn what_a_machine_prints_becomes_outcomes() {
        let mut matrix = matrix();
        for line in [
            "running 3 tests",
            "begun fexit::udp",
            "test fexit::udp ... ok",
            "took fexit::udp 1500 ok",
            "test kprobe::udp  ... FAILED",
            "took kprobe::udp 10 FAILED",
            "n/a kprobe::chains: no limit",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            matrix.take("6.1", line);
        }
        let done = &matrix.kernels[0].cells["fexit::udp"];
        assert_eq!((done.outcome, done.took), (Outcome::Passed, Duration::from_millis(1500)));
        assert_eq!(matrix.counts(), (Counts { passed: 1, failed: 1, ..Counts::default() }, false));
        let mut ledger = Ledger::default();
        matrix.enter_into(&mut ledger, "commit abc");
        assert_eq!(ledger.failed().count(), 1);
    }

    #[test]
    fn a_trial_that_says_nothing_has_failed() {
        let (mut matrix, slice) = (matrix(), Slice::default());
        matrix.take("6.1", "took a 5 ok");
        matrix.take("6.1", "test b ... ok");
        let killed = Err(anyhow::anyhow!("no verdict"));
        matrix.end(&job(&["a", "b", "c"]), &What::Tests { slice: &slice, again: 0 }, &killed);
        assert_eq!(matrix.counts(), (Counts { passed: 1, failed: 2, ..Counts::default() }, false));
    }

    #[test]
    fn a_machine_that_broke_is_no_success() {
        let (mut matrix, slice) = (matrix(), Slice::default());
        matrix.take("6.1", "took a 5 ok");
        matrix.end(&job(&["a"]), &What::Tests { slice: &slice, again: 0 }, &Ok(0));
        assert!(matrix.counts().1);
        matrix.end(&job(&["a"]), &What::Tests { slice: &slice, again: 0 }, &Ok(3));
        assert!(!matrix.counts().1);
    }
}
