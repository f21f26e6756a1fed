//! `cargo xtask test`: every suite, and a summary that does not hide what was skipped.

use std::{
    env, fmt,
    io::{BufRead, BufReader, Write},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    build::{self, Built, static_cargo},
    matrix::{Matrix, What},
    vm::{KERNELS, Parts},
};
use crate::{
    process::{quiet_in_logs, run as run_process},
    provision::{Store, tools},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this suite
    #[arg(long, value_name = "SUITE", value_parser = suites())]
    only: Option<String>,
    #[command(flatten)]
    build: build::Options,
    /// Only tests whose name contains this
    filter: Option<String>,
}

struct Suite {
    name: &'static str,
    /// What it needs beyond a compiler; skipped tests lack it.
    needs: &'static str,
    cargo: &'static [&'static str],
    /// It changes what the whole machine shares, one test at a time.
    alone: bool,
}

const SUITES: [Suite; 6] = [
    Suite { name: "unit", needs: "", cargo: &["--workspace", "--lib", "--bins"], alone: false },
    Suite { name: "doc", needs: "", cargo: &["--workspace", "--doc"], alone: false },
    Suite {
        name: "cli",
        needs: "",
        cargo: &["--package", "ctwatch", "--test", "cli"],
        alone: false,
    },
    Suite {
        name: "rooms",
        needs: "",
        cargo: &["--package", "ctwatch", "--test", "rooms"],
        alone: false,
    },
    Suite {
        name: "fuzz",
        needs: "",
        cargo: &["--package", "ctwatch-fuzz", "--test", "fuzz"],
        alone: false,
    },
    Suite {
        name: "netns",
        needs: "root",
        cargo: &["--package", "ctwatch", "--test", "netns"],
        alone: true,
    },
];

/// The tests of the live kernel again, on other kernels.
const MATRIX: &str = "matrix";

fn suites() -> Vec<&'static str> {
    SUITES.iter().map(|suite| suite.name).chain([MATRIX]).collect()
}

/// What a suite came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

/// What became of a suite.
struct Ran {
    suite: &'static str,
    counts: Counts,
    /// What its skipped tests lack.
    needs: &'static str,
    succeeded: bool,
    took: Duration,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let built = build::run(&args.build)?;
    let path = tools::path(&Store::open()?)?;
    eprintln!("xtask: compiling the tests");
    // First of all and all at once: what does not compile is one error, not one for each suite.
    let mut compile = static_cargo("test")?;
    compile.args(["--no-run", "--workspace"]).env("CTWATCH_PROBES", &built.probes);
    run_process(quiet_in_logs(&mut compile))?;
    let mut rows = Vec::new();
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| only == name);
    for suite in SUITES.iter().filter(|suite| wanted(suite.name)) {
        eprintln!("xtask: {} tests", suite.name);
        rows.push(run_suite(suite, args, &built, &path)?);
    }
    if wanted(MATRIX) {
        eprintln!("xtask: {MATRIX} tests");
        rows.push(run_matrix(args, &built)?);
    }
    let in_ci = env::var_os("CI").is_some() && rustix::process::geteuid().is_root();
    let (summary, good) = summarise(&rows, in_ci);
    println!("\n{summary}");
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for each suite and one for all, and whether all is well. `complete` is for where every
/// test can run: then every one must have.
fn summarise(rows: &[Ran], complete: bool) -> (String, bool) {
    let (mut all, mut lines) = (Counts::default(), Vec::new());
    for &Ran { suite, mut counts, needs, succeeded, took } in rows {
        // One that fails without a failing test was killed, or stopped half-way.
        let stopped = !succeeded && counts.failed == 0;
        counts.failed += u64::from(stopped);
        let why = match needs {
            _ if stopped => " (IT DID NOT FINISH)".to_owned(),
            needs if counts.skipped > 0 && !needs.is_empty() => format!(" (needs {needs})"),
            _ => String::new(),
        };
        lines.push(format!("{suite:<6} {counts}{why}, {:.1} s", took.as_secs_f64()));
        all.add(counts);
    }
    let incomplete = complete && all.skipped > 0;
    if incomplete {
        lines.push("root in CI lacks nothing: no test may be skipped".to_owned());
    }
    let nothing = all == Counts::default();
    if nothing {
        lines.push("no test has such a name".to_owned());
    }
    lines.push(all.to_string());
    (lines.join("\n"), all.failed == 0 && !incomplete && !nothing)
}

