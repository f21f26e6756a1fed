//! Debian's emulator, unpacked.

use std::{fs, path::Path};

use anyhow::Result;
use ctwatch_provision::{Thing, qemu};

use super::{
    Of, Store,
    apt::{Apt, summary},
    say,
};

pub(super) fn provide(store: &Store, thing: &Thing, package: &str) -> Result<()> {
    store.folder(thing, Of::ThisMachine, |dir| {
        let apt = Apt::open(store)?;
        let packages = apt.look_up(&apt.missing_for(&[package])?)?;
        say(&format!("fetching QEMU from Debian, for target/ only: {}", summary(&packages)));
        apt.unpack(&packages, dir)?;
        if *thing == Thing::QemuUser {
            spare(&dir.join("usr/bin"))?;
        }
        Ok(())
    })
}

/// There is one for each CPU, each of some megabytes.
fn spare(programs: &Path) -> Result<()> {
    for program in fs::read_dir(programs)? {
        let program = program?;
        if program.file_name() != qemu::USER {
            fs::remove_file(program.path())?;
        }
    }
    Ok(())
}
