//! Tests of the live kernel that are too long for each change: `cargo xtask soak`, `cargo xtask faults`.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use super::build;
use ctwatch_provision::tools;

#[derive(clap::Args)]
pub(crate) struct Soak {
    /// For so many minutes, or with a unit: 600s, 10m, 24h
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = seconds)]
    seconds: u64,
    #[command(flatten)]
    build: build::Options,
}

#[derive(clap::Args)]
pub(crate) struct Faults {
    #[command(flatten)]
    build: build::Options,
    /// Only tests whose name contains this
    filter: Option<String>,
}

fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" | "" => 60,
        "h" => 3600,
        other => return Err(format!("{other:?} is no unit: s, m, h")),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{digits:?}: {error}"))?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or("no time".to_owned())
}

pub(crate) fn soak(args: &Soak) -> Result<ExitCode> {
    run(&args.build, "CTWATCH_SOAK", &args.seconds.to_string(), &["soak"])
}

pub(crate) fn faults(args: &Faults) -> Result<ExitCode> {
    const SUITE: [&str; 6] = [
        "outputs_that_cannot_be_written",
        "limits_that_are_too_tight",
        "capabilities_that_are_missing",
        "files_that_are_no_files",
        "signals_are_heard_while_nobody_reads",
        "killed_while_it_starts",
    ];
    let filter = args.filter.as_deref().unwrap_or_default();
    let wanted: Vec<&str> = SUITE.into_iter().filter(|name| name.contains(filter)).collect();
    ensure!(!wanted.is_empty(), "no test of the faults is called {filter}");
    for name in wanted {
        let code = run(&args.build, "CTWATCH_FAULTS", "all", &["--exact", name])?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run(options: &build::Options, name: &str, value: &str, args: &[&str]) -> Result<ExitCode> {
    ensure!(rustix::process::geteuid().is_root(), "this needs root, for network namespaces");
    let built = build::tests(options)?;
    let status = Command::new(&built.live_tests)
        .arg("--test-threads=1")
        .args(args)
        .env("PATH", tools::path()?)
        .env("CTWATCH_BIN", &built.ctwatch)
        .env(name, value)
        .status()
        .with_context(|| format!("cannot start {}", built.live_tests.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_time_has_a_unit_or_is_minutes() {
        assert_eq!((seconds("90s"), seconds("10m"), seconds("2")), (Ok(90), Ok(600), Ok(120)));
        assert_eq!(seconds("24h"), Ok(86_400));
        for wrong in ["", "0", "m", "5d", "-1", "18446744073709551615h"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
