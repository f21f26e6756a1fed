//! An emulator: this machine's own, or Debian's unpacked.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{Thing, bpf::multiarch, machine::Machine, process::find};

/// Runs a single program for armv7.
pub const USER: &str = "qemu-arm-static";

pub struct Qemu {
    /// The machine that it is.
    pub machine: Machine,
    /// Where it is unpacked; `None`: it is installed.
    dir: Option<PathBuf>,
}

impl Qemu {
    pub fn provide(machine: Machine) -> Result<Self> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "the virtual machines are on x86_64 only, so far: this machine has another CPU"
        );
        if find(program(machine)).is_some() {
            return Ok(Self { machine, dir: None });
        }
        let thing = if machine == Machine::X86_64 { Thing::Qemu } else { Thing::QemuArm };
        let dir = thing.provide().context("QEMU could not be had")?;
        Ok(Self { machine, dir: Some(dir) })
    }

    pub fn command(&self) -> Result<Command> {
        let program = program(self.machine);
        let Some(dir) = &self.dir else { return Ok(Command::new(program)) };
        let arch = multiarch()?;
        let mut command = Command::new(dir.join("usr/bin").join(program));
        let places = ["usr/lib", "lib"].map(|lib| dir.join(lib).join(&arch));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(places)?);
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(dir.join(firmware));
        }
        Ok(command)
    }
}

/// Where that is, which runs it on this machine's kernel.
pub fn user() -> Result<PathBuf> {
    if let Some(program) = find(USER) {
        return Ok(program);
    }
    let dir = Thing::QemuUser.provide().context("QEMU for single programs could not be had")?;
    Ok(dir.join("usr/bin").join(USER))
}

fn program(machine: Machine) -> &'static str {
    match machine {
        Machine::X86_64 => "qemu-system-x86_64",
        Machine::Aarch64 => "qemu-system-aarch64",
        Machine::Armv7 => "qemu-system-arm",
    }
}
