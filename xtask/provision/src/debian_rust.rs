//! Debian's rustc, which comes with a `core` that is already compiled for BPF.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context, Result};

use crate::{Thing, bpf::multiarch};

/// Where it is unpacked.
pub struct DebianRust(pub PathBuf);

impl DebianRust {
    pub(crate) fn provide() -> Result<Self> {
        Thing::DebianRust.provide().map(Self)
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