/// Where there is no QEMU to be had, or no kernel, each kernel counts as a test that was skipped.
fn run_matrix(args: &Args, built: &Built) -> Result<Ran> {
    let started = Instant::now();
    let ran = |counts, succeeded| Ran {
        suite: MATRIX,
        counts,
        needs: "QEMU and Debian's kernels",
        succeeded,
        took: started.elapsed(),
    };
    let names = KERNELS.map(|(name, _)| name.to_owned());
    let parts = match Parts::provide(&names) {
        Ok(parts) => parts,
        Err(error) => {
            eprintln!("xtask: NO OTHER KERNEL IS TESTED: {error:#}");
            let skipped = u64::try_from(KERNELS.len())?;
            return Ok(ran(Counts { skipped, ..Counts::default() }, true));
        }
    };
    let matrix = Matrix::run(&parts, built, What::Tests, args.filter.as_deref())?;
    let table = matrix.write_table(false)?;
    eprintln!("xtask: kernels, mechanisms and scenarios are set out in {}", table.display());
    let (counts, succeeded) = matrix.counts();
    Ok(ran(counts, succeeded))
}

/// Shows its output while it runs.
fn run_suite(suite: &Suite, args: &Args, built: &Built, path: &std::ffi::OsStr) -> Result<Ran> {
    let mut command = static_cargo("test")?;
    command.args(["--no-fail-fast", "--quiet"]).args(suite.cargo);
    command.args(args.filter.as_deref()).arg("--");
    if suite.alone {
        command.arg("--test-threads=1");
    }
    let started = Instant::now();
    let mut child = command
        .env("PATH", path)
        .env("CTWATCH_BIN", &built.ctwatch)
        .env("CTWATCH_PROBES", &built.probes)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let mut counts = Counts::default();
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read what cargo test prints")?;
        counts.add(result(&line).unwrap_or_default());
        writeln!(std::io::stdout(), "{line}")?;
    }
    let succeeded = child.wait().context("cannot wait for cargo test")?.success();
    let (suite, needs) = (suite.name, suite.needs);
    Ok(Ran { suite, counts, needs, succeeded, took: started.elapsed() })
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl Counts {
    pub(crate) fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

/// `test result: ok. 49 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0s`
pub(crate) fn result(line: &str) -> Option<Counts> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split(';') {
        let Some((number, what)) = part.trim().split_once(' ') else { continue };
        let number = number.parse().unwrap_or(0);
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.skipped = number,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_the_test_harness_are_counted() {
        let line =
            "test result: FAILED. 49 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out";
        assert_eq!(result(line), Some(Counts { passed: 49, failed: 2, skipped: 1 }));
        assert_eq!(result("running 3 tests"), None);
    }

    fn ran(passed: u64, failed: u64, skipped: u64, succeeded: bool) -> Ran {
        let counts = Counts { passed, failed, skipped };
        Ran { suite: "netns", counts, needs: "root", succeeded, took: Duration::from_millis(1500) }
    }

    #[test]
    fn the_last_line_is_the_sum() {
        let (summary, good) = summarise(&[ran(3, 0, 2, true), ran(4, 0, 0, true)], false);
        assert!(good);
        assert_eq!(
            summary,
            "netns  3 passed, 0 failed, 2 skipped (needs root), 1.5 s\n\
             netns  4 passed, 0 failed, 0 skipped, 1.5 s\n\
             7 passed, 0 failed, 2 skipped"
        );
    }

    #[test]
    fn skipped_tests_are_a_failure_where_all_can_run() {
        let (summary, good) = summarise(&[ran(3, 0, 2, true)], true);
        assert!(!good && summary.ends_with("\n3 passed, 0 failed, 2 skipped"), "{summary}");
    }

    #[test]
    fn a_suite_that_was_killed_has_failed() {
        let (summary, good) = summarise(&[ran(3, 0, 0, false)], false);
        assert!(!good && summary.ends_with("\n3 passed, 1 failed, 0 skipped"), "{summary}");
        assert!(summary.contains("DID NOT FINISH"));
    }

    #[test]
    fn no_test_at_all_is_no_success() {
        assert!(!summarise(&[ran(0, 0, 0, true)], false).1);
    }
}
