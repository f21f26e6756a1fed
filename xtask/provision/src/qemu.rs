//! An emulator: this machine's own, or Debian's unpacked.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{Thing, bpf::multiarch, process::find};

const PROGRAM: &str = "qemu-system-x86_64";

pub enum Qemu {
    System(PathBuf),
    Unpacked(PathBuf),
}

impl Qemu {
    pub fn provide() -> Result<Self> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "the virtual machines are x86_64's only, so far: this machine has another CPU"
        );
        if let Some(program) = find(PROGRAM) {
            return Ok(Self::System(program));
        }
        Thing::Qemu.provide().map(Self::Unpacked).context("QEMU could not be had")
    }

    pub fn command(&self) -> Result<Command> {
        let dir = match self {
            Self::System(program) => return Ok(Command::new(program)),
            Self::Unpacked(dir) => dir,
        };
        let arch = multiarch()?;
        let mut command = Command::new(dir.join("usr/bin").join(PROGRAM));
        let places = ["usr/lib", "lib"].map(|lib| dir.join(lib).join(&arch));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(places)?);
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(dir.join(firmware));
        }
        Ok(command)
    }
}
