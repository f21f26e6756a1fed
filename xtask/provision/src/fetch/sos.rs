//! sos as Debian has it, with what it needs besides Python: 1 MB, unpacked.

use std::path::Path;

use anyhow::{Context, Result};
use ctwatch_provision::{Thing, machine::Machine};

use super::{
    Of, Store,
    apt::{Apt, summary},
    say,
};

/// Before this suite, Debian's sos takes down nothing of conntrack's.
const SUITE: &str = "trixie";
/// Of this machine's Debian, as the Python of the owners is.
const NEEDED: [&str; 8] = [
    "python3-magic",
    "python3-packaging",
    "python3-pexpect",
    "python3-ptyprocess",
    "python3-yaml",
    "libmagic1",
    "libmagic-mgc",
    "libyaml-0-2",
];

pub(super) fn provide(store: &Store) -> Result<()> {
    store
        .folder(&Thing::Sos, Of::Itself, |dir| unpack(store, dir))
        .context("cannot fetch sos from Debian")
}

fn unpack(store: &Store, dir: &Path) -> Result<()> {
    let needed = NEEDED.map(str::to_owned);
    {
        let apt = Apt::open(store)?;
        let packages = apt.look_up(&needed)?;
        say(&format!(
            "fetching what sos needs from Debian, for target/ only: {}",
            summary(&packages)
        ));
        apt.unpack(&packages, dir)?;
    }
    let apt = Apt::of_kernels(store, Machine::of_this()?)?;
    let packages = apt.look_up_in(SUITE, &["sos".to_owned()])?;
    say(&format!("fetching sos from Debian's {SUITE}, for target/ only: {}", summary(&packages)));
    apt.unpack(&packages, dir)
}
