//! Debian's rustc, which comes with a `core` that is already compiled for BPF.

use std::{ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{Thing, bpf::multiarch, process::output};

/// The packages that a rustc may come in, and those with the standard library that goes with it.
pub const PACKAGES: [(&str, &str); 2] =
    [("rustc-web", "libstd-rust-web-dev"), ("rustc", "libstd-rust-dev")];

/// Where it is unpacked.
pub struct DebianRust(pub PathBuf);

impl DebianRust {
    pub fn provide() -> Result<Self> {
        Thing::DebianRust.provide().map(Self)
    }

    /// What its package calls its version, by the first line of its list of changes.
    pub fn version(&self) -> Result<String> {
        let (_, text) = self.changes()?;
        let version = text.split(['(', ')']).nth(1).context("Debian's rustc has no version")?;
        Ok(version.to_owned())
    }

    /// The package with the standard library that goes with it.
    pub fn library(&self) -> Result<&'static str> {
        Ok(self.changes()?.0)
    }

    fn changes(&self) -> Result<(&'static str, String)> {
        let file = |package| self.0.join("usr/share/doc").join(package).join("changelog.Debian.gz");
        let mut files = PACKAGES.iter().map(|(package, library)| (file(package), *library));
        let (file, library) =
            files.find(|(file, _)| file.is_file()).context("Debian's rustc does not say which")?;
        Ok((library, output(Command::new("gzip").arg("-dc").arg(file))?))
    }

    pub fn rustc(&self) -> PathBuf {
        self.0.join("usr/bin/rustc")
    }

    pub(crate) fn clippy_driver(&self) -> PathBuf {
        self.0.join("usr/bin/clippy-driver")
    }

    /// Its sysroot, which it finds by itself, but clippy does not.
    pub(crate) fn sysroot(&self) -> PathBuf {
        self.0.join("usr")
    }

    /// For LD_LIBRARY_PATH: rustc's own libraries, and the libLLVM that bpf-linker loads, which is
    /// thereby never older than the bitcode it links.
    pub fn libraries(&self) -> Result<OsString> {
        let arch = multiarch()?;
        let places = ["usr/lib", "lib"].map(|lib| self.0.join(lib).join(&arch));
        std::env::join_paths(places).context("a folder of this workspace has a colon in its name")
    }
}
