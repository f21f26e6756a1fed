//! `cargo xtask test`: every suite, and a summary that does not hide what was skipped.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result};

use super::build::{self, Built};
use crate::{
    process::cargo,
    provision::{Store, tools},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this suite: unit, doc, cli, rooms or netns
    #[arg(long, value_name = "SUITE")]
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

const SUITES: &[Suite] = &[
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
        name: "netns",
        needs: "root",
        cargo: &["--package", "ctwatch", "--test", "netns"],
        alone: true,
    },
];

/// What a suite came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let built = build::run(&args.build)?;
    let path = tools::path(&Store::open()?)?;
    let mut rows = Vec::new();
    for suite in SUITES {
        if args.only.as_deref().is_none_or(|only| only == suite.name) {
            eprintln!("xtask: {} tests", suite.name);
            rows.push((suite, run_suite(suite, args, &built, &path)?));
        }
    }
    let mut all = Counts::default();
    println!();
    for (suite, (counts, ran)) in &rows {
        let Counts { passed, failed, skipped } = counts;
        let why = if *skipped > 0 { format!(" (needs {})", suite.needs) } else { String::new() };
        let broken = if *ran { "" } else { "  DID NOT FINISH" };
        println!(
            "{:<6} {passed} passed, {failed} failed, {skipped} skipped{why}{broken}",
            suite.name
        );
        all.passed += passed;
        all.skipped += skipped;
        // A suite that fails without a failing test (it does not compile, it was killed) fails.
        all.failed += failed + u64::from(!ran && *failed == 0);
    }
    // Where everything can run, everything must have.
    let incomplete = all.skipped > 0 && std::env::var_os("CI").is_some();
    if incomplete {
        println!("in CI no test may be skipped");
    }
    println!("{} passed, {} failed, {} skipped", all.passed, all.failed, all.skipped);
    let bad = all.failed > 0 || incomplete || all.passed == 0;
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Its counts, and whether cargo called it a success.
fn run_suite(
    suite: &Suite,
    args: &Args,
    built: &Built,
    path: &std::ffi::OsStr,
) -> Result<(Counts, bool)> {
    let mut command = cargo();
    command.args(["test", "--no-fail-fast", "--quiet"]).args(suite.cargo);
    command.args(args.filter.as_deref()).arg("--");
    if suite.alone {
        command.arg("--test-threads=1");
    }
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
    let status = child.wait().context("cannot wait for cargo test")?;
    Ok((counts, status.success()))
}

impl Counts {
    fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

/// `test result: ok. 49 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0s`
fn result(line: &str) -> Option<Counts> {
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
}
