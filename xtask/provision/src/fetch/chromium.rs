//! Debian's browser, unpacked, with what it needs and this machine lacks.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};
use ctwatch_provision::{
    Thing,
    bpf::multiarch,
    chromium::{PROGRAM, WRAPPER},
};

use super::{
    Of, Store,
    apt::{Apt, leave_out, summary},
    say,
};

/// With letters to write with: a machine without a screen has none.
const PACKAGES: [&str; 3] = ["chromium", "chromium-common", "fonts-dejavu-core"];
/// Nobody reads these.
const SPARED: [&str; 3] = ["usr/share/doc", "usr/share/man", "usr/share/locale"];
/// A file of fontconfig's that finds the letters from where it is itself.
const FONTS: &str = "<?xml version=\"1.0\"?>\n<fontconfig>\n\
    <dir prefix=\"relative\">usr/share/fonts</dir>\n\
    <cachedir prefix=\"xdg\">fontconfig</cachedir>\n\
    </fontconfig>\n";

pub(super) fn provide(store: &Store) -> Result<()> {
    store
        .folder(&Thing::Chromium, Of::ThisMachine, |dir| unpack(store, dir))
        .context("cannot fetch Chromium from Debian")
}

fn unpack(store: &Store, dir: &Path) -> Result<()> {
    let apt = Apt::open(store)?;
    let packages = apt.look_up(&apt.missing_for(&PACKAGES)?)?;
    say(&format!("fetching Chromium from Debian, for target/ only: {}", summary(&packages)));
    apt.unpack(&packages, dir)?;
    leave_out(dir, &SPARED)?;
    ensure!(dir.join(PROGRAM).is_file(), "the package holds no {PROGRAM}");
    fs::write(dir.join("fonts.conf"), FONTS)?;
    // It finds all of it from where it is itself: the folder is renamed when it is whole. Sound and
    // keys are libraries of folders of their own, which those that need them name from the root.
    let arch = multiarch()?;
    let places = [
        format!("usr/lib/{arch}"),
        format!("lib/{arch}"),
        format!("usr/lib/{arch}/pulseaudio"),
        format!("usr/lib/{arch}/nss"),
    ];
    let places = places.map(|place| format!("$root/{place}")).join(":");
    let wrapper = dir.join(WRAPPER);
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\nroot=$(dirname \"$0\")\nexport LD_LIBRARY_PATH=\"{places}\"\n\
             export FONTCONFIG_FILE=\"$root/fonts.conf\"\nexec \"$root/{PROGRAM}\" \"$@\"\n"
        ),
    )?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
