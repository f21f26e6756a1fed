//! `cargo xtask build`: the probes, then the executable that carries them.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::{
    process::{cargo, root, run as run_process},
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
    run_process(
        cargo()
            .args(["build", "--release", "--quiet", "--package", "ctwatch"])
            .env("CTWATCH_PROBES", &probes),
    )?;
    let ctwatch = root().join("target/release/ctwatch");
    ensure!(ctwatch.is_file(), "cargo built no {}", ctwatch.display());
    Ok(Built { ctwatch, probes })
}

fn probes(talk: bool) -> Result<PathBuf> {
    let toolchain = Toolchain::provide(&Store::open()?)?;
    let target_dir = root().join("target/bpf");
    let mut cargo = toolchain.cargo()?;
    cargo.args(["build", "--release", "--quiet", "--package", "ctwatch-ebpf"]);
    cargo.args(["--bin", "ctwatch-ebpf", "--target-dir"]).arg(&target_dir);
    cargo.args(toolchain.arguments());
    if talk {
        cargo.args(["--features", "talk"]);
    }
    run_process(&mut cargo)?;
    let object = target_dir.join(TARGET).join("release/ctwatch-ebpf");
    ensure!(object.is_file(), "cargo built no {}", object.display());
    Ok(object)
}
