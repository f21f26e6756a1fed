//! The standard library and the C library of another machine, from Debian's packages for it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use ctwatch_provision::{
    Thing,
    cross::{GOES_WITH, goes_with},
    debian_rust::DebianRust,
    machine::Machine,
    process::output,
};

use super::{
    Of, Store,
    apt::{Apt, leave_out, summary},
    say,
};

/// What a static executable is linked with, besides GCC's own part.
const C_LIBRARY: [&str; 4] = ["libc6-dev", "libc6", "linux-libc-dev", "libgcc-s1"];

/// Nothing is compiled or linked with these.
const SPARED: [&str; 2] = ["usr/share", "usr/include"];

pub(super) fn provide(store: &Store, machine: Machine) -> Result<()> {
    // Before the lists are: whoever fetches it needs some too.
    let rust = DebianRust::provide()?;
    let version = rust.version()?;
    store.folder_where(
        &Thing::Cross(machine),
        Of::With(version.clone()),
        |folder| goes_with(folder, &version),
        |dir| unpack(store, &rust, &version, machine, dir),
    )
}

fn unpack(
    store: &Store,
    rust: &DebianRust,
    version: &str,
    machine: Machine,
    dir: &Path,
) -> Result<()> {
    let apt = Apt::of_machine(store, machine)?;
    let library = rust.library()?;
    let there = apt.versions(library)?;
    let fitting = fitting(&there, version).with_context(|| {
        let name = machine.debian();
        format!(
            "Debian has no {library} {version} for {name} (any more?): without \
             target/provision/debian-rust and its copy in the cache a newer rustc is fetched"
        )
    })?;
    let mut names = C_LIBRARY.map(str::to_owned).to_vec();
    // Of the compiler that Debian's release has.
    let of_gcc = |name: &String| name.starts_with("libgcc-") && name.ends_with("-dev");
    names.extend(apt.dependencies("gcc")?.into_iter().filter(of_gcc).take(1));
    let mut packages = apt.look_up(&names)?;
    packages.push(apt.look_up_version(library, fitting)?);
    say(&format!(
        "fetching what is linked into executables for {} from Debian, for target/ only: {}",
        machine.name(),
        summary(&packages)
    ));
    apt.unpack(&packages, dir)?;
    leave_out(dir, &SPARED)?;
    try_out(rust, machine, dir)?;
    fs::write(dir.join(GOES_WITH), version)?;
    Ok(())
}

/// The same version, or another package of the same sources: Debian's releases build them each.
fn fitting<'a>(versions: &'a [String], wanted: &str) -> Option<&'a str> {
    let sources = |version: &str| version.rsplit_once('-').map(|(sources, _)| sources.to_owned());
    let same = versions.iter().find(|version| *version == wanted);
    let same = same.or_else(|| versions.iter().find(|version| sources(version) == sources(wanted)));
    same.map(String::as_str)
}

/// That versions are alike does not say that rustc takes it.
fn try_out(rust: &DebianRust, machine: Machine, dir: &Path) -> Result<()> {
    let source = dir.join("fits.rs");
    fs::write(&source, "pub fn one() -> Vec<u8> { vec![1] }\n")?;
    let mut rustc = Command::new(rust.rustc());
    rustc.env("LD_LIBRARY_PATH", rust.libraries()?).arg("--sysroot").arg(dir.join("usr"));
    rustc.args(["--target", machine.target(), "--crate-type", "rlib", "--out-dir"]).arg(dir);
    output(rustc.arg(&source)).context("Debian's rustc and that standard library do not fit")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_of_the_same_sources_fits() {
        let versions = ["1.97.0+dfsg1-1", "1.96.0+dfsg1-1~deb13u1+b1"].map(str::to_owned);
        let wanted = "1.96.0+dfsg1-1~deb12u2";
        assert_eq!(fitting(&versions, wanted), Some("1.96.0+dfsg1-1~deb13u1+b1"));
        assert_eq!(fitting(&versions[..1], wanted), None);
        let versions = [wanted.to_owned(), versions[1].clone()];
        assert_eq!(fitting(&versions, wanted), Some(wanted));
    }
}
