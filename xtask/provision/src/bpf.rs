//! A Rust toolchain that compiles for the kernel.
//!
//! The stock set-up of aya (a nightly toolchain with `rust-src`, `bpf-linker` on PATH) is used
//! where it is present; otherwise Debian's rustc, with a `bpf-linker` built here.

use std::{env::consts::ARCH, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    Thing,
    crates::BPF_LINKER,
    debian_rust::DebianRust,
    machine::Machine,
    process::{cargo, find, output, root},
};

#[cfg(target_endian = "little")]
pub const TARGET: &str = "bpfel-unknown-none";
#[cfg(target_endian = "big")]
pub const TARGET: &str = "bpfeb-unknown-none";

pub enum Toolchain {
    /// nightly with rust-src: compiles `core` itself.
    Stock { linker: PathBuf },
    /// Debian's rustc, unpacked here.
    Debian { rust: DebianRust, linker: PathBuf },
}

impl Toolchain {
    pub fn provide() -> Result<Self> {
        if let Some(linker) = find("bpf-linker").filter(|_| has_rust_src()) {
            return Ok(Self::Stock { linker });
        }
        let debian = || {
            let rust = DebianRust::provide()?;
            let linker = BPF_LINKER.provide(&Thing::BpfLinker)?;
            Ok(Self::Debian { rust, linker })
        };
        debian().or_else(|error: anyhow::Error| {
            bail!(
                "a toolchain that compiles for BPF could not be had: {error:#}\n\
                 With one of your own nothing is fetched: rustup toolchain install nightly \
                 --component rust-src && cargo install bpf-linker"
            )
        })
    }

    /// Cargo, set up to compile for [`TARGET`], for the kernel of this machine: registers have other
    /// places on another one, so what is compiled for each has a folder of its own.
    pub fn cargo(&self, subcommand: &str, machine: Machine) -> Result<Command> {
        let (mut cargo, linker) = match self {
            Self::Stock { linker } => {
                // As rustup knows it: this cargo is the stable one and cannot take `+nightly`.
                let mut cargo = Command::new("cargo");
                cargo.current_dir(root()).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC");
                cargo.args(["+nightly", subcommand, "-Z", "build-std=core"]);
                (cargo, linker)
            }
            Self::Debian { rust, linker } => {
                let mut cargo = cargo();
                cargo
                    .arg(subcommand)
                    .env("RUSTC", rust.rustc())
                    // aya-ebpf uses asm_experimental_arch, which a stable rustc hides.
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("LD_LIBRARY_PATH", rust.libraries()?);
                (cargo, linker)
            }
        };
        // Whatever of these is set was meant for programs of the host, and some would replace
        // what is set below.
        for of_the_host in
            ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
        {
            cargo.env_remove(of_the_host);
        }
        let target = TARGET.to_uppercase().replace('-', "_");
        cargo
            .args(["--package", "ctwatch-ebpf", "--target", TARGET, "--target-dir"])
            .arg(folder(machine))
            .env(format!("CARGO_TARGET_{target}_LINKER"), linker)
            // A .BTF section lets the kernel, and whoever lists programs, name their maps' types.
            .env(
                format!("CARGO_TARGET_{target}_RUSTFLAGS"),
                format!("-C link-arg=--btf --cfg=bpf_target_arch=\"{}\"", machine.name()),
            )
            // What the kernel runs is not to be small but fast, and what it can verify.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
            .env("CARGO_PROFILE_RELEASE_STRIP", "none")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
        Ok(cargo)
    }

    /// Clippy over the probes, as the BPF target compiles them.
    pub fn clippy(&self) -> Result<Command> {
        let Self::Debian { rust, .. } = self else {
            let mut cargo = self.cargo("clippy", Machine::of_this()?)?;
            cargo.args(["--package", "ctwatch-abi", "--lib", "--bins", "--release"]);
            cargo.args(["--", "-D", "warnings"]);
            return Ok(cargo);
        };
        // What `cargo clippy` does, with the clippy that goes with this rustc.
        let mut cargo = self.cargo("check", Machine::of_this()?)?;
        cargo
            .args(["--package", "ctwatch-abi", "--lib", "--bins", "--release"])
            .env("RUSTC_WORKSPACE_WRAPPER", rust.clippy_driver())
            .env("SYSROOT", rust.sysroot())
            .env("CLIPPY_CONF_DIR", root())
            .env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
        Ok(cargo)
    }
}

/// Where it builds for that machine.
pub fn folder(machine: Machine) -> PathBuf {
    let own = Machine::of_this().is_ok_and(|own| own == machine);
    let name = if own { "bpf".to_owned() } else { format!("bpf-{}", machine.name()) };
    root().join("target").join(name)
}

fn has_rust_src() -> bool {
    let args = ["component", "list", "--installed", "--toolchain", "nightly"];
    output(Command::new("rustup").args(args)).is_ok_and(|list| list.contains("rust-src"))
}

/// Debian's name for where this machine's libraries are.
pub fn multiarch() -> Result<String> {
    match ARCH {
        "x86_64" | "aarch64" | "riscv64" => Ok(format!("{ARCH}-linux-gnu")),
        other => Err(anyhow::anyhow!("{other}")).context("no Debian packages known for this CPU"),
    }
}
