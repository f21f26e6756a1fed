//! `cargo xtask build`: the probes, then the executable that carries them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};

use crate::{
    process::{cargo, output, quiet_in_logs, root, run as run_process},
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
    let ctwatch = root().join("target").join(host()?).join("release/ctwatch");
    if !ctwatch.is_file() {
        eprintln!("xtask: compiling ctwatch for the first time, which takes a minute");
    }
    run_process(
        quiet_in_logs(&mut static_cargo("build")?)
            .args(["--release", "--package", "ctwatch"])
            .env("CTWATCH_PROBES", &probes),
    )?;
    ensure!(ctwatch.is_file(), "cargo built no {}", ctwatch.display());
    // Where everybody looks for it.
    let place = root().join("target/release");
    fs::create_dir_all(&place)?;
    let link = place.join("ctwatch");
    let _ = fs::remove_file(&link);
    fs::hard_link(&ctwatch, &link).with_context(|| format!("cannot make {}", link.display()))?;
    Ok(Built { ctwatch: link, probes })
}

/// PID 1 of the virtual machines.
pub(crate) fn init() -> Result<PathBuf> {
    let mut cargo = static_cargo("build")?;
    run_process(quiet_in_logs(&mut cargo).args(["--release", "--package", "ctwatch-vm"]))?;
    Ok(root().join("target").join(host()?).join("release/ctwatch-vm-init"))
}

/// The tests of the live kernel, for machines that have nothing but a kernel.
pub(crate) fn live_tests(probes: &Path) -> Result<PathBuf> {
    let mut cargo = static_cargo("test")?;
    cargo.args(["--no-run", "--package", "ctwatch", "--test", "netns"]);
    cargo.args(["--message-format=json-render-diagnostics"]).env("CTWATCH_PROBES", probes);
    let messages = output(quiet_in_logs(&mut cargo))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "netns")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no tests of the live kernel")
}

/// Cargo, building executables that bring their C library with them: the same file runs on every
/// Linux. The target is named so that the flag is for them alone and not for build scripts and
/// macros.
pub(crate) fn static_cargo(subcommand: &str) -> Result<Command> {
    let host = host()?;
    let mut cargo = cargo();
    let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", host.to_uppercase().replace('-', "_"));
    // The more general variable would replace this one.
    let mut flags = env::var("RUSTFLAGS").or_else(|_| env::var(&variable)).unwrap_or_default();
    flags.push_str(" -C target-feature=+crt-static");
    cargo.args([subcommand, "--target", host]).env(variable, flags.trim());
    cargo.env_remove("RUSTFLAGS");
    Ok(cargo)
}

/// This machine's target, as rustc calls it.
pub(crate) fn host() -> Result<&'static str> {
    static HOST: OnceLock<String> = OnceLock::new();
    if let Some(host) = HOST.get() {
        return Ok(host);
    }
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = output(Command::new(rustc).arg("-vV").current_dir(root()))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc -vV names no host")?;
    Ok(HOST.get_or_init(|| host.to_owned()))
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
