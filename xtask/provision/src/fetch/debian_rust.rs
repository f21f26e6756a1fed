//! Debian's rustc, which comes with a `core` that is already compiled for BPF.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use ctwatch_provision::{Thing, bpf::TARGET, debian_rust::DebianRust, process::output};

use super::{
    Of, Store,
    apt::{Apt, Package, summary},
    say,
};

/// rustc, what it compiles against here and for BPF, and its clippy.
type Family = [&'static str; 4];

const FAMILIES: [Family; 2] = [
    // Stable Debian's own rustc is old; this is the one that browsers are built with.
    ["rustc-web", "libstd-rust-web-dev", "libstd-rust-web-dev-bpf", "rust-web-clippy"],
    ["rustc", "libstd-rust-dev", "libstd-rust-dev-bpf", "rust-clippy"],
];

pub(super) fn provide(store: &Store) -> Result<()> {
    store.folder(&Thing::DebianRust, Of::ThisMachine, |dir| unpack(store, dir))
}

fn unpack(store: &Store, dir: &Path) -> Result<()> {
    let apt = Apt::open(store)?;
    let packages = choose(&apt)?;
    say(&format!(
        "fetching a Rust compiler with a core for BPF from Debian, because there is no rustup \
         nightly with rust-src and bpf-linker: {}",
        summary(&packages)
    ));
    apt.unpack(&packages, dir)?;
    try_out(&DebianRust(dir.to_owned()))
}

/// The first family that there is, with what it needs and this machine lacks.
fn choose(apt: &Apt) -> Result<Vec<Package>> {
    let mut refused = Vec::new();
    for family in FAMILIES {
        if let Err(error) = apt.look_up(&family.map(str::to_owned)) {
            refused.push(format!("{error:#}"));
            continue;
        }
        let mut names = family.map(str::to_owned).to_vec();
        // rustc's own library and LLVM have versions in their names.
        let helper = |name: &str| name.starts_with("libstd-rust-") || name.starts_with("libllvm");
        let helpers = apt.dependencies(family[0])?.into_iter().filter(|name| helper(name));
        // Small images also lack libraries that LLVM loads. A linker is not among what may be
        // missing: this program went through one.
        let library =
            |name: &str| name == "zlib1g" || name.starts_with("lib") && !name.ends_with("-dev");
        let libraries = apt.missing_for(&family)?.into_iter().filter(|name| library(name));
        for name in helpers.chain(libraries) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        return apt.look_up(&names);
    }
    bail!("{}", refused.join("; "))
}

/// That the packages are there does not say that they fit each other: their versions are compared
/// by nobody, and rustc takes no core but its own.
fn try_out(rust: &DebianRust) -> Result<()> {
    let source = rust.0.join("fits.rs");
    fs::write(&source, "#![no_std]\npub fn one() -> Option<u8> { Some(1) }\n")?;
    let mut rustc = Command::new(rust.rustc());
    rustc.env("LD_LIBRARY_PATH", rust.libraries()?);
    rustc.args(["--target", TARGET, "--crate-type", "rlib", "--out-dir"]).arg(&rust.0);
    output(rustc.arg(&source)).context("Debian's rustc and its core for BPF do not fit")?;
    Ok(())
}
