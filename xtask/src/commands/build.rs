//! `cargo xtask build`: the probes, then the executable that carries them.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};
use ctwatch_provision::{
    bpf::{self, TARGET, Toolchain},
    cross::Cross,
    machine::Machine,
    process::{cargo, output, output_with_errors, quiet_in_logs, root, run as run_process},
};

use crate::dwarf::stripped;

#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Options {
    /// Build probes that report every event they count (aya-log); for finding faults in them
    #[arg(long)]
    talk: bool,
}

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    /// Build for this machine: target/cross/TARGET/release/ctwatch
    ///
    /// By Debian's rustc, with the standard library and the C library of that machine unpacked into
    /// target/provision (200 MB). armv7, of 32 bits, has no probes.
    #[arg(long, value_name = "MACHINE", value_parser = Machine::ALL.map(Machine::name))]
    machine: Option<String>,
}

/// The profile that tests are built with: see Cargo.toml.
const GATE: &str = "gate";

/// What was built for tests.
pub(crate) struct Built {
    pub(crate) ctwatch: PathBuf,
    /// What goes into the virtual machines, by whose instructions they run.
    pub(crate) guests: BTreeMap<Machine, Inside>,
    /// Writes the man pages and completions.
    pub(crate) manual: PathBuf,
    /// The tests of the live kernel, for machines that have nothing but a kernel.
    pub(crate) live_tests: PathBuf,
    pub(crate) tests: Vec<Tests>,
}

/// What runs in a virtual machine.
#[derive(Clone)]
pub(crate) struct Inside {
    pub(crate) ctwatch: PathBuf,
    /// Its PID 1.
    pub(crate) init: PathBuf,
    pub(crate) live_tests: PathBuf,
}

impl Inside {
    fn among(artifacts: &[Artifact]) -> Result<Self> {
        Ok(Self {
            ctwatch: executable(artifacts, "ctwatch", false)?,
            init: executable(artifacts, INIT, false)?,
            live_tests: executable(artifacts, "netns", true)?,
        })
    }
}

