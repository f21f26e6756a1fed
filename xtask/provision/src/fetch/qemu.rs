//! Debian's emulator, unpacked.

use anyhow::Result;
use ctwatch_provision::Thing;

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
        apt.unpack(&packages, dir)
    })
}
