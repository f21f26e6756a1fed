//! `cargo xtask build`: the probes, then the executable that carries them.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{
    process::{cargo, quiet_in_logs, root, run as run_process},
    provision::{
        Store,
        bpf::{TARGET, Toolchain},
    },
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build probes that report every event they count (aya-log); for finding faults in them
    #[arg(long)]
    talk: bool,
}

/// What was built.
pub(crate) struct Built {
    pub(crate) ctwatch: PathBuf,
    /// The BPF object, for other builds of the same workspace.
    pub(crate) probes: PathBuf,
}

pub(crate) fn run(args: &Options) -> Result<Built> {
    let probes = probes(args.talk)?;
    let ctwatch = root().join("target/release/ctwatch");
    if !ctwatch.is_file() {
        eprintln!("xtask: compiling ctwatch for the first time, which takes a minute");
    }
    run_process(
        quiet_in_logs(&mut cargo())
            .args(["build", "--release", "--package", "ctwatch"])
            .env("CTWATCH_PROBES", &probes),
    )?;
    ensure!(ctwatch.is_file(), "cargo built no {}", ctwatch.display());
    Ok(Built { ctwatch, probes })
}

fn probes(talk: bool) -> Result<PathBuf> {
    let toolchain = Toolchain::provide(&Store::open()?)?;
    let mut cargo = toolchain.cargo("build")?;
    cargo.args(["--release", "--bin", "ctwatch-ebpf"]);
    if talk {
        cargo.args(["--features", "talk"]);
    }
    run_process(quiet_in_logs(&mut cargo))?;
    let object = root().join("target/bpf").join(TARGET).join("release/ctwatch-ebpf");
    // Cargo keeps one object for each set of features and puts the one it was asked for in place
    // with the age it has, which the next build would take for "unchanged".
    let probes = root().join("target/bpf/probes.o");
    let built =
        fs::read(&object).with_context(|| format!("cargo built no {}", object.display()))?;
    if fs::read(&probes).ok().as_ref() != Some(&built) {
        fs::write(&probes, built).with_context(|| format!("cannot write {}", probes.display()))?;
    }
    Ok(probes)
}