/// An executable of tests.
pub(crate) struct Tests {
    /// Of its target: a crate's for unit tests, its own for others.
    pub(crate) name: String,
    pub(crate) kind: TestKind,
    pub(crate) executable: PathBuf,
    /// The folder of its package, which is where cargo would start it.
    pub(crate) package: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TestKind {
    Unit,
    Integration,
}

/// `cargo xtask build`.
pub(crate) fn ask(args: &Args) -> Result<PathBuf> {
    match args.machine.as_deref().and_then(Machine::named) {
        Some(machine) => for_machine(machine, &args.options),
        None => run(&args.options),
    }
}

/// The executable for this machine or another one, to be used, the probes inside.
pub(crate) fn for_machine(machine: Machine, args: &Options) -> Result<PathBuf> {
    if Machine::of_this().is_ok_and(|own| own == machine) {
        return run(args);
    }
    crossed(machine, args, "release", &[])
}

/// ctwatch alone for another machine, compiled soonest: what tries it starts it for a second at a time.
pub(crate) fn alone(machine: Machine, args: &Options) -> Result<PathBuf> {
    crossed(machine, args, "dev", &[])
}

fn crossed(machine: Machine, args: &Options, profile: &str, features: &[&str]) -> Result<PathBuf> {
    let cross = Cross::provide(machine)?;
    let mut cargo = cross_cargo(&cross, args)?;
    if !features.is_empty() {
        cross.with_c(cargo.args(features))?;
    }
    cargo.args(["--profile", profile, "--package", "ctwatch", "--bin", "ctwatch"]);
    run_process(quiet_in_logs(&mut cargo))?;
    let ctwatch = cross.built(profile).join("ctwatch");
    ensure!(ctwatch.is_file(), "cargo built no {}", ctwatch.display());
    Ok(ctwatch)
}

/// Cargo that builds for another machine, with the probes for its kernel where it has any.
fn cross_cargo(cross: &Cross, args: &Options) -> Result<Command> {
    let mut cargo = cross.cargo("build")?;
    if cross.machine.has_probes() {
        cargo.env("CTWATCH_PROBES", probes(args.talk, cross.machine)?);
    } else {
        cargo.env_remove("CTWATCH_PROBES");
    }
    Ok(cargo)
}

/// The executable to be used, the probes inside.
pub(crate) fn run(args: &Options) -> Result<PathBuf> {
    let probes = probes(args.talk, Machine::of_this()?)?;
    let ctwatch = root().join("target").join(host()?).join("release/ctwatch");
    if !ctwatch.is_file() {
        eprintln!("xtask: compiling ctwatch for the first time, which takes some minutes");
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
    Ok(link)
}

/// Everything that is tested and that tests, in one go: what a second call of cargo selects differently
/// it would compile again.
pub(crate) fn tests(args: &Options) -> Result<Built> {
    let probes = probes(args.talk, Machine::of_this()?)?;
    let mut cargo = static_cargo("build")?;
    cargo.args(["--profile", GATE, "--workspace", "--lib", "--bins", "--tests", "--examples"]);
    cargo.args(["--message-format=json-render-diagnostics"]).env("CTWATCH_PROBES", &probes);
    let artifacts = artifacts(&output_with_errors(quiet_in_logs(&mut cargo))?);
    let own = Inside::among(&artifacts)?;
    Ok(Built {
        ctwatch: own.ctwatch.clone(),
        manual: executable(&artifacts, MANUAL, false)?,
        live_tests: own.live_tests.clone(),
        guests: BTreeMap::from([(Machine::of_this()?, own)]),
        tests: artifacts.into_iter().filter(|a| a.is_test).filter_map(Artifact::tests).collect(),
    })
}

/// What runs in virtual machines of another kind, built for tests.
pub(crate) fn inside(machine: Machine, args: &Options) -> Result<Inside> {
    let cross = Cross::provide(machine)?;
    let mut cargo = cross_cargo(&cross, args)?;
    cargo.args(["--profile", GATE, "--package", "ctwatch", "--package", "ctwatch-vm"]);
    cargo.args(["--bin", "ctwatch", "--bin", INIT, "--test", "netns"]);
    cargo.arg("--message-format=json-render-diagnostics");
    let artifacts = artifacts(&output_with_errors(quiet_in_logs(&mut cargo))?);
    Inside::among(&artifacts).with_context(|| format!("for {}", machine.name()))
}

const INIT: &str = "ctwatch-vm-init";
const MANUAL: &str = "manual";

/// What packages have, and needs a compiler of C.
pub(crate) const WITH_TLS: [&str; 2] = ["--features", "tls"];

/// What is packed.
pub(crate) struct Packed {
    /// With all that can be left out.
    pub(crate) ctwatch: PathBuf,
    /// In it.
    pub(crate) probes: Option<PathBuf>,
}

pub(crate) fn packed(machine: Machine, args: &Options) -> Result<Packed> {
    let compiled = || probes(args.talk, machine);
    let probes = machine.has_probes().then(compiled).transpose()?;
    if Machine::of_this()? != machine {
        return Ok(Packed { ctwatch: crossed(machine, args, "release", &WITH_TLS)?, probes });
    }
    let mut cargo = static_cargo("build")?;
    cargo.args(["--release", "--package", "ctwatch", "--bin", "ctwatch"]).args(WITH_TLS);
    match &probes {
        Some(probes) => cargo.env("CTWATCH_PROBES", probes),
        None => cargo.env_remove("CTWATCH_PROBES"),
    };
    run_process(quiet_in_logs(&mut cargo))?;
    let folder = root().join("target").join(host()?).join("release");
    Ok(Packed { ctwatch: folder.join("ctwatch"), probes })
}

/// What writes the man pages and completions, on this machine for all, compiled soonest.
pub(crate) fn manual() -> Result<PathBuf> {
    let mut cargo = static_cargo("build")?;
    cargo.args(["--package", "ctwatch", "--example", MANUAL]).args(WITH_TLS);
    run_process(quiet_in_logs(cargo.env_remove("CTWATCH_PROBES")))?;
    Ok(root().join("target").join(host()?).join("debug/examples").join(MANUAL))
}

/// PID 1 of the virtual machines, alone.
pub(crate) fn init() -> Result<PathBuf> {
    let mut cargo = static_cargo("build")?;
    let args = ["--profile", GATE, "--package", "ctwatch-vm"];
    run_process(quiet_in_logs(&mut cargo).args(args))?;
    Ok(root().join("target").join(host()?).join(GATE).join(INIT))
}

/// An executable that cargo made.
struct Artifact {
    name: String,
    kind: String,
    is_test: bool,
    executable: PathBuf,
    manifest: PathBuf,
}

impl Artifact {
    fn tests(self) -> Option<Tests> {
        let kind = match self.kind.as_str() {
            "test" => TestKind::Integration,
            "bench" | "example" => return None,
            _ => TestKind::Unit,
        };
        let package = self.manifest.parent()?.to_path_buf();
        Some(Tests { name: self.name, kind, executable: self.executable, package })
    }
}

fn executable(artifacts: &[Artifact], name: &str, is_test: bool) -> Result<PathBuf> {
    let found = artifacts.iter().find(|a| a.name == name && a.is_test == is_test);
    found.map(|a| a.executable.clone()).with_context(|| format!("cargo built no {name}"))
}

/// From cargo's messages, a JSON object each.
fn artifacts(messages: &str) -> Vec<Artifact> {
    let of = |message: serde_json::Value| {
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        Some(Artifact {
            name: text(&message["target"]["name"])?,
            kind: text(&message["target"]["kind"][0])?,
            is_test: message["profile"]["test"].as_bool()?,
            executable: text(&message["executable"])?.into(),
            manifest: text(&message["manifest_path"])?.into(),
        })
    };
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    messages.filter_map(of).collect()
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
    if links_smaller() {
        flags.push_str(&format!(" {}", SMALLER.join(" ")));
    }
    cargo.args([subcommand, "--target", host]).env(variable, flags.trim());
    cargo.env_remove("RUSTFLAGS");
    Ok(cargo)
}

/// Equal functions are kept once, and relocations in a bit each: together half a megabyte.
const SMALLER: [&str; 4] =
    ["-C", "link-arg=-Wl,--icf=all", "-C", "link-arg=-Wl,-z,pack-relative-relocs"];

/// GNU's linker cannot do it, and C libraries before glibc 2.36 start nothing that is linked so: it is tried.
fn links_smaller() -> bool {
    static TRIED: OnceLock<bool> = OnceLock::new();
    *TRIED.get_or_init(|| {
        let folder = root().join("target/xtask").join(std::process::id().to_string());
        let tried = tried(&folder);
        let _ = fs::remove_dir_all(&folder);
        tried.is_ok()
    })
}

fn tried(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let (source, program) = (folder.join("empty.rs"), folder.join("empty"));
    fs::write(&source, "fn main() {}")?;
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(rustc);
    rustc.args(["--edition=2024", "-C", "target-feature=+crt-static"]).args(SMALLER);
    output(rustc.current_dir(root()).arg(&source).arg("-o").arg(&program))?;
    output(&mut Command::new(&program)).map(|_| ())
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

fn probes(talk: bool, machine: Machine) -> Result<PathBuf> {
    let toolchain = Toolchain::provide()?;
    let mut cargo = toolchain.cargo("build", machine)?;
    cargo.args(["--release", "--bin", "ctwatch-ebpf"]);
    if talk {
        cargo.args(["--features", "talk"]);
    }
    run_process(quiet_in_logs(&mut cargo))?;
    let folder = bpf::folder(machine);
    let object = folder.join(TARGET).join("release/ctwatch-ebpf");
    // Cargo keeps one object for each set of features and puts the one it was asked for in place
    // with the age it has, which the next build would take for "unchanged".
    let probes = folder.join("probes.o");
    let built =
        fs::read(&object).with_context(|| format!("cargo built no {}", object.display()))?;
    let built = stripped(&built).with_context(|| format!("{}", object.display()))?;
    if fs::read(&probes).ok().as_ref() != Some(&built) {
        fs::write(&probes, built).with_context(|| format!("cannot write {}", probes.display()))?;
    }
    Ok(probes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_in_cargos_messages() {
        let message = |name: &str, kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/x/Cargo.toml","target":{{"name":"{name}","kind":["{kind}"]}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let messages = [
            message("ctwatch", "lib", false, "null"),
            message("ctwatch", "bin", false, "\"/t/ctwatch\""),
            message("ctwatch", "lib", true, "\"/t/deps/ctwatch-1\""),
            message("netns", "test", true, "\"/t/deps/netns-1\""),
            "not JSON".to_owned(),
        ];
        let found = artifacts(&messages.join("\n"));
        let names: Vec<_> = found.iter().map(|a| (a.name.as_str(), a.is_test)).collect();
        assert_eq!(names, [("ctwatch", false), ("ctwatch", true), ("netns", true)]);
        let tests = found.into_iter().filter(|a| a.is_test).filter_map(Artifact::tests);
        let kinds: Vec<_> = tests.map(|tests| (tests.kind, tests.package)).collect();
        assert_eq!(
            kinds,
            [(TestKind::Unit, "/w/x".into()), (TestKind::Integration, "/w/x".into())]
        );
    }
}
