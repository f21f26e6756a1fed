//! `cargo xtask fuzz`: libFuzzer at ctwatch's parsers, guided by what each input reaches.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};

use super::build::host;
use ctwatch_provision::process::{cargo, quiet_in_logs, root, run as run_process};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this parser: a folder in tests/fuzz/seeds
    parser: Option<String>,
    /// For how long to try each
    #[arg(long, default_value_t = 30)]
    seconds: u32,
}

/// What libFuzzer wants to be told, from the stable compiler: which branches were taken, and what
/// was compared with what. Arithmetic that overflows is a fault too.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
     -Ccodegen-units=1 -Cdebug-assertions --cfg fuzzing";

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let seeds = root().join("tests/fuzz/seeds");
    let parsers = chosen(&seeds, args.parser.as_deref())?;
    let target = root().join("target/fuzz");
    let host = host()?;
    eprintln!("xtask: compiling the parsers with libFuzzer, which needs a C++ compiler");
    run_process(
        quiet_in_logs(&mut cargo())
            .args(["build", "--release", "--package", "ctwatch-fuzz", "--bin", "guided"])
            .args(["--features", "guided", "--target", host])
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", FLAGS),
    )?;
    let guided = target.join(host).join("release/guided");
    let mut fallen = Vec::new();
    for parser in &parsers {
        eprintln!("xtask: {parser}, for {} s", args.seconds);
        let [corpus, found] = ["corpus", "found"].map(|folder| target.join(folder).join(parser));
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut fuzzer = Command::new(&guided);
        fuzzer.env("CTWATCH_PARSER", parser);
        fuzzer.arg(format!("-max_total_time={}", args.seconds));
        fuzzer.arg(format!("-artifact_prefix={}/", found.display()));
        fuzzer.args(["-timeout=5", "-verbosity=0", "-print_final_stats=1"]);
        fuzzer.arg(corpus).arg(seeds.join(parser));
        if run_process(&mut fuzzer).is_err() {
            fallen.push(format!("{parser} (the input is in {})", found.display()));
        }
    }
    if !fallen.is_empty() {
        bail!("these fell: {}; keep the input among the seeds", fallen.join(", "));
    }
    println!("{} parsers, {} s each: none fell", parsers.len(), args.seconds);
    Ok(ExitCode::SUCCESS)
}

/// Every folder of seeds is a parser's.
fn chosen(seeds: &Path, wanted: Option<&str>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(seeds).with_context(|| format!("cannot read {}", seeds.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    if let Some(wanted) = wanted {
        ensure!(names.iter().any(|name| name == wanted), "{wanted:?} is none of {names:?}");
        names.retain(|name| name == wanted);
    }
    Ok(names)
}
