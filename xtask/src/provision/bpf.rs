//! A Rust toolchain that compiles for the kernel.
//!
//! The stock set-up of aya (a nightly toolchain with `rust-src`, `bpf-linker` on PATH) is used
//! where it is present. Otherwise Debian ships a rustc together with a `core` that is already
//! compiled for BPF.

use std::{
    env::consts::ARCH,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Store, apt::Apt, crates, say};
use crate::process::{cargo, find, output, root};

/// Loads the libLLVM of the stable toolchain; later versions want an LLVM of the system.
const BPF_LINKER: &str = "0.10.1";
const BY_HAND: &str = "to set it up by hand: rustup toolchain install nightly --component rust-src \
                       && cargo install bpf-linker";

#[cfg(target_endian = "little")]
pub(crate) const TARGET: &str = "bpfel-unknown-none";
#[cfg(target_endian = "big")]
pub(crate) const TARGET: &str = "bpfeb-unknown-none";

pub(crate) enum Toolchain {
    /// nightly with rust-src: compiles `core` itself.
    Stock { linker: PathBuf },
    /// Debian's rustc, unpacked here.
    Debian { root: PathBuf, linker: PathBuf },
}

impl Toolchain {
    pub(crate) fn provide(store: &Store) -> Result<Self> {
        if let Some(linker) = find("bpf-linker").filter(|_| has_rust_src()) {
            return Ok(Self::Stock { linker });
        }
        let debian = || {
            let root = store.folder("rustc-bpf", |dir| unpack_rustc(store, dir))?;
            let why = "which links the probes";
            let linker = crates::build(store, "bpf-linker", BPF_LINKER, why)?;
            Ok(Self::Debian { root, linker })
        };
        debian().map_err(|error: anyhow::Error| {
            error.context(format!("no toolchain for BPF could be had ({BY_HAND})"))
        })
    }

    /// Cargo, set up to compile for [`TARGET`].
    pub(crate) fn cargo(&self) -> Result<Command> {
        let (mut cargo, linker) = match self {
            Self::Stock { linker } => {
                // As rustup knows it: this cargo is the stable one and cannot take `+nightly`.
                let mut cargo = Command::new("cargo");
                cargo.current_dir(root()).env_remove("RUSTUP_TOOLCHAIN").arg("+nightly");
                (cargo, linker)
            }
            Self::Debian { root, linker } => {
                let mut cargo = cargo();
                let libraries = [root.join("usr/lib").join(multiarch()?), rustup_libraries()?];
                cargo
                    .env("RUSTC", root.join("usr/bin/rustc"))
                    // aya-ebpf uses asm_experimental_arch, which a stable rustc hides.
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
                (cargo, linker)
            }
        };
        let target = TARGET.to_uppercase().replace('-', "_");
        cargo
            .env_remove("RUSTC_WRAPPER")
            .env(format!("CARGO_TARGET_{target}_LINKER"), linker)
            // A .BTF section lets the kernel, and whoever lists programs, name their maps' types.
            .env(format!("CARGO_TARGET_{target}_RUSTFLAGS"), "-C link-arg=--btf")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
            .env("CARGO_PROFILE_RELEASE_STRIP", "none")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
        Ok(cargo)
    }

    /// What cargo must be told after its subcommand.
    pub(crate) fn arguments(&self) -> &'static [&'static str] {
        match self {
            Self::Stock { .. } => &["-Z", "build-std=core", "--target", TARGET],
            Self::Debian { .. } => &["--target", TARGET],
        }
    }
}

fn has_rust_src() -> bool {
    let args = ["component", "list", "--installed", "--toolchain", "nightly"];
    output(Command::new("rustup").args(args)).is_ok_and(|list| list.contains("rust-src"))
}

/// `rustc-web` is Debian's most recent rustc; its helpers carry a version in their names, which
/// its own dependencies tell.
fn unpack_rustc(store: &Store, dir: &Path) -> Result<()> {
    let apt = Apt::open(store)?;
    let mut packages: Vec<String> =
        ["rustc-web", "libstd-rust-web-dev", "libstd-rust-web-dev-bpf"].map(str::to_owned).into();
    for dependency in apt.dependencies("rustc-web")? {
        let helper =
            dependency.starts_with("libstd-rust-web-") || dependency.starts_with("libllvm");
        if helper && !packages.contains(&dependency) {
            packages.push(dependency);
        }
    }
    say(&format!(
        "fetching a Rust compiler with a core for BPF from Debian (about 117 MB, 520 MB unpacked): \
         {}",
        packages.join(" ")
    ));
    apt.unpack(&packages, dir)?;
    if !dir.join("usr/lib/rustlib").join(TARGET).is_dir() {
        bail!("Debian's packages hold no core for {TARGET}");
    }
    Ok(())
}

/// Where rustup keeps the libLLVM that bpf-linker loads.
fn rustup_libraries() -> Result<PathBuf> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib"))
}

/// Debian's name for where this machine's libraries are.
pub(super) fn multiarch() -> Result<String> {
    match ARCH {
        "x86_64" | "aarch64" | "riscv64" => Ok(format!("{ARCH}-linux-gnu")),
        other => Err(anyhow::anyhow!("{other}")).context("no Debian packages known for this CPU"),
    }
}
