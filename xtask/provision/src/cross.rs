//! Compiling for other machines: Debian's rustc, with the standard library and the C library of
//! theirs, unpacked. rustup's own linker links for all of them, so no other C compiler is needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    Thing,
    debian_rust::DebianRust,
    machine::Machine,
    process::{cargo, find, output, root},
    tools,
};

/// In its folder: the version of rustc that it goes with.
pub const GOES_WITH: &str = "goes-with";

pub struct Cross {
    pub machine: Machine,
    rust: DebianRust,
    dir: PathBuf,
    linker: PathBuf,
}

impl Cross {
    pub fn provide(machine: Machine) -> Result<Self> {
        let name = machine.name();
        let provided = || {
            let rust = DebianRust::provide()?;
            let thing = Thing::Cross(machine);
            // rustc takes no standard library but its own version's.
            if !goes_with(&thing.place(), &rust.version()?) {
                thing.fetch()?;
            }
            Ok(Self { machine, rust, dir: thing.provide()?, linker: linker()? })
        };
        let provided: Result<Self> = provided();
        provided.with_context(|| format!("what compiles for {name} could not be had"))
    }

    /// Where executables for this machine and profile are. What cargo calls `dev` it builds into `debug`.
    pub fn built(&self, profile: &str) -> PathBuf {
        let profile = if profile == "dev" { "debug" } else { profile };
        folder().join(self.machine.target()).join(profile)
    }

    /// Cargo, building executables for that machine which bring their C library with them.
    pub fn cargo(&self, subcommand: &str) -> Result<Command> {
        let target = self.machine.target();
        let mut cargo = cargo();
        cargo.args([subcommand, "--target", target]).env("CARGO_TARGET_DIR", folder());
        for of_the_host in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
            cargo.env_remove(of_the_host);
        }
        let variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
        cargo
            .env("RUSTC", self.rust.rustc())
            .env("LD_LIBRARY_PATH", self.rust.libraries()?)
            // To name what a linker is given before anything else, which a stable rustc hides.
            .env("RUSTC_BOOTSTRAP", "1")
            .env(variable, &self.linker)
            // With a target named, these are not for build scripts and macros.
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags()?.join("\x1f"));
        Ok(cargo)
    }

    /// Has it compile C too: clang does for every machine, and what is compiled includes nothing of a C library.
    pub fn with_c(&self, cargo: &mut Command) -> Result<()> {
        let name =
            |variable: &str| format!("{variable}_{}", self.machine.target().replace('-', "_"));
        cargo.env(name("CC"), tools::clang()?).env(name("AR"), "ar");
        cargo.env(name("CFLAGS"), "-nostdlibinc -DRING_CORE_NOSTDLIBINC=1");
        Ok(())
    }

    /// What a C compiler would do for a static executable, one that may be loaded anywhere if possible.
    fn flags(&self) -> Result<Vec<String>> {
        let libraries = self.dir.join("usr/lib").join(self.machine.multiarch());
        let compilers = self.dir.join("usr/lib/gcc").join(self.machine.multiarch());
        let gcc = newest(&compilers)?;
        let text = |path: PathBuf| {
            let shown = path.display().to_string();
            path.into_os_string().into_string().ok().with_context(|| format!("{shown} is no text"))
        };
        let sysroot = text(self.dir.join("usr"))?;
        let mut flags = vec![
            format!("--sysroot={sysroot}"),
            "-Ctarget-feature=+crt-static".to_owned(),
            "-Zunstable-options".to_owned(),
            "-Clinker-flavor=gnu-lld".to_owned(),
            format!("-Lnative={}", text(libraries.clone())?),
            format!("-Lnative={}", text(gcc.clone())?),
        ];
        // Debian's C library for armhf has no start for an executable that may be loaded anywhere.
        let anywhere = libraries.join("rcrt1.o").is_file();
        let (start, begin, end) = match anywhere {
            true => ("rcrt1.o", "crtbeginS.o", "crtendS.o"),
            false => ("crt1.o", "crtbeginT.o", "crtend.o"),
        };
        for first in [libraries.join(start), libraries.join("crti.o"), gcc.join(begin)] {
            flags.push(format!("-Zpre-link-arg={}", text(first)?));
        }
        if anywhere {
            // Rust knows that of few targets.
            for wanted in ["-pie", "--no-dynamic-linker", "-ztext"] {
                flags.push(format!("-Zpre-link-arg={wanted}"));
            }
        } else {
            flags.push("-Crelocation-model=static".to_owned());
        }
        // They need each other.
        for library in ["--start-group", "-lgcc", "-lgcc_eh", "-lc", "--end-group"] {
            flags.push(format!("-Clink-arg={library}"));
        }
        for last in [gcc.join(end), libraries.join("crtn.o")] {
            flags.push(format!("-Clink-arg={}", text(last)?));
        }
        Ok(flags)
    }
}

/// Apart from that of this machine: another compiler would have everything compiled anew there.
fn folder() -> PathBuf {
    root().join("target/cross")
}

/// Whether what is there goes with this rustc.
pub fn goes_with(dir: &Path, version: &str) -> bool {
    fs::read_to_string(dir.join(GOES_WITH)).is_ok_and(|there| there == version)
}

/// GCC's parts of a program are in a folder of its version's.
fn newest(folder: &Path) -> Result<PathBuf> {
    let versions = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    let paths = versions.flatten().map(|entry| entry.path());
    paths.max().with_context(|| format!("{} is empty", folder.display()))
}

fn linker() -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]).current_dir(root()))?;
    let targets = Path::new(sysroot.trim()).join("lib/rustlib");
    let targets = fs::read_dir(&targets).with_context(|| format!("no {}", targets.display()))?;
    let linkers = targets.flatten().map(|entry| entry.path().join("bin/rust-lld"));
    let linker = linkers.into_iter().find(|path| path.is_file()).or_else(|| find("ld.lld"));
    linker.context("this Rust comes without rust-lld, and there is no ld.lld: rustup's has it")
}
