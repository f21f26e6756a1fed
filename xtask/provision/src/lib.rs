//! What building and testing need and this machine may lack: which things, where each of them is in
//! `target/provision`, and how it is used.
//!
//! Only what is needed to find them is here. The executable of this crate fetches and builds them;
//! it is compiled when something is missing. It changes nothing outside of `target/` and the cache,
//! and needs no root.

pub mod bpf;
pub mod chromium;
pub mod crates;
pub mod cross;
pub mod debian;
pub mod debian_rust;
pub mod duckdb;
pub mod guest;
pub mod kernels;
pub mod kubernetes;
pub mod machine;
pub mod minimum;
pub mod nfpm;
pub mod owners;
pub mod process;
pub mod prometheus_client;
pub mod qemu;
pub mod sos;
pub mod tools;

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, bail, ensure};

use machine::Machine;
use process::{cargo, root};

/// A folder of `target/provision`. Its name is also what the executable is told to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    BpfLinker,
    CargoDeny,
    /// A browser, to look at the pages that ctwatch writes.
    Chromium,
    /// What compiles C for every machine.
    Clang,
    /// Rust's and the C library of another machine.
    Cross(Machine),
    /// A Debian that boots.
    Debian,
    /// Debian's rustc, with a core for BPF.
    DebianRust,
    /// A database, to ask it what docs/ says that it answers.
    DuckDb,
    /// What runs in a virtual machine besides the tests.
    Guest(Machine),
    /// What judges the files of dist/.
    Judges,
    /// By the beginning of its version, or [`kernels::NEWEST`].
    Kernel(String),
    /// What renders manifests, and their schemas.
    Kubernetes,
    /// The oldest Rust that compiles ctwatch, by Cargo.toml.
    MinimumRust,
    /// What packs for distributions.
    Nfpm,
    /// Programs that own a firewall.
    Owners,
    /// What reads metrics as Prometheus has them.
    PrometheusClient,
    Qemu,
    /// The same for machines with an Arm CPU.
    QemuArm,
    /// What runs a single program of another machine.
    QemuUser,
    /// What the benchmark compares with.
    Rivals,
    /// What makes support archives, for the root file system of the owners.
    Sos,
    /// What the lab and the tests call.
    Tools,
}

/// Of this machine; those of others have its name behind this.
const GUEST: &str = "guest-4";

impl Thing {
    /// Those of which there is one.
    const SINGLE: [Self; 19] = [
        Self::BpfLinker,
        Self::CargoDeny,
        Self::Chromium,
        Self::Clang,
        Self::Debian,
        Self::DebianRust,
        Self::DuckDb,
        Self::Judges,
        Self::Kubernetes,
        Self::MinimumRust,
        Self::Nfpm,
        Self::Owners,
        Self::PrometheusClient,
        Self::Qemu,
        Self::QemuArm,
        Self::QemuUser,
        Self::Rivals,
        Self::Sos,
        Self::Tools,
    ];

    /// The name of the folder: another name whenever its content is another.
    pub fn folder(&self) -> String {
        match self {
            Self::BpfLinker => crates::BPF_LINKER.folder(),
            Self::CargoDeny => crates::CARGO_DENY.folder(),
            Self::Chromium => "chromium".to_owned(),
            Self::Clang => "clang".to_owned(),
            Self::Cross(machine) => format!("cross-{}", machine.name()),
            Self::Debian => "debian-1".to_owned(),
            Self::DebianRust => "debian-rust".to_owned(),
            Self::DuckDb => format!("duckdb-{}", duckdb::VERSION),
            Self::Guest(machine) => match Machine::of_this() {
                Ok(own) if own == *machine => GUEST.to_owned(),
                _ => format!("{GUEST}-{}", machine.name()),
            },
            Self::Judges => "judges".to_owned(),
            Self::Kernel(name) => format!("kernel-{name}"),
            Self::Kubernetes => format!("kubernetes-{}", kubernetes::VERSION),
            Self::MinimumRust => format!("rust-{}", minimum::version()),
            Self::Nfpm => format!("nfpm-{}", nfpm::VERSION),
            Self::Owners => "owners-1".to_owned(),
            Self::PrometheusClient => format!("prometheus-client-{}", prometheus_client::VERSION),
            Self::Qemu => "qemu".to_owned(),
            Self::QemuArm => "qemu-arm".to_owned(),
            Self::QemuUser => "qemu-user".to_owned(),
            Self::Rivals => "rivals".to_owned(),
            Self::Sos => "sos-1".to_owned(),
            Self::Tools => "tools".to_owned(),
        }
    }

    /// The thing that is in the folder of this name.
    pub fn named(folder: &str) -> Option<Self> {
        if let Some(kernel) = folder.strip_prefix("kernel-") {
            return Some(Self::Kernel(kernel.to_owned()));
        }
        if let Some(machine) = folder.strip_prefix(GUEST) {
            let named = machine.strip_prefix('-').map(Machine::named);
            return named.unwrap_or_else(|| Machine::of_this().ok()).map(Self::Guest);
        }
        if let Some(machine) = folder.strip_prefix("cross-") {
            return Machine::named(machine).map(Self::Cross);
        }
        Self::SINGLE.into_iter().find(|thing| thing.folder() == folder)
    }

    pub(crate) fn place(&self) -> PathBuf {
        root().join("target/provision").join(self.folder())
    }

    /// Where it is; fetched if it is not there. A folder gets its name when it is complete.
    pub(crate) fn provide(&self) -> Result<PathBuf> {
        let place = self.place();
        if !place.is_dir() {
            self.fetch()?;
        }
        ensure!(place.is_dir(), "{} was fetched and is not there", place.display());
        Ok(place)
    }

    /// Has the executable of this crate fetch it. What that prints to standard output is why it
    /// could not.
    pub(crate) fn fetch(&self) -> Result<()> {
        let folder = self.folder();
        let output = cargo()
            .args(["run", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--", &folder])
            // A folder of its own: this may be called while cargo is at work in the other.
            .env("CARGO_TARGET_DIR", root().join("target/fetch"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start cargo")?;
        if !output.status.success() {
            match String::from_utf8_lossy(&output.stdout).trim() {
                "" => bail!("{folder} was not fetched ({})", output.status),
                why => bail!("{why}"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_found_by_its_folder() {
        let kernel = Thing::Kernel("6.1".to_owned());
        let others = Machine::ALL.into_iter().flat_map(|m| [Thing::Cross(m), Thing::Guest(m)]);
        for thing in Thing::SINGLE.into_iter().chain([kernel]).chain(others) {
            assert_eq!(Thing::named(&thing.folder()), Some(thing));
        }
        assert_eq!(Thing::named("guest"), None);
    }
}
