//! What runs in a virtual machine besides the tests: a shell and the programs they call, from
//! Debian's packages, complete with their own C library, so that it does not depend on this machine.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{Thing, bpf::multiarch, machine::Machine, tools::below};

pub struct Guest(PathBuf);

impl Guest {
    pub fn provide(machine: Machine) -> Result<Self> {
        Thing::Guest(machine).provide().map(Self)
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    /// One of its programs, to run on this machine, which the guest's must be like.
    pub fn command(&self, program: &str) -> Result<Command> {
        let arch = multiarch()?;
        let places = ["usr/lib", "lib"].map(|lib| self.0.join(lib).join(&arch));
        let dirs = ["sbin", "usr/sbin", "bin", "usr/bin"];
        let file = dirs.iter().find_map(|dir| below(&self.0, Path::new(dir).join(program)));
        let file = file.with_context(|| format!("no {program} among the guest's programs"))?;
        let libraries = fs::read_dir(self.0.join("lib").join(&arch))?.flatten();
        let loader = libraries
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"ld-")))
            .context("the guest has no dynamic loader")?;
        let mut command = Command::new(loader);
        // Programs that are many in one ask for the name they were called by.
        command.arg("--argv0").arg(program).arg("--library-path");
        command.arg(std::env::join_paths(places)?).arg(self.0.join(file));
        Ok(command)
    }
}
