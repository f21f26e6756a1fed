//! Debian's emulator, unpacked.

use anyhow::Result;
use ctwatch_provision::Thing;

use super::{
    Of, Store,
    apt::{Apt, summary},
    say,
};

const PACKAGE: &str = "qemu-system-x86";

pub(super) fn provide(store: &Store) -> Result<()> {
    store.folder(&Thing::Qemu, Of::ThisMachine, |dir| {
        let apt = Apt::open(store)?;
        let packages = apt.look_up(&apt.missing_for(&[PACKAGE])?)?;
        say(&format!("fetching QEMU from Debian, for target/ only: {}", summary(&packages)));
        apt.unpack(&packages, dir)
    })
}
